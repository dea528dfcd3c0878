//! What was found in which image, by which database: `cache.json` beside the report, read and written as the user
//! podsec-monitor. An entry is of one owner's store. Who owns a store says what is in it, so what he says of a digest is not
//! taken for another's image of that digest.

use super::trivy::Seen;
use crate::owner::Owner;
use crate::report;
use podsec_policy::finding::Check;
use podsec_sys::file;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Bytes of it: what a child may say to its parent. What has no room is scanned again.
const LONGEST: usize = 12 << 20;
/// For reading and writing it.
const SOON: Duration = Duration::from_secs(60);

/// Owner, store and image.
pub type Key = (u32, PathBuf, String);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Of the database, and what was to be found by it.
    pub version: String,
    /// When: seconds since 1970.
    pub time: u64,
    /// What.
    pub seen: Seen,
}

/// Everything that is remembered.
#[derive(Debug)]
pub struct Cache<'a> {
    monitor: &'a Owner,
    entries: BTreeMap<Key, Entry>,
}

fn path() -> PathBuf {
    report::directory(Check::Vulnerabilities).join("cache.json")
}

impl<'a> Cache<'a> {
    /// As it was written last; empty where it cannot be read, since then everything is only looked at again.
    #[must_use]
    pub fn load(monitor: &'a Owner) -> Self {
        let read = monitor.act(SOON, || {
            let path = path();
            match crate::storage::read_plain(&path, LONGEST) {
                Ok(bytes) => {
                    let list: Vec<(Key, Entry)> = serde_json::from_slice(&bytes).unwrap_or_default();
                    Ok(list)
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
                Err(error) => Err(format!("{}: {error}", path.display())),
            }
        });
        let entries = read.unwrap_or_else(|error| {
            eprintln!("podsec-monitor: {error}");
            Vec::new()
        });
        Self { monitor, entries: entries.into_iter().collect() }
    }

    /// What was found by that version, not longer ago than `most` seconds.
    #[must_use]
    pub fn get(&self, key: &Key, version: &str, now: u64, most: u64) -> Option<&Seen> {
        let entry = self.entries.get(key)?;
        let is_fresh = entry.version == version && entry.time <= now && now - entry.time < most;
        is_fresh.then_some(&entry.seen)
    }

    /// Remembers it.
    pub fn put(&mut self, key: Key, entry: Entry) {
        self.entries.insert(key, entry);
    }

    /// Images that are there no more need not be remembered.
    pub fn keep(&mut self, is_there: impl Fn(&Key) -> bool) {
        self.entries.retain(|key, _| is_there(key));
    }

    /// Writes it.
    ///
    /// # Errors
    /// says what is wrong with which file
    pub fn save(&self) -> Result<(), String> {
        let bytes = fitting(&self.entries, LONGEST);
        self.monitor.act(SOON, || {
            let path = path();
            file::replace(&path, &bytes, 0o600).map_err(|error| format!("{}: {error}", path.display()))
        })
    }
}

fn fitting(entries: &BTreeMap<Key, Entry>, most: usize) -> Vec<u8> {
    let mut bytes = b"[".to_vec();
    for entry in entries {
        let next = serde_json::to_vec(&entry).unwrap_or_default();
        if bytes.len() + next.len() + 2 > most || next.is_empty() {
            continue;
        }
        if bytes.len() > 1 {
            bytes.push(b',');
        }
        bytes.extend(next);
    }
    bytes.push(b']');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_or_anothers_is_not_taken() {
        let monitor =
            Owner { name: "m".into(), uid: 1, gid: 1, groups: vec![], home: "/".into(), is_cluster: false };
        let mut cache = Cache { monitor: &monitor, entries: BTreeMap::new() };
        let key = (1000, PathBuf::from("/home/amy/storage"), "a".repeat(64));
        cache.put(key.clone(), Entry { version: "v1".into(), time: 100, seen: Seen::default() });
        assert!(cache.get(&key, "v1", 100, 60).is_some() && cache.get(&key, "v1", 159, 60).is_some());
        assert!(cache.get(&key, "v1", 160, 60).is_none(), "too old");
        assert!(cache.get(&key, "v1", 99, 60).is_none(), "of the future");
        assert!(cache.get(&key, "v2", 100, 60).is_none(), "another database");
        assert!(cache.get(&(1001, key.1.clone(), key.2.clone()), "v1", 100, 60).is_none(), "another owner");
        cache.keep(|(uid, ..)| *uid != 1000);
        assert!(cache.entries.is_empty());
    }

    #[test]
    fn what_has_no_room_is_left_out_and_the_rest_reads_back() {
        let entry = |name: &str| {
            let seen = Seen { unread: 7, ..Seen::default() };
            ((7, PathBuf::from("/x"), name.to_owned()), Entry { version: name.into(), time: 1, seen })
        };
        let large = "x".repeat(2000);
        let entries: BTreeMap<_, _> = ["a", "b", &large].into_iter().map(entry).collect();
        let bytes = fitting(&entries, 1000);
        let read: Vec<(Key, Entry)> = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(read, [entry("a"), entry("b")]);
        assert_eq!(fitting(&BTreeMap::new(), 10), b"[]");
    }
}
