//! Somebody at a terminal: a pty of our own with a program on it, which has it as its controlling terminal. Types,
//! reads what appears, and looks at the mode that the program left it in.

use podsec_sys::nix::sys::termios::{LocalFlags, Termios, tcgetattr};
use podsec_sys::nix::unistd::User;
use podsec_sys::process::wait_readable;
use podsec_sys::terminal;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How long something on the screen is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A terminal and the program on it.
pub struct Terminal {
    leader: Option<File>,
    /// The side of the program, which stays open here: its mode is looked at after the program's end.
    pub follower: OwnedFd,
    /// The program.
    pub child: Child,
    before: Termios,
    /// What appeared and was not waited for yet.
    unseen: Vec<u8>,
}

/// 0 to 255, or 128 and the signal.
#[must_use]
pub fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

impl Terminal {
    /// Puts `user`'s command on a new terminal of 24 × 80, which is his as login(1) makes it his.
    #[must_use]
    pub fn of(user: &str, command: &Command) -> Self {
        let (leader, follower) = terminal::open(24, 80).expect("a pty");
        let account = User::from_name(user).expect("NSS").expect(user);
        std::os::unix::fs::fchown(&follower, Some(account.uid.as_raw()), None).expect("fchown");
        let end = || follower.try_clone().expect("dup");
        let before = tcgetattr(&follower).expect("tcgetattr");
        let mut on = Command::new("/usr/bin/setsid");
        on.arg("--ctty").arg(command.get_program()).args(command.get_args());
        on.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        on.env("TERM", "xterm").current_dir("/").stdin(end()).stdout(end()).stderr(end());
        let child = on.spawn().expect("setsid");
        Self { leader: Some(leader.into()), follower, child, before, unseen: Vec::new() }
    }

    /// `podsecctl …` on a terminal.
    #[must_use]
    pub fn podsecctl(user: &str, arguments: &[&str]) -> Self {
        Self::of(user, crate::people::command(user, "/usr/bin/podsecctl").args(arguments))
    }

    /// Its pid is that of the last program that setsid and setpriv became.
    #[must_use]
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid")
    }

    /// Types.
    pub fn types(&mut self, text: &str) {
        self.leader.as_mut().expect("not hung up").write_all(text.as_bytes()).expect("typing");
    }

    /// Waits for `text`, and gives all up to its end.
    pub fn sees(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let found = self.unseen.windows(text.len()).position(|part| part == text.as_bytes());
            if let Some(at) = found {
                let seen: Vec<u8> = self.unseen.drain(..at + text.len()).collect();
                return String::from_utf8_lossy(&seen).into_owned();
            }
            let shown = String::from_utf8_lossy(&self.unseen).into_owned();
            assert!(Instant::now() < end, "waited for {text:?} on the terminal: {shown:?}");
            self.read(Duration::from_millis(50));
        }
    }

    /// Takes what is there, waiting a little for it.
    fn read(&mut self, wait: Duration) -> usize {
        let Some(leader) = &mut self.leader else { return 0 };
        if !wait_readable(&[leader.as_fd()], Some(wait)).expect("poll") {
            return 0;
        }
        let mut bytes = [0; 4096];
        let count = leader.read(&mut bytes).unwrap_or(0);
        self.unseen.extend_from_slice(&bytes[..count]);
        count
    }

    /// Is it raw: no lines, no echo, no signals from keys?
    #[must_use]
    pub fn is_raw(&self) -> bool {
        let flags = tcgetattr(&self.follower).expect("tcgetattr").local_flags;
        !flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    /// Is its mode as before?
    #[must_use]
    pub fn is_as_before(&self) -> bool {
        let now = tcgetattr(&self.follower).expect("tcgetattr");
        now.local_flags == self.before.local_flags
            && now.input_flags == self.before.input_flags
            && now.output_flags == self.before.output_flags
            && now.control_flags == self.before.control_flags
            && now.control_chars == self.before.control_chars
    }

    /// Another size.
    pub fn resize(&self, rows: u16, columns: u16) {
        terminal::resize(self.leader.as_ref().expect("not hung up"), rows, columns).expect("TIOCSWINSZ");
    }

    /// Pulls the plug.
    pub fn hang_up(&mut self) {
        self.leader = None;
    }

    /// Waits for the program: its exit status as a shell shows it, and what else appeared. The mode must be as before.
    pub fn ends(&mut self) -> (i32, String) {
        let end = Instant::now() + PATIENCE;
        let status = loop {
            self.read(Duration::from_millis(2));
            if let Some(status) = self.child.try_wait().expect("wait") {
                break status;
            }
            let shown = String::from_utf8_lossy(&self.unseen).into_owned();
            assert!(Instant::now() < end, "the program on the terminal does not end: {shown:?}");
        };
        while self.read(Duration::ZERO) > 0 {}
        assert!(self.leader.is_none() || self.is_as_before(), "the terminal is left in another mode");
        (code(status), String::from_utf8_lossy(&std::mem::take(&mut self.unseen)).into_owned())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // After a test that failed; a program that has ended is not hit.
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
