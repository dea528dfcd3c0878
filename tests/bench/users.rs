//! Making people: beside a loop of the bare programs, and with ten thousand of them there already.

use crate::figure::{Bound, Figure, Samples};
use podsec_policy::config::Users;
use podsec_tests::host::Edited;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const FILE: &str = "/run/podsec-tests/people.toml";
/// Of how many people podsec's own work is measured.
const FEW: usize = 10;
const MANY: usize = 10_000;

/// How long a script takes, which has to succeed.
fn script(text: &str) -> Duration {
    let start = Instant::now();
    let mut command = Command::new("/bin/bash");
    command.args(["-e", "-c", text]).stdin(Stdio::null()).stdout(Stdio::null());
    assert!(command.status().expect("bash").success(), "{text}");
    start.elapsed()
}

/// A file of that many image users, and the line that makes them.
fn people(prefix: &str, count: usize) -> String {
    let user = |number| format!("[[user]]\nname = \"{prefix}{number}\"\ncategory = \"image-user\"\n");
    fs::write(FILE, (0..count).map(user).collect::<String>()).expect(FILE);
    format!("podsecctl user create --from {FILE}")
}

fn remove(prefix: &str, count: usize) {
    script(&format!("podsecctl user delete --remove-home --yes $(seq -f {prefix}%g 0 {})", count - 1));
}

pub fn run(rounds: usize) -> Vec<Figure> {
    let mut figures = accounts(rounds);
    figures.extend(growth());
    figures
}

/// With a password each: ten at a time through podsecd, which makes one after the other.
fn accounts(count: usize) -> Vec<Figure> {
    let (mut ours, mut bare) = (Samples::new(), Samples::new());
    let last = count - 1;
    let create = people("ours", count);
    for round in 1..=3 {
        ours.push_time(script(&format!(
            "{create}; for name in $(seq -f ours%g 0 {last}); do
                 echo 'correct horse battery' | podsecctl user passwd $name --stdin
             done"
        )));
        remove("ours", count);
        bare.push_time(script(&format!(
            "for name in $(seq -f bare%g 0 {last}); do
                 useradd --create-home --groups podman $name; echo $name:'correct horse battery' | chpasswd
             done"
        )));
        script(&format!(
            "for name in $(seq -f bare%g 0 {last}); do userdel --remove $name 2>/dev/null; done"
        ));
        eprintln!("  {round} of 3");
    }
    let what = format!("{count} accounts with passwords");
    let figure = Figure::new("users", what, "ms", ours.median());
    vec![figure.against("useradd, chpasswd", bare.median()).bound(Bound::RatioAtMost(1.5))]
}

/// What a further user costs, and each one in a list, where there are few and where there are many.
fn growth() -> Vec<Figure> {
    let mut figures = Vec::new();
    let mut found = Vec::new();
    for count in [FEW, MANY] {
        let before = Before::with(count);
        let list = median(10, || script("podsecctl user list --json")) * 1e3 / count as f64;
        let create = median(5, || {
            let time = script(&people("more", FEW));
            remove("more", FEW);
            time
        });
        let bare = median(5, || {
            let names = format!("$(seq -f bare%g 0 {})", FEW - 1);
            let time =
                script(&format!("for name in {names}; do useradd --create-home --groups podman $name; done"));
            script(&format!("for name in {names}; do userdel --remove $name 2>/dev/null; done"));
            time
        });
        drop(before);
        found.push((list, create / FEW as f64, bare / FEW as f64));
        eprintln!("  with {count} users");
    }
    let [few, many] = found[..] else { panic!("two sizes") };
    let figure = |what: &str, unit, value| Figure::new("users", what, unit, value);
    figures.push(
        figure("a user in a list of 10,000", "us", many.0)
            .against("in one of 10", few.0)
            .bound(Bound::RatioAtMost(1.0)),
    );
    figures.push(figure("one more, beside 10", "ms", few.1).against("useradd", few.2));
    figures.push(figure("one more, beside 10,000", "ms", many.1).against("useradd", many.2));
    // What useradd itself takes longer, since it writes the account files anew, is not podsec's.
    let own = |(_, create, bare): (f64, f64, f64)| create - bare;
    figures.push(
        figure("growth of podsec's own share", "ms", own(many) - own(few))
            .against("useradd's", many.2 - few.2)
            .bound(Bound::RatioAtMost(1.0)),
    );
    figures
}

fn median(times: usize, mut measure: impl FnMut() -> Duration) -> f64 {
    let mut samples = Samples::new();
    (0..times).for_each(|_| samples.push_time(measure()));
    samples.median()
}

/// That many users of podsec's, as it would have left them; made at once, since it would take an hour otherwise.
struct Before {
    _accounts: Vec<Edited>,
}

impl Before {
    fn with(count: usize) -> Self {
        let files =
            ["/etc/passwd", "/etc/group", "/etc/shadow", "/etc/gshadow", "/etc/subuid", "/etc/subgid"];
        let mut new = files.map(|path| fs::read_to_string(path).expect(path));
        let ids = Users::default();
        for number in 0..count as u32 {
            let (name, uid) = (format!("old{number}"), 20_000 + number);
            let first = ids.first_subid + (number + 100) * ids.subids;
            let lines = [
                format!("{name}:x:{uid}:{uid}::/home/{name}:/bin/bash"),
                format!("{name}:x:{uid}:"),
                format!("{name}:!podsec-0:20000:0:99999:7:::"),
                format!("{name}:!::"),
                format!("{name}:{first}:{}", ids.subids),
                format!("{name}:{first}:{}", ids.subids),
            ];
            for (text, line) in new.iter_mut().zip(lines) {
                writeln!(text, "{line}").expect("memory");
            }
            let record = format!(
                r#"{{"name":"{name}","uid":{uid},"category":"ImageUser","full_name":"","created":1,"created_by":0}}"#
            );
            fs::write(Self::record(&name), record).expect("a record");
        }
        Self { _accounts: files.iter().zip(new).map(|(path, text)| Edited::with(path, |_| text)).collect() }
    }

    fn record(name: &str) -> std::path::PathBuf {
        Path::new("/var/lib/podsec/users").join(format!("{name}.json"))
    }
}

impl Drop for Before {
    fn drop(&mut self) {
        for number in 0..MANY {
            let _ = fs::remove_file(Self::record(&format!("old{number}")));
        }
    }
}
