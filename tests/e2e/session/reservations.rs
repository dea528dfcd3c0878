//! Sessions that were reserved: podsecd makes ready for them before they are asked for, and hands them over without a ticket.

use super::*;
use podsec_policy::config::ATTACH_PATH;
use podsec_tests::peer::{self, Live, user};
use podsec_tests::people::MALLORY;
use podsec_wire::session::{self, Exit, FromClient, ToClient};
use std::os::fd::AsFd as _;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("session::reserved", reserved),
    ("session::reservations_are_told_apart", told_apart),
    ("session::a_reservation_that_nobody_uses", nobody_uses_it),
    ("attacks::t12_reserved_as_a_member", reserved_as_a_member),
    ("attacks::t37_reservations_of_others", of_others),
    ("attacks::t37_words_on_a_reservation", words_on_it),
];

fn reserve(number: u64) -> Channel {
    session::reserve(ATTACH_PATH.as_ref(), number).expect("reserved")
}

fn ask_for(number: u64, argv: &[&str]) -> EnterResponse {
    ask(EnterRequest { reservation: number, ..request(argv) }).expect("a session")
}

/// Runs it to its end.
fn exit_of(session: &Channel) -> Exit {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").expect("/dev/null");
    session.send(&FromClient::Open, &[null.as_fd(), null.as_fd(), null.as_fd()]).expect("opened");
    loop {
        match session.receive().expect("a frame").expect("a frame").0 {
            ToClient::Exited(exit) => return exit,
            ToClient::Started => {}
            other => panic!("{other:?}"),
        }
    }
}

/// How many workers are where the cluster user's processes are.
fn workers_inside() -> usize {
    let name = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let group = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let is_one = |pid: &i32| name(pid).trim() == "podsecd-worker" && group(pid).contains("podsec-u7s");
    pids().iter().filter(|pid| is_one(pid)).count()
}

fn reserved(oracle: &mut Oracle) {
    let gate = reserve(7);
    // It is inside before it is asked.
    host::wait_for("a worker inside", || workers_inside() == 1);
    assert_eq!(records(oracle), Vec::<String>::new());
    let answer = ask_for(7, &["sh", "-c", "exit 3"]);
    assert!(answer.ticket.is_empty());
    assert_eq!(exit_of(&session::receive(&gate).expect("the session")), Exit::Code(3));
    // Used once: the same number is worth nothing any more, and the answer has a ticket.
    let again = ask_for(7, &["sh", "-c", "exit 4"]);
    assert_eq!(exit_of(&fetch(&again).expect("the session")), Exit::Code(4));
    expect_entries(oracle, 2);
}

fn told_apart(oracle: &mut Oracle) {
    let gates = [1, 2, 3].map(reserve);
    for number in [2, 3, 1] {
        let answer = ask_for(number, &["sh", "-c", &format!("exit {number}")]);
        assert!(answer.ticket.is_empty(), "{number}");
    }
    for (gate, number) in gates.iter().zip(1..) {
        assert_eq!(exit_of(&session::receive(gate).expect("the session")), Exit::Code(number));
    }
    expect_entries(oracle, 3);
}

fn nobody_uses_it(oracle: &mut Oracle) {
    let gate = reserve(1);
    host::wait_for("a worker inside", || workers_inside() == 1);
    // An answer about his membership does not keep, and neither does the worker.
    host::wait_for("its end", || workers_inside() == 0);
    // Late, and answered anew.
    assert!(ask_for(1, &["true"]).ticket.is_empty());
    assert_eq!(exit_of(&session::receive(&gate).expect("the session")), Exit::Code(0));
    drop(reserve(2));
    // For somebody who may not, nobody goes in.
    peer::install(env!("CARGO_BIN_EXE_podsec-peer"));
    let mut mallory =
        Live::start(&mut user(MALLORY), &["reserve", "1", "pause", "call", "NamespaceService/Enter"]);
    mallory.answers();
    host::wait_for("the end of all", || workers_inside() == 0);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(workers_inside(), 0);
    assert_eq!(mallory.go_on()[0]["code"], tonic::Code::PermissionDenied as i32);
    expect_records(oracle, &["intent", "done", "deny not-member"]);
}

/// A reservation is no right: whoever was a member when he made it is asked again.
fn reserved_as_a_member(oracle: &mut Oracle) {
    peer::install(env!("CARGO_BIN_EXE_podsec-peer"));
    let _restored = ["/etc/group", "/etc/gshadow"].map(|file| host::Edited::with(file, str::to_owned));
    let words = ["reserve", "1", "pause", "call", "NamespaceService/Enter"];
    let mut alice = Live::start(&mut user(ALICE), &words);
    alice.answers();
    host::wait_for("a worker inside", || workers_inside() == 1);
    host::run(std::process::Command::new("/usr/bin/gpasswd").args(["--delete", ALICE, "wheel"]));
    host::wait_for("its end", || workers_inside() == 0);
    assert_eq!(alice.go_on()[0]["code"], tonic::Code::PermissionDenied as i32);
    expect_records(oracle, &["deny revoked"]);
}

fn of_others(oracle: &mut Oracle) {
    peer::install(env!("CARGO_BIN_EXE_podsec-peer"));
    // Another process of root's, somebody else, and the cluster user, under the number that this process will name.
    let mut thieves = [ROOT, ALICE, MALLORY, CLUSTER]
        .map(|thief| (thief, Live::start(&mut user(thief), &["reserve", "9", "pause", "handed"])));
    thieves.iter_mut().for_each(|(_, thief)| assert!(thief.answers().is_empty()));
    let answer = ask_for(9, &["sh", "-c", "exit 5"]);
    let session = fetch(&answer).expect("by the ticket");
    for (name, thief) in &mut thieves {
        assert_eq!(thief.go_on(), [serde_json::json!({ "handed": false })], "{name}");
    }
    assert_eq!(exit_of(&session), Exit::Code(5));
    expect_records(oracle, &["intent", "done"]);
}

fn words_on_it(oracle: &mut Oracle) {
    // A second word on it is no ticket and no reservation; nor is one with gifts, or of another length.
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    let twice = reserve(4);
    podsec_sys::socket::send(&twice, &4_u64.to_le_bytes(), &[]).expect("sent");
    assert!(session::receive(&twice).is_err());
    let words: [(&[u8], bool); 3] = [(&[4; 8], true), (&[4; 7], false), (&[4; 9], false)];
    for (word, gift) in words {
        let gifts = [null.as_fd()];
        let gate = podsec_sys::socket::connect(ATTACH_PATH.as_ref(), podsec_sys::socket::Kind::Packet);
        let gate = Channel::from(gate.expect("connected"));
        podsec_sys::socket::send(&gate, word, if gift { &gifts } else { &[] }).expect("sent");
        assert!(session::receive(&gate).is_err());
    }
    // None of them is one: the answer has a ticket.
    let answer = ask_for(4, &["true"]);
    assert_eq!(exit_of(&fetch(&answer).expect("the session")), Exit::Code(0));
    expect_records(oracle, &[&["deny bad-ticket"; 4][..], &["intent", "done"]].concat());
}
