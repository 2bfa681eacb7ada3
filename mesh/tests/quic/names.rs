//! Names are resolved by servers on the loopback.

use crate::members::{Cluster, accept, listen, loopback, soon, trust};
use hawser_mesh::dial::Target;
use hawser_mesh::io::quic::{Dialer, Tls};
use hawser_mesh::io::resolve::Resolver;
use hawser_mesh::trust::Expected;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// A DNS server with one name that has IPv4 addresses, or that does not exist while there are none.
struct Server {
    address: SocketAddr,
    zone: Arc<Mutex<(Vec<Ipv4Addr>, u32)>>,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(addresses: &[Ipv4Addr], ttl: u32) -> Self {
        let socket = UdpSocket::bind(loopback()).await.unwrap();
        let address = socket.local_addr().unwrap();
        let zone = Arc::new(Mutex::new((addresses.to_vec(), ttl)));
        let served = Arc::clone(&zone);
        let task = tokio::spawn(async move {
            let mut query = [0; 1500];
            loop {
                let (length, from) = socket.recv_from(&mut query).await.unwrap();
                let (addresses, ttl) = served.lock().unwrap().clone();
                let answer = answer(&query[..length], &addresses, ttl);
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        Self {
            address,
            zone,
            task,
        }
    }

    fn set(&self, addresses: &[Ipv4Addr]) {
        self.zone.lock().unwrap().0 = addresses.to_vec();
    }

    fn resolver(&self) -> Resolver {
        Resolver::of_servers(vec![self.address])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An answer to the first question of a query (RFC 1035, section 4).
fn answer(query: &[u8], addresses: &[Ipv4Addr], ttl: u32) -> Vec<u8> {
    let name = query[12..].iter().position(|b| *b == 0).unwrap() + 1;
    let question = &query[12..12 + name + 4];
    let of_ipv4 = question[name..name + 2] == [0, 1];
    let addresses = if of_ipv4 { addresses } else { &[] };
    // A name without addresses is none, but there is nothing wrong in asking for the other family.
    let nothing = u8::from(of_ipv4 && addresses.is_empty()) * 3;
    let count = u8::try_from(addresses.len()).unwrap();
    let mut answer = query[..2].to_vec();
    answer.extend([0x84, nothing, 0, 1, 0, count, 0, 0, 0, 0]);
    answer.extend(question);
    for address in addresses {
        answer.extend([0xc0, 12, 0, 1, 0, 1]);
        answer.extend(ttl.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    answer
}

#[tokio::test]
async fn a_name_has_its_addresses_for_as_long_as_the_answer_says() {
    let server = Server::start(&[[192, 0, 2, 1].into(), [192, 0, 2, 2].into()], 30).await;
    let asked = Instant::now();
    let answer = soon("an answer", server.resolver().addresses("hub.example")).await;
    let (mut addresses, valid) = answer.unwrap();
    addresses.sort();
    let expected = [[192, 0, 2, 1], [192, 0, 2, 2]].map(IpAddr::from);
    assert_eq!(addresses, expected);
    let held = valid - asked;
    assert!(
        held > Duration::from_secs(28) && held < Duration::from_secs(32),
        "{held:?}"
    );
}

#[tokio::test]
async fn a_name_that_is_none_is_told_and_the_next_question_is_asked_anew() {
    let server = Server::start(&[], 30).await;
    let resolver = server.resolver();
    let answer = soon("an answer", resolver.addresses("hub.example")).await;
    assert!(answer.is_err());
    server.set(&[[192, 0, 2, 3].into()]);
    let answer = soon("an answer", resolver.addresses("hub.example")).await;
    assert_eq!(answer.unwrap().0, [IpAddr::from([192, 0, 2, 3])]);
}

#[tokio::test]
async fn names_of_the_hosts_file_need_no_server() {
    let answer = soon("an answer", Resolver::system().addresses("localhost")).await;
    let (addresses, _) = answer.unwrap();
    assert!(addresses.iter().all(IpAddr::is_loopback) && !addresses.is_empty());
}

#[tokio::test]
async fn a_hub_that_moves_is_found_when_its_old_address_has_had_its_time() {
    let east = Cluster::new("east");
    let (mut old, at_old) = listen(&east, &[&east]);
    let server = Server::start(&[Ipv4Addr::LOCALHOST], 1).await;
    let target: Target = format!("hub.example:{}", at_old.port()).parse().unwrap();
    let tls = Tls::new(east.node("worker"), trust(&[&east]));
    let expected = Expected::HubOf("east".to_owned());
    let mut dialer = Dialer::new(vec![target], tls, expected, server.resolver(), 3);
    let (first, _hub) = tokio::join!(soon("a connection", dialer.connect()), accept(&mut old));
    assert_eq!(first.address, at_old);

    // The same port on another address of the loopback.
    let moved = SocketAddr::from(([127, 0, 0, 2], at_old.port()));
    let at_hub = Tls::new(east.hub("hub-2"), trust(&[&east]));
    let mut new = hawser_mesh::io::quic::Listener::bind(moved, at_hub).unwrap();
    server.set(&[[127, 0, 0, 2].into()]);
    old.close("moving").await;
    drop(old);
    first.tx.closed().await;
    let (second, _hub) = tokio::join!(soon("a connection", dialer.connect()), accept(&mut new));
    assert_eq!(second.address, moved);
}
