//! The guard rail of an image user: a policy.json in his own configuration, since containers-policy.json(5) takes that one
//! before the host's. It is a link to the host's, so that one file decides for all. Its directory is root's, and that and
//! `~/.config` get the attribute `i` of chattr(1), because whoever owns a directory may rename what is in it: one of the
//! two alone is got around.
//!
//! It keeps people from mistakes. It is not containment: they may run another program, or with another HOME.

use super::Entry;
use crate::Failure;
use crate::store::{at, public_directory};
use podsec_policy::reason::Reason;
use podsec_sys::file::{self, Directory, is_immutable, set_immutable};
use podsec_sys::nix::fcntl::OFlag;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const CONFIG: &str = ".config";
const CONTAINERS: &str = "containers";
const POLICY: &str = "policy.json";
/// Where podman 4 keeps a user's networks. It makes the directory even for a container without a network, which it could not
/// once `~/.config` is immutable.
const NETWORKS: &str = "cni";
/// What image users are held to: a link to the host's policy once there is trust, before that a file that rejects all.
pub const USER_POLICY: &str = "/etc/podsec/user-policy.json";
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
    let Some((config, containers)) = parts(entry)? else { return Ok(State::Absent) };
    let roots = containers.metadata().is_ok_and(|meta| meta.uid() == 0 && meta.mode() & 0o022 == 0);
    let usable = is_taken(&config, NETWORKS) && Path::new(USER_POLICY).exists();
    if !roots || !is_linked(&containers) || !usable {
        return Ok(State::Absent);
    }
    let fixed = [is_immutable(&config), is_immutable(&containers)];
    if fixed.iter().any(|fixed| fixed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Unsupported))
    {
        return Ok(State::Movable);
    }
    Ok(if fixed.into_iter().all(|fixed| fixed.unwrap_or(false)) { State::Fixed } else { State::Absent })
}

/// Is there anything of that name? What the user has there is his.
fn is_taken(at: &Directory, name: &str) -> bool {
    at.names().is_ok_and(|names| names.iter().any(|there| there.as_bytes() == name.as_bytes()))
}

fn is_linked(containers: &Directory) -> bool {
    containers.read_link(POLICY).is_ok_and(|target| target == Path::new(USER_POLICY))
}

/// What there is of it.
fn parts(entry: &Entry) -> Result<Option<(Directory, Directory)>, Failure> {
    let home = home(entry)?;
    let found = || -> io::Result<_> {
        let config = home.directory(Path::new(CONFIG))?;
        let containers = config.directory(Path::new(CONTAINERS))?;
        Ok((config, containers))
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
    if !is_taken(&config, NETWORKS) {
        make(&config, NETWORKS, (account.uid, account.gid)).map_err(failed)?;
    }
    let containers = make(&config, CONTAINERS, (0, 0)).map_err(failed)?;
    if containers.metadata().map_err(failed)?.uid() != 0 {
        return Err(trap(entry, "~/.config/containers is the user's own; let him move it away"));
    }
    release(&containers).map_err(failed)?;
    if let Ok(old) = containers.open_beneath(Path::new(POLICY), OFlag::O_RDONLY, 0) {
        release(&old).map_err(failed)?;
    }
    containers.remove_tree(POLICY).map_err(failed)?;
    make_user_policy()?;
    containers.make_link(POLICY, Path::new(USER_POLICY)).map_err(failed)?;
    let mut state = State::Fixed;
    for result in [set_immutable(&containers, true), set_immutable(&config, true)] {
        match result {
            Err(error) if is_unable(&error) => state = State::Movable,
            result => result.map_err(failed)?,
        }
    }
    // Until now he could rename what was held here, and put another in its place.
    let there =
        parts(entry)?.filter(|(_, there)| is_linked(there)).and_then(|(_, there)| there.metadata().ok());
    let ours = containers.metadata().map_err(failed)?;
    if there.is_none_or(|there| (there.dev(), there.ino()) != (ours.dev(), ours.ino())) {
        for moved in [containers.as_fd(), config.as_fd()] {
            release(&moved).map_err(failed)?;
        }
        return Err(trap(entry, "somebody moved ~/.config meanwhile"));
    }
    Ok(state)
}

/// Until there is trust, nothing runs.
fn make_user_policy() -> Result<(), Failure> {
    let path = Path::new(USER_POLICY);
    if path.symlink_metadata().is_ok() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        public_directory(parent)?;
    }
    file::replace(path, STRICT, 0o644).map_err(at(path))
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
    let Some((config, containers)) = parts(entry)? else { return Ok(()) };
    let lifted = || -> io::Result<()> {
        release(&config)?;
        if containers.metadata()?.uid() != 0 {
            return Ok(());
        }
        release(&containers)?;
        config.remove_tree(CONTAINERS)
    };
    lifted().map_err(|error| trap(entry, &format!("the guard cannot be lifted: {error}")))
}

/// Is there anything to be lifted?
///
/// # Errors
/// `HomeTrap`
pub fn is_there(entry: &Entry) -> Result<bool, Failure> {
    let Some((config, containers)) = parts(entry)? else { return Ok(false) };
    let roots = containers.metadata().is_ok_and(|meta| meta.uid() == 0);
    Ok(roots || is_immutable(&config).unwrap_or(false))
}
