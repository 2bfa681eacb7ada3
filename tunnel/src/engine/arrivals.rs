//! Data messages that came: judged by their headers, opened together, and what was in them.

use super::Opened;
use super::noise::{NoiseEngine, RUN};
use super::session::HEADER_LEN;
use super::sessions::Sessions;
use crate::aead::{Message, TAG_LEN};
use crate::batch::Batch;
use crate::reject::Reject;
use crate::wireguard::{DataHeader, data_header};
use std::ops::Range;
use std::time::Instant;

/// A message whose text stands, still sealed, in the batch that is made.
#[derive(Clone, Default)]
struct Arrival {
    session: u32,
    counter: u64,
    /// Text and tag.
    range: Range<usize>,
    refused: Option<Reject>,
}

/// Opens messages in order: one entry in `out` for each.
pub(super) fn open<'a>(
    engine: &mut NoiseEngine,
    messages: impl Iterator<Item = &'a [u8]>,
    now: Instant,
    out: &mut Batch<Opened>,
) {
    // Room for a whole run costs as much as a short message does.
    match messages.size_hint().1 {
        Some(0 | 1) => open_by::<1>(engine, messages, now, out),
        Some(2..=8) => open_by::<8>(engine, messages, now, out),
        Some(_) | None => open_by::<RUN>(engine, messages, now, out),
    }
}

/// The same, `N` messages at a time.
fn open_by<'a, const N: usize>(
    engine: &mut NoiseEngine,
    mut messages: impl Iterator<Item = &'a [u8]>,
    now: Instant,
    out: &mut Batch<Opened>,
) {
    let mut arrivals: [Arrival; N] = std::array::from_fn(|_| Arrival::default());
    loop {
        let mut count = 0;
        let mut end = out.end();
        for message in messages.by_ref().take(N) {
            arrivals[count] = arrive(engine.sessions(), message, now, end, out);
            end = arrivals[count].range.end;
            count += 1;
        }
        if count == 0 {
            return;
        }
        for run in arrivals[..count].chunk_by_mut(|a, b| a.session == b.session) {
            let sessions = engine.sessions();
            open_run::<N>(sessions, run, out.bytes_mut());
            let (mut proven, mut carries_data) = (false, false);
            for arrival in &*run {
                let (length, opened) = deliver(sessions, arrival, out.bytes_mut());
                proven |=
                    !matches!(opened, Opened::Rejected(reason) if reason != Reject::WgPlaintext);
                carries_data |= opened == Opened::Packet;
                let start = arrival.range.start;
                out.keep(start..start + length, opened);
            }
            if proven {
                engine.authenticated(run[0].session, carries_data, now);
            }
        }
    }
}

/// Judges a message by its header and copies text and tag to `at`.
fn arrive(
    sessions: &Sessions,
    message: &[u8],
    now: Instant,
    at: usize,
    out: &mut Batch<Opened>,
) -> Arrival {
    let DataHeader { receiver, counter } = data_header(message);
    let session = sessions
        .of(receiver)
        .filter(|session| !session.is_over(now));
    let text = message
        .get(HEADER_LEN..)
        .filter(|text| text.len() >= TAG_LEN);
    let refused = match (session, text) {
        (Some(session), Some(_)) => session.admit(counter).err(),
        (None, _) | (_, None) => Some(Reject::WgNoSession),
    };
    let text = text.filter(|_| refused.is_none()).unwrap_or_default();
    out.room(at, text.len()).copy_from_slice(text);
    Arrival {
        session: receiver,
        counter,
        range: at..at + text.len(),
        refused,
    }
}

/// Opens arrivals of one session, `N` at most, where they stand in `bytes`.
fn open_run<const N: usize>(sessions: &Sessions, run: &mut [Arrival], bytes: &mut [u8]) {
    let Some(session) = run.first().and_then(|first| sessions.of(first.session)) else {
        return;
    };
    let mut messages: [Message<'_>; N] = std::array::from_fn(|_| Message::default());
    let mut places = [0; N];
    let (mut count, mut rest, mut passed) = (0, bytes, 0);
    for (place, arrival) in run.iter().enumerate() {
        if arrival.refused.is_some() {
            continue;
        }
        let Range { start, end } = arrival.range;
        let (_, from) = rest.split_at_mut(start - passed);
        let (text, behind) = from.split_at_mut(end - start);
        messages[count] = Message {
            counter: arrival.counter,
            bytes: text,
        };
        places[count] = place;
        (rest, passed, count) = (behind, end, count + 1);
    }
    session.open(&mut messages[..count], |at, is_right| {
        if !is_right {
            run[places[at]].refused = Some(Reject::WgDecrypt);
        }
    });
}

/// How many bytes of an arrival are a packet, and what it is.
fn deliver(sessions: &mut Sessions, arrival: &Arrival, bytes: &[u8]) -> (usize, Opened) {
    let marked = match (arrival.refused, sessions.of_mut(arrival.session)) {
        (Some(reason), _) => Err(reason),
        (None, Some(session)) => session.mark(arrival.counter),
        (None, None) => Err(Reject::WgNoSession),
    };
    if let Err(reason) = marked {
        return (0, Opened::Rejected(reason));
    }
    let text = &bytes[arrival.range.start..arrival.range.end - TAG_LEN];
    match packet_length(text) {
        None => (0, Opened::Rejected(Reject::WgPlaintext)),
        Some(_) if text.is_empty() => (0, Opened::Keepalive),
        Some(length) => (length, Opened::Packet),
    }
}

/// The length of the IP packet at the start of a text, behind which there is only padding.
fn packet_length(text: &[u8]) -> Option<usize> {
    let length = match *text {
        [] => 0,
        [first, _, high, low, ..] if first >> 4 == 4 && text.len() >= 20 => {
            usize::from(u16::from_be_bytes([high, low]))
        }
        [first, _, _, _, high, low, ..] if first >> 4 == 6 && text.len() >= 40 => {
            usize::from(u16::from_be_bytes([high, low])) + 40
        }
        _ => return None,
    };
    (length <= text.len()).then_some(length)
}
