//! A crash at every step of every change: podsecd's worker, built with its fault points, is ended at each of them, alone or
//! with podsecd, or made to fail. Afterwards the host is whole, and the same request succeeds. Which points there are, the
//! changes themselves say: each is first run once to note what it passes.

use crate::Test;
use crate::trust::{self, HOSTS, POLICY, Untrusted};
use podsec_proto::v1::FileState;
use podsec_tests::host;
use podsec_tests::oracle::{self, Oracle};
use podsec_tests::people::{self, ALICE, ROOT};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

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
const INIT: &str =
    "trust init --registry registry.local --signatures sigstore.local --address 127.0.0.1 --http";
const GRANT: &str = "trust grant cleo registry.local/more other.example/more";
const EXPORT: &str = "!podsecctl trust export --output /run/podsec-tests/exported";
/// Another host's, made once.
const BUNDLE: &str = "/run/podsec-tests/bundle";

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
    Case {
        name: "trust",
        before: &[CLEO],
        request: INIT,
        after: || revision() == 1 && signs("registry.local/cleo", 1),
    },
    Case {
        name: "another address, without plain HTTP",
        before: &[INIT],
        request: "trust init --registry registry.local --signatures sigstore.local --address 10.1.1.1",
        after: || revision() == 2 && trust::block()[0] == "10.1.1.1 registry.local",
    },
    Case {
        name: "a grant",
        before: &[CLEO, INIT],
        request: GRANT,
        after: || signs("registry.local/more", 1) && signs("other.example/more", 1),
    },
    Case {
        name: "a grant that other hosts hear of",
        before: &[CLEO, INIT, EXPORT],
        request: GRANT,
        after: || {
            signs("registry.local/more", 1)
                && fs::read("/var/sigstore/trust/bundle").unwrap()
                    != fs::read("/run/podsec-tests/exported").unwrap()
        },
    },
    Case {
        name: "a grant over what was changed by hand",
        before: &[
            CLEO,
            INIT,
            "!sed --in-place 1s/$/\\x20/ /etc/containers/policy.json",
            "!sed --in-place 1s/$/\\x20/ /etc/containers/registries.d/50-podsec.yaml",
        ],
        request: "trust grant cleo registry.local/more other.example/more --overwrite",
        after: || {
            let kept = trust::kept(2, "policy.json").zip(trust::kept(2, "50-podsec.yaml"));
            signs("registry.local/more", 1) && kept.is_some_and(|kept| kept.0.starts_with(b"{ "))
        },
    },
    Case {
        name: "an end of signing",
        before: &[CLEO, INIT],
        request: "trust revoke cleo --distrust-existing",
        after: || trust::signers("registry.local/cleo").is_none(),
    },
    Case {
        name: "a way back",
        before: &[CLEO, INIT, GRANT],
        request: "trust rollback 1",
        after: || revision() == 3 && trust::signers("registry.local/more").is_none(),
    },
    Case {
        name: "the trust of another host",
        before: &[],
        request: "trust sync /run/podsec-tests/bundle --fingerprint TRUSTKEY",
        after: || signs("registry.local/cleo", 1) && !trust::current().settings.follows.is_empty(),
    },
    Case {
        name: "the trust of another host instead of the own",
        before: &[INIT],
        request: "trust sync /run/podsec-tests/bundle --fingerprint TRUSTKEY --overwrite",
        after: || signs("registry.local/cleo", 1) && !trust::current().settings.follows.is_empty(),
    },
    Case {
        name: "a signature",
        before: &[CLEO, INIT, "!sign"],
        request: "!submit",
        after: || {
            let listed = trust::told_to(ROOT, &["signatures", "cleo"]);
            listed.as_array().unwrap().len() == 1
                && fs::read(stored()).unwrap() == fs::read(SIGNATURE).unwrap()
        },
    },
    Case {
        name: "an image creator with a key, where there is trust",
        before: &[INIT],
        request: CLEO,
        after: || signs("registry.local/cleo", 1) && keys("cleo") == ["current"],
    },
    Case {
        name: "a deletion of one who signs",
        before: &[CLEO, INIT, EXPORT],
        request: "user delete cleo --yes",
        after: || trust::signers("registry.local/cleo").is_none() && state("cleo") == "none",
    },
    Case {
        name: "a rotation of a trusted key",
        before: &[CLEO, INIT, "!key"],
        request: "key rotate --creator cleo /run/podsec-tests/new.pgp",
        after: || signs("registry.local/cleo", 2) && keys("cleo") == ["previous", "current"],
    },
    Case {
        name: "a revocation of a trusted key",
        before: &[CLEO, INIT, "!sed --in-place 1s/$/\\x20/ /etc/containers/policy.json"],
        request: "key revoke --creator cleo --yes FINGERPRINT",
        after: || signs("registry.local/cleo", 0) && keys("cleo") == ["revoked"],
    },
    Case {
        name: "a server of signatures",
        before: &[INIT_TLS],
        request: "service deploy signatures",
        after: || is_deployed("signatures"),
    },
    Case {
        name: "a registry beside the server of signatures",
        before: &[INIT_TLS, "service deploy signatures"],
        request: "service deploy registry",
        after: || is_deployed("signatures") && is_deployed("registry"),
    },
    Case {
        name: "a new creator where there is a registry server",
        before: &[INIT_TLS, "service deploy registry"],
        request: CLEO,
        after: || fs::read_to_string(HTPASSWD).unwrap().starts_with("cleo:") && keys("cleo") == ["current"],
    },
    Case {
        name: "the end of a registry server",
        before: &[INIT_TLS, "service deploy registry"],
        request: "service remove registry --remove-data --yes",
        after: || !is_deployed("registry") && !Path::new("/etc/podsec/services/registry.yml").exists(),
    },
];

/// Certificates are made for it.
const INIT_TLS: &str = "trust init --registry registry.local --signatures sigstore.local";
const HTPASSWD: &str = "/etc/podsec/services/private/htpasswd";

/// Its configuration is there, whether or not it runs.
fn is_deployed(service: &str) -> bool {
    let states = list(&["service", "status"], "services");
    let state = states.iter().find(|state| state["service"] == service).unwrap();
    state["health"] != "not-deployed" && state["changed_files"].as_array().is_none_or(Vec::is_empty)
}

const SIGNATURE: &str = "/tmp/crash.signature";
const DIGEST: &str = "sha256:abababababababababababababababababababababababababababababababab";

/// Where podsec keeps [`SIGNATURE`].
fn stored() -> String {
    format!("/var/sigstore/sigstore/cleo/app@{}/signature-1", DIGEST.replace(':', "="))
}

fn revision() -> u64 {
    trust::current().head.revision
}

/// So many keys are good there.
fn signs(scope: &str, count: usize) -> bool {
    trust::signers(scope).is_some_and(|keys| keys.len() == count)
}

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

/// A command line of podsecctl, or of the host's with `!` before it: what it said if it failed.
fn run(line: &str) -> Result<(), String> {
    match line {
        "!key" => return new_key(),
        "!sign" => return sign(),
        "!submit" => {
            let told = trust::told_to("cleo", &["submit", "registry.local/cleo/app", DIGEST, SIGNATURE]);
            return if told["path"].is_string() { Ok(()) } else { Err(told.to_string()) };
        }
        _ => {}
    }
    let (user, program, line) = match line.strip_prefix('!') {
        Some(line) => (ROOT, line.split(' ').next().unwrap(), line.split_once(' ').unwrap().1),
        None => (ALICE, "/usr/bin/podsecctl", line),
    };
    let fingerprint = || text(&list(&["key", "list", "cleo"], "keys")[0], "fingerprint").to_owned();
    let mut command = people::command(user, program);
    for word in line.split(' ') {
        match word {
            "FINGERPRINT" => command.arg(fingerprint()),
            "TRUSTKEY" => command.arg(fs::read_to_string(format!("{BUNDLE}.key")).unwrap()),
            word => command.arg(word),
        };
    }
    if line.ends_with("--stdin") {
        fs::write("/run/podsec-tests/password", "correct horse battery staple\n").unwrap();
        command.stdin(fs::File::open("/run/podsec-tests/password").unwrap());
    }
    said(&mut command)
}

fn said(command: &mut Command) -> Result<(), String> {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(text) }
}

/// Somebody's own new key, in `/run/podsec-tests/new.pgp`.
fn new_key() -> Result<(), String> {
    let script = "set -e; export GNUPGHOME=/run/podsec-tests/gnupg; rm -rf $GNUPGHOME; mkdir -m 700 $GNUPGHOME
        gpg --batch --quiet --passphrase '' --quick-generate-key 'Cleo <cleo@registry.local>' ed25519 sign 1y
        gpg --batch --export >/run/podsec-tests/new.pgp; chmod 644 /run/podsec-tests/new.pgp; gpgconf --kill all";
    said(Command::new("/bin/bash").args(["-c", script]).stdin(Stdio::null()))
}

/// Cleo signs, with the key that she has just now.
fn sign() -> Result<(), String> {
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"registry.local/cleo/app:1"}},"image":{{"docker-manifest-digest":"{DIGEST}"}},"type":"atomic container signature"}},"optional":{{}}}}"#
    );
    let script = format!(
        "rm -f ~/signature; echo '{payload}' | gpg --batch --quiet --sign >~/signature; gpgconf --kill all"
    );
    said(people::command("cleo", "/bin/bash").args(["-ec", &script]))?;
    fs::copy("/home/cleo/signature", SIGNATURE).map(drop).map_err(|error| error.to_string())
}

/// What another host gives out, and the fingerprint of its key.
fn make_bundle(untrusted: &Untrusted) {
    for line in [CLEO, INIT, "!podsecctl trust export --output /run/podsec-tests/bundle"] {
        succeeds("a bundle", line);
    }
    fs::write(format!("{BUNDLE}.key"), trust::current().settings.fingerprint).unwrap();
    clean_up(untrusted);
}

fn succeeds(what: &str, line: &str) {
    run(line).unwrap_or_else(|text| panic!("{what}: {line}: {text}\n{}", host::daemon_log()));
}

fn clean_up(untrusted: &Untrusted) {
    for name in ["zoe", "cleo"] {
        people::ctl(ROOT, &["user", "delete", name, "--remove-home", "--yes"]);
        let _ = fs::remove_dir_all(Path::new("/home").join(name));
    }
    people::ctl(ROOT, &["user", "restrict-idmaps", "off"]);
    for service in ["registry", "signatures"] {
        // Where it is not deployed there is nothing to remove.
        people::podsecctl(ROOT, &["service", "remove", service, "--remove-data", "--yes"]);
    }
    untrusted.reset();
    let _ = fs::remove_file(SIGNATURE);
}

type Files = Vec<Option<Vec<u8>>>;

/// The files of trust are those of one revision, or of none.
fn assert_trust_is_whole(what: &str, original: &Files) {
    let numbers = |directory: &str| -> Vec<String> {
        let entries =
            fs::read_dir(format!("/var/lib/podsec/trust/{directory}")).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let (mut revisions, leftover) = (numbers("revisions"), [POLICY, HOSTS].map(|path| format!("{path}.new")));
    revisions.sort();
    for path in leftover {
        assert!(!Path::new(&path).exists(), "{what}: {path}");
    }
    if !Path::new("/var/lib/podsec/trust/current").exists() {
        assert!(trust::snapshot() == *original, "{what}: half of trust is there, or half of what was before");
        assert_eq!((revisions, numbers("kept")), (vec![], vec![]), "{what}");
        // Image users are not held to a policy that accepts anything.
        let users = fs::read("/etc/podsec/user-policy.json")
            .unwrap_or_else(|_| b"{\"default\":[{\"type\":\"reject\"}]}".into());
        let users: Value = serde_json::from_slice(&users).unwrap();
        assert_eq!(users["default"], serde_json::json!([{"type": "reject"}]), "{what}");
        return;
    }
    assert!(trust::rejects_by_default(), "{what}");
    let shown = trust::current();
    let changed: Vec<_> = shown.files.iter().filter(|(_, state)| **state != FileState::Same).collect();
    // What was changed by hand before, and is not touched by what was undone.
    if !what.contains("by hand") && !what.contains("revocation of a trusted key") {
        assert_eq!(changed, [], "{what}");
    }
    let expected: Vec<_> = (1..=shown.head.revision).map(|number| format!("{number:08}")).collect();
    assert_eq!(revisions, expected, "{what}");
}

/// Looks on: there is a policy that can be read, all the time.
fn look_on(is_over: &AtomicBool) -> usize {
    let mut times = 0;
    while !is_over.load(Ordering::Relaxed) {
        let text = fs::read(POLICY).expect("a policy");
        assert!(serde_json::from_slice::<Value>(&text).is_ok(), "a broken policy");
        times += 1;
        std::thread::sleep(Duration::from_micros(500));
    }
    times
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
    let untrusted = Untrusted::host();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let onlooker = scope.spawn(|| look_on(&is_over));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| try_all(&files, &untrusted)));
        is_over.store(true, Ordering::Relaxed);
        println!("the policy was read {} times meanwhile", onlooker.join().expect("a policy at any time"));
        if let Err(failure) = done {
            std::panic::resume_unwind(failure);
        }
    });
    assert_eq!(oracle::complaints(), complaints);
    drop(untrusted);
    drop(faulty);
    oracle.expect_new_daemon();
}

fn try_all(files: &std::collections::BTreeMap<String, String>, untrusted: &Untrusted) {
    let mut runs = 0;
    let mut points_of_all = 0;
    let mut seen = BTreeSet::new();
    let original = trust::snapshot();
    make_bundle(untrusted);
    // While working on one of them: PODSEC_CRASH=grant
    let only = std::env::var("PODSEC_CRASH").unwrap_or_default();
    for case in CASES.iter().filter(|case| case.name.contains(&only)) {
        let start = Instant::now();
        let prepare = || case.before.iter().for_each(|line| succeeds(case.name, line));
        prepare();
        fs::write(REACHED, "").unwrap();
        succeeds(case.name, case.request);
        let reached = fs::read_to_string(REACHED).unwrap();
        let mut points: Vec<&str> = reached.lines().collect();
        points.dedup();
        // What a change to a user or a key does first is the same where there is trust.
        let verb = case.request.split(' ').take(2).collect::<Vec<_>>().join(" ");
        let is_nested = case.before.iter().any(|line| line.starts_with("trust init"));
        if is_nested && (verb.starts_with("user") || verb.starts_with("key")) {
            points.retain(|point| !seen.contains(&(verb.clone(), (*point).to_owned())));
        }
        seen.extend(points.iter().map(|point| (verb.clone(), (*point).to_owned())));
        assert!(!points.is_empty(), "{} passes no point", case.name);
        assert!((case.after)(), "{}", case.name);
        clean_up(untrusted);
        points_of_all += points.len();
        for point in points {
            // Ended alone; with podsecd; failing; and ended twice, the second time when it is asked again.
            let all = [&["crash"][..], &["fail"], &["kill"], &["kill", "crash"]];
            // Those with certificates take seconds each.
            let usual = if case.name.contains("server") { 2 } else { all.len() };
            let count = if std::env::var_os("PODSEC_FULL").is_some() { all.len() } else { usual };
            for modes in all.into_iter().take(count) {
                let what = format!("{}: {} at {point}", case.name, modes.join(" and "));
                prepare();
                for mode in modes {
                    fs::write(FAULT, format!("{point} {mode}")).unwrap();
                    let failed = run(case.request).is_err();
                    // The second time it may not come by there any more.
                    let fired = fs::remove_file(FAULT).is_err();
                    assert!(
                        failed == fired && (fired || *mode != modes[0]),
                        "{what}: failed {failed}, fired {fired}"
                    );
                    // At no moment, not even before anybody has put it right.
                    assert!(!case.before.contains(&INIT) || trust::rejects_by_default(), "{what}");
                    if *mode == "crash" && fired {
                        host::wait_for("podsecd's end", || !host::is_alive(host::daemon_pid()));
                        host::start_daemon(None);
                    }
                    assert_whole(&what, case.request.starts_with("user delete") && *mode == "fail");
                    assert_trust_is_whole(&what, &original);
                }
                succeeds(&what, case.request);
                assert!((case.after)(), "{what}");
                clean_up(untrusted);
                assert_eq!(oracle::files(), *files, "{what}");
                runs += 1;
            }
        }
        println!("{}: {runs} runs so far, {:?}", case.name, start.elapsed());
    }
    assert!(runs > 0, "no change has {only:?} in its name");
    println!("{runs} runs: {points_of_all} points of {} changes", CASES.len());
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
