//! Is he still a member? The kernel knows the groups of the caller's login; this asks the account database (NSS,
//! nsswitch.conf(5)) of this moment, so that whoever was taken out of a group loses the right with his next
//! request. NSS may hang; the gate gives this process two seconds for it.

use podsec_policy::peer::{Role, Roles};
use podsec_policy::reason::Reason;
use podsec_sys::nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::ffi::CString;

/// Loads the libraries of NSS while nobody waits.
pub fn warm_up() {
    let _ = User::from_uid(Uid::from_raw(0));
    let _ = groups("root", Gid::from_raw(0));
}

/// Does the account database give this uid one of these roles?
///
/// # Errors
/// [`Reason::Revoked`]
pub fn check(uid: u32, roles: Roles, administrators: &str, cluster_user: &str) -> Result<(), Reason> {
    let holds = roles.iter().any(|role| match role {
        Role::Administrator => uid == 0 || is_member(uid, administrators).unwrap_or(false),
        Role::ClusterAdmin => {
            matches!(User::from_name(cluster_user), Ok(Some(user)) if user.uid.as_raw() == uid && uid != 0)
        }
        Role::Anyone => true,
        // No operation is theirs yet; a new row must come with its check.
        Role::ImageCreator | Role::ImageUser | Role::Monitor => false,
    });
    if holds { Ok(()) } else { Err(Reason::Revoked) }
}

/// By name, not by number: another group that shares the number has other members. Where the database does not list
/// members (sssd's `ignore_group_members`), the user's own list of groups decides.
fn is_member(uid: u32, group: &str) -> Option<bool> {
    let user = User::from_uid(Uid::from_raw(uid)).ok()??;
    let group = Group::from_name(group).ok()??;
    let listed = group.mem.is_empty() || group.mem.contains(&user.name) || user.gid == group.gid;
    Some(listed && group.gid.as_raw() != 0 && groups(&user.name, user.gid)?.contains(&group.gid.as_raw()))
}

/// All groups of a user.
pub fn groups(name: &str, primary: Gid) -> Option<Vec<u32>> {
    let name = CString::new(name).ok()?;
    Some(getgrouplist(&name, primary).ok()?.into_iter().map(Gid::as_raw).collect())
}
