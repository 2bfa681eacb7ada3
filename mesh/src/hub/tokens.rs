//! The tokens that this cluster's hub has given away: what is kept of each, and whether one that is shown is good
//! (docs/security.md, "Tokens").
//!
//! Nothing here reads a clock or a file; [`crate::io::token_store`] keeps them, and sees to it that of many who show one
//! token a single one is the first.

use crate::token::{MAX_LIFE, Purpose};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// What is kept of a token lives so much longer than the token: so long one that is over, or was used, is told from one
/// that was never made.
pub const KEPT_AFTER: Duration = Duration::from_secs(86_400);

/// What is kept of a token, under the hash of its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Kept {
    /// What it is good for.
    pub purpose: Purpose,
    /// Whom it is for.
    pub name: String,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// What its maker wants to know again when it is used.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// Who used a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Used {
    /// By what the guest is known again: a fingerprint of its key.
    pub by: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// Who shows a token, and what for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown<'a> {
    /// What for.
    pub purpose: Purpose,
    /// As whom.
    pub name: &'a str,
    /// By what the guest is known again: a fingerprint of its key.
    pub by: &'a str,
}

/// A token that is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has used it.
    Unused,
    /// The same guest has, and may not have heard the answer.
    Again,
}

/// Why a token is not good. Whoever has its secret may know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRefusal {
    /// Nobody here made it, or it is long over.
    #[error("no hub of this cluster knows the token; have another made")]
    Unknown,
    /// It is for something else.
    #[error("the token is good for something else; have one made for this")]
    Purpose,
    /// It is for somebody else.
    #[error("the token is for {wanted}, not for {got}; have one made for that name")]
    Name {
        /// Whom it is for.
        wanted: String,
        /// Who shows it.
        got: String,
    },
    /// Another guest was first.
    #[error(
        "the token was used already, by another key; have another made, and find out who used this one"
    )]
    Used,
    /// It is over.
    #[error("the token is over; have another made")]
    Expired,
}

impl TokenRefusal {
    /// Its name in metrics, logs and answers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unknown => "token_unknown",
            Self::Purpose => "token_purpose",
            Self::Name { .. } => "token_name",
            Self::Used => "token_used",
            Self::Expired => "token_expired",
        }
    }
}

/// Says whether a token is good, from what is kept of it.
///
/// # Errors
/// It is not.
pub fn judge(
    kept: Option<&Kept>,
    used: Option<&Used>,
    shown: Shown<'_>,
    now: SystemTime,
) -> Result<Standing, TokenRefusal> {
    let kept = kept.ok_or(TokenRefusal::Unknown)?;
    if kept.purpose != shown.purpose {
        return Err(TokenRefusal::Purpose);
    }
    if kept.name != shown.name {
        return Err(TokenRefusal::Name {
            wanted: kept.name.clone(),
            got: shown.name.to_owned(),
        });
    }
    if used.is_some_and(|used| used.by != shown.by) {
        return Err(TokenRefusal::Used);
    }
    // With more to go than any token has, the clock was set back since.
    let left = u64::checked_sub(kept.expires, seconds(now));
    if left.is_none_or(|left| left > MAX_LIFE.as_secs()) {
        return Err(TokenRefusal::Expired);
    }
    Ok(match used {
        None => Standing::Unused,
        Some(_) => Standing::Again,
    })
}

/// Whether nothing of a token need be kept any longer.
pub fn is_stale(kept: &Kept, now: SystemTime) -> bool {
    seconds(now) > kept.expires.saturating_add(KEPT_AFTER.as_secs())
}

/// Seconds since 1970.
pub fn seconds(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn kept() -> Kept {
        Kept {
            purpose: Purpose::Node,
            name: "east-1".to_owned(),
            expires: NOW + 900,
            note: String::new(),
        }
    }

    const SHOWN: Shown<'_> = Shown {
        purpose: Purpose::Node,
        name: "east-1",
        by: "one",
    };

    fn used(by: &str) -> Used {
        Used {
            by: by.to_owned(),
            at: NOW,
        }
    }

    #[test]
    fn a_token_is_good_until_its_end_and_for_whom_it_was_made() {
        let judge = |kept: Option<&Kept>, used: Option<&Used>, shown, now| {
            judge(kept, used, shown, at(now))
        };
        let kept = kept();
        let it = Some(&kept);
        assert_eq!(judge(it, None, SHOWN, NOW), Ok(Standing::Unused));
        assert_eq!(judge(it, None, SHOWN, NOW + 900), Ok(Standing::Unused));
        assert_eq!(
            judge(it, Some(&used("one")), SHOWN, NOW),
            Ok(Standing::Again)
        );
        let node = |name| Shown { name, ..SHOWN };
        let cluster = Shown {
            purpose: Purpose::Cluster,
            ..SHOWN
        };
        for (name, judged) in [
            ("token_unknown", judge(None, None, SHOWN, NOW)),
            ("token_unknown", judge(None, Some(&used("one")), SHOWN, NOW)),
            ("token_purpose", judge(it, None, cluster, NOW)),
            ("token_name", judge(it, None, node("east-2"), NOW)),
            ("token_name", judge(it, None, node("east"), NOW)),
            ("token_used", judge(it, Some(&used("two")), SHOWN, NOW)),
            ("token_used", judge(it, Some(&used("")), SHOWN, NOW)),
            (
                "token_used",
                judge(it, Some(&used("two")), SHOWN, NOW + 901),
            ),
            ("token_expired", judge(it, None, SHOWN, NOW + 901)),
            (
                "token_expired",
                judge(it, Some(&used("one")), SHOWN, NOW + 901),
            ),
            // A clock that was set back makes no token live longer.
            ("token_expired", judge(it, None, SHOWN, NOW - 1)),
            ("token_expired", judge(it, None, SHOWN, 0)),
        ] {
            let refusal = judged.unwrap_err();
            assert_eq!(refusal.name(), name);
            assert!(!refusal.to_string().contains('\n'));
        }
    }

    #[test]
    fn what_is_kept_is_stale_a_day_after_its_end() {
        assert!(!is_stale(&kept(), at(NOW + 900 + 86_400)));
        assert!(is_stale(&kept(), at(NOW + 901 + 86_400)));
    }

    #[test]
    fn the_file_is_what_it_was() {
        let text = serde_json::to_string(&kept()).unwrap();
        assert_eq!(
            text,
            r#"{"purpose":"node","name":"east-1","expires":1800000900}"#
        );
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept());
    }
}
