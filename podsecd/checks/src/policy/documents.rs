//! The documents of containers/image that count for somebody, read as that somebody: what of them matters to trust.

use super::terms::{CONTAINERS, Demand, Note, Policy, Some3, Wanted};
use crate::storage::read_plain;
use podsec_policy::containers::policy_json::{self, Keyring, Requirement, SignedBy};
use podsec_policy::containers::registries_d::{Lookaside, RegistriesD};
use podsec_policy::finding::Text;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Bytes of a policy: ten thousand scopes, each with a few keys.
const LONGEST: usize = 16 << 20;
/// Bytes of another document.
const SHORT: usize = 1 << 20;
/// Files of a directory.
const MOST: usize = 256;
/// Keys that podsec itself has published.
const PUBLISHED: &str = "/var/sigstore/keys/";

/// A path, and why it cannot be read.
type Wrong = (PathBuf, String);

// ---- policy.json

/// `None`: there is none.
pub fn policy(path: &Path, trust: Option<&Wanted>) -> Result<Option<Policy>, String> {
    let Some(read) = parse(path)? else { return Ok(None) };
    // The host's own is held against what podsec has, as a whole.
    let host = trust.filter(|_| !path.starts_with(CONTAINERS) && read.transports.contains_key("docker"));
    let host = host.map(|_| {
        let path = Path::new(CONTAINERS).join("policy.json");
        parse(&path).ok().flatten().unwrap_or_else(policy_json::Policy::reject_all)
    });
    Ok(Some(summary(&read, host.as_ref(), trust.map(|trust| trust.registry.as_str()))))
}

fn parse(path: &Path) -> Result<Option<policy_json::Policy>, String> {
    match read_plain(path, LONGEST) {
        Ok(bytes) => policy_json::Policy::parse(&bytes).map(Some).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

fn demand(all: &[Requirement]) -> Demand {
    let is_signature = |one: &Requirement| !matches!(one, Requirement::InsecureAcceptAnything);
    match all {
        all if all.contains(&Requirement::Reject) => Demand::Reject,
        all if all.iter().any(is_signature) => Demand::Signed,
        _ => Demand::Nothing,
    }
}

/// `host`: what the host demands, where the two are to be compared; `registry`: its own.
fn summary(
    policy: &policy_json::Policy,
    host: Option<&policy_json::Policy>,
    registry: Option<&str>,
) -> Policy {
    let mut found = Policy { default: demand(&policy.default), ..Policy::default() };
    for (transport, scopes) in &policy.transports {
        if transport != "docker" {
            if scopes.values().any(|all| demand(all) != Demand::Reject) {
                found.transports.add(transport);
            }
            continue;
        }
        for (scope, all) in scopes {
            match demand(all) {
                Demand::Reject => {}
                Demand::Nothing => found.unsigned.add(if scope.is_empty() { "all of docker" } else { scope }),
                Demand::Signed => {
                    found.demands |=
                        registry.is_some_and(|registry| scope.is_empty() || is_in(scope, registry));
                    if host.is_some_and(|host| !is_as(host, scope, all)) {
                        found.other_keys.add(scope);
                    }
                }
            }
        }
    }
    found
}

/// Is a scope the registry, or a part of it?
fn is_in(scope: &str, registry: &str) -> bool {
    scope.strip_prefix(registry).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Is that what the host demands there, or by keys that podsec has published?
fn is_as(host: &policy_json::Policy, scope: &str, all: &[Requirement]) -> bool {
    let published = |path: &String| path.starts_with(PUBLISHED) && !path.contains("..");
    let is_published = |one: &Requirement| match one {
        Requirement::SignedBy(SignedBy { keys: Keyring::Path(path), identity: None }) => published(path),
        Requirement::SignedBy(SignedBy { keys: Keyring::Paths(paths), identity: None }) => {
            paths.iter().all(published)
        }
        _ => false,
    };
    // A bare registry would be taken for the name of an image.
    let image = if scope.contains('/') { scope.to_owned() } else { format!("{scope}/image") };
    host.decide(&image).1 == all || all.iter().all(is_published)
}

// ---- registries.d

/// For each file that names another lookaside for a registry of trust, what it says; where none is named, that is said of
/// the `usual` one.
pub fn lookasides(directory: &Path, usual: &Path, wanted: &Wanted) -> (Vec<Note>, Vec<Wrong>) {
    let mut wrong = Vec::new();
    let mut found: BTreeMap<PathBuf, Some3> = BTreeMap::new();
    let mut named: BTreeSet<&str> = BTreeSet::new();
    let mut default = None;
    let url = |lookaside: &Lookaside| lookaside.sigstore.clone().or_else(|| lookaside.lookaside.clone());
    let is_wanted = |url: Option<&String>| {
        url.is_some_and(|url| url.trim_end_matches('/') == wanted.lookaside.trim_end_matches('/'))
    };
    let shown = |url: Option<String>| url.unwrap_or_else(|| "none".into());
    for path in files(directory, "yaml", &mut wrong) {
        let text = match read_plain(&path, SHORT) {
            Ok(text) => text,
            Err(error) => {
                wrong.push((path, error.to_string()));
                continue;
            }
        };
        let document = match RegistriesD::parse(&text) {
            Ok(document) => document,
            Err(error) => {
                wrong.push((path, error.to_string()));
                continue;
            }
        };
        for (scope, lookaside) in document.docker {
            let Some(registry) = wanted.registries.iter().find(|registry| is_in(&scope, registry)) else {
                continue;
            };
            if scope == *registry {
                named.insert(registry);
            }
            let url = url(&lookaside);
            if !is_wanted(url.as_ref()) {
                found.entry(path.clone()).or_default().add(format!("{scope}: {}", shown(url)));
            }
        }
        default = document.default_docker.map(|lookaside| (path, url(&lookaside))).or(default);
    }
    for registry in wanted.registries.iter().filter(|registry| !named.contains(registry.as_str())) {
        let (path, url) = default.clone().unwrap_or_else(|| (usual.to_owned(), None));
        if !is_wanted(url.as_ref()) {
            found.entry(path).or_default().add(format!("{registry}: {}", shown(url)));
        }
    }
    (found.into_iter().map(|(path, what)| note(&path, &what)).collect(), wrong)
}

fn note(path: &Path, what: &Some3) -> Note {
    (Text::of(path.as_os_str().as_encoded_bytes()), Text::of(what.text()))
}

/// Those of a directory, in order.
fn files(directory: &Path, extension: &str, wrong: &mut Vec<Wrong>) -> Vec<PathBuf> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            wrong.push((directory.to_owned(), error.to_string()));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
        if files.len() > MOST {
            wrong.push((directory.to_owned(), format!("more than {MOST} files")));
            break;
        }
    }
    files.sort();
    files.truncate(MOST);
    files
}

// ---- registries.conf

/// What is said of registries of trust.
#[derive(Default)]
pub struct Redirects {
    /// By file.
    pub found: Vec<Note>,
    /// What cannot be read.
    pub wrong: Vec<Wrong>,
}

/// What matters here of containers-registries.conf(5): distributions have files with more in them than podsec itself would
/// write.
#[derive(Deserialize)]
struct Conf {
    #[serde(default)]
    registry: Vec<Registry>,
}

#[derive(Deserialize)]
struct Registry {
    prefix: Option<String>,
    location: Option<String>,
    #[serde(default)]
    mirror: Vec<toml::Value>,
    #[serde(default)]
    insecure: bool,
}

/// In `registries.conf` of that directory, and in the files of `registries.conf.d`.
pub fn redirects(containers: &Path, wanted: &Wanted) -> Redirects {
    let mut all = Redirects::default();
    let mut paths = vec![containers.join("registries.conf")];
    paths.extend(files(&containers.join("registries.conf.d"), "conf", &mut all.wrong));
    for path in paths {
        let text = match read_plain(&path, SHORT) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => {
                all.wrong.push((path, error.to_string()));
                continue;
            }
        };
        let conf: Result<Conf, String> = std::str::from_utf8(&text)
            .map_err(|error| error.to_string())
            .and_then(|text| toml::from_str(text).map_err(|error| error.message().to_owned()));
        match conf {
            Ok(conf) => {
                let mut what = Some3::default();
                conf.registry.iter().filter_map(|one| redirect(one, wanted)).for_each(|one| what.add(one));
                if what.count > 0 {
                    all.found.push(note(&path, &what));
                }
            }
            Err(error) => all.wrong.push((path, error)),
        }
    }
    all
}

fn redirect(one: &Registry, wanted: &Wanted) -> Option<String> {
    let location = one.location.as_deref().unwrap_or_default();
    let prefix = one.prefix.as_deref().unwrap_or(location);
    let covers = |registry: &String| {
        let host = registry.split(':').next().unwrap_or_default();
        is_in(prefix, registry) || prefix.strip_prefix('*').is_some_and(|suffix| host.ends_with(suffix))
    };
    let registry = wanted.registries.iter().find(|registry| covers(registry))?;
    if !one.mirror.is_empty() {
        Some(format!("{prefix}: a mirror"))
    } else if !location.is_empty() && location != prefix {
        Some(format!("{prefix}: {location}"))
    } else if one.insecure && !(wanted.plain_http && *registry == wanted.registry) {
        Some(format!("{prefix}: insecure"))
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
