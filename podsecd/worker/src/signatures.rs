//! Signatures of images: taken from their creators, kept where verifiers look for them.
//!
//! The tree is root's, so nobody takes away or replaces what another has signed, and a name in it is made of a checked
//! repository and digest. Must not: keep what its creator could not have signed by trust as it is.

use crate::change::{Act, Change};
use crate::store::{accounts_in, at, now, public_directory, read_json, write_json};
use crate::trust;
use crate::{Failure, Report, member, signed};
use podsec_cage::payload::Payload;
use podsec_policy::audit::hex;
use podsec_policy::config::Config;
use podsec_policy::name::AccountName;
use podsec_policy::peer::Role;
use podsec_policy::reason::Reason;
use podsec_policy::trust::{Digest, SignatureKind, SubmitSignature, is_tag};
use podsec_policy::user::{Fingerprint, Scope};
use podsec_sys::file;
use podsec_wire::Channel;
use podsec_wire::messages::{Job, Reply, SignatureRecord, Step};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::path::{Path, PathBuf};

/// Root of the server of signatures.
pub const ROOT: &str = "/var/sigstore";
/// For one image: verifiers read one after the other, so many would be a way to keep them busy.
const MOST: u32 = 32;

/// What was submitted; podsec's own memory of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    creator: AccountName,
    fingerprint: Fingerprint,
    reference: String,
    digest: Digest,
    time: u64,
}

/// A signature to be kept.
#[derive(Debug)]
pub struct Submit {
    config: Config,
    submit: SubmitSignature,
    record: Record,
}

impl Submit {
    /// From a request: verifies it.
    ///
    /// # Errors
    /// `NoTrust`, `OutOfScope`, `NoKey`, `BadSignature`
    pub fn new(job: &Job, submit: &SubmitSignature, report: &mut Report) -> Result<Self, Failure> {
        let config = (*job.config).clone();
        let trust = trust::current(&config)?.ok_or(Reason::NoTrust)?.trust;
        let nobody =
            || Failure::new(Reason::UnmanagedUser, "you have no account of a plain name on this host");
        let creator = member::own_name(job.uid).ok_or_else(nobody)?;
        let Some((kind, keys)) = trust.signing(&creator, &submit.repository) else {
            let text = format!(
                "{} is in none of your scopes; an Administrator grants them: podsecctl trust grant",
                submit.repository
            );
            return Err(Failure::new(Reason::OutOfScope, text));
        };
        if kind != SignatureKind::Gpg {
            let text = format!(
                "images in {} are signed by sigstore, whose signatures are in the registry",
                submit.repository
            );
            return Err(Failure::new(Reason::OutOfScope, text));
        }
        if keys.is_empty() {
            return Err(Failure::new(Reason::NoKey, "you have published no key yet; podsecctl key publish"));
        }
        // By the first bit verifiers tell OpenPGP packets from other signatures. One that they cannot tell ends their search,
        // for the good ones beside it, too; gpgv would take armor.
        if submit.signature.bytes().first().is_none_or(|byte| byte & 0x80 == 0) {
            let text = "it has to be binary OpenPGP, as skopeo and gpg --sign write it, not armor";
            return Err(Failure::new(Reason::BadSignature, text));
        }
        report.waiting(Step::Signature);
        let keyring: Vec<u8> = keys.iter().flat_map(|key| key.bytes()).collect();
        let split = || Ok((keyring, submit.signature.bytes().to_vec()));
        let read = |signer: &Fingerprint, said: &[u8]| {
            let reference = fits(said, &submit.repository, &submit.digest)?;
            Ok((signer.clone(), reference))
        };
        let (fingerprint, reference) = signed::verified(&config, split, read)?;
        if !keys.iter().any(|key| key.fingerprint == fingerprint) {
            return Err(Failure::new(
                Reason::BadSignature,
                "it is not by a key that you have published for this",
            ));
        }
        let record = Record { creator, fingerprint, reference, digest: submit.digest.clone(), time: now() };
        Ok(Self { config, submit: submit.clone(), record })
    }

    /// `/sigstore/REPOSITORY@sha256=DIGEST`, without the registry's host: containers-registries.d(5), "Individual
    /// Configuration Sections", and signature-protocols of containers/image.
    fn directory(&self) -> PathBuf {
        let repository = self.submit.repository.as_str();
        let path = repository.split_once('/').map_or(repository, |(_, path)| path);
        Path::new(ROOT).join("sigstore").join(format!("{path}@sha256={}", self.submit.digest.hex()))
    }

    /// Its place: where it is already, or the first that is free.
    fn place(&self) -> Result<(PathBuf, bool), Failure> {
        let directory = self.directory();
        for number in 1..=MOST {
            let path = directory.join(format!("signature-{number}"));
            match std::fs::read(&path) {
                Ok(there) if there == self.submit.signature.bytes() => return Ok((path, true)),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((path, false)),
                Err(error) => return Err(at(&path)(error)),
            }
        }
        let text = format!("there are {MOST} signatures of {} already", self.submit.digest);
        Err(Failure::new(Reason::SignatureLimit, text))
    }

    /// Where it is, below the root of the server.
    ///
    /// # Errors
    /// `SignatureLimit`
    pub fn path(&self) -> Result<String, Failure> {
        let (path, _) = self.place()?;
        let below = path.strip_prefix(ROOT).unwrap_or(&path);
        Ok(format!("/{}", below.display()))
    }

    fn store_todo(&self) -> Result<Option<String>, Failure> {
        // It was verified before others were kept out: his key or his scope may have been taken from him meanwhile.
        let trust = trust::current(&self.config)?.ok_or(Reason::NoTrust)?.trust;
        let keys = trust.signing(&self.record.creator, &self.submit.repository).map(|(_, keys)| keys);
        if !keys.unwrap_or_default().iter().any(|key| key.fingerprint == self.record.fingerprint) {
            return Err(Reason::OutOfScope.into());
        }
        let (path, there) = self.place()?;
        Ok((!there).then(|| format!("write {}", path.display())))
    }

    fn store_run(&mut self) -> Result<(), Failure> {
        let (path, _) = self.place()?;
        public_directory(&self.directory())?;
        file::replace(&path, self.submit.signature.bytes(), 0o644).map_err(at(&path))
    }

    fn record_path(&self) -> PathBuf {
        let name = hex(&Sha256::digest(self.submit.signature.bytes()));
        records(&self.config, &self.record.creator).join(format!("{name}.json"))
    }

    fn record_todo(&self) -> Result<Option<String>, Failure> {
        let there: Option<Record> = read_json(&self.record_path())?;
        Ok(there
            .is_none()
            .then(|| format!("remember that {} signed {}", self.record.creator, self.record.reference)))
    }

    fn record_run(&mut self) -> Result<(), Failure> {
        let path = self.record_path();
        if let Some(parent) = path.parent() {
            podsec_sys::process::make_root_owned(parent, 0o700).map_err(at(parent))?;
        }
        write_json(&path, &self.record)
    }
}

impl Change for Submit {
    const ACTS: &'static [Act<Self>] = &[
        Act { step: Step::Store, todo: Self::store_todo, run: Self::store_run },
        Act { step: Step::Record, todo: Self::record_todo, run: Self::record_run },
    ];
}

fn records(config: &Config, creator: &AccountName) -> PathBuf {
    config.audit.state.join("signatures").join(creator.as_str())
}

/// Does what was signed name that image? Gives the reference.
fn fits(said: &[u8], repository: &Scope, digest: &Digest) -> Result<String, String> {
    let Payload { digest: signed, reference } = Payload::read(said, SignatureKind::Gpg)?;
    if signed != digest.as_str() {
        return Err(format!("it signs the digest {signed}, not {digest}"));
    }
    let rest = reference.strip_prefix(repository.as_str());
    let tag = rest.and_then(|rest| rest.strip_prefix(':'));
    let is_digest = rest.and_then(|rest| rest.strip_prefix('@')) == Some(digest.as_str());
    if !tag.is_some_and(is_tag) && !is_digest {
        return Err(format!("it signs {reference}, which is not in {repository}"));
    }
    Ok(reference)
}

/// `ListSignatures`
///
/// # Errors
/// `NotOwner`
pub fn list(
    job: &Job,
    named: Option<&AccountName>,
    front: &Channel,
    report: &mut Report,
) -> Result<Reply, Failure> {
    report.step(Step::Read);
    let config = &job.config;
    let administrator = member::holds(job.uid, Role::Administrator, &config.accounts);
    let own = member::own_name(job.uid);
    let creators = match named {
        Some(named) if !administrator && own.as_ref() != Some(named) => {
            return Err(Failure::new(
                Reason::NotOwner,
                format!("what {named} signed is for him and for Administrators"),
            ));
        }
        Some(named) => vec![named.clone()],
        None if !administrator => own.into_iter().collect(),
        None => accounts_in(&config.audit.state.join("signatures"), ""),
    };
    let trust = trust::current(config)?.map(|stored| stored.trust);
    for creator in creators {
        let directory = records(config, &creator);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let record: Option<Record> = read_json(&entry.path())?;
            found.extend(record);
        }
        found.sort_by(|a, b| (a.time, &a.reference).cmp(&(b.time, &b.reference)));
        for Record { creator, fingerprint, reference, digest, time } in found {
            let repository = reference.split('@').next().unwrap_or_default();
            let repository = match repository.rsplit_once(':') {
                Some((repository, tag)) if !tag.contains('/') => repository,
                _ => repository,
            };
            let trusted =
                trust.as_ref().is_some_and(|trust| trust.accepts(&creator, &fingerprint, repository));
            let record = SignatureRecord { creator, fingerprint, reference, digest, time, trusted };
            if front.send(&Reply::Signature(Box::new(record)), &[]).is_err() {
                return Ok(Reply::End);
            }
        }
    }
    Ok(Reply::End)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest() -> Digest {
        Digest::new(format!("sha256:{}", "ab".repeat(32))).unwrap()
    }

    fn payload(reference: &str, digest: &str) -> Vec<u8> {
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{reference}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"atomic container signature"}},"optional":{{"creator":"x","timestamp":1}}}}"#
        )
        .into_bytes()
    }

    #[test]
    fn what_is_signed_is_that_image() {
        let scope = Scope::new("registry.local/team/app").unwrap();
        let fits = |reference: &str, of: &str| fits(&payload(reference, of), &scope, &digest());
        let good = digest();
        for reference in ["registry.local/team/app:1.0", "registry.local/team/app:_x-Y"] {
            assert_eq!(fits(reference, good.as_str()).unwrap(), reference);
        }
        assert!(fits(&format!("registry.local/team/app@{good}"), good.as_str()).is_ok());
        for bad in [
            "registry.local/team/app",
            "registry.local/team/app:",
            "registry.local/team/app:-x",
            "registry.local/team/app:a/b",
            "registry.local/team/app2:1",
            "registry.local/team/app/x:1",
            "registry.local/team:1",
            "other.local/team/app:1",
            "registry.local/team/app@sha256:00",
        ] {
            assert!(fits(bad, good.as_str()).unwrap_err().contains("not in"), "{bad}");
        }
        let other = format!("sha256:{}", "cd".repeat(32));
        assert!(fits("registry.local/team/app:1", &other).unwrap_err().contains("digest"));
    }
}
