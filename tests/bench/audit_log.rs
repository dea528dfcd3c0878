//! The audit log of the Kubernetes API: how fast the watcher gets through one, beside the jq that did the same before.

use crate::figure::{Bound, Figure, Samples};
use podsec_tests::host;
use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LOG: &str = "/etc/kubernetes/audit/audit.log";
const REPORT: &str = "/var/lib/podsec-monitor/kubeapi/report.json";
const SETTINGS: &str = "/etc/podsec/monitor.toml";
const MONITOR: &str = "/usr/libexec/podsec/podsec-monitor";
const BYTES: usize = 200_000_000;
/// What the old monitor asked of each line.
const FILTER: &str = "select(.responseStatus.code >= 400) | [.requestReceivedTimestamp, .sourceIPs[0], .responseStatus.message]";
/// With it every event is looked at in full, since what went well may matter.
const RULE: &str =
    "[[kubeapi.rules]]\nresource = \"pods/exec\"\nuser = \"nobody\"\ncode = \"2xx\"\nseverity = \"high\"\n";

pub fn run(rounds: usize) -> Vec<Figure> {
    let (log, lines, failures) = log();
    host::run(Command::new("/usr/bin/install").args(["-d", "-o", "u7s-admin", "/etc/kubernetes/audit"]));
    fs::write(LOG, &log).expect(LOG);
    host::run(Command::new("/bin/chown").args(["u7s-admin", LOG]));
    eprintln!("  {lines} events of {} bytes, {failures} of them failures", log.len() / lines);
    let megabytes = log.len() as f64 / 1e6;
    let speed = |mut measure: Box<dyn FnMut() -> Duration>| {
        let mut samples = Samples::new();
        (0..rounds).for_each(|_| samples.push(megabytes / measure().as_secs_f64()));
        samples.median()
    };
    let jq = speed(Box::new(move || {
        let start = Instant::now();
        let output = Command::new("/usr/bin/jq").args(["-c", FILTER, LOG]).stdin(Stdio::null()).output();
        let time = start.elapsed();
        let printed = output.expect("jq").stdout.iter().filter(|&&byte| byte == b'\n').count();
        assert_eq!(printed, failures);
        time
    }));
    let ours = |settings: &'static str| {
        let watch = move || watch(settings, lines, failures);
        speed(Box::new(watch))
    };
    let figures = vec![
        Figure::new("audit-log", "a log read, judged, reported", "MB/s", ours(""))
            .against("jq", jq)
            .bound(Bound::RatioAtLeast(20.0)),
        Figure::new("audit-log", "the same, with rules on successes", "MB/s", ours(RULE)).against("jq", jq),
    ];
    let _ = fs::remove_file(SETTINGS);
    let _ = fs::remove_file(REPORT);
    fs::remove_dir_all("/etc/kubernetes/audit").expect("the log's directory");
    figures
}

/// From the start of the program to a report in which all is counted.
fn watch(settings: &str, lines: usize, failures: usize) -> Duration {
    let _ = fs::remove_file(REPORT);
    fs::write(SETTINGS, settings).expect(SETTINGS);
    let start = Instant::now();
    let mut watcher = Command::new(MONITOR)
        .args(["watch", "kubeapi"])
        .env_clear()
        .stdin(Stdio::null())
        .spawn()
        .expect(MONITOR);
    let report = loop {
        let report: Value = serde_json::from_slice(&fs::read(REPORT).unwrap_or_default()).unwrap_or_default();
        if report["looked_at"].as_u64() == Some(lines as u64) {
            break report;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{report}");
        std::thread::sleep(Duration::from_micros(500));
    };
    let time = start.elapsed();
    watcher.kill().expect("the watcher");
    watcher.wait().expect("the watcher");
    let counts = report["findings"].as_object().expect("findings").values().map(|found| &found["count"]);
    assert_eq!(counts.map(|count| count.as_u64().expect("a count")).sum::<u64>(), failures as u64);
    assert_eq!(report["lost"], 0);
    time
}

/// A cluster's usual traffic by podsec's audit policy: events, how many lines, how many of them with a code of 400 and above.
fn log() -> (Vec<u8>, usize, usize) {
    let mut log = String::with_capacity(BYTES + 4096);
    let (mut lines, mut failures) = (0, 0);
    let mut seed = 1_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    while log.len() < BYTES {
        let (a, b, number) = (random(1 << 30), random(1 << 30), random(40));
        let failed = random(100) < 2;
        let (code, status) = if failed {
            let told = format!(
                r#""status":"Failure","message":"secrets \"token-{number}\" is forbidden: User \"user-{number}\" cannot get resource \"secrets\" in API group \"\" in the namespace \"shop\"","reason":"Forbidden","#
            );
            (403, told)
        } else {
            (200, String::new())
        };
        let (level, verb, uri, object, more) = match random(4) {
            0 => (
                "Metadata",
                "watch",
                format!(
                    r"/api/v1/namespaces/shop/configmaps?allowWatchBookmarks=true\u0026resourceVersion={a}\u0026timeout=8m3s\u0026watch=true"
                ),
                r#""resource":"configmaps","namespace":"shop","apiVersion":"v1""#.to_owned(),
                String::new(),
            ),
            1 => (
                "Metadata",
                "get",
                format!("/api/v1/namespaces/shop/secrets/token-{number}"),
                format!(
                    r#""resource":"secrets","namespace":"shop","name":"token-{number}","apiVersion":"v1""#
                ),
                String::new(),
            ),
            2 => (
                "RequestResponse",
                "create",
                "/apis/authorization.k8s.io/v1/subjectaccessreviews".to_owned(),
                r#""resource":"subjectaccessreviews","apiGroup":"authorization.k8s.io","apiVersion":"v1""#
                    .to_owned(),
                format!(
                    r#""requestObject":{{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{{"creationTimestamp":null}},"spec":{{"resourceAttributes":{{"namespace":"shop","verb":"get","version":"v1","resource":"pods","name":"till-{a}"}},"user":"user-{number}","groups":["dev","system:authenticated"]}},"status":{{"allowed":false}}}},"responseObject":{{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","metadata":{{"creationTimestamp":null}},"spec":{{"resourceAttributes":{{"namespace":"shop","verb":"get","version":"v1","resource":"pods","name":"till-{a}"}},"user":"user-{number}","groups":["dev","system:authenticated"]}},"status":{{"allowed":true,"reason":"RBAC: allowed by RoleBinding \"dev/shop\" of ClusterRole \"edit\" to Group \"dev\""}}}},"#
                ),
            ),
            _ => (
                "RequestResponse",
                "patch",
                format!("/api/v1/namespaces/shop/pods/till-{a}"),
                format!(r#""resource":"pods","namespace":"shop","name":"till-{a}","apiVersion":"v1""#),
                format!(
                    r#""requestObject":{{"metadata":{{"annotations":{{"shop.example/restarted-at":"2026-11-27T02:03:04Z"}}}},"spec":{{"containers":[{{"name":"till","image":"registry.local/team/till:1.{number}"}}]}}}},"responseObject":{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"till-{a}","namespace":"shop","uid":"{b:08x}-6f0d-4c5e-9a3e-3f1d2c4b5a69","resourceVersion":"{b}","creationTimestamp":"2026-11-26T22:10:11Z","labels":{{"app":"till","pod-template-hash":"{b:08x}"}}}},"spec":{{"containers":[{{"name":"till","image":"registry.local/team/till:1.{number}","ports":[{{"containerPort":8080,"protocol":"TCP"}}],"resources":{{"limits":{{"cpu":"500m","memory":"256Mi"}}}},"terminationMessagePath":"/dev/termination-log","imagePullPolicy":"IfNotPresent"}}],"restartPolicy":"Always","nodeName":"node-{number}"}},"status":{{"phase":"Running","hostIP":"10.0.0.{number}","podIP":"10.244.0.{number}","qosClass":"Burstable"}}}},"#
                ),
            ),
        };
        let _ = writeln!(
            log,
            r#"{{"kind":"Event","apiVersion":"audit.k8s.io/v1","level":"{level}","auditID":"{a:08x}-7d0e-4c86-9d6e-0f5b{b:08x}","stage":"ResponseComplete","requestURI":"{uri}","verb":"{verb}","user":{{"username":"user-{number}","uid":"{b:08x}-aa4e-4a61-9f53-6a1a2c1d9f10","groups":["dev","release","system:authenticated"],"extra":{{"authentication.kubernetes.io/credential-id":["X509SHA256=3f5a{b:08x}8d1c2e4b7f9060a1b2c3d4e5f60718293a4b5c6d7e8f9"]}}}},"sourceIPs":["10.0.0.{number}"],"userAgent":"kubectl/v1.29.3 (linux/amd64) kubernetes/6813625","objectRef":{{{object}}},"responseStatus":{{"metadata":{{}},{status}"code":{code}}},{more}"requestReceivedTimestamp":"2026-11-27T02:03:04.{:06}Z","stageTimestamp":"2026-11-27T02:03:05.{:06}Z","annotations":{{"authorization.k8s.io/decision":"allow","authorization.k8s.io/reason":"RBAC: allowed by RoleBinding \"dev/shop\" of ClusterRole \"edit\" to Group \"dev\""}}}}"#,
            a % 1_000_000,
            b % 1_000_000,
        );
        lines += 1;
        failures += usize::from(failed);
    }
    (log.into_bytes(), lines, failures)
}
