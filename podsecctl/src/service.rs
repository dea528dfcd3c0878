//! `podsecctl service`: the registry and the server of signatures of this host.
//!
//! Must not hand the credential that podsecd gives to anybody but its owner: it is printed once, or given to skopeo.

use crate::Context;
use crate::cli::{DeployService, RemoveService, Service as Command, ServiceName};
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::image::{self, registry::Tool, run::Watch};
use crate::input;
use crate::many;
use crate::output::{Output, Style, Verb, clean};
use crate::time;
use podsec_proto::v1::{
    self, RegistryCredential, ServiceChange, ServiceHealth, ServiceKind, ServiceState, UserChange,
};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

const DEPLOY: Verb = Verb { done: "deployed", todo: "deploy", nothing: "is deployed already" };
const REMOVE: Verb = Verb { done: "removed", todo: "remove", nothing: "is not deployed" };
/// Seconds before its end from which on a certificate is worth a word.
const SOON: u64 = 30 * 86_400;

pub fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Deploy(arguments) => deploy(context, &arguments),
        Command::Remove(arguments) => remove(context, &arguments),
        Command::Status => status(context),
        Command::Credential { save } => credential(context, save),
    }
}

fn kind(name: ServiceName) -> ServiceKind {
    match name {
        ServiceName::Registry => ServiceKind::Registry,
        ServiceName::Signatures => ServiceKind::Signatures,
    }
}

/// For the command line and JSON, and in a sentence.
fn words(kind: ServiceKind) -> (&'static str, &'static str) {
    match kind {
        ServiceKind::Registry => ("registry", "the registry"),
        ServiceKind::Signatures => ("signatures", "the server of signatures"),
        ServiceKind::Unspecified => ("unknown", "an unknown server"),
    }
}

fn deploy(context: &Context, arguments: &DeployService) -> Result<u8, Failure> {
    let DeployService { service, address, port, dry_run } = *arguments;
    let daemon = Daemon::connect(&context.socket)?;
    let change = daemon.ask(daemon.services().deploy(v1::DeployServiceRequest {
        kind: kind(service).into(),
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        port: port.unwrap_or_default().into(),
        dry_run,
    }))?;
    print(context, DEPLOY, service, dry_run, change)
}

fn remove(context: &Context, arguments: &RemoveService) -> Result<u8, Failure> {
    let RemoveService { service, remove_data, yes, dry_run } = *arguments;
    let (_, name) = words(kind(service));
    if !yes && !dry_run {
        let (data, after) = match (remove_data, service) {
            (false, _) => ("", "What it stores stays."),
            (true, ServiceName::Registry) => (" and all its images", "They are gone then."),
            (true, ServiceName::Signatures) => {
                (" and all its signatures", "No image of these creators runs then.")
            }
        };
        input::confirm(&format!("Stop and remove {name}{data}? {after}"))?;
    }
    let daemon = Daemon::connect(&context.socket)?;
    let request = v1::RemoveServiceRequest { kind: kind(service).into(), remove_data, dry_run };
    let change = daemon.ask(daemon.services().remove(request))?;
    print(context, REMOVE, service, dry_run, change)
}

fn print(
    context: &Context,
    verb: Verb,
    service: ServiceName,
    dry_run: bool,
    change: ServiceChange,
) -> Result<u8, Failure> {
    let ServiceChange { changed, steps, warnings } = change;
    let change = UserChange { changed, steps, warnings, fingerprint: String::new() };
    if context.output.is_json() {
        return context.output.object(&many::object(&change));
    }
    let (_, name) = words(kind(service));
    let sentence = verb.sentence(name, changed, dry_run);
    context.output.bytes(many::text(&context.output, sentence, &change, true).as_bytes())
}

fn status(context: &Context) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let found = daemon.ask(daemon.services().status(v1::ServiceStatusRequest {}))?.services;
    if context.output.is_json() {
        context.output.object(&json!({ "services": found.iter().map(object).collect::<Value>() }))?;
    } else {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        context.output.bytes(text(&context.output, &found, now).as_bytes())?;
    }
    Ok(u8::from(found.iter().any(is_bad_news)))
}

fn is_bad_news(state: &ServiceState) -> bool {
    matches!(state.health(), ServiceHealth::Down | ServiceHealth::Foreign)
}

/// For programs, for people, and how it looks.
fn health(health: ServiceHealth) -> (&'static str, &'static str, Style) {
    match health {
        ServiceHealth::NotDeployed => ("not-deployed", "not deployed", Style::Dim),
        ServiceHealth::Ok => ("ok", "answers", Style::Good),
        ServiceHealth::Down => ("down", "down", Style::Bad),
        ServiceHealth::Foreign => ("foreign", "somebody else's", Style::Bad),
        ServiceHealth::Unspecified => ("unknown", "unknown", Style::Warn),
    }
}

fn object(state: &ServiceState) -> Value {
    json!({
        "service": words(state.kind()).0,
        "health": health(state.health()).0,
        "detail": state.detail,
        "address": (!state.address.is_empty()).then_some(&state.address),
        "size": state.size,
        "certificate_expires": (state.certificate_expires != 0).then_some(state.certificate_expires),
        "changed_files": state.changed_files,
    })
}

fn text(output: &Output, states: &[ServiceState], now: u64) -> String {
    let row = |state: &ServiceState| {
        let (_, word, style) = health(state.health());
        let is_there = state.health() != ServiceHealth::NotDeployed;
        let expires = match state.certificate_expires {
            0 => String::new(),
            time if time < now => format!("{} {}", time::show(time), output.paint(Style::Bad, "expired")),
            time if time < now + SOON => {
                format!("{} {}", time::show(time), output.paint(Style::Warn, "soon"))
            }
            time => time::show(time),
        };
        vec![
            words(state.kind()).0.to_owned(),
            output.paint(style, word),
            clean(&state.address),
            if is_there || state.size > 0 { image::progress::size(state.size) } else { String::new() },
            expires,
            clean(&state.detail),
        ]
    };
    let rows: Vec<_> = states.iter().map(row).collect();
    let mut text =
        output.table(&["SERVICE", "HEALTH", "ADDRESS", "STORE", "CERTIFICATE UNTIL", "DETAIL"], &rows);
    let warning = output.paint(Style::Warn, "warning:");
    for state in states {
        let name = words(state.kind()).0;
        let changed = state.changed_files.iter().map(|path| {
            format!(
                "{warning} {} was changed by hand; `podsecctl service deploy {name}` writes it anew\n",
                clean(path)
            )
        });
        text.extend(changed);
    }
    text
}

fn credential(context: &Context, save: bool) -> Result<u8, Failure> {
    // Before there is a new password: the old one ends with it.
    let watch = Watch::start().map_err(|error| Failure::Local("cannot watch for signals", error))?;
    let tool = if save { Some(Tool::new(&watch, true).map_err(image::failure)?) } else { None };
    let daemon = Daemon::connect(&context.socket)?;
    let credential = daemon.ask(daemon.services().new_credential(v1::NewCredentialRequest {}))?;
    let RegistryCredential { registry, name, password } = &credential;
    let Some(tool) = tool else {
        if context.output.is_json() {
            return context
                .output
                .object(&json!({ "registry": registry, "name": name, "password": password }));
        }
        return context.output.bytes(told(&context.output, &credential).as_bytes());
    };
    if registry.starts_with('-') || name.is_empty() {
        return Err(Failure::Nonsense("a credential"));
    }
    tool.login(registry, name, password.as_bytes()).map_err(image::failure)?;
    if context.output.is_json() {
        return context.output.object(&json!({ "registry": registry, "name": name, "saved": true }));
    }
    let text = format!(
        "{} may push to {} with podman and skopeo, which know the new password until `skopeo logout` or the next boot\n",
        clean(name),
        clean(registry)
    );
    context.output.bytes(text.as_bytes())
}

fn told(output: &Output, credential: &RegistryCredential) -> String {
    let RegistryCredential { registry, name, password } = credential;
    let facts =
        output.facts(&[("registry", clean(registry)), ("name", clean(name)), ("password", clean(password))]);
    format!("{facts}It is not shown again. On the host where you push: skopeo login {}\n", clean(registry))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states() -> [ServiceState; 2] {
        [
            ServiceState {
                kind: ServiceKind::Registry.into(),
                health: ServiceHealth::Ok.into(),
                detail: "\x1b".into(),
                address: "https://registry.local".into(),
                size: 3 << 20,
                certificate_expires: 1_769_846_400,
                changed_files: vec!["/etc/podsec/registry.yml".into()],
            },
            ServiceState {
                kind: ServiceKind::Signatures.into(),
                health: ServiceHealth::NotDeployed.into(),
                ..Default::default()
            },
        ]
    }

    #[test]
    fn for_people() {
        let expected = "\
SERVICE     HEALTH        ADDRESS                 STORE    CERTIFICATE UNTIL          DETAIL
registry    answers       https://registry.local  3.0 MiB  2026-01-31T08:00:00Z soon  \\x1b
signatures  not deployed
warning: /etc/podsec/registry.yml was changed by hand; `podsecctl service deploy registry` writes it anew
";
        assert_eq!(text(&Output::plain(), &states(), 1_769_846_399), expected);
        assert!(text(&Output::plain(), &states(), 1_769_846_401).contains("expired"));
        assert!(!text(&Output::plain(), &states(), 1).contains("soon"));
    }

    #[test]
    fn for_programs() {
        let [registry, signatures] = states();
        assert_eq!(
            (&object(&registry)["health"], &object(&registry)["size"]),
            (&"ok".into(), &(3 << 20).into())
        );
        assert_eq!(object(&signatures)["certificate_expires"], Value::Null);
    }

    #[test]
    fn a_server_that_is_down_is_bad_news() {
        let [registry, signatures] = states();
        assert!(!is_bad_news(&registry) && !is_bad_news(&signatures));
        for health in [ServiceHealth::Down, ServiceHealth::Foreign] {
            assert!(is_bad_news(&ServiceState { health: health.into(), ..registry.clone() }));
        }
    }

    #[test]
    fn a_credential_is_shown_once() {
        let credential = RegistryCredential {
            registry: "registry.local".into(),
            name: "carol".into(),
            password: "correct horse".into(),
        };
        let expected = "\
registry  registry.local
name      carol
password  correct horse
It is not shown again. On the host where you push: skopeo login registry.local
";
        assert_eq!(told(&Output::plain(), &credential), expected);
    }
}
