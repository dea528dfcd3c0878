//! Many at once, for long: nothing fails, and nothing of it stays.

use crate::Test;
use podsec_tests::host;
use podsec_tests::oracle::{Oracle, descriptors, processes, ptys};
use podsec_tests::people::{self, ALICE};
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("load::entries_by_32_callers", entries_by_32_callers),
    ("load::calls_by_32_callers", calls_by_32_callers),
];

/// What a leak would show in.
#[derive(Clone, Copy)]
struct Taken {
    descriptors: usize,
    processes: usize,
    ptys: usize,
    /// KiB
    memory: u64,
}

impl Taken {
    fn now() -> Self {
        let daemon = host::daemon_pid();
        let status = std::fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let memory = line.split_whitespace().next().unwrap().parse().unwrap();
        Self { descriptors: descriptors(daemon), processes: processes(), ptys: ptys(), memory }
    }

    fn is_back_at(self, before: Self) -> bool {
        self.descriptors <= before.descriptors
            && self.processes <= before.processes
            && self.ptys <= before.ptys
    }
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { descriptors, processes, ptys, memory } = self;
        write!(f, "{descriptors} descriptors, {processes} processes, {ptys} terminals, {memory} KiB")
    }
}

/// Runs commands of `arguments` so often, by 32 callers at once. Every one has to succeed.
fn by_32(times: usize, arguments: impl Fn(usize) -> &'static [&'static str] + Sync) {
    // Once without counting: the first of everything takes memory that stays.
    for round in 0..64 {
        people::ctl(ALICE, arguments(round));
    }
    std::thread::sleep(Duration::from_millis(100));
    let (before, start) = (Taken::now(), Instant::now());
    let (next, took) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                loop {
                    let round = next.fetch_add(1, Ordering::Relaxed);
                    if round >= times {
                        break;
                    }
                    let begin = Instant::now();
                    people::ctl(ALICE, arguments(round));
                    took.lock().unwrap().push(begin.elapsed());
                }
            });
        }
    });
    let seconds = start.elapsed().as_secs_f64();
    let mut took = took.into_inner().unwrap();
    took.sort();
    let at = |share: usize| took[(took.len() * share).div_ceil(100) - 1];
    println!(
        "{:.0} a second; p50 {:.1?}, p99 {:.1?}, max {:.1?}",
        times as f64 / seconds,
        at(50),
        at(99),
        at(100)
    );
    host::wait_for("all to be back", || Taken::now().is_back_at(before));
    let after = Taken::now();
    println!("before: {before}; after: {after}");
    assert!(after.memory <= before.memory + 128, "podsecd grew");
}

fn entries_by_32_callers(oracle: &mut Oracle) {
    let times = host::count(1000, 10_000);
    by_32(
        times,
        |round| if round % 10 == 0 { &["enter", "-t", "--", "true"] } else { &["enter", "--", "true"] },
    );
    let records = oracle.audit();
    let count = |phase: &str| records.iter().filter(|record| record["phase"] == phase).count();
    assert_eq!((count("intent"), count("done"), records.len()), (times + 64, times + 64, 2 * (times + 64)));
    let mut ids: Vec<_> = records.iter().map(|record| record["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), times + 64, "an id was given twice");
}

fn calls_by_32_callers(oracle: &mut Oracle) {
    let times = host::count(1000, 10_000);
    by_32(times, |round| match round % 3 {
        0 => &["whoami"],
        1 => &["namespace", "show"],
        _ => &["port", "list"],
    });
    let records = oracle.audit();
    assert!(records.iter().all(|record| record["phase"] == "intent" || record["phase"] == "done"));
}
