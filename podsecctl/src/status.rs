//! `podsecctl status`: is everything well?

use crate::Context;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::namespace;
use crate::output::{Output, Style, clean, count, duration};
use podsec_policy::operation::Method;
use podsec_policy::rules::rule;
use podsec_proto::v1::{self, HealthResponse, InspectResponse, NamespaceState, WhoAmIResponse};
use serde_json::json;

pub fn run(context: &Context) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let health = daemon.ask(daemon.identity().health(v1::HealthRequest {}))?;
    let who = daemon.ask(daemon.identity().who_am_i(v1::WhoAmIRequest {}))?;
    // Asked only of whom it would be told: a refusal would be a line in the audit for nothing.
    let may_inspect =
        rule(Method::Inspect).is_some_and(|rule| who.operations.iter().any(|path| path == rule.path));
    let found =
        if may_inspect { Some(daemon.ask(daemon.namespace().inspect(v1::InspectRequest {}))?) } else { None };
    if context.output.is_json() {
        context.output.object(&json!({
            "socket": context.socket.to_string_lossy(),
            "version": who.version,
            "audit_writable": health.audit_writable,
            "connections": health.connections,
            "sessions": health.sessions,
            "uptime": health.uptime,
            "namespace": found.as_ref().map(namespace::object),
        }))?;
    } else {
        let socket = context.socket.display().to_string();
        context.output.bytes(text(&context.output, socket, &health, &who, found.as_ref()).as_bytes())?;
    }
    let well = health.audit_writable && found.is_none_or(|found| found.state() == NamespaceState::Ready);
    Ok(u8::from(!well))
}

fn text(
    output: &Output,
    socket: String,
    health: &HealthResponse,
    who: &WhoAmIResponse,
    found: Option<&InspectResponse>,
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
";
        assert_eq!(text(&Output::plain(), "/s".into(), &health, &who, Some(&found)), expected);
        let health = HealthResponse { audit_writable: false, ..health };
        let said = text(&Output::plain(), "/s".into(), &health, &who, None);
        assert!(
            said.contains("audit      cannot be written: ") && said.contains("shown to administrators"),
            "{said}"
        );
    }
}
