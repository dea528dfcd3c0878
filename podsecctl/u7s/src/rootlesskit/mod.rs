//! rootlesskit, as it shows itself: its state directory, its API, its command line.
//!
//! Owns: names and formats of these files, and telling whether the namespaces are up. Must not: take a pid from a file
//! for more than a hint; whoever enters checks by pidfd that it is what it should be.
//! Source: pkg/parent/parent.go and docs of rootlesskit 1.1.0 and 2.0.2.

pub mod api;
pub mod command;
mod http;

use crate::files;
use api::{Api, ApiError, Info};
use rustix::fs::{FlockOperation, Mode};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const CHILD_PID: &str = "child_pid";
const API_SOCKET: &str = "api.sock";
const LOCK: &str = "lock";
const READY: &str = "ready";

/// A pid file is ten digits at most; /proc/locks has a line per lock of the whole host.
const PID_LIMIT: usize = 32;
const LOCKS_LIMIT: usize = 4 * 1024 * 1024;

/// A process's number that can be a rootlesskit child's: 2 to 2^22 (`PID_MAX_LIMIT`, proc(5)), never init.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Pid(u32);

/// Why a text or a number is not such a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PidError {
    /// Anything but digits.
    #[error("character {0} is not a digit of a pid")]
    Character(usize),
    /// None, too many, or a zero in front.
    #[error("a pid has one to seven digits and no zero in front")]
    Form,
    /// 0, 1 or too large.
    #[error("{0} cannot be the pid of a rootlesskit child")]
    Range(u32),
}

impl Pid {
    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }

    /// Reads the whole content of a pid file.
    ///
    /// # Errors
    /// [`PidError`], with the position.
    pub fn parse(bytes: &[u8]) -> Result<Self, PidError> {
        if let Some(index) = bytes.iter().position(|byte| !byte.is_ascii_digit()) {
            return Err(PidError::Character(index + 1));
        }
        if !(1..=7).contains(&bytes.len()) || bytes.starts_with(b"0") {
            return Err(PidError::Form);
        }
        let number = bytes.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
        Self::try_from(number)
    }
}

impl TryFrom<u32> for Pid {
    type Error = PidError;
    fn try_from(number: u32) -> Result<Self, PidError> {
        if (2..=1 << 22).contains(&number) { Ok(Self(number)) } else { Err(PidError::Range(number)) }
    }
}

impl From<Pid> for u32 {
    fn from(pid: Pid) -> Self {
        pid.0
    }
}

impl fmt::Display for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a file of the state directory says nothing.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct StateError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub source: io::Error,
}

/// How far the namespaces are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Set up; can be entered.
    Ready,
    /// On the way there.
    Starting,
    /// Not there.
    Down,
}

/// What the state directory and the API say together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// How far.
    pub phase: Phase,
    /// One sentence: why, and what to do.
    pub why: String,
    /// The first process inside, as the host sees it. A hint.
    pub child: Option<Pid>,
    /// rootlesskit itself. A hint.
    pub parent: Option<Pid>,
    /// What the API tells, when it answers.
    pub info: Option<Info>,
}

/// The directory that holds the readiness marker, and rootlesskit's own state directory.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Nothing is opened yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// rootlesskit's `--state-dir`.
    #[must_use]
    pub fn rootlesskit(&self) -> PathBuf {
        self.0.join("rootlesskit")
    }

    /// The file that names the first process inside; rootlesskit writes it before the namespaces are usable.
    #[must_use]
    pub fn child_pid_path(&self) -> PathBuf {
        self.rootlesskit().join(CHILD_PID)
    }

    /// rootlesskit's API.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(self.rootlesskit().join(API_SOCKET))
    }

    /// What `child_pid` says; `None` where it is missing. A hint.
    ///
    /// # Errors
    /// [`StateError`]: not a small regular file with a pid in it.
    pub fn child_pid(&self) -> Result<Option<Pid>, StateError> {
        pid_file(self.child_pid_path())
    }

    /// What the readiness marker says; the namespaces are ready while it equals [`StateDir::child_pid`].
    ///
    /// # Errors
    /// [`StateError`]: not a small regular file with a pid in it.
    pub fn ready(&self) -> Result<Option<Pid>, StateError> {
        pid_file(self.0.join(READY))
    }

    /// Says that the namespaces around `child` are set up.
    ///
    /// # Errors
    /// The system's reason.
    pub fn mark_ready(&self, child: Pid) -> io::Result<()> {
        let directory = files::directory(&self.0)?;
        files::replace(&directory, READY, child.to_string().as_bytes(), Mode::from_raw_mode(0o644))
    }

    /// Takes that back.
    ///
    /// # Errors
    /// The system's reason.
    pub fn unmark_ready(&self) -> io::Result<()> {
        files::unlink(&files::directory(&self.0)?, READY)
    }

    /// Takes rootlesskit's lock, if no rootlesskit has it, and removes what a killed one left: files that tell of
    /// namespaces that are gone. The lock lasts as long as the returned descriptor.
    ///
    /// # Errors
    /// `WouldBlock` when a rootlesskit runs; the system's reason.
    pub fn clear_stale(&self) -> io::Result<OwnedFd> {
        let mut options = File::options();
        // As rootlesskit opens it (github.com/gofrs/flock). It removes the lock with the directory when it ends well.
        let lock = options.read(true).write(true).create(true).mode(0o600);
        let lock = lock.custom_flags(i32::try_from(rustix::fs::OFlags::NOFOLLOW.bits()).unwrap_or(0));
        let lock = lock.open(self.rootlesskit().join(LOCK))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        self.unmark_ready()?;
        let directory = files::directory(&self.rootlesskit())?;
        files::unlink(&directory, CHILD_PID)?;
        files::unlink(&directory, API_SOCKET)?;
        Ok(lock.into())
    }

    /// The process that holds rootlesskit's lock, from the list of all locks: trying the lock would take it for a
    /// moment, and a rootlesskit that starts in that moment would give up.
    #[must_use]
    pub fn holder(&self) -> Option<Pid> {
        let lock = self.rootlesskit().join(LOCK).metadata().ok()?;
        let locks = files::read(Path::new("/proc/locks"), LOCKS_LIMIT).ok()??;
        holder(&String::from_utf8_lossy(&locks), lock.dev(), lock.ino())
    }

    /// How far the namespaces are, and why.
    #[must_use]
    pub fn status(&self) -> Status {
        let (mut child, parent) = (None, self.holder());
        let mut info = None;
        let (phase, why) = match self.look(&mut child, &mut info) {
            Ok(known) => known,
            Err(Unknown::State(error)) => (Phase::Down, format!("unreadable state: {error}")),
            Err(Unknown::Api(error)) => (Phase::Down, error.to_string()),
        };
        // Between the lock and the API a rootlesskit is on its way, whatever an earlier one left.
        let starting = info.is_none() && parent.is_some() && phase == Phase::Down;
        let (phase, why) = if starting {
            (Phase::Starting, "rootlesskit runs and its namespaces are not set up yet".to_owned())
        } else {
            (phase, why)
        };
        Status { phase, why, child, parent, info }
    }

    fn look(&self, child: &mut Option<Pid>, info: &mut Option<Info>) -> Result<(Phase, String), Unknown> {
        *child = self.child_pid().map_err(Unknown::State)?;
        match self.api().info() {
            Ok(answer) => *info = Some(answer),
            Err(ApiError::NotRunning) if child.is_some() => {
                let why = "rootlesskit was killed; systemctl restart podsec-u7s clears what it left";
                return Ok((Phase::Down, why.to_owned()));
            }
            Err(error) => return Err(Unknown::Api(error)),
        }
        let (Some(child), Some(info)) = (*child, info) else {
            return Ok((Phase::Starting, "rootlesskit has not named its child yet".to_owned()));
        };
        if child != info.child_pid {
            let why = format!(
                "{} says pid {child}, rootlesskit says {}",
                self.child_pid_path().display(),
                info.child_pid
            );
            return Ok((Phase::Down, why));
        }
        Ok(match self.ready().map_err(Unknown::State)? {
            Some(marker) if marker == child => (Phase::Ready, "the namespaces are set up".to_owned()),
            _ => (Phase::Starting, "the namespaces are there and still being set up".to_owned()),
        })
    }
}

enum Unknown {
    State(StateError),
    Api(ApiError),
}

fn pid_file(path: PathBuf) -> Result<Option<Pid>, StateError> {
    let read = files::read(&path, PID_LIMIT).and_then(|bytes| {
        bytes
            .map(|bytes| Pid::parse(&bytes))
            .transpose()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    read.map_err(|source| StateError { path, source })
}

/// Finds an exclusive flock in the text of /proc/locks (proc_locks(5)):
/// `1: FLOCK  ADVISORY  WRITE 1234 00:1a:5678 0 EOF`, device in hex, inode in decimal.
fn holder(locks: &str, device: u64, inode: u64) -> Option<Pid> {
    let wanted = format!("{:02x}:{:02x}:{inode}", rustix::fs::major(device), rustix::fs::minor(device));
    locks.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let kind = (words.next()?, words.next()?, words.next()?);
        let (pid, file) = (words.next()?, words.next()?);
        (kind == ("FLOCK", "ADVISORY", "WRITE") && file == wanted).then(|| Pid::parse(pid.as_bytes()).ok())?
    })
}

/// Whether an error of [`StateDir::clear_stale`] says that a rootlesskit runs.
#[must_use]
pub fn is_running(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::WOULDBLOCK.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Scratch;
    use proptest::prelude::*;
    use std::os::unix::fs::symlink;

    fn state() -> (Scratch, StateDir) {
        let scratch = Scratch::new();
        let state = StateDir::new(&scratch.0);
        std::fs::create_dir(state.rootlesskit()).unwrap();
        (scratch, state)
    }

    fn put(state: &StateDir, name: &str, text: &str) {
        let directory = files::directory(&state.rootlesskit()).unwrap();
        files::replace(&directory, name, text.as_bytes(), Mode::from_raw_mode(0o644)).unwrap();
    }

    #[test]
    fn child_pid_is_digits_and_nothing_else() {
        assert_eq!(Pid::parse(b"27").unwrap().get(), 27);
        assert_eq!(Pid::parse(b"4194304").unwrap().get(), 4_194_304);
        for (text, error) in [
            (&b""[..], PidError::Form),
            (b"027", PidError::Form),
            (b"99999999999", PidError::Form),
            (b"0", PidError::Form),
            (b"1", PidError::Range(1)),
            (b"4194305", PidError::Range(4_194_305)),
            (b"27\n", PidError::Character(3)),
            (b"-1", PidError::Character(1)),
            (b"2 7", PidError::Character(2)),
            (b"0x1b", PidError::Character(2)),
            (b"\xff", PidError::Character(1)),
        ] {
            assert_eq!(Pid::parse(text), Err(error), "{text:?}");
        }
    }

    #[test]
    fn a_forged_child_pid_is_an_error_that_names_the_file() {
        let (_scratch, state) = state();
        assert!(state.child_pid().unwrap().is_none());
        put(&state, CHILD_PID, "12 34");
        let error = state.child_pid().unwrap_err().to_string();
        assert!(error.contains("rootlesskit/child_pid: character 3"), "{error}");
        put(&state, CHILD_PID, &"1".repeat(33));
        assert!(state.child_pid().unwrap_err().to_string().contains("longer"));
        std::fs::remove_file(state.child_pid_path()).unwrap();
        symlink("/proc/self/loginuid", state.child_pid_path()).unwrap();
        assert!(state.child_pid().unwrap_err().to_string().contains("symbolic link"));
        assert_eq!(state.status().phase, Phase::Down);
    }

    #[test]
    fn clearing_removes_what_a_killed_rootlesskit_left_and_only_then() {
        let (_scratch, state) = state();
        let files = |state: &StateDir| (state.child_pid().unwrap(), state.ready().unwrap());
        let pid = Pid::parse(b"27").unwrap();
        put(&state, CHILD_PID, "27");
        put(&state, API_SOCKET, "");
        state.mark_ready(pid).unwrap();
        let why = state.status().why;
        assert!(why.contains("killed"), "{why}");

        let held = File::create(state.rootlesskit().join(LOCK)).unwrap();
        rustix::fs::flock(&held, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert!(is_running(&state.clear_stale().unwrap_err()));
        assert_eq!(files(&state), (Some(pid), Some(pid)));
        assert_eq!(state.holder().map(Pid::get), Some(std::process::id()));
        assert_eq!(state.status().phase, Phase::Starting);

        drop(held);
        assert_eq!(state.holder(), None);
        let lock = state.clear_stale().unwrap();
        assert_eq!(files(&state), (None, None));
        assert!(!state.rootlesskit().join(API_SOCKET).exists());
        assert!(state.holder().is_some());
        drop(lock);
        assert_eq!(state.status().phase, Phase::Down);
    }

    #[test]
    fn finds_the_holder_of_one_lock_among_all() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 08:01:77 0 EOF\n2: FLOCK  ADVISORY  READ 12 08:01:77 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 13 08:01:77 0 EOF\n3: FLOCK  ADVISORY  WRITE 14 08:01:778 0 EOF\n\
                     4: FLOCK  ADVISORY  WRITE 15 08:01:77 0 EOF\n";
        assert_eq!(holder(locks, rustix::fs::makedev(8, 1), 77).map(Pid::get), Some(15));
        assert_eq!(holder(locks, rustix::fs::makedev(8, 2), 77), None);
    }

    proptest! {
        #[test]
        fn a_pid_is_written_as_it_is_read(number: u32) {
            let text = number.to_string();
            prop_assert_eq!(Pid::parse(text.as_bytes()).is_ok(), Pid::try_from(number).is_ok());
            if let Ok(pid) = Pid::parse(text.as_bytes()) {
                prop_assert_eq!(pid.to_string(), text);
            }
        }

        #[test]
        fn no_text_of_locks_makes_the_reader_panic(text in "([0-9:a-zA-Z>-]{0,9} {0,2}){0,9}\n?") {
            let _ = holder(&text, 1, 1);
        }
    }
}
