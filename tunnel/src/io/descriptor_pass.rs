//! Passes a descriptor to another process over a unix socket (unix(7), SCM_RIGHTS).

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// Sends one descriptor.
pub fn send(socket: &UnixStream, fd: &impl AsRawFd) -> io::Result<()> {
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let byte = [IoSlice::new(&[0])];
    sendmsg::<()>(
        socket.as_raw_fd(),
        &byte,
        &rights,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    Ok(())
}

/// Waits for a descriptor; `None` where the other side hung up.
pub fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0; 1];
    let mut room = nix::cmsg_space!(RawFd);
    loop {
        let mut slices = [IoSliceMut::new(&mut byte)];
        let received = recvmsg::<()>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut room),
            MsgFlags::MSG_CMSG_CLOEXEC,
        );
        let message = match received {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        if message.bytes == 0 {
            return Ok(None);
        }
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = part
                && let Some(&fd) = fds.first()
            {
                #[expect(
                    unsafe_code,
                    reason = "the number is the only name of a received descriptor"
                )]
                // SAFETY: the kernel has just made it for this process and told nobody else; the
                // room above holds one descriptor, so none is left over.
                return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message without a descriptor",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};

    #[test]
    fn a_descriptor_arrives_and_is_the_same_socket() {
        let (here, there) = UnixStream::pair().unwrap();
        let (mut end, passed) = UnixStream::pair().unwrap();
        send(&here, &passed).unwrap();
        drop(passed);
        let got = receive(&there).unwrap().unwrap();
        UnixStream::from(got).write_all(b"x").unwrap();
        let mut byte = [0; 1];
        end.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
        drop(here);
        assert!(receive(&there).unwrap().is_none());
    }
}
