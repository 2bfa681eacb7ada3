//! Says once what fails, and once that it works again.

use std::collections::BTreeMap;

/// What fails now, by part.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<&'static str, String>);

impl Troubles {
    /// Notes how a part went; `None`: well. A failure that goes on as before is not logged again.
    pub(super) fn note(&mut self, part: &'static str, failure: Option<String>) {
        match failure {
            Some(error) => {
                if self.0.get(part) != Some(&error) {
                    tracing::warn!(part, error, "failed; will be tried again");
                    self.0.insert(part, error);
                }
            }
            None => {
                if self.0.remove(part).is_some() {
                    tracing::info!(part, "works again");
                }
            }
        }
    }
}
