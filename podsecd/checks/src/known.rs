//! What podsecd knows of itself and tells a check on its standard input: its accounts, the users it made, trust.

use podsec_policy::config::Config;
use podsec_policy::name::AccountName;
use podsec_policy::user::Category;
use serde::{Deserialize, Serialize};

/// As JSON on the standard input of `podsec-monitor check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Known {
    /// podsecd's configuration.
    pub config: Config,
    /// The users that podsec made.
    pub users: Vec<(AccountName, Category)>,
}
