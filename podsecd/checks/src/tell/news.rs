//! What is to be told: a finding that is new or gone, or how a check itself fares.

use crate::report;
use podsec_policy::finding::{Check, Finding, Found, Outcome, Report, Severity, Text};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All reports, at one moment.
#[derive(Debug)]
pub struct Now {
    /// Seconds since 1970.
    pub time: u64,
    /// Those that could be read, and of checks that ever ran.
    pub reports: BTreeMap<Check, Report>,
    /// The others: why not.
    pub unreadable: BTreeMap<Check, String>,
}

impl Now {
    /// Reads them.
    #[must_use]
    pub fn look() -> Self {
        let (mut reports, mut unreadable) = (BTreeMap::new(), BTreeMap::new());
        for check in Check::ALL {
            match report::load(check) {
                Ok(report) => _ = reports.insert(check, report),
                Err(error) => _ = unreadable.insert(check, error),
            }
        }
        Self { time: report::now(), reports, unreadable }
    }
}

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Seconds since 1970, when it was noticed.
    pub time: u64,
    /// What.
    pub event: Event,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Was not there before, or was less bad.
    New(Box<Found>),
    /// Is there no more.
    Gone(Box<Finding>),
    /// A check does not see all that it should.
    Blind(Check, Text),
    /// It does again.
    Sees(Check),
}

impl Event {
    /// Of which check.
    #[must_use]
    pub fn check(&self) -> Check {
        match self {
            Self::New(found) => found.finding.kind.check,
            Self::Gone(finding) => finding.kind.check,
            Self::Blind(check, _) | Self::Sees(check) => *check,
        }
    }

    /// A word for it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::New(_) => "new",
            Self::Gone(_) => "gone",
            Self::Blind(..) => "blind",
            Self::Sees(_) => "sees",
        }
    }

    /// The finding, where it is about one.
    #[must_use]
    pub fn finding(&self) -> Option<&Finding> {
        match self {
            Self::New(found) => Some(&found.finding),
            Self::Gone(finding) => Some(finding),
            Self::Blind(..) | Self::Sees(_) => None,
        }
    }

    /// A check that is blind may miss anything.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.finding().map_or(Severity::Warning, |finding| finding.severity)
    }

    /// Of syslog(3); good news is informational.
    #[must_use]
    pub fn priority(&self) -> u8 {
        match self {
            Self::New(_) | Self::Blind(..) => self.severity().priority(),
            Self::Gone(_) | Self::Sees(_) => 6,
        }
    }

    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        match self {
            Self::New(found) => {
                let severity = found.finding.severity.name();
                format!("{severity}: {}", sentence(&found.finding))
            }
            Self::Gone(finding) => format!("gone: {}", sentence(finding)),
            Self::Blind(check, why) => format!("the check {} does not see all: {why}", check.name()),
            Self::Sees(check) => format!("the check {} sees all again", check.name()),
        }
    }
}

/// What, about whom, and where. The id first of what others chose: syslogd may cut a line.
fn sentence(finding: &Finding) -> String {
    let mut text = format!("{} [{} {}]", finding.kind.title, finding.kind.code, finding.id());
    text += &about(finding);
    text
}

/// `: container web of amy, /usr/bin/x: written`
#[must_use]
pub fn about(finding: &Finding) -> String {
    let mut text = format!(": {}", finding.subject);
    if !finding.owner.as_str().is_empty() && finding.owner.as_str() != finding.subject.name() {
        text += &format!(" of {}", finding.owner);
    }
    for (before, part) in [(", ", &finding.place), (": ", &finding.detail)] {
        if !part.as_str().is_empty() {
            text += before;
            text += part.as_str();
        }
    }
    text
}

/// Why a check does not see all; nothing where it does.
#[must_use]
pub fn blindness(outcome: &Outcome) -> Option<Text> {
    match outcome {
        Outcome::Never | Outcome::Complete => None,
        Outcome::Partial { missed } => {
            let names: Vec<_> = missed.iter().map(|(name, why)| format!("{name} ({why})")).collect();
            // Escaped already, each of them: only the length is new.
            Some(shorten(&format!("not looked at: {}", names.join(", "))))
        }
        Outcome::Unknown { why } => Some(why.clone()),
    }
}

/// A text out of texts, without escaping anything twice.
fn shorten(text: &str) -> Text {
    const MOST: usize = 1000;
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= MOST).last().unwrap_or(0);
    let cut =
        if text.len() <= MOST { text.to_owned() } else { format!("{}…", text.get(..end).unwrap_or("")) };
    Text::try_from(cut).unwrap_or_default()
}
