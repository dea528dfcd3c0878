//! Who is at the other end of an accepted socket. By the kernel's word alone, before a byte is read.

use podsec_policy::config::Pidfd;
use podsec_policy::peer::{Peer, Roles, Roster, is_plausible_uid};
use podsec_policy::reason::Reason;
use podsec_sys::process::{self, Facts};
use podsec_sys::socket;
use std::io;
use std::os::fd::OwnedFd;

/// A caller, and whether he counts at all.
#[derive(Debug)]
pub struct Caller {
    /// His facts. Where the kernel told nothing, the overflow uid: nobody's.
    pub peer: Peer,
    /// Why he is nobody, whatever he asks.
    nobody: Option<Reason>,
    process: Option<OwnedFd>,
    pidfd: Pidfd,
}

/// What podsecd itself looks like in `/proc`, to compare callers with.
#[derive(Debug)]
pub struct Own {
    uid_map: String,
    gid_map: String,
    pid_depth: usize,
}

impl Own {
    /// # Errors
    /// when `/proc` is not there
    pub fn read() -> io::Result<Self> {
        let facts = Facts::own();
        Ok(Self {
            uid_map: facts.read("uid_map")?,
            gid_map: facts.read("gid_map")?,
            pid_depth: process::pid_depth(&process::own()?.1)?,
        })
    }

    /// Does the process live where we live? In a user namespace below ours, uid 1000 outside may be root of a
    /// container: it shows here as 1000 and must not count as 1000. `/proc/PID/ns/user` would say so directly, but
    /// only to a reader with `CAP_SYS_PTRACE`, which podsecd does not have; the maps and the depth of pid
    /// namespaces are readable by all. An identity map in a pid namespace of its own shows by the depth.
    /// Who is not held is refused for that.
    fn is_home(&self, facts: &Facts, process: Option<&OwnedFd>) -> io::Result<bool> {
        Ok(self.has_our_maps(facts)?
            && process.map(process::pid_depth).transpose()?.is_none_or(|depth| depth == self.pid_depth))
    }

    fn has_our_maps(&self, facts: &Facts) -> io::Result<bool> {
        Ok(facts.read("uid_map")? == self.uid_map && facts.read("gid_map")? == self.gid_map)
    }
}

impl Caller {
    /// What the socket itself tells, which takes a tenth of the time of [`Caller::identify`]. Enough to count him by;
    /// until he is identified he is nobody.
    pub fn glance(socket: &OwnedFd, pidfd: Pidfd) -> Self {
        let unknown = Peer { uid: 65534, gid: 65534, groups: vec![], pid: 0, login_uid: None };
        let nobody = |peer: Peer, reason| Self { peer, nobody: Some(reason), process: None, pidfd };
        let Ok(credentials) = socket::peer_credentials(socket) else {
            return nobody(unknown, Reason::Unidentified);
        };
        let mut peer = Peer { uid: credentials.uid, gid: credentials.gid, pid: credentials.pid, ..unknown };
        if !is_plausible_uid(peer.uid) {
            return nobody(peer, Reason::BadUid);
        }
        if peer.pid <= 0 {
            // It has no number here: another branch of pid namespaces.
            return nobody(peer, Reason::ForeignUserns);
        }
        match socket::peer_groups(socket) {
            Ok(groups) => peer.groups = groups,
            Err(_) => return nobody(peer, Reason::Unidentified),
        }
        Self { peer, nobody: None, process: None, pidfd }
    }

    /// Gets hold of the process. Enough to compare him with somebody who was identified.
    pub fn hold(mut self, socket: &OwnedFd) -> Self {
        if self.nobody.is_none() {
            match hold(socket, self.peer.pid, self.pidfd) {
                Ok(process) => self.process = Some(process),
                Err(error) => self.nobody = Some(gone_or_starved(&error)),
            }
        }
        self
    }

    /// Asks the kernel for all the rest about him who is held. Of a process that is `known` from another connection only
    /// what it can change: it may have moved to another user namespace, but no process changes its number's depth.
    pub fn identify(mut self, own: &Own, known: Option<&Self>) -> Self {
        self.nobody = self.nobody.or(known.and_then(|known| known.nobody));
        if self.nobody.is_some() {
            return self;
        }
        let facts = Facts::of(self.peer.pid);
        let home = match known {
            Some(_) => own.has_our_maps(&facts),
            None => own.is_home(&facts, self.process.as_ref()),
        };
        self.peer.login_uid = known.map_or_else(|| login_uid(&facts), |known| known.peer.login_uid);
        // All of the above was about the number; now see whether that still was the caller.
        self.nobody = match home {
            Ok(true) => self.verdict().err(),
            Ok(false) => Some(Reason::ForeignUserns),
            Err(error) => Some(gone_or_starved(&error)),
        };
        self
    }

    /// Is he still the one who connected? Asked for every request, since a socket can be passed on: to a process of
    /// another user, or through exec to a set-user-ID program (CVE-2013-4288, CVE-2019-6133).
    ///
    /// # Errors
    /// the reason why he is nobody
    pub fn verdict(&self) -> Result<(), Reason> {
        if let Some(reason) = self.nobody {
            return Err(reason);
        }
        let uids = self.uids();
        self.is_there()?;
        // real, effective, saved, file system
        match uids {
            Ok(uids) if uids.len() == 4 && uids.iter().all(|&uid| uid == self.peer.uid) => Ok(()),
            Ok(_) => Err(Reason::UidChanged),
            Err(error) => Err(gone_or_starved(&error)),
        }
    }

    /// Of the process that is held; before Linux 6.13 of whoever has its number, so look afterwards whether it still
    /// lives.
    fn uids(&self) -> io::Result<Vec<u32>> {
        match self.process.as_ref().filter(|_| self.pidfd == Pidfd::Auto).map(process::uids) {
            Some(Ok(uids)) => Ok(uids.to_vec()),
            _ => Facts::of(self.peer.pid).status("Uid"),
        }
    }

    /// His roles: none where uid numbers are not to be believed.
    pub fn roles(&self, roster: &Roster) -> Roles {
        if self.nobody.is_some() { Roles::NONE } else { self.peer.roles(roster) }
    }

    /// Does the process still live?
    ///
    /// # Errors
    /// [`Reason::PeerGone`]
    pub fn is_there(&self) -> Result<(), Reason> {
        let process = self.process.as_ref().ok_or(Reason::Unidentified)?;
        if process::has_ended(process) { Err(Reason::PeerGone) } else { Ok(()) }
    }

    /// Is it the very same process?
    pub fn is_same_process(&self, other: &Self) -> bool {
        // Two numbers that are equal while both processes live are one process.
        let alive = self.is_there().is_ok() && other.is_there().is_ok();
        self.peer.pid == other.peer.pid && self.peer.uid == other.peer.uid && alive
    }

    /// For a ticket, which outlives the connection.
    ///
    /// # Errors
    /// dup(2)
    pub fn try_clone(&self) -> io::Result<Self> {
        let process = self.process.as_ref().map(OwnedFd::try_clone).transpose()?;
        Ok(Self { peer: self.peer.clone(), process, ..*self })
    }
}

/// Nothing about the caller could be read: since he is gone, or since this host has nothing left to read it with, of
/// which he should be told.
fn gone_or_starved(error: &io::Error) -> Reason {
    if process::is_starved(error) { Reason::Resources } else { Reason::PeerGone }
}

fn hold(socket: &OwnedFd, pid: i32, mode: Pidfd) -> io::Result<OwnedFd> {
    if mode == Pidfd::Auto {
        match socket::peer_pidfd(socket) {
            Err(error) if error.raw_os_error() == Some(podsec_sys::nix::libc::ENOPROTOOPT) => {}
            result => return result,
        }
    }
    // Linux before 6.5. The number may belong to somebody else by now, which `verdict` finds out if he has another
    // uid. A later process of the same uid is left as what it would be anyway: the same person.
    process::open(pid)
}

/// The audit subsystem's login uid; all ones where nobody logged in.
fn login_uid(facts: &Facts) -> Option<u32> {
    facts.read("loginuid").ok()?.trim().parse().ok().filter(|&uid| uid != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identify(mode: Pidfd) -> Caller {
        let (_a, b) = socket::pair().unwrap();
        Caller::glance(&b, mode).hold(&b).identify(&Own::read().unwrap(), None)
    }

    #[test]
    fn knows_this_process_both_ways() {
        for mode in [Pidfd::Auto, Pidfd::Fallback] {
            let caller = identify(mode);
            assert_eq!(caller.verdict(), Ok(()), "{mode:?}");
            assert_eq!(u32::try_from(caller.peer.pid).unwrap(), std::process::id());
            assert!(caller.is_same_process(&caller.try_clone().unwrap()));
        }
    }

    #[test]
    fn another_map_is_another_home() {
        let mut own = Own::read().unwrap();
        let (_a, b) = socket::pair().unwrap();
        own.uid_map.push('0');
        let verdict = |own: &Own| Caller::glance(&b, Pidfd::Auto).hold(&b).identify(own, None).verdict();
        assert_eq!(verdict(&own), Err(Reason::ForeignUserns));
        let mut own = Own::read().unwrap();
        own.pid_depth += 1;
        assert_eq!(verdict(&own), Err(Reason::ForeignUserns));
    }

    #[test]
    fn who_is_known_may_have_moved() {
        let (_a, b) = socket::pair().unwrap();
        let (mut known, mut own) = (identify(Pidfd::Auto), Own::read().unwrap());
        let verdict = |own: &Own, known: &Caller| {
            Caller::glance(&b, Pidfd::Auto).hold(&b).identify(own, Some(known)).verdict()
        };
        assert_eq!(verdict(&own, &known), Ok(()));
        own.gid_map.push('0');
        assert_eq!(verdict(&own, &known), Err(Reason::ForeignUserns));
        known.nobody = Some(Reason::BadUid);
        assert_eq!(verdict(&Own::read().unwrap(), &known), Err(Reason::BadUid));
    }

    #[test]
    fn a_glance_makes_nobody_somebody() {
        let (_a, b) = socket::pair().unwrap();
        let caller = Caller::glance(&b, Pidfd::Auto).identify(&Own::read().unwrap(), None);
        assert_eq!(caller.peer.uid, podsec_sys::nix::unistd::geteuid().as_raw());
        assert_eq!(caller.verdict(), Err(Reason::Unidentified));
    }

    #[test]
    fn a_host_without_descriptors_is_not_the_callers_fault() {
        let reason = |number| gone_or_starved(&io::Error::from_raw_os_error(number));
        assert_eq!(reason(podsec_sys::nix::libc::EMFILE), Reason::Resources);
        assert_eq!(reason(podsec_sys::nix::libc::ESRCH), Reason::PeerGone);
    }

    #[test]
    fn a_changed_uid_is_nobody() {
        for mode in [Pidfd::Auto, Pidfd::Fallback] {
            let mut caller = identify(mode);
            caller.peer.uid += 1;
            assert_eq!(caller.verdict(), Err(Reason::UidChanged));
        }
    }
}
