//! `podsecctl check explain`: what can be found; podsecd is not asked.

use crate::failure::Failure;
use crate::output::{Output, clean};
use podsec_policy::finding::{Kind, kind, kinds};
use serde_json::{Value, json};

pub fn run(output: &Output, code: Option<&str>) -> Result<u8, Failure> {
    let shown: Vec<&Kind> = match code {
        None => kinds().collect(),
        Some(code) => vec![kind(code).ok_or_else(|| none(code))?],
    };
    if output.is_json() {
        let lines: String = shown.iter().map(|kind| format!("{}\n", object(kind))).collect();
        return output.bytes(lines.as_bytes());
    }
    let text = match (code, shown.as_slice()) {
        (Some(_), [kind]) => one(output, kind),
        _ => table(output, &shown),
    };
    output.bytes(text.as_bytes())
}

fn none(code: &str) -> Failure {
    Failure::Usage(format!("nothing is found that is called {}: podsecctl check explain", clean(code)))
}

/// For programs.
fn object(kind: &Kind) -> Value {
    json!({
        "code": kind.code,
        "check": kind.check.name(),
        "severity": kind.severity.name(),
        "weight": kind.weight,
        "title": kind.title,
        "explanation": kind.explanation,
        "remedy": kind.remedy,
    })
}

fn one(output: &Output, kind: &Kind) -> String {
    output.facts(&[
        ("code", kind.code.to_owned()),
        ("what", kind.title.to_owned()),
        ("check", kind.check.name().to_owned()),
        ("severity", format!("{} (weight {})", kind.severity.name(), kind.weight)),
        ("meaning", kind.explanation.to_owned()),
        ("remedy", kind.remedy.to_owned()),
    ])
}

fn table(output: &Output, kinds: &[&Kind]) -> String {
    let row = |kind: &&Kind| {
        let severity = output.paint(super::known::style(kind.severity), kind.severity.name());
        vec![kind.check.name().into(), kind.code.into(), severity, kind.weight.to_string(), kind.title.into()]
    };
    let rows: Vec<_> = kinds.iter().map(row).collect();
    output.table(&["CHECK", "CODE", "SEVERITY", "WEIGHT", "WHAT"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::finding::{Check, Severity};

    const KIND: Kind = Kind {
        code: "some-thing",
        check: Check::Images,
        severity: Severity::High,
        weight: 101,
        title: "a thing",
        explanation: "It is there.",
        remedy: "Remove it",
    };

    #[test]
    fn for_people() {
        let expected = "\
code      some-thing
what      a thing
check     images
severity  high (weight 101)
meaning   It is there.
remedy    Remove it
";
        assert_eq!(one(&Output::plain(), &KIND), expected);
        let expected = "\
CHECK   CODE        SEVERITY  WEIGHT  WHAT
images  some-thing  high      101     a thing
";
        assert_eq!(table(&Output::plain(), &[&KIND]), expected);
    }

    #[test]
    fn a_code_that_is_none_is_wrong_usage() {
        let failure = run(&Output::plain(), Some("no\nthing")).unwrap_err();
        assert_eq!((failure.exit_status(), failure.to_string().contains('\n')), (2, false));
    }
}
