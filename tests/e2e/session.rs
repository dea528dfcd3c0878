//! Sessions inside the namespaces. Here: what people do with them. Below: their terminals, how long they live, and what
//! others try with them.

pub mod attacks;
pub mod inside;
pub mod lifetime;
mod reservations;
pub mod terminals;
pub mod tickets;

use crate::Test;
use podsec_policy::audit::hex;
use podsec_proto::v1::{Command as Argv, EnterRequest, EnterResponse, enter_request::Program};
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, ALICE, CLUSTER, ROOT};
use podsec_tests::terminal::{Terminal, code};
use podsec_tests::{client, host};
use podsec_wire::{Channel, WireError};
use sha2::{Digest as _, Sha256};
use std::io::Write as _;
use std::process::{Child, Command, Output, Stdio};

/// Everything of this module and those below.
pub fn tests() -> Vec<Test> {
    [
        TESTS,
        terminals::TESTS,
        lifetime::TESTS,
        tickets::TESTS,
        reservations::TESTS,
        attacks::TESTS,
        inside::TESTS,
    ]
    .concat()
}

const TESTS: &[Test] = &[
    ("session::exit_codes", exit_codes),
    ("session::exit_by_signal", exit_by_signal),
    ("session::streams_stay_apart", streams_stay_apart),
    ("session::bytes_arrive_as_they_are", bytes_arrive_as_they_are),
    ("session::nobody_reads_any_more", nobody_reads_any_more),
    ("session::nsenter_u7s", nsenter_u7s),
    ("session::signals_are_passed_on", signals_are_passed_on),
];

/// As many as a test asks for, or what fits a test run; said, so that a log tells which.
pub fn count(full: usize, usual: usize) -> usize {
    let count = if std::env::var_os("PODSEC_FULL").is_some() { full } else { usual };
    println!("{count} times");
    count
}

/// What the audit has since: `intent`, `done`, `fail ns-mixed judge`, `deny bad-ticket`.
pub fn records(oracle: &Oracle) -> Vec<String> {
    let word = |record: &serde_json::Value, key| record[key].as_str().unwrap_or_default().to_owned();
    let of = |record: serde_json::Value| match word(&record, "phase").as_str() {
        "fail" => format!("fail {} {}", word(&record, "reason"), word(&record, "step")),
        "deny" => format!("deny {}", word(&record, "reason")),
        phase => phase.to_owned(),
    };
    oracle.audit().into_iter().map(of).collect()
}

/// Waits until the audit has exactly these.
pub fn expect_records(oracle: &Oracle, expected: &[&str]) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while records(oracle).len() < expected.len() && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(records(oracle), expected);
}

/// Waits until the audit has so many sessions that came to their end, and nothing else. A client hears of the end before it
/// is recorded, so the next one may have begun.
pub fn expect_entries(oracle: &Oracle, count: usize) {
    host::wait_for("all records", || records(oracle).len() >= 2 * count);
    let mut found = records(oracle);
    found.sort();
    assert_eq!(found, [vec!["done"; count], vec!["intent"; count]].concat());
}

/// A request for a command, as podsecctl makes it.
pub fn request(argv: &[&str]) -> EnterRequest {
    let argv = argv.iter().map(|word| word.as_bytes().to_vec()).collect();
    EnterRequest { program: Some(Program::Command(Argv { argv })), ..EnterRequest::default() }
}

/// Asks as root, from this process, and waits until podsecd is inside.
pub fn ask(request: EnterRequest) -> Result<EnterResponse, tonic::Status> {
    client::block_on(async {
        let mut answers = client::namespace().await.enter(request).await?.into_inner();
        let ticket = answers.message().await?.expect("a ticket");
        assert!(answers.message().await?.is_none());
        Ok(ticket)
    })
}

/// Code and reason of a request that must be refused.
pub fn refusal(request: EnterRequest) -> (tonic::Code, String) {
    let status = ask(request).expect_err("a refusal");
    (status.code(), client::reason(&status))
}

/// Fetches the session that root was given.
pub fn fetch(answer: &EnterResponse) -> Result<Channel, WireError> {
    let ticket = answer.ticket.as_slice().try_into().expect("32 bytes");
    podsec_wire::session::attach(answer.attach_socket.as_ref(), ticket)
}

/// Host pids of the processes with exactly this command line.
pub fn pids_of(argv: &[&str]) -> Vec<i32> {
    let wanted: Vec<u8> = argv.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
    let is_it = |pid: &i32| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|found| found == wanted);
    pids().into_iter().filter(is_it).collect()
}

/// All of the host.
pub fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Waits for the one process with this command line.
pub fn pid_of(argv: &[&str]) -> i32 {
    host::wait_for(&format!("{argv:?}"), || pids_of(argv).len() == 1);
    pids_of(argv)[0]
}

/// Host pid of the parent.
pub fn parent(pid: i32) -> i32 {
    stat(pid, 4).parse().expect("a pid")
}

/// A field of `/proc/PID/stat` by its number in proc_pid_stat(5); 0 as text when it is gone.
pub fn stat(pid: i32, field: usize) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    rest.split(' ').nth(field - 3).unwrap_or("0").to_owned()
}

/// `podsecctl enter -- argv`, as `user`, to be started.
pub fn entering(user: &str, argv: &[&str]) -> Command {
    let mut command = people::command(user, "/usr/bin/podsecctl");
    command.args(["enter", "--"]).args(argv);
    command
}

/// Waits for a client's end and gives its exit status; one that hangs fails the test instead of holding it up.
pub fn end_of(client: &mut Child) -> i32 {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
    loop {
        match client.try_wait().expect("wait") {
            Some(status) => return code(status),
            None if std::time::Instant::now() < deadline => {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            None => {
                let _ = client.kill();
                let _ = client.wait();
                panic!("podsecctl hangs");
            }
        }
    }
}

/// Runs a command with this on its standard input.
pub fn fed(command: &mut Command, input: &[u8]) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("spawn");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::thread::scope(|scope| {
        // A program that does not read its input makes this fail, which is no concern of ours.
        scope.spawn(move || stdin.write_all(input));
        child.wait_with_output().expect("wait")
    })
}

/// The cluster user's, on the host.
pub fn cluster_uid() -> u32 {
    podsec_sys::nix::unistd::User::from_name(CLUSTER).expect("NSS").expect(CLUSTER).uid.as_raw()
}

fn shell(script: &str) -> [&str; 3] {
    ["/bin/sh", "-c", script]
}

fn exit_codes(oracle: &mut Oracle) {
    for status in 0..=255 {
        let script = format!("exit {status}");
        let plain = entering(ALICE, &shell(&script)).status().expect("podsecctl");
        assert_eq!(code(plain), status);
        let (on_terminal, _) =
            Terminal::podsecctl(ALICE, &[&["enter", "-t", "--"][..], &shell(&script)].concat()).ends();
        assert_eq!(on_terminal, status);
    }
    let exits: Vec<_> = oracle.audit().iter().filter_map(|record| record["exit"].as_i64()).collect();
    assert_eq!(exits, (0..=255).flat_map(|status| [status; 2]).collect::<Vec<_>>());
}

fn exit_by_signal(oracle: &mut Oracle) {
    // HUP INT QUIT ABRT FPE KILL USR1 SEGV PIPE ALRM TERM SYS, and the first and last real-time one
    let signals = [1, 2, 3, 6, 8, 9, 10, 11, 13, 14, 15, 31, 34, 64];
    for signal in signals {
        let script = format!("ulimit -c 0; kill -{signal} $$");
        let plain = entering(ALICE, &shell(&script)).status().expect("podsecctl");
        assert_eq!(code(plain), 128 + signal);
        let (on_terminal, _) =
            Terminal::podsecctl(ALICE, &[&["enter", "-t", "--"][..], &shell(&script)].concat()).ends();
        assert_eq!(on_terminal, 128 + signal);
    }
    expect_entries(oracle, 2 * signals.len());
}

fn streams_stay_apart(_: &mut Oracle) {
    let script = "echo to stdout; echo to stderr >&2; cat; exit 3";
    let output = fed(&mut entering(CLUSTER, &shell(script)), b"from stdin\n");
    assert_eq!(output.stdout, b"to stdout\nfrom stdin\n");
    assert_eq!(output.stderr, b"to stderr\n");
    assert_eq!(output.status.code(), Some(3));
}

fn bytes_arrive_as_they_are(_: &mut Oracle) {
    let size = count(1024, 32) * 1024 * 1024;
    let mut data = vec![0; size];
    // Long runs of anything would hide a block that is out of place.
    for (block, chunk) in data.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(
            &(block as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()[..chunk.len()],
        );
    }
    let digest = hex(&Sha256::digest(&data));
    // In, and there and back: as pipes, and as files.
    let output = fed(&mut entering(ALICE, &["sha256sum"]), &data);
    assert!(String::from_utf8_lossy(&output.stdout).starts_with(&digest));
    let output = fed(&mut entering(ALICE, &["cat"]), &data);
    assert_eq!(hex(&Sha256::digest(&output.stdout)), digest);
    std::fs::write("/tmp/data", &data).expect("/tmp");
    let (from, to) = (std::fs::File::open("/tmp/data"), std::fs::File::create("/tmp/copy"));
    let mut copy = entering(ALICE, &["cat"]);
    assert!(
        copy.stdin(from.expect("open")).stdout(to.expect("create")).status().expect("podsecctl").success()
    );
    assert_eq!(hex(&Sha256::digest(std::fs::read("/tmp/copy").expect("read"))), digest);
    for file in ["/tmp/data", "/tmp/copy"] {
        std::fs::remove_file(file).expect("remove");
    }
}

fn nobody_reads_any_more(oracle: &mut Oracle) {
    // The reader goes away: the program inside gets the SIGPIPE that it would get anywhere.
    let script = "podsecctl enter -- yes | head -n 1; echo ${PIPESTATUS[0]}";
    assert_eq!(host::run(people::command(ALICE, "/bin/bash").args(["-c", script])), "y\n141\n");
    // Closed from the start: a program must not find its files where it writes its output.
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let script = format!("podsecctl enter -- sh -c 'cat; echo x; echo y >&2; exit 4' {closed}; echo $?");
        assert_eq!(
            fed(people::command(ALICE, "/bin/bash").args(["-c", &script]), b"").stdout.last_chunk::<2>(),
            Some(b"4\n"),
            "{closed}"
        );
    }
    // Full: the program's own error, and its own status.
    let full = std::fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let output = entering(ALICE, &["cat", "/etc/hostname"]).stdout(full).output().expect("podsecctl");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("No space left"), "{output:?}");
    expect_entries(oracle, 6);
}

fn nsenter_u7s(_: &mut Oracle) {
    let as_of_old = |arguments: &[&str]| {
        let mut command = people::command(ALICE, "/usr/bin/nsenter_u7s");
        command.args(arguments);
        command
    };
    assert_eq!(host::run(&mut as_of_old(&["id", "-u"])), "0\n");
    // Everything belongs to the command, whatever it looks like.
    assert_eq!(host::run(&mut as_of_old(&["printf", "%s ", "--json", "-t", "--", "-h"])), "--json -t -- -h ");
    let status = as_of_old(&shell("exit 42")).status().expect("nsenter_u7s");
    assert_eq!(status.code(), Some(42));
    // Without a command, the login shell: told so by its name, at home.
    let output = fed(
        &mut as_of_old(&[]),
        b"echo $0; [ . -ef ~ ] && echo home; shopt -q login_shell && echo login; exit 6\n",
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), "-bash\nhome\nlogin\n");
    assert_eq!(output.status.code(), Some(6));
    let mut terminal = Terminal::of(ALICE, &as_of_old(&[]));
    terminal.types("id -u; tty; exit 7\r");
    terminal.sees("0\r\n/dev/pts/");
    assert_eq!(terminal.ends().0, 7);
}

fn signals_are_passed_on(oracle: &mut Oracle) {
    let script = "for s in HUP INT QUIT TERM USR1 USR2; do trap \"echo $s\" $s; done; echo ready; while :; do sleep 0.01; done";
    let mut child = entering(ROOT, &shell(script));
    // The shell says of every sleep what ended it.
    let mut child = child.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("podsecctl");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("a pipe")));
    let mut line = || lines.next().expect("a line").expect("a line");
    assert_eq!(line(), "ready");
    let pid = i32::try_from(child.id()).expect("a pid");
    for signal in ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2"] {
        host::kill(pid, signal);
        assert_eq!(line(), signal);
    }
    // What stops podsecctl stops the program, and what lets it go on does that.
    let program = pid_of(&shell(script));
    let state = |wanted: &str| host::wait_for(wanted, || stat(program, 3) == wanted);
    host::kill(pid, "TSTP");
    state("T");
    assert_eq!(stat(pid, 3), "T");
    host::kill(pid, "CONT");
    host::wait_for("running", || stat(program, 3) != "T" && stat(pid, 3) != "T");
    // Nobody can catch this one: podsecctl is gone, and the program after it.
    host::kill(pid, "KILL");
    child.wait().expect("wait");
    host::within(std::time::Duration::from_secs(5), "the program to end", || !host::is_alive(program));
    expect_records(oracle, &["intent", "done"]);
}
