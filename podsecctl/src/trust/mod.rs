//! `podsecctl trust`: says whose signed images run on this host.
//!
//! Must not write what podman reads: podsecd does.

mod check;
mod diff;
mod fetch;
mod refusal;
mod show;

use crate::Context;
use crate::cli::{
    self, GrantSigner, InitTrust, Reason, RevokeSigner, RollbackTrust, SyncTrust, Trust as Command,
};
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::input;
use crate::many;
use crate::output::{Output, Verb, aside, clean, count};
use podsec_policy::name::AccountName;
use podsec_policy::trust::{Bundle, BundleUrl, HostName, MOST_SCOPES, Why};
use podsec_policy::user::{Fingerprint, Scope};
use podsec_proto::v1::{self, SignatureKind, TrustChange, TrustReason, UserChange};
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

const INIT: Verb = Verb { done: "set up", todo: "set up", nothing: "is set up so already" };
const ROLLBACK: Verb = Verb { done: "went back to", todo: "go back to", nothing: "is what is in force" };
const GRANT: Verb = Verb { done: "granted", todo: "grant", nothing: "was granted already" };
const REVOKE: Verb = Verb { done: "revoked", todo: "revoke", nothing: "was revoked already" };
const SYNC: Verb = Verb { done: "took over", todo: "take over", nothing: "is what is in force" };

pub fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Init(arguments) => init(context, arguments),
        Command::Show { revision } => show::run(context, revision),
        Command::Diff { from, to } => diff::run(context, from, to),
        Command::History => show::history(context),
        Command::Rollback(RollbackTrust { revision, reason }) => {
            let request =
                v1::RollbackTrustRequest { revision: revision.get(), reason: Some(message(&reason)) };
            let daemon = Daemon::connect(&context.socket)?;
            let change = daemon.ask(daemon.trust().rollback(request))?;
            print(context, ROLLBACK, &format!("revision {revision}"), reason.dry_run, change)
        }
        Command::Grant(arguments) => grant(context, &arguments),
        Command::Revoke(arguments) => revoke(context, &arguments),
        Command::Export { output } => export(context, output.as_deref()),
        Command::Sync(arguments) => sync(context, &arguments),
        Command::Check(arguments) => check::run(context, &arguments),
    }
}

fn message(reason: &Reason) -> TrustReason {
    TrustReason {
        why: reason.why.as_ref().map(Why::as_str).unwrap_or_default().to_owned(),
        dry_run: reason.dry_run,
        overwrite: reason.overwrite,
    }
}

fn init(context: &Context, arguments: InitTrust) -> Result<u8, Failure> {
    let dry_run = arguments.reason.dry_run;
    let daemon = Daemon::connect(&context.socket)?;
    let change = daemon.ask(daemon.trust().init(settings(arguments)))?;
    print(context, INIT, "trust", dry_run, change)
}

fn settings(arguments: InitTrust) -> v1::InitTrustRequest {
    let InitTrust { registry, signatures, address, names, http, reason } = arguments;
    let mut names: Vec<String> = names.iter().map(|name| HostName::as_str(name).to_owned()).collect();
    if address.is_some() && names.is_empty() {
        // The third of the names that hosts of this kind have always had: of the server that knows vulnerabilities.
        names.push("trivy.local".to_owned());
    }
    v1::InitTrustRequest {
        registry: registry.as_str().to_owned(),
        signatures: signatures.as_str().to_owned(),
        plain_http: http,
        address: address.map(|address| address.to_string()).unwrap_or_default(),
        names,
        reason: Some(message(&reason)),
    }
}

fn grant(context: &Context, arguments: &GrantSigner) -> Result<u8, Failure> {
    let GrantSigner { creator, scopes, sigstore, shared, reason } = arguments;
    let kind = if *sigstore { SignatureKind::Sigstore } else { SignatureKind::Gpg };
    let daemon = Daemon::connect(&context.socket)?;
    let change = in_parts(scopes, |scopes| {
        daemon.ask(daemon.trust().grant(v1::GrantSignerRequest {
            creator: creator.to_string(),
            scopes,
            kind: kind.into(),
            shared: *shared,
            reason: Some(message(reason)),
        }))
    })?;
    print(context, GRANT, &format!("{} to {creator}", some(scopes)), reason.dry_run, change)
}

fn revoke(context: &Context, arguments: &RevokeSigner) -> Result<u8, Failure> {
    let RevokeSigner { creator, scopes, distrust_existing, reason } = arguments;
    let daemon = Daemon::connect(&context.socket)?;
    let change = in_parts(scopes, |scopes| {
        daemon.ask(daemon.trust().revoke(v1::RevokeSignerRequest {
            creator: creator.to_string(),
            scopes,
            distrust_existing: *distrust_existing,
            reason: Some(message(reason)),
        }))
    })?;
    let status = print(context, REVOKE, &format!("{} of {creator}", some(scopes)), reason.dry_run, change)?;
    if !context.output.is_json() {
        say_what_he_signed(context, &daemon, creator)?;
    }
    Ok(status)
}

/// What he signs no more is out there.
fn say_what_he_signed(context: &Context, daemon: &Daemon, creator: &AccountName) -> Result<(), Failure> {
    let request = v1::ListSignaturesRequest { creator: creator.to_string() };
    // He is revoked, and that is what this command was for: a failure here is none of it.
    let Ok(records) = daemon.ask_all(daemon.signatures().list(request)) else { return Ok(()) };
    if let Some(text) = signed(creator, &records) {
        context.output.bytes(text.as_bytes())?;
    }
    Ok(())
}

fn signed(creator: &AccountName, records: &[v1::SignatureRecord]) -> Option<String> {
    let trusted = records.iter().filter(|record| record.trusted).count();
    let total = count(records.len() as u64, "signature");
    (!records.is_empty()).then(|| {
        format!(
            "{creator} has published {total}, trusted now: {trusted}; they are listed by podsecctl image signatures \
             --creator {creator}\n"
        )
    })
}

/// `registry.local/team`, `3 scopes` or `all scopes`
fn some(scopes: &[Scope]) -> String {
    match scopes {
        [] => "all scopes".to_owned(),
        [one] => one.to_string(),
        more => count(more.len() as u64, "scope"),
    }
}

/// Several requests where the scopes do not fit into one; what came of all of them, as if it had been one.
fn in_parts(
    scopes: &[Scope],
    mut ask: impl FnMut(Vec<String>) -> Result<TrustChange, Failure>,
) -> Result<TrustChange, Failure> {
    let parts: Vec<Vec<String>> =
        scopes.chunks(MOST_SCOPES).map(|part| part.iter().map(ToString::to_string).collect()).collect();
    let Some((first, rest)) = parts.split_first() else { return ask(Vec::new()) };
    let mut whole = ask(first.clone())?;
    let mut done = first.len();
    for part in rest {
        let change = ask(part.clone()).inspect_err(|_| {
            aside(&format!("podsecctl: {done} of {} scopes were done before it failed", scopes.len()));
        })?;
        done += part.len();
        whole.changed |= change.changed;
        whole.revision = change.revision;
        whole.steps.extend(change.steps);
        whole.warnings.extend(
            change.warnings.into_iter().filter(|text| !whole.warnings.contains(text)).collect::<Vec<_>>(),
        );
    }
    Ok(whole)
}

fn print(
    context: &Context,
    verb: Verb,
    thing: &str,
    dry_run: bool,
    change: TrustChange,
) -> Result<u8, Failure> {
    if context.output.is_json() {
        return context.output.object(&object(&change));
    }
    context.output.bytes(text(&context.output, verb, thing, dry_run, change).as_bytes())
}

fn object(change: &TrustChange) -> Value {
    let TrustChange { revision, changed, steps, warnings } = change;
    json!({ "revision": revision, "changed": changed, "steps": steps, "warnings": warnings })
}

/// `granted registry.local/team to carol: revision 4`
fn text(output: &Output, verb: Verb, thing: &str, dry_run: bool, change: TrustChange) -> String {
    let TrustChange { revision, changed, steps, warnings } = change;
    let mut sentence = verb.sentence(thing, changed, dry_run);
    if changed {
        sentence += &format!(": revision {revision}");
    }
    many::text(output, sentence, &UserChange { changed, steps, warnings, fingerprint: String::new() }, true)
}

fn export(context: &Context, output: Option<&Path>) -> Result<u8, Failure> {
    if output.is_none() && (context.output.is_json() || std::io::stdout().is_terminal()) {
        let text = "the bundle is binary; --output says into which file it goes";
        return Err(Failure::Usage(text.into()));
    }
    let daemon = Daemon::connect(&context.socket)?;
    let parts = daemon.ask_all(daemon.trust().export(v1::ExportTrustRequest {}))?;
    let bundle: Vec<u8> = parts.into_iter().flat_map(|part| part.data).collect();
    if bundle.is_empty() {
        return Err(Failure::Nonsense("an empty bundle"));
    }
    let Some(path) = output else { return context.output.bytes(&bundle) };
    // As a whole, so that nobody syncs from half of one.
    let path = std::path::absolute(path).map_err(|error| Failure::Write(path.into(), error))?;
    podsec_sys::file::replace(&path, &bundle, 0o644).map_err(|error| Failure::Write(path.clone(), error))?;
    if context.output.is_json() {
        return context.output.object(&json!({ "file": path.to_string_lossy(), "bytes": bundle.len() }));
    }
    let text = format!("wrote {} bytes to {}\n", bundle.len(), clean(&path.to_string_lossy()));
    context.output.bytes(text.as_bytes())
}

/// Where a bundle comes from.
#[derive(Debug, PartialEq, Eq)]
enum From {
    Url(BundleUrl),
    File(PathBuf),
}

fn sync(context: &Context, arguments: &SyncTrust) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let from = match &arguments.from {
        Some(text) => from(text)?,
        None => followed(&daemon)?,
    };
    let (bundle, url) = match &from {
        From::Url(url) => (fetch::get(url, arguments.ca.as_deref())?, url.as_str().to_owned()),
        From::File(path) => (input::file(path, Bundle::LONGEST)?, String::new()),
    };
    let thing = match &from {
        From::Url(url) => format!("the trust of {}", url.as_str()),
        From::File(path) => format!("the trust in {}", clean(&path.to_string_lossy())),
    };
    // A new connection: the bundle may have been long in coming.
    let daemon = Daemon::connect(&context.socket)?;
    let change = daemon.ask(daemon.trust().sync(v1::SyncTrustRequest {
        bundle,
        url,
        fingerprint: arguments.fingerprint.as_ref().map(Fingerprint::as_str).unwrap_or_default().to_owned(),
        reason: Some(message(&arguments.reason)),
    }))?;
    print(context, SYNC, &thing, arguments.reason.dry_run, change)
}

fn from(text: &str) -> Result<From, Failure> {
    match cli::bundle_url(text).map_err(|error| Failure::Usage(error.to_string()))? {
        Some(url) => Ok(From::Url(url)),
        None => Ok(From::File(text.into())),
    }
}

/// Where it was fetched last.
fn followed(daemon: &Daemon) -> Result<From, Failure> {
    let nobody = || {
        let text = "this host follows no other one yet; say where its bundle is, such as \
                    http://sigstore.local/trust/bundle, and --fingerprint of its trust key";
        Failure::Usage(text.into())
    };
    let shown = match show::ask(daemon, None, false) {
        Err(failure) if failure.reason() == podsec_policy::Reason::NoTrust.name() => return Err(nobody()),
        shown => shown?,
    };
    if shown.settings.follows.is_empty() {
        return Err(nobody());
    }
    BundleUrl::new(shown.settings.follows)
        .map(From::Url)
        .map_err(|_| Failure::Nonsense("the URL of a bundle"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command as Top};
    use clap::Parser as _;

    fn command(line: &str) -> Command {
        let words = ["podsecctl", "trust"].into_iter().chain(line.split_whitespace());
        let Top::Trust(command) = Cli::try_parse_from(words).unwrap().command else { panic!("{line}") };
        *command
    }

    fn init_request(line: &str) -> v1::InitTrustRequest {
        let Command::Init(arguments) = command(line) else { panic!("{line}") };
        settings(arguments)
    }

    fn scopes(number: usize) -> Vec<Scope> {
        (0..number).map(|number| Scope::new(format!("registry.local/s{number}")).unwrap()).collect()
    }

    fn change(revision: u64, changed: bool) -> TrustChange {
        TrustChange { revision, changed, steps: vec!["write\x1b".into()], warnings: vec!["no key".into()] }
    }

    #[test]
    fn the_names_that_are_usual() {
        let request = init_request("init --address 10.0.0.1 --why because");
        assert_eq!(
            (request.registry.as_str(), request.signatures.as_str()),
            ("registry.local", "sigstore.local")
        );
        assert_eq!((request.address.as_str(), request.names), ("10.0.0.1", vec!["trivy.local".to_owned()]));
        assert_eq!(request.reason.unwrap().why, "because");
        assert!(init_request("init").names.is_empty());
        let request =
            init_request("init --address ::1 --name a.b --name c.d --registry r.a:5000 --http --overwrite");
        assert_eq!(request.names, ["a.b", "c.d"]);
        assert!(request.plain_http && request.registry == "r.a:5000" && request.reason.unwrap().overwrite);
    }

    #[test]
    fn many_scopes_are_several_requests() {
        let mut asked = Vec::new();
        let whole = in_parts(&scopes(250), |part| {
            asked.push(part.len());
            Ok(change(asked.len() as u64, asked.len() == 2))
        });
        let whole = whole.unwrap();
        assert_eq!(asked, [100, 100, 50]);
        assert_eq!((whole.revision, whole.changed, whole.steps.len()), (3, true, 3));
        assert_eq!(whole.warnings, ["no key"]);
        // none is one, and means all
        let mut asked = Vec::new();
        in_parts(&[], |part| {
            asked.push(part.len());
            Ok(change(1, true))
        })
        .unwrap();
        assert_eq!(asked, [0]);
        let mut asked = 0;
        let failed = in_parts(&scopes(300), |_| {
            asked += 1;
            if asked == 2 { Err(Failure::Closed) } else { Ok(change(1, true)) }
        });
        assert!(matches!(failed, Err(Failure::Closed)) && asked == 2);
    }

    #[test]
    fn a_change_is_told() {
        let told = |changed, dry_run| {
            text(&Output::plain(), GRANT, "registry.local/team to carol", dry_run, change(4, changed))
        };
        let rest = "  write\\x1b\n  warning: no key\n";
        assert_eq!(told(true, false), format!("granted registry.local/team to carol: revision 4\n{rest}"));
        assert_eq!(told(true, true), format!("would grant registry.local/team to carol: revision 4\n{rest}"));
        let nothing = "registry.local/team to carol was granted already; nothing to do\n";
        assert_eq!(told(false, false), format!("{nothing}{rest}"));
        assert_eq!(object(&change(4, true))["revision"], 4);
    }

    #[test]
    fn where_a_bundle_comes_from() {
        let url = "https://sigstore.local:8443/trust/bundle";
        assert_eq!(from(url).unwrap(), From::Url(BundleUrl::new(url).unwrap()));
        assert_eq!(from("-").unwrap(), From::File("-".into()));
        assert!(matches!(from("file:///etc/shadow"), Err(Failure::Usage(_))));
    }

    #[test]
    fn what_a_revoked_creator_left() {
        let carol = AccountName::new("carol").unwrap();
        assert_eq!(signed(&carol, &[]), None);
        let records = [true, false].map(|trusted| v1::SignatureRecord { trusted, ..Default::default() });
        let said = signed(&carol, &records).unwrap();
        assert!(said.starts_with("carol has published 2 signatures, trusted now: 1; "), "{said}");
    }
}
