//! `child`: the first process of ours inside. Mounts, links, addresses, ports, the readiness marker last, then the
//! payload takes its place.
//!
//! Must not: do any of it on the host. The checks at the start are what stands between a `podsec-u7s child` typed by
//! root and mounts over the host's /var/log.

use crate::say;
use crate::up::kinds;
use podsec_policy::port::PortSpec;
use podsec_sys::program::{self, ProgramError};
use podsec_u7s::cli;
use podsec_u7s::config::{AbsPath, Config, Link, NodeAddress, Payload, ValueError};
use podsec_u7s::ports::{self, PortsError, Store};
use podsec_u7s::rootlesskit::api::{Api, ApiError, Info};
use podsec_u7s::rootlesskit::{Pid, StateDir, StateError};
use rustix::fs::Mode;
use rustix::mount::mount_bind_recursive;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The name that rootlesskit gives the interface, for slirp4netns and for pasta.
const INTERFACE: &str = "tap0";

/// From the start of the child to rootlesskit's API: a few milliseconds, on a busy machine some hundred.
const API_PATIENCE: Duration = Duration::from_secs(20);

/// Why the namespaces are not set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChildError {
    #[error("this is not inside: {0}; rootlesskit runs this command, people run podsec-u7s up")]
    Outside(String),
    #[error("PAYLOAD: {0}")]
    Payload(#[from] ValueError),
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{} is in the way: neither what rootlesskit copied up nor a link; take it out of the configuration", .0.display())]
    InTheWay(PathBuf),
    #[error("node_address {0}: {1}")]
    Address(NodeAddress, ProgramError),
    #[error("node_address {0}: ip is missing")]
    NoIp(NodeAddress),
    #[error("port {0}: {1}")]
    Port(PortSpec, ApiError),
    #[error(transparent)]
    Ports(#[from] PortsError),
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("{} names another process than rootlesskit's API, {told}", path.display())]
    Pid { path: PathBuf, told: Pid },
    #[error("the payload {0} is not an executable program here, inside")]
    NoPayload(AbsPath),
}

/// Returns only when it failed.
pub(crate) fn child(config: &Config, arguments: cli::Child) -> ChildError {
    let state = StateDir::new(config.state_dir.as_path());
    let payload = match set_up(config, &state, arguments) {
        Ok(payload) => payload,
        Err(error) => return error,
    };
    let source = Command::new(payload.program().as_path())
        .args(payload.arguments())
        .env_clear()
        .env("PATH", program::PATH)
        .env("HOME", config.home.as_path())
        .env("USER", "root")
        .env("LOGNAME", "root")
        .env("LANG", "C.UTF-8")
        .env("ROOTLESSKIT_STATE_DIR", state.rootlesskit())
        .current_dir("/")
        .exec();
    take_back(&state);
    io_error("run", payload.program().as_path())(source)
}

fn set_up(config: &Config, state: &StateDir, arguments: cli::Child) -> Result<Payload, ChildError> {
    inside(config, state, &arguments.outside)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let payload = Payload::try_from(arguments.payload)?;
    for path in &config.remove {
        hide(path.as_path())?;
    }
    for path in &config.data_over {
        bind(config, &path.below(&config.data_dir), path)?;
    }
    for mount in &config.binds {
        bind(config, mount.source.as_path(), &mount.target)?;
    }
    for entry in &config.links {
        link(entry)?;
    }
    if let Some(address) = config.network.node_address {
        add_address(address)?;
    }
    let api = state.api();
    let info = wait_for(&api)?;
    publish(config, &api)?;
    if !program::executable(payload.program().as_path()) {
        return Err(ChildError::NoPayload(payload.program().clone()));
    }
    // What we mark is what podsecd compares it with.
    let child = state.child_pid()?;
    if child != Some(info.child_pid) {
        return Err(ChildError::Pid { path: state.child_pid_path(), told: info.child_pid });
    }
    state.mark_ready(info.child_pid).map_err(io_error("mark as ready", state.path()))?;
    notify().inspect_err(|_| take_back(state))?;
    Ok(payload)
}

fn take_back(state: &StateDir) {
    if let Err(error) = state.unmark_ready() {
        say(&format!("cannot remove the readiness marker in {}: {error}", state.path().display()));
    }
}

/// Makes sure that all that follows happens in namespaces of our own.
fn inside(config: &Config, state: &StateDir, outside: &str) -> Result<(), ChildError> {
    let not = |why: String| Err(ChildError::Outside(why));
    if rustix::process::geteuid().as_raw() != 0 {
        return not("it does not run as root of a user namespace".into());
    }
    let told = std::env::var_os("ROOTLESSKIT_STATE_DIR");
    if told.as_deref() != Some(state.rootlesskit().as_os_str()) {
        return not(format!("ROOTLESSKIT_STATE_DIR is not {}", state.rootlesskit().display()));
    }
    let map = std::fs::read_to_string("/proc/self/uid_map")
        .map_err(io_error("read", Path::new("/proc/self/uid_map")))?;
    if initial(&map) {
        return not("this is the host's user namespace".into());
    }
    for (kind, _) in kinds(config).into_iter().filter(|(_, wanted)| *wanted) {
        let path = Path::new("/proc/self/ns").join(kind);
        let here = path.metadata().map_err(io_error("look at", &path))?.ino();
        match number(outside, kind) {
            None => return not(format!("--outside does not say which {kind} namespace is outside")),
            Some(there) if there == here => return not(format!("the {kind} namespace is the one outside")),
            Some(_) => {}
        }
    }
    Ok(())
}

/// user_namespaces(7): only the initial one maps all ids to themselves.
fn initial(map: &str) -> bool {
    map.split_ascii_whitespace().eq(["0", "0", "4294967295"])
}

/// The number after `kind=` in `user=1,mnt=2`.
fn number(outside: &str, kind: &str) -> Option<u64> {
    outside.split(',').find_map(|pair| pair.strip_prefix(kind)?.strip_prefix('=')?.parse().ok())
}

/// Takes away the link that copying up made. The configuration has checked that its directory is copied up.
fn hide(path: &Path) -> Result<(), ChildError> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_error("look at", path)(error)),
        Ok(found) if !found.is_symlink() => Err(ChildError::InTheWay(path.into())),
        Ok(_) => std::fs::remove_file(path).map_err(io_error("hide", path)),
    }
}

/// Shows `source` at `target`.
fn bind(config: &Config, source: &Path, target: &AbsPath) -> Result<(), ChildError> {
    make(source)?;
    let path = target.as_path();
    let copied_up = config.copy_up.iter().any(|directory| Some(directory.as_path()) == path.parent());
    if copied_up && path.is_symlink() {
        // Mounted through the link, /proc/mounts would name a place below .ro…, where the kubelet looks in vain.
        hide(path)?;
    }
    make(path)?;
    // Recursively: mounts that came from the host are locked to what lies below them, mount_namespaces(7).
    mount_bind_recursive(source, path).map_err(|error| io_error("mount on", path)(error.into()))
}

fn make(path: &Path) -> Result<(), ChildError> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(0o755).create(path).map_err(io_error("make", path))
}

fn link(link: &Link) -> Result<(), ChildError> {
    let path = link.path.as_path();
    make(path.parent().unwrap_or(path))?;
    hide(path)?;
    symlink(link.target.as_path(), path).map_err(io_error("link", path))
}

fn add_address(address: NodeAddress) -> Result<(), ChildError> {
    let ip = program::find("ip").ok_or(ChildError::NoIp(address))?;
    program::run(&ip, &["address", "add", &format!("{address}/32"), "dev", INTERFACE])
        .map_err(|error| ChildError::Address(address, error))?;
    Ok(())
}

/// rootlesskit starts us before it listens.
fn wait_for(api: &Api) -> Result<Info, ApiError> {
    let end = Instant::now() + API_PATIENCE;
    loop {
        match api.info() {
            Err(ApiError::NotRunning) if Instant::now() < end => std::thread::sleep(Duration::from_millis(2)),
            other => return other,
        }
    }
}

/// A configured port that cannot be published is a wrong configuration, or a node that nobody can reach. A kept one
/// may be yesterday's experiment; it is reported, here and by `status`, and stops nothing.
fn publish(config: &Config, api: &Api) -> Result<(), ChildError> {
    for spec in &config.ports {
        api.publish(spec).map_err(|error| ChildError::Port(*spec, error))?;
    }
    for (spec, error) in ports::replay(api, &Store::new(config.home.as_path()))? {
        say(&format!("port {spec} is kept but not published: {error}"));
    }
    Ok(())
}

/// sd_notify(3): a datagram to the socket that the service manager named.
fn notify() -> Result<(), ChildError> {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET").map(PathBuf::from) else { return Ok(()) };
    let sent = UnixDatagram::unbound()
        .and_then(|from| from.send_to(b"READY=1\nSTATUS=namespaces set up\n", &socket));
    sent.map(|_| ()).map_err(io_error("notify the service manager on", &socket))
}

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> ChildError + 'a {
    move |source| ChildError::Io { what, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_hosts_user_namespace() {
        assert!(initial("         0          0 4294967295\n"));
        assert!(!initial("         0       1000          1\n         1     100000      65536\n"));
    }

    #[test]
    fn reads_the_namespaces_outside() {
        assert_eq!(number("user=1,mnt=22", "mnt"), Some(22));
        assert_eq!(number("user=1,mnt=22", "net"), None);
        assert_eq!(number("mntx=1,mnt=x", "mnt"), None);
    }

    /// Wherever the tests run, as root of the host too, nothing of this may be taken for inside.
    #[test]
    fn refuses_to_work_on_the_host() {
        let config = Config::default();
        let state = StateDir::new(config.state_dir.as_path());
        let here = kinds(&config)
            .map(|(kind, _)| {
                let ino = Path::new("/proc/self/ns").join(kind).metadata().unwrap().ino();
                format!("{kind}={ino}")
            })
            .join(",");
        for outside in ["", &here] {
            assert!(matches!(inside(&config, &state, outside), Err(ChildError::Outside(_))));
        }
    }
}
