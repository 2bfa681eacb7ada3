//! What a data plane asks of its keeper, over the socket that it inherited.

use crate::guard::Guard;
use crate::io::message;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// What the data plane asks of its keeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Ask {
    /// To put a guard in force.
    Guard(Guard),
    /// What the guard dropped so far.
    GuardDrops,
    /// To have flows that begin go by so many lanes.
    OpenLanes(u8),
}

/// What it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Told {
    /// To [`Ask::Guard`]: it stands. To [`Ask::OpenLanes`]: they do.
    Done,
    /// To [`Ask::GuardDrops`]: packets by the name of the counter.
    Drops(BTreeMap<String, u64>),
    /// Why it could not be done, in one line.
    Failed(String),
}

/// The data plane's side of the way to its keeper.
#[derive(Debug)]
pub struct KeeperClient {
    socket: UnixStream,
}

impl KeeperClient {
    /// Over the descriptor that was inherited.
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            socket: UnixStream::from(fd),
        }
    }

    fn ask(&self, ask: &Ask) -> io::Result<Told> {
        message::write(&self.socket, ask)?;
        message::read(&self.socket)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Puts a guard in force; returns when it stands.
    pub fn guard(&self, guard: &Guard) -> io::Result<()> {
        match self.ask(&Ask::Guard(guard.clone()))? {
            Told::Done => Ok(()),
            Told::Failed(why) => Err(io::Error::other(why)),
            Told::Drops(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// Has flows that begin go by the first `count` lanes.
    pub fn open_lanes(&self, count: u8) -> io::Result<()> {
        match self.ask(&Ask::OpenLanes(count))? {
            Told::Done => Ok(()),
            Told::Failed(why) => Err(io::Error::other(why)),
            Told::Drops(_) => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    /// What the guard dropped so far, by its counters.
    pub fn guard_drops(&self) -> io::Result<BTreeMap<String, u64>> {
        match self.ask(&Ask::GuardDrops)? {
            Told::Drops(drops) => Ok(drops),
            Told::Failed(why) => Err(io::Error::other(why)),
            Told::Done => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
