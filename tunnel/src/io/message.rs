//! Messages on a unix socket: a length (u32, big endian) and that many bytes of JSON.

use crate::control::MAX_MESSAGE;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use zeroize::Zeroizing;

/// Writes one message.
pub fn write(mut socket: impl Write, message: &impl Serialize) -> io::Result<()> {
    // May hold pre-shared keys.
    let mut bytes = Zeroizing::new(vec![0; 4]);
    serde_json::to_writer(&mut *bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).map_err(|_| io::ErrorKind::InvalidData)?;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    socket.write_all(&bytes)
}

/// Writes bytes that are a message already.
pub fn write_bytes(mut socket: impl Write, message: &[u8]) -> io::Result<()> {
    let length = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    socket.write_all(&[&length.to_be_bytes(), message].concat())
}

/// Reads the bytes of one message; `None` where the other side hung up between messages.
pub fn read_bytes(mut socket: impl Read) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut length = [0; 4];
    let mut read = 0;
    while read < length.len() {
        match socket.read(&mut length[read..]) {
            Ok(0) if read == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => read += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message is longer than 64 MiB",
        ));
    }
    // Grows as bytes come: a length alone costs nothing.
    let mut bytes = Zeroizing::new(Vec::new());
    let taken = socket.take(length as u64).read_to_end(&mut bytes)?;
    if taken < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(bytes))
}

/// Reads one message.
pub fn read<T: DeserializeOwned>(socket: impl Read) -> io::Result<Option<T>> {
    match read_bytes(socket)? {
        Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_follow_each_other_and_half_of_one_is_an_error() {
        let mut wire = Vec::new();
        write(&mut wire, &"one").unwrap();
        write(&mut wire, &2).unwrap();
        let mut reader = wire.as_slice();
        assert_eq!(read::<String>(&mut reader).unwrap().as_deref(), Some("one"));
        assert_eq!(read::<u8>(&mut reader).unwrap(), Some(2));
        assert_eq!(read::<u8>(&mut reader).unwrap(), None);
        for cut in [1, 3, 5] {
            assert_eq!(
                read::<String>(&wire[..cut]).unwrap_err().kind(),
                io::ErrorKind::UnexpectedEof
            );
        }
        assert_eq!(
            read::<String>(&[0xff_u8; 8][..]).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
