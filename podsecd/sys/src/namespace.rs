//! Namespaces of a process: what they are, whose they are (ioctl_nsfs(2)), and joining them (setns(2)).

use crate::process::Facts;
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;

/// A kind of namespace, namespaces(7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the field's own names")]
pub enum Kind {
    User,
    Mount,
    Network,
    Pid,
    Ipc,
    Uts,
    Cgroup,
}

impl Kind {
    /// All that podsec enters; the user namespace first, since it owns the others.
    pub const ALL: [Self; 7] =
        [Self::User, Self::Mount, Self::Network, Self::Pid, Self::Ipc, Self::Uts, Self::Cgroup];

    /// Its file in `/proc/PID/ns`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Mount => "mnt",
            Self::Network => "net",
            Self::Pid => "pid",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
        }
    }

    fn request(self) -> libc::Ioctl {
        match self {
            Self::User => libc::PIDFD_GET_USER_NAMESPACE,
            Self::Mount => libc::PIDFD_GET_MNT_NAMESPACE,
            Self::Network => libc::PIDFD_GET_NET_NAMESPACE,
            Self::Pid => libc::PIDFD_GET_PID_NAMESPACE,
            Self::Ipc => libc::PIDFD_GET_IPC_NAMESPACE,
            Self::Uts => libc::PIDFD_GET_UTS_NAMESPACE,
            Self::Cgroup => libc::PIDFD_GET_CGROUP_NAMESPACE,
        }
    }

    fn flag(self) -> CloneFlags {
        match self {
            Self::User => CloneFlags::CLONE_NEWUSER,
            Self::Mount => CloneFlags::CLONE_NEWNS,
            Self::Network => CloneFlags::CLONE_NEWNET,
            Self::Pid => CloneFlags::CLONE_NEWPID,
            Self::Ipc => CloneFlags::CLONE_NEWIPC,
            Self::Uts => CloneFlags::CLONE_NEWUTS,
            Self::Cgroup => CloneFlags::CLONE_NEWCGROUP,
        }
    }
}

/// One namespace, held open.
#[derive(Debug)]
pub struct Namespace {
    file: File,
    inode: u64,
}

impl Namespace {
    /// Of the process that is held (`PIDFD_GET_USER_NAMESPACE` and its like, linux/pidfd.h); before Linux 6.11 of
    /// whoever has its number, so look afterwards whether it still lives. Others' are shown only to whom ptrace(2)
    /// would be allowed.
    ///
    /// # Errors
    /// ioctl(2), open(2); `ESRCH` for a process that has ended
    pub fn of(process: &impl AsFd, pid: i32, kind: Kind) -> io::Result<Self> {
        // SAFETY: these requests take no argument and return a descriptor.
        let fd = unsafe { libc::ioctl(process.as_fd().as_raw_fd(), kind.request(), 0) };
        let file = if fd >= 0 {
            // SAFETY: the kernel just made it for us.
            File::from(unsafe { OwnedFd::from_raw_fd(fd) })
        } else {
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)) {
                return Err(error);
            }
            File::open(Facts::of(pid).path("ns").join(kind.name()))?
        };
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode })
    }

    /// What `/proc/PID/ns` shows as `user:[4026531837]`.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// The uid, in our user namespace, that made a user namespace (`NS_GET_OWNER_UID`).
    ///
    /// # Errors
    /// ioctl(2); `EINVAL` when this is not a user namespace
    pub fn owner(&self) -> io::Result<u32> {
        let mut uid: libc::uid_t = u32::MAX;
        // SAFETY: NS_GET_OWNER_UID writes one uid_t to the address given.
        let result = unsafe { libc::ioctl(self.file.as_raw_fd(), NS_GET_OWNER_UID, &raw mut uid) };
        if result == 0 { Ok(uid) } else { Err(io::Error::last_os_error()) }
    }

    /// The inode of the user namespace that owns this one, of a user namespace its parent (`NS_GET_USERNS`).
    ///
    /// # Errors
    /// ioctl(2); `EPERM` when that one is above or beside ours
    pub fn owning_user_namespace(&self) -> io::Result<u64> {
        // SAFETY: NS_GET_USERNS takes no argument and returns a descriptor.
        let fd = unsafe { libc::ioctl(self.file.as_raw_fd(), NS_GET_USERNS) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just made it for us.
        let file = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
        Ok(file.metadata()?.ino())
    }
}

// include/uapi/linux/nsfs.h: _IO(0xb7, 1) and _IO(0xb7, 4)
const NS_GET_USERNS: libc::Ioctl = 0xb701;
const NS_GET_OWNER_UID: libc::Ioctl = 0xb704;

/// Joins the namespaces of these kinds of one process, all in one call: the kernel does all or nothing. Pid
/// namespaces take effect for children only. The process must have one thread.
///
/// # Errors
/// setns(2)
pub fn join(pidfd: &impl AsFd, kinds: &[Kind]) -> io::Result<()> {
    let flags = kinds.iter().fold(CloneFlags::empty(), |flags, kind| flags | kind.flag());
    setns(pidfd, flags)?;
    // New credentials, and with them the kernel's default for who may look in, which is a setting (fs.suid_dumpable).
    crate::process::forbid_inspection()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_its_own() {
        let (pid, process) = crate::process::own().unwrap();
        let of = |kind| Namespace::of(&process, pid, kind).unwrap();
        for kind in Kind::ALL {
            let link = std::fs::read_link(Facts::own().path("ns").join(kind.name())).unwrap();
            assert_eq!(link.to_str().unwrap(), format!("{}:[{}]", kind.name(), of(kind).inode()));
        }
        // not a user namespace
        assert_eq!(of(Kind::Uts).owner().unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_number_will_do_where_the_kernel_is_older() {
        let (pid, process) = crate::process::own().unwrap();
        let no_pidfd = File::open("/dev/null").unwrap();
        let found = Namespace::of(&no_pidfd, pid, Kind::User).unwrap().inode();
        assert_eq!(found, Namespace::of(&process, pid, Kind::User).unwrap().inode());
    }
}
