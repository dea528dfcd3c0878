//! What the gate takes while it does nothing, and after many entries.

use crate::figure::{Bound, Figure};
use crate::helper::Spawner;
use podsec_tests::host;
use podsec_tests::people::ALICE;
use std::time::Duration;

/// KiB of a `VmRSS:` line or the like, proc_pid_status(5), proc_pid_smaps(5).
pub fn kib(pid: i32, file: &str, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let value =
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')?.trim().strip_suffix(" kB"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(f64::NAN)
}

/// Resident memory of the gate.
pub fn gate() -> f64 {
    kib(host::daemon_pid(), "status", "VmRSS")
}

pub fn run(rounds: usize) -> Vec<Figure> {
    let quiet = || std::thread::sleep(Duration::from_millis(300));
    quiet();
    let idle = gate();
    let enter = ["/usr/bin/podsecctl", "enter", "--", "true"].map(str::to_owned).to_vec();
    let mut alice = Spawner::start(ALICE, &[enter]);
    (0..rounds).for_each(|_| _ = alice.time(0));
    quiet();
    let figure =
        |what: String, kib: f64| Figure::new("memory", what, "MiB", kib / 1024.0).bound(Bound::AtMost(2.0));
    vec![
        figure("gate, RSS when idle".into(), idle),
        figure(format!("gate, RSS after {rounds} entries"), gate()),
    ]
}
