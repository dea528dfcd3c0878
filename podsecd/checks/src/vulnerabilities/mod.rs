//! The check vulnerabilities: trivy looks at every image of every store, as the store's owner.
//!
//! ```text
//! as podsec-monitor   the database: is it there, fetch a newer one                     database
//! as each owner       which images there are                                           crate::owner
//! as each owner       an image that was not looked at with this database: its layers   export
//!                     into a directory of his own, trivy over them, the report read    cage, trivy
//! as podsec-monitor   what was found is remembered                                     cache
//! ```
//!
//! What cannot be looked at is missed or unknown, never good. Must not: parse anything of a user's or of trivy's but as
//! somebody who has nothing else; name an image on a command line; write into a store.

mod cache;
mod cage;
mod database;
mod export;
mod trivy;

use crate::known::Known;
use crate::owner::Owner;
use crate::storage::{Store, is_id};
use crate::{Look, report};
use cache::{Cache, Entry, Key};
use cage::Scratch;
use export::Source;
use podsec_policy::finding::{Finding, Kind, Subject, Text, kind};
use podsec_policy::trivy::{Exception, Limits, judge};
use podsec_sys::process;
use podsec_sys::program::find_roots;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use trivy::{Scanner, Seen};

/// As long as systemd and podsecd wait, less what one image and the end may take.
const LONGEST: Duration = Duration::from_secs(2700);
/// For saying which images there are.
const LIST: Duration = Duration::from_secs(30);
/// Images of one owner; more are said to be missed.
const IMAGES: usize = 10_000;
/// Names of one image, and bytes of each, that are looked at.
const NAMES: (usize, usize) = (16, 300);

/// `[vulnerabilities]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The program; root's alone.
    pub trivy: PathBuf,
    /// `http://trivy.local:4954`: a trivy that has the database; otherwise there is one here.
    pub server: Option<String>,
    /// Where it is: `db` is in it, and `java-db` for Java. The user podsec-monitor's, and everybody can read it.
    pub cache_dir: PathBuf,
    /// Where the database is fetched from; trivy's own choice otherwise.
    pub repository: Option<String>,
    /// It is brought by somebody and never fetched.
    pub offline: bool,
    /// Days after which a database is old.
    pub old_days: u64,
    /// Vulnerabilities of each level that an image may have.
    pub limits: Limits,
    /// Hours after which an image is looked at again, though neither it nor the database has changed.
    pub rescan_hours: u64,
    /// For one image; 14 at most, since systemd waits an hour for all.
    pub timeout_minutes: u64,
    /// GiB of an image, and of the database.
    pub largest_gib: u64,
    /// Where images are unpacked, one at a time; root's alone.
    pub scratch: PathBuf,
    /// What passes for a while.
    pub exceptions: Vec<Exception>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            trivy: "/usr/bin/trivy".into(),
            server: None,
            cache_dir: "/var/cache/podsec-monitor/trivy".into(),
            repository: None,
            offline: false,
            old_days: 7,
            limits: Limits::default(),
            rescan_hours: 24,
            timeout_minutes: 10,
            largest_gib: 20,
            scratch: "/var/cache/podsec-monitor".into(),
            exceptions: Vec::new(),
        }
    }
}

impl Settings {
    fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_minutes.clamp(1, 14) * 60)
    }

    fn largest(&self) -> u64 {
        self.largest_gib.clamp(1, 1 << 20) << 30
    }
}

/// An image that an owner says he has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Listed {
    id: String,
    digest: String,
    names: Vec<String>,
    source: Source,
}

/// Somebody's images, and what cannot be read.
type List = (Vec<Listed>, Vec<String>);

impl Listed {
    fn key(&self, owner: &Owner) -> Key {
        (owner.uid, self.source.root.join(&self.source.driver), self.id.clone())
    }
}

/// Looks at everything.
#[must_use]
pub fn look(known: &Known, settings: &Settings) -> Look {
    look_at(known, settings).unwrap_or_else(|why| Look { unknown: Some(Text::of(why)), ..Look::default() })
}

fn look_at(known: &Known, settings: &Settings) -> Result<Look, String> {
    let (began, now) = (Instant::now(), report::now());
    process::require_root_owned(&settings.trivy).map_err(|error| {
        let (trivy, file) = (settings.trivy.display(), crate::CONFIGURATION);
        format!("trivy: {trivy}: {error}: install trivy as root, and say where it is in {file}")
    })?;
    let gzip = find_roots("gzip").map_err(|error| error.to_string())?;
    let base = &settings.scratch;
    Scratch::make_base(base).map_err(|error| format!("scratch: {}: {error}", base.display()))?;
    Scratch::clear(base);
    let account = report::account()?;
    let monitor = Owner {
        name: report::USER.into(),
        uid: account.uid,
        gid: account.gid,
        groups: account.groups,
        home: report::ROOT.into(),
        is_cluster: false,
    };
    let database = database::ready(settings, &monitor, now)?;
    // What was not to be found was not remembered.
    let version = format!("{} {:?}", database.version, settings.limits);
    let mut look = Look { findings: of_host(settings, &database, now), ..Look::default() };
    let mut cache = Cache::load(&monitor);
    let scanner = Scanner { settings, gzip };
    let owners = Owner::all(&known.config)?;
    let mut listed: BTreeMap<&str, Result<List, String>> = BTreeMap::new();
    let listing = |owner: &Owner, ()| list(owner);
    Owner::ask_all(&owners, LIST, |_| (), listing, |owner, said| drop(listed.insert(&owner.name, said)))?;
    let mut there = std::collections::BTreeSet::new();
    for owner in &owners {
        let (images, mut wrong) = match listed.remove(owner.name.as_str()) {
            Some(Ok(listed)) => listed,
            Some(Err(error)) => (Vec::new(), vec![error]),
            None => (Vec::new(), vec!["was not asked".into()]),
        };
        let mut scratch: Option<Scratch<'_>> = None;
        for image in images {
            look.looked_at += 1;
            let key = image.key(owner);
            there.insert(key.clone());
            let seen = match cache.get(&key, &version, now, settings.rescan_hours.saturating_mul(3600)) {
                Some(seen) => Ok(seen.clone()),
                None if began.elapsed() > LONGEST => {
                    Err("there was no time left for it; the next run goes on".to_owned())
                }
                None => scan(&scanner, owner, &image, &mut scratch),
            };
            match seen {
                Ok(seen) => {
                    look.findings.extend(of_image(owner, &image, &seen, settings, now));
                    cache.put(key, Entry { version: version.clone(), time: now, seen });
                }
                Err(error) => wrong.push(format!("{}: {error}", image.names.first().unwrap_or(&image.id))),
            }
        }
        if scratch.is_some() {
            cache.save()?;
        }
        if let Some(first) = wrong.first() {
            let more = match wrong.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            look.missed.insert(Text::of(&owner.name), Text::of(format!("{first}{more}")));
        }
    }
    cache.keep(|key| there.contains(key));
    cache.save()?;
    Ok(look)
}

/// As the owner.
fn list(owner: &Owner) -> Result<List, String> {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    for store in owner.stores(&mut wrong) {
        let images = store.images().unwrap_or_else(|error| {
            wrong.push(error);
            Vec::new()
        });
        for image in images {
            if all.len() == IMAGES {
                wrong.push(format!("he has more than {IMAGES} images"));
                return Ok((all, wrong));
            }
            // Without a layer it is a list of images, or there is nothing in it.
            if image.layer.is_empty() {
                continue;
            }
            if !is_id(&image.id) {
                wrong.push("an image has an id that is none".into());
                continue;
            }
            let names = image.names.unwrap_or_default().into_iter();
            let names = names.filter(|name| name.len() <= NAMES.1).take(NAMES.0).collect();
            let Store { root, driver } = store.clone();
            let source = Source { root, driver, layer: image.layer };
            let digest = if image.digest.len() <= NAMES.1 { image.digest } else { String::new() };
            all.push(Listed { id: image.id, digest, names, source });
        }
    }
    Ok((all, wrong))
}

fn scan<'a>(
    scanner: &Scanner<'_>,
    owner: &'a Owner,
    image: &Listed,
    scratch: &mut Option<Scratch<'a>>,
) -> Result<Seen, String> {
    let path = match scratch {
        Some(scratch) => scratch.path(),
        None => scratch.insert(Scratch::new(&scanner.settings.scratch, owner)?).path(),
    };
    scanner.cage(&image.source, &path).run_as(owner, || scanner.scan(&image.source, &path))
}

/// What is wrong whatever the images are.
fn of_host(settings: &Settings, database: &database::Known, now: u64) -> Vec<Finding> {
    let mut all = Vec::new();
    let host = |code: &str, place: &str, detail: String| {
        kind(code).map(|kind| Finding::new(kind, Subject::Host, place, detail))
    };
    if let Some(days) = database.days_old.filter(|&days| days > settings.old_days) {
        let why = database.not_fetched.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
        let place = settings.cache_dir.to_string_lossy();
        all.extend(host("vulnerability-database", &place, format!("it is {days} days old{why}")));
    }
    for exception in settings.exceptions.iter().filter(|exception| exception.until.is_over(now)) {
        let image = exception.image.as_ref().map(|image| format!(" in {image}")).unwrap_or_default();
        let detail = format!("it ended after {}: {}", exception.until, exception.why);
        all.extend(host("vulnerability-exception", &format!("{}{image}", exception.id), detail));
    }
    all
}

/// What is wrong with one.
fn of_image(owner: &Owner, image: &Listed, seen: &Seen, settings: &Settings, now: u64) -> Vec<Finding> {
    let digest = if image.digest.is_empty() { &image.id } else { &image.digest };
    let name = image.names.first().unwrap_or(digest);
    let finding = |kind: &'static Kind, detail: String| {
        Finding::new(kind, Subject::Image(Text::of(name)), digest, detail).of(&owner.name)
    };
    let names: Vec<&str> = image.names.iter().chain([digest]).map(String::as_str).collect();
    let excess = judge(&seen.scan, &names, &settings.limits, &settings.exceptions, now);
    let mut all = Vec::new();
    let mut more = |code: &str, detail: String| all.extend(kind(code).map(|kind| finding(kind, detail)));
    for excess in &excess {
        more(&format!("vulnerability-{}", excess.level.name()), excess.list());
    }
    if seen.scan.is_out_of_support {
        more("vulnerability-unsupported", seen.scan.distribution.clone());
    }
    if !seen.scan.says_something() {
        more("vulnerability-unseen", "no packages were found in it".into());
    }
    if seen.unread > 0 {
        more("vulnerability-unread", format!("{} of its files are closed to {}", seen.unread, owner.name));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::trivy::{Level, Scan, Vulnerability};

    /// 2026-11-27
    const NOW: u64 = 1_795_737_600;

    fn owner() -> Owner {
        Owner { name: "amy".into(), uid: 7, gid: 7, groups: vec![], home: "/".into(), is_cluster: false }
    }

    fn image(name: &str) -> Listed {
        let source = Source { root: "/".into(), driver: "overlay".into(), layer: "b".repeat(64) };
        Listed {
            id: "a".repeat(64),
            digest: format!("sha256:{}", "c".repeat(64)),
            names: vec![name.into()],
            source,
        }
    }

    fn seen(levels: &[Level]) -> Seen {
        let vulnerability = |(number, &level): (usize, &Level)| Vulnerability {
            level,
            id: format!("CVE-{number}"),
            package: "musl\n\x1b[2J$(x)".into(),
            installed: "1".into(),
            fixed: String::new(),
        };
        let vulnerabilities = levels.iter().enumerate().map(vulnerability).collect();
        Seen { scan: Scan { vulnerabilities, packages: 1, ..Scan::default() }, unread: 0 }
    }

    fn codes(seen: &Seen, settings: &Settings) -> Vec<&'static str> {
        let found = of_image(&owner(), &image("registry.local/a:1"), seen, settings, NOW);
        found.iter().map(|finding| finding.kind.code).collect()
    }

    #[test]
    fn one_finding_for_an_image_and_a_level() {
        let all = [Level::Critical, Level::Critical, Level::High, Level::Medium, Level::Low, Level::Unknown];
        let mut settings = Settings::default();
        assert_eq!(codes(&seen(&all), &settings), ["vulnerability-critical", "vulnerability-high"]);
        settings.limits = Limits::none_from(Level::Unknown);
        let expected =
            ["critical", "high", "medium", "low", "unknown"].map(|level| format!("vulnerability-{level}"));
        assert_eq!(codes(&seen(&all), &settings), expected);
        let found = of_image(&owner(), &image("a\nb"), &seen(&all), &settings, NOW);
        for (finding, level) in found.iter().zip(Level::ALL) {
            assert_eq!((finding.severity, finding.owner.as_str()), (level.severity(), "amy"));
            assert_eq!(finding.subject, Subject::Image(Text::of("a\nb")));
            assert_eq!(finding.place.as_str(), image("").digest);
        }
        assert_eq!(
            found[0].detail.as_str(),
            r"2: CVE-0 in musl\x0a\x1b[2J$(x) 1, CVE-1 in musl\x0a\x1b[2J$(x) 1"
        );
        assert_eq!(codes(&seen(&[]), &settings), [""; 0]);
    }

    #[test]
    fn what_says_nothing_is_not_good() {
        let settings = Settings::default();
        let scan = Scan { is_out_of_support: true, ..Scan::default() };
        let found = codes(&Seen { scan, unread: 3 }, &settings);
        assert_eq!(found, ["vulnerability-unsupported", "vulnerability-unseen", "vulnerability-unread"]);
    }

    #[test]
    fn what_ended_and_what_is_old() {
        let text =
            "limits = { critical = 0 }\n[[exceptions]]\nid = \"CVE-0\"\nuntil = \"DAY\"\nwhy = \"because\"";
        let until = |day: &str| toml::from_str::<Settings>(&text.replace("DAY", day)).unwrap();
        let database =
            |days| database::Known { version: "v".into(), days_old: Some(days), not_fetched: None };
        let bad = seen(&[Level::Critical, Level::High]);
        let current = until("2026-11-27");
        assert_eq!(codes(&bad, &current), [""; 0]);
        assert_eq!(of_host(&current, &database(7), NOW), []);
        let ended = until("2026-11-26");
        assert_eq!(codes(&bad, &ended), ["vulnerability-critical"]);
        let found = of_host(&ended, &database(8), NOW);
        let found: Vec<_> = found.iter().map(|one| (one.kind.code, one.detail.as_str())).collect();
        assert_eq!(
            found,
            [
                ("vulnerability-database", "it is 8 days old"),
                ("vulnerability-exception", "it ended after 2026-11-26: because")
            ]
        );
    }

    #[test]
    fn settings_have_defaults_and_nothing_unknown() {
        assert_eq!(toml::from_str::<Settings>("").unwrap(), Settings::default());
        for bad in [
            "servre = \"x\"",
            "limits = { awful = 0 }",
            "limits = { high = -1 }",
            "[[exceptions]]\nid = \"x\"",
        ] {
            assert!(toml::from_str::<Settings>(bad).is_err(), "{bad}");
        }
    }
}
