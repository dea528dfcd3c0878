//! Reading: the audit, by filter, time and as it grows; and the state of the namespace, also when there is none.

use crate::Test;
use podsec_policy::audit::parse_time;
use podsec_proto::v1::{AuditFilter, QueryRequest};
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, ALICE, CAROL, CLUSTER, MALLORY, ROOT};
use podsec_tests::{client, host, role};
use serde_json::Value;
use std::fs;
use std::io::{BufRead as _, BufReader, Lines};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::process::{Child, ChildStdout, Stdio};
use std::time::{Duration, Instant, SystemTime};

pub const TESTS: &[Test] = &[
    ("records::filters", filters),
    ("records::times", times),
    ("records::what_is_no_filter", what_is_no_filter),
    ("records::followed_across_rotation", followed_across_rotation),
    ("records::followed_by_many_who_leave", followed_by_many_who_leave),
    ("records::are_for_administrators", are_for_administrators),
    ("records::state_of_a_namespace", state_of_a_namespace),
    ("records::state_of_no_namespace", state_of_no_namespace),
    ("records::state_of_half_a_namespace", state_of_half_a_namespace),
];

/// `podsecctl --json audit …` as an administrator.
fn audit(arguments: &[&str]) -> Vec<Value> {
    let told = people::ctl(ROOT, &[&["--json", "audit"], arguments].concat());
    told.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().unwrap_or_default()
}

fn microseconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Enters, and waits for the record of the end too, which may come a moment after the client's own.
fn enter(who: &str, argv: &[&str], oracle: &Oracle) {
    people::enter(who, argv);
    host::wait_for("the record", || {
        oracle.audit_now().last().is_some_and(|record| text(record, "phase") == "done")
    });
}

fn filters(oracle: &mut Oracle) {
    let start = podsec_policy::audit::Time(microseconds()).to_string();
    enter(ALICE, &["true", "one"], oracle);
    enter(CLUSTER, &["sh", "-c", "exit 0"], oracle);
    people::ctl(CLUSTER, &["port", "list"]);
    people::ctl_fails("carol", &["enter", "--", "true", "never"]);
    let all = oracle.audit();
    let since = |more: &[&str]| -> Vec<(String, String, u64)> {
        let found = audit(&[&["--since", &start], more].concat());
        let brief = |record: &Value| {
            let op = text(record, "op").trim_start_matches("NamespaceService/").to_owned();
            (text(record, "phase").to_owned(), op, record["uid"].as_u64().unwrap())
        };
        // Those of this test; the questions are in the record as well.
        found.iter().map(brief).filter(|(_, op, _)| !op.starts_with("AuditService")).collect()
    };
    let cluster = u64::from(fs::metadata("/var/lib/u7s-admin").unwrap().uid());
    let (intent, done, deny) = ("intent".to_owned(), "done".to_owned(), "deny".to_owned());
    let (enter, list) = ("Enter".to_owned(), "ListPorts".to_owned());
    let entry = |uid| [(intent.clone(), enter.clone(), uid), (done.clone(), enter.clone(), uid)];
    let listing = [(intent.clone(), list.clone(), cluster), (done.clone(), list.clone(), cluster)];
    let denied = [(deny.clone(), enter.clone(), 1103)];
    assert_eq!(since(&[]), [&entry(1101)[..], &entry(cluster), &listing, &denied].concat());
    assert_eq!(since(&["--user", "alice"]), entry(1101));
    assert_eq!(since(&["--user", "1101"]), entry(1101));
    assert_eq!(since(&["--user", CLUSTER, "--operation", "ListPorts"]), listing);
    let entries = [&entry(1101)[..], &entry(cluster), &denied].concat();
    assert_eq!(since(&["--operation", "Enter"]), entries);
    assert_eq!(since(&["--operation", "NamespaceService/Enter"]), entries);
    assert_eq!(since(&["--outcome", "deny"]), denied);
    assert_eq!(since(&["--outcome", "deny", "--user", "alice"]), []);
    assert_eq!(since(&["--operation", "Enter", "--last", "2"]), entries[3..]);
    // Times: what is from then on, and what is before.
    let middle = text(&all[2], "time");
    assert_eq!(audit(&["--since", &start, "--until", middle]), all[..2]);
    assert_eq!(audit(&["--since", middle, "--operation", "Enter"]), [&all[2..4], &all[6..]].concat());
    let ago = audit(&["--since", "1h", "--operation", "Enter", "--last", "1"]);
    assert_eq!(ago, all[6..]);
    // For people: names for numbers, and one line each.
    let shown = people::ctl(ROOT, &["audit", "--since", &start, "--operation", "Enter"]);
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[0].starts_with("TIME") && lines.len() == 6, "{shown}");
    for (line, parts) in lines[1..].iter().zip([
        ["intent", "alice", "true one"],
        ["done", "alice", "true one: exit 0"],
        ["intent", CLUSTER, "sh -c exit 0"],
        ["done", CLUSTER, "sh -c exit 0: exit 0"],
        ["deny", CAROL, "true never: not-member"],
    ]) {
        assert!(parts.iter().all(|part| line.contains(part)), "{parts:?}: {line}");
    }
}

fn times(oracle: &mut Oracle) {
    let start = microseconds();
    enter(ALICE, &["sleep", "0.2"], oracle);
    let records = oracle.audit();
    let end = microseconds();
    let times: Vec<_> = records.iter().map(|record| parse_time(text(record, "time")).expect("UTC")).collect();
    assert!(start <= times[0] && times[0] < times[1] && times[1] <= end, "{start} {times:?} {end}");
    let took = records[1]["ms"].as_u64().unwrap();
    assert!((200..5000).contains(&took), "{took} ms");
    assert!(took.abs_diff((times[1] - times[0]) / 1000) <= 1, "{took} ms, {times:?}");
    // Whoever started it cannot shift them: podsecctl's TZ is its own.
    let mut command = people::command(ROOT, "/usr/bin/podsecctl");
    let output = command.env("TZ", "Pacific/Kiritimati").args(["audit", "--last", "4"]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(shown.contains(text(&records[0], "time")), "{shown}");
}

fn what_is_no_filter(oracle: &mut Oracle) {
    let fails = |arguments: &[&str]| {
        let output = people::podsecctl(ROOT, &[&["--json", "audit"], arguments].concat());
        let told: Value = serde_json::from_slice(&output.stderr).unwrap();
        (output.status.code().unwrap(), text(&told["error"], "reason").to_owned())
    };
    for arguments in [
        &["--user", "nobody-at-all"][..],
        &["--operation", "Nonsense"],
        &["--outcome", "perhaps"],
        &["--since", "yesterday"],
        &["--since", "2026-02-30"],
        &["--last", "-1"],
        &["--last", "many"],
        &["verify", "--last", "3"],
    ] {
        assert_eq!(fails(arguments).0, 2, "{arguments:?}");
    }
    assert!(oracle.audit().is_empty(), "podsecd was asked");
    assert_eq!(fails(&["--since", "1h", "--until", "2h"]), (2, "usage".into()));
    // Nor is it one for podsecd, whoever asks.
    let filter = Some(AuditFilter { since: 2, until: 1, ..Default::default() });
    let query = async || client::audit().await.query(QueryRequest { filter }).await.unwrap_err();
    assert_eq!(client::reason(&client::block_on(query())), "bad-argument");
    assert_eq!(podsec_tests::oracle::the_denial(oracle)["op"], "AuditService/Query");
}

/// `podsecctl audit --follow`, until it is dropped.
struct Follower {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    fn start(arguments: &[&str]) -> Self {
        let mut command = people::command(ALICE, "/usr/bin/podsecctl");
        let command = command.args(["--json", "audit", "--follow"]).args(arguments).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().expect("a line").unwrap()).unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn followed_across_rotation(oracle: &mut Oracle) {
    people::enter(ALICE, &["true", "past"]);
    let mut follower = Follower::start(&["--operation", "Enter", "--outcome", "done", "--last", "1"]);
    assert_eq!(text(&follower.next(), "target"), "true past");
    let log = "/var/log/podsec/audit.jsonl";
    for number in 0..6 {
        if number % 2 == 1 {
            fs::rename(log, format!("{log}-2026112{number}-follow-{}", std::process::id())).unwrap();
        }
        let start = Instant::now();
        people::enter(ALICE, &["true", &number.to_string()]);
        assert_eq!(text(&follower.next(), "target"), format!("true {number}"));
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    }
    drop(follower);
    // It ends with its reader, and that is in the record too.
    host::wait_for("the end of following", || {
        let is_end =
            |record: &Value| text(record, "op") == "AuditService/Follow" && text(record, "phase") != "intent";
        oracle.audit().iter().any(is_end)
    });
}

fn followed_by_many_who_leave(oracle: &mut Oracle) {
    let now = podsec_policy::audit::Time(microseconds()).to_string();
    let new = ["--operation", "Enter", "--since", &now];
    let mut followers: Vec<_> = (0..20).map(|_| Follower::start(&new)).collect();
    host::wait_for("all to follow", || {
        oracle.audit().iter().filter(|record| text(record, "op") == "AuditService/Follow").count() == 20
    });
    // Read what is there before what comes.
    std::thread::sleep(Duration::from_millis(300));
    people::enter(ALICE, &["true", "for all"]);
    for follower in &mut followers {
        assert_eq!(text(&follower.next(), "phase"), "intent");
        assert_eq!(text(&follower.next(), "target"), "true for all");
    }
    drop(followers);
    host::wait_for("all to have ended", || {
        let records = oracle.audit();
        let of = |phase: &str| {
            let follows = records.iter().filter(|record| text(record, "op") == "AuditService/Follow");
            follows.filter(|record| text(record, "phase") == phase).count()
        };
        of("done") + of("fail") == 20
    });
}

fn are_for_administrators(oracle: &mut Oracle) {
    for who in [CLUSTER, CAROL, people::ERIN, "7060"] {
        for arguments in [&["audit"][..], &["audit", "--follow"], &["audit", "verify"]] {
            let output = role::setpriv(who, "/usr/bin/podsecctl").args(arguments).output().unwrap();
            assert_eq!(output.status.code(), Some(77), "{who} {arguments:?}");
            assert!(output.stdout.len() < 100, "{}", String::from_utf8_lossy(&output.stdout));
        }
    }
    let records = oracle.audit();
    assert_eq!(records.len(), 12);
    assert!(records.iter().all(|record| record["phase"] == "deny" && record["reason"] == "not-member"));
    assert_eq!(fs::metadata("/var/log/podsec").unwrap().mode() & 0o777, 0o700);
}

// ---- the namespace

fn show(command: &[&str]) -> (i32, Value) {
    let output = people::podsecctl(ALICE, &[&["--json"], command].concat());
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (output.status.code().unwrap(), told)
}

fn state_of_a_namespace(_: &mut Oracle) {
    let (status, shown) = show(&["namespace", "show"]);
    assert_eq!((status, text(&shown, "state"), text(&shown, "reason")), (0, "ready", ""));
    let uid = fs::metadata("/var/lib/u7s-admin").unwrap().uid();
    assert_eq!(
        (text(&shown, "user"), &shown["uid"], &shown["child_pid"]),
        (CLUSTER, &uid.into(), &host::child_pid().into())
    );
    assert_eq!(shown["uid_map"][0], serde_json::json!({ "inside": 0, "outside": uid, "count": 1 }));
    for namespace in shown["namespaces"].as_array().unwrap() {
        let kind = text(namespace, "kind");
        let link = fs::read_link(format!("/proc/{}/ns/{kind}", host::child_pid())).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("{kind}:[{}]", namespace["inode"]));
        assert_eq!(
            namespace["own"],
            link != fs::read_link(format!("/proc/self/ns/{kind}")).unwrap(),
            "{kind}"
        );
    }
    assert!(shown["addresses"].to_string().contains("tap0"), "{shown}");
    assert_eq!((text(&shown, "network_driver"), text(&shown, "port_driver")), ("slirp4netns", "builtin"));
    let (status, shown) = show(&["status"]);
    assert_eq!(
        (status, text(&shown["namespace"], "state"), &shown["audit_writable"]),
        (0, "ready", &true.into())
    );
    let told = people::ctl(MALLORY, &["status"]);
    assert!(told.contains("shown to administrators and the cluster user only"), "{told}");
}

fn enter_fails() -> (i32, String) {
    let output = people::podsecctl(ALICE, &["--json", "enter", "--", "true"]);
    let told: Value = serde_json::from_slice(&output.stderr).unwrap();
    (output.status.code().unwrap(), text(&told["error"], "reason").to_owned())
}

fn state_of_no_namespace(oracle: &mut Oracle) {
    host::stop_namespace();
    let (status, shown) = show(&["namespace", "show"]);
    assert_eq!((status, text(&shown, "state"), &shown["child_pid"]), (0, "down", &Value::Null));
    assert!(text(&shown, "reason").contains("systemctl start podsec-u7s"), "{shown}");
    assert_eq!(shown["addresses"], serde_json::json!([]));
    let (status, shown) = show(&["status"]);
    assert_eq!((status, text(&shown["namespace"], "state")), (1, "down"), "bad news has a status of its own");
    let told = String::from_utf8(people::podsecctl(ALICE, &["status"]).stdout).unwrap();
    assert!(told.contains("down: the rootless namespace is not up; start it"), "{told}");
    assert_eq!(enter_fails(), (78, "namespace-down".into()));
    host::start_namespace();
    assert_eq!(show(&["namespace", "show"]).1["state"], "ready");
    let failed: Vec<_> = oracle.audit().into_iter().filter(|record| record["phase"] == "fail").collect();
    assert!(failed.len() == 1 && text(&failed[0], "reason") == "namespace-down", "{failed:#?}");
}

/// rootlesskit is there, and podsec-u7s has not said that all is set up inside.
fn state_of_half_a_namespace(_: &mut Oracle) {
    let ready = "/run/podsec-u7s/ready";
    let (said, owner) = (fs::read(ready).unwrap(), fs::metadata(ready).unwrap());
    fs::remove_file(ready).unwrap();
    assert_eq!(show(&["namespace", "show"]).1["state"], "starting");
    assert_eq!(show(&["status"]).0, 1);
    assert_eq!(enter_fails(), (75, "namespace-starting".into()));
    // Of an earlier one.
    fs::write(ready, "2").unwrap();
    chown(ready, Some(owner.uid()), Some(owner.gid())).unwrap();
    assert_eq!(show(&["namespace", "show"]).1["state"], "starting");
    fs::write(ready, said).unwrap();
    assert_eq!(show(&["namespace", "show"]).1["state"], "ready");
    people::enter(ALICE, &["true"]);
}
