//! Who this process is and what it may do: dropped for good, and checked afterwards.

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{Gid, Uid, getresgid, getresuid, setgroups, setresgid, setresuid};
use std::io;

/// An account to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Never 0 and never -1.
    pub uid: u32,
    /// Primary group; never 0.
    pub gid: u32,
    /// Supplementary groups; 0 is left out.
    pub groups: Vec<u32>,
}

impl Account {
    fn check(&self) -> io::Result<()> {
        if [0, u32::MAX].contains(&self.uid) || [0, u32::MAX].contains(&self.gid) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "refusing to become root or nobody in particular",
            ));
        }
        Ok(())
    }

    /// Takes the account's groups and stays the user it was.
    ///
    /// # Errors
    /// setgroups(2), setresgid(2); `InvalidInput` for an account with uid or gid 0 or -1
    pub fn take_groups(&self) -> io::Result<()> {
        self.check()?;
        let groups: Vec<Gid> =
            self.groups.iter().filter(|&&gid| gid != 0).map(|&gid| Gid::from_raw(gid)).collect();
        setgroups(&groups)?;
        let gid = Gid::from_raw(self.gid);
        setresgid(gid, gid, gid)?;
        Ok(())
    }

    /// Becomes the account: groups, gid, uid, in this order, without a way back, and not to be looked into. The kernel
    /// takes all capabilities away with the uid (capabilities(7)).
    ///
    /// # Errors
    /// as [`Account::take_groups`], setresuid(2); `PermissionDenied` should a way back be left
    pub fn become_it(&self) -> io::Result<()> {
        self.take_groups()?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        setresuid(uid, uid, uid)?;
        // The kernel sets this anew with the uid, to whatever fs.suid_dumpable says.
        crate::process::forbid_inspection()?;
        let (uids, gids) = (getresuid()?, getresgid()?);
        let all_uids = [uids.real, uids.effective, uids.saved].iter().all(|&found| found == uid);
        let all_gids = [gids.real, gids.effective, gids.saved].iter().all(|&found| found == gid);
        let way_back = setresuid(Uid::from_raw(u32::MAX), Uid::from_raw(0), Uid::from_raw(u32::MAX)).is_ok();
        if !all_uids
            || !all_gids
            || way_back
            || !caps::read(None, CapSet::Permitted).map_err(io::Error::other)?.is_empty()
        {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "privileges were not dropped"));
        }
        Ok(())
    }
}

/// Keeps these capabilities and no others, now and through exec: permitted, effective and bounding set; the
/// inheritable and ambient sets are emptied (CVE-2022-27649 and its like).
///
/// # Errors
/// capset(2), prctl(2)
pub fn keep_only(keep: &[Capability]) -> io::Result<()> {
    keep_only_and_pass_on(keep, &[])
}

/// As [`keep_only`], and a program of root's that this process starts may have those others, too (capabilities(7),
/// "Capabilities and execution of programs by root").
///
/// # Errors
/// as [`keep_only`]
pub fn keep_only_and_pass_on(keep: &[Capability], pass_on: &[Capability]) -> io::Result<()> {
    let held = bound(&keep.iter().chain(pass_on).copied().collect())?;
    let keep: CapsHashSet = keep.iter().copied().collect();
    caps::clear(None, CapSet::Ambient).map_err(io::Error::other)?;
    caps::clear(None, CapSet::Inheritable).map_err(io::Error::other)?;
    let kept: CapsHashSet = held.intersection(&keep).copied().collect();
    caps::set(None, CapSet::Effective, &kept).map_err(io::Error::other)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(io::Error::other)
}

/// Takes every capability out of the bounding set and keeps those it holds: for a process that is about to become
/// another user, and has lost the right to do this afterwards. Without `CAP_SETPCAP` the set stays as it is.
///
/// # Errors
/// prctl(2)
pub fn empty_bounding_set() -> io::Result<()> {
    bound(&CapsHashSet::new()).map(drop)
}

/// Bounds later exec to `keep` where this process may do that, and gives what it holds.
fn bound(keep: &CapsHashSet) -> io::Result<CapsHashSet> {
    let held = caps::read(None, CapSet::Permitted).map_err(io::Error::other)?;
    if held.contains(&Capability::CAP_SETPCAP) {
        caps::set(None, CapSet::Effective, &held).map_err(io::Error::other)?;
        for capability in caps::all() {
            if !keep.contains(&capability)
                && caps::has_cap(None, CapSet::Bounding, capability).unwrap_or(false)
            {
                caps::drop(None, CapSet::Bounding, capability).map_err(io::Error::other)?;
            }
        }
    }
    Ok(held)
}

/// No program that this process or its children run will gain rights by running (`PR_SET_NO_NEW_PRIVS`).
///
/// # Errors
/// prctl(2)
pub fn no_new_privileges() -> io::Result<()> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

pub use caps::Capability as Cap;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_becomes_root_or_minus_one() {
        for (uid, gid) in [(0, 5), (5, 0), (u32::MAX, 5), (5, u32::MAX)] {
            let account = Account { uid, gid, groups: vec![] };
            assert_eq!(account.become_it().unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
