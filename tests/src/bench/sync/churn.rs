//! What pods cost other clusters' agents that no service exports and no policy selects.

use anyhow::Result;

use super::measurement::{BYTES, PODS as COUNT};
use super::population::Change;
use super::site::Site;
use crate::bench::meter::{Meter, Usage};
use crate::bench::sample::Values;

/// How many pods come and go.
pub(super) const PODS: u32 = 1_000;
/// How many of them come, or go, at once.
const AT_ONCE: usize = 10;

pub(super) fn measure(site: &mut Site) -> Result<(Values, Usage)> {
    let population = site.far().populations()[0];
    let changes = (0..PODS)
        .map(|pod| population.pod_comes(pod))
        .chain((0..PODS).map(|pod| population.pod_goes(pod)));
    let changes: Vec<Change> = changes.collect::<Result<_>>()?;
    let marker = site.next_turn_of(0)?;
    let wanted = site.far().versions()?;
    let guest = site.guest_of_serving()?;
    let (bytes, usage) = Meter::new(Vec::new()).measure(|| {
        guest.bytes_until(&wanted, || {
            for changes in changes.chunks(AT_ONCE) {
                site.far().write(0, changes.to_vec())?;
            }
            site.far().write(0, vec![marker.clone()])
        })
    })?;
    let values = [(BYTES, bytes as f64), (COUNT, f64::from(PODS))];
    Ok((values.into(), usage))
}
