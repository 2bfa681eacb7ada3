//! Batches of messages under one key, by every cipher of this machine.

use hawser_tunnel::aead::{Cipher, Key, Message, TAG_LEN};

use super::source::Source;

/// More messages fill no further lane.
const MOST: usize = 40;

/// Target: texts of any lengths and counters. All ciphers make the same bytes of them, open each other's, and refuse
/// what is not as it was sealed.
pub(super) fn batches(input: &[u8]) {
    let mut source = Source::new(input);
    let key: [u8; 32] = source.array();
    let mut texts: Vec<(u64, Vec<u8>)> = Vec::new();
    while !source.is_empty() && texts.len() < MOST {
        let counter = match source.once_in(3) {
            true => source.any(),
            false => texts.last().map_or(0, |(before, _)| before.wrapping_add(1)),
        };
        let length = match source.once_in(2) {
            true => source.pick(&[0, 1, 15, 16, 17, 63, 64, 65, 1023, 1024, 1440]),
            false => source.below(1500),
        };
        texts.push((counter, source.pattern(length)));
    }
    let sealed: Vec<Vec<Vec<u8>>> = Cipher::all_here()
        .map(|cipher| seal(&Key::new(&key, cipher), &texts))
        .collect();
    let flipped = (!texts.is_empty() && source.once_in(2)).then(|| source.below(texts.len()));
    let bit = source.any::<u16>();
    for (cipher, other) in Cipher::all_here().zip(sealed.iter().rev()) {
        assert!(sealed[0] == *other, "two ciphers, two results");
        let key = Key::new(&key, cipher);
        open(&key, &texts, other.clone(), flipped, usize::from(bit));
    }
}

fn seal(key: &Key, texts: &[(u64, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut sealed: Vec<Vec<u8>> = texts
        .iter()
        .map(|(_, text)| [&text[..], &[0; TAG_LEN]].concat())
        .collect();
    key.seal(&mut messages(texts, &mut sealed));
    sealed
}

fn messages<'a>(texts: &[(u64, Vec<u8>)], sealed: &'a mut [Vec<u8>]) -> Vec<Message<'a>> {
    let counters = texts.iter().map(|(counter, _)| *counter);
    let pairs = counters.zip(sealed);
    pairs
        .map(|(counter, bytes)| Message { counter, bytes })
        .collect()
}

fn open(
    key: &Key,
    texts: &[(u64, Vec<u8>)],
    mut sealed: Vec<Vec<u8>>,
    flipped: Option<usize>,
    bit: usize,
) {
    if let Some(at) = flipped {
        let bit = bit % (sealed[at].len() * 8);
        sealed[at][bit / 8] ^= 1 << (bit % 8);
    }
    let mut verdicts = vec![None; texts.len()];
    let told = |at: usize, opened: bool| {
        assert_eq!(verdicts[at].replace(opened), None, "told twice");
    };
    key.open(&mut messages(texts, &mut sealed), told);
    for (at, (_, text)) in texts.iter().enumerate() {
        let refused = flipped == Some(at);
        assert_eq!(verdicts[at], Some(!refused), "message {at}");
        if refused {
            let shown = text.len() > 16 && sealed[at].starts_with(&text[..text.len() - 1]);
            assert!(!shown, "a refused message shows its text");
        } else {
            assert!(sealed[at].starts_with(text), "message {at} is another");
        }
    }
}
