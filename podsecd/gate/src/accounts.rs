//! The numbers behind the account names of the configuration, from `/etc/passwd` and `/etc/group` themselves.
//!
//! Not by NSS: that would bring other people's libraries, their sockets and their waiting into the one process that
//! must never wait. So the accounts that roles hang on are local ones. Who is a *member* of them is another
//! question: the kernel knows the caller's groups, and a worker asks NSS before anything is done.

use podsec_policy::config::Accounts as Names;
use podsec_policy::peer::Roster;
use podsec_wire::messages::{ClusterUser, Place};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

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
    /// State directory of podsec-u7s.
    state: PathBuf,
    place: Option<Place>,
}

impl Accounts {
    /// Reads them for the first time.
    pub fn new(names: Names, state: PathBuf) -> Self {
        let (stamps, roster) = (Default::default(), Roster::default());
        let mut accounts = Self { names, stamps, roster, front: None, state, place: None };
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

    /// Whom a worker becomes, and where he is found.
    pub fn place(&mut self) -> Option<Place> {
        self.refresh();
        self.place.clone()
    }

    fn refresh(&mut self) {
        let stamps = FILES.map(|file| std::fs::metadata(file).map(Stamp::from).unwrap_or_default());
        if stamps == self.stamps {
            return;
        }
        // A file that cannot be read gives nobody any role, and is read again next time: there may be no descriptor left
        // just now.
        let files = FILES.map(std::fs::read_to_string);
        self.stamps = if files.iter().all(Result::is_ok) { stamps } else { Default::default() };
        let [passwd, group] = files.map(Result::unwrap_or_default);
        let gid = |name: &str| entry(&group, name).and_then(|fields| number(&fields, 2));
        let user = entry(&passwd, &self.names.cluster_user).and_then(|fields| cluster_user(&fields, &group));
        self.roster = Roster {
            administrators: gid(&self.names.administrators),
            cluster_user: user.as_ref().map(|user| user.uid),
            image_users: gid(&self.names.image_users),
            image_creators: gid(&self.names.image_creators),
            monitors: gid(&self.names.monitors),
        };
        self.place = user.map(|user| Place { user, state: self.state.clone() });
        let front = entry(&passwd, &self.names.front);
        self.front = front.and_then(|fields| Some((number(&fields, 2)?, number(&fields, 3)?)));
    }
}

/// The fields of the first line of that name (passwd(5), group(5)); the first, since that is the one that everybody
/// else's lookups find.
fn entry<'a>(file: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let line = file.lines().find(|line| line.split(':').next() == Some(name))?;
    Some(line.split(':').collect())
}

fn number(fields: &[&str], index: usize) -> Option<u32> {
    fields.get(index)?.parse().ok()
}

fn cluster_user(fields: &[&str], group: &str) -> Option<ClusterUser> {
    let &[name, _, _, _, _, home, shell] = fields else { return None };
    let is_member = |line: &&str| {
        line.rsplit(':').next().is_some_and(|members| members.split(',').any(|member| member == name))
    };
    let groups = group.lines().filter(is_member).filter_map(|line| line.split(':').nth(2)?.parse().ok());
    Some(ClusterUser {
        name: name.into(),
        uid: number(fields, 2)?,
        gid: number(fields, 3)?,
        groups: groups.collect(),
        home: home.into(),
        shell: shell.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_names_and_first_lines() {
        let group = "root:x:0:\nWheel:x:7:eve\nwheel :x:8:eve\nxwheel:x:9:\nwheel:x:10:alice\nwheel:x:11:eve\nbad:x:-1:\n";
        let gid = |name| entry(group, name).and_then(|fields| number(&fields, 2));
        assert_eq!(gid("wheel"), Some(10));
        assert_eq!(gid("bad"), None);
        assert_eq!(gid("none"), None);
    }

    #[test]
    fn cluster_user_and_his_groups() {
        let passwd = "u7s-admin:x:990:989:cluster, user:/var/lib/u7s-admin:/bin/bash";
        let group = "a:x:1:u7s-admin2\nb:x:2:x,u7s-admin,y\nc:x:3:u7s-admin\nu7s-admin:x:989:\n";
        let user = cluster_user(&entry(passwd, "u7s-admin").unwrap(), group).unwrap();
        assert_eq!((user.uid, user.gid, &user.groups[..]), (990, 989, &[2, 3][..]));
        assert_eq!(
            (user.home.to_str(), user.shell.to_str()),
            (Some("/var/lib/u7s-admin"), Some("/bin/bash"))
        );
        assert_eq!(cluster_user(&["u7s-admin", "x", "990"], group), None);
    }
}
