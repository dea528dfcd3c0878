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
const FILE_SIZE: usize = 256 * MIB;

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
    let sources: [(&str, &[&str], usize); 2] = [
        ("zeros, 1 GiB", &["head", "-c", "1073741824", "/dev/zero"], 1024 * MIB),
        ("a file, 256 MiB", &["cat", FILE], FILE_SIZE),
    ];
    for (what, program, size) in sources {
        let (mut ours, mut theirs) = (Samples::new(), Samples::new());
        for _ in 0..rounds {
            ours.push(speed(&mut session(program), size));
            theirs.push(speed(&mut bare(program), size));
        }
        eprintln!("  {what}: {}", ours.spread(&theirs));
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
    for _ in 0..FILE_SIZE / MIB {
        random.read_exact(&mut buffer).expect("random bytes");
        hash.update(&buffer);
        file.write_all(&buffer).expect(FILE);
    }
    hash.finalize().to_vec()
}

/// MiB a second, start and end of the command included.
fn speed(command: &mut Command, size: usize) -> f64 {
    let start = Instant::now();
    let mut count = 0;
    drain(command, |bytes| count += bytes.len());
    assert_eq!(count, size, "{command:?}");
    (size / MIB) as f64 / start.elapsed().as_secs_f64()
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
