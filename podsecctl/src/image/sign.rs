//! `podsecctl image sign`, and how everything is signed that is pushed.
//!
//! Must not sign what the registry says without looking: a manifest is asked for by its digest, wherever that is known.

use super::registry::{Reference, Tool};
use super::run::Watch;
use super::{Trouble, usage};
use crate::Context;
use crate::cli::SignImages;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::input;
use crate::key::gpg;
use crate::output::{Output, aside, clean};
use crate::users::own_name;
use podsec_policy::Reason;
use podsec_policy::secret::Secret;
use podsec_policy::trust::Digest;
use podsec_policy::user::Fingerprint;
use podsec_proto::v1::{
    KeyState, ListKeysRequest, ListSignaturesRequest, PublishedKey, SignatureRecord, SubmitSignatureRequest,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// Images of one list, at most: far above the architectures that there are.
const MOST_INSTANCES: usize = 64;

/// Who signs, with what.
pub struct Signer<'a> {
    context: &'a Context,
    tool: Tool<'a>,
    key: Fingerprint,
    passphrase: Option<Secret>,
    /// What he has signed before.
    known: Vec<SignatureRecord>,
}

/// A signature that is where verifiers look for it.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    /// Of the manifest.
    pub digest: Digest,
    /// Below the root of the server of signatures; empty where it was there before.
    pub path: String,
    /// False: it was signed already.
    pub changed: bool,
}

impl<'a> Signer<'a> {
    /// With that key, or with the newest one of the caller's that is published and in his keyring. To be made before
    /// anything is pushed: what cannot be signed then is not pushed either.
    ///
    /// # Errors
    /// `no-key`; [`Trouble`]
    pub fn new(
        context: &'a Context,
        watch: &'a Watch,
        key: Option<&Fingerprint>,
        passphrase_fd: Option<u32>,
        tls_verify: bool,
    ) -> Result<Self, Trouble> {
        let creator = own_name()?.to_string();
        let daemon = Daemon::connect(&context.socket)?;
        let published = daemon.ask_all(daemon.keys().list(ListKeysRequest { creator: creator.clone() }))?;
        let key = choose(&published, &gpg::own()?, key)?;
        let known = daemon.ask_all(daemon.signatures().list(ListSignaturesRequest { creator }))?;
        let passphrase = passphrase_fd.map(input::passphrase_from).transpose()?;
        Ok(Self { context, tool: Tool::new(watch, tls_verify)?, key, passphrase, known })
    }

    /// His key.
    #[must_use]
    pub fn key(&self) -> &Fingerprint {
        &self.key
    }

    /// What runs skopeo.
    #[must_use]
    pub fn tool(&self) -> &Tool<'a> {
        &self.tool
    }

    /// Signs an image, and each image of a list, under that name; of that digest, where it is known.
    ///
    /// # Errors
    /// [`Trouble`]
    pub fn sign(&self, image: &Reference, digest: Option<&Digest>) -> Result<Vec<Signed>, Trouble> {
        let asked = digest.map_or_else(|| image.clone(), |digest| image.at(digest));
        let (manifest, digest) = self.tool.manifest(&asked)?;
        let instances = instances(&manifest)?;
        let mut signed = Vec::new();
        for instance in instances {
            // What is pulled is one of these, and each is verified by itself.
            let (manifest, digest) = self.tool.manifest(&image.at(&instance))?;
            signed.push(self.one(image, &manifest, digest)?);
        }
        signed.push(self.one(image, &manifest, digest)?);
        Ok(signed)
    }

    fn one(&self, image: &Reference, manifest: &[u8], digest: Digest) -> Result<Signed, Trouble> {
        if is_known(&self.known, &self.key, image, &digest) {
            return Ok(Signed { digest, path: String::new(), changed: false });
        }
        let signature = self.tool.sign(manifest, image, &self.key, self.passphrase.as_ref())?;
        // A new connection: the passphrase may have been long in coming.
        let daemon = Daemon::connect(&self.context.socket)?;
        let submitted = daemon.ask(daemon.signatures().submit(SubmitSignatureRequest {
            repository: image.repository.to_string(),
            digest: digest.to_string(),
            signature,
        }))?;
        Ok(Signed { digest, path: submitted.path, changed: submitted.changed })
    }
}

/// The key to sign with.
fn choose(
    published: &[PublishedKey],
    own: &[Fingerprint],
    wanted: Option<&Fingerprint>,
) -> Result<Fingerprint, Failure> {
    let none = |detail: String| Failure::Known { reason: Reason::NoKey, detail };
    let is_good = |key: &&PublishedKey| matches!(key.state(), KeyState::Current | KeyState::Previous);
    let is_own = |key: &PublishedKey| own.iter().any(|own| own.as_str() == key.fingerprint);
    if let Some(wanted) = wanted {
        if !own.contains(wanted) {
            return Err(none(format!("the private key of {wanted} is not in your keyring")));
        }
        if !published.iter().filter(is_good).any(|key| key.fingerprint == wanted.as_str()) {
            let text = format!(
                "{wanted} is not published, so nobody could verify it: podsecctl key publish {wanted}"
            );
            return Err(none(text));
        }
        return Ok(wanted.clone());
    }
    let newest = published.iter().filter(is_good).filter(|key| is_own(key)).max_by_key(|key| key.published);
    match newest {
        Some(key) => Fingerprint::new(&key.fingerprint).map_err(|_| Failure::Nonsense("a fingerprint")),
        None if published.iter().any(|key| is_good(&key)) => Err(none(
            "none of the keys that you have published is in your keyring here; sign where it is, or make one here: \
             podsecctl key generate --rotate"
                .to_owned(),
        )),
        None => Err(none("you have published no key to sign with: podsecctl key generate".to_owned())),
    }
}

/// Another signature of the same would say nothing new.
fn is_known(known: &[SignatureRecord], key: &Fingerprint, image: &Reference, digest: &Digest) -> bool {
    let image = image.to_string();
    known.iter().any(|record| {
        record.trusted
            && record.fingerprint == key.as_str()
            && record.reference == image
            && record.digest == digest.as_str()
    })
}

/// Of a list of images: an OCI index (image-index.md) or a manifest list of Docker's.
#[derive(Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<Instance>,
}

#[derive(Deserialize)]
struct Instance {
    digest: Digest,
}

/// The images of a list; none where it is an image itself.
fn instances(manifest: &[u8]) -> Result<Vec<Digest>, Trouble> {
    let unfit = |why: String| Trouble::Program {
        name: "skopeo",
        said: format!("gave a manifest that is none: {why}"),
    };
    let list: List = serde_json::from_slice(manifest).map_err(|error| unfit(error.to_string()))?;
    if list.manifests.len() > MOST_INSTANCES {
        return Err(unfit(format!("a list of {} images", list.manifests.len())));
    }
    Ok(list.manifests.into_iter().map(|instance| instance.digest).collect())
}

pub fn run(context: &Context, watch: &Watch, arguments: &SignImages) -> Result<u8, Trouble> {
    let SignImages { images, key, how } = arguments;
    let images = images.iter().map(|text| Reference::new(text)).collect::<Result<Vec<_>, _>>()?;
    let signer = Signer::new(context, watch, key.as_ref(), how.passphrase_fd, how.registry.tls_verify)?;
    let mut status = 0;
    for image in &images {
        if how.dry_run {
            say(&context.output, image, signer.key())?;
            continue;
        }
        match signer.sign(image, None) {
            Ok(signed) => print(&context.output, "signed", image, signer.key(), &signed)?,
            Err(trouble) => {
                // One does not stop the others.
                status = if status == 0 { trouble.exit_status() } else { status };
                if context.output.is_json() {
                    context
                        .output
                        .object(&json!({ "image": image.to_string(), "error": trouble.object() }))?;
                } else {
                    aside(&format!("podsecctl: {image}: {trouble}"));
                }
            }
        }
    }
    Ok(status)
}

fn say(output: &Output, image: &Reference, key: &Fingerprint) -> Result<(), Failure> {
    if output.is_json() {
        output.object(&json!({ "image": image.to_string(), "key": key.as_str() }))?;
    } else {
        output.bytes(format!("would sign {image} with key {key}\n").as_bytes())?;
    }
    Ok(())
}

/// What was done to an image.
///
/// # Errors
/// write(2)
pub fn print(
    output: &Output,
    done: &str,
    image: &Reference,
    key: &Fingerprint,
    signed: &[Signed],
) -> Result<(), Failure> {
    if output.is_json() {
        output.object(&json!({
            "image": image.to_string(),
            "key": key.as_str(),
            "signatures": signed.iter().map(object).collect::<Value>(),
        }))?;
    } else {
        output.bytes(text(done, image, key, signed).as_bytes())?;
    }
    Ok(())
}

/// For programs.
pub fn object(signed: &Signed) -> Value {
    let path = (!signed.path.is_empty()).then_some(&signed.path);
    json!({ "digest": signed.digest.as_str(), "changed": signed.changed, "path": path })
}

fn text(done: &str, image: &Reference, key: &Fingerprint, signed: &[Signed]) -> String {
    let is_new = signed.iter().any(|signed| signed.changed);
    let mut text = match (is_new, done) {
        (false, "signed") => format!("{image} was signed already; nothing to do\n"),
        _ => format!("{done} {image}\n"),
    };
    text += &format!("  key {key}\n");
    for Signed { digest, path, changed } in signed {
        let place = match changed {
            true => format!(", published as {}", clean(path)),
            false => ", signed before".to_owned(),
        };
        text += &format!("  {digest}{place}\n");
    }
    text
}

/// Does a passphrase belong to anything?
///
/// # Errors
/// [`Trouble::Failure`]
pub fn check(sign: bool, passphrase_fd: Option<u32>) -> Result<(), Trouble> {
    if !sign && passphrase_fd.is_some() {
        return Err(usage("a passphrase, and nothing to sign; --sign does"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "0123456789ABCDEF0123456789ABCDEF01234567";
    const NEW: &str = "4B83F0A2A71780556F9AFD23DCB6E4EDD5367651";

    fn fingerprint(text: &str) -> Fingerprint {
        Fingerprint::new(text).unwrap()
    }

    fn key(text: &str, published: u64, state: KeyState) -> PublishedKey {
        PublishedKey { fingerprint: text.into(), published, state: state.into(), ..Default::default() }
    }

    #[test]
    fn the_newest_key_that_counts_signs() {
        let keys = [key(OLD, 1, KeyState::Previous), key(NEW, 2, KeyState::Current)];
        let (old, new) = (fingerprint(OLD), fingerprint(NEW));
        let both = [old.clone(), new.clone()];
        assert_eq!(choose(&keys, &both, None).unwrap(), new);
        assert_eq!(choose(&keys, &both, Some(&old)).unwrap(), old);
        // the newer one is on another machine
        assert_eq!(choose(&keys, &both[..1], None).unwrap(), old);
        for (keys, own, wanted, why) in [
            (&keys[..], &[][..], None, "is in your keyring here"),
            (&[], &both[..], None, "key generate"),
            (&keys[..], &both[..1], Some(&new), "not in your keyring"),
            (&keys[..1], &both[..], Some(&new), "is not published"),
            (&[key(NEW, 2, KeyState::Revoked)], &both[..], Some(&new), "is not published"),
            (
                &[key(NEW, 2, KeyState::Revoked), key(OLD, 2, KeyState::Expired)],
                &both[..],
                None,
                "key generate",
            ),
        ] {
            let failure = choose(keys, own, wanted).unwrap_err();
            assert!(failure.to_string().contains(why), "{failure}");
            assert_eq!((failure.reason(), failure.exit_status()), ("no-key", 78));
        }
    }

    #[test]
    fn what_is_signed_is_not_signed_again() {
        let image = Reference::new("registry.local/team/app:1").unwrap();
        let digest = Digest::new(format!("sha256:{}", "0".repeat(64))).unwrap();
        let record = SignatureRecord {
            fingerprint: NEW.into(),
            reference: "registry.local/team/app:1".into(),
            digest: digest.to_string(),
            trusted: true,
            ..Default::default()
        };
        let known = |record: &SignatureRecord| {
            is_known(std::slice::from_ref(record), &fingerprint(NEW), &image, &digest)
        };
        assert!(known(&record));
        for other in [
            SignatureRecord { fingerprint: OLD.into(), ..record.clone() },
            SignatureRecord { reference: "registry.local/team/app:2".into(), ..record.clone() },
            SignatureRecord { digest: format!("sha256:{}", "1".repeat(64)), ..record.clone() },
            SignatureRecord { trusted: false, ..record.clone() },
        ] {
            assert!(!known(&other), "{other:?}");
        }
    }

    #[test]
    fn each_image_of_a_list_is_signed() {
        let hex = "a".repeat(64);
        let list = format!(r#"{{"schemaVersion":2,"manifests":[{{"digest":"sha256:{hex}","size":1}}]}}"#);
        assert_eq!(instances(list.as_bytes()).unwrap()[0].hex(), hex);
        assert!(instances(br#"{"schemaVersion":2,"config":{},"layers":[]}"#).unwrap().is_empty());
        let many = format!(r#"{{"digest":"sha256:{hex}"}},"#).repeat(MOST_INSTANCES);
        let many = format!(r#"{{"manifests":[{many}{{"digest":"sha256:{hex}"}}]}}"#);
        for bad in ["", "[1]", r#"{"manifests":[{"digest":"sha256:../x"}]}"#, r#"{"manifests":[{}]}"#, &many]
        {
            assert!(instances(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn for_people() {
        let image = Reference::new("registry.local/team/app:1").unwrap();
        let digest = Digest::new(format!("sha256:{}", "0".repeat(64))).unwrap();
        let new = Signed {
            digest: digest.clone(),
            path: "team/app@sha256=00/signature-1\x1b".into(),
            changed: true,
        };
        let old = Signed { digest: digest.clone(), path: String::new(), changed: false };
        let told = text("pushed", &image, &fingerprint(NEW), &[new]);
        let expected = format!(
            "pushed registry.local/team/app:1\n  key {NEW}\n  {digest}, published as team/app@sha256=00/signature-1\\x1b\n"
        );
        assert_eq!(told, expected);
        assert_eq!(object(&old)["path"], Value::Null);
        let told = text("signed", &image, &fingerprint(NEW), &[old]);
        assert!(told.starts_with("registry.local/team/app:1 was signed already; nothing to do\n"), "{told}");
    }
}
