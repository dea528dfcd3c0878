//! The throwaway host: this program runs itself again inside one, with podsec installed and running.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// State directory of the tools in `tests/host`.
const STATE: &str = "/run/podsec-tests";

/// The checkout.
pub fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent")
}

/// A tool of `tests/host`.
pub fn tool(name: &str) -> Command {
    Command::new(top().join("tests/host").join(name))
}

/// Where `make build` leaves the programs.
pub fn bin_dir() -> PathBuf {
    std::env::var_os("BIN_DIR").map_or_else(|| top().join("target/dist"), PathBuf::from)
}

/// Outside: runs this very command line inside a throwaway host and gives its exit code. Inside: `None`.
pub fn enter() -> Option<ExitCode> {
    if std::env::var_os("PODSEC_HOST").is_some() {
        return None;
    }
    if std::fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) != 0) {
        println!("not run: a throwaway host needs root (namespaces, mounts, accounts)");
        return Some(ExitCode::SUCCESS);
    }
    let own = std::env::current_exe().expect("own path");
    let status =
        tool("throwaway-host").arg(own).args(std::env::args_os().skip(1)).status().expect("throwaway-host");
    Some(ExitCode::from(u8::try_from(status.code().unwrap_or(125)).unwrap_or(125)))
}

/// Installs podsec, makes the people, brings the namespaces and podsecd up.
pub fn up() {
    run(tool("provision").arg(bin_dir()));
    run(&mut tool("start-namespace"));
    run(&mut tool("start-daemon"));
}

/// Runs a command that has to succeed.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Are these programs there? Says so where one is not.
pub fn are_installed(programs: &[&str]) -> bool {
    let missing: Vec<_> =
        programs.iter().filter(|program| !Path::new("/usr/bin").join(program).exists()).collect();
    if !missing.is_empty() {
        println!("without {missing:?}: not installed (tests/host/deps check)");
    }
    missing.is_empty()
}

/// Makes a directory in which everybody can put things.
pub fn everybodys_directory(path: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(path).expect(path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o1777)).expect(path);
}

/// A file in such a directory, that everybody reads.
pub fn shared(directory: &str, name: &str, contents: &[u8]) -> String {
    everybodys_directory(directory);
    let path = format!("{directory}/{name}");
    std::fs::write(&path, contents).expect(&path);
    path
}

fn pid(name: &str) -> i32 {
    let text = std::fs::read_to_string(Path::new(STATE).join(name)).expect(name);
    text.trim().parse().expect("a pid")
}

/// podsecd's.
pub fn daemon_pid() -> i32 {
    pid("daemon.pid")
}

/// What podsecd printed.
pub fn daemon_log() -> String {
    std::fs::read_to_string(Path::new(STATE).join("daemon.log")).unwrap_or_default()
}

/// Sends a signal to a process that this host started.
pub fn kill(pid: i32, signal: &str) {
    run(Command::new("/bin/kill").arg(format!("-{signal}")).arg(pid.to_string()));
}

/// Ends podsecd and waits for it.
pub fn stop_daemon(signal: &str) {
    let pid = daemon_pid();
    kill(pid, signal);
    wait_for("podsecd to end", || !is_alive(pid));
}

/// Starts podsecd, with `/etc/podsec/podsecd.toml` as given, or the default.
pub fn start_daemon(config: Option<&str>) {
    let path = Path::new("/etc/podsec/podsecd.toml");
    match config {
        Some(text) => std::fs::write(path, text).expect("config"),
        None => _ = std::fs::remove_file(path),
    }
    run(&mut tool("start-daemon"));
}

/// podsecd with another configuration for as long as this lives; then the default one again.
pub struct Configured;

impl Configured {
    /// Restarts podsecd.
    pub fn with(config: &str) -> Self {
        stop_daemon("TERM");
        start_daemon(Some(config));
        Self
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        stop_daemon("TERM");
        start_daemon(None);
    }
}

/// A file of the host with other contents, for as long as this lives.
#[derive(Debug)]
pub struct Edited(PathBuf, String);

impl Edited {
    /// Changes it now.
    pub fn with(path: &str, edit: impl FnOnce(&str) -> String) -> Self {
        let old = std::fs::read_to_string(path).expect(path);
        std::fs::write(path, edit(&old)).expect(path);
        Self(path.into(), old)
    }
}

impl Drop for Edited {
    fn drop(&mut self) {
        std::fs::write(&self.0, &self.1).expect("the old contents");
    }
}

/// Ends the rootless namespaces.
pub fn stop_namespace() {
    let pid = pid("namespace.pid");
    kill(pid, "TERM");
    // And to be gone, which start-namespace looks at.
    wait_for("the namespace to end", || !Path::new("/proc").join(pid.to_string()).exists());
}

/// Brings them up again.
pub fn start_namespace() {
    let _ = std::fs::remove_file("/run/podsec-u7s/ready");
    run(&mut tool("start-namespace"));
}

/// Host pid of the first process inside.
pub fn child_pid() -> i32 {
    std::fs::read_to_string("/run/podsec-u7s/rootlesskit/child_pid")
        .expect("child_pid")
        .trim()
        .parse()
        .expect("a pid")
}

/// How often something is done: as often as docs/threats.md says with PODSEC_FULL=1, less often in the usual run. Says
/// which it was.
pub fn count(usual: usize, full: usize) -> usize {
    let count = if std::env::var_os("PODSEC_FULL").is_some() { full } else { usual };
    println!("{count} times");
    count
}

/// Is there such a process that is not a zombie?
pub fn is_alive(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

/// Waits up to ten seconds.
pub fn wait_for(what: &str, holds: impl FnMut() -> bool) {
    within(Duration::from_secs(10), what, holds);
}

/// Waits no longer than that.
pub fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < end, "waited {limit:?} for {what}\n{}", daemon_log());
        std::thread::sleep(Duration::from_millis(5));
    }
}
