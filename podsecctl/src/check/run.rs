//! `podsecctl check run`: has the monitors look now, one after the other, and shows what is new and what is gone.

use super::known::{self, Finding, State, Summary};
use crate::Context;
use crate::cli::Looking;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::image::progress::Progress;
use crate::output::{Output, Style, duration};
use crate::time;
use podsec_policy::finding::Check;
use podsec_proto::v1::{RunCheckRequest, RunCheckResponse};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// How often it is said that one still looks.
const TICK: Duration = Duration::from_secs(1);

pub fn run(context: &Context, checks: &[Looking]) -> Result<u8, Failure> {
    let all = Check::ALL.into_iter().filter(|check| check.looks()).collect();
    let checks: Vec<Check> = if checks.is_empty() { all } else { checks.iter().map(|one| one.0).collect() };
    let (mut is_well, mut failed) = (true, None);
    for check in checks {
        match look(context, check) {
            Ok(ran) => {
                is_well &= ran.is_well();
                let output = &context.output;
                if output.is_json() {
                    output.object(&ran.object())?;
                } else {
                    output.bytes(ran.text(output, time::now()).as_bytes())?;
                }
            }
            // podsecd's word about this one; the others are looked at. Its word about the caller would be the same for them.
            Err(failure @ Failure::Answer { .. }) => {
                crate::complain(&failure, &format!("podsecctl: {}", check.name()), context.output.is_json());
                failed = failed.or(Some(failure.exit_status()));
            }
            Err(failure) => return Err(failure),
        }
    }
    Ok(failed.unwrap_or(u8::from(!is_well)))
}

/// What came of it.
struct Ran {
    summary: Summary,
    /// All that was found.
    findings: Vec<Finding>,
    new: Vec<Finding>,
    gone: Vec<Finding>,
}

fn look(context: &Context, check: Check) -> Result<Ran, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let before = known::ask(&daemon, Some(check))?.findings;
    let answer = ran(&daemon, &context.output, check)?;
    // A new connection: looking may have taken long.
    let findings = known::ask(&Daemon::connect(&context.socket)?, Some(check))?.findings;
    let summary = answer.summary.ok_or(Failure::Nonsense("a run without a summary"))?;
    Ok(Ran {
        summary: Summary::read(summary)?,
        new: without(&findings, &before),
        gone: without(&before, &findings),
        findings,
    })
}

fn without(these: &[Finding], those: &[Finding]) -> Vec<Finding> {
    let ids: std::collections::HashSet<_> = those.iter().map(|one| &one.said.id).collect();
    these.iter().filter(|one| !ids.contains(&one.said.id)).cloned().collect()
}

/// Waits as long as podsecd gives it, an hour, and says so meanwhile.
fn ran(daemon: &Daemon, output: &Output, check: Check) -> Result<RunCheckResponse, Failure> {
    let mut progress = Progress::new(output);
    let since = Instant::now();
    let mut service = daemon.checks();
    daemon.wait(async {
        let call = service.run(RunCheckRequest { check: check.name().into() });
        tokio::pin!(call);
        loop {
            match tokio::time::timeout(TICK, &mut call).await {
                Ok(answer) => return answer.map(tonic::Response::into_inner),
                Err(_) => said(&mut progress, check, since.elapsed()),
            }
        }
    })
}

fn said(progress: &mut Progress, check: Check, elapsed: Duration) {
    let name = check.name();
    if elapsed < 2 * TICK {
        progress.begin(&format!("{name}: looking …"));
    } else {
        progress.draw(&format!("{name}: looking for {}", duration(elapsed.as_secs())), 0, None);
    }
}

impl Ran {
    /// All was looked at, and nothing found.
    fn is_well(&self) -> bool {
        self.summary.state == State::Complete
            && self.summary.said.findings == 0
            && self.summary.said.lost == 0
    }

    fn object(&self) -> Value {
        let objects = |findings: &[Finding]| findings.iter().map(Finding::object).collect::<Value>();
        json!({ "summary": self.summary.object(), "new": objects(&self.new), "gone": objects(&self.gone) })
    }

    fn text(&self, output: &Output, now: u64) -> String {
        let name = output.paint(Style::Bold, self.summary.check.name());
        let mut text = format!("{name}: {}\n", self.summary.sentence(output, &self.findings, now));
        for (mark, style, findings) in [("new ", Style::Bad, &self.new), ("gone", Style::Good, &self.gone)] {
            for one in findings {
                text += &format!(
                    "  {}  {}  {}  {}: {}: {}\n",
                    output.paint(style, mark),
                    one.painted(output, 8),
                    one.short_id(),
                    one.said.code,
                    known::cut(&one.subject(), 60),
                    one.what()
                );
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::super::known::tests::{finding, known, summary};
    use super::*;
    use podsec_proto::v1::CheckSummary;

    fn ran(said: CheckSummary) -> Ran {
        let before = known(vec![], vec![finding("aa", "low", 1), finding("bb", "high", 1)]).findings;
        let known = known(vec![said], vec![finding("bb", "high", 1), finding("cc", "critical", 101)]);
        Ran {
            summary: known.summaries[0].clone(),
            new: without(&known.findings, &before),
            gone: without(&before, &known.findings),
            findings: known.findings,
        }
    }

    #[test]
    fn for_people_and_programs() {
        let ran = ran(CheckSummary { findings: 2, weight: 102, ..summary("policy", 1000) });
        let expected = "\
policy: 2 findings (1 critical), weight 102; looked 0 s ago
  new   critical  cc  policy-open: user amy: /home/amy: open
  gone  low       aa  policy-open: user amy: /home/amy: open
";
        assert_eq!(ran.text(&Output::plain(), 1000), expected);
        let object = ran.object();
        assert_eq!((&object["new"][0]["id"], &object["gone"][0]["id"]), (&"cc".into(), &"aa".into()));
        assert_eq!((&object["summary"]["check"], &object["new"][1]), (&"policy".into(), &Value::Null));
    }

    #[test]
    fn only_what_was_looked_at_whole_is_well() {
        let good = summary("policy", 1000);
        assert!(ran(good.clone()).is_well());
        for bad in [
            CheckSummary { findings: 1, ..good.clone() },
            CheckSummary { lost: 1, ..good.clone() },
            CheckSummary { state: "partial".into(), ..good.clone() },
            CheckSummary { state: "unknown".into(), ..good.clone() },
            CheckSummary { state: "never".into(), ..good.clone() },
        ] {
            assert!(!ran(bad.clone()).is_well(), "{bad:?}");
        }
    }
}
