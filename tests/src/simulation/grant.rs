//! What clusters of the world may announce.

use bytes::Bytes;
use hawser_mesh::record::{Key, Record};
use hawser_mesh::replica::{Gate, Refusal};
use hawser_mesh::wire::decode_record;
use hawser_tunnel::node::ClusterId;

use super::item;

/// The grants that all clusters gave each other.
#[derive(Debug)]
pub(super) struct Grants;

impl Gate for Grants {
    fn admit(&self, origin: ClusterId, key: &Key, value: &Bytes) -> Result<(), Refusal> {
        let granted = item::pod_prefix(item::cluster_of(origin));
        let fits = match decode_record(key, value)? {
            Record::Node(node) => node.prefixes.iter().all(|prefix| granted.contains(prefix)),
            Record::Endpoint(endpoint) => {
                endpoint.addresses.iter().all(|address| granted.contains(address))
            }
            Record::Service(service) => service.namespace == item::NAMESPACE,
            Record::Identity(_) => true,
            Record::Policy(_) | Record::Namespace(_) | Record::Pod(_) | Record::Cluster(_) => false,
        };
        if fits { Ok(()) } else { Err(Refusal::Grant("grant")) }
    }
}
