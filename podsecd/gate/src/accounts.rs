//! The numbers behind the account names of the configuration, from `/etc/passwd` and `/etc/group` themselves.
//!
//! Not by NSS: that would bring other people's libraries, their sockets and their waiting into the one process that
//! must never wait. So the accounts that roles hang on are local ones. Who is a *member* of them is another
//! question: the kernel knows the caller's groups, and a worker asks NSS before anything is done.

use podsec_policy::accounts;
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
        let gid = |name: &str| accounts::gid(&group, name);
        let user = accounts::account(&passwd, &self.names.cluster_user).map(|user| ClusterUser {
            name: user.name.into(),
            uid: user.uid,
            gid: user.gid,
            groups: accounts::groups_of(&group, user.name),
            home: user.home.into(),
            shell: user.shell.into(),
        });
        self.roster = Roster {
            administrators: gid(&self.names.administrators),
            cluster_user: user.as_ref().map(|user| user.uid),
            image_users: gid(&self.names.image_users),
            image_creators: gid(&self.names.image_creators),
            monitors: gid(&self.names.monitors),
        };
        self.place = user.map(|user| Place { user, state: self.state.clone() });
        let front = accounts::account(&passwd, &self.names.front);
        self.front = front.map(|front| (front.uid, front.gid));
    }
}
