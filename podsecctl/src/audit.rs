//! `podsecctl audit`: prints records, follows them, and has the chain checked.

use crate::Context;
use crate::cli::{Audit, AuditCommand, AuditList};
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{Output, Style, clean, count};
use crate::users::{self, Users};
use podsec_policy::audit::{Phase, Record, Time};
use podsec_proto::v1;
use serde_json::json;
use std::io::{BufWriter, Write as _};

/// Shown before the new ones, when nobody says how many.
const LAST_WHEN_FOLLOWING: u32 = 10;

pub fn run(context: &Context, arguments: Audit) -> Result<u8, Failure> {
    match arguments.command {
        Some(AuditCommand::Verify) => verify(context),
        Some(AuditCommand::List(list)) => print(context, list),
        None => print(context, arguments.list),
    }
}

fn filter(list: &AuditList) -> Result<v1::AuditFilter, Failure> {
    let uid = match &list.user {
        None => None,
        Some(user) => Some(users::uid(user).ok_or_else(|| Failure::NoUser(user.clone()))?),
    };
    if let (Some(since), Some(until)) = (list.since, list.until)
        && since >= until
    {
        return Err(Failure::Usage("--until is not after --since: no record can be between".into()));
    }
    let last = list.last.unwrap_or(if list.follow { LAST_WHEN_FOLLOWING } else { 0 });
    Ok(v1::AuditFilter {
        uid,
        operation: list.operation.clone().unwrap_or_default(),
        phase: list.outcome.map(|outcome| outcome.0.name().to_owned()).unwrap_or_default(),
        since: list.since.unwrap_or_default(),
        until: list.until.unwrap_or_default(),
        last,
    })
}

fn print(context: &Context, list: AuditList) -> Result<u8, Failure> {
    let filter = Some(filter(&list)?);
    let daemon = Daemon::connect(&context.socket)?;
    let mut service = daemon.audit();
    let mut records = if list.follow {
        daemon.ask(service.follow(v1::FollowRequest { filter }))?
    } else {
        daemon.ask(service.query(v1::QueryRequest { filter }))?
    };
    let mut users = Users::default();
    let mut stdout = BufWriter::new(std::io::stdout().lock());
    let mut show = |line: &str| -> std::io::Result<()> {
        writeln!(stdout, "{line}")?;
        if list.follow { stdout.flush() } else { Ok(()) }
    };
    if !context.output.is_json() {
        show(&heading(&context.output)).map_err(Failure::Output)?;
    }
    while let Some(record) = daemon.wait(records.message())? {
        let line = if context.output.is_json() {
            // As written, since its hash is over these bytes; but no control character gets through.
            if record.json.chars().any(char::is_control) {
                return Err(Failure::Nonsense("a record of more than one line"));
            }
            record.json
        } else {
            let record = serde_json::from_str(&record.json).map_err(|_| Failure::Nonsense("not a record"))?;
            line(&context.output, &record, &mut users)
        };
        show(&line).map_err(Failure::Output)?;
    }
    stdout.flush().map_err(Failure::Output)?;
    Ok(0)
}

fn heading(output: &Output) -> String {
    let text = format!("{:27}  {:9}  {:27}  {:12}  WHAT", "TIME", "OUTCOME", "OPERATION", "USER");
    output.paint(Style::Bold, &text)
}

/// One record for a person. Columns have fixed widths, since records come one by one.
fn line(output: &Output, record: &Record, users: &mut Users) -> String {
    let style = match record.phase {
        Phase::Intent => Style::Dim,
        Phase::Done => Style::Good,
        Phase::Fail | Phase::Recovered => Style::Warn,
        Phase::Deny => Style::Bad,
    };
    let mut user = users.name(record.uid);
    if let Some(login) = record.login_uid.filter(|&login| login != record.uid) {
        user += &format!(" ({})", users.name(login));
    }
    let phase = output.paint(style, &format!("{:9}", record.phase.name()));
    let text =
        format!("{}  {phase}  {:27}  {user:12}  {}", Time(record.micros), clean(&record.op), what(record));
    text.trim_end().to_owned()
}

/// `ls -l: exit 0, 13 ms`
fn what(record: &Record) -> String {
    let mut outcome = Vec::new();
    if let Some(reason) = &record.reason {
        let step = record.step.as_ref().map(|step| format!(" at {}", clean(step))).unwrap_or_default();
        outcome.push(clean(reason) + &step);
    }
    outcome.extend(record.exit.map(|exit| format!("exit {exit}")));
    outcome.extend(record.ms.map(|ms| format!("{ms} ms")));
    outcome.extend(record.suppressed.map(|number| format!("and {number} more like it")));
    let target = clean(&record.target);
    match (target.as_str(), outcome.is_empty()) {
        ("", _) => outcome.join(", "),
        (_, true) => target,
        _ => format!("{target}: {}", outcome.join(", ")),
    }
}

fn verify(context: &Context) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let found = daemon.ask(daemon.audit().verify(v1::VerifyRequest {}))?;
    let whole = found.broken.is_none();
    if context.output.is_json() {
        let broken = found.broken.map(|at| json!({ "file": at.file, "line": at.line, "what": at.what }));
        context
            .output
            .object(&json!({ "records": found.records, "files": found.files, "broken": broken }))?;
    } else {
        context.output.bytes((verdict(&context.output, &found) + "\n").as_bytes())?;
    }
    Ok(u8::from(!whole))
}

fn verdict(output: &Output, found: &v1::VerifyResponse) -> String {
    let links = format!("{} in {}", count(found.records, "record"), count(found.files.into(), "file"));
    match &found.broken {
        None => format!("{}: {links}", output.paint(Style::Good, "whole")),
        Some(at) => format!(
            "{} at {} line {}: {} (before it: {links})",
            output.paint(Style::Bad, "broken"),
            clean(&at.file),
            at.line,
            clean(&at.what)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Outcome;

    fn record(json: &str) -> Record {
        let base = r#"{"seq":1,"time":"2026-01-02T03:04:05.678901Z","uid":0,"pid":7,"#;
        serde_json::from_str(&format!("{base}{json}")).unwrap()
    }

    fn shown(json: &str) -> String {
        line(&Output::plain(), &record(json), &mut Users::default())
    }

    #[test]
    fn a_record_is_a_line() {
        assert_eq!(
            shown(
                r#""phase":"done","op":"NamespaceService/Enter","login_uid":0,"target":"ls -l","exit":2,"ms":13}"#
            ),
            "2026-01-02T03:04:05.678901Z  done       NamespaceService/Enter       root          ls -l: exit 2, 13 ms"
        );
        assert!(
            shown(r#""phase":"deny","op":"x","reason":"not-member"}"#)
                .ends_with("  root          not-member")
        );
        assert!(
            shown(r#""phase":"fail","op":"x","target":"id","reason":"setns","step":"join"}"#)
                .ends_with("id: setns at join")
        );
        assert!(shown(r#""phase":"deny","op":"x","suppressed":41}"#).ends_with("and 41 more like it"));
        assert!(shown(r#""phase":"intent"}"#).ends_with("root"));
    }

    #[test]
    fn heading_and_records_line_up() {
        let heading = heading(&Output::plain());
        let line = shown(r#""phase":"recovered","op":"NamespaceService/RemovePort","target":"x"}"#);
        assert_eq!(heading.find("WHAT"), line.find('x'));
        assert_eq!(heading.find("USER"), line.find("root"));
    }

    #[test]
    fn nothing_in_a_record_reaches_the_terminal_raw() {
        let line =
            shown(r#""phase":"deny","op":"a\u001b[2J","reason":"b\u009b","step":"c\n","target":"d\u001b"}"#);
        assert!(!line.chars().any(char::is_control), "{line:?}");
        // what podsecd escaped is shown as it is
        assert!(shown(r#""phase":"done","target":"a\\x0ab"}"#).ends_with(r"a\x0ab"));
    }

    #[test]
    fn filters() {
        let list = AuditList {
            outcome: Some(Outcome(Phase::Deny)),
            user: Some("77".into()),
            ..AuditList::default()
        };
        let found = filter(&list).unwrap();
        assert_eq!((found.uid, found.phase.as_str(), found.last), (Some(77), "deny", 0));
        assert_eq!(filter(&AuditList { follow: true, ..AuditList::default() }).unwrap().last, 10);
        assert_eq!(
            filter(&AuditList { follow: true, last: Some(0), ..AuditList::default() }).unwrap().last,
            0
        );
        let backwards = AuditList { since: Some(2), until: Some(2), ..AuditList::default() };
        assert!(matches!(filter(&backwards), Err(Failure::Usage(_))));
        assert!(matches!(
            filter(&AuditList { user: Some("no one".into()), ..list }),
            Err(Failure::NoUser(_))
        ));
    }

    #[test]
    fn verdicts() {
        let whole = v1::VerifyResponse { records: 3, files: 1, broken: None };
        assert_eq!(verdict(&Output::plain(), &whole), "whole: 3 records in 1 file");
        let broken = v1::BrokenLink { file: "audit.jsonl".into(), line: 4, what: "edited".into() };
        let broken = v1::VerifyResponse { broken: Some(broken), ..whole };
        assert_eq!(
            verdict(&Output::plain(), &broken),
            "broken at audit.jsonl line 4: edited (before it: 3 records in 1 file)"
        );
    }
}
