//! The numbers behind the account names of the configuration, from `/etc/passwd` and `/etc/group` themselves.
//!
//! Not by NSS: that would bring other people's libraries, their sockets and their waiting into the one process that
//! must never wait. So the accounts that roles hang on are local ones. Who is a *member* of them is another
//! question: the kernel knows the caller's groups, and a worker asks NSS before anything is done.

use podsec_policy::config::Accounts as Names;
use podsec_policy::peer::Roster;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;

/// What of a file tells that it was replaced or edited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stamp(u64, i64, i64, u64);

impl From<Metadata> for Stamp {
    fn from(meta: Metadata) -> Self {
        Self(meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size())
    }
}

const FILES: [&str; 2] = ["/etc/passwd", "/etc/group"];

/// The numbers, read again whenever one of the files has changed.
#[derive(Debug)]
pub struct Accounts {
    names: Names,
    stamps: [Stamp; 2],
    roster: Roster,
    front: Option<(u32, u32)>,
}

impl Accounts {
    /// Reads them for the first time.
    pub fn new(names: Names) -> Self {
        let mut accounts = Self { names, stamps: Default::default(), roster: Roster::default(), front: None };
        accounts.refresh();
        accounts
    }

    /// As of now.
    pub fn roster(&mut self) -> &Roster {
        self.refresh();
        &self.roster
    }

    /// uid and gid that a front becomes.
    pub fn front(&mut self) -> Option<(u32, u32)> {
        self.refresh();
        self.front
    }

    fn refresh(&mut self) {
        let stamps = FILES.map(|file| std::fs::metadata(file).map(Stamp::from).unwrap_or_default());
        if stamps == self.stamps {
            return;
        }
        // A file that cannot be read gives nobody any role.
        let [passwd, group] = FILES.map(|file| std::fs::read_to_string(file).unwrap_or_default());
        let gid = |name: &str| entry(&group, name).and_then(|mut fields| fields.next());
        self.roster = Roster {
            administrators: gid(&self.names.administrators),
            cluster_user: entry(&passwd, &self.names.cluster_user).and_then(|mut fields| fields.next()),
            image_users: gid(&self.names.image_users),
            image_creators: gid(&self.names.image_creators),
            monitors: gid(&self.names.monitors),
        };
        self.front = entry(&passwd, &self.names.front).and_then(|mut ids| Some((ids.next()?, ids.next()?)));
        self.stamps = stamps;
    }
}

/// The numbers from the third field on of the first line of that name (passwd(5), group(5)); the first, since that is
/// the one that everybody else's lookups find.
fn entry<'a>(file: &'a str, name: &str) -> Option<impl Iterator<Item = u32> + use<'a>> {
    let line = file.lines().find(|line| line.split(':').next() == Some(name))?;
    Some(line.split(':').skip(2).map_while(|field| field.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::entry;

    #[test]
    fn exact_names_and_first_lines() {
        let group = "root:x:0:\nWheel:x:7:eve\nwheel :x:8:eve\nxwheel:x:9:\nwheel:x:10:alice\nwheel:x:11:eve\nbad:x:-1:\n";
        let gid = |name| entry(group, name).and_then(|mut fields| fields.next());
        assert_eq!(gid("wheel"), Some(10));
        assert_eq!(gid("bad"), None);
        assert_eq!(gid("none"), None);
        let passwd = "podsec:x:998:997::/:/usr/sbin/nologin\n";
        assert_eq!(entry(passwd, "podsec").unwrap().collect::<Vec<_>>(), [998, 997]);
    }
}
