//! Messages on a stream: four bytes of length, one of form, then the message (docs/wire.md, "Frames").
//!
//! The length counts the form and what follows. A stream's first frame, of each side, says which [`Stream`] it is.
//! Nothing here reads a socket; [`Decoder`] takes bytes as they come and gives frames.

use crate::wire::MAX_MESSAGE;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The bytes before a frame's form.
const LENGTH: usize = 4;
/// The longest that a length can say: the form and a message.
const LONGEST: usize = 1 + MAX_MESSAGE;
/// As it is.
const PLAIN: u8 = 0;
/// One zstd frame that tells its content's size.
const ZSTD: u8 = 1;
/// Shorter ones gain too little.
const COMPRESSED_FROM: usize = 16 << 10;
/// As fast as a link of some Gbit/s, and a third of the bytes.
const LEVEL: i32 = 3;

/// The two streams of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stream {
    /// What is small and must be soon: changes and all talk about them.
    Changes,
    /// What is big: parts of snapshots. They are compressed.
    Bulk,
}

impl Stream {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Changes, Self::Bulk];

    /// Its place among both.
    pub(crate) fn index(self) -> usize {
        match self {
            Self::Changes => 0,
            Self::Bulk => 1,
        }
    }

    /// What its first frame says.
    pub fn name(self) -> &'static str {
        match self {
            Self::Changes => "changes",
            Self::Bulk => "bulk",
        }
    }

    /// The stream whose first frame this is.
    ///
    /// # Errors
    /// [`FrameError::Opening`].
    pub fn of_opening(frame: &[u8]) -> Result<Self, FrameError> {
        let found = Self::ALL.into_iter().find(|s| s.name().as_bytes() == frame);
        found.ok_or(FrameError::Opening)
    }
}

/// Why bytes are no frame. The stream cannot be read on, and the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// See [`MAX_MESSAGE`]; told by the first four bytes, or by what the compressed form says of itself.
    #[error("frame_too_long")]
    TooLong,
    /// Not even a form.
    #[error("frame_empty")]
    Empty,
    /// A form that this version does not know.
    #[error("frame_form")]
    Form,
    /// No zstd frame, or not of the size that it tells.
    #[error("frame_compression")]
    Compression,
    /// The stream ended within a frame.
    #[error("frame_truncated")]
    Truncated,
    /// The first frame is none of the two names.
    #[error("frame_opening")]
    Opening,
}

impl FrameError {
    /// Its name in metrics, logs and closing reasons.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLong => "frame_too_long",
            Self::Empty => "frame_empty",
            Self::Form => "frame_form",
            Self::Compression => "frame_compression",
            Self::Truncated => "frame_truncated",
            Self::Opening => "frame_opening",
        }
    }
}

/// The bytes of a frame. Long ones of [`Stream::Bulk`] are compressed where that makes them shorter.
///
/// # Errors
/// [`FrameError::TooLong`].
pub fn encode(stream: Stream, message: &[u8]) -> Result<Bytes, FrameError> {
    if message.len() > MAX_MESSAGE {
        return Err(FrameError::TooLong);
    }
    let packed = match stream {
        Stream::Bulk if message.len() > COMPRESSED_FROM => {
            let packed = zstd::bulk::compress(message, LEVEL).ok();
            packed.filter(|packed| packed.len() < message.len())
        }
        Stream::Bulk | Stream::Changes => None,
    };
    let (form, body) = match &packed {
        Some(packed) => (ZSTD, packed.as_slice()),
        None => (PLAIN, message),
    };
    let length = u32::try_from(1 + body.len()).map_err(|_| FrameError::TooLong)?;
    let mut frame = BytesMut::with_capacity(LENGTH + 1 + body.len());
    frame.put_u32(length);
    frame.put_u8(form);
    frame.put_slice(body);
    Ok(frame.freeze())
}

/// Takes a stream's bytes in pieces of any size and gives its frames. It holds at most one frame and one piece.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: BytesMut,
}

impl Decoder {
    /// Takes the next bytes.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, if it is here as a whole.
    ///
    /// # Errors
    /// It is no frame; the stream cannot be read on.
    pub fn poll_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(length) = self.bytes.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        match length {
            0 => return Err(FrameError::Empty),
            1..=LONGEST => {}
            _ => return Err(FrameError::TooLong),
        }
        if self.bytes.len() < LENGTH + length {
            return Ok(None);
        }
        self.bytes.advance(LENGTH);
        let form = self.bytes.get_u8();
        let body = self.bytes.split_to(length - 1).freeze();
        match form {
            PLAIN => Ok(Some(body)),
            ZSTD => unpack(&body).map(Some),
            _ => Err(FrameError::Form),
        }
    }

    /// The stream has ended.
    ///
    /// # Errors
    /// [`FrameError::Truncated`]: a frame has begun.
    pub fn finish(&self) -> Result<(), FrameError> {
        if self.bytes.is_empty() {
            Ok(())
        } else {
            Err(FrameError::Truncated)
        }
    }
}

/// Takes no room before the size is known to be bearable.
fn unpack(body: &[u8]) -> Result<Bytes, FrameError> {
    let size = zstd::zstd_safe::get_frame_content_size(body);
    let size = size.ok().flatten().ok_or(FrameError::Compression)?;
    let size = usize::try_from(size).unwrap_or(usize::MAX);
    if size > MAX_MESSAGE {
        return Err(FrameError::TooLong);
    }
    let message = zstd::bulk::decompress(body, size).map_err(|_| FrameError::Compression)?;
    if message.len() == size {
        Ok(message.into())
    } else {
        Err(FrameError::Compression)
    }
}

#[cfg(test)]
mod tests;
