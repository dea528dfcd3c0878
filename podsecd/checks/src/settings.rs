//! `/etc/podsec/monitor.toml`. Every key has a default, an unknown one is an error.

use crate::{CONFIGURATION, containers, images, kubeapi, policy, tell, vulnerabilities};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The whole file, a section a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "the module of the same name")]
pub struct Settings {
    pub policy: policy::Settings,
    pub images: images::Settings,
    pub containers: containers::Settings,
    pub kubeapi: kubeapi::Settings,
    pub vulnerabilities: vulnerabilities::Settings,
    pub tell: tell::Settings,
}

impl Settings {
    /// From the file; without one, the defaults.
    ///
    /// # Errors
    /// names the file, and the line
    pub fn load() -> Result<Self, String> {
        match std::fs::read_to_string(Path::new(CONFIGURATION)) {
            Ok(text) => toml::from_str(&text).map_err(|error| format!("{CONFIGURATION}: {error}")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(format!("{CONFIGURATION}: {error}")),
        }
    }
}
