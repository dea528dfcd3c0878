//! `podsecctl namespace show`

use crate::Context;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{Output, Style, clean};
use crate::spec;
use podsec_proto::v1::{self, IdMap, InspectResponse, NamespaceState};
use serde_json::{Value, json};

pub fn run(context: &Context) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let found = daemon.ask(daemon.namespace().inspect(v1::InspectRequest {}))?;
    if context.output.is_json() {
        return context.output.object(&object(&found));
    }
    context.output.bytes(text(&context.output, &found).as_bytes())
}

fn word(state: NamespaceState) -> (&'static str, Style) {
    match state {
        NamespaceState::Ready => ("ready", Style::Good),
        NamespaceState::Starting => ("starting", Style::Warn),
        NamespaceState::Down => ("down", Style::Bad),
        NamespaceState::Refused => ("refused", Style::Bad),
        NamespaceState::Unspecified => ("unknown", Style::Warn),
    }
}

/// `down: ` and why.
pub fn state(output: &Output, found: &InspectResponse) -> String {
    let (word, style) = word(found.state());
    let reason = if found.reason.is_empty() { String::new() } else { format!(": {}", clean(&found.reason)) };
    output.paint(style, word) + &reason
}

/// For programs.
pub fn object(found: &InspectResponse) -> Value {
    let maps = |maps: &[IdMap]| -> Value {
        maps.iter()
            .map(|map| json!({ "inside": map.inside, "outside": map.outside, "count": map.count }))
            .collect()
    };
    let namespace = |it: &v1::Namespace| json!({ "kind": it.kind, "inode": it.inode, "own": it.own });
    let address = |it: &v1::Address| json!({ "interface": it.interface, "address": it.address });
    json!({
        "state": word(found.state()).0,
        "reason": found.reason,
        "user": found.user,
        "uid": found.uid,
        "child_pid": (found.child_pid != 0).then_some(found.child_pid),
        "namespaces": found.namespaces.iter().map(namespace).collect::<Value>(),
        "uid_map": maps(&found.uid_map),
        "gid_map": maps(&found.gid_map),
        "addresses": found.addresses.iter().map(address).collect::<Value>(),
        "network_driver": found.network_driver,
        "port_driver": found.port_driver,
        "rootlesskit_version": found.rootlesskit_version,
        "ports": found.ports.iter().map(spec::object).collect::<Value>(),
    })
}

fn text(output: &Output, found: &InspectResponse) -> String {
    let lines = |lines: Vec<String>| lines.join("\n");
    let namespace = |it: &v1::Namespace| {
        let shared = if it.own { "" } else { " (the host's)" };
        format!("{}:[{}]{shared}", clean(&it.kind), it.inode)
    };
    let map = |it: &IdMap| match it.count {
        1 => format!("{} is {} outside", it.inside, it.outside),
        count => {
            let last = |first: u32| u64::from(first) + u64::from(count.saturating_sub(1));
            format!("{}-{} are {}-{} outside", it.inside, last(it.inside), it.outside, last(it.outside))
        }
    };
    let address = |it: &v1::Address| format!("{} {}", clean(&it.interface), clean(&it.address));
    output.facts(&[
        ("state", state(output, found)),
        (
            "user",
            if found.user.is_empty() {
                String::new()
            } else {
                format!("{} ({})", clean(&found.user), found.uid)
            },
        ),
        ("first process", if found.child_pid == 0 { String::new() } else { found.child_pid.to_string() }),
        ("rootlesskit", clean(&found.rootlesskit_version)),
        ("network", clean(&found.network_driver)),
        ("port driver", clean(&found.port_driver)),
        ("addresses", lines(found.addresses.iter().map(address).collect())),
        ("ports", lines(found.ports.iter().map(|port| clean(&spec::show(port))).collect())),
        ("namespaces", lines(found.namespaces.iter().map(namespace).collect())),
        ("uids", lines(found.uid_map.iter().map(map).collect())),
        ("gids", lines(found.gid_map.iter().map(map).collect())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> InspectResponse {
        InspectResponse {
            state: NamespaceState::Ready.into(),
            user: "u7s-admin".into(),
            uid: 994,
            child_pid: 77,
            namespaces: vec![
                v1::Namespace { kind: "user".into(), inode: 4_026_532_000, own: true },
                v1::Namespace { kind: "cgroup".into(), inode: 4_026_531_835, own: false },
            ],
            uid_map: vec![
                IdMap { inside: 0, outside: 994, count: 1 },
                IdMap { inside: 1, outside: 100_000, count: 65536 },
            ],
            addresses: vec![v1::Address { interface: "tap0".into(), address: "10.0.2.100/24".into() }],
            network_driver: "slirp4netns".into(),
            ..InspectResponse::default()
        }
    }

    #[test]
    fn for_people() {
        let expected = "\
state          ready
user           u7s-admin (994)
first process  77
network        slirp4netns
addresses      tap0 10.0.2.100/24
namespaces     user:[4026532000]
               cgroup:[4026531835] (the host's)
uids           0 is 994 outside
               1-65536 are 100000-165535 outside
";
        assert_eq!(text(&Output::plain(), &ready()), expected);
        let down = InspectResponse {
            state: NamespaceState::Down.into(),
            reason: "start\nit".into(),
            ..Default::default()
        };
        assert_eq!(text(&Output::plain(), &down), "state  down: start\\x0ait\n");
    }

    #[test]
    fn for_programs() {
        let found = object(&ready());
        assert_eq!(found["state"], "ready");
        assert_eq!(found["uid_map"][1]["count"], 65536);
        assert_eq!(object(&InspectResponse::default())["child_pid"], Value::Null);
    }
}
