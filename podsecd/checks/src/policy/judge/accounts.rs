//! Accounts whose categories conflict, and what expires.

use super::{Seen, about};
use crate::known::User;
use crate::owner::Owner;
use podsec_policy::finding::policy as kinds;
use podsec_policy::finding::{Finding, Kind, Subject, Text};
use podsec_policy::user::Category;
use std::collections::HashMap;

const DAY: u64 = 86_400;

/// One account; `user`: podsec's record of it.
pub fn judge(seen: &Seen<'_>, owner: &Owner, user: Option<&User>, findings: &mut Vec<Finding>) {
    let (groups, names) = (&seen.groups, &seen.known.config.accounts);
    let (is_user, is_creator) = (groups.is_image_user(owner), groups.is_creator(owner));
    let place = Text::of("/etc/group");
    let mut add = |kind: &'static Kind, detail: String| findings.push(about(kind, owner, &place, detail));
    let in_both = |one: &str, other: &str| format!("in the groups {one} and {other}");
    if owner.uid == 0 {
        return;
    }
    if owner.is_cluster {
        if groups.is_administrator(owner) {
            add(&kinds::CLUSTER_ADMINISTRATOR, format!("in the group {}", names.administrators));
        }
        return;
    }
    if is_user && !is_creator && groups.is_administrator(owner) {
        add(&kinds::ADMINISTRATOR, in_both(&names.image_users, &names.administrators));
    }
    if is_creator && !is_user {
        add(
            &kinds::NOT_A_USER,
            format!("in the group {}, not in {}", names.image_creators, names.image_users),
        );
    }
    let Some(user) = user else { return };
    match &user.category {
        Category::ClusterUser if is_user => {
            add(&kinds::CLUSTER_USER, format!("in the group {}", names.image_users));
        }
        Category::ImageUser if is_creator => {
            add(&kinds::OTHER_GROUPS, format!("an image user in the group {}", names.image_creators));
        }
        Category::ImageUser if !is_user => {
            add(&kinds::OTHER_GROUPS, format!("an image user, not in the group {}", names.image_users));
        }
        Category::ImageCreator { .. } if !is_creator => {
            add(&kinds::OTHER_GROUPS, format!("an image creator, not in the group {}", names.image_creators));
        }
        _ => {}
    }
}

/// Those whom podsec made and who are not there any more.
pub fn gone(owners: &[Owner], managed: &HashMap<&str, &User>, findings: &mut Vec<Finding>) {
    let there: HashMap<&str, u32> = owners.iter().map(|owner| (owner.name.as_str(), owner.uid)).collect();
    let mut gone: Vec<_> =
        managed.values().filter(|user| there.get(user.name.as_str()) != Some(&user.uid)).collect();
    gone.sort_by(|one, other| one.name.as_str().cmp(other.name.as_str()));
    for user in gone {
        let name = user.name.as_str();
        let detail = match there.get(name) {
            Some(uid) => format!("had uid {}; now uid {uid} has the name", user.uid),
            None => format!("had uid {}", user.uid),
        };
        let subject = Subject::User(Text::of(name));
        findings.push(Finding::new(&kinds::GONE, subject, "/etc/passwd", detail).of(name));
    }
}

/// Keys and certificates.
pub fn expiry(seen: &Seen<'_>, findings: &mut Vec<Finding>) {
    let soon = seen.now.saturating_add(seen.days.saturating_mul(DAY));
    for key in &seen.known.keys {
        let (creator, Some(end)) = (key.creator.as_str(), key.expires) else { continue };
        let kind = match end {
            end if end <= seen.now => &kinds::KEY_EXPIRED,
            end if end <= soon => &kinds::KEY_EXPIRING,
            _ => continue,
        };
        let subject = Subject::User(Text::of(creator));
        findings.push(Finding::new(kind, subject, key.fingerprint.as_str(), when(seen.now, end)).of(creator));
    }
    for certificate in &seen.known.certificates {
        let (kind, detail) = match certificate.expires {
            None => (&kinds::CERTIFICATE_EXPIRED, "cannot be read".to_owned()),
            Some(end) if end <= seen.now => (&kinds::CERTIFICATE_EXPIRED, when(seen.now, end)),
            Some(end) if end <= soon => (&kinds::CERTIFICATE_EXPIRING, when(seen.now, end)),
            Some(_) => continue,
        };
        findings.push(Finding::new(kind, Subject::Host, &certificate.path, detail));
    }
}

fn when(now: u64, end: u64) -> String {
    let days = |seconds: u64| match seconds / DAY {
        1 => "1 day".to_owned(),
        days => format!("{days} days"),
    };
    match now.checked_sub(end) {
        Some(ago) => format!("expired {} ago", days(ago)),
        None => format!("expires in {}", days(end.saturating_sub(now))),
    }
}
