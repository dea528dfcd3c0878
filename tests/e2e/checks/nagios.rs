//! What podsecctl makes of findings: for people, for programs, and for Nagios, read by programs that do so for a living.

use crate::Test;
use crate::trust::{Untrusted, init, made, settings};
use podsec_policy::finding::{Check, Finding, Outcome, Report, Severity, Subject, Text, kind};
use podsec_tests::host::{self, Edited};
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, ALICE, ERIN, MALLORY, ROOT};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

pub const TESTS: &[Test] = &[
    ("checks::nagios::a_plugin_says_what_is_known", a_plugin_says_what_is_known),
    ("checks::nagios::whatever_goes_wrong_is_unknown", whatever_goes_wrong_is_unknown),
    ("checks::nagios::hostile_texts_stay_in_their_place", hostile_texts_stay_in_their_place),
    ("checks::nagios::nrpe_runs_it", nrpe_runs_it),
    ("checks::nagios::ranges_are_those_of_other_plugins", ranges_are_those_of_other_plugins),
    ("checks::nagios::people_see_findings", people_see_findings),
    ("checks::nagios::who_left_the_group_monitors_no_more", who_left_the_group_monitors_no_more),
    ("checks::nagios::a_run_says_what_is_new_and_what_is_gone", a_run_says_what_is_new_and_what_is_gone),
    ("checks::nagios::who_watches_sees_changes", who_watches_sees_changes),
];

const REPORTS: &str = "/var/lib/podsec-monitor";
const PLUGINS: &str = "/usr/lib/nagios/plugins";

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Reports as the monitors keep them, for as long as this lives.
struct Planted;

impl Planted {
    /// Of a look at that time.
    fn new(check: Check, time: u64, outcome: Outcome, findings: impl IntoIterator<Item = Finding>) -> Self {
        let mut report = Report::new(check);
        report.replace(time, outcome, findings);
        Self.and(&report)
    }

    fn and(self, report: &Report) -> Self {
        let passwd = fs::read_to_string("/etc/passwd").unwrap();
        let owner = podsec_policy::accounts::account(&passwd, "podsec-monitor").unwrap();
        let directory = Path::new(REPORTS).join(report.check.name());
        let (path, new) = (directory.join("report.json"), directory.join("new"));
        fs::write(&new, serde_json::to_vec(report).unwrap()).unwrap();
        chown(&new, Some(owner.uid), Some(owner.gid)).unwrap();
        fs::rename(new, path).unwrap();
        self
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        for check in Check::ALL {
            let _ = fs::remove_file(Path::new(REPORTS).join(check.name()).join("report.json"));
        }
    }
}

/// A critical one, in that user's store.
fn unsigned(owner: &str) -> Finding {
    let image = Subject::Image(Text::of("registry.local/app:1"));
    Finding::new(kind("image-unsigned").unwrap(), image, "sha256:00", "no signature").of(owner)
}

fn parts(output: &Output) -> (i32, String) {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap(), String::from_utf8(output.stdout.clone()).unwrap())
}

/// `podsecctl check nagios …`
fn plugin(user: &str, line: &str) -> (i32, String) {
    let words: Vec<_> = ["check", "nagios"].into_iter().chain(line.split_whitespace()).collect();
    parts(&people::podsecctl(user, &words))
}

fn a_plugin_says_what_is_known(_: &mut Oracle) {
    let _planted = Planted::new(Check::Images, now() - 300, Outcome::Complete, []);
    for user in [ROOT, ALICE, ERIN] {
        let (status, said) = plugin(user, "images -w 100 -c 200");
        let expected = "PODSEC IMAGES OK - 0 findings, looked 5 min ago | weight=0;100;200;0; findings=0;;;0; critical=0;;;0; age=30";
        assert!(status == 0 && said.starts_with(expected) && said.lines().count() == 1, "{status} {said}");
    }
    let _planted =
        Planted::new(Check::Images, now(), Outcome::Complete, [unsigned("carol"), unsigned("dave")]);
    for (line, expected) in [
        ("images", 2),
        ("images -w 1000", 0),
        ("images -w 203 -c 1000", 1),
        ("images -w 203 -c 203", 2),
        ("images -w 204 -c 204", 0),
        ("images --metric findings -c @2", 2),
        ("images --metric critical -w ~:1", 1),
        ("images --metric age -w 100 -c 200", 0),
    ] {
        let (status, said) = plugin(ERIN, line);
        assert_eq!(status, expected, "{line}: {said}");
        assert!(said.contains(" - 2 findings (2 critical), weight 204, looked "), "{said}");
        assert_eq!(said.lines().count(), 3, "{said}");
        assert!(
            said.contains("\ncritical image-unsigned: image registry.local/app:1: sha256:00: no"),
            "{said}"
        );
    }
    let missed = BTreeMap::from([(Text::of("dave"), Text::of("does not answer"))]);
    let _planted = Planted::new(Check::Images, now(), Outcome::Partial { missed }, []);
    let (status, said) = plugin(ERIN, "images -w 100 -c 200");
    assert!(
        status == 1 && said.contains("WARNING") && said.contains("not looked at: dave (does not answer)"),
        "{said}"
    );
}

fn whatever_goes_wrong_is_unknown(oracle: &mut Oracle) {
    let is_unknown = |user: &str, line: &str, text: &str| {
        let (status, said) = plugin(user, line);
        assert_eq!(status, 3, "{line}: {said}");
        let first = said.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("PODSEC ") && first.contains(" UNKNOWN - ") && first.contains(text),
            "{said}"
        );
        assert!(!said.contains('|') && said.lines().count() == 1, "{said}");
    };
    is_unknown(ERIN, "images", "never looked: podsecctl check run images");
    is_unknown(ERIN, "kubeapi", "never watched: is its service running?");
    let _planted = Planted::new(Check::Images, now() - 10_000, Outcome::Complete, []);
    assert_eq!(plugin(ERIN, "images").0, 0);
    is_unknown(ERIN, "images --max-age 2h", "looked 2 h 46 min ago, and not within 2 h 0 min");
    let _planted = Planted::new(Check::Images, now() - 20_000, Outcome::Complete, []);
    is_unknown(ERIN, "images", "not within 3 h 0 min");
    let _planted = Planted::new(Check::Images, now() + 1000, Outcome::Complete, []);
    is_unknown(ERIN, "images", "is the clock right?");
    let why = Text::of("no database");
    let _planted = Planted::new(Check::Images, now(), Outcome::Unknown { why }, [unsigned("carol")]);
    is_unknown(ERIN, "images", "unknown: no database");
    let _planted = Planted::new(Check::KubeApi, now() - 601, Outcome::Complete, []);
    is_unknown(ERIN, "kubeapi", "not within 10 min");
    // Not for him.
    is_unknown(MALLORY, "images", "you may not ask for CheckService/Findings");
    // A command line that cannot be read.
    for line in [
        "",
        "all",
        "images -w",
        "images -w 20:10",
        "images -c 10-20",
        "images -c inf",
        "images -t 0",
        "images --max-age yesterday",
        "images -a 1",
        "images --color",
        "images --json",
    ] {
        is_unknown(ERIN, line, "");
    }
    for line in ["--help", "images -h"] {
        let (status, said) = plugin(ERIN, line);
        assert!(status == 3 && said.contains("UNKNOWN"), "help is no OK: {said}");
    }
    // No podsecd, and one that says nothing.
    is_unknown(ERIN, "images --socket /run/podsec/none.sock", "is not there");
    let silent = "/run/silent.sock";
    let listener = std::os::unix::net::UnixListener::bind(silent).unwrap();
    fs::set_permissions(silent, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    is_unknown(ERIN, &format!("images -t 1 --socket {silent}"), "has not answered for 1 s");
    drop(listener);
    fs::remove_file(silent).unwrap();
    // Somebody else's file is no report.
    let report = "/var/lib/podsec-monitor/images/report.json";
    let _planted = Planted::new(Check::Images, now(), Outcome::Complete, []);
    assert_eq!(plugin(ERIN, "images").0, 0);
    chown(report, Some(0), Some(0)).unwrap();
    is_unknown(ERIN, "images", report);
    let denied = oracle.audit().into_iter().filter(|record| record["phase"] == "deny").count();
    assert_eq!(denied, 1);
}

fn hostile() -> Vec<u8> {
    b"x|weight=0;;;; '$(touch /root/pwn)' \"`id`\" \x1b[2J\n\r\xff\xe2\x80\xae".to_vec()
}

fn hostile_texts_stay_in_their_place(_: &mut Oracle) {
    let long = hostile().repeat(30_000);
    let one = |place: &[u8]| {
        let image = Subject::Image(Text::of(hostile()));
        Finding::new(kind("image-unsigned").unwrap(), image, place, hostile()).of(hostile())
    };
    let findings = (0..30_u8).map(|number| one(&[&[number][..], &long].concat()));
    let missed = BTreeMap::from([(Text::of(hostile()), Text::of(&long))]);
    let _planted = Planted::new(Check::Images, now(), Outcome::Partial { missed }, findings);
    let (status, said) = plugin(ERIN, "images");
    assert_eq!(status, 2);
    let first = said.lines().next().unwrap();
    let (_, performance) = first.split_once(" | ").unwrap();
    assert!(performance.starts_with("weight=3060;0;100;0; findings=30;;;0; "), "{performance}");
    assert_eq!(said.matches('|').count(), 1, "{said}");
    assert!(said.lines().count() == 12 && said.len() < 8192, "{} bytes: {said}", said.len());
    assert!(said.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}')), "{said:?}");
    let list = people::ctl(ERIN, &["check", "list"]);
    assert!(list.chars().all(|c| c == '\n' || (!c.is_control() && c != '\u{202e}')), "{list:?}");
    assert!(list.lines().count() < 40, "a line each: {list}");
}

/// A server that ends with this.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn are_there(programs: &[&str]) -> bool {
    let missing: Vec<PathBuf> =
        programs.iter().map(PathBuf::from).filter(|program| !program.exists()).collect();
    if !missing.is_empty() {
        println!("without {missing:?}: not installed (tests/host/deps check)");
    }
    missing.is_empty()
}

/// Nagios asks NRPE over the network, which runs the plugin as a user of group podsec-monitor.
fn nrpe_runs_it(_: &mut Oracle) {
    let (ask, negate) = (format!("{PLUGINS}/check_nrpe"), format!("{PLUGINS}/negate"));
    if !are_there(&["/usr/sbin/nrpe", &ask, &negate]) {
        return;
    }
    let conf = "/run/nrpe.cfg";
    let text = format!(
        "server_address=127.0.0.1\nserver_port=5666\nallowed_hosts=127.0.0.1\nnrpe_user={ERIN}\nnrpe_group={ERIN}\n\
         pid_file=/run/nrpe.pid\ncommand[podsec_images]=/usr/bin/podsecctl check nagios images -w 100 -c 200\n\
         command[podsec_wrong]=/usr/bin/podsecctl check nagios images -w 2:1\n"
    );
    fs::write(conf, text).unwrap();
    let mut nrpe = Command::new("/usr/sbin/nrpe");
    nrpe.args(["-c", conf, "-f"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server(nrpe.spawn().unwrap());
    host::wait_for("nrpe", || std::net::TcpStream::connect("127.0.0.1:5666").is_ok());
    // As Nagios would: a user without any right here.
    let asked = |command: &str| {
        parts(&people::command(MALLORY, &ask).args(["-H", "127.0.0.1", "-c", command]).output().unwrap())
    };
    let (status, said) = asked("podsec_images");
    assert!(status == 3 && said.starts_with("PODSEC IMAGES UNKNOWN - never looked"), "{status} {said}");
    let (status, said) = asked("podsec_wrong");
    assert!(status == 3 && said.starts_with("PODSEC UNKNOWN - "), "{status} {said}");
    for (findings, expected, name) in [
        (vec![], 0, "OK"),
        (vec![unsigned("carol")], 1, "WARNING"),
        (vec![unsigned("carol"), unsigned("dave")], 2, "CRITICAL"),
    ] {
        let number = findings.len();
        let _planted = Planted::new(Check::Images, now(), Outcome::Complete, findings);
        let (status, said) = asked("podsec_images");
        assert_eq!(status, expected, "{said}");
        assert!(said.starts_with(&format!("PODSEC IMAGES {name} - {number} finding")), "{said}");
        let weight = number * 102;
        assert!(said.contains(&format!(" | weight={weight};100;200;0; findings={number};;;0; ")), "{said}");
        assert_eq!(said.lines().count(), 1 + number, "{said}");
        // A plugin of others that runs ours, takes its status for another, and changes its first line.
        let mut other = people::command(ERIN, &negate);
        other.args(["-s", "-o", "UNKNOWN", "-w", "OK", "-c", "WARNING", "/usr/bin/podsecctl"]);
        other.args("check nagios images -w 100 -c 200".split(' '));
        let (status, said) = parts(&other.output().unwrap());
        let (expected, name) = [(3, "UNKNOWN"), (0, "OK"), (1, "WARNING")][number];
        assert_eq!(status, expected, "{said}");
        assert!(said.starts_with(&format!("PODSEC IMAGES {name} - {number} finding")), "{said}");
    }
    drop(server);
    fs::remove_file(conf).unwrap();
    let _ = fs::remove_file("/run/nrpe.pid");
}

/// `check_procs` of monitoring-plugins counts processes, we count as many findings: the same range, the same status.
fn ranges_are_those_of_other_plugins(_: &mut Oracle) {
    let other = format!("{PLUGINS}/check_procs");
    if !are_there(&[&other]) {
        return;
    }
    const MARK: &str = "86399.25";
    let mut sleeping = Vec::new();
    for number in 0..4 {
        let findings = (0..number).map(|number| unsigned(&format!("user{number}")));
        let _planted = Planted::new(Check::Images, now(), Outcome::Complete, findings);
        for range in [
            "0", "1", "2", "3", "2:", "3:", "~:2", "~:0", "1:2", "2:2", "@1:2", "@2", "@0", "@3:", "@~:1",
            "~:", "@~:", ":2", "2.5", "1.5:2.5", "@1.5:2.5", "-1:1", "-2:-1", "2:1", "@2:1", "0:-1",
        ] {
            for option in ["-w", "-c"] {
                let mut theirs = Command::new(&other);
                theirs.args(["-a", MARK, option, range]).stdin(Stdio::null());
                let theirs = theirs.output().unwrap();
                let ours = plugin(ERIN, &format!("images --metric findings {option} {range}"));
                assert_eq!(
                    Some(ours.0),
                    theirs.status.code(),
                    "{number}, {option} {range}: {} and {}",
                    ours.1,
                    String::from_utf8_lossy(&theirs.stdout)
                );
            }
        }
        sleeping.push(Server(Command::new("/bin/sleep").arg(MARK).spawn().unwrap()));
    }
}

fn people_see_findings(_: &mut Oracle) {
    let mild = Finding { severity: Severity::Low, weight: 1, ..unsigned("dave") };
    let _planted = Planted::new(Check::Images, now() - 120, Outcome::Complete, [mild, unsigned("carol")]);
    let list = people::ctl(ERIN, &["check", "list"]);
    let rows: Vec<_> = list.lines().collect();
    assert!(rows[0].starts_with("SEVERITY  ID"), "{list}");
    assert!(
        rows[1].starts_with("critical  ") && rows[1].contains("  carol  2 min  sha256:00: no signature"),
        "{list}"
    );
    assert!(rows[2].starts_with("low       ") && rows[2].contains("  dave "), "{list}");
    assert!(
        list.contains("\nimages           2 findings (1 critical), weight 103; looked 2 min ago\n"),
        "{list}"
    );
    assert!(
        list.contains("\npolicy           never looked; look now: podsecctl check run policy\n"),
        "{list}"
    );
    assert_eq!(people::ctl(ROOT, &["check", "list"]), list);
    let list = people::ctl(ALICE, &["check", "list", "images", "--severity", "c", "--json"]);
    let lines: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["finding"]["owner"]), (2, &"carol".into()), "{list}");
    assert_eq!(
        (&lines[1]["summary"]["findings"], &lines[1]["summary"]["state"]),
        (&2.into(), &"complete".into())
    );
    let id = lines[0]["finding"]["id"].as_str().unwrap().to_owned();
    let shown = people::ctl(ERIN, &["check", "show", &id[..6]]);
    let kind = kind("image-unsigned").unwrap();
    for text in [id.as_str(), kind.title, kind.explanation, kind.remedy, "critical (weight 102)", "2 min ago"]
    {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    let shown: Value = serde_json::from_str(&people::ctl(ERIN, &["check", "show", &id, "--json"])).unwrap();
    assert_eq!((&shown["id"], &shown["remedy"]), (&id.into(), &kind.remedy.into()));
    assert_eq!(people::ctl_fails(ERIN, &["check", "show", "0"]).0, 2);

    let status = people::podsecctl(ERIN, &["status"]);
    let status = String::from_utf8(status.stdout).unwrap();
    assert!(
        status.contains("\nfindings   2 (1 critical); policy never looked; images looked 2 min ago; "),
        "{status}"
    );
    let status: Value = serde_json::from_str(&people::ctl(ALICE, &["status", "--json"])).unwrap();
    assert_eq!((&status["findings"]["findings"], &status["findings"]["critical"]), (&2.into(), &1.into()));

    // The others hear nothing of it, and what can be found is no secret.
    let status = people::ctl(MALLORY, &["status"]);
    assert!(!status.contains("findings"), "{status}");
    for line in ["list", "show 0", "run", "watch"] {
        let words: Vec<_> = ["check"].into_iter().chain(line.split(' ')).collect();
        let (status, said) = people::ctl_fails(MALLORY, &words);
        assert!(status == 77 && said.contains("it is for Administrator or Monitor"), "{status} {said}");
    }
    let explained = people::ctl(MALLORY, &["check", "explain", "image-unsigned", "--socket", "/none"]);
    assert!(explained.contains(kind.remedy), "{explained}");
    assert!(people::ctl(MALLORY, &["check", "explain"]).contains("image-unsigned"));
}

/// The groups of a login stay as they were; the account database knows better.
fn who_left_the_group_monitors_no_more(oracle: &mut Oracle) {
    let _planted = Planted::new(Check::Images, now(), Outcome::Complete, []);
    let group = fs::read_to_string("/etc/group").unwrap();
    let gid =
        group.lines().find_map(|line| line.strip_prefix("podsec-monitor:x:")?.split(':').next()).unwrap();
    let logged_in = || {
        let mut command = Command::new("/usr/bin/setpriv");
        command.args(["--reuid", ERIN, "--regid", ERIN, "--groups", gid, "--", "/usr/bin/podsecctl"]);
        parts(&command.args(["check", "nagios", "images"]).output().unwrap())
    };
    assert_eq!(logged_in().0, 0);
    let left = Edited::with("/etc/group", |group| {
        let is_hers = |line: &str| line.starts_with("podsec-monitor:");
        let without = |line: &str| if is_hers(line) { line.replace(ERIN, "") } else { line.to_owned() };
        group.lines().map(|line| without(line) + "\n").collect()
    });
    let (status, said) = logged_in();
    assert!(status == 3 && said.contains("you may not ask for CheckService/Findings"), "{status} {said}");
    drop(left);
    assert_eq!(logged_in().0, 0);
    let denied: Vec<_> = oracle.audit().into_iter().filter(|record| record["phase"] == "deny").collect();
    assert!(denied.len() == 1 && denied[0]["reason"] == "revoked", "{denied:?}");
}

fn a_run_says_what_is_new_and_what_is_gone(_: &mut Oracle) {
    // Without trust nothing can be said of images.
    let stale = || unsigned("mallory");
    let _planted = Planted::new(Check::Images, now() - 120, Outcome::Complete, [stale()]);
    let (status, said) = parts(&people::podsecctl(ERIN, &["check", "run", "images"]));
    let expected = "images: 1 finding (1 critical), weight 102 before that; unknown: ";
    assert!(status == 1 && said.starts_with(expected) && said.lines().count() == 1, "{status} {said}");
    let _trust = Untrusted::host();
    made(init(settings()));
    let (status, said) = parts(&people::podsecctl(ERIN, &["check", "run", "images"]));
    let lines: Vec<_> = said.lines().collect();
    assert!(status == 0 && lines[0].starts_with("images: nothing found; looked "), "{status} {said}");
    assert!(lines[1].starts_with("  gone  critical  ") && lines[1].ends_with(": no signature"), "{said}");
    // All three.
    let output = people::podsecctl(ALICE, &["check", "run", "--json"]);
    let said = String::from_utf8(output.stdout).unwrap();
    let ran: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = ran.iter().map(|one| one["summary"]["check"].as_str().unwrap()).collect();
    assert_eq!(names, ["policy", "images", "vulnerabilities"], "{}", String::from_utf8_lossy(&output.stderr));
    let is_well = |one: &Value| one["summary"]["state"] == "complete" && one["summary"]["findings"] == 0;
    assert_eq!(output.status.code(), Some(i32::from(!ran.iter().all(is_well))), "{said}");
    let (status, said) = people::ctl_fails(ALICE, &["check", "run", "containers"]);
    assert!(status == 2 && said.contains("possible values"), "{status} {said}");
}

fn who_watches_sees_changes(_: &mut Oracle) {
    let planted = Planted::new(Check::Images, now(), Outcome::Complete, [unsigned("carol")]);
    let mut command = people::command(ERIN, "/usr/bin/podsecctl");
    command.args(["check", "watch", "images"]).stdout(Stdio::piped());
    let mut watching = Server(command.spawn().unwrap());
    let mut lines = BufReader::new(watching.0.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert!(next().starts_with("TIME  "));
    assert!(next().contains("  images  "));
    let first = next();
    assert!(first.contains("  critical  ") && first.ends_with(": sha256:00: no signature"), "{first}");
    let mut report = Report::new(Check::Images);
    report.replace(now(), Outcome::Complete, [unsigned("dave")]);
    let planted = planted.and(&report);
    let (new, gone) = (next(), next());
    assert!(new.contains("  critical  ") && new != first, "{new}");
    assert!(
        gone.contains("  gone      ") && first.ends_with(gone.split_once("  gone      ").unwrap().1),
        "{gone}"
    );
    report.replace(now(), Outcome::Unknown { why: Text::of("no rights") }, []);
    let _planted = planted.and(&report);
    assert!(next().contains("unknown: no rights"));
}
