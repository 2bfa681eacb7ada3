use super::*;
use crate::hub::manifest::document::{Ground, split};
use crate::hub::protected::Protected;
use crate::record::{Endpoint, Scope};
use crate::wire::decode_record;
use hawser_tunnel::key::PublicKey;
use proptest::prelude::*;

fn rules() -> Rules {
    Rules {
        cluster: Cluster {
            id: ClusterId::new(1).unwrap(),
            name: "east".to_owned(),
            prefixes: vec!["10.1.0.0/16".parse().unwrap()],
            ca: String::new(),
        },
        excluded_labels: BTreeSet::from(["pod-template-hash".to_owned()]),
        protected: Protected::default(),
    }
}

/// A cluster with numbers that are never forgotten.
struct World {
    derive: Derive,
    numbers: BTreeMap<String, u32>,
    records: BTreeMap<Key, Bytes>,
}

impl World {
    fn new(numbers: BTreeMap<String, u32>) -> Self {
        Self {
            derive: Derive::new(rules()),
            numbers,
            records: BTreeMap::new(),
        }
    }

    fn apply(&mut self, yaml: &str) {
        for (key, object) in parse(yaml) {
            self.derive.apply(&key, Some(&object));
        }
        self.settle();
    }

    fn remove(&mut self, yaml: &str) {
        for (key, _) in parse(yaml) {
            self.derive.apply(&key, None);
        }
        self.settle();
    }

    /// The keys that really changed.
    fn settle(&mut self) -> Vec<Key> {
        while let Some(change) = self.derive.poll_claim() {
            if let ClaimChange::Wanted(claim) = change {
                let next = 300 + u32::try_from(self.numbers.len()).unwrap();
                let number = *self.numbers.entry(claim.to_string()).or_insert(next);
                self.derive.allocated(&claim, number);
            }
        }
        let mut changed = Vec::new();
        for (key, value) in self.derive.drain() {
            let before = match &value {
                Some(bytes) => self.records.insert(key.clone(), bytes.clone()),
                None => self.records.remove(&key),
            };
            if before != value {
                changed.push(key);
            }
        }
        changed
    }

    fn backends(&self) -> Vec<Endpoint> {
        let records = self.records.iter();
        let decoded = records.map(|(key, bytes)| decode_record(key, bytes).unwrap());
        decoded
            .filter_map(|record| {
                let Record::Endpoint(endpoint) = record else {
                    return None;
                };
                matches!(endpoint.scope, Scope::Service { .. }).then_some(endpoint)
            })
            .collect()
    }
}

fn parse(yaml: &str) -> Vec<(ObjectKey, Object)> {
    let ground = Ground {
        cluster: ClusterId::new(1).unwrap(),
        name: "east".to_owned(),
        pod_cidrs: rules().cluster.prefixes,
        service_cidrs: Vec::new(),
    };
    let documents = split(yaml);
    let objects = documents.iter().map(|d| d.parse(&ground).unwrap().unwrap());
    objects.collect()
}

fn node(n: u8) -> String {
    format!(
        "apiVersion: v1\nkind: Node\nmetadata: {{name: n{n}}}\nspec: {{podCIDRs: [10.1.{n}.0/24]}}\n"
    )
}

fn pod(name: &str, app: &str, node: u8, host: u8) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}, \
         pod-template-hash: x{name}}}}}\nspec: {{nodeName: n{node}, containers: []}}\n\
         status: {{podIPs: [{{ip: 10.1.{node}.{host}}}]}}\n"
    )
}

const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\n\
                       spec: {ports: [{name: http, port: 80, targetPort: 8080}]}\n";
const EXPORT: &str = "apiVersion: multicluster.x-k8s.io/v1beta1\nkind: ServiceExport\n\
                      metadata: {name: web, namespace: shop, creationTimestamp: 2026-01-02T03:04:05Z}\n";

fn slice(name: &str, pods: &[(&str, &str, bool)]) -> String {
    let endpoint = |(pod, address, ready): &(&str, &str, bool)| {
        format!(
            "- {{addresses: [{address}], conditions: {{ready: {ready}}}, targetRef: {{kind: Pod, name: {pod}}}}}\n"
        )
    };
    let endpoints: String = pods.iter().map(endpoint).collect();
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, namespace: shop, \
         labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\n\
         ports: [{{name: http, port: 8080}}]\nendpoints:{}{endpoints}",
        if pods.is_empty() { " []\n" } else { "\n" }
    )
}

#[test]
fn a_service_is_told_when_it_is_exported_and_not_before() {
    let mut world = World::new(BTreeMap::new());
    world.apply(&[node(1), pod("a", "web", 1, 9)].join("---\n"));
    world.apply(&slice("web-1", &[("a", "10.1.1.9", true)]));
    world.apply(SERVICE);
    assert!(world.backends().is_empty());
    world.apply(EXPORT);
    let [backend] = &world.backends()[..] else {
        panic!("one backend")
    };
    assert_eq!(backend.name, "a");
    assert_eq!(backend.node.map(u16::from), Some(300));
    assert_eq!(backend.ports[0].port, 8080);
    let key = Key::service("shop", "web");
    let Record::Service(service) = decode_record(&key, &world.records[&key]).unwrap() else {
        panic!("a service")
    };
    assert_eq!(service.exported_at, 1_767_323_045);
    world.remove(EXPORT);
    assert!(world.backends().is_empty());
    assert!(!world.records.contains_key(&key));
}

#[test]
fn one_changed_backend_of_many_is_one_record() {
    let mut world = World::new(BTreeMap::new());
    let names: Vec<(String, String)> = (1..200)
        .map(|n| (format!("p{n}"), format!("10.1.1.{n}")))
        .collect();
    let mut backends: Vec<(&str, &str, bool)> = names
        .iter()
        .map(|(name, address)| (name.as_str(), address.as_str(), true))
        .collect();
    world.apply(&[&node(1), SERVICE, EXPORT].map(str::to_owned).join("---\n"));
    for (n, (name, _)) in (1..).zip(&names) {
        world.apply(&pod(name, "web", 1, n));
    }
    world.apply(&slice("web-1", &backends));
    assert_eq!(world.backends().len(), 199);
    backends[70].2 = false;
    for (key, object) in parse(&slice("web-1", &backends)) {
        world.derive.apply(&key, Some(&object));
    }
    assert_eq!(
        world.derive.dirty.len(),
        1,
        "only what changed is made again"
    );
    assert_eq!(world.settle().len(), 1);
}

#[test]
fn pods_that_differ_in_excluded_labels_share_an_identity() {
    let mut world = World::new(BTreeMap::new());
    world.apply(&[node(1), pod("a", "web", 1, 1), pod("b", "web", 1, 2)].join("---\n"));
    let identities = |world: &World| {
        let keys = world.records.keys();
        keys.filter(|key| key.kind() == Some(crate::record::Kind::Identity))
            .count()
    };
    assert_eq!(identities(&world), 1);
    world.remove(&pod("a", "web", 1, 1));
    assert_eq!(identities(&world), 1);
    world.remove(&pod("b", "web", 1, 2));
    assert_eq!(identities(&world), 0);
    assert_eq!(world.records.len(), 2, "the node and the cluster");
}

#[test]
fn a_prefix_has_one_node_and_the_next_gets_it_when_that_is_gone() {
    let mut world = World::new(BTreeMap::new());
    let second = node(1)
        .replace("name: n1", "name: n0")
        .replace(".0/24", ".128/25");
    world.apply(&node(1));
    world.apply(&second);
    assert_eq!(world.derive.crowded().collect::<Vec<_>>(), ["n0"]);
    let prefixes = |world: &World| {
        let key = Key::node(hawser_tunnel::node::NodeIndex::new(301).unwrap());
        let Record::Node(node) = decode_record(&key, &world.records[&key]).unwrap() else {
            panic!("a node")
        };
        node.prefixes.len()
    };
    assert_eq!(prefixes(&world), 0);
    world.remove(&node(1));
    assert_eq!(prefixes(&world), 1);
    assert_eq!(world.derive.crowded().count(), 0);
}

#[test]
fn a_node_is_told_with_the_lanes_that_its_agent_told() {
    let mut world = World::new(BTreeMap::new());
    let lane = LaneRecord {
        public_key: PublicKey::new([7; 32]),
        peer_endpoint: None,
        key_port: None,
    };
    world.derive.set_lanes("n1", vec![lane.clone()]);
    world.apply(&node(1));
    let key = Key::node(hawser_tunnel::node::NodeIndex::new(300).unwrap());
    let Record::Node(node) = decode_record(&key, &world.records[&key]).unwrap() else {
        panic!("a node")
    };
    assert_eq!(node.lanes, [lane]);
}

#[test]
fn a_node_cannot_take_the_key_of_another() {
    let mut world = World::new(BTreeMap::new());
    let lane = LaneRecord {
        public_key: PublicKey::new([7; 32]),
        peer_endpoint: None,
        key_port: None,
    };
    world.apply(&[node(1), node(2)].join("---\n"));
    world.derive.set_lanes("n2", vec![lane.clone()]);
    world.derive.set_lanes("n1", vec![lane.clone()]);
    world.settle();
    let lanes = |world: &World, index: u16| {
        let key = Key::node(hawser_tunnel::node::NodeIndex::new(index).unwrap());
        let Record::Node(node) = decode_record(&key, &world.records[&key]).unwrap() else {
            panic!("a node")
        };
        node.lanes
    };
    assert_eq!(
        (lanes(&world, 300), lanes(&world, 301)),
        (vec![], vec![lane.clone()])
    );
    world.derive.set_lanes("n2", vec![]);
    world.settle();
    assert_eq!(
        (lanes(&world, 300), lanes(&world, 301)),
        (vec![lane], vec![])
    );
}

/// Namespaces `shop`, ours, and `bank`: a pod each, and whatever `shop` writes into a slice of its exported service.
fn hand_written(endpoint: &str) -> (World, Vec<String>) {
    let mut world = World::new(BTreeMap::new());
    let bank = pod("vault", "vault", 1, 66).replace("namespace: shop", "namespace: bank");
    let objects = [node(1), pod("a", "web", 1, 9), pod("b", "web", 1, 10), bank];
    world.apply(&objects.join("---\n"));
    world.apply(&[SERVICE, EXPORT].join("---\n"));
    world.apply(&format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: hand, namespace: shop, labels: \
         {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{port: 80}}]\nendpoints:\n- {endpoint}\n"
    ));
    let complaints = world.derive.complaints().map(ToString::to_string);
    let complaints = complaints.collect();
    (world, complaints)
}

#[test]
fn a_hand_written_slice_reaches_pods_of_its_own_namespace_and_nothing_else() {
    // Without a selector, and right.
    for right in [
        "{addresses: [10.1.1.9]}",
        "{addresses: [10.1.1.9], targetRef: {kind: Pod, name: a}}",
        "{addresses: [10.1.1.9], targetRef: {kind: Pod, name: a, namespace: shop}}",
    ] {
        let (world, complaints) = hand_written(right);
        assert_eq!(
            (world.backends().len(), complaints),
            (1, Vec::new()),
            "{right}"
        );
    }
    for (endpoint, why, value) in [
        (
            "{addresses: [10.1.1.66]}",
            Unfit::AddressOfOtherNamespace,
            "10.1.1.66",
        ),
        (
            "{addresses: [10.1.1.77]}",
            Unfit::AddressOfNoPod,
            "10.1.1.77",
        ),
        (
            "{addresses: [203.0.113.9]}",
            Unfit::AddressOutsideCluster,
            "203.0.113.9",
        ),
        (
            "{addresses: [10.2.1.9]}",
            Unfit::AddressOutsideCluster,
            "10.2.1.9",
        ),
        (
            "{addresses: [127.0.0.1]}",
            Unfit::AddressMartian,
            "127.0.0.1",
        ),
        (
            "{addresses: [169.254.169.254]}",
            Unfit::AddressMartian,
            "169.254.169.254",
        ),
        (
            "{addresses: [10.1.1.66], targetRef: {kind: Pod, name: a}}",
            Unfit::AddressOfOtherPod,
            "10.1.1.66",
        ),
        (
            "{addresses: [10.1.1.10], targetRef: {kind: Pod, name: a}}",
            Unfit::AddressOfOtherPod,
            "10.1.1.10",
        ),
        (
            "{addresses: [10.1.1.66], targetRef: {kind: Pod, name: vault, namespace: bank}}",
            Unfit::PodInOtherNamespace,
            "bank/vault",
        ),
        (
            "{addresses: [10.1.1.66], targetRef: {kind: Pod, name: vault}}",
            Unfit::PodUnknown,
            "vault",
        ),
        (
            "{addresses: [192.0.2.5], targetRef: {kind: Pod, name: on-host}}",
            Unfit::AddressOutsideCluster,
            "192.0.2.5",
        ),
        (
            "{addresses: [10.1.1.66], targetRef: {kind: Node, name: n1}}",
            Unfit::AddressOfOtherNamespace,
            "10.1.1.66",
        ),
    ] {
        let (world, complaints) = hand_written(endpoint);
        assert_eq!(world.backends(), [], "{endpoint}");
        let field = if value.contains('.') {
            "addresses"
        } else {
            "targetRef"
        };
        let name = why.name();
        let told = format!("EndpointSlice shop/hand: {name}: endpoints.{field}: {value}: {why}");
        assert_eq!(complaints, [told]);
    }
}

#[test]
fn what_is_wrong_in_an_endpoint_leaves_what_is_right_in_it() {
    let (world, complaints) = hand_written("{addresses: [10.1.1.9, 10.1.1.66]}");
    let addresses: Vec<_> = world.backends()[0]
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(addresses, ["10.1.1.9"]);
    assert_eq!(complaints.len(), 1);
    assert!(
        complaints[0].contains("address_of_other_pod"),
        "{complaints:?}"
    );
}

#[test]
fn a_complaint_comes_and_goes_with_its_reason() {
    let (mut world, complaints) = hand_written("{addresses: [10.1.1.77]}");
    assert_eq!(complaints.len(), 1);
    let (news, changed) = world.derive.take_news();
    assert_eq!((news.len(), changed), (1, true));
    assert_eq!(world.derive.take_news(), (Vec::new(), false));
    world.apply(&pod("late", "web", 1, 77));
    assert_eq!(world.backends().len(), 1);
    assert_eq!(world.derive.take_news(), (Vec::new(), true));
    assert_eq!(world.derive.complaints().count(), 0);
    // The pod's address goes to somebody else's pod: so does not the service.
    let other = pod("late", "web", 1, 77).replace("namespace: shop", "namespace: bank");
    world.remove(&pod("late", "web", 1, 77));
    world.apply(&other);
    assert_eq!(world.backends(), []);
    let why: Vec<_> = world
        .derive
        .complaints()
        .map(|complaint| complaint.why)
        .collect();
    assert_eq!(why, [Unfit::AddressOfOtherNamespace]);
}

#[test]
fn what_cannot_be_exported_is_not_and_the_complaint_says_why() {
    let external = SERVICE.replace(
        "spec: {",
        "spec: {type: ExternalName, externalName: example.org, ",
    );
    let in_namespace =
        |text: &str, of: &str| text.replace("namespace: shop", &format!("namespace: {of}"));
    let apiserver =
        |text: &str| in_namespace(text, "default").replace("name: web", "name: kubernetes");
    for (objects, told) in [
        (
            vec![EXPORT.to_owned()],
            "ServiceExport shop/web: service_missing: metadata.name: web: there is no Service of this name; add it or \
             remove the export",
        ),
        (
            vec![EXPORT.to_owned(), external],
            "Service shop/web: service_external_name: spec.type: ExternalName: ExternalName has no endpoints to export; \
             export a Service with pods",
        ),
        (
            vec![
                in_namespace(EXPORT, "kube-system"),
                in_namespace(SERVICE, "kube-system"),
            ],
            "ServiceExport kube-system/web: namespace_protected: metadata.namespace: kube-system: its namespace is \
             protected; remove the export, or change protectedNamespaces in hub.yaml",
        ),
        (
            vec![apiserver(EXPORT), apiserver(SERVICE)],
            "ServiceExport default/kubernetes: service_protected: metadata.name: kubernetes: is protected; remove the \
             export, or change protectedNamespaces in hub.yaml",
        ),
    ] {
        let mut world = World::new(BTreeMap::new());
        world.apply(&[node(1), pod("a", "web", 1, 9)].join("---\n"));
        world.apply(&objects.join("---\n"));
        let complaints: Vec<_> = world.derive.complaints().map(ToString::to_string).collect();
        assert_eq!(complaints, [told]);
        let kinds: Vec<_> = world.records.keys().filter_map(Key::kind).collect();
        assert!(!kinds.contains(&crate::record::Kind::Service), "{told}");
    }
}

#[test]
fn backends_of_a_protected_service_are_told_to_nobody() {
    let mut world = World::new(BTreeMap::new());
    let moved = |text: String| text.replace("namespace: shop", "namespace: kube-system");
    let objects = [
        node(1),
        moved(pod("a", "web", 1, 9)),
        moved(SERVICE.to_owned()),
        moved(EXPORT.to_owned()),
        moved(slice("web-1", &[("a", "10.1.1.9", true)])),
    ];
    world.apply(&objects.join("---\n"));
    assert_eq!(world.backends(), []);
    // Its pods have an identity all the same: they may talk.
    let identities = world
        .records
        .keys()
        .filter(|key| key.kind() == Some(crate::record::Kind::Identity));
    assert_eq!(identities.count(), 1);
}

#[derive(Clone, Debug)]
enum Op {
    Pod(u8, u8, u8, bool),
    Node(u8, bool),
    Slice(u8, Vec<(u8, bool)>),
    Service(bool),
    Export(bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..6u8, 0..3u8, 1..4u8, any::<bool>()).prop_map(|(p, a, n, x)| Op::Pod(p, a, n, x)),
        2 => (1..4u8, any::<bool>()).prop_map(|(n, x)| Op::Node(n, x)),
        3 => (0..2u8, proptest::collection::vec((0..6u8, any::<bool>()), 0..5))
            .prop_map(|(s, e)| Op::Slice(s, e)),
        1 => any::<bool>().prop_map(Op::Service),
        1 => any::<bool>().prop_map(Op::Export),
    ]
}

proptest! {
    #[test]
    fn changes_one_by_one_give_what_everything_at_once_gives(ops in proptest::collection::vec(op(), 1..40)) {
        let mut world = World::new(BTreeMap::new());
        let mut objects: BTreeMap<ObjectKey, Object> = BTreeMap::new();
        for op in ops {
            let (yaml, there) = match op {
                Op::Pod(p, app, on, there) => (pod(&format!("p{p}"), &format!("a{app}"), on, p + 1), there),
                Op::Node(n, there) => (node(n), there),
                Op::Slice(s, backends) => {
                    let names: BTreeMap<u8, bool> = backends.into_iter().collect();
                    let texts: Vec<_> = names
                        .iter()
                        .map(|(p, ready)| (format!("p{p}"), format!("10.1.{}.{}", s + 1, p + 1), *ready))
                        .collect();
                    let texts: Vec<_> = texts.iter().map(|(a, b, c)| (a.as_str(), b.as_str(), *c)).collect();
                    (slice(&format!("web-{s}"), &texts), !texts.is_empty())
                }
                Op::Service(there) => (SERVICE.to_owned(), there),
                Op::Export(there) => (EXPORT.to_owned(), there),
            };
            for (key, object) in parse(&yaml) {
                if there {
                    objects.insert(key, object);
                } else {
                    objects.remove(&key);
                }
            }
            if there { world.apply(&yaml) } else { world.remove(&yaml) }
            let mut fresh = World::new(world.numbers.clone());
            for (key, object) in &objects {
                fresh.derive.apply(key, Some(object));
            }
            fresh.settle();
            prop_assert_eq!(&world.records, &fresh.records);
            let keys: BTreeSet<Key> = world.derive.keys().into_iter().cloned().collect();
            prop_assert_eq!(keys, world.records.keys().cloned().collect::<BTreeSet<_>>());
        }
    }
}
