//! A log with a writer, rotation and crashes, and its watcher.

use super::*;
use crate::kubeapi::event::tests::event;
use crate::kubeapi::opener;
use podsec_policy::finding::{Check, Report};
use proptest::prelude::*;
use std::fs;
use std::io::Write as _;
use std::path::PathBuf;

/// A log with a writer, and its watcher.
struct Place {
    base: PathBuf,
    log: Log,
    watch: Watch,
    /// The last report and place that were written down.
    saved: (Report, Option<Mark>),
    is_first: bool,
    events: usize,
    rotations: usize,
}

impl Place {
    fn new() -> Self {
        static COUNT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let count = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let base = std::env::temp_dir().join(format!("podsec-log-{}-{count}", std::process::id()));
        fs::create_dir(&base).unwrap();
        let report = Report::new(Check::KubeApi);
        Self {
            log: Log::new(base.join("audit.log").display().to_string(), None),
            base,
            watch: Watch::new(report.clone(), Vec::new()),
            saved: (report, None),
            is_first: true,
            events: 0,
            rotations: 0,
        }
    }

    fn append(&self, bytes: &[u8]) {
        let mut options = fs::OpenOptions::new();
        options
            .append(true)
            .create(true)
            .open(self.base.join("audit.log"))
            .unwrap()
            .write_all(bytes)
            .unwrap();
    }

    fn line(&mut self) -> String {
        self.events += 1;
        let mut event = event(&format!("u{}", self.events), "get", "secrets", 403);
        event["auditID"] = format!("{:08}-7d0e-4c86-9d6e-0f5b6a3b4c11", self.events).into();
        format!("{event}\n")
    }

    fn write(&mut self) {
        let line = self.line();
        self.append(line.as_bytes());
    }

    fn stamp(&mut self) -> PathBuf {
        self.rotations += 1;
        self.base.join(format!("audit-2026-11-27T02-03-04.{:03}.log", self.rotations))
    }

    fn rename(&mut self) -> PathBuf {
        let to = self.stamp();
        let _ = fs::rename(self.base.join("audit.log"), &to);
        to
    }

    fn copy_and_truncate(&mut self) -> PathBuf {
        let (from, to) = (self.base.join("audit.log"), self.stamp());
        if fs::copy(&from, &to).is_ok() {
            fs::OpenOptions::new().write(true).truncate(true).open(&from).unwrap();
        }
        to
    }

    fn look(&mut self) {
        let me = podsec_sys::nix::unistd::geteuid().as_raw();
        let mut is_last = false;
        while !is_last {
            let read = self.log.read(&mut self.watch).unwrap();
            if read == Some(true) {
                continue;
            }
            let found = opener::open(&self.base.join("audit.log"), me, true).unwrap();
            is_last = read.is_some() && !self.is_first;
            if !is_last || !self.log.is_current(found.current.as_ref()) {
                self.log.find(found, &mut self.watch).unwrap();
                while self.log.read(&mut self.watch).unwrap() == Some(true) {}
            }
            self.is_first = false;
        }
    }

    fn save(&mut self) {
        let mark = self.log.mark();
        let written = serde_json::to_string(&mark).unwrap();
        self.saved = (self.watch.report.clone(), serde_json::from_str(&written).unwrap());
    }

    /// Killed, and started again.
    fn crash(&mut self) {
        let (report, mark) = self.saved.clone();
        self.log = Log::new(self.log.name().to_owned(), mark);
        self.watch = Watch::new(report, Vec::new());
        self.is_first = true;
    }

    fn restart(&mut self) {
        self.save();
        self.crash();
    }

    /// Every event once, and nothing lost.
    fn check(&mut self) {
        self.look();
        self.look();
        let report = &self.watch.report;
        let counts: Vec<_> = report.findings.values().map(|found| (found.count, &found.finding)).collect();
        assert!(counts.iter().all(|(count, _)| *count == 1), "{counts:#?}");
        assert_eq!((counts.len(), report.lost), (self.events, 0), "{counts:#?}");
        assert_eq!(report.looked_at, self.events as u64);
    }

    fn codes(&self) -> Vec<&str> {
        let mut codes: Vec<_> =
            self.watch.report.findings.values().map(|found| found.finding.kind.code).collect();
        codes.sort_unstable();
        codes.dedup();
        codes
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.base);
    }
}

#[test]
fn a_log_that_is_not_there_yet() {
    let mut place = Place::new();
    place.look();
    assert!(place.log.mark().is_none());
    place.append(b"");
    place.look();
    place.write();
    place.check();
}

#[test]
fn a_torn_line_waits() {
    let mut place = Place::new();
    place.write();
    let line = place.line();
    let (one, other) = line.split_at(100);
    place.append(one.as_bytes());
    place.look();
    assert_eq!(place.watch.report.looked_at, 1);
    place.restart();
    place.look();
    place.append(other.as_bytes());
    place.check();
}

#[test]
fn a_torn_line_that_never_ends_is_counted() {
    for another in [true, false] {
        let mut place = Place::new();
        place.write();
        let line = place.line();
        place.append(&line.as_bytes()[..200]);
        place.look();
        if !another {
            place.rename();
        }
        place.write();
        place.look();
        place.look();
        assert_eq!(place.watch.report.lost, 1);
        assert!(place.codes().contains(&"api-log-malformed"));
    }
}

#[test]
fn rotated_many_times_while_nobody_looked() {
    for rotate in [Place::rename, Place::copy_and_truncate] {
        let mut place = Place::new();
        place.write();
        place.look();
        place.write();
        place.restart();
        for _ in 0..5 {
            place.write();
            rotate(&mut place);
            place.write();
        }
        place.check();
    }
}

#[test]
fn numbers_of_logrotate() {
    let mut place = Place::new();
    place.write();
    place.look();
    place.restart();
    for _ in 0..3 {
        place.write();
        for number in (1..3).rev() {
            let at = |number| place.base.join(format!("audit.log.{number}"));
            let _ = fs::rename(at(number), at(number + 1));
        }
        fs::rename(place.base.join("audit.log"), place.base.join("audit.log.1")).unwrap();
    }
    place.write();
    place.check();
}

/// By copy and truncation: what comes next is longer already than what was there when it was looked at last.
#[test]
fn truncated_and_grown_again() {
    let mut place = Place::new();
    place.write();
    place.look();
    place.copy_and_truncate();
    (0..10).for_each(|_| place.write());
    place.check();
}

/// The writer goes on where it was, and the file system fills up with zeros.
#[test]
fn truncated_under_a_writer_that_does_not_append() {
    let mut place = Place::new();
    place.write();
    place.look();
    let path = place.base.join("audit.log");
    let mut writer = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::io::Seek::seek(&mut writer, io::SeekFrom::End(0)).unwrap();
    place.copy_and_truncate();
    let line = place.line();
    writer.write_all(line.as_bytes()).unwrap();
    place.check();
    place.restart();
    let line = place.line();
    writer.write_all(line.as_bytes()).unwrap();
    place.check();
}

/// Another file that got the inode of one that was deleted is another file.
#[test]
fn an_inode_is_no_identity() {
    let mut place = Place::new();
    (0..3).for_each(|_| place.write());
    place.look();
    let mark = place.log.mark().unwrap();
    place.rename();
    (0..9).for_each(|_| place.write());
    let inode = fs::metadata(place.base.join("audit.log")).unwrap().ino();
    place.log = Log::new(place.log.name().to_owned(), Some(Mark { inode, ..mark }));
    place.is_first = true;
    place.check();
}

#[test]
fn what_was_removed_is_a_gap_and_said_once() {
    for empty in [false, true] {
        let mut place = Place::new();
        place.write();
        place.look();
        place.write();
        place.restart();
        if empty {
            fs::OpenOptions::new().write(true).truncate(true).open(place.base.join("audit.log")).unwrap();
        } else {
            fs::remove_file(place.base.join("audit.log")).unwrap();
        }
        (0..3).for_each(|_| place.look());
        place.restart();
        place.look();
        assert_eq!((place.watch.report.lost, place.codes()), (1, vec!["api-forbidden", "api-log-gap"]));
        place.write();
        place.look();
        place.restart();
        place.look();
        // The first and the third event.
        assert_eq!((place.watch.report.lost, place.watch.report.looked_at), (1, 2));
    }
}

#[test]
fn what_is_open_is_read_to_its_end_though_it_has_no_name_any_more() {
    let mut place = Place::new();
    place.write();
    place.look();
    place.write();
    let rotated = place.rename();
    fs::rename(&rotated, rotated.with_extension("log.gz")).unwrap();
    place.write();
    place.check();
}

#[test]
fn what_was_compressed_before_it_was_read_is_a_gap() {
    let mut place = Place::new();
    place.write();
    place.look();
    place.write();
    place.restart();
    for _ in 0..2 {
        let rotated = place.rename();
        std::thread::sleep(std::time::Duration::from_millis(20));
        podsec_sys::file::replace(&rotated.with_extension("log.gz"), b"x", 0o600).unwrap();
        let _ = fs::remove_file(rotated);
        place.write();
    }
    place.look();
    assert_eq!((place.watch.report.lost, place.watch.report.looked_at), (1, 2));
    let gap = |found: &&podsec_policy::finding::Found| found.finding.kind.code == "api-log-gap";
    let gap = place.watch.report.findings.values().find(gap).unwrap();
    assert!(gap.finding.detail.as_str().ends_with("since: 2"), "{}", gap.finding.detail);
    // At the first look of all it is history.
    let mut place = Place::new();
    place.write();
    podsec_sys::file::replace(&place.base.join("audit.log.1.gz"), b"x", 0o600).unwrap();
    place.check();
}

/// A turn is bounded, and what is longer is read in several.
#[test]
fn a_long_log_takes_turns() {
    let mut place = Place::new();
    let long = "x".repeat(1 << 20);
    let line =
        format!("{{\"kind\":\"Event\",\"apiVersion\":\"audit.k8s.io/v1\",\"userAgent\":\"{long}\"}}\n");
    let count = usize::try_from(TURN).unwrap() / line.len() * 3 / 2;
    place.append(line.repeat(count).as_bytes());
    place.write();
    let me = podsec_sys::nix::unistd::geteuid().as_raw();
    let found = opener::open(&place.base.join("audit.log"), me, true).unwrap();
    assert!(place.log.find(found, &mut place.watch).unwrap());
    assert_eq!(place.log.read(&mut place.watch).unwrap(), Some(true));
    let first = place.watch.report.looked_at;
    assert_eq!(place.log.read(&mut place.watch).unwrap(), Some(false));
    let report = &place.watch.report;
    assert!(first < report.looked_at, "{first}");
    assert_eq!((report.findings.len(), report.looked_at, report.lost), (1, count as u64 + 1, 0));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write,
    Torn,
    Rename,
    CopyAndTruncate,
    Clean,
    Look,
    Save,
    Crash,
    Restart,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// Whatever happens in whatever order: every event is counted once.
    #[test]
    fn nothing_is_lost_and_nothing_comes_twice(
        steps in prop::collection::vec(prop::sample::select(vec![
            Step::Write, Step::Write, Step::Write, Step::Torn, Step::Rename, Step::CopyAndTruncate, Step::Clean,
            Step::Look, Step::Look, Step::Save, Step::Crash, Step::Restart,
        ]), 0..40),
    ) {
        let mut place = Place::new();
        let mut rest: Option<String> = None;
        for step in steps {
            if !matches!(step, Step::Look | Step::Save | Step::Crash | Step::Restart)
                && let Some(rest) = rest.take()
            {
                place.append(rest.as_bytes());
            }
            match step {
                Step::Write => place.write(),
                Step::Torn => {
                    let line = place.line();
                    let (one, other) = line.split_at(line.len() / 2);
                    place.append(one.as_bytes());
                    rest = Some(other.to_owned());
                }
                Step::Rename => drop(place.rename()),
                Step::CopyAndTruncate => drop(place.copy_and_truncate()),
                // Rotation removes what was read long ago.
                Step::Clean => {
                    place.write();
                    place.look();
                    place.save();
                    for entry in fs::read_dir(&place.base).unwrap() {
                        let path = entry.unwrap().path();
                        if path.file_name().unwrap() != "audit.log" {
                            fs::remove_file(path).unwrap();
                        }
                    }
                }
                Step::Look => place.look(),
                Step::Save => place.save(),
                Step::Crash => place.crash(),
                Step::Restart => place.restart(),
            }
        }
        if let Some(rest) = rest {
            place.append(rest.as_bytes());
        }
        place.check();
    }
}
