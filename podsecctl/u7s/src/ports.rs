//! Published ports that outlive a restart: `ports.json` in the cluster user's home, kept in step with rootlesskit.
//!
//! Owns: the file and the order of the two changes. Must not: publish what [`PortSpec`] refuses, hold the lock longer
//! than one request takes.

use crate::files;
use crate::rootlesskit::api::{Api, ApiError, Published};
use podsec_policy::port::PortSpec;
use rustix::fs::Mode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

const NAME: &str = "ports.json";
const LIMIT: usize = 64 * 1024;
const MOST: usize = 256;
const PATIENCE: Duration = Duration::from_secs(6);

/// Why ports cannot be listed or changed.
#[derive(Debug, thiserror::Error)]
pub enum PortsError {
    /// rootlesskit's side.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The file cannot be read or written.
    #[error("cannot {what} {}: {source}", path.display())]
    File {
        /// `read`, `write`, `lock`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is not what this program writes.
    #[error("{} is damaged: {why}; move it away and add the ports again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and how.
        why: String,
    },
    /// Full.
    #[error("{MOST} ports are kept already; remove one first")]
    Full,
}

/// Whether anything had to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was as asked.
    Unchanged,
    /// Now it is.
    Changed,
}

/// A port that is published now, kept for the next start, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Port {
    /// What.
    pub spec: PortSpec,
    /// rootlesskit's number for it while it is published.
    pub id: Option<u64>,
    /// Whether it comes back after a restart.
    pub kept: bool,
}

/// All ports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Listing {
    /// Ours, in order.
    pub ports: Vec<Port>,
    /// Published by somebody else in words of their own, or such as we refuse.
    pub foreign: Vec<Published>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    ports: Vec<PortSpec>,
}

/// The file of kept ports.
#[derive(Clone, Debug)]
pub struct Store {
    home: PathBuf,
}

impl Store {
    /// The store in this home directory; nothing is opened yet.
    #[must_use]
    pub fn new(home: impl Into<PathBuf>) -> Self {
        Self { home: home.into() }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.home.join(NAME)
    }

    /// What is kept, in order. No file means nothing.
    ///
    /// # Errors
    /// [`PortsError::File`], [`PortsError::Damaged`].
    pub fn load(&self) -> Result<BTreeSet<PortSpec>, PortsError> {
        let bytes = files::read(&self.path(), LIMIT).map_err(|source| self.failed("read", source))?;
        bytes.map_or_else(|| Ok(BTreeSet::new()), |bytes| parse(&bytes).map_err(|why| self.damaged(why)))
    }

    /// Waits for its turn; whoever else changes ports waits meanwhile.
    fn lock(&self) -> Result<Locked<'_>, PortsError> {
        let directory = files::lock(&self.home, PATIENCE).map_err(|source| self.failed("lock", source))?;
        Ok(Locked { store: self, directory, ports: self.load()? })
    }

    fn failed(&self, what: &'static str, source: io::Error) -> PortsError {
        PortsError::File { what, path: self.path(), source }
    }

    fn damaged(&self, why: String) -> PortsError {
        PortsError::Damaged { path: self.path(), why }
    }
}

struct Locked<'a> {
    store: &'a Store,
    directory: OwnedFd,
    ports: BTreeSet<PortSpec>,
}

impl Locked<'_> {
    fn write(&self) -> Result<(), PortsError> {
        let file = File { version: 1, ports: self.ports.iter().copied().collect() };
        let mut bytes =
            serde_json::to_vec_pretty(&file).map_err(|error| self.store.damaged(error.to_string()))?;
        bytes.push(b'\n');
        files::replace(&self.directory, NAME, &bytes, Mode::from_raw_mode(0o600))
            .map_err(|source| self.store.failed("write", source))
    }

    fn keep(&mut self, spec: PortSpec) -> Result<Outcome, PortsError> {
        if self.ports.contains(&spec) {
            return Ok(Outcome::Unchanged);
        }
        if self.ports.len() >= MOST {
            return Err(PortsError::Full);
        }
        self.ports.insert(spec);
        self.write().map(|()| Outcome::Changed)
    }

    fn forget(&mut self, spec: &PortSpec) -> Result<Outcome, PortsError> {
        if !self.ports.remove(spec) {
            return Ok(Outcome::Unchanged);
        }
        self.write().map(|()| Outcome::Changed)
    }
}

fn parse(bytes: &[u8]) -> Result<BTreeSet<PortSpec>, String> {
    let File { version, ports } = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version != 1 {
        return Err(format!("version {version} is not 1"));
    }
    if ports.len() > MOST {
        return Err(format!("more than {MOST} ports"));
    }
    let mut set = BTreeSet::new();
    for (spec, number) in ports.into_iter().zip(1..) {
        if !set.insert(spec) {
            return Err(format!("port {number}, {spec}, is there twice"));
        }
    }
    Ok(set)
}

fn number(published: &[Published], spec: &PortSpec) -> Option<u64> {
    published.iter().find(|port| port.spec.ours().as_ref() == Some(spec)).map(|port| port.id)
}

/// What is published and what is kept. While the namespaces are down, or have no port driver, only the latter is known.
///
/// # Errors
/// [`PortsError`]; that rootlesskit does not run is none.
pub fn list(api: &Api, store: &Store) -> Result<Listing, PortsError> {
    let kept = store.load()?;
    let published = match api.ports() {
        Ok(published) => published,
        // Asked what is published, it refuses only when it has no port driver.
        Err(ApiError::NotRunning | ApiError::Refused { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let ours: BTreeSet<_> = published.iter().filter_map(|port| port.spec.ours()).collect();
    let ports = ours.union(&kept).map(|spec| Port {
        spec: *spec,
        id: number(&published, spec),
        kept: kept.contains(spec),
    });
    Ok(Listing {
        ports: ports.collect(),
        foreign: published.iter().filter(|port| port.spec.ours().is_none()).cloned().collect(),
    })
}

/// Publishes a port and keeps it. Either both or neither, unless the machine stops in between.
///
/// # Errors
/// [`PortsError`]: `Api(NotRunning)`, `Api(PortInUse)` …
pub fn add(api: &Api, store: &Store, spec: PortSpec) -> Result<Outcome, PortsError> {
    let mut locked = store.lock()?;
    if number(&api.ports()?, &spec).is_some() {
        return locked.keep(spec);
    }
    let published = api.publish(&spec)?;
    match locked.keep(spec) {
        Ok(_) => Ok(Outcome::Changed),
        Err(error) => {
            // What cannot be kept is not left open until the next restart either.
            api.withdraw(published.id)?;
            Err(error)
        }
    }
}

/// Forgets a port and takes its publication back. Works while the namespaces are down.
///
/// # Errors
/// [`PortsError`].
pub fn remove(api: &Api, store: &Store, spec: &PortSpec) -> Result<Outcome, PortsError> {
    let mut locked = store.lock()?;
    let forgotten = locked.forget(spec)?;
    let published = match api.ports() {
        Err(ApiError::NotRunning) => return Ok(forgotten),
        other => number(&other?, spec),
    };
    match published {
        Some(id) => api.withdraw(id).map(|()| Outcome::Changed).map_err(Into::into),
        None => Ok(forgotten),
    }
}

/// Publishes all that is kept, at the start of the namespaces; returns what could not be published, and why. One busy
/// port does not keep the others back.
///
/// # Errors
/// [`PortsError`]: the store cannot be read, or rootlesskit does not answer at all.
pub fn replay(api: &Api, store: &Store) -> Result<Vec<(PortSpec, ApiError)>, PortsError> {
    let kept = store.load()?;
    if kept.is_empty() {
        return Ok(Vec::new());
    }
    let published = match api.ports() {
        Err(ApiError::Refused { .. }) => Vec::new(),
        other => other?,
    };
    let missing = kept.into_iter().filter(|spec| number(&published, spec).is_none());
    Ok(missing.filter_map(|spec| api.publish(&spec).err().map(|error| (spec, error))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::tests::Scratch;
    use podsec_policy::port::Protocol;
    use proptest::prelude::*;
    use std::io::{Read, Write};
    use std::os::unix::net::UnixListener;
    use std::sync::{Arc, Mutex};

    fn spec(host: u32, child: u32) -> PortSpec {
        PortSpec::new(Protocol::Tcp, "0.0.0.0".parse().unwrap(), host, child).unwrap()
    }

    /// As much of rootlesskit as publishing takes; host ports in `busy` are taken by another program.
    struct Fake {
        api: Api,
        published: Arc<Mutex<Vec<Published>>>,
    }

    fn fake(scratch: &Scratch, busy: &'static [u16]) -> Fake {
        let socket = scratch.0.join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let published = Arc::new(Mutex::new(Vec::<Published>::new()));
        let shared = Arc::clone(&published);
        std::thread::spawn(move || {
            for (stream, id) in listener.incoming().zip(1..) {
                let mut stream = stream.unwrap();
                let mut bytes = [0; 4096];
                let mut request = Vec::new();
                // The client writes head and body at once.
                while !request.windows(4).any(|four| four == b"\r\n\r\n") {
                    let count = stream.read(&mut bytes).unwrap();
                    request.extend_from_slice(&bytes[..count]);
                }
                let request = String::from_utf8(request).unwrap();
                let mut ports = shared.lock().unwrap();
                let (status, body) = if request.starts_with("GET") {
                    (200, serde_json::to_string(&*ports).unwrap())
                } else if request.starts_with("DELETE") {
                    let id: u64 =
                        request["DELETE /v1/ports/".len()..].split(' ').next().unwrap().parse().unwrap();
                    ports.retain(|port: &Published| port.id != id);
                    (200, String::new())
                } else {
                    let spec = serde_json::from_str(request.split("\r\n\r\n").nth(1).unwrap()).unwrap();
                    let port = Published { id, spec };
                    if busy.contains(&port.spec.parent_port) {
                        (400, r#"{"message":"listen tcp4: bind: address already in use"}"#.to_owned())
                    } else {
                        ports.push(port.clone());
                        (201, serde_json::to_string(&port).unwrap())
                    }
                };
                write!(stream, "HTTP/1.0 {status} X\r\n\r\n{body}").unwrap();
            }
        });
        Fake { api: Api::new(socket), published }
    }

    #[test]
    fn added_ports_are_published_kept_and_come_back() {
        let scratch = Scratch::new();
        let store = Store::new(&scratch.0);
        let fake = fake(&scratch, &[]);
        assert_eq!(add(&fake.api, &store, spec(8080, 80)).unwrap(), Outcome::Changed);
        assert_eq!(add(&fake.api, &store, spec(8080, 80)).unwrap(), Outcome::Unchanged);
        assert_eq!(add(&fake.api, &store, spec(6443, 6443)).unwrap(), Outcome::Changed);
        let listing = list(&fake.api, &store).unwrap();
        let shown: Vec<_> =
            listing.ports.iter().map(|port| (port.spec.host_port(), port.id.is_some(), port.kept)).collect();
        assert_eq!(shown, [(6443, true, true), (8080, true, true)]);

        // rootlesskit starts anew and knows nothing.
        fake.published.lock().unwrap().clear();
        assert!(list(&fake.api, &store).unwrap().ports.iter().all(|port| port.id.is_none() && port.kept));
        assert!(replay(&fake.api, &store).unwrap().is_empty());
        assert_eq!(fake.published.lock().unwrap().len(), 2);
        assert!(replay(&fake.api, &store).unwrap().is_empty());
        assert_eq!(fake.published.lock().unwrap().len(), 2);

        assert_eq!(remove(&fake.api, &store, &spec(8080, 80)).unwrap(), Outcome::Changed);
        assert_eq!(remove(&fake.api, &store, &spec(8080, 80)).unwrap(), Outcome::Unchanged);
        assert_eq!(store.load().unwrap().into_iter().collect::<Vec<_>>(), [spec(6443, 6443)]);
        assert_eq!(fake.published.lock().unwrap().len(), 1);
    }

    #[test]
    fn a_busy_port_is_neither_published_nor_kept() {
        let scratch = Scratch::new();
        let store = Store::new(&scratch.0);
        let fake = fake(&scratch, &[8080]);
        let error = add(&fake.api, &store, spec(8080, 80)).unwrap_err();
        assert!(matches!(error, PortsError::Api(ApiError::PortInUse { .. })), "{error}");
        assert!(store.load().unwrap().is_empty());
    }

    #[test]
    fn a_busy_port_does_not_keep_the_others_back() {
        let scratch = Scratch::new();
        let store = Store::new(&scratch.0);
        for port in [8080, 8081] {
            store.lock().unwrap().keep(spec(port, 80)).unwrap();
        }
        let fake = fake(&scratch, &[8080]);
        let failed = replay(&fake.api, &store).unwrap();
        assert_eq!(failed.len(), 1);
        assert_eq!((failed[0].0, matches!(failed[0].1, ApiError::PortInUse { .. })), (spec(8080, 80), true));
        assert_eq!(fake.published.lock().unwrap().len(), 1);
    }

    #[test]
    fn what_cannot_be_kept_is_not_left_open() {
        let scratch = Scratch::new();
        let store = Store::new(&scratch.0);
        for port in 0..256 {
            store.lock().unwrap().keep(spec(5000 + port, 80)).unwrap();
        }
        let fake = fake(&scratch, &[]);
        assert!(matches!(add(&fake.api, &store, spec(8080, 80)), Err(PortsError::Full)));
        assert!(fake.published.lock().unwrap().is_empty());
    }

    #[test]
    fn foreign_ports_are_shown_and_left_alone() {
        let scratch = Scratch::new();
        let store = Store::new(&scratch.0);
        let fake = fake(&scratch, &[]);
        let foreign: Published =
            serde_json::from_str(r#"{"id":90,"spec":{"proto":"tcp","parentPort":10255,"childPort":10255}}"#)
                .unwrap();
        fake.published.lock().unwrap().push(foreign.clone());
        let listing = list(&fake.api, &store).unwrap();
        assert_eq!((listing.ports.len(), listing.foreign), (0, vec![foreign]));
    }

    #[test]
    fn while_down_ports_are_listed_and_forgotten_but_not_added() {
        let scratch = Scratch::new();
        let store = Store::new(&scratch.0);
        let api = Api::new(scratch.0.join("api.sock"));
        assert!(matches!(add(&api, &store, spec(8080, 80)), Err(PortsError::Api(ApiError::NotRunning))));
        store.lock().unwrap().keep(spec(8080, 80)).unwrap();
        assert_eq!(list(&api, &store).unwrap().ports, [Port { spec: spec(8080, 80), id: None, kept: true }]);
        assert_eq!(remove(&api, &store, &spec(8080, 80)).unwrap(), Outcome::Changed);
        assert!(list(&api, &store).unwrap().ports.is_empty());
    }

    #[test]
    fn damage_is_named_never_repaired() {
        let scratch = Scratch::new();
        let store = Store::new(&scratch.0);
        let port = serde_json::to_string(&spec(8080, 80)).unwrap();
        for (text, why) in [
            (String::new(), "EOF"),
            ("[]".into(), "line 1"),
            (r#"{"version":2,"ports":[]}"#.into(), "version 2"),
            (r#"{"version":1,"ports":[],"x":1}"#.into(), "unknown field"),
            (format!(r#"{{"version":1,"ports":[{port},{port}]}}"#), "port 2"),
            (format!(r#"{{"version":1,"ports":[{}]}}"#, port.replace("8080", "2379")), "2379"),
            (format!(r#"{{"version":1,"ports":[{}]}}"#, port.replace("8080", "80")), "1024"),
            (format!(r#"{{"version":1,"ports":[{port}]}} x"#), "trailing"),
        ] {
            scratch.put(NAME, &text);
            let error = store.load().unwrap_err();
            assert!(matches!(error, PortsError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains(why) && error.to_string().contains("ports.json"), "{error}");
            // And a change does not paint over it.
            assert!(store.lock().is_err());
        }
        scratch.put(NAME, &" ".repeat(LIMIT + 1));
        assert!(store.load().unwrap_err().to_string().contains("longer"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_kept_is_read_back(ports in proptest::collection::btree_set((1024u32..=65535, 1u32..=65535), 0..20)) {
            let wanted: BTreeSet<_> = ports.into_iter()
                .filter_map(|(host, child)| PortSpec::new(Protocol::Udp, "::".parse().unwrap(), host, child).ok())
                .collect();
            let scratch = Scratch::new();
            let store = Store::new(&scratch.0);
            for spec in &wanted {
                prop_assert_eq!(store.lock().unwrap().keep(*spec).unwrap(), Outcome::Changed);
            }
            prop_assert_eq!(store.load().unwrap(), wanted);
        }

        #[test]
        fn garbage_is_refused_quietly(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }
    }
}
