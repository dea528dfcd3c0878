//! The opener: a process that is the log's owner, opens the log and what rotation left beside it, and hands the descriptors
//! to the judge, who could not open them. It is the same program once more, with a socket to the judge as its standard input;
//! it reads nothing of a log.
//!
//! Must not: open anything but a log's own names; follow a link; wait for anybody.

use super::MEMORY;
use crate::cage;
use podsec_sys::credentials::{self, Account};
use podsec_sys::file::Directory;
use podsec_sys::nix::fcntl::OFlag;
use podsec_sys::{process, socket};
use podsec_wire::{Channel, WireError};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Files of one log, the newest: kube-apiserver keeps all without `--audit-log-maxbackup`, and descriptors are few. Where one
/// is left out that was not read yet, the one that was being read is older and is left out too, and that is seen.
const MOST: usize = 256;
/// It opens a few files; whoever stops it makes the judge end, and be started again.
const PATIENCE: Duration = Duration::from_secs(10);

/// The judge's first word.
#[derive(Debug, Serialize, Deserialize)]
struct Begin {
    uid: u32,
    gid: u32,
    logs: Vec<PathBuf>,
}

/// The judge's question.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    /// Which of the logs of the beginning.
    log: usize,
    /// What is beside it, too.
    all: bool,
}

/// One of the opener's answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// A file's name, and its descriptor beside it.
    Open(String),
    /// A file that rotation has compressed, and when it was written last.
    Compressed(String, Time),
    /// There were no more.
    End,
    /// What is in the log's place is no log.
    Refused(String),
}

/// Of a file's last change: seconds since 1970, and nanoseconds.
pub type Time = (i64, i64);

/// What there is of a log.
#[derive(Debug, Default)]
pub struct Found {
    /// The log itself.
    pub current: Option<Opened>,
    /// What rotation left of it.
    pub rotated: Vec<Opened>,
    /// What it compressed, which nobody reads here.
    pub compressed: Vec<(String, Time)>,
}

/// An open file of a log.
#[derive(Debug)]
pub struct Opened {
    pub name: String,
    pub file: File,
    pub device: u64,
    pub inode: u64,
    pub size: u64,
    pub time: Time,
}

impl Opened {
    /// # Errors
    /// fstat(2); `PermissionDenied` says why it is not taken
    pub fn new(name: String, file: File, owner: u32) -> io::Result<Self> {
        let meta = file.metadata()?;
        let refuse = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        if !meta.is_file() {
            return refuse("not a plain file".into());
        }
        if meta.uid() != owner {
            return refuse(format!("belongs to uid {}, not to uid {owner}", meta.uid()));
        }
        let time = (meta.mtime(), meta.mtime_nsec());
        Ok(Self { name, file, device: meta.dev(), inode: meta.ino(), size: meta.len(), time })
    }

    /// The same file, by whatever name?
    pub fn is(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Opens what there is of a log, as whoever this process is.
///
/// # Errors
/// says why what is there is no log
pub fn open(path: &Path, owner: u32, all: bool) -> Result<Found, String> {
    let wrong = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return Err(wrong(path, &"not the path of a file"));
    };
    let directory = match Directory::open(parent) {
        Ok(directory) => directory,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(wrong(parent, &explained(error))),
    };
    if owner == 0 {
        // Others could have it read another file of root's.
        process::require_root_owned(parent).map_err(|error| wrong(parent, &error))?;
    }
    let open = |name: &str| {
        let file = directory.open_beneath(Path::new(name), OFlag::O_RDONLY, 0)?;
        Opened::new(name.to_owned(), file, owner)
    };
    let mut found = Found::default();
    // Before the others: what is rotated away in between is there twice rather than not at all.
    match open(name) {
        Ok(opened) => found.current = Some(opened),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(wrong(path, &explained(error))),
    }
    if all {
        let names = directory.names().map_err(|error| wrong(parent, &error))?;
        let names = names.iter().filter_map(|other| other.to_str().ok());
        for (other, compressed) in names.filter_map(|other| rotated(name, other)) {
            // Somebody else's is none of ours; one that is gone meanwhile is missed where it is looked for.
            let Ok(opened) = open(other) else { continue };
            if compressed {
                keep_newest(&mut found.compressed, (opened.name, opened.time), |(_, time)| *time);
            } else {
                keep_newest(&mut found.rotated, opened, |opened| opened.time);
            }
        }
    }
    Ok(found)
}

fn keep_newest<T>(list: &mut Vec<T>, one: T, time: impl Fn(&T) -> Time) {
    list.push(one);
    if list.len() > MOST
        && let Some((oldest, _)) = list.iter().enumerate().min_by_key(|(_, one)| time(one))
    {
        list.swap_remove(oldest);
    }
}

fn explained(error: io::Error) -> String {
    match error.raw_os_error() {
        Some(podsec_sys::nix::libc::ELOOP) => "a symbolic link is on its path, and none is followed".into(),
        Some(podsec_sys::nix::libc::ENOTDIR) => {
            "no directory, or a symbolic link, and none is followed".into()
        }
        Some(podsec_sys::nix::libc::ENXIO) => "not a plain file".into(),
        _ => error.to_string(),
    }
}

/// Is the other name that of the same log, rotated? As lumberjack does it for kube-apiserver, `audit-2026-11-27T02-03-04.000.log`,
/// or logrotate, `audit.log.1`, `audit.log-20261127`. And is it compressed?
fn rotated<'a>(name: &str, other: &'a str) -> Option<(&'a str, bool)> {
    let plain = [".gz", ".xz", ".bz2", ".zst"].iter().find_map(|ending| other.strip_suffix(ending));
    let (bare, compressed) = (plain.unwrap_or(other), plain.is_some());
    let (stem, ending) = match name.rfind('.') {
        Some(dot) => name.split_at(dot),
        None => (name, ""),
    };
    let digits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let stamp = |text: &str| {
        let is_part = |byte: u8| byte.is_ascii_digit() || b"-T.".contains(&byte);
        text.len() == "2026-11-27T02-03-04.000".len() && text.bytes().all(is_part)
    };
    let lumberjack = bare.strip_prefix(stem).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(ending));
    let logrotate = bare.strip_prefix(name).and_then(|rest| rest.strip_prefix(['.', '-']));
    (lumberjack.is_some_and(stamp) || logrotate.is_some_and(digits)).then_some((other, compressed))
}

/// The judge's end of the socket, where this process was started to be an opener.
pub fn asked() -> Option<Channel> {
    let input = io::stdin().as_fd().try_clone_to_owned().ok()?;
    (socket::kind(&input).ok()? == socket::Kind::Packet).then(|| input.into())
}

/// Answers until the judge ends.
///
/// # Errors
/// says what could not be done
pub fn serve(judge: &Channel) -> Result<(), String> {
    let Some((begin, _)) = judge.receive::<Begin>().map_err(wrong)? else { return Ok(()) };
    let become_it = || {
        if begin.uid == 0 {
            return credentials::keep_only(&[]);
        }
        credentials::empty_bounding_set()?;
        Account { uid: begin.uid, gid: begin.gid, groups: Vec::new() }.become_it()
    };
    become_it().map_err(|error| format!("becoming uid {}: {error}", begin.uid))?;
    cage::shut(cage::Files::Read, MEMORY)?;
    let send = |answer: &Answer| judge.send(answer, &[]).map_err(wrong);
    while let Some((ask, _)) = judge.receive::<Ask>().map_err(wrong)? {
        let path = begin.logs.get(ask.log).ok_or("asked for a log that is none")?;
        match open(path, begin.uid, ask.all) {
            Err(why) => send(&Answer::Refused(why))?,
            Ok(found) => {
                for (name, time) in found.compressed {
                    send(&Answer::Compressed(name, time))?;
                }
                for opened in found.rotated.into_iter().chain(found.current) {
                    judge.send(&Answer::Open(opened.name), &[opened.file.as_fd()]).map_err(wrong)?;
                }
                send(&Answer::End)?;
            }
        }
    }
    Ok(())
}

/// The judge's side.
#[derive(Debug)]
pub struct Opener {
    channel: Channel,
    uid: u32,
}

impl Opener {
    /// Starts one for these logs of that owner.
    ///
    /// # Errors
    /// says what could not be done
    pub fn start(uid: u32, gid: u32, logs: Vec<PathBuf>) -> Result<Self, String> {
        let start = || {
            let (channel, other) = Channel::pair()?;
            let arguments = ["watch".to_owned(), "kubeapi".to_owned()];
            process::start(&std::env::current_exe()?, &arguments, other.as_fd())?;
            Ok(channel)
        };
        let channel = start().map_err(|error: io::Error| format!("starting the opener: {error}"))?;
        channel.send(&Begin { uid, gid, logs }, &[]).map_err(wrong)?;
        Ok(Self { channel, uid })
    }

    /// What there is of a log. What the opener says is taken for what it is: it is the log's owner.
    ///
    /// # Errors
    /// `Ok(Err(why))`: what is there is no log; `Err`: the opener is gone or does not answer
    pub fn ask(&self, log: usize, path: &Path, all: bool) -> Result<Result<Found, String>, String> {
        self.channel.send(&Ask { log, all }, &[]).map_err(wrong)?;
        let mut found = Found::default();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        for _ in 0..2 * MOST + 2 {
            let there = process::wait_readable(&[self.channel.as_fd()], Some(PATIENCE));
            if !there.map_err(|error| error.to_string())? {
                return Err(format!("the opener of {} does not answer", path.display()));
            }
            let received = self.channel.receive::<Answer>().map_err(wrong)?;
            let (answer, descriptors) =
                received.ok_or_else(|| format!("the opener of {} ended", path.display()))?;
            match answer {
                Answer::End => return Ok(Ok(found)),
                Answer::Refused(why) => return Ok(Err(why)),
                Answer::Compressed(name, time) => found.compressed.push((name, time)),
                Answer::Open(opened) => {
                    let file = descriptors.into_iter().next().ok_or("the opener sent no file")?;
                    let is_current = opened == name;
                    let opened = Opened::new(opened, file.into(), self.uid);
                    let opened = opened.map_err(|error| format!("{}: {error}", path.display()))?;
                    if is_current {
                        found.current = Some(opened);
                    } else {
                        found.rotated.push(opened);
                    }
                }
            }
        }
        Err(format!("the opener of {} does not come to an end", path.display()))
    }
}

fn wrong(error: WireError) -> String {
    format!("opener and judge: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn names_of_rotation() {
        for (other, expected) in [
            ("audit-2026-11-27T02-03-04.000.log", Some(false)),
            ("audit-2026-11-27T02-03-04.000.log.gz", Some(true)),
            ("audit.log.1", Some(false)),
            ("audit.log.12.gz", Some(true)),
            ("audit.log-20261127", Some(false)),
            ("audit.log-20261127-3.xz", Some(true)),
            ("audit.log", None),
            ("audit.log.gz", None),
            ("audit.log.bak", None),
            ("audit.log.1.bak", None),
            ("audit-copy.log", None),
            ("audit-.log", None),
            ("audit-policy.yaml", None),
            ("other.log.1", None),
            ("", None),
        ] {
            assert_eq!(rotated("audit.log", other).map(|(_, compressed)| compressed), expected, "{other}");
        }
        assert!(rotated("audit", "audit-2026-11-27T02-03-04.000").is_some());
        assert!(rotated("audit", "audit.1").is_some());
    }

    #[test]
    fn the_newest_are_kept() {
        let mut list = Vec::new();
        for time in [5, 1, 4, 2, 3].into_iter().chain(6..=MOST as i64 + 3) {
            keep_newest(&mut list, (time, 0), |time| *time);
        }
        assert_eq!(list.len(), MOST);
        assert_eq!(list.iter().min(), Some(&(4, 0)));
    }

    #[test]
    fn only_plain_files_of_the_owner() {
        let base = std::env::temp_dir().join(format!("podsec-opener-{}", std::process::id()));
        let log = base.join("audit.log");
        let me = podsec_sys::nix::unistd::geteuid().as_raw();
        // Root's must be root's all the way, which a temporary directory is not.
        let owner = if me == 0 { 65_533 } else { me };
        let give = |path: &Path| {
            if me == 0 {
                std::os::unix::fs::lchown(path, Some(owner), None).unwrap();
            }
        };
        assert!(open(&log, owner, true).unwrap().current.is_none(), "no directory");
        std::fs::create_dir(&base).unwrap();
        assert!(open(&log, owner, true).unwrap().current.is_none(), "no log");
        let write = |path: &Path| podsec_sys::file::replace(path, b"x", 0o600).unwrap();
        write(&log);
        give(&log);
        let found = open(&log, owner, true).unwrap();
        assert_eq!((found.current.unwrap().size, found.rotated.len()), (1, 0));
        assert!(open(&log, owner + 1, false).unwrap_err().contains("belongs to uid"));
        for name in ["audit.log.1", "audit.log.2.gz", "other"] {
            write(&base.join(name));
            give(&base.join(name));
        }
        symlink("audit.log", base.join("audit.log.3")).unwrap();
        let found = open(&log, owner, true).unwrap();
        assert_eq!((found.rotated.len(), found.compressed.len()), (1, 1));
        assert_eq!(open(&log, owner, false).unwrap().rotated.len(), 0);
        std::fs::remove_file(&log).unwrap();
        symlink("/etc/passwd", &log).unwrap();
        assert!(open(&log, owner, false).unwrap_err().contains("symbolic link"));
        std::fs::remove_file(&log).unwrap();
        podsec_sys::nix::unistd::mkfifo(&log, podsec_sys::nix::sys::stat::Mode::S_IRWXU).unwrap();
        give(&log);
        assert!(open(&log, owner, false).unwrap_err().contains("not a plain file"));
        std::fs::remove_file(&log).unwrap();
        std::fs::create_dir(&log).unwrap();
        give(&log);
        assert!(open(&log, owner, false).is_err());
        symlink(&base, base.join("link")).unwrap();
        assert!(open(&base.join("link/audit.log"), owner, false).unwrap_err().contains("symbolic link"));
        if me == 0 {
            write(&base.join("roots.log"));
            assert!(open(&base.join("roots.log"), 0, false).unwrap().current.is_some());
            std::fs::set_permissions(&base, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
            assert!(open(&base.join("roots.log"), 0, false).unwrap_err().contains("not root's alone"));
        }
        std::fs::remove_dir_all(&base).unwrap();
    }
}
