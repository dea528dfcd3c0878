//! The check policy: a thousand users with stores and policies of their own, beside what a script with jq does for them; and
//! what each one costs where there are ten thousand.

use crate::figure::{Bound, Figure, Samples};
use podsec_proto::v1::{CheckSummary, RunCheckRequest};
use podsec_tests::client::{self, block_on};
use podsec_tests::host::Edited;
use podsec_tests::people;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FEW: usize = 1_000;
const MANY: usize = 10_000;
/// Of how many, one violates.
const BAD: usize = 10;
/// Users that the script looks at; all would take it minutes.
const SOME: usize = 100;
const HOMES: &str = "/run/podsec-tests/homes";

/// What the old check-policy finds out of each user: three times jq for his policy, his groups, his configuration. Written
/// without what made that one slow by accident.
const SCRIPT: &str = r#"
while IFS=: read -r name _ _ _ _ home _; do
    [ -d "$home/.local/share/containers/storage/overlay-images" ] || continue
    policy=$home/.config/containers/policy.json
    [ -e "$policy" ] || policy=/etc/containers/policy.json
    default=$(jq -r '.default[0].type' "$policy")
    signed=$(jq -r '.transports.docker // {} | to_entries[] | select(.value[0].type == "signedBy").key' "$policy")
    transports=$(jq -r '.transports // {} | keys[] | select(. != "docker")' "$policy")
    groups=$(grep -E "^(podman|podman_dev|wheel):.*[:,]$name(,|$)" /etc/group)
    mode=$(stat -c '%U %a' "$home/.config/containers")
    [[ $groups == *podman:* ]] || echo "101 $name"
    [[ $default == reject ]] || [[ $groups == *podman_dev:* ]] || echo "102 $name $default"
    [[ $signed == *registry.local* ]] || echo "103 $name"
    [ -z "$transports" ] || echo "105 $name $transports"
    [[ $groups != *wheel:* ]] || echo "107 $name"
    [[ $mode == root* ]] || [[ $groups == *podman_dev:* ]] || echo "90 $name $mode"
done < <(grep ^old /etc/passwd | head -n "$1")"#;

pub fn run(rounds: usize) -> Vec<Figure> {
    people::ctl("root", &["trust", "init", "--registry", "registry.local", "--http"]);
    // Root, the cluster user, and whom other benchmarks have left.
    let (_, others) = check();
    let mut found = Vec::new();
    for count in [FEW, MANY] {
        let before = Before::with(count);
        let (mut ours, mut script) = (Samples::new(), Samples::new());
        for round in 0..rounds {
            let (time, seen) = check();
            assert_eq!(seen.looked_at, others.looked_at + count as u64, "{seen:?}");
            assert_eq!(seen.findings, others.findings + (count / BAD) as u64, "{seen:?}");
            ours.push(per_user(time, count));
            if count == FEW && round < 3 {
                script.push(per_user(old_way(), SOME));
            }
        }
        drop(before);
        found.push((ours.median(), script.median()));
        eprintln!("  with {count} users");
    }
    let [(few, script), (many, _)] = found[..] else { panic!("two sizes") };
    let figure = |what: &str, value| Figure::new("policy-check", what, "us", value);
    vec![
        // As a speed, so that more is better.
        Figure::new("policy-check", format!("users a second, of {FEW}"), "1/s", 1e6 / few)
            .against("a script with jq", 1e6 / script)
            .bound(Bound::RatioAtLeast(50.0)),
        figure("a user of 10,000", many).against("one of 1,000", few).bound(Bound::RatioAtMost(1.5)),
    ]
}

/// Microseconds.
fn per_user(time: Duration, count: usize) -> f64 {
    time.as_secs_f64() * 1e6 / count as f64
}

/// By podsecd: how long that took, and what was seen.
fn check() -> (Duration, CheckSummary) {
    let start = Instant::now();
    let request = RunCheckRequest { check: "policy".into() };
    let ran = block_on(async { client::checks().await.run(request).await }).expect("a run").into_inner();
    let time = start.elapsed();
    let summary = ran.summary.expect("a summary");
    assert_eq!(summary.state, "complete", "{summary:?}");
    (time, summary)
}

fn old_way() -> Duration {
    let start = Instant::now();
    let mut command = Command::new("/bin/bash");
    command.args(["-c", SCRIPT, "script", &SOME.to_string()]);
    let output = command.stdin(Stdio::null()).output().expect("bash");
    let time = start.elapsed();
    let printed = String::from_utf8_lossy(&output.stdout);
    let found = printed.lines().filter(|line| line.starts_with("101 ")).count();
    assert_eq!(found, SOME / BAD, "{}", String::from_utf8_lossy(&output.stderr));
    time
}

/// That many creators of podsec's with stores; one in [`BAD`] is nobody's, and no image user.
struct Before {
    _accounts: [Edited; 2],
}

impl Before {
    fn with(count: usize) -> Self {
        let [mut passwd, group] =
            ["/etc/passwd", "/etc/group"].map(|path| fs::read_to_string(path).expect(path));
        let is_bad = |number: usize| number.is_multiple_of(BAD);
        let good: String =
            (0..count).filter(|&number| !is_bad(number)).map(|number| format!(",old{number}")).collect();
        let is_ours = |line: &str| line.starts_with("podman:") || line.starts_with("podman_dev:");
        let mut groups = String::new();
        for line in group.lines() {
            let members = if is_ours(line) { good.as_str() } else { "" };
            let members = if line.ends_with(':') { members.trim_start_matches(',') } else { members };
            writeln!(groups, "{line}{members}").expect("memory");
        }
        for number in 0..count {
            let (name, uid) = (format!("old{number}"), 20_000 + number);
            writeln!(passwd, "{name}:x:{uid}:{uid}::{HOMES}/{name}:/bin/bash").expect("memory");
            writeln!(groups, "{name}:x:{uid}:").expect("memory");
            home(&name, uid as u32).expect(&name);
            if !is_bad(number) {
                let category = format!(
                    r#"{{"ImageCreator":{{"scopes":["registry.local/old{number}"],"shared":false}}}}"#
                );
                let record = format!(
                    r#"{{"name":"{name}","uid":{uid},"category":{category},"full_name":"","created":1,"created_by":0}}"#
                );
                fs::write(Self::record(&name), record).expect("a record");
            }
        }
        Self { _accounts: [Edited::with("/etc/passwd", |_| passwd), Edited::with("/etc/group", |_| groups)] }
    }

    fn record(name: &str) -> PathBuf {
        Path::new("/var/lib/podsec/users").join(format!("{name}.json"))
    }
}

/// A store with an image, and a strict policy of his own.
fn home(name: &str, uid: u32) -> std::io::Result<()> {
    let home = Path::new(HOMES).join(name);
    let images = ".local/share/containers/storage/overlay-images";
    fs::create_dir_all(home.join(images))?;
    fs::create_dir_all(home.join(".config/containers"))?;
    let (id, digest) = (format!("{uid:064}"), format!("sha256:{uid:064}"));
    let image = format!(
        r#"[{{"id":"{id}","digest":"{digest}","names":["registry.local/{name}/app:1"],"layer":"{id}"}}]"#
    );
    fs::write(home.join(images).join("images.json"), image)?;
    let signed = r#"[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/var/sigstore/keys/signer.pgp"}]"#;
    let scopes: Vec<_> =
        (0..5).map(|number| format!(r#""registry.local/{name}/{number}":{signed}"#)).collect();
    let policy =
        format!(r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{{}}}}}}}"#, scopes.join(","));
    fs::write(home.join(".config/containers/policy.json"), policy)?;
    give(&home, uid)
}

fn give(path: &Path, uid: u32) -> std::io::Result<()> {
    chown(path, Some(uid), Some(uid))?;
    if path.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(path)? {
            give(&entry?.path(), uid)?;
        }
    }
    Ok(())
}

impl Drop for Before {
    fn drop(&mut self) {
        for number in 0..MANY {
            let _ = fs::remove_file(Self::record(&format!("old{number}")));
        }
        let _ = fs::remove_dir_all(HOMES);
    }
}
