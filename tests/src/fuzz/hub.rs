//! What a hub finds on its disk: its journal, and manifests that people write.

use super::source::Source;
use bytes::Bytes;
use hawser_mesh::hub::journal::{End, Frame, Live, read_frames};
use hawser_mesh::hub::manifest::document::{Ground, split};
use hawser_mesh::hub::manifest::{Catalog, Complaint, Content, Look};
use hawser_mesh::record::{Key, Version};
use hawser_tunnel::node::ClusterId;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Target: frames, then any bytes, then a flipped bit. What was written before the damage is read, what is read was
/// written.
pub(super) fn journal_frames(input: &[u8]) {
    let mut source = Source::new(input);
    let count = source.below(6);
    let mut revision = 0;
    let written: Vec<_> = (0..count)
        .map(|_| {
            revision += 1 + u64::from(source.any::<u8>());
            frame(&mut source, revision)
        })
        .collect();
    let flipped: u16 = source.any();
    let garbage = source.rest();
    let whole: Vec<u8> = written.iter().flat_map(Frame::to_bytes).collect();
    let all = [&whole, garbage].concat();
    let (frames, at, end) = read(all.clone());
    assert!(at >= whole.len() && at <= all.len());
    assert_eq!(
        frames[..count],
        written,
        "what was written is read, whatever is behind it"
    );
    assert_eq!(end == End::Clean, at == all.len());
    let again: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
    assert_eq!(again, all[..at], "a frame has one form");
    let _ = read(garbage.to_vec());
    shortened(&written);
    if let Some(bits) = (whole.len() * 8).checked_sub(1) {
        let bit = usize::from(flipped).min(bits);
        let mut broken = whole;
        broken[bit / 8] ^= 1 << (bit % 8);
        let (frames, _, end) = read(broken);
        assert!(end != End::Clean, "a flipped bit is seen");
        assert!(frames.len() < count && written.starts_with(&frames));
    }
}

/// The journal of a state alone leads to that state.
fn shortened(written: &[Frame]) {
    let (mut live, mut again) = (Live::default(), Live::default());
    written.iter().for_each(|frame| live.apply(frame));
    live.frames().iter().for_each(|frame| again.apply(frame));
    assert_eq!(again, live);
}

fn frame(source: &mut Source<'_>, revision: u64) -> Frame {
    let change = |source: &mut Source<'_>| {
        let name = source.bytes(12);
        let key = [&[source.pick(&[1, 4, 65, 200])], name].concat();
        let key = Key::parse(key.into()).expect("1 to 13 bytes are a key");
        let value = (!source.once_in(4)).then(|| Bytes::copy_from_slice(source.bytes(40)));
        (key, value)
    };
    Frame {
        version: Version::new(1, revision),
        changes: (0..source.below(5)).map(|_| change(source)).collect(),
    }
}

fn read(bytes: Vec<u8>) -> (Vec<Frame>, usize, End) {
    let mut frames = Vec::new();
    let (at, end) = read_frames(&bytes.into(), |frame| frames.push(frame));
    (frames, at, end)
}

/// Target: any text as a file of manifests, beside one that is right. A complaint is one line with a place in the file,
/// a file that is refused takes nothing away, and the same file again is no news.
pub(super) fn manifests(input: &[u8]) {
    let text = String::from_utf8_lossy(input).into_owned();
    let ground = Ground {
        cluster: ClusterId::new(1).expect("1 is an ID"),
        name: "east".to_owned(),
        pod_cidrs: vec!["10.1.0.0/16".parse().expect("a prefix")],
        service_cidrs: Vec::new(),
    };
    let lines = u64::try_from(text.lines().count()).expect("an input is short");
    for document in split(&text) {
        assert!((1..=lines).contains(&document.line), "a line of the file");
        match document.parse(&ground) {
            Ok(Some((key, object))) => assert_eq!(key.kind, object.kind()),
            Ok(None) => {}
            Err(wrong) => {
                assert!((1..=lines + 1).contains(&wrong.line), "{wrong}");
                assert_one_line(&wrong.to_string());
            }
        }
    }
    let mut catalog = Catalog::new(ground);
    let now = Instant::now();
    let look = |other: &str| Look {
        files: BTreeMap::from([
            ("any.yaml".to_owned(), Content::Text(text.clone())),
            ("right.yaml".to_owned(), Content::Text(other.to_owned())),
        ]),
    };
    let right = "apiVersion: v1\nkind: Namespace\nmetadata: { name: right }\n";
    let news = catalog.handle_look(look(right), now);
    news.complaints.iter().for_each(assert_complaint);
    let stands = catalog.len();
    let again = catalog.handle_look(look(right), now + Duration::from_secs(10));
    assert!(again.changes.is_empty(), "the same files are no news");
    assert!(again.complaints.is_empty(), "a complaint is made once");
    let worse = catalog.handle_look(look("kind: [\n"), now + Duration::from_secs(20));
    worse.complaints.iter().for_each(assert_complaint);
    assert!(catalog.len() >= stands, "what stood before, stands");
}

fn assert_complaint(complaint: &Complaint) {
    assert_one_line(&complaint.to_string());
}

fn assert_one_line(text: &str) {
    let broken = text.chars().any(|c| c == '\n' || c == '\r');
    assert!(!broken && !text.is_empty(), "not one line: {text:?}");
}
