//! `podsecctl check watch`: what was found, and then what changes, until somebody stops it.

use super::known::{Event, Finding, State, Summary, cut};
use crate::Context;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{Output, Style};
use crate::time;
use podsec_policy::finding::Check;
use podsec_proto::v1::WatchFindingsRequest;
use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, Write as _};

pub fn run(context: &Context, check: Option<Check>) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let check = check.map(|check| check.name().to_owned()).unwrap_or_default();
    let mut events = daemon.ask(daemon.checks().watch(WatchFindingsRequest { check }))?;
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    let mut show = |line: &str| writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    if !context.output.is_json() {
        show(&heading(&context.output)).map_err(Failure::Output)?;
    }
    let mut seen = Seen::default();
    while let Some(event) = daemon.wait(events.message())? {
        let event = Event::read(event)?;
        let line = if context.output.is_json() {
            Some(event.object().to_string())
        } else {
            seen.line(&context.output, event, time::now())
        };
        if let Some(line) = line {
            show(&line).map_err(Failure::Output)?;
        }
    }
    Ok(0)
}

fn heading(output: &Output) -> String {
    output.paint(Style::Bold, &format!("{:20}  {:8}  {:8}  {:26}  WHAT", "TIME", "SEVERITY", "ID", "CODE"))
}

/// What was shown, as far as later events depend on it.
#[derive(Default)]
struct Seen {
    findings: HashMap<String, Finding>,
    checks: BTreeMap<Check, (State, String, u64)>,
}

impl Seen {
    /// Columns have fixed widths, since findings come one by one. Nothing for a check that looked once more, and is as before.
    fn line(&mut self, output: &Output, event: Event, now: u64) -> Option<String> {
        match event {
            Event::Summary(summary) => self.summary(output, &summary, now),
            Event::Finding(finding) => {
                let severity = finding.painted(output, 8);
                let line = row(&finding, finding.said.last, &severity);
                self.findings.insert(finding.said.id.clone(), finding);
                Some(line)
            }
            Event::Gone(id) => {
                let gone = output.paint(Style::Good, &format!("{:8}", "gone"));
                let finding = self.findings.remove(&id)?;
                Some(row(&finding, now, &gone))
            }
        }
    }

    fn summary(&mut self, output: &Output, summary: &Summary, now: u64) -> Option<String> {
        let state = (summary.state, summary.said.why.clone(), summary.said.lost);
        let before = self.checks.insert(summary.check, state.clone());
        if before.is_some_and(|before| before == state) {
            return None;
        }
        let mut text = summary.trouble();
        text.push(summary.when(now));
        let name = format!("{:46}", summary.check.name());
        Some(format!("{}  {name}  {}", time::show(now), output.paint(Style::Dim, &text.join("; "))))
    }
}

fn row(finding: &Finding, seconds: u64, word: &str) -> String {
    let (id, said) = (finding.short_id(), &finding.said);
    let subject = cut(&finding.subject(), 60);
    format!("{}  {word}  {id:8}  {:26}  {subject}: {}", time::show(seconds), said.code, finding.what())
}

#[cfg(test)]
mod tests {
    use super::super::known::tests::{finding, known, summary};
    use super::*;
    use podsec_proto::v1::CheckSummary;

    #[test]
    fn news_are_lines() {
        let output = Output::plain();
        let mut seen = Seen::default();
        let mut line = |event| seen.line(&output, event, 3000);
        let of = |said: CheckSummary| Event::Summary(known(vec![said], vec![]).summaries.remove(0));
        let found = |id| Event::Finding(known(vec![], vec![finding(id, "high", 1)]).findings.remove(0));
        let first = line(found("0123456789abcdef")).unwrap();
        assert_eq!(
            first,
            "1970-01-01T00:33:20Z  high      01234567  policy-open                 user amy: /home/amy: open"
        );
        assert_eq!(heading(&output).find("WHAT"), first.find("user"));
        let well = line(of(summary("policy", 2990))).unwrap();
        assert!(well.ends_with("  looked 10 s ago") && well.find("looked") == first.find("user"), "{well}");
        // once more, and nothing is different
        assert_eq!(line(of(summary("policy", 2999))), None);
        let why = "no database".to_owned();
        let unknown = CheckSummary { state: "unknown".into(), why, ..summary("policy", 3000) };
        assert!(line(of(unknown)).unwrap().ends_with("  unknown: no database; looked 0 s ago"));
        let gone = line(Event::Gone("0123456789abcdef".into())).unwrap();
        assert_eq!(
            gone,
            "1970-01-01T00:50:00Z  gone      01234567  policy-open                 user amy: /home/amy: open"
        );
        assert_eq!(line(Event::Gone("0123456789abcdef".into())), None);
    }
}
