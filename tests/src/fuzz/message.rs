//! Messages on unix sockets: between agent and data plane, and between data plane and keeper.

use std::fmt::Debug;
use std::io::{self, Read};

use hawser_tunnel::control::{MAX_MESSAGE, Request, Response};
use hawser_tunnel::io::message;
use hawser_tunnel::keeper::{Ask, Told};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::source::Source;

/// Target: any bytes as a stream of messages, in pieces of any size, under each meaning.
pub(super) fn stream(input: &[u8]) {
    let mut source = Source::new(input);
    let piece = source.pick(&[usize::MAX, 1, 3, 4, 5]);
    let bytes = source.rest();
    let mut whole = bytes;
    let mut pieces = Pieces { bytes, piece };
    loop {
        let read = message::read_bytes(&mut pieces);
        match (&read, next(&mut whole)) {
            (Ok(Some(body)), Ok(Some(expected))) => {
                assert_eq!(body.as_slice(), expected);
                meaning::<Request>(expected);
                meaning::<Response>(expected);
                meaning::<Ask>(expected);
                meaning::<Told>(expected);
            }
            (Ok(None), Ok(None)) => return,
            (Err(error), Err(expected)) => return assert_eq!(error.kind(), expected),
            (_, expected) => panic!("{read:?} of {expected:?}"),
        }
    }
}

/// The next message, as the page on control says: a length of four bytes and that much.
fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, io::ErrorKind> {
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return if bytes.is_empty() {
            Ok(None)
        } else {
            Err(io::ErrorKind::UnexpectedEof)
        };
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData);
    }
    let body = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
    *bytes = &rest[length..];
    Ok(Some(body))
}

/// What is understood is written in one form, which is understood as the same.
fn meaning<T: Serialize + DeserializeOwned + PartialEq + Debug>(body: &[u8]) {
    let Ok(value) = serde_json::from_slice::<T>(body) else {
        return;
    };
    let mut wire = Vec::new();
    message::write(&mut wire, &value).expect("a vector takes everything");
    let again = message::read::<T>(wire.as_slice()).expect("what was written is read");
    assert_eq!(again, Some(value));
}

/// A socket that gives a few bytes at a time, and is interrupted now and then.
struct Pieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        if self.piece == 5 {
            self.piece = 3;
            return Err(io::ErrorKind::Interrupted.into());
        }
        let most = self.piece.min(room.len());
        self.bytes.read(&mut room[..most])
    }
}
