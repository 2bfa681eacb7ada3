//! The guard's tables removed or disarmed by others, while the routes hold.

use std::thread;
use std::time::Duration;

use super::{Barrier, Way};
use crate::depth::rounds;
use crate::lab::Family;

/// Ten times a second, as a loop in a broken unit file does.
const BETWEEN: Duration = Duration::from_millis(100);

/// Ways by nftables.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "ruleset flushed once",
        mistake: "`systemctl restart nftables`: its file begins with `flush ruleset`",
        barrier: Barrier::Routes,
        families: &Family::BOTH,
        provoke: |site| site.script("nft flush ruleset"),
        undo: |_| Ok(()),
    },
    Way {
        name: "ruleset flushed ten times a second",
        mistake: "a firewall manager that fights with somebody and starts over and over",
        barrier: Barrier::Routes,
        families: &Family::BOTH,
        provoke: |site| {
            for _ in 0..rounds(15, 50) {
                site.script("nft flush ruleset")?;
                thread::sleep(BETWEEN);
            }
            Ok(())
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "guard tables deleted",
        mistake: "somebody deletes tables that are not in his inventory",
        barrier: Barrier::Routes,
        families: &Family::BOTH,
        provoke: |site| {
            site.script("nft delete table netdev hawser_guard\nnft delete table inet hawser_guard")
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "guard tables made dormant",
        mistake: "somebody switches tables off to look whether they are to blame",
        barrier: Barrier::Routes,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(
                "nft 'add table netdev hawser_guard { flags dormant; }'\n\
                 nft 'add table inet hawser_guard { flags dormant; }'",
            )
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "guard's sets emptied",
        mistake: "a script that empties all sets",
        barrier: Barrier::Routes,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(
                "for family in netdev inet; do for set in mesh4 mesh6; do \
                 nft flush set $family hawser_guard $set; done; done",
            )
        },
        undo: |_| Ok(()),
    },
    Way {
        name: "an accept ahead of the guard's rules",
        mistake: "somebody opens what he believes to be blocked by mistake",
        barrier: Barrier::Routes,
        families: &Family::BOTH,
        provoke: |site| {
            site.script(
                "nft insert rule netdev hawser_guard egress_all accept\n\
                 nft insert rule inet hawser_guard postrouting accept",
            )
        },
        undo: |_| Ok(()),
    },
];
