//! What was seen, grouped: the same user, verb, resource and code is one finding, with how often, since when, until when, and
//! the newest object and source. All that is kept is bounded, and what has no room of its own is counted.

use super::event::Event;
use super::lines::{self, Piece, suspects};
use super::rules::{self, Rule};
use crate::report;
use podsec_policy::finding::kubeapi::{GAP, MALFORMED};
use podsec_policy::finding::{Finding, Kind, Report, Severity, Subject, Text};
use std::collections::HashMap;

/// Findings of one user with a place of their own. Whoever asks for ten thousand things that are not there must not take the
/// room of others; the rest of his is one finding more for each code.
const MOST_OF_ONE: usize = 500;
/// Bytes of a line that cannot be read that are shown.
const SHOWN: usize = 120;

/// Reads lines, and keeps what is to be told.
#[derive(Debug)]
pub struct Watch {
    pub report: Report,
    /// Something is to be written.
    pub changed: bool,
    rules: Vec<Rule>,
    lowest: i32,
    /// How many findings there are of each.
    subjects: HashMap<Subject, usize>,
}

impl Watch {
    /// Goes on with a report.
    pub fn new(report: Report, rules: Vec<Rule>) -> Self {
        let lowest = rules::lowest_code(&rules);
        let mut watch = Self { report, changed: false, rules, lowest, subjects: HashMap::new() };
        watch.count();
        watch
    }

    fn count(&mut self) {
        self.subjects.clear();
        for found in self.report.findings.values() {
            *self.subjects.entry(found.finding.subject.clone()).or_default() += 1;
        }
    }

    /// What came out of a file of a log.
    pub fn piece(&mut self, log: &str, piece: Piece<'_>) {
        self.changed = true;
        match piece {
            Piece::Lines(block) => {
                let count = suspects(block, self.lowest, |line| self.line(log, line));
                self.report.looked_at = self.report.looked_at.saturating_add(count);
            }
            Piece::TooLong => {
                self.report.looked_at = self.report.looked_at.saturating_add(1);
                self.malformed(log, format!("a line of more than {} bytes", lines::LONGEST).as_bytes());
            }
        }
    }

    fn line(&mut self, log: &str, line: &[u8]) {
        let event = match Event::parse(line) {
            Ok(event) => event,
            Err(why) => {
                let shown = line.get(..SHOWN).unwrap_or(line);
                return self.malformed(log, &[why.as_bytes(), b": ", shown].concat());
            }
        };
        let resource = event.resource();
        let Some((kind, severity)) = rules::judge(&self.rules, &event, &resource) else { return };
        let user = if event.user.username.is_empty() { "(unknown)" } else { &event.user.username };
        let subject = Subject::KubernetesUser(Text::of(user));
        let place = format!("{} {resource} ({})", event.verb, event.code());
        let mut finding = Finding::new(kind, subject, place, event.detail());
        (finding.severity, finding.weight) = (severity, weight(kind, severity));
        let now = report::now();
        // Nobody who asks has a say in the time, and the future is nobody's.
        let time = event.time().map_or(now, |micros| (micros / 1_000_000).min(now));
        if self.see(time, &finding) {
            return;
        }
        let of_him = self.subjects.get(&finding.subject).copied().unwrap_or_default();
        if of_him >= MOST_OF_ONE {
            finding.place = Text::of(format!("other requests ({})", event.code()));
            if self.see(time, &finding) {
                return;
            }
        }
        self.add(time, finding);
    }

    /// Lines that cannot be read: one finding a log.
    fn malformed(&mut self, log: &str, detail: &[u8]) {
        self.lost(&MALFORMED, log, detail);
    }

    /// Something of the log is not there any more.
    pub fn gap(&mut self, log: &str, detail: &str) {
        self.lost(&GAP, log, detail.as_bytes());
    }

    fn lost(&mut self, kind: &'static Kind, log: &str, detail: &[u8]) {
        self.changed = true;
        self.report.lost = self.report.lost.saturating_add(1);
        let finding = Finding::new(kind, Subject::Host, log, detail);
        let now = report::now();
        if !self.see(now, &finding) {
            self.add(now, finding);
        }
    }

    /// Once more? False: it was never seen before.
    fn see(&mut self, time: u64, finding: &Finding) -> bool {
        let Some(found) = self.report.findings.get_mut(&finding.id()) else { return false };
        found.first = found.first.min(time);
        found.count = found.count.saturating_add(1);
        if time >= found.last {
            (found.last, found.finding) = (time, finding.clone());
        }
        true
    }

    fn add(&mut self, time: u64, finding: Finding) {
        let subject = finding.subject.clone();
        if self.report.see(time, finding, 1) {
            *self.subjects.entry(subject).or_default() += 1;
        }
    }

    /// What was last seen before that is history. With the last trace of what was lost, its count ends too.
    pub fn forget(&mut self, before: u64) {
        let count = self.report.findings.len();
        self.report.forget(before);
        if self.report.findings.len() == count {
            return;
        }
        self.changed = true;
        self.count();
        let is_loss = |kind: &Kind| [MALFORMED.code, GAP.code].contains(&kind.code);
        if !self.report.findings.values().any(|found| is_loss(found.finding.kind)) {
            self.report.lost = 0;
        }
    }
}

/// What a rule made worse or better weighs accordingly.
fn weight(kind: &Kind, severity: Severity) -> u32 {
    if severity == kind.severity {
        return kind.weight;
    }
    match severity {
        Severity::Debug => 0,
        Severity::Low => 1,
        Severity::Warning => 10,
        Severity::Medium => 20,
        Severity::High => 50,
        Severity::Critical | Severity::Fatal | Severity::Crash => 101,
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::event;
    use super::*;
    use podsec_policy::finding::{Check, Found};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn watch() -> Watch {
        Watch::new(Report::new(Check::KubeApi), Vec::new())
    }

    fn lines(events: &[Value]) -> Vec<u8> {
        events.iter().flat_map(|event| format!("{event}\n").into_bytes()).collect()
    }

    fn only(watch: &Watch) -> &Found {
        assert_eq!(watch.report.findings.len(), 1, "{:#?}", watch.report.findings);
        watch.report.findings.values().next().unwrap()
    }

    #[test]
    fn the_same_again_is_one_finding() {
        let mut watch = watch();
        let mut newer = event("bob", "get", "secrets", 403);
        newer["stageTimestamp"] = json!("2026-11-27T02:04:00.000000Z");
        newer["sourceIPs"] = json!(["10.0.0.8"]);
        newer["objectRef"]["name"] = json!("token-2");
        newer["objectRef"]["namespace"] = json!("bank");
        let mut older = event("bob", "get", "secrets", 403);
        older["stageTimestamp"] = json!("2026-11-26T00:00:00.000000Z");
        let block = lines(&[event("bob", "get", "secrets", 403), newer, older]);
        watch.piece("/log", Piece::Lines(&block));
        let found = only(&watch);
        let time = |text| podsec_policy::audit::parse_time(text).unwrap() / 1_000_000;
        assert_eq!(found.count, 3);
        assert_eq!(found.first, time("2026-11-26T00:00:00.000000Z"));
        assert_eq!(found.last, time("2026-11-27T02:04:00.000000Z").min(report::now()));
        assert_eq!(found.finding.subject, Subject::KubernetesUser(Text::of("bob")));
        assert_eq!(found.finding.place.as_str(), "get secrets (403)");
        assert!(
            found.finding.detail.as_str().starts_with("bank/token-2 from 10.0.0.8"),
            "{}",
            found.finding.detail
        );
        assert_eq!((watch.report.looked_at, watch.report.lost), (3, 0));
        let others = [
            event("eve", "get", "secrets", 403),
            event("bob", "list", "secrets", 403),
            event("bob", "get", "pods", 403),
            event("bob", "get", "secrets", 401),
        ];
        watch.piece("/log", Piece::Lines(&lines(&others)));
        assert_eq!(watch.report.findings.len(), 5);
    }

    #[test]
    fn what_went_well_is_nothing() {
        let mut watch = watch();
        let block = lines(&[event("bob", "get", "secrets", 200), event("bob", "get", "secrets", 404)]);
        watch.piece("/log", Piece::Lines(&block));
        assert!(watch.report.findings.is_empty());
        assert_eq!((watch.report.looked_at, watch.report.lost), (2, 0));
    }

    #[test]
    fn hostile_texts_are_one_escaped_finding_each() {
        let evil = "a\n\u{1b}[2J\u{202e}$(touch /x)`touch /x`'\"\\ \u{0}";
        for text in [evil.to_owned(), evil.repeat(60_000), "x".repeat(1 << 20)] {
            let mut watch = watch();
            let mut bad = event(&text, &text, &text, 403);
            for field in ["userAgent", "requestURI"] {
                bad[field] = json!(text);
            }
            bad["sourceIPs"] = json!([text, text]);
            bad["user"]["groups"] = json!([text]);
            bad["impersonatedUser"] = json!({"username": text});
            for field in ["name", "namespace", "subresource", "apiGroup"] {
                bad["objectRef"][field] = json!(text);
            }
            bad["responseStatus"]["message"] = json!(text);
            let mut path = bad.clone();
            path["objectRef"] = Value::Null;
            watch.piece("/log", Piece::Lines(&lines(&[bad.clone(), bad, path])));
            assert_eq!((watch.report.findings.len(), watch.report.lost), (2, 0));
            let json = serde_json::to_string(&watch.report).unwrap();
            assert!(json.chars().all(|c| !c.is_control() && c != '\u{202e}'));
            assert!(json.len() < 20_000, "{}", json.len());
            assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), watch.report);
        }
    }

    #[test]
    fn what_cannot_be_read_is_counted() {
        let mut watch = watch();
        let mut block = b"\xff\xfe\n{\"kind\":\n\n".to_vec();
        block.extend(lines(&[event("bob", "get", "secrets", 403)]));
        block.extend(b"{}\n");
        watch.piece("/log", Piece::Lines(&block));
        watch.piece("/log", Piece::TooLong);
        watch.piece("/other", Piece::TooLong);
        assert_eq!((watch.report.findings.len(), watch.report.lost, watch.report.looked_at), (3, 5, 6));
        let malformed = |place: &str| {
            let of = |found: &&Found| found.finding.place.as_str() == place;
            watch.report.findings.values().find(of).unwrap().clone()
        };
        assert_eq!((malformed("/log").count, malformed("/other").count), (4, 1));
        assert_eq!(malformed("/log").finding.kind.code, "api-log-malformed");
        assert_eq!(malformed("/log").finding.detail.as_str(), "a line of more than 8388608 bytes");
    }

    /// Who asks for everything does not take the room of others.
    #[test]
    fn one_user_has_his_share() {
        let mut watch = watch();
        for number in 0..3 * MOST_OF_ONE {
            let block = lines(&[event("mallory", "get", &format!("thing{number}"), 403)]);
            watch.piece("/log", Piece::Lines(&block));
        }
        assert_eq!((watch.report.findings.len(), watch.report.lost), (MOST_OF_ONE + 1, 0));
        let counts: u64 = watch.report.findings.values().map(|found| found.count).sum();
        assert_eq!(counts, 3 * MOST_OF_ONE as u64);
        let rest = watch.report.findings.values().find(|found| found.count > 1).unwrap();
        assert_eq!(
            (rest.finding.place.as_str(), rest.count),
            ("other requests (403)", 2 * MOST_OF_ONE as u64)
        );
        // The same after a restart.
        let mut again = Watch::new(watch.report, Vec::new());
        again.piece("/log", Piece::Lines(&lines(&[event("mallory", "get", "more", 403)])));
        assert_eq!(again.report.findings.len(), MOST_OF_ONE + 1);
        again.piece("/log", Piece::Lines(&lines(&[event("bob", "get", "more", 403)])));
        assert_eq!(again.report.findings.len(), MOST_OF_ONE + 2);
    }

    #[test]
    fn history_is_forgotten_and_with_it_what_was_lost() {
        let mut watch = watch();
        watch.piece("/log", Piece::Lines(&lines(&[event("bob", "get", "secrets", 403)])));
        watch.gap("/log", "gone");
        watch.forget(0);
        assert_eq!((watch.report.findings.len(), watch.report.lost), (2, 1));
        watch.forget(report::now() + 1);
        assert_eq!((watch.report.findings.len(), watch.report.lost, watch.subjects.len()), (0, 0, 0));
    }

    #[test]
    fn nobody_comes_from_the_future() {
        let mut watch = watch();
        let mut late = event("bob", "get", "secrets", 403);
        late["stageTimestamp"] = json!("2999-01-01T00:00:00.000000Z");
        watch.piece("/log", Piece::Lines(&lines(&[late])));
        assert!(only(&watch).last <= report::now());
    }

    #[test]
    fn a_weight_is_that_of_its_severity() {
        for kind in podsec_policy::finding::kinds().filter(|kind| kind.check == Check::KubeApi) {
            let other = Kind {
                severity: if kind.severity == Severity::Fatal { Severity::Crash } else { Severity::Fatal },
                ..*kind
            };
            assert_eq!(weight(&other, kind.severity), kind.weight, "{}", kind.code);
        }
    }

    proptest! {
        #[test]
        fn any_lines(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut watch = watch();
            watch.piece("/log", Piece::Lines(&bytes));
            prop_assert!(watch.report.findings.len() <= 1);
        }
    }
}
