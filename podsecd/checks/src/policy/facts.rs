//! What is so, of one user: closed types, short texts. Gathered as the user himself, who may have put anything in any place,
//! so nothing here is an error: what cannot be read is a fact, too.

use super::documents::{self, Redirects};
use super::guard::{self, Guard};
use super::processes::{self, Opened, Process};
use super::terms::{CONTAINERS, Note, Policy, USER_POLICY, Wanted};
use crate::known::Known;
use crate::owner::Owner;
use crate::storage::Store;
use podsec_policy::finding::Text;
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// What of trust matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// `None`: there is no trust.
    pub trust: Option<Wanted>,
    /// The host's policy.json: device and number.
    host: Option<(u64, u64)>,
}

impl Asked {
    /// From what podsecd knows.
    pub fn new(known: &Known) -> Self {
        let trust = known.trust.as_ref().map(|trust| Wanted {
            registry: trust.settings.registry.as_str().to_owned(),
            registries: trust.registries().into_iter().map(str::to_owned).collect(),
            lookaside: trust.settings.lookaside(),
            plain_http: trust.settings.plain_http,
        });
        Self { trust, host: identity(&Path::new(CONTAINERS).join("policy.json")) }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()))
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Has he a store, of whatever driver?
    pub store: bool,
    /// Is there an image in it, or is that not to be found out?
    pub images: bool,
    /// The policy.json that counts for him where it is not the host's, and where it is. Of root also the host's.
    pub policies: Vec<(Text, Policy)>,
    /// Files in which another lookaside is named for a registry of trust.
    pub lookasides: Vec<Note>,
    /// Files in which another place is named for one.
    pub redirects: Vec<Note>,
    /// How well an image user is guarded.
    pub guard: Guard,
    /// What he runs.
    pub processes: Vec<Process>,
    /// Configuration of the host's that others may write to.
    pub writable: Vec<Note>,
    /// What cannot be read.
    pub unreadable: Vec<Note>,
    /// His home, where even that cannot be looked into.
    pub closed: Option<Text>,
}

/// Looks. `whole`: even if he has no store.
pub fn of(owner: &Owner, whole: bool, opened: Vec<Opened>, asked: &Asked) -> Facts {
    let mut facts = Facts::default();
    stores(owner, &mut facts);
    if !whole && !facts.store {
        return facts;
    }
    if owner.uid == 0 {
        host(&mut facts, asked);
    }
    let own = owner.home.join(".config/containers");
    // What may be listed does not matter, only what can be reached.
    if let Err(error) = owner.home.join(".config").symlink_metadata()
        && error.kind() == std::io::ErrorKind::PermissionDenied
    {
        facts.closed = Some(Text::of(format!("{}: {error}", owner.home.display())));
    }
    let policy = own.join("policy.json");
    if let Some(found) = identity(&policy)
        && asked.host != Some(found)
    {
        facts.policy(&policy, asked);
    }
    let registries = own.join("registries.d");
    if let Some(wanted) = &asked.trust {
        // This directory stands in the place of the host's.
        if registries.exists() {
            facts.lookasides(&registries, &registries, wanted);
        }
        facts.redirects(&own, wanted);
    }
    facts.guard = guard::of(&owner.home);
    facts.processes = opened.into_iter().filter_map(|opened| processes::look(opened, &owner.home)).collect();
    facts
}

/// A list of images that cannot be read is one with images in it; what is wrong with it, the check images says.
fn stores(owner: &Owner, facts: &mut Facts) {
    for root in owner.roots() {
        let Ok(stores) = Store::all(&root, owner.uid) else {
            (facts.store, facts.images) = (true, true);
            continue;
        };
        facts.store |= !stores.is_empty();
        facts.images |= stores.iter().any(|store| store.images().map_or(true, |images| !images.is_empty()));
    }
}

/// What only the host has, for root.
fn host(facts: &mut Facts, asked: &Asked) {
    let containers = Path::new(CONTAINERS);
    facts.writable = guard::writable(&[containers, Path::new(USER_POLICY)]);
    let Some(wanted) = &asked.trust else { return };
    facts.policy(&containers.join("policy.json"), asked);
    let registries = containers.join("registries.d");
    facts.lookasides(&registries, &registries.join("50-podsec.yaml"), wanted);
    facts.redirects(containers, wanted);
}

impl Facts {
    fn unread(&mut self, path: &Path, why: impl std::fmt::Display) {
        self.unreadable.push((Text::of(path.as_os_str().as_encoded_bytes()), Text::of(why.to_string())));
    }

    fn policy(&mut self, path: &Path, asked: &Asked) {
        match documents::policy(path, asked.trust.as_ref()) {
            Ok(Some(policy)) => self.policies.push((Text::of(path.as_os_str().as_encoded_bytes()), policy)),
            Ok(None) => {}
            Err(why) => self.unread(path, why),
        }
    }

    fn lookasides(&mut self, directory: &Path, usual: &Path, wanted: &Wanted) {
        let (found, wrong) = documents::lookasides(directory, usual, wanted);
        self.lookasides.extend(found);
        wrong.into_iter().for_each(|(path, why)| self.unread(&path, why));
    }

    /// In registries.conf and the directory beside it.
    fn redirects(&mut self, containers: &Path, wanted: &Wanted) {
        let Redirects { found, wrong } = documents::redirects(containers, wanted);
        self.redirects.extend(found);
        wrong.into_iter().for_each(|(path, why): (PathBuf, String)| self.unread(&path, why));
    }
}
