//! What a caller, or the cluster user from outside, tries: forged namespaces, arguments, environment, descriptors, and
//! podsec's programs started in odd ways.

use super::*;
use podsec_policy::reason::Reason;
use podsec_tests::people::MALLORY;
use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Child;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("attacks::t21_mixed_namespaces", mixed_namespaces),
    ("attacks::t22_setns_fails", setns_fails),
    ("attacks::t22_namespace_ends_at_setns", namespace_ends_at_setns),
    ("attacks::t27_descriptors", descriptors),
    ("attacks::t28_directories", directories),
    ("attacks::t29_environment", environment),
    ("attacks::t30_credentials", credentials),
    ("attacks::t31_no_argv", no_argv),
    ("attacks::t31_empty_commands", empty_commands),
    ("attacks::t32_argument_bombs", argument_bombs),
];

const CHILD_PID: &str = "/run/podsec-u7s/rootlesskit/child_pid";
const READY: &str = "/run/podsec-u7s/ready";

/// rootlesskit's files with another pid in them, as the cluster user can write it; as before when this is dropped.
struct Forged(String);

impl Forged {
    fn pid(pid: i32) -> Self {
        let before = std::fs::read_to_string(CHILD_PID).expect(CHILD_PID);
        write_both(&pid.to_string());
        Self(before)
    }
}

impl Drop for Forged {
    fn drop(&mut self) {
        write_both(&self.0);
    }
}

fn write_both(text: &str) {
    for path in [CHILD_PID, READY] {
        std::fs::write(path, text).expect(path);
    }
}

/// A process of the cluster user in new namespaces, ended when this is dropped.
struct Impostor(Child, i32);

impl Impostor {
    fn with(unshare: &[&str]) -> Self {
        let mut command = people::command(CLUSTER, "/usr/bin/unshare");
        command.args(["--user", "--map-root-user", "--kill-child"]).args(unshare);
        let child = command.args(["--fork", "/bin/sleep", "69.01"]).spawn().expect("unshare");
        Self(child, pid_of(&["/bin/sleep", "69.01"]))
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        host::wait_for("the impostor to end", || !host::is_alive(self.1));
    }
}

const LINKS: &str = "cd /proc/self/ns; for n in user mnt net pid ipc uts cgroup; do readlink $n; done";

/// The namespaces of a process, seven lines; what a session prints by [`LINKS`].
fn namespaces(pid: i32) -> Vec<String> {
    let link = |kind| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect(kind).display().to_string();
    ["user", "mnt", "net", "pid", "ipc", "uts", "cgroup"].map(link).to_vec()
}

fn mixed_namespaces(oracle: &mut Oracle) {
    let all = ["--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup"];
    // The attack's own tools are right: with everything apart, this is as good a namespace as rootlesskit's.
    {
        let impostor = Impostor::with(&all);
        let _forged = Forged::pid(impostor.1);
        let found = people::enter(ALICE, &shell(LINKS));
        assert_eq!(found.lines().collect::<Vec<_>>(), namespaces(impostor.1));
    }
    let unshare_again = ["/usr/bin/unshare", "--user", "--map-root-user"];
    let below = [&all[..], &unshare_again].concat();
    let pid_below = [&["--mount", "--net"][..], &unshare_again, &["--pid", "--kill-child"]].concat();
    let mut mixtures: Vec<(Vec<&str>, &str)> = Vec::new();
    for without in 0..3 {
        let mut unshare = all.to_vec();
        unshare.remove(without);
        mixtures.push((unshare, "ns-mixed"));
    }
    // A user namespace below, alone or with the pid namespace, and everything else of the one above. This is his
    // namespace's and not his own, so it does not even come to the mixture.
    mixtures.push((below, "owner-mismatch"));
    mixtures.push((pid_below, "owner-mismatch"));
    for (unshare, _) in &mixtures {
        let impostor = Impostor::with(unshare);
        let _forged = Forged::pid(impostor.1);
        let (status, _) = people::ctl_fails(ALICE, &["enter", "--", "touch", "/tmp/mixed"]);
        assert_eq!(status, 78, "{unshare:?}");
        let shown = people::ctl(ALICE, &["--json", "namespace", "show"]);
        assert!(shown.contains("refused"), "{unshare:?}: {shown}");
    }
    assert!(!std::path::Path::new("/tmp/mixed").exists());
    let attempts: Vec<_> =
        oracle.audit().into_iter().filter(|record| record["op"] == "NamespaceService/Enter").collect();
    assert_eq!(attempts.len(), 2 + 2 * mixtures.len());
    for (pair, (unshare, reason)) in attempts[2..].chunks(2).zip(mixtures) {
        assert_eq!(pair[0]["phase"], "intent");
        let end = ["phase", "reason", "step"].map(|key| pair[1][key].as_str().unwrap_or_default());
        assert_eq!(end, ["fail", reason, "judge"], "{unshare:?}");
    }
}

/// Runs a program under a seccomp filter that refuses every setns(2) whose flags have one of these bits, as
/// `RestrictNamespaces=` of systemd would.
const WITHOUT_SETNS: &str = r"
import ctypes, os, struct, sys
number = {'x86_64': 308, 'aarch64': 268}[os.uname().machine]
mask = int(sys.argv[1])
def ins(code, jt, jf, k): return struct.pack('HBBI', code, jt, jf, k)
program = (ins(0x20, 0, 0, 0) + ins(0x15, 0, 3, number)        # is it setns?
    + ins(0x20, 0, 0, 24) + ins(0x45, 0, 1, mask)              # has its second argument one of the bits?
    + ins(0x06, 0, 0, 0x00050001) + ins(0x06, 0, 0, 0x7fff0000)) # EPERM; allowed
text = ctypes.create_string_buffer(program)
filter = struct.pack('HxxxxxxQ', len(program) // 8, ctypes.addressof(text))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(22, 2, filter, 0, 0): raise OSError(ctypes.get_errno(), 'seccomp')
os.execv(sys.argv[2], sys.argv[2:])
";

/// podsecd, started by a program in front of it; as usual again when this is dropped.
struct Under;

impl Under {
    fn python(script: &str, arguments: &[&str]) -> Self {
        host::stop_daemon("TERM");
        let log = std::fs::File::options().append(true).open("/run/podsec-tests/daemon.log").expect("log");
        let mut python = Command::new("/usr/bin/setsid");
        python.args(["/usr/bin/python3", "-c", script]).args(arguments).arg("/usr/libexec/podsec/podsecd");
        python.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone().expect("dup")).stderr(log);
        let child = python.spawn().expect("python");
        std::fs::write("/run/podsec-tests/daemon.pid", child.id().to_string()).expect("pid file");
        // Reaped here, when it ends: to this program it is a child, and a dead one would count as one that is there.
        std::thread::spawn(move || {
            let mut child = child;
            child.wait()
        });
        let under = Self;
        host::wait_for("podsecd to answer", || people::podsecctl(ROOT, &["whoami"]).status.success());
        under
    }
}

impl Drop for Under {
    fn drop(&mut self) {
        host::stop_daemon("TERM");
        host::start_daemon(None);
    }
}

/// Each of the namespaces that cannot be joined is all of them: nothing runs half inside.
fn setns_fails(oracle: &mut Oracle) {
    // CLONE_NEWUSER, NEWNS, NEWNET, NEWPID, NEWIPC, NEWUTS, NEWCGROUP of linux/sched.h
    let kinds = [0x1000_0000, 0x0002_0000, 0x4000_0000, 0x2000_0000, 0x0800_0000, 0x0400_0000, 0x0200_0000];
    let before = namespaces(1);
    let marker = "/tmp/half-inside";
    for kind in kinds {
        let _without = Under::python(WITHOUT_SETNS, &[&u32::to_string(&kind)]);
        let (status, told) = people::ctl_fails(ALICE, &["enter", "--", "touch", marker]);
        assert!(status == 78 && told.contains("the kernel refused entry"), "{kind:#x}: {told}");
    }
    assert!(!std::path::Path::new(marker).exists());
    oracle.expect_new_daemon();
    expect_records(oracle, &["intent", "fail setns join"].repeat(kinds.len()));
    // One call for all: a filter that would refuse every single one of them lets the whole pass only if that is no part.
    let inside = namespaces(host::child_pid());
    assert!(before.iter().zip(&inside).all(|(out, within)| out != within), "all seven are apart: {inside:?}");
    assert_eq!(people::enter(ALICE, &shell(LINKS)).lines().collect::<Vec<_>>(), inside);
}

/// The namespace is there when it is judged and gone when it is entered: strace(1) holds the worker in between.
fn namespace_ends_at_setns(oracle: &mut Oracle) {
    let rounds = count(50, 3);
    for _ in 0..rounds {
        let workers = || -> Vec<i32> {
            let is_worker = |pid: &i32| {
                parent(*pid) == host::daemon_pid()
                    && std::fs::read_to_string(format!("/proc/{pid}/comm"))
                        .is_ok_and(|name| name == "podsecd-worker\n")
            };
            pids().into_iter().filter(is_worker).collect()
        };
        host::wait_for("warm workers", || workers().len() == 2);
        let mut strace = Command::new("/usr/bin/strace");
        strace.args(["-f", "-qq", "-e", "trace=setns", "-e", "inject=setns:delay_enter=1500000"]);
        for worker in workers() {
            strace.args(["-p", &worker.to_string()]);
        }
        let mut strace = strace.stderr(Stdio::null()).spawn().expect("strace");
        host::wait_for("strace", || workers().iter().all(|&pid| is_traced(pid)));
        let client =
            entering(ALICE, &["touch", "/tmp/too-late"]).stderr(Stdio::piped()).spawn().expect("podsecctl");
        let uid_of = |pid: i32| {
            std::fs::read_to_string(format!("/proc/{pid}/status"))
                .unwrap_or_default()
                .contains(&format!("\nUid:\t{0}\t{0}\t", cluster_uid()))
        };
        host::wait_for("a worker that has dropped root", || workers().iter().any(|&pid| uid_of(pid)));
        std::thread::sleep(Duration::from_millis(100)); // judging takes less than one of them
        host::stop_namespace();
        let output = client.wait_with_output().expect("podsecctl");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(75) && told.contains("went down meanwhile"), "{output:?}");
        host::kill(strace.id().try_into().expect("a pid"), "INT");
        strace.wait().expect("wait");
        host::start_namespace();
    }
    assert!(!std::path::Path::new("/tmp/too-late").exists());
    expect_records(oracle, &["intent", "fail namespace-gone join"].repeat(rounds));
}

fn is_traced(pid: i32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
}

/// Descriptors of a process, as `ls -l /proc/PID/fd` has them.
fn descriptors_of(pid: i32) -> Vec<(i32, String)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("fd").flatten();
    let mut found: Vec<_> = entries
        .map(|entry| {
            let link = std::fs::read_link(entry.path()).unwrap_or_default();
            (entry.file_name().to_string_lossy().parse().expect("a number"), link.display().to_string())
        })
        .collect();
    found.sort();
    found
}

fn descriptors(_: &mut Oracle) {
    // A client full of descriptors that it never said a word about, and a podsecd with sessions and journals open.
    let script = "exec 3</etc/passwd 4>/dev/null 6</etc/shadow 17</; exec podsecctl enter -T -- sleep 70.01";
    let mut many: Vec<_> = (0..8)
        .map(|_| people::command(ROOT, "/bin/bash").args(["-c", script]).spawn().expect("bash"))
        .collect();
    let terminals: Vec<_> =
        (0..4).map(|_| Terminal::podsecctl(ALICE, &["enter", "-t", "--", "sleep", "70.01"])).collect();
    host::wait_for("twelve sessions", || pids_of(&["sleep", "70.01"]).len() == 12);
    for pid in pids_of(&["sleep", "70.01"]) {
        let found = descriptors_of(pid);
        assert_eq!(found.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [0, 1, 2], "{found:?}");
    }
    for client in &mut many {
        client.kill().expect("kill");
        client.wait().expect("wait");
    }
    drop(terminals);
    host::within(Duration::from_secs(5), "no orphan", || pids_of(&["sleep", "70.01"]).is_empty());
}

/// podsecd that refuses a lot without keeping count.
fn patient() -> host::Configured {
    host::Configured::with("[limits]\ndenials_per_minute = 1000000\n")
}

fn directories(oracle: &mut Oracle) {
    let patient = patient();
    let mut bad: Vec<Vec<u8>> = (0..=255).map(|fd| format!("/proc/self/fd/{fd}").into_bytes()).collect();
    for path in [
        "/proc/1/cwd",
        "/proc/self/root",
        "/proc/thread-self/cwd",
        "//proc/self/cwd",
        "/./proc/1/root/etc",
        "/proc",
    ] {
        bad.push(path.into());
    }
    for path in ["tmp", ".", "..", "/..", "/tmp/..", "/tmp/../proc/self/cwd", "-", "~", "/a\0b"] {
        bad.push(path.into());
    }
    bad.push([b"/".to_vec(), vec![b'a'; 5000]].concat());
    for cwd in &bad {
        let asked = EnterRequest { cwd: cwd.clone(), ..request(&["touch", "/tmp/where"]) };
        assert_eq!(
            refusal(asked),
            (tonic::Code::InvalidArgument, "bad-cwd".into()),
            "{}",
            cwd.escape_ascii()
        );
    }
    drop(patient);
    oracle.expect_new_daemon();
    let denials = records(oracle);
    assert!(
        denials.len() == bad.len() && denials.iter().all(|record| record == "deny bad-cwd"),
        "{denials:?}"
    );

    // Well-formed, and of no use inside: not there, no directory, not his, deleted, links that lead nowhere.
    host::run(&mut people::inside("/bin/sh", &["-euc",
        "mkdir -p /tmp/games/deep; cd /tmp/games; for n in $(seq 0 40); do ln -s /proc/self/fd/$n $n; done; ln -s loop loop
         ln -s /proc/self/cwd own; ln -s /proc/self/root/etc root; mkdir gone; mkdir -m 0 closed; touch file"]));
    std::fs::create_dir("/tmp/games-of-root").expect("mkdir");
    host::run(Command::new("/bin/chmod").args(["700", "/tmp/games-of-root"]));
    std::fs::remove_dir("/tmp/games/gone").expect("rmdir");
    let numbers: Vec<String> = (0..=40).map(|fd| fd.to_string()).collect();
    let names = numbers.iter().map(String::as_str).chain(["loop", "gone", "file"]);
    let places: Vec<String> =
        names.map(|name| format!("/tmp/games/{name}")).chain(["/tmp/games-of-root".into()]).collect();
    for path in &places {
        let (status, told) = people::ctl_fails(ALICE, &["enter", "--cwd", path, "--", "touch", "/tmp/where"]);
        assert!(status == 2 && told.contains("(inside the namespace)"), "{path}: {told}");
    }
    assert!(!std::path::Path::new("/tmp/where").exists());
    let ends: Vec<_> = records(oracle).split_off(bad.len());
    assert_eq!(ends, ["intent", "fail bad-cwd start"].repeat(places.len()));
    // What a link may do is lead elsewhere inside: never to a place that getcwd(2) calls unreachable.
    let inside_root = people::enter(ALICE, &["stat", "-c", "%d:%i", "/"]);
    for (path, place) in
        [("/tmp/games/own", "/"), ("/tmp/games/root", "/etc"), ("/tmp/games/deep", "/tmp/games/deep")]
    {
        let script = "/bin/pwd -P; stat -c %d:%i /";
        let found = people::ctl(ALICE, &["enter", "--cwd", path, "--", "sh", "-c", script]);
        assert_eq!(found, format!("{place}\n{inside_root}"), "{path}");
    }
    std::fs::remove_dir_all("/tmp/games").expect("remove");
    std::fs::remove_dir("/tmp/games-of-root").expect("remove");
}

fn environment(oracle: &mut Oracle) {
    let patient = patient();
    let hostile = "LD_PRELOAD LD_LIBRARY_PATH LD_AUDIT LD_DEBUG LD_ORIGIN_PATH LD_PROFILE LD_BIND_NOW LD_SHOW_AUXV LD_ \
        GLIBC_TUNABLES MALLOC_CHECK_ MALLOC_TRACE MALLOC_PERTURB_ GCONV_PATH GETCONF_DIR LOCPATH LOCALDOMAIN NLSPATH \
        HOSTALIASES RES_OPTIONS RESOLV_HOST_CONF NIS_PATH TMPDIR TZDIR PATH HOME SHELL USER LOGNAME IFS CDPATH ENV BASH_ENV \
        BASHOPTS SHELLOPTS PS4 FPATH PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONINSPECT PERL5LIB PERL5OPT PERLLIB PERL5DB \
        RUBYLIB RUBYOPT NODE_OPTIONS NODE_PATH JAVA_TOOL_OPTIONS XDG_RUNTIME_DIR ROOTLESSKIT_STATE_DIR GIO_EXTRA_MODULES GNUPGHOME LOCALE_ARCHIVE";
    let malformed = [
        "",
        "=",
        "A=B",
        "A=B=C",
        "A B",
        " A",
        "A\n",
        "A\0",
        "A\0B",
        "9A",
        "-A",
        "A-B",
        "A.B",
        "Ä",
        "BASH_FUNC_ls%%",
        "BASH_FUNC_x()",
    ];
    let names: Vec<&str> = hostile.split_whitespace().chain(malformed).collect();
    assert!(names.len() >= 60, "{}", names.len());
    let with = |name: &str, value: &[u8]| {
        let env = vec![podsec_proto::v1::EnvVar { name: name.into(), value: value.into() }];
        EnterRequest { env, ..request(&["touch", "/tmp/variables"]) }
    };
    for name in &names {
        assert_eq!(
            refusal(with(name, b"/tmp/x")),
            (tonic::Code::InvalidArgument, "bad-env".into()),
            "{name:?}"
        );
    }
    assert_eq!(refusal(with("A", b"x\0LD_PRELOAD=/tmp/x")).1, "bad-env");
    let mut twice = with("A", b"1");
    twice.env.push(twice.env[0].clone());
    assert_eq!(refusal(twice).1, "bad-env");
    drop(patient);
    oracle.expect_new_daemon();
    let denials = records(oracle);
    assert!(
        denials.len() == names.len() + 2 && denials.iter().all(|record| record == "deny bad-env"),
        "{denials:?}"
    );
    assert!(!std::path::Path::new("/tmp/variables").exists());

    // podsecctl's own environment stays where it is, but for language and, with a terminal, its kind.
    let set_by_us = [
        "HOME=/var/lib/u7s-admin",
        "USER=u7s-admin",
        "LOGNAME=u7s-admin",
        "SHELL=/bin/bash",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "ROOTLESSKIT_STATE_DIR=/run/podsec-u7s/rootlesskit",
    ];
    let golden = |more: &[&str]| [&set_by_us[..], more, &[""]].concat().join("\0");
    let mut command = entering(ALICE, &["cat", "/proc/self/environ"]);
    for name in names.iter().filter(|name| {
        !name.contains(['\0', '=']) && !name.is_empty() && **name != "PATH" && !name.starts_with("LD_")
    }) {
        command.env(name, "/tmp/x");
    }
    // setpriv would take them away before podsecctl.
    let run = |command: &Command| {
        let mut plain = Command::new("/usr/bin/setpriv");
        plain.args(["--reuid", ALICE, "--regid", ALICE, "--init-groups", "--"]);
        plain.args(command.get_args().skip_while(|argument| *argument != "--").skip(1));
        plain.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        host::run(&mut plain)
    };
    assert_eq!(run(&command), golden(&[]));
    command
        .env("LANG", "C.UTF-8")
        .env("LC_TIME", "C")
        .env("TERM", "xterm")
        .env("KUBECONFIG", "/x")
        .env("LC_X-Y", "z");
    let (sent, expected) = (run(&command), golden(&["LANG=C.UTF-8", "LC_TIME=C"]));
    let set = |text: &str| text.split('\0').map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(set(&sent), set(&expected));
    // What kind of terminal it is goes along with one.
    let (_, shown) = Terminal::podsecctl(ALICE, &["enter", "-t", "--", "printenv", "TERM"]).ends();
    assert_eq!(shown, "xterm\r\n");
    let told = people::ctl(
        ALICE,
        &["enter", "--env", "KUBECONFIG=/k", "--env", "A=b=c", "--", "cat", "/proc/self/environ"],
    );
    assert_eq!(told, golden(&["KUBECONFIG=/k", "A=b=c"]));
}

/// Starts podsecd the way nobody should: with a mask, signals, limits, keys, descriptors, directory, environment, niceness
/// and capabilities of somebody's.
const BADLY: &str = r"
import ctypes, os, resource, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
os.umask(0)
for number in (1, 2, 3, 13, 15, 17, 20, 34, 50, 64):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, set(range(1, 65)) - {9, 19, 32, 33})
resource.setrlimit(resource.RLIMIT_NOFILE, (4000, 4096))
resource.setrlimit(resource.RLIMIT_CORE, (0, resource.RLIM_INFINITY))
try: os.nice(-5)
except OSError: print('badly: no niceness below', file=sys.stderr)
try: open('/proc/self/oom_score_adj', 'w').write('-500')
except OSError: print('badly: no oom_score_adj below', file=sys.stderr)
os.setgroups([0, 4, 6, 27, 42])
key = {'x86_64': (250, 248), 'aarch64': (219, 217)}[os.uname().machine]
libc.syscall(key[0], 1, b'podsec-test', 0, 0)                                # KEYCTL_JOIN_SESSION_KEYRING
libc.syscall(key[1], b'user', b'podsec-secret', b'secret', 6, -3)            # add_key, to that keyring
for path in ('/etc/shadow', '/', '/proc/1/ns/mnt'):
    os.set_inheritable(os.open(path, os.O_RDONLY), True)
# All capabilities inheritable and ambient.
header = (ctypes.c_uint32 * 2)(0x20080522, 0)
data = (ctypes.c_uint32 * 6)()
libc.capget(header, data)
data[2], data[5] = data[1], data[4]
libc.capset(header, data)
for capability in range(64): libc.prctl(47, 2, capability, 0, 0)
os.chdir('/root')
os.environ.update(LD_BIND_NOW='1', LANG='xx', TZ='Nowhere', PODSEC_SECRET='secret', PATH='/tmp')
os.execv(sys.argv[1], sys.argv[1:])
";

/// What its session keyring is called, and whether the key in podsecd's own is found there.
const KEYS: &str = "
import ctypes, os
call = {'x86_64': 250, 'aarch64': 219}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)
text = ctypes.create_string_buffer(256)
libc.syscall(call, 6, -3, text, 256)                            # KEYCTL_DESCRIBE of the session keyring
print(text.value.decode(), libc.syscall(call, 10, -3, b'user', b'podsec-secret', 0)) # KEYCTL_SEARCH
";

/// What a session is made of, seen from outside: the cluster user's and nobody else's, however podsecd was started.
fn credentials(oracle: &mut Oracle) {
    both_are_golden("70.11", "70.12");
    let badly = Under::python(BADLY, &[]);
    let daemon = host::daemon_pid();
    assert_eq!(stat(daemon, 19), "-5", "podsecd was started badly enough");
    match std::fs::read_to_string(format!("/proc/{daemon}/oom_score_adj")).expect("oom_score_adj").as_str() {
        "-500\n" => {}
        // It takes CAP_SYS_RESOURCE, which root of some machines lacks.
        score => println!("podsecd is not protected from running out of memory here: {score}"),
    }
    both_are_golden("70.13", "70.14");
    let keys = people::enter(ALICE, &["/usr/bin/python3", "-c", KEYS]);
    assert!(keys.ends_with(" -1\n") && !keys.contains("podsec-test"), "{keys}");
    drop(badly);
    oracle.expect_new_daemon();
}

/// Sessions of both kinds are as they should be.
fn both_are_golden(plain: &str, with_terminal: &str) {
    let mut client = entering(ALICE, &["sleep", plain]).spawn().expect("podsecctl");
    let on = Terminal::podsecctl(ALICE, &["enter", "-t", "--", "sleep", with_terminal]);
    for marker in [plain, with_terminal] {
        golden(pid_of(&["sleep", marker]), marker == with_terminal);
    }
    client.kill().expect("kill");
    client.wait().expect("wait");
    drop(on);
    for marker in [plain, with_terminal] {
        host::within(Duration::from_secs(5), "no orphan", || pids_of(&["sleep", marker]).is_empty());
    }
}

fn golden(pid: i32, has_terminal: bool) {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).expect(name);
    let status = read("status");
    let line = |key: &str| {
        let found = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        found.unwrap_or_else(|| panic!("{key}")).split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let (uid, gid) = (cluster_id("-u"), cluster_id("-g"));
    let last: u32 = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")
        .expect("cap_last_cap")
        .trim()
        .parse()
        .unwrap();
    // Full in the cluster user's own user namespace, since it is root there: the kernel gives them at exec.
    let all = format!("{:016x}", (1_u64 << (last + 1)) - 1);
    let none = "0000000000000000";
    let expected = [
        ("Uid", format!("{uid} {uid} {uid} {uid}")),
        ("Gid", format!("{gid} {gid} {gid} {gid}")),
        ("Umask", "0022".into()),
        ("CapInh", none.into()),
        ("CapAmb", none.into()),
        ("CapPrm", all.clone()),
        ("CapEff", all.clone()),
        ("CapBnd", all),
        ("SigBlk", none.into()),
        ("SigIgn", none.into()),
        ("SigCgt", none.into()),
        ("SigPnd", none.into()),
        ("ShdPnd", none.into()),
        ("NoNewPrivs", "0".into()),
        ("Seccomp", "0".into()),
        ("TracerPid", "0".into()),
    ];
    for (key, value) in expected {
        assert_eq!(line(key), value, "{key} of {status}");
    }
    let numbers = |text: &str| text.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(numbers(&format!("{gid} {}", line("Groups"))), numbers(&cluster_id("-G")), "groups");
    assert_eq!(read("oom_score_adj"), "0\n");
    assert_eq!(stat(pid, 19), "0", "niceness");
    // A session, a process group and, if any, a terminal of its own.
    assert_eq!((stat(pid, 5), stat(pid, 6)), (pid.to_string(), pid.to_string()));
    assert_eq!(stat(pid, 7) != "0", has_terminal);
    let limits = read("limits");
    let limit = |name: &str| {
        let found = limits.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        found.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let [files, core] = [limit("Max open files"), limit("Max core file size")];
    assert_eq!(files[0], "1024");
    assert_eq!(core[0], core[1], "as the hard limit");
    // In the part of the tree that was delegated to the cluster user, not in podsecd's.
    let group = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
    assert_eq!(group(pid), group(host::child_pid()));
    assert_ne!(group(pid), group(host::daemon_pid()));
    assert!(group(pid).contains("podsec-u7s"), "{}", group(pid));
    for (own, label) in [("attr/current", "label"), ("loginuid", "login uid")] {
        let of = |pid: i32| std::fs::read(format!("/proc/{pid}/{own}")).ok();
        assert_eq!(of(pid), of(host::child_pid()), "{label}");
    }
    assert_eq!(descriptors_of(pid).len(), 3);
    assert!(!read("environ").contains("secret"));
}

fn cluster_id(option: &str) -> String {
    host::run(Command::new("/usr/bin/id").args([option, CLUSTER])).trim().to_owned()
}

/// Runs a program with an argv of no words at all, not even its name (CVE-2021-4034). Newer kernels make that one empty
/// word.
const NO_ARGV: &str = "
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
none = (ctypes.c_char_p * 1)(None)
env = (ctypes.c_char_p * 3)(b'enter', b'GCONV_PATH=/tmp', None)
libc.execve(sys.argv[1].encode(), none, env)
raise OSError(ctypes.get_errno(), 'execve')
";

fn no_argv(oracle: &mut Oracle) {
    let programs = [
        ("/usr/libexec/podsec/podsecd", 1),
        ("/usr/libexec/podsec/podsecd-front", 2),
        ("/usr/libexec/podsec/podsecd-worker", 1),
        ("/usr/bin/podsecctl", 2),
        ("/usr/bin/nsenter_u7s", 2),
        ("/usr/bin/podsec-u7s", 2),
    ];
    for user in [MALLORY, ROOT] {
        for (program, status) in programs {
            let started = Instant::now();
            let mut python = people::command(user, "/usr/bin/python3");
            let output = python.args(["-c", NO_ARGV, program]).output().expect("python");
            // Every one of them refuses by itself; some say "usage", and some "not by hand".
            let (code, told) = (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned());
            assert!(code == Some(status) || code == Some(2), "{user} {program}: {output:?}");
            assert!(
                output.stdout.is_empty() && !told.is_empty() && !told.contains("panicked"),
                "{user} {program}: {output:?}"
            );
            assert!(started.elapsed() < Duration::from_secs(5), "{user} {program}");
        }
    }
    assert_eq!(records(oracle), [""; 0]);
}

fn empty_commands(oracle: &mut Oracle) {
    for argv in [&[][..], &[""], &["", "x"]] {
        assert_eq!(
            refusal(request(argv)),
            (tonic::Code::InvalidArgument, Reason::EmptyArgv.name().into()),
            "{argv:?}"
        );
    }
    assert_eq!(refusal(EnterRequest::default()), (tonic::Code::InvalidArgument, "empty-argv".into()));
    assert_eq!(records(oracle), ["deny empty-argv"; 4]);
    let (status, told) = people::ctl_fails(ALICE, &["enter", "--", ""]);
    assert!(status == 2 && told.contains("the command is empty"), "{told}");
    assert_eq!(records(oracle).len(), 4, "podsecctl did not even ask");
}

fn argument_bombs(oracle: &mut Oracle) {
    let marker = "/tmp/bomb";
    let with = |argument: Vec<u8>, times: usize| {
        let mut asked = request(&["touch", marker]);
        let Some(Program::Command(Argv { argv })) = &mut asked.program else { unreachable!("a command") };
        argv.extend(vec![argument; times]);
        asked
    };
    let bad = [
        with(vec![b'x'; 128 * 1024], 1),
        with(vec![b'\\'; 128 * 1024 - 1], 1),
        with(b"x".to_vec(), 4095),
        with(vec![], 100_000),
        with(vec![b'x'; 4096], 31),
        with(b"a\0b".to_vec(), 1),
        with(b"\0".to_vec(), 1),
        with(vec![0; 1000], 100),
        EnterRequest {
            env: vec![podsec_proto::v1::EnvVar { name: "A".into(), value: vec![b'x'; 128 * 1024] }],
            ..request(&["true"])
        },
        EnterRequest {
            env: vec![podsec_proto::v1::EnvVar { name: "A".repeat(128 * 1024), value: vec![] }],
            ..request(&["true"])
        },
    ];
    let count = bad.len();
    for (index, asked) in bad.into_iter().enumerate() {
        assert_eq!(refusal(asked), (tonic::Code::InvalidArgument, "bad-argument".into()), "{index}");
    }
    assert_eq!(records(oracle), vec!["deny bad-argument"; count]);
    // More than a message may hold at all: it is not read to its end.
    for size in [300 * 1024, 1024 * 1024] {
        let (code, reason) = refusal(with(vec![b'x'; size], 1));
        assert!(matches!(code, tonic::Code::InvalidArgument), "{size}: {code:?} {reason}");
    }
    assert_eq!(records(oracle).split_off(count), ["deny protocol"; 2]);
    assert!(!std::path::Path::new(marker).exists());
    // Up to the limit, they arrive as they are.
    let long = vec![b'\\'; 100 * 1024];
    let argument = std::ffi::OsStr::from_bytes(&long);
    let output = entering(ALICE, &["printf", "%s"]).arg(argument).output().expect("podsecctl");
    assert!(output.stdout == long, "{} bytes", output.stdout.len());
    let output =
        entering(ALICE, &["sh", "-c", "echo $#", "sh"]).args(vec!["x"; 4092]).output().expect("podsecctl");
    assert_eq!(output.stdout, b"4092\n");
    let many = entering(ALICE, &["true"]).args(vec!["x"; 100_000]).output().expect("podsecctl");
    assert_eq!(many.status.code(), Some(2), "{many:?}");
}
