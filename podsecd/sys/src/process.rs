//! Processes held by descriptor (pidfd_open(2)), what `/proc` says of them, and this process's own hygiene.

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A process that stays the same one, whatever becomes of its number.
///
/// # Errors
/// pidfd_open(2); `ESRCH` when there is none
pub fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: no pointers; flags 0. The descriptor is closed on exec by definition.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// This process itself: its number, and held.
///
/// # Errors
/// as [`open`]
pub fn own() -> io::Result<(i32, OwnedFd)> {
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    Ok((pid, open(pid)?))
}

/// pidfd_send_signal(2)
///
/// # Errors
/// `ESRCH` when it has ended, `EPERM`
pub fn signal(pidfd: &impl AsFd, signal: Signal) -> io::Result<()> {
    let null = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means as kill(2).
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_fd().as_raw_fd(), signal as i32, null, 0)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `/proc` of the namespace that this process starts in, held open: after joining another mount namespace the path
/// leads elsewhere.
#[derive(Debug)]
pub struct Proc(OwnedFd);

impl Proc {
    /// # Errors
    /// open(2)
    pub fn open() -> io::Result<Self> {
        Ok(Self(File::open("/proc")?.into()))
    }

    /// Sends a signal to every process of a session (setsid(2)), whichever process group it has moved to.
    pub fn signal_session(&self, session: i32, signal_number: Signal) {
        use nix::dir::Dir;
        use nix::fcntl::OFlag;
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let Ok(mut directory) = Dir::openat(&self.0, ".", flags, nix::sys::stat::Mode::empty()) else {
            return;
        };
        let pids = directory
            .iter()
            .flatten()
            .filter_map(|entry| entry.file_name().to_str().ok()?.parse::<i32>().ok());
        for pid in pids.collect::<Vec<_>>() {
            // Held first, looked at then, so that it is about one process.
            let Ok(process) = open(pid) else { continue };
            if self.session_of(pid) == Some(session) {
                let _ = signal(&process, signal_number);
            }
        }
    }

    fn session_of(&self, pid: i32) -> Option<i32> {
        use nix::fcntl::{OFlag, openat};
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let fd =
            openat(&self.0, format!("{pid}/stat").as_str(), flags, nix::sys::stat::Mode::empty()).ok()?;
        let mut text = Vec::new();
        File::from(fd).take(4096).read_to_end(&mut text).ok()?;
        session_of(&String::from_utf8_lossy(&text))
    }
}

/// Leaves the session keyring of whoever started this process for a new, empty one (keyrings(7)). Where the system
/// call is closed to us it is closed to our children as well.
pub fn leave_keyring() {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
}

/// Has it ended? A pidfd becomes readable then.
#[must_use]
pub fn has_ended(pidfd: &impl AsFd) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    !matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
}

/// Waits until one of them has something to read or has ended; false when the time is over first.
///
/// # Errors
/// poll(2)
pub fn wait_readable(
    fds: &[std::os::fd::BorrowedFd<'_>],
    within: Option<std::time::Duration>,
) -> io::Result<bool> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let end = within.map(|within| std::time::Instant::now() + within);
    let mut polled: Vec<PollFd<'_>> = fds.iter().map(|&fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    loop {
        let left = end.map(|end| end.saturating_duration_since(std::time::Instant::now()));
        // Rounded up, so that the last millisecond is not a busy loop.
        let timeout = left.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left + std::time::Duration::from_micros(999)).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut polled, timeout) {
            Err(nix::Error::EINTR) => {}
            Ok(0) if left.is_none_or(|left| !left.is_zero()) => {}
            result => return Ok(result? > 0),
        }
    }
}

/// Real, effective, saved and file system uid (credentials(7)) of exactly that process, by `PIDFD_GET_INFO`
/// (linux/pidfd.h). A process that has ended and is still there has them too.
///
/// # Errors
/// `ENOTTY` or `EINVAL` before Linux 6.13; `ESRCH` when it is gone
pub fn uids(pidfd: &impl AsFd) -> io::Result<[u32; 4]> {
    const CREDENTIALS: u64 = libc::PIDFD_INFO_CREDS as u64;
    // SAFETY: all zeros is a valid pidfd_info.
    let mut info: libc::pidfd_info = unsafe { std::mem::zeroed() };
    info.mask = CREDENTIALS;
    // SAFETY: the kernel writes no more than the size that is part of the request's number.
    let result = unsafe { libc::ioctl(pidfd.as_fd().as_raw_fd(), libc::PIDFD_GET_INFO, &raw mut info) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if info.mask & CREDENTIALS == 0 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok([info.ruid, info.euid, info.suid, info.fsuid])
}

/// In how many pid namespaces of ours and below it has a number (`NSpid` in the pidfd's own fdinfo, Linux 5.5): half the
/// price of proc_pid_status(5), and about exactly that process.
///
/// # Errors
/// open(2); `InvalidData` when it has ended
pub fn pid_depth(pidfd: &impl AsFd) -> io::Result<usize> {
    let path = Facts::own().path("fdinfo").join(pidfd.as_fd().as_raw_fd().to_string());
    Ok(status_line(File::open(path)?, "NSpid")?.len())
}

/// What `/proc/PID` says of a process, read under a pidfd so that it is about that process or an error.
#[derive(Debug)]
pub struct Facts {
    directory: PathBuf,
}

impl Facts {
    /// Of a process by number.
    #[must_use]
    pub fn of(pid: i32) -> Self {
        Self { directory: PathBuf::from(format!("/proc/{pid}")) }
    }
    /// Of this process.
    #[must_use]
    pub fn own() -> Self {
        Self { directory: PathBuf::from("/proc/self") }
    }
    /// One of its files; at most 16 KiB.
    ///
    /// # Errors
    /// open(2), read(2)
    pub fn read(&self, name: &str) -> io::Result<String> {
        // Room for all at once: the kernel makes the text anew for every read.
        let mut text = String::with_capacity(4096);
        File::open(self.directory.join(name))?.take(16 * 1024).read_to_string(&mut text)?;
        Ok(text)
    }
    /// The values of a line of `status`, proc_pid_status(5).
    ///
    /// # Errors
    /// as [`Facts::read`]; `InvalidData` when there is no such line
    pub fn status(&self, key: &str) -> io::Result<Vec<u32>> {
        status_line(File::open(self.directory.join("status"))?, key)
    }
    /// Below `/proc/PID`.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }
}

/// Has this host no descriptors or memory left?
#[must_use]
pub fn is_starved(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// By which a process is found again: its number, and when it started in clock ticks (proc_pid_stat(5), field 22).
pub type Trace = (i32, u64);

/// Of a process that has not been reaped yet.
#[must_use]
pub fn trace(pid: i32) -> Trace {
    (pid, start_time(pid).unwrap_or_default())
}

/// The process of a trace, if there still is that one.
#[must_use]
pub fn find((pid, started): Trace) -> Option<OwnedFd> {
    let process = open(pid).ok()?;
    (start_time(pid) == Some(started) && !has_ended(&process)).then_some(process)
}

fn start_time(pid: i32) -> Option<u64> {
    let stat = Facts::of(pid).read("stat").ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Line by line, since the one of the groups may be 700 KiB long, and in front of what is asked for.
fn status_line(text: impl io::Read, key: &str) -> io::Result<Vec<u32>> {
    const LINE: u64 = 1024;
    let mut text = BufReader::with_capacity(4096, text);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut text).take(LINE).read_until(b'\n', &mut line)? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if line.last() != Some(&b'\n') {
            text.skip_until(b'\n')?;
        } else if let Some(values) =
            line.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b":"))
        {
            let values = str::from_utf8(values).map_err(|_| io::ErrorKind::InvalidData)?.split_whitespace();
            let values: Result<_, _> = values.map(str::parse).collect();
            return values.map_err(|_| io::ErrorKind::InvalidData.into());
        }
    }
}

/// The session id in `/proc/PID/stat` (proc_pid_stat(5), field 6). The name in field 2 may hold spaces and
/// parentheses, so fields are counted from the last `)`.
#[must_use]
fn session_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(3)?.parse().ok()
}

/// Random bytes for secrets (getrandom(2), which waits for the pool to be ready once, early at boot).
///
/// # Errors
/// getrandom(2)
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    const { assert!(N <= 256, "up to 256 bytes come whole") };
    let mut bytes = [0; N];
    // SAFETY: pointer and length are those of the array.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if usize::try_from(got) == Ok(N) { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// Neither ptrace(2) nor `/proc/self/{mem,fd,…}` for others of this uid, and no core dump. Only ever set to 0:
/// `PR_SET_DUMPABLE` 1 in a privileged helper is CVE-2016-8659.
///
/// # Errors
/// prctl(2)
pub fn forbid_inspection() -> io::Result<()> {
    Ok(nix::sys::prctl::set_dumpable(false)?)
}

/// Closes every descriptor from `first` up (close_range(2)). For a child just before exec: whatever its parent has
/// open is not used here any more.
///
/// # Errors
/// close_range(2)
pub fn close_from(first: u32) -> io::Result<()> {
    close_range(first, u32::MAX)
}

/// All but standard output and error, and this one; in the place of standard input, nothing.
fn close_all_but(kept: &impl AsFd) -> io::Result<()> {
    // SAFETY: replaces this process's own standard input, of which nothing here knows.
    if unsafe { libc::dup2(File::open("/dev/null")?.as_raw_fd(), 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let kept = u32::try_from(kept.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    if kept > 3 {
        close_range(3, kept - 1)?;
    }
    close_range(kept + 1, u32::MAX)
}

fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: closes descriptors of this process; memory is not touched.
    let result = unsafe { libc::close_range(first, last, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Marks every descriptor from `first` up as closed on exec. For process start: what was inherited must not be
/// handed on.
///
/// # Errors
/// close_range(2)
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: sets a flag on descriptors of this process.
    let result = unsafe { libc::close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC as i32) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Descriptor 0, taken over. The gate hands its children their channel there.
#[must_use]
pub fn take_stdin() -> OwnedFd {
    // SAFETY: called once, first thing in main, by programs that never use std's stdin.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Takes over `count` descriptors from 3 up, as systemd passes them (sd_listen_fds(3)), closed on exec from now on.
#[must_use]
pub fn take_passed(count: i32) -> Vec<OwnedFd> {
    let _ = close_on_exec_from(3);
    // SAFETY: called once at start, after LISTEN_PID and LISTEN_FDS said that these are ours.
    (3..3 + count).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }).collect()
}

/// All signals as a new process expects them: nothing ignored, nothing blocked. An ignored SIGCHLD, which exec
/// keeps, makes waitpid(2) say ECHILD; Rust programs ignore SIGPIPE.
///
/// # Errors
/// sigprocmask(2)
pub fn default_signals() -> io::Result<()> {
    // The kernel's struct sigaction in zeros: default action, no flags, no mask. By the system call, because libc keeps
    // two real-time signals to itself, and whom glibc's posix_spawn(3) started has those ignored.
    let default = [0_u64; 4];
    for number in 1..=64 {
        // SAFETY: the kernel reads no more than that, and the default action runs no code of ours. SIGKILL and SIGSTOP
        // are refused, and are what they are.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, number, default.as_ptr(), std::ptr::null::<u64>(), 8);
        }
    }
    SigSet::empty().thread_set_mask()?;
    Ok(())
}

/// The one signal that Rust's runtime ignores, as a new process expects it: enough for a child of a process that
/// [`start`] has started with all others so.
///
/// # Errors
/// sigaction(2)
pub fn default_sigpipe() -> io::Result<()> {
    use nix::sys::signal::{SigHandler, signal};
    // SAFETY: the default action runs no code of ours.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    Ok(())
}

/// Blocks the signals and gives a descriptor that reports them (signalfd(2)).
///
/// # Errors
/// sigprocmask(2), signalfd(2)
pub fn signals(list: &[Signal]) -> io::Result<nix::sys::signalfd::SignalFd> {
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    let set: SigSet = list.iter().copied().collect();
    nix::sys::signal::sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
    Ok(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// From now on this process is killed when its parent ends, or right now if that has ended already. `parent` was opened
/// before it started this one: in a new pid namespace getppid(2) tells nothing.
///
/// # Errors
/// prctl(2); `BrokenPipe`
pub fn die_with(parent: &impl AsFd) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if has_ended(parent) { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
}

/// No better treated than anybody: niceness and the kernel's choice of whom to kill when memory runs out
/// (proc_pid_oom_score_adj(5)) back to what they usually are, where this process has them lower. An administrator may
/// protect podsecd like that; what it starts for others must not inherit it.
///
/// # Errors
/// setpriority(2), write(2)
pub fn usual_priority() -> io::Result<()> {
    // SAFETY: numbers only; 0 is this process.
    let lowered = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) } < 0;
    // SAFETY: as above.
    if lowered && unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let path = "/proc/self/oom_score_adj";
    match std::fs::read(path)?.first() {
        Some(b'-') => File::options().write(true).open(path)?.write_all(b"0"),
        _ => Ok(()),
    }
}

/// From now on this process takes no processor from another by waking up (`SCHED_BATCH`, sched(7)).
///
/// # Errors
/// sched_setscheduler(2)
pub fn never_preempt() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the structure outlives the call; 0 is this process.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// As [`die_with`], of the process that started this one, which has this number. Becoming another user undoes it, so it
/// comes after that.
///
/// # Errors
/// prctl(2); `BrokenPipe`
pub fn die_with_parent(parent: i32) -> io::Result<()> {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if nix::unistd::getppid().as_raw() == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// How a child ended, wait(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Code(u8),
    /// By a signal; real-time ones, which nix has no names for, among them.
    Signal(u8),
}

/// Waits for a child's end.
///
/// # Errors
/// waitpid(2)
pub fn wait(child: i32) -> io::Result<Ended> {
    let mut status = 0;
    // SAFETY: waitpid writes one int.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    let (make, number): (fn(u8) -> Ended, _) = match libc::WIFEXITED(status) {
        true => (Ended::Code, libc::WEXITSTATUS(status)),
        false => (Ended::Signal, libc::WTERMSIG(status)),
    };
    u8::try_from(number).map(make).map_err(io::Error::other)
}

/// Collects all children that have ended, and kills those that are stopped. No child of podsecd stops by itself; the
/// cluster user may stop one that has become him, and would so keep it, its session and its client for ever.
pub fn reap() {
    loop {
        let mut status = 0;
        // SAFETY: waitpid writes one int.
        let child = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::WUNTRACED) };
        if child <= 0 {
            return;
        }
        if libc::WIFSTOPPED(status) {
            // SAFETY: numbers only. The child is not collected, so the number is still its.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
    }
}

/// Starts a program with `channel` as descriptor 0, `/dev/null` as 1, our own 2, an empty environment and default
/// signals.
///
/// # Errors
/// clone(2), open(2), execve(2); `InvalidInput` for a NUL in a string
pub fn start(program: &Path, arguments: &[String], channel: std::os::fd::BorrowedFd<'_>) -> io::Result<i32> {
    use std::ffi::CString;
    use std::os::unix::ffi::OsStrExt as _;
    let path = CString::new(program.as_os_str().as_bytes())?;
    let mut argv = vec![path.clone()];
    for argument in arguments {
        argv.push(CString::new(argument.as_str())?);
    }
    let null = File::options().write(true).open("/dev/null")?;
    // Made here: what the child took of the shared memory nobody would give back.
    let argv: Vec<_> = argv.iter().map(|word| word.as_ptr()).chain([std::ptr::null()]).collect();
    let environment = [std::ptr::null()];
    let mut failed = None;
    let child = spawn(&mut || {
        let run = || -> io::Result<i32> {
            default_signals()?;
            for (source, target) in [(channel.as_raw_fd(), 0), (null.as_raw_fd(), 1)] {
                // SAFETY: replaces the child's own standard descriptors; everything else closes on exec.
                if unsafe { libc::dup2(source, target) } < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            // SAFETY: strings and arrays end with a zero, and outlive the call: the parent waits.
            unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), environment.as_ptr()) };
            Err(io::Error::last_os_error())
        };
        failed = run().err();
    })?;
    failed.map_or(Ok(child), Err)
}

/// A copy of this process that has something to say.
struct Copy {
    child: i32,
    process: OwnedFd,
    pipe: io::Take<File>,
    said: Vec<u8>,
    end: std::time::Instant,
}

impl Copy {
    /// For single-threaded programs.
    fn start(within: std::time::Duration, work: impl FnOnce() -> Vec<u8>) -> io::Result<Self> {
        use nix::unistd::{ForkResult, fork, pipe2};
        const LIMIT: u64 = 16 << 20;
        let (read, write) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
        let end = std::time::Instant::now() + within;
        // SAFETY: there is no other thread that could hold a lock.
        let child = match unsafe { fork() }? {
            ForkResult::Child => {
                // Nothing else of ours: whoever stops the copy would hold our locks with it.
                let said = if close_all_but(&write).is_ok() { work() } else { Vec::new() };
                let _ = File::from(write).write_all(&said);
                // SAFETY: ends the copy without what the original has to do at its end.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => child.as_raw(),
        };
        drop(write);
        let pipe = File::from(read).take(LIMIT);
        Ok(Self { child, process: open(child)?, pipe, said: Vec::new(), end })
    }

    /// Takes what there is to be read, once; true when that was all.
    fn listen(&mut self) -> io::Result<bool> {
        let mut some = [0; 16 * 1024];
        let count = self.pipe.read(&mut some)?;
        self.said.extend(some.iter().take(count));
        Ok(count == 0)
    }

    /// `heard`: whether all was said.
    fn finish(self, heard: io::Result<()>) -> io::Result<Vec<u8>> {
        // It may have been stopped, or have children that hold the pipe. Where it is somebody else by now and this process
        // may not kill it, it goes with this process: see `die_with_parent`.
        if signal(&self.process, Signal::SIGKILL).is_ok() || has_ended(&self.process) {
            wait(self.child)?;
        }
        heard?;
        if self.said.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(self.said) }
    }
}

/// Runs `work` in a copy of this process, and gives what it has to say. The copy has its own memory, so whoever it becomes
/// may kill or stop it at any moment and disturb nothing here.
///
/// For single-threaded programs.
///
/// # Errors
/// pipe2(2), fork(2); `TimedOut`, after killing it; `UnexpectedEof` when it said nothing
pub fn in_child(within: std::time::Duration, work: impl FnOnce() -> Vec<u8>) -> io::Result<Vec<u8>> {
    let mut copy = Copy::start(within, work)?;
    let heard = loop {
        let left = copy.end.saturating_duration_since(std::time::Instant::now());
        match wait_readable(&[copy.pipe.get_ref().as_fd()], Some(left)) {
            Ok(false) => break Err(io::ErrorKind::TimedOut.into()),
            Err(error) => break Err(error),
            Ok(true) => {}
        }
        match copy.listen() {
            Ok(true) => break Ok(()),
            Ok(false) => {}
            Err(error) => break Err(error),
        }
    };
    copy.finish(heard)
}

/// [`in_child`] for each of many, several `at_once`, so that who says nothing in time keeps nobody else waiting. `done` gets
/// what each one said as soon as it did, in no order.
pub fn in_children<T>(
    many: impl IntoIterator<Item = T>,
    at_once: usize,
    within: std::time::Duration,
    work: impl Fn(&T) -> Vec<u8>,
    mut done: impl FnMut(T, io::Result<Vec<u8>>),
) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut waiting = many.into_iter().peekable();
    let mut running: Vec<(T, Copy)> = Vec::new();
    while !running.is_empty() || waiting.peek().is_some() {
        while running.len() < at_once.max(1)
            && let Some(one) = waiting.next()
        {
            match Copy::start(within, || work(&one)) {
                Ok(copy) => running.push((one, copy)),
                Err(error) => done(one, Err(error)),
            }
        }
        let now = std::time::Instant::now();
        let left = running.iter().map(|(_, copy)| copy.end.saturating_duration_since(now)).min();
        let mut polled: Vec<_> = running
            .iter()
            .map(|(_, copy)| PollFd::new(copy.pipe.get_ref().as_fd(), PollFlags::POLLIN))
            .collect();
        // Rounded up, so that the last millisecond is not a busy loop.
        let left = left.unwrap_or_default() + std::time::Duration::from_micros(999);
        let looked = poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        let ready: Vec<bool> = polled.iter().map(|fd| looked.is_ok() && fd.any() == Some(true)).collect();
        let now = std::time::Instant::now();
        let mut still = Vec::with_capacity(at_once);
        for ((one, mut copy), ready) in running.drain(..).zip(ready) {
            let heard = if ready { copy.listen() } else { Ok(false) };
            match heard {
                Ok(false) if copy.end > now => still.push((one, copy)),
                Ok(false) => done(one, copy.finish(Err(io::ErrorKind::TimedOut.into()))),
                heard => done(one, copy.finish(heard.map(drop))),
            }
        }
        running = still;
    }
}

/// Runs `child` in a new process that shares this one's memory, while this one stands still until the child has
/// exec'd or ended (`CLONE_VM | CLONE_VFORK`, clone(2)). No page table is copied, which is most of what fork(2) costs,
/// and the child leaves the reason of a failure where its parent finds it. If `child` returns, its process ends.
///
/// For single-threaded programs: `child` may do what the parent may.
///
/// # Errors
/// clone(2)
pub fn spawn(child: &mut dyn FnMut()) -> io::Result<i32> {
    use nix::sched::{CloneFlags, clone};
    let mut stack = vec![0; 256 * 1024];
    let run = Box::new(|| {
        child();
        126
    });
    let flags = CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: the parent is suspended for as long as the child uses the shared memory, the child has a stack of its
    // own, and there is no other thread that could hold a lock.
    let pid = unsafe { clone(run, &mut stack, flags, Some(libc::SIGCHLD)) }?;
    Ok(pid.as_raw())
}

/// Goes on as a new process, with the same parent, that is born in a control group (`CLONE_INTO_CGROUP`, clone(2),
/// Linux 5.7); the old one ends. The usual way, writing to `cgroup.procs`, makes the kernel wait until no process anywhere is in the middle of
/// a fork or an exec, which takes ten milliseconds and more.
///
/// The caller has one thread, and rights on the group and on those above it, up to the one that it has in common with
/// its present one (cgroups(7), delegation containment).
///
/// # Errors
/// clone3(2); this is still the old process then
pub fn continue_in_cgroup(directory: std::os::fd::BorrowedFd<'_>) -> io::Result<()> {
    // include/uapi/linux/sched.h
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    // SAFETY: all zeros is a valid clone_args.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    // A child of the old one's parent, and told of like that (no signal of its own): podsecd collects the new one too,
    // and sees when somebody stops it.
    arguments.flags = CLONE_INTO_CGROUP | u64::try_from(libc::CLONE_PARENT).map_err(io::Error::other)?;
    arguments.cgroup = u64::try_from(directory.as_raw_fd()).map_err(io::Error::other)?;
    let result = hand_over(&mut arguments);
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO)))
    }
}

/// clone3(2): 0 in the new process, minus the error's number in the old one, which otherwise does not return. The new
/// process takes over memory and stack as they are (`CLONE_VM`), since copying page tables would be most of the cost.
#[cfg(target_arch = "x86_64")]
fn hand_over(arguments: &mut libc::clone_args) -> i64 {
    arguments.flags |= u64::try_from(libc::CLONE_VM).unwrap_or(0);
    // At the end of the old process the kernel would write a zero where libc keeps this thread's number.
    // SAFETY: a null address turns that off.
    unsafe { libc::syscall(libc::SYS_set_tid_address, std::ptr::null::<libc::c_int>()) };
    let result: i64;
    // SAFETY: both processes come out of the first system call with the same memory and the same stack. The new one
    // goes on with them. The old one touches neither: it uses registers only, up to its exit_group.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jle 2f",
            "xor edi, edi",
            "mov eax, {exit_group}",
            "syscall",
            "2:",
            exit_group = const libc::SYS_exit_group,
            inlateout("rax") libc::SYS_clone3 => result,
            inlateout("rdi") std::ptr::from_mut(arguments) => _,
            in("rsi") size_of::<libc::clone_args>(),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// As above, on other machines by a plain copy: slower, and nothing to be careful about.
#[cfg(not(target_arch = "x86_64"))]
fn hand_over(arguments: &mut libc::clone_args) -> i64 {
    // SAFETY: pointer and size are those of the structure.
    match unsafe {
        libc::syscall(libc::SYS_clone3, std::ptr::from_mut(arguments), size_of::<libc::clone_args>())
    } {
        0 => 0,
        // SAFETY: ends the old process as it is; everything that it had open, the new one has.
        1.. => unsafe { libc::_exit(0) },
        _ => -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// Is a variable of the environment to be trusted? Not where the program runs with more than its caller's rights
/// (getauxval(3), `AT_SECURE`).
#[must_use]
pub fn environment_is_trusted() -> bool {
    // SAFETY: reads a number from the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SECURE) == 0 }
}

/// Refuses a file that root must not read or run: one that is not root's, or that group or others may write, or
/// below a directory of which that is true.
///
/// # Errors
/// `PermissionDenied` names the part of the path; stat(2)
pub fn require_root_owned(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let mut part = Some(path);
    while let Some(here) = part {
        let meta = std::fs::symlink_metadata(here)?;
        let sticky = meta.is_dir() && meta.mode() & 0o1000 != 0;
        if meta.uid() != 0 || (meta.mode() & 0o022 != 0 && !sticky) || meta.file_type().is_symlink() {
            let text = format!("{} is not root's alone (owner, mode or a link)", here.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        part = here.parent();
    }
    Ok(())
}

/// Makes a directory, and those above it, where they are missing; and refuses one that is not root's alone.
///
/// # Errors
/// mkdir(2); as [`require_root_owned`]
pub fn make_root_owned(directory: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(mode).create(directory)?;
    require_root_owned(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_status() {
        let text = "Name:\tx\nUid:\t1\t2\t3\t4\nNSpid:\t77\t1\nGroups:\t\n";
        let of = |text: &str, key| status_line(text.as_bytes(), key).ok();
        assert_eq!(of(text, "Uid"), Some(vec![1, 2, 3, 4]));
        assert_eq!(of(text, "NSpid"), Some(vec![77, 1]));
        assert_eq!(of(text, "Groups"), Some(vec![]));
        assert_eq!(of(text, "Gid"), None);
        assert_eq!(of("Uid:\tx\n", "Uid"), None);
        let long = format!("Groups:\t{}\nNSpid:\t77\n", "1000000 Uid:\t0 ".repeat(65_536));
        assert_eq!(of(&long, "NSpid"), Some(vec![77]));
        assert_eq!(of(&long, "Uid"), None);
    }

    #[test]
    fn a_name_cannot_fake_the_session() {
        assert_eq!(session_of("7 (a) S 1 34816) S 1 7 42 0 -1"), Some(42));
        assert_eq!(session_of("7 (x\n) 9 9 9 9) S 1 7 43 0"), Some(43));
        assert_eq!(session_of("7 (x"), None);
        assert_eq!(session_of(""), None);
    }

    #[test]
    fn a_copy_speaks_or_is_ended() {
        let short = std::time::Duration::from_millis(200);
        assert_eq!(in_child(short, || b"said".to_vec()).unwrap(), b"said");
        assert_eq!(in_child(short, Vec::new).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let stopped = in_child(short, || {
            nix::sys::signal::raise(Signal::SIGSTOP).unwrap();
            b"too late".to_vec()
        });
        assert_eq!(stopped.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[test]
    fn pidfd_follows_the_process() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pidfd = open(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(!has_ended(&pidfd));
        signal(&pidfd, Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        assert!(has_ended(&pidfd));
        assert!(signal(&pidfd, Signal::SIGKILL).is_err());
        assert!(open(-1).is_err() && open(0).is_err());
    }

    #[test]
    fn uids_of_a_process() {
        let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = open(pid).unwrap();
        match uids(&pidfd) {
            Ok(uids) => assert_eq!(uids.to_vec(), Facts::of(pid).status("Uid").unwrap()),
            Err(error) => {
                println!("this kernel does not tell by pidfd: {error}");
                assert!(matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)));
            }
        }
        assert_eq!(pid_depth(&pidfd).unwrap(), Facts::of(pid).status("NSpid").unwrap().len());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(uids(&pidfd).is_err());
        assert!(pid_depth(&pidfd).is_err());
    }

    #[test]
    fn root_owned() {
        if !nix::unistd::geteuid().is_root() {
            println!("not root: only the refusal is tried");
        } else {
            require_root_owned(Path::new("/etc/passwd")).unwrap();
        }
        assert!(require_root_owned(Path::new("/etc/mtab")).is_err(), "a link");
        assert!(require_root_owned(Path::new("/proc/self/nothing")).is_err());
    }
}
