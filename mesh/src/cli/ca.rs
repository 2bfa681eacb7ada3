//! `hawser ca`: a cluster's own CA, in a folder or with its hub.

use super::hub_socket::HubSocket;
use super::{Outcome, print};
use crate::ca::show::{self, Shown};
use crate::ca::{Ca, IssueError, Issued, MAX_DAYS, init};
use crate::hub::admin::Request;
use crate::io::new_file::write_all;
use crate::io::pem_file::{PemRule, Readers, text};
use clap::{Args, Subcommand};
use serde::Deserialize;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const DAY: u64 = 86_400;

#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Makes the CA of a cluster: ca.crt, which other clusters are given, and ca.key, which nobody is.
    Init(InitArgs),
    /// Makes a certificate of a hub's replica: tls.crt, tls.key, and the CA's ca.crt beside them.
    Hub(IssueArgs),
    /// Makes a certificate of a node's agent: tls.crt, tls.key, and the CA's ca.crt beside them.
    Node(IssueArgs),
    /// Has the hub make the next CA, which signs from now on. Members, nodes and joined clusters follow by themselves; the
    /// old one is trusted beside it until all that it signed has ended, a day and an hour at least.
    Roll(RollArgs),
    /// Trusts the old CA no longer from now on, before its time: when its key may have been stolen. A node that has no
    /// certificate of the new one yet needs another token.
    Retire(RollArgs),
    /// Shows what a certificate says.
    Show {
        /// A file with certificates in PEM.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct InitArgs {
    /// The cluster's name, a DNS label.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// The clusterset's name, a DNS name.
    #[arg(long, value_name = "NAME")]
    clusterset: String,
    /// Where ca.crt and ca.key are written. It is made where it is missing.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct IssueArgs {
    /// Where ca.crt and ca.key are.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The replica's or the node's name, a DNS name.
    #[arg(long, value_name = "NAME")]
    name: String,
    /// Where the files are written. It is made where it is missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long the certificate holds.
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_DAYS)))]
    days: u32,
}

#[derive(Debug, Args)]
pub(super) struct RollArgs {
    #[command(flatten)]
    hub: HubSocket,
}

/// How it stands with the CA of a hub.
#[derive(Debug, Deserialize)]
struct Rolled {
    ca: String,
    old: Option<String>,
    until: Option<u64>,
}

/// Does what was asked.
pub(super) fn run(command: &CaCommand) -> Outcome {
    let now = SystemTime::now();
    match command {
        CaCommand::Init(args) => {
            let ca = init(&args.clusterset, &args.cluster, now)?;
            let files = [(CA_KEY, ca.key.as_str()), (CA_CERTIFICATE, &ca.certificate)];
            Ok(write_all(&args.dir, &files)?)
        }
        CaCommand::Hub(args) => issue(args, |ca, life| ca.hub(&args.name, life, now)),
        CaCommand::Node(args) => issue(args, |ca, life| ca.node(&args.name, life, now)),
        CaCommand::Roll(args) => ask(args, &Request::RollCa {}, "rolled"),
        CaCommand::Retire(args) => ask(args, &Request::RetireCa {}, "retired"),
        CaCommand::Show { file } => {
            let shown = show::all_of_pem(&read(file, Readers::Any)?);
            let shown = shown.ok_or_else(|| {
                format!(
                    "{}: must hold certificates in PEM (BEGIN CERTIFICATE); correct the path",
                    file.display()
                )
            })?;
            print(&description(&shown, now)?)
        }
    }
}

fn ask(args: &RollArgs, request: &Request, part: &str) -> Outcome {
    let rolled: Rolled = serde_json::from_value(args.hub.ask(request, part)?)?;
    print(&told(&rolled))
}

fn told(rolled: &Rolled) -> String {
    let mut text = format!("the CA that signs    SHA256:{}\n", rolled.ca);
    if let (Some(old), Some(until)) = (&rolled.old, rolled.until) {
        let until = show::time(SystemTime::UNIX_EPOCH + Duration::from_secs(until));
        let _ = writeln!(text, "trusted until then   SHA256:{old}  {until}");
    }
    text
}

fn issue(
    args: &IssueArgs,
    issue: impl FnOnce(&Ca, Duration) -> Result<Issued, IssueError>,
) -> Outcome {
    let certificate = read(&args.dir.join(CA_CERTIFICATE), Readers::Any)?;
    let key = read(&args.dir.join(CA_KEY), Readers::Owner)?;
    let ca = Ca::from_pem(&certificate, &key)
        .map_err(|error| format!("--dir: {}: {error}", args.dir.display()))?;
    let life = Duration::from_secs(u64::from(args.days) * DAY);
    let issued = issue(&ca, life)?;
    let files = [
        (KEY, issued.key.as_str()),
        (CERTIFICATE, &issued.certificate),
        (CA_CERTIFICATE, &certificate),
    ];
    Ok(write_all(&args.out, &files)?)
}

fn read(path: &Path, readers: Readers) -> Result<Zeroizing<String>, PemFileError> {
    text(path, readers).map_err(|rule| PemFileError {
        path: path.to_owned(),
        rule,
    })
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {rule}", path.display())]
struct PemFileError {
    path: PathBuf,
    rule: PemRule,
}

fn description(certificates: &[Shown], now: SystemTime) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for shown in certificates {
        let kind = if shown.is_ca { "CA" } else { "certificate" };
        let state = match (now < shown.not_before, now > shown.not_after) {
            (true, _) => "not yet valid",
            (_, true) => "expired",
            (false, false) => "valid",
        };
        writeln!(text, "{kind:12}{}", shown.uris.join(" "))?;
        writeln!(text, "{:12}{}", "issuer", shown.issuer)?;
        let (from, until) = (show::time(shown.not_before), show::time(shown.not_after));
        writeln!(text, "{:12}{from} to {until}, {state}", "holds")?;
    }
    Ok(text)
}
