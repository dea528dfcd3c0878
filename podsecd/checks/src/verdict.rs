//! What an administrator's rule says of what it fits.

use podsec_policy::finding::Severity;
use serde::{Deserialize, Serialize};

/// A severity, or `ignore`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Verdict {
    /// Nothing to be told.
    #[default]
    Ignore,
    /// A finding.
    Is(Severity),
}

impl TryFrom<String> for Verdict {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match Severity::from_name(&text) {
            Some(severity) => Ok(Self::Is(severity)),
            None if text == "ignore" => Ok(Self::Ignore),
            None => Err(format!(
                "{text:?} is none of ignore, debug, low, warning, medium, high, critical, fatal and crash"
            )),
        }
    }
}

impl From<Verdict> for String {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Ignore => "ignore".into(),
            Verdict::Is(severity) => severity.name().into(),
        }
    }
}
