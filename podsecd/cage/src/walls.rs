//! What cages are built of: landlock(7) around the file system and the network, seccomp(2) around the calls.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
use podsec_sys::nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, SeccompRule, TargetArch};
use std::collections::BTreeMap;
use std::path::Path;

/// Of landlock; older kernels build what they know of it.
pub const NEWEST: ABI = ABI::V10;

/// Calls that nobody in a cage has need of, and an attacker would: other processes' memory, namespaces, mounts, keys, and
/// large parts of the kernel.
pub const NEVER: &[i64] = &[
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
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

/// And who is to start no program, reach nobody and end nobody.
pub const ALONE: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_socket,
    libc::SYS_connect,
    libc::SYS_sendto,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
];

/// Rules of calls that are refused whatever their arguments are.
#[must_use]
pub fn refused(calls: &[&[i64]]) -> BTreeMap<i64, Vec<SeccompRule>> {
    calls.concat().into_iter().map(|call| (call, Vec::new())).collect()
}

/// A filter that answers these with an error (errno(3)), and lets all others pass.
///
/// # Errors
/// says what the filter cannot be made of
pub fn filter(refused: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<BpfProgram, String> {
    let made = || -> Result<BpfProgram, Box<dyn std::error::Error>> {
        let arch = TargetArch::try_from(std::env::consts::ARCH)?;
        let refuse = SeccompAction::Errno(error.unsigned_abs());
        Ok(SeccompFilter::new(refused, SeccompAction::Allow, refuse, arch)?.try_into()?)
    };
    made().map_err(|error| format!("the filter of system calls: {error}"))
}

/// From now on this process reaches these paths only, by these ways, no port and no other's socket or signal.
///
/// # Errors
/// landlock_restrict_self(2)
pub fn close(reach: &[(&Path, BitFlags<AccessFs>)]) -> Result<(), String> {
    let build = || {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?;
        for (path, access) in reach {
            rules = rules.add_rules(path_beneath_rules([path], *access))?;
        }
        rules.restrict_self().map(drop)
    };
    build().map_err(|error: landlock::RulesetError| format!("landlock: {error}"))
}
