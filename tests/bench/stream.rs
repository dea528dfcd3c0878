//! Bytes through a session's standard output, beside the same through bare nsenter. A session gets the caller's own pipe,
//! so nothing of podsec's is in between and the two should be the same.

use crate::enter;
use crate::figure::{Bound, Figure, Samples};
use podsec_tests::host;
use podsec_tests::people::{self, ALICE, ROOT};
use sha2::{Digest as _, Sha256};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Instant;

const MIB: usize = 1024 * 1024;
const FILE: &str = "/srv/podsec-bench.random";
const SIZE: usize = 256 * MIB;

pub fn run(rounds: usize) -> Vec<Figure> {
    let digest = make_file();
    let arguments = enter::nsenter_arguments(host::child_pid());
    let session = |program: &[&str]| {
        let mut command = people::command(ALICE, "/usr/bin/podsecctl");
        command.args(["enter", "--"]).args(program);
        command
    };
    let bare = |program: &[&str]| {
        let mut command = people::command(ROOT, "/usr/bin/nsenter");
        command.args(&arguments).args(program);
        command
    };
    let mut figures = Vec::new();
    let sources: [(&str, &[&str]); 2] =
        [("zeros", &["head", "-c", "268435456", "/dev/zero"]), ("a file", &["cat", FILE])];
    for (what, program) in sources {
        let (mut ours, mut theirs) = (Samples::new(), Samples::new());
        for round in 0..rounds {
            // Each is the first every other time.
            if round % 2 == 0 {
                ours.push(speed(&mut session(program)));
            }
            theirs.push(speed(&mut bare(program)));
            if round % 2 == 1 {
                ours.push(speed(&mut session(program)));
            }
        }
        for (name, samples) in [("podsecctl enter", &ours), ("nsenter", &theirs)] {
            let [low, middle, high] = [0.1, 0.5, 0.9].map(|share| samples.quantile(share));
            eprintln!("  {what:<8} {name:<16} p10 {low:.0} p50 {middle:.0} p90 {high:.0} MiB/s");
        }
        figures.push(
            Figure::new("stream", format!("{what}, median"), "MiB/s", ours.median())
                .against("nsenter", theirs.median())
                .bound(Bound::RatioAtLeast(0.95)),
        );
    }
    let mut hash = Sha256::new();
    drain(&mut session(&["cat", FILE]), |bytes| hash.update(bytes));
    let wrong = hash.finalize().as_slice() != digest.as_slice();
    figures.push(
        Figure::new("stream", "a file with another sha256", "", f64::from(u8::from(wrong)))
            .bound(Bound::AtMost(0.0)),
    );
    std::fs::remove_file(FILE).expect(FILE);
    figures
}

/// Random bytes; their SHA-256.
fn make_file() -> Vec<u8> {
    let (mut file, mut random) =
        (std::fs::File::create(FILE).expect(FILE), std::fs::File::open("/dev/urandom").unwrap());
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; MIB]);
    for _ in 0..SIZE / MIB {
        random.read_exact(&mut buffer).expect("random bytes");
        hash.update(&buffer);
        file.write_all(&buffer).expect(FILE);
    }
    hash.finalize().to_vec()
}

/// MiB a second, from the first bytes to the last: what it takes to get in has a benchmark of its own.
fn speed(command: &mut Command) -> f64 {
    let mut start = Instant::now();
    let (mut end, mut first, mut count) = (start, 0, 0);
    drain(command, |bytes| {
        end = Instant::now();
        if count == 0 {
            (start, first) = (end, bytes.len());
        }
        count += bytes.len();
    });
    assert_eq!(count, SIZE, "{command:?}");
    (SIZE - first) as f64 / MIB as f64 / (end - start).as_secs_f64()
}

/// Reads all that a command prints.
fn drain(command: &mut Command, mut take: impl FnMut(&[u8])) {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("a command");
    let mut output = child.stdout.take().expect("piped");
    let mut buffer = vec![0; 64 * 1024]; // what a pipe holds, pipe(7)
    loop {
        match output.read(&mut buffer).expect("a pipe") {
            0 => break,
            count => take(&buffer[..count]),
        }
    }
    let status = child.wait().expect("a child");
    assert!(status.success(), "{command:?}: {status}");
}
