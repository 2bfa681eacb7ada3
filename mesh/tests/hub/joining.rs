//! Clusters join by invitation: `hawser invite`, `join`, `leave` and `clusters` as processes, against real hubs, each
//! with a CA of its own.

use crate::agent::{Agent, count};
use crate::site::{Hub, Site, until};
use hawser_mesh::record::Kind;
use hawser_mesh::token::{Pin, Purpose, Secret, Token};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

/// Runs `hawser` with a hub's state directory; nobody sits there.
fn hawser(site: &Site, words: &[&str], stdin: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hawser"))
        .args(words)
        .arg("--hub")
        .arg(site.path("state"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that fails early does not read.
    let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
    child.wait_with_output().unwrap()
}

fn done(output: Output) -> String {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// The one line that says why nothing was done.
fn refused(output: Output) -> String {
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

fn invite(site: &Site, name: &str, more: &[&str]) -> String {
    let output = hawser(site, &[&["invite", name], more].concat(), "");
    done(output).trim_end().to_owned()
}

fn join(site: &Site, token: &str, more: &[&str]) -> Output {
    hawser(site, &[&["join", "-", "--yes"], more].concat(), token)
}

/// What the hub of a site says of the others.
fn clusters(site: &Site) -> Vec<Value> {
    let told = done(hawser(site, &["clusters", "list", "-o", "json"], ""));
    serde_json::from_str(&told).unwrap()
}

fn names(site: &Site) -> Vec<String> {
    let clusters = clusters(site);
    let names = clusters.iter();
    names
        .map(|c| c["name"].as_str().unwrap().to_owned())
        .collect()
}

/// Waits until all clusters that a site knows are connected.
fn connected(site: &Site, hub: &Hub, expected: &[&str]) {
    until("the clusters are connected", || {
        let all = clusters(site);
        let fits = all.len() == expected.len()
            && all.iter().all(|c| {
                c["state"] == "connected" && expected.contains(&c["name"].as_str().unwrap())
            });
        assert!(hub.try_status().is_some(), "{}", hub.log());
        fits.then_some(())
    });
}

/// Nothing that joining would have written.
fn untouched(site: &Site) {
    assert_eq!(names(site), [""; 0]);
    let peers = fs::read_dir(site.path("state/peers")).unwrap();
    let peers: Vec<_> = peers.map(|entry| entry.unwrap().file_name()).collect();
    assert!(peers.iter().all(|name| name == ".lock"), "{peers:?}");
}

fn pods(site: &Site) {
    site.nodes();
    site.pod("web-1", "web", 11);
    site.service("web-1", 11);
}

#[tokio::test]
async fn two_clusters_join_by_invitation_and_know_each_others_pods() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    pods(&east);
    pods(&west);
    let (east_hub, west_hub) = (east.start(0), west.start(0));
    let token = invite(
        &east,
        "west",
        &["--namespaces", "shop", "--quota", "records=1000"],
    );
    let screen = done(join(&west, &token, &["--namespaces", "shop,bank"]));
    for line in [
        "west and east of clusterset set.example take each other in:",
        " CLUSTER        west (here)",
        " POD CIDRS      10.2.0.0/16",
        " MAY ANNOUNCE   shop",
        " QUOTAS         records=1000",
        "west and east are members of each other.",
    ] {
        assert!(screen.contains(line), "{line}: {screen}");
    }
    connected(&east, &east_hub, &["west"]);
    connected(&west, &west_hub, &["east"]);
    let (of_east, of_west) = (&clusters(&west)[0], &clusters(&east)[0]);
    assert_eq!(of_west["namespaces"], json!(["shop"]));
    assert_eq!(of_west["quotas"]["records"], 1000);
    assert_eq!(of_west["podCidrs"], json!(["10.2.0.0/16"]));
    assert_eq!(of_west["hubs"], json!([west.address(0).to_string()]));
    assert_eq!(of_west["from"], "joined");
    assert_eq!(of_east["namespaces"], json!(["bank", "shop"]));
    let pin = Pin::of_ca(&east.root.certificate).unwrap();
    assert_eq!(of_east["ca"], json!([format!("SHA256:{pin}")]));
    for (site, other) in [(&east, 2), (&west, 1)] {
        let mut agent = Agent::new();
        agent.connect(site, 0).await;
        agent
            .until("the other's pods are known", |replica| {
                count(replica, other, Kind::Node) == 2 && count(replica, other, Kind::Endpoint) == 2
            })
            .await;
    }
    // It is so after a restart, with the source unchanged.
    east_hub.stop();
    let east_hub = east.start(0);
    connected(&east, &east_hub, &["west"]);
    let shown = done(hawser(&east, &["clusters", "show", "west"], ""));
    assert!(shown.contains("from          joined\n"), "{shown}");
}

#[test]
fn three_clusters_join_one_after_the_other() {
    let sites = [
        Site::new("east", 1),
        Site::new("west", 2),
        Site::new("south", 3),
    ];
    let hubs = sites.each_ref().map(|site| {
        site.nodes();
        site.start(0)
    });
    let [east, west, south] = &sites;
    for (inviter, joiner) in [(east, west), (east, south), (west, south)] {
        let token = invite(inviter, joiner.name, &[]);
        done(join(joiner, &token, &[]));
    }
    connected(east, &hubs[0], &["south", "west"]);
    connected(west, &hubs[1], &["east", "south"]);
    connected(south, &hubs[2], &["east", "west"]);
    // Nor does one of them give way to a fourth that takes its name or prefixes.
    let token = invite(east, "north", &[]);
    let north = Site::new("north", 3);
    north.nodes();
    let _hub = north.start(0);
    let told = refused(join(&north, &token, &[]));
    assert!(
        told.contains("cluster.id: 3 of north: is also the id of south, as east knows it"),
        "{told}"
    );
    connected(east, &hubs[0], &["south", "west"]);
}

#[test]
fn a_token_that_is_not_good_is_refused_by_name_and_nothing_changes() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    let (south, thief) = (Site::new("south", 3), Site::new("west", 2));
    let sites = [&east, &west, &south, &thief];
    let _hubs = sites.map(|site| {
        site.nodes();
        site.start(0)
    });
    let token = invite(&east, "west", &[]);
    let parsed = || Token::parse_for(Purpose::Cluster, &token).unwrap();
    let changed = |change: &dyn Fn(&mut Token)| {
        let mut token = parsed();
        change(&mut token);
        token.encode().to_string()
    };
    let over = |token: &mut Token| token.expires = SystemTime::now() - Duration::from_secs(5);
    let cases = [
        (&west, token[..token.len() - 1].to_owned(), "token_checksum"),
        (&west, token[..40].to_owned(), "token_truncated"),
        (&west, format!("\u{201c}{token}\u{201d}"), "token_alphabet"),
        (
            &west,
            token.replace("hawser-join", "hawser-node"),
            "token_checksum",
        ),
        (&west, "hello".to_owned(), "token_prefix"),
        (&west, String::new(), "token_missing"),
        (
            &west,
            changed(&|t| t.purpose = Purpose::Node),
            "token_purpose",
        ),
        (&west, changed(&over), "token_expired"),
        (&south, token.clone(), "token_name"),
        (
            &south,
            changed(&|t| t.name = "south".to_owned()),
            "token_name",
        ),
        (
            &west,
            changed(&|t| t.secret = Secret::generate().unwrap()),
            "token_unknown",
        ),
        (
            &west,
            changed(&|t| t.pin = Pin::of_public_key(b"other")),
            "pin_other",
        ),
        (
            &west,
            changed(&|t| t.cluster = "north".to_owned()),
            "cluster_unknown",
        ),
        (
            &west,
            changed(&|t| t.clusterset = "other.example".to_owned()),
            "clusterset_other",
        ),
    ];
    for (site, text, reason) in cases {
        let told = refused(join(site, &text, &[]));
        assert!(told.contains(reason), "{reason}: {told}");
        assert!(
            !told.contains(token.split('.').nth(1).unwrap()),
            "never echoed: {told}"
        );
        untouched(&east);
        untouched(site);
    }
    // Nothing of that used it up.
    done(join(&west, &token, &[]));
    // Another cluster of the same name cannot use it after that, and the one that did, can.
    let told = refused(join(&thief, &token, &[]));
    assert!(told.contains("[token_used]"), "{told}");
    untouched(&thief);
    done(join(&west, &token, &[]));
    assert_eq!(clusters(&east).len(), 1);
}

#[test]
fn a_token_is_over_after_its_time() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    let sites = [&east, &west];
    let _hubs = sites.map(|site| {
        site.nodes();
        site.start(0)
    });
    let token = invite(&east, "west", &["--ttl", "1s"]);
    // In whole seconds: a second longer.
    let over = Token::parse(&token).unwrap().expires + Duration::from_secs(1);
    until("the token is over", || {
        (SystemTime::now() > over).then_some(())
    });
    // The joiner's hub says so by its own clock, and the inviter's where that one does not.
    let mut longer = Token::parse(&token).unwrap();
    longer.expires += Duration::from_secs(600);
    for token in [&*token, &longer.encode()] {
        let told = refused(join(&west, token, &[]));
        assert!(told.ends_with("[token_expired]"), "{told}");
    }
    untouched(&east);
    untouched(&west);
}

#[test]
fn of_many_that_show_one_token_at_once_exactly_one_joins() {
    let east = Site::new("east", 1);
    east.nodes();
    // Two replicas answer them.
    let (_writer, _follower) = (east.start(0), east.start(1));
    let racers: Vec<Site> = (0..4).map(|_| Site::new("west", 2)).collect();
    let _hubs: Vec<Hub> = racers.iter().map(|racer| racer.start(0)).collect();
    for round in 0..3 {
        let hubs = [
            east.address(round % 2).to_string(),
            east.address((round + 1) % 2).to_string(),
        ];
        let token = invite(&east, "west", &["--hubs", &hubs.join(",")]);
        let outputs: Vec<Output> = std::thread::scope(|scope| {
            let races: Vec<_> = racers
                .iter()
                .map(|racer| scope.spawn(|| join(racer, &token, &[])))
                .collect();
            races.into_iter().map(|race| race.join().unwrap()).collect()
        });
        let (won, lost): (Vec<_>, Vec<_>) = outputs
            .into_iter()
            .zip(&racers)
            .partition(|(output, _)| output.status.success());
        assert_eq!(
            won.len(),
            1,
            "{lost:?}",
            lost = lost.iter().map(|(o, _)| o).collect::<Vec<_>>()
        );
        let (_, winner) = won[0];
        for (output, loser) in lost {
            let told = refused(output);
            assert!(told.ends_with("[token_used]"), "{told}");
            untouched(loser);
        }
        let pin = Pin::of_ca(&winner.root.certificate).unwrap();
        assert_eq!(clusters(&east)[0]["ca"], json!([format!("SHA256:{pin}")]));
        done(hawser(&east, &["leave", "west"], ""));
        done(hawser(winner, &["leave", "east"], ""));
    }
}

#[test]
fn clusters_that_cannot_meet_are_told_both_values_before_anything_changes() {
    let east = Site::new("east", 1);
    let sites = [
        (
            "id_taken",
            Site::new("west", 1),
            "cluster.id: 1 of west: is also the id of east",
        ),
        (
            "clusterset_other",
            Site::of("other.example", "west", 2),
            "clusterset.name: set.example of east: is other.example in west",
        ),
        (
            "prefix_taken",
            Site::new("west", 2),
            "podCidrs: 10.1.128.0/17 of west: overlaps 10.1.0.0/16 of east, as east knows it",
        ),
        (
            "network_id_other",
            Site::new("west", 3),
            "clusterset.vni: 7 of west: is 1 in east",
        ),
    ];
    east.nodes();
    let east_hub = east.start(0);
    let told = refused(hawser(&east, &["invite", "east"], ""));
    assert!(told.ends_with("[cluster_itself]"), "{told}");
    for (reason, site, told) in &sites {
        let yaml = site.yaml(0);
        let yaml = match *reason {
            "prefix_taken" => yaml.replace("10.2.0.0/16", "10.1.128.0/17"),
            "network_id_other" => yaml.replace("set.example}", "set.example, vni: 7}"),
            _ => yaml,
        };
        fs::write(site.config(0), yaml).unwrap();
        let _hub = site.start(0);
        let output = join(site, &invite(&east, site.name, &[]), &[]);
        let line = refused(output);
        assert!(line.contains(told), "{line}");
        assert!(line.ends_with(&format!("[{reason}]")), "{line}");
        untouched(site);
        untouched(&east);
        assert_eq!(east_hub.status()["source"]["complaints"], json!([]));
    }
}

#[test]
fn who_is_not_asked_cannot_agree() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    let _hubs = [&east, &west].map(|site| {
        site.nodes();
        site.start(0)
    });
    let token = invite(&east, "west", &[]);
    let output = hawser(&west, &["join", &token], "y\n");
    assert!(String::from_utf8_lossy(&output.stdout).contains("MAY ANNOUNCE"));
    let told = refused(output);
    assert!(
        told.starts_with("error: --yes: is missing, and standard input is no terminal"),
        "{told}"
    );
    untouched(&east);
    untouched(&west);
    // By a file that others may read neither.
    let file = west.path("token");
    fs::write(&file, &token).unwrap();
    let from_file = || {
        hawser(
            &west,
            &["join", "--yes", "--file", file.to_str().unwrap()],
            "",
        )
    };
    assert!(refused(from_file()).contains("has mode 0644"));
    assert!(
        Command::new("chmod")
            .arg("600")
            .arg(&file)
            .status()
            .unwrap()
            .success()
    );
    done(from_file());
    assert_eq!(names(&west), ["east"]);
}

#[test]
fn what_ended_between_the_two_sides_is_finished_by_the_same_token() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    let (east_hub, west_hub) = (east.start(0), west.start(0));
    let token = invite(&east, "west", &[]);
    // West cannot write when east has.
    let obstacle = west.path("state/peers/east.yaml");
    fs::create_dir(&obstacle).unwrap();
    let told = refused(join(&west, &token, &[]));
    assert!(told.ends_with("[state_unusable]"), "{told}");
    assert_eq!(
        (names(&east), names(&west)),
        (vec!["west".to_owned()], vec![])
    );
    west_hub.kill();
    fs::remove_dir(&obstacle).unwrap();
    let west_hub = west.start(0);
    // East dies between using up the token and writing.
    fs::remove_file(east.path("state/peers/west.yaml")).unwrap();
    until("east has forgotten", || {
        clusters(&east).is_empty().then_some(())
    });
    done(join(&west, &token, &[]));
    connected(&east, &east_hub, &["west"]);
    connected(&west, &west_hub, &["east"]);
}

#[test]
fn a_cluster_that_left_is_forgotten_and_its_token_brings_it_back_no_more() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    east.nodes();
    west.nodes();
    let (east_hub, west_hub) = (east.start(0), west.start(0));
    let token = invite(&east, "west", &[]);
    done(join(&west, &token, &[]));
    connected(&east, &east_hub, &["west"]);
    connected(&west, &west_hub, &["east"]);
    done(hawser(&east, &["leave", "west"], ""));
    assert_eq!(names(&east), [""; 0]);
    until("its records are gone", || {
        east_hub.origin(2).is_none().then_some(())
    });
    until("west is cut off", || {
        (clusters(&west)[0]["state"] == "away").then_some(())
    });
    let told = refused(hawser(&east, &["leave", "west"], ""));
    assert!(told.ends_with("[not_joined]"), "{told}");
    let told = refused(join(&west, &token, &[]));
    assert!(told.ends_with("[token_unknown]"), "{told}");
    assert_eq!(names(&east), [""; 0]);
    // Somebody invites it again.
    done(join(&west, &invite(&east, "west", &[]), &[]));
    connected(&east, &east_hub, &["west"]);
    connected(&west, &west_hub, &["east"]);
}

/// Everything of a cluster but where it comes from and what changes by itself.
fn lasting(mut cluster: Value) -> Value {
    for changing in ["heardSeconds", "from"] {
        cluster.as_object_mut().unwrap().remove(changing);
    }
    cluster
}

#[test]
fn manifests_on_both_sides_give_what_joining_gives() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    pods(&east);
    pods(&west);
    let (east_hub, west_hub) = (east.start(0), west.start(0));
    let hubs = |site: &Site| [0, 1].map(|hub| site.address(hub).to_string()).join(",");
    let token = invite(&east, "west", &["--hubs", &hubs(&east)]);
    done(join(&west, &token, &["--hubs", &hubs(&west)]));
    let states = || {
        connected(&east, &east_hub, &["west"]);
        connected(&west, &west_hub, &["east"]);
        let digests = |hub: &Hub| {
            let all = hub.digests();
            (all.len() == 2).then_some(all)
        };
        let equal = until("both have the same", || {
            let (east, west) = (digests(&east_hub)?, digests(&west_hub)?);
            (east == west).then_some(east)
        });
        let told = [&east, &west].map(|site| lasting(clusters(site)[0].clone()));
        (equal, told)
    };
    let joined = states();
    let full = |state: &(_, [Value; 2])| state.1.iter().all(|c| c["records"].as_u64() >= Some(5));
    assert!(full(&joined), "{joined:?}");
    // A manifest takes the place of what joined.
    let declared = |site: &Site, other: &Site| {
        site.knows(other);
        until("the manifest counts", || {
            (clusters(site)[0]["from"] == "manifest").then_some(())
        });
    };
    declared(&east, &west);
    let complaint = "peers/west.yaml: ClusterPeer west is in the source too, which is taken; remove that, or `hawser \
                     leave west`";
    east_hub.until("it is told of", |status| {
        status["source"]["complaints"] == json!([complaint])
    });
    done(hawser(&east, &["leave", "west"], ""));
    assert_eq!(names(&east), ["west"]);
    let told = refused(hawser(&east, &["leave", "west"], ""));
    assert!(told.ends_with("[peer_declared]"), "{told}");
    declared(&west, &east);
    done(hawser(&west, &["leave", "east"], ""));
    assert_eq!(clusters(&west)[0]["from"], "manifest");
    assert_eq!(states(), joined);
    // Where a manifest speaks of a cluster, nobody joins.
    let told = refused(hawser(&east, &["invite", "west"], ""));
    assert!(told.ends_with("[peer_declared]"), "{told}");
}

#[test]
fn a_hub_that_is_not_there_is_told_of_in_a_line() {
    let east = Site::new("east", 1);
    for words in [
        &["clusters", "list"][..],
        &["invite", "west"],
        &["leave", "west"],
    ] {
        let told = refused(hawser(&east, words, ""));
        assert!(told.contains("no hub answers there"), "{told}");
    }
    let _hub = east.start(0);
    assert_eq!(
        done(hawser(&east, &["clusters", "list"], "")),
        "no other cluster is known\n"
    );
    for (words, told) in [
        (
            &["clusters", "show", "west"][..],
            "NAME: west: is no cluster here; known are: none",
        ),
        (&["invite", "West"], "NAME: West: must be a DNS label"),
        (
            &["invite", "west", "--hubs", "nowhere"],
            "--hubs: nowhere: must be HOST:PORT",
        ),
        (
            &["invite", "west", "--namespaces", "No"],
            "namespaces: No: must be a DNS label",
        ),
    ] {
        let line = refused(hawser(&east, words, ""));
        assert!(line.contains(told), "{line}");
    }
}

#[test]
fn hubs_that_made_their_own_cas_join_without_any_file_being_carried_about() {
    let (east, west) = (Site::new("east", 1), Site::new("west", 2));
    let hubs = [&east, &west].map(|site| {
        site.nodes();
        let yaml = site.yaml(0);
        let (yaml, _) = yaml.split_once("tls:").unwrap();
        fs::write(site.config(0), format!("{yaml}name: hub-1\n")).unwrap();
        site.start(0)
    });
    let token = invite(&east, "west", &[]);
    done(join(&west, &token, &[]));
    connected(&east, &hubs[0], &["west"]);
    connected(&west, &hubs[1], &["east"]);
    let own = fs::read_to_string(west.path("state/ca/ca.crt")).unwrap();
    let pin = Pin::of_ca(&own).unwrap();
    assert_eq!(clusters(&east)[0]["ca"], json!([format!("SHA256:{pin}")]));
}
