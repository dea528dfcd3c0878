//! The monitor kubeapi.

use crate::settings;
use serde::{Deserialize, Serialize};

/// `[kubeapi]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {}

/// Runs until it is ended.
///
/// # Errors
/// says why it cannot
pub fn run(_settings: &settings::Settings) -> Result<(), String> {
    Ok(())
}
