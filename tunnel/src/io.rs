//! The kernel's side: one resource a file, and no decisions.

pub mod address_watch;
pub mod capture_stream;
pub mod clock;
pub mod control_client;
pub mod control_server;
pub mod descriptor_pass;
pub mod key_file;
pub mod message;
pub mod netlink_watch;
pub mod nft;
pub mod offload_test;
pub mod process;
pub mod stack;
pub mod state_file;
pub mod steering;
pub mod tap;
pub mod thread_time;
pub mod udp;
