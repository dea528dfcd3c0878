//! What podsecd knows of itself and tells a check on its standard input: its accounts, the users it made, trust, and what
//! expires. All of it is root's word, and typed; nothing of it was read from anybody's home.

use podsec_policy::config::Config;
use podsec_policy::name::AccountName;
use podsec_policy::trust::{Settings, SignatureKind};
use podsec_policy::user::{Category, Fingerprint, Scope};
use serde::{Deserialize, Serialize};

/// As JSON on the standard input of `podsec-monitor check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Known {
    /// podsecd's configuration.
    pub config: Config,
    /// The users that podsec made.
    pub users: Vec<User>,
    /// `None`: this host has no trust yet.
    pub trust: Option<Trust>,
    /// policy.json as trust has it (containers-policy.json(5)), with all keys that count today; empty without trust.
    pub policy: String,
    /// Keys that creators sign with: published, neither revoked nor followed by another.
    pub keys: Vec<Key>,
    /// Certificates of podsec's servers, and its authority's.
    pub certificates: Vec<Certificate>,
}

/// One whom podsec made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Login name.
    pub name: AccountName,
    /// As he was made. An account of that name with another one is somebody else.
    pub uid: u32,
    /// What he is.
    pub category: Category,
}

/// The revision that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Where images and signatures are.
    pub settings: Settings,
    /// Scopes that somebody signs in, or signed in.
    pub scopes: Vec<(Scope, SignatureKind)>,
    /// Files that are not as it has them.
    pub drift: Vec<Drift>,
}

impl Trust {
    /// `host[:port]` of all registries that it is about, each once: the own one first.
    #[must_use]
    pub fn registries(&self) -> Vec<&str> {
        let mut all = vec![self.settings.registry.as_str()];
        for (scope, _) in &self.scopes {
            let registry = scope.as_str().split('/').next().unwrap_or_default();
            if !all.contains(&registry) {
                all.push(registry);
            }
        }
        all
    }
}

/// A file that somebody else changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// Of the host's.
    pub path: String,
    /// Or is it gone?
    pub missing: bool,
}

/// A signing key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Whose.
    pub creator: AccountName,
    /// Which.
    pub fingerprint: Fingerprint,
    /// Seconds since 1970; `None`: never.
    pub expires: Option<u64>,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// Its file.
    pub path: String,
    /// Seconds since 1970; `None`: it cannot be read.
    pub expires: Option<u64>,
}
