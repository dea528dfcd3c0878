//! `podsecctl port list`, `add` and `remove`

use crate::Context;
use crate::cli::Port as Command;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{Verb, clean};
use crate::spec;
use podsec_proto::v1;
use serde_json::{Value, json};

const PUBLISH: Verb = Verb { done: "published", todo: "publish", nothing: "was published already" };
const WITHDRAW: Verb = Verb { done: "withdrawn", todo: "withdraw", nothing: "was not published" };

pub fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let mut service = daemon.namespace();
    let (change, changed, verb) = match command {
        Command::List => {
            let list = daemon.ask(service.list_ports(v1::ListPortsRequest {}))?;
            return print(context, &list.ports);
        }
        Command::Add(change) => {
            let port = Some(spec::message(change.spec));
            let answer =
                daemon.ask(service.add_port(v1::AddPortRequest { port, dry_run: change.dry_run }))?;
            (change, answer.changed, PUBLISH)
        }
        Command::Remove(change) => {
            let port = Some(spec::message(change.spec));
            let answer =
                daemon.ask(service.remove_port(v1::RemovePortRequest { port, dry_run: change.dry_run }))?;
            (change, answer.changed, WITHDRAW)
        }
    };
    if context.output.is_json() {
        return context.output.object(&json!({ "changed": changed, "dry_run": change.dry_run }));
    }
    let port = spec::show(&spec::message(change.spec));
    context.output.bytes((verb.sentence(&port, changed, change.dry_run) + "\n").as_bytes())
}

fn print(context: &Context, ports: &[v1::PublishedPort]) -> Result<u8, Failure> {
    let port = |published: &v1::PublishedPort| published.port.clone().unwrap_or_default();
    if context.output.is_json() {
        let object = |published: &v1::PublishedPort| {
            let mut object = spec::object(&port(published));
            if let Value::Object(fields) = &mut object {
                fields.insert("active".into(), published.active.into());
                fields.insert("kept".into(), published.kept.into());
            }
            object
        };
        return context.output.object(&json!({ "ports": ports.iter().map(object).collect::<Value>() }));
    }
    if ports.is_empty() {
        return context.output.bytes(b"no ports are published; `podsecctl port add 8080:80` publishes one\n");
    }
    let word = |yes, no| move |holds: bool| if holds { yes } else { no };
    let (active, kept) = (word("active", "waiting"), word("kept", "until it goes down"));
    let row = |published: &v1::PublishedPort| {
        vec![
            clean(&spec::show(&port(published))),
            active(published.active).to_owned(),
            kept(published.kept).to_owned(),
        ]
    };
    let rows: Vec<_> = ports.iter().map(row).collect();
    context.output.bytes(context.output.table(&["PORT", "NOW", "NEXT TIME"], &rows).as_bytes())
}
