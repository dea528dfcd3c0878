//! For Prometheus: `podsec.prom` in the directory of node_exporter's textfile collector, in the text format
//! (prometheus.io/docs/instrumenting/exposition_formats). Labels come from closed lists; nothing of what was found is in it.

use super::news::Now;
use podsec_policy::finding::{Check, Outcome, Report, Severity};
use podsec_sys::file;
use std::fmt::Write as _;
use std::path::Path;

/// How a check is.
const STATES: [&str; 4] = ["complete", "partial", "unknown", "never"];

/// The whole file, at once: the collector never sees a half.
///
/// # Errors
/// names the file
pub fn write(directory: &Path, now: &Now) -> Result<(), String> {
    let path = directory.join("podsec.prom");
    file::replace(&path, render(now).as_bytes(), 0o644).map_err(|error| {
        format!(
            "{}: {error}; the directory has to be there, and {} to write it",
            path.display(),
            crate::report::USER
        )
    })
}

fn render(now: &Now) -> String {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, lines: &dyn Fn(&mut String, Check, &Report)| {
        // Writing to a String cannot fail.
        _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        // Of what cannot be read nothing is said but its state.
        for (check, report) in &now.reports {
            lines(&mut text, *check, report);
        }
    };
    metric("podsec_findings", "gauge", "Findings that there are.", &|text, check, report| {
        for severity in Severity::ALL {
            let count = report.findings.values().filter(|found| found.finding.severity == severity).count();
            let (check, severity) = (check.name(), severity.name());
            _ = writeln!(text, r#"podsec_findings{{check="{check}",severity="{severity}"}} {count}"#);
        }
    });
    let one = |name: &'static str, value: fn(&Report) -> String| {
        move |text: &mut String, check: Check, report: &Report| {
            _ = writeln!(text, r#"{name}{{check="{}"}} {}"#, check.name(), value(report));
        }
    };
    let weight = one("podsec_check_weight", |report| report.summary().weight.to_string());
    metric("podsec_check_weight", "gauge", "Sum of the weights of a check's findings.", &weight);
    let name = "podsec_check_last_run_timestamp_seconds";
    metric(name, "gauge", "When a check looked last.", &one(name, |report| report.time.to_string()));
    let name = "podsec_check_duration_seconds";
    let took = |report: &Report| format!("{}.{:03}", report.took / 1000, report.took % 1000);
    metric(name, "gauge", "How long that took.", &one(name, took));
    let name = "podsec_lost_total";
    metric(
        name,
        "counter",
        "Findings and events that were lost.",
        &one(name, |report| report.lost.to_string()),
    );
    let name = "podsec_check_state";
    metric(name, "gauge", "1 for the state that a check is in.", &|_, _, _| ());
    for check in Check::ALL {
        let state = match now.reports.get(&check).map(|report| &report.outcome) {
            Some(Outcome::Complete) => "complete",
            Some(Outcome::Partial { .. }) => "partial",
            Some(Outcome::Never) => "never",
            Some(Outcome::Unknown { .. }) | None => "unknown",
        };
        for one in STATES {
            let (check, is) = (check.name(), u8::from(one == state));
            _ = writeln!(text, r#"{name}{{check="{check}",state="{one}"}} {is}"#);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::finding::{Finding, Subject, Text, kinds};
    use std::collections::BTreeMap;

    #[test]
    fn numbers_are_there_and_names_are_not() {
        let kind = kinds().find(|kind| kind.check == Check::Policy).unwrap();
        let hostile = "x\"} 1\n# TYPE y";
        let mut report = Report::new(Check::Policy);
        let finding = Finding::new(kind, Subject::User(Text::of(hostile)), hostile, hostile).of(hostile);
        report.replace(77, Outcome::Complete, [finding]);
        (report.took, report.lost) = (1234, 5);
        let unreadable = BTreeMap::from([(Check::Images, hostile.to_owned())]);
        let text = render(&Now { time: 80, reports: BTreeMap::from([(Check::Policy, report)]), unreadable });
        let severity = kind.severity.name();
        for line in [
            &format!(r#"podsec_findings{{check="policy",severity="{severity}"}} 1"#),
            &format!(r#"podsec_check_weight{{check="policy"}} {}"#, kind.weight),
            r#"podsec_check_last_run_timestamp_seconds{check="policy"} 77"#,
            r#"podsec_check_duration_seconds{check="policy"} 1.234"#,
            r#"podsec_lost_total{check="policy"} 5"#,
            r#"podsec_check_state{check="policy",state="complete"} 1"#,
            r#"podsec_check_state{check="images",state="unknown"} 1"#,
            r#"podsec_check_state{check="images",state="complete"} 0"#,
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        assert!(!text.contains("TYPE y") && !text.contains(r#"podsec_findings{check="images""#), "{text}");
    }
}
