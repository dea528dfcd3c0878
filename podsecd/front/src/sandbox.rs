//! The front's own cage, built before a stranger's first byte is read: another user, no capability, no way to gain
//! one, no file, no network, few descriptors, no child, and only the system calls of the loop that follows.
//!
//! Each wall stands by itself, also without systemd around it. Must not be undone: nothing in here has a reverse.

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetStatus, Scope,
};
use podsec_sys::credentials::{self, Account};
use podsec_sys::nix::libc;
use podsec_sys::nix::sys::resource::{Resource, setrlimit};
use podsec_sys::process;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use std::collections::BTreeMap;
use std::io;

/// Why the cage could not be built. Then nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The drop itself.
    #[error("cannot drop privileges: {0}")]
    Drop(io::Error),
    /// setrlimit(2)
    #[error("cannot set limits: {0}")]
    Limits(io::Error),
    /// landlock(7)
    #[error("cannot close the file system: {0}")]
    Landlock(#[from] landlock::RulesetError),
    /// seccomp(2)
    #[error("cannot filter system calls: {0}")]
    Seccomp(#[from] seccompiler::Error),
    /// seccomp(2), before it is the kernel's turn
    #[error("cannot build the filter of system calls: {0}")]
    Filter(#[from] seccompiler::BackendError),
}

/// Descriptors: 16 streams, each with a worker's channel, and as many again on their way to be closed.
const DESCRIPTORS: u64 = 64;
/// Bytes of data: 16 messages at their longest, many times over. Beyond it the process ends, and one caller's
/// connection with it.
const DATA: u64 = 64 * 1024 * 1024;

/// Builds all of it. Call it with one thread, and with all descriptors open that will be needed beside those that
/// come later through the channel.
///
/// # Errors
/// [`SandboxError`]; the process is of no use afterwards
pub fn enter(uid: u32, gid: u32) -> Result<(), SandboxError> {
    become_nobody(uid, gid).map_err(SandboxError::Drop)?;
    limit().map_err(SandboxError::Limits)?;
    close_file_system()?;
    filter_calls()
}

/// Another user without groups, capabilities, or a way to get any.
///
/// # Errors
/// capset(2), setgroups(2), setresuid(2), prctl(2)
pub fn become_nobody(uid: u32, gid: u32) -> io::Result<()> {
    credentials::empty_bounding_set()?;
    Account { uid, gid, groups: Vec::new() }.become_it()?;
    credentials::keep_only(&[])?;
    credentials::no_new_privileges()?;
    // Again: with a new uid the kernel sets it to what fs.suid_dumpable says (proc_sys_fs(5)). All fronts are one
    // user, and must not be able to look into each other.
    process::forbid_inspection()
}

/// Descriptors, memory, no child, no core. No limit on file sizes: none can be opened, and standard error may be one.
///
/// # Errors
/// setrlimit(2)
pub fn limit() -> io::Result<()> {
    for (resource, most) in [
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        (Resource::RLIMIT_DATA, DATA),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_CORE, 0),
    ] {
        setrlimit(resource, most, most)?;
    }
    Ok(())
}

/// Nothing of the file system, no port, no abstract socket and no signal beyond this process, as far as the kernel
/// knows these rights. A kernel without Landlock goes on: there the filter of system calls stands alone.
///
/// # Errors
/// landlock_create_ruleset(2), landlock_restrict_self(2)
pub fn close_file_system() -> Result<RulesetStatus, SandboxError> {
    const NEWEST: ABI = ABI::V10;
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?
        .restrict_self()?;
    Ok(restricted.ruleset)
}

/// Only the calls that serving needs (syscalls(2)); any other ends the process at once, since whoever makes one is
/// not this program any more. Whatever opens, connects, execs, forks, traces or signals is not among them.
///
/// # Errors
/// seccomp(2)
pub fn filter_calls() -> Result<(), SandboxError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    // No memory that is written or mapped can be run.
    let data = SeccompCmpOp::MaskedEq(u64::from(libc::PROT_EXEC.unsigned_abs()));
    rules.insert(libc::SYS_mmap, vec![argument(2, data, 0)?]);
    // There is one thread, so nobody ever waits; std and tokio wake without looking.
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    rules.insert(libc::SYS_futex, vec![argument(1, SeccompCmpOp::Eq, wake)?]);
    // Non-blocking or not; with debug assertions std asks whether a descriptor that it closes is open.
    let commands = [libc::F_GETFL, libc::F_SETFL, libc::F_GETFD];
    let commands = commands.map(|command| argument(1, SeccompCmpOp::Eq, command));
    rules.insert(libc::SYS_fcntl, commands.into_iter().collect::<Result<_, _>>()?);
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let program: BpfProgram =
        SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()?;
    Ok(seccompiler::apply_filter(&program)?)
}

/// One argument of a call, as a condition.
fn argument(index: u8, operator: SeccompCmpOp, value: i32) -> Result<SeccompRule, seccompiler::BackendError> {
    let value = u64::from(value.unsigned_abs());
    SeccompRule::new(vec![SeccompCondition::new(index, SeccompCmpArgLen::Dword, operator, value)?])
}

const ALLOWED: &[i64] = &[
    // the caller's connection, the channel, and what workers send
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_close,
    // tokio's loop
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_ctl,
    // where the vDSO has no clock (vdso(7))
    libc::SYS_clock_gettime,
    // seeds of hash maps
    libc::SYS_getrandom,
    // memory; mmap has a rule of its own
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    // the end
    libc::SYS_sigaltstack,
    libc::SYS_exit_group,
];
