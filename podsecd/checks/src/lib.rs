//! The monitors. Each module that has the name of a check looks for the violations of that check and gives them as findings;
//! [`report`] keeps them; [`tell`] tells people.
//!
//! Everything that is looked at may have been made by somebody who wants to take this program over: a file's name in a
//! container, a user's policy.json, a user agent. So whatever belongs to a user is read and parsed by a process that *is*
//! that user and can do nothing but read ([`owner`]); what it says comes back as values of closed types, and every text in
//! them is escaped where it enters (`podsec_policy::finding::Text`). Nothing that is looked at is ever run, or part of a
//! command.
//!
//! Must not: change anything of what it looks at; write anywhere but below [`report::ROOT`]; decide who may read findings.

#![forbid(unsafe_code)]

#[cfg(feature = "monitors")]
mod cage;
#[cfg(feature = "monitors")]
pub mod containers;
#[cfg(feature = "monitors")]
pub mod images;
pub mod known;
#[cfg(feature = "monitors")]
pub mod kubeapi;
#[cfg(feature = "monitors")]
pub mod owner;
#[cfg(feature = "monitors")]
pub mod policy;
pub mod report;
#[cfg(feature = "monitors")]
pub mod settings;
#[cfg(feature = "monitors")]
pub mod storage;
#[cfg(feature = "monitors")]
pub mod tell;
#[cfg(feature = "monitors")]
mod verdict;
#[cfg(feature = "monitors")]
pub mod vulnerabilities;

use podsec_policy::finding::{Finding, Outcome, Text};
use std::collections::BTreeMap;

/// What is to be chosen about monitors (`settings`).
pub const CONFIGURATION: &str = "/etc/podsec/monitor.toml";

/// What a check that looks at everything has seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// All that is wrong.
    pub findings: Vec<Finding>,
    /// Whose could not be looked at, and why.
    pub missed: BTreeMap<Text, Text>,
    /// Nothing can be said, because of that.
    pub unknown: Option<Text>,
    /// Users, or images.
    pub looked_at: u64,
}

impl Look {
    /// How it went.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match &self.unknown {
            Some(why) => Outcome::Unknown { why: why.clone() },
            None if self.missed.is_empty() => Outcome::Complete,
            None => Outcome::Partial { missed: self.missed.clone() },
        }
    }
}
