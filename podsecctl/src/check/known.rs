//! What podsecd says of findings, read: texts that may be printed, severities and checks that are some.

use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{Output, Style, clean, count, duration};
use podsec_policy::finding::{Check, Severity};
use podsec_proto::v1::check_event::Event as Said;
use podsec_proto::v1::{CheckEvent, CheckFinding, CheckSummary, FindingsRequest, MissedOwner};
use serde_json::{Value, json};
use std::cmp::Reverse;

/// Characters of what stands in a line beside other things.
const LONG: usize = 200;

/// How a check's last run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Never,
    Complete,
    Partial,
    Unknown,
}

/// A check in short. Texts are clean.
#[derive(Clone, Debug)]
pub struct Summary {
    pub check: Check,
    pub state: State,
    pub said: CheckSummary,
}

/// A finding. Texts are clean.
#[derive(Clone, Debug)]
pub struct Finding {
    pub severity: Severity,
    pub said: CheckFinding,
}

/// News.
#[derive(Clone, Debug)]
pub enum Event {
    Summary(Summary),
    Finding(Finding),
    /// The id of what is there no more.
    Gone(String),
}

/// All that is known of some checks.
#[derive(Debug, Default)]
pub struct Known {
    pub summaries: Vec<Summary>,
    /// The worst first.
    pub findings: Vec<Finding>,
}

impl Event {
    /// # Errors
    /// [`Failure::Nonsense`]
    pub fn read(said: CheckEvent) -> Result<Self, Failure> {
        match said.event {
            Some(Said::Summary(summary)) => Summary::read(summary).map(Self::Summary),
            Some(Said::Finding(finding)) => Finding::read(finding).map(Self::Finding),
            Some(Said::Gone(id)) => Ok(Self::Gone(clean(&id))),
            None => Err(Failure::Nonsense("an event of a check")),
        }
    }

    /// For programs.
    #[must_use]
    pub fn object(&self) -> Value {
        match self {
            Self::Summary(summary) => json!({ "summary": summary.object() }),
            Self::Finding(finding) => json!({ "finding": finding.object() }),
            Self::Gone(id) => json!({ "gone": id }),
        }
    }
}

impl Summary {
    /// # Errors
    /// [`Failure::Nonsense`]
    pub fn read(mut said: CheckSummary) -> Result<Self, Failure> {
        let check = Check::from_name(&said.check).ok_or(Failure::Nonsense("a check's name"))?;
        let state = match said.state.as_str() {
            "never" => State::Never,
            "complete" => State::Complete,
            "partial" => State::Partial,
            "unknown" => State::Unknown,
            _ => return Err(Failure::Nonsense("a check's state")),
        };
        said.why = clean(&said.why);
        said.worst = clean(&said.worst);
        for MissedOwner { owner, why } in &mut said.missed {
            (*owner, *why) = (clean(owner), clean(why));
        }
        Ok(Self { check, state, said })
    }

    /// For programs.
    #[must_use]
    pub fn object(&self) -> Value {
        let said = &self.said;
        let missed = said.missed.iter().map(|missed| json!({ "owner": missed.owner, "why": missed.why }));
        json!({
            "check": said.check,
            "time": said.time,
            "took": said.took,
            "state": said.state,
            "why": said.why,
            "missed": missed.collect::<Value>(),
            "looked_at": said.looked_at,
            "lost": said.lost,
            "findings": said.findings,
            "weight": said.weight,
            "worst": said.worst,
        })
    }

    /// `looked 5 min ago`
    #[must_use]
    pub fn when(&self, now: u64) -> String {
        let ago = duration(now.saturating_sub(self.said.time));
        match (self.state, self.check.looks()) {
            (State::Never, true) => "never looked".to_owned(),
            (State::Never, false) => "never watched".to_owned(),
            (_, true) => format!("looked {ago} ago"),
            (_, false) => format!("watched {ago} ago"),
        }
    }

    /// Whose could not be looked at, why nothing can be said, and what was lost: nothing for a check that went well.
    #[must_use]
    pub fn trouble(&self) -> Vec<String> {
        let said = &self.said;
        let mut troubles = Vec::new();
        if self.state == State::Unknown {
            let why = if said.why.is_empty() { "it is not said why" } else { &said.why };
            troubles.push(format!("unknown: {}", cut(why, LONG)));
        }
        if self.state == State::Partial {
            let mut text = "not looked at:".to_owned();
            match said.missed.as_slice() {
                [] => text += " something",
                [first, rest @ ..] => {
                    text += &format!(" {} ({})", cut(&first.owner, 40), cut(&first.why, LONG));
                    if !rest.is_empty() {
                        text += &format!(" and {} more", rest.len());
                    }
                }
            }
            troubles.push(text);
        }
        if said.lost > 0 {
            troubles.push(format!("{} lost", said.lost));
        }
        troubles
    }

    /// `3 findings (1 critical), weight 305; looked 5 min ago`
    #[must_use]
    pub fn sentence(&self, output: &Output, findings: &[Finding], now: u64) -> String {
        let number = self.said.findings;
        let mut parts = Vec::new();
        match (number, self.state) {
            (0, State::Complete) => parts.push(output.paint(Style::Good, "nothing found")),
            (0, State::Partial) => parts.push("nothing found elsewhere".to_owned()),
            (0, _) => {}
            _ => {
                let text = found(number, findings.iter().filter(|one| one.said.check == self.said.check));
                let before = if self.state == State::Unknown { " before that" } else { "" };
                parts.push(format!("{text}, weight {}{before}", self.said.weight));
            }
        }
        parts.extend(self.trouble().iter().map(|text| output.paint(Style::Warn, text)));
        parts.push(self.when(now));
        if self.state == State::Never && self.check.looks() {
            parts.push(format!("look now: podsecctl check run {}", self.check.name()));
        }
        parts.join("; ")
    }
}

impl Known {
    /// In short, for programs.
    #[must_use]
    pub fn object(&self) -> Value {
        json!({
            "findings": self.findings.len(),
            "critical": self.critical(),
            "checks": self.summaries.iter().map(Summary::object).collect::<Value>(),
        })
    }

    /// `3 (1 critical); policy looked 5 min ago; images never looked`
    #[must_use]
    pub fn sentence(&self, output: &Output, now: u64) -> String {
        if self.summaries.iter().all(|one| one.state == State::Never) {
            return "no check has looked yet: podsecctl check run".to_owned();
        }
        let number = match (self.findings.len(), self.critical()) {
            (0, _) => "none".to_owned(),
            (number, 0) => output.paint(Style::Warn, &number.to_string()),
            (number, critical) => output.paint(Style::Bad, &format!("{number} ({critical} critical)")),
        };
        let one = |one: &Summary| {
            let (name, when) = (one.check.name(), one.when(now));
            match one.state {
                State::Unknown => output.paint(Style::Warn, &format!("{name} unknown")),
                State::Partial => {
                    format!("{name} {when}, {}", output.paint(Style::Warn, "not at everything"))
                }
                State::Never | State::Complete => format!("{name} {when}"),
            }
        };
        std::iter::once(number).chain(self.summaries.iter().map(one)).collect::<Vec<_>>().join("; ")
    }

    fn critical(&self) -> usize {
        self.findings.iter().filter(|one| one.is_critical()).count()
    }
}

/// `3 findings (1 critical)`
pub fn found<'a>(number: u64, findings: impl Iterator<Item = &'a Finding>) -> String {
    let critical = findings.filter(|one| one.is_critical()).count();
    let critical = if critical == 0 { String::new() } else { format!(" ({critical} critical)") };
    format!("{}{critical}", count(number, "finding"))
}

impl Finding {
    /// # Errors
    /// [`Failure::Nonsense`]
    pub fn read(mut said: CheckFinding) -> Result<Self, Failure> {
        let severity = Severity::from_name(&said.severity).ok_or(Failure::Nonsense("a severity"))?;
        for text in [
            &mut said.id,
            &mut said.check,
            &mut said.code,
            &mut said.subject_type,
            &mut said.subject,
            &mut said.owner,
            &mut said.place,
            &mut said.detail,
        ] {
            *text = clean(text);
        }
        Ok(Self { severity, said })
    }

    /// For programs.
    #[must_use]
    pub fn object(&self) -> Value {
        let said = &self.said;
        json!({
            "id": said.id,
            "check": said.check,
            "code": said.code,
            "severity": self.severity.name(),
            "weight": said.weight,
            "subject_type": said.subject_type,
            "subject": said.subject,
            "owner": said.owner,
            "place": said.place,
            "detail": said.detail,
            "first": said.first,
            "last": said.last,
            "count": said.count,
        })
    }

    /// Critical, or worse.
    #[must_use]
    pub fn is_critical(&self) -> bool {
        self.severity >= Severity::Critical
    }

    /// What `check show` takes; as many digits as tell ten thousand findings apart, nearly always.
    #[must_use]
    pub fn short_id(&self) -> String {
        self.said.id.chars().take(8).collect()
    }

    /// `user amy`
    #[must_use]
    pub fn subject(&self) -> String {
        let said = &self.said;
        [said.subject_type.as_str(), said.subject.as_str()].join(" ").trim_end().to_owned()
    }

    /// `/home/amy/.config: not locked (7 times)`, not long
    #[must_use]
    pub fn what(&self) -> String {
        let said = &self.said;
        let texts = [said.place.as_str(), said.detail.as_str()];
        let text = texts.into_iter().filter(|text| !text.is_empty()).map(|text| cut(text, LONG));
        let times = if said.count > 1 { format!(" ({} times)", said.count) } else { String::new() };
        text.collect::<Vec<_>>().join(": ") + &times
    }

    /// The severity, as wide as all of them.
    #[must_use]
    pub fn painted(&self, output: &Output, width: usize) -> String {
        output.paint(style(self.severity), &format!("{:width$}", self.severity.name()))
    }
}

/// How to show one.
#[must_use]
pub fn style(severity: Severity) -> Style {
    match severity {
        Severity::Crash | Severity::Fatal | Severity::Critical | Severity::High => Style::Bad,
        Severity::Medium | Severity::Warning => Style::Warn,
        Severity::Low | Severity::Debug => Style::Dim,
    }
}

/// Asks.
///
/// # Errors
/// [`Failure`]
pub fn ask(daemon: &Daemon, check: Option<Check>) -> Result<Known, Failure> {
    let check = check.map(|check| check.name().to_owned()).unwrap_or_default();
    read(daemon.ask_all(daemon.checks().findings(FindingsRequest { check }))?)
}

fn read(events: Vec<CheckEvent>) -> Result<Known, Failure> {
    let mut known = Known::default();
    for event in events {
        match Event::read(event)? {
            Event::Summary(summary) => known.summaries.push(summary),
            Event::Finding(finding) => known.findings.push(finding),
            Event::Gone(_) => return Err(Failure::Nonsense("a change in what does not change")),
        }
    }
    // Of the same severity, those of one kind together, and what is new first.
    known.findings.sort_by(|a, b| {
        let key = |one: &Finding| (Reverse(one.severity), Reverse(one.said.weight));
        key(a)
            .cmp(&key(b))
            .then_with(|| a.said.code.cmp(&b.said.code))
            .then_with(|| b.said.first.cmp(&a.said.first))
            .then_with(|| a.said.id.cmp(&b.said.id))
    });
    Ok(known)
}

/// At most so many characters.
#[must_use]
pub fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Of a check that went well.
    pub fn summary(check: &str, time: u64) -> CheckSummary {
        CheckSummary { check: check.into(), time, state: "complete".into(), ..CheckSummary::default() }
    }

    /// About amy.
    pub fn finding(id: &str, severity: &str, weight: u32) -> CheckFinding {
        CheckFinding {
            id: id.into(),
            check: "policy".into(),
            code: "policy-open".into(),
            severity: severity.into(),
            weight,
            subject_type: "user".into(),
            subject: "amy".into(),
            owner: "amy".into(),
            place: "/home/amy".into(),
            detail: "open".into(),
            first: 1000,
            last: 2000,
            count: 1,
        }
    }

    /// As if podsecd had said it.
    pub fn known(summaries: Vec<CheckSummary>, findings: Vec<CheckFinding>) -> Known {
        let summaries = summaries.into_iter().map(|one| CheckEvent { event: Some(Said::Summary(one)) });
        let findings = findings.into_iter().map(|one| CheckEvent { event: Some(Said::Finding(one)) });
        read(summaries.chain(findings).collect()).unwrap()
    }

    fn sentence(said: CheckSummary, findings: Vec<CheckFinding>, now: u64) -> String {
        let known = known(vec![said], findings);
        known.summaries[0].sentence(&Output::plain(), &known.findings, now)
    }

    #[test]
    fn a_check_is_a_sentence() {
        assert_eq!(sentence(summary("policy", 1000), vec![], 1300), "nothing found; looked 5 min ago");
        assert_eq!(sentence(summary("kubeapi", 1000), vec![], 1002), "nothing found; watched 2 s ago");
        let never = CheckSummary { state: "never".into(), ..summary("images", 0) };
        assert_eq!(sentence(never, vec![], 9), "never looked; look now: podsecctl check run images");
        let some = CheckSummary { findings: 2, weight: 202, ..summary("policy", 1000) };
        let found = vec![finding("aa", "critical", 101), finding("bb", "high", 101)];
        assert_eq!(
            sentence(some.clone(), found.clone(), 1000),
            "2 findings (1 critical), weight 202; looked 0 s ago"
        );
        let why = "no\ndatabase".to_owned();
        let unknown = CheckSummary { state: "unknown".into(), why, ..some.clone() };
        assert_eq!(
            sentence(unknown, found, 1000),
            r"2 findings (1 critical), weight 202 before that; unknown: no\x0adatabase; looked 0 s ago"
        );
        let missed = |owner: &str| MissedOwner { owner: owner.into(), why: "hangs".into() };
        let partial = CheckSummary { state: "partial".into(), ..summary("policy", 1000) };
        let partial = CheckSummary { missed: vec![missed("bob\x1b"), missed("eve")], lost: 5, ..partial };
        assert_eq!(
            sentence(partial, vec![], 1000),
            r"nothing found elsewhere; not looked at: bob\x1b (hangs) and 1 more; 5 lost; looked 0 s ago"
        );
    }

    #[test]
    fn all_checks_are_a_sentence() {
        let of = |check: &str, state: &str| CheckSummary { state: state.into(), ..summary(check, 1000) };
        let output = Output::plain();
        let never = known(vec![of("policy", "never"), of("kubeapi", "never")], vec![]);
        assert_eq!(never.sentence(&output, 1000), "no check has looked yet: podsecctl check run");
        let some = vec![
            of("policy", "complete"),
            of("images", "partial"),
            of("containers", "never"),
            of("vulnerabilities", "unknown"),
        ];
        let whole = known(some.clone(), vec![finding("a", "fatal", 1), finding("b", "low", 1)]);
        assert_eq!(
            whole.sentence(&output, 1300),
            "2 (1 critical); policy looked 5 min ago; images looked 5 min ago, not at everything; containers never \
             watched; vulnerabilities unknown"
        );
        assert_eq!((&whole.object()["findings"], &whole.object()["critical"]), (&2.into(), &1.into()));
        assert_eq!(whole.object()["checks"][1]["state"], "partial");
        assert!(known(some, vec![]).sentence(&output, 1300).starts_with("none; policy"));
    }

    #[test]
    fn the_worst_comes_first() {
        let found = vec![
            finding("a", "low", 500),
            finding("b", "critical", 1),
            finding("c", "critical", 101),
            finding("d", "crash", 1),
            CheckFinding { first: 1001, ..finding("e", "critical", 101) },
        ];
        let ids: String = known(vec![], found).findings.iter().map(|one| one.said.id.as_str()).collect();
        assert_eq!(ids, "decba");
    }

    #[test]
    fn nothing_that_comes_in_is_printed_as_it_came() {
        let hostile = "x\x1b[2J\n\u{202e}";
        let said = CheckFinding {
            id: hostile.into(),
            check: hostile.into(),
            code: hostile.into(),
            severity: "high".into(),
            subject_type: hostile.into(),
            subject: hostile.into(),
            owner: hostile.into(),
            place: hostile.into(),
            detail: hostile.into(),
            ..CheckFinding::default()
        };
        let one = Finding::read(said).unwrap();
        let shown = format!("{}{}{}{:?}", one.object(), one.subject(), one.what(), one.said);
        assert!(!shown.contains(['\x1b', '\n', '\u{202e}']), "{shown}");
    }

    #[test]
    fn what_no_podsecd_says_is_refused() {
        assert!(Finding::read(finding("a", "bad", 1)).is_err());
        assert!(Summary::read(summary("all", 1)).is_err());
        assert!(Summary::read(CheckSummary { state: "fine".into(), ..summary("policy", 1) }).is_err());
        assert!(Event::read(CheckEvent { event: None }).is_err());
        assert!(read(vec![CheckEvent { event: Some(Said::Gone("a".into())) }]).is_err());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!((cut("äöü", 3), cut("äöü", 2)), ("äöü".into(), "äö…".into()));
        let one = Finding::read(CheckFinding {
            place: "ü".repeat(300),
            count: 7,
            ..finding("0123456789abcdef", "low", 1)
        });
        let one = one.unwrap();
        assert_eq!(one.what(), format!("{}…: open (7 times)", "ü".repeat(200)));
        assert_eq!(one.short_id(), "01234567");
    }
}
