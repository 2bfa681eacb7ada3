//! Clusters that learn of each other: how fast, and what it takes of processor, memory and network.

use anyhow::{Context as _, Result};

use super::Bench;
use super::chart::Chart;
use super::figure::Figure;
use super::machine::version;
use super::plan::{Plan, Scope};
use super::sample::Series;
use super::screen::Screen;
use super::taken::take;
use crate::lab::binary;

mod agent_socket;
mod change_bytes;
mod changes;
mod churn;
mod cold;
mod far;
mod figures;
mod flood;
mod guest;
mod measurement;
mod population;
mod replica;
mod site;
mod size;
mod slow;
mod speaker;
mod wire_bytes;

use measurement::Measurement;
use site::Site;
use size::Size;

/// The bench of state.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sync;

/// There is nobody to compare with in a network namespace.
const VARIANT: &str = "hawser";

impl Bench for Sync {
    fn name(&self) -> &'static str {
        "sync"
    }

    fn scope(&self) -> Scope {
        Scope {
            variants: &[VARIANT],
            conditions: &size::NAMES,
            measurements: &measurement::NAMES,
            quick: [&[VARIANT], &[size::TEN], &measurement::NAMES],
            lengths: [(4, 10), (1, 3)],
        }
    }

    fn versions(&self, _plan: &Plan) -> Result<Vec<String>> {
        let programs = ["hawser-tunnel", "hawser"];
        programs
            .map(|program| version(&binary(program)?, "--version", program))
            .into_iter()
            .collect()
    }

    fn measure(&self, plan: &Plan, screen: &mut Screen<'_>) -> Result<Series> {
        let mut series = Series::default();
        for size in plan.conditions.iter().filter_map(|name| Size::named(name)) {
            measure(size, plan, screen, &mut series)
                .with_context(|| format!("condition {}", size.name()))?;
        }
        Ok(series)
    }

    fn figures(&self, series: &Series) -> Result<Vec<Figure>> {
        figures::figures(series)
    }

    fn charts(&self, _series: &Series) -> Vec<Chart> {
        Vec::new()
    }

    fn method(&self) -> String {
        let sizes = Size::ALL.map(|size| {
            let large = if size.backends() > 0 {
                format!(", one of them with a service of {} more", size.backends())
            } else {
                String::new()
            };
            format!(
                "| {} | {} clusters of {} nodes, {} endpoints in {} services, {} identities{large}: {} endpoints |\n",
                size.name(),
                size.clusters(),
                size.nodes(),
                size.endpoints(),
                size.services(),
                size.services(),
                size.all_endpoints(),
            )
        });
        format!(
            "One cluster under test, of three nodes in network namespaces: two of them have a hub, the third a data plane \
             and an agent that subscribes to all endpoints (`endpoints: all`). The second hub runs only while `{}` is \
             measured. The other clusters are one thread of the bench, in a namespace of its own on the same underlay: \
             each has a CA, a hub's certificate, a QUIC listener and the records that it owns, out of the product's \
             library, and answers the hub under test by the real protocol. An endpoint is one record, of a service; its \
             nodes have endpoints where nobody answers.\n\
             \n\
             | condition | is |\n| --- | --- |\n{}\
             \n\
             | measurement | is |\n| --- | --- |\n\
             | {} | the agent is stopped, what it kept is removed, and it is started again: from then until it says that \
             it has every origin in whole, at the origin's own version; and the bytes between it and hubs, IP headers \
             included |\n\
             | {} | {} endpoints a second become unready or ready, each of another cluster than the one before, no \
             endpoint twice: from the write in its cluster until the agent's own socket has told of it; processor time of \
             the processes meanwhile |\n\
             | {} | endpoints of the large service change one by one, {} a second: bytes between agent and hub, both ways \
             and IP headers included, less those of as long a time without changes, for each change |\n\
             | {} | {} pods come and go in another cluster that no service exports: bytes in messages from the hub to an \
             agent that asks for endpoints of services, until it hears of a change after them |\n\
             | {} | the same as `{}` beside {} more connections of agents of the same cluster that ask for all endpoints, \
             keep the connection alive and do not read: a third of them never, the others not after they have heard \
             everything once; memory that the hub has resident (VmRSS) then, less that before they connected |\n\
             | {} | the same as `{}` twice: the second time while one more cluster changes {} endpoints a second, which is far \
             more than its quota, and has used up what that allows at once; both times the others' changes alone, and of the second to the first; memory of the hub \
             (VmRSS) afterwards, less that before |\n\
             | {} | most memory that each process ever had resident (VmHWM), after all that |\n\
             | {} | there are two hubs, and the one that serves the agent is killed (SIGKILL): from then until the agent \
             says that it follows the other and has every origin in whole; its bytes until then and until it has heard \
             of a change after that, to those of `{}` in the same round |\n",
            measurement::REPLICA,
            sizes.concat(),
            measurement::COLD,
            measurement::CHANGES,
            changes::RATE,
            measurement::ONE_CHANGE,
            change_bytes::RATE,
            measurement::CHURN,
            churn::PODS,
            measurement::SLOW,
            measurement::CHANGES,
            slow::READERS,
            measurement::FLOOD,
            measurement::CHANGES,
            flood::RATE,
            measurement::MEMORY,
            measurement::REPLICA,
            measurement::COLD,
        )
    }

    fn missing(&self, series: &Series) -> Vec<&'static str> {
        figures::missing(series)
    }
}

/// All rounds in one size.
fn measure(size: Size, plan: &Plan, screen: &mut Screen<'_>, series: &mut Series) -> Result<()> {
    let named = plan.measurements.iter();
    let named = named.filter_map(|name| Measurement::named(name));
    let measurements: Vec<Measurement> = named.filter(|found| size.has(*found)).collect();
    if measurements.is_empty() {
        return Ok(());
    }
    let name = size.name();
    screen.say(&format!("{name}: building"))?;
    let mut site = Site::build(size)?;
    for round in 1..=plan.rounds {
        screen.say(&format!("{name}: round {round} of {}", plan.rounds))?;
        for measurement in &measurements {
            let told = format!("{:<10}", measurement.name());
            let source = (name, measurement.name(), VARIANT);
            take(source, round, &told, screen, series, || {
                measurement.run(&mut site, plan.seconds)
            })?;
        }
    }
    screen.say(&format!("{name}: removing the lab"))?;
    site.remove()
}
