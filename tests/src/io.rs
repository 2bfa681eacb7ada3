//! What touches the kernel, one resource a file. Nothing here decides anything.

mod datagrams;
mod memory;
mod netns;
mod packet_ring;
mod packet_socket;
mod processes;
mod tap;
mod waiter;

pub use datagrams::{BATCH, receive_datagrams, send_datagrams};
pub use memory::writable_memory;
pub(crate) use netns::ip_batch;
pub use netns::{Netns, device_bytes, device_drops};
pub use packet_ring::{PacketRing, RingFrame};
pub use packet_socket::PacketSocket;
pub use processes::{
    children_of, describe_process, has_environment, is_alive, on_interrupt, process_ids,
    send_signal,
};
pub use tap::{Tap, TapOutcome};
pub use waiter::{Waiter, wake_on_time};
