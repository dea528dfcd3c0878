//! The walls around both processes: no capability comes back, no program is started, nothing is connected to, nothing is
//! opened but what is named here.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
use podsec_sys::credentials;
use podsec_sys::nix::libc;
use podsec_sys::nix::sys::resource::{Resource, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::error::Error;
use std::path::Path;

/// What whoever reads logs and talks over a socket that is there already has no need of.
const FORBIDDEN: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_clone,
    libc::SYS_clone3,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    libc::SYS_socket,
    libc::SYS_socketpair,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_sendto,
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

/// Bytes of memory: a full report as values and as text, and the longest line of each log.
const MEMORY: u64 = 1 << 30;

/// For whoever may only read, anything that he may read.
///
/// # Errors
/// says which wall could not be built
pub fn only_read() -> Result<(), String> {
    shut(Path::new("/"), AccessFs::ReadFile | AccessFs::ReadDir)
}

/// For whoever has one directory.
///
/// # Errors
/// as [`only_read`]
pub fn only_write(directory: &Path) -> Result<(), String> {
    shut(directory, AccessFs::from_all(ABI::V10))
}

fn shut(directory: &Path, access: BitFlags<AccessFs>) -> Result<(), String> {
    let build = || -> Result<(), Box<dyn Error>> {
        credentials::no_new_privileges()?;
        for (resource, most) in [(Resource::RLIMIT_AS, MEMORY), (Resource::RLIMIT_CORE, 0)] {
            setrlimit(resource, most, most)?;
        }
        Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(ABI::V10))?
            .handle_access(AccessNet::from_all(ABI::V10))?
            .scope(Scope::from_all(ABI::V10))?
            .create()?
            .add_rules(path_beneath_rules([directory], access))?
            .restrict_self()?;
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let rules = FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
        let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
        let program: BpfProgram =
            SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?;
        seccompiler::apply_filter(&program)?;
        Ok(())
    };
    build().map_err(|error| format!("shutting itself in: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_sys::file::replace;
    use podsec_sys::{process, program, socket};
    use std::time::Duration;

    fn try_all(inside: &Path, outside: &Path) -> Vec<u8> {
        let tried = [
            std::fs::read("/etc/passwd").is_ok(),
            replace(&inside.join("x"), b"x", 0o600).is_ok(),
            replace(&outside.join("x"), b"x", 0o600).is_ok(),
            program::run(Path::new("/usr/bin/true"), &[]).is_ok(),
            std::net::UdpSocket::bind("127.0.0.1:0").is_ok(),
            socket::pair().is_ok(),
            std::process::Command::new("/usr/bin/true").spawn().is_ok(),
        ];
        tried.map(u8::from).to_vec()
    }

    #[test]
    fn what_is_left() {
        let base = std::env::temp_dir().join(format!("podsec-kubeapi-cage-{}", std::process::id()));
        let (inside, outside) = (base.join("inside"), base.join("outside"));
        for directory in [&base, &inside, &outside] {
            std::fs::create_dir(directory).unwrap();
        }
        let within = Duration::from_secs(20);
        let free = process::in_child(within, || try_all(&inside, &outside)).unwrap();
        assert_eq!(free, [1, 1, 1, 1, 1, 1, 1]);
        let reader = process::in_child(within, || {
            only_read().unwrap();
            try_all(&inside, &outside)
        });
        assert_eq!(reader.unwrap(), [1, 0, 0, 0, 0, 0, 0]);
        let writer = process::in_child(within, || {
            only_write(&inside).unwrap();
            try_all(&inside, &outside)
        });
        assert_eq!(writer.unwrap(), [0, 1, 0, 0, 0, 0, 0]);
        std::fs::remove_dir_all(&base).unwrap();
    }
}
