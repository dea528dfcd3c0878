//! A whole entry, beside other ways to do the same. All take turns, so that whatever else the machine does hits all
//! alike.

use crate::figure::{Bound, Figure, Samples};
use crate::helper::Spawner;
use podsec_tests::host;
use podsec_tests::people::{ALICE, ROOT};
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

fn nsenter(name: &'static str, user: &'static str, before: &[&str], child: i32) -> Way {
    let target = format!("--target={child}");
    way(name, user, &[before, &["/usr/bin/nsenter", &target], &KINDS, &["--", "true"]].concat())
}

fn podsecctl(name: &'static str, user: &'static str) -> Way {
    way(name, user, &["/usr/bin/podsecctl", "enter", "--", "true"])
}

/// Times each way, taking turns in an order that is another each round.
fn race(ways: &[Way], rounds: usize) -> Vec<Samples> {
    let commands: Vec<Vec<String>> = ways.iter().map(|way| way.argv.clone()).collect();
    let mut spawners = [ROOT, ALICE].map(|user| (user, Spawner::start(user, &commands)));
    let mut samples = vec![Samples::default(); ways.len()];
    let mut order: Vec<usize> = (0..ways.len()).collect();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64; // xorshift64, Marsaglia 2003: the same orders every run
    const UNCOUNTED: usize = 5;
    for round in 0..rounds + UNCOUNTED {
        for last in (1..order.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            order.swap(last, (random % (last as u64 + 1)) as usize);
        }
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
    samples
}

/// The first ways are podsec's, the next is the one that all are measured by, the rest are others.
fn figures(
    bench: &'static str,
    ways: &[Way],
    samples: &[Samples],
    others_at_most: Option<f64>,
) -> Vec<Figure> {
    let bare = ways.iter().position(|way| way.name == "nsenter").expect("nsenter");
    let mut figures = Vec::new();
    let against = |index: usize, share: f64, name: &str, by: usize| {
        let what = format!("{} p{:.0}", ways[index].name, share * 100.0);
        Figure::new(bench, what, "ms", samples[index].quantile(share))
            .against(name, samples[by].quantile(share))
    };
    for index in 0..bare {
        figures.push(against(index, 0.5, "nsenter", bare).bound(Bound::RatioAtMost(1.3)));
        figures.push(against(index, 0.9, "nsenter", bare));
        eprintln!("  {}: {}", ways[index].name, samples[index].spread(&samples[bare]));
    }
    for by in bare + 1..ways.len() {
        let figure = against(0, 0.5, ways[by].name, by);
        figures.push(match others_at_most {
            Some(ratio) => figure.bound(Bound::RatioAtMost(ratio)),
            None => figure,
        });
    }
    figures
}

/// With sudo and doas.
pub fn on_throwaway(rounds: usize) -> Vec<Figure> {
    configure("/etc/sudoers.d/podsec-bench", "alice ALL=(root) NOPASSWD: ALL\n");
    configure("/etc/doas.conf", "permit nopass alice as root\n");
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
    let samples = race(&[ways, floor].concat(), rounds);
    let mut figures = figures("enter", ways, &samples, Some(1.0));
    figures.push(Figure::new("enter", "/bin/true p50, the floor", "ms", samples[ways.len()].median()));
    figures
}

/// With what needs systemd.
pub fn on_systemd(_: usize) -> Vec<Figure> {
    Vec::new()
}

/// A file that only root may change, on a host that is thrown away.
fn configure(path: &str, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).expect(path);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o440)).expect(path);
}
