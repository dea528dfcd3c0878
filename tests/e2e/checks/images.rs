//! images: in real stores of podman's, and in some that no podman would make. [`Site`] has trust, its two servers, a creator
//! who publishes and an image user who pulls.

use super::{findings, run};
use crate::Test;
use crate::services::Trusted;
use crate::trust::{AMY, BEN, Person, ctl, succeeds};
use podsec_policy::audit::hex;
use podsec_proto::v1::{CheckFinding, CheckSummary};
use podsec_tests::host;
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{ALICE, CLUSTER, MALLORY, ROOT, bash};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

macro_rules! tests {
    ($($test:ident)*) => {
        pub const TESTS: &[Test] = &[$((concat!("checks::images::", stringify!($test)), $test),)*];
    };
}

tests! {
    found_once_and_gone_when_mended
    trust_of_today
    every_store
    an_image_in_the_making
    hostile_stores
    gpgv_is_in_a_cage
    the_same_images_start_no_program
    sigstore_signatures
}

const ZOE: &str = "zoe";
const APP: &str = "registry.local/amy/app:1";
/// Where everybody can put things.
const SHARED: &str = "/tmp/images-check";
/// So that podman and skopeo work for somebody who has not logged in.
const PODMAN: &str = "export XDG_RUNTIME_DIR=/tmp/images-check/run-$(id -u) STORAGE_DRIVER=vfs; mkdir -p -m 700 $XDG_RUNTIME_DIR; cd";

/// Dropped in this order.
struct Site {
    _zoe: Person,
    _amy: Person,
    amys: String,
    _trust: Trusted,
}

impl Site {
    fn up() -> Option<Self> {
        if !host::are_installed(&["podman", "skopeo", "gpgv", "docker-registry"]) {
            return None;
        }
        let _trust = Trusted::up(false);
        host::everybodys_directory(SHARED);
        let (_amy, amys) = Person::creator(AMY, &["registry.local/amy"]);
        let _zoe = Person::image_user(ZOE);
        Some(Self { _zoe, _amy, amys, _trust })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        // Should this fail, the oracle sees what it left.
        succeeds(
            ROOT,
            &format!(
                "rm -rf ~{{{ZOE},{MALLORY},{ROOT},{CLUSTER}}}/.local/share/{{containers,usernetes}} ~{MALLORY}/{{elsewhere,.config}} \
                 /var/lib/containers/storage {SHARED}"
            ),
        );
        if !std::thread::panicking() {
            // The next test begins with what is there.
            run("images");
        }
    }
}

fn home(user: &str) -> String {
    bash(user, "echo -n ~")
}

/// A new image in amy's store.
fn made(name: &str) -> String {
    let script = format!(
        "{PODMAN}; mkdir -p /tmp/images-check/{name}; echo {name} >/tmp/images-check/{name}/it
         tar -C /tmp/images-check/{name} -cf /tmp/images-check/{name}.tar it; podman import --quiet /tmp/images-check/{name}.tar localhost/{name}:1"
    );
    bash(AMY, &script);
    format!("localhost/{name}:1")
}

/// Published by amy, signed.
fn publish(name: &str, reference: &str) {
    let image = made(name);
    bash(
        AMY,
        &format!(
            "{PODMAN}; podsecctl service credential --save >&2; podsecctl image push {image} {reference} --sign"
        ),
    );
}

fn pull(reference: &str) {
    bash(ZOE, &format!("{PODMAN}; podman pull --quiet {reference}"));
}

/// Past her policy, into her store.
fn load(name: &str, reference: &str) {
    let image = made(name);
    let archive = format!("{SHARED}/{name}.docker");
    bash(
        AMY,
        &format!("{PODMAN}; rm -f {archive}; podman save --quiet -o {archive} {image}; chmod 644 {archive}"),
    );
    bash(
        ZOE,
        &format!(
            "{PODMAN}; skopeo --insecure-policy copy --quiet docker-archive:{archive} containers-storage:{reference}"
        ),
    );
}

fn remove(reference: &str) {
    bash(ZOE, &format!("{PODMAN}; podman rmi --force {reference}"));
}

/// Looks, and has looked at all.
fn look() -> Vec<CheckFinding> {
    let (summary, found) = looked();
    assert_eq!((summary.state.as_str(), summary.lost), ("complete", 0), "{summary:?}");
    found
}

fn looked() -> (CheckSummary, Vec<CheckFinding>) {
    let ran = run("images").summary.expect("a summary");
    let (summary, found) = findings("images");
    assert_eq!(ran, summary);
    for finding in &found {
        let kind = podsec_policy::finding::kind(&finding.code).expect("a known code");
        assert_eq!(finding.weight, kind.weight);
        for text in [&finding.subject, &finding.owner, &finding.place, &finding.detail] {
            assert!(!text.chars().any(char::is_control) && text.len() < 10_000, "{finding:?}");
        }
    }
    (summary, found)
}

fn codes(found: &[CheckFinding]) -> Vec<(&str, &str, &str)> {
    let mut all: Vec<_> =
        found.iter().map(|one| (one.owner.as_str(), one.code.as_str(), one.subject.as_str())).collect();
    all.sort_unstable();
    all
}

/// The only one.
fn only(found: &[CheckFinding], wanted: (&str, &str, &str), severity: &str) -> CheckFinding {
    assert_eq!(codes(found), [wanted], "{found:?}");
    assert_eq!(found[0].severity, severity);
    found[0].clone()
}

// ---- stores of podman's

fn found_once_and_gone_when_mended(_: &mut Oracle) {
    let Some(_site) = Site::up() else { return };
    publish("app", APP);
    pull(APP);
    // In amy's store there is what she has made, and nobody has signed.
    assert_eq!(codes(&look()), []);
    assert!(looked().0.looked_at >= 2);

    load("loaded", "registry.local/amy/loaded:1");
    let first = only(&look(), (ZOE, "image-unsigned", "registry.local/amy/loaded:1"), "critical");
    assert!(
        first.place.starts_with("sha256:") && first.detail.contains("as far as this host knows"),
        "{first:?}"
    );
    assert_eq!((first.weight, first.count), (102, 1));
    let again = only(&look(), (ZOE, "image-unsigned", "registry.local/amy/loaded:1"), "critical");
    assert_eq!((&again.id, again.first, again.count), (&first.id, first.first, 1));
    remove("registry.local/amy/loaded:1");
    assert_eq!(codes(&look()), []);

    load("other", "localhost/other:1");
    only(&look(), (ZOE, "image-out-of-policy", "localhost/other:1"), "high");
    remove("localhost/other:1");
    // The signed one under a further name is still that one; under another name alone it is not what was signed.
    bash(ZOE, &format!("{PODMAN}; podman tag {APP} localhost/mine:1 registry.local/amy/app:2"));
    assert_eq!(codes(&look()), []);
    bash(
        ZOE,
        &format!(
            "{PODMAN}; podman untag {APP} {APP}; podman untag {APP} localhost/mine:1 || podman untag localhost/mine:1 localhost/mine:1"
        ),
    );
    let renamed = only(&look(), (ZOE, "image-distrusted", "registry.local/amy/app:2"), "critical");
    assert!(renamed.detail.contains("it signs registry.local/amy/app:1"), "{renamed:?}");
    bash(
        ZOE,
        &format!(
            "{PODMAN}; podman tag registry.local/amy/app:2 {APP}; podman untag {APP} registry.local/amy/app:2"
        ),
    );
    assert_eq!(codes(&look()), []);

    // Somebody writes to the store.
    let store = format!("{}/.local/share/containers/storage/vfs-images", home(ZOE));
    for name in ["manifest", "=*"] {
        let files = format!("for file in {store}/*/{name}; do");
        bash(
            ROOT,
            &format!(
                "{files} cp -a \"$file\" \"$file.saved\"; grep -q schemaVersion \"$file\" && echo >>\"$file\"; done; true"
            ),
        );
        let tampered = only(&look(), (ZOE, "image-tampered", APP), "critical");
        assert!(tampered.detail.contains("digest"), "{tampered:?}");
        bash(
            ROOT,
            &format!("{files} case $file in *.saved) ;; *) mv \"$file.saved\" \"$file\";; esac; done"),
        );
        assert_eq!(codes(&look()), []);
    }
    // The signature is in her store, and on this host, which may not be where it was made.
    bash(ROOT, "mv /var/sigstore/sigstore /var/sigstore/away");
    assert_eq!(codes(&look()), []);
    bash(
        ROOT,
        &format!(
            "mv /var/sigstore/away /var/sigstore/sigstore; rm {store}/*/signatures {store}/*/=c2lnbmF0dXJl*"
        ),
    );
    assert_eq!(codes(&look()), []);
    bash(ROOT, "mv /var/sigstore/sigstore /var/sigstore/away");
    only(&look(), (ZOE, "image-unsigned", APP), "critical");
    bash(ROOT, "mv /var/sigstore/away /var/sigstore/sigstore");
}

fn trust_of_today(_: &mut Oracle) {
    let Some(site) = Site::up() else { return };
    let (_ben, _) = Person::creator(BEN, &["registry.local/ben"]);
    ctl(ALICE, "trust grant ben registry.local/amy --shared");
    publish("app", APP);
    pull(APP);
    assert_eq!(codes(&look()), []);
    ctl(ALICE, "trust revoke amy registry.local/amy --distrust-existing");
    let distrusted = only(&look(), (ZOE, "image-distrusted", APP), "critical");
    assert!(distrusted.detail.contains("not by a key that counts"), "{distrusted:?}");
    ctl(ALICE, "trust grant amy registry.local/amy --shared");
    assert_eq!(codes(&look()), []);
    // Out of the scope, and what she signed is still good; then nobody signs there.
    ctl(ALICE, "trust revoke amy registry.local/amy");
    assert_eq!(codes(&look()), []);
    ctl(ALICE, "trust revoke amy registry.local/amy --distrust-existing");
    ctl(ALICE, "trust revoke ben registry.local/amy --distrust-existing");
    only(&look(), (ZOE, "image-out-of-policy", APP), "high");
    ctl(ALICE, "trust grant amy registry.local/amy");
    assert_eq!(codes(&look()), []);
    // A key that is revoked, and then no other.
    ctl(AMY, "key generate --no-passphrase --rotate");
    assert_eq!(codes(&look()), []);
    ctl(AMY, &format!("key revoke --yes {}", site.amys));
    only(&look(), (ZOE, "image-distrusted", APP), "critical");
    remove(APP);
    assert_eq!(codes(&look()), []);
}

/// Zoe's store as it is, for somebody else.
fn copied(user: &str, storage: &str) {
    let from = format!("{}/.local/share/containers/storage", home(ZOE));
    bash(
        ROOT,
        &format!(
            "mkdir -p {storage}; cp -a {from}/vfs-images {storage}/; chown -R {user}: {storage}
             up={storage}; while up=${{up%/*}}; [ $(stat -c %u $up) = 0 ] && [[ $up == {}/* ]]; do chown {user}: $up; done",
            home(user)
        ),
    );
}

fn every_store(_: &mut Oracle) {
    // Without trust nothing can be said.
    let (summary, _) = looked();
    assert_eq!(summary.state, "unknown");
    assert!(summary.why.contains("podsecctl trust init"), "{summary:?}");
    let Some(_site) = Site::up() else { return };
    load("loaded", "registry.local/amy/loaded:1");
    copied(ROOT, "/var/lib/containers/storage");
    copied(CLUSTER, &format!("{}/.local/share/usernetes/containers/storage", home(CLUSTER)));
    copied(MALLORY, &format!("{}/elsewhere", home(MALLORY)));
    let unsigned = |owner| (owner, "image-unsigned", "registry.local/amy/loaded:1");
    assert_eq!(codes(&look()), [unsigned(ROOT), unsigned(CLUSTER), unsigned(ZOE)]);
    // Mallory's is where her own configuration says.
    bash(
        MALLORY,
        "mkdir -p ~/.config/containers; printf '[storage]\\ndriver = \"vfs\"\\ngraphroot = \"%s\"\\n' ~/elsewhere >~/.config/containers/storage.conf",
    );
    assert_eq!(codes(&look()), [unsigned(MALLORY), unsigned(ROOT), unsigned(CLUSTER), unsigned(ZOE)]);
    // A directory that is closed to herself is open to her podman.
    bash(MALLORY, "chmod 0 ~/elsewhere");
    let (summary, found) = looked();
    assert_eq!((summary.state.as_str(), summary.missed.len()), ("partial", 1), "{summary:?}");
    assert_eq!(summary.missed[0].owner, MALLORY);
    assert_eq!(found.len(), 4, "what was found before is kept");
    bash(MALLORY, "chmod 700 ~/elsewhere; rm -rf ~/elsewhere ~/.config/containers/storage.conf");
    assert_eq!(codes(&look()), [unsigned(ROOT), unsigned(CLUSTER), unsigned(ZOE)]);
}

// ---- stores that no podman makes

fn digest(of: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(of)))
}

/// Makes a store unreadable.
type Plant<'a> = &'a dyn Fn(&Forged);
/// A signature for a digest.
type Sign<'a> = &'a dyn Fn(&str) -> Vec<u8>;

/// A store of one's own making.
struct Forged {
    directory: PathBuf,
    user: &'static str,
    images: Vec<Value>,
}

impl Forged {
    fn of(user: &'static str) -> Self {
        let directory = PathBuf::from(format!("{}/.local/share/containers/storage/vfs-images", home(user)));
        bash(user, &format!("rm -rf {0}; mkdir -p {0}", directory.display()));
        Self { directory, user, images: Vec::new() }
    }

    fn document(name: &str) -> String {
        use std::process::{Command, Stdio};
        let mut base64 = Command::new("/usr/bin/base64");
        let mut child = base64.arg("-w0").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), name.as_bytes()).unwrap();
        format!("={}", String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap())
    }

    /// An image with a manifest and a configuration, and these signatures of it: its manifest's digest.
    fn add(&mut self, name: &str, number: usize, sign: impl FnOnce(&str) -> Option<Vec<u8>>) -> String {
        let config = json!({ "number": number, "os": "linux" }).to_string();
        let config_digest = digest(config.as_bytes());
        let manifest =
            json!({ "schemaVersion": 2, "config": { "digest": config_digest }, "layers": [] }).to_string();
        let of = digest(manifest.as_bytes());
        let id = config_digest[7..].to_owned();
        let directory = self.directory.join(&id);
        fs::create_dir_all(&directory).unwrap();
        let mut documents = vec![
            (config_digest, config.into_bytes()),
            (format!("manifest-{of}"), manifest.clone().into_bytes()),
        ];
        fs::write(directory.join("manifest"), manifest).unwrap();
        let mut sizes = Vec::new();
        if let Some(signature) = sign(&of) {
            sizes.push(signature.len());
            documents.push((format!("signature-{}", &of[7..]), signature));
        }
        for (name, bytes) in &documents {
            fs::write(directory.join(Self::document(name)), bytes).unwrap();
        }
        let mut names: Vec<_> = documents.into_iter().map(|(name, _)| name).collect();
        names.push("manifest".into());
        self.images.push(json!({
            "id": id,
            "digest": of,
            "names": [name],
            "metadata": json!({ "signatures-sizes": { of.as_str(): sizes } }).to_string(),
            "big-data-names": names,
        }));
        of
    }

    fn write(&self) {
        self.put(&serde_json::to_vec(&self.images).unwrap());
    }

    fn put(&self, bytes: &[u8]) {
        let path = self.directory.join("images.json");
        let _ = fs::remove_file(&path);
        fs::write(path, bytes).unwrap();
        self.give();
    }

    fn give(&self) {
        bash(ROOT, &format!("chown -hR {}: {}", self.user, self.directory.parent().unwrap().display()));
    }
}

fn an_image_in_the_making(_: &mut Oracle) {
    let Some(_site) = Site::up() else { return };
    let name = "registry.local/amy/app:1";
    let mut forged = Forged::of(ZOE);
    forged.add(name, 1, |of| Some(signed(AMY, name, of)));
    bash(AMY, "gpgconf --kill all");
    forged.write();
    let id = forged.images[0]["id"].as_str().unwrap().to_owned();
    let (there, away) = (forged.directory.join(&id), forged.directory.join("away"));
    // Its documents are not there yet when it is looked at first, and are when it is looked at again.
    fs::rename(&there, &away).unwrap();
    let looking = std::thread::spawn(look);
    host::wait_for("the monitor to wait", || {
        let pids = host::run(
            std::process::Command::new("/bin/bash").args(["-c", "pgrep -x podsec-monitor || true"]),
        );
        let waits = |pid: &str| {
            fs::read_to_string(format!("/proc/{pid}/wchan")).is_ok_and(|at| at.contains("nanosleep"))
        };
        pids.split_whitespace().any(waits)
    });
    fs::rename(&away, &there).unwrap();
    assert_eq!(codes(&looking.join().unwrap()), []);
    fs::rename(&there, &away).unwrap();
    only(&look(), (ZOE, "image-unsigned", name), "critical");
}

fn hostile_stores(_: &mut Oracle) {
    let Some(_site) = Site::up() else { return };
    load("loaded", "registry.local/amy/loaded:1");
    let zoes = (ZOE, "image-unsigned", "registry.local/amy/loaded:1");
    only(&look(), zoes, "critical");
    // A key of the old system's worst kind.
    bash(
        MALLORY,
        r#"mkdir -p ~/.config/containers; cat >~/.config/containers/policy.json <<'E'
{"default":[{"type":"reject"}],"transports":{"docker":{"$(touch /tmp/images-check/ran)":[{"type":"reject"}],"`touch /tmp/images-check/ran`;touch /tmp/images-check/ran\n":[{"type":"reject"}]}}}
E"#,
    );
    let mut forged = Forged::of(MALLORY);
    let names = [
        "registry.local/amy/\n[31mred",
        "\u{1b}[2J\u{1b}]0;title\u{7}",
        "$(touch /tmp/images-check/ran)",
        "`touch /tmp/images-check/ran`;touch /tmp/images-check/ran",
        "' \" ; & | > /tmp/images-check/ran",
        "\u{202e}gpj.exe\u{2028}",
        "../../../../etc/shadow",
        &"x".repeat(1 << 20),
        "INVALID",
    ];
    for (number, name) in names.iter().enumerate() {
        forged.add(name, number, |_| None);
    }
    let id = |id: &str| json!({ "id": id, "names": [format!("registry.local/amy/{}:1", id.len())] });
    forged.images.push(id("../../../../../../etc"));
    forged.images.push(id(""));
    forged.images.push(id(&"A".repeat(64)));
    // Documents that are elsewhere.
    let far = format!("{:064}", 7);
    let mut image = id(&far);
    image["digest"] = json!("sha256:../../../../etc/shadow");
    image["big-data-names"] =
        json!(["manifest-../../../../etc/shadow", "manifest-sha256:../../../../etc/shadow", "../x"]);
    image["metadata"] = json!("[".repeat(100_000));
    forged.images.push(image);
    let there = forged.directory.join(&far);
    fs::create_dir(&there).unwrap();
    std::os::unix::fs::symlink("/etc/shadow", there.join("manifest")).unwrap();
    let text = serde_json::to_string(&forged.images).unwrap();
    let (before, after) = text.split_once("INVALID").unwrap();
    forged.put(
        &[
            before.as_bytes(),
            b"bad\xff\xfe\0".map(|byte| if byte == 0 { b'x' } else { byte }).as_slice(),
            after.as_bytes(),
        ]
        .concat(),
    );
    let found = look();
    let hers: Vec<_> = found.iter().filter(|finding| finding.owner == MALLORY).collect();
    let count = |code: &str| hers.iter().filter(|finding| finding.code == code).count();
    assert_eq!((count("image-out-of-policy"), count("image-tampered"), hers.len()), (9, 4, 13), "{hers:#?}");
    assert_eq!(codes(&found).last(), Some(&zoes));
    let secret = fs::read_to_string("/etc/shadow").unwrap();
    let secret = secret.lines().next().unwrap();
    assert!(!format!("{hers:?}").contains(secret));

    // What cannot be read is said, costs little time, and takes nothing from others.
    let unreadable: &[(&str, Plant)] = &[
        ("FIFO", &|forged| {
            let path = forged.directory.join("images.json");
            fs::remove_file(&path).unwrap();
            host::run(std::process::Command::new("/usr/bin/mkfifo").arg(&path));
            forged.give();
        }),
        ("nesting", &|forged| forged.put("[".repeat(1 << 20).as_bytes())),
        ("deep names", &|forged| {
            let deep = format!(r#"[{{"id":"a","names":{}1{}}}]"#, "[".repeat(100_000), "]".repeat(100_000));
            forged.put(deep.as_bytes());
        }),
        ("no JSON", &|forged| forged.put(b"$(touch /tmp/images-check/ran)")),
        ("twice", &|forged| forged.put(br#"[{"id":"a","id":"b"}]"#)),
        ("device", &|forged| {
            let path = forged.directory.join("images.json");
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        }),
        ("length", &|forged| forged.put(&vec![b' '; (64 << 20) + 1])),
    ];
    for (what, plant) in unreadable {
        plant(&forged);
        let (summary, found) = looked();
        assert_eq!(summary.state, "partial", "{what}: {summary:?}");
        assert_eq!(
            summary.missed.iter().map(|one| one.owner.as_str()).collect::<Vec<_>>(),
            [MALLORY],
            "{what}"
        );
        assert!(summary.missed[0].why.contains("images.json"), "{what}: {summary:?}");
        assert_eq!(found.len(), 14, "{what}: what was found before is kept");
        assert!(summary.took < 15_000, "{what}: {summary:?}");
    }
    let many: Vec<_> = (0..100_000)
        .map(|number| json!({ "id": format!("{number:064x}"), "names": [format!("localhost/{number}:1")] }))
        .collect();
    forged.put(&serde_json::to_vec(&many).unwrap());
    let (summary, found) = looked();
    println!("100,000 images of one user: {} ms", summary.took);
    assert_eq!(summary.state, "partial", "{summary:?}");
    assert!(found.len() < 3_000 && codes(&found).contains(&zoes));
    forged.put(b"[]");
    only(&look(), zoes, "critical");
    assert!(!Path::new(SHARED).join("ran").exists(), "something of a store's was run");
    bash(MALLORY, "rm -rf ~/.config/containers");
}

// ---- what it costs

fn signed(who: &str, reference: &str, of: &str) -> Vec<u8> {
    let payload = payload(reference, of, "atomic container signature");
    let (said, file) = (host::shared(SHARED, "said", &payload), format!("{SHARED}/said.gpg"));
    bash(who, &format!("gpg --batch --yes --quiet --sign --output {file} {said}; chmod 644 {file}"));
    fs::read(file).unwrap()
}

fn payload(reference: &str, of: &str, kind: &str) -> Vec<u8> {
    let critical = json!({ "type": kind, "image": { "docker-manifest-digest": of }, "identity": { "docker-reference": reference } });
    json!({ "critical": critical, "optional": {} }).to_string().into_bytes()
}

fn gpgv_is_in_a_cage(_: &mut Oracle) {
    let Some(_site) = Site::up() else { return };
    let mut forged = Forged::of(ZOE);
    forged.add(APP, 1, |of| Some(signed(AMY, APP, of)));
    bash(AMY, "gpgconf --kill all");
    forged.write();
    // One that waits to be looked at, and says nothing good.
    bash(
        ROOT,
        r"mv /usr/bin/gpgv /usr/bin/gpgv.away; printf '#!/bin/sh\nsleep 4\n' >/usr/bin/gpgv; chmod 755 /usr/bin/gpgv",
    );
    let looking = std::thread::spawn(looked);
    let mut pid = String::new();
    host::wait_for("gpgv", || {
        let find = ["-c", "pgrep -f '^/bin/sh /usr/bin/gpgv --homedir /run/podsec/cage-[0-9]* ' || true"];
        pid = host::run(std::process::Command::new("/bin/bash").args(find)).trim().to_owned();
        !pid.is_empty()
    });
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let cage = bash(ROOT, "stat -c '%U %a' /run/podsec/cage-*");
    let said = looking.join();
    bash(ROOT, "mv /usr/bin/gpgv.away /usr/bin/gpgv");
    let fact =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(&format!("{name}:"))).unwrap().trim();
    let (uid, gid) = (bash(ROOT, "id -u podsec"), bash(ROOT, "id -g podsec"));
    for (name, id) in [("Uid", uid.trim()), ("Gid", gid.trim())] {
        assert_eq!(fact(name).split('\t').collect::<Vec<_>>(), [id; 4], "{status}");
    }
    assert_eq!((fact("Groups"), fact("NoNewPrivs"), fact("Seccomp")), ("", "1", "2"), "{status}");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(fact(set), "0".repeat(16), "{set}");
    }
    assert_eq!(cage.trim(), "root 770", "its directory is root's, and nobody's but its group's to write");
    assert_eq!(codes(&said.unwrap().1), [(ZOE, "image-distrusted", APP)]);
    assert_eq!(bash(ROOT, "ls -d /run/podsec/cage-* 2>/dev/null || true"), "", "nothing is left of it");
    bash(ROOT, "rm -f /var/lib/podsec-monitor/images/cache.json");
}

fn the_same_images_start_no_program(_: &mut Oracle) {
    let Some(_site) = Site::up() else { return };
    let count = host::count(10, 50);
    let mut forged = Forged::of(ZOE);
    for number in 0..count {
        let name = format!("registry.local/amy/app:{number}");
        forged.add(&name, number, |of| Some(signed(AMY, &name, of)));
    }
    bash(AMY, "gpgconf --kill all");
    forged.write();
    let took = || {
        assert_eq!(codes(&look()), []);
        findings("images").0.took
    };
    println!("{count} images: {} ms, and {} ms the second time", took(), took());
    // And one that is not good, which need not be found out every hour either.
    let good = fs::read(format!("{SHARED}/said.gpg")).unwrap();
    forged.add("registry.local/amy/bad:1", count, |_| Some(good[..good.len() - 4].to_vec()));
    forged.write();
    let bad = (ZOE, "image-distrusted", "registry.local/amy/bad:1");
    only(&look(), bad, "critical");
    // Nor could it.
    bash(ROOT, "mv /usr/bin/gpgv /usr/bin/gpgv.away");
    let ran = std::panic::catch_unwind(|| only(&look(), bad, "critical"));
    // Another trust is another matter: what was true is not any more.
    let (_ben, _) = Person::creator(BEN, &["registry.local/ben"]);
    ctl(ALICE, "trust grant ben registry.local/amy --shared");
    let without = looked();
    bash(ROOT, "mv /usr/bin/gpgv.away /usr/bin/gpgv");
    ran.expect("no gpgv for what is known");
    assert_eq!(without.0.state, "unknown", "{without:?}");
    assert!(without.0.why.contains("gpgv"), "{without:?}");
    assert_eq!(codes(&without.1), [bad], "what is unknown is not gone");
    only(&look(), bad, "critical");
    // What podsec-monitor remembers is its own, and damaged it costs time only.
    let cache = "/var/lib/podsec-monitor/images/cache.json";
    assert!(!succeeds(MALLORY, &format!("cat {cache}")));
    fs::write(cache, "{").unwrap();
    only(&look(), bad, "critical");
    // A signature is verified again when a day has passed: keys expire.
    let text = fs::read_to_string(cache).unwrap();
    let entries: serde_json::Map<String, Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(entries.len(), count + 1);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let aged = |age: u64| {
        let mut entries = entries.clone();
        for entry in entries.values_mut() {
            entry["time"] = json!(now - age);
            entry["verdict"] = json!({ "Err": "as it was remembered" });
        }
        fs::write(cache, serde_json::to_vec(&entries).unwrap()).unwrap();
        look().len()
    };
    assert_eq!(aged(23 * 3600), count + 1, "remembered");
    assert_eq!(aged(25 * 3600), 1, "too long ago");
    bash(ROOT, &format!("rm -f {cache}"));
}

// ---- sigstore

fn sigstore_signatures(_: &mut Oracle) {
    let Some(_site) = Site::up() else { return };
    if !host::are_installed(&["openssl"]) {
        return;
    }
    let _ben = Person::without_key(BEN, &["registry.local/ben"]);
    let keys = "cd /tmp/images-check; openssl ecparam -name prime256v1 -genkey -noout -out ben.key; openssl ec -in ben.key -pubout -out ben.pem 2>/dev/null; chmod 644 ben.pem ben.key";
    bash(BEN, keys);
    ctl(ALICE, "trust grant ben registry.local/sig --sigstore");
    ctl(BEN, "key publish /tmp/images-check/ben.pem");
    let name = "registry.local/sig/app:1";
    let blob = |said: &[u8]| {
        let said = host::shared(SHARED, "said", said);
        let script = format!(
            "openssl dgst -sha256 -sign {SHARED}/ben.key {said} | base64 -w0; echo; base64 -w0 {said}"
        );
        let text = bash(ROOT, &script);
        let (signature, payload) = text.trim().split_once('\n').unwrap();
        let blob = json!({ "mimeType": "application/vnd.dev.cosign.simplesigning.v1+json", "payload": payload, "annotations": { "dev.cosignproject.cosign/signature": signature } });
        [b"\0sigstore-json\n", blob.to_string().as_bytes()].concat()
    };
    let sigstore = "cosign container image signature";
    let mut forged = Forged::of(ZOE);
    forged.add(name, 0, |of| Some(blob(&payload(name, of, sigstore))));
    forged.write();
    assert_eq!(codes(&look()), []);
    let cases: &[(&str, Sign)] = &[
        ("signs", &|_| blob(&payload(name, &digest(b"x"), sigstore))),
        ("no image", &|of| blob(&payload(name, of, "atomic container signature"))),
        ("not by a key", &|of| {
            let changed = String::from_utf8(blob(&payload(name, of, sigstore))).unwrap();
            let other = String::from_utf8(blob(&payload(name, &digest(b"x"), sigstore))).unwrap();
            // The payload of the one and the signature of the other.
            let field = |text: &str, name: &str| {
                let value: Value = serde_json::from_str(text.split_once('\n').unwrap().1).unwrap();
                value[name].clone()
            };
            let mixed =
                json!({ "payload": field(&changed, "payload"), "annotations": field(&other, "annotations") });
            [b"\0sigstore-json\n", mixed.to_string().as_bytes()].concat()
        }),
        ("no signature of sigstore's", &|_| b"\0sigstore-json\n{".to_vec()),
        ("not signed by sigstore", &|of| signed(AMY, name, of)),
    ];
    for (number, (why, sign)) in cases.iter().enumerate() {
        let mut forged = Forged::of(ZOE);
        forged.add(name, number, |of| Some(sign(of)));
        forged.write();
        let found = only(&look(), (ZOE, "image-distrusted", name), "critical");
        assert!(found.detail.contains(why), "{why}: {found:?}");
    }
    bash(AMY, "gpgconf --kill all");
}
