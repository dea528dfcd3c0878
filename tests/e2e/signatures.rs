//! Signatures of images: made by skopeo and gpg, taken by podsecd, read by skopeo and podman of people who know nothing of
//! podsec; and what is refused on the way in and on the way out.

use crate::Test;
use crate::trust::{
    AMY, BEN, Person, REGISTRY, SIGNATURES, Untrusted, asked_by, bash, block, ctl, grant, init, is_roots,
    made, refused, rejects_by_default, revoke, rollback, settings, succeeds, told_to,
};
use podsec_proto::v1::GrantSignerRequest;
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, ALICE, CAROL, DAVE, MALLORY, ROOT};
use podsec_tests::{host, role};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

macro_rules! tests {
    ($($test:ident)*) => {
        pub const TESTS: &[Test] = &[$((concat!("signatures::", stringify!($test)), $test),)*];
    };
}

tests! {
    skopeo_signs_and_podsec_keeps
    whose_and_of_what
    what_is_no_signature
    keys_that_are_over
    bombs_hurt_nobody_else
    no_more_than_verifiers_bear
    the_tree_is_roots
    who_sees_what
    t57_signed_images_run_and_no_others
    t57_what_is_withdrawn
}

/// Where everybody can put what he signed.
const SHARED: &str = "/tmp/signatures";
const STORE: &str = "/var/sigstore/sigstore";

/// A file in [`SHARED`] that everybody reads.
fn shared(name: &str, contents: &[u8]) -> String {
    host::shared(SHARED, name, contents)
}

fn digest(of: &[u8]) -> String {
    format!("sha256:{}", podsec_policy::audit::hex(&Sha256::digest(of)))
}

/// Of no image.
fn some_digest(number: usize) -> String {
    digest(&number.to_le_bytes())
}

/// containers-signature(5)
fn payload(reference: &str, digest: &str) -> Vec<u8> {
    let payload = json!({
        "critical": {
            "type": "atomic container signature",
            "image": {"docker-manifest-digest": digest},
            "identity": {"docker-reference": reference},
        },
        "optional": {"creator": "a test", "timestamp": 1_700_000_000},
    });
    serde_json::to_vec(&payload).unwrap()
}

/// Signs with gpg as that person, with these options: the file.
fn gpg(who: &str, options: &str, said: &[u8]) -> String {
    let said = shared("said", said);
    let name = format!("{SHARED}/{}.gpg", number());
    bash(
        who,
        &format!(
            "gpg --batch --yes --quiet {options} --output {name} {said}; chmod 644 {name}; gpgconf --kill all"
        ),
    );
    name
}

/// Another one each time.
fn number() -> u32 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn sign(who: &str, fingerprint: &str, reference: &str, digest: &str) -> String {
    gpg(who, &format!("--local-user {fingerprint} --sign"), &payload(reference, digest))
}

fn submit(who: &str, repository: &str, digest: &str, file: &str) -> Value {
    told_to(who, &["submit", repository, digest, file])
}

/// Has to be taken: its place below the server's root.
fn taken(told: &Value) -> String {
    assert_eq!(told["changed"], true, "{told}\n{}", host::daemon_log());
    told["path"].as_str().unwrap().to_owned()
}

fn place(path: &str, digest: &str, number: usize) -> PathBuf {
    Path::new(STORE).join(format!("{path}@{}/signature-{number}", digest.replace(':', "=")))
}

/// All files below, with owners and modes.
fn stored() -> String {
    let find = "find /var/sigstore/sigstore -printf '%p %l %m %U %G %s\\n' 2>/dev/null | sort";
    let output = Command::new("/bin/bash").args(["-c", find]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Two creators, and trust.
fn two() -> (Untrusted, [(Person, String); 2]) {
    let host = Untrusted::host();
    let people = [
        Person::creator(AMY, &["registry.local:5000/amy"]),
        Person::creator(BEN, &["registry.local:5000/ben"]),
    ];
    made(init(settings()));
    host::everybodys_directory(SHARED);
    (host, people)
}

const APP: &str = "registry.local:5000/amy/app";

// ---- what is taken

fn skopeo_signs_and_podsec_keeps(oracle: &mut Oracle) {
    let (_host, [(_amy, amys), _]) = two();
    let manifest = shared("manifest", br#"{"schemaVersion":2,"layers":[]}"#);
    let digest = digest(&fs::read(&manifest).unwrap());
    let [first, second] = ["first", "second"].map(|name| format!("{SHARED}/{name}"));
    for (file, tag) in [(&first, "1"), (&second, "latest")] {
        bash(
            AMY,
            &format!(
                "skopeo standalone-sign {manifest} {APP}:{tag} {amys} -o {file}; chmod 644 {file}; gpgconf --kill all"
            ),
        );
    }
    let path = taken(&submit(AMY, APP, &digest, &first));
    assert_eq!(path, format!("/sigstore/amy/app@{}/signature-1", digest.replace(':', "=")));
    let place_of = |number| place("amy/app", &digest, number);
    assert_eq!(fs::read(place_of(1)).unwrap(), fs::read(&first).unwrap());
    let before = stored();
    let again = submit(AMY, APP, &digest, &first);
    assert_eq!((&again["changed"], &again["path"]), (&json!(false), &json!(path)), "{again}");
    assert_eq!(stored(), before);
    assert!(taken(&submit(AMY, APP, &digest, &second)).ends_with("/signature-2"));
    assert_eq!(fs::read(place_of(2)).unwrap(), fs::read(&second).unwrap());
    assert_eq!(submit(AMY, APP, &digest, &first)["changed"], false);
    assert!(!place_of(3).exists());

    let listed = told_to(AMY, &["signatures"]);
    let expected = |tag: &str| json!({"creator": AMY, "fingerprint": amys, "reference": format!("{APP}:{tag}"), "digest": digest, "trusted": true});
    assert_eq!(listed, json!([expected("1"), expected("latest")]));
    // As skopeo itself sees what is there.
    let verify = format!(
        "export GNUPGHOME={SHARED}/home; mkdir -m 700 $GNUPGHOME; gpg --batch --quiet --import /var/sigstore/keys/amy.pgp
        skopeo standalone-verify {manifest} {APP}:1 {amys} {}; gpgconf --kill all; rm -r $GNUPGHOME",
        place_of(1).display()
    );
    assert!(bash(MALLORY, &verify).contains(&digest));
    let records = oracle.audit();
    let done = records
        .iter()
        .filter(|record| record["op"] == "SignatureService/Submit" && record["phase"] == "done");
    let targets: Vec<_> = done.map(|record| record["target"].as_str().unwrap().to_owned()).collect();
    assert_eq!(targets.len(), 4);
    assert!(targets[0].contains(APP) && targets[0].contains(&digest), "{targets:?}");
}

// ---- what is not

fn refusal(told: &Value) -> (&str, &str) {
    assert!(told["changed"].is_null(), "taken: {told}");
    (told["reason"].as_str().unwrap(), told["message"].as_str().unwrap())
}

fn whose_and_of_what(oracle: &mut Oracle) {
    let (_host, [(_amy, amys), (_ben, bens)]) = two();
    let one = some_digest(1);
    let good = sign(AMY, &amys, &format!("{APP}:1"), &one);
    let before = stored();
    // Ben with Amy's, Ben with his own in Amy's scope, Amy in Ben's.
    let by_ben = sign(BEN, &bens, &format!("{APP}:1"), &one);
    let in_bens = sign(AMY, &amys, "registry.local:5000/ben/app:1", &one);
    for (who, repository, file) in [
        (BEN, APP, &good),
        (BEN, APP, &by_ben),
        (AMY, "registry.local:5000/ben/app", &in_bens),
        (AMY, "registry.local:5000/amy2/app", &good),
        (AMY, "registry.local:5000/other", &good),
        (AMY, "registry.local/amy/app", &good),
        (AMY, "registry.local:5001/amy/app", &good),
        (AMY, "elsewhere.example/amy/app", &good),
    ] {
        let told = submit(who, repository, &one, file);
        assert_eq!(refusal(&told).0, "out-of-scope", "{who}: {repository}: {told}");
    }
    let told = submit(BEN, "registry.local:5000/ben/app", &one, &by_ben);
    assert_eq!(refusal(&told).0, "bad-signature", "what he signs is in Amy's: {told}");
    let told = submit(AMY, APP, &one, &by_ben);
    assert_eq!(refusal(&told).0, "bad-signature", "not by her key: {told}");
    // Another image, another name of it.
    let told = submit(AMY, APP, &some_digest(2), &good);
    let (reason, message) = refusal(&told);
    assert!(reason == "bad-signature" && message.contains("digest"), "{told}");
    for (repository, reference) in [
        (APP, "registry.local:5000/amy/other:1"),
        (APP, "registry.local:5000/amy/app2:1"),
        (APP, "registry.local:5000/amy/app/x:1"),
        (APP, "registry.local:5000/amy:1"),
        (APP, "registry.local/amy/app:1"),
        (APP, "evil.example/amy/app:1"),
        (APP, "registry.local:5000/amy/app"),
        (APP, "registry.local:5000/amy/app:"),
        (APP, "registry.local:5000/amy/app:a/../b"),
        (APP, "registry.local:5000/amy/app:1\n"),
        (APP, ""),
        (APP, &format!("{APP}@{}", some_digest(2))),
        ("registry.local:5000/amy/other", &format!("{APP}:1")),
    ] {
        let file = sign(AMY, &amys, reference, &one);
        let told = submit(AMY, repository, &one, &file);
        let (reason, message) = refusal(&told);
        assert!(reason == "bad-signature" && message.contains("not in"), "{reference:?}: {told}");
    }
    assert_eq!(stored(), before);
    let denied = oracle.audit().into_iter().filter(|record| {
        record["op"] == "SignatureService/Submit" && (record["phase"] == "deny" || record["phase"] == "fail")
    });
    assert_eq!(denied.count(), 24);
    // Whoever is no creator, and creators whom nobody has granted anything.
    for who in [MALLORY, DAVE, ALICE] {
        assert_eq!(refusal(&submit(who, APP, &one, &good)).0, "not-authorised", "{who}");
    }
    assert_eq!(refusal(&submit(CAROL, APP, &one, &good)).0, "out-of-scope");
    assert_eq!(stored(), before);
    // The scope itself, and one by digest.
    let whole = sign(AMY, &amys, "registry.local:5000/amy:1", &one);
    taken(&submit(AMY, "registry.local:5000/amy", &one, &whole));
    let by_digest = sign(AMY, &amys, &format!("{APP}@{one}"), &one);
    taken(&submit(AMY, APP, &one, &by_digest));
    taken(&submit(AMY, APP, &one, &good));
    // A place that is granted and taken again.
    made(revoke(AMY, &[], false));
    let more = sign(AMY, &amys, &format!("{APP}:2"), &one);
    assert_eq!(refusal(&submit(AMY, APP, &one, &more)).0, "out-of-scope", "he signs no more");
    made(grant(BEN, &["registry.local:5000/amy"]));
    let theirs = sign(BEN, &bens, &format!("{APP}:2"), &one);
    taken(&submit(BEN, APP, &one, &theirs));
}

fn what_is_no_signature(_: &mut Oracle) {
    let (_host, [(_amy, amys), (_ben, bens)]) = two();
    let one = some_digest(1);
    let said = payload(&format!("{APP}:1"), &one);
    let good = sign(AMY, &amys, &format!("{APP}:1"), &one);
    let bytes = fs::read(&good).unwrap();
    let user = format!("--local-user {amys}");
    // Two keys of hers, both published.
    let told: Value =
        serde_json::from_str(&bash(AMY, "podsecctl --json key generate --no-passphrase --rotate")).unwrap();
    let second = told["fingerprint"].as_str().unwrap();
    let mut bad = vec![
        ("detached", gpg(AMY, &format!("{user} --detach-sign"), &said)),
        // Verifiers that know several formats look at the first byte.
        ("in armor", gpg(AMY, &format!("{user} --armor --sign"), &said)),
        ("in clear text", gpg(AMY, &format!("{user} --clear-sign"), &said)),
        ("two signatures of hers", gpg(AMY, &format!("{user} --local-user {second} --sign"), &said)),
        ("no JSON", gpg(AMY, &format!("{user} --sign"), b"I have signed nothing")),
        ("nothing", gpg(AMY, &format!("{user} --sign"), b"")),
        ("another document", gpg(AMY, &format!("{user} --sign"), br#"{"critical":{}}"#)),
        ("a list", gpg(AMY, &format!("{user} --sign"), &[b"[", &said[..], b"]"].concat())),
        ("two documents", gpg(AMY, &format!("{user} --sign"), &[&said[..], &said[..]].concat())),
        ("deep", gpg(AMY, &format!("{user} --sign"), &b"[".repeat(100_000))),
        ("not signed", gpg(AMY, "--store", &said)),
        ("encrypted", gpg(AMY, "--symmetric --pinentry-mode loopback --passphrase x", &said)),
        ("the payload", shared("payload", &said)),
        ("a key", shared("key", &fs::read("/var/sigstore/keys/amy.pgp").unwrap())),
        ("garbage", shared("garbage", &[0xa5; 3000])),
        ("half of it", shared("half", &bytes[..bytes.len() / 2])),
        ("64 KiB and one", shared("long", &[&bytes[..], &vec![0; 65537 - bytes.len()]].concat())),
        ("no bytes", shared("empty", b"")),
    ];
    for (name, from, to) in [
        ("cosign's", "atomic container signature", "cosign container image signature"),
        ("an unknown member", "\"critical\":{", "\"critical\":{\"more\":1,"),
        (
            "two digests",
            "\"docker-manifest-digest\"",
            "\"docker-manifest-digest\":\"x\",\"docker-manifest-digest\"",
        ),
    ] {
        let text = String::from_utf8(said.clone()).unwrap();
        assert!(text.contains(from), "{text}");
        bad.push((name, gpg(AMY, &format!("{user} --sign"), text.replacen(from, to, 1).as_bytes())));
    }
    // As Ben has signed what Amy submits, both in one message.
    shared(
        "bens",
        &[&fs::read(sign(BEN, &bens, &format!("{APP}:1"), &one)).unwrap()[..], &bytes[..]].concat(),
    );
    bad.push(("Ben's and hers", format!("{SHARED}/bens")));
    let before = stored();
    for (what, file) in &bad {
        let begin = Instant::now();
        let told = submit(AMY, APP, &one, file);
        assert!(told["changed"].is_null(), "{what} was taken");
        assert_eq!(refusal(&told).0, "bad-signature", "{what}: {told}");
        assert!(begin.elapsed() < Duration::from_secs(7), "{what}: {:?}", begin.elapsed());
        assert_eq!(stored(), before, "{what}");
    }
    // A byte of it.
    let step = if std::env::var_os("PODSEC_FULL").is_some() { 1 } else { 11 };
    let (mut tried, mut same) = (0, 0);
    for at in (0..bytes.len()).step_by(step) {
        let mut changed = bytes.clone();
        changed[at] ^= 1 << (at % 8);
        let file = shared("changed", &changed);
        let told = submit(AMY, APP, &one, &file);
        tried += 1;
        // Not every bit of a packet is signed.
        if told["changed"].is_null() {
            assert_eq!(told["reason"], "bad-signature", "byte {at}: {told}");
        } else {
            same += 1;
            let listed = told_to(AMY, &["signatures"]);
            let newest = listed.as_array().unwrap().last().unwrap().clone();
            assert_eq!(newest["digest"], one);
        }
    }
    println!("{tried} bytes changed, {same} without meaning");
    assert!(same * 4 < tried);
    taken(&submit(AMY, APP, &one, &good));
    assert_eq!(cages(), 0);
}

/// Directories of parsers.
fn cages() -> usize {
    let entries = fs::read_dir("/run/podsec").unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("cage-")).count()
}

fn keys_that_are_over(_: &mut Oracle) {
    let (_host, [(_amy, first), _]) = two();
    let one = some_digest(1);
    let by_first = sign(AMY, &first, &format!("{APP}:1"), &one);
    let told: Value =
        serde_json::from_str(&bash(AMY, "podsecctl --json key generate --no-passphrase --rotate")).unwrap();
    let second = told["fingerprint"].as_str().unwrap().to_owned();
    // Rotated out is not revoked.
    taken(&submit(AMY, APP, &one, &by_first));
    let later = sign(AMY, &first, &format!("{APP}:2"), &one);
    ctl(AMY, &format!("key revoke --yes {first}"));
    let told = submit(AMY, APP, &one, &later);
    assert_eq!(refusal(&told).0, "bad-signature", "a revoked key: {told}");
    let listed = told_to(AMY, &["signatures"]);
    assert_eq!(listed[0]["trusted"], false, "{listed}");
    let by_second = sign(AMY, &second, &format!("{APP}:2"), &one);
    taken(&submit(AMY, APP, &one, &by_second));
    // One of hers that she has not published, and one that has come to its end.
    let make = |options: &str| {
        bash(
            AMY,
            &format!(
                "gpg --batch --quiet --status-fd 1 --passphrase '' --quick-generate-key 'Amy <{}@elsewhere>' ed25519 sign {options} \
                 2>/dev/null | sed -n 's/.*KEY_CREATED P //p'; gpgconf --kill all",
                number()
            ),
        )
        .trim()
        .to_owned()
    };
    let unpublished = make("1y");
    let file = sign(AMY, &unpublished, &format!("{APP}:3"), &one);
    assert_eq!(refusal(&submit(AMY, APP, &one, &file)).0, "bad-signature");
    let short = make("seconds=6");
    ctl(AMY, &format!("key rotate {short}"));
    let file = sign(AMY, &short, &format!("{APP}:3"), &one);
    let state = || ctl(AMY, "key list")["keys"].as_array().unwrap().last().unwrap()["state"].clone();
    host::wait_for("the key's end", || state() == "expired");
    // gpg says so a second later.
    std::thread::sleep(Duration::from_millis(1100));
    let told = submit(AMY, APP, &one, &file);
    let (reason, message) = refusal(&told);
    assert!(reason == "bad-signature" && message.contains("expired"), "{told}");
    // Without any.
    let _dan = Person::without_key("dan", &["registry.local:5000/dan"]);
    assert_eq!(refusal(&submit("dan", "registry.local:5000/dan/app", &one, &by_second)).0, "no-key");
}

/// What is small, and is not when it is unpacked.
const BOMBS: &str = r#"
import sys, zlib
def packet(tag, body):  # RFC 9580 4.2.1
    return bytes([0xC0 | tag, 255]) + len(body).to_bytes(4, "big") + body
def compressed(data):
    return packet(8, b"\2" + zlib.compress(data, 9))
def write(name, data):
    assert len(data) <= 65536, (name, len(data))
    open("/tmp/signatures/" + name, "wb").write(data)
good = open("/tmp/signatures/good", "rb").read()
zeros = bytes(60 << 20)
literal = packet(11, b"b\0\0\0\0\0" + zeros)
write("zeros", compressed(zeros))
write("literal", compressed(literal))
write("twice", compressed(compressed(literal + literal)))
write("thrice", compressed(compressed(compressed(literal * 4))))
nested = good
for _ in range(9000):
    nested = packet(8, b"\0" + nested)
    if len(nested) > 60000: break
write("nested", nested)
write("signatures", compressed(good * 15000 if len(good) * 15000 < 40 << 20 else good * ((40 << 20) // len(good))))
"#;

fn bombs_hurt_nobody_else(_: &mut Oracle) {
    let (_host, [(_amy, amys), (_ben, bens)]) = two();
    let one = some_digest(1);
    fs::copy(sign(AMY, &amys, &format!("{APP}:1"), &one), format!("{SHARED}/good")).unwrap();
    host::run(Command::new("/usr/bin/python3").args(["-c", BOMBS]));
    // A bomb of her own that is really signed: fifty million blanks around what would be good.
    let mut blank = payload(&format!("{APP}:1"), &one);
    blank.extend(vec![b' '; 50 << 20]);
    let signed = gpg(AMY, &format!("--local-user {amys} --compress-level 9 --sign"), &blank);
    assert!(fs::metadata(&signed).unwrap().len() <= 65536);
    fs::rename(&signed, format!("{SHARED}/signed")).unwrap();
    let bens_image = "registry.local:5000/ben/app";
    for name in ["zeros", "literal", "twice", "thrice", "nested", "signatures", "signed"] {
        let file = format!("{SHARED}/{name}");
        let begin = Instant::now();
        let her = role::start(AMY, "asker", &["submit", APP, &one, &file]);
        std::thread::sleep(Duration::from_millis(50));
        // Meanwhile others do what they do.
        let good = sign(BEN, &bens, &format!("{bens_image}:{name}"), &one);
        let start = Instant::now();
        taken(&submit(BEN, bens_image, &one, &good));
        let his = start.elapsed();
        made(grant(BEN, &[&format!("registry.local:5000/free-{name}")]));
        assert!(start.elapsed() < Duration::from_secs(2), "{name}: others waited for {:?}", start.elapsed());
        let told = her.finish();
        let told: Value = serde_json::from_str(told.trim()).unwrap();
        assert_eq!(refusal(&told).0, "bad-signature", "{name}: {told}");
        println!("{name}: {:.1?}, somebody else {his:.1?}: {}", begin.elapsed(), refusal(&told).1);
        assert!(begin.elapsed() < Duration::from_secs(12), "{name}: {:?}", begin.elapsed());
        host::wait_for("the parser's end", || cages() == 0);
    }
    assert!(!place("amy/app", &one, 1).exists());
    assert_eq!(host::run(Command::new("/usr/bin/find").args(["/run/podsec", "-size", "+1M"])), "");
}

/// Each of them is fetched and verified by everybody who pulls the image.
fn no_more_than_verifiers_bear(_: &mut Oracle) {
    let (_host, [(_amy, amys), _]) = two();
    let one = some_digest(1);
    let files: Vec<_> = (0..33).map(|number| sign(AMY, &amys, &format!("{APP}:{number}"), &one)).collect();
    let mut words = Vec::new();
    for file in &files {
        words.extend(["submit", APP, &one, file, "+"]);
    }
    words.pop();
    let told = asked_by(AMY, &words);
    for (index, told) in told[..32].iter().enumerate() {
        assert!(taken(told).ends_with(&format!("/signature-{}", index + 1)));
    }
    assert_eq!(refusal(&told[32]).0, "signature-limit", "{}", told[32]);
    assert!(place("amy/app", &one, 32).exists() && !place("amy/app", &one, 33).exists());
    // What is there stays what it is, and another image has a place of its own.
    assert_eq!(submit(AMY, APP, &one, &files[7])["changed"], false);
    let other = sign(AMY, &amys, &format!("{APP}:1"), &some_digest(2));
    taken(&submit(AMY, APP, &some_digest(2), &other));
    assert_eq!(told_to(AMY, &["signatures"]).as_array().unwrap().len(), 33);
}

fn the_tree_is_roots(_: &mut Oracle) {
    let (_host, [(_amy, amys), (_ben, bens)]) = two();
    let one = some_digest(1);
    let file = sign(AMY, &amys, &format!("{APP}:1"), &one);
    let path = taken(&submit(AMY, APP, &one, &file));
    let bens_image = "registry.local:5000/ben/app";
    taken(&submit(BEN, bens_image, &one, &sign(BEN, &bens, &format!("{bens_image}:1"), &one)));
    let stored_at = format!("/var/sigstore{path}");
    for (path, mode) in [
        ("/var/sigstore", 0o755),
        (STORE, 0o755),
        (&format!("{STORE}/amy"), 0o755),
        (Path::new(&stored_at).parent().unwrap().to_str().unwrap(), 0o755),
        (&stored_at, 0o644),
        ("/var/lib/podsec/signatures", 0o700),
        ("/var/lib/podsec/signatures/amy", 0o700),
    ] {
        assert!(is_roots(path, mode), "{path}");
    }
    let before = (stored(), fs::read(&stored_at).unwrap());
    let directory = Path::new(&stored_at).parent().unwrap().display().to_string();
    for who in [AMY, BEN, CAROL, DAVE, ALICE, MALLORY] {
        for script in [
            format!("rm -f {stored_at}"),
            format!("echo x >{stored_at}"),
            format!("cp {file} {directory}/signature-2"),
            format!("mv {directory} {directory}.x"),
            format!("ln -s /etc/shadow {directory}/signature-2"),
            format!("ln -s /etc {STORE}/etc"),
            format!("mkdir {STORE}/{who}2"),
            format!("mkdir {STORE}/amy/app@sha256=00"),
            format!("chmod 777 {directory}"),
            format!("ln -s /etc {STORE}/amy/x"),
            "mkdir /var/sigstore/x".to_owned(),
            "mv /var/sigstore/sigstore /var/sigstore/y".to_owned(),
        ] {
            assert!(!succeeds(who, &script), "{who}: {script}");
        }
        assert_eq!((stored(), fs::read(&stored_at).unwrap()), before, "{who}");
    }
    assert_eq!(
        bash(MALLORY, &format!("sha256sum <{stored_at}")),
        bash(ROOT, &format!("sha256sum <{stored_at}"))
    );
    // A link that root left there by mistake is no way out.
    host::run(Command::new("/bin/ln").args([
        "-s",
        "/home/mallory",
        &format!("{STORE}/amy/linked@{}", some_digest(3).replace(':', "=")),
    ]));
    let linked = "registry.local:5000/amy/linked";
    let file = sign(AMY, &amys, &format!("{linked}:1"), &some_digest(3));
    let told = submit(AMY, linked, &some_digest(3), &file);
    assert!(told["changed"].is_null(), "{told}");
    assert!(!Path::new("/home/mallory/signature-1").exists());
}

fn who_sees_what(_: &mut Oracle) {
    let (_host, [(_amy, amys), (_ben, bens)]) = two();
    let one = some_digest(1);
    taken(&submit(AMY, APP, &one, &sign(AMY, &amys, &format!("{APP}:1"), &one)));
    let bens_image = "registry.local:5000/ben/app";
    taken(&submit(BEN, bens_image, &one, &sign(BEN, &bens, &format!("{bens_image}:1"), &one)));
    let references = |told: Value| -> Vec<String> {
        let all = told.as_array().unwrap_or_else(|| panic!("{told}"));
        all.iter().map(|one| one["reference"].as_str().unwrap().to_owned()).collect()
    };
    let (amys_image, bens_image) = (format!("{APP}:1"), format!("{bens_image}:1"));
    assert_eq!(references(told_to(AMY, &["signatures"])), [amys_image.as_str()]);
    assert_eq!(references(told_to(AMY, &["signatures", AMY])), [amys_image.as_str()]);
    assert_eq!(references(told_to(BEN, &["signatures"])), [bens_image.as_str()]);
    assert_eq!(told_to(BEN, &["signatures", AMY])["reason"], "not-owner");
    assert_eq!(references(told_to(CAROL, &["signatures"])), [] as [String; 0]);
    for who in [ALICE, ROOT] {
        assert_eq!(references(told_to(who, &["signatures"])), [amys_image.as_str(), bens_image.as_str()]);
        assert_eq!(references(told_to(who, &["signatures", BEN])), [bens_image.as_str()]);
    }
    for who in [MALLORY, DAVE] {
        assert_eq!(told_to(who, &["signatures"])["reason"], "not-authorised", "{who}");
    }
    // What one who is not trusted any more has signed can be found.
    let trusted = |who: &str| told_to(ALICE, &["signatures", who])[0]["trusted"].clone();
    assert_eq!((trusted(AMY), trusted(BEN)), (json!(true), json!(true)));
    made(revoke(AMY, &[], false));
    assert_eq!((trusted(AMY), trusted(BEN)), (json!(true), json!(true)));
    made(revoke(AMY, &[], true));
    assert_eq!((trusted(AMY), trusted(BEN)), (json!(false), json!(true)));
}

// ---- verified by skopeo and podman

/// A registry, and a server of signatures, on this host's loopback.
struct Servers(Vec<Child>);

impl Servers {
    fn start() -> Self {
        let config = "version: 0.1\nlog: {level: error}\nstorage:\n  filesystem: {rootdirectory: /run/podsec-tests/registry}\n  delete: {enabled: true}\nhttp: {addr: '127.0.0.1:5000'}\n";
        fs::write("/run/podsec-tests/registry.yml", config).unwrap();
        fs::create_dir_all(STORE).unwrap();
        let port = SIGNATURES.rsplit(':').next().unwrap();
        let python = ["-m", "http.server", port, "--bind", "127.0.0.1", "--directory", "/var/sigstore"];
        let mut registry = Command::new("/usr/bin/docker-registry");
        let mut signatures = Command::new("/usr/bin/python3");
        let servers = [registry.args(["serve", "/run/podsec-tests/registry.yml"]), signatures.args(python)];
        let start = |command: &mut Command| {
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
        };
        let servers = Self(servers.map(start).into());
        for port in ["5000", port] {
            let address = format!("127.0.0.1:{port}");
            host::wait_for("a server", || std::net::TcpStream::connect(&address).is_ok());
        }
        servers
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all("/run/podsec-tests/registry");
    }
}

/// An OCI layout whose one program says who it is, and a number that makes it another image: the digest of its manifest.
fn image(number: usize) -> String {
    let script = format!(
        r#"layout={SHARED}/image{number}; rm -rf $layout; mkdir -p $layout/blobs/sha256; cd $layout
        blob() {{ local hash; hash=$(sha256sum <$1 | cut -d' ' -f1); mv $1 blobs/sha256/$hash; echo $hash; }}
        size() {{ stat -c %s blobs/sha256/$1; }}
        cp /usr/bin/podsecctl program; echo {number} >number
        tar --owner 0 --group 0 --mtime @0 -cf layer program number; rm program number
        diff=$(sha256sum <layer | cut -d' ' -f1); gzip -n -1 layer; mv layer.gz layer; layer=$(blob layer)
        printf '{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/program","--version"]}},"rootfs":{{"type":"layers","diff_ids":["sha256:%s"]}}}}' $diff >config
        config=$(blob config)
        printf '{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:%s","size":%s}}]}}' $config $(size $config) $layer $(size $layer) >manifest
        cp manifest manifest.json; manifest=$(blob manifest)
        printf '{{"schemaVersion":2,"manifests":[{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:%s","size":%s}}]}}' $manifest $(size $manifest) >index.json
        echo '{{"imageLayoutVersion":"1.0.0"}}' >oci-layout; chmod -R a+rX .; echo sha256:$manifest"#
    );
    host::everybodys_directory(SHARED);
    bash(ROOT, &script).trim().to_owned()
}

fn push(who: &str, number: usize, reference: &str) {
    let copy = format!(
        "skopeo --insecure-policy copy --quiet --dest-tls-verify=false oci:{SHARED}/image{number} docker://{reference}"
    );
    bash(who, &copy);
}

/// Signed by skopeo, and submitted.
fn publish(who: &str, fingerprint: &str, number: usize, reference: &str) -> String {
    let digest = image(number);
    push(who, number, reference);
    let file = format!("{SHARED}/{who}-{number}.signature");
    bash(
        who,
        &format!(
            "skopeo standalone-sign {SHARED}/image{number}/manifest.json {reference} {fingerprint} -o {file}; chmod 644 {file}
            gpgconf --kill all"
        ),
    );
    let (repository, _) = reference.rsplit_once(':').unwrap();
    taken(&submit(who, repository, &digest, &file));
    digest
}

/// What skopeo says who copies it by his own policy; `Ok`: he got it.
fn pulls(who: &str, image: &str) -> Result<(), String> {
    let script =
        format!("rm -rf /tmp/pulled-$(id -u); skopeo copy --quiet docker://{image} dir:/tmp/pulled-$(id -u)");
    let output = people::command(who, "/bin/bash").args(["-ec", &script]).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// The same by rootless podman, which runs it, too.
fn runs(who: &str, image: &str) -> Result<String, String> {
    let script = format!(
        "export XDG_RUNTIME_DIR=/tmp/run-$(id -u); mkdir -p -m 700 $XDG_RUNTIME_DIR; cd; \
         exec podman --storage-driver vfs --cgroup-manager cgroupfs --events-backend file run --pull always --quiet --rm --network none \
         --cgroups disabled {image}"
    );
    let output = people::command(who, "/bin/bash").args(["-ec", &script]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

fn t57_signed_images_run_and_no_others(_: &mut Oracle) {
    if !host::are_installed(&["skopeo", "docker-registry", "python3"]) {
        return;
    }
    let (_host, [(_amy, amys), (_ben, bens)]) = two();
    assert!(block().len() == 3 && REGISTRY == "registry.local:5000");
    let _zoe = Person::image_user("zoe");
    let _servers = Servers::start();
    let podman = host::are_installed(&["podman", "crun"]);
    let app = |name: &str| format!("{REGISTRY}/{name}");
    let expect = |image: &str, runs_it: bool, why: &str| {
        for who in ["zoe", DAVE, MALLORY] {
            let told = pulls(who, image);
            assert_eq!(told.is_ok(), runs_it, "{who} pulls {image}: {told:?}");
            if let Err(told) = told {
                assert!(told.contains(why), "{who} pulls {image}: {told}");
            }
        }
        if podman {
            let told = runs("zoe", image);
            assert_eq!(told.is_ok(), runs_it, "{image}: {told:?}");
            match told {
                Ok(printed) => assert!(printed.starts_with("podsecctl "), "{printed}"),
                Err(told) => assert!(told.contains(why), "{image}: {told}"),
            }
        }
    };

    let digest = publish(AMY, &amys, 1, &app("amy/app:1"));
    publish(BEN, &bens, 2, &app("ben/app:1"));
    expect(&app("amy/app:1"), true, "");
    expect(&app("ben/app:1"), true, "");
    expect(&format!("{}@{digest}", app("amy/app")), true, "");

    // Unsigned, in her scope, under another tag, and in nobody's.
    image(3);
    push(AMY, 3, &app("amy/unsigned:1"));
    expect(&app("amy/unsigned:1"), false, "A signature was required, but no signature exists");
    push(AMY, 1, &app("amy/app:2"));
    expect(&app("amy/app:2"), false, "is not accepted");
    push(AMY, 1, &app("nobody/app:1"));
    expect(&app("nobody/app:1"), false, "rejected by policy");
    push(AMY, 1, &app("amyapp:1"));
    expect(&app("amyapp:1"), false, "rejected by policy");

    // Another image under the name of the signed one: its digest has no signature; and with the signature of the other.
    let tampered = image(4);
    push(AMY, 4, &app("amy/app:1"));
    expect(&app("amy/app:1"), false, "A signature was required, but no signature exists");
    let directory = place("amy/app", &tampered, 1);
    fs::create_dir_all(directory.parent().unwrap()).unwrap();
    fs::copy(place("amy/app", &digest, 1), &directory).unwrap();
    expect(&app("amy/app:1"), false, "match");
    fs::remove_dir_all(directory.parent().unwrap()).unwrap();
    push(AMY, 1, &app("amy/app:1"));
    expect(&app("amy/app:1"), true, "");

    // By somebody else, put there behind podsec's back.
    image(5);
    push(AMY, 5, &app("amy/foreign:1"));
    let manifest = format!("{SHARED}/image5/manifest.json");
    let foreign = digest_of(&manifest);
    bash(
        BEN,
        &format!(
            "skopeo standalone-sign {manifest} {} {bens} -o {SHARED}/foreign; chmod 644 {SHARED}/foreign; gpgconf --kill all",
            app("amy/foreign:1")
        ),
    );
    let at = place("amy/foreign", &foreign, 1);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    fs::copy(format!("{SHARED}/foreign"), &at).unwrap();
    expect(&app("amy/foreign:1"), false, "");
    // The good one beside the bad one is enough.
    bash(
        AMY,
        &format!(
            "skopeo standalone-sign {manifest} {} {amys} -o {SHARED}/own; chmod 644 {SHARED}/own; gpgconf --kill all",
            app("amy/foreign:1")
        ),
    );
    assert!(
        taken(&submit(AMY, &app("amy/foreign"), &foreign, &format!("{SHARED}/own"))).ends_with("signature-2")
    );
    expect(&app("amy/foreign:1"), true, "");
    assert!(rejects_by_default());
    leave();
}

fn digest_of(file: &str) -> String {
    digest(&fs::read(file).unwrap())
}

/// What podman leaves in a home is its user's in his namespace, and goes with him; the rest is here.
fn leave() {
    bash(ROOT, &format!("rm -rf /tmp/pulled-* /tmp/run-* {SHARED}"));
}

fn t57_what_is_withdrawn(_: &mut Oracle) {
    if !host::are_installed(&["skopeo", "docker-registry", "python3"]) {
        return;
    }
    let (_host, [(_amy, first), (_ben, bens)]) = two();
    let _zoe = Person::image_user("zoe");
    let _servers = Servers::start();
    let app = |name: &str| format!("{REGISTRY}/{name}");
    publish(AMY, &first, 1, &app("amy/app:1"));
    publish(BEN, &bens, 2, &app("ben/app:1"));
    let zoe = |image: &str| pulls("zoe", &app(image)).is_ok();
    assert!(zoe("amy/app:1") && zoe("ben/app:1"));
    // A new key beside the old one.
    let told: Value =
        serde_json::from_str(&bash(AMY, "podsecctl --json key generate --no-passphrase --rotate")).unwrap();
    let second = told["fingerprint"].as_str().unwrap().to_owned();
    publish(AMY, &second, 3, &app("amy/app:3"));
    assert!(zoe("amy/app:1") && zoe("amy/app:3"));
    // Out of the scope, and still trusted; then not.
    made(revoke(AMY, &[], false));
    assert!(zoe("amy/app:1") && zoe("amy/app:3"));
    made(revoke(AMY, &[], true));
    assert!(!zoe("amy/app:1") && !zoe("amy/app:3") && zoe("ben/app:1"));
    made(grant(AMY, &["registry.local:5000/amy"]));
    assert!(zoe("amy/app:1") && zoe("amy/app:3"));
    // A key that is revoked takes what it signed with it, for good.
    ctl(AMY, &format!("key revoke --yes {first}"));
    assert!(!zoe("amy/app:1") && zoe("amy/app:3"));
    rollback(1).unwrap();
    assert!(!zoe("amy/app:1") && zoe("amy/app:3"), "a rollback brought a revoked key back");
    // Two who share a scope.
    assert_eq!(refused(grant(BEN, &["registry.local:5000/amy"])), "scope-taken");
    let request = GrantSignerRequest {
        shared: true,
        ..crate::trust::grant_of(BEN, &["registry.local:5000/amy/shared"])
    };
    made(crate::trust::ask_grant(request));
    publish(BEN, &bens, 4, &app("amy/shared/app:1"));
    publish(AMY, &second, 5, &app("amy/shared/app:2"));
    assert!(zoe("amy/shared/app:1") && zoe("amy/shared/app:2"));
    // And with her go her images.
    drop(_amy);
    assert!(!zoe("amy/app:3") && !zoe("amy/shared/app:2") && zoe("amy/shared/app:1") && zoe("ben/app:1"));
    leave();
}
