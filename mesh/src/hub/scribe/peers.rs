//! The folder of members that joined by invitation: a file for each, named after it. Replicas share it.

use crate::hub::manifest::ClusterPeer;
use crate::hub::manifest::document::Ground;
use crate::io::folder::Folder;
use crate::io::lock::{self, Lock};
use crate::io::named_files::NamedFiles;
use crate::join::file;
use std::io;
use std::path::Path;
use std::sync::Arc;

const ENDING: &str = ".yaml";

/// What stands of it.
#[derive(Debug)]
pub(super) struct Peers {
    files: NamedFiles<Arc<ClusterPeer>>,
    ground: Ground,
}

impl Peers {
    /// Makes the folder where it is missing.
    pub(super) fn open(path: &Path, ground: Ground) -> io::Result<Self> {
        let files = NamedFiles::new(Folder::make(path)?, "peers", ENDING);
        Ok(Self { files, ground })
    }

    /// Keeps all other replicas from changing the folder.
    pub(super) fn lock(&self) -> io::Result<Lock> {
        lock::wait(&self.files.path().join(".lock"))
    }

    /// Looks at the folder. Returns the names of members that changed, came or went.
    pub(super) fn look(&mut self) -> io::Result<Vec<String>> {
        let ground = &self.ground;
        self.files
            .look(|name, text| Ok(Arc::new(read(ground, name, text)?)))
    }

    /// A member that joined.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<ClusterPeer>> {
        self.files.get(name)
    }

    /// What is wrong with files, a line each; `declares`: whether the source has a member of that name too.
    pub(super) fn complaints(&self, declares: impl Fn(&str) -> bool) -> Vec<String> {
        let twice = self.files.names().filter(|name| declares(name));
        let twice = twice.map(|name| {
            format!("peers/{name}{ENDING}: ClusterPeer {name} is in the source too, which is taken; remove that, or `hawser leave {name}`")
        });
        self.files.complaints().chain(twice).collect()
    }

    /// Checks what is to be put there, as it will be read. Returns the file's text.
    pub(super) fn check(&self, name: &str, peer: &ClusterPeer) -> Result<String, String> {
        let text = file::text(name, peer);
        read(&self.ground, name, &text)?;
        Ok(text)
    }

    /// Puts a member there that was checked; it is on the disk then. Hold the lock.
    pub(super) fn put(&self, name: &str, text: &str) -> io::Result<()> {
        self.files.put(name, text)
    }

    /// Removes a member. Hold the lock.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(name)
    }
}

fn read(ground: &Ground, name: &str, text: &str) -> Result<ClusterPeer, String> {
    let (said, peer) = file::read(text, ground)?;
    if said != name {
        return Err(format!(
            "metadata.name: {said}: must be {name}, as the file is called; rename one"
        ));
    }
    Ok(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::manifest::QuotaLimits;
    use hawser_tunnel::node::ClusterId;
    use std::fs;

    fn peers(path: &Path) -> Peers {
        let ground = Ground {
            cluster: ClusterId::new(1).unwrap(),
            name: "east".to_owned(),
            pod_cidrs: vec!["10.1.0.0/16".parse().unwrap()],
            service_cidrs: Vec::new(),
        };
        Peers::open(path, ground).unwrap()
    }

    fn peer(name: &str, id: u16) -> ClusterPeer {
        let ca = crate::ca::init("set.example", name, std::time::SystemTime::now()).unwrap();
        ClusterPeer {
            id: ClusterId::new(id).unwrap(),
            pod_cidrs: vec![format!("10.{id}.0.0/16").parse().unwrap()],
            service_cidrs: Vec::new(),
            namespaces: None,
            hubs: vec!["192.0.2.2:6082".to_owned()],
            ca: ca.certificate,
            quotas: QuotaLimits::default(),
            may_revoke: false,
        }
    }

    #[test]
    fn what_one_replica_puts_there_another_finds_and_so_with_what_it_removes() {
        let folder = tempfile::tempdir().unwrap();
        let (mut one, mut other) = (peers(folder.path()), peers(folder.path()));
        let west = peer("west", 2);
        let _lock = one.lock().unwrap();
        let text = one.check("west", &west).unwrap();
        one.put("west", &text).unwrap();
        assert_eq!(one.look().unwrap(), ["west"]);
        assert_eq!(other.look().unwrap(), ["west"]);
        assert_eq!(**other.get("west").unwrap(), west);
        assert!(other.look().unwrap().is_empty(), "nothing new");
        other.remove("west").unwrap();
        assert_eq!(one.look().unwrap(), ["west"]);
        assert_eq!(one.get("west"), None);
    }

    #[test]
    fn a_file_that_somebody_broke_is_told_of_and_what_it_said_stands() {
        let folder = tempfile::tempdir().unwrap();
        let mut peers = peers(folder.path());
        let west = peer("west", 2);
        peers.put("west", &file::text("west", &west)).unwrap();
        peers.look().unwrap();
        for (text, told) in [
            ("spec: {}\n", "peers/west.yaml: line 1: "),
            (
                &*file::text("east", &west),
                "peers/west.yaml: line 5: metadata.name: east: is this cluster itself",
            ),
            (
                &*file::text("south", &west),
                "peers/west.yaml: metadata.name: south: must be west, as the file is called",
            ),
        ] {
            fs::write(folder.path().join("west.yaml"), text).unwrap();
            assert_eq!(peers.look().unwrap(), ["west"]);
            let complaints = peers.complaints(|_| false);
            assert!(complaints[0].starts_with(told), "{complaints:?}");
            assert_eq!(**peers.get("west").unwrap(), west);
        }
        peers.put("west", &file::text("west", &west)).unwrap();
        peers.look().unwrap();
        assert!(peers.complaints(|_| false).is_empty());
        assert_eq!(peers.complaints(|name| name == "west").len(), 1);
        assert!(peers.check("south", &peer("south", 1)).is_err());
    }
}
