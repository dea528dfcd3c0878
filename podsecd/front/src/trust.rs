//! `podsec.v1.TrustService`: whose signatures are demanded of what as operations, and what workers found as its
//! messages.
//!
//! Must not look into a bundle, nor fetch one: what another host's bytes are worth is for a process with less to lose.

use crate::dispatch::{Outcome, Rpc};
use crate::status::Failure;
use crate::users::account;
use podsec_policy::operation::Method;
use podsec_policy::trust::{
    Bundle, BundleUrl, Endpoint, GrantSigner, HostName, InitTrust, MOST_SCOPES, RevokeSigner, RollbackTrust,
    Settings, ShowTrust, SignatureKind, SyncTrust, TrustReason, Why,
};
use podsec_policy::user::{Fingerprint, Scope};
use podsec_policy::{Operation, Reason};
use podsec_proto::v1::{
    self, BundlePart, ExportTrustRequest, GrantSignerRequest, InitTrustRequest, RevokeSignerRequest,
    RollbackTrustRequest, ShowTrustRequest, SyncTrustRequest, TrustChange, TrustHistoryRequest,
    TrustRevision, trust_part,
};
use podsec_wire::messages::{FileState, Reply, Revision, TrustPart};
use std::net::IpAddr;

impl Rpc for InitTrustRequest {
    const METHOD: Method = Method::InitTrust;
    type Response = TrustChange;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::InitTrust(Box::new(InitTrust {
            settings: Settings {
                registry: endpoint("registry", self.registry)?,
                signatures: endpoint("signatures", self.signatures)?,
                plain_http: self.plain_http,
                address: address_or_none("address", &self.address)?,
                names: names(self.names)?,
            },
            reason: reason(self.reason)?,
        })))
    }

    fn response(outcome: Outcome) -> Option<TrustChange> {
        change(outcome)
    }
}

fn endpoint(field: &str, text: String) -> Result<Endpoint, Failure> {
    Endpoint::new(text).map_err(|error| Failure::at(field, Reason::BadHost, error))
}

/// An address of a host in this field, or nothing.
pub(crate) fn address_or_none(field: &str, text: &str) -> Result<Option<IpAddr>, Failure> {
    let bad = |_| Failure::at(field, Reason::BadHost, "not an IPv4 or IPv6 address");
    Some(text).filter(|text| !text.is_empty()).map(|text| text.parse().map_err(bad)).transpose()
}

fn names(texts: Vec<String>) -> Result<Vec<HostName>, Failure> {
    let (count, most) = (texts.len(), Settings::MOST_NAMES);
    if count > most {
        let error = format!("at most {most} further names, here are {count}");
        return Err(Failure::at("names", Reason::BadHost, error));
    }
    let names = texts.into_iter().enumerate().map(|(index, text)| {
        HostName::new(text).map_err(|error| Failure::at(&format!("names[{index}]"), Reason::BadHost, error))
    });
    names.collect()
}

/// What a change says of itself, if anything.
fn reason(given: Option<v1::TrustReason>) -> Result<TrustReason, Failure> {
    let v1::TrustReason { why, dry_run, overwrite } = given.unwrap_or_default();
    let why = Why::new(why).map_err(|error| Failure::at("reason.why", Reason::BadArgument, error))?;
    Ok(TrustReason { why, dry_run, overwrite })
}

/// What every change of trust answers.
fn change(outcome: Outcome) -> Option<TrustChange> {
    let Outcome::Reply(Reply::Trust(revision, change)) = outcome else { return None };
    let changed = !change.steps.is_empty();
    Some(TrustChange { revision, changed, steps: change.steps, warnings: change.warnings })
}

impl Rpc for ShowTrustRequest {
    const METHOD: Method = Method::ShowTrust;
    type Response = v1::TrustPart;

    fn operation(self) -> Result<Operation, Failure> {
        let revision = Some(self.revision).filter(|&revision| revision > 0);
        Ok(Operation::ShowTrust(ShowTrust { revision, files: self.files }))
    }

    fn response(outcome: Outcome) -> Option<v1::TrustPart> {
        let Outcome::Reply(Reply::TrustPart(part)) = outcome else { return None };
        Some(v1::TrustPart { part: Some(shown(*part)) })
    }
}

fn shown(part: TrustPart) -> trust_part::Part {
    use trust_part::Part;
    match part {
        TrustPart::Revision(head) => Part::Revision(revision(head)),
        TrustPart::Settings { settings, follows, fingerprint } => Part::Settings(v1::TrustSettings {
            registry: settings.registry.into(),
            signatures: settings.signatures.into(),
            plain_http: settings.plain_http,
            address: settings.address.map(|address| address.to_string()).unwrap_or_default(),
            names: settings.names.into_iter().map(String::from).collect(),
            follows: follows.unwrap_or_default(),
            fingerprint: fingerprint.map(String::from).unwrap_or_default(),
        }),
        TrustPart::Scope { scope, kind, signers } => {
            let signers = signers.into_iter();
            let signers =
                signers.map(|(creator, retired)| v1::TrustSigner { creator: creator.into(), retired });
            Part::Scope(v1::TrustScope {
                scope: scope.into(),
                kind: shown_kind(kind).into(),
                signers: signers.collect(),
            })
        }
        TrustPart::Key { creator, fingerprint, kind } => Part::Key(v1::TrustKey {
            creator: creator.into(),
            fingerprint: fingerprint.into(),
            kind: shown_kind(kind).into(),
        }),
        TrustPart::File { path, state, contents } => {
            let state = match state {
                FileState::Same => v1::FileState::Same,
                FileState::Changed => v1::FileState::Changed,
                FileState::Missing => v1::FileState::Missing,
            };
            Part::File(v1::TrustFile { path, state: state.into(), contents })
        }
    }
}

fn revision(head: Revision) -> TrustRevision {
    TrustRevision {
        revision: head.revision,
        time: head.time,
        uid: head.uid,
        user: head.user,
        why: head.why.into(),
        what: head.what,
        scopes: head.scopes,
    }
}

fn shown_kind(kind: SignatureKind) -> v1::SignatureKind {
    match kind {
        SignatureKind::Gpg => v1::SignatureKind::Gpg,
        SignatureKind::Sigstore => v1::SignatureKind::Sigstore,
    }
}

impl Rpc for TrustHistoryRequest {
    const METHOD: Method = Method::TrustHistory;
    type Response = TrustRevision;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::TrustHistory)
    }

    fn response(outcome: Outcome) -> Option<TrustRevision> {
        let Outcome::Reply(Reply::TrustPart(part)) = outcome else { return None };
        let TrustPart::Revision(head) = *part else { return None };
        Some(revision(head))
    }
}

impl Rpc for RollbackTrustRequest {
    const METHOD: Method = Method::RollbackTrust;
    type Response = TrustChange;

    fn operation(self) -> Result<Operation, Failure> {
        if self.revision == 0 {
            return Err(Failure::at("revision", Reason::BadArgument, "revisions are numbered from 1"));
        }
        let reason = reason(self.reason)?;
        Ok(Operation::RollbackTrust(RollbackTrust { revision: self.revision, reason }))
    }

    fn response(outcome: Outcome) -> Option<TrustChange> {
        change(outcome)
    }
}

impl Rpc for GrantSignerRequest {
    const METHOD: Method = Method::GrantSigner;
    type Response = TrustChange;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::GrantSigner(Box::new(GrantSigner {
            creator: account("creator", self.creator)?,
            scopes: scopes(1, self.scopes)?,
            kind: kind(self.kind)?,
            shared: self.shared,
            reason: reason(self.reason)?,
        })))
    }

    fn response(outcome: Outcome) -> Option<TrustChange> {
        change(outcome)
    }
}

/// At least so many scopes, none twice: whoever writes one twice meant another.
fn scopes(least: usize, texts: Vec<String>) -> Result<Vec<Scope>, Failure> {
    let bad = |error: String| Failure::at("scopes", Reason::BadScope, error);
    if !(least..=MOST_SCOPES).contains(&texts.len()) {
        return Err(bad(format!("{least} to {MOST_SCOPES} scopes at once, here are {}", texts.len())));
    }
    let scopes = texts.into_iter().enumerate().map(|(index, text)| {
        Scope::new(text).map_err(|error| Failure::at(&format!("scopes[{index}]"), Reason::BadScope, error))
    });
    let scopes: Vec<_> = scopes.collect::<Result<_, _>>()?;
    for (index, scope) in scopes.iter().enumerate() {
        if let Some(first) = scopes.iter().take(index).position(|other| other == scope) {
            return Err(bad(format!("number {index} is number {first} again")));
        }
    }
    Ok(scopes)
}

fn kind(number: i32) -> Result<SignatureKind, Failure> {
    match v1::SignatureKind::try_from(number) {
        Ok(v1::SignatureKind::Gpg) => Ok(SignatureKind::Gpg),
        Ok(v1::SignatureKind::Sigstore) => Ok(SignatureKind::Sigstore),
        Ok(v1::SignatureKind::Unspecified) | Err(_) => {
            Err(Failure::at("kind", Reason::BadArgument, "say gpg or sigstore"))
        }
    }
}

impl Rpc for RevokeSignerRequest {
    const METHOD: Method = Method::RevokeSigner;
    type Response = TrustChange;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::RevokeSigner(Box::new(RevokeSigner {
            creator: account("creator", self.creator)?,
            scopes: scopes(0, self.scopes)?,
            distrust: self.distrust_existing,
            reason: reason(self.reason)?,
        })))
    }

    fn response(outcome: Outcome) -> Option<TrustChange> {
        change(outcome)
    }
}

impl Rpc for ExportTrustRequest {
    const METHOD: Method = Method::ExportTrust;
    type Response = BundlePart;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::ExportTrust)
    }

    fn response(outcome: Outcome) -> Option<BundlePart> {
        let Outcome::Reply(Reply::Bytes(data)) = outcome else { return None };
        Some(BundlePart { data })
    }
}

impl Rpc for SyncTrustRequest {
    const METHOD: Method = Method::SyncTrust;
    type Response = TrustChange;

    fn operation(self) -> Result<Operation, Failure> {
        let bundle = Bundle::new(self.bundle);
        let url = Some(self.url).filter(|url| !url.is_empty()).map(BundleUrl::new).transpose();
        Ok(Operation::SyncTrust(Box::new(SyncTrust {
            bundle: bundle.map_err(|error| Failure::at("bundle", Reason::BadArgument, error))?,
            url: url.map_err(|error| Failure::at("url", Reason::BadArgument, error))?,
            fingerprint: trust_key(&self.fingerprint)?,
            reason: reason(self.reason)?,
        })))
    }

    fn response(outcome: Outcome) -> Option<TrustChange> {
        change(outcome)
    }
}

/// A trust key is OpenPGP's, and sigstore's keys have longer fingerprints.
fn trust_key(digits: &str) -> Result<Option<Fingerprint>, Failure> {
    match Fingerprint::new(digits) {
        _ if digits.is_empty() => Ok(None),
        Ok(fingerprint) if digits.len() == 40 => Ok(Some(fingerprint)),
        _ => Err(Failure::at("fingerprint", Reason::BadArgument, "a trust key's has 40 hexadecimal digits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::name::AccountName;
    use podsec_wire::messages::Change;
    use proptest::prelude::*;

    const DIGITS: &str = "0123456789abcdefABCD0123456789abcdefABCD";
    const URL: &str = "https://sigstore.local:8443/trust/bundle";

    fn init(registry: &str, signatures: &str, address: &str, names: &[&str]) -> InitTrustRequest {
        InitTrustRequest {
            registry: registry.into(),
            signatures: signatures.into(),
            plain_http: false,
            address: address.into(),
            names: texts(names),
            reason: None,
        }
    }

    fn grant(creator: &str, scopes: &[&str], kind: i32) -> GrantSignerRequest {
        let scopes = texts(scopes);
        GrantSignerRequest { creator: creator.into(), scopes, kind, shared: false, reason: None }
    }

    fn revoke(creator: &str, scopes: &[&str]) -> RevokeSignerRequest {
        let scopes = texts(scopes);
        RevokeSignerRequest { creator: creator.into(), scopes, distrust_existing: false, reason: None }
    }

    fn sync(bundle: Vec<u8>, url: &str, fingerprint: &str) -> SyncTrustRequest {
        SyncTrustRequest { bundle, url: url.into(), fingerprint: fingerprint.into(), reason: None }
    }

    fn rollback(revision: u64) -> RollbackTrustRequest {
        RollbackTrustRequest { revision, reason: None }
    }

    fn because(why: &str) -> Option<v1::TrustReason> {
        Some(v1::TrustReason { why: why.into(), ..v1::TrustReason::default() })
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|&text| text.to_owned()).collect()
    }

    fn many(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("a{number}.b")).collect()
    }

    fn carol() -> AccountName {
        AccountName::new("carol").unwrap()
    }

    fn some_scopes<T: AsRef<str>>(texts: &[T]) -> Vec<Scope> {
        texts.iter().map(|text| Scope::new(text.as_ref()).unwrap()).collect()
    }

    fn host(name: &str) -> HostName {
        HostName::new(name).unwrap()
    }

    fn settings(registry: &str, signatures: &str) -> Settings {
        let (registry, signatures) = (Endpoint::new(registry).unwrap(), Endpoint::new(signatures).unwrap());
        Settings { registry, signatures, plain_http: false, address: None, names: Vec::new() }
    }

    #[test]
    fn settings_arrive() {
        for (given, expected) in [
            (init("r.a", "s.a:81", "", &[]), settings("r.a", "s.a:81")),
            (
                InitTrustRequest { plain_http: true, ..init("r.a:5000", "s.a", "10.1.2.3", &["t.a", "t.b"]) },
                Settings {
                    plain_http: true,
                    address: Some("10.1.2.3".parse().unwrap()),
                    names: vec![host("t.a"), host("t.b")],
                    ..settings("r.a:5000", "s.a")
                },
            ),
            (
                init("r.a", "r.a", "fd00::1", &["a.b"; 8]),
                Settings {
                    address: Some("fd00::1".parse().unwrap()),
                    names: vec![host("a.b"); 8],
                    ..settings("r.a", "r.a")
                },
            ),
        ] {
            let expected = InitTrust { settings: expected, reason: TrustReason::default() };
            assert_eq!(given.operation().unwrap(), Operation::InitTrust(Box::new(expected)));
        }
    }

    #[test]
    fn every_field_arrives() {
        let none = TrustReason::default;
        let (all, scopes) = (many(100), ["a.b/c", "a.b", "c.d:5000"]);
        let all: Vec<_> = all.iter().map(String::as_str).collect();
        let granted = |scopes, kind, shared| {
            let grant = GrantSigner { creator: carol(), scopes, kind, shared, reason: none() };
            Operation::GrantSigner(Box::new(grant))
        };
        let revoked = |scopes, distrust| {
            let revoke = RevokeSigner { creator: carol(), scopes, distrust, reason: none() };
            Operation::RevokeSigner(Box::new(revoke))
        };
        let synced = |bundle, url, fingerprint| {
            let bundle = Bundle::new(bundle).unwrap();
            Operation::SyncTrust(Box::new(SyncTrust { bundle, url, fingerprint, reason: none() }))
        };
        let shown = |revision, files| Operation::ShowTrust(ShowTrust { revision, files });
        let (url, fingerprint) = (BundleUrl::new(URL).unwrap(), Fingerprint::new(DIGITS).unwrap());
        // any bytes: the bundle is not looked into here
        let (least, most) = (vec![0xff], vec![b'x'; Bundle::LONGEST]);
        let shared = GrantSignerRequest { shared: true, ..grant("carol", &all, 2) };
        let distrusted = RevokeSignerRequest { distrust_existing: true, ..revoke("carol", &all) };
        for (given, expected) in [
            (ShowTrustRequest { revision: 0, files: true }.operation(), shown(None, true)),
            (ShowTrustRequest { revision: u64::MAX, files: false }.operation(), shown(Some(u64::MAX), false)),
            (TrustHistoryRequest {}.operation(), Operation::TrustHistory),
            (
                rollback(1).operation(),
                Operation::RollbackTrust(RollbackTrust { revision: 1, reason: none() }),
            ),
            // in the order that they came in, and one may contain another
            (
                grant("carol", &scopes, 1).operation(),
                granted(some_scopes(&scopes), SignatureKind::Gpg, false),
            ),
            (shared.operation(), granted(some_scopes(&all), SignatureKind::Sigstore, true)),
            (revoke("carol", &[]).operation(), revoked(Vec::new(), false)),
            (distrusted.operation(), revoked(some_scopes(&all), true)),
            (ExportTrustRequest {}.operation(), Operation::ExportTrust),
            (sync(least.clone(), "", "").operation(), synced(least, None, None)),
            (
                sync(most.clone(), URL, &DIGITS.to_lowercase()).operation(),
                synced(most, Some(url), Some(fingerprint)),
            ),
        ] {
            assert_eq!(given.unwrap(), expected);
        }
    }

    /// Requests of every kind of change, with this about themselves.
    fn changes(reason: &Option<v1::TrustReason>) -> [Result<Operation, Failure>; 5] {
        let reason = || reason.clone();
        [
            InitTrustRequest { reason: reason(), ..init("r.a", "s.a", "", &[]) }.operation(),
            RollbackTrustRequest { reason: reason(), ..rollback(7) }.operation(),
            GrantSignerRequest { reason: reason(), ..grant("carol", &["a.b"], 1) }.operation(),
            RevokeSignerRequest { reason: reason(), ..revoke("carol", &[]) }.operation(),
            SyncTrustRequest { reason: reason(), ..sync(vec![0], "", "") }.operation(),
        ]
    }

    #[test]
    fn reasons_arrive() {
        for (why, dry_run, overwrite) in
            [("", true, false), ("", false, true), ("ноутбук украден", true, true), ("", false, false)]
        {
            let expected = TrustReason { why: Why::new(why).unwrap(), dry_run, overwrite };
            for operation in changes(&Some(v1::TrustReason { why: why.into(), dry_run, overwrite })) {
                let reason = match operation.unwrap() {
                    Operation::InitTrust(init) => init.reason,
                    Operation::RollbackTrust(rollback) => rollback.reason,
                    Operation::GrantSigner(grant) => grant.reason,
                    Operation::RevokeSigner(revoke) => revoke.reason,
                    Operation::SyncTrust(sync) => sync.reason,
                    other => panic!("{other:?}"),
                };
                assert_eq!(reason, expected);
            }
        }
        for why in ["two\nlines", "\u{202e}", &"x".repeat(201)] {
            for operation in changes(&because(why)) {
                let failure = operation.unwrap_err();
                assert_eq!(failure.reason, Reason::BadArgument);
                assert!(failure.detail.starts_with("reason.why: a reason has "), "{}", failure.detail);
            }
        }
    }

    #[test]
    fn every_mistake_in_settings_names_its_field() {
        for (given, start) in [
            (init("", "s.a", "", &[]), "registry: an endpoint is a host "),
            (init("registry", "s.a", "", &[]), "registry: "),
            (init("r.a/x", "s.a", "", &[]), "registry: "),
            (init("https://r.a", "s.a", "", &[]), "registry: "),
            (init("r.a:0", "s.a", "", &[]), "registry: "),
            (init("r.a\n127.0.0.1 x.y", "s.a", "", &[]), "registry: "),
            (init("r.a", "", "", &[]), "signatures: an endpoint is a host "),
            (init("r.a", "S.a", "", &[]), "signatures: "),
            (init("r.a", "s.a", "r.a", &[]), "address: not an IPv4 or IPv6 address"),
            (init("r.a", "s.a", "10.1.2.3 ", &[]), "address: "),
            (init("r.a", "s.a", "10.1.2.03", &[]), "address: "),
            (init("r.a", "s.a", "10.1.2.3:80", &[]), "address: "),
            (init("r.a", "s.a", "fe80::1%eth0", &[]), "address: "),
            (init("r.a", "s.a", "10.1.2.3\n0.0.0.0 x.y", &[]), "address: "),
            (init("r.a", "s.a", "", &["a.b", ""]), "names[1]: a host is a name "),
            (init("r.a", "s.a", "", &["localhost"]), "names[0]: "),
            (init("r.a", "s.a", "", &["a.b", "a.b:80"]), "names[1]: "),
            (init("r.a", "s.a", "", &["a.b c.d"]), "names[0]: "),
            (init("r.a", "s.a", "", &["a.b#"]), "names[0]: "),
            (init("r.a", "s.a", "", &["a.b"; 9]), "names: at most 8 further names, here are 9"),
        ] {
            let failure = given.operation().unwrap_err();
            assert_eq!(failure.reason, Reason::BadHost, "{}", failure.detail);
            assert!(failure.detail.starts_with(start), "{}", failure.detail);
        }
    }

    #[test]
    fn every_mistake_names_its_field() {
        let (sixty_four, long) = ("0a".repeat(32), vec![0; Bundle::LONGEST + 1]);
        let one = || vec![0];
        for (given, start, reason) in [
            (rollback(0).operation(), "revision: ", Reason::BadArgument),
            (grant("", &["a.b"], 1).operation(), "creator: a name has 1 to 32 ", Reason::BadName),
            (grant("Carol", &["a.b"], 1).operation(), "creator: character 1 ", Reason::BadName),
            (
                grant("carol", &[], 1).operation(),
                "scopes: 1 to 100 scopes at once, here are 0",
                Reason::BadScope,
            ),
            (
                grant("carol", &["a.b"; 101], 1).operation(),
                "scopes: 1 to 100 scopes at once, here are 101",
                Reason::BadScope,
            ),
            (
                grant("carol", &["a.b", "c.d", "e.f", "*"], 1).operation(),
                "scopes[3]: a scope begins ",
                Reason::BadScope,
            ),
            (grant("carol", &["a.b", "c.d/X"], 1).operation(), "scopes[1]: part 1 ", Reason::BadScope),
            (
                grant("carol", &["e.f", "a.b", "c.d", "a.b"], 1).operation(),
                "scopes: number 3 is number 1 again",
                Reason::BadScope,
            ),
            (grant("carol", &["a.b"], 0).operation(), "kind: say gpg or sigstore", Reason::BadArgument),
            (grant("carol", &["a.b"], 3).operation(), "kind: say gpg or sigstore", Reason::BadArgument),
            (grant("carol", &["a.b"], -1).operation(), "kind: ", Reason::BadArgument),
            (revoke("", &[]).operation(), "creator: a name has 1 to 32 ", Reason::BadName),
            (revoke("carol", &[""]).operation(), "scopes[0]: a scope has ", Reason::BadScope),
            (
                revoke("carol", &["a.b"; 101]).operation(),
                "scopes: 0 to 100 scopes at once, here are 101",
                Reason::BadScope,
            ),
            (
                revoke("carol", &["a.b", "a.b"]).operation(),
                "scopes: number 1 is number 0 again",
                Reason::BadScope,
            ),
            (
                sync(Vec::new(), "", "").operation(),
                "bundle: a bundle has 1 to 131072 bytes, this one has 0",
                Reason::BadArgument,
            ),
            (
                sync(long, "", "").operation(),
                "bundle: a bundle has 1 to 131072 bytes, this one has 131073",
                Reason::BadArgument,
            ),
            (
                sync(one(), "file:///etc/shadow", "").operation(),
                "url: a bundle's URL is ",
                Reason::BadArgument,
            ),
            (sync(one(), "https://u:p@a.b/c", "").operation(), "url: ", Reason::BadArgument),
            (
                sync(one(), "", "DEADBEEF").operation(),
                "fingerprint: a trust key's has 40 ",
                Reason::BadArgument,
            ),
            // sigstore's: no trust key
            (sync(one(), "", &sixty_four).operation(), "fingerprint: ", Reason::BadArgument),
            (sync(one(), "", &DIGITS.replace('a', "g")).operation(), "fingerprint: ", Reason::BadArgument),
            (sync(one(), "", &format!("{DIGITS}\n")).operation(), "fingerprint: ", Reason::BadArgument),
        ] {
            let failure = given.unwrap_err();
            assert_eq!(failure.reason, reason, "{}", failure.detail);
            assert!(failure.detail.starts_with(start), "{}", failure.detail);
        }
    }

    #[test]
    fn changes_are_shown() {
        let shown: [fn(Outcome) -> Option<TrustChange>; 5] = [
            InitTrustRequest::response,
            RollbackTrustRequest::response,
            GrantSignerRequest::response,
            RevokeSignerRequest::response,
            SyncTrustRequest::response,
        ];
        for shown in shown {
            let made = Change { fingerprint: None, steps: vec!["a".into()], warnings: vec!["w".into()] };
            let change = shown(Outcome::Reply(Reply::Trust(7, made.clone()))).unwrap();
            let (steps, warnings) = (vec!["a".into()], vec!["w".into()]);
            assert_eq!(change, TrustChange { revision: 7, changed: true, steps, warnings });
            let nothing = shown(Outcome::Reply(Reply::Trust(7, Change::default()))).unwrap();
            assert_eq!(nothing, TrustChange { revision: 7, ..TrustChange::default() });
            // a change of something else has no revision
            assert_eq!(shown(Outcome::Reply(Reply::Change(made))), None);
            assert_eq!(shown(Outcome::Reply(Reply::End)), None);
        }
    }

    fn part(part: TrustPart) -> Outcome {
        Outcome::Reply(Reply::TrustPart(Box::new(part)))
    }

    fn head() -> Revision {
        Revision {
            revision: 7,
            time: 5,
            uid: 1000,
            user: "alice".into(),
            why: Why::new("new team").unwrap(),
            what: "carol signs in a.b".into(),
            scopes: 3,
        }
    }

    fn shown_head() -> TrustRevision {
        TrustRevision {
            revision: 7,
            time: 5,
            uid: 1000,
            user: "alice".into(),
            why: "new team".into(),
            what: "carol signs in a.b".into(),
            scopes: 3,
        }
    }

    #[test]
    fn a_revision_is_shown() {
        use trust_part::Part;
        let fingerprint = || Fingerprint::new(DIGITS).unwrap();
        let scope = |kind| TrustPart::Scope {
            scope: Scope::new("a.b/c").unwrap(),
            kind,
            signers: vec![(carol(), false), (AccountName::new("dave").unwrap(), true)],
        };
        let signer = |creator: &str, retired| v1::TrustSigner { creator: creator.into(), retired };
        let shown_scope = |kind: v1::SignatureKind| {
            let signers = vec![signer("carol", false), signer("dave", true)];
            Part::Scope(v1::TrustScope { scope: "a.b/c".into(), kind: kind.into(), signers })
        };
        let key = |kind| TrustPart::Key { creator: carol(), fingerprint: fingerprint(), kind };
        let shown_key = |kind: v1::SignatureKind| {
            let fingerprint = DIGITS.to_uppercase();
            Part::Key(v1::TrustKey { creator: "carol".into(), fingerprint, kind: kind.into() })
        };
        let file = |state| TrustPart::File { path: "/etc/hosts".into(), state, contents: vec![0xff, 0] };
        let shown_file = |state: v1::FileState| {
            let (path, contents) = ("/etc/hosts".into(), vec![0xff, 0]);
            Part::File(v1::TrustFile { path, state: state.into(), contents })
        };
        let own = settings("r.a:5000", "s.a");
        let followed = Settings {
            plain_http: true,
            address: Some("fd00::1".parse().unwrap()),
            names: vec![host("t.a"), host("t.b")],
            ..own.clone()
        };
        let shown_own = v1::TrustSettings {
            registry: "r.a:5000".into(),
            signatures: "s.a".into(),
            ..v1::TrustSettings::default()
        };
        let shown_followed = v1::TrustSettings {
            plain_http: true,
            address: "fd00::1".into(),
            names: texts(&["t.a", "t.b"]),
            follows: URL.into(),
            fingerprint: DIGITS.to_uppercase(),
            ..shown_own.clone()
        };
        for (found, shown) in [
            (TrustPart::Revision(head()), Part::Revision(shown_head())),
            (
                TrustPart::Settings { settings: own, follows: None, fingerprint: None },
                Part::Settings(shown_own),
            ),
            (
                TrustPart::Settings {
                    settings: followed,
                    follows: Some(URL.into()),
                    fingerprint: Some(fingerprint()),
                },
                Part::Settings(shown_followed),
            ),
            (scope(SignatureKind::Gpg), shown_scope(v1::SignatureKind::Gpg)),
            (scope(SignatureKind::Sigstore), shown_scope(v1::SignatureKind::Sigstore)),
            (key(SignatureKind::Gpg), shown_key(v1::SignatureKind::Gpg)),
            (key(SignatureKind::Sigstore), shown_key(v1::SignatureKind::Sigstore)),
            (file(FileState::Same), shown_file(v1::FileState::Same)),
            (file(FileState::Changed), shown_file(v1::FileState::Changed)),
            (file(FileState::Missing), shown_file(v1::FileState::Missing)),
        ] {
            let answer = ShowTrustRequest::response(part(found));
            assert_eq!(answer, Some(v1::TrustPart { part: Some(shown) }));
        }
        assert_eq!(ShowTrustRequest::response(Outcome::Reply(Reply::End)), None);
    }

    #[test]
    fn heads_and_bundles_are_shown() {
        assert_eq!(TrustHistoryRequest::response(part(TrustPart::Revision(head()))), Some(shown_head()));
        // no other part of a revision is one of the history
        let key = TrustPart::Key {
            creator: carol(),
            fingerprint: Fingerprint::new(DIGITS).unwrap(),
            kind: SignatureKind::Gpg,
        };
        assert_eq!(TrustHistoryRequest::response(part(key)), None);
        assert_eq!(TrustHistoryRequest::response(Outcome::Reply(Reply::End)), None);
        let bundle = ExportTrustRequest::response(Outcome::Reply(Reply::Bytes(vec![0xff, 0])));
        assert_eq!(bundle, Some(BundlePart { data: vec![0xff, 0] }));
        assert_eq!(ExportTrustRequest::response(Outcome::Reply(Reply::End)), None);
    }

    proptest! {
        /// Each text is made of characters that no sentence of ours has, so one of them in a detail is the caller's.
        #[test]
        fn no_text_of_a_caller_comes_back(text in "[\u{2600}-\u{26ff}\u{1b}\u{202e}]{1,50}") {
            let bytes = text.repeat(Bundle::LONGEST / text.len() + 1).into_bytes();
            let text = text.as_str();
            let long = text.repeat(201);
            let wrong = [
                init(text, "s.a", "", &[]).operation(),
                init("r.a", text, "", &[]).operation(),
                init("r.a", "s.a", text, &[]).operation(),
                init("r.a", "s.a", "", &["a.b", text]).operation(),
                init("r.a", "s.a", "", &[text; 9]).operation(),
                grant(text, &["a.b"], 1).operation(),
                grant("carol", &["a.b", text], 1).operation(),
                grant("carol", &[text; 101], 1).operation(),
                revoke(text, &[]).operation(),
                revoke("carol", &[text]).operation(),
                sync(bytes, "", "").operation(),
                sync(vec![0], text, "").operation(),
                sync(vec![0], "", text).operation(),
            ];
            for failed in wrong.into_iter().chain(changes(&because(&long))) {
                let detail = failed.unwrap_err().detail;
                prop_assert!(detail.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{}", detail);
            }
        }

        /// What goes on to the gate is what policy makes of the same values, and nothing repaired.
        #[test]
        fn nothing_is_repaired(creator in "[a-zA-Z_0-9-]{0,34}",
                               wanted in proptest::collection::vec("[a-zA-Z]\\.[a-z]{1,2}(/[a-z_.-]{0,3})?|\\PC{0,9}", 0..4)) {
            let wanted: Vec<_> = wanted.iter().map(String::as_str).collect();
            let name = AccountName::new(creator.clone());
            let scopes: Result<Vec<_>, _> = wanted.iter().map(|&text| Scope::new(text)).collect();
            let once = (0..wanted.len()).all(|index| !wanted[..index].contains(&wanted[index]));
            match (revoke(&creator, &wanted).operation(), name, scopes) {
                (Ok(operation), Ok(creator), Ok(scopes)) => {
                    prop_assert!(once);
                    let reason = TrustReason::default();
                    let revoked = RevokeSigner { creator, scopes, distrust: false, reason };
                    prop_assert_eq!(operation, Operation::RevokeSigner(Box::new(revoked)));
                }
                (operation, creator, scopes) => {
                    prop_assert!(operation.is_err() && (creator.is_err() || scopes.is_err() || !once));
                }
            }
        }

        #[test]
        fn no_setting_is_repaired(registry in "[a-zA-Z]{1,2}\\.[a-z]{0,2}(:[0-9]{0,5})?",
                                  address in "[0-9]{1,3}\\.[0-9]\\.[0-9]\\.[0-9]{1,2}|[0-9a-f:]{0,6}",
                                  name in "[a-zA-Z]{1,2}\\.[a-z]{0,2}:?") {
            let given = init(&registry, "s.a", &address, &[&name]).operation();
            let parsed = (!address.is_empty()).then(|| address.parse()).transpose();
            match (given, Endpoint::new(registry), parsed, HostName::new(name)) {
                (Ok(operation), Ok(registry), Ok(address), Ok(name)) => {
                    let settings = Settings { registry, address, names: vec![name], ..settings("r.a", "s.a") };
                    let expected = InitTrust { settings, reason: TrustReason::default() };
                    prop_assert_eq!(operation, Operation::InitTrust(Box::new(expected)));
                }
                (given, registry, address, name) => {
                    prop_assert!(given.is_err() && (registry.is_err() || address.is_err() || name.is_err()));
                }
            }
        }
    }
}
