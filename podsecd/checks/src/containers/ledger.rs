//! Which event is whose, and what it comes to: no input or output, so that all of it can be tried.
//!
//! A layer is a container's from the moment its container is made until it is removed, by the order of the events
//! themselves. Which layer that is, its owner has to be asked; until he has answered, what is done to layers that nobody
//! knows is held.

use super::groups::Groups;
use super::message::{Container, How, Message, What};
use super::place::Id;
use super::rules::Rule;
use podsec_policy::finding::{self, Finding, Report, Subject, Text};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Bytes of what is held, of all stores and of one.
const MOST_HELD: usize = 16 << 20;
const MOST_HELD_OF_ONE: usize = 4 << 20;
/// Containers of a store of which one waits to hear.
const MOST_EXPECTED: usize = 1_000;
/// So long one waits to hear of a container.
const PATIENCE: Duration = Duration::from_secs(10);
/// So long after a file was removed the container may turn out to be.
const REMOVAL: Duration = Duration::from_secs(2);
/// Between two questions about a store; after one that was answered and did not help; after one that was not answered.
const SOON: Duration = Duration::from_millis(50);
const LATER: Duration = Duration::from_millis(500);
const MUCH_LATER: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Held {
    at: u64,
    layer: Id,
    directory: Vec<u8>,
    name: Vec<u8>,
    what: What,
    by: i32,
}

impl Held {
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.directory.len() + self.name.len()
    }
}

/// A file that was removed: by its container, unless that turns out to be removed by the same process. podman removes layers
/// and what it has noted of their containers at the same time.
#[derive(Debug)]
struct Removed {
    when: Instant,
    container: Rc<Container>,
    held: Held,
}

/// A layer that is a container's, and since which event.
#[derive(Debug)]
struct Active {
    container: Rc<Container>,
    since: u64,
}

#[derive(Debug)]
struct Store {
    owner: String,
    how: How,
    /// By its layer.
    active: HashMap<Id, Active>,
    /// Made, and not known yet: since which event, and when.
    expected: BTreeMap<Id, (u64, Instant)>,
    builds: BTreeSet<Id>,
    /// Nothing is known yet, or not any more.
    unknown: bool,
    held: VecDeque<Held>,
    removed: VecDeque<Removed>,
    /// Of both.
    bytes: usize,
    asking: bool,
    next: Instant,
    answered: Option<Instant>,
    failed: bool,
}

impl Store {
    fn waits(&self) -> bool {
        self.unknown || !self.expected.is_empty()
    }

    fn has_room(&self, of_all: usize, more: usize) -> bool {
        self.bytes + more <= MOST_HELD_OF_ONE && of_all + more <= MOST_HELD
    }
}

/// All of it.
#[derive(Debug)]
pub struct Ledger {
    stores: BTreeMap<u32, Store>,
    /// Whose stores are not watched as they should be, which, and why.
    missed: BTreeMap<(String, u32), String>,
    /// That, since the last [`Ledger::drain`].
    changed: bool,
    groups: Groups,
    events: u64,
    held: usize,
    /// Events seen in layers, since the last [`Ledger::drain`].
    seen: u64,
    lost: u64,
    overflows: u64,
}

impl Ledger {
    pub fn new(rules: Vec<Rule>) -> Self {
        Self {
            stores: BTreeMap::new(),
            missed: BTreeMap::new(),
            changed: false,
            groups: Groups::new(rules),
            events: 0,
            held: 0,
            seen: 0,
            lost: 0,
            overflows: 0,
        }
    }

    /// The next event, in the order of all.
    pub fn take(&mut self, now: Instant, message: Message<'_>) {
        self.events += 1;
        match message {
            Message::Opened { store, owner, root: _, how } => {
                self.close(store);
                let opened = Store {
                    owner,
                    how,
                    active: HashMap::new(),
                    expected: BTreeMap::new(),
                    builds: BTreeSet::new(),
                    unknown: true,
                    held: VecDeque::new(),
                    removed: VecDeque::new(),
                    bytes: 0,
                    asking: false,
                    next: now,
                    answered: None,
                    failed: false,
                };
                self.stores.insert(store, opened);
            }
            Message::Closed { store } => self.close(store),
            Message::Missed { store, owner, why } => {
                self.miss(owner, store, why);
            }
            Message::Born { store, container } => self.born(now, store, container),
            Message::Builds { store, container } => {
                if let Some(store) = self.stores.get_mut(&store) {
                    // Only of those that are there, so no more than of them.
                    let known = store.active.values().any(|active| active.container.id == container);
                    if known || store.expected.contains_key(&container) {
                        store.builds.insert(container);
                    }
                }
            }
            Message::Gone { store, container, by } => self.gone(now, store, container, by),
            Message::Wrote { store, layer, directory, name, what, by } => {
                let (directory, name) = (directory.to_vec(), name.to_vec());
                self.wrote(now, store, Held { at: self.events, layer, directory, name, what, by });
            }
            Message::Overflow => {
                self.overflows += 1;
                let all: Vec<_> = self.stores.keys().copied().collect();
                all.into_iter().for_each(|store| self.overflow(now, store, How::Fanotify));
            }
            Message::Lost { events } => self.lost += events,
        }
    }

    /// One from a follower of that store: about no other.
    pub fn take_of(&mut self, now: Instant, store: u32, message: Message<'_>) {
        let own = match message {
            Message::Born { container, .. } => Message::Born { store, container },
            Message::Builds { container, .. } => Message::Builds { store, container },
            Message::Gone { container, by, .. } => Message::Gone { store, container, by },
            Message::Wrote { layer, directory, name, what, by, .. } => {
                Message::Wrote { store, layer, directory, name, what, by }
            }
            Message::Missed { why, .. } => {
                let Some(owner) = self.stores.get(&store).map(|store| store.owner.clone()) else { return };
                Message::Missed { store, owner, why }
            }
            Message::Overflow => {
                self.overflows += 1;
                return self.overflow(now, store, How::Inotify);
            }
            Message::Lost { events } => Message::Lost { events },
            Message::Opened { .. } | Message::Closed { .. } => return,
        };
        self.take(now, own);
    }

    /// A store that is followed was not for a while.
    pub fn unknown(&mut self, now: Instant, store: u32) {
        self.overflow(now, store, How::Inotify);
    }

    /// What is known of a store's containers may be wrong from now on: some may have been made, some removed.
    fn overflow(&mut self, now: Instant, store: u32, how: How) {
        if let Some(store) = self.stores.get_mut(&store).filter(|store| store.how == how) {
            (store.unknown, store.next) = (true, now);
        }
    }

    /// An empty reason is none.
    fn miss(&mut self, owner: String, store: u32, why: String) {
        let before = if why.is_empty() {
            self.missed.remove(&(owner, store))
        } else {
            self.missed.insert((owner, store), why.clone())
        };
        self.changed |= before.unwrap_or_default() != why;
    }

    fn close(&mut self, number: u32) {
        self.count_removed(number, |_| Some(true));
        if let Some(store) = self.stores.remove(&number) {
            self.held -= store.bytes;
            self.lost += store.held.len() as u64;
            self.miss(store.owner, number, String::new());
        }
    }

    fn born(&mut self, now: Instant, store: u32, container: Id) {
        let at = self.events;
        let Some(store) = self.stores.get_mut(&store) else { return };
        if store.expected.len() == MOST_EXPECTED {
            store.unknown = true;
        } else {
            store.expected.insert(container, (at, now));
        }
        if !store.failed {
            store.next = store.next.min(store.answered.map_or(now, |answered| now.max(answered + SOON)));
        }
    }

    fn gone(&mut self, now: Instant, number: u32, container: Id, by: i32) {
        let is_removal = |held: &Held| by == 0 || held.by == by;
        self.count_removed(number, |removed| {
            (removed.container.id == container).then(|| !is_removal(&removed.held))
        });
        let Some(store) = self.stores.get_mut(&number) else { return };
        store.active.retain(|_, active| active.container.id != container);
        store.builds.remove(&container);
        if let Some((since, _)) = store.expected.remove(&container) {
            // Nobody could say which layer was its.
            self.settle(now, number, Some(since), |held| held.what == What::REMOVED && is_removal(held));
        }
    }

    /// Of files that were removed: what becomes of each, to be counted or not; `None`: to be kept for now.
    fn count_removed(&mut self, number: u32, decide: impl Fn(&Removed) -> Option<bool>) {
        let Some(store) = self.stores.get_mut(&number) else { return };
        let (mut kept, mut counted) = (VecDeque::new(), Vec::new());
        for removed in std::mem::take(&mut store.removed) {
            match decide(&removed) {
                None => kept.push_back(removed),
                Some(count) => {
                    self.held -= removed.held.bytes();
                    store.bytes -= removed.held.bytes();
                    counted.extend(count.then_some(removed));
                }
            }
        }
        store.removed = kept;
        for Removed { container, held, .. } in counted {
            self.count(number, &container, &held);
        }
    }

    fn wrote(&mut self, now: Instant, number: u32, held: Held) {
        self.seen += 1;
        let Some(store) = self.stores.get_mut(&number) else { return };
        if let Some(active) = store.active.get(&held.layer) {
            let container = Rc::clone(&active.container);
            self.attribute(now, number, container, held);
        } else if store.waits() {
            if store.has_room(self.held, held.bytes()) {
                self.held += held.bytes();
                store.bytes += held.bytes();
                store.held.push_back(held);
            } else {
                self.lost += 1;
            }
        }
    }

    /// It is that container's.
    fn attribute(&mut self, now: Instant, number: u32, container: Rc<Container>, held: Held) {
        let Some(store) = self.stores.get_mut(&number) else { return };
        if held.what == What::REMOVED && store.has_room(self.held, held.bytes()) {
            self.held += held.bytes();
            store.bytes += held.bytes();
            store.removed.push_back(Removed { when: now, container, held });
        } else {
            self.count(number, &container, &held);
        }
    }

    fn count(&mut self, number: u32, container: &Rc<Container>, held: &Held) {
        let Some(store) = self.stores.get(&number) else { return };
        if !store.builds.contains(&container.id) {
            self.groups.count(number, &store.owner, container, &held.directory, &held.name, held.what);
        }
    }

    /// Stores about which their owners are to be asked now.
    pub fn questions(&mut self, now: Instant) -> Vec<u32> {
        let due = |store: &Store| store.waits() && !store.asking && store.next <= now;
        let asked = self.stores.iter_mut().filter(|(_, store)| due(store)).map(|(number, store)| {
            store.asking = true;
            *number
        });
        asked.collect()
    }

    /// When there will be something to ask or to give up.
    pub fn next(&self) -> Option<Instant> {
        self.stores.values().filter(|store| store.waits() && !store.asking).map(|store| store.next).min()
    }

    /// What an owner says: all containers of the store.
    pub fn answer(&mut self, now: Instant, number: u32, containers: Vec<Container>) {
        let Some(store) = self.stores.get_mut(&number) else { return };
        (store.asking, store.failed, store.answered) = (false, false, Some(now));
        let owner = store.owner.clone();
        if std::mem::take(&mut store.unknown) {
            store.expected.clear();
            let active = |container: Container| {
                // Those that were there all the time: whatever is held of them counts.
                (container.layer, Active { container: Rc::new(container), since: 0 })
            };
            store.active = containers.into_iter().map(active).collect();
        } else {
            for container in containers {
                if let Some((since, _)) = store.expected.remove(&container.id) {
                    let layer = container.layer;
                    store.active.insert(layer, Active { container: Rc::new(container), since });
                }
            }
        }
        // Whoever is not among them yet may be with the next answer, and after a while never.
        let waited = |since: Instant| now.saturating_duration_since(since) < PATIENCE;
        store.expected.retain(|_, (_, since)| waited(*since));
        // One that was made after the question may be in the next answer.
        let is_young = |since: Instant| now.saturating_duration_since(since) < Duration::from_secs(1);
        let soon = store.expected.values().any(|(_, since)| is_young(*since));
        store.next = now + if soon { SOON } else { LATER };
        self.miss(owner, number, String::new());
        self.settle(now, number, None, |_| false);
    }

    /// He says nothing.
    pub fn failed(&mut self, now: Instant, number: u32, why: String) {
        let Some(store) = self.stores.get_mut(&number) else { return };
        (store.asking, store.failed, store.next) = (false, true, now + MUCH_LATER);
        let mut given_up = None;
        store.expected.retain(|_, (since, when)| {
            let keep = now.saturating_duration_since(*when) < PATIENCE;
            if !keep {
                given_up = Some(given_up.map_or(*since, |first: u64| first.min(*since)));
            }
            keep
        });
        let owner = store.owner.clone();
        self.miss(owner, number, why);
        if given_up.is_some() {
            self.settle(now, number, given_up, |_| false);
        }
    }

    /// Goes through what is held. What is nobody's when nobody is waited for any more is an image's, unless somebody was
    /// given up whose it may have been, from that event on, and it is not his own removal.
    fn settle(
        &mut self,
        now: Instant,
        number: u32,
        given_up: Option<u64>,
        is_removal: impl Fn(&Held) -> bool,
    ) {
        let Some(store) = self.stores.get_mut(&number) else { return };
        let (all, waits) = (std::mem::take(&mut store.held), store.waits());
        for held in all {
            let Some(store) = self.stores.get_mut(&number) else { return };
            if !waits || store.active.contains_key(&held.layer) {
                self.held -= held.bytes();
                store.bytes -= held.bytes();
            }
            match store.active.get(&held.layer) {
                Some(active) => {
                    // What came before was its making.
                    if active.since <= held.at {
                        let container = Rc::clone(&active.container);
                        self.attribute(now, number, container, held);
                    }
                }
                None if waits => store.held.push_back(held),
                None => {
                    let may_be_his = given_up.is_some_and(|since| held.at >= since) && !is_removal(&held);
                    self.lost += u64::from(may_be_his);
                }
            }
        }
    }

    /// Files that were removed, and their containers were not: they did it. At the end, of all of them.
    pub fn tick(&mut self, now: Option<Instant>) {
        let is_over = |when: Instant| now.is_none_or(|now| now.saturating_duration_since(when) >= REMOVAL);
        let all: Vec<_> = self
            .stores
            .iter()
            .filter(|(_, store)| !store.removed.is_empty())
            .map(|(store, _)| *store)
            .collect();
        for store in all {
            self.count_removed(store, |removed| is_over(removed.when).then_some(true));
        }
        if now.is_none() {
            // Nobody will say any more whose it was.
            self.lost += self.stores.values().map(|store| store.held.len() as u64).sum::<u64>();
        }
    }

    /// Is there something to write down, now or soon?
    pub fn is_dirty(&self) -> bool {
        self.stores.values().any(|store| !store.removed.is_empty())
            || !self.groups.is_empty()
            || self.changed
            || self.seen > 0
            || self.lost > 0
            || self.overflows > 0
    }

    /// Whose stores are not watched as they should be, and why.
    pub fn missed(&self) -> BTreeMap<Text, Text> {
        self.missed.iter().map(|((owner, _), why)| (Text::of(owner), Text::of(why))).collect()
    }

    /// Adds all since the last time to the report.
    pub fn drain(&mut self, now: u64, report: &mut Report) {
        self.lost += self.groups.drain(now, report);
        let lost = |place: &str, detail: &str| {
            let kind = finding::kind("container-events-lost")?;
            Some(Finding::new(kind, Subject::Host, place, detail))
        };
        if self.overflows > 0 {
            let detail = "the kernel had no room for more events, so some were never seen";
            if let Some(lost) = lost("the kernel's queue", detail) {
                report.see(now, lost, self.overflows);
            }
        }
        if self.lost > 0 {
            let detail = "events were seen of which could not be found out whose they were, or there was no room for them";
            if let Some(finding) = lost("podsec-monitor", detail) {
                report.see(now, finding, self.lost);
            }
        }
        report.looked_at = report.looked_at.saturating_add(self.seen);
        report.lost = report.lost.saturating_add(self.lost).saturating_add(self.overflows);
        (self.seen, self.lost, self.overflows, self.changed) = (0, 0, 0, false);
    }
}

#[cfg(test)]
mod tests;
