//! The caller, as facts that the kernel told about his socket, and the roles that follow from them.

use serde::{Deserialize, Serialize};

/// What the kernel says about the process that connected (`SO_PEERCRED`, `SO_PEERGROUPS`; unix(7), socket(7)).
/// No byte that the caller sent is in here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Effective uid when it connected.
    pub uid: u32,
    /// Effective gid when it connected.
    pub gid: u32,
    /// Supplementary groups when it connected.
    pub groups: Vec<u32>,
    /// For the record only: a pid may be another process by now.
    pub pid: i32,
    /// Who logged in before su or sudo; `None` where the kernel has no login uid.
    pub login_uid: Option<u32>,
}

/// The roles of docs/design.md; the order is that of the table there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// uid 0, or a member of the administrators' group. The group is not root: see the rules.
    Administrator,
    /// The cluster user, u7s-admin. Every root of every pod is this uid on the host, so the role is worth
    /// nothing that u7s-admin could not do without podsecd.
    ClusterAdmin,
    /// Builds and signs images.
    ImageCreator,
    /// Runs signed images.
    ImageUser,
    /// Reads findings and health.
    Monitor,
    /// Any user of this host.
    Anyone,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Administrator,
        Self::ClusterAdmin,
        Self::ImageCreator,
        Self::ImageUser,
        Self::Monitor,
        Self::Anyone,
    ];

    /// As people, the audit and the interface write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Administrator => "Administrator",
            Self::ClusterAdmin => "ClusterAdmin",
            Self::ImageCreator => "ImageCreator",
            Self::ImageUser => "ImageUser",
            Self::Monitor => "Monitor",
            Self::Anyone => "Anyone",
        }
    }
}

/// A set of roles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles(u8);

impl Roles {
    /// Nobody's.
    pub const NONE: Self = Self(0);

    /// With one more.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | 1 << role as u8)
    }
    /// Is it in the set?
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & 1 << role as u8 != 0
    }
    /// Those in both.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
    /// In the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |&role| self.has(role))
    }
    /// As [`Role::name`] has them.
    #[must_use]
    pub fn names(self) -> Vec<String> {
        self.iter().map(|role| role.name().to_owned()).collect()
    }
}

/// The ids behind the names of the configuration. `None`: no such account, so nobody has the role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// gid of the administrators' group.
    pub administrators: Option<u32>,
    /// uid of the cluster user.
    pub cluster_user: Option<u32>,
    /// gid of the image users' group.
    pub image_users: Option<u32>,
    /// gid of the image creators' second group.
    pub image_creators: Option<u32>,
    /// gid of the monitors' group.
    pub monitors: Option<u32>,
}

impl Peer {
    /// Is the gid among the caller's? Group 0 never counts: it comes with many accidents and no intent.
    #[must_use]
    pub fn in_group(&self, gid: Option<u32>) -> bool {
        gid.is_some_and(|gid| gid != 0 && (self.gid == gid || self.groups.contains(&gid)))
    }

    /// The roles that these facts give.
    #[must_use]
    pub fn roles(&self, roster: &Roster) -> Roles {
        let mut roles = Roles::NONE.with(Role::Anyone);
        let mut give = |holds: bool, role| {
            if holds {
                roles = roles.with(role);
            }
        };
        give(self.uid == 0 || self.in_group(roster.administrators), Role::Administrator);
        give(self.uid != 0 && roster.cluster_user == Some(self.uid), Role::ClusterAdmin);
        let image_user = self.in_group(roster.image_users);
        give(image_user && self.in_group(roster.image_creators), Role::ImageCreator);
        give(image_user, Role::ImageUser);
        give(self.in_group(roster.monitors), Role::Monitor);
        roles
    }
}

/// May this uid hold any role? Ids from 2³¹ up have been read as negative by enough programs, and 65534 is what
/// the kernel shows for every id that it cannot express here (user_namespaces(7)): it is nobody in particular.
#[must_use]
pub const fn is_plausible_uid(uid: u32) -> bool {
    uid < 1 << 31 && uid != 65534
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { uid, gid, groups: groups.to_vec(), pid: 1, login_uid: None }
    }

    fn roster() -> Roster {
        Roster {
            administrators: Some(10),
            cluster_user: Some(400),
            image_users: Some(20),
            image_creators: Some(21),
            monitors: Some(30),
        }
    }

    fn names(peer: &Peer) -> Vec<&'static str> {
        peer.roles(&roster()).iter().map(Role::name).collect()
    }

    #[test]
    fn roles_follow_from_ids() {
        assert_eq!(names(&peer(0, 0, &[])), ["Administrator", "Anyone"]);
        assert_eq!(names(&peer(1000, 1000, &[10])), ["Administrator", "Anyone"]);
        assert_eq!(names(&peer(1000, 10, &[])), ["Administrator", "Anyone"]);
        assert_eq!(names(&peer(400, 400, &[20])), ["ClusterAdmin", "ImageUser", "Anyone"]);
        assert_eq!(names(&peer(1001, 20, &[21])), ["ImageCreator", "ImageUser", "Anyone"]);
        assert_eq!(names(&peer(1001, 1001, &[21])), ["Anyone"]);
        assert_eq!(names(&peer(1002, 1002, &[30])), ["Monitor", "Anyone"]);
        assert_eq!(names(&peer(1003, 1003, &[0, 1, 65534])), ["Anyone"]);
    }

    #[test]
    fn missing_accounts_give_nobody_a_role() {
        let none = Roster::default();
        assert_eq!(peer(1000, 0, &[0]).roles(&none), Roles::NONE.with(Role::Anyone));
        // an administrators' group that is group 0 would make every stray gid 0 an administrator
        let zero = Roster { administrators: Some(0), cluster_user: Some(0), ..Roster::default() };
        assert!(!peer(1000, 0, &[0]).roles(&zero).has(Role::Administrator));
        assert!(!peer(0, 0, &[]).roles(&zero).has(Role::ClusterAdmin));
    }

    #[test]
    fn finds_a_group_among_65536() {
        let groups: Vec<u32> = (100_000..165_536).collect();
        let mut last = peer(1000, 1000, &groups);
        assert!(!last.roles(&roster()).has(Role::Administrator));
        last.groups.push(10);
        assert!(last.roles(&roster()).has(Role::Administrator));
    }

    #[test]
    fn implausible_uids() {
        for uid in [1 << 31, 4_000_000_000, u32::MAX - 1, u32::MAX, 65534] {
            assert!(!is_plausible_uid(uid), "{uid}");
        }
        for uid in [0, 1000, 65533, 65535, (1 << 31) - 1] {
            assert!(is_plausible_uid(uid), "{uid}");
        }
    }
}
