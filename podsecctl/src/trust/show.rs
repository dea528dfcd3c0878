//! `podsecctl trust show` and `history`

use crate::Context;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{Output, Style, clean};
use crate::time;
use podsec_proto::v1::{
    self, FileState, SignatureKind, TrustFile, TrustKey, TrustRevision, TrustScope, TrustSettings,
    TrustSigner, trust_part::Part,
};
use serde_json::{Value, json};
use std::num::NonZeroU64;

/// One revision.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Who made it, when and why.
    pub head: TrustRevision,
    /// Where images and signatures are.
    pub settings: TrustSettings,
    /// Who signs where.
    pub scopes: Vec<TrustScope>,
    /// By what.
    pub keys: Vec<TrustKey>,
    /// What follows from it on this host.
    pub files: Vec<TrustFile>,
}

/// A revision, or the current one; with the contents of its files, or without.
///
/// # Errors
/// [`Failure`]
pub fn ask(daemon: &Daemon, revision: Option<NonZeroU64>, files: bool) -> Result<Shown, Failure> {
    let request = v1::ShowTrustRequest { revision: revision.map_or(0, NonZeroU64::get), files };
    let parts = daemon.ask_all(daemon.trust().show(request))?;
    Ok(gather(parts.into_iter().filter_map(|part| part.part)))
}

fn gather(parts: impl IntoIterator<Item = Part>) -> Shown {
    let mut shown = Shown::default();
    for part in parts {
        match part {
            Part::Revision(head) => shown.head = head,
            Part::Settings(settings) => shown.settings = settings,
            Part::Scope(scope) => shown.scopes.push(scope),
            Part::Key(key) => shown.keys.push(key),
            Part::File(file) => match shown.files.last_mut() {
                Some(last) if last.path == file.path => last.contents.extend(file.contents),
                _ => shown.files.push(file),
            },
        }
    }
    shown
}

pub fn run(context: &Context, revision: Option<NonZeroU64>) -> Result<u8, Failure> {
    let shown = ask(&Daemon::connect(&context.socket)?, revision, false)?;
    if context.output.is_json() {
        return context.output.object(&object(&shown));
    }
    context.output.bytes(text(&context.output, &shown, revision.is_none()).as_bytes())
}

/// `gpg`
pub fn kind(kind: SignatureKind) -> &'static str {
    match kind {
        SignatureKind::Gpg => "gpg",
        SignatureKind::Sigstore => "sigstore",
        SignatureKind::Unspecified => "unknown",
    }
}

fn state(state: FileState) -> (&'static str, Style) {
    match state {
        FileState::Same => ("as written", Style::Good),
        FileState::Changed => ("changed by hand", Style::Bad),
        FileState::Missing => ("missing", Style::Bad),
        FileState::Unspecified => ("unknown", Style::Warn),
    }
}

fn file_word(file: &TrustFile) -> &'static str {
    match file.state() {
        FileState::Same => "same",
        FileState::Changed => "changed",
        FileState::Missing => "missing",
        FileState::Unspecified => "unknown",
    }
}

fn head(head: &TrustRevision) -> Value {
    json!({
        "revision": head.revision,
        "time": head.time,
        "uid": head.uid,
        "user": head.user,
        "what": head.what,
        "why": head.why,
        "scopes": head.scopes,
    })
}

fn object(shown: &Shown) -> Value {
    let TrustSettings { registry, signatures, plain_http, address, names, follows, fingerprint } =
        &shown.settings;
    let signer = |signer: &TrustSigner| json!({ "creator": signer.creator, "retired": signer.retired });
    let scope = |scope: &TrustScope| {
        json!({
            "scope": scope.scope,
            "kind": kind(scope.kind()),
            "signers": scope.signers.iter().map(signer).collect::<Value>(),
        })
    };
    let key = |key: &TrustKey| json!({ "creator": key.creator, "fingerprint": key.fingerprint, "kind": kind(key.kind()) });
    let file = |file: &TrustFile| json!({ "path": file.path, "state": file_word(file) });
    json!({
        "revision": head(&shown.head),
        "settings": {
            "registry": registry,
            "signatures": signatures,
            "plain_http": plain_http,
            "address": (!address.is_empty()).then_some(address),
            "names": names,
            "follows": (!follows.is_empty()).then_some(follows),
            "fingerprint": (!fingerprint.is_empty()).then_some(fingerprint),
        },
        "scopes": shown.scopes.iter().map(scope).collect::<Value>(),
        "keys": shown.keys.iter().map(key).collect::<Value>(),
        "files": shown.files.iter().map(file).collect::<Value>(),
    })
}

/// `carol, dave (retired)`
pub fn signers(scope: &TrustScope) -> String {
    let name = |signer: &TrustSigner| {
        format!("{}{}", clean(&signer.creator), if signer.retired { " (retired)" } else { "" })
    };
    scope.signers.iter().map(name).collect::<Vec<_>>().join(", ")
}

fn text(output: &Output, shown: &Shown, is_current: bool) -> String {
    let mut text = facts(output, shown);
    if shown.scopes.is_empty() {
        text += "\nnobody signs anywhere, so no image runs; `podsecctl trust grant` lets a creator sign\n";
    } else {
        let row =
            |scope: &TrustScope| vec![clean(&scope.scope), kind(scope.kind()).to_owned(), signers(scope)];
        let rows: Vec<_> = shown.scopes.iter().map(row).collect();
        text += &format!("\n{}", output.table(&["SCOPE", "SIGNATURES", "SIGNERS"], &rows));
    }
    if !shown.keys.is_empty() {
        let row =
            |key: &TrustKey| vec![clean(&key.creator), kind(key.kind()).to_owned(), clean(&key.fingerprint)];
        let rows: Vec<_> = shown.keys.iter().map(row).collect();
        text += &format!("\n{}", output.table(&["CREATOR", "KIND", "KEY"], &rows));
    }
    // What is on the host now is no news about an old revision.
    if is_current && !shown.files.is_empty() {
        let row = |file: &TrustFile| {
            let (word, style) = state(file.state());
            vec![clean(&file.path), output.paint(style, word)]
        };
        let rows: Vec<_> = shown.files.iter().map(row).collect();
        text += &format!("\n{}", output.table(&["FILE", "STATE"], &rows));
        let drifted = shown.files.iter().filter(|file| file.state() != FileState::Same).count();
        if drifted > 0 {
            let (what, warning) =
                (if drifted == 1 { "a file is" } else { "files are" }, output.paint(Style::Warn, "warning:"));
            text += &format!(
                "{warning} {what} not as podsec wrote it: what runs here may not be what stands above. `podsecctl trust \
                 diff` shows what was changed; --overwrite of init, grant, revoke, rollback or sync writes it anew\n"
            );
        }
    }
    text
}

fn facts(output: &Output, shown: &Shown) -> String {
    let TrustRevision { revision, time, uid, user, why, what, .. } = &shown.head;
    let TrustSettings { registry, signatures, plain_http, address, names, follows, fingerprint } =
        &shown.settings;
    let user = if user.is_empty() { uid.to_string() } else { format!("{} ({uid})", clean(user)) };
    let http = if *plain_http { " over plain HTTP" } else { "" };
    let hosts = match (address.as_str(), names.as_slice()) {
        ("", _) => String::new(),
        (address, []) => format!("{}, in /etc/hosts", clean(address)),
        (address, names) => {
            let names: Vec<_> = names.iter().map(|name| clean(name)).collect();
            format!("{}, in /etc/hosts, also for {}", clean(address), names.join(", "))
        }
    };
    output.facts(&[
        ("revision", revision.to_string()),
        ("made", format!("{} by {user}", time::show(*time))),
        ("what", clean(what)),
        ("why", clean(why)),
        ("registry", format!("{}{http}", clean(registry))),
        ("signatures", format!("{}{http}", clean(signatures))),
        ("address", hosts),
        ("follows", clean(follows)),
        ("trust key", clean(fingerprint)),
    ])
}

pub fn history(context: &Context) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let revisions = daemon.ask_all(daemon.trust().history(v1::TrustHistoryRequest {}))?;
    if context.output.is_json() {
        return context.output.object(&json!({ "revisions": revisions.iter().map(head).collect::<Value>() }));
    }
    context.output.bytes(list(&context.output, &revisions).as_bytes())
}

fn list(output: &Output, revisions: &[TrustRevision]) -> String {
    let row = |revision: &TrustRevision| {
        vec![
            revision.revision.to_string(),
            time::show(revision.time),
            clean(&revision.user),
            revision.scopes.to_string(),
            clean(&revision.what),
            clean(&revision.why),
        ]
    };
    let rows: Vec<_> = revisions.iter().map(row).collect();
    output.table(&["REVISION", "TIME", "USER", "SCOPES", "WHAT", "WHY"], &rows)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// As podsecd sends it.
    pub fn shown() -> Shown {
        let head = TrustRevision {
            revision: 4,
            time: 1_769_846_400,
            uid: 1000,
            user: "alice".into(),
            why: "new team\x1b[2J".into(),
            what: "carol signs in registry.local/team".into(),
            scopes: 1,
        };
        let settings = TrustSettings {
            registry: "registry.local".into(),
            signatures: "sigstore.local:81".into(),
            plain_http: true,
            address: "10.0.0.1".into(),
            names: vec!["trivy.local".into()],
            follows: String::new(),
            fingerprint: "4B83F0A2A71780556F9AFD23DCB6E4EDD5367651".into(),
        };
        let signer = |creator: &str, retired| TrustSigner { creator: creator.into(), retired };
        let scope = TrustScope {
            scope: "registry.local/team".into(),
            kind: SignatureKind::Gpg.into(),
            signers: vec![signer("carol", false), signer("dave", true)],
        };
        let key = TrustKey {
            creator: "carol".into(),
            fingerprint: "0123456789ABCDEF0123456789ABCDEF01234567".into(),
            kind: SignatureKind::Gpg.into(),
        };
        let file = |path: &str, state: FileState, contents: &[u8]| {
            Part::File(TrustFile { path: path.into(), state: state.into(), contents: contents.into() })
        };
        gather([
            Part::Revision(head),
            Part::Settings(settings),
            Part::Scope(scope),
            Part::Key(key),
            file("/etc/containers/policy.json", FileState::Changed, b"a"),
            file("/etc/containers/policy.json", FileState::Changed, b"b"),
            file("/etc/hosts", FileState::Same, b"c"),
        ])
    }

    #[test]
    fn for_people() {
        let expected = "\
revision    4
made        2026-01-31T08:00:00Z by alice (1000)
what        carol signs in registry.local/team
why         new team\\x1b[2J
registry    registry.local over plain HTTP
signatures  sigstore.local:81 over plain HTTP
address     10.0.0.1, in /etc/hosts, also for trivy.local
trust key   4B83F0A2A71780556F9AFD23DCB6E4EDD5367651

SCOPE                SIGNATURES  SIGNERS
registry.local/team  gpg         carol, dave (retired)

CREATOR  KIND  KEY
carol    gpg   0123456789ABCDEF0123456789ABCDEF01234567

FILE                         STATE
/etc/containers/policy.json  changed by hand
/etc/hosts                   as written
warning: a file is not as podsec wrote it: ";
        let said = text(&Output::plain(), &shown(), true);
        assert!(said.starts_with(expected) && said.contains("podsecctl trust diff"), "{said}");
        let old = text(&Output::plain(), &shown(), false);
        assert!(!old.contains("FILE") && !old.contains("warning"), "{old}");
        let nobody = text(&Output::plain(), &Shown::default(), true);
        assert!(nobody.contains("so no image runs"), "{nobody}");
    }

    #[test]
    fn for_programs() {
        let object = object(&shown());
        assert_eq!(object["revision"]["revision"], 4);
        assert_eq!(object["settings"]["follows"], Value::Null);
        assert_eq!(object["scopes"][0]["signers"][1], json!({ "creator": "dave", "retired": true }));
        assert_eq!(object["files"][0], json!({ "path": "/etc/containers/policy.json", "state": "changed" }));
    }

    #[test]
    fn long_files_come_in_parts() {
        let files = shown().files;
        assert_eq!(files.iter().map(|file| file.contents.as_slice()).collect::<Vec<_>>(), [&b"ab"[..], b"c"]);
    }

    #[test]
    fn revisions_in_a_table() {
        let expected = "\
REVISION  TIME                  USER   SCOPES  WHAT                                WHY
4         2026-01-31T08:00:00Z  alice  1       carol signs in registry.local/team  new team\\x1b[2J
";
        assert_eq!(list(&Output::plain(), &[shown().head]), expected);
    }
}
