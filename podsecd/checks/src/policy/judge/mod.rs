//! Findings out of facts. Only computes: no file, no clock, no name is looked up here.

mod accounts;
#[cfg(test)]
mod tests;

use super::facts::Facts;
use super::guard::Guard;
use super::terms::{CONTAINERS, Demand, Note, Policy, Some3};
use crate::Look;
use crate::known::{Known, User};
use crate::owner::Owner;
use podsec_policy::finding::policy as kinds;
use podsec_policy::finding::{Finding, Kind, Severity, Subject, Text};
use std::collections::{BTreeMap, HashMap};

/// The shares of image users weigh this together.
const SHARED: u64 = 90;
/// Findings of one sort about one user: more is nothing new about him.
const MOST: usize = 20;

/// Gids of the groups that roles hang on; `None`: no such group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// Of image users.
    pub users: Option<u32>,
    /// Of image creators.
    pub creators: Option<u32>,
    /// Of administrators.
    pub administrators: Option<u32>,
}

impl Groups {
    fn has(group: Option<u32>, owner: &Owner) -> bool {
        group.is_some_and(|gid| owner.gid == gid || owner.groups.contains(&gid))
    }

    /// Is he one?
    pub fn is_image_user(&self, owner: &Owner) -> bool {
        Self::has(self.users, owner)
    }

    /// Is he one who is held to signed images? Creators may use any.
    pub fn is_held(&self, owner: &Owner) -> bool {
        self.is_image_user(owner) && !self.is_creator(owner) && owner.uid != 0 && !owner.is_cluster
    }

    fn is_creator(&self, owner: &Owner) -> bool {
        Self::has(self.creators, owner)
    }

    fn is_administrator(&self, owner: &Owner) -> bool {
        Self::has(self.administrators, owner)
    }
}

/// All that a judgement needs beside facts.
#[derive(Debug)]
pub struct Seen<'a> {
    /// What podsecd said.
    pub known: &'a Known,
    /// Of the host.
    pub groups: Groups,
    /// Seconds since 1970.
    pub now: u64,
    /// Days before an end that are soon.
    pub days: u64,
}

/// Of whom podsec has a record.
pub fn managed(known: &Known) -> HashMap<&str, &User> {
    known.users.iter().map(|user| (user.name.as_str(), user)).collect()
}

/// A judgement in the making: of one user after the other, so that not all facts are kept until the last is there.
#[derive(Debug)]
pub struct Judge<'a> {
    seen: &'a Seen<'a>,
    managed: &'a HashMap<&'a str, &'a User>,
    look: Look,
    /// Who has images.
    stores: Vec<&'a str>,
    /// Image users that a guard is for.
    guarded: u64,
    /// What is wrong with guards, by code.
    loose: BTreeMap<&'static str, Vec<Finding>>,
}

impl<'a> Judge<'a> {
    /// Of nobody yet.
    pub fn new(seen: &'a Seen<'a>, managed: &'a HashMap<&'a str, &'a User>) -> Self {
        let (look, stores, loose) = (Look::default(), Vec::new(), BTreeMap::new());
        Self { seen, managed, look, stores, guarded: 0, loose }
    }

    /// Somebody's facts, or why there are none.
    pub fn add(&mut self, owner: &'a Owner, facts: Result<Facts, String>) {
        let Self { seen, look, .. } = self;
        let user = self.managed.get(owner.name.as_str()).copied().filter(|user| user.uid == owner.uid);
        accounts::judge(seen, owner, user, &mut look.findings);
        let facts = match facts {
            Ok(facts) => facts,
            Err(why) => {
                look.missed.insert(Text::of(&owner.name), Text::of(why));
                return;
            }
        };
        if let Some(why) = &facts.closed {
            look.missed.insert(Text::of(&owner.name), why.clone());
        }
        if facts.store && facts.images {
            self.stores.push(&owner.name);
        }
        let has_images = user.is_some_and(|user| user.category.has_containers());
        if !(facts.store || owner.uid == 0 || owner.is_cluster || has_images) {
            return;
        }
        look.looked_at += 1;
        one(seen, owner, user, &facts, &mut look.findings);
        if owner.uid == 0 {
            host(seen, &facts, &mut look.findings);
        }
        if seen.groups.is_held(owner) {
            self.guarded += 1;
            if let Some(finding) = unguarded(owner, &facts.guard) {
                self.loose.entry(finding.kind.code).or_default().push(finding);
            }
        }
    }

    /// All were there: `owners`.
    pub fn end(mut self, owners: &[Owner]) -> Look {
        let findings = &mut self.look.findings;
        for loose in self.loose.into_values() {
            findings.extend(shared(loose, self.guarded));
        }
        if self.seen.known.trust.is_none() && !self.stores.is_empty() {
            self.stores.sort_unstable();
            let mut stores = Some3::default();
            self.stores.iter().for_each(|store| stores.add(store));
            let (place, detail) =
                (format!("{CONTAINERS}/policy.json"), format!("stores of {}", stores.text()));
            findings.push(Finding::new(&kinds::NO_TRUST, Subject::Host, place, detail));
        }
        accounts::gone(owners, self.managed, findings);
        accounts::expiry(self.seen, findings);
        // Should there be more than are kept, the least go.
        findings.sort_by(|one, other| {
            let rank = |finding: &Finding| (std::cmp::Reverse(finding.severity), finding.kind.code);
            rank(one).cmp(&rank(other)).then_with(|| one.subject.cmp(&other.subject))
        });
        self.look
    }
}

fn about(kind: &'static Kind, owner: &Owner, place: &Text, detail: impl AsRef<[u8]>) -> Finding {
    let finding = Finding::new(kind, Subject::User(Text::of(&owner.name)), "", detail).of(&owner.name);
    Finding { place: place.clone(), ..finding }
}

/// A user who has images, or may have.
fn one(seen: &Seen<'_>, owner: &Owner, user: Option<&User>, facts: &Facts, findings: &mut Vec<Finding>) {
    let (groups, home) = (&seen.groups, Text::of(owner.home.as_os_str().as_encoded_bytes()));
    let (is_root, is_image_user) = (owner.uid == 0, groups.is_image_user(owner));
    if facts.store && !is_root && !owner.is_cluster {
        if !is_image_user && facts.images {
            findings.push(about(&kinds::OUTSIDER, owner, &home, "images in his store"));
        } else if is_image_user && user.is_none() {
            findings.push(about(&kinds::UNMANAGED, owner, &home, "a store, and no record of him"));
        }
    }
    let is_hosts = |place: &Text| place.as_str().starts_with(CONTAINERS);
    let about =
        |kind: &'static Kind| move |(place, detail): &Note| about(kind, owner, place, detail.as_str());
    // Whoever makes images may use any.
    if !groups.is_creator(owner) {
        for (place, policy) in facts.policies.iter().filter(|(place, _)| !is_hosts(place)).take(1) {
            let finding = |kind, detail: String| self::about(kind, owner, place, detail);
            findings.extend(violations(seen, policy).into_iter().map(|(kind, detail)| finding(kind, detail)));
        }
    }
    for (kind, notes) in [
        (&kinds::LOOKASIDE, &facts.lookasides),
        (&kinds::REDIRECTED, &facts.redirects),
        (&kinds::UNREADABLE, &facts.unreadable),
    ] {
        // What is the host's, root tells of the host.
        let own = notes.iter().filter(|(place, _)| !(is_root && is_hosts(place)));
        findings.extend(own.take(MOST).map(about(kind)));
    }
    for process in facts.processes.iter().take(MOST) {
        for (kind, what) in [(&kinds::BYPASSED, &process.bypass), (&kinds::OTHER_HOME, &process.home)] {
            findings
                .extend(what.iter().map(|what| self::about(kind, owner, &process.program, what.as_str())));
        }
    }
}

/// What a policy lets happen.
fn violations(seen: &Seen<'_>, policy: &Policy) -> Vec<(&'static Kind, String)> {
    let mut all = Vec::new();
    match policy.default {
        Demand::Reject => {}
        Demand::Signed => all.push((&kinds::DEFAULT, "takes what somebody signed, from anywhere".into())),
        Demand::Nothing => all.push((&kinds::DEFAULT, "takes anything".into())),
    }
    if let Some(trust) = &seen.known.trust {
        let registry = trust.settings.registry.as_str();
        let inside = |scope: &str| {
            scope.strip_prefix(registry).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if !policy.demands && trust.scopes.iter().any(|(scope, _)| inside(scope.as_str())) {
            all.push((&kinds::REGISTRY, format!("no signature is demanded in {registry}")));
        }
        if policy.other_keys.count > 0 {
            all.push((&kinds::OTHER_KEYS, policy.other_keys.text()));
        }
    }
    if policy.unsigned.count > 0 {
        all.push((&kinds::UNSIGNED_SCOPE, policy.unsigned.text()));
    }
    if policy.transports.count > 0 {
        all.push((&kinds::TRANSPORT, policy.transports.text()));
    }
    all
}

/// The host's own configuration, as root has seen it.
fn host(seen: &Seen<'_>, facts: &Facts, findings: &mut Vec<Finding>) {
    let is_hosts = |place: &Text| place.as_str().starts_with(CONTAINERS);
    let finding = |kind: &'static Kind, place: &Text, detail: &str| Finding {
        place: place.clone(),
        ..Finding::new(kind, Subject::Host, "", detail)
    };
    findings.extend(
        facts.writable.iter().take(MOST).map(|(place, why)| finding(&kinds::WRITABLE, place, why.as_str())),
    );
    let Some(trust) = &seen.known.trust else { return };
    let mut worse = Vec::new();
    // One that is as podsec wrote it needs no judge.
    let drifted = |place: &Text| trust.drift.iter().any(|drift| drift.path == place.as_str());
    for (place, policy) in facts.policies.iter().filter(|(place, _)| is_hosts(place) && drifted(place)) {
        let all = violations(seen, policy);
        worse.extend(all.into_iter().map(|(kind, detail)| finding(kind, place, &detail)));
    }
    for (kind, notes) in [
        (&kinds::LOOKASIDE, &facts.lookasides),
        (&kinds::REDIRECTED, &facts.redirects),
        (&kinds::UNREADABLE, &facts.unreadable),
    ] {
        let all = notes.iter().filter(|(place, _)| is_hosts(place)).take(MOST);
        worse.extend(all.map(|(place, why)| finding(kind, place, why.as_str())));
    }
    for drift in &trust.drift {
        let place = Text::of(&drift.path);
        if !worse.iter().any(|worse| worse.place == place) {
            let detail = if drift.missing { "is gone" } else { "is not as podsec wrote it" };
            findings.push(finding(&kinds::DRIFT, &place, detail));
        }
    }
    findings.extend(worse);
}

fn unguarded(owner: &Owner, guard: &Guard) -> Option<Finding> {
    let place = Text::of(owner.home.join(".config/containers").as_os_str().as_encoded_bytes());
    match guard {
        Guard::Unseen | Guard::Fixed => None,
        Guard::Absent(why) => Some(about(&kinds::UNGUARDED, owner, &place, why.as_str())),
        Guard::Loose(why) => Some(about(&kinds::CHANGEABLE, owner, &place, why.as_str())),
        Guard::Movable => {
            let why = "the file system cannot keep him from renaming it away";
            let finding = about(&kinds::CHANGEABLE, owner, &place, why);
            Some(Finding { severity: Severity::Low, ..finding })
        }
    }
}

/// Together they weigh [`SHARED`] times their share of `total`, to the last unit.
fn shared(mut findings: Vec<Finding>, total: u64) -> impl Iterator<Item = Finding> {
    findings.sort_by(|one, other| one.owner.cmp(&other.owner));
    let until = move |count: usize| (SHARED * count as u64).checked_div(total).unwrap_or_default();
    findings.into_iter().enumerate().map(move |(index, finding)| {
        let weight = u32::try_from(until(index + 1) - until(index)).unwrap_or_default();
        Finding { weight, ..finding }
    })
}
