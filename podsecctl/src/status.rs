//! `podsecctl status`: is everything well?

use crate::Context;
use crate::check::known::{self, Known};
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::namespace;
use crate::output::{Output, Style, clean, count, duration};
use crate::time;
use podsec_policy::operation::Method;
use podsec_policy::rules::rule;
use podsec_proto::v1::{self, HealthResponse, InspectResponse, NamespaceState, WhoAmIResponse};
use serde_json::{Value, json};

pub fn run(context: &Context) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let health = daemon.ask(daemon.identity().health(v1::HealthRequest {}))?;
    let who = daemon.ask(daemon.identity().who_am_i(v1::WhoAmIRequest {}))?;
    // Asked only of whom it would be told: a refusal would be a line in the audit for nothing.
    let may = |method| rule(method).is_some_and(|rule| who.operations.iter().any(|path| path == rule.path));
    let found = if may(Method::Inspect) {
        Some(daemon.ask(daemon.namespace().inspect(v1::InspectRequest {}))?)
    } else {
        None
    };
    // That they cannot be read is a state of this host, too.
    let known = may(Method::Findings).then(|| known::ask(&daemon, None));
    if context.output.is_json() {
        context.output.object(&json!({
            "socket": context.socket.to_string_lossy(),
            "version": who.version,
            "audit_writable": health.audit_writable,
            "connections": health.connections,
            "sessions": health.sessions,
            "uptime": health.uptime,
            "namespace": found.as_ref().map(namespace::object),
            "findings": known.as_ref().map(findings_object),
        }))?;
    } else {
        let socket = context.socket.display().to_string();
        let findings = known.as_ref().map(|known| findings(&context.output, known, time::now()));
        let findings = findings.unwrap_or_default();
        let text = text(&context.output, socket, &health, &who, found.as_ref(), findings);
        context.output.bytes(text.as_bytes())?;
    }
    let well = health.audit_writable && found.is_none_or(|found| found.state() == NamespaceState::Ready);
    Ok(u8::from(!well || known.is_some_and(|known| known.is_err())))
}

fn findings_object(known: &Result<Known, Failure>) -> Value {
    match known {
        Ok(known) => known.object(),
        Err(failure) => json!({ "error": failure.object() }),
    }
}

fn findings(output: &Output, known: &Result<Known, Failure>, now: u64) -> String {
    match known {
        Ok(known) => known.sentence(output, now),
        Err(failure) => format!("{}: {failure}", output.paint(Style::Bad, "cannot be read")),
    }
}

fn text(
    output: &Output,
    socket: String,
    health: &HealthResponse,
    who: &WhoAmIResponse,
    found: Option<&InspectResponse>,
    findings: String,
) -> String {
    let audit = if health.audit_writable {
        output.paint(Style::Good, "written")
    } else {
        output.paint(Style::Bad, "cannot be written")
            + ": podsecd does nothing privileged until it can; is the disk full?"
    };
    let namespace = match found {
        Some(found) => namespace::state(output, found),
        None => "shown to administrators and the cluster user only".to_owned(),
    };
    output.facts(&[
        ("socket", socket),
        ("podsecd", format!("{}, up for {}", clean(&who.version), duration(health.uptime))),
        (
            "in use",
            format!(
                "{}, {}",
                count(health.connections.into(), "connection"),
                count(health.sessions.into(), "session")
            ),
        ),
        ("audit", audit),
        ("namespace", namespace),
        ("findings", findings),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_people() {
        let health = HealthResponse { audit_writable: true, connections: 1, sessions: 2, uptime: 61 };
        let who = WhoAmIResponse { version: "0.1.0".into(), ..Default::default() };
        let found = InspectResponse { state: NamespaceState::Ready.into(), ..Default::default() };
        let expected = "\
socket     /s
podsecd    0.1.0, up for 1 min
in use     1 connection, 2 sessions
audit      written
namespace  ready
findings   none
";
        assert_eq!(text(&Output::plain(), "/s".into(), &health, &who, Some(&found), "none".into()), expected);
        let health = HealthResponse { audit_writable: false, ..health };
        let said = text(&Output::plain(), "/s".into(), &health, &who, None, String::new());
        assert!(
            said.contains("audit      cannot be written: ") && said.contains("shown to administrators"),
            "{said}"
        );
    }

    #[test]
    fn findings_that_cannot_be_read_are_said() {
        let known = Err(Failure::Silent(150));
        let said = findings(&Output::plain(), &known, 1);
        assert!(said.starts_with("cannot be read: podsecd has not answered"), "{said}");
        assert_eq!(findings_object(&known)["error"]["reason"], "silent");
    }
}
