//! The monitor containers: what running containers do to their files, in all stores, told by the kernel (fanotify(7)) for whole
//! file systems, so that neither the start nor a new container costs anything for each directory.
//!
//! Processes, each with what its part takes and no more ([`cage`]), and packets between them ([`message`]):
//!
//! ```text
//! source     SYS_ADMIN, DAC_READ_SEARCH   kernel's events → events in stores
//! asker      SETUID, SETGID               where stores are and what containers they have, said by processes that are the owner
//! follower   a store's owner, nothing     events of one store by inotify, where fanotify cannot
//! judge      user podsec-monitor, nothing events → findings → report
//! ```
//!
//! The source sees nothing but the kernel's structures; documents of owners are read by their owners; and who puts all
//! together has no rights. If one ends all do, and systemd starts them again.

mod asker;
mod directories;
mod follower;
mod groups;
mod judge;
mod ledger;
mod message;
mod place;
mod rules;
mod source;

use crate::cage;
use message::{LONGEST, Role, messages, send};
use podsec_sys::credentials::{self, Cap};
use podsec_sys::nix::sys::signal::Signal;
use podsec_sys::{process, socket};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// `[containers]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Days after which what was seen is forgotten.
    pub keep_days: u32,
    /// How bad it is where: the first that fits decides, what no rule fits is judged as usual.
    pub rules: Vec<rules::Rule>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { keep_days: 30, rules: Vec::new() }
    }
}

/// For the judge to write down what it has, at the end.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Bytes of memory of the source.
const MEMORY: u64 = 256 << 20;

fn arguments() -> [String; 2] {
    ["watch".into(), "containers".into()]
}

/// Runs until it is ended.
///
/// # Errors
/// says why it cannot
pub fn run(settings: &Settings) -> Result<(), String> {
    process::forbid_inspection().map_err(|error| error.to_string())?;
    let signals = process::signals(&[Signal::SIGTERM, Signal::SIGINT]).map_err(|error| error.to_string())?;
    let input = process::take_stdin();
    // Only this program itself starts one with such a channel in the place of standard input.
    if socket::kind(&input).is_ok() {
        return part(input, settings);
    }
    begin(&signals).map_err(|error| error.to_string())
}

/// What one of the others does.
fn part(channel: OwnedFd, settings: &Settings) -> Result<(), String> {
    let wrong = |error: io::Error| format!("starting a part of it: {error}");
    let mut buffer = vec![0; LONGEST];
    let (length, descriptors) = socket::receive(&channel, &mut buffer).map_err(wrong)?;
    let role = messages(buffer.get(..length).unwrap_or_default()).next();
    let role = role.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into())).map_err(wrong)?;
    let other = descriptors.into_iter().next();
    // All of them are started from the same file.
    let name = match role {
        Role::Asker => c"podsec-asker",
        Role::Judge => c"podsec-judge",
        Role::Follower { .. } => c"podsec-follower",
    };
    podsec_sys::nix::sys::prctl::set_name(name).map_err(|error| wrong(error.into()))?;
    match (role, other) {
        (Role::Asker, Some(judge)) => {
            credentials::keep_only(&[Cap::CAP_SETUID, Cap::CAP_SETGID]).map_err(wrong)?;
            credentials::no_new_privileges().map_err(wrong)?;
            asker::run(channel, judge)
        }
        (Role::Judge, Some(asker)) => judge::run(channel, asker, settings),
        (Role::Follower { owner, root }, None) => follower::run(channel, owner, &root),
        _ => Err("it is started by another part of itself".into()),
    }
}

/// Starts the others, and is the source.
fn begin(signals: &podsec_sys::nix::sys::signalfd::SignalFd) -> io::Result<()> {
    let start = |role: &Role, with: BorrowedFd<'_>| {
        let (own, other) = socket::pair()?;
        let child = process::start(Path::new("/proc/self/exe"), &arguments(), other.as_fd())?;
        send(&own, role, &[with])?;
        Ok::<_, io::Error>((own, process::open(child)?))
    };
    let (one, other) = socket::pair()?;
    let (asker, _) = start(&Role::Asker, one.as_fd())?;
    let (judge, process) = start(&Role::Judge, other.as_fd())?;
    drop((one, other));
    credentials::keep_only(&[Cap::CAP_SYS_ADMIN, Cap::CAP_DAC_READ_SEARCH])?;
    let mut source = source::Source::new(judge);
    cage::shut(cage::Files::Directories, MEMORY).map_err(io::Error::other)?;
    let ended = source.run(&asker, signals);
    // The judge hears that this was all, and writes down what it has.
    drop(source);
    process::wait_readable(&[process.as_fd()], Some(LAST_WORDS))?;
    ended
}
