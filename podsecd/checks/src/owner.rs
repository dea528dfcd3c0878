//! Whose stores and homes there are, and reading them as their owner.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
use podsec_sys::credentials::{self, Account};
use podsec_sys::nix::libc;
use podsec_sys::nix::sys::resource::{Resource, setrlimit};
use podsec_sys::process;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use serde::{Serialize, de::DeserializeOwned};
use std::path::PathBuf;
use std::time::Duration;

/// A user of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Login name.
    pub name: String,
    /// 0 is root.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: PathBuf,
}

/// Calls that whoever only reads and computes has no need of.
const FORBIDDEN: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_mount,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// Bytes of memory for it.
const MEMORY: u64 = 512 << 20;

impl Owner {
    /// Lets `work` read and compute as this user, in a process of its own that can neither write, start a program nor reach
    /// anybody, and gives what it says. Whatever it stumbles over, a FIFO, an endless file, a bug in a parser, is this user's
    /// own problem, and at most a lie about himself.
    ///
    /// # Errors
    /// what `work` says; that it said nothing in time
    pub fn ask<T: Serialize + DeserializeOwned>(
        &self,
        within: Duration,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let parent = i32::try_from(std::process::id()).map_err(|error| error.to_string())?;
        let said = process::in_child(within, || {
            let result = self.become_it(parent).and_then(|()| shut(within)).and_then(|()| work());
            postcard::to_stdvec(&result).unwrap_or_default()
        });
        let said = said.map_err(|error| format!("reading as {}: {error}", self.name))?;
        postcard::from_bytes(&said).map_err(|error| format!("reading as {}: {error}", self.name))?
    }

    fn become_it(&self, parent: i32) -> Result<(), String> {
        let become_it = || {
            if self.uid == 0 {
                // Root's own files are readable for root without a capability.
                credentials::keep_only(&[])?;
            } else {
                let account = Account { uid: self.uid, gid: self.gid, groups: self.groups.clone() };
                account.become_it()?;
            }
            process::die_with_parent(parent)
        };
        become_it().map_err(|error| error.to_string())
    }
}

/// Shuts this process in, for good.
fn shut(within: Duration) -> Result<(), String> {
    credentials::no_new_privileges().map_err(|error| error.to_string())?;
    for (resource, most) in [
        (Resource::RLIMIT_CPU, within.as_secs().max(1)),
        (Resource::RLIMIT_AS, MEMORY),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, most, most).map_err(|error| error.to_string())?;
    }
    only_read().map_err(|error| error.to_string())?;
    filter_calls().map_err(|error| error.to_string())
}

fn only_read() -> Result<(), landlock::RulesetError> {
    const NEWEST: ABI = ABI::V10;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules(["/"], read))?
        .restrict_self()
        .map(drop)
}

fn filter_calls() -> Result<(), Box<dyn std::error::Error>> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules = FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?;
    seccompiler::apply_filter(&program)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Owner {
        Owner { name: "root".into(), uid: 0, gid: 0, groups: vec![], home: "/root".into() }
    }

    #[test]
    fn it_reads_and_does_nothing_else() {
        if !podsec_sys::nix::unistd::geteuid().is_root() {
            println!("left out: only root can become others");
            return;
        }
        let nobody = Owner { name: "nobody".into(), uid: 65533, gid: 65533, ..root() };
        for owner in [root(), nobody] {
            let did = owner.ask(Duration::from_secs(10), || {
                let shadow = std::fs::read("/etc/shadow").is_ok();
                Ok((
                    [std::fs::read("/etc/passwd").is_ok(), shadow],
                    [
                        std::fs::write(format!("/tmp/podsec-owner-{}", std::process::id()), "x").is_ok(),
                        std::fs::create_dir("/tmp/podsec-owner-directory").is_ok(),
                        podsec_sys::program::run(std::path::Path::new("/usr/bin/true"), &[]).is_ok(),
                        std::net::TcpListener::bind("127.0.0.1:0").is_ok(),
                        std::os::unix::net::UnixStream::connect("/run/podsec/podsecd.sock").is_ok(),
                    ],
                ))
            });
            assert_eq!(did, Ok(([true, owner.uid == 0], [false; 5])), "{}", owner.name);
        }
    }

    #[test]
    fn what_hangs_is_given_up() {
        if !podsec_sys::nix::unistd::geteuid().is_root() {
            println!("left out: only root can become others");
            return;
        }
        let said = root().ask::<()>(Duration::from_millis(100), || {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        });
        assert!(said.unwrap_err().contains("as root"));
        assert_eq!(root().ask::<()>(Duration::from_secs(5), || Err("why".into())), Err("why".into()));
    }
}
