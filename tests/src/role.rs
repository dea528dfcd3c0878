//! What somebody else does in a test: this program again, under his uid. A connection is judged by the process that made
//! it, so an attacker has to be a process of the attacker's, and alive.

use std::io::Read as _;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

/// A name, and what is done with the arguments.
pub type Role = (&'static str, fn(&[String]));

const VARIABLE: &str = "PODSEC_ROLE";
/// Where every uid can read and run it; the checkout may be in somebody's closed home.
const PROGRAM: &str = "/run/podsec-tests/role";

/// For `main`: plays the role that [`start`] asked for, if it did.
pub fn play(roles: &[Role]) -> Option<ExitCode> {
    let name = std::env::var(VARIABLE).ok()?;
    let (_, run) = roles.iter().find(|(role, _)| *role == name).unwrap_or_else(|| panic!("no role {name}"));
    run(&std::env::args().skip(1).collect::<Vec<_>>());
    Some(ExitCode::SUCCESS)
}

/// A role being played; ended with the test.
#[derive(Debug)]
pub struct Actor(Child);

/// Starts one as a uid without account and groups, or as a user by name with his groups.
pub fn start(who: &str, role: &str, arguments: &[&str]) -> Actor {
    if !Path::new(PROGRAM).exists() {
        std::fs::copy(std::env::current_exe().expect("own path"), PROGRAM).expect(PROGRAM);
    }
    let mut command = setpriv(who, PROGRAM);
    command.args(arguments).env(VARIABLE, role).stdout(Stdio::piped());
    Actor(command.spawn().expect("setpriv"))
}

/// A command as a uid, which need not have an account, or as a user by name.
pub fn setpriv(who: &str, program: &str) -> Command {
    let groups = if who.parse::<u32>().is_ok() { "--clear-groups" } else { "--init-groups" };
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--reuid", who, "--regid", who, groups, "--", program]);
    command.current_dir("/").env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command
}

impl Actor {
    /// Waits for its end: what it printed.
    pub fn finish(mut self) -> String {
        let mut text = String::new();
        self.0.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
        let status = self.0.wait().expect("wait");
        assert!(status.success(), "a role failed: {status}\n{text}");
        text
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a pid")
    }

    /// Has it ended?
    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("wait").is_some()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
