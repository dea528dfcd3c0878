//! vulnerabilities: a real trivy, a database of the tests' own, and images with a package in it that the database knows, in
//! real stores of root and of users.

use super::{SETTINGS, findings, run, settings};
use crate::Test;
use podsec_proto::v1::{CheckFinding, CheckSummary};
use podsec_tests::host::{self, Edited};
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, DAVE, MALLORY, ROOT};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

macro_rules! tests {
    ($($test:ident)*) => {
        pub const TESTS: &[Test] = &[$((concat!("checks::vulnerabilities::", stringify!($test)), $test),)*];
    };
}

tests! {
    without_trivy_or_its_database_nothing_is_good
    planted_found_once_and_gone
    limits_and_exceptions
    what_cannot_be_scanned_is_missed
    names_do_nothing
    what_is_built_is_kept_or_removed
    a_database_is_fetched
}

const TRIVY: &str = "/usr/bin/trivy";
const CACHE: &str = "/var/cache/podsec-monitor/trivy";

/// trivy and what makes its databases, as `tests/host/trivy` got them.
pub fn tool(name: &str) -> PathBuf {
    host::top().join("target/tools/trivy").join(name)
}

/// trivy on this host, and everything of the check as new; as it was when this is gone.
pub struct Site {
    _settings: Edited,
}

impl Site {
    /// `None` where there is no trivy, and says so.
    pub fn new() -> Option<Self> {
        if !host::are_installed(&["podman", "gzip"]) {
            return None;
        }
        if ["trivy", "trivy-database"].iter().any(|name| !tool(name).exists()) {
            println!("left out: no trivy; tests/host/trivy says why");
            return None;
        }
        fs::File::create(TRIVY).unwrap();
        host::run(Command::new("/usr/bin/mount").arg("--bind").arg(tool("trivy")).arg(TRIVY));
        let _ = fs::remove_dir_all("/var/cache/podsec-monitor");
        let site = Self { _settings: settings("") };
        configure("offline = true");
        Some(site)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = Command::new("/usr/bin/umount").arg(TRIVY).status();
        let _ = fs::remove_file(TRIVY);
        for who in [ROOT, DAVE, MALLORY] {
            podman(who, "rmi --all --force");
        }
        for directory in ["report.json", "cache.json"] {
            let _ = fs::remove_file(Path::new("/var/lib/podsec-monitor/vulnerabilities").join(directory));
        }
        let _ = fs::remove_dir_all("/var/cache/podsec-monitor");
    }
}

fn configure(section: &str) {
    fs::write(SETTINGS, format!("[vulnerabilities]\n{section}\n")).unwrap();
}

fn known(id: &str, package: &str, severity: &str) -> Value {
    json!({
        "Distribution": "alpine edge", "Package": package, "ID": id, "Severity": severity, "Title": "\u{1b}[2J", "Fixed": "9-r0",
    })
}

/// A database that knows these, into that directory.
pub fn database(directory: &str, all: &[Value], updated: &str) {
    let mut make = Command::new(tool("trivy-database"));
    let mut make = make.arg(format!("{directory}/db")).stdin(Stdio::piped()).spawn().unwrap();
    let mut description = json!({ "Known": all });
    if !updated.is_empty() {
        description["Updated"] = updated.into();
    }
    make.stdin.take().unwrap().write_all(description.to_string().as_bytes()).unwrap();
    assert!(make.wait().unwrap().success());
    for directory in ["/var/cache/podsec-monitor", directory] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o755)).unwrap();
    }
    host::run(Command::new("/usr/bin/chown").args(["-R", "podsec-monitor:", directory]));
}

/// What an alpine image has, with these packages in it: a directory to be the root of an image.
pub fn alpine(version: &str, packages: &[&str]) -> PathBuf {
    let root = PathBuf::from("/run/podsec-tests/alpine");
    let _ = fs::remove_dir_all(&root);
    for directory in ["etc/apk", "lib/apk/db"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let put = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
    put("etc/os-release", &format!("ID=alpine\nVERSION_ID={version}\n"));
    put("etc/alpine-release", &format!("{version}\n"));
    let repository = if version.contains('_') { "edge" } else { "v3.19" };
    put("etc/apk/repositories", &format!("https://dl-cdn.alpinelinux.org/alpine/{repository}/main\n"));
    let installed = packages.iter().map(|name| format!("P:{name}\nV:1-r0\nA:x86_64\n\n"));
    put("lib/apk/db/installed", &installed.collect::<String>());
    root
}

const EDGE: &str = "3.99.0_alpha20260101";

/// podman as that user, in his own store; one has overlay, the others vfs.
fn podman(who: &str, line: &str) -> String {
    let driver = if who == MALLORY { "overlay" } else { "vfs" };
    let script = format!(
        "export XDG_RUNTIME_DIR=/tmp/run-$(id -u); mkdir -p -m 700 $XDG_RUNTIME_DIR; cd; \
         podman --storage-driver {driver} --cgroup-manager cgroupfs --events-backend file {line}"
    );
    let output = people::command(who, "/bin/bash").args(["-ec", &script]).output().unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
}

/// That directory as an image of his.
fn import(who: &str, root: &Path, name: &str) {
    let archive = "/run/podsec-tests/image.tar";
    host::run(Command::new("/usr/bin/tar").args(["-C", &root.to_string_lossy(), "-cf", archive, "."]));
    host::run(Command::new("/usr/bin/chmod").args(["-R", "a+rX", "/run/podsec-tests"]));
    podman(who, &format!("import {archive} {name}"));
    assert!(podman(who, "images").contains(name.rsplit_once(':').unwrap().0), "{}", podman(who, "images"));
}

fn look() -> (CheckSummary, Vec<CheckFinding>) {
    run("vulnerabilities");
    findings("vulnerabilities")
}

/// What was found: owner, image, kind.
fn short(found: &[CheckFinding]) -> Vec<(&str, &str, &str)> {
    let mut all: Vec<_> =
        found.iter().map(|one| (one.owner.as_str(), one.subject.as_str(), one.code.as_str())).collect();
    all.sort_unstable();
    all
}

fn without_trivy_or_its_database_nothing_is_good(_: &mut Oracle) {
    let (summary, _) = look();
    assert_eq!(summary.state, "unknown");
    assert!(
        summary.why.contains("/usr/bin/trivy") && summary.why.contains("install trivy"),
        "{}",
        summary.why
    );
    let Some(_site) = Site::new() else { return };
    import(DAVE, &alpine(EDGE, &["musl"]), "localhost/app:1");
    let (summary, found) = look();
    assert_eq!((summary.state.as_str(), found.len()), ("unknown", 0));
    assert!(summary.why.contains("no vulnerability database in /var/cache"), "{}", summary.why);
    // There is no network here, so it cannot be fetched either.
    configure("");
    let (summary, _) = look();
    assert!(summary.state == "unknown" && summary.why.contains("trivy"), "{summary:?}");
    // Somebody else could have put it there.
    configure("offline = true");
    database(CACHE, &[], "");
    assert_eq!(look().0.state, "complete");
    let copy = "/var/tmp/trivy";
    fs::copy(TRIVY, copy).unwrap();
    host::run(Command::new("/usr/bin/chown").args([MALLORY, copy]));
    configure(&format!("offline = true\ntrivy = '{copy}'"));
    let (summary, _) = look();
    fs::remove_file(copy).unwrap();
    assert!(summary.state == "unknown" && summary.why.contains("not root's alone"), "{summary:?}");
}

fn planted_found_once_and_gone(_: &mut Oracle) {
    let Some(_site) = Site::new() else { return };
    database(
        CACHE,
        &[known("CVE-2026-0001", "musl", "CRITICAL"), known("CVE-2026-0002", "zlib", "HIGH")],
        "",
    );
    assert_eq!((look().0.state.as_str(), look().0.looked_at), ("complete", 0));
    let bad = alpine(EDGE, &["musl", "zlib"]);
    // Closed to everybody, its owner included.
    fs::create_dir(bad.join("srv")).unwrap();
    fs::write(bad.join("srv/x"), "x").unwrap();
    for who in [ROOT, DAVE, MALLORY] {
        import(who, &bad, "localhost/bad:1");
    }
    import(DAVE, &alpine(EDGE, &["busybox"]), "localhost/good:1");
    let (summary, found) = look();
    assert_eq!((summary.state.as_str(), summary.looked_at), ("complete", 4), "{summary:?}");
    let [critical, high] = ["vulnerability-critical", "vulnerability-high"];
    let expected =
        [DAVE, MALLORY, ROOT].map(|who| [critical, high].map(|code| (who, "localhost/bad:1", code)));
    assert_eq!(short(&found), expected.concat());
    let one = found.iter().find(|one| one.owner == DAVE && one.code == critical).unwrap();
    assert_eq!(one.severity, "critical");
    assert_eq!(one.detail, "1: CVE-2026-0001 in musl 1-r0 (fixed in 9-r0)");
    assert!(one.place.starts_with("sha256:") && one.place.len() == 71, "{}", one.place);
    // Nothing has changed, so nothing is scanned: a trivy that fails is not missed.
    configure("offline = true\ntrivy = '/usr/bin/false'");
    let (summary, again) = look();
    assert_eq!((summary.state.as_str(), short(&again)), ("complete", short(&found)));
    // A database that knows more: everything is.
    database(CACHE, &[known("CVE-2026-0003", "busybox", "HIGH")], "");
    let (summary, again) = look();
    assert_eq!((summary.state.as_str(), summary.missed.len()), ("partial", 3), "{summary:?}");
    assert_eq!(short(&again), short(&found), "what was not looked at is not gone");
    configure("offline = true");
    let (summary, found) = look();
    assert_eq!((summary.state.as_str(), short(&found)), ("complete", vec![(DAVE, "localhost/good:1", high)]));
    // Mended.
    podman(DAVE, "rmi localhost/good:1");
    assert_eq!(look().1, []);
    // Nothing is left, of no store.
    let left: Vec<_> =
        fs::read_dir("/var/cache/podsec-monitor").unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(left, ["trivy"]);
}

fn limits_and_exceptions(_: &mut Oracle) {
    let Some(_site) = Site::new() else { return };
    let all = ["CRITICAL", "HIGH", "MEDIUM", "LOW", "UNKNOWN"];
    let all: Vec<_> = all.iter().map(|level| known(&format!("CVE-{level}"), "musl", level)).collect();
    database(CACHE, &all, "");
    import(DAVE, &alpine(EDGE, &["musl"]), "localhost/team/app:1");
    let codes = |section: &str| {
        configure(&format!("offline = true\n{section}"));
        let (summary, found) = look();
        assert_eq!(summary.state, "complete", "{summary:?}");
        let mut codes: Vec<_> = found.into_iter().map(|one| one.code.replace("vulnerability-", "")).collect();
        codes.sort_unstable();
        codes.join(" ")
    };
    assert_eq!(codes(""), "critical high");
    assert_eq!(codes("limits = { critical = 0 }"), "critical");
    assert_eq!(
        codes("limits = { critical = 1, high = 0, medium = 0, low = 0, unknown = 0 }"),
        "high low medium unknown"
    );
    let exception = |id: &str, image: &str, until: &str| {
        format!(
            "[[vulnerabilities.exceptions]]\nid = '{id}'\nimage = '{image}'\nuntil = '{until}'\nwhy = 'not reached'\n"
        )
    };
    assert_eq!(codes(&exception("CVE-CRITICAL", "localhost/team/*", "2999-01-01")), "high");
    assert_eq!(codes(&exception("CVE-CRITICAL", "localhost/other/*", "2999-01-01")), "critical high");
    assert_eq!(
        codes(&exception("CVE-CRITICAL", "localhost/team/*", "2026-01-31")),
        "critical exception high"
    );
    // A database of last year.
    database(CACHE, &[], "2025-01-01T00:00:00Z");
    assert_eq!(codes(""), "database");
}

fn what_cannot_be_scanned_is_missed(_: &mut Oracle) {
    let Some(_site) = Site::new() else { return };
    database(CACHE, &[known("CVE-2026-0001", "musl", "HIGH")], "");
    import(DAVE, &alpine(EDGE, &["musl"]), "localhost/app:1");
    let missed = |summary: &CheckSummary| {
        assert_eq!((summary.state.as_str(), summary.missed.len()), ("partial", 1), "{summary:?}");
        assert_eq!(summary.missed[0].owner, DAVE);
        summary.missed[0].why.clone()
    };
    configure("server = 'http://127.0.0.1:9'");
    let why = missed(&look().0);
    assert!(why.contains("localhost/app:1") && why.contains("connection refused"), "{why}");
    configure("offline = true\ntrivy = '/usr/bin/true'");
    let why = missed(&look().0);
    assert!(why.contains("no report"), "{why}");
    configure("offline = true\nlargest_gib = 1");
    assert_eq!(look().0.state, "complete");
    // A server that has the database; it knows nothing of the images itself.
    let mut server = people::command("podsec-monitor", TRIVY);
    server.args(["server", "--listen=127.0.0.1:4954", "--skip-db-update", "--quiet", "--cache-dir", CACHE]);
    let mut server = server.env("HOME", "/nonexistent").spawn().unwrap();
    host::wait_for("trivy's server", || std::net::TcpStream::connect("127.0.0.1:4954").is_ok());
    configure("server = 'http://127.0.0.1:4954'");
    let (summary, found) = look();
    server.kill().and_then(|()| server.wait()).unwrap();
    assert_eq!((summary.state.as_str(), short(&found).len()), ("complete", 1), "{summary:?}");
    // Of a distribution that is fixed no more; of none at all; and one of whose files is closed to him.
    configure("offline = true");
    import(DAVE, &alpine("3.19.1", &["zlib"]), "localhost/old:1");
    let root = PathBuf::from("/run/podsec-tests/nothing");
    fs::create_dir_all(&root).unwrap();
    fs::write(root.join("file"), "x").unwrap();
    import(DAVE, &root, "localhost/nothing:1");
    let (_, found) = look();
    let expected = [
        (DAVE, "localhost/app:1", "vulnerability-high"),
        (DAVE, "localhost/nothing:1", "vulnerability-unseen"),
        (DAVE, "localhost/old:1", "vulnerability-unsupported"),
    ];
    assert_eq!(short(&found), expected);
    let file = host::run(Command::new("/usr/bin/find").args([
        "/home/dave/.local/share/containers/storage/vfs/dir",
        "-name",
        "file",
    ]));
    fs::set_permissions(file.trim(), fs::Permissions::from_mode(0o000)).unwrap();
    let _ = fs::remove_file("/var/lib/podsec-monitor/vulnerabilities/cache.json");
    let (_, found) = look();
    assert!(
        short(&found).contains(&(DAVE, "localhost/nothing:1", "vulnerability-unread")),
        "{:?}",
        short(&found)
    );
    // A store that says nonsense.
    let images = "/home/dave/.local/share/containers/storage/vfs-images/images.json";
    let good = fs::read(images).unwrap();
    fs::write(images, "[{").unwrap();
    let why = missed(&look().0);
    fs::write(images, good).unwrap();
    assert!(why.contains("images.json"), "{why}");
}

fn names_do_nothing(_: &mut Oracle) {
    let Some(_site) = Site::new() else { return };
    let hostile = "x$(touch /tmp/pwned)`touch /tmp/pwned`'\"--server=x\u{1b}[2J";
    database(CACHE, &[known("CVE-1;touch /tmp/pwned", hostile, "HIGH")], "");
    import(DAVE, &alpine(EDGE, &[hostile]), "localhost/app:1");
    // No podman would call it so; he may write what he likes.
    let images = "/home/dave/.local/share/containers/storage/vfs-images/images.json";
    let mut list: Value = serde_json::from_slice(&fs::read(images).unwrap()).unwrap();
    list[0]["names"] = json!(["--cache-dir=/tmp\n\u{1b}[2J$(touch /tmp/pwned)"]);
    fs::write(images, list.to_string()).unwrap();
    // What trivy would obey, where it stands or in a home.
    let obeyed = ["/.trivyignore", "/home/dave/.trivyignore", "/home/dave/trivy.yaml"];
    for path in obeyed {
        let is_list = path.ends_with("ignore");
        fs::write(path, if is_list { "CVE-1;touch /tmp/pwned\n" } else { "severity: [LOW]\n" }).unwrap();
    }
    let (summary, found) = look();
    assert_eq!((summary.state.as_str(), found.len()), ("complete", 1), "{summary:?} {found:?}");
    assert_eq!(found[0].subject, r"--cache-dir=/tmp\x0a\x1b[2J$(touch /tmp/pwned)");
    assert!(
        found[0].detail.contains("x$(touch /tmp/pwned)") && !found[0].detail.contains('\u{1b}'),
        "{}",
        found[0].detail
    );
    assert!(!Path::new("/tmp/pwned").exists());
    obeyed.iter().for_each(|path| fs::remove_file(path).unwrap());
    list[0]["names"] = json!(["localhost/app:1"]);
    fs::write(images, list.to_string()).unwrap();
}

// ---- podsecctl image build

/// A creator who builds images.
const INES: &str = "ines";

struct Creator;

impl Creator {
    fn new() -> Self {
        people::ctl(
            people::ALICE,
            &["user", "create", INES, "--category", "image-creator", "--scope", "registry.local/ines"],
        );
        let conf = "[engine]\ncgroup_manager = 'cgroupfs'\nevents_logger = 'file'\n";
        fs::write("/run/podsec-tests/containers.conf", conf).unwrap();
        Self
    }
}

impl Drop for Creator {
    fn drop(&mut self) {
        people::podsecctl(ROOT, &["user", "delete", INES, "--remove-home", "--yes"]);
    }
}

/// As she types it: the status, standard output, and standard error.
fn build(line: &str) -> (i32, String, String) {
    let script = format!(
        "export XDG_RUNTIME_DIR=/tmp/run-$(id -u) STORAGE_DRIVER=vfs CONTAINERS_CONF=/run/podsec-tests/containers.conf; \
         export BUILDAH_ISOLATION=chroot; mkdir -p -m 700 $XDG_RUNTIME_DIR; cd; {line}"
    );
    let output = people::command(INES, "/bin/bash").args(["-ec", &script]).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// Is there one of that name?
fn has_name(images: &[String]) -> bool {
    images.iter().any(|image| image.starts_with("localhost/app:1 "))
}

/// Names and ids of what she has, steps of building included.
fn images() -> Vec<String> {
    let (_, listed, _) =
        build("podman images --all --no-trunc --format '{{.Repository}}:{{.Tag}} {{.ID}}' | sort");
    listed.lines().map(str::to_owned).collect()
}

/// What goes into an image, in her home.
fn context(packages: &[&str]) {
    let root = alpine(EDGE, packages);
    fs::write(root.join("Containerfile"), "FROM scratch\nCOPY etc /etc\nCOPY lib /lib\n").unwrap();
    let home = "/home/ines/context";
    let _ = fs::remove_dir_all(home);
    host::run(Command::new("/usr/bin/cp").args(["-r", &root.to_string_lossy(), home]));
    host::run(Command::new("/usr/bin/chown").args(["-R", INES, home]));
}

fn what_is_built_is_kept_or_removed(_: &mut Oracle) {
    let Some(_site) = Site::new() else { return };
    let _ines = Creator::new();
    context(&["zlib"]);
    let command = "podsecctl image build localhost/app:1 context";
    // There is no database: nothing is built at all, and it is not good.
    let (status, _, said) = build(command);
    assert!(status == 78 && said.contains("no vulnerability database"), "{status} {said}");
    assert_eq!(images(), [""; 0]);
    let (status, _, said) = build(&format!("{command} --unscanned"));
    assert!(status == 0 && said.contains("not looked at"), "{status} {said}");
    assert!(has_name(&images()));
    build("podman rmi --all --force");
    database(
        CACHE,
        &[known("CVE-2026-0001", "musl", "CRITICAL"), known("CVE-2026-0002", "zlib", "MEDIUM")],
        "",
    );
    // Said only.
    let (status, told, _) = build(&format!("{command} --dry-run"));
    assert!(status == 0 && told.contains("would build context") && images().is_empty(), "{told}");
    // Good.
    let (status, told, said) = build(command);
    assert!(status == 0 && told.starts_with("kept localhost/app:1\n"), "{status} {told} {said}");
    let kept = images();
    assert!(has_name(&kept), "{kept:?}");
    // The same again, judged more strictly: it was there before, so it stays.
    let (status, told, said) = build(&format!("{command} --severity medium"));
    assert!(
        status == 1 && told.contains("CVE-2026-0002  zlib") && said.contains("was there before"),
        "{status} {told} {said}"
    );
    assert_eq!(images(), kept);
    // Bad: what had the name keeps it, and nothing else is left.
    context(&["musl"]);
    let (status, told, said) = build(command);
    assert!(status == 1 && told.contains("CVE-2026-0001  musl"), "{status} {told} {said}");
    assert!(said.contains("1 critical; it was removed"), "{said}");
    assert_eq!(images(), kept);
    // For programs.
    let (status, told, _) = build(&format!("{command} --json"));
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(
        (status, &told["kept"], &told["removed"], &told["scanned"]),
        (1, &json!(false), &json!(true), &json!(true))
    );
    assert_eq!(told["vulnerabilities"][0]["id"], "CVE-2026-0001");
    // An exception; one that has ended.
    let exception = |until: &str| {
        let text = format!(
            "[[exceptions]]\nid = 'CVE-2026-0001'\nimage = 'localhost/*'\nuntil = '{until}'\nwhy = 'x'\n"
        );
        fs::write("/home/ines/exceptions.toml", text).unwrap();
        build(&format!("{command} --exceptions exceptions.toml"))
    };
    let (status, _, said) = exception("2026-01-31");
    assert!(status == 1 && said.contains("has ended after 2026-01-31"), "{status} {said}");
    assert_eq!(images(), kept);
    let (status, _, said) = exception("2999-01-01");
    assert_eq!(status, 0, "{said}");
    assert!(has_name(&images()) && images() != kept, "{kept:?}");
    // A server that is not there: not kept.
    context(&["musl", "zlib"]);
    let before = images();
    let (status, _, said) = build(&format!("{command} --server http://127.0.0.1:9"));
    assert!(
        status == 78 && said.contains("connection refused") && said.contains("was removed"),
        "{status} {said}"
    );
    assert_eq!(images(), before);
    // What podman cannot build; what is podsecctl's to say; root.
    let (status, _, said) = build("podsecctl image build localhost/app:1 nowhere");
    assert!(status == 74 && said.contains("podman"), "{status} {said}");
    for wrong in ["podsecctl image build --unscanned -- -t", "podsecctl image build app context -- --tag=x"] {
        assert_eq!(build(wrong).0, 2, "{wrong}");
    }
    assert_eq!(people::ctl_fails(ROOT, &["image", "build", "app", "/tmp"]).0, 77);
    let left = fs::read_dir("/var/tmp").unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.filter(|name| name.to_string_lossy().starts_with("podsec-image-")).count(), 0);
}

// ---- the database

/// A registry without TLS, gone when this is.
struct Registry(std::process::Child);

impl Registry {
    fn new() -> Self {
        let directory = "/run/podsec-tests/trivy-registry";
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).unwrap();
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {directory}/store}}}}\n\
             http: {{addr: \"127.0.0.1:5056\"}}\n"
        );
        fs::write(format!("{directory}/config.yml"), config).unwrap();
        let mut registry = Command::new("/usr/bin/docker-registry");
        registry.arg("serve").arg(format!("{directory}/config.yml")).stdin(Stdio::null());
        let registry = Self(registry.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        host::wait_for("the registry", || std::net::TcpStream::connect("127.0.0.1:5056").is_ok());
        registry
    }

    /// Publishes a database as trivy's own is: an artifact with one layer, a compressed archive of both files.
    fn publish(&self, all: &[Value]) {
        let _ = fs::remove_dir_all("/var/cache/podsec-monitor/made");
        database("/var/cache/podsec-monitor/made", all, "");
        let script = r#"
            at=http://127.0.0.1:5056/v2/trivy-db
            cd /var/cache/podsec-monitor/made
            tar -C db -czf layer trivy.db metadata.json; printf '{}' >config
            blob() { # what is said of it in the manifest
                local digest; digest=sha256:$(sha256sum <"$1" | cut -d ' ' -f 1)
                local place; place=$(curl -sS -X POST -D - -o /dev/null $at/blobs/uploads/ | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
                curl -fsS -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$1" "$place&digest=$digest" >/dev/null
                printf '{"mediaType":"%s","digest":"%s","size":%s}' "$2" "$digest" "$(stat -c %s "$1")"
            }
            media=application/vnd.oci.image.manifest.v1+json
            config=$(blob config application/vnd.aquasec.trivy.config.v1+json)
            layer=$(blob layer application/vnd.aquasec.trivy.db.layer.v1.tar+gzip)
            layer=${layer%\}},\"annotations\":{\"org.opencontainers.image.title\":\"db.tar.gz\"}}
            printf '{"schemaVersion":2,"mediaType":"%s","config":%s,"layers":[%s]}' $media "$config" "$layer" >manifest
            curl -fsS -X PUT -H "Content-Type: $media" --data-binary @manifest $at/manifests/2 >/dev/null
            cd /; rm -r /var/cache/podsec-monitor/made
        "#;
        people::bash(ROOT, script);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = fs::remove_dir_all("/run/podsec-tests/trivy-registry");
    }
}

fn a_database_is_fetched(_: &mut Oracle) {
    if !host::are_installed(&["docker-registry", "curl"]) {
        return;
    }
    let Some(_site) = Site::new() else { return };
    let registry = Registry::new();
    registry.publish(&[known("CVE-2026-0001", "musl", "HIGH")]);
    // As the unit and tmpfiles.d have it.
    host::run(Command::new("/usr/bin/install").args(["-d", "-o", "podsec-monitor", "-m", "755", CACHE]));
    import(DAVE, &alpine(EDGE, &["musl"]), "localhost/app:1");
    configure("repository = '127.0.0.1:5056/trivy-db:2'");
    let (summary, found) = look();
    assert_eq!(summary.state, "complete", "{summary:?}");
    assert_eq!(short(&found), [(DAVE, "localhost/app:1", "vulnerability-high")]);
    // It is good for a day; then there is no registry, and the old one still does.
    drop(registry);
    assert_eq!(look().0.state, "complete");
    database(CACHE, &[known("CVE-2026-0001", "musl", "CRITICAL")], "2026-01-01T00:00:00Z");
    let (summary, found) = look();
    assert_eq!(summary.state, "complete", "{summary:?}");
    let found = short(&found);
    assert_eq!(
        found,
        [("", "", "vulnerability-database"), (DAVE, "localhost/app:1", "vulnerability-critical")]
    );
}
