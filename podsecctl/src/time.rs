//! Times as people write them on the command line, in microseconds since 1970-01-01T00:00:00Z, and as they read them.

use podsec_policy::audit::{Time, parse_time};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a text is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a time: write 45s, 10m, 2h, 3d or 1w for so long ago, 2026-01-31, or 2026-01-31T08:00:00Z")]
pub struct TimeError;

/// Why a text is no duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: write 45s, 10m, 2h, 3d or 1w")]
pub struct DurationError;

const SECOND: u64 = 1_000_000;

/// # Errors
/// [`TimeError`]
pub fn parse(text: &str) -> Result<u64, TimeError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    parse_at(text, u64::try_from(now).unwrap_or(u64::MAX)).ok_or(TimeError)
}

/// In seconds.
///
/// # Errors
/// [`DurationError`]
pub fn duration(text: &str) -> Result<u64, DurationError> {
    let micros = text.is_ascii().then(|| ago(text)).flatten();
    micros.map(|micros| micros / SECOND).ok_or(DurationError)
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn parse_at(text: &str, now: u64) -> Option<u64> {
    if !text.is_ascii() {
        return None;
    }
    if let Some(ago) = ago(text) {
        return now.checked_sub(ago);
    }
    let (date, time) = text.split_at_checked(10)?;
    if time.is_empty() {
        return parse_time(&format!("{date}T00:00:00.000000Z"));
    }
    // RFC 3339 §5.6: T and Z in either case.
    let (clock, rest) = time.strip_prefix(['T', 't'])?.split_at_checked(8)?;
    let digits = rest.strip_prefix('.').map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    let (fraction, zone) = match digits {
        0 => ("", rest),
        // Nanoseconds are cut to what the audit has.
        1..=9 => (rest.get(1..=digits.min(6))?, rest.get(digits + 1..)?),
        _ => return None,
    };
    let utc = parse_time(&format!("{date}T{clock}.{fraction:0<6}Z"))?;
    match zone.split_at_checked(1)? {
        ("Z" | "z", "") => Some(utc),
        ("+", offset) => utc.checked_sub(minutes(offset)?),
        ("-", offset) => utc.checked_add(minutes(offset)?),
        _ => None,
    }
}

/// `2026-01-31T08:00:00Z`, of seconds since 1970
#[must_use]
pub fn show(seconds: u64) -> String {
    // The microseconds of the audit's form are none here.
    Time(seconds.saturating_mul(SECOND)).to_string().replace(".000000", "")
}

/// `10m`
fn ago(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds: u64 = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        "w" => 604_800,
        _ => return None,
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(seconds * SECOND)
}

/// `02:00`
fn minutes(offset: &str) -> Option<u64> {
    let (hours, minutes) = offset.split_once(':')?;
    let number = |text: &str, most: u64| {
        let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|&number| digits && number <= most)
    };
    Some((number(hours, 23)? * 60 + number(minutes, 59)?) * 60 * SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: &str = "2026-01-31T08:00:00.000000Z";

    fn at(text: &str) -> Option<String> {
        parse_at(text, parse_time(NOW).unwrap()).map(|micros| Time(micros).to_string())
    }

    #[test]
    fn reads_the_ways_to_write_a_time() {
        for (text, expected) in [
            ("0s", NOW),
            ("45s", "2026-01-31T07:59:15.000000Z"),
            ("10m", "2026-01-31T07:50:00.000000Z"),
            ("2h", "2026-01-31T06:00:00.000000Z"),
            ("3d", "2026-01-28T08:00:00.000000Z"),
            ("1w", "2026-01-24T08:00:00.000000Z"),
            ("2024-02-29", "2024-02-29T00:00:00.000000Z"),
            ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05.000000Z"),
            ("2026-01-02t03:04:05z", "2026-01-02T03:04:05.000000Z"),
            ("2026-01-02T03:04:05.5Z", "2026-01-02T03:04:05.500000Z"),
            ("2026-01-02T03:04:05.123456789Z", "2026-01-02T03:04:05.123456Z"),
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05.000000Z"),
            ("2026-01-02T03:04:05.25-05:30", "2026-01-02T08:34:05.250000Z"),
        ] {
            assert_eq!(at(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn shows_seconds() {
        assert_eq!(show(0), "1970-01-01T00:00:00Z");
        assert_eq!(show(1_769_846_400), "2026-01-31T08:00:00Z");
        let _ = show(u64::MAX);
    }

    #[test]
    fn durations_are_as_long_as_they_say() {
        assert_eq!(["0s", "45s", "10m", "3h"].map(duration), [Ok(0), Ok(45), Ok(600), Ok(10_800)]);
        for text in ["", "10", "m", "-1h", "1.5h", "1y", "99999999999999999999d", "é"] {
            assert_eq!(duration(text), Err(DurationError), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "m",
            "-1h",
            "+1h",
            "1.5h",
            "10",
            "10x",
            "1y",
            "yesterday",
            "2026-02-30",
            "2026-13-01",
            "2026-1-1",
            "2026-01-02T",
            "2026-01-02T03:04:05",
            "2026-01-02 03:04:05Z",
            "2026-01-02T25:00:00Z",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05.1234567890Z",
            "2026-01-02T03:04:05+2:00",
            "2026-01-02T03:04:05+24:00",
            "2026-01-02T03:04:05Zx",
            "1969-12-31",
            "1970-01-01T00:00:00+01:00",
            "99999999999999999999d",
            "99999d",
            "٣d",
            "2026-01-0é",
        ] {
            assert_eq!(at(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn reads_what_the_audit_writes(micros in 0..253_402_300_800_000_000_u64) {
            prop_assert_eq!(parse(&Time(micros).to_string()), Ok(micros));
        }

        #[test]
        fn any_text_is_a_time_or_an_error(text in "\\PC{0,32}") {
            let _ = parse(&text);
        }
    }
}
