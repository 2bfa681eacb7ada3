//! Frames that are read in parts to where they are sealed, against the same frames in one piece.

use std::io::IoSliceMut;

use hawser_tunnel::outbound::Outbound;

use super::frames::frame;
use super::source::Source;
use super::world::World;

/// Messages of one way that are opened.
const MOST_MESSAGES: usize = 400;

/// Target: frames one after the other, by both ways; the peers open the same plaintexts.
pub(super) fn reads(input: &[u8]) {
    World::with_used(|world| {
        let mut source = Source::new(input);
        let (mut whole, mut parts) = (Outbound::default(), Outbound::default());
        let mut kept: Option<(_, Vec<u8>)> = None;
        for _ in 0..=source.pick(&[3, 1, 7]) {
            // The layout is learnt from what came before: many frames are like that.
            let (header, frame) = match kept.take() {
                Some(kept) if source.once_in(2) => kept,
                _ => frame(&mut source),
            };
            let now = world.now;
            world.device.handle_frame(&mut whole, header, &frame, now);
            let bytes = [&header.encode()[..], &frame].concat();
            let read =
                |parts: &mut [IoSliceMut<'_>]| -> Result<usize, ()> { Ok(fill(parts, &bytes)) };
            let taken = world.device.handle_read(&mut parts, now, read);
            taken.expect("it was read");
            kept = Some((header, frame));
            if source.once_in(3) {
                compare(world, &mut whole, &mut parts);
            }
        }
        compare(world, &mut whole, &mut parts);
    });
}

/// What a kernel does: part after part, as far as the frame goes.
fn fill(parts: &mut [IoSliceMut<'_>], bytes: &[u8]) -> usize {
    let mut left = bytes;
    for part in parts {
        let count = part.len().min(left.len());
        part[..count].copy_from_slice(&left[..count]);
        left = &left[count..];
    }
    assert!(
        left.is_empty(),
        "no room for {} bytes of a frame",
        left.len()
    );
    bytes.len()
}

fn compare(world: &mut World, whole: &mut Outbound, parts: &mut Outbound) {
    world.device.flush(whole, world.now);
    world.device.flush(parts, world.now);
    let count = whole.datagrams.len();
    assert_eq!(parts.datagrams.len(), count, "messages");
    // The peers' replay window is 1,024 messages deep, and both ways are sealed by turns.
    if count < MOST_MESSAGES {
        let (expected, found) = (opened(world, whole), opened(world, parts));
        for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!(found == expected, "message {at} is another");
        }
    }
    whole.clear();
    parts.clear();
}

fn opened(world: &mut World, out: &Outbound) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (message, &to) in out.datagrams.iter() {
        let speaker = match to == world.native.at {
            true => &mut world.native,
            false => &mut world.foreign,
        };
        let mut plaintext = speaker.open(message, world.now);
        // Each way counts the halves of packets by itself.
        if plaintext[6] & 0x3f != 0 || plaintext[7] != 0 {
            plaintext[4..6].fill(0);
            plaintext[10..12].fill(0);
        }
        all.push(plaintext);
    }
    all
}
