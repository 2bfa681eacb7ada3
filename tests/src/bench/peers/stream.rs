//! A pod that sends to a crowd as fast as it can.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};

use crate::crowd::Member;
use crate::io::Netns;

/// Bytes of payload of a datagram: what fits into the tunnel on an underlay of 1500 bytes, nearly.
pub(super) const SIZE: usize = 1300;
/// Datagrams of a run: what one UDP datagram can be cut into at most.
pub(super) const RUN: usize = 44;
/// Where nobody listens: the crowd has no pods.
const PORT: u16 = 7012;

/// Traffic that flows. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Stream {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Pod addresses of the first members.
fn targets(count: u16) -> Vec<SocketAddr> {
    (0..count)
        .map(|number| SocketAddr::new(Member(number).pod().into(), PORT))
        .collect()
}

impl Stream {
    /// Sends from `pod`, at `address`, to the first `count` members in turn, in runs or one by one.
    pub(super) fn start(
        pod: &Netns,
        address: std::net::IpAddr,
        count: u16,
        runs: bool,
    ) -> Result<Self> {
        let socket = pod.run(|| UdpSocket::bind((address, 0)))?;
        let socket = socket.context("failed to bind the sender")?;
        let bytes = vec![0x5a; if runs { RUN * SIZE } else { SIZE }];
        if runs {
            let size = i32::try_from(SIZE)?;
            setsockopt(&socket, sockopt::UdpGsoSegment, &size)
                .context("the kernel has no UDP segmentation")?;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let its_stop = Arc::clone(&stop);
        let targets = targets(count);
        let thread = thread::Builder::new().name("stream".into());
        let thread = thread.spawn(move || {
            for to in targets.iter().cycle() {
                if its_stop.load(Ordering::Relaxed) {
                    break;
                }
                let sent = socket.send_to(&bytes, to);
                sent.with_context(|| format!("failed to send to {to}"))?;
            }
            Ok(())
        });
        Ok(Self {
            stop,
            thread: Some(thread.context("failed to start a thread")?),
        })
    }

    /// Ends it.
    pub(super) fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("it has ended")?;
        thread
            .join()
            .map_err(|_| anyhow!("the thread of the stream died"))?
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Sends one datagram to each of the first `count` members, so that each has a session.
pub(super) fn greet(pod: &Netns, address: std::net::IpAddr, count: u16) -> Result<()> {
    let socket = pod.run(|| UdpSocket::bind((address, 0)))?;
    let socket = socket.context("failed to bind the sender")?;
    for to in targets(count) {
        socket
            .send_to(&[0; 16], to)
            .with_context(|| format!("failed to send to {to}"))?;
    }
    Ok(())
}
