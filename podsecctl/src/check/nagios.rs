//! `podsecctl check nagios`: a plugin by the Monitoring Plugins Development Guidelines.
//!
//! Whatever happens is one of four statuses with a line that says why: an end that a monitoring system does not know, or
//! text that it takes for performance data, would hide a violation.

use super::known::{self, Finding, Known, State, Summary};
use super::range::Range;
use crate::Context;
use crate::cli::{Metric, Nagios};
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{clean, duration};
use crate::time;
use std::ffi::OsString;
use std::io::Write as _;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

/// Findings below the first line.
const LINES: usize = 10;
/// Bytes of each line: all of them fit into what NRPE and Nagios take (8192 bytes).
const LONG: usize = 250;
/// Seconds: a clock that was set back a little is no reason to doubt.
const AHEAD: u64 = 60;
/// Seconds without a look, for those that look every hour.
const LOOKS: u64 = 3 * 3600;
/// The same, for those that look all the time.
const WATCHES: u64 = 10 * 60;

/// What the exit status says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Status {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }
}

/// What is printed.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: Status,
    text: String,
    /// Empty where nothing is known.
    performance: String,
    lines: Vec<String>,
}

impl Answer {
    fn unknown(text: impl Into<String>) -> Self {
        Self { status: Status::Unknown, text: text.into(), performance: String::new(), lines: Vec::new() }
    }

    /// `PODSEC POLICY OK - 0 findings | weight=0;;;0;`
    fn show(&self, name: &str) -> String {
        let name = if name.is_empty() { String::new() } else { format!(" {}", name.to_uppercase()) };
        let mut text = format!("PODSEC{name} {} - {}", self.status.name(), line(&self.text, 4 * LONG));
        if !self.performance.is_empty() {
            text += &format!(" | {}", self.performance);
        }
        text.push('\n');
        for one in &self.lines {
            text += &line(one, LONG);
            text.push('\n');
        }
        text
    }

    /// The exit status. Where nobody reads, nothing is known.
    fn print(&self, name: &str) -> u8 {
        let mut stdout = std::io::stdout().lock();
        let printed = stdout.write_all(self.show(name).as_bytes()).and_then(|()| stdout.flush());
        printed.map_or(Status::Unknown, |()| self.status).code()
    }
}

/// Of anything, without what ends a line or begins performance data.
fn line(text: &str, most: usize) -> String {
    let mut text = clean(text).replace('|', r"\x7c");
    if text.len() > most {
        text.truncate((0..=most).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default());
        text.push('…');
    }
    text
}

/// Is this the plugin's command line? Asked where it could not be read, and then its status is the plugin's, too.
pub fn is_asked(arguments: &[OsString]) -> bool {
    let mut own = arguments.iter().skip(1);
    let mut words = std::iter::from_fn(|| {
        loop {
            let word = own.next()?;
            if word == "--socket" || word == "--color" {
                own.next()?;
            } else if !word.as_encoded_bytes().starts_with(b"-") {
                return Some(word);
            }
        }
    });
    words.next().is_some_and(|word| word == "check") && words.next().is_some_and(|word| word == "nagios")
}

/// A command line that cannot be read, or help: UNKNOWN, as the guidelines say of both.
pub fn usage(error: &clap::Error) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return Status::Unknown.code();
    }
    let text = error.to_string();
    let what = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
    Answer::unknown(format!("{what}: podsecctl check nagios --help")).print("")
}

pub fn run(context: &Context, arguments: Nagios) -> u8 {
    let name = arguments.check.0.name();
    if context.output.is_json() {
        return Answer::unknown("--json is not for Nagios: podsecctl check list --json").print(name);
    }
    let (socket, seconds) = (context.socket.clone(), arguments.timeout);
    let (sender, receiver) = mpsc::channel();
    // Beside this thread, since connect(2) waits where podsecd does not accept.
    let asking = std::thread::Builder::new().spawn(move || {
        let answer = match ask(&socket, &arguments) {
            Ok(known) => judge(&known, time::now(), &arguments),
            Err(failure) => Answer::unknown(failure.to_string()),
        };
        let _ = sender.send(answer);
    });
    let answer = match asking {
        Ok(_) => receiver.recv_timeout(Duration::from_secs(seconds)).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => {
                Answer::unknown(format!("podsecd has not answered for {seconds} s: journalctl -u podsecd"))
            }
            RecvTimeoutError::Disconnected => {
                Answer::unknown("podsecctl failed; its standard error says why")
            }
        }),
        Err(error) => Answer::unknown(format!("cannot start a thread: {error}")),
    };
    answer.print(name)
}

fn ask(socket: &Path, arguments: &Nagios) -> Result<Known, Failure> {
    known::ask(&Daemon::connect(socket)?, Some(arguments.check.0))
}

fn judge(known: &Known, now: u64, arguments: &Nagios) -> Answer {
    let [summary] = known.summaries.as_slice() else {
        return Answer::unknown(Failure::Nonsense("one check's summary").to_string());
    };
    if let Some(why) = unknown(summary, now, arguments) {
        return Answer::unknown(why);
    }
    let values = Values::of(summary, &known.findings, now);
    let value = values.get(arguments.metric);
    let (warning, critical) = ranges(arguments);
    let alerts = |range: &Option<Range>| range.as_ref().is_some_and(|range| range.alerts(value));
    let mut status = match (alerts(&critical), alerts(&warning)) {
        (true, _) => Status::Critical,
        (false, true) => Status::Warning,
        (false, false) => Status::Ok,
    };
    // Nobody knows what was not looked at. Of those that follow events it is a counter that never falls again.
    if summary.state == State::Partial || (summary.said.lost > 0 && summary.check.looks()) {
        status = status.max(Status::Warning);
    }
    let mut text = vec![known::found(summary.said.findings, known.findings.iter())];
    if summary.said.findings > 0 {
        text.push(format!("weight {}", summary.said.weight));
    }
    text.extend(summary.trouble());
    text.push(summary.when(now));
    Answer {
        status,
        text: text.join(", "),
        performance: values.performance(arguments.metric, warning.as_ref(), critical.as_ref()),
        lines: lines(&known.findings),
    }
}

/// Why nothing is known, if that is so.
fn unknown(summary: &Summary, now: u64, arguments: &Nagios) -> Option<String> {
    let Summary { check, state, said } = summary;
    let name = check.name();
    let hint = if check.looks() {
        format!("podsecctl check run {name}, and let its timer run")
    } else {
        "is its service running?".to_owned()
    };
    if *check != arguments.check.0 {
        return Some("podsecd's answer is about another check".to_owned());
    }
    if *state == State::Never {
        return Some(format!("{}: {hint}", summary.when(now)));
    }
    if *state == State::Unknown {
        return Some(format!("{}, {}", summary.trouble().join(", "), summary.when(now)));
    }
    if said.time > now.saturating_add(AHEAD) {
        let when = time::show(said.time);
        return Some(format!("looked at {when}, which is still to come: is the clock right?"));
    }
    let most = arguments.max_age.unwrap_or(if check.looks() { LOOKS } else { WATCHES });
    let is_old = now.saturating_sub(said.time) > most;
    is_old.then(|| format!("{}, and not within {}: {hint}", summary.when(now), duration(most)))
}

/// As given, or those that are usual.
fn ranges(arguments: &Nagios) -> (Option<Range>, Option<Range>) {
    if arguments.warning.is_some() || arguments.critical.is_some() {
        return (arguments.warning.clone(), arguments.critical.clone());
    }
    let range = |text| Range::new(text).ok();
    match arguments.metric {
        Metric::Weight => (range("0"), range("100")),
        Metric::Findings => (range("0"), None),
        Metric::Critical => (None, range("0")),
        Metric::Age => (None, None),
    }
}

/// Of performance data.
struct Values {
    weight: u64,
    findings: u64,
    critical: u64,
    age: u64,
    lost: u64,
}

impl Values {
    fn of(summary: &Summary, findings: &[Finding], now: u64) -> Self {
        Self {
            weight: summary.said.weight,
            findings: summary.said.findings,
            critical: findings.iter().filter(|one| one.is_critical()).count() as u64,
            age: now.saturating_sub(summary.said.time),
            lost: summary.said.lost,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "a sum above 2^53 is above any range in use")]
    fn get(&self, metric: Metric) -> f64 {
        (match metric {
            Metric::Weight => self.weight,
            Metric::Findings => self.findings,
            Metric::Critical => self.critical,
            Metric::Age => self.age,
        }) as f64
    }

    /// `'label'=value[UOM];[warn];[crit];[min];[max]`. Labels without blanks, quotes and equals signs need no quotes.
    fn performance(&self, metric: Metric, warning: Option<&Range>, critical: Option<&Range>) -> String {
        let one = |label, of: Option<Metric>, value: u64, unit| {
            let range = |range: Option<&Range>| match range {
                Some(range) if of == Some(metric) => range.as_str().to_owned(),
                _ => String::new(),
            };
            format!("{label}={value}{unit};{};{};0;", range(warning), range(critical))
        };
        [
            one("weight", Some(Metric::Weight), self.weight, ""),
            one("findings", Some(Metric::Findings), self.findings, ""),
            one("critical", Some(Metric::Critical), self.critical, ""),
            one("age", Some(Metric::Age), self.age, "s"),
            one("lost", None, self.lost, "c"),
        ]
        .join(" ")
    }
}

fn lines(findings: &[Finding]) -> Vec<String> {
    let one = |one: &Finding| {
        let said = &one.said;
        format!(
            "{} {}: {}: {} ({})",
            one.severity.name(),
            said.code,
            one.subject(),
            one.what(),
            one.short_id()
        )
    };
    let mut lines: Vec<_> = findings.iter().take(LINES).map(one).collect();
    if findings.len() > LINES {
        lines.push(format!("and {} more: podsecctl check list", findings.len() - LINES));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::super::known::tests::{finding, known, summary};
    use super::*;
    use crate::cli::{Check, Cli, Command};
    use clap::Parser as _;
    use podsec_proto::v1::{CheckFinding, CheckSummary, MissedOwner};

    const NOW: u64 = 10_000;

    fn arguments(line: &str) -> Nagios {
        let words = ["podsecctl", "check", "nagios"].into_iter().chain(line.split_whitespace());
        let Command::Check(command) = Cli::try_parse_from(words).unwrap().command else { panic!("{line}") };
        let Check::Nagios(arguments) = *command else { panic!("{line}") };
        arguments
    }

    fn judged(said: CheckSummary, findings: Vec<CheckFinding>, line: &str) -> Answer {
        let said = CheckSummary {
            findings: findings.len() as u64,
            weight: findings.iter().map(|one| u64::from(one.weight)).sum(),
            ..said
        };
        judge(&known(vec![said], findings), NOW, &arguments(line))
    }

    fn status(said: CheckSummary, findings: Vec<CheckFinding>, line: &str) -> Status {
        judged(said, findings, line).status
    }

    fn two() -> Vec<CheckFinding> {
        vec![finding("0123456789abcdef", "critical", 101), finding("1123456789abcdef", "high", 4)]
    }

    #[test]
    fn what_is_printed() {
        let answer = judged(summary("policy", NOW - 300), vec![], "policy -w 100 -c 200");
        assert_eq!(
            answer.show("policy"),
            "PODSEC POLICY OK - 0 findings, looked 5 min ago | weight=0;100;200;0; findings=0;;;0; critical=0;;;0; \
             age=300s;;;0; lost=0c;;;0;\n"
        );
        let answer = judged(summary("policy", NOW), two(), "policy --metric findings -c @1:2.5");
        assert_eq!(
            answer.show("policy"),
            "PODSEC POLICY CRITICAL - 2 findings (1 critical), weight 105, looked 0 s ago | weight=105;;;0; \
             findings=2;;@1:2.5;0; critical=1;;;0; age=0s;;;0; lost=0c;;;0;\n\
             critical policy-open: user amy: /home/amy: open (01234567)\n\
             high policy-open: user amy: /home/amy: open (11234567)\n"
        );
    }

    #[test]
    fn ranges_decide() {
        let good = || summary("policy", NOW);
        for (line, expected) in [
            ("policy -w 104", Status::Warning),
            ("policy -w 105", Status::Ok),
            ("policy -w 1 -c 105", Status::Warning),
            ("policy -w 1 -c 104.9", Status::Critical),
            ("policy -c @105", Status::Critical),
            ("policy -w 106:", Status::Warning),
            ("policy -c ~:105", Status::Ok),
            ("policy --metric findings -w 1 -c 2", Status::Warning),
            ("policy --metric critical -c 1", Status::Ok),
            ("policy --metric critical -c 0", Status::Critical),
            ("policy --metric age -w 0 -c 0", Status::Ok),
            // without ranges
            ("policy", Status::Critical),
            ("policy --metric findings", Status::Warning),
            ("policy --metric critical", Status::Critical),
            ("policy --metric age", Status::Ok),
        ] {
            assert_eq!(status(good(), two(), line), expected, "{line}");
        }
        assert_eq!(status(good(), vec![], "policy"), Status::Ok);
        assert_eq!(status(good(), vec![finding("a", "low", 1)], "policy"), Status::Warning);
        assert_eq!(status(summary("policy", NOW - 11), vec![], "policy --metric age -w 10"), Status::Warning);
    }

    #[test]
    fn what_is_not_known_is_never_ok() {
        let ago = |check, seconds| summary(check, NOW.saturating_sub(seconds));
        let with =
            |state: &str| CheckSummary { state: state.into(), why: "no database".into(), ..ago("images", 0) };
        for (said, line, text) in [
            (with("never"), "images", "never looked: podsecctl check run images"),
            (with("unknown"), "images -w 1 -c 1", "unknown: no database"),
            (ago("images", 9000), "images --max-age 2h", "not within 2 h 0 min"),
            (
                ago("kubeapi", 601),
                "kubeapi",
                "watched 10 min ago, and not within 10 min: is its service running?",
            ),
            (summary("images", NOW + 61), "images", "is the clock right?"),
            (ago("policy", 0), "images", "about another check"),
        ] {
            let answer = judged(said, vec![], line);
            assert_eq!((answer.status, answer.performance.as_str()), (Status::Unknown, ""), "{answer:?}");
            assert!(answer.text.contains(text), "{answer:?}");
        }
        assert_eq!(status(ago("kubeapi", 600), vec![], "kubeapi"), Status::Ok);
        assert_eq!(status(ago("images", 9000), vec![], "images"), Status::Ok);
        assert_eq!(status(summary("images", NOW + 60), vec![], "images"), Status::Ok);
        assert_eq!(judge(&Known::default(), NOW, &arguments("policy")).status, Status::Unknown);
    }

    #[test]
    fn what_was_not_looked_at_is_a_warning_at_least() {
        let missed = vec![MissedOwner { owner: "bob".into(), why: "hangs".into() }];
        let partial = CheckSummary { state: "partial".into(), missed, ..summary("policy", NOW) };
        let answer = judged(partial.clone(), vec![], "policy -w 100 -c 200");
        assert_eq!(answer.status, Status::Warning);
        assert!(answer.text.contains("not looked at: bob (hangs)"), "{answer:?}");
        assert_eq!(status(partial, two(), "policy -c 100"), Status::Critical);
        let lost = |check| CheckSummary { lost: 1, ..summary(check, NOW) };
        assert_eq!(status(lost("policy"), vec![], "policy -w 100"), Status::Warning);
        let answer = judged(lost("containers"), vec![], "containers -w 100");
        assert_eq!(answer.status, Status::Ok);
        assert!(answer.text.contains("1 lost") && answer.performance.contains("lost=1c"), "{answer:?}");
    }

    #[test]
    fn no_text_breaks_the_output() {
        let hostile = "x|y=1;\n|\x1b[2J '$(id)' \u{202e}";
        let bad = CheckFinding {
            subject: hostile.into(),
            place: hostile.repeat(100),
            detail: hostile.into(),
            code: hostile.into(),
            ..finding("ab|cd", "critical", 101)
        };
        let missed = vec![MissedOwner { owner: hostile.into(), why: hostile.repeat(100) }];
        let partial = CheckSummary { state: "partial".into(), missed, ..summary("policy", NOW) };
        let shown = judged(partial, vec![bad; 20], "policy").show("policy");
        assert_eq!(shown.matches('|').count(), 1, "{shown}");
        assert_eq!(shown.lines().count(), 1 + LINES + 1, "{shown}");
        assert!(shown.len() < 8192 && shown.ends_with("and 10 more: podsecctl check list\n"), "{shown}");
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()), "{shown:?}");
        for text in ["\u{1f600}".repeat(4000), "|".repeat(4000)] {
            let wide = CheckFinding { subject: text.clone(), place: text, ..finding("a", "critical", 1) };
            let shown = judged(summary("policy", NOW), vec![wide; 20], "policy").show("policy");
            assert!(shown.len() < 8192 && shown.lines().count() == 1 + LINES + 1, "{shown}");
        }
        // What does not come from podsecd has no other guard: a wrong argument of the plugin's own.
        assert_eq!(line("a\x1b\n|", 99), r"a\x1b\x0a\x7c");
        let unknown = CheckSummary { state: "unknown".into(), why: hostile.into(), ..summary("policy", NOW) };
        let shown = judged(unknown, vec![], "policy").show("policy");
        assert!(shown.lines().count() == 1 && !shown.contains('|'), "{shown}");
    }

    #[test]
    fn labels_need_no_quotes() {
        let answer = judged(summary("policy", NOW), vec![], "policy -w 1");
        for one in answer.performance.split(' ') {
            let (label, values) = one.split_once('=').unwrap();
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase()), "{label}");
            assert_eq!(values.matches(';').count(), 4, "{values}");
        }
    }

    #[test]
    fn its_own_command_line_is_known() {
        let is = |line: &str| is_asked(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        for line in [
            "podsecctl check nagios",
            "podsecctl check nagios policy -w x",
            "podsecctl --json check nagios",
            "podsecctl --socket /x check --color never nagios",
            "podsecctl --socket=/x check nagios --bad",
        ] {
            assert!(is(line), "{line}");
        }
        for line in [
            "podsecctl",
            "podsecctl check",
            "podsecctl check list nagios",
            "podsecctl enter -- check nagios",
            "podsecctl --socket check nagios",
        ] {
            assert!(!is(line), "{line}");
        }
    }
}
