//! Hubs that are their own CA: what they make, who gets a certificate of them, and who does not.

use crate::mangle::{Dice, mangled};
use crate::site::{CLUSTERSET, LONG, Site, hawser_hub, until};
use bytes::Bytes;
use hawser_mesh::ca::csr::{Csr, new_key, request_of};
use hawser_mesh::ca::show;
use hawser_mesh::enrol::certified::Certified;
use hawser_mesh::enrol::message::{Answer, NodeRequest, Request};
use hawser_mesh::io::quic::{AskCheck, Tls, ask, connect};
use hawser_mesh::token::{Pin, Purpose, Secret, Token};
use hawser_mesh::trust::{Expected, PeerId, Pinned};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Output};
use std::time::Duration;

/// Malformed requests; the first quarter is for the memory that a hub takes once.
const REQUESTS: u64 = 1_000;

/// A cluster whose hubs have no certificates but those that they make.
fn site() -> Site {
    let site = Site::new("east", 1);
    for hub in 0..2 {
        let yaml = site.yaml(hub);
        let (before, _) = yaml.split_once("tls:").unwrap();
        let hubs = [0, 1].map(|hub| format!("\"{}\"", site.address(hub)));
        let text = format!(
            "{before}name: hub-{}\nhubs: [{}]\n",
            hub + 1,
            hubs.join(", ")
        );
        fs::write(site.config(hub), text).unwrap();
    }
    site.nodes();
    site
}

fn node_token(site: &Site, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hawser"));
    command.args(["node-token", "--config"]).arg(site.config(0));
    command.args(more).output().unwrap()
}

fn token(site: &Site, more: &[&str]) -> Token {
    let output = node_token(site, more);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && error.is_empty(), "{error}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().count(), 1);
    Token::parse_for(Purpose::Node, &text).unwrap()
}

fn complaint(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end().to_owned()
}

fn pinned(token: &Token) -> AskCheck {
    AskCheck::Pinned(Pinned {
        pin: token.pin,
        clusterset: token.clusterset.clone(),
        cluster: token.cluster.clone(),
    })
}

async fn asked(hubs: &[String], check: AskCheck, request: &Request) -> Answer {
    let request = Bytes::copy_from_slice(&request.encode());
    let answered = tokio::time::timeout(LONG, ask(hubs, check, request)).await;
    Answer::decode(&answered.unwrap().unwrap().answer).unwrap()
}

async fn enrol(token: &Token, name: &str, key: &str) -> Answer {
    let request = Request::Node(NodeRequest {
        secret: token.secret.clone(),
        name: name.to_owned(),
        csr: request_of(key).unwrap(),
    });
    asked(&token.hubs, pinned(token), &request).await
}

fn certified(answer: Answer, name: &str, key: &str) -> Certified {
    let Answer::Certificate { chain, ca } = answer else {
        panic!("{answer:?}")
    };
    let certified = Certified::read(&chain, key, &ca, &PeerId::node("east", name)).unwrap();
    certified
        .verify(&chain, std::time::SystemTime::now())
        .unwrap();
    certified
}

fn refused(answer: &Answer) -> &str {
    let Answer::Refused { name, text } = answer else {
        panic!("{answer:?}")
    };
    assert!(!text.is_empty() && !text.contains('\n'));
    name
}

#[tokio::test]
async fn a_node_gets_its_certificate_by_a_token_once() {
    let site = site();
    let hub = site.start(0);
    let token_1 = token(&site, &["n1"]);
    assert_eq!(
        (token_1.clusterset.as_str(), token_1.name.as_str()),
        (CLUSTERSET, "n1")
    );
    let (key, other) = (new_key().unwrap(), new_key().unwrap());

    // Whoever is refused has not used it up.
    assert_eq!(refused(&enrol(&token_1, "n2", &key).await), "token_name");
    let own = certified(enrol(&token_1, "n1", &key).await, "n1", &key);
    assert_eq!(refused(&enrol(&token_1, "n1", &other).await), "token_used");
    // The answer may have been lost: the same key gets another.
    certified(enrol(&token_1, "n1", &key).await, "n1", &key);

    // It opens a connection.
    let tls = Tls::new(own.credentials.clone(), own.trust.clone());
    let expected = Expected::HubOf("east".to_owned());
    let connection = connect(site.address(0), &tls, expected).await.unwrap();
    hub.until("the node is connected", |status| {
        status["sessions"][0]["name"] == "n1"
    });
    drop(connection);

    let never = Token {
        secret: Secret::generate().unwrap(),
        ..token_1.clone()
    };
    assert_eq!(refused(&enrol(&never, "n1", &key).await), "token_unknown");
    let short = token(&site, &["--ttl", "1s", "n2"]);
    tokio::time::timeout(LONG, async {
        while std::time::SystemTime::now() <= short.expires + Duration::from_secs(1) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(refused(&enrol(&short, "n2", &key).await), "token_expired");

    let garbage = ask(&token_1.hubs, pinned(&token_1), Bytes::from_static(b"\xff")).await;
    let answer = Answer::decode(&garbage.unwrap().answer).unwrap();
    assert_eq!(refused(&answer), "enrol_malformed");
    let status = hub.status();
    for name in [
        "token_name",
        "token_used",
        "token_unknown",
        "token_expired",
        "enrol_malformed",
    ] {
        assert_eq!(status["handshakes"][name], 1, "{name}: {status}");
    }
    // Neither secret nor token is anywhere in what the hub keeps or says.
    assert!(!hub.log().contains("hawser-node."));
}

/// What a node's request comes to: whose name, by which token, for which key. A newer field, or what a signing request says
/// beside its key, makes no other request of it.
fn meaning(bytes: &[u8]) -> Option<(Secret, String, String)> {
    let Ok(Request::Node(node)) = Request::decode(bytes) else {
        return None;
    };
    let csr = Csr::parse(&node.csr).ok()?;
    Some((node.secret, node.name, csr.fingerprint()))
}

/// Requests that are nearly right, with a token that is good: section 4 of the bad inputs.
#[tokio::test]
async fn a_thousand_malformed_requests_get_nothing_and_use_nothing_up() {
    let site = site();
    let hub = site.start(0);
    let token = token(&site, &["n1"]);
    let key = new_key().unwrap();
    let good = Request::Node(NodeRequest {
        secret: token.secret.clone(),
        name: "n1".to_owned(),
        csr: request_of(&key).unwrap(),
    });
    let mut dice = Dice(11);
    let (mut names, mut before) = (BTreeMap::<String, u64>::new(), 0);
    for number in 0..REQUESTS {
        if number == REQUESTS / 4 {
            before = hub.resident();
        }
        let bytes = loop {
            let bytes = mangled(&good.encode(), &mut dice);
            if meaning(&bytes).is_none_or(|it| Some(it) != meaning(&good.encode())) {
                break bytes;
            }
        };
        let answered = ask(&token.hubs, pinned(&token), Bytes::from(bytes)).await;
        let answer = Answer::decode(&answered.unwrap().answer).unwrap();
        *names.entry(refused(&answer).to_owned()).or_default() += 1;
    }
    let after = hub.resident();
    println!("{REQUESTS} requests: {names:?}; {before} then {after} bytes resident");
    let status = hub.status();
    for (name, count) in &names {
        assert_eq!(status["handshakes"][name], *count, "{name}: {status}");
    }
    assert!(names.len() >= 4, "{names:?}");
    assert!(after <= before + (4 << 20), "{before} then {after} bytes");
    certified(enrol(&token, "n1", &key).await, "n1", &key);
}

#[tokio::test]
async fn a_node_renews_by_its_certificate_as_long_as_the_cluster_has_it() {
    let site = site();
    let hub = site.start(0);
    let key = new_key().unwrap();
    let own = certified(enrol(&token(&site, &["n1"]), "n1", &key).await, "n1", &key);
    let hubs = [site.address(0).to_string()];
    let renew = Request::Renew {
        csr: request_of(&key).unwrap(),
    };
    let known = || AskCheck::Known(Tls::new(own.credentials.clone(), own.trust.clone()));
    let next = certified(asked(&hubs, known(), &renew).await, "n1", &key);
    assert!(next.validity.ends >= own.validity.ends);
    let token_2 = token(&site, &["n2"]);
    let answer = asked(&hubs, pinned(&token_2), &renew).await;
    assert_eq!(refused(&answer), "certificate_missing");
    // Another node stays: a folder that is suddenly empty is not believed.
    let rest =
        "apiVersion: v1\nkind: Node\nmetadata: {name: n2}\nspec: {podCIDRs: [10.1.2.0/24]}\n";
    site.manifest("nodes.yaml", rest);
    let deadline = std::time::Instant::now() + LONG;
    loop {
        let answer = asked(&hubs, known(), &renew).await;
        if matches!(&answer, Answer::Refused { name, .. } if name == "node_unknown") {
            break;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "{answer:?}\n{}",
            hub.log()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn two_replicas_that_start_at_once_have_one_ca_and_one_folder_of_tokens() {
    let site = site();
    let hubs = std::thread::scope(|scope| {
        let starts = [0, 1].map(|hub| {
            scope.spawn({
                let site = &site;
                move || site.start(hub)
            })
        });
        starts.map(|start| start.join().unwrap())
    });
    let made = hubs
        .iter()
        .filter(|hub| hub.log().contains("made the CA of the cluster"));
    assert_eq!(made.count(), 1);
    let pem = fs::read_to_string(site.path("state/ca/ca.crt")).unwrap();
    let mode = |path| fs::metadata(site.path(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("state/ca"), mode("state/ca/ca.key")), (0o700, 0o600));
    let (key, other) = (new_key().unwrap(), new_key().unwrap());
    let token = token(&site, &["n1"]);
    assert_eq!(Pin::of_ca(&pem), Some(token.pin));
    // One token, at both replicas at the same time, by two keys: one of them.
    let at = |hub: usize| Token {
        hubs: vec![site.address(hub).to_string()],
        ..token.clone()
    };
    let (first, second) = (at(0), at(1));
    let answers = tokio::join!(enrol(&first, "n1", &key), enrol(&second, "n1", &other));
    let (good, bad, key) = if matches!(answers.0, Answer::Refused { .. }) {
        (answers.1, answers.0, other)
    } else {
        (answers.0, answers.1, key)
    };
    assert_eq!(refused(&bad), "token_used");
    let own = certified(good, "n1", &key);
    let tls = Tls::new(own.credentials, own.trust);
    for hub in 0..2 {
        let expected = Expected::HubOf("east".to_owned());
        let connection = connect(site.address(hub), &tls, expected).await.unwrap();
        assert_eq!(
            connection.peer,
            PeerId::hub("east", format!("hub-{}", hub + 1))
        );
    }
    // They start again with the same CA, and know the certificate.
    for hub in hubs {
        hub.stop();
    }
    let _hub = site.start(0);
    assert_eq!(
        fs::read_to_string(site.path("state/ca/ca.crt")).unwrap(),
        pem
    );
    let expected = Expected::HubOf("east".to_owned());
    connect(site.address(0), &tls, expected).await.unwrap();
    assert_eq!(show::all_of_pem(&pem).unwrap().len(), 1);
}

#[test]
fn what_stands_against_a_token_is_told_in_one_line() {
    let site = site();
    let told = complaint(&node_token(&site, &["n1"]));
    assert!(
        told.contains("ca.crt: cannot be read") && told.contains("first start"),
        "{told}"
    );
    let hub = site.start(0);
    for (more, wanted) in [
        (&["N1"][..], "error: NAME: N1: must be a DNS name"),
        (
            &["--hubs", "hub", "n1"],
            "error: --hubs: hub: must be HOST:PORT",
        ),
    ] {
        let told = complaint(&node_token(&site, more));
        assert!(told.starts_with(wanted), "{told}");
    }
    let usage = node_token(&site, &["--ttl", "16m", "n1"]);
    assert_eq!(usage.status.code(), Some(2));
    let text = fs::read_to_string(site.config(0)).unwrap();
    fs::write(site.config(0), text.split("hubs:").next().unwrap()).unwrap();
    let told = complaint(&node_token(&site, &["n1"]));
    assert!(
        told.starts_with("error: --hubs: 0 given; must be 1 to 8"),
        "{told}"
    );
    fs::write(site.config(0), site.yaml(0)).unwrap();
    let told = complaint(&node_token(&site, &["n1"]));
    assert!(
        told.contains("tls: brings certificates from elsewhere"),
        "{told}"
    );
    drop(hub);
}

#[tokio::test]
async fn a_hub_whose_certificates_are_brought_issues_none() {
    let site = Site::new("east", 1);
    let hub = site.start(0);
    assert!(!site.path("state/ca").exists());
    let token = Token {
        purpose: Purpose::Node,
        clusterset: CLUSTERSET.to_owned(),
        cluster: "east".to_owned(),
        name: "n1".to_owned(),
        hubs: vec![site.address(0).to_string()],
        pin: Pin::of_ca(&site.root.certificate).unwrap(),
        secret: Secret::generate().unwrap(),
        expires: std::time::SystemTime::now(),
    };
    let answer = enrol(&token, "n1", &new_key().unwrap()).await;
    assert_eq!(refused(&answer), "enrol_off");
    hub.until("it is counted", |status| {
        status["handshakes"]["enrol_off"] == 1
    });
}

#[test]
fn a_ca_that_is_no_longer_whole_is_never_made_anew() {
    let site = site();
    site.start(0).stop();
    let key = site.path("state/ca/ca.key");
    fs::remove_file(&key).unwrap();
    for more in [&["--check"][..], &[]] {
        let output = hawser_hub(&site.config(0), more);
        let text = String::from_utf8(output.stderr).unwrap();
        let last = text.lines().last().unwrap();
        assert!(last.contains("ca.key: cannot be read"), "{text}");
    }
    assert!(!key.exists());
    until("nothing is left behind", || {
        let state = fs::read_dir(site.path("state")).unwrap();
        let mut names = state.map(|entry| entry.unwrap().file_name());
        (!names.any(|name| name.to_str().unwrap().starts_with(".ca"))).then_some(())
    });
}
