//! What breaks: the audit's disk, its file and its readers; podsecd itself, at any moment; its configuration, and whoever
//! starts it.

use crate::Test;
use podsec_policy::audit::{Head, Record, escape, link};
use podsec_tests::oracle::{self, Oracle};
use podsec_tests::people::{self, ALICE, CLUSTER, ROOT};
use podsec_tests::{client, host, role};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

pub const TESTS: &[Test] = &[
    ("faults::t62_forged_lines", t62_forged_lines),
    ("faults::t62_forged_journal_fields", t62_forged_journal_fields),
    ("faults::t63_journal_is_deaf_or_gone", t63_journal_is_deaf_or_gone),
    ("faults::t63_disk_of_the_audit_is_full", t63_disk_of_the_audit_is_full),
    ("faults::audit_is_rotated", audit_is_rotated),
    ("faults::audit_is_tampered_with", audit_is_tampered_with),
    ("faults::podsecd_is_killed_at_any_moment", podsecd_is_killed_at_any_moment),
    ("faults::a_crash_between_two_writes", a_crash_between_two_writes),
    ("faults::podsecd_is_restarted_under_clients", podsecd_is_restarted_under_clients),
    ("faults::told_to_end_it_finishes", told_to_end_it_finishes),
    ("faults::idle_it_ends_if_systemd_listens", idle_it_ends_if_systemd_listens),
    ("faults::sockets_for_somebody_else", sockets_for_somebody_else),
    ("faults::systemd_is_told", systemd_is_told),
    ("faults::configuration_that_is_none", configuration_that_is_none),
    ("faults::places_that_are_not_roots", places_that_are_not_roots),
    ("faults::accounts_and_programs_are_missing", accounts_and_programs_are_missing),
    ("faults::environment_of_whoever_starts_it", environment_of_whoever_starts_it),
];

const LOG: &str = "/var/log/podsec/audit.jsonl";
const PROGRAM: &str = "/usr/libexec/podsec/podsecd";
const CONFIG: &str = "/etc/podsec/podsecd.toml";
const JOURNAL: &str = "/run/systemd/journal/socket";

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().unwrap_or_default()
}

/// Phases and reasons of these records, in order.
fn phases(records: &[Value]) -> Vec<String> {
    records.iter().map(|record| format!("{} {}", text(record, "phase"), text(record, "reason"))).collect()
}

/// `podsecctl --json …` as a user or uid: exit status, and the reason of a failure.
fn outcome(who: &str, arguments: &[&str]) -> (i32, String) {
    let mut command = role::setpriv(who, "/usr/bin/podsecctl");
    let output = command.arg("--json").args(arguments).output().expect("podsecctl");
    let told: Value = serde_json::from_slice(&output.stderr).unwrap_or_default();
    (output.status.code().expect("a status"), text(&told["error"], "reason").to_owned())
}

// ---- the audit says what happened, whatever callers say

/// What somebody would write who wants a line of his own in the record, or in the terminal of its reader.
const FORGERIES: &[&[u8]] = &[
    b"\n{\"seq\":1,\"phase\":\"done\",\"op\":\"NamespaceService/Enter\",\"uid\":0}",
    b"x\nNov 22 10:00:00 host podsecd: audit phase=done uid=0",
    b"x\r\npodsecd: allowed",
    b"\x1b[2J\x1b]0;title\x07\x1b[1;31m",
    b"\x9b2J and \x9d",
    b"\xff\xfe\xc3\x28 no UTF-8",
    "\u{202e}gnp.cod \u{2028}\u{85}\u{feff}".as_bytes(),
    b"\",\"phase\":\"done\",\"x\":\"",
    b"\\n\\x0a\\",
    b"\x01\x02\x7f\t\x0b\x0c",
];

/// Neither line breaks nor anything else that drives a terminal.
fn assert_plain(line: &str) {
    assert!(!line.chars().any(char::is_control), "{line:?}");
    assert!(!line.contains(['\u{202e}', '\u{2028}', '\u{feff}']), "{line:?}");
}

fn t62_forged_lines(oracle: &mut Oracle) {
    let mut expected: Vec<(String, String)> = Vec::new();
    let mut expect = |phases: &[&str], target: &[u8]| {
        expected.extend(phases.iter().map(|&phase| (phase.to_owned(), escape(target))));
    };
    let long = [b'\n'; 100_000];
    for &forgery in FORGERIES.iter().chain([&&long[..]]) {
        let word = OsStr::from_bytes(forgery);
        let podsecctl = |who: &str, arguments: &[&OsStr]| {
            let mut command = role::setpriv(who, "/usr/bin/podsecctl");
            command.args(arguments).output().expect("podsecctl").status.code().expect("a status")
        };
        let command = [OsStr::new("enter"), OsStr::new("--"), OsStr::new("true"), word];
        assert_eq!(podsecctl(ALICE, &command), 0);
        expect(&["intent", "done"], &[b"true ", forgery].concat());
        assert_eq!(podsecctl("7040", &command), 77);
        expect(&["deny"], &[b"true ", forgery].concat());
        // Values of variables are in no record.
        let variable = [b"X=", forgery].concat();
        let (enter, rest) = (["enter", "-e"].map(OsStr::new), ["--", "true"].map(OsStr::new));
        assert_eq!(podsecctl(ALICE, &[&enter[..], &[OsStr::from_bytes(&variable)], &rest].concat()), 0);
        expect(&["intent", "done"], b"true");
        if forgery.len() < 1000 {
            let directory = [b"/", forgery].concat();
            let enter = ["enter", "-C"].map(OsStr::new);
            let status = podsecctl(ALICE, &[&enter[..], &[OsStr::from_bytes(&directory)], &rest].concat());
            assert_ne!(status, 0, "no such directory");
            expect(&["intent", "fail"], &[b"cd /", forgery, b"; true"].concat());
        }
    }
    let mut written = oracle.audit();
    let mut found: Vec<_> = written
        .iter()
        .map(|record| (text(record, "phase").to_owned(), text(record, "target").to_owned()))
        .collect();
    // How a session ended may be written a moment after its client went on to the next thing.
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    // What is no request leaves nothing of itself in the record: a name that is none, an operation that is none, and
    // more than a message may have.
    let evil = String::from_utf8_lossy(&FORGERIES.concat()).into_owned();
    client::block_on(async {
        use podsec_proto::v1::{
            AuditFilter, Command, EnterRequest, EnvVar, QueryRequest, enter_request::Program,
        };
        let (mut namespace, mut audit) = (client::namespace().await, client::audit().await);
        for (name, argument) in [(&*evil, 0), ("X", 1 << 20)] {
            let env = vec![EnvVar { name: name.into(), value: vec![] }];
            let argv = vec![b"true".to_vec(), vec![b'\n'; argument]];
            let program = Some(Program::Command(Command { argv }));
            let refused = namespace.enter(EnterRequest { program, env, ..Default::default() }).await;
            assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
        }
        for operation in [evil.clone(), "\n".repeat(200_000)] {
            let filter = Some(AuditFilter { operation, ..Default::default() });
            let refused = audit.query(QueryRequest { filter }).await;
            assert_eq!(refused.unwrap_err().code(), tonic::Code::InvalidArgument);
        }
    });
    let refused = oracle.audit().split_off(written.len());
    assert_eq!(phases(&refused), ["deny bad-env", "deny protocol", "deny bad-argument", "deny bad-argument"]);
    assert!(refused.iter().all(|record| text(record, "target").is_empty()), "{refused:#?}");
    written.extend(refused);

    let log = fs::read_to_string(LOG).expect("text");
    let lines: Vec<_> = log.lines().collect();
    for line in &lines[lines.len() - written.len()..] {
        assert_plain(line);
        assert!(line.len() < 6000, "{} bytes", line.len());
    }
    let last = written.len().to_string();
    for format in [&["audit", "--last", &last][..], &["--json", "audit", "--last", &last]] {
        let shown = people::ctl(ROOT, format);
        shown.lines().for_each(assert_plain);
        // A heading for people, and then one line for each: the query's own intent is the newest of them.
        assert_eq!(shown.lines().count(), written.len() + usize::from(format.len() == 3));
    }
}

/// A socket where journald's would be: a fake, since no journald runs here.
struct FakeJournal(UnixDatagram);

impl FakeJournal {
    fn start() -> Self {
        fs::create_dir_all(Path::new(JOURNAL).parent().unwrap()).unwrap();
        let socket = UnixDatagram::bind(JOURNAL).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        Self(socket)
    }

    /// The entries that came, each as its lines `NAME=value`.
    fn entries(&self) -> Vec<Vec<(String, String)>> {
        let mut bytes = [0; 65536];
        let mut entries = Vec::new();
        while let Ok(length) = self.0.recv(&mut bytes) {
            let entry = std::str::from_utf8(&bytes[..length]).expect("UTF-8");
            assert!(entry.ends_with('\n'));
            // A line without '=' would be a value in binary form (systemd.io/JOURNAL_NATIVE_PROTOCOL).
            let field = |line: &str| line.split_once('=').map(|(name, value)| (name.into(), value.into()));
            entries.push(entry.lines().map(|line| field(line).expect("a field")).collect());
        }
        entries
    }
}

impl Drop for FakeJournal {
    fn drop(&mut self) {
        let _ = fs::remove_file(JOURNAL);
    }
}

fn t62_forged_journal_fields(oracle: &mut Oracle) {
    let journal = FakeJournal::start();
    for (index, forgery) in FORGERIES.iter().enumerate() {
        let fields = b"\nPODSEC_UID=0\nPRIORITY=0\n_UID=0\nMESSAGE\n\x08injected\nPODSEC_PHASE=done";
        let word = [forgery, &fields[..]].concat();
        let before = oracle.audit().len();
        let mut command = role::setpriv(if index % 2 == 0 { ALICE } else { "7041" }, "/usr/bin/podsecctl");
        command.args(["enter", "--", "true"]).arg(OsStr::from_bytes(&word)).output().unwrap();
        // Read each time: the queue of a datagram socket is short, and podsecd does not wait for it.
        let (entries, records) = (journal.entries(), oracle.audit().split_off(before));
        assert_eq!((entries.len(), records.len()), if index % 2 == 0 { (2, 2) } else { (1, 1) });
        for (entry, record) in entries.iter().zip(&records) {
            let given: BTreeMap<&str, &str> =
                entry.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(given.len(), entry.len(), "a field is there twice: {entry:?}");
            for (name, value) in &given {
                assert_plain(value);
                let common = ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "SYSLOG_FACILITY"].contains(name);
                assert!(common || name.starts_with("PODSEC_"), "{name}={value}");
            }
            for (name, key) in [("PODSEC_PHASE", "phase"), ("PODSEC_TARGET", "target"), ("PODSEC_OP", "op")] {
                assert_eq!(given[name], text(record, key), "{given:?}");
            }
            assert_eq!(given["PODSEC_UID"], record["uid"].to_string());
            assert_eq!(given["PRIORITY"], if text(record, "phase") == "deny" { "4" } else { "6" });
            assert_eq!(given["SYSLOG_IDENTIFIER"], "podsecd");
        }
    }
}

fn t63_journal_is_deaf_or_gone(oracle: &mut Oracle) {
    // Nobody reads: the queue of the socket (net.unix.max_dgram_qlen) is full after a few.
    let journal = FakeJournal::start();
    for _ in 0..20 {
        people::enter(ALICE, &["true"]);
    }
    assert!(journal.entries().len() < 40, "the queue is longer than what this test sends");
    people::enter(ALICE, &["true"]);
    assert_eq!(journal.entries().len(), 2, "read again, it is told again");
    drop(journal);
    people::enter(ALICE, &["true"]);
    assert_eq!(oracle.audit().len(), 44, "the file has all of them");
}

// ---- the audit cannot be written

/// A small disk of its own over `/var/log/podsec`, with what was there.
struct SmallDisk;

impl SmallDisk {
    fn mount() -> Self {
        let log = fs::read(LOG).unwrap();
        let size = format!("size={}k,mode=700", log.len() / 1024 + 64);
        let mount = ["-t", "tmpfs", "-o", &size, "podsec-log", "/var/log/podsec"];
        host::run(Command::new("/usr/bin/mount").args(mount));
        fs::write(LOG, log).unwrap();
        fs::set_permissions(LOG, fs::Permissions::from_mode(0o600)).unwrap();
        Self
    }

    fn fill(&self) {
        let mut filler = File::create("/var/log/podsec/filler").unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
        while filler.write_all(&[0]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file("/var/log/podsec/filler").unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let log = fs::read(LOG).unwrap_or_default();
        // podsecd has its file open until the next record.
        host::run(Command::new("/usr/bin/umount").args(["--lazy", "/var/log/podsec"]));
        fs::write(LOG, log).unwrap();
    }
}

fn t63_disk_of_the_audit_is_full(oracle: &mut Oracle) {
    const MARK: &str = "/var/lib/u7s-admin/mark";
    let disk = SmallDisk::mount();
    let enter = ["enter", "--", "touch", MARK];
    let unavailable = (78, "audit-unavailable".to_owned());
    assert_eq!(outcome(ALICE, &enter).0, 0);
    fs::remove_file(MARK).unwrap();
    disk.fill();
    // What is left of the last page may take a few.
    host::wait_for("the disk to be full", || outcome(ALICE, &["enter", "--", "true"]) == unavailable);
    for _ in 0..3 {
        assert_eq!(outcome(ALICE, &enter), unavailable);
        assert_eq!(outcome(CLUSTER, &["port", "list"]), unavailable);
        assert_eq!(outcome(ROOT, &["audit"]), unavailable);
        assert_eq!(outcome("7042", &enter), (77, "not-authorised".to_owned()));
    }
    assert!(!Path::new(MARK).exists(), "it was done without a record");
    people::ctl("mallory", &["whoami"]);
    let status = people::podsecctl("mallory", &["status"]);
    let told = String::from_utf8_lossy(&status.stdout);
    assert!(status.status.code() == Some(1) && told.contains("cannot be written"), "{status:?}");
    assert!(fs::read_to_string(LOG).unwrap().ends_with('\n'), "half a record was left");

    // Not even a restart needs the disk.
    host::stop_daemon("TERM");
    host::start_daemon(None);
    people::ctl("mallory", &["whoami"]);
    let count = 5;
    for _ in 0..count {
        assert_eq!(outcome(ALICE, &enter), unavailable);
        assert_eq!(outcome("7042", &enter).0, 77);
    }
    disk.empty();
    assert_eq!(outcome(ALICE, &enter), (0, String::new()));
    fs::remove_file(MARK).unwrap();
    people::ctl("mallory", &["status"]);
    // Those whom nothing could be written about were counted: told at the end, or after a minute.
    let before = oracle.audit().len();
    host::stop_daemon("TERM");
    let told: BTreeMap<_, _> = oracle.audit()[before..]
        .iter()
        .map(|record| {
            (
                record["uid"].as_u64().unwrap(),
                (text(record, "reason").to_owned(), record["suppressed"].clone()),
            )
        })
        .collect();
    let counted = |reason: &str| (reason.to_owned(), Value::from(count));
    let expected = [(1101, counted("audit-unavailable")), (7042, counted("not-member"))];
    assert_eq!(told, BTreeMap::from(expected));
    drop(disk);
    host::start_daemon(None);
    oracle.expect_new_daemon();
}

// ---- the audit's files

/// What `podsecctl audit verify` says: records and files, or file, line and what is wrong there.
fn verify() -> Result<(u64, u64), (String, u64, String)> {
    let output = people::podsecctl(ROOT, &["--json", "audit", "verify"]);
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let broken = &told["broken"];
    assert_eq!(output.status.code(), Some(i32::from(!broken.is_null())), "{told}");
    if broken.is_null() {
        return Ok((told["records"].as_u64().unwrap(), told["files"].as_u64().unwrap()));
    }
    Err((text(broken, "file").into(), broken["line"].as_u64().unwrap(), text(broken, "what").into()))
}

/// Waits for the record of a session's end, which may come a moment after the client's own.
fn settled(oracle: &Oracle) {
    host::wait_for("the record", || {
        oracle.audit_now().last().is_none_or(|record| text(record, "phase") != "intent")
    });
}

fn audit_is_rotated(oracle: &mut Oracle) {
    let files = verify().unwrap().1;
    let rotated = |number: u32| format!("{LOG}-2026112{number}-{}", std::process::id());
    people::enter(ALICE, &["true", "before"]);
    settled(oracle);
    fs::rename(LOG, rotated(1)).unwrap();
    people::enter(ALICE, &["true", "between"]);
    settled(oracle);
    // logrotate's own way, and podsecd may be told or not.
    fs::rename(LOG, rotated(2)).unwrap();
    host::kill(host::daemon_pid(), "HUP");
    people::enter(ALICE, &["true", "after"]);
    settled(oracle);
    let (records, now) = verify().unwrap();
    assert_eq!(now, files + 2);
    assert_eq!(records, oracle::audit().len() as u64 - 1, "the outcome of the check itself came later");
    assert_eq!(fs::metadata(LOG).unwrap().permissions().mode() & 0o777, 0o600);
    // One story, in order, for readers too.
    let listed = people::ctl(ALICE, &["--json", "audit", "--operation", "Enter", "--last", "6"]);
    let target = |line: &str| text(&serde_json::from_str(line).unwrap(), "target").to_owned();
    let targets: Vec<_> = listed.lines().map(target).collect();
    assert_eq!(
        targets,
        ["true before", "true before", "true between", "true between", "true after", "true after"]
    );
    // A restart finds the end of the chain even where the current file has nothing in it yet.
    fs::rename(LOG, rotated(3)).unwrap();
    host::stop_daemon("KILL");
    host::start_daemon(None);
    oracle.expect_new_daemon();
    assert_eq!(verify().unwrap().1, files + 3);
    // A file in the middle that is gone shows.
    fs::rename(rotated(2), "/var/log/podsec/elsewhere").unwrap();
    let (file, line, what) = verify().unwrap_err();
    assert_eq!((file, line), (rotated(3), 1), "{what}");
    assert!(what.contains("missing"), "{what}");
    fs::rename("/var/log/podsec/elsewhere", rotated(2)).unwrap();
    verify().unwrap();
}

/// The audit's lines as somebody has changed them, until this is over.
fn tampered<T>(change: impl FnOnce(&mut Vec<String>), look: impl FnOnce() -> T) -> T {
    let original = fs::read(LOG).unwrap();
    let mut lines: Vec<_> = String::from_utf8(original.clone()).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    let changed = lines.into_iter().map(|line| line + "\n").collect::<String>();
    // Into the same file, which podsecd has open.
    fs::write(LOG, &changed).unwrap();
    let seen = look();
    let after = fs::read(LOG).unwrap().split_off(changed.len());
    fs::write(LOG, [original, after].concat()).unwrap();
    seen
}

fn audit_is_tampered_with(oracle: &mut Oracle) {
    for _ in 0..6 {
        people::enter(ALICE, &["true"]);
    }
    // A client hears of the end before it is recorded, and what is recorded under the change would be lost with it.
    host::wait_for("the last outcome", || oracle.audit().len() == 12);
    let length = fs::read_to_string(LOG).unwrap().lines().count();
    let (at, line) = (length - 6, length as u64 - 5);
    type Change = Box<dyn FnOnce(&mut Vec<String>)>;
    let edit = move |lines: &mut Vec<String>| lines[at] = lines[at].replace("\"uid\":1101", "\"uid\":0");
    // With a hash that fits; the next one shows it.
    let make_anew = move |lines: &mut Vec<String>| {
        let mut record: Record = serde_json::from_str(&lines[at]).unwrap();
        let (head, prev) = link(lines[at].as_bytes()).unwrap();
        record.uid = 0;
        lines[at] = record.line(Head { seq: head.seq - 1, hash: prev }).0;
    };
    let cases: Vec<(Change, u64, &str)> = vec![
        (Box::new(edit), line, "edited"),
        (Box::new(make_anew), line + 1, "missing"),
        (Box::new(move |lines| _ = lines.remove(at)), line, "missing"),
        (Box::new(move |lines| lines.insert(at + 1, lines[at].clone())), line + 1, "missing"),
        (Box::new(move |lines| lines.swap(at, at + 1)), line, "missing"),
        (Box::new(move |lines| lines[at].truncate(100)), line, "not a record"),
        (Box::new(move |lines| lines.insert(at, "podsecd: all is well".into())), line, "not a record"),
        (Box::new(move |lines| lines[at].clear()), line, "not a record"),
        // The end: the next record that is written shows it.
        (Box::new(move |lines| lines.truncate(at)), line, "missing"),
    ];
    for (number, (change, line, what)) in cases.into_iter().enumerate() {
        let found = tampered(change, verify).expect_err("it was changed");
        assert_eq!((&*found.0, found.1), (LOG, line), "case {number}: {}", found.2);
        assert!(found.2.contains(what), "case {number}: {}", found.2);
    }
    let shown = tampered(edit, || people::podsecctl(ROOT, &["audit", "verify"]));
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.starts_with(&format!("broken at {LOG} line {line}: ")), "{shown}");
    verify().unwrap();
    // While podsecd was not there to see it.
    host::stop_daemon("TERM");
    let log = fs::read(LOG).unwrap();
    fs::write(LOG, &log[..log.len() - 10]).unwrap();
    host::start_daemon(None);
    let (file, _, what) = verify().expect_err("the last line was cut");
    assert!(file == LOG && what.contains("missing"), "{file}: {what}");
    host::stop_daemon("TERM");
    fs::write(LOG, log).unwrap();
    fs::remove_file("/var/lib/podsec/audit.end").unwrap();
    host::start_daemon(None);
    verify().unwrap();
    oracle.expect_new_daemon();
}

// ---- podsecd ends

type Asking = (&'static str, &'static [&'static str]);

/// What somebody asks again and again, each in a thread, while something happens to podsecd; gives how often each exit
/// status was seen.
fn under_load(asking: &[Asking], happens: impl FnOnce()) -> BTreeMap<i32, usize> {
    /// Ends the threads, also when what happens is a failure of the test.
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ask = |&(who, arguments): &Asking| {
            let over = &over;
            scope.spawn(move || {
                let mut seen = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    seen.push(outcome(who, arguments).0);
                }
                seen
            })
        };
        let threads: Vec<_> = asking.iter().map(ask).collect();
        let end = Over(&over);
        happens();
        drop(end);
        let mut seen = BTreeMap::new();
        for status in threads.into_iter().flat_map(|thread| thread.join().expect("a thread")) {
            *seen.entry(status).or_insert(0) += 1;
        }
        seen
    })
}

/// The phases of each operation since, and how often that was.
fn stories(oracle: &Oracle) -> BTreeMap<String, usize> {
    let mut stories = BTreeMap::<String, Vec<String>>::new();
    for record in oracle.audit().iter().filter(|record| text(record, "phase") != "deny") {
        stories.entry(text(record, "id").to_owned()).or_default().push(text(record, "phase").to_owned());
    }
    let mut kinds = BTreeMap::new();
    for story in stories.into_values() {
        *kinds.entry(story.join(" ")).or_default() += 1;
    }
    kinds
}

fn podsecd_is_killed_at_any_moment(oracle: &mut Oracle) {
    const LOAD: &[Asking] = &[
        (ALICE, &["enter", "--", "true"]),
        (CLUSTER, &["enter", "--", "sleep", "0.05"]),
        (ROOT, &["namespace", "show"]),
        (CLUSTER, &["port", "list"]),
        ("7043", &["enter", "--", "true"]),
    ];
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64;
    let (times, mut random) = (host::count(50, 1000), seed);
    println!("seed {seed}");
    let seen = under_load(LOAD, || {
        for _ in 0..times {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            std::thread::sleep(Duration::from_micros((random >> 33) % 120_000));
            host::stop_daemon("KILL");
            host::start_daemon(None);
        }
        std::thread::sleep(Duration::from_millis(300));
    });
    oracle.expect_new_daemon();
    let whole = ["intent done", "intent fail", "intent recovered"];
    host::wait_for("every intent to have one outcome", || {
        stories(oracle).keys().all(|story| whole.contains(&story.as_str()))
    });
    println!("exit statuses {seen:?}; {:?}", stories(oracle));
    // Done; nobody there (this podsecd has sockets of its own); lost under the request; not for him.
    assert!(seen.keys().all(|status| [0, 69, 70, 75, 77].contains(status)), "{seen:?}");
    verify().unwrap();
}

/// The places where a crash would come between the audit and what is remembered of open operations, made by hand here: a
/// kill rarely meets them.
fn a_crash_between_two_writes(oracle: &mut Oracle) {
    let notes = fs::File::options().read(true).write(true).open("/var/lib/podsec/audit.open").unwrap();
    let mut session = people::command(ALICE, "/usr/bin/podsecctl");
    let mut session = session.args(["enter", "--", "sleep", "64.2"]).spawn().unwrap();
    host::wait_for("the session", || !oracle.audit().is_empty());
    let mut remembered = [0; 512];
    notes.read_exact_at(&mut remembered[..64], 0).unwrap();
    let id = text(&oracle.audit()[0], "id").to_owned();
    assert!(remembered.windows(id.len()).any(|part| part == id.as_bytes()), "the first slot is its");
    // Its outcome was written, and it was not yet forgotten.
    session.kill().unwrap();
    session.wait().unwrap();
    host::wait_for("the outcome", || oracle.audit().len() == 2);
    host::stop_daemon("KILL");
    notes.write_all_at(&remembered, 0).unwrap();
    host::start_daemon(None);
    assert_eq!(oracle.audit().len(), 2, "{:#?}", oracle.audit());
    // It was remembered, and its intent not yet written: the end of the log and what is known of it are taken back.
    host::stop_daemon("KILL");
    let log = fs::read_to_string(LOG).unwrap();
    let two = log.lines().rev().take(2).map(|line| line.len() + 1).sum::<usize>();
    fs::write(LOG, &log[..log.len() - two]).unwrap();
    fs::remove_file("/var/lib/podsec/audit.end").unwrap();
    notes.write_all_at(&remembered, 0).unwrap();
    host::start_daemon(None);
    assert_eq!(oracle.audit().len(), 0, "{:#?}", oracle.audit());
    notes.read_exact_at(&mut remembered[..1], 0).unwrap();
    assert_eq!(remembered[0], 0, "the slot is free again");
    // A line was torn.
    host::stop_daemon("KILL");
    fs::write(LOG, format!("{}{{\"seq\":9999,\"ti", &log[..log.len() - two])).unwrap();
    host::start_daemon(None);
    oracle.expect_new_daemon();
    let torn = oracle.audit();
    assert_eq!(phases(&torn), ["recovered torn-line"]);
    assert_eq!(text(&torn[0], "target"), "{\"seq\":9999,\"ti");
}

fn podsecd_is_restarted_under_clients(oracle: &mut Oracle) {
    const CLIENT: Asking = ("mallory", &["whoami"]);
    let times = host::count(10, 1000);
    let seen = under_load(&[CLIENT; 8], || {
        for _ in 0..times {
            std::thread::sleep(Duration::from_millis(100));
            host::stop_daemon("TERM");
            host::start_daemon(None);
        }
    });
    oracle.expect_new_daemon();
    println!("exit statuses {seen:?}");
    // podsecd has sockets of its own here, so there are moments when nobody listens (69). Where systemd listens there
    // are none: tests/host/units.
    assert!(seen.keys().all(|status| [0, 69, 75].contains(status)), "{seen:?}");
    people::ctl("mallory", &["whoami"]);
}

fn told_to_end_it_finishes(oracle: &mut Oracle) {
    let daemon = host::daemon_pid();
    // A rootlesskit that does not answer makes an operation last.
    let pid = fs::read_to_string("/run/podsec-tests/namespace.pid").unwrap();
    let rootlesskit: i32 = pid.trim().parse().unwrap();
    host::kill(rootlesskit, "STOP");
    let mut list = people::command(ROOT, "/usr/bin/podsecctl");
    let list = list.args(["port", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    host::wait_for("the intent", || !oracle.audit().is_empty());
    host::kill(daemon, "TERM");
    host::wait_for("the door to close", || UnixStream::connect(client::SOCKET).is_err());
    std::thread::sleep(Duration::from_millis(500));
    let waits = host::is_alive(daemon);
    host::kill(rootlesskit, "CONT");
    assert!(waits, "it did not wait");
    let listed = list.wait_with_output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    host::within(Duration::from_secs(2), "podsecd to end", || !host::is_alive(daemon));
    assert_eq!(stories(oracle), BTreeMap::from([("intent done".to_owned(), 1)]));
    host::start_daemon(None);
    oracle.expect_new_daemon();
}

// ---- who starts it

/// podsecd with sockets that `tools/activate.py` holds.
struct Activator(Child);

impl Activator {
    fn start(stream: &str, packet: &str, wrong: &[&str]) -> Self {
        let tool = host::top().join("tests/e2e/tools/activate.py");
        let mut command = Command::new("/usr/bin/python3");
        command.arg(tool).args([stream, packet]).args(wrong).stdout(Stdio::piped());
        Self(command.spawn().expect("python3"))
    }

    /// Waits until the next podsecd has ended: how.
    fn ended(&mut self) -> String {
        let mut line = String::new();
        BufReader::new(self.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Activator {
    fn drop(&mut self) {
        host::kill(self.0.id() as i32, "TERM");
        let _ = self.0.wait();
    }
}

fn idle_it_ends_if_systemd_listens(oracle: &mut Oracle) {
    host::stop_daemon("TERM");
    fs::write(CONFIG, "[limits]\nidle_exit = 1\n").unwrap();
    let mut activator = Activator::start("/run/podsec/podsecd.sock", "/run/podsec/attach.sock", &[]);
    host::wait_for("the sockets", || UnixStream::connect(client::SOCKET).is_ok());
    people::ctl(ALICE, &["whoami"]);
    let first = host::daemon_pid();
    assert_eq!(people::enter(ALICE, &["echo", "inside"]), "inside\n", "sessions over a passed socket");
    assert_eq!(activator.ended(), "ended 0");
    // Whoever comes next finds it as if it had never been away; and it stays for as long as he does.
    let start = Instant::now();
    assert_eq!(people::enter(ALICE, &["sleep", "2.5"]), "");
    assert!(start.elapsed() > Duration::from_millis(2500));
    assert_ne!(host::daemon_pid(), first);
    assert_eq!(activator.ended(), "ended 0");
    assert!(!stories(oracle).contains_key("intent"), "it left in the middle of a session");
    drop(activator);
    host::start_daemon(None);
    oracle.expect_new_daemon();
}

fn sockets_for_somebody_else(oracle: &mut Oracle) {
    host::stop_daemon("TERM");
    fs::write(CONFIG, "[limits]\nidle_exit = 1\n").unwrap();
    let stray = ["/run/podsec-tests/stray.sock", "/run/podsec-tests/stray-attach.sock"];
    // Passed to another process: not ours (sd_listen_fds(3)). It opens its own, and does not leave them when idle.
    let activator = Activator::start(stray[0], stray[1], &["LISTEN_PID=1"]);
    host::wait_for("its own sockets", || outcome("mallory", &["whoami"]).0 == 0);
    let daemon = host::daemon_pid();
    let timeout = ["1", "/usr/bin/podsecctl", "--socket", stray[0], "whoami"];
    let asked = people::command("mallory", "/usr/bin/timeout").args(timeout).output().unwrap();
    assert_eq!(asked.status.code(), Some(124), "somebody answers there: {asked:?}");
    std::thread::sleep(Duration::from_secs(1));
    assert!(host::is_alive(daemon), "it ended though nobody else listens");
    host::stop_daemon("TERM");
    drop(activator);
    // Ours, and not what podsecd.socket has.
    for wrong in ["LISTEN_FDS=0", "LISTEN_FDS=1", "LISTEN_FDS=3", "LISTEN_FDS=two"] {
        let mut activator = Activator::start(stray[0], stray[1], &[wrong]);
        assert_eq!(activator.ended(), "ended 1", "{wrong}");
    }
    host::start_daemon(None);
    oracle.expect_new_daemon();
}

/// Starts podsecd with this environment and nothing else.
fn launch(environment: &[(&str, &str)]) -> Child {
    let mut command = Command::new(PROGRAM);
    command.env_clear().envs(environment.iter().copied()).current_dir("/").stdin(Stdio::null());
    let child = command.spawn().unwrap();
    fs::write("/run/podsec-tests/daemon.pid", child.id().to_string()).unwrap();
    child
}

fn systemd_is_told(oracle: &mut Oracle) {
    let path = "/run/podsec-tests/notify";
    let told = UnixDatagram::bind(path).unwrap();
    told.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let next = || {
        let mut bytes = [0; 4096];
        let length = told.recv(&mut bytes).expect("to be told");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    };
    host::stop_daemon("TERM");
    let mut podsecd = launch(&[("NOTIFY_SOCKET", path)]);
    assert_eq!(next(), "READY=1");
    people::ctl("mallory", &["whoami"]);
    host::kill(host::daemon_pid(), "TERM");
    assert_eq!(next(), "STOPPING=1");
    assert!(podsecd.wait().unwrap().success());
    // Nobody there to be told: no reason not to work.
    drop(told);
    fs::remove_file(path).unwrap();
    let mut podsecd = launch(&[("NOTIFY_SOCKET", path)]);
    host::wait_for("podsecd", || outcome("mallory", &["whoami"]).0 == 0);
    host::kill(host::daemon_pid(), "TERM");
    podsecd.wait().unwrap();
    host::start_daemon(None);
    oracle.expect_new_daemon();
}

/// Runs podsecd to its end, which is soon.
fn podsecd(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).env_clear().stdin(Stdio::null()).output().unwrap()
}

fn configuration_that_is_none(_: &mut Oracle) {
    let refused = |why: &str| {
        for arguments in [&["--check"][..], &[]] {
            let output = podsecd(arguments);
            let told = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{why}: {output:?}");
            assert!(
                told.starts_with("podsecd: ") && told.contains("/etc/podsec") && told.contains(why),
                "{told}"
            );
        }
    };
    for (text, why) in [
        ("colour = \"red\"\n", "unknown field `colour`"),
        ("[limits]\nsesions = 3\n", "unknown field `sesions`"),
        ("[limits]\nsessions = -1\n", "sessions"),
        ("[limits]\nsessions = 0\n", "limits.sessions: 1 to 4096"),
        ("[accounts]\nadministrators = \"root\\nwheel\"\n", "accounts.administrators"),
        ("[socket]\npath = \"podsecd.sock\"\n", "socket.path"),
        ("[socket]\nmode = 0o1777\n", "socket.mode"),
        ("[limits\n", "line 1"),
        ("\u{0}", "line 1"),
    ] {
        fs::write(CONFIG, text).unwrap();
        refused(why);
    }
    fs::write(CONFIG, b"# \xff\n").unwrap();
    refused("UTF-8");
    let set = |uid: u32, mode: u32| {
        fs::write(CONFIG, "[limits]\nsessions = 3\n").unwrap();
        chown(CONFIG, Some(uid), None).unwrap();
        fs::set_permissions(CONFIG, fs::Permissions::from_mode(mode)).unwrap();
    };
    for (uid, mode) in [(1101, 0o644), (0, 0o664), (0, 0o646)] {
        set(uid, mode);
        refused("not root's alone");
    }
    set(0, 0o600);
    assert_eq!(podsecd(&["--check"]).stdout, format!("{CONFIG}: good\n").as_bytes());
    // The directory counts too, and so does the way by a link.
    let directory = |mode| fs::set_permissions("/etc/podsec", fs::Permissions::from_mode(mode)).unwrap();
    directory(0o777);
    refused("/etc/podsec is not root's alone");
    directory(0o755);
    fs::rename(CONFIG, "/etc/podsec/elsewhere").unwrap();
    symlink("/etc/podsec/elsewhere", CONFIG).unwrap();
    refused("not root's alone");
    fs::remove_file(CONFIG).unwrap();
    fs::create_dir(CONFIG).unwrap();
    refused("directory");
    fs::remove_dir(CONFIG).unwrap();
    fs::remove_file("/etc/podsec/elsewhere").unwrap();
    // None at all is the default one.
    assert!(podsecd(&["--check"]).status.success());
    for wrong in [&["--help"][..], &["--check", "--check"], &["start"]] {
        let output = podsecd(wrong);
        assert!(output.status.code() == Some(2) && output.stderr.starts_with(b"usage: "), "{output:?}");
    }
    let output = people::command("mallory", PROGRAM).output().unwrap();
    assert!(
        output.status.code() == Some(1) && output.stderr.starts_with(b"podsecd: podsecd must run as root")
    );
    // A second one does not push the first aside.
    let second = podsecd(&[]);
    let told = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(1) && told.contains("/run/podsec/podsecd.sock"), "{told}");
    people::ctl("mallory", &["whoami"]);
}

fn places_that_are_not_roots(oracle: &mut Oracle) {
    host::stop_daemon("TERM");
    for path in ["/var/log/podsec", "/var/lib/podsec", "/run/podsec", LOG] {
        chown(path, Some(1101), None).unwrap();
        let output = podsecd(&[]);
        chown(path, Some(0), None).unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{path}: {output:?}");
        // Without CAP_DAC_OVERRIDE root itself is kept out of what is somebody else's alone.
        let why = ["not root's alone", "Permission denied"];
        assert!(told.contains(path) && why.iter().any(|why| told.contains(why)), "{told}");
    }
    host::start_daemon(None);
    oracle.expect_new_daemon();
}

fn accounts_and_programs_are_missing(oracle: &mut Oracle) {
    let configured = host::Configured::with("[accounts]\nfront = \"nobody-at-all\"\n");
    assert_eq!(outcome("mallory", &["whoami"]), (75, "closed".into()));
    assert!(host::daemon_log().contains("no user nobody-at-all on this host"), "{}", host::daemon_log());
    drop(configured);
    assert_eq!(people::enter(ALICE, &["echo", "here"]), "here\n");
    oracle.expect_new_daemon();
    // Programs that are not there: an upgrade that went wrong. podsecd goes on, and works when they are there again.
    for (name, broken) in [("podsecd-front", (75, "closed")), ("podsecd-worker", (75, "resources"))] {
        let (path, aside) = (format!("/usr/libexec/podsec/{name}"), format!("/usr/libexec/{name}.aside"));
        fs::rename(&path, &aside).unwrap();
        // Those that are kept ready are still there.
        let seen: BTreeSet<_> = (0..6).map(|_| outcome(ALICE, &["enter", "--", "true"])).collect();
        fs::rename(&aside, &path).unwrap();
        assert!(seen.contains(&(broken.0, broken.1.to_owned())), "{name}: {seen:?}");
        let works = || outcome(ALICE, &["enter", "--", "true"]).0 == 0;
        host::within(Duration::from_secs(3), "all to work again", works);
    }
    for record in oracle.audit().iter().filter(|record| text(record, "phase") == "deny") {
        assert_eq!(text(record, "reason"), "resources", "{record}");
    }
    // What is kept ready is tried again after a second.
    std::thread::sleep(Duration::from_millis(1200));
}

fn environment_of_whoever_starts_it(oracle: &mut Oracle) {
    let usual = people::enter(ALICE, &["env"]);
    host::stop_daemon("TERM");
    let evil = "/run/podsec-tests/evil";
    let _ = fs::create_dir(evil);
    let names =
        ["LD_PRELOAD", "LD_LIBRARY_PATH", "GCONV_PATH", "MALLOC_PERTURB_", "BASH_ENV", "HOME", "PATH", "IFS"];
    let mut environment: Vec<_> = names.iter().map(|&name| (name, evil)).collect();
    environment.extend([("TZ", "/etc/shadow"), ("RUST_LOG", "trace"), ("TOKIO_WORKER_THREADS", "64")]);
    let mut podsecd = launch(&environment);
    host::wait_for("podsecd", || outcome("mallory", &["whoami"]).0 == 0);
    assert_eq!(people::enter(ALICE, &["env"]), usual);
    // Nothing of it reaches those that podsecd starts.
    std::thread::sleep(Duration::from_millis(100));
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", podsecd.id())).unwrap();
    assert!(children.split_whitespace().count() >= 2, "{children}");
    for child in children.split_whitespace() {
        let environment = fs::read(format!("/proc/{child}/environ")).unwrap();
        assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
    }
    host::kill(host::daemon_pid(), "TERM");
    podsecd.wait().unwrap();
    host::start_daemon(None);
    oracle.expect_new_daemon();
}
