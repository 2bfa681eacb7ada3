//! The Container Network Interface, SPEC 1.1.0 (<https://github.com/containernetworking/cni/blob/main/SPEC.md>): what a
//! runtime asks of a plugin, and what it is told.
//!
//! A runtime says what it wants by variables ([`Environment`]) and by a configuration on standard input
//! ([`NetworkConfig`]); it is told a [`NetworkResult`], a [`VersionReport`], nothing, or an [`Error`], each in the version
//! of its configuration. Everything is checked once, here: what has a type of this crate is as the specification wants it.
//!
//! Pure: no variable, file, socket or clock is touched.

mod attachment;
mod config;
mod environment;
mod error;
mod json;
mod pod;
mod result;
mod version;

pub use attachment::{ContainerId, InterfaceName, NetworkName};
pub use config::{NetworkConfig, RuntimeConfig, ValidAttachment};
pub use environment::{Attachment, Call, Detachment, Environment};
pub use error::{Code, Error};
pub use json::MAX_CONFIG;
pub use pod::{MacAddress, MacError, Pod, PodArgs};
pub use result::{Dns, Interface, IpConfig, NetworkResult, Route};
pub use version::{Command, SpecVersion, VersionReport};
