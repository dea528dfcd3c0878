//! The check images.

use crate::Look;
use crate::known::Known;
use serde::{Deserialize, Serialize};

/// `[images]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {}

/// Looks at everything.
#[must_use]
pub fn look(_known: &Known, _settings: &Settings) -> Look {
    Look::default()
}
