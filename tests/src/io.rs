//! What touches the kernel, one resource a file. Nothing here decides anything.

mod netns;
mod packet_ring;
mod packet_socket;
mod processes;

pub use netns::Netns;
pub(crate) use netns::ip_batch;
pub use packet_ring::{PacketRing, RingFrame};
pub use packet_socket::PacketSocket;
pub use processes::{
    children_of, describe_process, has_environment, is_alive, on_interrupt, process_ids,
    send_signal,
};
