//! Trust for other hosts: one file with the current revision, signed by this host's trust key, and the way back in.
//!
//! A bundle is a line `podsec-bundle 1 LENGTH`, LENGTH bytes of OpenPGP public key, and an OpenPGP message that carries a
//! JSON document and its signature. Who takes it over knows the key's fingerprint from elsewhere. Must not: take over
//! what is older than what was taken over before, by whomever it is signed.

use super::{Revise, Stored, Trust, current, directory};
use crate::signed::verified;
use crate::store::{at, public_directory, read_json, write_json};
use crate::{Failure, Report};
use podsec_policy::config::Config;
use podsec_policy::reason::Reason;
use podsec_policy::trust::{BundleUrl, SyncTrust};
use podsec_policy::user::Fingerprint;
use podsec_sys::file;
use podsec_sys::program::{Run, find_roots, run_with};
use podsec_wire::Channel;
use podsec_wire::messages::{Job, Reply, Step};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the server of signatures gives it out.
const PUBLISHED: &str = "/var/sigstore/trust/bundle";
const HEADER: &str = "podsec-bundle 1 ";
/// Bytes in one reply.
const PART: usize = 64 * 1024;
/// For what gpg does with its own key.
const SOON: Duration = Duration::from_secs(20);

/// What is signed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    revision: u64,
    trust: Trust,
}

/// This host's trust key, and what was signed by it last.
#[derive(Serialize, Deserialize)]
struct Own {
    fingerprint: Fingerprint,
    revision: u64,
}

/// What this host remembers of the one that it follows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    fingerprint: Fingerprint,
    /// The newest that was taken over.
    revision: u64,
}

fn own_path(config: &Config) -> PathBuf {
    directory(config).join("own-key")
}

fn followed_path(config: &Config) -> PathBuf {
    directory(config).join("followed-key")
}

/// Has it given out one, and an older one than that revision?
pub fn is_stale(config: &Config, revision: u64) -> Result<bool, Failure> {
    Ok(read_json::<Own>(&own_path(config))?.is_some_and(|own| own.revision != revision))
}

/// Of the key by which trust came, or may be given on.
pub fn fingerprint(config: &Config, trust: &Trust) -> Result<Option<Fingerprint>, Failure> {
    if trust.follows.is_some() {
        let followed: Option<Followed> = read_json(&followed_path(config))?;
        return Ok(followed.map(|followed| followed.fingerprint));
    }
    Ok(read_json::<Own>(&own_path(config))?.map(|own| own.fingerprint))
}

/// gpg with a keyring of this host's own.
fn gpg(config: &Config, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Failure> {
    let home = directory(config).join("gnupg");
    podsec_sys::process::make_root_owned(&home, 0o700).map_err(at(&home))?;
    let program = find_roots("gpg").map_err(|error| Failure::new(Reason::Unsupported, error))?;
    let options = ["--batch", "--quiet", "--no-tty", "--pinentry-mode", "loopback", "--passphrase", ""];
    let run = Run { input, environment: &[("GNUPGHOME", &home), ("HOME", &home)], deadline: SOON };
    run_with(&program, &[&options[..], arguments].concat(), run)
        .map_err(|error| Failure::new(Reason::Program, error))
}

/// Signs the current revision, and puts it where other hosts fetch it.
///
/// # Errors
/// `NoTrust`; `Program`
pub fn make(config: &Config) -> Result<Vec<u8>, Failure> {
    let made = sign(config);
    if let Ok(gpgconf) = find_roots("gpgconf") {
        // gpg started an agent, which would stay.
        let home = directory(config).join("gnupg");
        let run = Run { environment: &[("GNUPGHOME", &home)], ..Run::default() };
        let _ = run_with(&gpgconf, &["--kill", "all"], run);
    }
    made
}

fn sign(config: &Config) -> Result<Vec<u8>, Failure> {
    let Stored { head, trust } = current(config)?.ok_or(Reason::NoTrust)?;
    const NAME: &str = "podsec trust";
    let list = || gpg(config, &["--with-colons", "--list-secret-keys", "--", &format!("={NAME}")], &[]);
    let listed = match list() {
        Ok(listed) => listed,
        // There is none yet.
        Err(_) => {
            gpg(config, &["--quick-generate-key", "--", NAME, "ed25519", "sign", "never"], &[])?;
            list()?
        }
    };
    let listed = String::from_utf8_lossy(&listed).into_owned();
    let digits = listed.lines().find_map(|line| line.strip_prefix("fpr:")).unwrap_or_default();
    let fingerprint =
        Fingerprint::new(digits.trim_matches(':')).map_err(|error| Failure::new(Reason::Program, error))?;
    let key =
        gpg(config, &["--export-options", "export-minimal", "--export", "--", fingerprint.as_str()], &[])?;
    let revision = head.revision;
    let contents = serde_json::to_vec(&Contents { revision, trust });
    let contents = contents.map_err(|error| Failure::new(Reason::Bug, error))?;
    let message = gpg(config, &["--local-user", fingerprint.as_str(), "--sign"], &contents)?;
    let header = format!("{HEADER}{}\n", key.len());
    let bundle = [header.as_bytes(), &key, &message].concat();
    let path = Path::new(PUBLISHED);
    if let Some(parent) = path.parent() {
        public_directory(parent)?;
    }
    file::replace(path, &bundle, 0o644).map_err(at(path))?;
    write_json(&own_path(config), &Own { fingerprint, revision })?;
    Ok(bundle)
}

/// `ExportTrust`
///
/// # Errors
/// `NoTrust`, `TrustFollows`; `Program`
pub fn export(job: &Job, front: &Channel, report: &mut Report) -> Result<Reply, Failure> {
    report.waiting(Step::Publish);
    super::own(&current(&job.config)?.ok_or(Reason::NoTrust)?)?;
    for part in make(&job.config)?.chunks(PART) {
        if front.send(&Reply::Bytes(part.to_vec()), &[]).is_err() {
            break;
        }
    }
    Ok(Reply::End)
}

/// Key and message of a bundle.
fn split(bundle: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let end = bundle.iter().position(|&byte| byte == b'\n')?;
    let (header, rest) = bundle.split_at_checked(end + 1)?;
    let length = std::str::from_utf8(header).ok()?.trim_end().strip_prefix(HEADER)?;
    let (key, message) = rest.split_at_checked(length.parse().ok()?)?;
    Some((key.to_vec(), message.to_vec()))
}

/// `SyncTrust`: what another host demands is demanded here too.
///
/// # Errors
/// `BadArgument`, `OwnTrust`, `BadBundle`, `OldBundle`; as [`Revise::new`]
pub fn follow(job: &Job, sync: &SyncTrust, now: Option<Stored>) -> Result<Revise, Failure> {
    let config = &job.config;
    let remembered: Option<Followed> = read_json(&followed_path(config))?;
    let pinned =
        sync.fingerprint.clone().or_else(|| remembered.as_ref().map(|known| known.fingerprint.clone()));
    let Some(pinned) = pinned else {
        let text =
            "whose trust shall it be? --fingerprint with what podsecctl trust show says on the other host";
        return Err(Failure::new(Reason::BadArgument, text));
    };
    if now.as_ref().is_some_and(|now| now.trust.follows.is_none()) && !sync.reason.overwrite {
        let text = "this host has trust of its own; --overwrite has it follow the other one from now on";
        return Err(Failure::new(Reason::OwnTrust, text));
    }
    let parts = || split(sync.bundle.bytes()).ok_or_else(|| "it is no bundle of podsec's".to_owned());
    let read = |signer: &Fingerprint, said: &[u8]| {
        if *signer != pinned {
            return Err(format!("it is signed by {signer}, not by {pinned}"));
        }
        serde_json::from_slice::<Contents>(said)
            .map_err(|error| format!("this podsec cannot read it: {error}"))
    };
    let Contents { revision, mut trust } =
        verified(config, parts, read).map_err(|failure| match failure.reason {
            Reason::BadSignature => Failure { reason: Reason::BadBundle, ..failure },
            _ => failure,
        })?;
    let newest = remembered.filter(|known| known.fingerprint == pinned).map_or(0, |known| known.revision);
    if revision < newest {
        let text = format!("the bundle has revision {revision}, this host has had {newest} already");
        return Err(Failure::new(Reason::OldBundle, text));
    }
    trust.follows = Some(sync.url.as_ref().map_or("a file", BundleUrl::as_str).to_owned());
    // What the other host calls itself in its own /etc/hosts is of no use here.
    let loopback = trust.settings.address.filter(|address| address.is_loopback());
    trust.settings.address = trust.settings.address.filter(|address| !address.is_loopback());
    let what = format!("revision {revision} of {}", trust.follows.as_deref().unwrap_or_default());
    let mut revise = Revise::to(job, now, trust, what, sync.reason.clone())?;
    if let Some(loopback) = loopback {
        revise.warnings.push(format!(
            "{loopback} is the other host's address for itself; the names are not written to /etc/hosts"
        ));
    }
    revise.followed = Some(Followed { fingerprint: pinned, revision });
    Ok(revise)
}

/// Remembered before it is in force: a crash must not let an older one in.
pub fn remember(config: &Config, followed: &Followed) -> Result<(), Failure> {
    write_json(&followed_path(config), followed)
}

/// Is that remembered?
pub fn is_remembered(config: &Config, followed: &Followed) -> Result<bool, Failure> {
    Ok(read_json::<Followed>(&followed_path(config))?.as_ref() == Some(followed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bundles_have_two_parts() {
        assert_eq!(split(b"podsec-bundle 1 3\nkeymessage"), Some((b"key".to_vec(), b"message".to_vec())));
        for bad in [
            &b""[..],
            b"podsec-bundle 1 3",
            b"podsec-bundle 2 3\nkeymessage",
            b"podsec-bundle 1 30\nkeymessage",
            b"podsec-bundle 1 -3\nkeymessage",
            b"podsec-bundle 1 99999999999999999999\nkey",
            b"\xff\n",
        ] {
            assert_eq!(split(bad), None);
        }
    }
}
