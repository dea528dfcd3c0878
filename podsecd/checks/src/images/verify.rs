//! Signatures: verified in a cage (`podsec_cage`), by the parser's user, a few at a time; and what came of it, remembered, so
//! that an hourly look at the same images starts no program.

use super::judge::{Claim, SIGSTORE};
use crate::owner::Owner;
use crate::report;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podsec_cage::payload::Payload;
use podsec_cage::{openpgp, sigstore};
use podsec_policy::config::Config;
use podsec_policy::finding::Check;
use podsec_policy::trust::SignatureKind;
use podsec_sys::credentials::Account;
use podsec_sys::file::Directory;
use podsec_sys::process;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Signatures that one cage verifies: what is lost where one of them takes too long.
pub const AT_ONCE: usize = 8;
/// Bytes of a text out of the cage.
const TEXT: usize = 512;
/// Verdicts that are remembered; and bytes of their file, which is more than they take.
const MOST: usize = 30_000;
const LONGEST: usize = 15 << 20;

/// What a signature signs, or why it is not good.
pub type Verdict = Result<Payload, String>;

/// A signature, and whose it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// How it is signed.
    pub kind: SignatureKind,
    keys: Vec<Vec<u8>>,
    signature: Vec<u8>,
}

impl Job {
    /// `None`: nobody's.
    pub fn new(claim: &Claim<'_>, signature: &[u8]) -> Option<Self> {
        let (kind, keys) = claim.keys.as_ref()?;
        let keys = keys.iter().map(|key| key.to_vec()).collect();
        Some(Self { kind: *kind, keys, signature: signature.to_vec() })
    }

    /// In the cage.
    fn verify(&self, programs: &Programs, directory: &Path) -> Verdict {
        let payload = match (self.kind, programs) {
            (SignatureKind::Gpg, Programs { gpgv: Ok(gpgv), .. }) => {
                openpgp::verify(gpgv, directory, &self.keys.concat(), &self.signature)?.1
            }
            (SignatureKind::Sigstore, Programs { openssl: Ok(openssl), .. }) => {
                let (payload, signature) = sigstore_parts(&self.signature)?;
                sigstore::verify(openssl, directory, &self.keys, &payload, &signature)?;
                payload
            }
            _ => return Err("it cannot be verified here".into()),
        };
        let payload = Payload::read(&payload, self.kind)?;
        let long = [&payload.digest, &payload.reference].iter().any(|text| text.len() > TEXT);
        if long { Err("what it signs is no image".into()) } else { Ok(payload) }
    }
}

/// containers/image, internal/signature/sigstore.go
#[derive(Deserialize)]
struct Attachment {
    payload: String,
    annotations: BTreeMap<String, String>,
}

fn sigstore_parts(blob: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let text = blob.strip_prefix(SIGSTORE).unwrap_or_default();
    let Attachment { payload, annotations } =
        serde_json::from_slice(text).map_err(|error| format!("it is no signature of sigstore's: {error}"))?;
    let signature =
        annotations.get("dev.cosignproject.cosign/signature").ok_or("there is no signature in it")?;
    let decode =
        |text: &str| STANDARD.decode(text).map_err(|_| "it is no signature of sigstore's".to_owned());
    Ok((decode(&payload)?, decode(signature)?))
}

struct Programs {
    gpgv: io::Result<PathBuf>,
    openssl: io::Result<PathBuf>,
}

/// Who verifies, and where.
pub struct Verifier {
    programs: Programs,
    account: Account,
    directory: PathBuf,
}

impl Verifier {
    /// # Errors
    /// the parser's user is not on this host
    pub fn new(config: &Config, everybody: &[Owner]) -> Result<Self, String> {
        let name = &config.accounts.front;
        let found = everybody.iter().find(|owner| owner.name == *name);
        let found =
            found.ok_or_else(|| format!("the user {name} is not on this host; systemd-sysusers makes it"))?;
        let account = Account { uid: found.uid, gid: found.gid, groups: Vec::new() };
        let directory = config.socket.path.with_file_name(format!("cage-{}", std::process::id()));
        let programs = Programs { gpgv: openpgp::program(), openssl: sigstore::program() };
        Ok(Self { programs, account, directory })
    }

    /// Is there what it takes?
    ///
    /// # Errors
    /// names the program that is not there
    pub fn can(&self, kind: SignatureKind) -> Result<(), String> {
        let program = match kind {
            SignatureKind::Gpg => &self.programs.gpgv,
            SignatureKind::Sigstore => &self.programs.openssl,
        };
        program.as_ref().map(drop).map_err(ToString::to_string)
    }

    /// Verifies some: a verdict for each.
    ///
    /// # Errors
    /// says why there is none
    pub fn verify(&self, jobs: &[&Job]) -> Result<Vec<Verdict>, String> {
        let parent = i32::try_from(std::process::id()).map_err(|error| error.to_string())?;
        let within = openpgp::PATIENCE * (u32::try_from(jobs.len()).unwrap_or(1) + 1);
        self.remove();
        let said = process::in_child(within, || {
            let entered = self.enter(parent).map_err(|error| error.to_string());
            let work = |directory: &Path| {
                let short = |why: String| why.chars().take(TEXT / 4).collect::<String>();
                Ok(jobs.iter().map(|job| job.verify(&self.programs, directory).map_err(short)).collect())
            };
            let result: Result<Vec<Verdict>, String> =
                entered.and_then(|()| podsec_cage::work(&self.directory, work));
            postcard::to_stdvec(&result).unwrap_or_default()
        });
        self.remove();
        let said = said.map_err(|error| format!("verifying his signatures: {error}"))?;
        let verdicts: Vec<Verdict> =
            postcard::from_bytes::<Result<_, String>>(&said).map_err(|error| error.to_string())??;
        if verdicts.len() == jobs.len() { Ok(verdicts) } else { Err("a cage said too little".into()) }
    }

    /// Becomes the parser's user, with a directory to write. This process may give nothing away, so the directory stays its own
    /// and is open to the group that only that user has.
    fn enter(&self, parent: i32) -> io::Result<()> {
        self.account.take_groups()?;
        std::fs::DirBuilder::new().mode(0o700).create(&self.directory)?;
        std::fs::set_permissions(&self.directory, std::fs::Permissions::from_mode(0o770))?;
        self.account.become_it()?;
        process::die_with_parent(parent)
    }

    /// Of a cage that is over, or of one that was killed with this number.
    fn remove(&self) {
        let (parent, name) =
            (self.directory.parent(), self.directory.file_name().and_then(|name| name.to_str()));
        if let (Some(parent), Some(name)) = (parent, name)
            && self.directory.exists()
        {
            let _ = Directory::open(parent).and_then(|parent| parent.remove_tree(name));
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Seconds since 1970.
    time: u64,
    verdict: Verdict,
}

/// Verdicts by [`Claim::key`]: those of the last time, and those that were of use this time, which are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cache {
    before: BTreeMap<String, Entry>,
    used: BTreeMap<String, Entry>,
}

impl Cache {
    /// Those that are not older than that many seconds. Their file belongs to the user podsec-monitor and is read as he. One
    /// that cannot be read costs time and nothing else.
    pub fn load(everybody: &[Owner], oldest: u64) -> Self {
        let now = report::now();
        let read = |reader: &Owner| {
            reader.ask(Duration::from_secs(10), || {
                let bytes = match crate::storage::read_plain(&path(), LONGEST) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
                    read => read.map_err(|error| error.to_string())?,
                };
                let mut all: BTreeMap<String, Entry> =
                    serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
                all.retain(|_, entry| now.checked_sub(entry.time).is_some_and(|age| age < oldest));
                Ok(all)
            })
        };
        let before = match everybody.iter().find(|owner| owner.name == report::USER).map(read) {
            Some(Ok(before)) => before,
            Some(Err(error)) => {
                eprintln!("podsec-monitor: {}: {error}; verified anew", path().display());
                BTreeMap::new()
            }
            None => BTreeMap::new(),
        };
        Self { before, used: BTreeMap::new() }
    }

    /// Is it known from before? It is kept then.
    pub fn keep(&mut self, key: &str) -> bool {
        if let Some((key, entry)) = self.before.remove_entry(key) {
            self.used.insert(key, entry);
        }
        self.used.contains_key(key)
    }

    /// Of those that are kept.
    pub fn get(&self, key: &str) -> Option<&Verdict> {
        self.used.get(key).map(|entry| &entry.verdict)
    }

    /// Keeps it.
    pub fn put(&mut self, key: String, verdict: Verdict) {
        self.used.insert(key, Entry { time: report::now(), verdict });
    }

    /// For the next time, as podsec-monitor.
    ///
    /// # Errors
    /// names the file
    pub fn save(mut self) -> Result<(), String> {
        while self.used.len() > MOST {
            self.used.pop_last();
        }
        report::write(&path(), &self.used, 0o600)
    }
}

fn path() -> PathBuf {
    report::directory(Check::Images).join("cache.json")
}
