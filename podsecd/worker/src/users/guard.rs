//! The guard rail of an image user: a strict policy.json in his own configuration, since containers-policy.json(5) takes
//! that one before the host's. It is root's, and so is its directory; both, and `~/.config`, get the attribute `i` of
//! chattr(1), because whoever owns a directory may rename what is in it: one of the two alone is got around.
//!
//! It keeps people from mistakes. It is not containment: they may run another program, or with another HOME.

use super::Entry;
use crate::Failure;
use podsec_policy::reason::Reason;
use podsec_sys::file::{Directory, is_immutable, set_immutable};
use podsec_sys::nix::fcntl::OFlag;
use std::fs::{File, Metadata, Permissions};
use std::io::{self, Read as _};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

const CONFIG: &str = ".config";
const CONTAINERS: &str = "containers";
const POLICY: &str = "policy.json";
/// Nothing is taken that no scope allows; containers-policy.json(5).
const STRICT: &[u8] =
    b"{\n    \"default\": [\n        {\n            \"type\": \"reject\"\n        }\n    ]\n}\n";

/// How the guard is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not there, or not whole.
    Absent,
    /// There, where the file system cannot keep its owner from renaming it away.
    Movable,
    /// There, and immutable.
    Fixed,
}

/// The home of a user, held; its name may be in a place that is the host's only.
///
/// # Errors
/// `HomeTrap` where it is not a directory of his
pub fn home(entry: &Entry) -> Result<Directory, Failure> {
    let trap = |error: io::Error| trap(entry, &error.to_string());
    let home = Directory::open(&entry.home).map_err(trap)?;
    if home.metadata().map_err(trap)?.uid() != entry.account.uid {
        return Err(self::trap(entry, "the home is somebody else's"));
    }
    Ok(home)
}

fn trap(entry: &Entry, why: &str) -> Failure {
    Failure::new(Reason::HomeTrap, format!("{}: {why}", entry.home.display()))
}

/// Looks at it.
///
/// # Errors
/// `HomeTrap`
pub fn state(entry: &Entry) -> Result<State, Failure> {
    let Some((config, containers, policy)) = parts(entry)? else { return Ok(State::Absent) };
    let whole = [containers.metadata(), policy.metadata()]
        .into_iter()
        .all(|meta| meta.is_ok_and(|meta| is_roots(&meta)));
    if !whole || !is_strict(policy.try_clone()) {
        return Ok(State::Absent);
    }
    let fixed = [is_immutable(&config), is_immutable(&containers), is_immutable(&policy)];
    if fixed.iter().any(|fixed| fixed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Unsupported))
    {
        return Ok(State::Movable);
    }
    Ok(if fixed.into_iter().all(|fixed| fixed.unwrap_or(false)) { State::Fixed } else { State::Absent })
}

fn is_roots(meta: &Metadata) -> bool {
    meta.uid() == 0 && meta.mode() & 0o022 == 0 && (meta.is_dir() || meta.nlink() == 1)
}

fn is_strict(policy: io::Result<File>) -> bool {
    let mut text = Vec::new();
    let read = policy.and_then(|policy| policy.take(4096).read_to_end(&mut text));
    read.is_ok() && text == STRICT
}

/// What there is of it.
fn parts(entry: &Entry) -> Result<Option<(Directory, Directory, File)>, Failure> {
    let home = home(entry)?;
    let found = || -> io::Result<_> {
        let config = home.directory(Path::new(CONFIG))?;
        let containers = config.directory(Path::new(CONTAINERS))?;
        let policy = containers.open_beneath(Path::new(POLICY), OFlag::O_RDONLY, 0)?;
        Ok((config, containers, policy))
    };
    // Something else in their place, a link or a FIFO, is not the guard either.
    Ok(found().ok())
}

/// Puts it there. What the user has in that place is not podsec's to take away.
///
/// # Errors
/// `HomeTrap`
pub fn place(entry: &Entry) -> Result<State, Failure> {
    let failed = |error: io::Error| trap(entry, &format!("{CONFIG}/{CONTAINERS}: {error}"));
    let home = home(entry)?;
    let account = &entry.account;
    let config = make(&home, CONFIG, (account.uid, account.gid)).map_err(failed)?;
    if config.metadata().map_err(failed)?.uid() != account.uid {
        return Err(trap(entry, "~/.config is somebody else's"));
    }
    release(&config).map_err(failed)?;
    let containers = make(&config, CONTAINERS, (0, 0)).map_err(failed)?;
    if containers.metadata().map_err(failed)?.uid() != 0 {
        return Err(trap(entry, "~/.config/containers is the user's own; let him move it away"));
    }
    release(&containers).map_err(failed)?;
    if let Ok(old) = containers.open_beneath(Path::new(POLICY), OFlag::O_RDONLY, 0) {
        release(&old).map_err(failed)?;
    }
    containers.remove_tree(POLICY).map_err(failed)?;
    let policy = containers.make_file(POLICY, STRICT, 0o644).map_err(failed)?;
    policy.set_permissions(Permissions::from_mode(0o644)).and_then(|()| policy.sync_all()).map_err(failed)?;
    let mut state = State::Fixed;
    for result in
        [set_immutable(&policy, true), set_immutable(&containers, true), set_immutable(&config, true)]
    {
        match result {
            Err(error) if is_unable(&error) => state = State::Movable,
            result => result.map_err(failed)?,
        }
    }
    // Until now he could rename what was held here, and put another in its place.
    let there = parts(entry)?.and_then(|(_, _, there)| there.metadata().ok());
    let ours = policy.metadata().map_err(failed)?;
    if there.is_none_or(|there| (there.dev(), there.ino()) != (ours.dev(), ours.ino())) {
        for moved in [policy.as_fd(), containers.as_fd(), config.as_fd()] {
            release(&moved).map_err(failed)?;
        }
        return Err(trap(entry, "somebody moved ~/.config meanwhile"));
    }
    Ok(state)
}

fn make(at: &Directory, name: &str, (uid, gid): (u32, u32)) -> io::Result<Directory> {
    match at.directory(Path::new(name)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            release(at)?;
            let made = at.make(name, 0o755)?;
            made.give(uid, gid, 0o755)?;
            Ok(made)
        }
        found => found,
    }
}

/// The file system has no such attribute, or this host does not let podsec set it.
fn is_unable(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
}

fn release(file: &impl AsFd) -> io::Result<()> {
    match set_immutable(file, false) {
        Err(error) if is_unable(&error) => Ok(()),
        result => result,
    }
}

/// Takes it away, so that the home can be removed like any other.
///
/// # Errors
/// `HomeTrap`
pub fn lift(entry: &Entry) -> Result<(), Failure> {
    let Some((config, containers, policy)) = parts(entry)? else { return Ok(()) };
    let lifted = || -> io::Result<()> {
        release(&config)?;
        if containers.metadata()?.uid() != 0 {
            return Ok(());
        }
        release(&containers)?;
        release(&policy)?;
        config.remove_tree(CONTAINERS)
    };
    lifted().map_err(|error| trap(entry, &format!("the guard cannot be lifted: {error}")))
}

/// Is there anything to be lifted?
///
/// # Errors
/// `HomeTrap`
pub fn is_there(entry: &Entry) -> Result<bool, Failure> {
    let Some((config, containers, _)) = parts(entry)? else { return Ok(false) };
    let roots = containers.metadata().is_ok_and(|meta| meta.uid() == 0);
    Ok(roots || is_immutable(&config).unwrap_or(false))
}
