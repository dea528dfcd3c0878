//! What is a violation, and how bad.
//!
//! By default every answer of 400 and above is, with these exceptions: what was asked for is not there (404); the probes of
//! health and metrics; what the cluster's own components bring upon themselves all the time (conflicts, watches that are too
//! old), but never what is forbidden to them. The administrator's rules come first.

use super::event::Event;
use crate::verdict::Verdict;
use podsec_policy::finding::kubeapi as kinds;
use podsec_policy::finding::{Kind, Severity};
use podsec_policy::glob::stars_and_questions;
use serde::{Deserialize, Serialize};

/// `[[kubeapi.rules]]`: fits an event if all that is given does. Names are patterns, in which `*` is any text and `?` any
/// character.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Who asked, and not whom he poses as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// One of his groups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// `get`, `list`, `create`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    verb: Option<String>,
    /// `secrets`, `pods/exec`, `deployments.apps`, or a path: `/metrics`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    /// Empty: outside of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// What the client says it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<String>,
    /// Of HTTP; without it, 400 to 599.
    #[serde(default)]
    code: Codes,
    /// What it is then.
    severity: Verdict,
}

/// `403`, `"403"`, `"400-499"`, `"4xx"`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "NumberOrText", into = "String")]
struct Codes {
    first: i32,
    last: i32,
}

impl Default for Codes {
    fn default() -> Self {
        Self { first: 400, last: 599 }
    }
}

impl From<Codes> for String {
    fn from(codes: Codes) -> Self {
        format!("{}-{}", codes.first, codes.last)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(i32),
    Text(String),
}

impl TryFrom<NumberOrText> for Codes {
    type Error = &'static str;

    fn try_from(given: NumberOrText) -> Result<Self, Self::Error> {
        const WRONG: &str = "not a code of HTTP from 100 to 599: 403, \"403\", \"400-499\" or \"4xx\"";
        let codes = match given {
            NumberOrText::Number(code) => Some((code, code)),
            NumberOrText::Text(text) => match (text.strip_suffix("xx"), text.split_once('-')) {
                (Some(hundreds), _) => hundreds.parse::<u8>().ok().map(|hundreds| {
                    let first = 100 * i32::from(hundreds);
                    (first, first + 99)
                }),
                (_, Some((first, last))) => first.parse().ok().zip(last.parse().ok()),
                _ => text.parse().ok().map(|code| (code, code)),
            },
        };
        let (first, last) = codes.ok_or(WRONG)?;
        if (100..600).contains(&first) && (first..600).contains(&last) {
            Ok(Self { first, last })
        } else {
            Err(WRONG)
        }
    }
}

/// From the lowest code that can be a violation on.
pub fn lowest_code(rules: &[Rule]) -> i32 {
    let asked = rules.iter().filter(|rule| rule.severity != Verdict::Ignore).map(|rule| rule.code.first);
    asked.min().unwrap_or(400).min(400)
}

/// Is it a violation, and how bad a one?
pub fn judge(rules: &[Rule], event: &Event<'_>, resource: &str) -> Option<(&'static Kind, Severity)> {
    if event.stage != "ResponseComplete" && event.stage != "Panic" {
        return None;
    }
    let code = event.code();
    let kind = match code {
        500.. => &kinds::SERVER_ERROR,
        403 => &kinds::FORBIDDEN,
        401 => &kinds::UNAUTHORIZED,
        400.. => &kinds::FAILED,
        _ => &kinds::WATCHED,
    };
    let verdict = match rules.iter().find(|rule| rule.fits(event, resource)) {
        Some(rule) => rule.severity,
        None => usual(event, resource, kind),
    };
    match verdict {
        Verdict::Ignore => None,
        Verdict::Is(severity) => Some((kind, severity)),
    }
}

fn usual(event: &Event<'_>, resource: &str, kind: &Kind) -> Verdict {
    match event.code() {
        ..400 | 404 => Verdict::Ignore,
        _ if is_probe(resource) => Verdict::Ignore,
        409 | 410 | 429 if is_component(&event.user.username) => Verdict::Ignore,
        409 | 429 => Verdict::Is(Severity::Low),
        _ => Verdict::Is(kind.severity),
    }
}

/// `/healthz` and below it, not `/healthzx`.
fn is_probe(path: &str) -> bool {
    let first = path.strip_prefix('/').and_then(|path| path.split('/').next());
    first.is_some_and(|first| ["healthz", "livez", "readyz", "metrics"].contains(&first))
}

/// Part of the cluster itself. Nobody gives himself such a name without the cluster's own authority.
fn is_component(user: &str) -> bool {
    let Some(name) = user.strip_prefix("system:") else { return false };
    match name.strip_prefix("serviceaccount:") {
        Some(account) => account.starts_with("kube-system:"),
        None => name != "anonymous",
    }
}

impl Rule {
    fn fits(&self, event: &Event<'_>, resource: &str) -> bool {
        let fits = |pattern: &Option<String>, text: &str| {
            pattern.as_ref().is_none_or(|pattern| stars_and_questions(pattern, text))
        };
        let in_group = || self.group.is_none() || event.groups().any(|group| fits(&self.group, group));
        (self.code.first..=self.code.last).contains(&event.code())
            && fits(&self.user, &event.user.username)
            && fits(&self.verb, &event.verb)
            && fits(&self.resource, resource)
            && fits(&self.namespace, event.namespace())
            && fits(&self.agent, &event.user_agent)
            && in_group()
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::tests::event;
    use super::*;
    use serde_json::Value;

    fn verdict(rules: &str, event: &Value) -> Option<(&'static str, Severity)> {
        #[derive(Deserialize)]
        struct All {
            #[serde(default)]
            rules: Vec<Rule>,
        }
        let all: All = toml::from_str(rules).unwrap();
        let line = event.to_string();
        let event = Event::parse(line.as_bytes()).unwrap();
        let found =
            judge(&all.rules, &event, &event.resource()).map(|(kind, severity)| (kind.code, severity));
        // Nothing that is a violation is below what is looked for.
        assert!(found.is_none() || event.code() >= lowest_code(&all.rules));
        found
    }

    #[test]
    fn by_default() {
        use Severity::{Critical, High, Low, Medium, Warning};
        for (code, expected) in [
            (200, None),
            (0, None),
            (304, None),
            (400, Some(("api-failed", Warning))),
            (401, Some(("api-unauthorized", High))),
            (403, Some(("api-forbidden", Critical))),
            (404, None),
            (409, Some(("api-failed", Low))),
            (422, Some(("api-failed", Warning))),
            (429, Some(("api-failed", Low))),
            (500, Some(("api-server-error", Medium))),
            (504, Some(("api-server-error", Medium))),
        ] {
            assert_eq!(verdict("", &event("bob", "get", "secrets", code)), expected, "{code}");
        }
        let mut early = event("bob", "get", "secrets", 403);
        for (stage, counts) in [("RequestReceived", false), ("ResponseStarted", false), ("Panic", true)] {
            early["stage"] = stage.into();
            assert_eq!(verdict("", &early).is_some(), counts, "{stage}");
        }
    }

    #[test]
    fn components_and_probes() {
        for (user, is_one) in [
            ("system:apiserver", true),
            ("system:kube-scheduler", true),
            ("system:node:one", true),
            ("system:serviceaccount:kube-system:job-controller", true),
            ("system:serviceaccount:shop:till", false),
            ("system:serviceaccount:kube-systemx:a", false),
            ("system:anonymous", false),
            ("systemd", false),
            ("", false),
        ] {
            for code in [409, 410, 429] {
                assert_eq!(
                    verdict("", &event(user, "update", "leases", code)).is_none(),
                    is_one,
                    "{user} {code}"
                );
            }
            assert!(verdict("", &event(user, "get", "secrets", 403)).is_some(), "{user}");
        }
        for (path, is_one) in [
            ("/healthz", true),
            ("/livez/etcd?verbose", true),
            ("/readyz?x", true),
            ("/metrics", true),
            ("/metricsx", false),
            ("/api/healthz", false),
            ("/", false),
        ] {
            let mut probe = event("bob", "get", "x", 403);
            probe["objectRef"] = Value::Null;
            probe["requestURI"] = path.into();
            assert_eq!(verdict("", &probe).is_none(), is_one, "{path}");
        }
    }

    #[test]
    fn the_first_rule_that_fits() {
        let rules = r#"
            [[rules]]
            user = "system:serviceaccount:ci:*"
            verb = "list"
            resource = "secrets"
            code = 403
            severity = "ignore"
            [[rules]]
            resource = "pods/exec"
            code = "2xx"
            severity = "high"
            [[rules]]
            group = "dev"
            namespace = "shop"
            agent = "kubectl/*"
            code = "400-499"
            severity = "low"
        "#;
        let ci = "system:serviceaccount:ci:build";
        assert_eq!(verdict(rules, &event(ci, "list", "secrets", 403)), None);
        assert_eq!(verdict(rules, &event(ci, "get", "secrets", 403)), Some(("api-forbidden", Severity::Low)));
        assert_eq!(verdict(rules, &event(ci, "get", "secrets", 404)), Some(("api-failed", Severity::Low)));
        assert_eq!(
            verdict(rules, &event(ci, "get", "secrets", 500)),
            Some(("api-server-error", Severity::Medium))
        );
        let mut exec = event("bob", "create", "pods", 101);
        exec["objectRef"]["subresource"] = "exec".into();
        assert_eq!(verdict(rules, &exec), None);
        exec["responseStatus"]["code"] = 200.into();
        assert_eq!(verdict(rules, &exec), Some(("api-watched", Severity::High)));
        for (field, other) in [("userAgent", "curl"), ("requestURI", "/x")] {
            let mut other_agent = event("bob", "get", "secrets", 403);
            other_agent[field] = other.into();
            let severity = if field == "userAgent" { Severity::Critical } else { Severity::Low };
            assert_eq!(verdict(rules, &other_agent), Some(("api-forbidden", severity)));
        }
        let without = r#"rules = [{ severity = "ignore" }]"#;
        assert_eq!(verdict(without, &event("bob", "get", "secrets", 403)), None);
    }

    #[test]
    fn what_is_written_wrongly() {
        for bad in [
            "rules = [{}]",
            r#"rules = [{ severity = "worse" }]"#,
            r#"rules = [{ severity = "low", code = "abc" }]"#,
            r#"rules = [{ severity = "low", code = "99" }]"#,
            r#"rules = [{ severity = "low", code = 600 }]"#,
            r#"rules = [{ severity = "low", code = "500-400" }]"#,
            r#"rules = [{ severity = "low", code = "9xx" }]"#,
            r#"rules = [{ severity = "low", users = "bob" }]"#,
        ] {
            assert!(toml::from_str::<super::super::Settings>(bad).is_err(), "{bad}");
        }
        let rule = toml::from_str::<Rule>("severity = \"low\"\ncode = \"4xx\"\nuser = \"*\"").unwrap();
        assert_eq!(rule.code, Codes { first: 400, last: 499 });
        let json = serde_json::to_string(&rule).unwrap();
        assert_eq!(serde_json::from_str::<Rule>(&json).unwrap(), rule);
    }
}
