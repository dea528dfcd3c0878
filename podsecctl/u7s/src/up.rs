//! `up`, on the host: check, clear what a killed predecessor left, prepare the control group, become rootlesskit.

use crate::preflight;
use podsec_sys::program;
use podsec_u7s::cli;
use podsec_u7s::config::{AbsPath, Config, Payload, ValueError};
use podsec_u7s::rootlesskit::command::{self, EVACUATION, Found};
use podsec_u7s::rootlesskit::{StateDir, is_running};
use rustix::fs::{Mode, OFlags};
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Namespaces that may be unshared, as /proc/PID/ns calls them, with whether the configuration wants it.
pub(crate) fn kinds(config: &Config) -> [(&'static str, bool); 7] {
    let wanted = &config.namespaces;
    [
        ("user", true),
        ("mnt", true),
        ("net", true),
        ("cgroup", wanted.cgroup),
        ("pid", wanted.pid),
        ("ipc", wanted.ipc),
        ("uts", wanted.uts),
    ]
}

/// Why the namespaces do not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    #[error("this machine is not ready for rootless namespaces:{}", list(.0))]
    Preflight(Vec<preflight::Problem>),
    #[error("-- PAYLOAD: {0}")]
    Payload(#[from] ValueError),
    #[error("the namespaces are up already, or just coming up{}; see podsec-u7s status", holder(.0.as_ref()))]
    Running(Option<podsec_u7s::rootlesskit::Pid>),
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

fn list(problems: &[preflight::Problem]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}

fn holder(pid: Option<&podsec_u7s::rootlesskit::Pid>) -> String {
    pid.map(|pid| format!(" (rootlesskit is process {pid})")).unwrap_or_default()
}

/// Returns only when nothing was started: after a dry run, or with the reason.
pub(crate) fn up(mut config: Config, file: Option<&Path>, arguments: cli::Up) -> Result<ExitCode, UpError> {
    if !arguments.payload.is_empty() {
        config.payload = Payload::try_from(arguments.payload)?;
    }
    // What rootlesskit and we make is not to be writable by the group, whatever the caller's umask was.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let group = own_cgroup();
    let found = preflight::check(&config, group.as_deref()).map_err(UpError::Preflight)?;
    let words = command_line(&config, file, &found)?;
    if arguments.dry_run {
        for word in
            std::iter::once(found.rootlesskit.as_os_str()).chain(words.iter().map(OsString::as_os_str))
        {
            println!("{}", word.display());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let state = StateDir::new(config.state_dir.as_path());
    prepare(&state, &config.data_dir)?;
    if let Some(group) = group {
        open_to_sessions(&group, found.evacuate)?;
    }
    let mut rootlesskit = Command::new(&found.rootlesskit);
    rootlesskit.args(words).env_clear().envs(environment(&config));
    if let Some(socket) = std::env::var_os("NOTIFY_SOCKET") {
        rootlesskit.env("NOTIFY_SOCKET", socket);
    }
    let source = rootlesskit.exec();
    Err(io_error("run", &found.rootlesskit)(source))
}

/// For rootlesskit, which looks for newuidmap, ip and getsubids in PATH and for the user's name in USER.
fn environment(config: &Config) -> [(&'static str, OsString); 5] {
    let user = config.user.as_str();
    [
        ("PATH", program::PATH.into()),
        ("HOME", config.home.as_path().into()),
        ("USER", user.into()),
        ("LOGNAME", user.into()),
        ("LANG", "C.UTF-8".into()),
    ]
}

fn command_line(config: &Config, file: Option<&Path>, found: &Found) -> Result<Vec<OsString>, UpError> {
    let mut words = command::arguments(config, found, Path::is_dir);
    let own = std::env::current_exe().map_err(io_error("find", Path::new("/proc/self/exe")))?;
    words.push(own.into());
    words.push("child".into());
    if let Some(file) = file {
        words.push("--config".into());
        words.push(file.canonicalize().map_err(io_error("find", file))?.into());
    }
    words.push("--outside".into());
    words.push(outside(config)?.into());
    words.push("--".into());
    words.push(config.payload.program().as_path().into());
    words.extend(config.payload.arguments().iter().map(OsString::from));
    Ok(words)
}

/// The namespaces here, `user=4026531837,mnt=…`, so that the child can tell that it is elsewhere.
fn outside(config: &Config) -> Result<String, UpError> {
    let wanted = kinds(config).into_iter().filter(|(_, wanted)| *wanted);
    let numbers = wanted.map(|(kind, _)| {
        let path = Path::new("/proc/self/ns").join(kind);
        let number = path.metadata().map_err(io_error("look at", &path))?.ino();
        Ok(format!("{kind}={number}"))
    });
    Ok(numbers.collect::<Result<Vec<_>, UpError>>()?.join(","))
}

/// Makes rootlesskit's directory and the data directory, and clears what a killed rootlesskit left
/// (rootless-containers/rootlesskit#220).
fn prepare(state: &StateDir, data: &AbsPath) -> Result<(), UpError> {
    let directory = state.rootlesskit();
    make(&directory, 0o755)?;
    // Containers' files: nobody else's on this host.
    make(data.as_path(), 0o700)?;
    match state.clear_stale() {
        Ok(_) => Ok(()),
        Err(error) if is_running(&error) => Err(UpError::Running(state.holder())),
        Err(error) => Err(io_error("clear", &directory)(error)),
    }
}

fn make(path: &Path, mode: u32) -> Result<(), UpError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(mode).create(path).map_err(io_error("make", path))
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> UpError + 'a {
    move |source| UpError::Io { what, path: path.into(), source }
}

/// Our control group's directory, if cgroup v2 is all there is and the group was delegated to us (cgroups(7)).
fn own_cgroup() -> Option<PathBuf> {
    const ROOT: &str = "/sys/fs/cgroup";
    // CGROUP2_SUPER_MAGIC, statfs(2). A tmpfs here means cgroup v1, where nothing can be delegated safely.
    if rustix::fs::statfs(ROOT).ok()?.f_type != 0x6367_7270 {
        return None;
    }
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = unified(&groups)?;
    let path = Path::new(ROOT).join(group);
    let ours = |name: &str| {
        let found = path.join(name).metadata();
        found.is_ok_and(|found| found.uid() == rustix::process::geteuid().as_raw())
    };
    (ours("") && ours("cgroup.procs") && ours("cgroup.subtree_control")).then_some(path)
}

/// The line of the unified hierarchy, `0::/path`; `None` for a group above this cgroup namespace's root.
fn unified(groups: &str) -> Option<&str> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!group.split('/').any(|part| part == "..")).then_some(group)
}

/// Lets podsecd put sessions beside the payload: its worker is root without any capability then, but has our group.
fn open_to_sessions(group: &Path, evacuate: bool) -> Result<(), UpError> {
    let leaf = if evacuate {
        // rootlesskit makes it otherwise, with a file that only we could write.
        let leaf = group.join(EVACUATION);
        make(&leaf, 0o755)?;
        leaf
    } else {
        group.into()
    };
    let procs = leaf.join("cgroup.procs");
    let opened = rustix::fs::open(&procs, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
    opened
        .and_then(|file| rustix::fs::fchmod(file, Mode::from_raw_mode(0o664)))
        .map_err(|error| io_error("open to podsecd's sessions", &procs)(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_is_told_all_it_needs() {
        let config = Config::parse("payload = ['/bin/echo', '--dry-run']\nnamespaces.ipc = false").unwrap();
        let found = Found { rootlesskit: "/r".into(), driver: "/d".into(), evacuate: false };
        let words = command_line(&config, Some(Path::new("/etc/passwd")), &found).unwrap();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let own = words.iter().position(|word| !word.starts_with("--")).unwrap();
        assert!(words[..own].iter().all(|word| word.starts_with("--")));
        assert_eq!(&words[own + 1..own + 5], ["child", "--config", "/etc/passwd", "--outside"]);
        let kinds: Vec<_> = words[own + 5].split(',').map(|pair| pair.split('=').next().unwrap()).collect();
        assert_eq!(kinds, ["user", "mnt", "net", "cgroup", "pid", "uts"]);
        assert_eq!(&words[own + 6..], ["--", "/bin/echo", "--dry-run"]);
    }

    #[test]
    fn takes_only_a_group_that_it_can_see() {
        assert_eq!(
            unified("5:memory:/a\n0::/system.slice/podsec-u7s.service\n"),
            Some("system.slice/podsec-u7s.service")
        );
        assert_eq!(unified("0::/\n"), Some(""));
        assert_eq!(unified("0::/../other\n"), None);
        assert_eq!(unified("5:memory:/a\n"), None);
    }
}
