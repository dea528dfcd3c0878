use super::*;
use crate::containers::groups::{MOST_DIRECTORIES, MOST_OF_AN_OWNER};
use podsec_policy::finding::Severity;
use podsec_policy::finding::{Check, Found};
use proptest::prelude::*;

fn id(digit: u8) -> Id {
    Id::new(&[digit; 64]).unwrap()
}

fn container(digit: u8) -> Container {
    let (name, image) = (format!("c{}", char::from(digit)), "registry.local/a:1".into());
    Container { id: id(digit), layer: id(digit), name, image, builds: false }
}

/// A ledger with bob's store, the time, and what came of it.
struct Trial {
    ledger: Ledger,
    now: Instant,
    report: Report,
}

const PODMAN: i32 = 77;

impl Trial {
    fn new() -> Self {
        let mut trial = Self {
            ledger: Ledger::new(Vec::new()),
            now: Instant::now(),
            report: Report::new(Check::Containers),
        };
        trial.open(0, "bob", How::Fanotify);
        trial
    }

    /// With a store that has these containers.
    fn with(containers: &[u8]) -> Self {
        let mut trial = Self::new();
        trial.answer(containers);
        trial
    }

    fn open(&mut self, store: u32, owner: &str, how: How) {
        self.take(Message::Opened { store, owner: owner.into(), root: "/x".into(), how });
    }

    fn take(&mut self, message: Message<'_>) {
        self.ledger.take(self.now, message);
    }

    fn born(&mut self, container: u8) {
        self.take(Message::Born { store: 0, container: id(container) });
    }

    fn gone(&mut self, container: u8) {
        self.take(Message::Gone { store: 0, container: id(container), by: PODMAN });
    }

    fn does(&mut self, layer: u8, path: &str, what: What, by: i32) {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let (directory, name) = (directory.as_bytes(), name.as_bytes());
        self.take(Message::Wrote { store: 0, layer: id(layer), directory, name, what, by });
    }

    fn wrote(&mut self, layer: u8, path: &str) {
        self.does(layer, path, What::MADE, 5);
    }

    fn answer(&mut self, containers: &[u8]) {
        assert_eq!(self.ledger.questions(self.now + MUCH_LATER), [0]);
        let containers = containers.iter().map(|&digit| container(digit)).collect();
        self.ledger.answer(self.now, 0, containers);
    }

    fn later(&mut self, time: Duration) {
        self.now += time;
    }

    /// Subject, place, count of each finding.
    fn found(&mut self) -> Vec<(String, String, u64)> {
        self.ledger.tick(Some(self.now));
        self.ledger.drain(100, &mut self.report);
        let row = |found: &Found| {
            let Finding { subject, place, .. } = &found.finding;
            (subject.name().to_owned(), place.as_str().to_owned(), found.count)
        };
        let mut rows: Vec<_> = self.report.findings.values().map(row).collect();
        rows.sort();
        rows
    }
}

fn rows(expected: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    expected.iter().map(|&(subject, place, count)| (subject.into(), place.into(), count)).collect()
}

#[test]
fn repeated_events_are_one_finding() {
    let mut trial = Trial::with(b"a");
    for path in ["usr/bin/x", "usr/bin/x", "usr/bin/y", "etc/x", "tmp/x", "z"] {
        trial.wrote(b'a', path);
    }
    assert_eq!(trial.found(), rows(&[("ca", "/", 1), ("ca", "/etc", 1), ("ca", "/usr/bin", 3)]));
    trial.wrote(b'a', "usr/bin/x");
    assert_eq!(trial.found(), rows(&[("ca", "/", 1), ("ca", "/etc", 1), ("ca", "/usr/bin", 4)]));
    let severity = |place: &str| {
        let all = trial.report.findings.values();
        all.map(|found| &found.finding).find(|finding| finding.place.as_str() == place).unwrap()
    };
    assert_eq!(severity("/usr/bin").severity, Severity::Critical);
    assert_eq!(severity("/etc").severity, Severity::Warning);
    assert_eq!(
        (severity("/etc").owner.as_str(), severity("/etc").kind.code),
        ("bob", "container-wrote-data")
    );
    assert_eq!((trial.report.looked_at, trial.report.lost), (7, 0));
}

#[test]
fn what_is_done_to_images_is_nobodys() {
    let mut trial = Trial::with(b"a");
    trial.wrote(b'1', "usr/bin/x");
    assert_eq!(trial.found(), []);
    // While one waits to hear of a new container an image is pulled.
    trial.born(b'b');
    trial.wrote(b'1', "usr/bin/x");
    trial.answer(b"ab");
    assert_eq!(trial.found(), []);
    assert_eq!(trial.report.lost, 0);
}

#[test]
fn a_new_container_is_covered_from_its_first_write_and_not_before() {
    let mut trial = Trial::with(b"");
    // vfs copies the image to the layer before there is a container.
    trial.wrote(b'b', "usr/bin/bash");
    trial.born(b'c');
    trial.wrote(b'b', "usr/bin/ls");
    trial.born(b'b');
    trial.wrote(b'b', "usr/bin/x");
    assert_eq!(trial.found(), [], "nobody has said whose it is");
    assert!(!trial.ledger.is_dirty());
    trial.answer(b"bc");
    assert!(trial.ledger.is_dirty());
    trial.wrote(b'b', "usr/bin/y");
    assert_eq!(trial.found(), rows(&[("cb", "/usr/bin", 2)]));
    // It was known before it was made: the answer was newer than the events.
    let mut trial = Trial::with(b"");
    trial.born(b'c');
    trial.answer(b"bc");
    trial.wrote(b'b', "usr/bin/bash");
    assert_eq!(trial.found(), [], "copied, since it is not made yet");
    trial.born(b'b');
    trial.answer(b"bc");
    trial.wrote(b'b', "usr/bin/x");
    assert_eq!(trial.found(), rows(&[("cb", "/usr/bin", 1)]));
}

#[test]
fn what_is_removed_with_its_container_is_no_finding() {
    for order in [[true, false], [false, true]] {
        let mut trial = Trial::with(b"a");
        trial.does(b'a', "usr/bin/rm", What::REMOVED, 5);
        for is_gone in order {
            if is_gone {
                trial.gone(b'a');
            } else {
                trial.does(b'a', "usr/bin/ls", What::REMOVED, PODMAN);
            }
        }
        trial.later(REMOVAL);
        assert_eq!(trial.found(), rows(&[("ca", "/usr/bin", 1)]), "its own");
        assert_eq!(trial.report.lost, 0);
    }
}

#[test]
fn what_a_container_removes_is_told_a_little_later() {
    let mut trial = Trial::with(b"a");
    trial.does(b'a', "usr/bin/ls", What::REMOVED, 5);
    assert_eq!(trial.found(), []);
    assert!(trial.ledger.is_dirty());
    trial.later(REMOVAL);
    assert_eq!(trial.found(), rows(&[("ca", "/usr/bin", 1)]));
    assert!(!trial.ledger.is_dirty());
}

#[test]
fn images_are_built_without_findings() {
    let mut trial = Trial::with(b"");
    trial.born(b'b');
    trial.take(Message::Builds { store: 0, container: id(b'b') });
    trial.wrote(b'b', "usr/bin/x");
    trial.answer(b"b");
    trial.wrote(b'b', "usr/bin/y");
    assert_eq!(trial.found(), []);
    trial.gone(b'b');
    // Its number is free again, and the next is none.
    trial.born(b'b');
    trial.answer(b"b");
    trial.wrote(b'b', "usr/bin/y");
    assert_eq!(trial.found(), rows(&[("cb", "/usr/bin", 1)]));
}

#[test]
fn what_nobody_can_say_is_lost_and_said() {
    let mut trial = Trial::with(b"");
    trial.born(b'b');
    trial.wrote(b'b', "usr/bin/x");
    trial.gone(b'b');
    assert_eq!(trial.found(), rows(&[("", "podsec-monitor", 1)]));
    assert_eq!(trial.report.lost, 1);
    let mut trial = Trial::with(b"");
    trial.born(b'b');
    trial.wrote(b'b', "usr/bin/x");
    trial.later(SOON);
    for _ in 0..3 {
        assert_eq!(trial.ledger.questions(trial.now), [0]);
        let now = trial.now;
        trial.ledger.failed(now, 0, "no".into());
        assert!(trial.ledger.missed().contains_key(&Text::of("bob")));
        assert_eq!(trial.ledger.questions(now), [0; 0], "not at once");
        trial.later(MUCH_LATER);
    }
    assert_eq!(trial.found(), rows(&[("", "podsec-monitor", 1)]));
}

#[test]
fn after_an_overflow_everything_is_asked_anew() {
    let mut trial = Trial::with(b"a");
    trial.take(Message::Overflow);
    // Its making was lost.
    trial.wrote(b'b', "usr/bin/x");
    // And the removal of this one.
    trial.answer(b"b");
    trial.wrote(b'a', "usr/bin/x");
    assert_eq!(trial.found(), rows(&[("", "the kernel's queue", 1), ("cb", "/usr/bin", 1)]));
    assert_eq!(trial.report.lost, 1);
}

#[test]
fn a_follower_speaks_of_its_own_store_alone() {
    let mut trial = Trial::with(b"a");
    trial.open(1, "eve", How::Inotify);
    let (layer, now) = (id(b'a'), trial.now);
    let what = What::MADE;
    let wrote = Message::Wrote { store: 0, layer, directory: b"usr", name: b"x", what, by: 0 };
    trial.ledger.take_of(now, 1, wrote);
    trial.ledger.take_of(now, 1, Message::Closed { store: 0 });
    let why = "x".to_owned();
    trial.ledger.take_of(now, 1, Message::Missed { store: 0, owner: "bob".into(), why });
    assert_eq!(trial.ledger.missed().keys().map(Text::as_str).collect::<Vec<_>>(), ["eve"]);
    assert!(trial.ledger.is_dirty());
    assert_eq!(trial.found(), []);
    trial.wrote(b'a', "usr/x");
    assert_eq!(trial.found(), rows(&[("ca", "/usr", 1)]));
}

#[test]
fn one_container_cannot_fill_the_report() {
    let mut trial = Trial::with(b"ab");
    for number in 0..1_000 {
        trial.wrote(b'a', &format!("opt/{number}/x"));
        if number % 300 == 0 {
            trial.found();
        }
    }
    trial.wrote(b'b', "usr/bin/x");
    let found = trial.found();
    assert_eq!(found.iter().filter(|(subject, ..)| subject == "ca").count(), MOST_DIRECTORIES + 1);
    assert_eq!(found.iter().map(|(.., count)| count).sum::<u64>(), 1_001, "none is lost");
    assert!(found.contains(&("cb".into(), "/usr/bin".into(), 1)));
    assert!(found.contains(&("ca".into(), "/…".into(), 900)));
    assert_eq!(trial.report.lost, 0);
}

#[test]
fn one_owner_cannot_fill_the_report() {
    let mut trial = Trial::with(b"");
    for number in 0..3_000_u64 {
        let name = number.to_string();
        let kind = finding::kind("container-wrote-data").unwrap();
        let subject = Subject::Container(Text::of(&name));
        if number < 1_999 {
            trial.report.see(1, Finding::new(kind, subject, "/x", "").of("bob"), 1);
        }
    }
    trial.open(1, "eve", How::Fanotify);
    assert_eq!(trial.ledger.questions(trial.now), [1]);
    let now = trial.now;
    trial.ledger.answer(now, 1, vec![container(b'e')]);
    trial.born(b'a');
    trial.born(b'b');
    trial.answer(b"ab");
    trial.wrote(b'a', "usr/x");
    trial.wrote(b'b', "usr/x");
    let what = What::MADE;
    trial.take(Message::Wrote { store: 1, layer: id(b'e'), directory: b"usr", name: b"x", what, by: 0 });
    let found = trial.found();
    assert_eq!(found.len(), MOST_OF_AN_OWNER + 2);
    assert!(found.contains(&("ce".into(), "/usr".into(), 1)));
    assert!(found.contains(&("".into(), "podsec-monitor".into(), 1)));
    assert_eq!(trial.report.lost, 1);
}

#[test]
fn what_is_held_is_bounded() {
    let mut trial = Trial::new();
    let path = "d/".repeat(1_000) + "x";
    let total = 20_000;
    for _ in 0..total {
        trial.wrote(b'a', &path);
    }
    assert!(trial.ledger.held <= MOST_HELD_OF_ONE, "there is room for others");
    trial.answer(b"a");
    trial.later(REMOVAL);
    let found = trial.found();
    assert!(trial.report.lost > 0);
    let seen: u64 = found.iter().filter(|(subject, ..)| subject == "ca").map(|(.., count)| count).sum();
    assert_eq!(seen + trial.report.lost, total);
    assert_eq!(trial.ledger.held, 0);
}

#[test]
fn what_is_held_at_the_end_is_lost_and_said() {
    let mut trial = Trial::with(b"a");
    trial.does(b'a', "usr/bin/ls", What::REMOVED, 5);
    trial.born(b'b');
    trial.wrote(b'b', "usr/bin/x");
    trial.ledger.tick(None);
    assert_eq!(trial.found(), rows(&[("", "podsec-monitor", 1), ("ca", "/usr/bin", 1)]));
}

#[test]
fn a_hostile_name_is_one_line() {
    let mut trial = Trial::with(b"a");
    let hostile = "$(touch x)\n\u{1b}[31m\"'";
    trial.wrote(b'a', &format!("opt/{hostile}/{hostile}"));
    assert_eq!(trial.found().len(), 1);
    let finding = &trial.report.findings.values().next().unwrap().finding;
    for text in [&finding.place, &finding.detail] {
        assert!(text.as_str().contains("$(touch x)"));
        assert!(!text.as_str().chars().any(char::is_control));
    }
}

proptest! {
    /// Whatever comes in whatever order, each event of a container is counted, held, lost, or said to be none.
    #[test]
    fn nothing_disappears(steps in proptest::collection::vec((0_u8..9, b'a'..b'd', any::<bool>()), 0..200)) {
        let mut trial = Trial::new();
        let mut wrote = 0_u64;
        for (step, digit, flag) in steps {
            match step {
                0 => trial.born(digit),
                1 => trial.gone(digit),
                2 => trial.take(Message::Builds { store: 0, container: id(digit) }),
                3 => trial.take(Message::Overflow),
                4 => {
                    trial.ledger.questions(trial.now);
                    let now = trial.now;
                    trial.ledger.answer(now, 0, if flag { vec![container(digit)] } else { vec![] });
                }
                5 => {
                    let now = trial.now;
                    trial.ledger.failed(now, 0, "no".into());
                }
                6 => trial.later(Duration::from_secs(if flag { 1 } else { 7 })),
                _ => {
                    wrote += 1;
                    let (what, by) = if flag { (What::REMOVED, PODMAN) } else { (What::MADE, 5) };
                    trial.does(digit, "usr/bin/x", what, by);
                }
            }
            let bytes: usize = trial.ledger.stores.values().map(|store| {
                let removed = store.removed.iter().map(|removed| &removed.held);
                let bytes = store.held.iter().chain(removed).map(Held::bytes).sum::<usize>();
                assert_eq!(bytes, store.bytes);
                bytes
            }).sum();
            prop_assert_eq!(bytes, trial.ledger.held);
        }
        let found = trial.found();
        let counted: u64 = found.iter().filter(|(name, ..)| !name.is_empty()).map(|(.., count)| count).sum();
        prop_assert!(counted <= wrote);
        prop_assert_eq!(trial.report.looked_at, wrote);
    }
}
