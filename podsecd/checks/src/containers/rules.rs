//! How bad it is that something was written at a path. Pure.

use crate::verdict::Verdict;
use podsec_policy::finding::Severity;
use podsec_policy::glob::stars;
use serde::{Deserialize, Serialize};

/// `[[containers.rules]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// In the container: this, and all below it. Absolute.
    pub path: Path,
    /// What it is, or that it is none of a finding.
    pub severity: Verdict,
    /// Only for containers of images with that name; `*` is any text.
    #[serde(default)]
    pub image: Option<String>,
    /// Only for containers with that name; `*` is any text.
    #[serde(default)]
    pub container: Option<String>,
}

/// An absolute path without `.`, `..` and empty parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Path(String);

impl TryFrom<String> for Path {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.strip_prefix('/').map(|rest| rest.split('/'));
        let good = |mut parts: std::str::Split<'_, char>| {
            parts.all(|part| !["", ".", ".."].contains(&part) && !part.contains('\0'))
        };
        if text == "/" || parts.is_some_and(good) {
            return Ok(Self(text));
        }
        Err(format!("{text:?} is no path from / without . and .. and without / at its end"))
    }
}

impl From<Path> for String {
    fn from(path: Path) -> Self {
        path.0
    }
}

impl Path {
    /// Is that it, or below it? Part by part: `/etc` has nothing to do with `/etcetera`.
    fn covers(&self, path: &[u8]) -> bool {
        let own = if self.0 == "/" { b"" } else { self.0.as_bytes() };
        path.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
    }
}

/// What the runtime itself makes in a container: mount points and what is in them, which nobody in the container reaches
/// afterwards, since something is mounted there.
const RUNTIME: [&str; 6] = ["/dev", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/etc/mtab"];
/// What changes while a container runs.
const TEMPORARY: [&str; 4] = ["/var", "/proc", "/tmp", "/run"];
/// Settings, and people's own.
const SETTINGS: [&str; 3] = ["/etc", "/home", "/root"];

/// The first rule that fits decides; what no rule is about is judged as usual.
pub fn judge(rules: &[Rule], path: &[u8], image: &str, container: &str) -> Verdict {
    let named =
        |pattern: &Option<String>, name| pattern.as_deref().is_none_or(|pattern| stars(pattern, name));
    let fitting = |rule: &&Rule| {
        rule.path.covers(path) && named(&rule.image, image) && named(&rule.container, container)
    };
    if let Some(rule) = rules.iter().find(fitting) {
        return rule.severity;
    }
    let below = |list: &[&str]| list.iter().any(|&prefix| Path(prefix.into()).covers(path));
    if below(&RUNTIME) || below(&TEMPORARY) {
        Verdict::Ignore
    } else if below(&SETTINGS) {
        Verdict::Is(Severity::Warning)
    } else {
        Verdict::Is(Severity::Critical)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_path_as_before() {
        let judge = |path: &str| judge(&[], path.as_bytes(), "", "");
        for path in ["/var/lib/x", "/proc/x", "/tmp", "/run/x", "/dev/x", "/etc/hosts", "/etc/mtab"] {
            assert_eq!(judge(path), Verdict::Ignore, "{path}");
        }
        for path in ["/etc/passwd", "/home/x", "/root/.ssh/x", "/etc/hosts.allow", "/etc/containersx"] {
            assert_eq!(judge(path), Verdict::Is(Severity::Warning), "{path}");
        }
        for path in ["/usr/bin/x", "/x", "/varnish", "/homes/x", "/opt/etc/x", "/usr/tmp/x"] {
            assert_eq!(judge(path), Verdict::Is(Severity::Critical), "{path}");
        }
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        #[derive(Deserialize)]
        struct Rules {
            rules: Vec<Rule>,
        }
        let text = r#"
            [[rules]]
            path = "/opt/app"
            severity = "ignore"
            image = "registry.local/*:*"
            container = "web-*"
            [[rules]]
            path = "/opt"
            severity = "h"
            [[rules]]
            path = "/tmp"
            severity = "low"
        "#;
        let Rules { rules } = toml::from_str(text).unwrap();
        let judge = |path: &str, image, container| judge(&rules, path.as_bytes(), image, container);
        assert_eq!(judge("/opt/app/x", "registry.local/a:1", "web-1"), Verdict::Ignore);
        assert_eq!(judge("/opt/app/x", "registry.local/a:1", "db"), Verdict::Is(Severity::High));
        assert_eq!(judge("/opt/app/x", "else/a:1", "web-1"), Verdict::Is(Severity::High));
        assert_eq!(judge("/opt/apple", "registry.local/a:1", "web-1"), Verdict::Is(Severity::High));
        assert_eq!(judge("/tmp/x", "", ""), Verdict::Is(Severity::Low));
        for bad in ["opt", "/opt/", "/a//b", "/a/../b", "/./a", ""] {
            let text = format!("[[rules]]\npath = {bad:?}\nseverity = \"low\"");
            assert!(toml::from_str::<Rules>(&text).is_err(), "{bad}");
        }
        assert!(toml::from_str::<Rules>("[[rules]]\npath = \"/\"\nseverity = \"bad\"").is_err());
        assert!(toml::from_str::<Rules>("[[rules]]\npath = \"/\"\nseverity = \"low\"\nmore = 1").is_err());
    }
}
