//! The watcher of containers: how long it takes to begin, by how many directories there are, beside inotifywait, which watches
//! each of them; and what it does with more events than anybody can read.

use crate::figure::{Bound, Figure, Samples};
use crate::memory::kib;
use podsec_tests::host;
use podsec_tests::people::{ROOT, bash};
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const FEW: usize = 100;
const MANY: usize = 100_000;
const FILES: usize = 100_000;
const IN_EACH: usize = 500;
/// On a tmpfs of the throwaway host.
const HOME: &str = "/home/watched";
const REPORT: &str = "/var/lib/podsec-monitor/containers/report.json";
/// What inotifywait is told to look for: the same.
const EVENTS: &str = "create,delete,modify,close_write,moved_from,moved_to,attrib";

pub fn run(rounds: usize) -> Vec<Figure> {
    bash(ROOT, &format!("useradd --create-home --home-dir {HOME} watched"));
    let mut figures = begin(rounds);
    figures.extend(flood());
    bash(ROOT, &format!("userdel watched; rm -rf {HOME}"));
    figures
}

/// A store with one container, whose layer that is.
fn layer() -> PathBuf {
    let store = Path::new(HOME).join(".local/share/containers/storage");
    let (container, layer) = ("c".repeat(64), "a".repeat(64));
    for name in ["overlay-images".into(), format!("overlay-containers/{container}/userdata")] {
        fs::create_dir_all(store.join(name)).expect("a store");
    }
    let list = format!(r#"[{{"id":"{container}","names":["bench"],"image":"i","layer":"{layer}"}}]"#);
    fs::write(store.join("overlay-containers/containers.json"), list).expect("a container");
    let layer = store.join("overlay").join(layer).join("diff");
    fs::create_dir_all(&layer).expect("a layer");
    bash(ROOT, &format!("chown -R watched {HOME}"));
    layer
}

/// A watcher, ours or the other, which has said that it watches.
struct Watcher {
    child: Child,
    took: Duration,
}

impl Watcher {
    fn ours() -> Self {
        let _ = fs::remove_file(REPORT);
        let mut command = Command::new("/usr/libexec/podsec/podsec-monitor");
        command.args(["watch", "containers"]).env_clear().stdout(Stdio::null());
        Self::start(command, &format!("watching {HOME}/"))
    }

    fn inotify(layer: &Path) -> Self {
        let mut command = Command::new("/usr/bin/inotifywait");
        command.args(["--monitor", "--recursive", "--event", EVENTS, "--format", "%w%f %e"]).arg(layer);
        command.stdout(fs::File::create("/run/podsec-tests/inotifywait").expect("a file"));
        Self::start(command, "Watches established")
    }

    fn start(mut command: Command, ready: &str) -> Self {
        let start = Instant::now();
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a watcher");
        let mut log = BufReader::new(child.stderr.take().expect("its log"));
        let mut said = String::new();
        while !said.contains(ready) {
            said.clear();
            assert!(log.read_line(&mut said).expect("its log") > 0, "it ended before it said {ready}");
        }
        let took = start.elapsed();
        // Whoever does not read its log would stop it.
        std::thread::spawn(move || _ = log.read_to_end(&mut Vec::new()));
        Self { child, took }
    }

    fn pids(&self) -> Vec<i32> {
        let own = i32::try_from(self.child.id()).expect("a pid");
        let text = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        text.split_whitespace().map(|pid| pid.parse().expect("a pid")).chain([own]).collect()
    }

    /// Seconds of a processor that all its processes have had (sched-stats.rst of the kernel).
    fn processor(&self) -> f64 {
        let of = |pid| {
            let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
            text.split(' ').next().and_then(|time| time.parse::<f64>().ok()).unwrap_or_default() / 1e9
        };
        self.pids().into_iter().map(of).sum()
    }

    /// Waits until it has done all it had to do, and gives how much more it took than `before`.
    fn settled(&self, before: f64) -> f64 {
        let mut last = self.processor();
        loop {
            // Longer than it waits until it writes its report.
            std::thread::sleep(Duration::from_millis(1_500));
            let now = self.processor();
            if now - last < 0.002 {
                return now - before;
            }
            last = now;
        }
    }

    fn end(mut self) -> Duration {
        host::kill(i32::try_from(self.child.id()).expect("a pid"), "TERM");
        self.child.wait().expect("its end");
        self.took
    }
}

/// That many more directories, a thousand in each.
fn directories(layer: &Path, from: usize, to: usize) {
    for number in from..to {
        fs::create_dir_all(layer.join(format!("srv/{}/{number}", number / 1_000))).expect("a directory");
    }
}

fn begin(rounds: usize) -> Vec<Figure> {
    let layer = layer();
    let mut found = Vec::new();
    let mut there = 0;
    for count in [FEW, MANY] {
        directories(&layer, there, count);
        there = count;
        let (mut ours, mut inotify) = (Samples::new(), Samples::new());
        for _ in 0..rounds {
            ours.push_time(Watcher::ours().end());
            inotify.push_time(Watcher::inotify(&layer).end());
        }
        eprintln!("  with {count} directories");
        found.push((ours.median(), inotify.median()));
    }
    bash(ROOT, &format!("rm -r {}/srv", layer.display()));
    let [few, many] = found[..] else { panic!("two sizes") };
    let figure = |what: &str, value| Figure::new("watch", what, "ms", value);
    vec![
        figure("start, 100 directories", few.0).against("inotifywait", few.1),
        figure("start, 100,000 directories", many.0)
            .against("inotifywait", many.1)
            .bound(Bound::RatioAtMost(0.1)),
        figure("start, 100,000 directories", many.0)
            .against("with 100", few.0)
            .bound(Bound::RatioAtMost(1.5)),
        figure("inotifywait, 100,000 directories", many.1).against("with 100", few.1),
    ]
}

/// One file after the other, as fast as one process can.
fn write(layer: &Path) -> Duration {
    for number in 0..FILES / IN_EACH {
        fs::create_dir_all(layer.join(format!("opt/{number}"))).expect("a directory");
    }
    let start = Instant::now();
    for number in 0..FILES {
        fs::write(layer.join(format!("opt/{}/{number}", number / IN_EACH)), "x").expect("a file");
    }
    start.elapsed()
}

fn flood() -> Vec<Figure> {
    let layer = layer();
    let ours = Watcher::ours();
    let before = ours.settled(0.0);
    let took = write(&layer);
    let used = ours.settled(before);
    let resident = ours.pids().into_iter().map(|pid| kib(pid, "status", "VmHWM")).fold(0.0, f64::max);
    let all: f64 = ours.pids().into_iter().map(|pid| kib(pid, "status", "RssAnon")).sum();
    ours.end();
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(REPORT).expect(REPORT)).expect("a report");
    let number = |key: &str| report[key].as_f64().expect(key);
    let (seen, lost) = (number("looked_at"), number("lost"));
    // Every file is one event at least. Where the kernel had no room that was said, and is no silence.
    let silent = if lost > 0.0 { 0.0 } else { (FILES as f64 - seen).max(0.0) };
    bash(ROOT, &format!("rm -r {}/opt", layer.display()));

    for number in 0..FILES / IN_EACH {
        fs::create_dir_all(layer.join(format!("opt/{number}"))).expect("a directory");
    }
    let inotify = Watcher::inotify(&layer);
    let before = inotify.settled(0.0);
    write(&layer);
    let other = inotify.settled(before);
    inotify.end();
    bash(ROOT, &format!("rm -r {}/opt", layer.display()));

    let figure = |what: &str, unit, value| Figure::new("watch", what, unit, value);
    let files = FILES as f64;
    vec![
        figure("files written, a second", "", files / took.as_secs_f64()),
        figure("their events that disappeared", "", silent).bound(Bound::AtMost(0.0)),
        figure("queues that ran over, and said so", "", lost),
        figure("memory of its own, all parts", "MiB", all / 1024.0).bound(Bound::AtMost(64.0)),
        figure("largest of its processes", "MiB", resident / 1024.0).bound(Bound::AtMost(64.0)),
        figure("files a second of a processor", "", files / used)
            .against("inotifywait", files / other)
            .bound(Bound::RatioAtLeast(1.5)),
    ]
}
