//! How long a token is good, as it is given on the command line.

use crate::token::MAX_LIFE;
use std::time::Duration;

/// Reads minutes or seconds: `15m`, `90s`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let rule = || "must be 1s to 15m, as in 5m or 90s".to_owned();
    let (number, unit) = match (text.strip_suffix('m'), text.strip_suffix('s')) {
        (Some(number), _) => (number, 60),
        (None, Some(number)) => (number, 1),
        (None, None) => return Err(rule()),
    };
    let number: u64 = number.parse().map_err(|_| rule())?;
    let ttl = Duration::from_secs(number.saturating_mul(unit));
    if ttl.is_zero() || ttl > MAX_LIFE {
        return Err(rule());
    }
    Ok(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_good_for_a_second_to_a_quarter_of_an_hour() {
        for (text, seconds) in [("15m", 900), ("900s", 900), ("1s", 1), ("1m", 60)] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)));
        }
        for bad in [
            "",
            "m",
            "s",
            "0s",
            "0m",
            "16m",
            "901s",
            "15",
            "-1m",
            "1h",
            "1.5m",
            "99999999999999999999m",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
