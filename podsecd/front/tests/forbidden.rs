//! Tries from inside the cage what nobody may do there, each in a process of its own: the filter of system calls
//! ends it, and where another wall should hold without the filter, that one is tried alone. Without any wall the
//! same attempt goes through, so a refusal is the wall's.

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says so by ending"
)]

use landlock::RulesetStatus;
use nix::errno::Errno;
use nix::unistd::Pid;
use podsec_sys::nix;
use podsecd_front::sandbox::{self, SandboxError};
use std::fs::File;
use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Command, ExitCode, ExitStatus};

/// Nobody's on any distribution: above the ids of people, below those of containers.
const ID: u32 = 64_001;
/// Exit codes that are no errno(3).
const NO_LANDLOCK: u8 = 250;
const BROKEN: u8 = 251;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Walls {
    None,
    /// The drop of uid, groups and capabilities, and no new privileges.
    Drop,
    /// And limits.
    Limits,
    /// And Landlock.
    Landlock,
    /// All of them.
    All,
}

struct Attempt {
    name: &'static str,
    what: fn() -> io::Result<()>,
    /// Which walls refuse it without the filter, and how.
    without_filter: Option<(Walls, Errno)>,
}

const fn attempt(name: &'static str, what: fn() -> io::Result<()>) -> Attempt {
    Attempt { name, what, without_filter: None }
}

impl Attempt {
    const fn stopped_by(mut self, walls: Walls, how: Errno) -> Self {
        self.without_filter = Some((walls, how));
        self
    }
}

const ATTEMPTS: &[Attempt] = &[
    attempt("open a file", || File::open("/etc/passwd").map(drop)).stopped_by(Walls::Landlock, Errno::EACCES),
    attempt("list a directory", || std::fs::read_dir("/").map(drop))
        .stopped_by(Walls::Landlock, Errno::EACCES),
    attempt("make a file", || {
        let path = std::env::temp_dir().join(format!("podsec-forbidden-{}", std::process::id()));
        File::create_new(&path)?;
        std::fs::remove_file(path)
    })
    .stopped_by(Walls::Landlock, Errno::EACCES),
    attempt("open its own memory", || File::open("/proc/self/mem").map(drop))
        .stopped_by(Walls::Drop, Errno::EACCES),
    attempt("openat2", || match podsec_sys::file::read_small("/etc/passwd".as_ref(), 0, 1 << 20) {
        Err(podsec_sys::file::FileError::Io(error)) => Err(error),
        result => result.map(drop).map_err(|_| io::Error::from_raw_os_error(Errno::ENODATA as i32)),
    })
    .stopped_by(Walls::Landlock, Errno::EACCES),
    attempt("memfd", || {
        let flags = nix::sys::memfd::MFdFlags::empty();
        Ok(nix::sys::memfd::memfd_create(c"x", flags).map(drop)?)
    }),
    attempt("a unix socket", || UnixStream::pair().map(drop)),
    attempt("listen on a port", || TcpListener::bind("127.0.0.1:0").map(drop))
        .stopped_by(Walls::Landlock, Errno::EACCES),
    attempt("connect to a port", || match TcpStream::connect("127.0.0.1:1") {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        result => result.map(drop),
    })
    .stopped_by(Walls::Landlock, Errno::EACCES),
    attempt("copy a descriptor", || {
        use std::os::fd::AsFd as _;
        io::stderr().as_fd().try_clone_to_owned().map(drop)
    }),
    attempt("exec", || Err(Command::new("/bin/true").exec())).stopped_by(Walls::Landlock, Errno::EACCES),
    attempt("fork", || Command::new("/bin/true").status().map(drop)).stopped_by(Walls::Limits, Errno::EAGAIN),
    attempt("a thread", || std::thread::Builder::new().spawn(|| ()).map(drop))
        .stopped_by(Walls::Limits, Errno::EAGAIN),
    attempt("ptrace", || {
        // The parent: this test, as root.
        let parent = nix::unistd::getppid();
        nix::sys::ptrace::seize(parent, nix::sys::ptrace::Options::empty())?;
        Ok(nix::sys::ptrace::detach(parent, None).or_else(|error| match error {
            // It was not stopped, and goes on untraced when this process ends.
            Errno::ESRCH => Ok(()),
            error => Err(error),
        })?)
    })
    .stopped_by(Walls::Drop, Errno::EPERM),
    attempt("signal another", || Ok(nix::sys::signal::kill(Pid::from_raw(1), None)?))
        .stopped_by(Walls::Drop, Errno::EPERM),
    attempt("hold another by pidfd", || podsec_sys::process::open(1).map(drop)),
    attempt("become root", || Ok(nix::unistd::setuid(0.into())?)).stopped_by(Walls::Drop, Errno::EPERM),
    attempt("take a group", || Ok(nix::unistd::setgroups(&[4.into()])?))
        .stopped_by(Walls::Drop, Errno::EPERM),
    attempt("chroot", || Ok(nix::unistd::chroot("/")?)).stopped_by(Walls::Drop, Errno::EPERM),
    attempt("a user namespace", || Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?)),
    attempt("mount", || {
        // A change of no mount: the target is not one.
        let flags = nix::mount::MsFlags::MS_REMOUNT | nix::mount::MsFlags::MS_BIND;
        let none = None::<&str>;
        match nix::mount::mount(none, "/proc/self", none, flags, none) {
            Err(Errno::EINVAL) => Ok(()),
            result => Ok(result?),
        }
    })
    .stopped_by(Walls::Drop, Errno::EPERM),
    attempt("be dumpable", || Ok(nix::sys::prctl::set_dumpable(true)?)),
    attempt("ioctl", || {
        podsec_sys::terminal::size(&io::stderr()).map(drop).or_else(|error| {
            if error.raw_os_error() == Some(Errno::ENOTTY as i32) { Ok(()) } else { Err(error) }
        })
    }),
];

fn build(walls: Walls) -> Result<RulesetStatus, SandboxError> {
    let mut landlock = RulesetStatus::FullyEnforced;
    match walls {
        Walls::None => {}
        Walls::All => sandbox::enter(ID, ID)?,
        Walls::Drop => sandbox::become_nobody(ID, ID).map_err(SandboxError::Drop)?,
        Walls::Limits => {
            build(Walls::Drop)?;
            sandbox::limit().map_err(SandboxError::Limits)?;
        }
        Walls::Landlock => {
            build(Walls::Drop)?;
            landlock = sandbox::close_file_system()?;
        }
    }
    Ok(landlock)
}

/// The child: behind these walls, tries one thing.
fn child(name: &str, walls: Walls) -> u8 {
    let Some(attempt) = ATTEMPTS.iter().find(|attempt| attempt.name == name) else { return BROKEN };
    match build(walls) {
        Ok(RulesetStatus::NotEnforced) => return NO_LANDLOCK,
        Ok(_) => {}
        Err(error) => {
            eprintln!("{error}");
            return BROKEN;
        }
    }
    match (attempt.what)() {
        Ok(()) => 0,
        Err(error) => error.raw_os_error().and_then(|number| u8::try_from(number).ok()).unwrap_or(BROKEN),
    }
}

fn run(name: &str, walls: Walls) -> ExitStatus {
    let walls = format!("{walls:?}");
    Command::new(std::env::current_exe().unwrap()).args(["--try", name, &walls]).status().unwrap()
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, name, walls] = &arguments[..]
        && flag == "--try"
    {
        let all = [Walls::None, Walls::Drop, Walls::Limits, Walls::Landlock, Walls::All];
        let walls = all.into_iter().find(|one| format!("{one:?}") == *walls).unwrap();
        return ExitCode::from(child(name, walls));
    }
    if !nix::unistd::geteuid().is_root() {
        println!("not root: the cage starts with becoming another user, so nothing is tried");
        return ExitCode::SUCCESS;
    }
    let mut failures = 0;
    let mut expect = |name: &str, walls, ok: bool, status: ExitStatus| {
        let verdict = if ok { "ok" } else { "FAILED" };
        println!("{name}, walls: {walls:?} ... {status} ... {verdict}");
        failures += usize::from(!ok);
    };
    for Attempt { name, without_filter, .. } in ATTEMPTS {
        let status = run(name, Walls::None);
        expect(name, Walls::None, status.success(), status);
        if let Some((walls, errno)) = *without_filter {
            let status = run(name, walls);
            if status.code() == Some(NO_LANDLOCK.into()) {
                println!("{name}, walls: {walls:?} ... left out: this kernel has no Landlock");
            } else {
                expect(name, walls, status.code() == Some(errno as i32), status);
            }
        }
        let status = run(name, Walls::All);
        expect(name, Walls::All, status.signal() == Some(nix::libc::SIGSYS), status);
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
