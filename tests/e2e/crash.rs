//! A crash at every step of every change: podsecd's worker, built with its fault points, is ended at each of them, alone or
//! with podsecd, or made to fail. Afterwards the host is whole, and the same request succeeds. Which points there are, the
//! changes themselves say: each is first run once to note what it passes.

use crate::Test;
use podsec_tests::host;
use podsec_tests::oracle::{self, Oracle};
use podsec_tests::people::{self, ALICE, ROOT};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

pub const TESTS: &[Test] = &[
    ("crash::at_every_step_of_every_change", at_every_step_of_every_change),
    ("crash::a_change_of_another_version_is_left_alone", a_change_of_another_version_is_left_alone),
    ("crash::no_release_has_fault_points", no_release_has_fault_points),
];

const PROGRAM: &str = "/usr/libexec/podsec/podsecd-worker";
const FAULT: &str = "/run/podsec-tests/fault";
const REACHED: &str = "/run/podsec-tests/fault-points";
const JOURNAL: &str = "/var/lib/podsec/journal";

/// podsecd with a worker that has fault points, until it is dropped.
struct Faulty;

impl Faulty {
    fn install() -> Self {
        let built = host::top().join("target/faults/podsecd-worker");
        assert!(
            built.exists(),
            "no {}; tests/host/check builds it, and so does: make faults",
            built.display()
        );
        Self::replace(&built);
        fs::write(REACHED, "").unwrap();
        Self
    }

    /// The warm ones are of the old program.
    fn replace(by: &Path) {
        host::stop_daemon("TERM");
        fs::remove_file(PROGRAM).unwrap();
        fs::copy(by, PROGRAM).unwrap();
        host::start_daemon(None);
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        let _ = fs::remove_file(FAULT);
        Self::replace(&host::bin_dir().join("podsecd-worker"));
    }
}

/// A change: what has to be there before, the request, and what is to be seen once it has succeeded.
struct Case {
    name: &'static str,
    before: &'static [&'static str],
    request: &'static str,
    after: fn() -> bool,
}

const ZOE: &str = "user create zoe --category image-user";
const CLEO: &str =
    "user create cleo --category image-creator --scope registry.local/cleo --with-key --no-key-passphrase";

const CASES: &[Case] = &[
    Case {
        name: "an image user",
        before: &[],
        request: ZOE,
        after: || state("zoe") == "no-password" && is_whole("zoe"),
    },
    Case {
        name: "an image creator with a key",
        before: &[],
        request: CLEO,
        after: || state("cleo") == "no-password" && keys("cleo") == ["current"],
    },
    Case {
        name: "a person of the cluster",
        before: &[],
        request: "user create zoe --category cluster-user",
        after: || is_whole("zoe"),
    },
    Case {
        name: "a user who lost his subordinate ids",
        before: &[ZOE, "!usermod --del-subuids 0-4294967294 --del-subgids 0-4294967294 zoe"],
        request: ZOE,
        after: || is_whole("zoe"),
    },
    Case {
        name: "a password",
        before: &[ZOE],
        request: "user passwd zoe --stdin",
        after: || state("zoe") == "active",
    },
    Case {
        name: "a lock",
        before: &[ZOE, "user passwd zoe --stdin"],
        request: "user lock zoe",
        after: || state("zoe") == "locked",
    },
    Case {
        name: "an unlock",
        before: &[ZOE, "user passwd zoe --stdin", "user lock zoe"],
        request: "user unlock zoe",
        after: || state("zoe") == "active",
    },
    Case {
        name: "a deletion with the home",
        before: &[ZOE],
        request: "user delete zoe --remove-home --yes",
        after: || !Path::new("/home/zoe").exists(),
    },
    Case {
        name: "a deletion that keeps the home, with keys",
        before: &[CLEO],
        request: "user delete cleo --yes",
        after: || Path::new("/home/cleo").exists() && !Path::new("/var/sigstore/keys/cleo.pgp").exists(),
    },
    Case {
        name: "a rotation",
        before: &[CLEO, "!key"],
        request: "key rotate --creator cleo /run/podsec-tests/new.pgp",
        after: || keys("cleo") == ["previous", "current"],
    },
    Case {
        name: "a revocation",
        before: &[CLEO],
        request: "key revoke --creator cleo --yes FINGERPRINT",
        after: || keys("cleo") == ["revoked"] && !Path::new("/var/sigstore/keys/cleo.pgp").exists(),
    },
    Case {
        name: "restricted id maps",
        before: &[],
        request: "user restrict-idmaps on",
        after: || mode("/usr/bin/newuidmap") == 0o4710 && mode("/usr/bin/newgidmap") == 0o4710,
    },
    Case {
        name: "id maps for everybody again",
        before: &["user restrict-idmaps on"],
        request: "user restrict-idmaps off",
        after: || mode("/usr/bin/newuidmap") == 0o4755 && mode("/usr/bin/newgidmap") == 0o4755,
    },
];

fn mode(path: &str) -> u32 {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// A list in what podsecctl answers; a verdict may be bad news.
fn list(arguments: &[&str], key: &str) -> Vec<Value> {
    let output = people::podsecctl(ROOT, &[&["--json"], arguments].concat());
    let told: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
    told[key].as_array().unwrap_or_else(|| panic!("{arguments:?}: {told}\n{}", host::daemon_log())).clone()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

fn state(name: &str) -> String {
    let users = list(&["user", "list"], "users");
    let user = users.iter().find(|user| user["name"] == name);
    user.map_or_else(|| "none".into(), |user| text(user, "state").to_owned())
}

fn keys(creator: &str) -> Vec<String> {
    list(&["key", "list", creator], "keys").iter().map(|key| text(key, "state").to_owned()).collect()
}

/// All of the account is as it was made.
fn is_whole(name: &str) -> bool {
    let findings = list(&["user", "verify", name], "findings");
    let broken: Vec<_> = findings.iter().filter(|finding| finding["state"] == "broken").collect();
    assert!(broken.is_empty(), "{name}: {broken:#?}");
    !findings.is_empty()
}

/// A command line of podsecctl, or of the host's with `!` before it.
fn run(line: &str) -> Output {
    if line == "!key" {
        return new_key();
    }
    let (user, program, line) = match line.strip_prefix('!') {
        Some(line) => (ROOT, line.split(' ').next().unwrap(), line.split_once(' ').unwrap().1),
        None => (ALICE, "/usr/bin/podsecctl", line),
    };
    let fingerprint = || text(&list(&["key", "list", "cleo"], "keys")[0], "fingerprint").to_owned();
    let mut command = people::command(user, program);
    for word in line.split(' ') {
        command.arg(if word == "FINGERPRINT" { fingerprint() } else { word.to_owned() });
    }
    if line.ends_with("--stdin") {
        fs::write("/run/podsec-tests/password", "correct horse battery staple\n").unwrap();
        command.stdin(fs::File::open("/run/podsec-tests/password").unwrap());
    }
    command.output().unwrap()
}

/// Somebody's own new key, in `/run/podsec-tests/new.pgp`.
fn new_key() -> Output {
    let script = "set -e; export GNUPGHOME=/run/podsec-tests/gnupg; rm -rf $GNUPGHOME; mkdir -m 700 $GNUPGHOME
        gpg --batch --quiet --passphrase '' --quick-generate-key 'Cleo <cleo@registry.local>' ed25519 sign 1y
        gpg --batch --export >/run/podsec-tests/new.pgp; chmod 644 /run/podsec-tests/new.pgp; gpgconf --kill all";
    Command::new("/bin/bash").args(["-c", script]).stdin(Stdio::null()).output().unwrap()
}

fn succeeds(what: &str, line: &str) {
    let output = run(line);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{what}: {line}: {text}\n{}", host::daemon_log());
}

fn clean_up() {
    for name in ["zoe", "cleo"] {
        people::ctl(ROOT, &["user", "delete", name, "--remove-home", "--yes"]);
        let _ = fs::remove_dir_all(Path::new("/home").join(name));
    }
    people::ctl(ROOT, &["user", "restrict-idmaps", "off"]);
}

/// What a half-done change would leave. A deletion that fails, without a crash, cannot be undone: what is left of the user
/// is podsec's record, by which it is asked for again.
fn assert_whole(what: &str, half_removed: bool) {
    host::wait_for(&format!("recovery after {what}"), || fs::read_dir(JOURNAL).unwrap().next().is_none());
    for name in ["zoe", "cleo"] {
        let account =
            Command::new("/usr/bin/getent").args(["passwd", name]).output().unwrap().status.success();
        let record = Path::new("/var/lib/podsec/users").join(format!("{name}.json")).exists();
        if half_removed && !account {
            continue;
        }
        assert_eq!(
            account, record,
            "{what}: {name} is an account: {account}, one of podsec's users: {record}"
        );
        if account {
            // Whatever the change was: not half of an account.
            list(&["user", "verify", name], "findings");
        } else {
            for file in ["/etc/subuid", "/etc/subgid", "/etc/group", "/etc/shadow"] {
                let text = fs::read_to_string(file).unwrap();
                assert!(
                    !text.lines().any(|line| line.starts_with(&format!("{name}:"))),
                    "{what}: {file}:\n{text}"
                );
            }
        }
    }
}

fn at_every_step_of_every_change(oracle: &mut Oracle) {
    let faulty = Faulty::install();
    let (files, complaints) = (oracle::files(), oracle::complaints());
    let mut runs = 0;
    let mut points_of_all = 0;
    for case in CASES {
        let start = Instant::now();
        let prepare = || case.before.iter().for_each(|line| succeeds(case.name, line));
        prepare();
        fs::write(REACHED, "").unwrap();
        succeeds(case.name, case.request);
        let reached = fs::read_to_string(REACHED).unwrap();
        let mut points: Vec<&str> = reached.lines().collect();
        points.dedup();
        assert!(!points.is_empty(), "{} passes no point", case.name);
        assert!((case.after)(), "{}", case.name);
        clean_up();
        points_of_all += points.len();
        for point in points {
            // Ended alone; with podsecd; failing; and ended twice, the second time when it is asked again.
            for modes in [&["kill"][..], &["crash"], &["fail"], &["kill", "crash"]] {
                let what = format!("{}: {} at {point}", case.name, modes.join(" and "));
                prepare();
                for mode in modes {
                    fs::write(FAULT, format!("{point} {mode}")).unwrap();
                    let failed = !run(case.request).status.success();
                    // The second time it may not come by there any more.
                    let fired = fs::remove_file(FAULT).is_err();
                    assert!(
                        failed == fired && (fired || *mode != modes[0]),
                        "{what}: failed {failed}, fired {fired}"
                    );
                    if *mode == "crash" && fired {
                        host::wait_for("podsecd's end", || !host::is_alive(host::daemon_pid()));
                        host::start_daemon(None);
                    }
                    assert_whole(&what, case.request.starts_with("user delete") && *mode == "fail");
                }
                succeeds(&what, case.request);
                assert!((case.after)(), "{what}");
                clean_up();
                assert_eq!(oracle::files(), files, "{what}");
                runs += 1;
            }
        }
        println!("{}: {runs} runs so far, {:?}", case.name, start.elapsed());
    }
    assert_eq!(oracle::complaints(), complaints);
    println!("{runs} runs: {points_of_all} points of {} changes", CASES.len());
    drop(faulty);
    oracle.expect_new_daemon();
}

fn a_change_of_another_version_is_left_alone(oracle: &mut Oracle) {
    let note = Path::new(JOURNAL).join("0123");
    people::ctl(ROOT, &["user", "create", "zoe", "--category", "cluster-user", "--dry-run"]);
    fs::write(&note, r#"{"version":2,"id":"0123","uid":0,"operation":"WhoAmI"}"#).unwrap();
    let (status, told) = people::ctl_fails(ROOT, &["user", "create", "zoe", "--category", "cluster-user"]);
    assert!(told.contains("another podsecd") && note.exists(), "{status}: {told}");
    // podsecd itself starts, and serves what has nothing to do with it.
    oracle.restart_daemon();
    people::ctl(ROOT, &["whoami"]);
    fs::remove_file(&note).unwrap();
    people::ctl(ROOT, &["user", "create", "zoe", "--category", "cluster-user"]);
    people::ctl(ROOT, &["user", "delete", "zoe", "--remove-home", "--yes"]);
}

fn no_release_has_fault_points(_: &mut Oracle) {
    let has_points = |program: &Path| {
        let bytes = fs::read(program).unwrap();
        let word = REACHED.as_bytes();
        bytes.windows(word.len()).any(|window| window == word)
    };
    assert!(!has_points(Path::new(PROGRAM)));
    assert!(
        has_points(&host::top().join("target/faults/podsecd-worker")),
        "the test looks for the wrong word"
    );
}
