//! Events that belong together, and the findings that they are: bounded, so that whoever writes much says no more than that, and
//! leaves room for what others do.

use super::message::{Container, What};
use super::place::Id;
use super::rules::{self, Rule};
use crate::verdict::Verdict;
use podsec_policy::finding::{self, Finding, Kind, Report, Severity, Subject, Text};
use std::collections::HashMap;
use std::rc::Rc;

/// Directories of one container that have findings of their own; more are one finding together.
pub const MOST_DIRECTORIES: usize = 100;
/// Findings of one owner's containers: nobody can fill the report and so hide what others' containers do.
pub const MOST_OF_AN_OWNER: usize = 2_000;
/// Groups of events until the next time they are written down.
const MOST_GROUPS: usize = 20_000;
/// In the place of a path.
const MORE: &[u8] = "…".as_bytes();

/// Events of the same kind in the same directory of the same container.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    store: u32,
    container: Id,
    kind: &'static str,
    directory: Vec<u8>,
}

#[derive(Debug)]
struct Group {
    owner: String,
    container: Rc<Container>,
    severity: Severity,
    count: u64,
    name: Vec<u8>,
    what: What,
}

/// All since the last time that they were written down.
#[derive(Debug)]
pub struct Groups {
    rules: Vec<Rule>,
    groups: HashMap<Key, Group>,
    /// Of how many directories of each container.
    widths: HashMap<(u32, Id), usize>,
    lost: u64,
}

impl Groups {
    pub fn new(rules: Vec<Rule>) -> Self {
        Self { rules, groups: HashMap::new(), widths: HashMap::new(), lost: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.groups.is_empty() && self.lost == 0
    }

    /// One event more.
    pub fn count(
        &mut self,
        store: u32,
        owner: &str,
        container: &Rc<Container>,
        directory: &[u8],
        name: &[u8],
        what: What,
    ) {
        if container.builds {
            return;
        }
        let mut path = Vec::with_capacity(directory.len() + name.len() + 2);
        path.push(b'/');
        if !directory.is_empty() {
            path.extend(directory);
            path.push(b'/');
        }
        path.extend(name);
        let verdict = rules::judge(&self.rules, &path, &container.image, &container.name);
        let Verdict::Is(severity) = verdict else { return };
        let kind =
            if severity <= Severity::Warning { "container-wrote-data" } else { "container-wrote-program" };
        let mut key = Key { store, container: container.id, kind, directory: directory.to_vec() };
        if !self.groups.contains_key(&key) {
            let width = self.widths.entry((store, container.id)).or_default();
            *width += 1;
            if *width > MOST_DIRECTORIES {
                key.directory = MORE.to_vec();
            }
        }
        let room = self.groups.len() < MOST_GROUPS;
        match self.groups.get_mut(&key) {
            Some(group) => {
                group.count += 1;
                group.severity = group.severity.max(severity);
                if group.name == name {
                    group.what = group.what.and(what);
                } else {
                    group.name = if key.directory == MORE { path } else { name.to_vec() };
                    group.what = what;
                }
            }
            None if room => {
                let name = if key.directory == MORE { path } else { name.to_vec() };
                let (owner, container) = (owner.to_owned(), Rc::clone(container));
                self.groups.insert(key, Group { owner, container, severity, count: 1, name, what });
            }
            None => self.lost += 1,
        }
    }

    /// Adds all to the report, and gives how many events there was no room for.
    pub fn drain(&mut self, now: u64, report: &mut Report) -> u64 {
        let mut shares = Shares::of(report);
        self.widths.clear();
        for (key, group) in self.groups.drain() {
            let Some(kind) = finding::kind(key.kind) else { continue };
            let one = group.finding(kind, &key.directory);
            if shares.has_room(report, &one) {
                report.see(now, one, group.count);
                continue;
            }
            let more = group.finding(kind, MORE);
            if shares.has_room_for_more(report, &more) {
                report.see(now, more, group.count);
            } else {
                self.lost = self.lost.saturating_add(group.count);
            }
        }
        std::mem::take(&mut self.lost)
    }
}

impl Group {
    fn finding(&self, kind: &'static Kind, directory: &[u8]) -> Finding {
        let Container { id, name, image, .. } = &*self.container;
        let id = id.short();
        let place = [b"/", directory].concat();
        let mut detail = self.name.clone();
        detail.extend(format!(": {}; container {id}, image {image}", self.what.words()).as_bytes());
        let subject = Subject::Container(Text::of(if name.is_empty() { &id } else { name }));
        let finding = Finding::new(kind, subject, place, detail).of(&self.owner);
        Finding { severity: self.severity, ..finding }
    }
}

/// How many findings of the report are whose.
struct Shares {
    containers: HashMap<(Text, Subject), usize>,
    owners: HashMap<Text, usize>,
}

impl Shares {
    fn of(report: &Report) -> Self {
        let mut shares = Self { containers: HashMap::new(), owners: HashMap::new() };
        report.findings.values().for_each(|found| shares.add(&found.finding));
        shares
    }

    fn add(&mut self, finding: &Finding) {
        if !finding.place.as_str().as_bytes().ends_with(MORE) {
            *self.containers.entry((finding.owner.clone(), finding.subject.clone())).or_default() += 1;
        }
        *self.owners.entry(finding.owner.clone()).or_default() += 1;
    }

    /// For one that is there, or that its container and owner have room for.
    fn has_room(&mut self, report: &Report, finding: &Finding) -> bool {
        let of_container = self.containers.get(&(finding.owner.clone(), finding.subject.clone()));
        self.room(report, finding, of_container.is_none_or(|&count| count < MOST_DIRECTORIES))
    }

    /// For the one that stands for all others of its container.
    fn has_room_for_more(&mut self, report: &Report, finding: &Finding) -> bool {
        self.room(report, finding, true)
    }

    fn room(&mut self, report: &Report, finding: &Finding, free: bool) -> bool {
        if report.findings.contains_key(&finding.id()) {
            return true;
        }
        let of_owner = self.owners.get(&finding.owner).copied().unwrap_or_default();
        let room = free && of_owner < MOST_OF_AN_OWNER;
        if room {
            self.add(finding);
        }
        room
    }
}
