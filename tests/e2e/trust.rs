//! Trust in images: set up, granted, withdrawn, looked at, rolled back, changed by hand, given to other hosts. What podman and
//! skopeo read of it is held against what was asked for. [`hostile`] has attacks 54 to 56 of docs/threats.md.

mod hostile;
mod sync;

use crate::Test;
use podsec_proto::client::trust_service_client::TrustServiceClient;
use podsec_proto::v1::trust_part::Part;
use podsec_proto::v1::{
    FileState, GrantSignerRequest, InitTrustRequest, ListSignaturesRequest, RevokeSignerRequest,
    RollbackTrustRequest, ShowTrustRequest, SignatureKind, SubmitSignatureRequest, TrustChange,
    TrustHistoryRequest, TrustReason, TrustRevision, TrustSettings,
};
use podsec_tests::oracle::Oracle;
pub use podsec_tests::people::bash;
use podsec_tests::people::{self, ALICE, CAROL, CLUSTER, DAVE, ERIN, MALLORY, ROOT};
use podsec_tests::{client, host, role};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use tonic::transport::Channel;
use tonic::{Response, Status};

macro_rules! tests {
    ($($test:ident)*) => {
        const LIFE: &[Test] = &[$((concat!("trust::", stringify!($test)), $test),)*];
    };
}

tests! {
    init_rejects_what_nobody_signed
    image_users_are_held_to_it
    creators_and_their_keys
    scopes_belong_to_one
    who_signs_no_more
    revisions_come_back
    changed_by_hand
    keys_are_not_inherited
    scopes_are_not_inherited
    who_may
}

pub fn tests() -> Vec<Test> {
    [LIFE, hostile::TESTS, sync::TESTS].concat()
}

pub const ROLES: &[role::Role] = &[("asker", answer)];

pub const AMY: &str = "amy";
pub const BEN: &str = "ben";
pub const POLICY: &str = "/etc/containers/policy.json";
pub const REGISTRIES_D: &str = "/etc/containers/registries.d/50-podsec.yaml";
pub const REGISTRIES_CONF: &str = "/etc/containers/registries.conf.d/50-podsec.conf";
pub const HOSTS: &str = "/etc/hosts";
/// All that is written for trust.
pub const FILES: [&str; 4] = [POLICY, REGISTRIES_D, REGISTRIES_CONF, HOSTS];
/// Where images and signatures are in these tests.
pub const REGISTRY: &str = "registry.local:5000";
pub const SIGNATURES: &str = "sigstore.local:8081";
const STATE: &str = "/var/lib/podsec/trust";
const USER_POLICY: &str = "/etc/podsec/user-policy.json";

// ---- a host without trust, before and after

/// Puts the host back as it was before there was trust, when it is dropped: podsec itself has no way out of trust. Whoever
/// is made after it goes before it.
pub struct Untrusted;

const SAVED: &str = "/run/podsec-tests/untrusted";

impl Untrusted {
    pub fn host() -> Self {
        let script = format!(
            "rm -rf {SAVED}; mkdir {SAVED}; cp -a /etc/containers {SAVED}/containers; cp -a /etc/hosts {SAVED}/hosts
            if [ -e {USER_POLICY} ] || [ -L {USER_POLICY} ]; then cp -a {USER_POLICY} {SAVED}/user-policy.json; fi"
        );
        host::run(Command::new("/bin/bash").args(["-ec", &script]));
        Self
    }

    /// Another host, or this one before trust. There is a policy all the time.
    pub fn reset(&self) {
        let script = format!(
            "rm -rf {STATE} /var/lib/podsec/signatures /var/sigstore/sigstore /var/sigstore/trust
            back() {{ if [ -e {SAVED}/$1 ] || [ -L {SAVED}/$1 ]; then cp -a {SAVED}/$1 $2.saved; mv -T $2.saved $2; else rm -f $2; fi; }}
            back containers/policy.json {POLICY}
            back containers/registries.d/50-podsec.yaml {REGISTRIES_D}
            back containers/registries.conf.d/50-podsec.conf {REGISTRIES_CONF}
            back hosts {HOSTS}
            back user-policy.json {USER_POLICY}"
        );
        host::run(Command::new("/bin/bash").args(["-ec", &script]));
    }
}

impl Drop for Untrusted {
    fn drop(&mut self) {
        self.reset();
    }
}

/// One of podsec's users, removed with all that is his at the end of the test.
pub struct Person(pub &'static str);

impl Person {
    /// A creator with a key: its fingerprint.
    pub fn creator(name: &'static str, scopes: &[&str]) -> (Self, String) {
        let (made, told) = Self::make(name, scopes, "--with-key --no-key-passphrase");
        (made, told["fingerprint"].as_str().expect("a fingerprint").to_owned())
    }

    pub fn without_key(name: &'static str, scopes: &[&str]) -> Self {
        Self::make(name, scopes, "").0
    }

    fn make(name: &'static str, scopes: &[&str], more: &str) -> (Self, Value) {
        let made = Self(name);
        let scopes: String = scopes.iter().map(|scope| format!(" --scope {scope}")).collect();
        (made, ctl(ROOT, &format!("user create {name} --category image-creator{scopes} {more}")))
    }

    pub fn image_user(name: &'static str) -> Self {
        let made = Self(name);
        ctl(ROOT, &format!("user create {name} --category image-user"));
        made
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // Should this fail, the oracle sees whom it left.
        people::podsecctl(ROOT, &["user", "delete", self.0, "--remove-home", "--yes"]);
    }
}

/// `podsecctl --json …` that has to do its work.
pub fn ctl(who: &str, line: &str) -> Value {
    let told = people::ctl(who, &[&["--json"], &*line.split_whitespace().collect::<Vec<_>>()].concat());
    serde_json::from_str(&told).expect(&told)
}

/// Reason of what has to fail.
pub fn ctl_fails(who: &str, line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = people::podsecctl(who, &[&["--json"], &*words].concat());
    assert!(!output.status.success(), "{line}");
    let told: Value = serde_json::from_slice(&[output.stdout, output.stderr].concat()).expect(line);
    told["error"]["reason"].as_str().unwrap_or_default().to_owned()
}

pub fn succeeds(who: &str, script: &str) -> bool {
    people::command(who, "/bin/bash").args(["-ec", script]).output().unwrap().status.success()
}

// ---- what is asked, as root

fn ask<T>(
    call: impl AsyncFnOnce(TrustServiceClient<Channel>) -> Result<Response<T>, Status>,
) -> Result<T, Status> {
    client::block_on(async { Ok(call(client::trust().await).await?.into_inner()) })
}

/// What a change of trust answers.
pub type Told = Result<TrustChange, Status>;

/// Has to be refused: the reason.
pub fn refused<T: std::fmt::Debug>(told: Result<T, Status>) -> String {
    client::reason(&told.expect_err("a refusal"))
}

/// Has to be done, and to change something: the revision.
pub fn made(told: Told) -> u64 {
    let told = told.unwrap_or_else(|status| panic!("{status:?}\n{}", host::daemon_log()));
    assert!(told.changed && !told.steps.is_empty(), "{told:?}");
    told.revision
}

/// This host's own: everything on its loopback.
pub fn settings() -> InitTrustRequest {
    InitTrustRequest {
        registry: REGISTRY.into(),
        signatures: SIGNATURES.into(),
        plain_http: true,
        address: "127.0.0.1".into(),
        names: vec!["trivy.local".into()],
        reason: None,
    }
}

pub fn init(request: InitTrustRequest) -> Told {
    ask(async |mut trust| trust.init(request).await)
}

/// To be changed where a test wants another.
pub fn grant_of(creator: &str, scopes: &[&str]) -> GrantSignerRequest {
    GrantSignerRequest {
        creator: creator.into(),
        scopes: scopes.iter().map(|&scope| scope.into()).collect(),
        kind: SignatureKind::Gpg.into(),
        shared: false,
        reason: None,
    }
}

pub fn ask_grant(request: GrantSignerRequest) -> Told {
    ask(async |mut trust| trust.grant(request).await)
}

pub fn grant(creator: &str, scopes: &[&str]) -> Told {
    ask_grant(grant_of(creator, scopes))
}

pub fn revoke_of(creator: &str, scopes: &[&str], distrust_existing: bool) -> RevokeSignerRequest {
    let scopes = scopes.iter().map(|&scope| scope.into()).collect();
    RevokeSignerRequest { creator: creator.into(), scopes, distrust_existing, reason: None }
}

pub fn ask_revoke(request: RevokeSignerRequest) -> Told {
    ask(async |mut trust| trust.revoke(request).await)
}

pub fn revoke(creator: &str, scopes: &[&str], distrust: bool) -> Told {
    ask_revoke(revoke_of(creator, scopes, distrust))
}

pub fn rollback(revision: u64) -> Told {
    ask(async |mut trust| trust.rollback(RollbackTrustRequest { revision, reason: None }).await)
}

fn history() -> Vec<TrustRevision> {
    client::block_on(async {
        let answer = client::trust().await.history(TrustHistoryRequest {}).await.unwrap();
        let mut stream = answer.into_inner();
        let mut found = Vec::new();
        while let Some(revision) = stream.message().await.unwrap() {
            found.push(revision);
        }
        found
    })
}

/// A revision, or what was made of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    pub head: TrustRevision,
    pub settings: TrustSettings,
    /// Who signs, and who did.
    pub scopes: BTreeMap<String, (Vec<String>, Vec<String>)>,
    /// Creators and fingerprints.
    pub keys: Vec<(String, String)>,
    pub files: BTreeMap<String, FileState>,
    contents: BTreeMap<String, Vec<u8>>,
}

/// 0: the current one.
pub fn show(revision: u64) -> Result<Shown, Status> {
    client::block_on(async {
        let request = ShowTrustRequest { revision, files: true };
        let mut stream = client::trust().await.show(request).await?.into_inner();
        let mut shown = Shown::default();
        while let Some(part) = stream.message().await? {
            match part.part.expect("a part") {
                Part::Revision(head) => shown.head = head,
                Part::Settings(settings) => shown.settings = settings,
                Part::Scope(scope) => {
                    let (retired, active): (Vec<_>, Vec<_>) =
                        scope.signers.into_iter().partition(|signer| signer.retired);
                    let names = |signers: Vec<podsec_proto::v1::TrustSigner>| -> Vec<String> {
                        signers.into_iter().map(|signer| signer.creator).collect()
                    };
                    shown.scopes.insert(scope.scope, (names(active), names(retired)));
                }
                Part::Key(key) => shown.keys.push((key.creator, key.fingerprint)),
                Part::File(file) => {
                    let state = FileState::try_from(file.state).unwrap();
                    shown.contents.entry(file.path.clone()).or_default().extend(file.contents);
                    shown.files.insert(file.path, state);
                }
            }
        }
        Ok(shown)
    })
}

pub fn current() -> Shown {
    show(0).unwrap()
}

// ---- what is asked by somebody else

/// The role: `submit REPOSITORY DIGEST FILE`, `signatures [CREATOR]`, `show`, `grant CREATOR SCOPE`, each answered by a line
/// of JSON. More than one request has `+` between, and goes over one connection.
fn answer(arguments: &[String]) {
    client::block_on(async {
        for words in arguments.split(|word| word == "+") {
            let words: Vec<_> = words.iter().map(String::as_str).collect();
            let told = one(&words).await.unwrap_or_else(
                |status| json!({"reason": client::reason(&status), "message": status.message()}),
            );
            println!("{told}");
        }
    });
}

async fn one(words: &[&str]) -> Result<Value, Status> {
    Ok(match words {
        ["submit", repository, digest, file] => {
            let request = SubmitSignatureRequest {
                repository: (*repository).into(),
                digest: (*digest).into(),
                signature: fs::read(file).unwrap(),
            };
            let told = client::signatures().await.submit(request).await?.into_inner();
            json!({"changed": told.changed, "path": told.path})
        }
        ["signatures", creator @ ..] => {
            let request = ListSignaturesRequest { creator: creator.concat() };
            let mut stream = client::signatures().await.list(request).await?.into_inner();
            let mut found = Vec::new();
            while let Some(record) = stream.message().await? {
                found.push(json!({
                    "creator": record.creator, "fingerprint": record.fingerprint, "reference": record.reference,
                    "digest": record.digest, "trusted": record.trusted
                }));
            }
            Value::Array(found)
        }
        ["show"] => {
            let request = ShowTrustRequest { revision: 0, files: false };
            let mut stream = client::trust().await.show(request).await?.into_inner();
            let mut parts = 0;
            while stream.message().await?.is_some() {
                parts += 1;
            }
            json!({"parts": parts})
        }
        ["history"] => {
            let mut stream = client::trust().await.history(TrustHistoryRequest {}).await?.into_inner();
            while stream.message().await?.is_some() {}
            json!({})
        }
        ["grant", creator, scope] => {
            let told = client::trust().await.grant(grant_of(creator, &[scope])).await?;
            json!({"changed": told.into_inner().changed})
        }
        ["revoke", creator] => {
            let told = client::trust().await.revoke(revoke_of(creator, &[], true)).await?;
            json!({"changed": told.into_inner().changed})
        }
        ["rollback", number] => {
            let request = RollbackTrustRequest { revision: number.parse().unwrap(), reason: None };
            let told = client::trust().await.rollback(request).await?;
            json!({"changed": told.into_inner().changed})
        }
        ["init"] => json!({"changed": client::trust().await.init(settings()).await?.into_inner().changed}),
        ["export"] => {
            let request = podsec_proto::v1::ExportTrustRequest {};
            let mut stream = client::trust().await.export(request).await?.into_inner();
            while stream.message().await?.is_some() {}
            json!({})
        }
        ["sync"] => {
            let told = client::trust().await.sync(sync::request(vec![1], "")).await?;
            json!({"changed": told.into_inner().changed})
        }
        other => panic!("{other:?}"),
    })
}

/// Requests of somebody's, as [`answer`] has them: the answers.
pub fn asked_by(who: &str, words: &[&str]) -> Vec<Value> {
    let told = role::start(who, "asker", words).finish();
    told.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// The one answer.
pub fn told_to(who: &str, words: &[&str]) -> Value {
    asked_by(who, words).remove(0)
}

// ---- what is on the host

/// What verifiers read.
pub fn policy() -> Value {
    serde_json::from_slice(&fs::read(POLICY).unwrap()).unwrap()
}

pub fn rejects_by_default() -> bool {
    policy()["default"] == json!([{"type": "reject"}])
}

/// Fingerprints of the keys that the policy has for a scope, in the order of the alphabet; `None`: it does not know it.
pub fn signers(scope: &str) -> Option<Vec<String>> {
    let policy = policy();
    let demanded = policy["transports"]["docker"].get(scope)?.as_array().unwrap().clone();
    assert_eq!(demanded.len(), 1, "{demanded:?}");
    if demanded[0] == json!({"type": "reject"}) {
        return Some(Vec::new());
    }
    assert_eq!((&demanded[0]["type"], &demanded[0]["keyType"]), (&json!("signedBy"), &json!("GPGKeys")));
    fs::write("/run/podsec-tests/keydata", demanded[0]["keyData"].as_str().unwrap()).unwrap();
    let listed = bash(
        ROOT,
        "base64 -d /run/podsec-tests/keydata | gpg --batch --quiet --no-keyring --with-colons --show-keys",
    );
    let mut found: Vec<_> = listed
        .lines()
        .filter_map(|line| line.strip_prefix("fpr:")?.split(':').nth(8))
        .map(str::to_owned)
        .collect();
    found.sort();
    Some(found)
}

/// podsec's lines of /etc/hosts.
pub fn block() -> Vec<String> {
    let text = fs::read_to_string(HOSTS).unwrap();
    let lines = text.lines().skip_while(|line| !line.starts_with("# BEGIN podsec")).skip(1);
    lines.take_while(|line| !line.starts_with("# END podsec")).map(str::to_owned).collect()
}

/// All of it, to be compared.
pub fn snapshot() -> Vec<Option<Vec<u8>>> {
    FILES.iter().map(|path| fs::read(path).ok()).collect()
}

/// What was kept of what somebody else wrote, for that revision.
pub fn kept(revision: u64, name: &str) -> Option<Vec<u8>> {
    fs::read(format!("{STATE}/kept/{revision:08}-{name}")).ok()
}

/// With the line feeds of a text editor: not what podsec wrote.
pub fn edit(path: &str) -> Vec<u8> {
    let mut text = fs::read(path).unwrap();
    text.extend_from_slice(b"\n\n");
    fs::write(path, &text).unwrap();
    text
}

pub fn is_roots(path: &str, mode: u32) -> bool {
    let meta = fs::symlink_metadata(path).unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777) == (0, 0, mode)
}

// ---- scenarios

fn init_rejects_what_nobody_signed(oracle: &mut Oracle) {
    let _host = Untrusted::host();
    let before = snapshot();
    assert_eq!(refused(show(0)), "no-trust");
    assert_eq!(refused(grant(CAROL, &["registry.local/x"])), "no-trust");
    assert_eq!(refused(revoke(CAROL, &[], false)), "no-trust");
    assert_eq!(refused(rollback(1)), "no-trust");
    let reason = Some(TrustReason { why: "as of today".into(), dry_run: true, overwrite: false });
    let planned = init(InitTrustRequest { reason: reason.clone(), ..settings() }).unwrap();
    assert!(planned.changed && planned.revision == 1 && planned.steps.len() >= 4, "{planned:?}");
    assert!(snapshot() == before && refused(show(0)) == "no-trust", "a dry run did something");

    let reason = reason.map(|reason| TrustReason { dry_run: false, ..reason });
    let done = init(InitTrustRequest { reason, ..settings() }).unwrap();
    assert_eq!((&done.steps, done.changed, done.revision), (&planned.steps, true, 1));
    assert_eq!(policy(), json!({"default": [{"type": "reject"}], "transports": {"docker": {}}}));
    let registries_d = fs::read_to_string(REGISTRIES_D).unwrap();
    assert!(registries_d.contains(REGISTRY), "{registries_d}");
    assert!(registries_d.contains("http://sigstore.local:8081/sigstore"), "{registries_d}");
    let conf = fs::read_to_string(REGISTRIES_CONF).unwrap();
    assert!(conf.contains(REGISTRY) && conf.contains("insecure = true"), "{conf}");
    assert_eq!(block(), ["127.0.0.1 registry.local", "127.0.0.1 sigstore.local", "127.0.0.1 trivy.local"]);
    let found =
        bash(MALLORY, "getent hosts registry.local sigstore.local trivy.local | cut -d' ' -f1 | uniq");
    assert_eq!(found, "127.0.0.1\n");
    for path in FILES {
        assert!(is_roots(path, 0o644), "{path}");
    }
    assert!(is_roots(STATE, 0o700));
    // What was there before is kept.
    assert_eq!(kept(1, "policy.json"), before[0]);
    assert!(is_roots(&format!("{STATE}/kept/00000001-policy.json"), 0o600));
    assert!(done.warnings.iter().any(|warning| warning.contains("kept")), "{done:?}");
    let rest = String::from_utf8(before[3].clone().unwrap()).unwrap();
    assert!(fs::read_to_string(HOSTS).unwrap().ends_with(&rest), "the rest of /etc/hosts was changed");

    let shown = current();
    assert_eq!(shown.files, FILES.map(|path| (path.to_owned(), FileState::Same)).into());
    for path in [POLICY, REGISTRIES_D, REGISTRIES_CONF] {
        assert_eq!(shown.contents[path], fs::read(path).unwrap(), "{path}");
    }
    let settings_now = &shown.settings;
    assert_eq!(
        (&*settings_now.registry, &*settings_now.signatures, settings_now.plain_http),
        (REGISTRY, SIGNATURES, true)
    );
    assert_eq!(
        (&*settings_now.address, &*settings_now.names, &*settings_now.follows),
        ("127.0.0.1", &["trivy.local".to_owned()][..], "")
    );
    let history = history();
    let [head] = &history[..] else { panic!("{history:?}") };
    assert_eq!((head.revision, head.uid, &*head.user, &*head.why), (1, 0, "root", "as of today"));
    assert!(head.time > 1_700_000_000 && head.scopes == 0);

    // Asked again, there is nothing to do; asked otherwise, only that changes.
    let again = init(settings()).unwrap();
    assert_eq!((again.changed, again.revision), (false, 1), "{again:?}");
    let secure = InitTrustRequest {
        plain_http: false,
        address: String::new(),
        names: Vec::new(),
        registry: "registry.local".into(),
        ..settings()
    };
    assert_eq!(made(init(secure)), 2);
    assert!(!Path::new(REGISTRIES_CONF).exists(), "plain HTTP is still allowed");
    assert_eq!(fs::read(HOSTS).ok(), before[3], "the names are in the DNS now");
    assert!(fs::read_to_string(REGISTRIES_D).unwrap().contains("https://sigstore.local:8081/sigstore"));
    assert!(rejects_by_default());
    assert_eq!(current().files[REGISTRIES_CONF], FileState::Same);
    let records = oracle.audit();
    let done =
        records.iter().filter(|record| record["op"] == "TrustService/Init" && record["phase"] == "done");
    assert_eq!(done.count(), 4);
}

/// An image user's own policy leads to the host's, in both directions of time.
fn image_users_are_held_to_it(_: &mut Oracle) {
    let _host = Untrusted::host();
    let _zoe = Person::image_user("zoe");
    let image = "/tmp/trust-image";
    bash(
        ROOT,
        &format!(
            "rm -rf {image}; mkdir {image}; cd {image}; printf '{{}}' >config; s=$(sha256sum <config | cut -d' ' -f1); mv config $s
            printf '{{\"schemaVersion\":2,\"mediaType\":\"application/vnd.oci.image.manifest.v1+json\",\"config\":{{\"mediaType\":\
            \"application/vnd.oci.image.config.v1+json\",\"size\":2,\"digest\":\"sha256:%s\"}},\"layers\":[]}}' $s >manifest.json
            printf 'Directory Transport Version: 1.1\\n' >version"
        ),
    );
    let copies = |who: &str| {
        let script = format!("rm -rf /tmp/copy-$(id -u); skopeo copy dir:{image} dir:/tmp/copy-$(id -u)");
        let output = people::command(who, "/bin/bash").args(["-ec", &script]).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let rejected = told.contains("is rejected by policy");
        assert!(output.status.success() != rejected, "{who}: {told}");
        !rejected
    };
    let skopeo = Path::new("/usr/bin/skopeo").exists();
    // Even before there is trust; others are held to what the distribution has.
    assert!(!skopeo || (!copies("zoe") && copies(MALLORY)));
    made(init(settings()));
    let _yan = Person::image_user("yan");
    for who in ["zoe", "yan"] {
        let own = format!("/home/{who}/.config/containers/policy.json");
        assert_eq!(fs::read_link(&own).unwrap(), Path::new(USER_POLICY));
        assert_eq!(fs::read_link(USER_POLICY).unwrap(), Path::new(POLICY));
        assert_eq!(fs::canonicalize(&own).unwrap(), Path::new(POLICY));
        assert_eq!(bash(who, "cat ~/.config/containers/policy.json").into_bytes(), fs::read(POLICY).unwrap());
        for attempt in [
            "mv ~/.config ~/x",
            "mv ~/.config/containers ~/.config/x",
            "rm -f ~/.config/containers/policy.json",
            "mv ~/.config/containers/policy.json ~/x",
            "ln -sfn /tmp/x ~/.config/containers/policy.json",
            "echo '{}' >~/.config/containers/policy.json",
            "touch ~/.config/containers/registries.conf",
            "echo '{}' >/etc/podsec/user-policy.json",
            "ln -sfn /tmp/x /etc/podsec/user-policy.json",
            "unshare --user --map-root-user rm -f ~/.config/containers/policy.json",
        ] {
            assert!(!succeeds(who, attempt), "{who}: {attempt}");
        }
        let told = ctl_json(ROOT, &format!("user verify {who}"));
        let findings = told["findings"].as_array().unwrap();
        let policy = findings.iter().find(|finding| finding["name"] == "policy").unwrap();
        assert_eq!(policy["state"], "ok", "{policy}");
    }
    assert!(!skopeo || (!copies("zoe") && !copies("yan") && !copies(MALLORY)), "something unsigned runs");
    bash(ROOT, &format!("rm -rf {image} /tmp/copy-*"));
}

/// An answer that may be bad news.
fn ctl_json(who: &str, line: &str) -> Value {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = people::podsecctl(who, &[&["--json"], &*words].concat());
    serde_json::from_slice(&output.stdout).unwrap()
}

fn creators_and_their_keys(_: &mut Oracle) {
    let _host = Untrusted::host();
    let (_amy, amys) = Person::creator(AMY, &["registry.local:5000/amy", "registry.local:5000/team"]);
    let _dan = Person::without_key("dan", &["registry.local:5000/dan"]);
    made(init(settings()));
    // Whoever was there before.
    for scope in ["registry.local:5000/amy", "registry.local:5000/team"] {
        assert_eq!(signers(scope), Some(vec![amys.clone()]), "{scope}");
    }
    assert_eq!(signers("registry.local:5000/dan"), Some(vec![]), "without a key nothing runs from there");
    let shown = current();
    assert_eq!(shown.keys, [(AMY.to_owned(), amys.clone())]);
    assert_eq!(shown.scopes["registry.local:5000/amy"], (vec![AMY.to_owned()], vec![]));
    // And whoever comes after.
    let (ben, bens) = Person::creator(BEN, &["registry.local:5000/ben"]);
    assert_eq!(signers("registry.local:5000/ben"), Some(vec![bens.clone()]));
    assert_eq!(current().head.revision, 2);
    assert_eq!(
        ctl_fails(ROOT, "user create cat --category image-creator --scope registry.local:5000/amy/app"),
        "scope-taken"
    );
    assert_eq!(signers("registry.local:5000/amy/app"), None);

    // A first key, a second beside it, the end of the first.
    bash("dan", "podsecctl key generate --no-passphrase");
    assert_eq!(signers("registry.local:5000/dan").map(|keys| keys.len()), Some(1));
    let told: Value =
        serde_json::from_str(&bash(AMY, "podsecctl --json key generate --no-passphrase --rotate")).unwrap();
    let second = told["fingerprint"].as_str().unwrap().to_owned();
    let mut both = vec![amys.clone(), second.clone()];
    both.sort();
    assert_eq!(signers("registry.local:5000/amy"), Some(both.clone()));
    assert_eq!(signers("registry.local:5000/team"), Some(both));
    ctl(AMY, &format!("key revoke --yes {amys}"));
    let after = vec![second.clone()];
    for scope in ["registry.local:5000/amy", "registry.local:5000/team"] {
        assert_eq!(signers(scope), Some(after.clone()), "{scope}: a revoked key is still trusted");
    }
    // It comes back by no rollback.
    let newest = current().head.revision;
    for revision in 1..newest {
        let told = rollback(revision).unwrap();
        let found = signers("registry.local:5000/amy");
        assert_eq!(found, Some(after.clone()), "a revoked key came back by a rollback to {revision}");
        assert!(!told.changed || told.warnings.iter().any(|line| line.contains(&amys)), "{told:?}");
    }
    rollback(newest).unwrap();
    // Nor does somebody who is gone.
    drop(ben);
    assert_eq!(signers("registry.local:5000/ben"), None);
    assert!(current().keys.iter().all(|(creator, _)| creator != BEN));
    rollback(2).unwrap();
    let ben = signers("registry.local:5000/ben");
    assert!(ben.as_ref().is_none_or(Vec::is_empty), "the key of one who is gone is trusted: {ben:?}");
    assert!(!current().keys.iter().any(|(_, fingerprint)| *fingerprint == bens));
    // And the last key of somebody takes all with it.
    ctl(AMY, &format!("key revoke --yes {second}"));
    assert_eq!(signers("registry.local:5000/amy"), Some(vec![]));
    assert!(rejects_by_default());
}

fn scopes_belong_to_one(_: &mut Oracle) {
    let _host = Untrusted::host();
    let (_amy, amys) = Person::creator(AMY, &["registry.local:5000/amy"]);
    let (_ben, bens) = Person::creator(BEN, &["registry.local:5000/ben"]);
    made(init(settings()));
    let hundred: Vec<_> = (0..100).map(|number| format!("registry.local:5000/many/{number}")).collect();
    let hundred: Vec<_> = hundred.iter().map(String::as_str).collect();
    made(grant(AMY, &hundred));
    for scope in &hundred {
        assert_eq!(signers(scope), Some(vec![amys.clone()]), "{scope}");
    }
    let again = grant(AMY, &hundred).unwrap();
    assert!(!again.changed, "{again:?}");
    let before = (snapshot(), current());
    for scope in [
        "registry.local:5000/many/7",
        "registry.local:5000/many/7/app",
        "registry.local:5000/many",
        "registry.local:5000",
        "registry.local:5000/amy/x/y",
    ] {
        assert_eq!(refused(grant(BEN, &["registry.local:5000/free", scope])), "scope-taken", "{scope}");
    }
    assert_eq!(refused(grant(AMY, &[&hundred[..], &["registry.local:5000/more"]].concat())), "bad-scope");
    assert_eq!(refused(grant(AMY, &[])), "bad-scope");
    assert_eq!(refused(grant(AMY, &["registry.local:5000/x", "registry.local:5000/x"])), "bad-scope");
    // Nobody else than creators.
    for creator in [ALICE, ROOT, MALLORY, DAVE, CLUSTER, "nobody-at-all"] {
        let told = grant(creator, &["registry.local:5000/theirs"]);
        assert_eq!(refused(told), "unmanaged-user", "{creator}");
    }
    assert_eq!((snapshot(), current()), before);
    // What only looks the same.
    made(grant(BEN, &["registry.local:5000/many7", "registry.local/many", "registry.local:5001/many/7"]));
    // Two of them.
    made(ask_grant(GrantSignerRequest { shared: true, ..grant_of(BEN, &["registry.local:5000/many/7"]) }));
    let mut both = vec![amys.clone(), bens.clone()];
    both.sort();
    assert_eq!(signers("registry.local:5000/many/7"), Some(both.clone()));
    assert_eq!(signers("registry.local:5000/many/8"), Some(vec![amys.clone()]));
    // Within the other's, the inner one decides, and whoever signs around it signs there too.
    made(ask_grant(GrantSignerRequest { shared: true, ..grant_of(BEN, &["registry.local:5000/many/8/in"]) }));
    assert_eq!(signers("registry.local:5000/many/8/in"), Some(both));
    assert_eq!(signers("registry.local:5000/many/8"), Some(vec![amys]));
}

fn who_signs_no_more(_: &mut Oracle) {
    let _host = Untrusted::host();
    let (_amy, amys) = Person::creator(AMY, &["registry.local:5000/amy", "registry.local:5000/team"]);
    let _ben = Person::creator(BEN, &["registry.local:5000/ben"]);
    made(init(settings()));
    let (amy, team) = ("registry.local:5000/amy", "registry.local:5000/team");
    // What he signed stays trusted.
    made(revoke(AMY, &[team], false));
    assert_eq!(signers(team), Some(vec![amys.clone()]));
    assert_eq!(current().scopes[team], (vec![], vec![AMY.to_owned()]));
    assert_eq!(current().scopes[amy], (vec![AMY.to_owned()], vec![]));
    let again = revoke(AMY, &[team], false).unwrap();
    assert!(!again.changed, "{again:?}");
    // Somebody else may have it now, and hers is still good there.
    made(grant(BEN, &[team]));
    assert_eq!(signers(team).map(|keys| keys.len()), Some(2));
    // Until it is not.
    made(revoke(AMY, &[team], true));
    assert!(signers(team).is_some_and(|keys| keys.len() == 1 && keys[0] != amys));
    assert_eq!(signers(amy), Some(vec![amys.clone()]));
    made(revoke(AMY, &[], true));
    assert_eq!(signers(amy), None, "nobody signs there, so no scope names it");
    assert!(current().keys.iter().all(|(creator, _)| creator != AMY));
    assert!(rejects_by_default());
    assert_eq!(refused(revoke("nobody-at-all", &[], false)), "unmanaged-user");
    // Again, from the beginning.
    made(grant(AMY, &[amy]));
    assert_eq!(signers(amy), Some(vec![amys]));
}

fn revisions_come_back(_: &mut Oracle) {
    let _host = Untrusted::host();
    let (_amy, amys) = Person::creator(AMY, &["registry.local:5000/amy"]);
    made(init(settings()));
    let reason = |why: &str| Some(TrustReason { why: why.into(), ..TrustReason::default() });
    let mut states = vec![(current(), snapshot())];
    for number in 0..5 {
        let scope = format!("registry.local:5000/app{number}");
        let request = GrantSignerRequest {
            reason: reason(&format!("app {number}, отдел \"Ы\"")),
            ..grant_of(AMY, &[&scope])
        };
        made(ask_grant(request));
        states.push((current(), snapshot()));
    }
    // By somebody else.
    let told = told_to(ALICE, &["grant", AMY, "registry.local:5000/by-alice"]);
    assert_eq!(told["changed"], true, "{told}");
    let history_then = history();
    assert_eq!(history_then.iter().map(|head| head.revision).collect::<Vec<_>>(), [7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(history_then[1].why, "app 4, отдел \"Ы\"");
    assert!(history_then[1].what.contains(AMY) && history_then[1].what.contains("app4"));
    assert_eq!((&*history_then[0].user, history_then[0].uid), (ALICE, uid_of(ALICE)));
    assert_eq!((&*history_then[1].user, history_then[1].uid), (ROOT, 0));
    assert!(history_then.iter().map(|head| head.scopes).eq([7, 6, 5, 4, 3, 2, 1]), "{history_then:?}");
    // Old ones are as they were.
    for (shown, _) in &states {
        let old = show(shown.head.revision).unwrap();
        assert_eq!((&old.head, &old.scopes, &old.keys), (&shown.head, &shown.scopes, &shown.keys));
    }
    assert_eq!(refused(show(8)), "no-revision");
    assert_eq!(refused(rollback(8)), "no-revision");
    assert_eq!(refused(rollback(u64::MAX)), "no-revision");
    assert_eq!(refused(rollback(0)), "bad-argument");
    // To any of them, and each is a new one.
    for (number, (shown, files)) in states.iter().enumerate().rev() {
        let revision = made(rollback(shown.head.revision));
        assert_eq!(revision, 8 + (5 - number) as u64);
        assert_eq!(snapshot(), *files, "revision {}", shown.head.revision);
        assert_eq!(current().scopes, shown.scopes);
        assert!(current().head.what.contains(&shown.head.revision.to_string()));
    }
    assert_eq!(signers("registry.local:5000/amy"), Some(vec![amys]));
    assert_eq!(history().len(), 13);
    assert_eq!(history()[6..], history_then, "what was is not what it was");
    let nothing = rollback(13).unwrap();
    assert!(!nothing.changed && nothing.revision == 13, "{nothing:?}");
}

fn uid_of(name: &str) -> u32 {
    host::run(Command::new("/usr/bin/id").args(["-u", name])).trim().parse().unwrap()
}

fn changed_by_hand(_: &mut Oracle) {
    let _host = Untrusted::host();
    let (_amy, first) = Person::creator(AMY, &["registry.local:5000/amy"]);
    let (ben, _) = Person::creator(BEN, &["registry.local:5000/ben"]);
    made(init(settings()));
    let told: Value =
        serde_json::from_str(&bash(AMY, "podsecctl --json key generate --no-passphrase --rotate")).unwrap();
    let second = told["fingerprint"].as_str().unwrap().to_owned();
    let overwrite = Some(TrustReason { overwrite: true, ..TrustReason::default() });
    let mut number = 0;
    for (path, name) in
        [(POLICY, "policy.json"), (REGISTRIES_D, "50-podsec.yaml"), (REGISTRIES_CONF, "50-podsec.conf")]
    {
        let good = snapshot();
        let edited = edit(path);
        let then = (snapshot(), current().head);
        let expected = FILES
            .map(|file| (file.to_owned(), if file == path { FileState::Changed } else { FileState::Same }));
        assert_eq!(current().files, expected.into(), "{path}");
        number += 1;
        let scope = format!("registry.local:5000/drift{number}");
        let request = grant_of(AMY, &[&scope]);
        let told = ask_grant(request.clone()).unwrap_err();
        assert_eq!(client::reason(&told), "trust-drift", "{path}: {told:?}");
        assert!(told.message().contains(path), "{told:?}");
        assert_eq!(refused(revoke(AMY, &[], false)), "trust-drift");
        assert_eq!(refused(rollback(1)), "trust-drift");
        assert_eq!(refused(init(InitTrustRequest { plain_http: false, ..settings() })), "trust-drift");
        assert_eq!(ctl_fails(AMY, &format!("key publish {}", corpus_key())), "key-exists");
        assert_eq!(ctl_fails(AMY, &format!("key rotate {}", corpus_key())), "trust-drift");
        assert_eq!((snapshot(), current().head), then, "{path}: a refusal changed something");
        // As asked for, and what was there is kept.
        let told = ask_grant(GrantSignerRequest { reason: overwrite.clone(), ..request }).unwrap();
        assert_eq!(kept(told.revision, name), Some(edited), "{path}");
        assert!(told.warnings.iter().any(|line| line.contains(path)), "{told:?}");
        let same = FILES.map(|file| (file.to_owned(), FileState::Same));
        assert_eq!(current().files, same.into());
        assert_eq!(signers(&scope).map(|keys| keys.len()), Some(2));
        if path != POLICY {
            assert_eq!(snapshot()[1..], good[1..], "{path}");
        }
        // Gone is changed, too.
        fs::remove_file(path).unwrap();
        assert_eq!(current().files[path], FileState::Missing);
        assert_eq!(refused(grant(AMY, &["registry.local:5000/gone"])), "trust-drift", "{path} is gone");
        assert!(!Path::new(path).exists());
        let again = InitTrustRequest { reason: overwrite.clone(), ..settings() };
        let told = init(again).unwrap();
        assert!(told.changed && current().files[path] == FileState::Same, "{path}: {told:?}");
    }

    // The block of /etc/hosts.
    let good = fs::read_to_string(HOSTS).unwrap();
    for bad in [
        good.replace("127.0.0.1 sigstore.local", "10.6.6.6 sigstore.local"),
        good.replace("127.0.0.1 sigstore.local\n", ""),
        good.replace("127.0.0.1 trivy.local", "127.0.0.1 trivy.local\n10.6.6.6 bank.example"),
    ] {
        assert_ne!(bad, good);
        fs::write(HOSTS, &bad).unwrap();
        assert_eq!(current().files[HOSTS], FileState::Changed);
        assert_eq!(refused(grant(AMY, &["registry.local:5000/hosts"])), "trust-drift", "{bad}");
        assert_eq!(fs::read_to_string(HOSTS).unwrap(), bad);
        let told = init(InitTrustRequest { reason: overwrite.clone(), ..settings() }).unwrap();
        assert!(told.changed, "{told:?}");
        assert_eq!(fs::read_to_string(HOSTS).unwrap(), good);
    }
    // The rest of that file is everybody's.
    fs::write(HOSTS, format!("{good}10.1.1.1 elsewhere.example\n")).unwrap();
    made(grant(AMY, &["registry.local:5000/hosts"]));
    assert!(fs::read_to_string(HOSTS).unwrap().ends_with("10.1.1.1 elsewhere.example\n"));

    // What takes trust away does not wait.
    let edited = edit(POLICY);
    ctl(AMY, &format!("key revoke --yes {first}"));
    assert_eq!(signers("registry.local:5000/amy"), Some(vec![second]), "the key is still trusted");
    assert_eq!(kept(current().head.revision, "policy.json"), Some(edited));
    let edited = edit(POLICY);
    drop(ben);
    assert_eq!(signers("registry.local:5000/ben"), None);
    assert_eq!(kept(current().head.revision, "policy.json"), Some(edited));
    assert!(rejects_by_default());
}

/// A key of nobody's, in a file that everybody reads.
fn corpus_key() -> String {
    let file = "/tmp/trust-key.pgp";
    if !Path::new(file).exists() {
        bash(
            ROOT,
            &format!(
                "export GNUPGHOME=/run/podsec-tests/trust-gnupg; mkdir -m 700 $GNUPGHOME
                gpg --batch --quiet --passphrase '' --quick-generate-key 'X <x@registry.local>' ed25519 sign 1y
                gpg --batch --export >{file}; chmod 644 {file}; gpgconf --kill all; rm -r $GNUPGHOME"
            ),
        );
    }
    file.to_owned()
}

/// Nor where an account came and went without podsec, and a grant names the one of today.
fn keys_are_not_inherited(_: &mut Oracle) {
    let _host = Untrusted::host();
    let make =
        |uid: u32| bash(ROOT, &format!("useradd --create-home --uid {uid} --groups podman,podman_dev ben"));
    let go = || bash(ROOT, "userdel --remove ben 2>/dev/null");
    make(4001);
    ctl(ALICE, &format!("key publish --creator {BEN} {}", corpus_key()));
    go();
    make(4002);
    made(init(settings()));
    let told = grant(BEN, &["registry.local:5000/ben"]);
    let found = signers("registry.local:5000/ben");
    go();
    fs::remove_file("/var/lib/podsec/keys/ben.json").unwrap();
    fs::remove_file("/var/sigstore/keys/ben.pgp").unwrap();
    made(told);
    assert_eq!(found, Some(vec![]), "the key of somebody else is trusted for him");
}

fn scopes_are_not_inherited(_: &mut Oracle) {
    let _host = Untrusted::host();
    made(init(settings()));
    let old = "registry.local:5000/old";
    let amy = Person::creator(AMY, &[old]);
    let with_amy = current().head.revision;
    // By podsec's own means and by others, and an old revision has her still.
    drop(amy);
    assert!(rollback(with_amy).is_ok());
    assert_eq!(signers(old), None, "somebody who is gone signs");
    let amy = Person::creator(AMY, &[old]);
    bash(ROOT, "userdel amy; rm -rf /home/amy");
    fs::remove_file("/var/lib/podsec/users/amy.json").unwrap();
    assert!(signers(old).is_some());
    let again = Person::creator(AMY, &["registry.local:5000/new"]);
    assert_eq!(signers(old), None, "scopes of somebody else are his");
    assert!(signers("registry.local:5000/new").is_some());
    drop(again);
    std::mem::forget(amy);
}

fn who_may(oracle: &mut Oracle) {
    let _host = Untrusted::host();
    let (_amy, _) = Person::creator(AMY, &["registry.local:5000/amy"]);
    made(init(settings()));
    let before = (snapshot(), current());
    let changes = [
        "init",
        "+",
        "grant",
        "amy",
        "registry.local:5000/x",
        "+",
        "revoke",
        "amy",
        "+",
        "rollback",
        "1",
        "+",
        "export",
        "+",
        "sync",
        "+",
        "history",
    ];
    for who in [MALLORY, CAROL, DAVE, ERIN, CLUSTER, AMY] {
        let told = asked_by(who, &changes);
        assert_eq!(told.len(), 7);
        for one in &told {
            assert_eq!(one["reason"], "not-authorised", "{who}: {told:?}");
        }
    }
    let denied = oracle.audit().into_iter().filter(|record| record["phase"] == "deny");
    assert_eq!(
        denied.map(|record| record["reason"].clone()).collect::<Vec<_>>(),
        vec![json!("not-member"); 42]
    );
    // Whoever is held to it may see it.
    for (who, may) in
        [(DAVE, true), (CAROL, true), (AMY, true), (CLUSTER, true), (ALICE, true), (MALLORY, false)]
    {
        let told = told_to(who, &["show"]);
        assert_eq!(told["parts"].is_u64(), may, "{who}: {told}");
    }
    assert_eq!((snapshot(), current()), before);
    assert!(!Path::new("/var/sigstore/trust").exists());
    let told = asked_by(ALICE, &["history", "+", "init", "+", "grant", "amy", "registry.local:5000/x"]);
    assert!(told.iter().all(|one| one["reason"].is_null()), "{told:?}");
}
