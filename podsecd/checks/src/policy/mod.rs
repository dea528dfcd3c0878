//! The check policy: what decides which images run, for everybody who has a store, for root and for the cluster user; the
//! accounts behind it; and what expires.
//!
//! [`facts`] are gathered by a process that is the user himself ([`crate::owner`]); [`judge`] makes findings of them and of
//! what podsecd knows, and touches nothing. Must not: write anything to find out whether it could be written.

mod documents;
mod facts;
mod guard;
mod judge;
mod processes;
mod terms;

use crate::Look;
use crate::known::Known;
use crate::owner::Owner;
use facts::Asked;
use judge::{Groups, Judge, Seen};
use podsec_policy::accounts;
use podsec_policy::finding::Text;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// `[policy]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Days before a key or a certificate expires from which on that is a finding.
    pub days_before_expiry: u32,
    /// Seconds that looking at one user may take.
    pub seconds_per_user: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { days_before_expiry: 30, seconds_per_user: 5 }
    }
}

/// Looks at everything.
#[must_use]
pub fn look(known: &Known, settings: &Settings) -> Look {
    look_at_all(known, settings)
        .unwrap_or_else(|why| Look { unknown: Some(Text::of(why)), ..Look::default() })
}

fn look_at_all(known: &Known, settings: &Settings) -> Result<Look, String> {
    let owners = Owner::all(&known.config)?;
    let group = std::fs::read("/etc/group").map_err(|error| format!("/etc/group: {error}"))?;
    let group = String::from_utf8_lossy(&group);
    let gid = |name: &String| accounts::gid(&group, name);
    let groups = Groups {
        users: gid(&known.config.accounts.image_users),
        creators: gid(&known.config.accounts.image_creators),
        administrators: gid(&known.config.accounts.administrators),
    };
    let managed = judge::managed(known);
    let asked = Asked::new(known);
    let programs = processes::programs();
    let within = Duration::from_secs(settings.seconds_per_user.max(1).into());
    let seen = Seen { known, groups, now: crate::report::now(), days: settings.days_before_expiry.into() };
    let mut judge = Judge::new(&seen, &managed);
    Owner::ask_all(
        &owners,
        within,
        |owner| {
            let running = programs.get(&owner.uid).filter(|_| groups.is_held(owner));
            running.map(|pids| processes::open(pids)).unwrap_or_default()
        },
        |owner, opened| {
            let whole = owner.uid == 0 || owner.is_cluster || managed.contains_key(owner.name.as_str());
            Ok(facts::of(owner, whole, opened, &asked))
        },
        |owner, facts| judge.add(owner, facts),
    )?;
    Ok(judge.end(&owners))
}
