//! Who asks owners: the process that may become them (`CAP_SETUID`, `CAP_SETGID`), and does nothing with that but have a closed
//! list of questions answered by processes that are the owner and can only read: where his stores are, and which containers
//! a store has. It starts followers, too, for stores whose file systems fanotify cannot do.
//!
//! Must not: be told a path or an account by anybody; it makes its own list, and is asked by numbers.

use super::message::{Candidate, Container, Known, LONGEST, Role, Sender, messages, send};
use super::place::Id;
use crate::owner::Owner;
use crate::storage::Store;
use podsec_policy::config::Config;
use podsec_sys::{process, socket};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

/// For one owner to answer.
const WITHIN: Duration = Duration::from_secs(2);
/// Between two looks at the accounts.
const ACCOUNTS: Duration = Duration::from_secs(10);
/// Between two questions to everybody where his stores are.
const EVERYBODY: Duration = Duration::from_secs(300);
/// Who is asked that between two other questions.
const SOME: usize = 16;
/// Containers of one packet.
const FEW: usize = 64;
/// Bytes of a name.
const LONGEST_NAME: usize = 256;
/// Places where stores may be.
const MOST: usize = 50_000;

/// From the judge.
#[derive(Debug, Serialize, Deserialize)]
pub enum Question {
    /// Which containers are in that store?
    Containers(u32),
    /// That store cannot be watched with its file system.
    Follow(u32),
}

/// To the judge.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// Some of a store's containers, and whether that was all.
    Containers { store: u32, containers: Vec<Container>, all: bool },
    /// Why they are not known.
    Failed { store: u32, why: String },
    /// Comes with the follower's channel.
    Following { store: u32 },
}

struct Asker {
    owners: Vec<Owner>,
    /// What `/etc/passwd` was when it was read.
    read: Option<(u64, i64, i64)>,
    /// By their number: the owner's name, uid, gid, groups, and the root.
    places: Vec<(Owner, String)>,
    known: HashSet<(u32, String)>,
    homes: HashSet<String>,
    /// Who is still to be asked where his stores are.
    unasked: VecDeque<Owner>,
    source: Sender,
    judge: OwnedFd,
}

/// Until one of the others ends.
///
/// # Errors
/// channels; `/etc/passwd`
pub fn run(source: OwnedFd, judge: OwnedFd) -> Result<(), String> {
    let copy = source.try_clone().map_err(|error| error.to_string())?;
    let mut asker = Asker {
        owners: Vec::new(),
        read: None,
        places: Vec::new(),
        known: HashSet::new(),
        homes: HashSet::new(),
        unasked: VecDeque::new(),
        source: Sender::new(source),
        judge,
    };
    asker.accounts()?;
    let (mut accounts, mut everybody) = (Instant::now() + ACCOUNTS, Instant::now() + EVERYBODY);
    loop {
        let left = accounts.saturating_duration_since(Instant::now());
        let left = if asker.unasked.is_empty() { left } else { Duration::ZERO };
        let wrong = |error: io::Error| error.to_string();
        if process::wait_readable(&[copy.as_fd(), asker.judge.as_fd()], Some(left)).map_err(wrong)? {
            // The source says nothing, so it has ended.
            if socket::has_ended(&copy) || !asker.answer().map_err(wrong)? {
                return Ok(());
            }
        } else {
            asker.ask_some().map_err(wrong)?;
        }
        if accounts <= Instant::now() {
            accounts = Instant::now() + ACCOUNTS;
            asker.accounts()?;
        }
        if everybody <= Instant::now() {
            everybody = Instant::now() + EVERYBODY;
            asker.unasked = asker.owners.iter().cloned().collect();
        }
        process::reap();
    }
}

impl Asker {
    /// Who there is, and where everybody has his store unless he says otherwise.
    fn accounts(&mut self) -> Result<(), String> {
        use std::os::unix::fs::MetadataExt as _;
        let meta = std::fs::metadata("/etc/passwd").map_err(|error| format!("/etc/passwd: {error}"))?;
        let read = Some((meta.ino(), meta.mtime(), meta.mtime_nsec()));
        if self.read == read {
            return Ok(());
        }
        self.read = read;
        let before: HashMap<_, _> = self.owners.drain(..).map(|owner| (owner.name.clone(), owner)).collect();
        self.owners = Owner::all(&Config::default())?;
        let new: Vec<_> =
            self.owners.iter().filter(|owner| before.get(&owner.name) != Some(owner)).cloned().collect();
        let send = |error: io::Error| error.to_string();
        self.remove(&before).map_err(send)?;
        for owner in &new {
            let home = owner.home.to_string_lossy();
            if !home.starts_with('/') {
                continue;
            }
            if owner.uid == 0 {
                self.place(owner, "/var/lib/containers/storage".into()).map_err(send)?;
            }
            for below in [".local/share/containers/storage", ".local/share/usernetes/containers/storage"] {
                self.place(owner, format!("{}/{below}", home.trim_end_matches('/'))).map_err(send)?;
            }
            // People's: those of services are often somewhere where much else is.
            if owner.uid >= 1000 && home.len() > 1 && self.homes.insert(home.clone().into_owned()) {
                self.source.push(&Known::Home(home.into_owned())).map_err(send)?;
            }
        }
        self.source.flush().map_err(send)?;
        self.unasked.extend(new);
        Ok(())
    }

    /// The places of those who are not there any more, or are somebody else.
    fn remove(&mut self, before: &HashMap<String, Owner>) -> io::Result<()> {
        let now: HashSet<_> = self.owners.iter().map(|owner| (&owner.name, owner.uid)).collect();
        let is_gone =
            |owner: &Owner| before.contains_key(&owner.name) && !now.contains(&(&owner.name, owner.uid));
        for (number, (owner, root)) in self.places.iter().enumerate() {
            if is_gone(owner) && self.known.remove(&(owner.uid, root.clone())) {
                let number = u32::try_from(number).map_err(io::Error::other)?;
                self.source.push(&Known::Removed(number))?;
            }
        }
        self.unasked.retain(|owner| !is_gone(owner));
        Ok(())
    }

    fn place(&mut self, owner: &Owner, root: String) -> io::Result<()> {
        if self.places.len() >= MOST || !self.known.insert((owner.uid, root.clone())) {
            return Ok(());
        }
        let number = u32::try_from(self.places.len()).map_err(io::Error::other)?;
        self.places.push((owner.clone(), root.clone()));
        let (owner, uid) = (owner.name.clone(), owner.uid);
        self.source.push(&Known::Candidate(Candidate { number, owner, uid, root }))
    }

    /// Where their stores really are.
    fn ask_some(&mut self) -> io::Result<()> {
        let some: Vec<_> = (0..SOME).map_while(|_| self.unasked.pop_front()).collect();
        if some.is_empty() {
            return Ok(());
        }
        let roots = |owner: &Owner, ()| {
            Ok(owner.roots().into_iter().filter_map(|root| root.to_str().map(str::to_owned)).collect())
        };
        let mut found: Vec<(&Owner, String)> = Vec::new();
        let done = |owner, roots: Result<Vec<String>, String>| match roots {
            Ok(roots) => found.extend(roots.into_iter().map(|root| (owner, root))),
            Err(error) => eprintln!("podsec-monitor: where the stores are: {error}"),
        };
        Owner::ask_all(&some, WITHIN, |_| (), roots, done).map_err(io::Error::other)?;
        for (owner, root) in found {
            self.place(owner, root)?;
        }
        self.source.flush()
    }

    /// One question; false: there will be no more.
    fn answer(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 64];
        let (length, _) = socket::receive(&self.judge, &mut buffer)?;
        if length == 0 {
            return Ok(false);
        }
        for question in messages(buffer.get(..length).unwrap_or_default()) {
            match question? {
                Question::Containers(store) => self.containers(store)?,
                Question::Follow(store) => self.follow(store)?,
            }
        }
        Ok(true)
    }

    fn containers(&self, store: u32) -> io::Result<()> {
        let Some((owner, root)) = self.places.get(store as usize) else { return Ok(()) };
        let containers = match owner.ask(WITHIN, || containers(Path::new(root), owner.uid)) {
            Ok(containers) => containers,
            Err(why) => return send(&self.judge, &Answer::Failed { store, why: short(why) }, &[]),
        };
        let mut rest = containers.as_slice();
        loop {
            let (some, others) = rest.split_at(rest.len().min(FEW));
            rest = others;
            let all = rest.is_empty();
            send(&self.judge, &Answer::Containers { store, containers: some.to_vec(), all }, &[])?;
            if all {
                return Ok(());
            }
        }
    }

    fn follow(&self, store: u32) -> io::Result<()> {
        let Some((owner, root)) = self.places.get(store as usize) else { return Ok(()) };
        let (own, other) = socket::pair()?;
        process::start(Path::new("/proc/self/exe"), &super::arguments(), other.as_fd())?;
        let account = owner.account();
        let owner = (account.uid, account.gid, account.groups);
        send(&own, &Role::Follower { owner, root: root.clone() }, &[])?;
        send(&self.judge, &Answer::Following { store }, &[own.as_fd()])
    }
}

/// All containers below a root, for a process that is the owner.
///
/// # Errors
/// says what is wrong with which file
pub fn containers(root: &Path, owner: u32) -> Result<Vec<Container>, String> {
    let mut found = Vec::new();
    for store in Store::all(root, owner)? {
        let images: HashMap<_, _> = store
            .images()?
            .into_iter()
            .filter_map(|image| Some((image.id, image.names?.into_iter().next()?)))
            .collect();
        let beside = root.join(format!("{}-containers", store.driver));
        for container in store.containers()? {
            let (id, layer) = (Id::new(container.id.as_bytes()), Id::new(container.layer.as_bytes()));
            let Some((id, layer)) = id.zip(layer) else { continue };
            // github.com/containers/buildah, buildah.go (stateFile)
            let builds = beside.join(&container.id).join("userdata/buildah.json").symlink_metadata().is_ok();
            let name = container.names.unwrap_or_default().into_iter().next().unwrap_or_default();
            let image = images.get(&container.image).unwrap_or(&container.image).clone();
            found.push(Container { id, layer, name: short(name), image: short(image), builds });
        }
    }
    Ok(found)
}

fn short(mut text: String) -> String {
    let end = (0..=LONGEST_NAME).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    text.truncate(end);
    text
}

/// A packet has room for as many containers as are put in it.
const _: () = assert!(FEW * (2 * LONGEST_NAME + 80) < LONGEST);

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_cut_between_letters() {
        assert_eq!(short("é".repeat(200)).len(), 256);
        assert_eq!(short(format!("x{}", "é".repeat(200))).len(), 255);
        assert_eq!(short("x".into()), "x");
    }

    #[test]
    fn containers_of_a_store() {
        let root = std::env::temp_dir().join(format!("podsec-store-{}", std::process::id()));
        let uid = podsec_sys::nix::unistd::geteuid().as_raw();
        for directory in ["vfs-images".to_owned(), format!("vfs-containers/{HEX}/userdata")] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        let put = |name: &str, text: String| {
            podsec_sys::file::replace(&root.join(name), text.as_bytes(), 0o600).unwrap();
        };
        let other = HEX.replace('0', "f");
        put("vfs-images/images.json", format!(r#"[{{"id":"{HEX}","names":["registry.local/a:1"]}}]"#));
        put(
            "vfs-containers/containers.json",
            format!(
                r#"[{{"id":"{HEX}","names":["web"],"image":"{HEX}","layer":"{other}"}},
                    {{"id":"../x","layer":"{other}"}}]"#
            ),
        );
        put(
            "vfs-containers/volatile-containers.json",
            format!(r#"[{{"id":"{other}","image":"{other}","layer":"{HEX}"}}]"#),
        );
        let found = containers(&root, uid).unwrap();
        let (one, two) = (Id::new(HEX.as_bytes()).unwrap(), Id::new(other.as_bytes()).unwrap());
        let image = "registry.local/a:1".into();
        let web = Container { id: one, layer: two, name: "web".into(), image, builds: false };
        let nameless = Container { id: two, layer: one, name: String::new(), image: other, builds: false };
        assert_eq!(found, [web.clone(), nameless]);
        put(&format!("vfs-containers/{HEX}/userdata/buildah.json"), String::new());
        assert_eq!(containers(&root, uid).unwrap()[0], Container { builds: true, ..web });
        put("vfs-containers/containers.json", "[".into());
        assert!(containers(&root, uid).unwrap_err().contains("containers.json"));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
