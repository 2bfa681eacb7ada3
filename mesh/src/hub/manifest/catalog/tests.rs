use super::*;
use crate::hub::manifest::ObjectKind;
use hawser_tunnel::node::ClusterId;

fn ground() -> Ground {
    Ground {
        cluster: ClusterId::new(1).unwrap(),
        name: "east".to_owned(),
        pod_cidrs: vec!["10.1.0.0/16".parse().unwrap()],
        service_cidrs: vec!["10.96.0.0/12".parse().unwrap()],
    }
}

fn pod(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: web}}}}\n\
         spec: {{nodeName: n1, containers: []}}\nstatus: {{podIPs: [{{ip: 10.1.1.9}}]}}\n"
    )
}

fn look(files: &[(&str, &str)]) -> Look {
    let text = |text: &str| Content::Text(text.to_owned());
    let files = files.iter().map(|(name, t)| ((*name).to_owned(), text(t)));
    Look {
        files: files.collect(),
    }
}

fn names(news: &News) -> Vec<String> {
    let sign = |(key, object): &(ObjectKey, Option<Arc<Object>>)| {
        format!("{}{key}", if object.is_some() { '+' } else { '-' })
    };
    news.changes.iter().map(sign).collect()
}

#[test]
fn a_bad_file_is_named_with_its_line_and_its_last_good_content_stands() {
    let mut catalog = Catalog::new(ground());
    let now = Instant::now();
    let both = format!("# pods\n---\n{}---\n{}", pod("a"), pod("b"));
    let news = catalog.handle_look(look(&[("pods.yaml", &both)]), now);
    assert_eq!(names(&news), ["+Pod shop/a", "+Pod shop/b"]);
    assert!(news.complaints.is_empty());
    let bad = both.replace("10.1.1.9}]}\n---", "10.1.1.999}]}\n---");
    let node =
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nspec: {podCIDRs: [10.1.1.0/24]}\n";
    let news = catalog.handle_look(look(&[("pods.yaml", &bad), ("nodes.yaml", node)]), now);
    assert_eq!(names(&news), ["+Node n1"]);
    let told: Vec<_> = news.complaints.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "pods.yaml: line 7: status.podIPs: 10.1.1.999: must be an IP address, as in 10.1.1.1 or \
             fd01:1:1::1; correct it"
        ]
    );
    // Said once, and no more once it is right.
    let again = catalog.handle_look(look(&[("pods.yaml", &bad), ("nodes.yaml", node)]), now);
    assert!(again.complaints.is_empty() && again.changes.is_empty());
    assert_eq!(catalog.complaints().count(), 1);
    catalog.handle_look(look(&[("pods.yaml", &both), ("nodes.yaml", node)]), now);
    assert_eq!(catalog.complaints().count(), 0);
}

#[test]
fn what_is_no_yaml_is_named_with_the_line_of_the_file() {
    let mut catalog = Catalog::new(ground());
    let text = format!("{}---\napiVersion: v1\nkind: [\n", pod("a"));
    let news = catalog.handle_look(look(&[("pods.yaml", &text)]), Instant::now());
    assert_eq!(news.complaints.len(), 1);
    assert!(news.complaints[0].place.line >= 7, "{}", news.complaints[0]);
    assert!(news.changes.is_empty());
}

#[test]
fn an_empty_folder_wipes_nothing() {
    let mut catalog = Catalog::new(ground());
    let now = Instant::now();
    catalog.handle_look(look(&[("a.yaml", &pod("a"))]), now);
    for seconds in [0, 3, 60] {
        let news = catalog.handle_look(Look::default(), now + Duration::from_secs(seconds));
        assert!(news.changes.is_empty());
        assert_eq!(news.complaints.len(), usize::from(seconds == 0));
    }
    let news = catalog.handle_look(look(&[("a.yaml", "")]), now);
    assert!(news.changes.is_empty(), "an empty file is no better");
}

#[test]
fn a_mass_removal_waits_for_a_second_look() {
    let mut catalog = Catalog::new(ground());
    let now = Instant::now();
    let pods: Vec<(String, String)> = (0..20)
        .map(|n| (format!("{n}.yaml"), pod(&format!("p{n}"))))
        .collect();
    let all: Vec<(&str, &str)> = pods.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    catalog.handle_look(look(&all), now);
    // One is nothing; more than 30 % are.
    assert_eq!(catalog.handle_look(look(&all[1..]), now).changes.len(), 1);
    assert!(
        catalog
            .handle_look(look(&all[12..]), now)
            .changes
            .is_empty()
    );
    assert_eq!(catalog.poll_timeout(), Some(now + SECOND_LOOK));
    // Back again: nothing happened.
    let back = catalog.handle_look(look(&all[1..]), now + Duration::from_secs(1));
    assert!(back.changes.is_empty());
    assert_eq!(catalog.poll_timeout(), None);
    catalog.handle_look(look(&all[12..]), now + Duration::from_secs(5));
    let later = now + Duration::from_secs(7);
    assert_eq!(
        catalog.handle_look(look(&all[12..]), later).changes.len(),
        11
    );
}

#[test]
fn an_object_in_two_files_is_refused_until_one_is_gone() {
    let mut catalog = Catalog::new(ground());
    let now = Instant::now();
    let other = pod("a").replace("10.1.1.9", "10.1.1.10");
    catalog.handle_look(look(&[("a.yaml", &pod("a"))]), now);
    let news = catalog.handle_look(look(&[("a.yaml", &pod("a")), ("b.yaml", &other)]), now);
    assert_eq!(
        news.complaints[0].to_string(),
        "b.yaml: line 1: Pod shop/a is also in a.yaml; remove one"
    );
    assert!(news.changes.is_empty());
    // A file that only got another name changes nothing but the place.
    let look_after = Look {
        files: BTreeMap::from([("b.yaml".to_owned(), Content::Unchanged)]),
    };
    let news = catalog.handle_look(look_after, now);
    assert_eq!(names(&news), ["+Pod shop/a"]);
    let key = ObjectKey {
        kind: ObjectKind::Pod,
        namespace: "shop".to_owned(),
        name: "a".to_owned(),
    };
    assert_eq!(catalog.place(&key).unwrap().file, "b.yaml");
}

#[test]
fn a_cluster_peer_that_is_the_cluster_itself_is_refused_by_id_and_by_name() {
    let mut catalog = Catalog::new(ground());
    let peer = |name: &str, id: u16| {
        format!(
            "apiVersion: hawser.io/v1alpha1\nkind: ClusterPeer\nmetadata: {{name: {name}}}\n\
             spec: {{clusterId: {id}, podCidrs: [10.9.0.0/16], hubs: [], ca: x}}\n"
        )
    };
    let (by_id, by_name) = (peer("alien", 1), peer("east", 9));
    let files = look(&[("a.yaml", &by_id), ("b.yaml", &by_name)]);
    let news = catalog.handle_look(files, Instant::now());
    assert!(news.changes.is_empty());
    let told: Vec<_> = news.complaints.iter().map(ToString::to_string).collect();
    let why = "is this cluster itself; remove the ClusterPeer or correct it";
    let by_id = format!("a.yaml: line 1: spec.clusterId: 1: {why}");
    let by_name = format!("b.yaml: line 3: metadata.name: east: {why}");
    assert_eq!(told, [by_id, by_name]);
}

#[test]
fn a_cluster_peer_with_prefixes_that_no_cluster_can_have_is_refused_by_field() {
    let protected =
        |range: &str| format!("touches {range}, which no cluster can have; choose another prefix");
    let own =
        "overlaps 10.1.0.0/16 of this cluster; clusters whose pods share addresses cannot meet";
    let services = "overlaps 10.96.0.0/12, which is this cluster's services'; its pods would lose them: choose another \
                    prefix";
    let cases = [
        ("0.0.0.0/0", protected("0.0.0.0/8")),
        ("0.0.0.0/1", protected("0.0.0.0/8")),
        ("127.0.0.0/8", protected("127.0.0.0/8")),
        ("169.254.169.254/32", protected("169.254.0.0/16")),
        ("224.0.0.0/24", protected("224.0.0.0/4")),
        ("240.2.0.0/16", protected("240.0.0.0/4")),
        ("250.0.0.0/8", protected("240.0.0.0/4")),
        ("252.1.0.0/16", protected("240.0.0.0/4")),
        ("255.255.255.255/32", protected("240.0.0.0/4")),
        ("::/0", protected("::/96")),
        ("::1/128", protected("::/96")),
        ("::ffff:10.2.0.0/112", protected("::ffff:0.0.0.0/96")),
        ("64:ff9b::/96", protected("64:ff9b::/96")),
        ("fe80::/64", protected("fe80::/10")),
        ("ff02::/16", protected("ff00::/8")),
        ("10.0.0.0/8", own.to_owned()),
        ("10.1.3.0/24", own.to_owned()),
        ("10.100.0.0/16", services.to_owned()),
        ("10.96.0.10/32", services.to_owned()),
    ];
    for (prefix, why) in cases {
        for (pods, own_services, field) in [
            (prefix, "10.9.0.0/16", "spec.podCidrs"),
            ("10.9.0.0/16", prefix, "spec.serviceCidrs"),
        ] {
            let text = format!(
                "apiVersion: hawser.io/v1alpha1\nkind: ClusterPeer\nmetadata: {{name: west}}\nspec:\n  clusterId: 2\n  \
                 podCidrs: ['{pods}']\n  serviceCidrs: ['{own_services}']\n  ca: x\n"
            );
            let mut catalog = Catalog::new(ground());
            let news = catalog.handle_look(look(&[("w.yaml", &text)]), Instant::now());
            let line = if field == "spec.podCidrs" { 6 } else { 7 };
            let at = if why.starts_with("touches") {
                "[0]"
            } else {
                ""
            };
            let told: Vec<_> = news.complaints.iter().map(ToString::to_string).collect();
            assert_eq!(
                told,
                [format!("w.yaml: line {line}: {field}{at}: {prefix}: {why}")]
            );
            assert!(news.changes.is_empty(), "{prefix}");
        }
    }
    let both = "apiVersion: hawser.io/v1alpha1\nkind: ClusterPeer\nmetadata: {name: west}\nspec:\n  clusterId: 2\n  \
                podCidrs: [10.8.0.0/14]\n  serviceCidrs: [10.9.0.0/16]\n  ca: x\n";
    let mut catalog = Catalog::new(ground());
    let news = catalog.handle_look(look(&[("w.yaml", both)]), Instant::now());
    let told = "w.yaml: line 7: spec.serviceCidrs: 10.9.0.0/16: overlaps 10.8.0.0/14 of spec.podCidrs; pods and \
                services have prefixes of their own: change one";
    assert_eq!(news.complaints[0].to_string(), told);
}
