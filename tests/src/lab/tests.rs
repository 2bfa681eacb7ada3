use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use super::*;
use crate::io::{is_alive, send_signal};
use crate::traffic::Ping;
use nix::sys::signal::Signal;

fn small() -> Topology {
    Topology::parse(
        "clusters: [{name: e, id: 1, nodes: 1, pods: 1}, {name: w, id: 2, nodes: 1, pods: 1}]",
    )
    .unwrap()
}

/// What a lab has left in the system.
fn traces(id: &str) -> Vec<String> {
    let names = |path: &str| -> Vec<String> {
        let entries = fs::read_dir(path).into_iter().flatten();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    };
    let named = names("/run/netns")
        .into_iter()
        .chain(names("/run/hawser-lab"))
        .filter(|name| name.contains(id));
    let marked = crate::io::process_ids()
        .into_iter()
        .filter(|pid| crate::io::has_environment(*pid, Netns::MARK, id));
    named
        .chain(marked.map(|pid| format!("process {pid}")))
        .collect()
}

/// Starts a program that lasts and forgets it: ending it is for the lab.
fn leave_running(mut command: Command) -> BufReader<ChildStdout> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    // Collects it when the lab has killed it.
    std::thread::spawn(move || child.wait());
    output
}

/// A process that holds a lab, with a program in it, and the lab's id.
fn holder(name: &str) -> (Child, BufReader<ChildStdout>, String) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lab.yaml");
    fs::write(&file, serde_saphyr::to_string(&small()).unwrap()).unwrap();
    let mut command = Command::new(binary("lab").unwrap());
    command
        .args(["up", "--network-only", "--hold", "--name", name])
        .arg(&file)
        .stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("lab down") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "the holder ended");
    }
    let lab = Lab::open(Some(name)).unwrap();
    let mut command = lab.pod("e-1-a").netns().command("sleep");
    command.arg("600");
    leave_running(command);
    let id = lab.id().to_owned();
    wait_until("the program runs", READY, || {
        Ok(!lab.pod("e-1-a").netns().pids()?.is_empty())
    })
    .unwrap();
    (child, output, id)
}

#[test]
fn nothing_is_left_of_a_lab_that_was_dropped() {
    let lab = Lab::new(small()).unwrap();
    let id = lab.id().to_owned();
    // A child that left the namespace and forgot the lab's mark, as a data plane might; its parent has stayed.
    let mut command = lab.node("e-1").netns().command("sh");
    command.args(["-c", "env -i unshare -n sleep 600 & echo $!; wait"]);
    let mut line = String::new();
    leave_running(command).read_line(&mut line).unwrap();
    let run_away: i32 = line.trim().parse().unwrap();
    wait_until("the child has left", READY, || {
        Ok(!lab.node("e-1").netns().pids()?.contains(&run_away))
    })
    .unwrap();
    assert!(is_alive(run_away) && !traces(&id).is_empty());
    drop(lab);
    assert_eq!(traces(&id), Vec::<String>::new());
    assert!(!is_alive(run_away));
}

#[test]
fn nothing_is_left_of_a_lab_whose_test_panicked() {
    let mut id = String::new();
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let lab = Lab::new(small()).unwrap();
        id = lab.id().to_owned();
        let _ = lab.pod("nobody");
    }));
    let text = outcome.unwrap_err().downcast::<String>().unwrap();
    assert_eq!(*text, "no pod nobody; there are e-1-a, w-1-a");
    assert_eq!(traces(&id), Vec::<String>::new());
}

#[test]
fn nothing_is_left_of_a_lab_whose_process_was_killed_or_interrupted() {
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        let (mut child, _output, id) = holder(&format!("killed-{signal}"));
        send_signal(i32::try_from(child.id()).unwrap(), signal).unwrap();
        child.wait().unwrap();
        if signal == Signal::SIGKILL {
            // Only then nobody waited for the janitor.
            wait_until("the janitor is done", READY, || Ok(traces(&id).is_empty())).unwrap();
        }
        assert_eq!(traces(&id), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn labs_stand_side_by_side() {
    let (one, two) = (Lab::new(small()).unwrap(), Lab::new(small()).unwrap());
    assert_ne!((one.id(), one.canary()), (two.id(), two.canary()));
    for lab in [&one, &two] {
        let (east, west) = (lab.node("e-1"), lab.node("w-1"));
        for family in Family::BOTH {
            for to in [
                west.underlay(family),
                world(family),
                east.pod("a").address(family).unwrap(),
            ] {
                assert!(
                    Ping::new(to).run(east.netns()).unwrap().is_complete(),
                    "{to}"
                );
            }
            // No node forwards before its agent has told it to.
            let to = west.underlay(family);
            assert!(
                !Ping::new(to)
                    .run(east.pod("a").netns())
                    .unwrap()
                    .is_complete(),
                "{to}"
            );
        }
    }
    let id = two.id().to_owned();
    drop(one);
    assert!(!traces(&id).is_empty());
}

#[test]
fn a_kept_lab_is_found_by_name_and_removed_on_demand() {
    let mut lab = Lab::new(small()).unwrap();
    let (name, id) = (format!("kept-{}", lab.id()), lab.id().to_owned());
    lab.call(&name).unwrap();
    lab.keep().unwrap();
    drop(lab);
    let lab = Lab::open(Some(&name)).unwrap();
    assert_eq!((lab.id(), lab.pods().count()), (id.as_str(), 2));
    assert!(check_name(&name).unwrap_err().to_string().contains("is up"));
    lab.remove().unwrap();
    assert_eq!(traces(&id), Vec::<String>::new());
    assert!(
        Lab::open(Some(&name))
            .unwrap_err()
            .to_string()
            .starts_with("no lab is called")
    );
}

#[test]
fn a_guest_on_the_underlay_is_a_neighbour_of_the_nodes() {
    let mut lab = Lab::new(small()).unwrap();
    let guest = lab.netns_add("guest").unwrap();
    let link = lab.attach_underlay(&guest, 2, 200).unwrap();
    assert!(lab.links().iter().any(|other| other.device == link.device));
    assert!(
        Ping::new(lab.node("e-1").underlay(Family::V6))
            .run(&guest)
            .unwrap()
            .is_complete()
    );
}

#[test]
fn two_nodes_are_joined_by_one_veth_and_nothing_between() {
    let mut lab = Lab::new(small().direct()).unwrap();
    let (east, west) = (lab.node("e-1"), lab.node("w-1"));
    for family in Family::BOTH {
        let ping = Ping::new(west.underlay(family)).hops(1);
        assert!(ping.run(east.netns()).unwrap().is_complete(), "{family}");
    }
    // Each sees the other's frames at its own device.
    let link = east.link();
    assert_eq!(
        (link.netns.name(), link.device.as_str()),
        (west.netns().name(), "eth0")
    );
    let routed = lab
        .router()
        .output("ip", &["-o", "link", "show", "type", "veth"]);
    assert_eq!(routed.unwrap(), "", "a port at the router");
    let error = lab.relink("e-1").unwrap_err().to_string();
    assert!(error.contains("underlay.direct"), "{error}");
    let guest = lab.netns_add("guest").unwrap();
    let error = lab.attach_underlay(&guest, 1, 9).unwrap_err().to_string();
    assert!(error.contains("underlay.direct"), "{error}");
    lab.call(&format!("direct-{}", lab.id())).unwrap();
    let again = Lab::open(Some(&format!("direct-{}", lab.id()))).unwrap();
    assert_eq!(
        again.node("w-1").link().netns.name(),
        lab.node("e-1").netns().name()
    );
}
