//! What must hold after every test, attack or not: the host is as it was, podsecd is the same and well, nothing is
//! left over, and the audit has exactly what was expected.

use crate::{host, people};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FILES: [&str; 8] = [
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/gshadow",
    "/etc/subuid",
    "/etc/subgid",
    "/etc/hosts",
    "/etc/nsswitch.conf",
];
const TREES: [&str; 6] = [
    "/etc/containers",
    "/var/sigstore",
    "/usr/libexec/podsec",
    "/var/lib/podsec/users",
    "/var/lib/podsec/keys",
    "/var/lib/podsec/journal",
];

/// Fronts and workers that podsecd keeps ready.
const WARM: usize = 4;

/// The host before a test.
pub struct Oracle {
    files: BTreeMap<String, String>,
    /// What pwck(8) and grpck(8) have to say: accounts of this machine may lack a home.
    complaints: String,
    daemon: i32,
    descriptors: usize,
    ptys: usize,
    processes: usize,
    cgroups: usize,
    audit: usize,
}

impl Oracle {
    /// Looks.
    pub fn before() -> Self {
        if !host::is_alive(host::daemon_pid()) {
            // The test before failed where there was none; that is no reason for this one to fail too.
            host::start_daemon(None);
        }
        settle();
        // After a test that let podsecd start nothing it waits for a second before it tries again: until then it has less open
        // than it will have when nothing was lost.
        let end = Instant::now() + Duration::from_millis(1500);
        while children(host::daemon_pid(), |_| true) < WARM && Instant::now() < end {
            settle();
        }
        Self {
            files: files(),
            complaints: complaints(),
            daemon: host::daemon_pid(),
            descriptors: descriptors(host::daemon_pid()),
            ptys: ptys(),
            processes: processes(),
            cgroups: cgroups(),
            audit: audit().len(),
        }
    }

    /// Records written since.
    pub fn audit(&self) -> Vec<serde_json::Value> {
        // A session's client hears of the end before the record does.
        settle();
        self.audit_now()
    }

    /// The same for what is recorded before it is answered: everything but the end of a session.
    pub fn audit_now(&self) -> Vec<serde_json::Value> {
        records_after(self.audit)
    }

    /// Restarts podsecd. The old one writes how many refusals it has only counted; the new one counts from the beginning.
    pub fn restart_daemon(&mut self) {
        host::stop_daemon("TERM");
        host::start_daemon(None);
        self.expect_new_daemon();
    }

    /// For a test that restarts podsecd on purpose.
    pub fn expect_new_daemon(&mut self) {
        self.daemon = host::daemon_pid();
    }

    /// Looks again and compares.
    pub fn check(&self) {
        assert_eq!(host::daemon_pid(), self.daemon, "podsecd was restarted");
        assert!(host::is_alive(self.daemon), "podsecd is gone\n{}", host::daemon_log());
        let start = Instant::now();
        people::ctl(people::MALLORY, &["whoami"]);
        assert!(start.elapsed() < Duration::from_secs(1), "podsecd answers after {:?}", start.elapsed());
        settle();
        assert_eq!(files(), self.files, "files of the host were changed");
        assert_eq!(complaints(), self.complaints, "pwck and grpck");
        let back = |what: &str, now: &dyn Fn() -> usize, then: usize| {
            host::within(Duration::from_secs(8), &format!("{what}: {} now, {then} before", now()), || {
                now() <= then
            });
        };
        // A warm worker or front more or less is no leak.
        back("descriptors of podsecd", &|| descriptors(self.daemon), self.descriptors + 4);
        back("terminals", &ptys, self.ptys);
        back("processes", &processes, self.processes + 2);
        back("control groups", &cgroups, self.cgroups);
        assert_eq!(zombies(self.daemon), 0, "podsecd does not reap");
        people::ctl(people::ROOT, &["audit", "verify"]);
        assert!(Path::new("/root/pwn").symlink_metadata().is_err(), "something ran as root");
    }
}

/// Lets warm processes come up again.
fn settle() {
    std::thread::sleep(Duration::from_millis(30));
}

/// All records.
pub fn audit() -> Vec<serde_json::Value> {
    records_after(0)
}

/// All but so many, of the file and of those that rotation left beside it, in the order of their numbers.
fn records_after(count: usize) -> Vec<serde_json::Value> {
    let record = |line: &str| -> serde_json::Value {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
    };
    let entries = std::fs::read_dir("/var/log/podsec").into_iter().flatten().flatten();
    let logs = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("audit.jsonl"));
    let mut texts: Vec<_> = logs.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).collect();
    texts.sort_by_cached_key(|text| text.lines().next().and_then(|line| record(line)["seq"].as_u64()));
    texts.iter().flat_map(|text| text.lines()).skip(count).map(record).collect()
}

/// The one refusal since, with its reason; a test may cause any number of permitted operations beside.
pub fn the_denial(oracle: &Oracle) -> serde_json::Value {
    let mut denials: Vec<_> = oracle.audit().into_iter().filter(|record| record["phase"] == "deny").collect();
    assert_eq!(denials.len(), 1, "{denials:#?}");
    denials.remove(0)
}

/// Of the account files.
pub fn complaints() -> String {
    let check = |program: &str| {
        let output = Command::new(program).arg("-r").stdin(Stdio::null()).output().expect(program);
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    check("/usr/sbin/pwck") + &check("/usr/sbin/grpck")
}

/// Hashes of the files that podsec must not change, or change back.
pub fn files() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut add = |path: &Path| {
        if let Ok(bytes) = std::fs::read(path) {
            found.insert(path.display().to_string(), podsec_policy::audit::hex(&Sha256::digest(bytes)));
        }
    };
    FILES.iter().for_each(|path| add(Path::new(path)));
    let mut trees: Vec<_> = TREES.iter().map(|tree| Path::new(tree).to_owned()).collect();
    while let Some(directory) = trees.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => trees.push(entry.path()),
                _ => add(&entry.path()),
            }
        }
    }
    found
}

/// Open descriptors of a process.
pub fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Terminals in use.
pub fn ptys() -> usize {
    std::fs::read_dir("/dev/pts").map_or(0, Iterator::count)
}

fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Live processes of the host.
pub fn processes() -> usize {
    pids().into_iter().filter(|&pid| host::is_alive(pid)).count()
}

fn zombies(parent: i32) -> usize {
    std::thread::sleep(Duration::from_millis(20));
    children(parent, |state| state == "Z")
}

/// How many children it has in such a state, proc_pid_stat(5).
fn children(parent: i32, state: impl Fn(&str) -> bool) -> usize {
    let is_one = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ');
        fields.next().is_some_and(&state) && fields.next() == Some(&parent.to_string())
    };
    pids().iter().filter(|pid| is_one(pid)).count()
}

fn cgroups() -> usize {
    let mut count = 0;
    let mut trees = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(directory) = trees.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                count += 1;
                trees.push(entry.path());
            }
        }
    }
    count
}
