//! Who is calling: attacks 1 to 20 of docs/threats.md. The first fifteen are about the caller, and most of them are made
//! twice, the second time with the pidfd that older kernels leave podsecd with; the others about the process in whose
//! namespaces he ends up.

use crate::Test;
use podsec_policy::peer::{Role, Roles};
use podsec_policy::rules::RULES;
use podsec_sys::socket;
use podsec_tests::host::{self, Configured, Edited};
use podsec_tests::oracle::Oracle;
use podsec_tests::peer::{
    self, Live, answer, answers, assert_denied, assert_done, calls, numeric, took, user,
};
use podsec_tests::people::{self, ALICE, CAROL, CLUSTER, DAVE, ERIN, MALLORY, ROOT};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Tests of the caller: as podsecd is, and with what it does on kernels before 6.5.
macro_rules! callers {
    (once: $($once:ident)*; both: $($both:ident)*) => {
        pub const CALLERS: &[Test] = &[
            $((concat!("attacks::", stringify!($once)), |oracle| with(oracle, "auto", $once)),)*
            $((concat!("attacks::", stringify!($both)), |oracle| with(oracle, "auto", $both)),
              (concat!("attacks::", stringify!($both), "_by_number"), |oracle| with(oracle, "fallback", $both)),)*
        ];
    };
}

callers! {
    once: t01_stranger t04_dirty_sock t05_claimed_identity t12_revoked_wheel t12_new_wheel t13_fake_wheel
        t14_many_groups t15_nss_hang t15_nss_failure the_record_tells_who;
    both: t02_every_op_matrix t03_die_in_auth t06_high_uids t07_userns_root t08_pod_socket t09_subuid_caller
        t10_fd_handover t10_uid_changed t10_setuid_exec t11_pid_recycle
}

macro_rules! namespaces {
    ($($test:ident)*) => {
        pub const NAMESPACES: &[Test] = &[$((concat!("attacks::", stringify!($test)), $test),)*];
    };
}

namespaces! {
    t16_pidfile_of_the_host t17_pidfile_garbage t18_foreign_instance t19_swap_during_enter t20_nested_userns
}

const WHOAMI: &str = "IdentityService/WhoAmI";
const ENTER: &str = "NamespaceService/Enter";
const INSPECT: &str = "NamespaceService/Inspect";
const QUERY: &str = "AuditService/Query";
const NOBODY: u32 = 65534;

fn peer_is_there() {
    peer::install(env!("CARGO_BIN_EXE_podsec-peer"));
}

/// With every refusal in the record, however many there are.
fn with(oracle: &mut Oracle, pidfd: &str, test: fn(&mut Oracle)) {
    peer_is_there();
    {
        let config = format!("pidfd = \"{pidfd}\"\n[limits]\ndenials_per_minute = 1000000\n");
        let _configured = Configured::with(&config);
        test(oracle);
    }
    oracle.expect_new_daemon();
}

/// How often: as docs/threats.md says with `PODSEC_FULL=1`, else less.
fn times(short: u32, full: u32) -> u32 {
    let times = if std::env::var_os("PODSEC_FULL").is_some() { full } else { short };
    println!("{times} times");
    times
}

fn methods() -> Vec<&'static str> {
    RULES.iter().map(|rule| rule.method.name()).collect()
}

/// Records of that phase since the test began, or since so many.
fn records(oracle: &Oracle, phase: &str) -> Vec<Value> {
    oracle.audit_now().into_iter().filter(|record| record["phase"] == phase).collect()
}

/// All were denied, for this reason, to this uid, and nothing was begun for him. Gives the records.
fn assert_all_denied(oracle: &Oracle, answers: &[Value], uid: u32, reasons: &[&str]) -> Vec<Value> {
    answers.iter().for_each(assert_denied);
    let mut newest: Vec<_> = oracle.audit_now().into_iter().filter(|record| record["uid"] == uid).collect();
    newest.drain(..newest.len().saturating_sub(answers.len()));
    assert_eq!(newest.len(), answers.len(), "{newest:#?}");
    for (record, answer) in newest.iter().zip(answers) {
        assert_eq!((&record["phase"], &record["op"]), (&"deny".into(), &answer["call"]), "{record}");
        assert!(reasons.iter().any(|reason| record["reason"] == *reason), "{record}: not of {reasons:?}");
    }
    newest
}

fn uid_of(name: &str) -> u32 {
    id_in("/etc/passwd", name)
}

fn gid_of(name: &str) -> u32 {
    id_in("/etc/group", name)
}

fn id_in(file: &str, name: &str) -> u32 {
    let text = std::fs::read_to_string(file).unwrap();
    let line = text.lines().find(|line| line.split(':').next() == Some(name)).expect(name);
    line.split(':').nth(2).unwrap().parse().unwrap()
}

// ---- 1 to 6: whoever he is, and whatever he says he is

fn t01_stranger(oracle: &mut Oracle) {
    let his: Vec<_> = methods().into_iter().filter(|method| !method.starts_with("Identity")).collect();
    let answers = answers(&mut user(MALLORY), &calls(&his));
    assert_all_denied(oracle, &answers, uid_of(MALLORY), &["not-member"]);
    assert_eq!(records(oracle, "intent"), [] as [Value; 0]);

    // The other way: he does not come as far as being asked.
    let before = oracle.audit_now().len();
    host::stop_daemon("TERM");
    host::start_daemon(Some("[socket]\nmode = 0o660\n"));
    for name in ["podsecd", "attach"] {
        let socket = Path::new("/run/podsec").join(name).with_extension("sock");
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
    }
    let output = user(MALLORY).args(["call", WHOAMI]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("EACCES"), "{output:?}");
    assert_eq!(people::ctl_fails(MALLORY, &["enter", "--", "true"]).0, 69);
    assert_eq!(oracle.audit_now().len(), before);
    assert_done(&answer(&mut user(ROOT), WHOAMI));
}

fn t02_every_op_matrix(oracle: &mut Oracle) {
    // Who each of them is, said here once more and not taken from where podsecd has it.
    let people: [(&str, &[Role]); 7] = [
        (ALICE, &[Role::Administrator]),
        (CLUSTER, &[Role::ClusterAdmin]),
        (CAROL, &[Role::ImageCreator, Role::ImageUser]),
        (DAVE, &[Role::ImageUser]),
        (ERIN, &[Role::Monitor]),
        (MALLORY, &[]),
        (ROOT, &[Role::Administrator]),
    ];
    for (person, roles) in people {
        let roles = roles.iter().fold(Roles::NONE.with(Role::Anyone), |roles, &role| roles.with(role));
        let names: Vec<Value> = roles.iter().map(|role| role.name().into()).collect();
        let uid = uid_of(person);
        for rule in RULES {
            let since = oracle.audit_now().len();
            let answer = answer(&mut user(person), rule.method.name());
            let of_these = || oracle.audit_now().split_off(since).into_iter();
            if rule.roles.intersection(roles) == Roles::NONE {
                assert_denied(&answer);
                let all: Vec<_> = of_these().collect();
                assert_eq!(all.len(), 1, "{all:#?}");
                let record = &all[0];
                assert_eq!(
                    (&record["phase"], &record["reason"]),
                    (&"deny".into(), &"not-member".into()),
                    "{record}"
                );
                assert_eq!((&record["op"], &record["uid"]), (&answer["call"], &uid.into()), "{record}");
                assert_eq!(record["roles"], Value::Array(names.clone()), "{record}");
                continue;
            }
            // Whom and what these are about, a worker looks at, and finds nobody.
            let services = [
                "UserService",
                "KeyService",
                "TrustService",
                "SignatureService",
                "ServiceService",
                "CheckService",
            ];
            let is_past_the_table = services.iter().any(|service| rule.path.contains(service));
            if !is_past_the_table {
                assert_done(&answer);
            }
            if rule.by == podsec_policy::rules::By::Gate {
                assert_eq!(of_these().count(), 0, "nothing is done to the host, and no record is owed");
                continue;
            }
            host::wait_for("the outcome", || of_these().count() == 2);
            let phases: Vec<_> =
                of_these().map(|record| record["phase"].as_str().unwrap().to_owned()).collect();
            assert_eq!(phases[0], "intent", "{person} {}", rule.path);
            assert!(phases[1] == "done" || is_past_the_table, "{person} {}: {phases:?}", rule.path);
            assert!(of_these().all(|record| record["reason"] != "not-member"));
            assert!(of_these().all(|record| record["uid"] == uid && record["op"] == answer["call"]));
            assert!(of_these().all(|record| record["roles"] == Value::Array(names.clone())));
        }
        let who = answer(&mut user(person), WHOAMI);
        assert_eq!(who["answer"]["roles"], Value::Array(names), "{who}");
    }
}

fn t03_die_in_auth(oracle: &mut Oracle) {
    let count = times(500, 20_000).to_string();
    peer::answers(&mut user(MALLORY), &["die", ENTER, &count, "20000"]);
    // And one who may, and whom nobody waits for any more when the answer comes.
    peer::answers(&mut user(ALICE), &["die", INSPECT, "200", "20000"]);
    host::wait_for("every intent to have its outcome", || {
        let ended = ["done", "fail"].iter().map(|phase| records(oracle, phase).len()).sum::<usize>();
        records(oracle, "intent").len() == ended
    });
    let (stranger, alice) = (uid_of(MALLORY), uid_of(ALICE));
    let mut reasons = BTreeMap::<String, usize>::new();
    for record in oracle.audit_now() {
        let (phase, reason) =
            (record["phase"].as_str().unwrap(), record["reason"].as_str().unwrap_or_default());
        if record["uid"] == stranger {
            assert_eq!(phase, "deny", "{record}");
        }
        assert!(record["uid"] == stranger || record["uid"] == alice, "{record}");
        if phase == "deny" {
            // The dead are not always accepted before the next, and some have said half of what they wanted.
            let allowed: &[_] = if record["uid"] == alice {
                &["peer-gone", "connection-limit", "protocol"]
            } else {
                &["not-member", "peer-gone", "connection-limit", "protocol"]
            };
            assert!(allowed.contains(&reason), "{record}");
        }
        *reasons.entry(format!("{} {phase} {reason}", record["uid"])).or_default() += 1;
    }
    println!("{reasons:?}");
    assert!(reasons.keys().any(|key| key.ends_with("deny peer-gone")), "nobody died in time: {reasons:?}");
}

fn t04_dirty_sock(oracle: &mut Oracle) {
    let longest = [&b"/tmp/"[..], &[b'x'; 102]].concat();
    let addresses: [&[u8]; 7] = [
        b"/tmp/x;uid=0;pid=1;",
        b"/tmp/x\nuid=0\n",
        b"/tmp/\x1b[2J\xff\xfe\"}",
        b"\0;uid=0;pid=1;",
        b"\0\0\0\0",
        b"\0{\"uid\":0}\n",
        &longest,
    ];
    let (plain, alice, mallory) = (answer(&mut user(ALICE), WHOAMI), uid_of(ALICE), uid_of(MALLORY));
    for address in addresses {
        let hex: String = address.iter().map(|byte| format!("{byte:02x}")).collect();
        let bound = |person| {
            let mut command = user(person);
            command.args(["--bind", &hex]);
            command
        };
        let answers = answers(&mut bound(MALLORY), &calls(&[ENTER, QUERY]));
        let denials = assert_all_denied(oracle, &answers, mallory, &["not-member"]);
        assert!(denials.iter().all(|record| !record.to_string().contains("uid=0")), "{denials:?}");
        remove(address);
        let who = answer(&mut bound(ALICE), WHOAMI);
        assert_eq!(who["answer"], plain["answer"], "{address:?}");
        remove(address);
    }
    assert_eq!(plain["answer"]["uid"], alice);
}

fn remove(address: &[u8]) {
    use std::os::unix::ffi::OsStrExt as _;
    if address[0] != 0 {
        std::fs::remove_file(std::ffi::OsStr::from_bytes(address)).unwrap();
    }
}

fn t05_claimed_identity(oracle: &mut Oracle) {
    let claims = [
        "x-uid=0",
        "uid=0",
        "user=root",
        "x-user=root",
        "x-forwarded-user=root",
        "x-remote-user=alice",
        "remote_user=root",
        "authorization=Basic cm9vdDo=",
        "authorization=Bearer root",
        "x-ssl-client-verify=SUCCESS",
        "x-podsec-role=Administrator",
        "podsec-roles=Administrator",
        "grpc-caller=root",
        "cookie=uid=0",
        "from=root@localhost",
    ];
    let claimed: Vec<&str> = claims.iter().flat_map(|&claim| ["--metadata", claim]).collect();
    let words = [claimed.clone(), calls(&[WHOAMI, ENTER, INSPECT, QUERY])].concat();
    let mut answers = answers(&mut user(MALLORY), &words);
    let who = answers.remove(0);
    assert_eq!(who["answer"]["uid"], uid_of(MALLORY));
    assert_eq!(who["answer"]["roles"], serde_json::json!(["Anyone"]));
    assert_all_denied(oracle, &answers, uid_of(MALLORY), &["not-member"]);
}

fn t06_high_uids(oracle: &mut Oracle) {
    let wheel = gid_of("wheel");
    for uid in [1 << 31, (1 << 31) + 1, 4_000_000_000, u32::MAX - 1, NOBODY] {
        for groups in ["--groups 5".to_owned(), format!("--groups {wheel}"), format!("--gid {wheel}")] {
            let mut caller = numeric(&format!("{groups} --uid {uid}"));
            let answers = answers(&mut caller, &calls(&[WHOAMI, ENTER, QUERY]));
            assert_all_denied(oracle, &answers, uid, &["bad-uid"]);
        }
    }
    // The last one that may be somebody.
    let mut caller = numeric(&format!("--groups 5 --gid 5 --uid {}", (1_u32 << 31) - 1));
    assert_done(&answer(&mut caller, WHOAMI));
}

// ---- 7 to 9: those for whom a uid means someone else

fn outsider(prefix: &[&str], person: &str) -> Command {
    let mut command = people::command(person, prefix[0]);
    command.args(&prefix[1..]).arg(peer::PATH);
    command
}

fn t07_userns_root(oracle: &mut Oracle) {
    let ways: [&[&str]; 6] = [
        &["unshare", "-U"],
        &["unshare", "-Ur"],
        &["unshare", "-Urp", "--fork", "--kill-child"],
        &["unshare", "-Urpm", "--fork", "--kill-child", "--mount-proc"],
        &["unshare", "-Uc"],
        &["unshare", "-Ur", "unshare", "-Ur"],
    ];
    for person in [MALLORY, ALICE, CLUSTER] {
        for way in ways {
            let answers = answers(&mut outsider(way, person), &calls(&[WHOAMI, ENTER, QUERY]));
            assert_all_denied(oracle, &answers, uid_of(person), &["foreign-userns"]);
        }
    }
    // root himself, and the same ids in a pid namespace of its own
    for way in [&["unshare", "-Ur"][..], &["unshare", "-p", "--fork", "--kill-child"]] {
        let answers = answers(&mut outsider(way, ROOT), &calls(&[WHOAMI, ENTER, QUERY]));
        assert_all_denied(oracle, &answers, 0, &["foreign-userns"]);
    }
    assert_eq!(records(oracle, "intent"), [] as [Value; 0]);
}

fn t08_pod_socket(oracle: &mut Oracle) {
    let uid = uid_of(CLUSTER);
    let all = methods();
    // Through the copy of /run that rootlesskit makes: links into the host's.
    let at = people::inside("readlink", &["-f", "/run/podsec/podsecd.sock"]).output().unwrap();
    assert!(String::from_utf8_lossy(&at.stdout).starts_with("/run/.ro"), "{at:?}");
    let answers_1 = answers(&mut people::inside(peer::PATH, &[]), &calls(&all));
    assert_all_denied(oracle, &answers_1, uid, &["foreign-userns"]);
    // As a pod has it that asked for a hostPath: bind-mounted into a tree of its own, in namespaces of its own.
    let pod = "mount -t tmpfs pod /mnt && mkdir /mnt/podsec && mount --bind /run/podsec/ /mnt/podsec && \
               mount --rbind /mnt /run && exec \"$@\"";
    let arguments = ["-mpuin", "--fork", "--kill-child", "sh", "-ec", pod, "sh", peer::PATH];
    let answers_2 = answers(&mut people::inside("unshare", &arguments), &calls(&all));
    assert_all_denied(oracle, &answers_2, uid, &["foreign-userns"]);
    assert_eq!(records(oracle, "intent"), [] as [Value; 0]);
}

fn t09_subuid_caller(oracle: &mut Oracle) {
    let become_5 = ["--reuid", "5", "--regid", "5", "--clear-groups", peer::PATH];
    // By newuidmap alone, without rootlesskit.
    let mut mapped = people::command(CLUSTER, "unshare");
    mapped.args(["-U", "--map-root-user", "--map-auto", "setpriv"]).args(become_5);
    for mut command in [people::inside("setpriv", &become_5), mapped] {
        let answers = answers(&mut command, &calls(&[WHOAMI, ENTER, QUERY]));
        // 1 inside is the first of his subordinate ids.
        let denials = assert_all_denied(oracle, &answers, first_subuid(CLUSTER) + 4, &["foreign-userns"]);
        assert!(denials.iter().all(|record| record.get("roles").is_none()), "{denials:?}");
    }
}

fn first_subuid(name: &str) -> u32 {
    let text = std::fs::read_to_string("/etc/subuid").unwrap();
    let line = text.lines().find(|line| line.split(':').next() == Some(name)).expect(name);
    line.split(':').nth(1).unwrap().parse().unwrap()
}

// ---- 10 and 11: a connection is its maker's, as long as he is who he was

/// Where connections are passed on.
const HAND: &str = "/tmp/hand";

/// Has the peer of `command` connect, and takes the connection from him; then he goes on with `words`.
fn taken_from(command: &mut Command, words: &[&str]) -> (OwnedFd, Child) {
    let _ = std::fs::remove_file(HAND);
    let hand = UnixListener::bind(HAND).unwrap();
    std::fs::set_permissions(HAND, std::fs::Permissions::from_mode(0o777)).unwrap();
    command.args(["connect", "give", HAND]).args(words);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let (from, _) = hand.accept().unwrap();
    let (_, mut given) = socket::receive(&from, &mut [0; 8]).unwrap();
    std::fs::remove_file(HAND).unwrap();
    (given.remove(0), child)
}

/// nobody, who speaks on a connection that he was given.
fn speaks_on(connection: OwnedFd, calls: &[&str]) -> Vec<Value> {
    let mut nobody = numeric(&format!("--groups {NOBODY} --gid {NOBODY} --uid {NOBODY} --stdin"));
    answers(nobody.stdin(Stdio::from(connection)), &peer::calls(calls))
}

fn t10_fd_handover(oracle: &mut Oracle) {
    let uid = uid_of(ALICE);
    let (connection, mut alice) = taken_from(&mut user(ALICE), &[]);
    assert!(alice.wait().unwrap().success());
    let answers = speaks_on(connection, &[WHOAMI, ENTER, INSPECT, QUERY]);
    assert_all_denied(oracle, &answers, uid, &["peer-gone"]);
    assert_eq!(records(oracle, "intent"), [] as [Value; 0]);

    // As long as she lives it is she who asks: who passes a connection on lends himself, as with any open file.
    let (connection, mut alice) = taken_from(&mut user(ALICE), &["pause"]);
    let who = speaks_on(connection, &[WHOAMI, INSPECT]);
    who.iter().for_each(assert_done);
    assert_eq!(who[0]["answer"]["uid"], uid);
    let intents = records(oracle, "intent");
    assert_eq!((&intents[0]["uid"], &intents[0]["pid"]), (&uid.into(), &alice.id().into()));
    alice.kill().unwrap();
    alice.wait().unwrap();
}

fn t10_uid_changed(oracle: &mut Oracle) {
    // A service that connected as root and then gave root up: for good, or half.
    for uids in [["1102", "1102", "1102"], ["0", "1102", "0"], ["1102", "0", "0"], ["0", "0", "1102"]] {
        let words = [&["connect", "uids"][..], &uids, &calls(&[WHOAMI, ENTER, QUERY])].concat();
        let answers = answers(&mut user(ROOT), &words);
        assert_all_denied(oracle, &answers, 0, &["uid-changed"]);
    }
    // Between two requests; who takes root up again is who connected.
    let back = ["call", QUERY, "uids", "0", "1102", "0", "call", QUERY, "uids", "0", "0", "0", "call", QUERY];
    let answers = answers(&mut user(ROOT), &back);
    assert_done(&answers[0]);
    assert_denied(&answers[1]);
    assert_done(&answers[2]);
}

fn t10_setuid_exec(oracle: &mut Oracle) {
    let program = "/usr/local/bin/setuid-sleep";
    std::fs::copy("/usr/bin/sleep", program).unwrap();
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o4755)).unwrap();
    // Whether the one who connected had a right of his own or not: who he is now is nobody who ever connected.
    for person in [ALICE, MALLORY] {
        let (connection, mut child) = taken_from(&mut user(person), &["exec", program, "1000"]);
        let status = format!("/proc/{}/status", child.id());
        let is_root = || {
            std::fs::read_to_string(&status)
                .unwrap()
                .contains(&format!("Uid:\t{}\t0\t0\t0\n", uid_of(person)))
        };
        host::wait_for("the set-user-ID program", is_root);
        let answers = speaks_on(connection, &[WHOAMI, ENTER, QUERY]);
        assert_all_denied(oracle, &answers, uid_of(person), &["uid-changed"]);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    std::fs::remove_file(program).unwrap();
}

/// Starts a process with that very number, which must be free.
fn start_with_pid(pid: u32, mut command: impl FnMut() -> Command) -> Child {
    for _ in 0..200 {
        // Of this pid namespace alone (pid_namespaces(7)).
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
        let mut child = command().stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        if child.id() == pid {
            return child;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    panic!("{pid} is never free");
}

/// podsecd does not run as long as this lives.
struct Stopped(i32);

impl Stopped {
    fn podsecd() -> Self {
        let daemon = host::daemon_pid();
        host::kill(daemon, "STOP");
        Self(daemon)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        host::kill(self.0, "CONT");
    }
}

fn t11_pid_recycle(oracle: &mut Oracle) {
    let sleeping_as = |person: &'static str| {
        move || {
            let mut command = people::command(person, "/usr/bin/sleep");
            command.arg("1000");
            command
        }
    };
    let by_number = std::fs::read_to_string("/etc/podsec/podsecd.toml").unwrap().contains("fallback");
    // Who connected and is gone, and whose process has his number now.
    let pairs = [(ALICE, MALLORY), (MALLORY, ROOT), (MALLORY, ALICE), (ROOT, MALLORY), (ALICE, ALICE)];
    for (first, second) in pairs {
        for accepted_first in [true, false] {
            if by_number && first == second && !accepted_first {
                // On a kernel that knows no more than the number, a later process of the same person is that person.
                continue;
            }
            // Else podsecd will not even have seen him while he lived.
            let stopped = (!accepted_first).then(Stopped::podsecd);
            let (connection, mut gone) = taken_from(&mut user(first), &["pause"]);
            if accepted_first {
                std::thread::sleep(Duration::from_millis(50));
            }
            let pid = gone.id();
            gone.kill().unwrap();
            gone.wait().unwrap();
            let mut other = start_with_pid(pid, sleeping_as(second));
            let uid_line = format!("Uid:\t{0}\t{0}\t{0}\t{0}\n", uid_of(second));
            let status = format!("/proc/{pid}/status");
            host::wait_for("the other's process", || {
                std::fs::read_to_string(&status).unwrap().contains(&uid_line)
            });
            drop(stopped);
            let answers = speaks_on(connection, &[WHOAMI, ENTER, QUERY]);
            assert_all_denied(oracle, &answers, uid_of(first), &["peer-gone", "uid-changed"]);
            other.kill().unwrap();
            other.wait().unwrap();
        }
    }
    assert_eq!(records(oracle, "intent"), [] as [Value; 0]);
}

// ---- 12 to 15: the account database

fn group(arguments: &[&str]) {
    host::run(Command::new("/usr/bin/gpasswd").args(arguments));
}

fn t12_revoked_wheel(oracle: &mut Oracle) {
    let _restored = ["/etc/group", "/etc/gshadow"].map(|file| Edited::with(file, str::to_owned));
    let words = ["call", INSPECT, "pause", "call", INSPECT, "call", ENTER, "pause", "call", INSPECT];
    let mut alice = Live::start(&mut user(ALICE), &words);
    alice.answers().iter().for_each(assert_done);
    group(&["--delete", ALICE, "wheel"]);
    let refused = alice.go_on();
    let denials = assert_all_denied(oracle, &refused, uid_of(ALICE), &["revoked"]);
    // She still has the role by the groups of her process, and that is not enough.
    assert!(denials.iter().all(|record| record["roles"] == serde_json::json!(["Administrator", "Anyone"])));
    group(&["--add", ALICE, "wheel"]);
    alice.go_on().iter().for_each(assert_done);
    assert_eq!(records(oracle, "intent").len(), 2);

    // The same when there is no such group any more, or the cluster user is another.
    let gone = Edited::with("/etc/group", |text| text.replace("\nwheel:", "\nwheels:"));
    assert_denied(&answer(&mut user(ALICE), INSPECT));
    drop(gone);
    let was = format!("--groups 5 --uid {}", uid_of(CLUSTER));
    let other = Edited::with("/etc/passwd", |text| text.replace("\nu7s-admin:x:", "\nu7s-admin:x:7"));
    assert_denied(&answer(&mut numeric(&was), INSPECT));
    drop(other);
    assert_done(&answer(&mut user(ALICE), INSPECT));
}

fn t12_new_wheel(oracle: &mut Oracle) {
    // The other way round: who becomes a member is one from his next login on, since podsecd asks both.
    let _restored = ["/etc/group", "/etc/gshadow"].map(|file| Edited::with(file, str::to_owned));
    let mut mallory =
        Live::start(&mut user(MALLORY), &["call", INSPECT, "pause", "call", INSPECT, "call", ENTER]);
    assert_denied(&mallory.answers()[0]);
    group(&["--add", MALLORY, "wheel"]);
    assert_all_denied(oracle, &mallory.go_on(), uid_of(MALLORY), &["not-member"]);
    assert_done(&answer(&mut user(MALLORY), INSPECT));
}

fn t13_fake_wheel(oracle: &mut Oracle) {
    let (uid, wheel) = (uid_of(MALLORY), gid_of("wheel"));
    let fakes = [
        ("Wheel:x:7001:mallory", 7001, "not-member"),
        ("wheel :x:7001:mallory", 7001, "not-member"),
        (" wheel:x:7001:mallory", 7001, "not-member"),
        ("wheel\u{200b}:x:7001:mallory", 7001, "not-member"),
        ("xwheel:x:7001:mallory", 7001, "not-member"),
        ("wheel2:x:7001:mallory", 7001, "not-member"),
        ("x:wheel:7001:mallory", 7001, "not-member"),
        // A second group of the name, and others of its number.
        ("wheel:x:7001:mallory", 7001, "not-member"),
        ("evil:x:{}:mallory", wheel, "revoked"),
        ("wheel:x:{}:mallory", wheel, "revoked"),
    ];
    for (line, gid, reason) in fakes {
        let line = line.replace("{}", &wheel.to_string());
        // Behind the real one; for one that shares only the number, before it too.
        for before in [false, true] {
            if before && line.starts_with("wheel:") {
                continue;
            }
            let _fake = Edited::with("/etc/group", |text| {
                if before { format!("{line}\n{text}") } else { format!("{text}{line}\n") }
            });
            let mut his = numeric(&format!("--groups {gid} --gid {uid} --uid {uid}"));
            let answers = answers(&mut his, &calls(&[INSPECT, ENTER, QUERY]));
            assert_all_denied(oracle, &answers, uid, &[reason]);
            let hers = answer(&mut user(ALICE), INSPECT);
            // To glibc, which skips spaces, that one is the first group of the name; then nobody is in both.
            let is_first = before && line.starts_with(' ');
            assert_eq!(hers["code"], if is_first { 7 } else { 0 }, "{line}: {hers}");
        }
    }
    // Group 0 is never an administrators' group.
    let _zero = Edited::with("/etc/group", |text| {
        text.replace(&format!("\nwheel:x:{wheel}:"), "\nwheel:x:0:mallory,")
    });
    let answers =
        answers(&mut numeric(&format!("--groups 0 --gid 0 --uid {uid}")), &calls(&[INSPECT, ENTER]));
    assert_all_denied(oracle, &answers, uid, &["not-member"]);
}

fn t14_many_groups(oracle: &mut Oracle) {
    let (alice, mallory, wheel) = (uid_of(ALICE), uid_of(MALLORY), gid_of("wheel"));
    let mut longest = Duration::ZERO;
    for count in [0, 1, 16, 17, 32, 1024, 4096, 65_536] {
        let ask = |uid: u32, with: bool| {
            let groups = if with && count > 0 { format!("--groups {wheel}") } else { String::new() };
            // Without any, the group that he is in first is all there is.
            let gid = if with && count == 0 { wheel } else { uid };
            answers(
                &mut numeric(&format!("{groups} --fill-groups {count} --gid {gid} --uid {uid}")),
                &calls(&[WHOAMI, INSPECT]),
            )
        };
        let member = ask(alice, true);
        member.iter().for_each(assert_done);
        assert_eq!(member[0]["answer"]["roles"], serde_json::json!(["Administrator", "Anyone"]));
        let without = ask(alice, false);
        assert_eq!(without[0]["answer"]["roles"], serde_json::json!(["Anyone"]), "{count} groups");
        assert_all_denied(oracle, &without[1..], alice, &["not-member"]);
        let stranger = ask(mallory, true);
        assert_all_denied(oracle, &stranger[1..], mallory, &["revoked"]);
        longest = [&member, &without, &stranger].into_iter().flatten().map(took).fold(longest, Duration::max);
    }
    println!("decided in {longest:?} or less");
    assert!(longest <= Duration::from_millis(200), "{longest:?}");
}

/// A module of the account database, for as long as this lives.
struct Module {
    library: PathBuf,
    _switch: Edited,
}

impl Module {
    /// nsswitch.conf(5) with these lines instead of its own for passwd and group; the module is called `broken`.
    fn broken(switch: &str, status: Option<&str>) -> Self {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .find_map(|line| line.split_whitespace().nth(5).filter(|path| path.ends_with("/libc.so.6")));
        let library = Path::new(libc.expect("this program has a libc")).with_file_name("libnss_broken.so.2");
        let mut compiler = Command::new("/usr/bin/cc");
        compiler.args(["-shared", "-fPIC", "-DNAME=broken", "-o"]).arg(&library);
        compiler.args(status.map(|status| format!("-DSTATUS={status}")));
        host::run(compiler.arg(host::top().join("tests/e2e/tools/nss.c")));
        let switch = Edited::with("/etc/nsswitch.conf", |text| {
            let others =
                text.lines().filter(|line| !line.starts_with("passwd:") && !line.starts_with("group:"));
            others.chain(switch.lines()).map(|line| format!("{line}\n")).collect()
        });
        Self { library, _switch: switch }
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        std::fs::remove_file(&self.library).unwrap();
    }
}

fn t15_nss_hang(oracle: &mut Oracle) {
    let ids = |person: &str, groups: &str| format!("--groups {groups} --gid {0} --uid {0}", uid_of(person));
    let (wheel, alice) = (gid_of("wheel"), uid_of(ALICE));
    let hers = ids(ALICE, &wheel.to_string());
    let others = [ids(ROOT, "0"), ids(CLUSTER, "5"), ids(MALLORY, "5")];
    let module = Module::broken("passwd: broken files\ngroup: broken files", None);
    // Again and again, so that every process that podsecd had ready has been used up and made anew.
    for _ in 0..3 {
        let mut waiting = Live::start(&mut numeric(&hers), &["call", WHOAMI, "call", INSPECT]);
        let start = Instant::now();
        for (other, method) in others.iter().zip([QUERY, INSPECT, WHOAMI]) {
            let served = answer(&mut numeric(other), method);
            assert_done(&served);
            assert!(took(&served) < Duration::from_secs(1), "{served}");
        }
        assert!(start.elapsed() < Duration::from_secs(2), "they waited for the one who hangs");
        let answers = waiting.answers();
        // Who she is does not hang on the database; what she may do does.
        assert_done(&answers[0]);
        assert_all_denied(oracle, &answers[1..], alice, &["nss-timeout"]);
        assert!(took(&answers[1]) <= Duration::from_secs(3), "{}", answers[1]);
    }
    drop(module);
    // It answers again, and so does podsecd.
    let start = Instant::now();
    let recovered = answer(&mut numeric(&hers), INSPECT);
    assert_done(&recovered);
    println!("served again after {:?}", start.elapsed());

    // A database that hangs only behind the local files, where it has nothing to say about her.
    let _module = Module::broken("passwd: files broken\ngroup: files broken", None);
    assert_done(&answer(&mut numeric(&hers), INSPECT));
}

fn t15_nss_failure(oracle: &mut Oracle) {
    let hers = format!("--groups {} --gid 5 --uid {}", gid_of("wheel"), uid_of(ALICE));
    for status in ["NSS_STATUS_UNAVAIL", "NSS_STATUS_TRYAGAIN", "NSS_STATUS_NOTFOUND", "NSS_STATUS_RETURN"] {
        let _module = Module::broken("passwd: broken\ngroup: broken", Some(status));
        for _ in 0..3 {
            let answers = answers(&mut numeric(&hers), &calls(&[INSPECT, ENTER]));
            assert_all_denied(oracle, &answers, uid_of(ALICE), &["revoked"]);
            assert_done(&answer(&mut numeric("--groups 0"), QUERY));
        }
    }
}

fn the_record_tells_who(oracle: &mut Oracle) {
    let alice = uid_of(ALICE);
    // alice became root by sudo, and another root never was anybody else.
    for (login, options) in [(Some(alice), format!("--login-uid {alice}")), (None, String::new())] {
        for (uid, person) in [(0, ROOT), (alice, ALICE), (uid_of(MALLORY), MALLORY)] {
            let groups = if person == ALICE { gid_of("wheel") } else { 5 };
            let mut caller = numeric(&format!("{options} --groups {groups} --gid 5 --uid {uid}"));
            let since = oracle.audit_now().len();
            let answers = answers(&mut caller, &calls(&[WHOAMI, ENTER]));
            assert_eq!(answers[0]["answer"]["login_uid"], serde_json::json!(login), "{person}");
            let records = oracle.audit().split_off(since);
            let (phases, role) = if person == MALLORY {
                (vec!["deny"], vec!["Anyone"])
            } else {
                (vec!["intent", "done"], vec!["Administrator", "Anyone"])
            };
            assert_eq!(
                records.iter().map(|record| record["phase"].as_str().unwrap()).collect::<Vec<_>>(),
                phases
            );
            for record in records {
                assert_eq!(record["uid"], uid, "{record}");
                assert_eq!(record.get("login_uid"), login.map(Value::from).as_ref(), "{record}");
                assert_eq!(record["roles"], serde_json::json!(role), "{record}");
                assert_eq!(record["target"], "cd /; readlink /proc/self/ns/user", "{record}");
            }
        }
    }
}

// ---- 16 to 20: the process that rootlesskit names

const STATE: &str = "/run/podsec-u7s/rootlesskit";

/// What the cluster user did to his state directory; put right when this is dropped.
struct Forged {
    child_pid: String,
}

impl Forged {
    /// By a script of his, with the true pid as `$1`; he is in the directory of `child_pid`, and `ready` is above.
    fn by(script: &str, arguments: &[&str]) -> Self {
        let child_pid = std::fs::read_to_string(format!("{STATE}/child_pid")).unwrap();
        as_cluster(
            &format!("mv child_pid ../true_pid; mv ../ready ../true_ready; {script}"),
            &[&[child_pid.as_str()], arguments].concat(),
        );
        Self { child_pid }
    }

    /// Both files name that process.
    fn pid(pid: impl ToString) -> Self {
        Self::by("printf %s \"$2\" >child_pid; printf %s \"$2\" >../ready", &[&pid.to_string()])
    }
}

impl Drop for Forged {
    fn drop(&mut self) {
        as_cluster("rm -rf child_pid ../ready; mv ../true_pid child_pid; mv ../true_ready ../ready", &[]);
        assert_eq!(host::child_pid().to_string(), self.child_pid);
    }
}

fn as_cluster(script: &str, arguments: &[&str]) {
    let mut command = people::command(CLUSTER, "/bin/sh");
    host::run(command.args(["-ec", &format!("cd {STATE}; {script}"), "sh"]).args(arguments));
}

/// Nobody gets in, and the record says why. Gives what was answered.
fn assert_no_way_in(oracle: &Oracle, reasons: &[&str], what: &str) -> Value {
    let since = oracle.audit_now().len();
    let mut told = Value::Null;
    for person in [ALICE, CLUSTER, ROOT] {
        told = answer(&mut user(person), ENTER);
        let reason = told["reason"].as_str().unwrap_or_default();
        assert_eq!(told["code"], 9, "{what}: {told}");
        assert!(reasons.contains(&reason), "{what}: {told}, not of {reasons:?}");
        assert!(took(&told) < Duration::from_secs(1), "{what}: {told}");
        let records = oracle.audit_now().split_off(since);
        let [.., intent, fail] = &records[..] else { panic!("{what}: {records:#?}") };
        assert_eq!((&intent["phase"], &fail["phase"]), (&"intent".into(), &"fail".into()), "{what}");
        assert_eq!(
            (&fail["reason"], &fail["uid"]),
            (&told["reason"], &uid_of(person).into()),
            "{what}: {fail}"
        );
        assert!(fail["step"].is_string(), "{fail}");
    }
    // Looking is no way in either, and says the same.
    let state: Value = serde_json::from_str(&people::ctl(ALICE, &["--json", "namespace", "show"])).unwrap();
    assert!(["down", "refused"].iter().any(|not| state["state"] == *not), "{what}: {state}");
    told
}

/// A process of that user that only waits.
struct Sleeper(Child);

impl Sleeper {
    fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sleeper(person: &str) -> Sleeper {
    let mut command = people::command(person, "/usr/bin/sleep");
    command.arg("1000");
    Sleeper::start(command)
}

fn t16_pidfile_of_the_host(oracle: &mut Oracle) {
    peer_is_there();
    let own = i32::try_from(std::process::id()).unwrap();
    let sleepers = [ROOT, ALICE, MALLORY, CLUSTER].map(sleeper);
    let processes = [
        ("podsecd", host::daemon_pid()),
        ("a root process", own),
        ("root's", sleepers[0].pid()),
        ("alice's", sleepers[1].pid()),
        ("mallory's", sleepers[2].pid()),
        ("the cluster user's own, outside", sleepers[3].pid()),
    ];
    for (what, pid) in processes {
        let _forged = Forged::pid(pid);
        assert_no_way_in(oracle, &["owner-mismatch"], what);
    }
    let _forged = Forged::pid(1);
    assert_no_way_in(oracle, &["bad-pidfile"], "the first process");
}

fn t17_pidfile_garbage(oracle: &mut Oracle) {
    peer_is_there();
    let true_pid = host::child_pid().to_string();
    let plain: [&[u8]; 22] = [
        b"",
        b"-1",
        b"0",
        b"1",
        b"1e30",
        b"99999999999",
        b"4194305",
        b"18446744073709551617",
        b"text",
        b"\0",
        b"12\0",
        b"\xff\xfe",
        "\u{661}\u{662}".as_bytes(),
        &[true_pid.as_bytes(), b"\n"].concat(),
        &[b" ", true_pid.as_bytes()].concat(),
        &[b"+", true_pid.as_bytes()].concat(),
        &[b"0", true_pid.as_bytes()].concat(),
        &[b"0x", true_pid.as_bytes()].concat(),
        &[true_pid.as_bytes(), b" 1"].concat(),
        &[true_pid.as_bytes(), b"/../1"].concat(),
        &[b'1'; 33],
        &[b'1'; 8],
    ];
    for bytes in plain {
        let _forged = Forged::by(":", &[]);
        for file in ["child_pid", "../ready"] {
            write_as_cluster(file, bytes);
        }
        assert_no_way_in(oracle, &["bad-pidfile"], &format!("{bytes:?}"));
    }
    // Text that would do, where it must not be read from, and what is no text at all.
    let both = |script: &str| format!("for f in child_pid ../ready; do {script}; done");
    let kinds = [
        ("10 MiB", both("yes \"$1\" | head -c 10485760 >$f")),
        ("a FIFO", both("mkfifo $f")),
        ("a link to the true one", both("ln -s /run/podsec-u7s/true_pid $f")),
        ("a link to nowhere", both("ln -s /nowhere $f")),
        ("a link to a device", both("ln -s /dev/zero $f")),
        ("a directory", both("mkdir $f")),
        ("without permissions", both("printf %s \"$1\" >$f; chmod 0 $f")),
        ("with a second name", both("printf %s \"$1\" >$f; ln $f $f.second")),
        (
            "a socket",
            both("python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])' $f"),
        ),
    ];
    for (what, script) in &kinds {
        let forged = Forged::by(script, &[]);
        assert_no_way_in(oracle, &["bad-pidfile"], what);
        drop(forged);
        as_cluster("rm -f child_pid.second ../ready.second", &[]);
    }
    // Somebody else's file, by a link that the kernel allows for (fs.protected_hardlinks) or root's own hand.
    let forged = Forged::by(":", &[]);
    for file in ["child_pid", "../ready"] {
        std::fs::write(Path::new(STATE).join(file), &true_pid).unwrap();
    }
    assert_no_way_in(oracle, &["bad-pidfile"], "root's file");
    drop(forged);
    // The directory itself: a link to one that is in order.
    let moved = as_cluster_moves("rootlesskit");
    assert_no_way_in(oracle, &["bad-pidfile"], "a link for a directory");
    drop(moved);
    // Nothing there, and nobody there.
    let forged = Forged::by(":", &[]);
    assert_no_way_in(oracle, &["namespace-down"], "nothing");
    drop(forged);
    let dead = sleeper(CLUSTER).pid();
    let forged = Forged::pid(dead);
    assert_no_way_in(oracle, &["namespace-down"], "a dead process");
    drop(forged);
    assert_done(&answer(&mut user(ALICE), ENTER));
}

fn write_as_cluster(file: &str, bytes: &[u8]) {
    use std::io::Write as _;
    let mut command = people::command(CLUSTER, "/bin/sh");
    command.args(["-ec", &format!("cat >{STATE}/{file}")]).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(child.wait().unwrap().success());
}

struct Moved;

fn as_cluster_moves(directory: &str) -> Moved {
    assert_eq!(directory, "rootlesskit");
    as_cluster("cd ..; mv rootlesskit elsewhere; ln -s elsewhere rootlesskit", &[]);
    Moved
}

impl Drop for Moved {
    fn drop(&mut self) {
        as_cluster("cd ..; rm rootlesskit; mv elsewhere rootlesskit", &[]);
    }
}

fn t18_foreign_instance(oracle: &mut Oracle) {
    peer_is_there();
    let ids = ["/etc/subuid", "/etc/subgid"]
        .map(|file| Edited::with(file, |text| format!("{text}mallory:300000:65536\n")));
    let mut command = people::command(MALLORY, "/usr/bin/rootlesskit");
    command.args(["--state-dir=/tmp/hers", "--net=host", "--pidns", "--ipcns", "--utsns", "--cgroupns"]);
    command
        .args(["/bin/sh", "-c", "echo here; exec sleep 1000"])
        .env("XDG_RUNTIME_DIR", "/tmp")
        .stdin(Stdio::null());
    let mut other = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(other.stdout.take().unwrap()).read_line(&mut line).unwrap();
    if line != "here\n" {
        panic!("{}", String::from_utf8_lossy(&other.wait_with_output().unwrap().stderr));
    }
    let pid = std::fs::read_to_string("/tmp/hers/child_pid").unwrap();
    let forged = Forged::pid(&pid);
    assert_no_way_in(oracle, &["owner-mismatch"], "mallory's namespaces");
    drop(forged);
    host::kill(i32::try_from(other.id()).unwrap(), "TERM");
    other.wait().unwrap();
    drop(ids);
}

fn t19_swap_during_enter(oracle: &mut Oracle) {
    peer_is_there();
    use std::sync::atomic::{AtomicBool, Ordering};
    let restarts = times(3, 200);
    let over = AtomicBool::new(false);
    let host_ns = std::fs::read_link("/proc/self/ns/user").unwrap().to_str().unwrap().to_owned();
    let ask = || {
        let mut counts = BTreeMap::<String, u32>::new();
        while !over.load(Ordering::Relaxed) {
            for answer in answers(&mut user(ALICE), &calls(&[ENTER; 8])) {
                let (code, inside) = (answer["code"].as_i64().unwrap(), &answer["answer"]);
                let kind = match code {
                    0 if inside["exit"] == 0 => {
                        let out = inside["out"].as_str().unwrap();
                        assert!(out.starts_with("user:[") && out != host_ns, "{answer}");
                        "inside"
                    }
                    // The first process inside ended under it, and the kernel ended all others.
                    0 if inside["exit"] == 137 => "killed",
                    0 if inside["failed"].is_string() => inside["failed"].as_str().unwrap(),
                    9 | 14 => answer["reason"].as_str().unwrap(),
                    _ => panic!("{answer}"),
                };
                *counts.entry(kind.to_owned()).or_default() += 1;
            }
        }
        counts
    };
    let counts = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..8).map(|_| scope.spawn(ask)).collect();
        let restarted = std::panic::catch_unwind(|| {
            for _ in 0..restarts {
                std::thread::sleep(Duration::from_millis(150));
                host::stop_namespace();
                host::start_namespace();
            }
            std::thread::sleep(Duration::from_millis(150));
        });
        over.store(true, Ordering::Relaxed);
        let mut counts = BTreeMap::<String, u32>::new();
        for (kind, count) in callers.into_iter().flat_map(|caller| caller.join().unwrap()) {
            *counts.entry(kind).or_default() += count;
        }
        restarted.map(|()| counts)
    });
    let counts = counts.unwrap();
    println!("{counts:?}");
    let expected = ["inside", "killed", "namespace-down", "namespace-starting", "namespace-gone"];
    assert!(counts.keys().all(|kind| expected.contains(&kind.as_str())), "{counts:?}");
    assert!(counts["inside"] > 0 && counts.len() > 1, "{counts:?}");
    host::wait_for("every intent to have its outcome", || {
        let ended = ["done", "fail"].iter().map(|phase| records(oracle, phase).len()).sum::<usize>();
        records(oracle, "intent").len() == ended
    });
}

fn t20_nested_userns(oracle: &mut Oracle) {
    peer_is_there();
    let all = ["-U", "-mpuinC", "--fork", "--kill-child"];
    // Made by root inside, who is the cluster user; by a subordinate id of his; and one of his beside, outside.
    let first = people::inside("unshare", &[&all[..], &["--map-root-user", "sleep", "2001"]].concat());
    let subordinate = ["--reuid", "5", "--regid", "5", "--clear-groups", "unshare"];
    let second = people::inside("setpriv", &[&subordinate[..], &all, &["sleep", "2002"]].concat());
    for (what, command, seconds) in
        [("root's of a pod", first, "2001"), ("a subordinate id's", second, "2002")]
    {
        let sleeper = Sleeper::start(command);
        let mut pid = 0;
        host::wait_for(what, || {
            pid = sleeping(seconds);
            pid != 0
        });
        let forged = Forged::pid(pid);
        assert_no_way_in(oracle, &["owner-mismatch"], what);
        drop(forged);
        // The first process of its pid namespace, which ends with it.
        host::kill(pid, "KILL");
        drop(sleeper);
    }
}

/// The process that sleeps so long; 0: none.
fn sleeping(seconds: &str) -> i32 {
    let cmdline = format!("sleep\0{seconds}\0");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut found = pids.filter(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|text| text == cmdline)
    });
    found.next().unwrap_or(0)
}
