//! What a keeper does for its data plane: the guard, loaded, asked for and repaired, and the lanes that are open.

use super::KeeperError;
use super::client::{Ask, Told};
use crate::guard::Guard;
use crate::io::message;
use crate::io::netlink_watch::{Change, NetlinkWatch};
use crate::io::nft::{Ensured, Nft, NftError};
use crate::io::state_file::StateFile;
use crate::io::steering::Steering;
use nix::poll::{PollTimeout, poll};
use std::collections::BTreeSet;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tracing::{error, warn};

/// How often the guard is looked at with nobody having said anything.
const GUARD_CHECK: Duration = Duration::from_secs(30);

/// The guard in force, shared by who sets it and who watches it.
#[derive(Debug, Default)]
pub(super) struct Guarded {
    nft: Nft,
    guard: Mutex<Option<Guard>>,
    /// How flows are parted over lanes, where there are several.
    steering: Mutex<Option<Steering>>,
}

impl Guarded {
    /// Fails where there is no `nft`, or no right to use it.
    pub(super) fn check_nft(&self) -> Result<(), NftError> {
        self.nft.read("inet").map(drop)
    }

    /// From now on lanes are opened here.
    pub(super) fn steer(&self, steering: Steering) {
        let mut current = self.steering.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Some(steering);
    }

    fn open_lanes(&self, count: u8) -> Told {
        let current = self.steering.lock().unwrap_or_else(PoisonError::into_inner);
        match current.as_ref().map(|steering| steering.set_open(count)) {
            Some(Ok(())) => Told::Done,
            Some(Err(error)) => Told::Failed(error.to_string()),
            None => Told::Failed("flows are not bound to lanes".to_owned()),
        }
    }

    fn set(&self, guard: Guard) -> Result<Ensured, NftError> {
        let mut current = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let ensured = self.nft.ensure_guard(&guard)?;
        *current = Some(guard);
        Ok(ensured)
    }

    fn repair(&self) {
        let current = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(guard) = current.as_ref() else {
            return;
        };
        match self.nft.ensure_guard(guard) {
            Ok(Ensured::Unchanged) => {}
            Ok(Ensured::Written) => warn!("guard was changed by somebody else: loaded again"),
            Err(error) => error!(%error, "guard could not be loaded"),
        }
    }

    /// Loads the guard of the kept state: what may be in clear is decided before anything runs.
    pub(super) fn restore(&self, state_dir: &Path) -> Result<(), KeeperError> {
        // The data plane judges the file again, and sets a bad one aside.
        match StateFile::new(state_dir).peek() {
            Ok(Some(state)) => match state.check() {
                Ok(state) => {
                    self.set(state.guard.clone())?;
                }
                Err(error) => {
                    warn!(%error, "kept state breaks a rule: the guard in the kernel stays as it is")
                }
            },
            Ok(None) => {}
            Err(error) => {
                warn!(%error, "kept state could not be read: the guard in the kernel stays as it is")
            }
        }
        Ok(())
    }

    /// The devices whose coming and going concerns the guard.
    fn devices(&self) -> BTreeSet<String> {
        let current = self.guard.lock().unwrap_or_else(PoisonError::into_inner);
        current
            .as_ref()
            .map(|guard| guard.underlay.clone())
            .unwrap_or_default()
    }

    pub(super) fn watch(&self) {
        loop {
            if let Err(error) = self.watch_devices(&self.devices()) {
                warn!(%error, "watch over the guard broke: opened again");
                let _ = poll(&mut [], PollTimeout::from(200_u16));
            }
        }
    }

    /// Repairs the guard whenever it or one of `devices` changes, until other devices concern it.
    fn watch_devices(&self, devices: &BTreeSet<String>) -> io::Result<()> {
        let mut watch = NetlinkWatch::open()?.only_links(devices.clone());
        while self.devices() == *devices {
            self.repair();
            // News or none for a while: both are a reason to look.
            let _: Option<Change> = watch.wait(GUARD_CHECK)?;
        }
        Ok(())
    }

    pub(super) fn serve(&self, socket: &UnixStream) -> io::Result<()> {
        while let Some(ask) = message::read(socket)? {
            let told = match ask {
                Ask::Guard(guard) => match self.set(guard) {
                    Ok(_) => Told::Done,
                    Err(error) => Told::Failed(error.to_string()),
                },
                Ask::OpenLanes(count) => self.open_lanes(count),
                Ask::GuardDrops => match self.nft.guard_drops() {
                    Ok(drops) => Told::Drops(drops),
                    Err(error) => Told::Failed(error.to_string()),
                },
            };
            message::write(socket, &told)?;
        }
        Ok(())
    }
}
