//! Moments and spans as the command line takes them.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};

/// Reads RFC 3339; a time without an offset is refused, for it means another moment on every
/// machine.
pub(super) fn parse_moment(text: &str) -> Result<DateTime<Utc>, String> {
    let spaced = text.replacen(' ', "T", 1);
    if let Ok(moment) = DateTime::parse_from_rfc3339(&spaced) {
        return Ok(moment.with_timezone(&Utc));
    }
    let naive = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%dT%H:%M"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(&spaced, format).ok());
    Err(if let Some(naive) = naive {
        let whole = naive.format("%Y-%m-%dT%H:%M:%S%.f");
        format!(
            "{text:?} has no offset, so it is not known which moment it means; write \
             {whole}Z for UTC or {whole}+02:00"
        )
    } else {
        format!("{text:?} is no time; write it as 2026-11-20T14:30:00Z")
    })
}

/// Reads `500ms`, `2s`, `10m`, `1h`, `7d`.
pub(super) fn parse_span(text: &str) -> Result<Duration, String> {
    let split = text
        .find(|c: char| !c.is_ascii_digit())
        .ok_or_else(|| format!("{text:?} has no unit; write 2s, 500ms, 10m or 1h"))?;
    let (digits, unit) = text.split_at(split);
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no span; write 2s, 500ms, 10m or 1h"))?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("unknown unit {unit:?}; write 2s, 500ms, 10m or 1h")),
    };
    number
        .checked_mul(millis)
        .filter(|millis| *millis > 0)
        .map(Duration::from_millis)
        .ok_or_else(|| format!("{text:?} is not a usable span"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_needs_an_offset() {
        let utc = parse_moment("2026-11-20T14:30:00Z").expect("UTC");
        assert_eq!(parse_moment("2026-11-20T16:30:00+02:00"), Ok(utc));
        assert_eq!(parse_moment("2026-11-20 14:30:00Z"), Ok(utc));
        let refused = parse_moment("2026-11-20 14:30:00").expect_err("no offset");
        assert!(refused.contains("has no offset"), "{refused}");
        assert!(refused.contains("2026-11-20T14:30:00Z"), "{refused}");
        assert!(parse_moment("yesterday").is_err());
    }

    #[test]
    fn a_span_needs_a_unit() {
        assert_eq!(parse_span("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_span("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["2", "", "s", "0s", "-1s", "1y", "99999999999999999999s"] {
            assert!(parse_span(wrong).is_err(), "{wrong}");
        }
    }
}
