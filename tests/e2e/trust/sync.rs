//! Trust of another host: what it gives out, and what is taken of that. Both hosts are this one, one after the other.

use super::{
    AMY, BEN, FILES, HOSTS, POLICY, Person, Told, Untrusted, ask, bash, block, corpus_key, ctl, current,
    grant, init, made, refused, rejects_by_default, revoke, rollback, settings, show, signers, snapshot,
};
use crate::Test;
use podsec_proto::v1::{ExportTrustRequest, FileState, InitTrustRequest, SyncTrustRequest, TrustReason};
use podsec_tests::client;
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{MALLORY, ROOT};
use std::collections::BTreeMap;
use std::fs;

pub const TESTS: &[Test] = &[
    ("trust::another_host_follows", another_host_follows),
    ("trust::nothing_but_its_bundle", nothing_but_its_bundle),
    ("trust::what_is_published_is_the_newest", what_is_published_is_the_newest),
];

const PUBLISHED: &str = "/var/sigstore/trust/bundle";
const URL: &str = "http://sigstore.local:8081/trust/bundle";

pub fn request(bundle: Vec<u8>, fingerprint: &str) -> SyncTrustRequest {
    SyncTrustRequest { bundle, url: URL.into(), fingerprint: fingerprint.into(), reason: None }
}

fn sync(request: SyncTrustRequest) -> Told {
    ask(async |mut trust| trust.sync(request).await)
}

fn export() -> Result<Vec<u8>, tonic::Status> {
    client::block_on(async {
        let mut stream = client::trust().await.export(ExportTrustRequest {}).await?.into_inner();
        let mut bundle = Vec::new();
        while let Some(part) = stream.message().await? {
            bundle.extend(part.data);
        }
        Ok(bundle)
    })
}

fn overwriting(request: SyncTrustRequest) -> SyncTrustRequest {
    SyncTrustRequest { reason: Some(TrustReason { overwrite: true, ..TrustReason::default() }), ..request }
}

fn dry(request: SyncTrustRequest) -> SyncTrustRequest {
    SyncTrustRequest { reason: Some(TrustReason { dry_run: true, ..TrustReason::default() }), ..request }
}

/// Two bundles of a host with two creators, the older first, the fingerprint of its key, and its policy at the second. The
/// host is reset then: its creators stay, as people of the same names on the other one.
fn first_host(untrusted: &Untrusted) -> (Vec<u8>, Vec<u8>, String, Vec<u8>) {
    made(init(InitTrustRequest { address: "10.7.7.7".into(), ..settings() }));
    let older = export().unwrap();
    made(grant(AMY, &["registry.local:5000/more"]));
    let newer = export().unwrap();
    let fingerprint = current().settings.fingerprint;
    let policy = fs::read(POLICY).unwrap();
    untrusted.reset();
    (older, newer, fingerprint, policy)
}

fn another_host_follows(_: &mut Oracle) {
    let untrusted = Untrusted::host();
    let (_amy, amys) = Person::creator(AMY, &["registry.local:5000/amy"]);
    let (_ben, bens) = Person::creator(BEN, &["registry.local:5000/ben"]);
    let (older, newer, fingerprint, policy) = first_host(&untrusted);
    assert_eq!(fingerprint.len(), 40, "{fingerprint}");
    let before = snapshot();

    // Whose it is has to be said once.
    assert_eq!(refused(sync(request(newer.clone(), ""))), "bad-argument");
    let wrong = fingerprint.chars().rev().collect::<String>();
    assert_eq!(refused(sync(request(newer.clone(), &wrong))), "bad-bundle");
    assert_eq!(refused(sync(request(newer.clone(), &bens))), "bad-bundle");
    assert_eq!(refused(sync(request(newer.clone(), &fingerprint[..39]))), "bad-argument");
    let planned = sync(dry(request(newer.clone(), &fingerprint))).unwrap();
    assert!(planned.changed);
    assert!(snapshot() == before && refused(show(0)) == "no-trust", "a dry run did something");
    assert_eq!(refused(sync(request(newer.clone(), ""))), "bad-argument", "a dry run remembered the key");
    made(sync(request(newer.clone(), &fingerprint)));
    assert_eq!(fs::read(POLICY).unwrap(), policy);
    assert_eq!(signers("registry.local:5000/more"), Some(vec![amys.clone()]));
    let shown = current();
    assert_eq!((&*shown.settings.follows, &*shown.settings.fingerprint), (URL, &*fingerprint));
    assert_eq!(shown.files, FILES.map(|path| (path.to_owned(), FileState::Same)).into());
    assert!(block().contains(&"10.7.7.7 registry.local".to_owned()), "{:?}", block());

    // The same again is nothing new, and the key is remembered.
    let again = sync(request(newer.clone(), "")).unwrap();
    assert!(!again.changed, "{again:?}");
    // What is older does not come in, by whomever it is said to be.
    let then = (snapshot(), current());
    for request in [
        request(older.clone(), ""),
        request(older.clone(), &fingerprint),
        overwriting(request(older, &fingerprint)),
    ] {
        assert_eq!(refused(sync(request)), "old-bundle");
    }
    assert_eq!((snapshot(), current()), then);

    // Here nothing is changed but by there.
    assert_eq!(refused(grant(AMY, &["registry.local:5000/here"])), "trust-follows");
    assert_eq!(refused(revoke(AMY, &[], true)), "trust-follows");
    assert_eq!(refused(init(settings())), "trust-follows");
    assert_eq!(refused(export()), "trust-follows");
    bash(AMY, "podsecctl key generate --no-passphrase --rotate");
    ctl(ROOT, &format!("key revoke --yes --creator {BEN} {bens}"));
    ctl(ROOT, "user create eve --category image-creator --scope registry.local:5000/eve");
    let _eve = Person("eve");
    assert_eq!((snapshot(), current()), then, "people of this host changed the other one's trust");
    assert_eq!(signers("registry.local:5000/amy"), Some(vec![amys]));

    // Drift is drift here, too.
    let mut edited = fs::read(POLICY).unwrap();
    edited.push(b'\n');
    fs::write(POLICY, &edited).unwrap();
    assert_eq!(refused(sync(request(newer.clone(), ""))), "trust-drift");
    assert_eq!(fs::read(POLICY).unwrap(), edited);
    assert!(sync(overwriting(request(newer.clone(), ""))).unwrap().changed);
    assert_eq!(fs::read(POLICY).unwrap(), policy);

    // A host that has trust of its own does not lose it by accident.
    untrusted.reset();
    made(init(settings()));
    made(grant(BEN, &["registry.local:5000/own"]));
    let then = (snapshot(), current());
    assert_eq!(refused(sync(request(newer.clone(), &fingerprint))), "own-trust");
    assert_eq!((snapshot(), current()), then);
    made(sync(overwriting(request(newer, &fingerprint))));
    assert_eq!((fs::read(POLICY).unwrap(), signers("registry.local:5000/own")), (policy, None));
    // And may have it back.
    made(rollback(then.1.head.revision));
    assert_eq!(current().scopes, then.1.scopes);
    assert_eq!(current().settings.follows, "");
    made(grant(AMY, &["registry.local:5000/here"]));
    assert!(rejects_by_default());
}

fn nothing_but_its_bundle(oracle: &mut Oracle) {
    let untrusted = Untrusted::host();
    let _amy = Person::creator(AMY, &["registry.local:5000/amy"]);
    let (_, good, fingerprint, _) = first_host(&untrusted);
    let before = snapshot();
    let planned = sync(dry(request(good.clone(), &fingerprint))).unwrap();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let step = if std::env::var_os("PODSEC_FULL").is_some() { 1 } else { 7 };
    let begin = std::time::Instant::now();
    for at in (0..good.len()).step_by(step).chain([good.len() - 1]) {
        let mut changed = good.clone();
        changed[at] ^= 1 << (at % 8);
        match sync(dry(request(changed, &fingerprint))) {
            // Not every bit of an OpenPGP packet is signed; what it says is.
            Ok(told) => {
                assert_eq!(told, planned, "byte {at}");
                *reasons.entry("the same".into()).or_default() += 1;
            }
            Err(status) => *reasons.entry(client::reason(&status)).or_default() += 1,
        }
    }
    println!("{reasons:?} of {} bytes in {:.1?}", good.len(), begin.elapsed());
    assert!(
        reasons.keys().all(|reason| ["bad-bundle", "the same"].contains(&reason.as_str())),
        "{reasons:?}"
    );
    assert!(reasons["bad-bundle"] > 4 * reasons.get("the same").copied().unwrap_or_default());

    // By somebody else, wrapped as podsec does it; with two keys; with more, or less, of it.
    let header = good.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    let length: usize =
        std::str::from_utf8(&good[..header]).unwrap().trim().rsplit(' ').next().unwrap().parse().unwrap();
    let (key, message) = good[header..].split_at(length);
    let bundle = |key: &[u8], message: &[u8]| {
        [format!("podsec-bundle 1 {}\n", key.len()).as_bytes(), key, message].concat()
    };
    assert_eq!(bundle(key, message), good);
    fs::write("/tmp/trust-message", message).unwrap();
    let script = "export GNUPGHOME=/run/podsec-tests/evil-gnupg; rm -rf $GNUPGHOME; mkdir -m 700 $GNUPGHOME
        gpg --batch --quiet --passphrase '' --quick-generate-key 'podsec trust' ed25519 sign never
        gpg --batch --export >/tmp/trust-evil-key
        gpgv --keyring /tmp/trust-good-key --output /tmp/trust-said - </tmp/trust-message 2>/dev/null
        sed -i 's/\"revision\":[0-9]*/\"revision\":99/' /tmp/trust-said
        gpg --batch --yes --output /tmp/trust-evil-message --sign /tmp/trust-said
        gpg --batch --yes --output /tmp/trust-detached --detach-sign /tmp/trust-said
        gpgconf --kill all; rm -r $GNUPGHOME";
    fs::write("/tmp/trust-good-key", key).unwrap();
    bash(ROOT, script);
    let read = |name: &str| fs::read(format!("/tmp/trust-{name}")).unwrap();
    let (evil_key, evil_message, said, detached) =
        (read("evil-key"), read("evil-message"), read("said"), read("detached"));
    assert!(!evil_message.is_empty() && !said.is_empty());
    for (what, bad) in [
        ("his own", bundle(&evil_key, &evil_message)),
        ("his message by our key", bundle(key, &evil_message)),
        ("our message by his key", bundle(&evil_key, message)),
        ("both keys", bundle(&[key, &evil_key].concat(), &evil_message)),
        ("both messages, his first", bundle(&[key, &evil_key].concat(), &[&evil_message, message].concat())),
        ("unsigned", bundle(key, &said)),
        ("detached", bundle(key, &detached)),
        ("a message only", message.to_vec()),
        ("a key only", bundle(key, b"")),
        ("no key", bundle(b"", message)),
        ("half", good[..good.len() / 2].to_vec()),
        ("garbage", vec![0xa5; 1000]),
        ("a key", fs::read(corpus_key()).unwrap()),
    ] {
        let told = sync(request(bad, &fingerprint)).expect_err(what);
        assert_eq!(client::reason(&told), "bad-bundle", "{what}: {told:?}");
    }
    // gpgv stops at the end of the first one: what follows says nothing.
    let followed = bundle(&[key, &evil_key].concat(), &[message, &evil_message].concat());
    if let Ok(told) = sync(dry(request(followed, &fingerprint))) {
        assert_eq!(told, planned);
    }
    for (what, bad) in [("nothing", vec![]), ("too much", vec![b'x'; 128 * 1024 + 1])] {
        assert_eq!(refused(sync(request(bad, &fingerprint))), "bad-argument", "{what}");
    }
    assert!(snapshot() == before && refused(show(0)) == "no-trust");
    assert_eq!(fs::read_to_string(HOSTS).unwrap().matches("podsec").count(), 0);
    let cages = fs::read_dir("/run/podsec").unwrap().flatten();
    let cages = cages.filter(|entry| entry.file_name().to_string_lossy().starts_with("cage-"));
    assert_eq!(cages.count(), 0);
    bash(ROOT, "rm -f /tmp/trust-*");
    let records = oracle.audit();
    assert!(
        records.iter().any(|record| record["op"] == "TrustService/Sync" && record["reason"] == "bad-bundle")
    );
}

/// Whoever fetches it later has what is in force, and not what was when somebody exported it.
fn what_is_published_is_the_newest(_: &mut Oracle) {
    let untrusted = Untrusted::host();
    let (_amy, amys) = Person::creator(AMY, &["registry.local:5000/amy"]);
    made(init(InitTrustRequest { address: String::new(), names: Vec::new(), ..settings() }));
    assert!(!fs::exists(PUBLISHED).unwrap(), "nobody asked for it");
    let exported = export().unwrap();
    assert_eq!(fs::read(PUBLISHED).unwrap(), exported);
    assert_eq!(
        bash(MALLORY, &format!("stat -c %a:%U {PUBLISHED} /var/sigstore/trust")),
        "644:root\n755:root\n"
    );
    let secret = fs::metadata("/var/lib/podsec/trust/gnupg").unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&secret) & 0o777, 0o700);
    made(revoke(AMY, &[], true));
    let newest = fs::read(PUBLISHED).unwrap();
    assert_ne!(newest, exported);
    let fingerprint = current().settings.fingerprint;
    untrusted.reset();
    // The older one first, as somebody would who keeps the newer one back; then the newer.
    made(sync(request(exported.clone(), &fingerprint)));
    assert_eq!(signers("registry.local:5000/amy"), Some(vec![amys]));
    made(sync(request(newest, "")));
    assert_eq!(signers("registry.local:5000/amy"), None);
    assert_eq!(refused(sync(request(exported, ""))), "old-bundle");
}
