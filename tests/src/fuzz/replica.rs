//! What replicas say to each other: messages, records, and whole sessions on which anything may happen.

mod lie;
mod pair;

use super::source::Source;
use bytes::Bytes;
use hawser_mesh::record::Key;
use hawser_mesh::wire::{Message, decode_record, encode_record};
use pair::Pair;
use std::time::Duration;

/// The most steps of a session: an input of any length ends soon.
const STEPS: usize = 96;

/// Target: any bytes as a message, and as a record under a key. What is read is written and read as the same; so is a
/// message that we make.
pub(super) fn messages(input: &[u8]) {
    if let Ok(message) = Message::parse(Bytes::copy_from_slice(input)) {
        assert_same(&message);
    }
    let mut source = Source::new(input);
    assert_same(&Message::of(lie::body(&mut source)));
    let mut source = Source::new(input);
    let key = Bytes::copy_from_slice(source.bytes(40));
    let value = Bytes::copy_from_slice(source.rest());
    let Ok(key) = Key::parse(key) else {
        return;
    };
    match decode_record(&key, &value) {
        Ok(record) => {
            assert_eq!(record.key(), key, "a record lies under its key");
            let again = decode_record(&key, &encode_record(&record));
            assert_eq!(again, Ok(record));
        }
        Err(error) => assert!(error.name().starts_with("record_"), "{error}"),
    }
}

fn assert_same(message: &Message) {
    let again = Message::parse(message.to_bytes());
    assert_eq!(again.as_ref(), Ok(message));
}

/// Target: a publisher, a subscriber, and a wire on which messages are lost, doubled, changed and made up. Once it is
/// over, both have the same.
pub(super) fn session(input: &[u8]) {
    let mut source = Source::new(input);
    let mut pair = Pair::new(source.once_in(2));
    for _ in 0..STEPS {
        if source.is_empty() {
            break;
        }
        match source.below(14) {
            0..=2 => pair.deliver(&mut source, false),
            3..=5 => pair.deliver(&mut source, true),
            6 => pair.write(&mut source),
            7 => {
                let time = source.pick(&[10_u64, 1_000, 5_000, 60_000]);
                pair.pass(Duration::from_millis(time));
            }
            8 => pair.settle(),
            9 => pair.cut(),
            10 => pair.connect(),
            11 => pair.filter(&mut source),
            12 => pair.block(&mut source),
            _ => pair.turn(&mut source),
        }
        pair.check();
    }
    pair.heal();
}
