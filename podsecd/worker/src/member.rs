//! Is he still a member? The kernel knows the groups of the caller's login; this asks the account database (NSS,
//! nsswitch.conf(5)) of this moment, so that whoever was taken out of a group loses the right with his next
//! request. NSS may hang; the gate gives this process two seconds for it.

use podsec_policy::config::Accounts;
use podsec_policy::name::AccountName;
use podsec_policy::peer::{Role, Roles};
use podsec_policy::reason::Reason;
use podsec_sys::nix::unistd::{Group, Uid, User, getgrouplist};
use std::ffi::CString;

/// Loads the libraries of NSS while nobody waits.
pub fn warm_up() {
    let _ = User::from_uid(Uid::from_raw(0));
    let _ = Group::from_name("root");
}

/// Does the account database give this uid one of these roles?
///
/// # Errors
/// [`Reason::Revoked`]
pub fn check(uid: u32, roles: Roles, accounts: &Accounts) -> Result<(), Reason> {
    let holds = roles.iter().any(|role| holds(uid, role, accounts));
    if holds { Ok(()) } else { Err(Reason::Revoked) }
}

/// Has he this role, by the account database?
pub fn holds(uid: u32, role: Role, accounts: &Accounts) -> bool {
    match role {
        Role::Administrator => uid == 0 || is_member(uid, &accounts.administrators),
        // A uid of /etc/passwd, which the gate has looked at for this request.
        Role::ClusterAdmin | Role::Anyone => true,
        Role::ImageCreator => {
            is_member(uid, &accounts.image_users) && is_member(uid, &accounts.image_creators)
        }
        Role::ImageUser => is_member(uid, &accounts.image_users),
        Role::Monitor => is_member(uid, &accounts.monitors),
    }
}

/// By name, not by number: another group that shares the number has other members. Where the database lists no members
/// (sssd's `ignore_group_members`), the user's own list of groups decides.
pub fn is_member(uid: u32, group: &str) -> bool {
    let answer = || {
        let user = User::from_uid(Uid::from_raw(uid)).ok()??;
        let group = Group::from_name(group).ok()??;
        if group.gid.as_raw() == 0 {
            return Some(false);
        }
        if user.gid == group.gid || group.mem.contains(&user.name) {
            return Some(true);
        }
        let name = CString::new(user.name).ok()?;
        Some(group.mem.is_empty() && getgrouplist(&name, user.gid).ok()?.contains(&group.gid))
    };
    answer().unwrap_or(false)
}

/// The caller's own name.
pub fn own_name(uid: u32) -> Option<AccountName> {
    User::from_uid(Uid::from_raw(uid)).ok()?.and_then(|user| AccountName::new(user.name).ok())
}
