//! The cluster user and his namespaces: finding them, becoming him, judging them, joining them.
//!
//! The order is the defence. rootlesskit's `child_pid` is a file that the cluster user can write, so it may name any
//! process at all. A helper that joined first and dropped root later would follow it into the host itself. This one
//! becomes the cluster user first; the kernel then lets it in exactly where the owner of a user namespace may go, and
//! nowhere else. No capability in the host's user namespace is needed, and none is held.

use crate::{Failure, Report};
use podsec_policy::reason::Reason;
use podsec_sys::credentials::Account;
use podsec_sys::file::{FileError, is_owned_by, read_small};
use podsec_sys::namespace::{self, Kind, Namespace};
use podsec_sys::nix;
use podsec_sys::process::{self, Facts, Proc};
use podsec_sys::terminal::Devices;
use podsec_u7s::rootlesskit::{Pid, StateDir};
use podsec_wire::messages::{ClusterUser, Place, Step};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest pid file: rootlesskit writes seven digits at most, and no newline.
const PID_FILE: usize = 32;

/// His credentials.
fn account(user: &ClusterUser) -> Account {
    Account { uid: user.uid, gid: user.gid, groups: user.groups.clone() }
}

/// Becomes the cluster user, for good.
///
/// # Errors
/// [`Reason::Bug`]: the kernel refuses nothing here to whom holds both capabilities
pub fn become_user(user: &ClusterUser) -> Result<(), Failure> {
    account(user).become_it().map_err(|error| Failure::new(Reason::Bug, error))
}

/// The process that rootlesskit names, held, not yet trusted.
#[derive(Debug)]
pub struct Target {
    /// Its number, for reading `/proc` under the descriptor.
    pub pid: i32,
    /// The process itself.
    pub process: OwnedFd,
}

/// The namespaces that podsec itself lives in, by inode.
#[derive(Debug)]
pub struct Host(Vec<(Kind, u64)>);

impl Host {
    /// Before anything is entered.
    pub fn look() -> Self {
        Self(Kind::ALL.into_iter().filter_map(|kind| Some((kind, inode(&Facts::own(), kind)?))).collect())
    }

    fn has(&self, kind: Kind, inode: u64) -> bool {
        self.0.contains(&(kind, inode))
    }
}

/// A namespace of the target, and whether it is apart from the host's.
pub type Found = (Kind, Namespace, bool);

impl Target {
    /// Reads the hint as root with the cluster user's groups: nothing in his directory is followed, waited for or
    /// believed.
    ///
    /// # Errors
    /// down, starting, or a file that is none
    fn find(state: &StateDir, uid: u32) -> Result<Self, Failure> {
        let child = read_pid(&state.child_pid_path(), uid)?.ok_or(Reason::NamespaceDown)?;
        let pid = i32::try_from(child.get()).map_err(|_| Reason::BadPidfile)?;
        let process = process::open(pid).map_err(|_| Reason::NamespaceDown)?;
        // rootlesskit writes child_pid before the child is ready (rootlesskit#37); podsec-u7s says when it is.
        if read_pid(&state.path().join("ready"), uid)? != Some(child) {
            return Err(Reason::NamespaceStarting.into());
        }
        Ok(Self { pid, process })
    }

    /// Goes on in the target's control group, so that the session is limited, counted and ended with the cluster user's
    /// processes and not with podsecd. Only where the group was delegated to him. It takes root's right on the groups
    /// above, and on this one the right that podsec-u7s gives to the cluster user's group.
    ///
    /// # Errors
    /// [`Reason::Cgroup`]
    pub fn join_cgroup(&self, uid: u32, report: &mut Report) -> Result<(), Failure> {
        let failed = |error| Failure::new(Reason::Cgroup, format!("{}: {error}", Reason::Cgroup.sentence()));
        let Some(directory) = cgroup(&Facts::of(self.pid)) else { return Ok(()) };
        if !is_owned_by(&directory, uid) {
            return Ok(());
        }
        let directory = std::fs::File::open(directory).map_err(failed)?;
        process::continue_in_cgroup(directory.as_fd()).map_err(failed)?;
        report.moved().map_err(failed)
    }

    /// As the cluster user: are these his namespaces, all of one user namespace, and none of them the host's?
    ///
    /// # Errors
    /// [`Reason::OwnerMismatch`], [`Reason::NamespaceMixed`], [`Reason::NamespaceGone`]
    pub fn judge(&self, uid: u32, host: &Host) -> Result<Vec<Found>, Failure> {
        let mut found: Vec<Found> = Vec::new();
        for kind in Kind::ALL {
            let namespace = Namespace::of(&self.process, self.pid, kind)
                .map_err(|_| self.gone_or(Reason::OwnerMismatch))?;
            let shared = host.has(kind, namespace.inode());
            found.push((kind, namespace, !shared));
        }
        // What was opened belongs to the held process only if that still lives.
        if process::has_ended(&self.process) {
            return Err(Reason::NamespaceGone.into());
        }
        let Some((Kind::User, user, true)) = found.first() else { return Err(Reason::OwnerMismatch.into()) };
        if user.owner().ok() != Some(uid) {
            return Err(Reason::OwnerMismatch.into());
        }
        // One that a root inside has made for a container of his is the cluster user's as well, but below his own.
        if !user.owning_user_namespace().is_ok_and(|parent| host.has(Kind::User, parent)) {
            return Err(Reason::OwnerMismatch.into());
        }
        let user = user.inode();
        for (kind, namespace, apart) in found.iter().skip(1) {
            let required = matches!(kind, Kind::Mount | Kind::Network | Kind::Pid);
            let his = *apart && namespace.owning_user_namespace().ok() == Some(user);
            // The host's IPC, UTS and cgroup namespaces may be shared; somebody else's may not.
            if !his && (required || *apart) {
                return Err(Reason::NamespaceMixed.into());
            }
        }
        Ok(found)
    }

    /// Enters all that are apart from the host's, in one call: all or none.
    ///
    /// # Errors
    /// [`Reason::Setns`], [`Reason::NamespaceGone`]
    pub fn join(&self, found: &[Found]) -> Result<(), Failure> {
        let kinds: Vec<Kind> = found.iter().filter(|(_, _, apart)| *apart).map(|&(kind, ..)| kind).collect();
        namespace::join(&self.process, &kinds).map_err(|error| match self.gone_or(Reason::Setns) {
            Reason::Setns => Failure::new(Reason::Setns, format!("{}: {error}", Reason::Setns.sentence())),
            gone => gone.into(),
        })
    }

    /// No process could be started inside. In a pid namespace whose first process is on its way out the kernel says that
    /// there is no memory (pid_namespaces(7)).
    pub fn explain_fork(&self, error: &std::io::Error) -> Failure {
        match self.gone_or(Reason::Resources) {
            Reason::Resources => Failure::new(Reason::Resources, error),
            gone => gone.into(),
        }
    }

    /// Did something fail because the process is on its way out? It cannot be looked at a little before it has ended.
    fn gone_or(&self, reason: Reason) -> Reason {
        let gone = process::wait_readable(&[self.process.as_fd()], Some(Duration::from_millis(300)));
        if gone.unwrap_or(false) { Reason::NamespaceGone } else { reason }
    }
}

/// What a process inside has of the two worlds: whose namespaces these are, and what of the host was opened before they
/// were joined, since whatever is mounted over those places inside is the cluster user's.
#[derive(Debug)]
pub struct Inside {
    /// The process whose namespaces these are.
    pub target: Target,
    /// The host's `/proc`.
    pub proc: Proc,
    /// The host's `/dev`.
    pub devices: Devices,
}

impl Inside {
    /// The whole way in.
    ///
    /// # Errors
    /// [`Failure`]; the report has the step
    pub fn enter(place: &Place, host: &Host, report: &mut Report) -> Result<Self, Failure> {
        let bug = |error| Failure::new(Reason::Bug, error);
        let (proc, devices) = (Proc::open().map_err(bug)?, Devices::open().map_err(bug)?);
        report.step(Step::Find);
        let target = find(place)?;
        report.step(Step::Cgroup);
        target.join_cgroup(place.user.uid, report)?;
        report.step(Step::Become);
        become_user(&place.user)?;
        process::leave_keyring();
        report.step(Step::Judge);
        let found = target.judge(place.user.uid, host)?;
        report.step(Step::Join);
        target.join(&found)?;
        Ok(Self { target, proc, devices })
    }
}

/// [`Target::find`], with the cluster user's groups from here on.
///
/// # Errors
/// as there
pub fn find(place: &Place) -> Result<Target, Failure> {
    account(&place.user).take_groups().map_err(|error| Failure::new(Reason::Bug, error))?;
    Target::find(&StateDir::new(&place.state), place.user.uid)
}

fn read_pid(path: &Path, owner: u32) -> Result<Option<Pid>, Failure> {
    let unfit =
        |why: &dyn std::fmt::Display| Failure::new(Reason::BadPidfile, format!("{}: {why}", path.display()));
    match read_small(path, owner, PID_FILE) {
        Ok(bytes) => Pid::parse(&bytes).map(Some).map_err(|error| unfit(&error)),
        Err(FileError::Absent) => Ok(None),
        Err(FileError::Unfit(why)) => Err(unfit(&why)),
        Err(FileError::Io(error)) => Err(unfit(&error)),
    }
}

/// Without opening it: where a link to a namespace can be read at all, its text says `kind:[inode]`.
fn inode(facts: &Facts, kind: Kind) -> Option<u64> {
    let link = std::fs::read_link(facts.path("ns").join(kind.name())).ok()?;
    link.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// The directory of its control group in the unified hierarchy (cgroups(7)), if that is mounted.
fn cgroup(facts: &Facts) -> Option<PathBuf> {
    let text = facts.read("cgroup").ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Above the root of our own cgroup namespace, or climbing: not a place to write to.
    if path.split('/').any(|part| part == "..") {
        return None;
    }
    let unified = |mount: &&str| {
        nix::sys::statfs::statfs(*mount)
            .is_ok_and(|stat| stat.filesystem_type() == nix::sys::statfs::CGROUP2_SUPER_MAGIC)
    };
    let mount = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().find(unified)?;
    Some(Path::new(mount).join(path))
}
