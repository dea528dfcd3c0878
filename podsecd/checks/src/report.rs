//! Where findings are kept: `/var/lib/podsec-monitor/CHECK/report.json`, one for each check, written by one process at a time.
//! All of it belongs to the user podsec-monitor, who can do nothing else, and whoever reads or writes it is that user.

use podsec_policy::finding::{Check, Report};
use podsec_sys::credentials::Account;
use podsec_sys::file::{self, FileError};
use podsec_sys::nix::fcntl::Flock;
use podsec_sys::nix::unistd::geteuid;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Of all checks.
pub const ROOT: &str = "/var/lib/podsec-monitor";
/// Whose they are.
pub const USER: &str = "podsec-monitor";
/// Bytes of a report: [`Report::MOST`] findings, each with texts of a few kilobytes at most.
const LONGEST: usize = 64 << 20;

/// The user podsec-monitor.
///
/// # Errors
/// he is not on this host
pub fn account() -> Result<Account, String> {
    let passwd = std::fs::read_to_string("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
    let found = podsec_policy::accounts::account(&passwd, USER)
        .ok_or_else(|| format!("the user {USER} is not on this host; systemd-sysusers makes it"))?;
    Ok(Account { uid: found.uid, gid: found.gid, groups: Vec::new() })
}

/// Where a check keeps its report, and what else it must remember.
#[must_use]
pub fn directory(check: Check) -> PathBuf {
    Path::new(ROOT).join(check.name())
}

/// The report itself.
#[must_use]
pub fn path(check: Check) -> PathBuf {
    directory(check).join("report.json")
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// As it was written last, for the user whose it is; a new one if it never was.
///
/// # Errors
/// says what is wrong with which file
pub fn load(check: Check) -> Result<Report, String> {
    let path = path(check);
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let bytes = match file::read_small(&path, geteuid().as_raw(), LONGEST) {
        Ok(bytes) => bytes,
        Err(FileError::Absent) => return Ok(Report::new(check)),
        Err(FileError::Unfit(why)) => return Err(wrong(&why)),
        Err(FileError::Io(error)) => return Err(wrong(&error)),
    };
    let report: Report = serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
    if report.check == check { Ok(report) } else { Err(wrong(&"is of another check")) }
}

/// The old one or the new one, whenever somebody looks.
///
/// # Errors
/// says what is wrong with which file
pub fn save(report: &Report) -> Result<(), String> {
    write(&path(report.check), report, 0o640)
}

/// The same of anything that a monitor remembers, as JSON.
///
/// # Errors
/// says what is wrong with which file
pub fn write(path: &Path, value: &impl Serialize, mode: u32) -> Result<(), String> {
    let written = serde_json::to_vec(value).map_err(io::Error::from);
    written
        .and_then(|bytes| file::replace(path, &bytes, mode))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Waits until nobody else does what this file stands for; that ends with what is returned.
///
/// # Errors
/// names the file
pub fn alone(lock: &Path) -> Result<Flock<File>, String> {
    file::lock(lock).map_err(|error| format!("{}: {error}", lock.display()))
}

/// Number, time and length of a report's file, by which a new one is told: each is a new file, whose number may be that of the
/// one before the last. `None`: there is none yet.
#[must_use]
pub fn version(check: Check) -> Option<(u64, i64, i64, u64)> {
    let meta = std::fs::metadata(path(check)).ok()?;
    Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
}

/// One look at everything. For one process at a time. A report that cannot be read is begun anew, since one that is never
/// mended would say nothing at all.
///
/// # Errors
/// as [`save`]
pub fn replace(check: Check, look: crate::Look, took: std::time::Duration) -> Result<(), String> {
    let _alone = alone(&directory(check).join("lock"))?;
    let mut report = load(check).unwrap_or_else(|error| {
        eprintln!("podsec-monitor: {error}; begun anew");
        Report::new(check)
    });
    let outcome = look.outcome();
    report.looked_at = look.looked_at;
    report.took = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    report.replace(now(), outcome, look.findings);
    save(&report)
}
