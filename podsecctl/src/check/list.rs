//! `podsecctl check list` and `show`.

use super::known::{self, Event, Finding, Known};
use crate::Context;
use crate::cli::ListFindings;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{Output, Style, duration};
use crate::time;
use podsec_policy::finding::{Kind, kind};

pub fn list(context: &Context, arguments: &ListFindings) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let known = known::ask(&daemon, arguments.check.map(|name| name.0))?;
    let shown: Vec<&Finding> = known.findings.iter().filter(|one| is_wanted(one, arguments)).collect();
    let output = &context.output;
    if output.is_json() {
        let findings = shown.into_iter().cloned().map(Event::Finding);
        let summaries = known.summaries.iter().cloned().map(Event::Summary);
        let lines: String = findings.chain(summaries).map(|event| format!("{}\n", event.object())).collect();
        return output.bytes(lines.as_bytes());
    }
    let now = time::now();
    let mut text = table(output, &shown, now);
    let hidden = known.findings.len() - shown.len();
    if hidden > 0 {
        text += &output.paint(Style::Dim, &format!("{hidden} more are left out by the options\n"));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    output.bytes((text + &summaries(output, &known, now)).as_bytes())
}

fn is_wanted(one: &Finding, arguments: &ListFindings) -> bool {
    arguments.severity.is_none_or(|least| one.severity >= least.0)
        && arguments.owner.as_ref().is_none_or(|owner| one.said.owner == *owner)
        && arguments.code.as_ref().is_none_or(|code| one.said.code == *code)
}

fn table(output: &Output, findings: &[&Finding], now: u64) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let row = |one: &&Finding| {
        let said = &one.said;
        vec![
            one.painted(output, 0),
            one.short_id(),
            said.code.clone(),
            known::cut(&one.subject(), 60),
            known::cut(&said.owner, 40),
            duration(now.saturating_sub(said.first)),
            one.what(),
        ]
    };
    let rows: Vec<_> = findings.iter().map(row).collect();
    output.table(&["SEVERITY", "ID", "CODE", "ABOUT", "OWNER", "FOR", "WHAT"], &rows)
}

fn summaries(output: &Output, known: &Known, now: u64) -> String {
    let sentences = known.summaries.iter().map(|one| {
        let sentence = one.sentence(output, &known.findings, now);
        (one.check.name(), sentence)
    });
    output.facts(&sentences.collect::<Vec<_>>())
}

pub fn show(context: &Context, id: &str) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let known = known::ask(&daemon, None)?;
    let one = only(&known.findings, id)?;
    // Not one of ours: podsecd is newer.
    let kind = kind(&one.said.code);
    let output = &context.output;
    if output.is_json() {
        let mut object = one.object();
        if let (Some(object), Some(kind)) = (object.as_object_mut(), kind) {
            let texts = [("title", kind.title), ("explanation", kind.explanation), ("remedy", kind.remedy)];
            object.extend(texts.map(|(name, text)| (name.to_owned(), text.into())));
        }
        return output.object(&object);
    }
    output.bytes(text(output, one, kind, time::now()).as_bytes())
}

fn only<'a>(findings: &'a [Finding], id: &str) -> Result<&'a Finding, Failure> {
    let mut fitting = findings.iter().filter(|one| one.said.id.starts_with(id));
    match (fitting.next(), fitting.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => {
            Err(Failure::Usage(format!("no finding's id begins with {id}: podsecctl check list has them")))
        }
        (Some(one), Some(other)) => Err(Failure::Usage(format!(
            "{id} begins {} and {}, and perhaps more: give more digits",
            one.said.id, other.said.id
        ))),
    }
}

fn text(output: &Output, one: &Finding, kind: Option<&Kind>, now: u64) -> String {
    let said = &one.said;
    let when = |seconds| format!("{}, {} ago", time::show(seconds), duration(now.saturating_sub(seconds)));
    let explained = |text: fn(&Kind) -> &'static str| kind.map(text).unwrap_or_default().to_owned();
    output.facts(&[
        ("id", said.id.clone()),
        ("code", said.code.clone()),
        ("what", explained(|kind| kind.title)),
        ("check", said.check.clone()),
        ("severity", format!("{} (weight {})", one.painted(output, 0), said.weight)),
        ("about", one.subject()),
        ("owner", said.owner.clone()),
        ("place", said.place.clone()),
        ("detail", said.detail.clone()),
        ("first seen", when(said.first)),
        ("last seen", when(said.last)),
        ("seen", if said.count > 1 { format!("{} times", said.count) } else { String::new() }),
        ("meaning", explained(|kind| kind.explanation)),
        ("remedy", explained(|kind| kind.remedy)),
    ])
}

#[cfg(test)]
mod tests {
    use super::super::known::tests::{finding, known, summary};
    use super::*;
    use crate::cli::SeverityName;
    use podsec_policy::finding::{Severity, kinds};
    use podsec_proto::v1::CheckFinding;

    fn some() -> Known {
        let summaries = vec![
            podsec_proto::v1::CheckSummary { findings: 2, weight: 102, ..summary("policy", 4000) },
            podsec_proto::v1::CheckSummary { state: "never".into(), ..summary("containers", 0) },
        ];
        let other = CheckFinding {
            subject_type: "host".into(),
            subject: String::new(),
            owner: String::new(),
            code: "host-open".into(),
            count: 7,
            ..finding("fedcba9876543210", "low", 1)
        };
        known(summaries, vec![other, finding("0123456789abcdef", "critical", 101)])
    }

    #[test]
    fn for_people() {
        let known = some();
        let (output, shown) = (Output::plain(), known.findings.iter().collect::<Vec<_>>());
        let expected = "\
SEVERITY  ID        CODE         ABOUT     OWNER  FOR     WHAT
critical  01234567  policy-open  user amy  amy    50 min  /home/amy: open
low       fedcba98  host-open    host             50 min  /home/amy: open (7 times)
";
        assert_eq!(table(&output, &shown, 4000), expected);
        let expected = "\
policy      2 findings (1 critical), weight 102; looked 0 s ago
containers  never watched
";
        assert_eq!(summaries(&output, &known, 4000), expected);
        assert_eq!(table(&output, &[], 4000), "");
    }

    #[test]
    fn one_with_all_about_it() {
        let kind = kinds().next().unwrap();
        let known = known(vec![], vec![finding("0123456789abcdef", "critical", 101)]);
        let expected = format!(
            "\
id          0123456789abcdef
code        policy-open
what        {}
check       policy
severity    critical (weight 101)
about       user amy
owner       amy
place       /home/amy
detail      open
first seen  1970-01-01T00:16:40Z, 50 min ago
last seen   1970-01-01T00:33:20Z, 33 min ago
meaning     {}
remedy      {}
",
            kind.title, kind.explanation, kind.remedy
        );
        assert_eq!(text(&Output::plain(), &known.findings[0], Some(kind), 4000), expected);
        assert!(!text(&Output::plain(), &known.findings[0], None, 4000).contains("remedy"));
    }

    #[test]
    fn options_choose() {
        let known = some();
        let chosen = |arguments: ListFindings| {
            let shown = known.findings.iter().filter(|one| is_wanted(one, &arguments));
            shown.map(|one| one.short_id()).collect::<Vec<_>>()
        };
        assert_eq!(chosen(ListFindings::default()).len(), 2);
        let severity = Some(SeverityName(Severity::Critical));
        assert_eq!(chosen(ListFindings { severity, ..ListFindings::default() }), ["01234567"]);
        let severity = Some(SeverityName(Severity::Fatal));
        assert!(chosen(ListFindings { severity, ..ListFindings::default() }).is_empty());
        let owner = Some("amy".into());
        assert_eq!(chosen(ListFindings { owner, ..ListFindings::default() }), ["01234567"]);
        let code = Some("host-open".into());
        assert_eq!(chosen(ListFindings { code, ..ListFindings::default() }), ["fedcba98"]);
    }

    #[test]
    fn a_prefix_has_to_be_one_findings_alone() {
        let found =
            known(vec![], vec![finding("0123456789abcdef", "low", 1), finding("0123ffffffffffff", "low", 1)]);
        assert_eq!(only(&found.findings, "01234").unwrap().said.id, "0123456789abcdef");
        for (id, said) in [("0123", "give more digits"), ("9", "no finding's id begins with 9")] {
            let failure = only(&found.findings, id).unwrap_err();
            assert!(failure.to_string().contains(said) && failure.exit_status() == 2, "{failure}");
        }
    }
}
