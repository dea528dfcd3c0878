//! What of a scan counts: how many vulnerabilities of a level an image may have, and which pass for a while.

use super::{Level, Scan, Vulnerability};
use crate::audit::{Time, parse_time};
use crate::glob::stars;
use serde::{Deserialize, Serialize};

/// Bytes of a list for people: what a finding's detail has room for.
const LIST: usize = 700;
/// Seconds of a day.
pub(super) const DAY: u64 = 86_400;

/// How many vulnerabilities of each level an image may have; where nothing is said, any number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "the level of the same name")]
pub struct Limits {
    pub critical: Option<u32>,
    pub high: Option<u32>,
    pub medium: Option<u32>,
    pub low: Option<u32>,
    pub unknown: Option<u32>,
}

impl Default for Limits {
    fn default() -> Self {
        Self::none_from(Level::High)
    }
}

impl Limits {
    /// None that is so bad or worse.
    #[must_use]
    pub fn none_from(least: Level) -> Self {
        let none = |level| (level >= least).then_some(0);
        Self {
            critical: none(Level::Critical),
            high: none(Level::High),
            medium: none(Level::Medium),
            low: none(Level::Low),
            unknown: none(Level::Unknown),
        }
    }

    pub(super) fn of(&self, level: Level) -> Option<u32> {
        match level {
            Level::Critical => self.critical,
            Level::High => self.high,
            Level::Medium => self.medium,
            Level::Low => self.low,
            Level::Unknown => self.unknown,
        }
    }
}

/// A day of the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(u64);

/// Not as `2027-01-31`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a day of the calendar: write 2027-01-31")]
pub struct DayError;

impl TryFrom<String> for Day {
    type Error = DayError;

    fn try_from(text: String) -> Result<Self, DayError> {
        let micros = parse_time(&format!("{text}T00:00:00.000000Z")).ok_or(DayError)?;
        Ok(Self(micros / 1_000_000 / DAY))
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.to_string()
    }
}

impl Day {
    /// Is it over, so many seconds after 1970-01-01?
    #[must_use]
    pub fn is_over(self, now: u64) -> bool {
        now / DAY > self.0
    }
}

impl std::fmt::Display for Day {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let time = Time(self.0.saturating_mul(DAY).saturating_mul(1_000_000)).to_string();
        f.write_str(time.split('T').next().unwrap_or_default())
    }
}

/// A vulnerability that somebody has looked at and lets pass, until a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exception {
    /// `CVE-2026-0001`
    pub id: String,
    /// In images of that name only; `*` stands for any characters.
    #[serde(default)]
    pub image: Option<String>,
    /// The last day on which it passes.
    pub until: Day,
    /// For whoever reads it then.
    pub why: String,
}

impl Exception {
    /// Does it let that pass, in an image of these names?
    fn is_for(&self, id: &str, names: &[&str], now: u64) -> bool {
        let is_image = |pattern: &String| names.iter().any(|name| stars(pattern, name));
        self.id == id && !self.until.is_over(now) && self.image.as_ref().is_none_or(is_image)
    }
}

/// More of one level than an image may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excess<'a> {
    /// Which.
    pub level: Level,
    /// All of that level that no exception lets pass.
    pub vulnerabilities: Vec<&'a Vulnerability>,
    /// And how many more, that there was no room for.
    pub more: u64,
}

impl Excess<'_> {
    /// For people: how many, and as many of them as a line has room for. Not escaped.
    #[must_use]
    pub fn list(&self) -> String {
        let all = self.vulnerabilities.len() as u64 + self.more;
        let mut text = format!("{all}: ");
        let mut shown = 0;
        for vulnerability in &self.vulnerabilities {
            let next = vulnerability.to_string();
            // One is always shown.
            if shown > 0 && text.len() + next.len() > LIST {
                break;
            }
            if shown > 0 {
                text += ", ";
            }
            text += &next;
            shown += 1;
        }
        match all - shown {
            0 => text,
            left => text + &format!(", and {left} more"),
        }
    }
}

/// What of a scan is more than an image of these names may have, the worst first.
#[must_use]
pub fn judge<'a>(
    scan: &'a Scan,
    names: &[&str],
    limits: &Limits,
    exceptions: &[Exception],
    now: u64,
) -> Vec<Excess<'a>> {
    let passes = |id: &str| exceptions.iter().any(|exception| exception.is_for(id, names, now));
    let worst_of_more = scan.vulnerabilities.last().map(|last| last.level);
    let of = |level: Level| {
        let most = limits.of(level)?;
        let left = scan.vulnerabilities.iter().filter(|one| one.level == level && !passes(&one.id));
        let vulnerabilities: Vec<_> = left.collect();
        // Those without room may be of any level up to the last one that had room: they count as that.
        let more = if worst_of_more == Some(level) { scan.more } else { 0 };
        let is_excess = vulnerabilities.len() as u64 + more > u64::from(most);
        is_excess.then_some(Excess { level, vulnerabilities, more })
    };
    Level::ALL.into_iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{NOW, scan};
    use super::*;

    fn levels(scan: &Scan, limits: &Limits, exceptions: &[Exception]) -> Vec<(Level, usize)> {
        let excess = judge(scan, &["registry.local/team/app:1", "sha256:abc"], limits, exceptions, NOW);
        excess.iter().map(|one| (one.level, one.vulnerabilities.len())).collect()
    }

    #[test]
    fn limits() {
        let scan = scan(&[("A", "CRITICAL"), ("B", "HIGH"), ("C", "HIGH"), ("D", "LOW"), ("E", "UNKNOWN")]);
        let (critical, high, low, unknown) =
            ((Level::Critical, 1), (Level::High, 2), (Level::Low, 1), (Level::Unknown, 1));
        assert_eq!(levels(&scan, &Limits::default(), &[]), [critical, high]);
        assert_eq!(levels(&scan, &Limits::none_from(Level::Critical), &[]), [critical]);
        assert_eq!(levels(&scan, &Limits::none_from(Level::Unknown), &[]), [critical, high, low, unknown]);
        let some = Limits { critical: Some(1), high: Some(1), medium: Some(0), low: None, unknown: Some(0) };
        assert_eq!(levels(&scan, &some, &[]), [high, unknown]);
        let read: Limits = toml::from_str("high = 2\nlow = 0").unwrap();
        assert_eq!(levels(&scan, &read, &[]), [low]);
        assert!(toml::from_str::<Limits>("hihg = 2").is_err());
    }

    fn exception(id: &str, image: Option<&str>, until: &str) -> Exception {
        let until = Day::try_from(until.to_owned()).unwrap();
        Exception { id: id.into(), image: image.map(str::to_owned), until, why: "x".into() }
    }

    #[test]
    fn exceptions() {
        let scan = scan(&[("CVE-1", "CRITICAL"), ("CVE-11", "CRITICAL")]);
        let left =
            |exception: Exception| levels(&scan, &Limits::default(), &[exception]).first().map(|one| one.1);
        for passes in [
            exception("CVE-1", None, "2026-11-27"),
            exception("CVE-1", None, "2030-01-01"),
            exception("CVE-1", Some("registry.local/team/*"), "2030-01-01"),
            exception("CVE-1", Some("*/app:*"), "2030-01-01"),
            exception("CVE-1", Some("sha256:abc"), "2030-01-01"),
        ] {
            assert_eq!(left(passes.clone()), Some(1), "{passes:?}");
        }
        for counts in [
            exception("CVE-1", None, "2026-11-26"),
            exception("CVE-2", None, "2030-01-01"),
            exception("cve-1", None, "2030-01-01"),
            exception("CVE-*", None, "2030-01-01"),
            exception("CVE-1", Some("registry.local/other/*"), "2030-01-01"),
            exception("CVE-1", Some("team"), "2030-01-01"),
            exception("CVE-1", Some(""), "2030-01-01"),
        ] {
            assert_eq!(left(counts.clone()), Some(2), "{counts:?}");
        }
        let text = "id = \"CVE-1\"\nuntil = \"2027-01-31\"\nwhy = \"not reachable\"";
        let read: Exception = toml::from_str(text).unwrap();
        assert_eq!(read.until.to_string(), "2027-01-31");
        for bad in ["2027-02-30", "2027-1-31", "31.01.2027", "", "2027-01-31T00:00:00Z", "never"] {
            assert!(toml::from_str::<Exception>(&text.replace("2027-01-31", bad)).is_err(), "{bad}");
        }
        for without in ["until", "why", "id"] {
            let text: Vec<_> = text.lines().filter(|line| !line.starts_with(without)).collect();
            assert!(toml::from_str::<Exception>(&text.join("\n")).is_err(), "an exception without {without}");
        }
    }
}
