//! A session inside the namespaces: the program, its terminal or descriptors, and the supervisor that stays with it.
//!
//! The bytes of the session pass through nobody: the program has the client's own descriptors, or a terminal whose
//! leader the client holds. What is left here is to wait for the program and for the client.

use crate::cluster::{Inside, Target};
use crate::{Failure, Report};
use podsec_policy::enter::{Enter, Program, Window};
use podsec_policy::reason::Reason;
use podsec_sys::nix;
use podsec_sys::nix::fcntl::OFlag;
use podsec_sys::nix::sys::signal::{Signal, kill};
use podsec_sys::nix::sys::stat::{Mode, SFlag, fstat, umask};
use podsec_sys::nix::unistd::{Pid, chdir, execve, getcwd, setsid};
use podsec_sys::process::{self, Ended, Proc};
use podsec_sys::terminal;
use podsec_wire::Channel;
use podsec_wire::messages::{Job, Place, Reply, Step};
use podsec_wire::session::{self, Exit, FromClient, ToClient};
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where programs are looked for inside.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// For a shell that is none: what passwd(5) has for accounts that do not log in.
const SHELL: &str = "/bin/sh";

/// The session's end of a terminal, or the client's descriptors.
enum Stdio {
    Terminal { leader: Option<OwnedFd>, follower: OwnedFd },
    Client(Vec<OwnedFd>),
}

/// Runs a session from beginning to end. What goes wrong before the client can be told over the session itself is a
/// [`Failure`] for the front.
pub fn run(
    job: &Job,
    enter: &Enter,
    place: &Place,
    Inside { target, proc, devices }: Inside,
    front: &Channel,
    client: Channel,
    report: &mut Report,
) -> Result<(), Failure> {
    let no_terminal = |error| Failure::new(Reason::Terminal, format!("no terminal: {error}"));
    let open = |window: Window| terminal::open_in(&devices, window.rows(), window.columns());
    let pty = enter.terminal().map(open).transpose().map_err(no_terminal)?;
    // A client that has fetched it need not wait for this.
    let _ = front.send(&Reply::End, &[]);

    let image = Image::new(enter, place)?;
    let started =
        attend(&client, pty, report).and_then(|stdio| start(&image, &target, stdio, &client, report));
    drop((target, devices));
    match started {
        Ok(child) => {
            let exit = supervise(child, &client, &proc, Duration::from_secs(job.config.limits.hangup_grace));
            // The client first: that something was done is in the record since before it was done, and how it ended
            // goes there whether or not anybody waits.
            let _ = client.send(&ToClient::Exited(exit), &[]);
            report.finish(Ok(()), Some(exit.status()));
        }
        Err(Failure { reason, detail }) => {
            report.finish(Err(reason), None);
            let _ = client.send(&ToClient::Failed { reason, detail }, &[]);
        }
    }
    Ok(())
}

/// Waits for the client's first word. The gate closes the client's end if nobody fetches it in time.
fn attend(client: &Channel, pty: Option<(OwnedFd, OwnedFd)>, report: &mut Report) -> Result<Stdio, Failure> {
    report.waiting(Step::Attach);
    let (first, descriptors) = client.receive::<FromClient>().ok().flatten().ok_or(Reason::NotAttached)?;
    match (first, pty, descriptors.len()) {
        (FromClient::Open, Some((leader, follower)), 0) => {
            Ok(Stdio::Terminal { leader: Some(leader), follower })
        }
        (FromClient::Open, None, 3) => {
            descriptors.iter().try_for_each(judge_descriptor)?;
            Ok(Stdio::Client(descriptors))
        }
        _ => Err(Reason::Protocol.into()),
    }
}

/// A terminal of the caller's would let the session type into his shell (TIOCSTI); a directory would lead out of the
/// namespaces (CVE-2024-21626); a device is the host's.
fn judge_descriptor(fd: &OwnedFd) -> Result<(), Failure> {
    let refuse = |what: &str| {
        Err(Failure::new(
            Reason::BadDescriptor,
            format!("{}; one is {what}", Reason::BadDescriptor.sentence()),
        ))
    };
    let stat = fstat(fd).map_err(|_| Reason::BadDescriptor)?;
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFREG | SFlag::S_IFIFO | SFlag::S_IFSOCK => {}
        // null, zero, full, random, urandom (Documentation/admin-guide/devices.txt)
        SFlag::S_IFCHR
            if nix::sys::stat::major(stat.st_rdev) == 1
                && matches!(nix::sys::stat::minor(stat.st_rdev), 3 | 5 | 7 | 8 | 9) => {}
        SFlag::S_IFCHR => return refuse("a terminal or another device"),
        SFlag::S_IFDIR => return refuse("a directory"),
        _ => return refuse("of no kind that a session may have"),
    }
    // A descriptor of O_PATH carries no right but to be walked from.
    match nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_GETFL) {
        Ok(flags) if !OFlag::from_bits_retain(flags).contains(OFlag::O_PATH) => Ok(()),
        _ => refuse("only a path"),
    }
}

/// Everything that execve(2) needs, made beforehand.
struct Image {
    candidates: Vec<CString>,
    argv: Vec<CString>,
    environment: Vec<CString>,
    directory: CString,
}

impl Image {
    fn new(enter: &Enter, Place { user, state }: &Place) -> Result<Self, Failure> {
        let (program, argv) = match enter.program() {
            Program::Command(argv) => (argv.first().cloned().unwrap_or_default(), argv.clone()),
            Program::LoginShell => {
                let shell = login_shell(&user.shell);
                // A leading dash is how a shell knows that it is a login shell (login(1)).
                let name = shell.file_name().unwrap_or(OsStr::new("sh")).as_bytes();
                (shell.as_os_str().as_bytes().to_vec(), vec![[b"-", name].concat()])
            }
        };
        let candidates = if program.contains(&b'/') {
            vec![program]
        } else {
            PATH.split(':').map(|directory| [directory.as_bytes(), b"/", &program].concat()).collect()
        };
        let home = user.home.as_os_str().as_bytes();
        let state = state.join("rootlesskit");
        let mut environment = vec![
            [b"HOME=", home].concat(),
            format!("USER={}", user.name).into_bytes(),
            format!("LOGNAME={}", user.name).into_bytes(),
            [b"SHELL=", login_shell(&user.shell).as_os_str().as_bytes()].concat(),
            format!("PATH={PATH}").into_bytes(),
            [b"ROOTLESSKIT_STATE_DIR=", state.as_os_str().as_bytes()].concat(),
        ];
        let asked = enter.environment().iter();
        environment
            .extend(asked.map(|variable| [variable.name().as_bytes(), b"=", variable.value()].concat()));
        let c_strings =
            |list: Vec<Vec<u8>>| list.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
        let directory = enter.directory().unwrap_or(home).to_vec();
        let make = || {
            Ok::<_, std::ffi::NulError>(Self {
                candidates: c_strings(candidates)?,
                argv: c_strings(argv)?,
                environment: c_strings(environment)?,
                directory: CString::new(directory)?,
            })
        };
        make().map_err(|error| Failure::new(Reason::BadArgument, error))
    }
}

fn login_shell(shell: &Path) -> &Path {
    let none = matches!(shell.file_name().map(OsStr::as_bytes), None | Some(b"nologin" | b"false"));
    if none { Path::new(SHELL) } else { shell }
}

/// Starts the program and tells the client. Nothing here asks NSS or a locale: those would load libraries from a file
/// system that is the cluster user's (CVE-2019-14271).
fn start(
    image: &Image,
    target: &Target,
    stdio: Stdio,
    client: &Channel,
    report: &mut Report,
) -> Result<i32, Failure> {
    report.waiting(Step::Start);
    let mut stdio = stdio;
    if let Stdio::Terminal { leader, .. } = &mut stdio {
        let leader = leader.take().ok_or(Reason::Bug)?;
        client.send(&ToClient::Terminal, &[leader.as_fd()]).map_err(|_| Reason::NotAttached)?;
        // Dropped here: once the client's copy is gone, the kernel itself hangs the terminal up.
    }
    let (_, supervisor) = process::own().map_err(|error| Failure::new(Reason::Resources, error))?;
    let mut failed = None;
    // In a joined pid namespace only children live, so there is always this one new process.
    let mut child = || failed = Some(become_program(image, &stdio, &supervisor));
    let child = process::spawn(&mut child).map_err(|error| target.explain_fork(&error))?;
    drop((stdio, supervisor));
    if let Some((at, error)) = failed {
        wait(child);
        return Err(explain(at, error, image));
    }
    let _ = client.send(&ToClient::Started, &[]);
    report.waiting(Step::Run);
    Ok(child)
}

/// Where a program failed to start.
#[derive(Clone, Copy)]
enum At {
    Setup,
    Directory,
    Program,
}

fn explain(at: At, error: nix::Error, image: &Image) -> Failure {
    let name = image.argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match at {
        At::Directory => {
            let directory = image.directory.to_string_lossy();
            Failure::new(
                Reason::BadDirectory,
                format!("{directory}: {} (inside the namespace)", error.desc()),
            )
        }
        At::Program => Failure::new(Reason::Exec, format!("{name}: {} (inside the namespace)", error.desc())),
        At::Setup => {
            Failure::new(Reason::Terminal, format!("the session could not be set up: {}", error.desc()))
        }
    }
}

/// In the child, up to exec; returns only what went wrong.
fn become_program(image: &Image, stdio: &Stdio, supervisor: &OwnedFd) -> (At, nix::Error) {
    let setup = || {
        process::default_sigpipe()?;
        // Without its supervisor nobody would end it with its client. Nor would anybody end one that cannot begin, since
        // a directory of the cluster user's may take for ever to enter.
        process::die_with(supervisor)?;
        // A session of its own: no controlling terminal is inherited, /dev/tty is not the caller's.
        setsid()?;
        match stdio {
            Stdio::Terminal { follower, .. } => {
                terminal::control(follower)?;
                terminal::become_stdio(follower, follower, follower)?;
            }
            Stdio::Client(descriptors) => {
                let [stdin, stdout, stderr] = &descriptors[..] else {
                    return Err(std::io::ErrorKind::InvalidInput.into());
                };
                terminal::become_stdio(stdin, stdout, stderr)?;
            }
        }
        umask(Mode::from_bits_truncate(0o022));
        usual_limits()?;
        process::close_from(3)
    };
    if let Err(error) = setup() {
        let number = error.raw_os_error().map_or(nix::Error::EIO, nix::Error::from_raw);
        return (At::Setup, number);
    }
    // After everything is closed: no descriptor of ours can be a way out.
    let inside = chdir(image.directory.as_c_str()).and_then(|()| getcwd());
    match inside {
        Ok(directory) if directory.starts_with("/") => {}
        Ok(_) => return (At::Directory, nix::Error::ENOENT),
        Err(error) => return (At::Directory, error),
    }
    let mut error = nix::Error::ENOENT;
    for candidate in &image.candidates {
        match execve(candidate, &image.argv, &image.environment) {
            // As execvp(3): the next directory may have it; EACCES is worth telling if none has.
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {}
            Err(other) => error = other,
            Ok(never) => match never {},
        }
    }
    (At::Program, error)
}

/// podsecd's own soft limits are not a session's: as systemd starts everybody (1024 descriptors, since select(2) takes
/// no more), and core dumps as the hard limit has them.
fn usual_limits() -> std::io::Result<()> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard.min(1024), hard)?;
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    Ok(setrlimit(Resource::RLIMIT_CORE, hard, hard)?)
}

/// Until the program ends, or its client does.
fn supervise(child: i32, client: &Channel, proc: &Proc, grace: Duration) -> Exit {
    let Ok(program) = process::open(child) else { return wait(child) };
    let mut killed_after: Option<Instant> = None;
    loop {
        let left = killed_after.map(|end| end.saturating_duration_since(Instant::now()));
        let watched = if killed_after.is_none() {
            vec![program.as_fd(), client.as_fd()]
        } else {
            vec![program.as_fd()]
        };
        let _ = process::wait_readable(&watched, left);
        if process::has_ended(&program) {
            if killed_after.is_some() {
                // The client died first: whoever of the session ignored the hang-up goes too.
                proc.signal_session(child, Signal::SIGKILL);
            }
            return wait(child);
        }
        match killed_after {
            None => match client.receive::<FromClient>() {
                Ok(Some((FromClient::Signal(signal), _))) => signal_group(child, signal),
                Ok(Some((FromClient::Open, _))) => {}
                // The end, or nonsense: the client is gone either way.
                Ok(None) | Err(_) => {
                    proc.signal_session(child, Signal::SIGHUP);
                    proc.signal_session(child, Signal::SIGCONT);
                    killed_after = Some(Instant::now() + grace);
                }
            },
            Some(end) if end <= Instant::now() => {
                proc.signal_session(child, Signal::SIGKILL);
                killed_after = Some(Instant::now() + grace);
            }
            Some(_) => {}
        }
    }
}

fn signal_group(child: i32, signal: session::Signal) {
    let signal = match signal {
        session::Signal::Hup => Signal::SIGHUP,
        session::Signal::Int => Signal::SIGINT,
        session::Signal::Quit => Signal::SIGQUIT,
        session::Signal::Term => Signal::SIGTERM,
        session::Signal::Kill => Signal::SIGKILL,
        session::Signal::Usr1 => Signal::SIGUSR1,
        session::Signal::Usr2 => Signal::SIGUSR2,
        // Nobody inside is the parent of this process group, so the kernel would ignore SIGTSTP (setpgid(2), orphaned).
        session::Signal::Tstp => Signal::SIGSTOP,
        session::Signal::Cont => Signal::SIGCONT,
    };
    let _ = kill(Pid::from_raw(-child), signal);
}

fn wait(child: i32) -> Exit {
    match process::wait(child) {
        Ok(Ended::Code(code)) => Exit::Code(code),
        Ok(Ended::Signal(signal)) => Exit::Signal(signal),
        Err(_) => Exit::Code(u8::MAX),
    }
}
