//! What one channel has told, and what it has still to tell. Kept by the user podsec-monitor in
//! `/var/lib/podsec-monitor/tell/CHANNEL.json`, for one process at a time.

use super::news::{Event, News, Now, blindness};
use podsec_policy::finding::{Check, Finding, Outcome, Report, Severity, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

/// News that wait for a channel that does not work. Those beyond are counted.
const MOST: usize = Report::MOST;
/// Seconds until it is tried again after the first failure. Each further one doubles it.
pub const FIRST_RETRY: u64 = 10;
/// Seconds at most.
const LAST_RETRY: u64 = 300;
/// Seconds between two words about more and more being lost.
const LOST_EVERY: u64 = 3600;

/// Of one channel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Told {
    /// Findings that it was given, by their id.
    known: BTreeMap<String, Finding>,
    /// Of checks that do not see all: what it was given about that.
    blind: BTreeMap<Check, String>,
    /// How many were lost, and when it was given that.
    lost: BTreeMap<Check, (u64, u64)>,
    /// Not yet delivered.
    waiting: Vec<News>,
    /// There was no room for them.
    left_out: u64,
    /// In a row.
    failures: u32,
    /// From when to when nothing is delivered: seconds since 1970.
    pause: (u64, u64),
}

impl Told {
    /// As it was left. What cannot be read is begun anew, and everything told once more: better than nothing for ever.
    #[must_use]
    pub fn load(path: &Path) -> Self {
        let read = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| error.to_string()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::default(),
            Err(error) => Err(error.to_string()),
        };
        read.unwrap_or_else(|error| {
            eprintln!("podsec-monitor: {}: {error}; begun anew", path.display());
            Self::default()
        })
    }

    /// The old one or the new one, whenever this process ends.
    ///
    /// # Errors
    /// says what is wrong with which file
    pub fn save(&self, path: &Path) -> Result<(), String> {
        crate::report::write(path, self, 0o600)
    }

    /// Compares, and puts what is new among what waits. Was there anything?
    pub fn learn(&mut self, now: &Now, least: Severity) -> bool {
        let before = (self.waiting.len(), self.left_out);
        let mut changed = false;
        for (&check, report) in &now.reports {
            if report.outcome != Outcome::Never {
                changed |= self.compare(now.time, report, least);
                let missed = |outcome: &Outcome| match outcome {
                    // Why may say something else every time.
                    Outcome::Partial { missed } => format!("{:?}", missed.keys().collect::<Vec<_>>()),
                    _ => "unknown".into(),
                };
                let why = blindness(&report.outcome).map(|text| (missed(&report.outcome), text));
                changed |= self.see(now.time, check, why);
            }
            changed |= self.count_lost(now.time, check, report.lost);
        }
        for (&check, error) in &now.unreadable {
            changed |= self.see(now.time, check, Some(("unreadable".into(), Text::of(error))));
        }
        changed || before != (self.waiting.len(), self.left_out)
    }

    fn compare(&mut self, time: u64, report: &Report, least: Severity) -> bool {
        let mut changed = false;
        for (id, found) in &report.findings {
            let severity = found.finding.severity;
            let before = self.known.get(id).map(|finding| finding.severity);
            if before == Some(severity) || (before.is_none() && severity < least) {
                continue;
            }
            changed = true;
            self.known.insert(id.clone(), found.finding.clone());
            // Less bad than it was told is no news; worse is.
            if before.is_none_or(|before| before < severity) && severity >= least {
                self.push(time, Event::New(Box::new(found.clone())));
            }
        }
        let is_gone = |id: &String, finding: &Finding| {
            finding.kind.check == report.check && !report.findings.contains_key(id)
        };
        let known = std::mem::take(&mut self.known).into_iter();
        let (gone, known): (BTreeMap<_, _>, _) = known.partition(|(id, finding)| is_gone(id, finding));
        self.known = known;
        changed |= !gone.is_empty();
        for (_, finding) in gone {
            self.push(time, Event::Gone(Box::new(finding)));
        }
        changed
    }

    fn see(&mut self, time: u64, check: Check, why: Option<(String, Text)>) -> bool {
        let before = self.blind.get(&check);
        match why {
            None if before.is_none() => return false,
            Some((short, _)) if before == Some(&short) => return false,
            None => {
                self.blind.remove(&check);
                self.push(time, Event::Sees(check));
            }
            Some((short, text)) => {
                self.blind.insert(check, short);
                self.push(time, Event::Blind(check, text));
            }
        }
        true
    }

    /// Under a flood it grows all the time.
    fn count_lost(&mut self, time: u64, check: Check, lost: u64) -> bool {
        let (before, when) = self.lost.get(&check).copied().unwrap_or_default();
        if lost < before {
            self.lost.insert(check, (lost, when));
            return true;
        }
        if lost == before || (before > 0 && (when..when + LOST_EVERY).contains(&time)) {
            return false;
        }
        self.lost.insert(check, (lost, time));
        let text = format!("{} more findings or events were lost, {lost} in all", lost - before);
        self.push(time, Event::Blind(check, Text::of(text)));
        true
    }

    fn push(&mut self, time: u64, event: Event) {
        if self.waiting.len() < MOST {
            self.waiting.push(News { time, event });
        } else {
            self.left_out += 1;
        }
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.len() as u64 + self.left_out
    }

    /// Seconds until there is something to deliver; none where nothing waits.
    #[must_use]
    pub fn wait(&self, now: u64) -> Option<u64> {
        let (from, to) = self.pause;
        // A clock that was set back ends the pause.
        let pause = if (from..to).contains(&now) { to - now } else { 0 };
        (self.waiting() > 0).then_some(pause)
    }

    /// Lets `deliver` have how many were left out and what waits, of which it takes what it delivered even when it fails.
    /// Nothing more for `every` seconds when it succeeds.
    ///
    /// # Errors
    /// those of `deliver`
    pub fn deliver(
        &mut self,
        now: u64,
        every: u64,
        deliver: impl FnOnce(u64, &mut Vec<News>) -> Result<(), String>,
    ) -> Result<(), String> {
        let result = deliver(self.left_out, &mut self.waiting);
        if result.is_ok() {
            self.waiting.clear();
            (self.left_out, self.failures, self.pause) = (0, 0, (now, now.saturating_add(every)));
        } else {
            let retry = FIRST_RETRY << self.failures.min(10);
            self.failures = self.failures.saturating_add(1);
            self.pause = (now, now + retry.min(LAST_RETRY));
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::finding::{Subject, kinds};

    fn finding(name: &str, severity: Severity) -> Finding {
        let kind = kinds().find(|kind| kind.check == Check::Policy).unwrap();
        let finding = Finding::new(kind, Subject::User(Text::of(name)), "/x", "y").of(name);
        Finding { severity, ..finding }
    }

    fn now(time: u64, report: &Report) -> Now {
        let reports = BTreeMap::from([(report.check, report.clone())]);
        Now { time, reports, unreadable: BTreeMap::new() }
    }

    /// What is new in these reports, as words.
    fn learned(told: &mut Told, now: &Now, least: Severity) -> Vec<String> {
        let changed = told.learn(now, least);
        let word = |news: News| match news.event.finding() {
            Some(finding) => format!("{} {}", news.event.name(), finding.subject.name()),
            None => news.event.name().into(),
        };
        let words: Vec<_> = std::mem::take(&mut told.waiting).into_iter().map(word).collect();
        assert!(changed || words.is_empty());
        words
    }

    #[test]
    fn each_finding_is_new_once_and_gone_once() {
        let (mut told, mut report) = (Told::default(), Report::new(Check::Policy));
        let findings = || [finding("amy", Severity::Critical), finding("bob", Severity::Low)];
        assert_eq!(learned(&mut told, &now(1, &report), Severity::Debug), [""; 0]);
        report.replace(10, Outcome::Complete, findings());
        let mut mail = told.clone();
        assert_eq!(learned(&mut told, &now(10, &report), Severity::Debug).len(), 2);
        assert_eq!(learned(&mut mail, &now(10, &report), Severity::Warning), ["new amy"]);
        assert_eq!(learned(&mut told, &now(11, &report), Severity::Debug), [""; 0]);
        // Another check's report says nothing about these.
        assert_eq!(learned(&mut told, &now(12, &Report::new(Check::Images)), Severity::Debug), [""; 0]);
        // Worse is news, better is none, and below the least is not gone.
        report.replace(
            20,
            Outcome::Complete,
            [finding("amy", Severity::Low), finding("bob", Severity::High)],
        );
        assert_eq!(learned(&mut told, &now(20, &report), Severity::Debug), ["new bob"]);
        assert_eq!(learned(&mut mail, &now(20, &report), Severity::Warning), ["new bob"]);
        report.replace(30, Outcome::Complete, []);
        assert_eq!(learned(&mut told, &now(30, &report), Severity::Debug).len(), 2);
        assert_eq!(learned(&mut mail, &now(30, &report), Severity::Warning).len(), 2);
        report.replace(40, Outcome::Complete, findings());
        assert_eq!(learned(&mut told, &now(40, &report), Severity::Debug).len(), 2);
        // A report that is not there is none in which nothing is found.
        assert_eq!(learned(&mut told, &now(50, &Report::new(Check::Policy)), Severity::Debug), [""; 0]);
    }

    #[test]
    fn a_blind_check_is_told_and_so_is_what_is_lost() {
        let (mut told, mut report) = (Told::default(), Report::new(Check::Policy));
        let mut at = |time, report: &Report| learned(&mut told, &now(time, report), Severity::Crash);
        let missed =
            |why: &str| Outcome::Partial { missed: BTreeMap::from([(Text::of("bob"), Text::of(why))]) };
        report.replace(10, missed("did not answer"), []);
        assert_eq!(at(10, &report), ["blind"]);
        report.replace(20, missed("did not answer in time"), []);
        assert_eq!(at(20, &report), [""; 0]);
        report.replace(30, Outcome::Unknown { why: Text::of("no database") }, []);
        assert_eq!(at(30, &report), ["blind"]);
        report.replace(40, Outcome::Complete, []);
        assert_eq!((at(40, &report), at(41, &report)), (vec!["sees".into()], vec![]));
        for (time, lost, words) in
            [(50, 3, 1), (60, 5, 0), (3649, 6, 0), (3650, 7, 1), (3651, 0, 0), (3652, 1, 1)]
        {
            report.lost = lost;
            assert_eq!(at(time, &report).len(), words, "{time}");
        }
    }

    #[test]
    fn what_cannot_be_delivered_waits_and_is_bounded() {
        let (mut told, mut report) = (Told::default(), Report::new(Check::Policy));
        let many = (0..MOST).map(|number| finding(&number.to_string(), Severity::High));
        report.replace(10, Outcome::Complete, many);
        assert!(told.learn(&now(10, &report), Severity::Debug));
        assert_eq!((told.waiting(), told.wait(10)), (MOST as u64, Some(0)));
        report.replace(20, Outcome::Complete, []);
        assert!(told.learn(&now(20, &report), Severity::Debug));
        assert_eq!((told.waiting.len(), told.left_out), (MOST, MOST as u64));
        let failed = told.deliver(100, 3600, |_, news| {
            news.drain(..10);
            Err("down".into())
        });
        assert_eq!((failed, told.waiting.len()), (Err("down".into()), MOST - 10));
        let waits: Vec<_> = (0..8)
            .map(|_| {
                told.deliver(100, 3600, |_, _| Err(String::new())).unwrap_err();
                told.wait(100).unwrap()
            })
            .collect();
        assert_eq!(waits, [20, 40, 80, 160, 300, 300, 300, 300]);
        // Whatever becomes of the clock.
        assert_eq!((told.wait(399), told.wait(400), told.wait(99)), (Some(1), Some(0), Some(0)));
        let read: Told = serde_json::from_str(&serde_json::to_string(&told).unwrap()).unwrap();
        assert_eq!(read, told);
        assert_eq!(
            told.deliver(400, 3600, |left_out, _| if left_out == MOST as u64 {
                Ok(())
            } else {
                Err("?".into())
            }),
            Ok(())
        );
        assert_eq!((told.waiting(), told.wait(400)), (0, None));
        told.push(401, Event::Sees(Check::Policy));
        assert_eq!((told.wait(401), told.wait(4000)), (Some(3599), Some(0)));
    }
}
