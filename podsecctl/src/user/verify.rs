//! `podsecctl user verify`

use crate::Context;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::many;
use crate::output::{Output, Style, aside, clean};
use crate::users::own_name;
use podsec_policy::name::AccountName;
use podsec_proto::v1::{Finding, FindingState, Protection, VerifyUserRequest, VerifyUserResponse};
use serde_json::{Value, json};

pub fn run(context: &Context, mut names: Vec<AccountName>) -> Result<u8, Failure> {
    if names.is_empty() {
        names.push(own_name()?);
    }
    let daemon = Daemon::connect(&context.socket)?;
    let question = |name: &AccountName| {
        let mut service = daemon.users();
        let request = VerifyUserRequest { name: name.to_string() };
        async move { service.verify(request).await }
    };
    let output = &context.output;
    let (mut is_bad, mut status) = (false, 0);
    many::each(&daemon, names.iter().map(question).collect(), |index, answer| {
        let Some(name) = names.get(index) else { return Ok(()) };
        match answer {
            Ok(found) => {
                is_bad |= found.findings.iter().any(|finding| is_bad_news(finding.state()));
                if output.is_json() {
                    output.object(&object(name, &found))?;
                } else {
                    let heading = match (names.len(), index) {
                        (1, _) => String::new(),
                        (_, 0) => output.paint(Style::Bold, name.as_str()) + "\n",
                        _ => format!("\n{}\n", output.paint(Style::Bold, name.as_str())),
                    };
                    output.bytes((heading + &text(output, &found)).as_bytes())?;
                }
            }
            Err(failure) => {
                status = if status == 0 { failure.exit_status() } else { status };
                if output.is_json() {
                    output.object(&many::failed(name, &failure))?;
                } else {
                    aside(&format!("podsecctl: {name}: {failure}"));
                }
            }
        }
        Ok(())
    })?;
    // What could not be found out may be worse than what was.
    Ok(if status == 0 { u8::from(is_bad) } else { status })
}

fn is_bad_news(state: FindingState) -> bool {
    matches!(state, FindingState::Broken | FindingState::Open)
}

/// For programs; people get blanks for the hyphens.
fn state(state: FindingState) -> (&'static str, Style) {
    match state {
        FindingState::Ok => ("ok", Style::Good),
        FindingState::Broken => ("broken", Style::Bad),
        FindingState::Open => ("open", Style::Bad),
        FindingState::Unsupported => ("unsupported", Style::Warn),
        FindingState::NotTried => ("not-tried", Style::Dim),
        FindingState::Unspecified => ("unknown", Style::Warn),
    }
}

fn protection(protection: Protection) -> &'static str {
    match protection {
        Protection::Account => "account",
        Protection::GuardRail => "guard-rail",
        Protection::Detection => "detection",
        Protection::Containment => "containment",
        Protection::Unspecified => "unknown",
    }
}

fn object(name: &AccountName, found: &VerifyUserResponse) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "name": finding.name,
            "protection": protection(finding.protection()),
            "state": state(finding.state()).0,
            "detail": finding.detail,
        })
    };
    json!({ "name": name.as_str(), "findings": found.findings.iter().map(finding).collect::<Value>() })
}

fn text(output: &Output, found: &VerifyUserResponse) -> String {
    let row = |finding: &Finding| {
        let (word, style) = state(finding.state());
        vec![
            clean(&finding.name),
            protection(finding.protection()).replace('-', " "),
            output.paint(style, &word.replace('-', " ")),
            clean(&finding.detail),
        ]
    };
    let rows: Vec<_> = found.findings.iter().map(row).collect();
    output.table(&["CHECK", "PROTECTION", "STATE", "DETAIL"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> VerifyUserResponse {
        let finding = |name: &str, protection: Protection, state: FindingState, detail: &str| Finding {
            name: name.into(),
            protection: protection.into(),
            state: state.into(),
            detail: detail.into(),
        };
        VerifyUserResponse {
            findings: vec![
                finding("groups", Protection::Account, FindingState::Ok, ""),
                finding("own-policy", Protection::GuardRail, FindingState::NotTried, "no podman\x1b[2J"),
            ],
        }
    }

    #[test]
    fn for_people() {
        let expected = "\
CHECK       PROTECTION  STATE      DETAIL
groups      account     ok
own-policy  guard rail  not tried  no podman\\x1b[2J
";
        assert_eq!(text(&Output::plain(), &found()), expected);
    }

    #[test]
    fn for_programs() {
        let object = object(&AccountName::new("carol").unwrap(), &found());
        assert_eq!(
            (&object["name"], &object["findings"][1]["state"]),
            (&"carol".into(), &"not-tried".into())
        );
        assert!(is_bad_news(FindingState::Open) && !is_bad_news(FindingState::Unsupported));
    }
}
