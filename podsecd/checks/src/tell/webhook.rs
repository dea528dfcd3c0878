//! A webhook: what is new as JSON, posted by curl(1). It is on curl's standard input, and a token is in a file that curl reads:
//! arguments can be seen by everybody on the host.

use super::Settings;
use super::news::{Event, News};
use podsec_sys::program::{CURL, Run, find_roots, run_with};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

/// News in one request.
const BATCH: usize = 500;
/// For one request.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where to. Empty: nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Url(String);

impl TryFrom<String> for Url {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let good = rest.is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
                && rest.chars().all(|c| c.is_ascii_graphic())
                && text.len() <= 2000
        });
        (good || text.is_empty()).then_some(Self(text)).ok_or("not an http:// or https:// address")
    }
}

impl From<Url> for String {
    fn from(url: Url) -> Self {
        url.0
    }
}

/// Posts in batches, and takes those that arrived out of `news`.
///
/// # Errors
/// what curl says; a status that is no success
pub fn deliver(settings: &Settings, left_out: u64, news: &mut Vec<News>) -> Result<(), String> {
    let curl = find_roots("curl").map_err(|error| error.to_string())?;
    let headers = settings.webhook_headers.to_str().ok_or("webhook_headers: not UTF-8")?;
    if !headers.is_empty() {
        // Older versions of curl go on without it.
        std::fs::File::open(headers).map_err(|error| format!("{headers}: {error}"))?;
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let mut left_out = left_out;
    while !news.is_empty() || left_out > 0 {
        let count = news.len().min(BATCH);
        let events: Vec<_> = news.iter().take(count).map(event).collect();
        let body = json!({ "host": host.trim(), "left_out": left_out, "events": events }).to_string();
        post(&curl, &settings.webhook.0, headers, body.as_bytes())?;
        news.drain(..count);
        left_out = 0;
    }
    Ok(())
}

fn post(curl: &std::path::Path, url: &str, headers: &str, body: &[u8]) -> Result<(), String> {
    let seconds = PATIENCE.as_secs().to_string();
    let own = [
        "--max-time",
        &seconds,
        "--output",
        "/dev/null",
        "--header",
        "Content-Type: application/json",
        "--data-binary",
        "@-",
    ];
    let mut arguments = [CURL, &own].concat();
    let headers = format!("@{headers}");
    if headers != "@" {
        arguments.extend(["--header", &headers]);
    }
    arguments.extend(["--url", url]);
    let run = Run { input: body, deadline: PATIENCE + Duration::from_secs(5), ..Run::default() };
    run_with(curl, &arguments, run).map(drop).map_err(|error| error.to_string())
}

fn event(news: &News) -> Value {
    let mut value = json!({
        "event": news.event.name(),
        "time": news.time,
        "check": news.event.check().name(),
        "severity": news.event.severity().name(),
        "text": news.event.line(),
    });
    if let (Some(finding), Some(map)) = (news.event.finding(), value.as_object_mut()) {
        map.insert("id".into(), finding.id().into());
        map.insert("code".into(), finding.kind.code.into());
        map.insert(
            "subject".into(),
            json!({ "kind": finding.subject.kind(), "name": finding.subject.name() }),
        );
        map.insert("owner".into(), finding.owner.as_str().into());
        map.insert("place".into(), finding.place.as_str().into());
        map.insert("detail".into(), finding.detail.as_str().into());
        map.insert("weight".into(), finding.weight.into());
        map.insert("remedy".into(), finding.kind.remedy.into());
    }
    if let (Event::New(found), Some(map)) = (&news.event, value.as_object_mut()) {
        map.insert("first".into(), found.first.into());
        map.insert("count".into(), found.count.into());
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_http() {
        for good in ["", "http://127.0.0.1:9/x?y=z", "https://hooks.example.org/a", "https://[::1]/"] {
            assert!(Url::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in [
            "file:///etc/shadow",
            "-o/etc/x",
            "https://",
            "http:///x",
            "http://-x",
            "http://a b",
            "http://a\nb",
            "ftp://x",
        ] {
            assert!(Url::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
