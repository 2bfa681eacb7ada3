//! One target under libFuzzer; `HAWSER_FUZZ_TARGET` names it.
#![no_main]

use std::sync::LazyLock;

use hawser_tests::fuzz::{Target, target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("HAWSER_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("HAWSER_FUZZ_TARGET={name}: no such target"))
});

fuzz_target!(|input: &[u8]| TARGET(input));
