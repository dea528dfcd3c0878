//! What the monitors find: one model for all checks, and the closed list of what can be found ([`kinds`]).
//!
//! A finding is about a subject, in a place; the same kind about the same subject in the same place is the same finding
//! however often it is seen ([`Finding::id`]). Whatever comes from what is watched, a file's name or an image's, is a
//! [`Text`]: escaped and short, so that it can go to a terminal, a log or a mail as it is.

mod containers;
pub mod images;
pub mod kubeapi;
pub mod policy;
mod report;
mod vulnerabilities;

pub use report::{Found, Outcome, Ran, Report, Summary};

use crate::audit::{escape, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// One of the monitors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// What decides which images run, for everybody who has images.
    Policy,
    /// The images that are there.
    Images,
    /// Files that containers write.
    Containers,
    /// The audit of the Kubernetes API.
    KubeApi,
    /// Known vulnerabilities of images.
    Vulnerabilities,
}

impl Check {
    /// All, in the order of their names in the interface.
    pub const ALL: [Self; 5] =
        [Self::Policy, Self::Images, Self::Containers, Self::KubeApi, Self::Vulnerabilities];

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Images => "images",
            Self::Containers => "containers",
            Self::KubeApi => "kubeapi",
            Self::Vulnerabilities => "vulnerabilities",
        }
    }

    /// The reverse.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|check| check.name() == name)
    }

    /// Does it look when it is told to, at all there is? The others follow events all the time.
    #[must_use]
    pub fn looks(self) -> bool {
        matches!(self, Self::Policy | Self::Images | Self::Vulnerabilities)
    }
}

/// How bad, from the least to the worst. The letters are those of the options of the monitors that podsec replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// `d`
    Debug,
    /// `l`
    Low,
    /// `w`
    Warning,
    /// `m`
    Medium,
    /// `h`
    High,
    /// `c`
    Critical,
    /// `f`
    Fatal,
    /// `a`
    Crash,
}

impl Severity {
    /// From the least to the worst.
    pub const ALL: [Self; 8] = [
        Self::Debug,
        Self::Low,
        Self::Warning,
        Self::Medium,
        Self::High,
        Self::Critical,
        Self::Fatal,
        Self::Crash,
    ];

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Low => "low",
            Self::Warning => "warning",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
            Self::Fatal => "fatal",
            Self::Crash => "crash",
        }
    }

    /// The reverse; one letter will do.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.name() == name || severity.letter() == name)
    }

    /// Of the old options.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            Self::Debug => "d",
            Self::Low => "l",
            Self::Warning => "w",
            Self::Medium => "m",
            Self::High => "h",
            Self::Critical => "c",
            Self::Fatal => "f",
            Self::Crash => "a",
        }
    }

    /// Of syslog(3): 0 (emergency) to 7 (debug). Emergencies are for a system that cannot be used, so none of these.
    #[must_use]
    pub fn priority(self) -> u8 {
        match self {
            Self::Debug => 7,
            Self::Low => 5,
            Self::Warning | Self::Medium => 4,
            Self::High => 3,
            Self::Critical | Self::Fatal => 2,
            Self::Crash => 1,
        }
    }
}

/// What can be found: one entry of the list.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// For scripts and for `podsecctl check explain`: lower case and hyphens, unique.
    pub code: &'static str,
    /// By which monitor.
    pub check: Check,
    /// Unless a rule says otherwise.
    pub severity: Severity,
    /// What one such finding adds to a check's sum, which Nagios compares (`podsecctl check nagios`).
    pub weight: u32,
    /// A few words.
    pub title: &'static str,
    /// What it means and why it matters.
    pub explanation: &'static str,
    /// What to do: a command where there is one.
    pub remedy: &'static str,
}

/// All that can be found, check by check.
pub fn kinds() -> impl Iterator<Item = &'static Kind> {
    [policy::KINDS, images::KINDS, containers::KINDS, kubeapi::KINDS, vulnerabilities::KINDS]
        .into_iter()
        .flatten()
}

/// By its code.
#[must_use]
pub fn kind(code: &str) -> Option<&'static Kind> {
    kinds().find(|kind| kind.code == code)
}

/// Text for people, of what nobody can trust: one line, escaped as in the audit, and not long. It is escaped once, where it
/// comes in; what is read back is refused if it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Text(String);

/// Not as [`Text::of`] makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not escaped, or too long")]
pub struct TextError;

impl Text {
    /// Most bytes that are read back: what [`escape`] leaves, and its note on the rest.
    const LONGEST: usize = crate::audit::MAX_TARGET + 120;

    /// Of anything.
    #[must_use]
    pub fn of(raw: impl AsRef<[u8]>) -> Self {
        Self(escape(raw.as_ref()))
    }

    fn new(text: String) -> Result<Self, TextError> {
        let good = text.len() <= Self::LONGEST && !text.chars().any(crate::audit::is_unprintable);
        good.then_some(Self(text)).ok_or(TextError)
    }

    /// To be printed as it is.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

checked!(Text(String), TextError);

impl std::fmt::Display for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom or what a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    /// This host as a whole.
    Host,
    /// One of its users.
    User(Text),
    /// An image: its name, or its digest when it has none.
    Image(Text),
    /// A container: its name, or its id.
    Container(Text),
    /// A user of Kubernetes, as its audit names him.
    KubernetesUser(Text),
}

impl Subject {
    /// What kind of thing.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::User(_) => "user",
            Self::Image(_) => "image",
            Self::Container(_) => "container",
            Self::KubernetesUser(_) => "kubernetes-user",
        }
    }

    /// Which; empty for the host.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Host => "",
            Self::User(name) | Self::Image(name) | Self::Container(name) | Self::KubernetesUser(name) => {
                name.as_str()
            }
        }
    }
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind())?;
        if self.name().is_empty() { Ok(()) } else { write!(f, " {}", self.name()) }
    }
}

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What; written down as its code.
    #[serde(with = "by_code")]
    pub kind: &'static Kind,
    /// The kind's, or what a rule says.
    pub severity: Severity,
    /// What it adds to the check's sum.
    pub weight: u32,
    /// About whom or what.
    pub subject: Subject,
    /// Whose store, home or process it was found in: a user of the host. Empty: nobody's in particular.
    pub owner: Text,
    /// Where: a path, an image's digest, a resource of the API.
    pub place: Text,
    /// What exactly; the newest when it was seen several times.
    pub detail: Text,
}

impl Finding {
    /// With the severity and weight of its kind, in nobody's store.
    #[must_use]
    pub fn new(
        kind: &'static Kind,
        subject: Subject,
        place: impl AsRef<[u8]>,
        detail: impl AsRef<[u8]>,
    ) -> Self {
        Self {
            kind,
            severity: kind.severity,
            weight: kind.weight,
            subject,
            owner: Text::default(),
            place: Text::of(place),
            detail: Text::of(detail),
        }
    }

    /// The same, found in that user's store or home.
    #[must_use]
    pub fn of(self, owner: impl AsRef<[u8]>) -> Self {
        Self { owner: Text::of(owner), ..self }
    }

    /// 16 hexadecimal digits: the same for the same kind, subject, owner and place, now and later.
    #[must_use]
    pub fn id(&self) -> String {
        let mut hash = Sha256::new();
        let subject = [self.subject.kind(), self.subject.name()];
        for part in
            [self.kind.code].into_iter().chain(subject).chain([self.owner.as_str(), self.place.as_str()])
        {
            // The length first, so that no two lists of parts have the same bytes.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let hash: [u8; 32] = hash.finalize().into();
        let mut id = hex(&hash);
        id.truncate(16);
        id
    }
}

mod by_code {
    use super::{Kind, kind};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(kind: &&'static Kind, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(kind.code)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<&'static Kind, D::Error> {
        let code = String::deserialize(from)?;
        kind(&code).ok_or_else(|| D::Error::custom("no such kind of finding"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_texts_are_there() {
        let codes: BTreeSet<_> = kinds().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), kinds().count());
        for kind in kinds() {
            let is_code = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(kind.code.chars().all(is_code), "{}", kind.code);
            for text in [kind.title, kind.explanation, kind.remedy] {
                assert!(!text.is_empty() && Text::of(text).as_str() == text, "{}: {text}", kind.code);
            }
            assert_eq!(super::kind(kind.code), Some(kind));
        }
        for check in Check::ALL {
            assert!(kinds().any(|kind| kind.check == check), "{check:?}");
            assert_eq!(Check::from_name(check.name()), Some(check));
        }
    }

    #[test]
    fn severities_have_their_old_letters() {
        let letters: String = Severity::ALL.iter().rev().map(|severity| severity.letter()).collect();
        assert_eq!(letters, "afchmwld");
        assert!(Severity::ALL.is_sorted());
        assert!(Severity::ALL.iter().rev().map(|severity| severity.priority()).is_sorted());
        for severity in Severity::ALL {
            assert_eq!(Severity::from_name(severity.name()), Some(severity));
            assert_eq!(Severity::from_name(severity.letter()), Some(severity));
        }
    }

    proptest! {
        #[test]
        fn any_bytes_become_a_text_that_reads_back(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = Text::of(&bytes);
            let json = serde_json::to_string(&text).unwrap();
            prop_assert!(text.as_str().chars().all(|c| !c.is_control()));
            prop_assert_eq!(serde_json::from_str::<Text>(&json).unwrap(), text);
        }

        #[test]
        fn what_is_not_escaped_is_not_read(prefix in "[a-z]{0,5}", bad in "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{202e}]") {
            prop_assert!(serde_json::from_str::<Text>(&serde_json::to_string(&(prefix + &bad)).unwrap()).is_err());
        }
    }

    #[test]
    fn the_longest_reads_back() {
        let text = Text::of(vec![0xff; 1 << 20]);
        assert!(text.as_str().len() <= Text::LONGEST);
        assert_eq!(serde_json::from_str::<Text>(&serde_json::to_string(&text).unwrap()).unwrap(), text);
    }

    #[test]
    fn an_id_depends_on_what_it_names_alone() {
        let kind = kinds().next().unwrap();
        let one = Finding::new(kind, Subject::User(Text::of("amy")), "/a", "b").of("amy");
        let id = one.id();
        assert_eq!(id.len(), 16);
        assert_eq!(
            Finding { detail: Text::of("c"), severity: Severity::Debug, weight: 0, ..one.clone() }.id(),
            id
        );
        let others = [
            Finding { place: Text::of("/b"), ..one.clone() },
            Finding { owner: Text::of("bob"), ..one.clone() },
            Finding { subject: Subject::Image(Text::of("amy")), ..one.clone() },
            Finding { subject: Subject::User(Text::of("am")), owner: Text::of("yamy"), ..one.clone() },
            Finding { kind: kinds().nth(1).unwrap(), ..one },
        ];
        assert!(others.iter().all(|other| other.id() != id));
    }
}
