//! Traffic between pods that knows by itself whether it arrived.

mod connections;
pub mod echo;
mod flood;
pub mod http;
mod iperf;
mod latency;
mod ping;
mod sequence;
mod tally;

pub use connections::{Connections, ConnectionsReport};
pub use echo::EchoServer;
pub use flood::{Flood, FloodKind, FloodSpec};
pub use http::HttpServer;
pub use iperf::{IPERF_PATTERN, Iperf, IperfReport, IperfRun};
pub use latency::Latency;
pub use ping::{Ping, PingReport};
pub use sequence::{LoadReport, LoadSpec, SequenceLoad};
pub use tally::PairReport;
pub(crate) use tally::Tally;
