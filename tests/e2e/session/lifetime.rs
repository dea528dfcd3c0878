//! How long a session lives: as long as its client, whatever becomes of podsecd; and what is left when a client, a
//! supervisor or podsecd is killed.

use super::*;
use podsec_tests::oracle;
use podsec_wire::session::ToClient;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("session::outlives_podsecd", outlives_podsecd),
    ("session::of_a_podsecd_that_died", of_a_podsecd_that_died),
    ("session::ends_with_the_namespace", ends_with_the_namespace),
    ("attacks::t35_supervisor_killed", supervisor_killed),
    ("attacks::t35_supervisor_stopped", supervisor_stopped),
    ("attacks::t35_storm_of_signals", storm_of_signals),
    ("attacks::t28_directory_that_never_answers", directory_that_never_answers),
    ("attacks::t38_client_killed", client_killed),
    ("attacks::t38_deaf_programs", deaf_programs),
    ("attacks::t39_flood", flood),
];

/// Phases of the records of each permitted operation.
fn stories(oracle: &Oracle) -> Vec<Vec<String>> {
    let mut stories: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for record in oracle.audit() {
        let text = |key| record[key].as_str().unwrap_or_default().to_owned();
        if text("phase") != "deny" {
            stories.entry(text("id")).or_default().push(text("phase"));
        }
    }
    stories.into_values().collect()
}

fn all_closed(oracle: &Oracle) -> bool {
    stories(oracle).iter().all(|story| story.len() >= 2)
}

fn outlives_podsecd(oracle: &mut Oracle) {
    let counter = "stty -echo; n=0; while read -r word; do n=$((n + 1)); echo \"$word is $n\"; done";
    let mut sessions: Vec<Terminal> = (0..count(32, 6))
        .map(|_| Terminal::podsecctl(ALICE, &[&["enter", "-t", "--"][..], &shell(counter)].concat()))
        .collect();
    let mut silent = entering(ALICE, &["sleep", "64.01"]).spawn().expect("podsecctl");
    pid_of(&["sleep", "64.01"]);
    let mut typed = 0;
    let mut all_go_on = |sessions: &mut Vec<Terminal>| {
        typed += 1;
        sessions.iter_mut().for_each(|session| session.types("word\r"));
        sessions.iter_mut().for_each(|session| _ = session.sees(&format!("word is {typed}\r\n")));
    };
    all_go_on(&mut sessions);
    for signal in ["TERM", "KILL"].repeat(count(20, 3)) {
        let started = Instant::now();
        host::stop_daemon(signal);
        assert!(started.elapsed() < Duration::from_secs(3), "sessions must not hold podsecd up");
        all_go_on(&mut sessions);
        host::start_daemon(None);
        all_go_on(&mut sessions);
    }
    oracle.expect_new_daemon();
    // Those of before count, and new ones can be had.
    let told: serde_json::Value =
        serde_json::from_str(&people::ctl(ALICE, &["--json", "status"])).expect("JSON");
    assert!(told.to_string().contains(&format!("\"sessions\":{}", sessions.len() + 1)), "{told}");
    assert_eq!(people::enter(ALICE, &["echo", "new"]), "new\n");
    for mut session in sessions.drain(..) {
        session.types("\x04");
        assert_eq!(session.ends().0, 0);
    }
    host::kill(pid_of(&["sleep", "64.01"]), "TERM");
    assert_eq!(end_of(&mut silent), 143);
    host::wait_for("every session's closing record", || all_closed(oracle));
    let odd: Vec<_> = stories(oracle).into_iter().filter(|story| story != &["intent", "done"]).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

/// A supervisor that died with podsecd leaves an intent open, and the next podsecd closes it: once.
fn of_a_podsecd_that_died(oracle: &mut Oracle) {
    let mut clients: Vec<_> = ["64.11", "64.12"]
        .map(|marker| {
            let client =
                entering(ALICE, &["sleep", marker]).stderr(Stdio::null()).spawn().expect("podsecctl");
            (client, marker)
        })
        .into();
    let supervisors: Vec<i32> =
        clients.iter().map(|(_, marker)| parent(pid_of(&["sleep", marker]))).collect();
    host::stop_daemon("KILL");
    host::kill(supervisors[0], "KILL");
    assert_eq!(end_of(&mut clients[0].0), 70);
    host::start_daemon(None);
    oracle.expect_new_daemon();
    assert_eq!(records(oracle), ["intent", "intent", "recovered"]);
    oracle.restart_daemon();
    host::kill(clients[1].0.id().try_into().expect("a pid"), "KILL");
    clients[1].0.wait().expect("wait");
    expect_records(oracle, &["intent", "intent", "recovered", "done"]);
    assert_eq!(pids_of(&["sleep", "64.11"]).len() + pids_of(&["sleep", "64.12"]).len(), 0, "an orphan");
}

fn ends_with_the_namespace(oracle: &mut Oracle) {
    let mut client = entering(ALICE, &["sleep", "64.21"]).spawn().expect("podsecctl");
    let mut on = Terminal::podsecctl(ALICE, &["enter", "-t", "--", "sleep", "64.22"]);
    pid_of(&["sleep", "64.21"]);
    pid_of(&["sleep", "64.22"]);
    host::stop_namespace();
    assert_eq!(end_of(&mut client), 137);
    assert_eq!(on.ends().0, 137);
    expect_records(oracle, &["intent", "intent", "done", "done"]);
    host::start_namespace();
}

/// The workers that have become the cluster user: that is whom he can send signals to.
fn his_workers() -> Vec<i32> {
    let uid = cluster_uid();
    let is_his = |pid: &i32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let owner = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        name == "podsecd-worker\n" && owner.contains(&format!("\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"))
    };
    pids().into_iter().filter(is_his).collect()
}

fn signal_as_cluster_user(pid: i32, signal: &str) {
    host::run(people::command(CLUSTER, "/bin/kill").args([&format!("-{signal}"), &pid.to_string()]));
}

/// In the middle of an entry (the client has its ticket and waits), and under a running program.
fn supervisor_killed(oracle: &mut Oracle) {
    for signal in ["KILL", "TERM", "34"] {
        let answer = ask(request(&["sleep", "65.01"])).expect("a ticket");
        let [worker] = his_workers()[..] else { panic!("{:?}", his_workers()) };
        signal_as_cluster_user(worker, signal);
        host::wait_for("the worker to end", || !host::is_alive(worker));
        assert!(!matches!(fetch(&answer).map(|session| session.receive::<ToClient>()), Ok(Ok(Some(_)))));

        let mut client =
            entering(ALICE, &["sleep", "65.02"]).stderr(Stdio::null()).spawn().expect("podsecctl");
        let program = pid_of(&["sleep", "65.02"]);
        signal_as_cluster_user(parent(program), signal);
        assert_eq!(end_of(&mut client), 70);
        host::within(Duration::from_secs(5), "the program to end", || !host::is_alive(program));
    }
    assert!(pids_of(&["sleep", "65.01"]).is_empty());
    host::wait_for("records", || {
        records(oracle).iter().filter(|record| record.starts_with("fail")).count() == 6
    });
    let found = records(oracle);
    for (record, times) in [("intent", 6), ("fail helper-lost attach", 3), ("fail helper-lost run", 3)] {
        assert_eq!(found.iter().filter(|found| *found == record).count(), times, "{record}: {found:?}");
    }
}

/// No worker ever stops by itself, so a stopped one is ended: it would hold its place, its session and its client for as
/// long as somebody likes.
fn supervisor_stopped(oracle: &mut Oracle) {
    let started = Instant::now();
    let answer = ask(request(&["sleep", "65.03"])).expect("a ticket");
    let [worker] = his_workers()[..] else { panic!("{:?}", his_workers()) };
    signal_as_cluster_user(worker, "STOP");
    host::within(Duration::from_secs(11), "the worker to end", || !host::is_alive(worker));
    drop(answer);
    let mut client = entering(ALICE, &["sleep", "65.04"]).stderr(Stdio::null()).spawn().expect("podsecctl");
    let program = pid_of(&["sleep", "65.04"]);
    signal_as_cluster_user(parent(program), "STOP");
    assert_eq!(end_of(&mut client), 70);
    host::within(Duration::from_secs(5), "the program to end", || !host::is_alive(program));
    expect_records(oracle, &["intent", "fail helper-lost attach", "intent", "fail helper-lost run"]);
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// Sends STOP and KILL by turns to everything of podsec's that it may, as soon as it sees it, until its input ends.
const STORM: &str = "
import os, select, signal
hits, turn = 0, 0
print('ready', flush=True)
while not select.select([0], [], [], 0)[0]:
    for name in os.listdir('/proc'):
        try:
            if not name.isdigit() or open(f'/proc/{name}/comm').read() != 'podsecd-worker\\n': continue
            turn += 1
            os.kill(int(name), signal.SIGSTOP if turn % 3 else signal.SIGKILL)
            hits += 1
        except OSError: pass
print(hits)
";

/// At any point of an entry, from inside and from outside: a program ran or none did, its client hears of it in time,
/// and nothing is left over.
fn storm_of_signals(oracle: &mut Oracle) {
    let mut outside = people::command(CLUSTER, "/usr/bin/python3");
    outside.args(["-c", STORM]);
    let attackers = [outside, people::inside("/usr/bin/python3", &["-c", STORM])]
        .map(|mut command| command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python"));
    let started = Instant::now();
    let clients = (0..count(1000, 100)).map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        entering(ALICE, &["true"]).stderr(Stdio::null()).spawn().expect("podsecctl")
    });
    let ends: Vec<_> =
        clients.collect::<Vec<_>>().into_iter().map(|mut client| end_of(&mut client)).collect();
    println!("{:?}", started.elapsed());
    for attacker in attackers {
        let told = attacker.wait_with_output().expect("python").stdout;
        let hits: usize =
            String::from_utf8_lossy(&told).lines().last().unwrap_or_default().parse().expect("a number");
        assert!(hits > 0, "the storm was none");
        println!("{hits} hits");
    }
    // It ran; its supervisor was hit under it, or before it was fetched; or it was hit itself.
    assert!(ends.iter().all(|end| [0, 70, 75, 137].contains(end)), "{ends:?}");
    host::wait_for("the last record", || all_closed(oracle));
    let found = records(oracle);
    // A ticket goes with its worker, so the client may come for it in vain.
    let known = |record: &String| {
        ["intent", "done", "deny bad-ticket"].contains(&record.as_str())
            || record.starts_with("fail helper-lost")
            || record.starts_with("fail deadline")
    };
    assert!(found.iter().all(known), "{found:?}");
    assert_eq!(his_workers(), [0; 0]);
}

/// Mounts a file system inside whose server answers nothing; says so, and stays.
const SILENT_FILE_SYSTEM: &str = "
import ctypes, os, sys
fd = os.open('/dev/fuse', os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
os.makedirs(sys.argv[1], exist_ok=True)
options = f'fd={fd},rootmode=40000,user_id=0,group_id=0'.encode()
if libc.mount(b'silent', sys.argv[1].encode(), b'fuse', 0, options):
    raise OSError(ctypes.get_errno(), 'mount')
print('ready', flush=True)
sys.stdin.read()
";

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

/// The cluster user can make any directory hang. That is the end of the entry after ten seconds, and of all that was
/// started for it.
fn directory_that_never_answers(oracle: &mut Oracle) {
    let directory = "/tmp/silent";
    let mut server = people::inside("/usr/bin/python3", &["-c", SILENT_FILE_SYSTEM, directory]);
    let server = server.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nsenter");
    // Ended in any case: who waits for it waits for ever.
    let mut server = Server(server);
    let mut told = std::io::BufReader::new(server.0.stdout.take().expect("a pipe"));
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut told, &mut ready).expect("read");
    assert_eq!(ready, "ready\n");
    let started = Instant::now();
    let mut client = people::command(ALICE, "/usr/bin/podsecctl");
    client.args(["enter", "--cwd", directory, "--", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    let status = end_of(&mut client.spawn().expect("podsecctl"));
    assert_eq!((status, started.elapsed().as_secs()), (70, 10));
    expect_records(oracle, &["intent", "fail deadline start"]);
    host::within(Duration::from_secs(2), "nothing of it to go on", || his_workers().is_empty());
    host::run(&mut people::inside("/bin/umount", &["--lazy", directory]));
}

/// Whatever podsecctl was doing, from before its connect to well into the program: asking, fetching, starting, copying.
fn client_killed(oracle: &mut Oracle) {
    let before = oracle::ptys();
    for round in 0..count(1000, 80) {
        let on_terminal = Terminal::podsecctl(
            ALICE,
            &[&["enter", "-t", "--"][..], &shell("sleep 66.01; sleep 66.02")].concat(),
        );
        let mut plain = entering(ALICE, &shell("sleep 66.03; sleep 66.04")).spawn().expect("podsecctl");
        std::thread::sleep(Duration::from_micros(round as u64 * 397 % 20_000));
        host::kill(on_terminal.pid(), "KILL");
        plain.kill().expect("kill");
        plain.wait().expect("wait");
    }
    gone(&[&["sleep", "66.01"], &["sleep", "66.02"], &["sleep", "66.03"], &["sleep", "66.04"]]);
    host::wait_for("the terminals to go", || oracle::ptys() <= before);
    every_intent_is_closed(oracle);
    // So that the refusals that were only counted are told here, and not in another test.
    oracle.restart_daemon();
}

fn gone(programs: &[&[&str]]) {
    host::within(Duration::from_secs(6), "no orphan", || {
        programs.iter().all(|argv| pids_of(argv).is_empty())
    });
}

fn every_intent_is_closed(oracle: &Oracle) {
    // A ticket that nobody came for lives its ten seconds.
    host::within(Duration::from_secs(14), "every closing record", || all_closed(oracle));
    let ends = |end: &str| stories(oracle).iter().filter(|story| story[1] == end).count();
    println!("{} ran, {} did not come to it", ends("done"), ends("fail"));
    assert!(ends("done") > 0);
    assert!(stories(oracle).iter().all(|story| story.len() == 2 && story[0] == "intent"));
    // Whoever is dead by the time that he is judged is nobody, and whoever died in the middle of a word said nothing.
    const CUT_OFF: [&str; 3] = ["deny peer-gone", "deny bad-ticket", "deny protocol"];
    let mut refused = records(oracle).into_iter().filter(|record| record.starts_with("deny"));
    assert_eq!(refused.find(|record| !CUT_OFF.contains(&record.as_str())), None);
}

/// SIGHUP first, so that an editor can save; after the grace time of three seconds nobody is asked any more, in whatever
/// process group of the session he is.
fn deaf_programs(oracle: &mut Oracle) {
    let polite = "trap 'echo bye >/tmp/polite; exit' HUP; while :; do sleep 0.01; done";
    let deaf =
        "trap '' HUP TERM INT; set -m; sleep 67.01 & sleep 67.02 | sleep 67.03 & sleep 67.04; sleep 67.05";
    for terminal in [true, false] {
        let start = |script| -> Box<dyn FnOnce()> {
            if terminal {
                let on = Terminal::podsecctl(ALICE, &[&["enter", "-t", "--"][..], &shell(script)].concat());
                Box::new(move || host::kill(on.pid(), "KILL"))
            } else {
                let mut client = entering(ALICE, &shell(script));
                let mut client = client.stderr(Stdio::null()).spawn().expect("podsecctl");
                Box::new(move || {
                    client.kill().expect("kill");
                    client.wait().expect("wait");
                })
            }
        };
        let kill_polite = start(polite);
        pid_of(&shell(polite));
        std::thread::sleep(Duration::from_millis(50));
        kill_polite();
        host::within(Duration::from_secs(1), "the hang-up", || {
            std::fs::read_to_string("/tmp/polite").is_ok_and(|text| text == "bye\n")
        });
        gone(&[&shell(polite)]);
        std::fs::remove_file("/tmp/polite").expect("remove");

        let kill_deaf = start(deaf);
        let programs = ["67.01", "67.02", "67.03", "67.04"];
        let deaf_ones: Vec<i32> = programs.iter().map(|marker| pid_of(&["sleep", marker])).collect();
        let killed = Instant::now();
        kill_deaf();
        std::thread::sleep(Duration::from_millis(1500));
        assert!(deaf_ones.iter().all(|&pid| host::is_alive(pid)), "killed before the grace time was over");
        gone(&[
            &["sleep", "67.01"],
            &["sleep", "67.02"],
            &["sleep", "67.03"],
            &["sleep", "67.04"],
            &["sleep", "67.05"],
        ]);
        assert!(killed.elapsed() < Duration::from_secs(5), "{:?}", killed.elapsed());
    }
    expect_entries(oracle, 4);
}

fn resident(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A program that writes without end to a client that does not read waits; nobody keeps its output.
fn flood(_: &mut Oracle) {
    let mut piped = entering(ALICE, &["yes", "68.01"]).stdout(Stdio::piped()).spawn().expect("podsecctl");
    let on = Terminal::podsecctl(ALICE, &["enter", "-t", "--", "yes", "68.02"]);
    let supervisors = [pid_of(&["yes", "68.01"]), pid_of(&["yes", "68.02"])].map(parent);
    let clients = [i32::try_from(piped.id()).expect("a pid"), on.pid()];
    let all = [&[host::daemon_pid()][..], &supervisors, &clients].concat();
    std::thread::sleep(Duration::from_millis(200));
    let before: Vec<u64> = all.iter().map(|&pid| resident(pid)).collect();
    std::thread::sleep(Duration::from_secs(2));
    let after: Vec<u64> = all.iter().map(|&pid| resident(pid)).collect();
    println!("KiB of podsecd, two workers, two clients: {before:?}, two seconds later {after:?}");
    assert!(before.iter().zip(&after).all(|(before, after)| *after <= before + 1024));
    // And they wait without spinning: no tick of processor time for the supervisors.
    let ticks =
        |pid: &i32| stat(*pid, 14).parse::<u64>().unwrap_or(0) + stat(*pid, 15).parse::<u64>().unwrap_or(0);
    assert!(supervisors.iter().all(|pid| ticks(pid) < 10));
    piped.kill().expect("kill");
    piped.wait().expect("wait");
    drop(on);
    gone(&[&["yes", "68.01"], &["yes", "68.02"]]);
}
