//! The client as a process, against a fake podsecd: what is printed, exit statuses, and sessions with real pipes,
//! terminals and signals.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

mod fake;
mod people;

use fake::Fake;
use podsec_sys::nix::sys::signal::{Signal, kill};
use podsec_sys::nix::sys::termios::{LocalFlags, tcgetattr};
use podsec_sys::nix::unistd::Pid;
use podsec_sys::terminal;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// As anybody else than root: the fake is not root's, and nothing else can be tried.
fn refused() -> bool {
    if fake::is_root() {
        return false;
    }
    let output = Fake::start().podsecctl(&["whoami"]).output().unwrap();
    assert_eq!(output.status.code(), Some(69));
    true
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run(fake: &Fake, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = fake.podsecctl(arguments).output().unwrap();
    (status.code().unwrap(), text(&stdout), text(&stderr))
}

/// Waits for something that another process does.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < end, "{what:?}: not within ten seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn answers_for_people_and_programs() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let (status, out, _) = run(&fake, &["whoami"]);
    assert_eq!(status, 0);
    assert!(out.starts_with("user     root (0)\nroles    Administrator, Anyone\n"), "{out}");
    assert!(out.contains(r"0\x1b[2J") && !out.contains('\x1b'), "{out:?}");
    let (_, out, _) = run(&fake, &["whoami", "--json"]);
    let who: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&who["uid"], &who["roles"][0]), (&0.into(), &"Administrator".into()));
    assert_eq!(run(&fake, &["port", "add", "8080:80"]).1, "published 0.0.0.0:8080:80/tcp\n");
    assert_eq!(
        run(&fake, &["port", "add", "8081:80", "--json"]).1,
        "{\"changed\":false,\"dry_run\":false}\n"
    );
    // the namespace is down, and that is bad news
    let (status, out, _) = run(&fake, &["status"]);
    assert_eq!(status, 1);
    assert!(out.contains("namespace  down: start it\n"), "{out}");
    let (status, out, _) = run(&fake, &["audit", "verify"]);
    assert_eq!((status, out.as_str()), (1, "broken at /a line 3: edited (before it: 2 records in 1 file)\n"));
}

#[test]
fn a_refusal_is_a_sentence_and_a_status() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let (status, out, said) = run(&fake, &["port", "list"]);
    assert_eq!((status, out.as_str()), (77, ""));
    assert!(said.starts_with("podsecctl: you may not ask for NamespaceService/ListPorts: "), "{said}");
    let (_, _, said) = run(&fake, &["port", "list", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(error["error"]["reason"], "not-authorised");
    let (status, _, said) = run(&fake, &["port", "add", "80:80", "--json"]);
    let error: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((status, &error["error"]["reason"]), (2, &"usage".into()));
    let (status, _, said) = run(&fake, &["audit", "--follow", "--json"]);
    assert_eq!(status, 76, "a record of two lines: {said}");
}

#[test]
fn a_long_answer_is_a_stream_that_a_reader_may_leave() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let (status, out, _) = run(&fake, &["audit"]);
    assert_eq!((status, out.lines().count()), (0, 1 + fake::RECORDS as usize));
    let mut child =
        fake.podsecctl(&["audit", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut some = [0; 100];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(141), String::new()));
}

#[test]
fn one_check_that_fails_does_not_stop_the_others() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let (status, out, said) = run(&fake, &["check", "run"]);
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(status, 70, "{out}{said}");
    assert!(lines.len() == 2 && lines[0].starts_with("policy: nothing found; looked "), "{out}");
    assert!(lines[1].starts_with("vulnerabilities: nothing found; looked "), "{out}");
    assert_eq!(said, "podsecctl: images: no gpgv\nvulnerabilities: looking …\n");
    assert_eq!(run(&fake, &["check", "run", "policy", "--json"]).0, 0);
    let mut looking = OnTerminal::whole(&fake, &["check", "run", "vulnerabilities"]);
    looking.see("\rvulnerabilities: looking …");
    looking.see("\rvulnerabilities: looking for 2 s");
    looking.see(" \r\x1b[1mvulnerabilities\x1b[0m: \x1b[32mnothing found\x1b[0m; looked ");
    looking.ends_with(0);
}

#[test]
fn the_plugin_has_its_own_statuses() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let (status, out, said) = run(&fake, &["check", "nagios", "policy"]);
    assert!(status == 0 && out.starts_with("PODSEC POLICY OK - 0 findings, looked "), "{out}{said}");
    for arguments in [&["check", "nagios"][..], &["check", "nagios", "policy", "-w", "x|\ny"]] {
        let (status, out, said) = run(&fake, arguments);
        assert!(status == 3 && out.starts_with("PODSEC UNKNOWN - ") && said.is_empty(), "{out}{said}");
        assert!(out.lines().count() == 1 && !out.contains('|'), "{out}");
    }
    // With another command the same is wrong usage, as always.
    assert_eq!(run(&fake, &["check", "list", "nagios"]).0, 2);
    // Nobody reads, so nobody knows.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let status = fake.podsecctl(&["check", "nagios", "policy"]).stdout(full).status().unwrap();
    assert_eq!(status.code(), Some(3));
}

#[test]
fn a_server_that_is_not_roots_gets_nothing() {
    let fake = Fake::start();
    // Without a mapping nobody is root in there, and neither is the fake.
    let mut unshare = Command::new("/usr/bin/unshare");
    unshare.args(["--user", env!("CARGO_BIN_EXE_podsecctl"), "--socket"]).arg(fake.socket()).arg("whoami");
    let output = unshare.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("is not root's: uid 65534 listens there"), "{said}");
}

#[test]
fn the_environment_names_a_socket() {
    let fake = Fake::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_podsecctl"));
    let output = command.arg("whoami").env("PODSEC_SOCKET", fake.socket()).output().unwrap();
    assert_eq!(output.status.code(), Some(if fake::is_root() { 0 } else { 69 }));
}

#[test]
fn an_empty_name_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_podsecctl")).arg0("").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_session_has_the_callers_own_descriptors() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let script = "cat; echo problem >&2; stat -Lc %i /proc/self/fd/0 >&2; exit 7";
    let mut child = fake
        .podsecctl(&["enter", "--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut stdin = child.stdin.take().unwrap();
    let inode = podsec_sys::nix::sys::stat::fstat(&stdin).unwrap().st_ino;
    let feed = {
        let sent = sent.clone();
        std::thread::spawn(move || stdin.write_all(&sent).unwrap())
    };
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(output.stdout == sent, "{} bytes of {}", output.stdout.len(), sent.len());
    assert_eq!(text(&output.stderr), format!("problem\n{inode}\n"));
}

#[test]
fn exit_statuses_are_the_programs() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    for (script, status) in [("exit 0", 0), ("exit 255", 255), ("kill -9 $$", 137), ("kill -TERM $$", 143)] {
        assert_eq!(run(&fake, &["enter", "--", "sh", "-c", script]).0, status, "{script}");
    }
    let (status, _, said) = run(&fake, &["enter", "--", "/nothing"]);
    assert_eq!((status, said.as_str()), (127, "podsecctl: nothing: not found\n"));
}

#[test]
fn the_old_name_enters_at_once() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let mut command = Command::new(env!("CARGO_BIN_EXE_podsecctl"));
    command.arg0("/usr/bin/nsenter_u7s").env("PODSEC_SOCKET", fake.socket()).stdin(Stdio::null());
    let output = command.args(["sh", "-c", "echo --json $0 $1; exit 3", "a", "-t"]).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(3), "--json a -t\n".into()));
}

#[test]
fn a_lost_worker_is_told() {
    if refused() {
        return;
    }
    let fake = Fake::with_worker(|_, client| drop(client));
    let (status, _, said) = run(&fake, &["enter", "--", "true"]);
    assert_eq!(status, 70);
    assert!(said.contains("the session was lost"), "{said}");
    let fake = Fake::with_worker(|_, client| {
        client.receive::<podsec_wire::session::FromClient>().unwrap();
        podsec_sys::socket::send(&client, b"\xff\xff", &[]).unwrap();
    });
    assert_eq!(run(&fake, &["enter", "--", "true"]).0, 76);
}

#[test]
fn signals_reach_the_program() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let script =
        "trap 'echo term; exit 4' TERM; trap 'echo usr1' USR1; echo up; while :; do sleep 0.05; done";
    let mut child =
        fake.podsecctl(&["enter", "--", "sh", "-c", script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut expect = |expected: &str| {
        let mut got = vec![0; expected.len()];
        stdout.read_exact(&mut got).unwrap();
        assert_eq!(text(&got), expected);
    };
    expect("up\n");
    signal(&child, Signal::SIGUSR1);
    expect("usr1\n");
    // stops with its program, and both go on
    signal(&child, Signal::SIGTSTP);
    eventually("stopped", || state(&child) == 'T');
    signal(&child, Signal::SIGCONT);
    eventually("goes on", || state(&child) != 'T');
    signal(&child, Signal::SIGTERM);
    expect("term\n");
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

fn state(child: &Child) -> char {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
    stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
}

/// `podsecctl` with a terminal of its own.
struct OnTerminal {
    leader: File,
    follower: OwnedFd,
    child: Child,
    seen: String,
}

impl OnTerminal {
    /// With all three standard descriptors on it, but for what the shell redirects.
    fn start(fake: &Fake, arguments: &[&str], redirect: &str) -> Self {
        Self::start_by(&["--ctty"], fake, arguments, redirect)
    }

    fn start_by(setsid: &[&str], fake: &Fake, arguments: &[&str], redirect: &str) -> Self {
        let (leader, follower) = terminal::open(30, 100).unwrap();
        let copy = || follower.try_clone().unwrap();
        let script = format!("exec \"$@\" {redirect}");
        let mut command = Command::new("/usr/bin/setsid");
        command.args(setsid).args(["sh", "-c", &script, "sh", env!("CARGO_BIN_EXE_podsecctl"), "--socket"]);
        command.arg(fake.socket()).args(arguments).env("TERM", "vt100");
        let child = command.stdin(copy()).stdout(copy()).stderr(copy()).spawn().unwrap();
        podsec_sys::socket::set_nonblocking(&leader, true).unwrap();
        Self { leader: leader.into(), follower, child, seen: String::new() }
    }

    fn whole(fake: &Fake, arguments: &[&str]) -> Self {
        Self::start(fake, arguments, "")
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.follower).unwrap().local_flags.contains(LocalFlags::ICANON)
    }

    fn type_in(&mut self, text: &str) {
        self.leader.write_all(text.as_bytes()).unwrap();
    }

    fn see(&mut self, expected: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        while !self.seen.contains(expected) {
            let mut some = [0; 4096];
            match self.leader.read(&mut some) {
                Ok(count) => self.seen += &String::from_utf8_lossy(&some[..count]),
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
            assert!(Instant::now() < end, "{expected:?}: not within ten seconds, but {:?}", self.seen);
        }
    }

    /// Waits for its end, and sees that the terminal is as it was.
    fn ends_with(&mut self, status: i32) {
        let mut ended = None;
        eventually("end", || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().code(), Some(status), "{:?}", self.seen);
        assert!(!self.is_raw(), "the terminal was left raw");
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_terminal_is_new_and_works() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let script = "tty; echo $TERM; stty size; read line; echo got:$line; trap 'echo caught; exit 5' INT; \
                  trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut session = OnTerminal::whole(&fake, &["enter", "--", "sh", "-c", script]);
    session.see("vt100\r\n30 100\r\n");
    let name =
        std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&session.follower)));
    assert!(!session.seen.contains(name.unwrap().to_str().unwrap()), "its own terminal: {}", session.seen);
    eventually("raw mode", || session.is_raw());
    session.type_in("some words\r");
    session.see("got:some words\r\n");
    session.see("ready\r\n");
    terminal::resize(&session.leader, 40, 120).unwrap();
    session.see("40 120\r\n");
    session.type_in("\x03");
    session.see("caught\r\n");
    session.ends_with(5);
}

#[test]
fn the_terminal_is_restored_whatever_ends_the_client() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    for number in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
        let mut session = OnTerminal::whole(&fake, &["enter", "--", "sh", "-c", "echo up; cat"]);
        session.see("up");
        eventually("raw mode", || session.is_raw());
        signal(&session.child, number);
        session.ends_with(128 + number as i32);
    }
    // the worker dies under it
    let fake = Fake::with_worker(|_, client| {
        client.receive::<podsec_wire::session::FromClient>().unwrap();
        let (leader, follower) = terminal::open(24, 80).unwrap();
        client.send(&podsec_wire::session::ToClient::Terminal, &[std::os::fd::AsFd::as_fd(&leader)]).unwrap();
        client.send(&podsec_wire::session::ToClient::Started, &[]).unwrap();
        File::from(follower).write_all(b"up").unwrap();
        std::thread::sleep(Duration::from_millis(200));
    });
    let mut session = OnTerminal::whole(&fake, &["enter"]);
    session.see("up");
    session.see("the session was lost");
    session.ends_with(70);
}

#[test]
fn a_stop_gives_the_terminal_back_for_a_while() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let mut session =
        OnTerminal::whole(&fake, &["enter", "--", "sh", "-c", "echo up; read line; echo $line"]);
    session.see("up");
    eventually("raw mode", || session.is_raw());
    signal(&session.child, Signal::SIGTSTP);
    eventually("stopped", || state(&session.child) == 'T');
    assert!(!session.is_raw());
    signal(&session.child, Signal::SIGCONT);
    eventually("raw mode again", || session.is_raw());
    session.type_in("after\r");
    session.see("after\r\n");
    session.ends_with(0);
}

#[test]
fn a_terminal_that_goes_away_ends_the_session() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    // the kernel says so by SIGHUP only to whom the terminal controls
    for setsid in [&["--ctty"][..], &[]] {
        let arguments = ["enter", "--", "sh", "-c", "echo up; cat"];
        let mut session = OnTerminal::start_by(setsid, &fake, &arguments, "");
        session.see("up");
        eventually("raw mode", || session.is_raw());
        session.leader = File::open("/dev/null").unwrap();
        let mut ended = None;
        eventually("end", || {
            ended = session.child.try_wait().unwrap();
            ended.is_some()
        });
        assert_eq!(ended.unwrap().code(), Some(129), "{setsid:?}");
    }
}

#[test]
fn what_is_a_terminal_is_copied_where_the_session_has_none() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    // all three, by -T; the program sees none of them
    let script =
        "test -t 0 || test -t 1 || test -t 2 || echo none; read line; echo got:$line; echo err >&2; exit 6";
    let mut session = OnTerminal::whole(&fake, &["enter", "-T", "--", "sh", "-c", script]);
    session.see("none\r\n");
    assert!(!session.is_raw());
    session.type_in("words\n");
    session.see("got:words\r\n");
    session.see("err\r\n");
    session.ends_with(6);
    // output alone: everything arrives, also what was left in the pipe at the end
    let mut session = OnTerminal::start(&fake, &["enter", "--", "seq", "1", "20000"], "</dev/null");
    session.see("\n20000\r\n");
    session.ends_with(0);
    let expected: String = (1..=20_000).map(|number| format!("{number}\r\n")).collect();
    assert!(session.seen == expected, "{} bytes of {}", session.seen.len(), expected.len());
}

#[test]
fn a_terminal_can_be_asked_for_where_there_is_none() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let script = "test -t 0 && test -t 1 && test -t 2 && echo all; stty size; stty -echo; cat; echo end";
    let mut child = fake
        .podsecctl(&["enter", "-t", "--", "sh", "-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"typed").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.starts_with("all\r\n") || said.contains("all\r\n24 80\r\n"), "{said}");
    assert!(said.ends_with("typedend\r\n"), "{said:?}");
    // nobody sees it any more: it ends, as it would on a pipe of its own
    let mut child = fake
        .podsecctl(&["enter", "-t", "--", "yes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.take().unwrap().read_exact(&mut [0; 10]).unwrap();
    eventually("end", || child.try_wait().unwrap().is_some());
    assert_eq!(child.wait().unwrap().code(), Some(141));
}

#[test]
fn a_program_left_behind_does_not_hold_the_client() {
    if refused() {
        return;
    }
    let fake = Fake::start();
    let mut session =
        OnTerminal::whole(&fake, &["enter", "--", "sh", "-c", "(trap '' HUP; sleep 30) & echo up"]);
    session.see("up");
    session.ends_with(0);
}
