//! A whole entry, beside other ways to do the same. All take turns, so that whatever else the machine does hits all
//! alike.

use crate::figure::{Bound, Figure, Samples};
use crate::helper::Spawner;
use crate::random::Random;
use podsec_tests::host;
use podsec_tests::people::{self, ALICE, ROOT};
use std::io::Write as _;
use std::time::Duration;

/// Between two commands: for podsecd to make up what it keeps warm, and for what the last command left to the kernel to
/// be over. People do not enter twice in that time.
const PAUSE: Duration = Duration::from_millis(10);

/// One way in.
#[derive(Clone)]
struct Way {
    name: &'static str,
    user: &'static str,
    argv: Vec<String>,
}

fn way(name: &'static str, user: &'static str, argv: &[&str]) -> Way {
    Way { name, user, argv: argv.iter().map(|&word| word.to_owned()).collect() }
}

/// What podsecd joins, and no more: the same seven.
const KINDS: [&str; 7] = ["--user", "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup"];

/// Of nsenter(1), up to the command.
pub fn nsenter_arguments(child: i32) -> Vec<String> {
    let target = format!("--target={child}");
    [&[target.as_str()], &KINDS[..], &["--"]].concat().into_iter().map(str::to_owned).collect()
}

fn nsenter(name: &'static str, user: &'static str, before: &[&str], child: i32) -> Way {
    let arguments = nsenter_arguments(child);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    way(name, user, &[before, &["/usr/bin/nsenter"], &arguments, &["true"]].concat())
}

fn podsecctl(name: &'static str, user: &'static str) -> Way {
    way(name, user, &["/usr/bin/podsecctl", "enter", "--", "true"])
}

/// As most people's shells have it (pam_env(8), locale.conf(5)), so that programs load a locale when they start: nsenter,
/// and `true` too, since podsecctl sends the variable along.
const LANG: &str = "LANG=C.UTF-8";

fn with_lang(name: &'static str, way: &Way) -> Way {
    Way { name, argv: [&[LANG.to_owned()], &way.argv[..]].concat(), ..way.clone() }
}

/// Makes sure that each way leads into the namespaces of that process, all of them.
fn check(ways: &[Way], child: i32) {
    let link = |kind: &str| std::fs::read_link(format!("/proc/{child}/ns/{kind}")).expect(kind);
    let kinds = ["user", "mnt", "net", "pid", "ipc", "uts", "cgroup"];
    let there: Vec<_> = kinds.map(|kind| link(kind).display().to_string()).into();
    for way in ways {
        let (_, argv) = way.argv.split_last().expect("true");
        let mut command = people::command(way.user, &argv[0]);
        command.args(&argv[1..]).arg("readlink").args(kinds.map(|kind| format!("/proc/self/ns/{kind}")));
        let told = host::run(&mut command);
        assert_eq!(told.split_whitespace().collect::<Vec<_>>(), there, "{}", way.name);
    }
}

/// Times each way, taking turns in an order that is another each round.
fn race(ways: &[Way], rounds: usize) -> Vec<Samples> {
    let commands: Vec<Vec<String>> = ways.iter().map(|way| way.argv.clone()).collect();
    let mut spawners = [ROOT, ALICE].map(|user| (user, Spawner::start(user, &commands)));
    let mut samples = vec![Samples::default(); ways.len()];
    let mut order: Vec<usize> = (0..ways.len()).collect();
    let mut random = Random::new(0);
    const UNCOUNTED: usize = 5;
    for round in 0..rounds + UNCOUNTED {
        random.shuffle(&mut order);
        for &index in &order {
            std::thread::sleep(PAUSE);
            let user = ways[index].user;
            let (_, spawner) = spawners.iter_mut().find(|(name, _)| *name == user).expect("root or alice");
            let time = spawner.time(index);
            if round >= UNCOUNTED {
                samples[index].push_time(time);
            }
        }
        if round % 50 == 49 {
            eprintln!("  {} of {rounds}", round + 1 - UNCOUNTED);
        }
    }
    for (way, samples) in ways.iter().zip(&samples) {
        let [low, middle, high] = [0.1, 0.5, 0.9].map(|share| samples.quantile(share));
        eprintln!("  {:<26} p10 {low:.2} p50 {middle:.2} p90 {high:.2} ms", way.name);
    }
    samples
}

/// The first ways are podsec's, the next is bare nsenter, the rest are others.
fn figures(bench: &'static str, ways: &[Way], samples: &[Samples], to_bare: Option<f64>) -> Vec<Figure> {
    let bare = ways.iter().position(|way| way.name == "nsenter").expect("nsenter");
    let mut figures = Vec::new();
    let against = |index: usize, share: f64, name: &str, by: usize| {
        let what = format!("{} p{:.0}", ways[index].name, share * 100.0);
        Figure::new(bench, what, "ms", samples[index].quantile(share))
            .against(name, samples[by].quantile(share))
    };
    for index in 0..bare {
        let median = against(index, 0.5, "nsenter", bare);
        figures.push(match to_bare {
            Some(ratio) => median.bound(Bound::RatioAtMost(ratio)),
            None => median,
        });
        figures.push(against(index, 0.9, "nsenter", bare));
        eprintln!("  {}: {}", ways[index].name, samples[index].spread(&samples[bare]));
    }
    for (by, way) in ways.iter().enumerate().skip(bare + 1) {
        figures.push(against(0, 0.5, way.name, by).bound(Bound::RatioAtMost(1.0)));
    }
    figures
}

/// With sudo and doas.
pub fn on_throwaway(rounds: usize) -> Vec<Figure> {
    configure("/etc/sudoers.d/podsec-bench", "alice ALL=(root) NOPASSWD: ALL\n", 0o440);
    configure("/etc/doas.conf", "permit nopass alice as root\n", 0o440);
    let child = host::child_pid();
    let ways = [
        podsecctl("podsecctl enter by alice", ALICE),
        podsecctl("podsecctl enter by root", ROOT),
        nsenter("nsenter", ROOT, &[], child),
        nsenter("doas nsenter", ALICE, &["/usr/bin/doas", "-n"], child),
        nsenter("sudo nsenter", ALICE, &["/usr/bin/sudo", "-n"], child),
        way("true", ROOT, &["/bin/true"]),
    ];
    let (ways, floor) = ways.split_at(ways.len() - 1);
    check(ways, child);
    let spoken = [with_lang("with LANG: podsecctl", &ways[0]), with_lang("with LANG: nsenter", &ways[2])];
    let samples = race(&[ways, floor, &spoken].concat(), rounds);
    let mut figures = figures("enter", ways, &samples, Some(1.3));
    let [floor, podsecctl, nsenter] = &samples[ways.len()..] else { panic!("more ways than these") };
    figures.push(Figure::new("enter", "/bin/true p50, the floor", "ms", floor.median()));
    let spoken = Figure::new("enter", "podsecctl enter by alice, with LANG", "ms", podsecctl.median());
    figures.push(spoken.against("nsenter with LANG", nsenter.median()));
    figures
}

/// With what needs systemd. All of them ask polkit or PAM, which here say yes to alice at once.
pub fn on_systemd(rounds: usize) -> Vec<Figure> {
    configure("/etc/sudoers.d/podsec-bench", "alice ALL=(root) NOPASSWD: ALL\n", 0o440);
    configure("/etc/doas.conf", "permit nopass alice as root\n", 0o440);
    let yes = "polkit.addRule(function(action, subject) {\n\
               \u{20}   if (subject.user == 'alice') { return polkit.Result.YES; }\n\
               });\n";
    configure("/etc/polkit-1/rules.d/10-podsec-bench.rules", yes, 0o644);
    let child = host::child_pid();
    let ways = [
        podsecctl("podsecctl enter by alice", ALICE),
        podsecctl("podsecctl enter by root", ROOT),
        nsenter("nsenter", ROOT, &[], child),
        nsenter("doas nsenter", ALICE, &["/usr/bin/doas", "-n"], child),
        nsenter("sudo nsenter", ALICE, &["/usr/bin/sudo", "-n"], child),
        nsenter("sudo-rs nsenter", ALICE, &["/usr/bin/sudo-rs", "-n"], child),
        nsenter("pkexec nsenter", ALICE, &["/usr/bin/pkexec"], child),
        nsenter(
            "machinectl nsenter",
            ALICE,
            &["/usr/bin/machinectl", "--quiet", "shell", "root@.host"],
            child,
        ),
        nsenter("run0 nsenter", ALICE, &["/usr/bin/run0", "--no-ask-password"], child),
    ];
    check(&ways, child);
    let samples = race(&ways, rounds);
    figures("enter-systemd", &ways, &samples, None)
}

/// A file that only root may change, on a host that is thrown away.
fn configure(path: &str, text: &str, mode: u32) {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).expect(path);
}
