//! The terms in which facts are told.

use podsec_policy::finding::Text;
use serde::{Deserialize, Serialize};

/// Of the host.
pub const CONTAINERS: &str = "/etc/containers";
/// What image users are held to: podsec's own, a link to the host's policy once there is trust.
pub const USER_POLICY: &str = "/etc/podsec/user-policy.json";

/// The settings of trust.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The own registry.
    pub registry: String,
    /// All of them.
    pub registries: Vec<String>,
    /// Where signatures are.
    pub lookaside: String,
    /// Without TLS.
    pub plain_http: bool,
}

/// A few of many.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Some3 {
    /// The first.
    pub first: Vec<Text>,
    /// How many there are.
    pub count: u64,
}

impl Some3 {
    /// One more.
    pub fn add(&mut self, raw: impl AsRef<[u8]>) {
        if self.first.len() < 3 {
            self.first.push(Text::of(raw));
        }
        self.count += 1;
    }

    /// As one text.
    pub fn text(&self) -> String {
        let mut text = self.first.iter().take(3).map(Text::as_str).collect::<Vec<_>>().join(", ");
        if let Some(more) = self.count.checked_sub(3).filter(|&more| more > 0) {
            text += &format!(" and {more} more");
        }
        text
    }
}

/// How much a list of requirements demands of an image. It has to meet all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Demand {
    /// Nothing is taken.
    #[default]
    Reject,
    /// What somebody signed.
    Signed,
    /// Anything.
    Nothing,
}

/// A policy.json.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its `default`.
    pub default: Demand,
    /// Scopes of docker from which anything is taken.
    pub unsigned: Some3,
    /// Other transports by which something is taken.
    pub transports: Some3,
    /// Is there a scope in the host's registry in which signatures are demanded?
    pub demands: bool,
    /// Scopes in which other signatures are demanded than the host does.
    pub other_keys: Some3,
}

/// Something in a file, or what is wrong with it.
pub type Note = (Text, Text);
