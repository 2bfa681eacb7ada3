//! Everything that touches the kernel, files and sockets; nothing here decides.

pub(crate) mod agent_socket;
pub(crate) mod arena;
pub mod ca_store;
pub(crate) mod clamp_table;
pub(crate) mod config_file;
pub(crate) mod folder;
pub(crate) mod folder_watch;
pub(crate) mod followed_folder;
pub(crate) mod host_name;
pub(crate) mod journal_file;
pub(crate) mod kept;
pub(crate) mod key_age;
pub(crate) mod lock;
pub(crate) mod netlink;
pub(crate) mod new_file;
pub(crate) mod node_files;
pub(crate) mod numbers;
pub mod pem_file;
pub mod quic;
pub mod resolve;
pub(crate) mod revoked_folder;
pub(crate) mod secret_file;
pub(crate) mod sysctl;
pub mod token_store;
pub(crate) mod tunnel_link;
pub(crate) mod watch;
