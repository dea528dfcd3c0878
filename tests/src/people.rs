//! The people of the throwaway host, and what they type.

use std::process::{Command, Output, Stdio};

/// Group wheel: an Administrator.
pub const ALICE: &str = "alice";
/// In no group: a stranger.
pub const MALLORY: &str = "mallory";
/// Groups podman and podman_dev: an ImageCreator.
pub const CAROL: &str = "carol";
/// Group podman: an ImageUser.
pub const DAVE: &str = "dave";
/// Group podsec-monitor: a Monitor.
pub const ERIN: &str = "erin";
/// The cluster user.
pub const CLUSTER: &str = "u7s-admin";
/// root
pub const ROOT: &str = "root";

/// A command as that user: his groups, an empty environment, his home.
pub fn command(user: &str, program: &str) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid", user, "--regid", user, "--init-groups", "--reset-env", "--", program]);
    command.current_dir("/").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command
}

/// `podsecctl …` as that user.
pub fn podsecctl(user: &str, arguments: &[&str]) -> Output {
    let mut command = command(user, "/usr/bin/podsecctl");
    command.args(arguments);
    command.output().expect("podsecctl")
}

/// `podsecctl …` that has to succeed: its standard output.
pub fn ctl(user: &str, arguments: &[&str]) -> String {
    let output = podsecctl(user, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "podsecctl {arguments:?}: {}\n{}", output.status, text(&output.stderr));
    text(&output.stdout)
}

/// `podsecctl …` that has to fail: exit code and standard error.
pub fn ctl_fails(user: &str, arguments: &[&str]) -> (i32, String) {
    let output = podsecctl(user, arguments);
    assert!(
        !output.status.success(),
        "podsecctl {arguments:?} succeeded: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// `podsecctl enter -- …`: standard output.
pub fn enter(user: &str, argv: &[&str]) -> String {
    ctl(user, &[&["enter", "--"], argv].concat())
}

/// A command inside the rootless namespaces without podsecd, as a pod's root would be: uid 0 there, the cluster
/// user's uid outside.
pub fn inside(program: &str, arguments: &[&str]) -> Command {
    let pid = crate::host::child_pid().to_string();
    let mut command = command(CLUSTER, "/usr/bin/nsenter");
    command.args([
        "--user",
        "--preserve-credentials",
        "--mount",
        "--net",
        "--pid",
        "--ipc",
        "--uts",
        "--cgroup",
    ]);
    command.args(["--target", &pid, "--", program]).args(arguments);
    command
}

/// A script of his, which has to succeed: what it printed.
pub fn bash(who: &str, script: &str) -> String {
    crate::host::run(command(who, "/bin/bash").args(["-ec", script]))
}
