use super::chacha20::{self, Counters};
use super::{Cpu, Key, bytes, poly1305};
use core::arch::x86_64::_mm512_setzero_si512;
use hex_literal::hex;
use poly1305_reference::Poly1305;
use poly1305_reference::universal_hash::KeyInit;

/// Lane `lane` of `lanes`, by the function under test.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512ifma")]
fn keystream(key: &Key, lane: usize, lanes: usize, counter: u64, block: usize) -> [u8; 64] {
    let mut counters = Counters::new();
    counters.set(0, chacha20::MOST, 99, 99);
    counters.set(lane, 1, counter, block);
    let mut found = _mm512_setzero_si512();
    chacha20::keystream(&key.words, &counters, lanes, |at, block| {
        if at == lane {
            found = block;
        }
    });
    let mut stream = [0; 64];
    bytes::xor(&mut stream, found);
    stream
}

/// Appendix A.1; the last one's nonce is the counter 2^57.
#[test]
fn the_keystreams_of_the_rfc_come_out_of_every_lane() {
    if Cpu::detect().is_none() {
        return;
    }
    let zero = [0; 32];
    let (mut one, mut ff) = (zero, zero);
    one[31] = 1;
    ff[1] = 0xff;
    let vectors = [
        (
            zero,
            0,
            0,
            hex!(
                "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586"
            ),
        ),
        (
            zero,
            0,
            1,
            hex!(
                "9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f"
            ),
        ),
        (
            one,
            0,
            1,
            hex!(
                "3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0"
            ),
        ),
        (
            ff,
            0,
            2,
            hex!(
                "72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096"
            ),
        ),
        (
            zero,
            1 << 57,
            0,
            hex!(
                "c2c64d378cd536374ae204b9ef933fcd1a8b2288b3dfa49672ab765b54ee27c78a970e0e955c14f3a88e741b97c286f75f8fc299e8148362fa198a39531bed6d"
            ),
        ),
    ];
    for (key, counter, block, stream) in vectors {
        let key = Key::new(&key);
        for lane in 0..chacha20::MOST {
            let lanes = if lane < 16 { [16, 32] } else { [32, 32] };
            for lanes in lanes {
                #[expect(unsafe_code, reason = "instructions that not every CPU has")]
                // SAFETY: they were detected.
                let found = unsafe { keystream(&key, lane, lanes, counter, block) };
                assert_eq!(found, stream, "lane {lane} of {lanes}");
            }
        }
    }
}

fn reference(key: &[u8; 32], data: &[u8]) -> [u8; 16] {
    Poly1305::new(key.into()).compute_unpadded(data).into()
}

fn tags(cpu: Cpu, keys: &[[u8; 32]; 8], data: &[Vec<u8>; 8]) -> [[u8; 16]; 8] {
    let Cpu(()) = cpu;
    #[expect(unsafe_code, reason = "instructions that not every CPU has")]
    // SAFETY: they were detected.
    unsafe {
        poly1305::tests::tags(keys, data)
    }
}

/// Section 2.5.2, and the vectors 7 to 13 of appendix A.3, which find wrong carries.
#[test]
fn the_tags_of_the_rfc_come_out_of_every_lane() {
    let Some(cpu) = Cpu::detect() else { return };
    let number = |low: u64, high: u64| (u128::from(high) << 64 | u128::from(low)).to_le_bytes();
    let key = |r: [u8; 16], s: [u8; 16]| [r, s].concat().try_into().unwrap();
    let ones = number(u64::MAX, u64::MAX);
    let (none, one, two, one_four) = (number(0, 0), number(1, 0), number(2, 0), number(1, 4));
    let pieces = [
        hex!("e33594d7505e43b900000000000000003394d7505e4379cd0100000000000000").as_slice(),
        &hex!("0000000000000000000000000000000001000000000000000000000000000000"),
    ]
    .concat();
    let vectors: [([u8; 32], Vec<u8>, [u8; 16]); 8] = [
        (
            hex!("85d6be7857556d337f4452fe42d506a80103808afb0db2fd4abff6af4149f51b"),
            b"Cryptographic Forum Research Group".to_vec(),
            hex!("a8061dc1305136c6c22b8baf0c0127a9"),
        ),
        (key(two, none), ones.to_vec(), number(3, 0)),
        (key(two, ones), two.to_vec(), number(3, 0)),
        (
            key(one, none),
            hex!("fffffffffffffffffffffffffffffffff0ffffffffffffffffffffffffffffff11000000000000000000000000000000").to_vec(),
            number(5, 0),
        ),
        (
            key(one, none),
            hex!("fffffffffffffffffffffffffffffffffbfefefefefefefefefefefefefefefe01010101010101010101010101010101").to_vec(),
            none,
        ),
        (
            key(two, none),
            hex!("fdffffffffffffffffffffffffffffff").to_vec(),
            hex!("faffffffffffffffffffffffffffffff"),
        ),
        (key(one_four, none), pieces.clone(), number(0x14, 0x55)),
        (key(one_four, none), pieces[..48].to_vec(), number(0x13, 0)),
    ];
    for (key, data, tag) in &vectors {
        assert_eq!(reference(key, data), *tag, "the reference itself");
        assert_eq!(
            tags(cpu, &[*key; 8], &std::array::from_fn(|_| data.clone())),
            [*tag; 8]
        );
    }
}

#[test]
fn extreme_keys_and_blocks_give_the_tags_of_another_implementation() {
    let Some(cpu) = Cpu::detect() else { return };
    let bytes = [0, 1, 2, 0x7f, 0x80, 0xfb, 0xfc, 0xff];
    for r in bytes {
        for pad in bytes {
            for blocks in [1, 2, 3, 4, 5, 64, 700] {
                let keys: [[u8; 32]; 8] = std::array::from_fn(|lane| {
                    let mut key = [pad; 32];
                    key[..16].fill(r);
                    key[lane] = 0xff;
                    key
                });
                let data = bytes.map(|byte| vec![byte; 16 * blocks]);
                let expected: Vec<_> = keys
                    .iter()
                    .zip(&data)
                    .map(|(k, d)| reference(k, d))
                    .collect();
                assert_eq!(tags(cpu, &keys, &data), expected[..]);
            }
        }
    }
}
