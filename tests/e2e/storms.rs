//! Homes as their users would have them: names that are swapped for links while podsec looks, hard links to root's files,
//! FIFOs wherever something is read or written. Nothing outside the home changes, and nothing waits.

use crate::Test;
use podsec_tests::oracle::Oracle;
use podsec_tests::people::{self, ROOT};
use podsec_tests::{host, role};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

pub const TESTS: &[Test] = &[
    ("storms::t48_swapped_for_links", t48_swapped_for_links),
    ("storms::t49_hard_links", t49_hard_links),
    ("storms::t50_fifos_everywhere", t50_fifos_everywhere),
    ("storms::a_home_full_of_traps_is_removed", a_home_full_of_traps_is_removed),
    ("storms::who_stops_what_acts_as_him", who_stops_what_acts_as_him),
];

pub const ROLES: &[role::Role] = &[("swapper", swap), ("stopper", stop)];

/// What the traps lead to: on the file system of the homes, so that hard links and renames reach it.
const CANARY: &str = "/home/canary";
const ZOE: &[&str] = &["user", "create", "zoe", "--category", "image-user"];

/// Root's things, as they are until the end of the test.
struct Canary(BTreeMap<String, (u32, u32, u64, Vec<u8>)>);

impl Canary {
    fn new() -> Self {
        fs::create_dir_all(Path::new(CANARY).join("containers")).unwrap();
        for name in ["policy.json", "containers/policy.json", "shadow"] {
            fs::write(Path::new(CANARY).join(name), "root's").unwrap();
        }
        Self(Self::look())
    }

    /// Mode, owner, links and contents of everything.
    fn look() -> BTreeMap<String, (u32, u32, u64, Vec<u8>)> {
        let listed = Command::new("/usr/bin/find").arg(CANARY).output().unwrap().stdout;
        let paths = String::from_utf8(listed).unwrap();
        let facts = |path: &str| {
            let meta = fs::symlink_metadata(path).unwrap();
            let attributes = Command::new("/usr/bin/lsattr").args(["-d", path]).output().unwrap().stdout;
            (meta.mode(), meta.uid(), meta.nlink(), [fs::read(path).unwrap_or_default(), attributes].concat())
        };
        paths.lines().map(|path| (path.to_owned(), facts(path))).collect()
    }

    fn check(&self, what: &str) {
        assert_eq!(Self::look(), self.0, "{what}: something outside the home was changed");
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(CANARY);
    }
}

/// As the user, in his home: swaps each of these names with a link as fast as it goes, for so many milliseconds.
fn swap(arguments: &[String]) {
    use podsec_sys::nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    let end = Instant::now() + Duration::from_millis(arguments[0].parse().unwrap());
    let names = [".config", ".config/containers", ".config/containers/policy.json", ".gnupg"];
    for (index, name) in names.iter().enumerate() {
        let trap = format!("/home/zoe/trap{index}");
        let _ = fs::remove_file(&trap);
        let to = if index % 2 == 0 { CANARY.to_owned() } else { format!("{CANARY}/containers") };
        // Of an earlier storm it may be the directory.
        let _ = symlink(to, &trap);
        let _ = fs::create_dir(format!("/home/zoe/{name}"));
    }
    let mut swapped = 0_u64;
    while Instant::now() < end {
        for (index, name) in names.iter().enumerate() {
            let (there, trap) = (format!("/home/zoe/{name}"), format!("/home/zoe/trap{index}"));
            let flags = RenameFlags::RENAME_EXCHANGE;
            swapped += u64::from(renameat2(AT_FDCWD, there.as_str(), AT_FDCWD, trap.as_str(), flags).is_ok());
        }
    }
    println!("{swapped}");
}

fn make_zoe() {
    people::ctl(ROOT, ZOE);
}

fn remove_zoe() {
    people::ctl(ROOT, &["user", "delete", "zoe", "--remove-home", "--yes"]);
    assert!(!Path::new("/home/zoe").exists());
}

/// Takes the guard away, so that there is something to be placed again.
fn unguard() {
    let script =
        "chattr -i /home/zoe/.config /home/zoe/.config/containers /home/zoe/.config/containers/policy.json
        rm -rf /home/zoe/.config";
    Command::new("/bin/sh").args(["-c", script]).output().unwrap();
}

/// Exit status and reason, within a second and a half.
fn outcome(arguments: &[&str]) -> (i32, String) {
    let start = Instant::now();
    let output = people::podsecctl(ROOT, &[&["--json"], arguments].concat());
    assert!(start.elapsed() < Duration::from_millis(1500), "{arguments:?} took {:?}", start.elapsed());
    let line = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&line);
    let told: Value =
        text.lines().next().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
    (output.status.code().unwrap(), told["error"]["reason"].as_str().unwrap_or_default().to_owned())
}

fn t48_swapped_for_links(_: &mut Oracle) {
    let canary = Canary::new();
    make_zoe();
    let milliseconds = host::count(4000, 60_000);
    let verify = &["user", "verify", "zoe"][..];
    for (what, arguments) in [("placing the guard", ZOE), ("looking", verify)] {
        unguard();
        let swapper = role::start("zoe", "swapper", &[&milliseconds.to_string()]);
        let end = Instant::now() + Duration::from_millis(milliseconds as u64);
        let mut outcomes = BTreeMap::new();
        while Instant::now() < end {
            let (status, reason) = outcome(arguments);
            assert!(["", "home-trap"].contains(&reason.as_str()), "{what}: {status} {reason}");
            *outcomes.entry(reason).or_insert(0) += 1;
            if arguments == ZOE {
                unguard();
            }
        }
        let swapped: u64 = swapper.finish().trim().parse().unwrap();
        println!("{what}: {outcomes:?} while {swapped} names were swapped");
        assert!(swapped > 1000, "{what}: the storm did not blow");
        canary.check(what);
    }
    // He swaps until the very end.
    let swapper = role::start("zoe", "swapper", &["60000"]);
    std::thread::sleep(Duration::from_millis(200));
    remove_zoe();
    drop(swapper);
    canary.check("removing the home");
}

fn t49_hard_links(_: &mut Oracle) {
    let canary = Canary::new();
    make_zoe();
    unguard();
    let zoe = fs::metadata("/home/zoe").unwrap().uid();
    let shadow = Path::new(CANARY).join("shadow");
    for directory in ["/home/zoe/.config", "/home/zoe/.config/containers"] {
        fs::create_dir(directory).unwrap();
        chown(directory, Some(zoe), Some(zoe)).unwrap();
    }
    // With fs.protected_hardlinks=0 he could do it himself.
    fs::hard_link(&shadow, "/home/zoe/.config/containers/policy.json").unwrap();
    assert_eq!(outcome(ZOE), (78, "home-trap".into()));
    // In a directory of root's, which is all that is trusted there.
    chown("/home/zoe/.config/containers", Some(0), Some(0)).unwrap();
    assert_eq!(outcome(&["user", "verify", "zoe"]).0, 1, "a policy with a second name is not podsec's");
    people::ctl(ROOT, ZOE);
    fs::hard_link(&shadow, "/home/zoe/link").unwrap();
    remove_zoe();
    canary.check("hard links");
}

fn t50_fifos_everywhere(_: &mut Oracle) {
    for name in [".config", ".config/containers", ".config/containers/policy.json"] {
        make_zoe();
        unguard();
        let zoe = fs::metadata("/home/zoe").unwrap().uid();
        let path = Path::new("/home/zoe").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(Command::new("/usr/bin/mkfifo").arg(&path).status().unwrap().success());
        for path in ["/home/zoe/.config", "/home/zoe/.config/containers"] {
            let _ = chown(path, Some(zoe), Some(zoe));
        }
        assert_eq!(outcome(ZOE), (78, "home-trap".into()), "{name}");
        let (status, reason) = outcome(&["user", "verify", "zoe"]);
        assert!((status, reason.as_str()) == (1, "") || reason == "home-trap", "{name}: {status} {reason}");
        remove_zoe();
    }
    // Where podsec's own files are: root's place, so an error, and not a wait.
    let record = "/var/lib/podsec/users/zoe.json";
    assert!(Command::new("/usr/bin/mkfifo").arg(record).status().unwrap().success());
    let (status, _) = outcome(&["user", "show", "zoe"]);
    assert_ne!(status, 0);
    fs::remove_file(record).unwrap();
}

fn a_home_full_of_traps_is_removed(_: &mut Oracle) {
    let canary = Canary::new();
    make_zoe();
    // As the user: deep, wide, closed, linked, and other people's ids by his own namespace.
    let script = format!(
        "cd /home/zoe; mkdir closed; touch closed/x; chmod 000 closed
        for i in $(seq 300); do mkdir d; cd d; ln -s {CANARY} link; mkfifo fifo; done
        cd /home/zoe; for i in $(seq 500); do ln -s {CANARY}/shadow link$i; done; sleep 1000 & sleep 1001 &"
    );
    let made = people::command("zoe", "/bin/sh").args(["-c", &script]).status().unwrap();
    assert!(made.success());
    // Somebody else's file system in there is not podsec's to empty.
    fs::create_dir("/home/zoe/mounted").unwrap();
    let mount = |arguments: &[&str]| host::run(Command::new("/usr/bin/mount").args(arguments));
    mount(&["-t", "tmpfs", "tmpfs", "/home/zoe/mounted"]);
    fs::write("/home/zoe/mounted/kept", "x").unwrap();
    assert_eq!(outcome(&["user", "delete", "zoe", "--remove-home", "--yes"]), (78, "home-trap".into()));
    assert!(Path::new("/home/zoe/mounted/kept").exists());
    host::run(Command::new("/usr/bin/umount").arg("/home/zoe/mounted"));
    remove_zoe();
    canary.check("removing the home");
}

/// As the user: stops every process of his but this one, as fast as it goes, until it is ended.
fn stop(_: &[String]) {
    use podsec_sys::nix::sys::signal::{Signal, kill};
    loop {
        let _ = kill(podsec_sys::nix::unistd::Pid::from_raw(-1), Signal::SIGSTOP);
    }
}

/// He delays what is done for himself, and nobody else for longer than that; and he is removed all the same.
fn who_stops_what_acts_as_him(_: &mut Oracle) {
    people::ctl(
        ROOT,
        &["user", "create", "zoe", "--category", "image-creator", "--scope", "registry.local/zoe"],
    );
    let mut stopper = role::start("zoe", "stopper", &[]);
    std::thread::sleep(Duration::from_millis(100));
    let asked =
        &["user", "create", "zoe", "--category", "image-creator", "--scope", "registry.local/zoe"][..];
    let with_key = [asked, &["--with-key", "--no-key-passphrase"]].concat();
    let start = Instant::now();
    let stopped = people::podsecctl(ROOT, &with_key);
    println!("a key for who stops it: {} after {:?}", stopped.status, start.elapsed());
    // Whatever became of that, the lock is free, and nothing of it is left that holds it.
    let start = Instant::now();
    people::ctl(ROOT, &["user", "create", "yan", "--category", "cluster-user"]);
    assert!(start.elapsed() < Duration::from_secs(2), "somebody else waited for {:?}", start.elapsed());
    people::ctl(ROOT, &["user", "delete", "yan", "--remove-home", "--yes"]);
    remove_zoe();
    host::wait_for("the stopper's end", || stopper.has_ended());
}
