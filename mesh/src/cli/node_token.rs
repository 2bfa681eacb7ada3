//! `hawser node-token`: lets one node enrol once.

use super::{Outcome, print};
use crate::config::hub_yaml::HubConfig;
use crate::dial::Target;
use crate::hub::tokens::{Kept, seconds};
use crate::io::ca_store;
use crate::io::revoked_folder::is_node_revoked;
use crate::io::token_store::TokenStore;
use crate::record::check_name;
use crate::token::{MAX_HUBS, MAX_LIFE, Pin, Purpose, Secret, Token};
use clap::Args;
use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::{Duration, SystemTime};
use zeroize::Zeroizing;

#[derive(Debug, Args)]
pub(super) struct NodeTokenArgs {
    /// The hub's configuration. The token is kept in its state directory, so this runs beside a hub, as its user.
    #[arg(long, value_name = "FILE", default_value = "/etc/hawser/hub.yaml")]
    config: PathBuf,
    /// Where the node finds the hubs, in place of the file's `hubs`.
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    hubs: Vec<String>,
    /// How long it is good, at most 15m.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = super::ttl::parse)]
    ttl: Duration,
    /// The node's name. The token is good for no other.
    #[arg(value_name = "NAME")]
    name: String,
}

/// Makes a token, keeps its hash, and prints it.
pub(super) fn run(args: &NodeTokenArgs) -> Outcome {
    let token = make(args, SystemTime::now())?;
    let mut line = Zeroizing::new(String::with_capacity(crate::token::MAX_TEXT));
    line.push_str(&token.encode());
    line.push('\n');
    print(&line)
}

fn make(
    args: &NodeTokenArgs,
    now: SystemTime,
) -> Result<Token, Box<dyn std::error::Error + Send + Sync>> {
    let name = &args.name;
    check_name(name).map_err(|rule| format!("NAME: {name}: {rule}; give the node's name"))?;
    let config = HubConfig::load(&args.config, Some("dir:/"))?;
    if config.tls.is_some() {
        let path = args.config.display();
        return Err(format!("{path}: tls: brings certificates from elsewhere, so the hub issues none; remove the section, or issue the node's with `hawser ca node`").into());
    }
    let revoked = is_node_revoked(&config.state_directory, name);
    if revoked.map_err(|error| format!("revoked/own.json: cannot be read: {error}"))? {
        return Err(format!(
            "NAME: {name}: was revoked; let it in again first: `hawser readmit {name}`"
        )
        .into());
    }
    let hubs = if args.hubs.is_empty() {
        &config.hubs
    } else {
        &args.hubs
    };
    if !(1..=MAX_HUBS).contains(&hubs.len()) {
        let given = hubs.len();
        return Err(format!("--hubs: {given} given; must be 1 to {MAX_HUBS}, here or as hubs in {}; add where nodes find the hub as HOST:PORT", args.config.display()).into());
    }
    for hub in hubs {
        Target::from_str(hub).map_err(|rule| format!("--hubs: {hub}: {rule}; correct it"))?;
    }
    let cluster = &config.cluster.name;
    let own = ca_store::take(&config.state_directory, &config.clusterset, cluster);
    let own = own.map_err(|error| format!("{error} (the hub's first start makes it)"))?;
    let pin = Pin::of_ca(&own.pem).ok_or("the CA cannot be read")?;
    let secret = Secret::generate().map_err(|error| error.to_string())?;
    let expires = seconds(now) + args.ttl.min(MAX_LIFE).as_secs();
    let kept = Kept {
        purpose: Purpose::Node,
        name: name.clone(),
        expires,
        note: String::new(),
    };
    TokenStore::open(&config.state_directory)?.add(&secret.hash(), &kept)?;
    Ok(Token {
        purpose: Purpose::Node,
        clusterset: config.clusterset.clone(),
        cluster: cluster.clone(),
        name: name.clone(),
        hubs: hubs.clone(),
        pin,
        secret,
        expires: SystemTime::UNIX_EPOCH + Duration::from_secs(expires),
    })
}
