//! Signing keys: made, published, used by gpg and skopeo, verified by tools that know nothing of podsec, withdrawn; and
//! attacks 51 to 53 of docs/threats.md: traps in a creator's keyring, bytes that are no key, keys of others.

use crate::Test;
use podsec_proto::v1::PublishKeyRequest;
use podsec_tests::oracle::Oracle;
use podsec_tests::people::bash;
use podsec_tests::people::{self, ALICE, CAROL, CLUSTER, DAVE, ERIN, MALLORY, ROOT};
use podsec_tests::{client, host, role};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

macro_rules! tests {
    ($($test:ident)*) => {
        pub const TESTS: &[Test] = &[$((concat!("keys::", stringify!($test)), $test),)*];
    };
}

tests! {
    made_with_a_key_he_signs
    skopeo_signs_images
    the_life_of_a_key
    a_key_comes_to_its_end
    a_revoked_key_stays_revoked
    where_the_private_key_is
    who_may
    t51_traps_in_his_keyring
    t51_gpg_is_kept_waiting
    t52_what_is_no_key
    t52_keys_with_a_byte_changed
    t52_gpg_is_in_a_cage
    t53_whose_key_it_is
    t53_keys_are_not_inherited
    t53_no_creator_any_more
}

pub const ROLES: &[role::Role] = &[("publisher", publish_twice)];

const AMY: &str = "amy";
const BEN: &str = "ben";
const PASSPHRASE: &str = "correct horse battery";
/// Where everybody can put what he signed.
const SHARED: &str = "/tmp/keys";

// ---- what is typed, and what is answered

/// An answer of `podsecctl --json`: exit status, and its one object.
type Answer = (i32, Value);

fn answer(output: &Output) -> Answer {
    let text = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
    (output.status.code().expect("an exit status"), serde_json::from_str(&text).expect(&text))
}

/// `podsecctl --json …` as that person.
fn ctl(who: &str, line: &str) -> Answer {
    let mut command = people::command(who, "/usr/bin/podsecctl");
    answer(&command.arg("--json").args(line.split_whitespace()).output().unwrap())
}

/// Of a command that has to do its work.
fn done((status, told): Answer) -> Value {
    assert_eq!(status, 0, "{told}\n{}", host::daemon_log());
    told
}

fn changed(answer: Answer) -> bool {
    done(answer)["changed"] == true
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Exit status and reason of what has to fail.
fn refused((status, told): Answer) -> (i32, String) {
    (status, text(&told["error"]["reason"]))
}

fn refusal(status: i32, reason: &str) -> (i32, String) {
    (status, reason.to_owned())
}

/// A creator, removed with all that is his at the end of the test.
struct Creator(&'static str);

impl Creator {
    fn without_key(name: &'static str) -> Self {
        let made = Self(name);
        assert!(changed(ctl(ALICE, &create(name))));
        made
    }

    /// And the fingerprint of his key.
    fn with_key(name: &'static str) -> (Self, String) {
        let made = Self(name);
        let told = done(make_key(name));
        (made, text(&told["fingerprint"]))
    }
}

impl Drop for Creator {
    fn drop(&mut self) {
        // Should this fail, the oracle sees whom it left.
        people::podsecctl(ROOT, &["user", "delete", self.0, "--remove-home", "--yes"]);
    }
}

fn create(name: &str) -> String {
    format!("user create {name} --category image-creator --scope registry.local/{name}")
}

/// A creator with a key, or a key for one who has none.
fn make_key(name: &str) -> Answer {
    ctl(ALICE, &format!("{} --with-key --no-key-passphrase", create(name)))
}

/// Fingerprints and states of somebody's keys, as he sees them.
fn list(name: &str) -> Vec<(String, String)> {
    let told = done(ctl(name, "key list"));
    let keys = told["keys"].as_array().unwrap().iter();
    keys.map(|key| (text(&key["fingerprint"]), text(&key["state"]))).collect()
}

fn listed(keys: &[(&str, &str)]) -> Vec<(String, String)> {
    keys.iter().map(|&(fingerprint, state)| (fingerprint.to_owned(), state.to_owned())).collect()
}

/// The file for verifiers.
fn published(name: &str) -> PathBuf {
    Path::new("/var/sigstore/keys").join(name).with_extension("pgp")
}

/// podsec's record.
fn record(name: &str) -> PathBuf {
    Path::new("/var/lib/podsec/keys").join(name).with_extension("json")
}

fn has_nothing(name: &str) -> bool {
    !published(name).exists() && !record(name).exists()
}

// ---- signing and verifying, by other people's tools

/// A file in [`SHARED`].
fn shared(name: &str, contents: &[u8]) -> String {
    host::shared(SHARED, name, contents)
}

/// He signs a file: the signature's.
fn sign(who: &str, fingerprint: &str, passphrase: &str, file: &str) -> Result<String, String> {
    let signature = format!("{file}.{fingerprint}");
    // A passphrase that the agent still knew would be no test of this one.
    let script = format!(
        "gpgconf --kill all; gpg --batch --yes --pinentry-mode loopback --passphrase '{passphrase}' --local-user \
         {fingerprint} --output {signature} --detach-sign {file}"
    );
    let output = people::command(who, "/bin/bash").args(["-ec", &script]).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(signature) } else { Err(told) }
}

/// Which key of the creator's published ones made the signature, as a stranger finds out with gpgv(1).
fn verified(creator: &str, signature: &str, file: &str) -> Option<String> {
    let mut gpgv = people::command(MALLORY, "/usr/bin/gpgv");
    let output = gpgv.args(["--status-fd", "1", "--keyring"]).arg(published(creator)).args([signature, file]);
    let output = output.output().unwrap();
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut valid = status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] VALIDSIG "));
    let fingerprint = valid.next().and_then(|rest| rest.split(' ').next()).map(str::to_owned);
    assert_eq!(output.status.success(), fingerprint.is_some(), "{status}");
    fingerprint
}

/// The same by Sequoia, which shares no code with GnuPG: did any?
fn sequoia_verifies(creator: &str, signature: &str, file: &str) -> bool {
    let sq = |arguments: &[&str]| people::command(MALLORY, "/usr/bin/sq").args(arguments).output().unwrap();
    let keys = published(creator);
    let keys = keys.to_str().unwrap();
    // Its options were renamed for 1.0.
    let help = String::from_utf8(sq(&["verify", "--help"]).stdout).unwrap();
    let output = if help.contains("--signer-cert") {
        sq(&["verify", "--signer-cert", keys, "--detached", signature, file])
    } else {
        sq(&["verify", "--signer-file", keys, "--signature-file", signature, file])
    };
    output.status.success()
}

/// Fingerprints of the keys in these bytes, as gpg lists them.
fn shown(keys: &[u8]) -> Vec<String> {
    let file = shared("shown", keys);
    let list = bash(
        MALLORY,
        &format!("gpg --batch --with-colons --no-keyring --trust-model direct --show-keys {file}"),
    );
    let fingerprints = list.lines().filter_map(|line| line.strip_prefix("fpr:")?.split(':').nth(8));
    fingerprints.map(str::to_owned).collect()
}

/// What is in it, with modes, owners and times, links not followed.
fn tree(path: &str) -> String {
    let find = ["-maxdepth", "3", "-printf"];
    host::run(Command::new("/usr/bin/find").arg(path).args(find).arg("%p %l %m %U %G %s %T@ %C@\n"))
}

/// gpg's agent ends a moment after it was told to.
fn assert_no_processes(name: &str, what: &str) {
    host::wait_for(&format!("{what}: the end of what {name} runs"), || processes_of(name).is_empty());
}

/// Somebody's processes: what each of them runs.
fn processes_of(name: &str) -> Vec<String> {
    let uid = uid_of(name);
    let of = |pid: &i32| fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == uid);
    let program = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    pids().iter().filter(|pid| of(pid)).map(program).collect()
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn uid_of(name: &str) -> u32 {
    host::run(Command::new("/usr/bin/id").args(["-u", name])).trim().parse().unwrap()
}

// ---- what creators do

fn made_with_a_key_he_signs(_: &mut Oracle) {
    let (_amy, amys) = Creator::with_key(AMY);
    let _ben = Creator(BEN);
    let command =
        format!("podsecctl --json {} --with-key --key-passphrase-fd 3 3<<<'{PASSPHRASE}'", create(BEN));
    let told: Value = serde_json::from_str(bash(ALICE, &command).lines().next().unwrap()).unwrap();
    let bens = text(&told["fingerprint"]);
    assert_eq!(list(AMY), listed(&[(&amys, "current")]));
    assert_eq!(list(BEN), listed(&[(&bens, "current")]));
    // Asked again, there is nothing to do, and no other key.
    assert!(!changed(make_key(AMY)));
    assert_eq!(list(AMY), listed(&[(&amys, "current")]));

    let (file, other) = (shared("file", b"an image, say"), shared("other", b"another"));
    let by_amy = sign(AMY, &amys, "", &file).unwrap();
    let by_ben = sign(BEN, &bens, PASSPHRASE, &file).unwrap();
    let wrong = sign(BEN, &bens, "wrong horse battery", &other).unwrap_err();
    assert!(wrong.contains("Bad passphrase"), "{wrong}");
    assert_eq!(verified(AMY, &by_amy, &file), Some(amys));
    assert_eq!(verified(BEN, &by_ben, &file), Some(bens));
    let wrong = [(AMY, &by_ben, &file), (BEN, &by_amy, &file), (AMY, &by_amy, &other)];
    for (creator, signature, file) in wrong {
        assert_eq!(verified(creator, signature, file), None, "{creator}: {signature} of {file}");
    }
    if host::are_installed(&["sq"]) {
        assert!(sequoia_verifies(AMY, &by_amy, &file) && sequoia_verifies(BEN, &by_ben, &file));
        for (creator, signature, file) in wrong {
            assert!(!sequoia_verifies(creator, signature, file), "{creator}: {signature} of {file}");
        }
    }
}

fn skopeo_signs_images(_: &mut Oracle) {
    if !host::are_installed(&["skopeo"]) {
        return;
    }
    let (_amy, amys) = Creator::with_key(AMY);
    let (_ben, bens) = Creator::with_key(BEN);
    let manifest = shared("manifest", br#"{"schemaVersion":2,"layers":[]}"#);
    let other = shared("manifest2", br#"{"schemaVersion":2,"layers":[{}]}"#);
    let image = "registry.local/amy/app:1";
    for (who, fingerprint) in [(AMY, &amys), (BEN, &bens)] {
        let signed =
            format!("skopeo standalone-sign {manifest} {image} {fingerprint} -o {SHARED}/{who}.signature");
        bash(who, &signed);
    }
    // A stranger's keyring with what is published of the one.
    let home = format!("{SHARED}/gnupg");
    let keys = published(AMY);
    bash(
        MALLORY,
        &format!("mkdir -m 700 {home}; gpg --homedir {home} --batch --quiet --import {}", keys.display()),
    );
    let verifies = |manifest: &str, image: &str, signature: &str| {
        let script = format!(
            "export GNUPGHOME={home}; skopeo standalone-verify {manifest} {image} {amys} {SHARED}/{signature}.signature"
        );
        people::command(MALLORY, "/bin/bash").args(["-c", &script]).output().unwrap().status.success()
    };
    assert!(verifies(&manifest, image, AMY));
    assert!(!verifies(&manifest, image, BEN), "signed by somebody else");
    assert!(!verifies(&other, image, AMY), "another image");
    assert!(!verifies(&manifest, "registry.local/ben/app:1", AMY), "another name");
    bash(MALLORY, &format!("gpgconf --homedir {home} --kill all; rm -r {home}"));
}

fn the_life_of_a_key(oracle: &mut Oracle) {
    let _amy = Creator::without_key(AMY);
    assert_eq!(list(AMY), []);
    assert_eq!(refused(ctl(AMY, "key export amy")), refusal(78, "no-key"));
    assert_eq!(refused(ctl(AMY, "key publish")), refusal(2, "usage"), "there is none in the keyring");
    assert_eq!(refused(ctl(AMY, "key generate")), refusal(2, "usage"), "nobody to ask for a passphrase");
    assert_eq!(refused(ctl(AMY, "key generate --no-passphrase --rotate")), refusal(78, "no-key"));
    assert!(has_nothing(AMY));

    // The first, with a passphrase.
    let generate = format!("podsecctl --json key generate --passphrase-fd 3 3<<<'{PASSPHRASE}'");
    let told: Value = serde_json::from_str(&bash(AMY, &generate)).unwrap();
    let first = text(&told["fingerprint"]);
    assert_eq!((&told["changed"], list(AMY)), (&true.into(), listed(&[(&first, "current")])));
    assert_eq!(refused(ctl(AMY, "key generate --no-passphrase")), refusal(78, "key-exists"));
    let file = shared("file", b"an image, say");
    let by_first = sign(AMY, &first, PASSPHRASE, &file).unwrap();
    assert_eq!(verified(AMY, &by_first, &file).as_ref(), Some(&first));
    for again in ["key publish", &format!("key publish {first}"), &format!("key rotate {first}")] {
        let told = done(ctl(AMY, again));
        assert_eq!((&told["changed"], text(&told["fingerprint"])), (&false.into(), first.clone()), "{again}");
    }

    // To be had as both, by himself and by administrators.
    let bytes = fs::read(published(AMY)).unwrap();
    for who in [AMY, ALICE] {
        let binary = people::podsecctl(who, &["key", "export", AMY]).stdout;
        assert_eq!(binary, bytes);
        let armor = people::podsecctl(who, &["key", "export", AMY, "--armor"]).stdout;
        assert!(armor.starts_with(b"-----BEGIN PGP PUBLIC KEY BLOCK-----"));
        assert_eq!((shown(&binary), shown(&armor)), (vec![first.clone()], vec![first.clone()]));
    }

    // A later end is another self-signature of the same key.
    let expires = || done(ctl(AMY, "key list"))["keys"][0]["expires"].as_u64().unwrap();
    let before = expires();
    let extend =
        format!("gpg --batch --pinentry-mode loopback --passphrase '{PASSPHRASE}' --quick-set-expire");
    bash(AMY, &format!("{extend} {first} 4y"));
    assert!(changed(ctl(AMY, &format!("key publish --dry-run {first}"))) && expires() == before);
    let told = done(ctl(AMY, &format!("key publish {first}")));
    assert_eq!((&told["changed"], text(&told["fingerprint"])), (&true.into(), first.clone()));
    assert!(expires() > before + 365 * 86400);
    assert_eq!(verified(AMY, &by_first, &file).as_ref(), Some(&first));

    // The next one, without a passphrase; what was signed with the one before stays good.
    let told = done(ctl(AMY, "key generate --no-passphrase --rotate"));
    let second = text(&told["fingerprint"]);
    assert_eq!(list(AMY), listed(&[(&first, "previous"), (&second, "current")]));
    let by_second = sign(AMY, &second, "", &file).unwrap();
    assert_eq!(verified(AMY, &by_first, &file).as_ref(), Some(&first));
    assert_eq!(verified(AMY, &by_second, &file).as_ref(), Some(&second));
    assert_eq!(
        shown(&people::podsecctl(AMY, &["key", "export", AMY]).stdout),
        [&first, &second].map(Clone::clone)
    );

    // Withdrawn.
    assert!(changed(ctl(AMY, &format!("key revoke --dry-run {first}"))));
    assert_eq!(verified(AMY, &by_first, &file).as_ref(), Some(&first), "a dry run did something");
    assert_eq!(refused(ctl(AMY, &format!("key revoke {first}"))), refusal(2, "usage"), "nobody to ask");
    assert!(changed(ctl(AMY, &format!("key revoke --yes {first}"))));
    assert!(!changed(ctl(AMY, &format!("key revoke --yes {first}"))));
    assert_eq!(verified(AMY, &by_first, &file), None);
    assert_eq!(verified(AMY, &by_second, &file).as_ref(), Some(&second));
    assert_eq!(list(AMY), listed(&[(&first, "revoked"), (&second, "current")]));
    for again in ["publish", "rotate"] {
        assert_eq!(refused(ctl(AMY, &format!("key {again} {first}"))), refusal(2, "bad-key"));
    }
    let never = "0".repeat(40);
    assert_eq!(refused(ctl(AMY, &format!("key revoke --yes {never}"))), refusal(78, "no-key"));
    assert!(changed(ctl(AMY, &format!("key revoke --yes {second}"))));
    assert!(!published(AMY).exists() && record(AMY).exists());

    let records = oracle.audit();
    let of = |operation: &str| {
        let done = records.iter().filter(|record| record["phase"] == "done" && record["op"] == operation);
        done.map(|record| text(&record["target"])).collect::<Vec<_>>()
    };
    assert_eq!(of("KeyService/Rotate").len(), 2);
    let revoked = of("KeyService/Revoke");
    assert!(revoked.iter().any(|target| target.contains(&first)), "{revoked:?}");
}

/// Verifiers judge a key that has expired by the time of the signature, so it stays with the published ones.
fn a_key_comes_to_its_end(_: &mut Oracle) {
    let _amy = Creator::without_key(AMY);
    let short = "gpg --batch --quiet --passphrase '' --quick-generate-key 'Amy <amy@elsewhere>' ed25519 sign seconds=5";
    bash(AMY, short);
    let first = text(&done(ctl(AMY, "key publish"))["fingerprint"]);
    let file = shared("file", b"an image, say");
    let by_first = sign(AMY, &first, "", &file).unwrap();
    assert_eq!(list(AMY), listed(&[(&first, "current")]));
    host::wait_for("the key's end", || list(AMY) == listed(&[(&first, "expired")]));
    assert_eq!(verified(AMY, &by_first, &file).as_ref(), Some(&first));
    assert_eq!(refused(ctl(AMY, "key export amy")), refusal(78, "no-key"));
    assert_eq!(refused(ctl(AMY, &format!("key publish {first}"))), refusal(2, "bad-key"));
    // There is none to rotate from.
    assert_eq!(refused(ctl(AMY, "key generate --no-passphrase --rotate")), refusal(78, "no-key"));
    let second = text(&done(ctl(AMY, "key generate --no-passphrase"))["fingerprint"]);
    assert_eq!(list(AMY), listed(&[(&first, "expired"), (&second, "current")]));
    assert_eq!(verified(AMY, &by_first, &file).as_ref(), Some(&first));
    // A later end brings it back.
    bash(AMY, &format!("gpg --batch --quick-set-expire {first} 1y"));
    assert!(changed(ctl(AMY, &format!("key publish {first}"))));
    assert_eq!(list(AMY), listed(&[(&first, "previous"), (&second, "current")]));
}

/// Also where podsecd makes the keys: the one in his keyring is not taken up again.
fn a_revoked_key_stays_revoked(_: &mut Oracle) {
    let (_amy, first) = Creator::with_key(AMY);
    assert!(changed(ctl(ALICE, &format!("key revoke --yes --creator {AMY} {first}"))));
    assert_eq!(refused(make_key(AMY)), refusal(2, "bad-key"));
    assert_eq!(list(AMY), listed(&[(&first, "revoked")]));
    assert!(!published(AMY).exists());
    let second = text(&done(ctl(AMY, "key generate --no-passphrase"))["fingerprint"]);
    assert_eq!(list(AMY), listed(&[(&first, "revoked"), (&second, "current")]));
    assert_eq!(shown(&fs::read(published(AMY)).unwrap()), [second]);
}

fn where_the_private_key_is(_: &mut Oracle) {
    let (_amy, fingerprint) = Creator::with_key(AMY);
    let _ben = Creator(BEN);
    bash(ALICE, &format!("podsecctl {} --with-key --key-passphrase-fd 3 3<<<'{PASSPHRASE}'", create(BEN)));
    [AMY, BEN].iter().for_each(|name| assert_no_processes(name, "a key"));

    // His alone, in his home.
    let (uid, home) = (uid_of(AMY), "/home/amy/.gnupg");
    let found = tree(home);
    for line in found.lines() {
        let (path, _) = line.split_once(' ').unwrap();
        let meta = fs::symlink_metadata(path).unwrap();
        assert!(meta.uid() == uid && meta.mode() & 0o077 == 0, "{line}");
    }
    let directory = fs::symlink_metadata(home).unwrap();
    assert!(directory.is_dir() && directory.mode() & 0o7777 == 0o700);

    // `(d #…#)` of gpg-agent's file is the secret itself.
    let keys = fs::read_dir(format!("{home}/private-keys-v1.d")).unwrap().flatten();
    let keys: Vec<_> = keys.map(|key| fs::read_to_string(key.path()).unwrap()).collect();
    assert_eq!(keys.len(), 1);
    let secret = keys[0].split("(d #").nth(1).unwrap().split('#').next().unwrap();
    assert!(secret.len() >= 60, "{secret}");
    let bytes: Vec<u8> = (0..secret.len() / 2)
        .map(|index| u8::from_str_radix(&secret[2 * index..2 * index + 2], 16).unwrap())
        .collect();
    let holding = |tree: &str, needle: &[u8]| -> Vec<String> {
        let paths = host::run(Command::new("/usr/bin/find").args([tree, "-type", "f"]));
        let holds = |path: &&str| {
            let contents = fs::read(path).unwrap_or_default();
            contents.windows(needle.len()).any(|part| part.eq_ignore_ascii_case(needle))
        };
        paths.lines().filter(holds).map(str::to_owned).collect()
    };
    assert_eq!(holding(home, secret.as_bytes()).len(), 1, "what is searched for is found where it is");
    for tree in
        ["/var/lib/podsec", "/var/sigstore", "/run/podsec", "/run/podsec-tests/daemon.log", "/var/log"]
    {
        for needle in [secret.as_bytes(), &bytes, PASSPHRASE.as_bytes()] {
            assert_eq!(holding(tree, needle), [] as [String; 0], "{tree}");
        }
    }
    assert_eq!(judges(), 0);

    // What is published is root's, for all to read, and public.
    for (path, mode) in [
        (Path::new("/var/sigstore"), 0o755),
        (Path::new("/var/sigstore/keys"), 0o755),
        (&published(AMY), 0o644),
        (Path::new("/var/lib/podsec/keys"), 0o700),
        (&record(AMY), 0o600),
    ] {
        let meta = fs::symlink_metadata(path).unwrap();
        let found = (meta.mode() & 0o7777, meta.uid(), meta.gid());
        assert_eq!(found, (mode, 0, 0), "{}: {:o}", path.display(), found.0);
    }
    let packets = bash(MALLORY, &format!("gpg --batch --list-packets {}", published(AMY).display()));
    let kinds: Vec<_> =
        packets.lines().filter_map(|line| line.strip_prefix(':')?.split(" packet:").next()).collect();
    assert_eq!(kinds, ["public key", "user ID", "signature"], "{packets}");
    assert_eq!(shown(&fs::read(published(AMY)).unwrap()), [fingerprint]);
}

// ---- who may

fn who_may(oracle: &mut Oracle) {
    let (_amy, amys) = Creator::with_key(AMY);
    let _ben = Creator::without_key(BEN);
    let key = corpus("good");
    let requests = |more: &str| {
        [
            format!("key publish {key}{more}"),
            format!("key rotate {key}{more}"),
            format!("key revoke --yes {amys}{more}"),
        ]
    };
    let denials = |oracle: &Oracle, from: usize| {
        let records = oracle.audit_now().into_iter().filter(|record| record["phase"] == "deny").skip(from);
        records.map(|record| text(&record["reason"])).collect::<Vec<_>>()
    };
    for who in [MALLORY, DAVE, ERIN, CLUSTER] {
        for request in
            requests("").iter().map(String::as_str).chain(["key list", "key list amy", "key export amy"])
        {
            assert_eq!(refused(ctl(who, request)), refusal(77, "not-authorised"), "{who}: {request}");
        }
    }
    let told = denials(oracle, 0);
    assert_eq!(told, vec!["not-member"; 24]);

    // A creator for another one.
    for request in
        requests(" --creator amy").iter().map(String::as_str).chain(["key list amy", "key export amy"])
    {
        assert_eq!(refused(ctl(BEN, request)), refusal(77, "not-owner"), "{request}");
    }
    let told = denials(oracle, 24);
    assert_eq!(told, vec!["not-owner"; 5]);
    assert_eq!((list(AMY), list(BEN)), (listed(&[(&amys, "current")]), vec![]));

    // An administrator for creators, and for nobody else.
    for who in [ALICE, ROOT] {
        for other in [DAVE, MALLORY, CLUSTER, ALICE, ROOT, "nobody-at-all"] {
            let expected =
                if who == other { refusal(77, "not-owner") } else { refusal(77, "unmanaged-user") };
            for request in requests(&format!(" --creator {other}")) {
                assert_eq!(refused(ctl(who, &request)), expected, "{who}: {request}");
            }
        }
        assert_eq!(refused(ctl(who, &format!("key publish {key}"))), refusal(77, "not-owner"));
        let [publish, rotate, _] = requests(" --dry-run --creator ben");
        assert!(changed(ctl(who, &publish)));
        assert_eq!(refused(ctl(who, &rotate)), refusal(78, "no-key"));
        assert_eq!(done(ctl(who, "key list"))["keys"].as_array().unwrap().len(), 1);
    }
    assert!(has_nothing(BEN), "a dry run did something");
    assert!(changed(ctl(ALICE, &requests(" --creator ben")[0])));
    assert_eq!(list(BEN), listed(&[(&shown(&fs::read(&key).unwrap())[0], "current")]));
    // Whoever is in the group is a creator, though podsec did not make him.
    assert!(changed(ctl(CAROL, &requests(" --dry-run")[0])));
}

// ---- 51: what is in his keyring is his, and may be anything

/// Without a key, and with a keyring as the script leaves it.
fn trapped(script: &str) -> Creator {
    let amy = Creator::without_key(AMY);
    bash(AMY, &format!("umask 077; mkdir ~/.gnupg; cd ~/.gnupg; {script}"));
    amy
}

fn t51_traps_in_his_keyring(_: &mut Oracle) {
    let (_ben, bens) = Creator::with_key(BEN);
    // Even where everybody can go: what is made there is made as her, and that is not much.
    bash(BEN, "chmod 755 ~ ~/.gnupg");
    let before = [tree("/root"), tree("/home/ben")];
    for target in ["/root", "/home/ben/.gnupg", "/dev/null", "/home/amy/nowhere"] {
        let _amy = trapped(&format!("cd ..; rmdir .gnupg; ln -s {target} .gnupg"));
        assert_eq!(refused(make_key(AMY)), refusal(78, "program"), "{target}");
        assert!(has_nothing(AMY));
        assert_eq!([tree("/root"), tree("/home/ben")], before, "{target}");
        assert!(!Path::new("/home/amy/nowhere").exists());
    }
    assert_eq!(list(BEN), listed(&[(&bens, "current")]));

    // Programs of hers, which are to be run instead of GnuPG's.
    let evil = shared(
        "evil",
        b"#!/bin/bash
            PATH=/usr/bin:/bin
            id -u >/root/pwn
            { grep -E '^(Uid|CapPrm|CapEff|CapInh|CapAmb):' /proc/self/status; ls -l /proc/$$/fd; } >>/tmp/keys/evil.log
            exec /usr/bin/gpg-agent \"$@\"",
    );
    fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
    {
        let _amy = trapped(
            "printf '%s\\n' 'agent-program /tmp/keys/evil' 'photo-viewer /tmp/keys/evil' 'exec-path /tmp/keys' \
             'list-options show-photos' >gpg.conf",
        );
        let told = done(make_key(AMY));
        assert_eq!(list(AMY), listed(&[(&text(&told["fingerprint"]), "current")]));
        assert_no_processes(AMY, "her agent");
        let log = fs::read_to_string(format!("{SHARED}/evil.log")).expect("her program was run");
        let uid = uid_of(AMY);
        let uids: Vec<_> = log.lines().filter(|line| line.starts_with("Uid:")).collect();
        assert!(!uids.is_empty());
        assert!(uids.iter().all(|line| **line == format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}")), "{log}");
        let sets: Vec<_> = log.lines().filter(|line| line.starts_with("Cap")).collect();
        assert!(sets.iter().all(|line| line.ends_with("\t0000000000000000")), "{log}");
        assert!(!log.contains("socket:") && !log.contains("podsec"), "{log}");
    }
    fs::remove_file(format!("{SHARED}/evil.log")).unwrap();

    // Left by a gpg that was killed: taken over.
    {
        let _amy = trapped("printf '%10d\\n%s\\n' 4194303 $(hostname) >pubring.kbx.lock");
        assert!(changed(make_key(AMY)));
    }
    for huge in [
        "truncate -s 20G pubring.kbx",
        "head -c 30M /dev/urandom >pubring.kbx",
        "truncate -s 20G trustdb.gpg",
    ] {
        let _amy = trapped(huge);
        let begin = Instant::now();
        assert_eq!(refused(make_key(AMY)), refusal(78, "program"), "{huge}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{huge}: {:?}", begin.elapsed());
        assert!(has_nothing(AMY));
    }
}

fn t51_gpg_is_kept_waiting(_: &mut Oracle) {
    // Process 1 of the host lives, so the lock counts.
    for trap in ["mkfifo gpg.conf", "printf '%10d\\n%s\\n' 1 $(hostname) >pubring.kbx.lock"] {
        let _amy = trapped(trap);
        let begin = Instant::now();
        assert_eq!(refused(make_key(AMY)), refusal(78, "program"), "{trap}");
        assert!(begin.elapsed() < Duration::from_secs(30), "{trap}: {:?}", begin.elapsed());
        println!("{trap}: {:.1?}", begin.elapsed());
        assert_no_processes(AMY, trap);
        assert!(has_nothing(AMY));
        // Others go on, and so does she without the trap.
        let begin = Instant::now();
        let (_ben, _) = Creator::with_key(BEN);
        bash(AMY, "rm -r ~/.gnupg");
        assert!(changed(make_key(AMY)));
        assert!(begin.elapsed() < Duration::from_secs(10), "{trap}: {:?}", begin.elapsed());
    }
}

// ---- 52: what is no key

/// Keys, and what is none: made once, in [`SHARED`].
const CORPUS: &str = r#"
set -e
export GNUPGHOME=/run/podsec-tests/gnupg-corpus
mkdir -m 700 $GNUPGHOME
cd /tmp/keys
run() { gpg --batch --quiet --pinentry-mode loopback --passphrase '' "$@" 2>/dev/null; }
user() { echo "$1 <$1@registry.local>"; }
fpr() { gpg --batch --with-colons --list-keys "=$(user $1)" 2>/dev/null | awk -F: '/^fpr/ { print $10; exit }'; }
# make NAME [OPTION…] -- ALGORITHM USAGE
make() {
    local name=$1 options=(); shift
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    run "${options[@]}" --quick-generate-key "$(user $name)" "$2" "$3" ${4-1y}
    run --export "=$(user $name)" >$name
}
make good -- ed25519 sign
make other -- ed25519 sign
make rsa1024 -- rsa1024 sign
make rsa2048 -- rsa2048 sign
make dsa -- dsa1024 sign
make expired --faked-system-time 20200101T000000 -- ed25519 sign 1d
make future --faked-system-time 20600101T000000 -- ed25519 sign
make encrypts -- ed25519 cert
run --quick-add-key $(fpr encrypts) cv25519 encr 1y
run --export "=$(user encrypts)" >encrypts
make revoked -- ed25519 sign
sed 's/^:-----/-----/' $GNUPGHOME/openpgp-revocs.d/$(fpr revoked).rev | run --import
run --export "=$(user revoked)" >revoked
run --export-secret-keys "=$(user good)" >secret
run --armor --export-secret-keys "=$(user good)" >secret.asc
run --export-secret-subkeys "=$(user encrypts)" >secret-subkeys
cat good other >two
cat good secret >public-and-secret
cat secret other >secret-and-public
echo hello | run --local-user "$(user good)" --sign >message
echo hello | run --local-user "$(user good)" --detach-sign >signature
run --armor --export "=$(user good)" | head -c 200 >truncated.asc
gpgconf --kill all
rm -r $GNUPGHOME
python3 - <<'END'
import random, zlib

def read(name):
    return open(name, "rb").read()

def write(name, data):
    open(name, "wb").write(data)

def packet(tag, body):  # RFC 9580 4.2.1
    return bytes([0xC0 | tag, 255]) + len(body).to_bytes(4, "big") + body

def compressed(data):
    return packet(8, b"\2" + zlib.compress(data, 9))

def packets(data):  # of the old format, as gpg writes them
    at = 0
    while at < len(data):
        size = 1 << (data[at] & 3)
        end = at + 1 + size + int.from_bytes(data[at + 1 : at + 1 + size], "big")
        yield data[at:end]
        at = end

good = read("good")
key, user, signature = packets(good)
write("no-user-id", key)
write("no-signature", key + user)
write("signature-of-another", key + user + list(packets(read("other")))[2])
write("bad-signature", key + user + signature[:-5] + bytes([signature[-5] ^ 1]) + signature[-4:])
write("truncated", good[:-10])
write("trailing", good + bytes(64))
write("too-long", good + bytes(65537 - len(good)))
write("empty", b"")
write("long-user-id", key + packet(13, b"x" * 60000) + signature)
head = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"
write("armor-bomb", head + b"Comment: " + b"x" * 60000 + b"\n\nAAAA\n")
write("armor-lines", head + b"Comment: x\n" * 5000 + b"\nAAAA\n")
write("compressed", compressed(good))
write("compressed-secret", compressed(read("secret")))
write("zip-bomb", compressed(bytes(50 << 20)))
write("literal-bomb", compressed(packet(11, b"b\0\0\0\0\0" + bytes(50 << 20))))
# A few KiB that gpg is at for half a minute; of many more than that it now and then loses count.
write("signature-bomb", compressed(key + (user + signature) * 15000))
write("slow", compressed(key + user + signature * 1000))
nested = b""
for _ in range(9000):
    nested = packet(8, b"\0" + nested)
write("nested", nested)
random.seed(52)
for index in range(4):
    write(f"random-{index}", random.randbytes(100 if index else 60000))
END
chmod 644 *
"#;

/// One of them.
fn corpus(name: &str) -> String {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        host::everybodys_directory(SHARED);
        host::run(Command::new("/bin/bash").args(["-c", CORPUS]));
    });
    format!("{SHARED}/{name}")
}

/// Name, and what its refusal says.
const NO_KEYS: &[(&str, &str)] = &[
    ("secret", "PRIVATE"),
    ("secret.asc", "PRIVATE"),
    ("secret-subkeys", "PRIVATE"),
    ("public-and-secret", "PRIVATE"),
    ("secret-and-public", "PRIVATE"),
    ("compressed-secret", "PRIVATE"),
    ("two", "2 keys"),
    ("expired", "expired"),
    ("future", "self-signatures"),
    ("revoked", "revoked"),
    ("rsa1024", "too weak"),
    ("rsa2048", "too weak"),
    ("dsa", "too weak"),
    ("encrypts", "cannot sign"),
    ("no-user-id", "self-signatures"),
    ("no-signature", "self-signatures"),
    ("bad-signature", "self-signatures"),
    ("signature-of-another", "self-signatures"),
    ("message", "no public key"),
    ("signature", "no public key"),
    ("nested", "no public key"),
    ("literal-bomb", "no public key"),
    ("zip-bomb", "not a public key"),
    ("signature-bomb", "too long"),
    ("truncated", "not a public key"),
    ("truncated.asc", "not a public key"),
    ("trailing", "not a public key"),
    ("long-user-id", "not a public key"),
    ("armor-bomb", "not a public key"),
    ("armor-lines", "not a public key"),
    ("random-0", "not a public key"),
    ("random-1", ""),
    ("random-2", ""),
    ("random-3", ""),
    ("empty", "65536 bytes"),
    ("too-long", "65536 bytes"),
];

/// Below podsecctl, as an administrator; for show, or for good.
fn publish(creator: &str, key: Vec<u8>, dry_run: bool) -> Result<String, tonic::Status> {
    client::block_on(async {
        let request = PublishKeyRequest { creator: creator.into(), key, dry_run };
        Ok(client::keys().await.publish(request).await?.into_inner().fingerprint)
    })
}

/// Directories of the parser.
fn judges() -> usize {
    let entries = fs::read_dir("/run/podsec").unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("judge-")).count()
}

/// Nothing of the parser is left: podsecd's fronts are all that runs as its user.
fn assert_judge_is_gone(what: &str) {
    host::wait_for(&format!("{what}: the parser's end"), || {
        processes_of("podsec").iter().all(|program| program.trim() == "podsecd-front")
    });
    assert_eq!(judges(), 0, "{what}");
}

fn t52_what_is_no_key(oracle: &mut Oracle) {
    let _amy = Creator::without_key(AMY);
    let good = fs::read(corpus("good")).unwrap();
    let mut refusals = 0;
    for (name, why) in NO_KEYS {
        let file = corpus(name);
        let begin = Instant::now();
        let status = publish(AMY, fs::read(&file).unwrap(), false).expect_err(name);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(15), "{name}: {took:?}");
        assert_eq!(
            (status.code(), &*client::reason(&status)),
            (tonic::Code::InvalidArgument, "bad-key"),
            "{name}"
        );
        let told = status.message();
        assert!(told.contains(why) && told.len() > 10, "{name}: {told}");
        refusals += 1;
        assert_judge_is_gone(name);
        // By the creator himself; but what takes seconds, only once.
        if took < Duration::from_secs(1) {
            let (status, told) = ctl(AMY, &format!("key publish {file}"));
            let reason = text(&told["error"]["reason"]);
            let expected = if why.contains("bytes") { "usage" } else { "bad-key" };
            assert_eq!((status, &*reason), (2, expected), "{name}: {told}");
            assert!(text(&told["error"]["message"]).contains(why), "{name}: {told}");
            refusals += usize::from(expected == "bad-key");
        }
        assert!(has_nothing(AMY), "{name} was published");
    }
    let records = oracle.audit();
    let bad = records.iter().filter(|record| record["reason"] == "bad-key");
    assert_eq!(bad.count(), refusals);
    assert!(refusals > 2 * NO_KEYS.len() - 10, "too much was slow");
    // What is wrapped is published unwrapped.
    publish(AMY, fs::read(corpus("compressed")).unwrap(), false).unwrap();
    assert_eq!(fs::read(published(AMY)).unwrap(), good);
}

/// What a byte more or less makes of a key: nothing, or the same key.
fn t52_keys_with_a_byte_changed(_: &mut Oracle) {
    let _amy = Creator::without_key(AMY);
    let good = fs::read(corpus("good")).unwrap();
    let fingerprint = publish(AMY, good.clone(), true).unwrap();
    let times = host::count(60, good.len());
    let mut accepted = 0;
    for index in 0..times {
        let mut changed = good.clone();
        let at = index * good.len() / times;
        changed[at] ^= 1 << (index % 8);
        match publish(AMY, changed, true) {
            // Not all of a signature's packet is signed.
            Ok(found) => {
                assert_eq!(found, fingerprint, "byte {at}");
                accepted += 1;
            }
            Err(status) => assert_eq!(&*client::reason(&status), "bad-key", "byte {at}: {status:?}"),
        }
    }
    println!("{accepted} were the same key");
    assert!(accepted < times / 4);
    assert_judge_is_gone("changed keys");
}

/// The `Key:\tvalue` of proc(5).
fn fact(status: &str, key: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Looks at the parser while it is at a key that takes it a second.
fn t52_gpg_is_in_a_cage(_: &mut Oracle) {
    let _amy = Creator::without_key(AMY);
    let slow = fs::read(corpus("slow")).unwrap();
    let (uid, gpg) = (uid_of("podsec"), fs::canonicalize("/usr/bin/gpg").unwrap());
    let is_over = AtomicBool::new(false);
    // All of it, or it had ended meanwhile.
    let look = |pid: i32| -> Option<[String; 5]> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let status = fs::read_to_string(process.join("status")).ok()?;
        if !fact(&status, "Uid").starts_with(&format!("{uid} "))
            || fs::read_link(process.join("exe")).ok()? != gpg
        {
            return None;
        }
        let parent = fs::read_to_string(format!("/proc/{}/status", fact(&status, "PPid"))).ok()?;
        let open = fs::read_dir(process.join("fd")).ok()?.flatten();
        let open: Vec<_> = open.filter_map(|entry| fs::read_link(entry.path()).ok()).collect();
        let limits = fs::read_to_string(process.join("limits")).ok()?;
        let environment = fs::read_to_string(process.join("environ")).ok()?;
        fs::read_link(process.join("exe")).ok()?;
        Some([status, parent, format!("{open:?}"), limits, environment])
    };
    let seen = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                publish(AMY, slow.clone(), true).unwrap();
            }
        });
        let end = Instant::now() + Duration::from_secs(5);
        let mut seen = None;
        while seen.is_none() && Instant::now() < end {
            seen = pids().into_iter().find_map(look);
        }
        is_over.store(true, Ordering::Relaxed);
        seen
    });
    let [gpg, parent, open, limits, environment] = seen.expect("gpg, as podsec");
    for status in [&gpg, &parent] {
        assert_eq!(fact(status, "Uid"), [uid.to_string().as_str(); 4].join(" "));
        assert_ne!(fact(status, "Gid"), "0 0 0 0");
        assert_eq!(fact(status, "Groups"), "");
        assert_eq!([fact(status, "NoNewPrivs"), fact(status, "Seccomp")], ["1", "2"], "{status}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(fact(status, set), "0".repeat(16), "{set}");
        }
    }
    assert_eq!(fact(&parent, "Name"), "podsecd-worker");
    assert!(!open.contains("socket:") && !open.contains("pipe:"), "{open}");
    for limit in
        ["Max address space         536870912", "Max cpu time              10", "Max core file size        0"]
    {
        assert!(limits.contains(limit), "{limits}");
    }
    assert!(
        environment.split_terminator('\0').all(|line| line.starts_with("PATH=") || line == "LC_ALL=C"),
        "{environment:?}"
    );
    assert_judge_is_gone("a slow key");
}

// ---- 53: whose key it is

fn t53_whose_key_it_is(_: &mut Oracle) {
    let _amy = Creator::without_key(AMY);
    let (ben, bens) = Creator::with_key(BEN);
    let before = [published(BEN), record(BEN)].map(|path| fs::read(path).unwrap());
    // Whoever a key names, it is of the one who asks.
    bash(
        AMY,
        "gpg --batch --quiet --passphrase '' --quick-generate-key 'ben <ben@registry.local>' ed25519 sign 1y",
    );
    let amys = text(&done(ctl(AMY, "key publish"))["fingerprint"]);
    assert_eq!(list(AMY), listed(&[(&amys, "current")]));
    assert_eq!(list(BEN), listed(&[(&bens, "current")]));
    assert_eq!([published(BEN), record(BEN)].map(|path| fs::read(path).unwrap()), before);
    let file = shared("file", b"an image, say");
    let signature = sign(AMY, &amys, "", &file).unwrap();
    assert_eq!(verified(BEN, &signature, &file), None);
    assert_eq!(verified(AMY, &signature, &file).as_ref(), Some(&amys));
    // Nor is Ben's key hers to withdraw.
    assert_eq!(refused(ctl(AMY, &format!("key revoke --yes {bens}"))), refusal(78, "no-key"));
    // Another key does not take the place of the one that is there.
    let other = corpus("other");
    assert_eq!(refused(ctl(AMY, &format!("key publish {other}"))), refusal(78, "key-exists"));
    assert_eq!(refused(ctl(ALICE, &format!("key publish --creator amy {other}"))), refusal(78, "key-exists"));
    assert_eq!(list(AMY), listed(&[(&amys, "current")]));

    // Somebody new of the same name, and of the same uid as long as nobody else took it.
    let uid = uid_of(BEN);
    drop(ben);
    assert!(has_nothing(BEN));
    let _ben = Creator::without_key(BEN);
    println!("uid {uid}, then {}", uid_of(BEN));
    assert_eq!(list(BEN), []);
    assert!(has_nothing(BEN));
}

/// Of a creator whom podsec did not make, and whose account went without its knowledge.
fn t53_keys_are_not_inherited(_: &mut Oracle) {
    bash(ROOT, "useradd --create-home --groups podman,podman_dev ben");
    let key = format!("{SHARED}/bens");
    host::everybodys_directory(SHARED);
    bash(
        ROOT,
        &format!(
            "export GNUPGHOME={SHARED}/ben-gnupg; mkdir -m 700 $GNUPGHOME
            gpg --batch --quiet --passphrase '' --quick-generate-key 'Ben <ben@registry.local>' ed25519 sign 1y
            gpg --batch --export >{key}; chmod 644 {key}; gpgconf --kill all; rm -r $GNUPGHOME"
        ),
    );
    let fingerprint = done(ctl(ALICE, &format!("key publish --creator ben {key}")))["fingerprint"].clone();
    assert_eq!(list(BEN), listed(&[(&text(&fingerprint), "current")]));
    bash(ROOT, "userdel --remove ben 2>/dev/null");
    let ben = Creator::without_key(BEN);
    assert_eq!(list(BEN), []);
    assert!(has_nothing(BEN), "the key of somebody else is trusted for him");
    drop(ben);
}

/// As a creator, on one connection: publishes for show, says so, waits, tries again.
fn publish_twice(arguments: &[String]) {
    let [key, first, go] = arguments else { panic!("three files") };
    client::block_on(async {
        let mut service = client::keys().await;
        let key = fs::read(key).unwrap();
        let mut publish = async || {
            let request =
                PublishKeyRequest { key: key.clone(), dry_run: true, ..PublishKeyRequest::default() };
            let answer = service.publish(request).await;
            answer.map_or_else(
                |status| format!("{} {}", status.code() as i32, client::reason(&status)),
                |_| "done".into(),
            )
        };
        let answer = publish().await;
        fs::write(first, &answer).unwrap();
        while !Path::new(go).exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("{answer}, then {}", publish().await);
    });
}

fn t53_no_creator_any_more(oracle: &mut Oracle) {
    let (_amy, amys) = Creator::with_key(AMY);
    let key = corpus("good");
    assert!(changed(ctl(AMY, &format!("key rotate {key} --dry-run"))));
    assert!(changed(ctl(AMY, &format!("key revoke --yes {amys}"))));
    let [first, go] = ["first", "go"].map(|name| format!("{SHARED}/{name}"));
    let her = role::start(AMY, "publisher", &[&key, &first, &go]);
    host::wait_for("her first answer", || fs::read(&first).is_ok_and(|told| !told.is_empty()));
    host::run(Command::new("/usr/bin/gpasswd").args(["--delete", AMY, "podman_dev"]));
    shared("go", b"");
    assert_eq!(her.finish(), "done, then 7 not-authorised\n");
    let records = oracle.audit();
    let denied: Vec<_> = records.iter().filter(|record| record["phase"] == "deny").collect();
    assert_eq!(denied.len(), 1, "{denied:#?}");
    assert_eq!(
        (text(&denied[0]["op"]), text(&denied[0]["reason"])),
        ("KeyService/Publish".into(), "revoked".into())
    );
    // Nor on a new connection, nor by an administrator.
    assert_eq!(refused(ctl(AMY, &format!("key publish {key}"))), refusal(77, "not-authorised"));
    let by_alice = ctl(ALICE, &format!("key publish --creator amy {key}"));
    assert_eq!(refused(by_alice), refusal(77, "unmanaged-user"));
    for path in [first, go] {
        fs::remove_file(path).unwrap();
    }
}
