//! Many peers: what a node with a crowd of them carries, and what it takes of memory and processor.

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

mod figures;
mod measurement;
mod site;
mod stream;

use measurement::Measurement;
use site::{Site, Size};

/// The bench of many peers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peers;

/// Traffic to a single peer; what is of the whole node belongs to [`ALL`].
const ONE: &str = "one";
/// Traffic to every active peer.
const ALL: &str = "all";

impl Bench for Peers {
    fn name(&self) -> &'static str {
        "peers"
    }

    fn scope(&self) -> Scope {
        Scope {
            variants: &[ONE, ALL],
            conditions: &site::NAMES,
            measurements: &measurement::NAMES,
            quick: [
                &[ONE, ALL],
                &site::NAMES,
                &[measurement::BURSTS, measurement::IDLE, measurement::MEMORY],
            ],
            lengths: [(5, 4), (4, 2)],
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
        let [hundred, many] = Size::ALL.map(|size| {
            format!(
                "| {} | {} peers configured, {} of them active |",
                size.name(),
                size.configured(),
                size.active()
            )
        });
        format!(
            "One node with one pod, in a network namespace, and a crowd of peers at the other end of a veth. Each of the \
             crowd is a data plane of its own out of the product's library, with key, socket and session of its own. \
             They answer handshakes and open one of {} bursts; the kernel drops the others in front of them, so that \
             what they cost is the same however many they are. What the node sent is counted behind its veth. Peers \
             that are not active have an endpoint where nobody answers.\n\
             \n\
             | condition | is |\n| --- | --- |\n{hundred}\n{many}\n\
             \n\
             | measurement | is |\n| --- | --- |\n\
             | {} | the pod sends UDP in runs of {} datagrams of {} bytes (`UDP_SEGMENT`) as fast as it can, each run to \
             the next peer, or all to one |\n\
             | {} | the same datagrams, each alone |\n\
             | {} | processor time of the node's processes while nothing is sent, for two and a half times as long |\n\
             | {} | most memory that the data plane ever had resident (VmHWM), after all that |\n",
            site::HEARD,
            measurement::BURSTS,
            stream::RUN,
            stream::SIZE,
            measurement::PACKETS,
            measurement::IDLE,
            measurement::MEMORY,
        )
    }

    fn missing(&self, series: &Series) -> Vec<&'static str> {
        figures::missing(series)
    }
}

/// All rounds with one crowd.
fn measure(size: Size, plan: &Plan, screen: &mut Screen<'_>, series: &mut Series) -> Result<()> {
    let named = plan.measurements.iter();
    let named = named.filter_map(|name| Measurement::named(name));
    let measurements: Vec<Measurement> = named.filter(|found| found.applies(size)).collect();
    if measurements.is_empty() {
        return Ok(());
    }
    let name = size.name();
    screen.say(&format!("{name}: building"))?;
    let mut site = Site::build(size)?;
    for round in 1..=plan.rounds {
        screen.say(&format!("{name}: round {round} of {}", plan.rounds))?;
        for measurement in &measurements {
            for variant in Plan::order(round - 1, &plan.variants) {
                if !measurement.is_of(variant) {
                    continue;
                }
                let told = format!("{:<8} {variant:<4}", measurement.name());
                let source = (name, measurement.name(), variant);
                take(source, round, &told, screen, series, || {
                    measurement.run(&mut site, variant, plan.seconds)
                })?;
            }
        }
    }
    screen.say(&format!("{name}: removing the lab"))?;
    site.remove()
}
