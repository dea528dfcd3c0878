//! What one check knows: its findings, since when and how often, and how its last run went.

use super::{Check, Finding, Severity, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A finding, and when it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// What.
    pub finding: Finding,
    /// Seconds since 1970.
    pub first: u64,
    /// Seconds since 1970.
    pub last: u64,
    /// How often; 1 for what is a state and no event.
    pub count: u64,
}

/// How the last run went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It never ran.
    Never,
    /// All there is was looked at.
    Complete,
    /// Somebody's was not: what was found there before is kept.
    Partial {
        /// Whose, and why.
        missed: BTreeMap<Text, Text>,
    },
    /// Nothing could be said; everything that was found before is kept.
    Unknown {
        /// What is missing, and what to do.
        why: Text,
    },
}

/// One check's findings, as they are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which.
    pub check: Check,
    /// When it looked last, or, for what follows events, when it last knew that it was up to date: seconds since 1970.
    pub time: u64,
    /// How long that took, in milliseconds.
    pub took: u64,
    /// How it went.
    pub outcome: Outcome,
    /// Users whose stores were looked at, events seen: what was looked at, for people.
    pub looked_at: u64,
    /// Findings and events that there was no room for, or that were lost on the way. Never silently.
    pub lost: u64,
    /// By their id.
    pub findings: BTreeMap<String, Found>,
}

/// A report in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "those of the same name in a report")]
pub struct Summary {
    pub check: Check,
    pub time: u64,
    pub took: u64,
    pub outcome: Outcome,
    pub looked_at: u64,
    pub lost: u64,
    /// How many.
    pub findings: u64,
    /// The sum that Nagios compares.
    pub weight: u64,
    /// Of all findings.
    pub worst: Option<Severity>,
}

/// What came of a run, in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// How things are now.
    pub summary: Summary,
    /// Findings that were not there before.
    pub new: u64,
    /// Findings that are there no more.
    pub gone: u64,
}

impl Report {
    /// Findings that are kept of one check: more would fill the disk, and nobody reads them. The rest is counted.
    pub const MOST: usize = 10_000;

    /// Of a check that never ran.
    #[must_use]
    pub fn new(check: Check) -> Self {
        Self {
            check,
            time: 0,
            took: 0,
            outcome: Outcome::Never,
            looked_at: 0,
            lost: 0,
            findings: BTreeMap::new(),
        }
    }

    /// Everything was looked at, but for what `outcome` says: what is not found any more is gone.
    pub fn replace(&mut self, now: u64, outcome: Outcome, findings: impl IntoIterator<Item = Finding>) {
        let mut before = std::mem::take(&mut self.findings);
        self.lost = 0;
        for finding in findings {
            let id = finding.id();
            if self.findings.contains_key(&id) {
                continue;
            }
            if self.findings.len() == Self::MOST {
                self.lost += 1;
                continue;
            }
            let first = before.remove(&id).map_or(now, |found| found.first);
            self.findings.insert(id, Found { finding, first, last: now, count: 1 });
        }
        let keep = |found: &Found| match &outcome {
            Outcome::Never | Outcome::Complete => false,
            Outcome::Partial { missed } => missed.contains_key(&found.finding.owner),
            Outcome::Unknown { .. } => true,
        };
        for (id, found) in before {
            if keep(&found) && self.findings.len() < Self::MOST {
                self.findings.insert(id, found);
            }
        }
        (self.time, self.outcome) = (now, outcome);
    }

    /// An event, `count` times: is it the first of its kind?
    pub fn see(&mut self, now: u64, finding: Finding, count: u64) -> bool {
        let id = finding.id();
        let full = self.findings.len() >= Self::MOST;
        if let Some(found) = self.findings.get_mut(&id) {
            found.last = now;
            found.count = found.count.saturating_add(count);
            found.finding = finding;
            return false;
        }
        if full {
            self.lost = self.lost.saturating_add(count);
            return false;
        }
        self.findings.insert(id, Found { finding, first: now, last: now, count });
        true
    }

    /// Events that were last seen before that are history, and their room is needed.
    pub fn forget(&mut self, before: u64) {
        self.findings.retain(|_, found| found.last >= before);
    }

    /// All but the findings themselves.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            check: self.check,
            time: self.time,
            took: self.took,
            outcome: self.outcome.clone(),
            looked_at: self.looked_at,
            lost: self.lost,
            findings: self.findings.len() as u64,
            weight: self.findings.values().map(|found| u64::from(found.finding.weight)).sum(),
            worst: self.findings.values().map(|found| found.finding.severity).max(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Subject, kinds};
    use super::*;

    fn finding(name: &str) -> Finding {
        let kind = kinds().next().unwrap();
        Finding::new(kind, Subject::User(Text::of(name)), "/x", "y").of(name)
    }

    fn names(report: &Report) -> Vec<&str> {
        let mut names: Vec<_> = report.findings.values().map(|found| found.finding.subject.name()).collect();
        names.sort_unstable();
        names
    }

    /// Ids that `new` has and `old` has not.
    fn more(new: &Report, old: &Report) -> Vec<String> {
        new.findings.keys().filter(|id| !old.findings.contains_key(*id)).cloned().collect()
    }

    #[test]
    fn a_state_is_found_once_kept_and_gone() {
        let mut report = Report::new(Check::Policy);
        let before = report.clone();
        report.replace(10, Outcome::Complete, [finding("amy"), finding("amy"), finding("bob")]);
        let (new, gone) = (more(&report, &before), more(&before, &report));
        assert_eq!((new.len(), gone.len(), names(&report)), (2, 0, vec!["amy", "bob"]));
        let before = report.clone();
        report.replace(20, Outcome::Complete, [finding("amy"), finding("eve")]);
        assert_eq!(more(&report, &before), [finding("eve").id()]);
        assert_eq!(more(&before, &report), [finding("bob").id()]);
        let amy = &report.findings[&finding("amy").id()];
        assert_eq!((amy.first, amy.last, amy.count), (10, 20, 1));
        assert_eq!(report.summary().weight, 2 * u64::from(kinds().next().unwrap().weight));
        let read: Report = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
        assert_eq!(read, report);
    }

    #[test]
    fn what_was_not_looked_at_is_not_gone() {
        let mut report = Report::new(Check::Policy);
        report.replace(10, Outcome::Complete, [finding("amy"), finding("bob")]);
        let missed = BTreeMap::from([(Text::of("bob"), Text::of("did not answer"))]);
        report.replace(20, Outcome::Partial { missed }, []);
        assert_eq!((names(&report), report.findings[&finding("bob").id()].last), (vec!["bob"], 10));
        report.replace(30, Outcome::Unknown { why: Text::of("no database") }, []);
        assert_eq!(names(&report), ["bob"]);
        report.replace(40, Outcome::Complete, []);
        assert_eq!(names(&report), [""; 0]);
    }

    #[test]
    fn events_are_counted_forgotten_and_bounded() {
        let mut report = Report::new(Check::Containers);
        assert!(report.see(10, finding("amy"), 3));
        assert!(!report.see(20, finding("amy"), 4));
        let amy = &report.findings[&finding("amy").id()];
        assert_eq!((amy.first, amy.last, amy.count), (10, 20, 7));
        for number in 0..Report::MOST {
            report.see(30, finding(&number.to_string()), 2);
        }
        assert_eq!((report.findings.len(), report.lost), (Report::MOST, 2));
        assert!(!report.see(31, finding("one more"), 5));
        assert_eq!(report.lost, 7);
        report.forget(25);
        assert_eq!(report.findings.len(), Report::MOST - 1);
    }
}
