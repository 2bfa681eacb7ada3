//! New TCP connections: connect, a byte each way, close; as many as several clients can make one after the other.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

use crate::io::Netns;

/// Clients that connect at the same time.
const CLIENTS: usize = 16;
/// Servers, each with a port of its own: ports that a client has used are taken for a minute, for each port of a server
/// on its own.
const SERVERS: u16 = 8;
/// Port of the first server.
const PORT: u16 = 7020;
/// A connection that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// About what a connection with a byte each way has on the network, in bytes: ten packets. At least this much must have
/// passed the tunnel.
pub(super) const BYTES: f64 = 400.0;

/// What was reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Reached {
    /// Connections a second.
    pub(super) rate: f64,
    /// Connections in all.
    pub(super) count: f64,
}

/// Makes connections for `time`.
pub(super) fn measure(
    from: &Netns,
    to: &Netns,
    address: IpAddr,
    time: Duration,
) -> Result<Reached> {
    // So that ports of closed connections may be used again after a second, and there are more of them.
    from.sysctl_set("net.ipv4.tcp_tw_reuse", "1")?;
    from.sysctl_set("net.ipv4.ip_local_port_range", "10000 65535")?;
    let listen = || -> Result<Vec<TcpListener>> {
        let ports = PORT..PORT + SERVERS;
        let listeners = ports.map(|port| TcpListener::bind((address, port)));
        listeners
            .collect::<Result<_, _>>()
            .context("failed to listen")
    };
    let listeners = to.run(listen)??;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let servers: Vec<_> = listeners
            .iter()
            .map(|listener| scope.spawn(|| serve(listener, &stop)))
            .collect();
        let outcome = from.run(|| clients(address, time));
        stop.store(true, Ordering::SeqCst);
        // Wakes those that wait for one more.
        for port in PORT..PORT + SERVERS {
            to.run(|| TcpStream::connect((address, port)).ok())?;
        }
        for server in servers {
            server.join().map_err(|_| anyhow!("a server died"))??;
        }
        outcome?
    })
}

/// All clients until the time is over.
fn clients(address: IpAddr, time: Duration) -> Result<Reached> {
    let start = Instant::now();
    let counts = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                scope.spawn(move || -> Result<u32> {
                    let mut count = 0;
                    for port in (PORT..PORT + SERVERS).cycle().skip(client) {
                        if start.elapsed() >= time {
                            break;
                        }
                        connect(SocketAddr::new(address, port))?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        let counts = clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow!("a client died"))?);
        counts.collect::<Result<Vec<u32>>>()
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let count = f64::from(counts.iter().sum::<u32>());
    Ok(Reached {
        rate: count / seconds,
        count,
    })
}

/// One connection.
fn connect(to: SocketAddr) -> Result<()> {
    let exchange = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0])
    };
    exchange().with_context(|| format!("connection to {to}"))
}

/// Answers one connection after the other, until told to stop.
fn serve(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    loop {
        let (mut stream, _) = listener.accept().context("failed to accept")?;
        if stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        let answer = || -> std::io::Result<()> {
            stream.set_read_timeout(Some(PATIENCE))?;
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            stream.write_all(&byte)?;
            // The client closes first, and keeps the port.
            stream.read(&mut byte).map(drop)
        };
        let mut answer = answer;
        answer().context("failed to answer a connection")?;
    }
}
