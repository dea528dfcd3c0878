//! policy: each violation is planted, found once with its severity and weight, mended, and gone. [`Site`] has trust, a creator
//! and an image user as podsec makes them; what somebody may put into his own home is put there by the cluster user, who is
//! always looked at.

use super::{findings, run};
use crate::Test;
use crate::services::Trusted;
use crate::trust::{AMY, BEN, Person, Untrusted, init, settings};
use podsec_proto::v1::{CheckFinding, CheckSummary};
use podsec_tests::host;
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, CLUSTER, DAVE, MALLORY, ROOT, bash};
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

macro_rules! tests {
    ($($test:ident)*) => {
        pub const TESTS: &[Test] = &[$((concat!("checks::policy::", stringify!($test)), $test),)*];
    };
}

tests! {
    a_clean_host_has_nothing
    without_trust
    policies_of_ones_own
    the_hosts_own_files
    accounts_that_conflict
    guards_of_image_users
    images_and_no_image_user
    what_cannot_be_read
    hostile_names
    nobody_blinds_it_for_others
    programs_that_ask_another_policy
    what_expires
}

fn a_clean_host_has_nothing(_: &mut Oracle) {
    let before = findings("policy");
    assert_eq!(before.1, vec![]);
    let ran = run("policy").summary.unwrap();
    assert_eq!((ran.state.as_str(), ran.findings), ("complete", 0), "{ran:?}");
    assert_eq!(findings("policy"), (ran, vec![]));
}

// ---- what is there

const REGISTRY: &str = "registry.local:5000";
const GUARD: &str = "/home/ben/.config/containers";
/// So that podman works for somebody who has not logged in.
const PODMAN: &str = "export XDG_RUNTIME_DIR=/tmp/policy-check/run-$(id -u) STORAGE_DRIVER=vfs; mkdir -p -m 700 $XDG_RUNTIME_DIR; cd";

/// An image in a store of his own; podman takes it as long as there is no trust.
static IMPORT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{PODMAN}; tar -cf it.tar -C /etc hostname; podman import --quiet it.tar localhost/it:1 >/dev/null; rm it.tar"
    )
});

fn remove_stores(users: &[&str]) {
    for user in users {
        script(&format!(
            "rm -rf ~{user}/.local/share/containers ~{user}/.config /tmp/policy-check/run-$(id -u {user})"
        ));
    }
    script("rm -rf /tmp/policy-check");
}

/// Trust, amy, who signs, and ben, who uses images. Dropped in this order.
struct Site {
    _ben: Person,
    _amy: Person,
    _trust: Untrusted,
}

impl Site {
    fn up() -> Self {
        Self::with(&[])
    }

    /// With that to be found from the beginning.
    fn with(codes: &[&str]) -> Self {
        let _trust = Untrusted::host();
        init(settings()).expect("trust");
        let (_amy, _) = Person::creator(AMY, &["registry.local:5000/team"]);
        let _ben = Person::image_user(BEN);
        let site = Self { _ben, _amy, _trust };
        let mut found: Vec<_> = look().into_iter().map(|(code, ..)| code).collect();
        found.sort();
        let mut codes = codes.to_vec();
        codes.sort_unstable();
        assert_eq!(found, codes);
        site
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        script(&format!("rm -rf ~{CLUSTER}/.config /root/.config/containers"));
    }
}

/// Of root, which has to succeed.
fn script(text: &str) {
    host::run(Command::new("/bin/bash").args(["-ec", text]));
}

fn looked() -> (CheckSummary, Vec<CheckFinding>) {
    let ran = run("policy").summary.expect("a summary");
    let (summary, found) = findings("policy");
    assert_eq!(ran, summary);
    for finding in &found {
        assert!(podsec_policy::finding::kind(&finding.code).is_some_and(|kind| !kind.remedy.is_empty()));
        for text in [&finding.subject, &finding.owner, &finding.place, &finding.detail] {
            assert!(!text.chars().any(char::is_control) && text.len() < 10_000, "{finding:?}");
        }
    }
    (summary, found)
}

/// Code, subject, severity and weight of all there is, when everybody was looked at.
fn look() -> Vec<(String, String, String, u32)> {
    let (summary, found) = looked();
    assert_eq!((summary.state.as_str(), summary.lost), ("complete", 0), "{summary:?}");
    found.into_iter().map(|found| (found.code, found.subject, found.severity, found.weight)).collect()
}

fn nothing() {
    assert_eq!(look(), []);
}

/// Planted, found exactly once and mended; nothing else is found.
fn finds(who: &str, plant: &str, mend: &str, expected: (&str, &str, &str, u32)) -> CheckFinding {
    bash(who, plant);
    let (code, subject, severity, weight) = expected;
    let wanted = (code.to_owned(), subject.to_owned(), severity.to_owned(), weight);
    assert_eq!(look(), [wanted], "{plant}");
    let found = looked().1.remove(0);
    assert_eq!(findings("policy").1, std::slice::from_ref(&found));
    bash(who, mend);
    assert_eq!(look(), [], "{mend}");
    found
}

// ---- policies

/// A policy.json of one's own.
fn policy(default: &str, transports: &str) -> String {
    format!(r#"{{"default":[{{"type":"{default}"}}],"transports":{{{transports}}}}}"#)
}

/// As the host demands it in the scope of amy.
fn signed(keys: &str) -> String {
    format!(r#""{REGISTRY}/team":[{{"type":"signedBy","keyType":"GPGKeys","keyPath":"{keys}"}}]"#)
}

const KEYS: &str = "/var/sigstore/keys/amy.pgp";
const ANY: &str = r#"[{"type":"insecureAcceptAnything"}]"#;

/// Puts a file into ~/.config/containers of the cluster user.
fn own(name: &str, text: &str) -> String {
    format!(
        "mkdir -p ~/.config/containers/registries.d; cat >~/.config/containers/{name} <<'END'\n{text}\nEND\nrmdir ~/.config/containers/registries.d 2>/dev/null || true"
    )
}

const MEND: &str = "rm -r ~/.config";

fn policies_of_ones_own(_: &mut Oracle) {
    let _site = Site::up();
    let docker = |more: &str| format!(r#""docker":{{{}{more}}}"#, signed(KEYS));
    let (good, image) = (docker(""), format!(r#","docker.io/library":{ANY}"#));
    let archive = format!(r#"{good},"docker-archive":{{"":{ANY}}}"#);
    bash(CLUSTER, &own("policy.json", &policy("reject", &good)));
    nothing();
    for (text, code, severity, weight) in [
        (policy("insecureAcceptAnything", &good), "policy-default", "critical", 102),
        (policy("reject", ""), "policy-registry", "critical", 103),
        (policy("reject", &docker(&image)), "policy-unsigned-scope", "critical", 104),
        (policy("reject", &archive), "policy-transport", "high", 105),
        (
            policy("reject", &format!(r#""docker":{{{}}}"#, signed("/var/lib/u7s-admin/mine.pgp"))),
            "policy-other-keys",
            "critical",
            104,
        ),
    ] {
        let found = finds(CLUSTER, &own("policy.json", &text), MEND, (code, CLUSTER, severity, weight));
        assert_eq!(found.place, "/var/lib/u7s-admin/.config/containers/policy.json");
        assert_eq!((found.subject_type.as_str(), found.owner.as_str()), ("user", CLUSTER));
    }
    // Nor is what root takes for himself the host's.
    let root = format!(
        "mkdir -p /root/.config/containers; echo '{}' >/root/.config/containers/policy.json",
        policy("insecureAcceptAnything", &good)
    );
    finds(ROOT, &root, "rm -r /root/.config/containers", ("policy-default", ROOT, "critical", 102));
    // Where signatures and images come from. This directory counts instead of the host's.
    let lookaside = |url: &str| format!("docker:\n  \"{REGISTRY}\":\n    lookaside: {url}");
    bash(CLUSTER, &own("registries.d/x.yaml", &lookaside("http://sigstore.local:8081/sigstore")));
    nothing();
    let lookasides = ("lookaside-differs", CLUSTER, "high", 106);
    for text in
        [lookaside("http://mine.local/sigstore"), "default-docker:\n  lookaside: http://mine.local/x".into()]
    {
        finds(CLUSTER, &own("registries.d/x.yaml", &text), MEND, lookasides);
    }
    finds(CLUSTER, "mkdir -p ~/.config/containers/registries.d", MEND, lookasides);
    let mirror =
        format!("[[registry]]\nlocation = \"{REGISTRY}\"\n[[registry.mirror]]\nlocation = \"mine.local\"");
    let other = format!("[[registry]]\nprefix = \"{REGISTRY}/team\"\nlocation = \"mine.local/team\"");
    for text in [mirror, other] {
        finds(CLUSTER, &own("registries.conf", &text), MEND, ("registry-redirected", CLUSTER, "medium", 50));
    }
    // Whoever makes images may use any.
    bash(AMY, "cat ~/.config/containers/policy.json | grep -q insecureAcceptAnything");
}

// ---- the host

fn without_trust(_: &mut Oracle) {
    if !host::are_installed(&["podman"]) {
        return;
    }
    host::everybodys_directory("/tmp/policy-check");
    let gone = format!("{PODMAN}; podman rmi --force localhost/it:1 >/dev/null");
    let found = finds(CLUSTER, IMPORT.as_str(), &gone, ("no-trust", "", "critical", 102));
    assert_eq!((found.subject_type.as_str(), found.detail.as_str()), ("host", "stores of u7s-admin"));
    remove_stores(&[CLUSTER]);
}

fn the_hosts_own_files(_: &mut Oracle) {
    let _site = Site::up();
    let kept = "/run/podsec-tests/policy-kept";
    script(&format!("rm -rf {kept}; cp -a /etc/containers {kept}"));
    let back = |name: &str| format!("cp -a {kept}/{name} /etc/containers/{name}");
    let file = |name: &str, text: &str| format!("cat >/etc/containers/{name} <<'END'\n{text}\nEND");
    let good = format!(r#""docker":{{{}}}"#, signed(KEYS));
    // Worse than another text is what it lets happen: that is said instead, once.
    for (text, code, severity, weight) in [
        (policy("insecureAcceptAnything", &good), "policy-default", "critical", 102),
        (policy("reject", ""), "policy-registry", "critical", 103),
        (policy("reject", &good), "trust-drift", "high", 102),
        ("{}".to_owned(), "config-unreadable", "medium", 50),
    ] {
        let found =
            finds(ROOT, &file("policy.json", &text), &back("policy.json"), (code, "", severity, weight));
        assert_eq!(found.place, "/etc/containers/policy.json");
    }
    let drift = ("trust-drift", "", "high", 102);
    let conf = "registries.conf.d/50-podsec.conf";
    finds(ROOT, &format!("rm /etc/containers/{conf}"), &back(conf), drift);
    finds(
        ROOT,
        "sed -i 's/trivy.local/evil.local/' /etc/hosts",
        "sed -i 's/evil.local/trivy.local/' /etc/hosts",
        drift,
    );
    // podsec's own file is as it was: another says otherwise.
    let yaml = format!("docker:\n  \"{REGISTRY}/team\":\n    lookaside: http://mine.local/x");
    finds(
        ROOT,
        &file("registries.d/zz.yaml", &yaml),
        "rm /etc/containers/registries.d/zz.yaml",
        ("lookaside-differs", "", "high", 106),
    );
    let writable = ("config-writable", "", "critical", 102);
    for (plant, mend) in [
        ("chmod o+w /etc/containers/policy.json", "chmod o-w /etc/containers/policy.json"),
        ("chown mallory /etc/containers/policy.json", "chown root /etc/containers/policy.json"),
        (
            "chgrp mallory /etc/containers/registries.d; chmod g+w /etc/containers/registries.d",
            "chgrp root /etc/containers/registries.d; chmod g-w /etc/containers/registries.d",
        ),
        // Of a home that is closed to root; of nothing, as long as nobody puts something there.
        ("ln -s /home/mallory/x /etc/containers/x", "rm /etc/containers/x"),
        (
            "cp -a /etc/containers/policy.json /tmp/x; chown mallory /tmp/x; ln -s /tmp/x /etc/containers/x",
            "rm /etc/containers/x /tmp/x",
        ),
    ] {
        finds(ROOT, plant, mend, writable);
    }
    script(&format!("rm -rf {kept}"));
}

// ---- accounts

fn accounts_that_conflict(_: &mut Oracle) {
    let _site = Site::up();
    let _kim = KIM.then_made();
    let (join, leave) = (
        |who: &str, group: &str| format!("gpasswd --add {who} {group} >/dev/null"),
        |who: &str, group: &str| format!("gpasswd --delete {who} {group} >/dev/null"),
    );
    for (who, group, code, severity, weight) in [
        (DAVE, "wheel", "image-user-administers", "high", 107),
        (CLUSTER, "wheel", "cluster-user-administers", "critical", 107),
        (KIM.0, "podman", "cluster-user-has-images", "high", 101),
        (MALLORY, "podman_dev", "creator-no-image-user", "medium", 50),
        (BEN, "podman_dev", "user-groups", "high", 101),
    ] {
        finds(ROOT, &join(who, group), &leave(who, group), (code, who, severity, weight));
    }
    for (who, group, code, severity, weight) in [
        (AMY, "podman", "creator-no-image-user", "medium", 50),
        (AMY, "podman_dev", "user-groups", "high", 101),
        (BEN, "podman", "user-groups", "high", 101),
    ] {
        let wanted = (code.to_owned(), who.to_owned(), severity.to_owned(), weight);
        script(&leave(who, group));
        let mut found = look();
        // Who is no creator by his groups is held to what image users are.
        found.retain(|(code, ..)| !(who == AMY && group == "podman_dev") || code == "user-groups");
        assert_eq!(found, [wanted], "{who} {group}");
        script(&join(who, group));
        nothing();
    }
    people::ctl(ROOT, &["user", "create", "gus", "--category", "cluster-user"]);
    finds(
        ROOT,
        "userdel --remove gus 2>/dev/null",
        "podsecctl user delete gus --yes",
        ("user-gone", "gus", "warning", 20),
    );
}

/// A person of the cluster.
struct Kim(&'static str);
const KIM: Kim = Kim("kim");

impl Kim {
    fn then_made(&self) -> Person {
        people::ctl(ROOT, &["user", "create", self.0, "--category", "cluster-user"]);
        Person(self.0)
    }
}

fn guards_of_image_users(_: &mut Oracle) {
    let _site = Site::up();
    let again = "podsecctl user create ben --category image-user >/dev/null";
    let release = format!("chattr -i /home/ben/.config {GUARD}");
    let unguarded = ("image-user-unguarded", BEN, "high", 90);
    let writable = ("image-user-config-writable", BEN, "high", 90);
    for (plant, expected) in [
        (format!("{release}; rm -r {GUARD}"), unguarded),
        (format!("{release}; rm {GUARD}/policy.json"), unguarded),
        (format!("chattr -i {GUARD}"), writable),
        ("chattr -i /home/ben/.config".into(), writable),
        (format!("{release}; chmod o+w {GUARD}; chattr +i /home/ben/.config {GUARD}"), writable),
    ] {
        let mend =
            format!("chattr -i {GUARD} 2>/dev/null || true; chmod o-w {GUARD} 2>/dev/null || true; {again}");
        finds(ROOT, &plant, &mend, expected);
    }
    // Two, of whom one is good: half of 90.
    let _zoe = Person::image_user("zoe");
    finds(ROOT, &format!("chattr -i {GUARD}"), again, ("image-user-config-writable", BEN, "high", 45));
    // A policy of his own in the place of root's is both: no guard, and what it lets happen.
    script(&format!(
        "{release}; cd {GUARD}; rm policy.json; echo '{}' >policy.json",
        policy("insecureAcceptAnything", "")
    ));
    let mut codes: Vec<_> = look().into_iter().map(|(code, ..)| code).collect();
    codes.sort();
    assert_eq!(codes, ["image-user-unguarded", "policy-default", "policy-registry"]);
    script(again);
    nothing();
}

fn images_and_no_image_user(_: &mut Oracle) {
    if !host::are_installed(&["podman"]) {
        return;
    }
    host::everybodys_directory("/tmp/policy-check");
    for who in [MALLORY, DAVE] {
        bash(who, &IMPORT);
    }
    let site = Site::with(&["store-outsider", "image-user-unmanaged", "image-user-unguarded"]);
    let found = look();
    let of = |code: &str, who: &str, severity: &str, weight| {
        (code.to_owned(), who.to_owned(), severity.to_owned(), weight)
    };
    let mut expected = [
        of("store-outsider", MALLORY, "high", 101),
        of("image-user-unmanaged", DAVE, "warning", 20),
        // ben is the other image user.
        of("image-user-unguarded", DAVE, "high", 45),
    ];
    let mut sorted = found.clone();
    sorted.sort();
    expected.sort();
    assert_eq!(sorted, expected);
    remove_stores(&[MALLORY, DAVE]);
    nothing();
    drop(site);
}

// ---- traps

fn what_cannot_be_read(_: &mut Oracle) {
    let _site = Site::up();
    let at = "mkdir -p ~/.config/containers; cd ~/.config/containers;";
    let unreadable = ("config-unreadable", CLUSTER, "medium", 50);
    let start = Instant::now();
    for plant in [
        "mkfifo policy.json",
        "ln -s /etc/shadow policy.json",
        "truncate -s 1G policy.json",
        "echo garbage >policy.json",
        "mkdir policy.json",
        "printf '{\"default\":[' >policy.json; for i in {1..20}; do printf '[[[[[[[[[[' >>policy.json; done",
        "ln -s /dev/zero policy.json",
        "echo '{\"default\":[{\"type\":\"reject\"}],\"default\":[{\"type\":\"reject\"}]}' >policy.json",
        "mkfifo registries.conf",
        "echo '[[registry]' >registries.conf",
    ] {
        finds(CLUSTER, &format!("{at} {plant}"), MEND, unreadable);
    }
    // A loop is what podman takes for no file at all.
    bash(CLUSTER, &format!("{at} ln -s policy.json policy.json"));
    nothing();
    bash(CLUSTER, MEND);
    // Of the store: it counts as one with images in it.
    finds(
        MALLORY,
        "mkdir -p ~/.local/share/containers/storage/vfs-images; mkfifo ~/.local/share/containers/storage/vfs-images/images.json; chmod 700 ~/.local/share/containers/storage",
        "rm -r ~/.local",
        ("store-outsider", MALLORY, "high", 101),
    );
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

fn hostile_names(_: &mut Oracle) {
    let _site = Site::up();
    let names = [
        "a.b/\\n[31m injected".to_owned(),
        "'; touch /x; '".into(),
        "$(touch /x)".into(),
        "`touch /x`".into(),
        "\\u001b[2J\\u001b]0;x\\u0007".into(),
        "\\u202e\\u2028".into(),
        "\\\"]=…|.default=[{}]#".into(),
        "x".repeat(1 << 20),
    ];
    let good = signed(KEYS);
    for name in &names {
        let text = policy("reject", &format!(r#""docker":{{{good},"{name}":{ANY}}}"#));
        fs::write("/run/podsec-tests/hostile.json", text).unwrap();
        fs::set_permissions(
            "/run/podsec-tests/hostile.json",
            std::os::unix::fs::PermissionsExt::from_mode(0o644),
        )
        .unwrap();
        let plant = "mkdir -p ~/.config/containers; cat /run/podsec-tests/hostile.json >~/.config/containers/policy.json";
        let found = finds(CLUSTER, plant, MEND, ("policy-unsigned-scope", CLUSTER, "critical", 104));
        assert!(!found.detail.is_empty());
    }
    // All of them, and many more, are still one.
    let all: String = (0..20_000).map(|number| format!(r#","{}{number}":{ANY}"#, names[2])).collect();
    fs::write("/run/podsec-tests/hostile.json", policy("reject", &format!(r#""docker":{{{good}{all}}}"#)))
        .unwrap();
    let plant =
        "mkdir -p ~/.config/containers; cat /run/podsec-tests/hostile.json >~/.config/containers/policy.json";
    let found = finds(CLUSTER, plant, MEND, ("policy-unsigned-scope", CLUSTER, "critical", 104));
    assert!(found.detail.ends_with("and 19997 more"), "{}", found.detail);
    // Names of files.
    let plant = "mkdir -p ~/.config/containers/registries.d; cd ~/.config/containers/registries.d
        printf 'docker:\\n  \"registry.local:5000\":\\n    lookaside: http://sigstore.local:8081/sigstore\\n' >a.yaml
        : >\"$(printf 'z\\033[2J\\n$(touch x)`touch x`.yaml')\"; printf x >\"$(printf '\\377;touch x;').yaml\"";
    bash(CLUSTER, plant);
    assert_eq!(look().into_iter().map(|(code, ..)| code).collect::<Vec<_>>(), ["config-unreadable"]);
    bash(CLUSTER, MEND);
    nothing();
    for trace in ["/x", "/root/x", "/var/lib/u7s-admin/x"] {
        assert!(!Path::new(trace).exists(), "{trace}");
    }
    fs::remove_file("/run/podsec-tests/hostile.json").unwrap();
}

/// Killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn nobody_blinds_it_for_others(_: &mut Oracle) {
    let _site = Site::up();
    bash(
        CLUSTER,
        &own("policy.json", &policy("insecureAcceptAnything", &format!(r#""docker":{{{}}}"#, signed(KEYS)))),
    );
    // He stops whatever is his, again and again.
    let mut stopper = people::command(MALLORY, "/bin/bash");
    stopper.args(["-c", "while :; do kill -STOP -1; done"]).stderr(Stdio::null()).process_group(0);
    let stopper = Running(stopper.spawn().unwrap());
    let (summary, found) = (0..20)
        .map(|_| looked())
        .find(|(summary, _)| summary.state != "complete")
        .expect("he is quick enough once in twenty times");
    drop(stopper);
    // What is stopped there is his, and nobody else's.
    people::command(MALLORY, "/bin/bash").args(["-c", "kill -KILL -1"]).status().unwrap();
    assert_eq!(summary.state, "partial");
    assert_eq!(summary.missed.len(), 1, "{summary:?}");
    assert_eq!(summary.missed[0].owner, MALLORY);
    assert_eq!(found.into_iter().map(|found| found.code).collect::<Vec<_>>(), ["policy-default"]);
    assert!(summary.took < 8_000, "{summary:?}");
    bash(CLUSTER, MEND);
    nothing();
}

fn programs_that_ask_another_policy(_: &mut Oracle) {
    if !host::are_installed(&["skopeo"]) {
        return;
    }
    let _site = Site::up();
    // A registry that never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let image = format!("docker://127.0.0.1:{port}/x");
    let skopeo = |home: &str, option: Option<&str>, variable: Option<(&str, &str)>| {
        let mut command = people::command(BEN, "/usr/bin/env");
        command.arg(format!("HOME={home}")).args(variable.map(|(name, value)| format!("{name}={value}")));
        command.arg("skopeo").args(option).args(["inspect", "--tls-verify=false", &image]);
        let running = Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let (mut stream, _) = silent.accept().unwrap();
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        (running, stream)
    };
    let good = skopeo("/home/ben", None, None);
    nothing();
    drop(good);
    let bypassed = ("policy-bypassed".to_owned(), BEN.to_owned(), "critical".to_owned(), 103);
    let other_home = ("policy-other-home".to_owned(), BEN.to_owned(), "critical".to_owned(), 103);
    for (home, option, variable, expected) in [
        ("/home/ben", Some("--insecure-policy"), None, &[&bypassed][..]),
        ("/home/ben", Some("--policy=/tmp/mine.json"), None, &[&bypassed]),
        ("/home/ben", None, Some(("CONTAINERS_REGISTRIES_CONF", "/dev/null")), &[&bypassed]),
        ("/tmp", None, None, &[&other_home]),
        ("/tmp", Some("--insecure-policy"), None, &[&bypassed, &other_home]),
    ] {
        let running = skopeo(home, option, variable);
        assert_eq!(look().iter().collect::<Vec<_>>(), expected, "{home} {option:?} {variable:?}");
        drop(running);
        nothing();
    }
}

// ---- what expires

fn what_expires(_: &mut Oracle) {
    if !host::are_installed(&["docker-registry", "openssl"]) {
        return;
    }
    let _trust = Trusted::up(false);
    let (_amy, fingerprint) = Person::creator(AMY, &["registry.local/team"]);
    nothing();
    // The records are podsec's; a day is what is planted in them.
    let path = "/var/lib/podsec/keys/amy.json";
    let kept = fs::read_to_string(path).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for (end, code, severity, weight) in [
        (now - 86_400, "key-expired", "high", 101),
        (now + 10 * 86_400, "key-expiring", "warning", 10),
        (now + 40 * 86_400, "", "", 0),
    ] {
        let mut record: serde_json::Value = serde_json::from_str(&kept).unwrap();
        record["keys"][0]["expires"] = end.into();
        fs::write(path, record.to_string()).unwrap();
        let expected: &[_] = &[(code.to_owned(), AMY.to_owned(), severity.to_owned(), weight)];
        assert_eq!(look(), if code.is_empty() { &[] } else { expected }, "{end}");
        assert!(code.is_empty() || looked().1[0].place == fingerprint);
    }
    // As many days before as the administrator wants.
    let more = super::settings("[policy]\ndays_before_expiry = 50\n");
    let found = look();
    drop(more);
    fs::write(path, kept).unwrap();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "key-expiring");
    nothing();
    // A certificate that ends tomorrow, and one that is none.
    let pem = "/etc/podsec/services/private/signatures.pem";
    let soon = format!(
        "cp -a {pem} {pem}.kept; openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=x -days 1 -keyout /dev/null 2>/dev/null | cat >{pem}"
    );
    let back = format!("mv {pem}.kept {pem}");
    finds(ROOT, &soon, &back, ("certificate-expiring", "", "warning", 10));
    let broken = format!("cp -a {pem} {pem}.kept; echo x >{pem}");
    finds(ROOT, &broken, &back, ("certificate-expired", "", "high", 101));
}
