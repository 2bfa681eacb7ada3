//! Fields that occur in several records: as bytes, and checked.

use super::RecordError;
use crate::record::{NameError, check_label};
use bytes::Bytes;
use hawser_tunnel::identity::Identity;
use hawser_tunnel::node::NodeIndex;
use ipnet::IpNet;
use std::net::IpAddr;

/// The longest text of a cluster's CAs, in bytes: four certificates, each of 8 KiB before it became text.
pub(super) const MAX_CA: usize = 48 << 10;

/// The most entries of any list in a record.
pub(super) const MAX_LIST: usize = 1024;

pub(super) fn name(field: &'static str) -> impl Fn(NameError) -> RecordError {
    move |source| RecordError::Name { field, source }
}

pub(super) fn check_port_name(text: &str) -> Result<(), RecordError> {
    if text.is_empty() {
        return Ok(());
    }
    check_label(text).map_err(name("ports.name"))
}

pub(super) fn protocol(number: u32) -> Result<u8, RecordError> {
    u8::try_from(number)
        .ok()
        .filter(|number| [6, 17, 132].contains(number))
        .ok_or(RecordError::Value("ports.protocol"))
}

pub(super) fn port_number(number: u32) -> Result<u16, RecordError> {
    u16::try_from(number)
        .ok()
        .filter(|&number| number > 0)
        .ok_or(RecordError::Value("port"))
}

pub(super) fn node_index(number: u32) -> Result<NodeIndex, RecordError> {
    u16::try_from(number)
        .ok()
        .and_then(|number| NodeIndex::new(number).ok())
        .ok_or(RecordError::Value("index"))
}

pub(super) fn identity(number: u32) -> Result<Identity, RecordError> {
    Identity::new(number).map_err(|_| RecordError::Value("identity"))
}

pub(super) fn unreserved(number: u32) -> Result<Identity, RecordError> {
    identity(number).and_then(|identity| {
        if identity.is_reserved() {
            Err(RecordError::Value("identity"))
        } else {
            Ok(identity)
        }
    })
}

pub(super) fn address_bytes(address: &IpAddr) -> Bytes {
    match address {
        IpAddr::V4(address) => Bytes::copy_from_slice(&address.octets()),
        IpAddr::V6(address) => Bytes::copy_from_slice(&address.octets()),
    }
}

pub(super) fn address(bytes: &[u8]) -> Result<IpAddr, RecordError> {
    if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
        return Ok(octets.into());
    }
    let octets = <[u8; 16]>::try_from(bytes).map_err(|_| RecordError::Value("address"))?;
    Ok(octets.into())
}

pub(super) fn addresses(bytes: &[Bytes]) -> Result<Vec<IpAddr>, RecordError> {
    if bytes.len() > MAX_LIST {
        return Err(RecordError::List("addresses"));
    }
    bytes.iter().map(|bytes| address(bytes)).collect()
}

pub(super) fn prefix_bytes(prefix: &IpNet) -> Bytes {
    let mut bytes = address_bytes(&prefix.addr()).to_vec();
    bytes.push(prefix.prefix_len());
    bytes.into()
}

/// Sorted and each once, or they are refused: equal sets of prefixes have equal bytes.
pub(super) fn prefixes(bytes: &[Bytes]) -> Result<Vec<IpNet>, RecordError> {
    if bytes.len() > MAX_LIST {
        return Err(RecordError::List("prefixes"));
    }
    let mut prefixes: Vec<IpNet> = Vec::with_capacity(bytes.len());
    for bytes in bytes {
        let malformed = RecordError::Value("prefixes");
        let Some((&length, octets)) = bytes.split_last() else {
            return Err(malformed);
        };
        let prefix = IpNet::new(address(octets)?, length).map_err(|_| malformed.clone())?;
        let sorted = prefixes.last().is_none_or(|last| *last < prefix);
        if prefix.trunc() != prefix || !sorted {
            return Err(malformed);
        }
        prefixes.push(prefix);
    }
    Ok(prefixes)
}
