//! Manifests that are wrong, or away.

use crate::records_of;
use crate::site::Site;
use serde_json::Value;
use std::fs;

fn complaints(status: &Value) -> Vec<String> {
    let lines = status["source"]["complaints"].as_array().unwrap().iter();
    lines
        .map(|line| line.as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_bad_manifest_is_named_with_file_and_line_and_its_last_good_content_stands() {
    let site = Site::new("east", 1);
    site.nodes();
    site.pod("a", "web", 11);
    let hub = site.start(0);
    // Cluster, 2 nodes, identity, pod, endpoint.
    hub.until("all is known", |status| records_of(status, 1) == 6);
    let good = fs::read_to_string(site.path("manifests/pod-a.yaml")).unwrap();
    site.manifest("pod-a.yaml", &good.replace("10.1.1.11", "10.1.1.1111"));
    site.pod("b", "db", 12);
    let told = "pod-a.yaml: line 5: status.podIPs: 10.1.1.1111: must be an IP address, as in 10.1.1.1 or \
                fd01:1:1::1; correct it";
    let status = hub.until("the rest is taken", |status| records_of(status, 1) == 9);
    assert_eq!(complaints(&status), [told]);
    // It also stands after a restart.
    let version = status["version"].clone();
    hub.stop();
    let hub = site.start(0);
    let status = hub.until("it complains again", |status| {
        !complaints(status).is_empty()
    });
    assert_eq!((&status["version"], records_of(&status, 1)), (&version, 9));
    site.manifest("pod-a.yaml", &good);
    hub.until("it is right again", |status| complaints(status).is_empty());
    assert_eq!(hub.status()["version"], version, "nothing changed");
}

#[test]
fn a_folder_that_is_empty_or_away_wipes_nothing() {
    let site = Site::new("east", 1);
    site.nodes();
    for n in 0..20 {
        site.pod(&format!("p{n}"), "web", 20 + n);
    }
    let hub = site.start(0);
    let all = hub.until("all is known", |status| records_of(status, 1) == 44);
    fs::rename(site.path("manifests"), site.path("away")).unwrap();
    crate::site::until("it is missed", || {
        hub.log().contains("source_unreadable").then_some(())
    });
    fs::create_dir(site.path("manifests")).unwrap();
    crate::site::until("it is empty", || {
        hub.log().contains("source_empty").then_some(())
    });
    assert_eq!(records_of(&hub.status(), 1), 44);
    // Nor does a hub that starts then.
    hub.kill();
    let hub = site.start(0);
    hub.until("it writes", |status| status["role"] == "writer");
    assert_eq!(hub.status()["version"], all["version"]);
    // Back again without one: that one goes.
    fs::remove_file(site.path("away/pod-p3.yaml")).unwrap();
    fs::remove_dir(site.path("manifests")).unwrap();
    fs::rename(site.path("away"), site.path("manifests")).unwrap();
    hub.until("one pod is gone", |status| records_of(status, 1) == 42);
}

#[test]
fn a_cluster_peer_that_takes_anothers_id_is_refused_and_the_first_stays() {
    let (east, west, alien) = (
        Site::new("east", 1),
        Site::new("west", 2),
        Site::new("alien", 2),
    );
    east.nodes();
    west.nodes();
    east.knows(&west);
    west.knows(&east);
    let (hub, _west_hub) = (east.start(0), west.start(0));
    hub.until("west is known", |status| records_of(status, 2) == 2);
    east.knows(&alien);
    let status = hub.until("it is refused", |status| !complaints(status).is_empty());
    let told = "peer-alien.yaml: line 1: spec.clusterId: 2: is also the id of cluster west; give each its own";
    assert_eq!(complaints(&status), [told]);
    // Also when the hub starts again: by name alone the other one would come first.
    hub.stop();
    let hub = east.start(0);
    let status = hub.until("it is refused again", |status| {
        !complaints(status).is_empty()
    });
    assert_eq!(complaints(&status), [told]);
}

#[test]
fn what_is_exported_wrongly_is_named_in_the_status_and_the_rest_goes_out() {
    let site = Site::new("east", 1);
    site.nodes();
    site.pod("web-1", "web", 11);
    site.service("web-1", 11);
    let export = |namespace: &str, name: &str| {
        format!(
            "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\n\
             metadata: {{name: {name}, namespace: {namespace}}}\n"
        )
    };
    let both = [
        export("kube-system", "kube-dns"),
        export("default", "kubernetes"),
    ];
    site.manifest("exports.yaml", &both.join("---\n"));
    let hub = site.start(0);
    let status = hub.until("both are named", |status| complaints(status).len() == 2);
    let told = complaints(&status).join("\n");
    assert!(
        told.contains("ServiceExport kube-system/kube-dns: namespace_protected: "),
        "{told}"
    );
    assert!(
        told.contains("ServiceExport default/kubernetes: service_protected: "),
        "{told}"
    );
    // Cluster, 2 nodes, identity, pod, its endpoint; the service that is right, and its backend.
    assert_eq!(records_of(&status, 1), 8);
    assert!(hub.log().contains("namespace_protected"), "{}", hub.log());
    site.remove("exports.yaml");
    hub.until("nothing is wrong", |status| complaints(status).is_empty());
}
