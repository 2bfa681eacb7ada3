//! `hawser invite`: has the hub make a token by which another cluster joins.

use super::hub_socket::HubSocket;
use super::{Outcome, print};
use crate::ca::show;
use crate::hub::admin::{Request, Wishes};
use crate::hub::manifest::QuotaLimits;
use clap::Args;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime};

#[derive(Debug, Args)]
pub(super) struct InviteArgs {
    #[command(flatten)]
    hub: HubSocket,
    /// The name of the cluster that is to join.
    name: String,
    #[command(flatten)]
    wishes: WishArgs,
    /// How long it is good, at most 15m.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = super::ttl::parse)]
    ttl: Duration,
}

/// What the other cluster may announce here, and what it is told of ours.
#[derive(Debug, Args)]
pub(super) struct WishArgs {
    /// The other cluster may announce of these namespaces only, as in shop,bank; left out: of all.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    namespaces: Option<Vec<String>>,
    /// How much it may announce, as in records=1000,changesPerSecond=100 (also bytes, burst); left out: as hub.yaml says.
    #[arg(long, value_name = "QUOTAS", value_parser = quota, default_value = "")]
    quota: QuotaLimits,
    /// Whom the other cluster revokes is cut off here, too.
    #[arg(long)]
    may_revoke: bool,
    /// Where it is told that this cluster's hubs are; left out: as hub.yaml says (hubs).
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    hubs: Vec<String>,
}

impl WishArgs {
    pub(super) fn wishes(&self) -> Wishes {
        Wishes {
            namespaces: self.namespaces.clone(),
            quotas: self.quota,
            may_revoke: self.may_revoke,
            hubs: self.hubs.clone(),
        }
    }
}

pub(super) fn run(args: &InviteArgs) -> Outcome {
    let request = Request::Invite {
        name: args.name.clone(),
        terms: args.wishes.wishes(),
        ttl: args.ttl.as_secs(),
    };
    let invited = args.hub.ask(&request, "invited")?;
    let token = invited["token"].as_str().ok_or("the hub told no token")?;
    print(&format!("{token}\n"))?;
    let expires = invited["expires"].as_u64().unwrap_or_default();
    let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(expires));
    let expires = show::time(expires.unwrap_or(SystemTime::UNIX_EPOCH));
    writeln!(
        io::stderr(),
        "This token is good once, until {expires}. Where a hub of {} runs: hawser join TOKEN",
        args.name
    )?;
    Ok(())
}

/// Reads `records=1000,burst=20`.
fn quota(text: &str) -> Result<QuotaLimits, String> {
    let mut quotas = QuotaLimits::default();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (name, value) = part
            .split_once('=')
            .ok_or_else(|| format!("{part}: must be NAME=NUMBER, as in records=1000"))?;
        let number: u64 = value
            .parse()
            .map_err(|_| format!("{name}: {value}: must be a number"))?;
        let small = || u32::try_from(number).map_err(|_| format!("{name}: {value}: is too large"));
        match name {
            "records" => quotas.records = Some(small()?),
            "bytes" => quotas.bytes = Some(number),
            "changesPerSecond" => quotas.changes_per_second = Some(small()?),
            "burst" => quotas.burst = Some(small()?),
            other => {
                return Err(format!(
                    "{other}: must be records, bytes, changesPerSecond or burst"
                ));
            }
        }
    }
    Ok(quotas)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read() {
        let read = quota("records=1000,bytes=5,changesPerSecond=20,burst=30").unwrap();
        assert_eq!(
            crate::join::table::quotas(&read),
            "records=1000,bytes=5,changesPerSecond=20,burst=30"
        );
        assert_eq!(quota(""), Ok(QuotaLimits::default()));
        for wrong in [
            "records",
            "records=x",
            "records=4294967296",
            "pods=1",
            "records=-1",
        ] {
            assert!(quota(wrong).is_err(), "{wrong}");
        }
    }
}
