use super::{Cipher, Key, Message, TAG_LEN};
use hex_literal::hex;

/// Lengths of texts at which something changes: blocks of 16 and 64 bytes, packets, the longest.
const LENGTHS: [usize; 20] = [
    0, 1, 15, 16, 17, 32, 63, 64, 65, 127, 128, 129, 1023, 1024, 1025, 1440, 1441, 8896, 8897,
    65_519,
];

/// SplitMix64: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.any() % bound as u64).unwrap()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend(self.any().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    fn key(&mut self) -> [u8; 32] {
        self.bytes(32).try_into().unwrap()
    }

    fn counter(&mut self) -> u64 {
        let near = [0, u64::from(u32::MAX), u64::MAX][self.below(3)];
        let around = near.wrapping_add(self.any() % 4).wrapping_sub(2);
        [around, self.any()][self.below(2)]
    }

    fn length(&mut self) -> usize {
        match self.below(40) {
            0 => LENGTHS[self.below(LENGTHS.len())],
            1..20 => LENGTHS[self.below(16)],
            _ => self.below(300),
        }
    }
}

/// Counters, and bytes: text and room for the tag.
type Batch = Vec<(u64, Vec<u8>)>;

fn messages(batch: &mut Batch) -> Vec<Message<'_>> {
    batch
        .iter_mut()
        .map(|(counter, bytes)| Message {
            counter: *counter,
            bytes,
        })
        .collect()
}

fn opened(key: &Key, batch: &mut Batch) -> Vec<bool> {
    let mut verdicts = vec![None; batch.len()];
    key.open(&mut messages(batch), |index, good| {
        assert_eq!(verdicts[index].replace(good), None, "told twice");
    });
    let told = verdicts.into_iter().map(|verdict| verdict.expect("told"));
    told.collect()
}

fn text(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len() - TAG_LEN]
}

fn rounds(short: usize, full: usize) -> usize {
    if std::env::var_os("HAWSER_SOAK").is_some() {
        full
    } else {
        short
    }
}

/// Section 2.8.2 with WireGuard's nonce, which begins with zeros, and without associated data.
#[test]
fn the_text_of_the_rfc_becomes_the_known_bytes_in_every_place_of_a_batch() {
    let plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip \
        for the future, sunscreen would be it.";
    let key = hex!("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f");
    let sealed = hex!(
        "a479cb54628946d6f4042a8e384ef4bd2fbc7330b8be55eb2d8dc18aaa51d66a"
        "8ec1f8d3619a258db0ac56956015b7b4937e9b8e6aa957b3dc0214d803d77660"
        "aabc913092971da8f207171ce7843608162e2e759d8efc25d8d0936990af63c8"
        "20ba87e8a955b5c8274ef7d10f6fafd04647fa6775577a1a250dcc2df37e95e4"
        "6c4a"
    );
    let place = (
        0x4746_4544_4342_4140,
        [plain.as_slice(), &[0; TAG_LEN]].concat(),
    );
    for cipher in Cipher::all_here() {
        let key = Key::new(&key, cipher);
        for count in 1..40 {
            let mut batch = vec![place.clone(); count];
            key.seal(&mut messages(&mut batch));
            for (_, bytes) in &batch {
                assert_eq!(bytes.as_slice(), sealed, "{} of {count}", cipher.name());
            }
            assert_eq!(opened(&key, &mut batch), vec![true; count]);
            assert!(batch.iter().all(|(_, bytes)| text(bytes) == plain));
        }
    }
}

#[test]
fn every_cipher_seals_to_the_same_bytes_as_ring_and_opens_them() {
    let mut numbers = Numbers(1);
    for round in 0..rounds(4_000, 120_000) {
        let key = numbers.key();
        let count = numbers.below(36);
        let same = (numbers.below(2) == 0).then(|| numbers.length());
        let plain: Batch = (0..count)
            .map(|_| {
                let length = same.unwrap_or_else(|| numbers.length());
                (numbers.counter(), numbers.bytes(length + TAG_LEN))
            })
            .collect();
        let mut sealed = plain.clone();
        Key::new(&key, Cipher::Ring).seal(&mut messages(&mut sealed));
        for cipher in Cipher::all_here() {
            let key = Key::new(&key, cipher);
            let mut batch = plain.clone();
            key.seal(&mut messages(&mut batch));
            assert!(batch == sealed, "{} in round {round}", cipher.name());
            assert_eq!(opened(&key, &mut batch), vec![true; count]);
            let texts = batch.iter().zip(&plain);
            assert!(
                texts.into_iter().all(|(a, b)| text(&a.1) == text(&b.1)),
                "{} in round {round}",
                cipher.name()
            );
        }
    }
}

/// What encrypts to ones only gives the largest blocks; zeros give the smallest.
#[test]
fn the_largest_and_the_smallest_blocks_give_the_tags_that_ring_gives() {
    let mut numbers = Numbers(2);
    for _ in 0..rounds(200, 5_000) {
        let key = numbers.key();
        let reference = Key::new(&key, Cipher::Ring);
        let count = 1 + numbers.below(20);
        let fill = [0, 0xff, 0xfe, 0xfb][numbers.below(4)];
        let mut batch: Batch = (0..count)
            .map(|_| {
                (
                    numbers.counter(),
                    vec![0; numbers.length().min(2_000) + TAG_LEN],
                )
            })
            .collect();
        // The keystream, so that its sum with the keystream is what is wanted.
        reference.seal(&mut messages(&mut batch));
        for byte in batch.iter_mut().flat_map(|(_, bytes)| bytes) {
            *byte ^= fill;
        }
        let plain = batch.clone();
        reference.seal(&mut messages(&mut batch));
        assert!(
            batch
                .iter()
                .all(|(_, bytes)| text(bytes).iter().all(|byte| *byte == fill))
        );
        for cipher in Cipher::all_here() {
            let mut sealed = plain.clone();
            Key::new(&key, cipher).seal(&mut messages(&mut sealed));
            assert!(sealed == batch, "{}", cipher.name());
        }
    }
}

#[test]
fn a_flipped_bit_has_its_message_refused_and_no_other() {
    let mut numbers = Numbers(3);
    for cipher in Cipher::all_here() {
        for round in 0..rounds(3_000, 100_000) {
            let key = Key::new(&numbers.key(), cipher);
            let count = 1 + numbers.below(34);
            let plain: Batch = (0..count)
                .map(|_| {
                    let length = numbers.length().min(1_500);
                    (numbers.counter(), numbers.bytes(length + TAG_LEN))
                })
                .collect();
            let mut batch = plain.clone();
            key.seal(&mut messages(&mut batch));
            let bad = numbers.below(count);
            let bytes = &mut batch[bad].1;
            // Every bit of the tag by turns, or any bit.
            let bit = if round % 2 == 0 {
                8 * text(bytes).len() + round / 2 % 128
            } else {
                numbers.below(8 * bytes.len())
            };
            bytes[bit / 8] ^= 1 << (bit % 8);
            let good: Vec<bool> = (0..count).map(|index| index != bad).collect();
            assert_eq!(opened(&key, &mut batch), good, "{}", cipher.name());
            for (index, ((_, now), (_, then))) in batch.iter().zip(&plain).enumerate() {
                let (now, then) = (text(now), text(then));
                // So many bytes are not equal by chance.
                if index != bad || then.len() >= 16 {
                    assert_eq!(now == then, index != bad, "{}", cipher.name());
                }
            }
        }
    }
}

#[test]
fn another_counter_or_another_key_opens_nothing() {
    let mut numbers = Numbers(4);
    for cipher in Cipher::all_here() {
        let key = Key::new(&[1; 32], cipher);
        for bit in 0..64 {
            let mut batch: Batch = (0..20).map(|n| (n, numbers.bytes(100))).collect();
            key.seal(&mut messages(&mut batch));
            let mut copy = batch.clone();
            for (counter, _) in &mut batch {
                *counter ^= 1 << bit;
            }
            assert_eq!(opened(&key, &mut batch), [false; 20]);
            let other = Key::new(&[2; 32], cipher);
            assert_eq!(opened(&other, &mut copy), [false; 20]);
        }
    }
}

#[test]
fn what_is_too_short_for_a_tag_is_refused_and_its_neighbours_are_not() {
    for cipher in Cipher::all_here() {
        let key = Key::new(&[3; 32], cipher);
        for length in 0..TAG_LEN {
            let mut batch: Batch = (0..20).map(|n| (n, vec![7; 80])).collect();
            key.seal(&mut messages(&mut batch));
            batch[0].1.truncate(length);
            batch[17].1.truncate(length);
            let good: Vec<bool> = (0..20).map(|index| ![0, 17].contains(&index)).collect();
            assert_eq!(opened(&key, &mut batch), good);
        }
    }
}

#[test]
fn the_fastest_cipher_is_one_that_this_cpu_can_do() {
    let fastest = Cipher::fastest();
    assert!(Cipher::all_here().any(|cipher| cipher == fastest));
}
