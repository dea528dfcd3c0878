//! The way from a ticket to a session, and what may be brought along.

use super::*;
use podsec_policy::Reason;
use podsec_sys::nix::fcntl::{OFlag, open};
use podsec_sys::nix::sys::stat::{Mode, SFlag, makedev, mknod};
use podsec_sys::socket::{self, Kind};
use podsec_tests::people::MALLORY;
use podsec_wire::session::{Attached, Exit, FromClient, Signal, ToClient};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("attacks::t37_stolen_tickets", stolen_tickets),
    ("attacks::t37_guessed_tickets", guessed_tickets),
    ("attacks::t37_old_tickets", old_tickets),
    ("session::ticket_of_a_failed_session", ticket_of_a_failed_session),
    ("attacks::t36_frames_of_nobody", frames_of_nobody),
    ("attacks::t36_signals_reach_the_own_session_only", signals_reach_the_own_session_only),
    ("session::descriptors_refused", descriptors_refused),
];

/// Sends hex to the attach socket, with a descriptor if told so; prints what comes back, and how many descriptors.
const ATTACH: &str = "
import array, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
s.connect('/run/podsec/attach.sock')
fds = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0]))] * (len(sys.argv) > 2)
s.sendmsg([bytes.fromhex(sys.argv[1])], fds)
data, control, _, _ = s.recvmsg(64, 64)
print(data.hex(), len(control))
";
const REFUSED: &str = "01 0\n";

fn attach_as(user: &str, ticket: &[u8], more: &[&str]) -> String {
    let mut python = people::command(user, "/usr/bin/python3");
    host::run(python.args(["-c", ATTACH, &hex(ticket)]).args(more))
}

/// What comes back; `None`: the end.
fn answer_to(ticket: &[u8], descriptors: &[BorrowedFd<'_>]) -> Option<Attached> {
    let gate =
        Channel::from(socket::connect("/run/podsec/attach.sock".as_ref(), Kind::Packet).expect("connect"));
    socket::send(&gate, ticket, descriptors).expect("send");
    gate.receive().expect("an answer").map(|(answer, _)| answer)
}

fn attach(ticket: &[u8], descriptors: &[BorrowedFd<'_>]) -> Attached {
    answer_to(ticket, descriptors).expect("an answer")
}

fn null() -> OwnedFd {
    File::options().read(true).write(true).open("/dev/null").expect("/dev/null").into()
}

/// Opens the session with these and gives the worker's first answer.
fn open_with(session: &Channel, descriptors: &[&dyn AsFd]) -> ToClient {
    let descriptors: Vec<_> = descriptors.iter().map(|fd| fd.as_fd()).collect();
    session.send(&FromClient::Open, &descriptors).expect("send");
    next(session)
}

fn next(session: &Channel) -> ToClient {
    session.receive().expect("an answer").expect("an answer").0
}

fn ticket_of_a_failed_session(oracle: &mut Oracle) {
    let _not_ready = host::Edited::with("/run/podsec-u7s/ready", |_| "2".to_owned());
    let (answer, status) = client::block_on(async {
        let answers = client::namespace().await.enter(request(&["true"])).await;
        let mut answers = answers.expect("a ticket").into_inner();
        let answer = answers.message().await.expect("a ticket").expect("a ticket");
        (answer, answers.message().await.expect_err("why not"))
    });
    assert_eq!(client::reason(&status), "namespace-starting");
    // Whoever has it could not know, and is no thief.
    assert_eq!(answer_to(&answer.ticket, &[]), None);
    expect_records(oracle, &["intent", "fail namespace-starting find"]);
}

fn stolen_tickets(oracle: &mut Oracle) {
    let answer = ask(request(&["sh", "-c", "exit 5"])).expect("a ticket");
    assert_eq!(answer.ticket.len(), 32);
    // Root's, from another process; somebody else's; the cluster user's, whose worker it is.
    for thief in [ROOT, ALICE, MALLORY, CLUSTER] {
        assert_eq!(attach_as(thief, &answer.ticket, &[]), REFUSED, "{thief}");
    }
    // The right process, and not a ticket alone.
    assert_eq!(attach(&answer.ticket, &[null().as_fd()]), Attached::Refused);
    assert_eq!(attach(&answer.ticket[..31], &[]), Attached::Refused);
    assert_eq!(attach(&[&answer.ticket[..], b"x"].concat(), &[]), Attached::Refused);
    // None of that used it up. Then it is used, and worth nothing any more.
    let session = fetch(&answer).expect("the session");
    assert_eq!(attach(&answer.ticket, &[]), Attached::Refused);
    assert_eq!(open_with(&session, &[&null(), &null(), &null()]), ToClient::Started);
    assert_eq!(next(&session), ToClient::Exited(Exit::Code(5)));
    expect_records(oracle, &[&["intent"][..], &["deny bad-ticket"; 8], &["done"]].concat());
}

fn guessed_tickets(oracle: &mut Oracle) {
    let guess = |times: usize| {
        for _ in 0..times {
            let guess: [u8; 32] = podsec_sys::process::random().expect("random");
            assert_eq!(attach(&guess, &[]), Attached::Refused);
        }
    };
    let guesses = count(1_000_000, 5_000);
    // A session does not wait for as long as all of them take.
    const MEANWHILE: usize = 5_000;
    let start = Instant::now();
    guess(guesses - MEANWHILE);
    let answer = ask(request(&["true"])).expect("a ticket");
    let session = fetch(&answer).expect("the session");
    guess(MEANWHILE);
    assert_eq!(open_with(&session, &[&null(), &null(), &null()]), ToClient::Started);
    drop(session);
    // Written up to the limit of each minute, and counted from there on; what was counted is written when podsecd ends.
    let most = 61 * (start.elapsed().as_secs() as usize / 60 + 1);
    oracle.restart_daemon();
    let denials: Vec<_> = oracle.audit().into_iter().filter(|record| record["phase"] == "deny").collect();
    assert!(denials.len() <= most, "{} records", denials.len());
    assert!(denials.iter().all(|denial| denial["reason"] == "bad-ticket"));
    let suppressed: u64 = denials.iter().filter_map(|denial| denial["suppressed"].as_u64()).sum();
    println!("{} written, {suppressed} counted", denials.len());
    let written = denials.iter().filter(|denial| denial["suppressed"].is_null()).count();
    assert_eq!(written + usize::try_from(suppressed).unwrap(), guesses);
}

fn old_tickets(oracle: &mut Oracle) {
    // Nobody comes for this one, somebody for that one too late, and somebody comes and says nothing.
    let asked = Instant::now();
    let answer = ask(request(&["true"])).expect("a ticket");
    let fetched = ask(request(&["true"])).expect("a ticket");
    let session = fetch(&fetched).expect("the session");
    host::within(Duration::from_secs(13), "the end of both", || records(oracle).len() == 4);
    assert!(asked.elapsed() > Duration::from_secs(9), "{:?}", asked.elapsed());
    assert!(fetch(&answer).is_err());
    assert!(!matches!(session.receive::<ToClient>(), Ok(Some((ToClient::Started, _)))));
    let mut found = records(oracle);
    found[2..].sort();
    assert_eq!(
        found,
        ["intent", "intent", "deny bad-ticket", "fail deadline attach", "fail not-attached attach"]
    );
}

/// What is no frame of a client ends the session, and no more than that.
fn frames_of_nobody(oracle: &mut Oracle) {
    let begun = || {
        let answer = ask(request(&["sleep", "63.01"])).expect("a ticket");
        fetch(&answer).expect("the session")
    };
    // Instead of Open: nonsense, a signal, nothing but descriptors too few or too many.
    let first: &[(&[u8], usize)] =
        &[(b"\xff", 3), (b"", 3), (b"\x01\x00", 3), (b"\x00", 2), (b"\x00", 4), (b"\x00", 0)];
    for (bytes, descriptors) in first {
        let session = begun();
        let null = null();
        socket::send(&session, bytes, &vec![null.as_fd(); *descriptors]).expect("send");
        if let Ok(Some((answer, _))) = session.receive::<ToClient>() {
            assert!(matches!(answer, ToClient::Failed { .. }), "{bytes:?}: {answer:?}");
        }
    }
    assert!(pids_of(&["sleep", "63.01"]).is_empty());
    // After it: signal numbers that there are none of, among them what would be 0, 65 and -1.
    for signal in [&[9][..], &[65], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x80]] {
        let session = begun();
        assert_eq!(open_with(&session, &[&null(), &null(), &null()]), ToClient::Started);
        let program = pid_of(&["sleep", "63.01"]);
        socket::send(&session, &[&[1], signal].concat(), &[]).expect("send");
        host::within(Duration::from_secs(5), "the program to end", || !host::is_alive(program));
    }
    host::wait_for("the outcomes", || records(oracle).len() == 2 * (first.len() + 4));
    let fails = records(oracle).into_iter().filter(|record| record.starts_with("fail")).collect::<Vec<_>>();
    assert_eq!(fails.len(), first.len(), "{fails:?}");
    assert!(
        fails.iter().all(|fail| fail == "fail protocol attach" || fail == "fail not-attached attach"),
        "{fails:?}"
    );
}

/// Signals go to the process group of the own session's program: not to another session, not to whoever moved away, and
/// never to a process of the host.
fn signals_reach_the_own_session_only(oracle: &mut Oracle) {
    let begun = |argv: &[&str]| {
        let session = fetch(&ask(request(argv)).expect("a ticket")).expect("the session");
        assert_eq!(open_with(&session, &[&null(), &null(), &null()]), ToClient::Started);
        session
    };
    let script = "setsid sleep 63.02 & exec sleep 63.03";
    let (mine, other) = (begun(&shell(script)), begun(&["sleep", "63.04"]));
    let (moved, own) = (pid_of(&["sleep", "63.02"]), pid_of(&["sleep", "63.03"]));
    let others = pid_of(&["sleep", "63.04"]);
    for signal in
        [Signal::Usr1, Signal::Usr2, Signal::Hup, Signal::Int, Signal::Quit, Signal::Term, Signal::Kill]
    {
        let _ = mine.send(&FromClient::Signal(signal), &[]);
    }
    host::wait_for("the own program to end", || !host::is_alive(own));
    assert!(host::is_alive(moved) && host::is_alive(others));
    host::kill(moved, "KILL");
    drop(other);
    host::wait_for("the other session to end", || !host::is_alive(others));
    expect_records(oracle, &["intent", "intent", "done", "done"]);
}

fn descriptors_refused(oracle: &mut Oracle) {
    let opened = |path: &str, flags| {
        open(path, flags, Mode::empty()).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let (leader, follower) = podsec_sys::terminal::open(24, 80).expect("a pty");
    let own = podsec_sys::process::open(i32::try_from(std::process::id()).unwrap()).expect("a pidfd");
    let mut refused = vec![
        ("a terminal", follower),
        ("a terminal's other end", leader),
        ("a directory", opened("/etc", OFlag::O_RDONLY)),
        ("a path", opened("/etc/shadow", OFlag::O_PATH)),
        ("a path of a directory", opened("/", OFlag::O_PATH)),
        ("a device", opened("/dev/net/tun", OFlag::O_RDWR)),
        ("a process", own),
    ];
    // The first disk, if this machine shows one to us.
    if let Some(numbers) = block_device() {
        mknod("/tmp/disk", SFlag::S_IFBLK, Mode::S_IRUSR, numbers).expect("mknod");
        match open("/tmp/disk", OFlag::O_RDONLY, Mode::empty()) {
            Ok(fd) => refused.push(("a disk", fd)),
            Err(error) => println!("no disk to try with: {error}"),
        }
        std::fs::remove_file("/tmp/disk").expect("remove");
    }
    for (what, fd) in &refused {
        for place in 0..3 {
            let session =
                fetch(&ask(request(&["touch", "/tmp/ran"])).expect("a ticket")).expect("the session");
            let mut three: [&dyn AsFd; 3] = [&null(), &null(), &null()];
            three[place] = fd;
            let answer = open_with(&session, &three);
            assert!(
                matches!(answer, ToClient::Failed { reason: Reason::BadDescriptor, .. }),
                "{what}: {answer:?}"
            );
        }
    }
    assert!(!std::path::Path::new("/tmp/ran").exists());
    expect_records(oracle, &["intent", "fail bad-descriptor attach"].repeat(3 * refused.len()));
    // What people do have: files, pipes, sockets, and these devices.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let (socket, _peer) = std::os::unix::net::UnixStream::pair().expect("a socket");
    let zero = opened("/dev/zero", OFlag::O_RDONLY);
    let file = File::open("/etc/hostname").expect("a file");
    for three in [
        [&null() as &dyn AsFd, &null(), &null()],
        [&file, &writer, &socket],
        [&zero, &socket, &writer],
        [&reader, &writer, &writer],
    ] {
        let session = fetch(&ask(request(&["true"])).expect("a ticket")).expect("the session");
        assert_eq!(open_with(&session, &three), ToClient::Started);
        assert!(matches!(next(&session), ToClient::Exited(_)));
    }
}

fn block_device() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/partitions").ok()?;
    let mut words = text.lines().nth(2)?.split_whitespace().map(str::parse);
    Some(makedev(words.next()?.ok()?, words.next()?.ok()?))
}
