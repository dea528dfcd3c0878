//! Sessions with a terminal, and callers' terminals in sessions without one: size, keys, modes, and that whatever ends
//! podsecctl leaves the caller's terminal as it was (every [`Terminal::ends`] looks).

use super::*;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("session::window", window),
    ("session::keys", keys),
    ("session::stop_and_go_in_a_shell", stop_and_go_in_a_shell),
    ("session::stop_and_go_of_podsecctl", stop_and_go_of_podsecctl),
    ("session::terminal_comes_back", terminal_comes_back),
    ("session::terminal_of_somebody_else", terminal_of_somebody_else),
    ("session::some_descriptors_are_terminals", some_descriptors_are_terminals),
    ("session::last_words_are_shown", last_words_are_shown),
];

fn entering(arguments: &[&str]) -> Terminal {
    Terminal::podsecctl(ALICE, &[&["enter", "-t", "--"], arguments].concat())
}

fn window(_: &mut Oracle) {
    let script = "stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.01; done";
    let mut terminal = entering(&shell(script));
    terminal.sees("24 80\r\n");
    terminal.sees("ready");
    for (rows, columns) in [(50, 132), (1, 1), (u16::MAX, u16::MAX), (25, 80)] {
        terminal.resize(rows, columns);
        terminal.sees(&format!("{rows} {columns}\r\n"));
    }
    terminal.types("\x03");
    assert_eq!(terminal.ends().0, 130);
    // One that knows no size gets the usual one.
    let script = "podsecctl enter -t -- stty size </dev/null 2>&1 | cat";
    assert_eq!(host::run(people::command(ALICE, "/bin/sh").args(["-c", script])), "24 80\r\n");
}

fn keys(oracle: &mut Oracle) {
    for (key, status) in [("\x03", 130), ("\x1c", 131)] {
        let mut terminal = entering(&shell("ulimit -c 0; echo ready; exec sleep 60"));
        terminal.sees("ready");
        assert!(terminal.is_raw(), "the keys are for the terminal inside");
        terminal.types(key);
        assert_eq!(terminal.ends().0, status);
    }
    let mut terminal = entering(&["cat"]);
    host::wait_for("raw mode", || terminal.is_raw());
    terminal.types("line\r");
    // Once by cat, before that by the terminal inside.
    terminal.sees("line\r\nline\r\n");
    terminal.types("\x04");
    assert_eq!(terminal.ends().0, 0);
    expect_entries(oracle, 3);
}

/// Job control of a shell inside.
fn stop_and_go_in_a_shell(_: &mut Oracle) {
    let mut terminal = entering(&["/bin/bash", "--norc", "--noprofile", "-i"]);
    terminal.types("PS1='rea''dy> '\r");
    terminal.sees("ready> ");
    terminal.types("sleep 61.01\r");
    let sleeper = pid_of(&["sleep", "61.01"]);
    terminal.types("\x1a");
    terminal.sees("Stopped");
    terminal.sees("ready> ");
    host::wait_for("the sleeper to stop", || stat(sleeper, 3) == "T");
    terminal.types("fg\r");
    host::wait_for("the sleeper to go on", || stat(sleeper, 3) == "S");
    terminal.types("\x03");
    terminal.sees("ready> ");
    terminal.types("echo $?-$((40 + 2)); exit 9\r");
    terminal.sees("130-42\r\n");
    assert_eq!(terminal.ends().0, 9);
}

/// Job control of the caller's shell, over sessions of both kinds.
fn stop_and_go_of_podsecctl(_: &mut Oracle) {
    // Without a terminal, Ctrl-Z reaches podsecctl as a signal and stops the program inside as well.
    let mut bash = people::command(ALICE, "/bin/bash");
    let mut terminal = Terminal::of(ALICE, bash.args(["--norc", "--noprofile", "-i"]));
    terminal.types("PS1='rea''dy> '\r");
    terminal.sees("ready> ");
    terminal.types("podsecctl enter -T -- sleep 61.02\r");
    let sleeper = pid_of(&["sleep", "61.02"]);
    terminal.types("\x1a");
    terminal.sees("Stopped");
    terminal.sees("ready> ");
    host::wait_for("the sleeper to stop", || stat(sleeper, 3) == "T");
    terminal.types("fg\r");
    host::wait_for("the sleeper to go on", || stat(sleeper, 3) == "S");
    terminal.types("\x03");
    terminal.sees("ready> ");
    terminal.types("echo $?-$((40 + 2)); exit\r");
    terminal.sees("130-42\r\n");
    terminal.ends();
    // With one, somebody stops podsecctl from outside: the terminal is the shell's again until it goes on.
    let mut terminal = entering(&shell("echo ready; exec sleep 60"));
    terminal.sees("ready");
    host::wait_for("raw mode", || terminal.is_raw());
    host::kill(terminal.pid(), "TSTP");
    host::wait_for("podsecctl to stop", || stat(terminal.pid(), 3) == "T");
    assert!(terminal.is_as_before());
    host::kill(terminal.pid(), "CONT");
    host::wait_for("raw mode", || terminal.is_raw());
    terminal.types("\x03");
    assert_eq!(terminal.ends().0, 130);
}

fn terminal_comes_back(oracle: &mut Oracle) {
    let ready = |marker: &str| {
        let mut terminal = entering(&shell(&format!("echo ready; exec sleep {marker}")));
        terminal.sees("ready");
        host::wait_for("raw mode", || terminal.is_raw());
        terminal
    };
    // The program ends, or never begins.
    assert_eq!(entering(&["true"]).ends().0, 0);
    let (status, told) = entering(&["/no/such\u{1b}[31mprogram"]).ends();
    assert_eq!(status, 127);
    assert!(told.contains(r"\x1b[31mprogram: No such file or directory (inside the namespace)"), "{told:?}");
    let (status, told) = Terminal::podsecctl(people::MALLORY, &["enter", "-t"]).ends();
    assert!(status == 77 && told.contains("not for") || told.contains("may not ask"), "{told:?}");
    // podsecctl is told to end.
    for (signal, status) in [("HUP", 129), ("INT", 130), ("QUIT", 131), ("TERM", 143), ("USR1", 138)] {
        let mut terminal = ready("62.01");
        host::kill(terminal.pid(), signal);
        assert_eq!(terminal.ends().0, status, "{signal}");
        host::wait_for("no orphan", || pids_of(&["sleep", "62.01"]).is_empty());
    }
    // The program is killed; its supervisor is.
    let mut terminal = ready("62.02");
    host::kill(pid_of(&["sleep", "62.02"]), "KILL");
    assert_eq!(terminal.ends().0, 137);
    let mut terminal = ready("62.03");
    host::kill(parent(pid_of(&["sleep", "62.03"])), "KILL");
    let (status, told) = terminal.ends();
    assert!(status == 70 && told.contains("the session was lost"), "{status} {told:?}");
    host::wait_for("no orphan", || pids_of(&["sleep", "62.03"]).is_empty());
    // The caller's terminal hangs up; then there is none to come back to.
    let mut terminal = ready("62.04");
    terminal.hang_up();
    terminal.ends();
    host::within(Duration::from_secs(5), "no orphan", || pids_of(&["sleep", "62.04"]).is_empty());
    // podsecd is gone: that ends nothing, and when the program ends the terminal is the caller's again.
    let mut terminal = ready("62.05");
    host::stop_daemon("KILL");
    assert!(terminal.is_raw());
    terminal.types("\x03");
    assert_eq!(terminal.ends().0, 130);
    host::start_daemon(None);
    oracle.expect_new_daemon();
}

/// After su, the terminal belongs to whoever logged in: it cannot be opened anew, and is used as it is.
fn terminal_of_somebody_else(_: &mut Oracle) {
    let mut bash = people::command(ALICE, "/usr/bin/podsecctl");
    let mut terminal = Terminal::of(ROOT, bash.args(["enter", "-t", "--"]).args(shell("echo ready; cat")));
    terminal.sees("ready\r\n");
    terminal.types("line\r");
    terminal.sees("line\r\nline\r\n");
    terminal.types("\x03");
    assert_eq!(terminal.ends().0, 130);
}

/// Where stdin, stdout or stderr is a terminal and the session has none, the terminal's bytes are copied: what the
/// session holds are pipes.
fn some_descriptors_are_terminals(_: &mut Oracle) {
    let at = |script: &str| Terminal::of(ALICE, people::command(ALICE, "/bin/bash").args(["-c", script]));
    let mut terminal = at("podsecctl enter -- cat | tr a-z A-Z");
    terminal.types("typed here\r");
    terminal.sees("TYPED HERE\r\n");
    terminal.types("\x04");
    assert_eq!(terminal.ends().0, 0);

    let mut terminal = at("echo from a pipe | podsecctl enter -- sh -c 'cat; exit 5'");
    terminal.sees("from a pipe\r\n");
    assert_eq!(terminal.ends().0, 5);

    // As a pager has it: it reads the keys from the terminal, and the session's output from a pipe. What is typed goes to
    // whoever reads first, so podsecctl has its input from elsewhere.
    let pager = "read -r key </dev/tty; head -n 1 >/dev/null; echo got $key";
    let mut terminal = at(&format!("podsecctl enter -- seq 100000 </dev/null | bash -c '{pager}'"));
    terminal.types("q\r");
    terminal.sees("got q\r\n");
    terminal.ends();

    let script =
        "for n in 0 1 2; do test -t $n && echo terminal $n; done >&2; echo out; echo err >&2; echo >/dev/tty";
    for options in ["-T -- sh -c", "-T 2>/dev/null -- sh -c", "</dev/null -- sh -c", "-T </dev/null -- sh -c"]
    {
        let (status, shown) = at(&format!("podsecctl enter {options} '{script}'")).ends();
        assert!(shown.contains("out") && !shown.contains("terminal"), "{options}: {shown:?}");
        assert_eq!(status, 2, "{options}: the session has no terminal that it could open: {shown:?}");
    }

    // The other way round: a terminal inside, and none of the caller's.
    let mut command = people::command(ALICE, "/usr/bin/podsecctl");
    let output = fed(command.args(["enter", "-t", "--", "sh"]), b"tty; stty -echo\nexit 5\n");
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stdout).contains("/dev/pts/"), "{output:?}");
    let mut command = people::command(ALICE, "/usr/bin/podsecctl");
    let output = fed(command.args(["enter", "-t", "--", "wc", "-c"]), b"no newline");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("10\r\n"), "{output:?}");
}

fn last_words_are_shown(_: &mut Oracle) {
    for _ in 0..count(1000, 50) {
        let (status, shown) = entering(&["seq", "-f", "line %g", "2000"]).ends();
        assert_eq!((status, shown.lines().count()), (0, 2000));
        assert!(shown.ends_with("line 2000\r\n"));
    }
}
