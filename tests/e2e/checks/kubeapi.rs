//! The audit log of the Kubernetes API, written as kube-apiserver writes it (the events are of the documented format, no API
//! server runs here), rotated, torn, replaced, and the watcher killed at any moment: each event counts once.

use super::findings;
use crate::Test;
use podsec_proto::v1::CheckFinding;
use podsec_tests::host::{self, Edited, wait_for};
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, CLUSTER};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("checks::kubeapi::what_is_forbidden_is_found", what_is_forbidden_is_found),
    ("checks::kubeapi::a_log_that_is_not_there_yet", a_log_that_is_not_there_yet),
    ("checks::kubeapi::rotation_and_restarts", rotation_and_restarts),
    ("checks::kubeapi::killed_at_any_moment", killed_at_any_moment),
    ("checks::kubeapi::hostile_lines", hostile_lines),
    ("checks::kubeapi::what_is_no_log", what_is_no_log),
    ("checks::kubeapi::rules", rules),
    ("checks::kubeapi::two_processes_without_rights", two_processes_without_rights),
];

const DIRECTORY: &str = "/etc/kubernetes/audit";
const LOG: &str = "/etc/kubernetes/audit/audit.log";
const STATE: &str = "/var/lib/podsec-monitor/kubeapi";
const MONITOR: &str = "/usr/libexec/podsec/podsec-monitor";

/// A host with an empty audit log of u7s-admin's, and the watcher as its unit has it.
struct Cluster {
    watcher: Option<Child>,
    events: u64,
    _settings: Edited,
}

impl Cluster {
    fn new(settings: &str) -> Self {
        let cluster = Self { watcher: None, events: 0, _settings: super::settings(settings) };
        cluster.clean();
        host::run(Command::new("/usr/bin/install").args(["-d", "-o", CLUSTER, "-g", CLUSTER, DIRECTORY]));
        cluster
    }

    fn clean(&self) {
        for path in [format!("{STATE}/report.json"), format!("{STATE}/lock")] {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir_all(DIRECTORY);
    }

    /// With an empty log.
    fn with_log() -> Self {
        let cluster = Self::new("");
        cluster.append(b"");
        cluster
    }

    fn start(&mut self) {
        assert!(self.watcher.is_none());
        let mut command = Command::new("/usr/bin/setpriv");
        let keep = "-all,+setuid,+setgid";
        command.args([
            "--inh-caps=-all",
            "--no-new-privs",
            &format!("--bounding-set={keep}"),
            "--",
            MONITOR,
            "watch",
            "kubeapi",
        ]);
        command.env_clear().stdin(Stdio::null());
        self.watcher = Some(command.spawn().expect(MONITOR));
    }

    fn stop(&mut self, signal: &str) {
        let mut watcher = self.watcher.take().expect("a watcher");
        host::kill(i32::try_from(watcher.id()).expect("a pid"), signal);
        watcher.wait().expect("it ends");
    }

    /// As kube-apiserver does: by the log's owner, at its end.
    fn append(&self, bytes: &[u8]) {
        let mut command = people::command(CLUSTER, "/bin/sh");
        let mut child = command
            .args(["-c", &format!("umask 077; cat >>{LOG}")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("a writer");
        child.stdin.take().expect("piped").write_all(bytes).expect("a pipe");
        assert!(child.wait().expect("a writer").success());
    }

    /// So many events more, of one user each.
    fn write(&mut self, count: u64) {
        let first = self.events + 1;
        self.events += count;
        let lines = (first..=self.events).map(|number| {
            let mut event = event(&format!("u{}", number % 50), "get", "secrets", 403);
            event["auditID"] = format!("{number:08}-7d0e-4c86-9d6e-0f5b6a3b4c11").into();
            line(&event)
        });
        self.append(lines.collect::<String>().as_bytes());
    }

    fn shell(&self, script: &str) {
        host::run(people::command(CLUSTER, "/bin/sh").args(["-ec", &format!("cd {DIRECTORY}; {script}")]));
    }

    /// Every event is counted, and none twice.
    fn check(&self) {
        wait_for("all events", || seen() >= self.events);
        // Time for one too many.
        std::thread::sleep(Duration::from_millis(1500));
        let (summary, all) = findings("kubeapi");
        assert_eq!(summary.state, "complete", "{summary:?}");
        assert_eq!((summary.looked_at, summary.lost), (self.events, 0), "{summary:?}");
        assert_eq!(all.iter().map(|finding| finding.count).sum::<u64>(), self.events);
        assert!(all.iter().all(|finding| finding.code == "api-forbidden"), "{all:#?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.watcher.is_some() {
            self.stop("KILL");
        }
        self.clean();
    }
}

/// As kube-apiserver writes it: these two come first.
fn line(event: &Value) -> String {
    let mut rest = event.clone();
    let fields = rest.as_object_mut().expect("an object");
    fields.remove("kind");
    fields.remove("apiVersion");
    format!("{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",{}\n", &rest.to_string()[1..])
}

fn event(user: &str, verb: &str, resource: &str, code: u32) -> Value {
    json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
        "auditID": "6b8a1c0e-7d0e-4c86-9d6e-0f5b6a3b4c11", "stage": "ResponseComplete",
        "requestURI": format!("/api/v1/namespaces/shop/{resource}/token-1"), "verb": verb,
        "user": {"username": user, "groups": ["dev", "system:authenticated"]},
        "sourceIPs": ["10.0.0.7"], "userAgent": "kubectl/v1.29.3 (linux/amd64) kubernetes/6813625",
        "objectRef": {"resource": resource, "namespace": "shop", "name": "token-1", "apiVersion": "v1"},
        "responseStatus": {"metadata": {}, "status": "Failure", "reason": "Forbidden", "code": code,
            "message": format!("{resource} \"token-1\" is forbidden: User \"{user}\" cannot {verb} it")},
        "requestReceivedTimestamp": "2026-01-02T03:04:05.123456Z",
        "stageTimestamp": "2999-01-02T03:04:05.123456Z",
        "annotations": {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}
    })
}

/// How many lines the last report has seen.
fn seen() -> u64 {
    let text = fs::read(format!("{STATE}/report.json")).unwrap_or_default();
    serde_json::from_slice::<Value>(&text).unwrap_or_default()["looked_at"].as_u64().unwrap_or_default()
}

/// Once that many lines were seen.
fn after(lines: u64) -> Vec<CheckFinding> {
    wait_for("the report", || seen() >= lines);
    findings("kubeapi").1
}

fn what_is_forbidden_is_found(_: &mut Oracle) {
    let mut cluster = Cluster::with_log();
    cluster.start();
    wait_for("a first report", || findings("kubeapi").0.state == "complete");
    // What is usual in a cluster.
    let probe = json!({
        "kind": "Event", "apiVersion": "audit.k8s.io/v1", "stage": "ResponseComplete", "requestURI": "/livez?timeout=5s",
        "verb": "get", "user": {"username": "system:anonymous"}, "responseStatus": {"code": 403}
    });
    let usual = [
        event("bob", "get", "pods", 200),
        event("bob", "get", "pods", 404),
        event("system:kube-scheduler", "update", "leases", 409),
        probe,
    ];
    cluster.append(usual.each_ref().map(line).concat().as_bytes());
    assert_eq!(after(4), []);
    let forbidden = event("bob", "get", "secrets", 403);
    let bad = [
        forbidden.clone(),
        forbidden.clone(),
        event("eve", "list", "nodes", 401),
        event("eve", "create", "pods", 422),
        event("eve", "create", "pods", 409),
        event("system:kube-scheduler", "get", "secrets", 403),
        event("bob", "get", "pods", 503),
    ];
    cluster.append(bad.each_ref().map(line).concat().as_bytes());
    let mut found: Vec<_> = after(11)
        .into_iter()
        .map(|finding| (finding.subject, finding.place, finding.code, finding.severity, finding.count))
        .collect();
    found.sort();
    let expected = [
        ("bob", "get pods (503)", "api-server-error", "medium", 1),
        ("bob", "get secrets (403)", "api-forbidden", "critical", 2),
        ("eve", "create pods (409)", "api-failed", "low", 1),
        ("eve", "create pods (422)", "api-failed", "warning", 1),
        ("eve", "list nodes (401)", "api-unauthorized", "high", 1),
        ("system:kube-scheduler", "get secrets (403)", "api-forbidden", "critical", 1),
    ];
    let expected = expected.map(|(subject, place, code, severity, count)| {
        (subject.to_owned(), place.to_owned(), code.to_owned(), severity.to_owned(), count)
    });
    assert_eq!(found, expected);
    let bob = after(11).into_iter().find(|finding| finding.place == "get secrets (403)").expect("bob's");
    assert_eq!(bob.subject_type, "kubernetes-user");
    assert_eq!(
        bob.detail,
        "shop/token-1 from 10.0.0.7, of dev, system:authenticated, by kubectl/v1.29.3 (linux/amd64) \
         kubernetes/6813625: secrets \"token-1\" is forbidden: User \"bob\" cannot get it"
    );
    // The log says 2999; who writes it has no say in the time.
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    assert!(bob.first <= now && now - bob.last < 60, "{bob:?}");
}

fn a_log_that_is_not_there_yet(_: &mut Oracle) {
    let mut cluster = Cluster::new("");
    cluster.start();
    wait_for("a report", || findings("kubeapi").0.state == "unknown");
    assert!(findings("kubeapi").0.why.contains(LOG));
    cluster.write(3);
    cluster.check();
    // Gone, unknown again; and there again.
    fs::rename(DIRECTORY, "/etc/kubernetes/elsewhere").expect(DIRECTORY);
    wait_for("a report", || findings("kubeapi").0.state == "unknown");
    fs::rename("/etc/kubernetes/elsewhere", DIRECTORY).expect(DIRECTORY);
    wait_for("a report", || findings("kubeapi").0.state == "complete");
    cluster.check();
}

fn rotation_and_restarts(_: &mut Oracle) {
    let mut cluster = Cluster::with_log();
    let mut rotations = 0;
    let mut rotate = |cluster: &Cluster, by: &str| {
        rotations += 1;
        let name = format!("audit-2026-11-27T02-03-04.{rotations:03}.log");
        match by {
            "rename" => cluster.shell(&format!("mv audit.log {name}; umask 077; : >audit.log")),
            _ => cluster.shell(&format!("umask 077; cp audit.log {name}; : >audit.log")),
        }
    };
    cluster.start();
    for by in ["rename", "copytruncate"] {
        // While it looks.
        cluster.write(100);
        rotate(&cluster, by);
        cluster.write(100);
        cluster.check();
        // While it does not, several times, and what it has read last is in the middle of a file.
        cluster.write(10);
        wait_for("all events", || seen() == cluster.events);
        cluster.stop("TERM");
        for _ in 0..3 {
            cluster.write(100);
            rotate(&cluster, by);
        }
        cluster.write(1);
        cluster.start();
        cluster.check();
    }
    // A line of which the second half comes after a restart.
    cluster.events += 1;
    let line = line(&event("torn", "get", "secrets", 403));
    cluster.append(&line.as_bytes()[..100]);
    std::thread::sleep(Duration::from_millis(1500));
    cluster.stop("TERM");
    cluster.append(&line.as_bytes()[100..]);
    cluster.start();
    cluster.check();
}

fn killed_at_any_moment(_: &mut Oracle) {
    let mut cluster = Cluster::with_log();
    let mut seed = 7_u64;
    for round in 0..host::count(12, 200) {
        cluster.start();
        for part in 0..3 {
            cluster.write(200);
            if (round + part) % 4 == 0 {
                let name = format!("audit-2026-11-27T02-{:02}-04.{part:03}.log", round % 60);
                cluster.shell(&format!("mv audit.log {name}; umask 077; : >audit.log"));
            }
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_millis(seed >> 55));
        }
        cluster.stop("KILL");
        assert!(seen() <= cluster.events);
    }
    cluster.start();
    cluster.check();
}

fn hostile_lines(_: &mut Oracle) {
    let mut cluster = Cluster::with_log();
    cluster.start();
    let evil = "x\n\u{1b}[2J\u{202e}$(touch /root/pwn)`touch /root/pwn`;'\"\\ \u{0}";
    let mut lines = Vec::new();
    for text in [evil.to_owned(), evil.repeat(2_000)] {
        let mut bad = event(&text, &text, &text, 403);
        bad["userAgent"] = json!(text);
        bad["sourceIPs"] = json!([text, text]);
        bad["impersonatedUser"] = json!({"username": text});
        bad["objectRef"]["name"] = json!(text);
        lines.push(line(&bad).trim_end().as_bytes().to_vec());
    }
    // Two findings, and a dozen lines that cannot be read.
    let good = line(&event("bob", "get", "secrets", 403)).trim_end().to_owned();
    let broken = [
        b"\xff\xfe\x00".to_vec(),
        b"{".to_vec(),
        b"null".to_vec(),
        vec![b'x'; 9 << 20],
        "[".repeat(1 << 20).into_bytes(),
        r#"{"a":"#.repeat(1 << 18).into_bytes(),
        good.replace("403", "NaN").into_bytes(),
        good.replace("403", r#"200,"code":403"#).into_bytes(),
        good.replace("403", "4e2").into_bytes(),
        good.replace("audit.k8s.io/v1", "audit.k8s.io/v9").into_bytes(),
        good.as_bytes()[..300].to_vec(),
    ];
    lines.extend(broken.iter().cloned());
    // Disguised as what went well.
    lines.push(
        good.replace(r#""code":403"#, r#""c\u006fde":403"#)
            .replace("kubectl", r#"\"code\":200,"#)
            .into_bytes(),
    );
    let mut log = lines.join(&b'\n');
    log.push(b'\n');
    cluster.append(&log);
    let all = after(lines.len() as u64);
    let (malformed, forbidden): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|finding| finding.code == "api-log-malformed");
    assert_eq!(forbidden.len(), 3, "{forbidden:#?}");
    assert_eq!(malformed.len(), 1, "{malformed:#?}");
    assert_eq!(malformed[0].count, broken.len() as u64, "{malformed:#?}");
    assert_eq!(findings("kubeapi").0.lost, broken.len() as u64);
    for finding in forbidden {
        assert_eq!((finding.code.as_str(), finding.count), ("api-forbidden", 1));
        for text in [finding.subject, finding.place, finding.detail] {
            assert!(text.len() < 1200 && !text.chars().any(|c| c.is_control() || c == '\u{202e}'), "{text}");
        }
    }
    let shown = people::podsecctl(people::ALICE, &["check", "list", "kubeapi"]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("bob") && !shown.contains('\u{1b}'), "{shown}");
}

fn what_is_no_log(_: &mut Oracle) {
    let mut cluster = Cluster::new("");
    let refused = |cluster: &mut Cluster, why: &str| {
        wait_for("a refusal", || {
            let summary = findings("kubeapi").0;
            summary.state == "unknown" && summary.why.contains(why)
        });
        assert_eq!(findings("kubeapi").1, []);
        assert!(cluster.watcher.as_mut().expect("a watcher").try_wait().expect("wait").is_none());
        let _ = fs::remove_file(LOG);
    };
    cluster.start();
    for (target, why) in [("/etc/shadow", "symbolic link"), ("/etc/passwd", "symbolic link")] {
        cluster.shell(&format!("ln -s {target} audit.log"));
        refused(&mut cluster, why);
    }
    cluster.shell("mkfifo audit.log");
    refused(&mut cluster, "not a plain file");
    // A real log, somebody else's.
    fs::write(LOG, line(&event("bob", "get", "secrets", 403))).expect(LOG);
    fs::set_permissions(LOG, fs::Permissions::from_mode(0o644)).expect(LOG);
    refused(&mut cluster, "belongs to uid 0");
    // A directory on the way that is a link.
    fs::rename(DIRECTORY, "/etc/kubernetes/elsewhere").expect(DIRECTORY);
    std::os::unix::fs::symlink("/etc/kubernetes/elsewhere", DIRECTORY).expect(DIRECTORY);
    wait_for("a refusal", || findings("kubeapi").0.why.contains("symbolic link"));
    fs::remove_file(DIRECTORY).expect(DIRECTORY);
    fs::rename("/etc/kubernetes/elsewhere", DIRECTORY).expect(DIRECTORY);
    cluster.write(1);
    cluster.check();
}

fn rules(_: &mut Oracle) {
    let settings = r#"
        [kubeapi]
        logs = [
            { path = "/etc/kubernetes/audit/audit.log", owner = "u7s-admin" },
            { path = "/etc/podsec/roots.log", owner = "root" },
            { path = "/etc/kubernetes/nobodys.log", owner = "nobody-at-all" },
        ]
        [[kubeapi.rules]]
        resource = "pods/exec"
        code = "2xx"
        severity = "high"
        [[kubeapi.rules]]
        user = "system:serviceaccount:ci:*"
        code = 403
        severity = "ignore"
    "#;
    let roots = "/etc/podsec/roots.log";
    let mut cluster = Cluster::new(settings);
    let mut exec = event("bob", "create", "pods", 200);
    exec["objectRef"]["subresource"] = json!("exec");
    let events = [
        exec,
        event("system:serviceaccount:ci:build", "get", "secrets", 403),
        event("bob", "get", "pods", 200),
    ];
    cluster.append(events.each_ref().map(line).concat().as_bytes());
    fs::write(roots, line(&event("root", "get", "secrets", 403))).expect(roots);
    cluster.start();
    let mut found: Vec<_> =
        after(4).into_iter().map(|finding| (finding.code, finding.severity, finding.place)).collect();
    found.sort();
    let summary = findings("kubeapi").0;
    fs::remove_file(roots).expect(roots);
    let expected = [
        ("api-forbidden", "critical", "get secrets (403)"),
        ("api-watched", "high", "create pods/exec (200)"),
    ];
    assert_eq!(
        found,
        expected.map(|(code, severity, place)| (code.to_owned(), severity.to_owned(), place.to_owned()))
    );
    assert_eq!((summary.state.as_str(), summary.missed.len()), ("partial", 1), "{summary:?}");
    assert!(summary.missed[0].why.contains("the user nobody-at-all is not on this host"), "{summary:?}");
}

/// Neither of them is root, has a capability, or may start a program.
fn two_processes_without_rights(_: &mut Oracle) {
    let mut cluster = Cluster::with_log();
    cluster.start();
    wait_for("a first report", || findings("kubeapi").0.state == "complete");
    let uid = |name: &str| host::run(Command::new("/usr/bin/id").args(["-u", name])).trim().to_owned();
    let judge = cluster.watcher.as_ref().expect("a watcher").id().to_string();
    let opener = fs::read_to_string(format!("/proc/{judge}/task/{judge}/children")).expect("children");
    for (pid, user) in [(judge.as_str(), "podsec-monitor"), (opener.trim(), CLUSTER)] {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect(pid);
        let line = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line.unwrap_or_else(|| panic!("{key}: {status}")).split_whitespace().collect::<Vec<_>>()
        };
        assert_eq!(line("Uid"), [uid(user).as_str(); 4], "{user}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(line(set), ["0000000000000000"], "{user} {set}");
        }
        assert_eq!((line("NoNewPrivs"), line("Seccomp")), (vec!["1"], vec!["2"]), "{user}");
        assert_eq!(line("Groups"), [""; 0], "{user}");
    }
    // The opener cannot be done without, and who ends it ends the judge, which its unit starts again.
    host::kill(opener.trim().parse().expect("a pid"), "KILL");
    let mut watcher = cluster.watcher.take().expect("a watcher");
    let end = Instant::now() + Duration::from_secs(10);
    while watcher.try_wait().expect("wait").is_none() {
        assert!(Instant::now() < end, "the judge goes on without its opener");
        std::thread::sleep(Duration::from_millis(20));
    }
    cluster.start();
    cluster.write(2);
    cluster.check();
}
