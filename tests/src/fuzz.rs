//! Fuzzing of everything that parses bytes.
//!
//! A target is a plain function that takes any bytes and panics where a promise is broken: not only "no panic", but
//! what the code says of itself (a name for every refusal, decoded is what was encoded, no packet of a stranger).
//! [`driver`] runs targets over the committed corpus and mutations of it, the same for the same seed, in every test
//! run; `tests/fuzz` runs the same functions under libFuzzer, which sees what code an input reached.
//!
//! [`TARGETS`] lists them. Each group has a file; `source` reads structured values out of an input, `packet` makes IP
//! packets of them, `world` is a data plane in mid-session with real peers.

mod aead;
mod capture;
mod claims;
pub mod command;
mod control;
mod corpus;
mod datagrams;
pub mod driver;
mod frames;
mod geneve;
mod guard;
mod handshake_limit;
mod hub;
mod ip;
mod key_file;
mod merge;
mod mesh;
mod message;
mod mutation;
mod names;
mod netlink;
mod overlay;
mod packet;
mod probe;
mod reassembly;
mod replica;
mod scatter;
mod segment;
mod source;
mod state;
mod state_file;
mod virtio;
mod wireguard;
mod world;

pub use corpus::{Corpus, MAX_INPUT};

/// A target: takes any bytes, panics where a promise is broken.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also the name of its folder in the corpus.
pub const TARGETS: &[(&str, Target)] = &[
    ("accept", claims::accepted),
    ("aead", aead::batches),
    ("capture", capture::file),
    ("certificate", mesh::certificate),
    ("claims", claims::sealed),
    ("control", control::conversation),
    ("datagrams", datagrams::mid_session),
    ("frames", frames::outbound),
    ("geneve", geneve::header),
    ("guard_listing", guard::listing),
    ("guard_plan", guard::plan),
    ("handshake_limit", handshake_limit::sources),
    ("ip", ip::packet),
    ("journal_frames", hub::journal_frames),
    ("key_file", key_file::load),
    ("manifests", hub::manifests),
    ("merge", merge::flows),
    ("message", message::stream),
    ("names", names::text),
    ("netlink", netlink::datagram),
    ("overlay", overlay::packet),
    ("probe", probe::packet),
    ("reassembly", reassembly::halves),
    ("replica_messages", replica::messages),
    ("replica_session", replica::session),
    ("scatter", scatter::reads),
    ("segment", segment::super_frame),
    ("state", state::json),
    ("state_changes", state::changes),
    ("state_file", state_file::load),
    ("stream_frames", mesh::frames),
    ("virtio", virtio::header),
    ("wireguard", wireguard::message),
];

/// The target of a name.
#[must_use]
pub fn target(name: &str) -> Option<Target> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|&(_, target)| target)
}

/// Why packets were dropped in the runs of this thread so far, and how often; counts anew from here. It shows how deep
/// the targets reach.
#[must_use]
pub fn reached() -> std::collections::BTreeMap<String, u64> {
    world::reached()
}
