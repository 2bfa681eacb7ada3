//! The lab: clusters out of network namespaces on one machine, sniffers on every underlay link, traffic that counts
//! its own losses, and the demo.
//!
//! Start at [`lab::Lab`]: it builds the namespaces of a [`lab::Topology`], starts `hawser-tunnel` and `hawser agent`
//! on every node, and removes all of it again whatever happens to the process. [`sniffer::Sniffer`] watches the
//! underlay with parsers of its own, so that a mistake in the product's parsers cannot hide a leak. The end-to-end
//! tests and the `lab` binary stand on this library.

pub mod bench;
pub mod command;
pub mod crowd;
pub mod demo;
pub mod depth;
pub mod fuzz;
pub mod integrity;
pub mod io;
pub mod lab;
pub mod leak;
pub mod plants;
mod say;
pub mod simulation;
pub mod sniffer;
pub mod stock;
pub mod traffic;
pub mod wire;

pub use say::say;
