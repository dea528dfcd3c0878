//! Who may write: an image user's guard, and the host's configuration. Judged by owners, modes and the attribute `i` of
//! chattr(1); nothing is ever written to find out.

use super::terms::{Note, USER_POLICY};
use podsec_policy::finding::Text;
use podsec_sys::file::is_immutable;
use podsec_sys::nix::libc;
use serde::{Deserialize, Serialize};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Entries of the host's configuration that are looked at.
const MOST: usize = 4096;
/// Directories one in the other.
const DEEP: u32 = 6;

/// How well root's policy is kept in a user's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Guard {
    /// Nobody has looked.
    #[default]
    Unseen,
    /// It is not there; why not.
    Absent(Text),
    /// It can be taken away; how.
    Loose(Text),
    /// It can be renamed away, and this file system cannot keep its owner from that.
    Movable,
    /// As podsec places it.
    Fixed,
}

/// For a process that is the user.
pub fn of(home: &Path) -> Guard {
    let (config, containers) = (home.join(".config"), home.join(".config/containers"));
    let absent = |why: &str| Guard::Absent(Text::of(format!("{}: {why}", containers.display())));
    let meta = match containers.symlink_metadata() {
        Ok(meta) => meta,
        Err(error) => return absent(&error.to_string()),
    };
    if !meta.is_dir() || meta.uid() != 0 {
        return absent("not a directory of root's");
    }
    if !std::fs::read_link(containers.join("policy.json")).is_ok_and(|link| link == Path::new(USER_POLICY)) {
        return absent("its policy.json is not root's link");
    }
    if let Some(why) = others_write(&meta) {
        return Guard::Loose(Text::of(format!("{}: {why}", containers.display())));
    }
    for path in [&config, &containers] {
        match open(path).and_then(|directory| is_immutable(&directory)) {
            Ok(true) => {}
            Ok(false) => return Guard::Loose(Text::of(format!("{} is not immutable", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return Guard::Movable,
            Err(error) => return Guard::Loose(Text::of(format!("{}: {error}", path.display()))),
        }
    }
    Guard::Fixed
}

fn open(path: &Path) -> io::Result<File> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    File::options().read(true).custom_flags(flags).open(path)
}

/// Who but its owner, if anybody.
fn others_write(meta: &Metadata) -> Option<&'static str> {
    if meta.mode() & 0o002 != 0 {
        Some("everybody may write")
    } else if meta.mode() & 0o020 != 0 && meta.gid() != 0 {
        Some("a group may write")
    } else {
        None
    }
}

/// What root alone should be able to write to, and is not so: the trees below, whatever links in them lead to, and the
/// directories on the way to both.
pub fn writable(roots: &[&Path]) -> Vec<Note> {
    let (mut found, mut left) = (Vec::new(), MOST);
    for root in roots {
        way(root, &mut found);
        if let Ok(meta) = root.symlink_metadata() {
            walk(root, &meta, DEEP, &mut left, &mut found);
        }
    }
    found
}

fn walk(path: &Path, meta: &Metadata, deep: u32, left: &mut usize, found: &mut Vec<Note>) {
    if meta.is_symlink() {
        match path.canonicalize() {
            Ok(real) => {
                if let Ok(meta) = real.symlink_metadata() {
                    look(&real, &meta, found);
                }
                way(&real, found);
            }
            // To nothing, yet, or to where not even root may look without a capability.
            Err(_) => {
                if let (Ok(target), Some(parent)) = (std::fs::read_link(path), path.parent()) {
                    way(&parent.join(target), found);
                }
            }
        }
        return;
    }
    look(path, meta, found);
    let Some(deeper) = deep.checked_sub(1).filter(|_| meta.is_dir()) else { return };
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        let Some(fewer) = left.checked_sub(1) else { return };
        *left = fewer;
        let path = entry.path();
        if let Ok(meta) = path.symlink_metadata() {
            walk(&path, &meta, deeper, left, found);
        }
    }
}

fn look(path: &Path, meta: &Metadata, found: &mut Vec<Note>) {
    let owner = (meta.uid() != 0).then(|| format!("belongs to uid {}", meta.uid()));
    let Some(why) = owner.or_else(|| others_write(meta).map(str::to_owned)) else { return };
    let note = (Text::of(path.as_os_str().as_encoded_bytes()), Text::of(why));
    if !found.contains(&note) {
        found.push(note);
    }
}

/// The directories above. In a sticky one nobody renames what is somebody else's.
fn way(path: &Path, found: &mut Vec<Note>) {
    for directory in path.ancestors().skip(1) {
        if let Ok(meta) = directory.metadata()
            && !(meta.mode() & 0o1000 != 0 && meta.uid() == 0)
        {
            look(directory, &meta, found);
        }
    }
}
