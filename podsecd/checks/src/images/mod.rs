//! The check images: in or out of policy, signed or not, and by whom as trust is today. Every store is read by its owner
//! ([`read`]), every signature is verified in a cage ([`verify`]), and here it is held together ([`judge`]).
//!
//! Nothing is fetched: a signature is in the store, where podman has put it with the image, or in this host's own store of
//! signatures.

mod judge;
mod read;
mod verify;

pub use verify::Cache;

use crate::Look;
use crate::known::Known;
use crate::owner::Owner;
use judge::{Claim, claims};
use podsec_policy::config::Config;
use podsec_policy::containers::policy_json::Policy;
use podsec_policy::finding::{Finding, Kind, Subject, Text, images as kinds};
use podsec_policy::trust::{Digest, SignatureBytes, SignatureKind};
use podsec_sys::file::read_small;
use read::{Page, Seen};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};
use verify::{AT_ONCE, Job, Verifier};

/// This host's store of signatures, root's (podsecd's worker, `signatures.rs`).
const SIGNATURES: &str = "/var/sigstore/sigstore";
/// Of one image there.
const MOST: u32 = 32;
/// Findings of one user, who may have a hundred thousand images.
const FINDINGS: usize = 2_000;

/// podman writes an image in several steps, and removes one so. What is wrong for a moment only is not wrong.
const MEANWHILE: Duration = Duration::from_millis(500);

/// `[images]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Hours after which a signature is verified again, although neither it nor trust has changed: a key may have expired.
    pub verify_again_hours: u64,
    /// Seconds for one user's images; what is not done then is said, and is next time's.
    pub user_seconds: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { verify_again_hours: 24, user_seconds: 60 }
    }
}

/// Looks at everything, and has what the next time need not verify again.
#[must_use]
pub fn look(known: &Known, settings: &Settings) -> (Look, Cache) {
    let unknown = |why: String| (Look { unknown: Some(Text::of(why)), ..Look::default() }, Cache::default());
    if known.policy.is_empty() {
        return unknown(
            "this host has no trust yet (podsecctl trust init), or this was not started by podsecd, which knows it".into(),
        );
    }
    let policy = match Policy::parse(known.policy.as_bytes()) {
        Ok(policy) => policy,
        Err(error) => return unknown(format!("trust as podsecd says it: {error}")),
    };
    let started = Owner::all(&known.config).and_then(|all| Ok((Verifier::new(&known.config, &all)?, all)));
    let (verifier, everybody) = match started {
        Ok(started) => started,
        Err(why) => return unknown(why),
    };
    let cache = Cache::load(&everybody, settings.verify_again_hours.saturating_mul(3600));
    let within = Duration::from_secs(settings.user_seconds);
    let creators = creators(&known.config);
    let mut check = Check { policy, verifier, cache, creators, within, look: Look::default() };
    // A second name for the same user would be told the same again.
    let mut uids = BTreeSet::new();
    let mut owners: Vec<_> = everybody.iter().filter(|owner| uids.insert(owner.uid)).collect();
    let mut found = match check.all(&owners) {
        Ok(found) => found,
        Err(why) => return unknown(why),
    };
    if !found.is_empty() {
        std::thread::sleep(MEANWHILE);
        let whose: BTreeSet<_> = found.iter().map(|(_, finding)| finding.owner.clone()).collect();
        owners.retain(|owner| whose.contains(&Text::of(&owner.name)));
        let looked_at = check.look.looked_at;
        let still: BTreeSet<_> = match check.all(&owners) {
            Ok(found) => found.into_iter().map(|(_, finding)| finding.id()).collect(),
            Err(why) => return unknown(why),
        };
        check.look.looked_at = looked_at;
        let missed = &check.look.missed;
        found.retain(|(_, finding)| still.contains(&finding.id()) || missed.contains_key(&finding.owner));
    }
    // Everybody's first, then everybody's second: whoever has very many crowds out nobody.
    found.sort_by_key(|(nth, _)| *nth);
    check.look.findings = found.into_iter().map(|(_, finding)| finding).collect();
    (check.look, check.cache)
}

/// The group of those who make images.
fn creators(config: &Config) -> Option<u32> {
    let group = std::fs::read("/etc/group").unwrap_or_default();
    podsec_policy::accounts::gid(&String::from_utf8_lossy(&group), &config.accounts.image_creators)
}

struct Check {
    policy: Policy,
    verifier: Verifier,
    cache: Cache,
    /// The group of those who make images.
    creators: Option<u32>,
    /// For one user's.
    within: Duration,
    look: Look,
}

/// Findings, each with its number among its owner's.
type Found = Vec<(usize, Finding)>;

/// What is wrong with an image.
type Wrong = (&'static Kind, String);

impl Check {
    /// Looks at all of these users' images.
    fn all(&mut self, owners: &[&Owner]) -> Result<Found, String> {
        let mut first = Vec::new();
        Owner::ask_all(
            owners.iter().copied(),
            self.within,
            |_| (),
            |owner, ()| read::page(owner, 0, read::FIRST),
            |owner, said| first.push((owner, said)),
        )?;
        let mut found = Found::new();
        for (owner, page) in first {
            if let Err(why) = page.and_then(|page| self.owner(owner, page, &mut found)) {
                self.look.missed.insert(Text::of(&owner.name), Text::of(why));
            }
        }
        Ok(found)
    }

    /// Looks at one user's images, of which some are there. An error: not at all of them.
    fn owner(&mut self, owner: &Owner, mut page: Page, all: &mut Found) -> Result<(), String> {
        let end = Instant::now() + self.within;
        let late =
            |within: Duration| format!("there is more than can be looked at in {} seconds", within.as_secs());
        // He makes images, which are not signed before they are published.
        let makes = self.creators.is_some_and(|gid| owner.gid == gid || owner.groups.contains(&gid));
        let (mut done, mut found, mut missed) = (0, 0, BTreeSet::new());
        loop {
            let total = page.total;
            missed.extend(page.missed);
            let images: Vec<_> = page.images.into_iter().map(|seen| self.with_signatures(seen)).collect();
            let is_done = self.verify(&images, end)?;
            for (seen, signatures) in &images {
                if let Some((kind, detail)) = self.judge(seen, signatures) {
                    if makes && [&kinds::OUT_OF_POLICY, &kinds::UNSIGNED].contains(&kind) {
                        continue;
                    }
                    if found == FINDINGS {
                        return Err(format!("more than {FINDINGS} of his images are not as they should be"));
                    }
                    all.push((found, finding(kind, seen, &detail).of(&owner.name)));
                    found += 1;
                }
            }
            done += images.len();
            self.look.looked_at += images.len() as u64;
            let left = end.saturating_duration_since(Instant::now());
            let is_last = images.is_empty() || done >= total;
            if !is_done || (!is_last && left.is_zero()) {
                return Err(late(self.within));
            }
            if is_last {
                break;
            }
            page = owner.ask(left, || read::page(owner, done, read::NEXT))?;
        }
        if missed.is_empty() { Ok(()) } else { Err(Vec::from_iter(missed).join("; ")) }
    }

    /// Its signatures: those in its store, and those of this host's.
    fn with_signatures(&self, mut seen: Seen) -> (Seen, Vec<Vec<u8>>) {
        let mut all = std::mem::take(&mut seen.signatures);
        let paths: BTreeSet<String> =
            claims(&self.policy, &seen).iter().filter_map(|claim| claim.path().map(str::to_owned)).collect();
        for (path, digest) in
            paths.iter().flat_map(|path| seen.manifests.iter().map(move |digest| (path, digest)))
        {
            for signature in kept(path, digest) {
                if !all.contains(&signature) {
                    all.push(signature);
                }
            }
        }
        (seen, all)
    }

    /// Verifies what is not known yet; false: not all of it, for lack of time.
    fn verify(&mut self, images: &[(Seen, Vec<Vec<u8>>)], end: Instant) -> Result<bool, String> {
        let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
        for (seen, signatures) in images.iter().filter(|(seen, _)| seen.wrong.is_none()) {
            for claim in claims(&self.policy, seen) {
                for signature in signatures {
                    let Some(key) = claim.key(signature) else { continue };
                    if !self.cache.keep(&key)
                        && let Some(job) = Job::new(&claim, signature)
                    {
                        jobs.insert(key, job);
                    }
                }
            }
        }
        for job in jobs.values() {
            self.verifier.can(job.kind).inspect_err(|why| self.look.unknown = Some(Text::of(why)))?;
        }
        let jobs: Vec<_> = jobs.into_iter().collect();
        for some in jobs.chunks(AT_ONCE) {
            if Instant::now() > end {
                return Ok(false);
            }
            let verdicts = self.verifier.verify(&some.iter().map(|(_, job)| job).collect::<Vec<_>>())?;
            for ((key, _), verdict) in some.iter().zip(verdicts) {
                self.cache.put(key.clone(), verdict);
            }
        }
        Ok(true)
    }

    /// The worst that is wrong with it.
    fn judge(&self, seen: &Seen, signatures: &[Vec<u8>]) -> Option<Wrong> {
        if let Some(why) = &seen.wrong {
            return Some((&kinds::TAMPERED, why.clone()));
        }
        let claims = claims(&self.policy, seen);
        let Some(first) = claims.first() else {
            let also = seen.names.iter().skip(1).map(String::as_str).collect::<Vec<_>>().join(", ");
            let detail = if also.is_empty() {
                "in no scope".into()
            } else {
                format!("in no scope; also called {also}")
            };
            return Some((&kinds::OUT_OF_POLICY, detail));
        };
        if signatures.is_empty() {
            return Some((
                &kinds::UNSIGNED,
                format!("unsigned, as far as this host knows; {} demands a signature", first.scope),
            ));
        }
        let mut why = None;
        for claim in &claims {
            for signature in signatures {
                match self.is_good(claim, seen, signature) {
                    // Not verified: what was found before is kept, since its owner is missed.
                    None => return None,
                    Some(Ok(())) => return None,
                    Some(Err(bad)) => why = why.or(Some(bad)),
                }
            }
        }
        let why = why.unwrap_or_default();
        let detail = match signatures.len() {
            1 => format!("its signature is not good: {why}"),
            count => format!("none of its {count} signatures is good; the first: {why}"),
        };
        Some((&kinds::DISTRUSTED, detail))
    }

    /// `None`: it was not verified.
    fn is_good(&self, claim: &Claim<'_>, seen: &Seen, signature: &[u8]) -> Option<Result<(), String>> {
        let Some((kind, _)) = &claim.keys else {
            return Some(Err(format!("nobody's key counts in {} today", claim.scope)));
        };
        let Some(key) = claim.key(signature) else {
            let how = match kind {
                SignatureKind::Gpg => "OpenPGP",
                SignatureKind::Sigstore => "sigstore",
            };
            return Some(Err(format!("it is not signed by {how}, as {} demands", claim.scope)));
        };
        let verdict = self.cache.get(&key)?;
        Some(verdict.as_ref().map_err(Clone::clone).and_then(|payload| claim.fits(seen, payload)))
    }
}

/// In this host's store; names and digest are checked, so they are no way out of it.
fn kept(path: &str, digest: &Digest) -> Vec<Vec<u8>> {
    let directory = Path::new(SIGNATURES).join(format!("{path}@sha256={}", digest.hex()));
    let read = |number| {
        let file = directory.join(format!("signature-{number}"));
        read_small(&file, 0, SignatureBytes::LONGEST).ok()
    };
    (1..=MOST).map_while(read).collect()
}

fn finding(kind: &'static Kind, seen: &Seen, detail: &str) -> Finding {
    let place = if seen.digest.is_empty() { &seen.id } else { &seen.digest };
    let name = seen.names.first().unwrap_or(place);
    Finding::new(kind, Subject::Image(Text::of(name)), place, detail)
}
