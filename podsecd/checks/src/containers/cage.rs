//! What each process of this monitor can still do once it has begun: its rights are as the module of each says, and in any
//! case it runs no program, reaches nobody and looks into nobody's memory.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
use podsec_sys::credentials;
use podsec_sys::nix::libc;
use podsec_sys::nix::sys::resource::{Resource, setrlimit};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};
use std::path::Path;

/// Calls of which none of them has need.
const FORBIDDEN: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_bind,
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
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_sethostname,
    libc::SYS_swapon,
    libc::SYS_quotactl,
];

/// Which files it reaches.
#[derive(Clone, Copy, Debug)]
pub enum Files<'a> {
    /// Directories, to look where they are.
    Directories,
    /// What the user that it has become reads.
    Read,
    /// This directory alone, to read and write.
    Own(&'a Path),
}

/// Shuts this process in, for good.
///
/// # Errors
/// says which wall could not be built
pub fn shut(files: Files<'_>, memory: u64) -> Result<(), String> {
    let wrong = |wall: &'static str| move |error: std::io::Error| format!("{wall}: {error}");
    credentials::no_new_privileges().map_err(wrong("no new privileges"))?;
    for (resource, most) in [(Resource::RLIMIT_DATA, memory), (Resource::RLIMIT_CORE, 0)] {
        setrlimit(resource, most, most).map_err(|error| format!("limits: {error}"))?;
    }
    close(files).map_err(|error| format!("landlock: {error}"))?;
    filter().map_err(|error| format!("seccomp: {error}"))
}

fn close(files: Files<'_>) -> Result<(), landlock::RulesetError> {
    const NEWEST: ABI = ABI::V10;
    let (path, access): (&Path, BitFlags<AccessFs>) = match files {
        Files::Directories => (Path::new("/"), AccessFs::ReadDir.into()),
        Files::Read => (Path::new("/"), AccessFs::ReadDir | AccessFs::ReadFile),
        Files::Own(path) => (path, AccessFs::from_all(NEWEST) & !AccessFs::Execute),
    };
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .add_rules(path_beneath_rules([path], access))?
        .restrict_self()
        .map(drop)
}

fn filter() -> Result<(), Box<dyn std::error::Error>> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules = FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let program: BpfProgram = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_sys::process::in_child;
    use std::time::Duration;

    #[test]
    fn it_reaches_what_it_needs_and_nothing_else() {
        let own = std::env::temp_dir().join(format!("podsec-watch-cage-{}", std::process::id()));
        std::fs::create_dir(&own).unwrap();
        let tried = |files: Files<'_>| {
            let said = in_child(Duration::from_secs(10), || {
                if let Err(error) = shut(files, 256 << 20) {
                    return error.into_bytes();
                }
                let did = [
                    std::fs::read_dir("/usr").is_ok(),
                    std::fs::read("/etc/passwd").is_ok(),
                    std::fs::File::create(own.join("x")).is_ok(),
                    std::fs::File::create("/tmp/podsec-watch-cage").is_ok(),
                    podsec_sys::program::run(Path::new("/usr/bin/true"), &[]).is_ok(),
                    std::net::TcpListener::bind("127.0.0.1:0").is_ok(),
                    std::os::unix::net::UnixStream::connect("/run/x").is_ok(),
                    std::thread::Builder::new().spawn(|| ()).is_ok(),
                ];
                did.map(|did| b'0' + u8::from(did)).to_vec()
            });
            String::from_utf8(said.unwrap()).unwrap()
        };
        assert_eq!(tried(Files::Directories), "10000000");
        assert_eq!(tried(Files::Read), "11000000");
        assert_eq!(tried(Files::Own(&own)), "00100000");
        std::fs::remove_dir_all(&own).unwrap();
    }
}
