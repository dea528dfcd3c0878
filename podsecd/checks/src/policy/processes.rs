//! What image users run, and by which policy: of each podman, skopeo and buildah its arguments and its environment.
//!
//! Only what runs just now is seen, and only under its usual name. It is a net with wide meshes, and no wall.

use podsec_policy::finding::Text;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Names, as /proc/PID/comm has them, and the options by which they take another policy, or none. `podman pull --policy` is
/// about something else.
const PROGRAMS: [(&str, &[&str]); 3] = [
    ("podman", &["--signature-policy"]),
    ("skopeo", &["--policy", "--insecure-policy"]),
    ("buildah", &["--signature-policy"]),
];
/// Variable that names another registries.conf.
const REGISTRIES: &[u8] = b"CONTAINERS_REGISTRIES_CONF=";
/// Bytes of arguments or environment.
const LONGEST: u64 = 256 << 10;
/// Processes of one user.
const MOST: usize = 100;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pid: i32,
    program: &'static str,
    options: &'static [&'static str],
}

/// Held open, which takes the right to look into it.
#[derive(Debug)]
pub struct Opened {
    running: Running,
    arguments: File,
    environment: File,
}

/// What is odd about one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its name.
    pub program: Text,
    /// Its number, and how it was told to take another policy.
    pub bypass: Option<Text>,
    /// Its number, and its HOME.
    pub home: Option<Text>,
}

/// All that run, by the uid of their owner.
pub fn programs() -> BTreeMap<u32, Vec<Running>> {
    let mut all: BTreeMap<u32, Vec<Running>> = BTreeMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let mut comm = [0; 16];
        let Ok(count) = File::open(entry.path().join("comm")).and_then(|mut file| file.read(&mut comm))
        else {
            continue;
        };
        let comm = comm.get(..count).unwrap_or_default().trim_ascii_end();
        let known = PROGRAMS.into_iter().find(|(program, _)| program.as_bytes() == comm);
        let Some((program, options)) = known else { continue };
        if let Ok(meta) = std::fs::metadata(entry.path()) {
            all.entry(meta.uid()).or_default().push(Running { pid, program, options });
        }
    }
    all
}

/// For a process that is the user and not shut in yet: Landlock lets nobody look into processes outside.
pub fn open(running: &[Running]) -> Vec<Opened> {
    let open = |&running: &Running| {
        let file = |name| File::open(format!("/proc/{}/{name}", running.pid)).ok();
        Some(Opened { running, arguments: file("cmdline")?, environment: file("environ")? })
    };
    running.iter().take(MOST).filter_map(open).collect()
}

/// `None`: nothing odd.
pub fn look(opened: Opened, home: &Path) -> Option<Process> {
    let Opened { running: Running { pid, program, options }, arguments, environment } = opened;
    let (arguments, environment) = (read(arguments), read(environment));
    let option = arguments.split(|&byte| byte == 0).find_map(|word| {
        options.iter().find(|option| {
            let rest = word.strip_prefix(option.as_bytes());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"="))
        })
    });
    let variables = || environment.split(|&byte| byte == 0);
    let registries = variables().find(|variable| variable.starts_with(REGISTRIES));
    let said = option.map(|option| option.as_bytes()).or(registries);
    let other = variables().find_map(|variable| variable.strip_prefix(b"HOME=")).filter(|&other| {
        let other = Path::new(std::ffi::OsStr::from_bytes(other));
        other != home
            && (other.canonicalize().ok().is_none_or(|other| Some(other) != home.canonicalize().ok()))
    });
    let text =
        |what: &[u8], before: &str| Text::of([format!("pid {pid}: {before}").as_bytes(), what].concat());
    let process = Process {
        program: Text::of(program),
        bypass: said.map(|said| text(said, "")),
        home: other.map(|other| text(other, "HOME=")),
    };
    (process.bypass.is_some() || process.home.is_some()).then_some(process)
}

fn read(file: File) -> Vec<u8> {
    let mut bytes = Vec::new();
    // One that has ended meanwhile has neither.
    let _ = file.take(LONGEST).read_to_end(&mut bytes);
    bytes
}
