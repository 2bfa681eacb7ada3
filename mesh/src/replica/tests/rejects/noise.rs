//! Messages that were changed on the way.

use super::*;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What an honest side says, but changed, twice, not at all, or on the other stream.
    #[test]
    fn no_mangled_message_makes_it_panic_or_harms_others(
        steps in prop::collection::vec((0..8u8, any::<u8>(), any::<u16>()), 1..150)
    ) {
        let mut world = World::new(3);
        let other = world.follow(2, HUB);
        let mut session = world.follow(1, HUB);
        for (revision, (what, which, how)) in (1..).zip(steps) {
            let name = format!("a{}", which % 16);
            world.write(revision, [set(&name, &how.to_string())]);
            world.collect();
            let side = usize::from(which % 2);
            let stream = if which % 4 < 2 { Stream::Changes } else { Stream::Bulk };
            if let Some(wire) = world.wires.get_mut(&session) {
                let queue = &mut wire.queues[side][stream.index()];
                let how = usize::from(how);
                match (what, queue.front_mut()) {
                    (0, Some(bytes)) if !bytes.is_empty() => {
                        let mut changed = bytes.to_vec();
                        let at = how % changed.len();
                        changed[at] ^= which | 1;
                        *bytes = changed.into();
                    }
                    (1, Some(bytes)) => *bytes = bytes.slice(..how % (bytes.len() + 1)),
                    (2, Some(bytes)) => {
                        let again = bytes.clone();
                        queue.push_back(again);
                    }
                    (3, Some(_)) => {
                        queue.pop_front();
                    }
                    _ => {}
                }
            } else {
                session = world.follow(1, HUB);
            }
            world.deliver(session, side, stream);
            if what == 4 {
                world.pass(Duration::from_millis(which.into()));
            }
        }
        world.cut(session);
        world.settle();
        world.rejects.clear();
        world.assert_same(2);
        assert!(world.wires.contains_key(&other));
    }

    #[test]
    fn no_bytes_make_it_panic(
        messages in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..200)), 0..20)
    ) {
        for mut liar in [Liar::to_agent(), Liar::to_hub(agent()), Liar::to_hub(other_hub())] {
            for (bulk, bytes) in &messages {
                let stream = if *bulk { Stream::Bulk } else { Stream::Changes };
                let bytes = Bytes::copy_from_slice(bytes);
                let _ = liar.0.replicas[liar.1].handle_message(SESSION, stream, bytes, liar.0.now);
                liar.0.collect();
            }
        }
    }
}
