//! An event of Kubernetes' audit: k8s.io/apiserver, pkg/apis/audit/v1/types.go.
//!
//! Names, paths and agents in it are whatever the client sent.

use serde::Deserialize;
use std::borrow::Cow;

/// What podsec wants to know of an event. The API server leaves out what is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event<'a> {
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    api_version: Cow<'a, str>,
    /// RequestReceived, ResponseStarted, ResponseComplete or Panic.
    #[serde(borrow)]
    pub stage: Cow<'a, str>,
    #[serde(borrow, rename = "requestURI")]
    uri: Cow<'a, str>,
    /// get, list, create, …; for what is no resource, the method of HTTP in lower case.
    #[serde(borrow)]
    pub verb: Cow<'a, str>,
    #[serde(borrow)]
    pub user: User<'a>,
    #[serde(borrow)]
    pub impersonated_user: Option<User<'a>>,
    #[serde(rename = "sourceIPs")]
    sources: Option<Vec<Cow<'a, str>>>,
    #[serde(borrow)]
    pub user_agent: Cow<'a, str>,
    #[serde(borrow)]
    object_ref: Option<Object<'a>>,
    #[serde(borrow)]
    response_status: Option<Status<'a>>,
    #[serde(borrow)]
    request_received_timestamp: Cow<'a, str>,
    #[serde(borrow)]
    stage_timestamp: Cow<'a, str>,
}

/// Who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct User<'a> {
    #[serde(borrow)]
    pub username: Cow<'a, str>,
    pub groups: Option<Vec<Cow<'a, str>>>,
}

/// What for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object<'a> {
    #[serde(borrow)]
    resource: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(borrow)]
    name: Cow<'a, str>,
    #[serde(borrow)]
    api_group: Cow<'a, str>,
    #[serde(borrow)]
    subresource: Cow<'a, str>,
}

/// What came of it: k8s.io/apimachinery, `metav1.Status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Status<'a> {
    code: i32,
    #[serde(borrow)]
    reason: Cow<'a, str>,
    #[serde(borrow)]
    message: Cow<'a, str>,
}

impl<'a> Event<'a> {
    /// Of a line.
    ///
    /// # Errors
    /// says why it is none
    pub fn parse(line: &'a [u8]) -> Result<Self, String> {
        let event: Self = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if event.kind != "Event" || event.api_version != "audit.k8s.io/v1" {
            return Err("no event of audit.k8s.io/v1".into());
        }
        Ok(event)
    }

    /// Of HTTP; 0 where it is not known yet.
    pub fn code(&self) -> i32 {
        self.response_status.as_ref().map_or(0, |status| status.code)
    }

    /// As kubectl writes it, `deployments.apps/scale`; for what is no resource, the path.
    pub fn resource(&self) -> String {
        let Some(object) = self.object_ref.as_ref().filter(|object| !object.resource.is_empty()) else {
            return self.uri.split('?').next().unwrap_or_default().to_owned();
        };
        let mut text = object.resource.to_string();
        for (mark, part) in [('.', &object.api_group), ('/', &object.subresource)] {
            if !part.is_empty() {
                text.push(mark);
                text.push_str(part);
            }
        }
        text
    }

    /// Empty outside of one.
    pub fn namespace(&self) -> &str {
        self.object_ref.as_ref().map_or("", |object| &object.namespace)
    }

    /// Of the user and not of whom he poses as.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.user.groups.iter().flatten().map(AsRef::as_ref)
    }

    /// Microseconds since 1970, of the answer.
    pub fn time(&self) -> Option<u64> {
        let parse = podsec_policy::audit::parse_time;
        parse(&self.stage_timestamp).or_else(|| parse(&self.request_received_timestamp))
    }

    /// Which object, from where, as whom, by what, and what the server said. Each part is cut, so that a long one takes no
    /// room from the others.
    pub fn detail(&self) -> String {
        let mut text = String::new();
        let mut add = |before: &str, part: &str, most: usize| {
            if !part.is_empty() {
                text.push_str(if text.is_empty() { before.trim_start_matches([',', ' ']) } else { before });
                text.push_str(cut(part, most));
            }
        };
        if let Some(object) = &self.object_ref {
            add("", &object.namespace, 64);
            add(if object.namespace.is_empty() { "" } else { "/" }, &object.name, 128);
        }
        let sources = self.sources.as_deref().unwrap_or_default();
        if let Some((last, said)) = sources.split_last() {
            add(" from ", last, 64);
            // The client writes these itself (X-Forwarded-For, X-Real-Ip).
            add(" who says for ", &said.join(", "), 64);
        }
        if let Some(user) = &self.impersonated_user {
            add(", as ", &user.username, 64);
        }
        add(", of ", &self.groups().take(16).collect::<Vec<_>>().join(", "), 128);
        add(", by ", &self.user_agent, 96);
        if let Some(status) = &self.response_status {
            let said = if status.message.is_empty() { &status.reason } else { &status.message };
            add(": ", said, 384);
        }
        text
    }
}

fn cut(text: &str, most: usize) -> &str {
    text.char_indices().take_while(|(at, _)| *at <= most).last().map_or("", |(end, last)| {
        let end = if end + last.len_utf8() <= most { end + last.len_utf8() } else { end };
        text.get(..end).unwrap_or_default()
    })
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// As kube-apiserver writes it: the order of fields and the forms of types.go.
    pub fn event(user: &str, verb: &str, resource: &str, code: u32) -> Value {
        json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "Metadata",
            "auditID": "6b8a1c0e-7d0e-4c86-9d6e-0f5b6a3b4c11", "stage": "ResponseComplete",
            "requestURI": format!("/api/v1/namespaces/shop/{resource}/token-1"), "verb": verb,
            "user": {"username": user, "groups": ["dev", "system:authenticated"]},
            "sourceIPs": ["10.0.0.7"], "userAgent": "kubectl/v1.29.3 (linux/amd64) kubernetes/6813625",
            "objectRef": {"resource": resource, "namespace": "shop", "name": "token-1", "apiVersion": "v1"},
            "responseStatus": {"metadata": {}, "status": "Failure", "message": "no", "reason": "Forbidden", "code": code},
            "requestReceivedTimestamp": "2026-11-27T02:03:04.123456Z", "stageTimestamp": "2026-11-27T02:03:05.000001Z",
            "annotations": {"authorization.k8s.io/decision": "forbid", "authorization.k8s.io/reason": ""}
        })
    }

    #[test]
    fn fields() {
        let mut value = event("bob", "get", "secrets", 403);
        value["objectRef"]["apiGroup"] = json!("apps");
        value["objectRef"]["subresource"] = json!("scale");
        value["impersonatedUser"] = json!({"username": "root\n", "groups": ["system:masters"]});
        value["sourceIPs"] = json!(["1.2.3.4", "5.6.7.8", "10.0.0.7"]);
        let line = value.to_string();
        let event = Event::parse(line.as_bytes()).unwrap();
        assert_eq!(
            (event.code(), event.resource().as_str(), event.namespace()),
            (403, "secrets.apps/scale", "shop")
        );
        assert_eq!(event.time(), podsec_policy::audit::parse_time("2026-11-27T02:03:05.000001Z"));
        assert_eq!(event.groups().collect::<Vec<_>>(), ["dev", "system:authenticated"]);
        assert_eq!(
            event.detail(),
            "shop/token-1 from 10.0.0.7 who says for 1.2.3.4, 5.6.7.8, as root\n, of dev, system:authenticated, \
             by kubectl/v1.29.3 (linux/amd64) kubernetes/6813625: no"
        );
    }

    #[test]
    fn what_is_no_resource_is_its_path() {
        let line = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "stage": "ResponseComplete",
            "requestURI": "/metrics/cadvisor?x=1", "verb": "get", "user": {}
        });
        let line = line.to_string();
        let event = Event::parse(line.as_bytes()).unwrap();
        assert_eq!((event.resource().as_str(), event.code(), event.time()), ("/metrics/cadvisor", 0, None));
        assert_eq!(event.detail(), "");
    }

    #[test]
    fn long_parts_leave_room_for_others() {
        let mut value = event("bob", "get", "secrets", 403);
        let long = "ü\n".repeat(500_000);
        for field in ["userAgent", "requestURI"] {
            value[field] = json!(long);
        }
        value["objectRef"]["name"] = json!(long);
        value["responseStatus"]["message"] = json!(format!("why{long}"));
        let line = value.to_string();
        let detail = Event::parse(line.as_bytes()).unwrap().detail();
        assert!(
            detail.len() < 1024 && detail.contains(": why") && detail.contains("from 10.0.0.7"),
            "{detail}"
        );
    }

    #[test]
    fn what_is_no_event() {
        let good = event("bob", "get", "secrets", 403).to_string();
        assert!(Event::parse(good.as_bytes()).is_ok());
        let deep = |open: &str| {
            good.replacen(r#""metadata":{}"#, &format!(r#""metadata":{}"#, open.repeat(100_000)), 1)
        };
        for bad in [
            String::new(),
            "{}".into(),
            "[]".into(),
            "null".into(),
            "NaN".into(),
            good.replace("audit.k8s.io/v1", "audit.k8s.io/v1beta1"),
            good.replace(r#""Event""#, r#""EventList""#),
            good.replace("403", "NaN"),
            good.replace("403", "-Infinity"),
            good.replace("403", "403.0"),
            good.replace("403", "4e2"),
            good.replace("403", r#""403""#),
            good.replace("403", "99999999999999999999"),
            good.replace("403", r#"200,"code":403"#),
            good.replace(r#""verb":"#, r#""verb":"x","verb":"#),
            good[..good.len() - 1].into(),
            format!("{good}{good}"),
            deep("["),
            deep(r#"{"a":"#),
            good.replace("kubectl", r"\ud800"),
        ] {
            assert!(Event::parse(bad.as_bytes()).is_err(), "{}", &bad[..bad.len().min(2000)]);
        }
        let raw = good.replace("kubectl", "\u{1}").into_bytes();
        assert!(Event::parse(&raw).is_err());
        let mut raw = good.into_bytes();
        let at = raw.windows(7).position(|bytes| bytes == b"kubectl").unwrap();
        raw[at] = 0xff;
        assert!(Event::parse(&raw).is_err());
    }

    /// What nobody looks at may be as deep as it likes: it is passed over without a stack.
    #[test]
    fn depth_takes_no_stack() {
        let good = event("bob", "get", "secrets", 403).to_string();
        let depth = 1_000_000;
        let nest = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let deep = good.replacen(r#""metadata":{}"#, &format!(r#""metadata":{nest}"#), 1);
        assert!(deep.len() > 2 * depth);
        assert_eq!(Event::parse(deep.as_bytes()).unwrap().code(), 403);
    }
}
