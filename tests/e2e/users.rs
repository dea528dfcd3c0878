//! The people that podsec makes: what administrators do with them, and attacks 40 to 47 and 57 of docs/threats.md on how it
//! is done. Each test removes whom it made; the oracle compares the account files byte for byte.

use crate::Test;
use podsec_proto::client::user_service_client::UserServiceClient;
use podsec_proto::v1::create_user_request::Category;
use podsec_proto::v1::{
    ClusterAdmin, CreateUserRequest, DeleteUserRequest, ImageCreator, ImageUser, LockUserRequest,
    SetPasswordRequest, SigningKey, UnlockUserRequest, UserChange, VerifyUserRequest,
};
use podsec_sys::nix::fcntl::{FcntlArg, fcntl};
use podsec_sys::nix::libc;
use podsec_tests::host::{self, Configured, Edited};
use podsec_tests::oracle::{self, Oracle};
use podsec_tests::people::{self, ALICE, CAROL, CLUSTER, DAVE, ERIN, MALLORY, ROOT};
use podsec_tests::terminal::Terminal;
use podsec_tests::{client, role};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tonic::transport::Channel;
use tonic::{Code, Status};

macro_rules! tests {
    ($($test:ident)*) => {
        pub const TESTS: &[Test] = &[$((concat!("users::", stringify!($test)), $test),)*];
    };
}

tests! {
    each_category
    a_password_lets_him_in
    a_lock_ends_with_the_expiry_that_was_there
    a_kept_home_is_roots
    his_processes_end_first
    a_file_of_people
    what_is_missing_is_made_again
    a_scope_belongs_to_one_creator
    are_for_administrators
    himself_and_nobody_else
    two_hundred_beside_other_tools
    eight_callers_make_one_user
    the_cluster_user
    another_cluster_user
    id_maps_for_image_users_only
    t40_names
    t41_full_names
    t42_passwords_that_are_none
    t42_a_password_stays_nowhere
    t43_users_of_others
    t44_other_categories_and_taken_names
    t45_something_in_the_place_of_the_home
    t46_traps_in_the_skeleton
    t47_crafted_ranges
    t57_ways_around_the_guard
    t57_a_file_system_without_attributes
}

const PASSWORD: &str = "correct horse battery staple";
const ZOE: &str = "create zoe --category image-user";
const FILES: [&str; 6] =
    ["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow", "/etc/subuid", "/etc/subgid"];

// ---- what is typed, and what is answered

/// An answer of `podsecctl --json`: exit status, and an object for each line of it.
type Answer = (i32, Vec<Value>);

fn answer(output: &Output) -> Answer {
    let text = String::from_utf8([&output.stdout[..], &output.stderr].concat()).unwrap();
    let objects = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    (output.status.code().expect("an exit status"), objects)
}

fn podsecctl(who: &str, line: &str) -> Command {
    let mut command = people::command(who, "/usr/bin/podsecctl");
    command.args(["--json", "user"]).args(line.split_whitespace());
    command
}

/// `podsecctl user …` as that person.
fn user(who: &str, line: &str) -> Answer {
    answer(&podsecctl(who, line).output().unwrap())
}

fn with_input(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

fn passwd(who: &str, name: &str, password: &str) -> Answer {
    answer(&with_input(podsecctl(who, &format!("passwd {name} --stdin")), password.as_bytes()))
}

/// The one object of an answer that has to be good.
fn good((status, mut objects): Answer) -> Value {
    assert!(status == 0 && objects.len() == 1, "{status}: {objects:#?}\n{}", host::daemon_log());
    objects.remove(0)
}

/// As an administrator.
fn change(line: &str) -> Value {
    good(user(ALICE, line))
}

fn changed(line: &str) -> bool {
    change(line)["changed"] == true
}

/// Exit status and reason of what has to fail for everybody that it is about.
fn refused((status, objects): Answer) -> (i32, String) {
    let mut reasons: Vec<_> = objects.iter().map(|object| text(&object["error"]["reason"])).collect();
    reasons.dedup();
    assert!(status != 0 && reasons.len() == 1, "{status}: {objects:#?}");
    (status, reasons.remove(0))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().expect("a list").iter().map(text).collect()
}

fn show(name: &str) -> Value {
    change(&format!("show {name}"))
}

fn state(name: &str) -> String {
    text(&show(name)["state"])
}

/// What `user verify` finds: each check and its state.
fn findings(who: &str, name: &str) -> BTreeMap<String, String> {
    let (_, objects) = user(who, &format!("verify {name}"));
    let found = objects[0]["findings"].as_array().unwrap_or_else(|| panic!("{objects:#?}"));
    found.iter().map(|found| (text(&found["name"]), text(&found["state"]))).collect()
}

/// Nothing of them is other than it was made.
fn assert_whole(names: &[String]) {
    let (_, objects) = user(ALICE, &format!("verify {}", names.join(" ")));
    assert_eq!(objects.iter().map(|object| text(&object["name"])).collect::<Vec<_>>(), names);
    for object in objects {
        let found = object["findings"].as_array().unwrap_or_else(|| panic!("{object:#?}"));
        assert!(found.iter().any(|finding| finding["name"] == "account"), "{object:#?}");
        assert!(found.iter().all(|finding| finding["state"] != "broken"), "{object:#?}");
    }
}

/// The fields of somebody's line in one of the account files, of which there must be one at most.
fn line(file: &str, name: &str) -> Option<Vec<String>> {
    let text = fs::read_to_string(file).unwrap();
    let mut lines = text.lines().filter(|line| line.split(':').next() == Some(name));
    let found = lines.next().map(|line| line.split(':').map(str::to_owned).collect());
    assert_eq!(lines.next(), None, "{file} has {name} twice");
    found
}

fn field(file: &str, name: &str, index: usize) -> String {
    line(file, name).unwrap_or_else(|| panic!("{name} is not in {file}"))[index].clone()
}

fn uid(name: &str) -> u32 {
    field("/etc/passwd", name, 2).parse().unwrap()
}

/// A program of the host's as root, which has to succeed.
fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    host::run(Command::new(words.next().unwrap()).args(words))
}

fn shell(who: &str, script: &str) -> Output {
    people::command(who, "/bin/sh").args(["-ec", script]).output().unwrap()
}

// ---- whom a test makes

/// podsec's users that are removed when the test is over, however it ends; the oracle looks whether nothing is left.
struct Gone(Vec<String>);

impl Gone {
    fn after(names: &[&str]) -> Self {
        Self(names.iter().map(ToString::to_string).collect())
    }
}

impl Drop for Gone {
    fn drop(&mut self) {
        let names = self.0.iter().map(String::as_str);
        let line: Vec<_> = ["user", "delete", "--remove-home", "--yes"].into_iter().chain(names).collect();
        people::podsecctl(ROOT, &line);
        for name in &self.0 {
            // Where the account is gone and the home stayed.
            let _ = Command::new("/usr/bin/chattr").args(["-R", "-i", &format!("/home/{name}")]).output();
            let _ = fs::remove_dir_all(Path::new("/home").join(name));
        }
    }
}

/// An account of another tool's, until it is dropped.
struct Bare(String);

impl Bare {
    fn make(name: &str, options: &str) -> Self {
        run(&format!("useradd --no-create-home --home-dir / {options} {name}"));
        Self(name.to_owned())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = Command::new("/usr/sbin/userdel").arg(&self.0).output();
    }
}

/// Account files and records; homes with owner and mode.
type Everything = (BTreeMap<String, String>, Vec<(PathBuf, u32, u32)>);

/// What a request that is refused, or for show, must not touch.
fn everything() -> Everything {
    let entries = fs::read_dir("/home").unwrap().map(|entry| entry.unwrap());
    let mut homes: Vec<_> = entries
        .map(|entry| {
            let meta = entry.path().symlink_metadata().unwrap();
            (entry.path(), meta.uid(), meta.mode())
        })
        .collect();
    homes.sort();
    (oracle::files(), homes)
}

fn mode(path: impl AsRef<Path>) -> (u32, u32) {
    let meta = path.as_ref().symlink_metadata().unwrap();
    (meta.uid(), meta.mode() & 0o7777)
}

/// Records of that outcome since the test began.
fn records(oracle: &Oracle, phase: &str) -> Vec<Value> {
    oracle.audit().into_iter().filter(|record| record["phase"] == phase).collect()
}

/// With every refusal in the record, however many there are.
fn with_every_refusal(oracle: &mut Oracle, test: impl FnOnce(&mut Oracle)) {
    {
        let _configured = Configured::with("[limits]\ndenials_per_minute = 1000000\n");
        test(oracle);
    }
    oracle.expect_new_daemon();
}

// ---- what administrators do

fn each_category(oracle: &mut Oracle) {
    let categories: [(&str, &str, &str, &[&str]); 3] = [
        ("cleo", "image-creator", "--scope registry.local/cleo", &["podman", "podman_dev"]),
        // systemd would have to do it, and does not run here.
        ("kim", "cluster-user", "--linger", &[]),
        ("zoe", "image-user", "", &["podman"]),
    ];
    let _gone = Gone::after(&categories.map(|(name, ..)| name));
    for (name, category, more, groups) in categories {
        let create = format!("create {name} --category {category} {more} --full-name Name-of-{name}");
        let before = everything();
        let planned = change(&format!("{create} --dry-run"));
        assert_eq!((&planned["changed"], everything()), (&json!(true), before), "a dry run did something");
        let made = change(&create);
        assert_eq!(made, planned);
        let warnings = strings(&made["warnings"]);
        assert!(warnings.iter().all(|text| text.starts_with("unsupported: no systemd")), "{warnings:?}");
        assert_eq!(warnings.len(), usize::from(more == "--linger"));
        let after = everything();
        assert!(!changed(&create) && !changed(&format!("{create} --dry-run")));
        assert_eq!(everything(), after, "the second time it did something");

        // As podsec says, as the account files do, and as he is when he logs in.
        let shown = show(name);
        let number = uid(name);
        assert!((1000..60_000).contains(&number));
        assert_eq!(
            (&shown["name"], &shown["uid"], &shown["category"], &shown["state"], &shown["keys"]),
            (&json!(name), &json!(number), &json!(category), &json!("no-password"), &json!(0))
        );
        assert_eq!(shown["full_name"], field("/etc/passwd", name, 4));
        assert_eq!(field("/etc/passwd", name, 4), format!("Name-of-{name}"));
        assert_eq!(
            (field("/etc/passwd", name, 5), field("/etc/passwd", name, 6)),
            (format!("/home/{name}"), "/bin/bash".into())
        );
        let his = String::from_utf8(shell(name, "id -Gn").stdout).unwrap();
        let his: BTreeSet<_> = his.split_whitespace().collect();
        assert_eq!(his, groups.iter().copied().chain([name]).collect::<BTreeSet<_>>());
        for file in ["/etc/subuid", "/etc/subgid"] {
            let range = line(file, name).map(|fields| fields[1..].join(":"));
            let expected = (category != "cluster-user").then(|| format!("{}:65536", shown["first_subid"]));
            assert_eq!(range, expected, "{file}");
        }
        let home = Path::new("/home").join(name);
        assert_eq!(mode(&home), (number, 0o700));
        for copied in fs::read_dir("/etc/skel").unwrap() {
            assert_eq!(mode(home.join(copied.unwrap().file_name())).0, number);
        }
        match category {
            "cluster-user" => assert_eq!(mode(home.join(".kube")), (number, 0o700)),
            "image-user" => {
                let policy = home.join(".config/containers/policy.json");
                assert_eq!(fs::read_link(&policy).unwrap(), Path::new("/etc/podsec/user-policy.json"));
                assert_eq!(mode(policy.canonicalize().unwrap()), (0, 0o644));
            }
            _ => assert_eq!(mode(home.join(".config/containers/policy.json")), (number, 0o644)),
        }
        // Nobody can log in yet: what is there is no hash of anything.
        assert!(field("/etc/shadow", name, 1).starts_with("!podsec-"));
    }
    let names: Vec<_> = categories.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_whole(&names);
    let list = change("list")["users"].as_array().unwrap().clone();
    assert_eq!(list, names.iter().map(|name| show(name)).collect::<Vec<_>>());
    assert_eq!(list[0]["scopes"], json!(["registry.local/cleo"]));
    assert!(people::ctl(ALICE, &["user", "list"]).contains("registry.local/cleo"));

    let line = format!("delete {} --remove-home --yes", names.join(" "));
    let before = everything();
    let (status, planned) = user(ALICE, &format!("{line} --dry-run"));
    assert!(status == 0 && planned.iter().all(|one| one["changed"] == true), "{planned:#?}");
    assert_eq!(everything(), before, "a dry run did something");
    let (_, done) = user(ALICE, &line);
    assert_eq!(done, planned);
    for name in &names {
        assert!(FILES.iter().all(|file| self::line(file, name).is_none()));
        assert!(!Path::new("/home").join(name).exists());
    }
    let (status, again) = user(ALICE, &line);
    assert!(status == 0 && again.iter().all(|one| one["changed"] == false), "{again:#?}");
    assert_eq!(change("list")["users"], json!([]));
    // All of it is in the record, and all of it was done.
    let (intents, done) = (records(oracle, "intent"), records(oracle, "done"));
    assert_eq!(intents.len(), done.len());
    let targets: Vec<_> = done
        .iter()
        .filter(|record| record["op"] == "UserService/Create")
        .map(|record| text(&record["target"]))
        .collect();
    assert_eq!(targets[0], "image-creator cleo registry.local/cleo (dry run)");
    assert_eq!(targets[1], "image-creator cleo registry.local/cleo");
    assert_eq!(targets.len(), 12);
}

/// Does su(1) of a stranger take this password?
fn logs_in(name: &str, password: &str) -> bool {
    let mut command = people::command(MALLORY, "/usr/bin/su");
    let mut terminal = Terminal::of(MALLORY, command.args(["-c", "echo I am $(id -un)", name]));
    terminal.sees("assword: ");
    terminal.types(&format!("{password}\n"));
    let (status, shown) = terminal.ends();
    assert_eq!(status == 0, shown.contains(&format!("I am {name}")), "{shown}");
    status == 0
}

/// Does PAM let anybody become him, whatever he shows? root needs no password.
fn is_open(name: &str) -> bool {
    let output = Command::new("/usr/bin/su").args(["-c", "true", name]).stdin(Stdio::null()).output();
    output.unwrap().status.success()
}

fn a_password_lets_him_in(_: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    change(ZOE);
    let uid = uid("zoe");
    let longest = "x".repeat(255);
    for password in [PASSWORD, "with : colon and ünïcode", " blanks at both ends ", "8 bytes!", &longest] {
        let set = good(passwd(ALICE, "zoe", password));
        assert_eq!((&set["changed"], &set["warnings"]), (&json!(true), &json!([])));
        assert!(field("/etc/shadow", "zoe", 1).starts_with('$'), "no hash");
        assert_eq!(state("zoe"), "active");
        assert!(logs_in("zoe", password), "{password:?} does not let him in");
    }
    // A newline at the end is the editor's.
    good(passwd(ALICE, "zoe", &format!("{PASSWORD}\n")));
    assert!(logs_in("zoe", PASSWORD) && !logs_in("zoe", "another password"));
    assert_eq!(self::uid("zoe"), uid);
    // Too short for podsec, however it comes.
    assert_eq!(refused(passwd(ALICE, "zoe", "short")), (2, "usage".into()));
    assert_eq!(refused(passwd(ALICE, "nobody-here", PASSWORD)), (77, "unmanaged-user".into()));
}

fn a_lock_ends_with_the_expiry_that_was_there(_: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    change(ZOE);
    // Without a password there is nothing to unlock, and he stays without one.
    assert!(!changed("unlock zoe"));
    assert!(changed("lock zoe") && changed("unlock zoe"));
    assert_eq!(state("zoe"), "no-password");
    good(passwd(ALICE, "zoe", PASSWORD));
    for day in ["2030-01-01", "-1"] {
        run(&format!("chage -E {day} zoe"));
        let before = (line("/etc/shadow", "zoe"), everything());
        assert!(changed("lock zoe --dry-run"));
        assert_eq!((line("/etc/shadow", "zoe"), everything()), before);
        assert!(changed("lock zoe") && !changed("lock zoe") && !changed("lock zoe --dry-run"));
        assert_eq!(state("zoe"), "locked");
        assert!(changed("unlock zoe --dry-run") && state("zoe") == "locked");
        assert!(changed("unlock zoe") && !changed("unlock zoe") && is_open("zoe"));
        assert_eq!((line("/etc/shadow", "zoe"), everything()), before, "not as before the lock");
        assert_eq!(state("zoe"), "active");
    }
    // A new password does not unlock, and is told so; then it is the one that counts.
    assert!(changed("lock zoe"));
    let set = good(passwd(ALICE, "zoe", "another password"));
    assert!(strings(&set["warnings"])[0].contains("stays locked"), "{set:#?}");
    assert!(!is_open("zoe") && state("zoe") == "locked");
    assert!(changed("unlock zoe") && logs_in("zoe", "another password"));
}

fn a_kept_home_is_roots(_: &mut Oracle) {
    let _gone = Gone::after(&["zoe", "kim"]);
    for (name, category) in [("zoe", "image-user"), ("kim", "cluster-user")] {
        let home = Path::new("/home").join(name);
        change(&format!("create {name} --category {category}"));
        assert!(shell(name, "echo mine >~/file").status.success());
        let uid = uid(name);
        assert!(changed(&format!("delete {name} --yes")));
        assert_eq!(mode(&home), (0, 0o700));
        assert_eq!(fs::read_to_string(home.join("file")).unwrap(), "mine\n");
        assert!(FILES.iter().all(|file| line(file, name).is_none()));
        // The next one of that uid cannot get in, and it is not the home of the next one of that name.
        let next = role::setpriv(&uid.to_string(), "/bin/sh")
            .args(["-c", &format!("cat {}/file", home.display())])
            .output();
        assert!(!next.unwrap().status.success());
        let again = user(ALICE, &format!("create {name} --category {category}"));
        assert_eq!(refused(again), (78, "home-exists".into()));
        assert!(!changed(&format!("delete {name} --remove-home --yes")) && home.exists());
        fs::remove_dir_all(&home).unwrap();
    }
}

/// A process, until it is dropped.
struct Process(Child);

impl Process {
    fn start(mut command: Command) -> Self {
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn status(&self, key: &str) -> String {
        let text = fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        value.split_whitespace().next().unwrap_or_default().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn his_processes_end_first(_: &mut Oracle) {
    let crontab = Path::new("/var/spool/cron/crontabs/zoe");
    fs::create_dir_all(crontab.parent().unwrap()).unwrap();
    let _gone = Gone::after(&["zoe"]);
    change(ZOE);
    fs::write(crontab, "* * * * * true\n").unwrap();
    let first: u32 = field("/etc/subuid", "zoe", 1).parse().unwrap();
    let start = |script: &str| {
        let mut command = people::command("zoe", "/bin/sh");
        command.args(["-c", script]);
        Process::start(command)
    };
    let deaf = start("trap '' TERM HUP INT; while :; do sleep 1; done");
    let stopped = start("kill -STOP $$");
    // A container's: of a subordinate id, and nothing of his own uid is left beside it.
    let contained = start(
        "exec unshare --user --map-auto --map-root-user setpriv --reuid 5 --regid 5 --clear-groups sleep 1000",
    );
    host::wait_for("a process of a subordinate id", || contained.status("Uid:") == (first + 4).to_string());
    host::wait_for("a stopped process", || stopped.status("State:") == "T");
    assert!(changed("delete zoe --remove-home --yes"));
    for (what, mut process) in [("deaf", deaf), ("stopped", stopped), ("contained", contained)] {
        assert!(process.0.try_wait().unwrap().is_some(), "the {what} one outlived him");
    }
    assert!(!crontab.exists());
    // And when that is all that runs.
    change(ZOE);
    let mut contained = start(
        "exec unshare --user --map-auto --map-root-user setpriv --reuid 5 --regid 5 --clear-groups sleep 1000",
    );
    host::wait_for("a process of a subordinate id", || contained.status("Uid:") == (first + 4).to_string());
    assert!(changed("delete zoe --remove-home --yes"));
    assert!(contained.0.try_wait().unwrap().is_some(), "it has ids that the next user gets");
}

fn a_file_of_people(_: &mut Oracle) {
    let _gone = Gone::after(&["cleo", "kim", "zoe"]);
    let good = r#"
        [[user]]
        name = "cleo"
        category = "image-creator"
        full_name = "Cleo O'Neill-Смит"
        scopes = ["registry.local/b", "registry.local/a"]
        shared = true

        [[user]]
        name = "kim"
        category = "cluster-user"

        [[user]]
        name = "zoe"
        category = "image-user"
    "#;
    let from = |text: &str, more: &str| {
        with_input(podsecctl(ALICE, &format!("create --from - {more}")), text.as_bytes())
    };
    // What is wrong with one of them is found before any of them is made.
    for (old, new) in [
        ("\"zoe\"", "\"Zoe\""),
        ("\"zoe\"", "\"kim\""),
        ("cluster-user", "administrator"),
        ("registry.local/b", "registry.local"),
        ("O'Neill", "O:Neill"),
        ("shared", "sharing"),
        ("category = \"cluster-user\"", "category = \"cluster-user\"\nshared = true"),
    ] {
        assert_eq!(refused(answer(&from(&good.replace(old, new), ""))), (2, "usage".into()), "{new}");
    }
    assert_eq!(change("list")["users"], json!([]));
    let names = ["cleo", "kim", "zoe"].map(str::to_owned);
    let told = |more: &str| {
        let (status, objects) = answer(&from(good, more));
        assert_eq!(
            (status, objects.iter().map(|one| text(&one["name"])).collect::<Vec<_>>()),
            (0, names.to_vec())
        );
        objects.iter().map(|one| one["changed"] == true).collect::<Vec<_>>()
    };
    assert_eq!(told("--dry-run"), [true; 3]);
    assert_eq!(change("list")["users"], json!([]));
    assert_eq!(told(""), [true; 3]);
    assert_eq!(told(""), [false; 3]);
    assert_whole(&names);
    let cleo = show("cleo");
    assert_eq!(
        (&cleo["full_name"], &cleo["scopes"], &cleo["shared"]),
        (&json!("Cleo O'Neill-Смит"), &json!(["registry.local/a", "registry.local/b"]), &json!(true))
    );
    // From a file, and one that fails does not stop the others.
    assert!(changed("delete kim --remove-home --yes"));
    let taken = Bare::make("kim", "");
    fs::write("/run/podsec-tests/people.toml", good.replace("\"zoe\"", "\"zoey\"")).unwrap();
    let _zoey = Gone::after(&["zoey"]);
    let (status, objects) = user(ALICE, "create --from /run/podsec-tests/people.toml");
    assert_eq!((status, &objects[1]["error"]["reason"]), (78, &json!("user-exists")), "{objects:#?}");
    assert_eq!((&objects[0]["changed"], &objects[2]["changed"]), (&json!(false), &json!(true)));
    drop(taken);
}

fn what_is_missing_is_made_again(_: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    let zoe = || findings(ALICE, "zoe");
    change(ZOE);
    let range = |file: &str| line(file, "zoe").map(|fields| fields[1..].join(":"));
    // Both ranges, and one of them.
    for files in [&["uid", "gid"][..], &["uid"], &["gid"]] {
        for kind in files {
            let first: u32 = field(&format!("/etc/sub{kind}"), "zoe", 1).parse().unwrap();
            run(&format!("usermod --del-sub{kind}s {first}-{} zoe", first + 65_535));
        }
        assert_eq!(zoe()["subids"], "broken");
        assert!(changed(&format!("{ZOE} --dry-run")) && zoe()["subids"] == "broken");
        assert_eq!(strings(&change(ZOE)["steps"]), ["give zoe 65536 subordinate ids"]);
        assert_eq!(zoe()["subids"], "ok");
        assert!(range("/etc/subuid").is_some() && range("/etc/subgid").is_some());
        assert!(!changed(ZOE));
    }
    // The guard, by another hand or by his own.
    let policy = "/home/zoe/.config/containers/policy.json";
    for script in [
        "chattr -i /home/zoe/.config/containers; rm /home/zoe/.config/containers/policy.json",
        "cd /home/zoe/.config/containers; chattr -i .; rm policy.json; echo '{}' >policy.json",
        "cd /home/zoe/.config/containers; chattr -i .; ln -sf /home/zoe/mine policy.json; chattr +i .",
        "chattr -i /home/zoe/.config",
        "chattr -i /home/zoe/.config /home/zoe/.config/containers; rm -r /home/zoe/.config",
        "chattr -i /home/zoe/.config /home/zoe/.config/containers; mv /home/zoe/.config /home/zoe/away",
    ] {
        assert!(shell(ROOT, script).status.success(), "{script}");
        let found = zoe();
        assert!(found["policy"] == "broken" || found["rename-config"] == "broken", "{script}: {found:?}");
        assert!(changed(ZOE), "{script}");
        let found = zoe();
        assert_eq!((&*found["policy"], &*found["rename-config"]), ("ok", "ok"), "{script}");
        assert_eq!(fs::read_link(policy).unwrap(), Path::new("/etc/podsec/user-policy.json"));
    }
    // The home. What is in /etc/skel was his, and is not given again.
    run("chattr -i /home/zoe/.config /home/zoe/.config/containers");
    fs::remove_dir_all("/home/zoe").unwrap();
    assert_eq!(zoe()["home"], "broken");
    assert!(changed(ZOE));
    let found = zoe();
    assert_eq!((&*found["home"], &*found["policy"]), ("ok", "ok"));
    assert!(!Path::new("/home/zoe/.bashrc").exists() && !changed(ZOE));
    // His account, by another tool: he is one of podsec's no more, until podsec forgets him.
    run("userdel zoe");
    assert_eq!(state("zoe"), "gone");
    assert_eq!(refused(user(ALICE, ZOE)), (78, "user-exists".into()));
    assert!(changed("delete zoe --yes"));
    assert_eq!(change("list")["users"], json!([]));
}

fn a_scope_belongs_to_one_creator(_: &mut Oracle) {
    let _gone = Gone::after(&["cleo", "otto"]);
    let create = |name: &str, scopes: &str, shared: &str| {
        let scopes: String =
            scopes.split(' ').map(|scope| format!(" --scope registry.local/{scope}")).collect();
        format!("create {name} --category image-creator{scopes} {shared}")
    };
    change(&create("cleo", "a b/c", ""));
    let taken = (78, "scope-taken".to_owned());
    let before = everything();
    for (scopes, shared) in
        [("a", ""), ("a/below", ""), ("b", ""), ("z b/c", ""), ("a", "--shared"), ("b/c/d/e", "--shared")]
    {
        for dry_run in ["", "--dry-run"] {
            let line = format!("{} {dry_run}", create("otto", scopes, shared));
            assert_eq!(refused(user(ALICE, &line)), taken, "{line}");
        }
    }
    assert_eq!(everything(), before);
    // Beside each other.
    assert!(changed(&create("otto", "ab b/cc", "")));
    // Asked again with others he has those, and everything else stays as it was.
    let (account, others) = (line("/etc/passwd", "cleo"), line("/etc/shadow", "cleo"));
    let changes = change(&create("cleo", "a b/d", ""));
    assert_eq!(strings(&changes["steps"]).len(), 1, "{changes:#?}");
    assert_eq!(show("cleo")["scopes"], json!(["registry.local/a", "registry.local/b/d"]));
    assert_eq!((line("/etc/passwd", "cleo"), line("/etc/shadow", "cleo")), (account, others));
    assert!(!changed(&create("cleo", "b/d a", "")), "the order says nothing");
    assert_eq!(refused(user(ALICE, &create("cleo", "b/cc", ""))), taken);
    // Both have to share.
    assert_eq!(refused(user(ALICE, &create("otto", "a", "--shared"))), taken);
    assert!(changed(&create("cleo", "a", "--shared")));
    assert_eq!(refused(user(ALICE, &create("otto", "a", ""))), taken);
    assert!(changed(&create("otto", "a/b", "--shared")));
    assert_eq!(refused(user(ALICE, &create("cleo", "a", ""))), taken, "otto is there as one of several");
    assert_eq!(show("otto")["shared"], true);
    // What somebody had is free when he is gone.
    assert!(changed("delete cleo --remove-home --yes"));
    assert!(changed(&create("otto", "a", "")));
    // Wrong on the line.
    for wrong in [
        "create otto --category image-creator",
        "create otto --category image-user --scope a.b",
        "create otto --category image-creator --scope a.b --scope a.b/c",
    ] {
        assert_eq!(refused(user(ALICE, wrong)), (2, "usage".into()), "{wrong}");
    }
}

// ---- who may

fn are_for_administrators(oracle: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    change(ZOE);
    let before = everything();
    let people = [MALLORY, CAROL, DAVE, CLUSTER, ERIN];
    let lines = [
        "create kim --category image-user",
        "create kim --category image-user --dry-run",
        "lock zoe",
        "unlock zoe",
        "delete zoe --yes",
        "delete zoe --dry-run",
        "restrict-idmaps",
        "restrict-idmaps on",
    ];
    for who in people {
        for line in lines {
            let (status, reason) = refused(user(who, line));
            assert_eq!((status, &*reason), (77, "not-authorised"), "{who}: {line}");
        }
        assert_eq!(refused(passwd(who, "zoe", PASSWORD)), (77, "not-authorised".into()), "{who}");
        // He has no such name himself, and may not look at others.
        let (status, _) = refused(user(who, "verify zoe"));
        assert_eq!(status, 77, "{who}");
    }
    assert_eq!(everything(), before);
    let denials = records(oracle, "deny");
    assert_eq!(denials.len(), people.len() * (lines.len() + 2));
    for denial in denials {
        let others =
            ["mallory", "erin"].map(uid).contains(&u32::try_from(denial["uid"].as_u64().unwrap()).unwrap());
        let own = denial["op"] == "UserService/Verify" && !others;
        assert_eq!(denial["reason"], if own { "not-owner" } else { "not-member" }, "{denial}");
    }
}

fn himself_and_nobody_else(oracle: &mut Oracle) {
    let _gone = Gone::after(&["zoe", "zed", "cleo"]);
    for line in [ZOE, "create zed --category image-user", "create cleo --category image-creator --scope a.b"]
    {
        change(line);
    }
    let mut asked = 0;
    for (own, others) in [("zoe", ["zed", "cleo"]), ("cleo", ["zoe", "zed"])] {
        for line in ["show".to_owned(), format!("show {own}")] {
            assert_eq!(good(user(own, &line))["name"], *own);
        }
        let list = good(user(own, "list"));
        assert_eq!(list["users"].as_array().unwrap().len(), 1, "{list}");
        assert_eq!(list["users"][0]["name"], *own);
        assert_eq!(findings(own, "")["account"], "ok");
        assert_eq!(findings(own, own), findings(ALICE, own));
        for other in others.into_iter().chain([ALICE, ROOT, CLUSTER, "nobody-here"]) {
            for what in ["show", "verify"] {
                assert_eq!(
                    refused(user(own, &format!("{what} {other}"))),
                    (77, "not-owner".into()),
                    "{own}: {what} {other}"
                );
                asked += 1;
            }
        }
    }
    let denials = records(oracle, "deny");
    assert_eq!(denials.len(), asked);
    assert!(denials.iter().all(|record| record["reason"] == "not-owner"), "{denials:#?}");
    // Somebody of the group whom podsec did not make may ask, and there is nothing to say.
    assert_eq!(refused(user(DAVE, "show")), (78, "unmanaged-user".into()));
    assert_eq!(refused(user(DAVE, "verify")), (77, "unmanaged-user".into()));
}

// ---- many at once

/// A tool that changes the account files, again and again: how often it did. Where another one has them it has to wait.
fn again(over: &AtomicBool, most: usize, mut tool: impl FnMut(usize) -> Output) -> usize {
    let mut done = 0;
    while !over.load(Ordering::Relaxed) && done < most {
        let output = tool(done);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || told.contains("lock"), "{}: {told}", output.status);
        done += usize::from(output.status.success());
    }
    done
}

/// Does `work` while other tools change other accounts, and looks whether all that these did is there. Gives how much it
/// was.
fn beside_others(what: &str, work: impl FnOnce() + Send) -> String {
    let names = ["comment", "lock"].map(|kind| format!("{what}-{kind}"));
    let [comment, lock] = [&names[0], &names[1]].map(|name| Bare::make(name, ""));
    let tool = |program: &str, words: &[&str], input: &[u8]| {
        let mut command = Command::new(program);
        command.args(words);
        with_input(command, input)
    };
    let (over, most) = (AtomicBool::new(false), 150_usize);
    let new = |number: usize| format!("{what}{number}");
    let (added, commented, locked, failure) = std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            again(&over, most, |round| tool("useradd", &["-M", "--home-dir", "/", &new(round)], b""))
        });
        let commenting = scope.spawn(|| {
            again(&over, usize::MAX, |round| tool("usermod", &["-c", &round.to_string(), &comment.0], b""))
        });
        let locking = scope.spawn(|| {
            again(&over, usize::MAX, |round| match round % 2 {
                0 => tool("chpasswd", &["-e"], format!("{}:$x${round}\n", lock.0).as_bytes()),
                _ => tool("passwd", &["-l", &lock.0], b""),
            })
        });
        let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).err();
        over.store(true, Ordering::Relaxed);
        (adding.join().unwrap(), commenting.join().unwrap(), locking.join().unwrap(), failure)
    });
    let added: Vec<_> = (0..added).map(|number| Bare(new(number))).collect();
    if let Some(failure) = failure {
        std::panic::resume_unwind(failure);
    }
    for Bare(name) in &added {
        assert!(FILES.iter().all(|file| line(file, name).is_some()), "{name} was lost");
    }
    assert!(!added.is_empty() && commented > 0 && locked > 1, "nothing happened beside");
    assert_eq!(field("/etc/passwd", &comment.0, 4), (commented - 1).to_string());
    let expected = match locked % 2 {
        0 => format!("!$x${}", locked - 2),
        _ => format!("$x${}", locked - 1),
    };
    assert_eq!(field("/etc/shadow", &lock.0, 1), expected);
    format!("{} useradd, {commented} usermod, {locked} chpasswd and passwd", added.len())
}

/// No id of people belongs to two, and no subordinate one.
fn assert_ids_are_apart() {
    for file in ["/etc/passwd", "/etc/group"] {
        let text = fs::read_to_string(file).unwrap();
        let mut seen = BTreeSet::new();
        for line in text.lines() {
            let id: u32 = line.split(':').nth(2).unwrap().parse().unwrap();
            assert!(id < 1000 || seen.insert(id), "{file} has an id twice: {line}");
        }
    }
    for file in ["/etc/subuid", "/etc/subgid"] {
        let text = fs::read_to_string(file).unwrap();
        let mut ranges: Vec<(u64, u64, &str)> = text
            .lines()
            .map(|line| {
                let fields: Vec<_> = line.split(':').collect();
                let first = fields[1].parse().unwrap();
                (first, first + fields[2].parse::<u64>().unwrap(), line)
            })
            .collect();
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "{file}: {} and {} overlap", pair[0].2, pair[1].2);
        }
    }
}

fn two_hundred_beside_other_tools(oracle: &mut Oracle) {
    let count = 200;
    let names: Vec<_> = (0..count).map(|number| format!("person{number:03}")).collect();
    let category = |number: usize| ["image-creator", "image-user", "cluster-user"][number % 3];
    let mut file = String::new();
    for (number, name) in names.iter().enumerate() {
        file += &format!("[[user]]\nname = \"{name}\"\ncategory = \"{}\"\n", category(number));
        if category(number) == "image-creator" {
            file += &format!("scopes = [\"registry.local/{name}\"]\n");
        }
    }
    let _gone = Gone(names.clone());
    let all_changed = |(status, objects): Answer| {
        assert_eq!((status, objects.len()), (0, count), "{objects:#?}");
        assert!(objects.iter().all(|one| one["changed"] == true), "{objects:#?}");
    };
    let complaints = oracle::complaints();
    let whole = || {
        assert_whole(&names);
        for (number, name) in names.iter().enumerate() {
            let has_containers = category(number) != "cluster-user";
            for file in FILES {
                let expected = has_containers || !file.contains("/sub");
                assert_eq!(line(file, name).is_some(), expected, "{name} in {file}");
            }
        }
        assert_ids_are_apart();
        assert_eq!(oracle::complaints(), complaints);
    };
    let start = Instant::now();
    let beside = beside_others("early", || {
        all_changed(answer(&with_input(podsecctl(ALICE, "create --from -"), file.as_bytes())));
        let names: Vec<_> =
            change("list")["users"].as_array().unwrap().iter().map(|one| text(&one["name"])).collect();
        assert_eq!(names.len(), count);
        assert_whole(&names);
        assert_ids_are_apart();
    });
    println!("made {count} in {:.1?} beside {beside}", start.elapsed());
    whole();
    let start = Instant::now();
    let line = format!("delete {} --remove-home --yes", names.join(" "));
    let beside = beside_others("late", || all_changed(user(ALICE, &line)));
    println!("removed {count} in {:.1?} beside {beside}", start.elapsed());
    for name in &names {
        assert!(FILES.iter().all(|file| self::line(file, name).is_none()), "{name} is left");
        assert!(!Path::new("/home").join(name).exists());
    }
    let failed: Vec<_> = oracle.audit().into_iter().filter(|record| record["phase"] == "fail").collect();
    assert!(failed.is_empty(), "{failed:#?}");
}

fn eight_callers_make_one_user(_: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    let eight = |line: &str| {
        let changes = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..8).map(|_| scope.spawn(|| changed(line))).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
        });
        changes.iter().filter(|&&changed| changed).count()
    };
    for _ in 0..3 {
        assert_eq!(eight(ZOE), 1);
        assert_whole(&["zoe".to_owned()]);
        assert_eq!(eight("lock zoe"), 1);
        assert_eq!(eight("unlock zoe"), 1);
        assert_eq!(eight("delete zoe --remove-home --yes"), 1);
    }
}

// ---- the host

fn the_cluster_user(_: &mut Oracle) {
    let line = "create u7s-admin --category cluster-admin";
    let before = everything();
    assert!(!changed(line) && !changed(&format!("{line} --dry-run")));
    let _files = ["/etc/subuid", "/etc/subgid"].map(|file| Edited::with(file, str::to_owned));
    let ranges = || ["/etc/subuid", "/etc/subgid"].map(|file| self::line(file, CLUSTER));
    let were = ranges();
    let first: u32 = were[0].as_ref().unwrap()[1].parse().unwrap();
    let range = format!("{first}-{}", first + 65_535);
    // usermod takes nothing from somebody whose processes run.
    host::stop_namespace();
    run(&format!("usermod --del-subuids {range} --del-subgids {range} {CLUSTER}"));
    assert_eq!(ranges(), [None, None]);
    let planned = change(&format!("{line} --dry-run"));
    assert_eq!(ranges(), [None, None], "a dry run did something");
    let given = change(line);
    assert_eq!(given, planned);
    assert_eq!(strings(&given["steps"]), [format!("give {CLUSTER} 65536 subordinate ids")]);
    assert_eq!(ranges(), were);
    assert!(!changed(line));
    host::start_namespace();
    assert_eq!(people::enter(CLUSTER, &["id", "-u"]), "0\n");
    assert_eq!(everything(), before, "he is made of what was there");
    // He is no user like the others: nothing else is done to him.
    assert_eq!(change("list")["users"], json!([]));
}

/// One that is not there yet.
fn another_cluster_user(oracle: &mut Oracle) {
    let (name, home) = ("kube-admin", "/var/lib/kube-admin");
    let line = format!("create {name} --category cluster-admin");
    assert_eq!(refused(user(ALICE, &line)), (2, "bad-name".into()));
    {
        let _configured = Configured::with(&format!("[accounts]\ncluster_user = \"{name}\"\n"));
        assert_eq!(
            refused(user(ALICE, &format!("create {name} --category image-user"))),
            (2, "bad-name".into())
        );
        let before = everything();
        let planned = change(&format!("{line} --dry-run"));
        assert_eq!(everything(), before, "a dry run did something");
        let made = change(&line);
        let _bare = Bare(name.into());
        assert_eq!((made, strings(&planned["steps"]).len()), (planned, 3));
        let number = uid(name);
        assert!((1..1000).contains(&number), "{number} is no system user's");
        assert!(field("/etc/shadow", name, 1).starts_with('!'));
        assert_eq!((field("/etc/passwd", name, 5), mode(home)), (home.into(), (number, 0o700)));
        for file in ["/etc/subuid", "/etc/subgid"] {
            assert_eq!(field(file, name, 2), "65536");
        }
        assert_ids_are_apart();
        assert!(!changed(&line));
        assert_eq!(refused(user(ALICE, &format!("delete {name} --yes"))), (77, "unmanaged-user".into()));
        fs::remove_dir(home).unwrap();
        assert!(changed(&line) && mode(home) == (number, 0o700));
    }
    fs::remove_dir(home).unwrap();
    oracle.expect_new_daemon();
}

fn id_maps_for_image_users_only(_: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    change(ZOE);
    let bare = Bare::make("bare", "");
    let programs = ["/usr/bin/newuidmap", "/usr/bin/newgidmap"];
    let modes =
        || programs.map(|path| fs::metadata(path).map(|meta| (meta.mode(), meta.uid(), meta.gid())).unwrap());
    let before = (modes(), everything());
    let maps = |who: &str| shell(who, "unshare --user --map-auto --map-root-user true").status.success();
    // By a shell: what setpriv starts itself is still root's to open.
    let runs = |who: &str| {
        let told = String::from_utf8(shell(who, "newuidmap").stderr).unwrap();
        let (denied, usage) = (told.contains("Permission denied"), told.contains("usage: newuidmap"));
        assert!(denied != usage, "{told}");
        usage
    };
    let everybody = |text: &Value| strings(text)[0].contains("everybody");
    assert!(everybody(&change("restrict-idmaps")["warnings"]));
    assert!(maps("bare") && maps("zoe") && maps(CLUSTER) && runs(MALLORY));
    assert!(changed("restrict-idmaps on --dry-run") && modes() == before.0);
    for _ in 0..2 {
        assert!(changed("restrict-idmaps on") && !changed("restrict-idmaps on"));
        assert!(!everybody(&change("restrict-idmaps")["warnings"]));
        assert!(!maps("bare") && !runs("bare") && !runs(MALLORY));
        assert!(maps("zoe") && maps(CLUSTER) && runs(CLUSTER) && runs(ROOT));
        // Rootless Kubernetes comes up under it.
        host::stop_namespace();
        host::start_namespace();
        assert_eq!(people::enter(CLUSTER, &["id", "-u"]), "0\n");
        assert!(changed("restrict-idmaps off --dry-run") && !runs(MALLORY));
        assert!(changed("restrict-idmaps off") && !changed("restrict-idmaps off"));
        assert!(maps("bare") && runs(MALLORY));
        assert_eq!((modes(), everything()), before, "not as it was");
    }
    // Who was in the group before stays in it.
    run(&format!("gpasswd --add {CLUSTER} podman"));
    assert!(changed("restrict-idmaps on") && changed("restrict-idmaps off"));
    assert!(field("/etc/group", "podman", 3).split(',').any(|member| member == CLUSTER));
    run(&format!("gpasswd --delete {CLUSTER} podman"));
    drop(bare);
}

// ---- 40 to 47: what is asked, and about whom

fn image_user() -> Option<Category> {
    Some(Category::ImageUser(ImageUser {}))
}

fn create(name: &str, category: Option<Category>) -> CreateUserRequest {
    CreateUserRequest { name: name.into(), category, ..CreateUserRequest::default() }
}

/// One request of each method that is about a user; only the answers are of interest.
async fn each_method(service: &mut UserServiceClient<Channel>, name: &str) -> Vec<Result<(), Status>> {
    let name = || name.to_owned();
    vec![
        service.create(create(&name(), image_user())).await.map(drop),
        service.set_password(SetPasswordRequest { name: name(), password: PASSWORD.into() }).await.map(drop),
        service.lock(LockUserRequest { name: name(), dry_run: false }).await.map(drop),
        service.unlock(UnlockUserRequest { name: name(), dry_run: false }).await.map(drop),
        service.delete(DeleteUserRequest { name: name(), remove_home: true, dry_run: false }).await.map(drop),
        service.verify(VerifyUserRequest { name: name() }).await.map(drop),
    ]
}

fn assert_refused(status: &Status, code: Code, reason: &str, what: &str) {
    assert_eq!((status.code(), &*client::reason(status)), (code, reason), "{what}: {status:?}");
}

/// Since then there is a refusal of that kind for each of so many in the audit, and nothing else.
fn assert_denials(oracle: &Oracle, since: usize, count: usize, reason: &str) {
    let records = oracle.audit().split_off(since);
    let others: Vec<_> =
        records.iter().filter(|record| record["phase"] != "deny" || record["reason"] != reason).collect();
    assert!(others.is_empty(), "{others:#?}");
    assert_eq!(records.len(), count);
    // What was wrong is not repeated where it would be read.
    assert!(records.iter().all(|record| text(&record["target"]).is_empty()), "{records:#?}");
}

/// What no name may have in it, between dots.
const PARTS: &str = "\n·\r·\r\n·\t·\0· ·\u{b}·\u{c}·\u{1b}[2J·\u{7f}·\u{85}·\u{a0}·\u{200b}·\u{202e}·\u{2028}·\
    \u{feff}·\u{301}·:·,·/·\\·/../·$·$(id)·`id`·;·|·&·<·>·*·?·~·#·%n·\"·'·@·.·+·=·!·{}·é·ß·о·ѕ·ⅼ·ｚ·A·Z·İ·𝓪";
/// What is no name as a whole.
const NAMES: &str = "·.·..·/·../·../root·../../etc/passwd·-·--·-rf·-rf/·--help·--root=/tmp·-D·-u0·0·00·1000·4294967295·\
    4294967296·-1·0x0·1zoe·123456789·Root·ROOT·rOOT·Zoe·zoe$·zoe$$·rооt·rоot·ｒｏｏｔ·root\0·root\n·root:·root:x:0:0·\
    +·+root·+@all·nobody:·u7s-admin\n·zoe\nroot2:x:0:0::/:/bin/sh·zoe.json·../users/zoe";

fn hostile_names() -> BTreeSet<String> {
    let with = |part: &str| {
        let line = format!("zoe{part}:x:0:0::/root:/bin/bash");
        [
            part.to_owned(),
            format!("{part}zoe"),
            format!("zoe{part}"),
            format!("zo{part}e"),
            format!("root{part}"),
            line,
        ]
    };
    let mut names: BTreeSet<_> = PARTS.split('·').flat_map(with).collect();
    names.extend(NAMES.split('·').map(str::to_owned));
    names.extend([33, 64, 255, 4096, 100_000].map(|length| "a".repeat(length)));
    names.extend(["_".repeat(33), "é".repeat(16), "a".repeat(31) + "$", "-".to_owned() + &"a".repeat(31)]);
    names
}

fn t40_names(oracle: &mut Oracle) {
    with_every_refusal(oracle, |oracle| {
        let before = everything();
        let names = hostile_names();
        println!("{} names", names.len());
        client::block_on(async {
            let mut service = client::users().await;
            for name in &names {
                for answer in each_method(&mut service, name).await {
                    let status = answer.unwrap_err();
                    assert_refused(&status, Code::InvalidArgument, "bad-name", &format!("{name:?}"));
                }
            }
        });
        assert_denials(oracle, 0, 6 * names.len(), "bad-name");
        assert_eq!(everything(), before);

        // Names of others that are good ones.
        let since = oracle.audit().len();
        let taken = ["root", "daemon", "bin", "nobody", "podsec", ALICE, CAROL, DAVE];
        client::block_on(async {
            let mut service = client::users().await;
            for name in taken {
                for dry_run in [true, false] {
                    let request = CreateUserRequest { dry_run, ..create(name, image_user()) };
                    let status = service.create(request).await.unwrap_err();
                    assert_refused(&status, Code::FailedPrecondition, "user-exists", name);
                }
            }
        });
        let records = oracle.audit().split_off(since);
        let fails: Vec<_> = records.iter().filter(|record| record["phase"] == "fail").collect();
        assert_eq!((fails.len(), records.len()), (2 * taken.len(), 4 * taken.len()));
        assert!(fails.iter().all(|record| record["reason"] == "user-exists"), "{fails:#?}");
        assert_eq!(everything(), before);
    });
}

/// What no full name may have in it, and what is none as a whole.
const FULL_PARTS: &str = "\n·\r·\0·\t·\u{1b}·\u{1b}[2J·\u{8}·\u{7f}·\u{85}·\u{9b}·\u{a0}·\u{200b}·\u{200d}·\u{202e}·\
    \u{2066}·\u{2028}·\u{feff}·\u{e0041}·:·,·=·<·>·\"·\\·&·|·$·`·%·@·{·;·#·!·*·?·_·+·🙂·\r\nroot2:x:0:0::/root:/bin/sh·\
    :/:/bin/sh";
const FULL_NAMES: &str = " Zoe·Zoe ·0Zoe·-Zoe·.·/·'Zoe· ·x\nroot2::0:0::/:/bin/sh·pam=umask=0";

fn t41_full_names(oracle: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    let with = |part: &str| [part.to_owned(), format!("Zoe{part}"), format!("Zo{part}e")];
    let mut texts: BTreeSet<_> = FULL_PARTS.split('·').flat_map(with).collect();
    texts.extend(FULL_NAMES.split('·').map(str::to_owned));
    texts.extend(["Z".repeat(121), "é".repeat(61), "Z".repeat(100_000)]);
    with_every_refusal(oracle, |oracle| {
        let before = everything();
        client::block_on(async {
            let mut service = client::users().await;
            for full_name in &texts {
                let request =
                    CreateUserRequest { full_name: full_name.clone(), ..create("zoe", image_user()) };
                let status = service.create(request).await.unwrap_err();
                assert_refused(&status, Code::InvalidArgument, "bad-full-name", &format!("{full_name:?}"));
            }
        });
        assert_denials(oracle, 0, texts.len(), "bad-full-name");
        assert_eq!(everything(), before);
        // What people are called.
        for full_name in ["Zoë O'Neill-Смит", "王小明", "Z", "Zoe Z. (2nd/3rd)"] {
            let mut command = podsecctl(ALICE, &format!("{ZOE} --full-name"));
            good(answer(&command.arg(full_name).output().unwrap()));
            assert_eq!(field("/etc/passwd", "zoe", 4), full_name);
            assert!(changed("delete zoe --remove-home --yes"));
        }
    });
}

/// What is in the files of these directories, and in podsecd's log.
fn files_with(needle: &[u8]) -> Vec<PathBuf> {
    const TREES: [&str; 6] =
        ["/var/log/podsec", "/var/lib/podsec", "/run/podsec", "/run/podsec-tests/daemon.log", "/etc", "/tmp"];
    let mut trees = TREES.map(PathBuf::from).to_vec();
    let mut found = Vec::new();
    while let Some(path) = trees.pop() {
        let Ok(meta) = path.symlink_metadata() else { continue };
        // This source itself, wherever it is checked out.
        if path == host::top() {
            continue;
        }
        if meta.is_dir() {
            trees.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if meta.is_file() && hits(&fs::read(&path).unwrap_or_default(), needle) > 0 {
            found.push(path);
        }
    }
    found
}

fn hits(bytes: &[u8], needle: &[u8]) -> usize {
    let mut found = 0;
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == needle[0]) {
        found += usize::from(rest[at..].starts_with(needle));
        rest = &rest[at + 1..];
    }
    found
}

fn t42_passwords_that_are_none(oracle: &mut Oracle) {
    const MARK: &str = "hunter2-4217";
    let _gone = Gone::after(&["zoe", "cleo"]);
    change(ZOE);
    good(passwd(ALICE, "zoe", PASSWORD));
    let mark = MARK.as_bytes();
    let with = |before: &[u8], after: &[u8]| [before, mark, after].concat();
    let passwords: [Vec<u8>; 18] = [
        vec![],
        b":".to_vec(),
        b"short".to_vec(),
        with(b"x\nroot:", b""),
        with(b"", b"\nroot:hunter2-4217"),
        with(b"", b"\n"),
        with(b"\n", b""),
        with(b"\r", b""),
        with(b"", b"\r\n"),
        with(b"", b"\0"),
        with(b"\0", b""),
        with(b"\t", b""),
        with(b"", b"\x1b[2J"),
        with(b"", b"\x7f"),
        with(b"", b"\xff\xfe"),
        with(b"\xc3", b""),
        with(b"", "\u{85}".as_bytes()),
        with(b"", &[b'x'; 256]),
    ];
    with_every_refusal(oracle, |oracle| {
        let since = oracle.audit().len();
        let before = everything();
        let key = |passphrase: Vec<u8>| {
            let key = Some(SigningKey { passphrase, ..SigningKey::default() });
            let creator = ImageCreator { scopes: vec!["registry.local/cleo".into()], shared: false, key };
            create("cleo", Some(Category::ImageCreator(creator)))
        };
        let mut count = 0;
        client::block_on(async {
            let mut service = client::users().await;
            for password in &passwords {
                for name in ["zoe", "root", "nobody-here"] {
                    let request = SetPasswordRequest { name: name.into(), password: password.clone() };
                    let status = service.set_password(request).await.unwrap_err();
                    let shown = password.escape_ascii().to_string();
                    assert_refused(&status, Code::InvalidArgument, "bad-secret", &shown);
                    assert!(!format!("{status:?}").contains(MARK), "it is repeated: {status:?}");
                    count += 1;
                }
                // No passphrase at all is another matter.
                if !password.is_empty() {
                    let status = service.create(key(password.clone())).await.unwrap_err();
                    assert_refused(&status, Code::InvalidArgument, "bad-secret", "a passphrase");
                    assert!(!format!("{status:?}").contains(MARK), "it is repeated: {status:?}");
                    count += 1;
                }
            }
        });
        assert_denials(oracle, since, count, "bad-secret");
        // More than any message may be.
        for megabyte in [with(&vec![b'x'; 1 << 20], b""), with(b"", &vec![b'\n'; 1 << 20])] {
            let request = SetPasswordRequest { name: "zoe".into(), password: megabyte };
            let status = client::block_on(async { client::users().await.set_password(request).await });
            let status = status.unwrap_err();
            assert_refused(&status, Code::InvalidArgument, "protocol", "1 MiB");
        }
        // podsecctl says so before it asks anybody.
        let since = oracle.audit().len();
        for password in passwords.iter().filter(|password| !password.ends_with(b"\n")) {
            let output = with_input(podsecctl(ALICE, "passwd zoe --stdin"), password);
            assert!(!String::from_utf8_lossy(&output.stderr).contains(MARK), "it is repeated");
            assert_eq!(refused(answer(&output)), (2, "usage".into()));
        }
        assert_eq!(oracle.audit().len(), since);
        assert_eq!(everything(), before);
        assert_eq!(files_with(mark), [] as [PathBuf; 0]);
    });
}

/// How often it is in what a process can write to.
fn in_memory(pid: i32, needle: &[u8]) -> usize {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return 0 };
    let mut found = 0;
    for map in maps.lines().filter(|map| map.split(' ').nth(1).is_some_and(|mode| mode.starts_with("rw"))) {
        let (first, end) = map.split(' ').next().unwrap().split_once('-').unwrap();
        let [first, end] = [first, end].map(|address| u64::from_str_radix(address, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(end - first).unwrap()];
        // Some of the kernel's own cannot be read.
        if memory.read_exact_at(&mut bytes, first).is_ok() {
            found += hits(&bytes, needle);
        }
    }
    found
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// Processes that show it to others.
fn shown_by(needle: &[u8]) -> Vec<i32> {
    let shows = |pid: &i32| {
        ["cmdline", "environ"]
            .iter()
            .any(|file| hits(&fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default(), needle) > 0)
    };
    pids().into_iter().filter(shows).collect()
}

/// The lock of lckpwdf(3), which chpasswd waits for, as long as the file is open.
fn account_files_held() -> File {
    let file = File::options().write(true).create(true).truncate(false).open("/etc/.pwd.lock").unwrap();
    let l_type = i16::try_from(libc::F_WRLCK).unwrap();
    let whole = libc::flock { l_type, l_whence: 0, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&file, FcntlArg::F_SETLKW(&whole)).unwrap();
    file
}

fn t42_a_password_stays_nowhere(_: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    change(ZOE);
    let random = podsec_sys::process::random::<16>().unwrap();
    let password = podsec_policy::audit::hex(&random);
    let needle = password.as_bytes();
    let gate = host::daemon_pid();
    // The search finds what is there.
    assert!(in_memory(gate, b"/run/podsec") > 0, "podsecd's memory cannot be read");
    let set = || {
        let request = SetPasswordRequest { name: "zoe".into(), password: password.clone().into() };
        let set: Result<tonic::Response<UserChange>, Status> =
            client::block_on(async { client::users().await.set_password(request).await });
        assert!(set.unwrap().into_inner().changed);
    };
    for _ in 0..host::count(30, 100) {
        set();
        assert_eq!(in_memory(gate, needle), 0, "podsecd keeps it");
    }
    // While chpasswd waits, the programs that need it have it, and podsecd has it no more.
    let held = account_files_held();
    let of = |program: &str| {
        let is_it = |pid: &i32| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == program)
        };
        pids().into_iter().filter(is_it).collect::<Vec<_>>()
    };
    let have = |program: &str| of(program).into_iter().filter(|&pid| in_memory(pid, needle) > 0).count();
    std::thread::scope(|scope| {
        let setting = scope.spawn(set);
        host::wait_for("chpasswd", || !of("chpasswd").is_empty() && have("podsecd-worker") > 0);
        println!("in the memory of {} front and {} chpasswd", have("podsecd-front"), have("chpasswd"));
        assert_eq!(in_memory(gate, needle), 0, "podsecd keeps it");
        assert_eq!(shown_by(needle), [] as [i32; 0]);
        assert_eq!(files_with(needle), [] as [PathBuf; 0]);
        drop(held);
        setting.join().unwrap();
    });
    assert_eq!(in_memory(gate, needle), 0, "podsecd keeps it");
    assert_eq!(shown_by(needle), [] as [i32; 0]);
    assert_eq!(files_with(needle), [] as [PathBuf; 0]);
    assert!(!host::daemon_log().contains(&password));
    assert!(logs_in("zoe", &password));
    // Nor is it anywhere when the one who sets it is podsecctl.
    good(passwd(ALICE, "zoe", &password));
    assert_eq!((in_memory(gate, needle), files_with(needle)), (0, vec![]));
}

fn t43_users_of_others(oracle: &mut Oracle) {
    let _gone = Gone::after(&["wanda", "wilma", "rex"]);
    for name in ["wanda", "wilma", "rex"] {
        change(&format!("create {name} --category cluster-user"));
        good(passwd(ALICE, name, PASSWORD));
    }
    let bare = Bare::make("bare", "");
    // Administrators now, one of them by his first group; and somebody else of the same name.
    run("gpasswd --add wanda wheel");
    run("usermod --gid wheel wilma");
    run("userdel rex");
    let rex = Bare::make("rex", "--uid 1999");
    let before = everything();
    let since = oracle.audit().len();
    let others = ["root", "daemon", "nobody", ALICE, CAROL, CLUSTER, "podsec", "bare", "wanda", "wilma"];
    let mut asked = Vec::new();
    for name in others.into_iter().chain(["rex", "nobody-here"]) {
        let mut lines =
            vec![format!("lock {name}"), format!("lock {name} --dry-run"), format!("unlock {name}")];
        lines.push(format!("verify {name}"));
        if others.contains(&name) {
            lines.push(format!("delete {name} --remove-home --yes"));
            lines.push(format!("delete {name} --yes --dry-run"));
        }
        for line in &lines {
            let refusal = refused(user(ALICE, line));
            assert_eq!(refusal, (77, "unmanaged-user".into()), "{line}");
        }
        assert_eq!(refused(passwd(ROOT, name, PASSWORD)), (77, "unmanaged-user".into()), "{name}");
        asked.extend(std::iter::repeat_n(name.to_owned(), lines.len() + 1));
    }
    assert_eq!(everything(), before);
    let records = oracle.audit().split_off(since);
    let denials: Vec<_> = records.iter().filter(|record| record["phase"] == "deny").collect();
    assert!(denials.iter().all(|record| record["reason"] == "unmanaged-user"), "{denials:#?}");
    let whom = |record: &&Value| text(&record["target"]).split(' ').next().unwrap().to_owned();
    assert_eq!(denials.iter().map(whom).collect::<Vec<_>>(), asked);
    assert_eq!(records.len(), 2 * asked.len(), "an intent and a refusal for each");
    // What podsec has of the one who is somebody else now is forgotten; the account is not his, and stays.
    assert_eq!(state("rex"), "gone");
    let deleted = change("delete rex --remove-home --yes");
    assert!(strings(&deleted["warnings"])[0].contains("stays"), "{deleted:#?}");
    assert_eq!((uid("rex"), Path::new("/home/rex").exists()), (1999, true));
    assert_eq!(refused(user(ALICE, "create rex --category cluster-user")), (78, "user-exists".into()));
    // No administrators any more, they are podsec's again.
    run("gpasswd --delete wanda wheel");
    run("usermod --gid wilma wilma");
    assert!(changed("lock wanda") && changed("lock wilma"));
    drop((bare, rex));
}

fn t44_other_categories_and_taken_names(oracle: &mut Oracle) {
    let _gone = Gone::after(&["zoe", "cleo", "kim"]);
    let categories = [
        ("zoe", "image-user"),
        ("cleo", "image-creator --scope registry.local/cleo"),
        ("kim", "cluster-user"),
    ];
    for (name, category) in categories {
        change(&format!("create {name} --category {category}"));
    }
    let group = [Edited::with("/etc/group", str::to_owned), Edited::with("/etc/gshadow", str::to_owned)];
    run("groupadd docker");
    let bare = Bare::make("bare", "");
    let before = everything();
    let since = oracle.audit().len();
    let mut count = 0;
    let mut fails = |name: &str, category: &str, reason: &str| {
        for dry_run in ["", "--dry-run"] {
            let (status, told) =
                refused(user(ALICE, &format!("create {name} --category {category} {dry_run}")));
            let expected = if reason == "bad-name" { 2 } else { 78 };
            assert_eq!((status, &*told), (expected, reason), "{name}: {category}");
            count += 1;
        }
    };
    for (name, own) in categories {
        for (_, other) in categories.iter().filter(|(_, category)| *category != own) {
            let other = other.replace("/cleo", "/other");
            fails(name, &other, "other-category");
        }
        fails(name, "cluster-admin", "bad-name");
    }
    for (_, category) in categories {
        let category = category.replace("/cleo", "/other");
        for name in ["bare", "docker", "wheel", "podman", "root", "daemon", ALICE, CAROL] {
            fails(name, &category, "user-exists");
        }
        fails(CLUSTER, &category, "bad-name");
    }
    for name in ["otto", "bare", "root"] {
        fails(name, "cluster-admin", "bad-name");
    }
    assert_eq!(everything(), before);
    let records = oracle.audit().split_off(since);
    let failed = records.iter().filter(|record| record["phase"] == "fail" && record["step"] == "plan");
    assert_eq!((failed.count(), records.len()), (count, 2 * count));
    // No category at all, or one more than there is room for on the wire.
    let none = client::block_on(async { client::users().await.create(create("otto", None)).await });
    assert_refused(&none.unwrap_err(), Code::InvalidArgument, "bad-argument", "no category");
    let admin = Some(Category::ClusterAdmin(ClusterAdmin {}));
    let admin = client::block_on(async { client::users().await.create(create("otto", admin)).await });
    assert_refused(&admin.unwrap_err(), Code::InvalidArgument, "bad-name", "another cluster user");
    run("groupdel docker");
    drop((bare, group));
}

fn t45_something_in_the_place_of_the_home(oracle: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    // What he would own by the uid that he will have, whoever has left it there.
    change(ZOE);
    let next = format!("install -d -m 700 -o {} /home/zoe", uid("zoe"));
    assert!(changed("delete zoe --remove-home --yes"));
    let places = [
        ("another's directory", "install -d -o mallory -m 700 /home/zoe", "rmdir /home/zoe"),
        ("a directory of the next uid", &next, "rm -r /home/zoe"),
        ("root's directory", "install -d -m 755 /home/zoe; touch /home/zoe/file", "rm -r /home/zoe"),
        ("an empty directory", "mkdir /home/zoe", "rmdir /home/zoe"),
        ("a link to /etc", "ln -s /etc /home/zoe", "rm /home/zoe"),
        ("a link to nowhere", "ln -s /nowhere /home/zoe", "rm /home/zoe"),
        ("a link to another's home", "ln -s mallory /home/zoe", "rm /home/zoe"),
        ("a mount", "mkdir /home/zoe; mount -t tmpfs zoe /home/zoe", "umount /home/zoe; rmdir /home/zoe"),
        ("a file", "touch /home/zoe", "rm /home/zoe"),
        ("a FIFO", "mkfifo /home/zoe", "rm /home/zoe"),
        ("a device", "mknod /home/zoe c 1 3", "rm /home/zoe"),
    ];
    for (what, before, after) in places {
        assert!(shell(ROOT, before).status.success(), "{what}");
        let was = (everything(), mode("/etc"), mode("/home/mallory"));
        for line in [ZOE, "create zoe --category cluster-user", &format!("{ZOE} --dry-run")] {
            assert_eq!(refused(user(ALICE, line)), (78, "home-exists".into()), "{what}");
        }
        assert_eq!((everything(), mode("/etc"), mode("/home/mallory")), was, "{what}");
        assert!(shell(ROOT, after).status.success(), "{what}");
    }
    let fails = records(oracle, "fail");
    assert_eq!(fails.len(), 3 * places.len());
    assert!(
        fails.iter().all(|record| record["reason"] == "home-exists" && record["step"] == "plan"),
        "{fails:#?}"
    );
    assert!(changed(ZOE) && mode("/home/zoe") == (uid("zoe"), 0o700));
}

/// Entries of /etc/skel that are gone again when this is dropped.
struct Skeleton;

impl Skeleton {
    fn with(script: &str) -> Self {
        let output = shell(ROOT, &format!("cp -a /etc/skel /etc/skel.old; cd /etc/skel; {script}"));
        assert!(output.status.success(), "{output:?}");
        Self
    }
}

impl Drop for Skeleton {
    fn drop(&mut self) {
        shell(ROOT, "rm -rf /etc/skel; mv /etc/skel.old /etc/skel");
    }
}

fn t46_traps_in_the_skeleton(_: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    let traps = [
        "link",
        "dangling",
        "to-etc",
        "fifo",
        "setuid",
        "setgid",
        "huge",
        "in/here/link",
        "closed",
        "secret",
    ];
    let skeleton = Skeleton::with(
        "ln -s /etc/shadow link; ln -s /nowhere dangling; ln -s /etc to-etc; mkfifo fifo
        cp /bin/true setuid; chmod 4755 setuid; cp /bin/true setgid; chmod 2755 setgid
        truncate -s 2M huge; mkdir -p in/here in/empty; echo text >in/here/file; ln -s /etc/shadow in/here/link
        echo plain >plain; chmod 666 plain; printf '#!/bin/sh\\n' >program; chmod 755 program
        mkdir .config; echo his >.config/his
        mkdir -m 700 closed; echo x >closed/x; echo root-only >secret; chmod 600 secret",
    );
    let made = change(ZOE);
    let warnings = strings(&made["warnings"]);
    for trap in traps {
        let path = format!("/etc/skel/{trap} was not copied");
        assert_eq!(
            warnings.iter().filter(|text| text.starts_with(&path)).count(),
            1,
            "{trap}: {warnings:#?}"
        );
        assert!(Path::new("/home/zoe").join(trap).symlink_metadata().is_err(), "{trap} was copied");
    }
    assert_eq!(warnings.len(), traps.len(), "{warnings:#?}");
    let number = uid("zoe");
    let at = |path: &str| Path::new("/home/zoe").join(path);
    for (path, bits) in [("plain", 0o644), ("program", 0o755), ("in/here/file", 0o644)] {
        assert_eq!(mode(at(path)), (number, bits), "{path}");
        assert_eq!(fs::read(at(path)).unwrap(), fs::read(Path::new("/etc/skel").join(path)).unwrap());
        assert_eq!(at(path).metadata().unwrap().gid().to_string(), field("/etc/passwd", "zoe", 3));
    }
    for path in ["in", "in/here", "in/empty", ".config"] {
        assert!(at(path).is_dir() && mode(at(path)).0 == number, "{path}");
    }
    assert!(fs::read_dir(at("in/empty")).unwrap().next().is_none());
    // What the skeleton has in .config is his; what is below containers is the guard's.
    assert_eq!(fs::read_to_string(at(".config/his")).unwrap(), "his\n");
    assert_whole(&["zoe".to_owned()]);
    assert!(changed("delete zoe --remove-home --yes") && !at("").exists());
    drop(skeleton);
    // None at all.
    let skeleton = Skeleton::with("rm -r /etc/skel");
    assert_eq!(change(ZOE)["warnings"], json!([]));
    assert_whole(&["zoe".to_owned()]);
    assert!(changed("delete zoe --remove-home --yes"));
    drop(skeleton);
}

fn t47_crafted_ranges(oracle: &mut Oracle) {
    // A creator: for an image user every check tries all ways around the guard.
    const CREATE: &str = "create zoe --category image-creator --scope a.b";
    let _gone = Gone::after(&["zoe"]);
    let first = || field("/etc/subuid", "zoe", 1).parse::<u64>().unwrap();
    change(CREATE);
    let usual = first();
    assert!(changed("delete zoe --remove-home --yes"));

    // Where they leave room: nobody gets what is in them.
    let rest = usual + 65_536;
    let room = [
        ("count 0", format!("evil:{usual}:0"), usual),
        ("negative", format!("evil:-1:{usual}"), usual),
        ("a negative count", format!("evil:{usual}:-65536"), usual),
        ("no numbers", "evil:x:y\nevil\nevil::\n:::::".to_owned(), usual),
        ("the last number", "evil:4294967295:1".to_owned(), usual),
        ("past the last number", "evil:4294967295:65536".to_owned(), usual),
        ("more than 32 bits", "evil:4294967296:65536".to_owned(), usual),
        ("more than 64 bits", "evil:99999999999999999999:65536".to_owned(), usual),
        ("one id in the middle", format!("evil:{}:1", usual + 7), usual + 8),
        ("one id at its end", format!("evil:{}:1", usual + 65_535), rest),
        ("two that overlap", format!("evil:{usual}:10\nevil2:{}:20", usual + 5), usual + 25),
        ("hexadecimal", format!("evil:{usual:#x}:0x10000"), rest),
        ("octal", format!("evil:0{usual:o}:65536"), rest),
        ("with blanks and a sign", format!("evil: {usual}:+65536"), rest),
        ("by number", format!("1234:{usual}:65536"), rest),
        ("up to the last", format!("evil:{rest}:4294967295"), usual),
    ];
    for (what, lines, expected) in &room {
        for file in ["/etc/subuid", "/etc/subgid"] {
            let edited = Edited::with(file, |text| format!("{text}{lines}\n"));
            assert!(changed(CREATE), "{what} in {file}");
            assert_eq!(first(), *expected, "{what} in {file}");
            assert_eq!(findings(ALICE, "zoe")["subids"], "ok", "{what} in {file}");
            assert!(changed("delete zoe --remove-home --yes"));
            drop(edited);
        }
    }
    // Ids that somebody is.
    for (file, line) in [
        ("/etc/passwd", format!("ghost:x:{}:1::/:/bin/false", usual + 3)),
        ("/etc/group", format!("ghost:x:{}:", usual + 3)),
    ] {
        let edited = Edited::with(file, |text| format!("{text}{line}\n"));
        assert!(changed(CREATE), "{file}");
        assert_eq!(first(), usual + 4, "{file}");
        assert!(changed("delete zoe --remove-home --yes"));
        drop(edited);
    }
    // None left: soon said, and nothing begun.
    let before = everything();
    let since = oracle.audit().len();
    let none = [
        ("all", "evil:100000:600000001"),
        ("all and more", "evil:0:4294967295"),
        ("too many to count", "evil:1:18446744073709551615"),
        ("more than 32 bits", "evil:100000:4294967296"),
        ("more than 64 bits", "evil:100000:99999999999999999999"),
        ("two halves", "evil:100000:300000000\nevil2:300100000:300000001"),
        ("with a gap of one too few", "evil:100000:300000000\nevil2:300165535:300000001"),
    ];
    for (what, lines) in none {
        for file in ["/etc/subuid", "/etc/subgid"] {
            let edited = Edited::with(file, |text| format!("{text}{lines}\n"));
            let start = Instant::now();
            for line in [ZOE, CREATE] {
                assert_eq!(refused(user(ALICE, line)), (75, "subid-range".into()), "{what} in {file}");
            }
            assert!(start.elapsed().as_secs() < 2, "{what}: {:?}", start.elapsed());
            drop(edited);
        }
    }
    assert_eq!(everything(), before);
    let records = oracle.audit().split_off(since);
    let fails =
        records.iter().filter(|record| record["phase"] == "fail" && record["reason"] == "subid-range");
    assert_eq!((fails.count(), records.len()), (4 * none.len(), 8 * none.len()));
    // Whose own overlaps with another's is told so, and is not called whole.
    change(ZOE);
    let edited = Edited::with("/etc/subuid", |text| format!("{text}evil:{}:1\n", usual + 100));
    assert_eq!(findings(ALICE, "zoe")["subids"], "broken");
    assert_eq!(refused(user(ALICE, ZOE)).1, "subid-range");
    drop(edited);
    assert_eq!(findings(ALICE, "zoe")["subids"], "ok");
}

// ---- 57: around the guard

/// All that `user verify` says of an image user, in its order.
const TABLE: [(&str, &str); 15] = [
    ("account", "account"),
    ("groups", "account"),
    ("subids", "account"),
    ("home", "account"),
    ("policy", "guard-rail"),
    ("rename-config", "guard-rail"),
    ("plain-copy", "guard-rail"),
    ("other-home", "guard-rail"),
    ("policy-option", "guard-rail"),
    ("insecure-policy", "guard-rail"),
    ("own-program", "guard-rail"),
    ("podman-load", "guard-rail"),
    ("single-uid-namespace", "guard-rail"),
    ("detection", "detection"),
    ("containment", "containment"),
];

fn t57_ways_around_the_guard(_: &mut Oracle) {
    let _gone = Gone::after(&["zoe"]);
    change(ZOE);
    let listing = || String::from_utf8(shell(ROOT, "find /home/zoe | sort").stdout).unwrap();
    let before = listing();
    let (status, objects) = user(ALICE, "verify zoe");
    assert_eq!(status, 1, "a way is open, and that is bad news");
    let rows = objects[0]["findings"].as_array().unwrap();
    let row = |row: &Value| (text(&row["name"]), text(&row["protection"]));
    assert_eq!(rows.iter().map(row).collect::<Vec<_>>(), TABLE.map(|(name, of)| (name.into(), of.into())));
    assert!(rows.iter().all(|row| !text(&row["detail"]).is_empty()));
    assert_eq!(listing(), before, "looking leaves something behind");
    let found = findings("zoe", "zoe");
    for (check, protection) in TABLE {
        let skopeo = Path::new("/usr/bin/skopeo").exists();
        let namespace = shell("zoe", "unshare --user true").status.success();
        let expected = match check {
            _ if protection == "account" => "ok",
            "policy" | "rename-config" => "ok",
            "plain-copy" if skopeo => "ok",
            "other-home" | "policy-option" | "insecure-policy" if skopeo => "open",
            "single-uid-namespace" => {
                if namespace {
                    "open"
                } else {
                    "ok"
                }
            }
            "own-program" | "containment" => "open",
            _ => "not-tried",
        };
        assert_eq!(found[check], expected, "{check}");
    }
    // What he can try on the files, he tries in vain.
    for script in [
        "mv ~/.config ~/x",
        "rmdir ~/.config",
        "rm -rf ~/.config",
        "mv ~/.config/containers ~/.config/x",
        "rm -rf ~/.config/containers",
        "rm -f ~/.config/containers/policy.json",
        "echo '{}' >~/.config/containers/policy.json",
        "ln -s /tmp ~/.config/x",
        "mkdir ~/.config/x",
        "touch ~/.config/x",
        "chmod 777 ~/.config",
        "chattr -i ~/.config",
        "ln ~/.config/containers/policy.json ~/x",
        // As root of a namespace of his own: it is not his there either.
        "unshare --user --map-root-user mv ~/.config ~/x",
        "unshare --user --map-root-user chattr -i ~/.config",
        "unshare --user --map-auto --map-root-user chown 0 ~/.config/containers",
    ] {
        let tried = shell("zoe", script);
        assert!(!tried.status.success(), "{script}");
        assert_eq!(listing(), before, "{script}");
        assert_eq!(findings(ALICE, "zoe")["policy"], "ok", "{script}");
    }
    assert!(String::from_utf8_lossy(&shell("zoe", "mv ~/.config ~/x").stderr).contains("not permitted"));
    // He cannot get rid of it by his home, which is in a directory of root's.
    assert!(!shell("zoe", "mv ~ /home/zoe2").status.success());
    // And it goes with him.
    assert!(changed("delete zoe --remove-home --yes") && !Path::new("/home/zoe").exists());
}

fn t57_a_file_system_without_attributes(oracle: &mut Oracle) {
    fs::create_dir_all("/srv/homes").unwrap();
    run("mount -t ramfs homes /srv/homes");
    fs::set_permissions("/srv/homes", fs::Permissions::from_mode(0o755)).unwrap();
    {
        let _configured = Configured::with("[users]\nhomes = \"/srv/homes\"\n");
        let _gone = Gone::after(&["zoe"]);
        let made = change(ZOE);
        let warnings = strings(&made["warnings"]);
        assert!(warnings.len() == 1 && warnings[0].starts_with("unsupported: "), "{warnings:?}");
        assert_eq!(field("/etc/passwd", "zoe", 5), "/srv/homes/zoe");
        assert!(!changed(ZOE), "it is as whole as it can be");
        let zoe = || findings(ALICE, "zoe");
        assert_eq!((&*zoe()["policy"], &*zoe()["rename-config"]), ("ok", "unsupported"));
        // As is said, he gets around it; that is seen.
        let around =
            "mv ~/.config ~/x; mkdir -p ~/.config/containers; echo '{}' >~/.config/containers/policy.json";
        assert!(shell("zoe", around).status.success());
        assert_eq!(zoe()["policy"], "broken");
        // What is his own in that place is not podsec's to take away.
        assert_eq!(refused(user(ALICE, ZOE)), (78, "home-trap".into()));
        assert!(shell("zoe", "mv ~/.config/containers ~/.config/his").status.success());
        assert!(strings(&change(ZOE)["warnings"])[0].starts_with("unsupported: "));
        assert_eq!((&*zoe()["policy"], &*zoe()["rename-config"]), ("ok", "unsupported"));
        assert!(changed("delete zoe --remove-home --yes"));
        assert!(!Path::new("/srv/homes/zoe").exists() && !Path::new("/home/zoe").exists());
    }
    run("umount /srv/homes");
    fs::remove_dir("/srv/homes").unwrap();
    oracle.expect_new_daemon();
}
