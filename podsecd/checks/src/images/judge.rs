//! What is demanded of an image under its names, and whether what was verified meets it: containers-policy.json(5),
//! "matchRepoDigestOrExact". Only computes.

use super::read::Seen;
use podsec_cage::payload::Payload;
use podsec_policy::audit::hex;
use podsec_policy::containers::policy_json::{
    Keyring, Policy, PublicKeys, Requirement, SignedBy, SigstoreKeys, SigstoreSigned,
};
use podsec_policy::trust::SignatureKind;
use sha2::{Digest as _, Sha256};

/// Before a signature of sigstore's in a store or a lookaside (containers/image, internal/signature).
pub const SIGSTORE: &[u8] = b"\0sigstore-json\n";

/// What is demanded of an image, under one of its names that is in a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim<'a> {
    /// Its name.
    pub name: &'a str,
    /// The scope that decides.
    pub scope: &'a str,
    /// How it has to be signed, and by which keys: a keyring, or PEM. None: nobody's key counts, or what is demanded cannot be
    /// verified here.
    pub keys: Option<(SignatureKind, Vec<&'a [u8]>)>,
}

/// All of an image's; none: it is in no scope.
pub fn claims<'a>(policy: &'a Policy, seen: &'a Seen) -> Vec<Claim<'a>> {
    let claim = |name: &'a String| {
        let (scope, demanded) = policy.decide(name);
        Some(Claim { name, scope: scope?, keys: keys(demanded) })
    };
    seen.names.iter().filter_map(claim).collect()
}

fn keys(demanded: &[Requirement]) -> Option<(SignatureKind, Vec<&[u8]>)> {
    match demanded {
        [Requirement::SignedBy(SignedBy { keys: Keyring::Data(keys), identity: None })] => {
            Some((SignatureKind::Gpg, vec![keys]))
        }
        [
            Requirement::SigstoreSigned(SigstoreSigned {
                keys: SigstoreKeys::Keys(keys),
                rekor: None,
                identity: None,
            }),
        ] => match keys {
            PublicKeys::Data(key) => Some((SignatureKind::Sigstore, vec![key])),
            PublicKeys::Datas(keys) => {
                Some((SignatureKind::Sigstore, keys.iter().map(Vec::as_slice).collect()))
            }
            PublicKeys::Path(_) | PublicKeys::Paths(_) => None,
        },
        _ => None,
    }
}

impl Claim<'_> {
    /// Where signatures of it are kept, below the root of a lookaside: its repository, without the registry's host.
    pub fn path(&self) -> Option<&str> {
        repository(self.name).split_once('/').map(|(_, path)| path)
    }

    /// By which a verdict about that signature is found again: the same as long as the same keys count. `None`: it is signed in
    /// another way than is demanded.
    pub fn key(&self, signature: &[u8]) -> Option<String> {
        let (kind, keys) = self.keys.as_ref()?;
        let fits = match kind {
            // By the first bit readers tell OpenPGP packets.
            SignatureKind::Gpg => signature.first().is_some_and(|byte| byte & 0x80 != 0),
            SignatureKind::Sigstore => signature.starts_with(SIGSTORE),
        };
        let mut hash = Sha256::new();
        for part in keys.iter().chain([&signature]) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        fits.then(|| hex(&hash.finalize()))
    }

    /// Is what a good signature signs this image, under this name?
    ///
    /// # Errors
    /// says why not
    pub fn fits(&self, seen: &Seen, payload: &Payload) -> Result<(), String> {
        let Payload { digest, reference } = payload;
        if !seen.manifests.iter().any(|manifest| manifest.as_str() == digest) {
            return Err(format!("it signs {digest}, which is another image"));
        }
        let is_by_digest = self.name.contains('@') && !self.name.split('@').next().is_some_and(has_tag);
        let same = if is_by_digest {
            repository(self.name) == repository(reference) && repository(reference) != reference
        } else {
            self.name == reference
        };
        if same {
            Ok(())
        } else {
            Err(format!("it signs {reference}, and the image is called {}", self.name))
        }
    }
}

fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// Without tag and digest.
fn repository(name: &str) -> &str {
    let name = name.split('@').next().unwrap_or_default();
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::trust::Digest;

    fn policy() -> Policy {
        let scope = |keys: &str| format!(r#"[{{"type":"signedBy","keyType":"GPGKeys","keyData":"{keys}"}}]"#);
        let text = format!(
            r#"{{"default":[{{"type":"reject"}}],"transports":{{"docker":{{"a.b/team":{},"a.b/team/in":{},"a.b/none":[{{"type":"reject"}}],
            "a.b/sig":[{{"type":"sigstoreSigned","keyDatas":["AQ==","Ag=="]}}]}}}}}}"#,
            scope("AQ=="),
            scope("Ag==")
        );
        Policy::parse(text.as_bytes()).unwrap()
    }

    fn digest(byte: &str) -> Digest {
        Digest::new(format!("sha256:{}", byte.repeat(32))).unwrap()
    }

    fn seen(names: &[&str]) -> Seen {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        Seen { names, manifests: [digest("aa"), digest("bb")].into(), ..Seen::default() }
    }

    #[test]
    fn the_innermost_scope_demands() {
        let policy = policy();
        let of = |name: &str| {
            let seen = seen(&[name]);
            claims(&policy, &seen).into_iter().next().map(|claim| {
                let keys = claim.keys.map(|(kind, keys)| (kind, keys.concat()));
                (claim.scope.to_owned(), keys)
            })
        };
        assert_eq!(of("a.b/team/x:1"), Some(("a.b/team".into(), Some((SignatureKind::Gpg, vec![1])))));
        assert_eq!(of("a.b/team/in/x:1"), Some(("a.b/team/in".into(), Some((SignatureKind::Gpg, vec![2])))));
        assert_eq!(of("a.b/sig/x:1"), Some(("a.b/sig".into(), Some((SignatureKind::Sigstore, vec![1, 2])))));
        assert_eq!(of("a.b/none/x:1"), Some(("a.b/none".into(), None)));
        for outside in [
            "a.b/teams/x:1",
            "a.b/x",
            "localhost/a.b/team/x:1",
            "",
            "a.b/team/$(touch /x):1",
            "a.b/team/x:1\n",
        ] {
            assert_eq!(of(outside), None, "{outside}");
        }
        let both = seen(&["localhost/mine:1", "a.b/team/x:1"]);
        assert_eq!(claims(&policy, &both).len(), 1);
    }

    #[test]
    fn a_signature_is_for_a_name_and_a_manifest() {
        let fits = |name: &str, reference: &str, of: &Digest| {
            let seen = seen(&[name]);
            let claim = Claim { name, scope: "", keys: None };
            claim.fits(&seen, &Payload { digest: of.to_string(), reference: reference.into() })
        };
        let (good, other) = (digest("aa"), digest("cc"));
        let by_digest = format!("a.b:5000/x@{good}");
        assert_eq!(fits("a.b:5000/x:1", "a.b:5000/x:1", &good), Ok(()));
        assert_eq!(fits("a.b:5000/x:1", "a.b:5000/x:1", &digest("bb")), Ok(()));
        assert_eq!(fits(&by_digest, "a.b:5000/x:1", &good), Ok(()));
        assert_eq!(fits(&by_digest, &by_digest, &good), Ok(()));
        assert!(fits("a.b:5000/x:1", "a.b:5000/x:1", &other).unwrap_err().contains("another image"));
        for (name, reference) in [
            ("a.b:5000/x:1", "a.b:5000/x:2"),
            ("a.b:5000/x:1", "a.b:5000/x"),
            ("a.b:5000/x:1", "a.b:5000/y:1"),
            ("a.b:5000/x:1", &*by_digest),
            (&*by_digest, "a.b:5000/x"),
            (&*by_digest, "a.b:5000/y:1"),
            (&*format!("a.b:5000/x:1@{good}"), "a.b:5000/x:2"),
        ] {
            assert!(fits(name, reference, &good).unwrap_err().contains("called"), "{name} {reference}");
        }
    }

    #[test]
    fn a_verdict_is_of_these_keys_and_that_signature() {
        let claim =
            |keys: Vec<&'static [u8]>| Claim { name: "", scope: "", keys: Some((SignatureKind::Gpg, keys)) };
        let key = |keys, signature: &[u8]| claim(keys).key(signature);
        let one = key(vec![b"k"], b"\x90s").unwrap();
        assert_eq!(key(vec![b"k"], b"\x90s"), Some(one.clone()));
        for other in [key(vec![b"K"], b"\x90s"), key(vec![b"k"], b"\x90S"), key(vec![b"k\x90"], b"\x90s")] {
            assert!(other.is_some() && other.as_ref() != Some(&one));
        }
        assert_eq!(key(vec![b"k"], SIGSTORE), None);
        assert_eq!(key(vec![b"k"], b""), None);
        let sigstore = Claim { name: "", scope: "", keys: Some((SignatureKind::Sigstore, vec![b"k"])) };
        assert!(sigstore.key(SIGSTORE).is_some() && sigstore.key(b"\x90s").is_none());
    }

    #[test]
    fn where_signatures_are_kept() {
        let path = |name| Claim { name, scope: "", keys: None }.path().map(str::to_owned);
        assert_eq!(path("a.b:5000/team/x:1").as_deref(), Some("team/x"));
        assert_eq!(path(&format!("a.b/x@{}", digest("aa"))).as_deref(), Some("x"));
    }
}
