//! Whose signatures are demanded of what, as one value, and the files that follow from it. Only computes.

use crate::Failure;
use podsec_policy::audit::unhex_bytes;
use podsec_policy::containers::hosts::{self, Block};
use podsec_policy::containers::policy_json::{
    Keyring, Policy, PublicKeys, Requirement, SignedBy, SigstoreKeys, SigstoreSigned,
};
use podsec_policy::containers::registries_conf::{RegistriesConf, Registry};
use podsec_policy::containers::registries_d::{Lookaside, RegistriesD};
use podsec_policy::name::AccountName;
use podsec_policy::reason::Reason;
use podsec_policy::trust::{GrantSigner, RevokeSigner, Settings, SignatureKind};
use podsec_policy::user::{Fingerprint, Scope};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// containers-policy.json(5)
pub const POLICY: &str = "/etc/containers/policy.json";
/// containers-registries.d(5)
pub const REGISTRIES_D: &str = "/etc/containers/registries.d/50-podsec.yaml";
/// containers-registries.conf(5)
pub const REGISTRIES_CONF: &str = "/etc/containers/registries.conf.d/50-podsec.conf";
/// hosts(5)
pub const HOSTS: &str = "/etc/hosts";

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    /// Where images and signatures are.
    pub settings: Settings,
    /// Of the bundle of the host that is followed.
    pub follows: Option<String>,
    /// Who signs where.
    pub scopes: BTreeMap<Scope, Signers>,
    /// With what.
    pub keys: BTreeMap<Name, Vec<Key>>,
}

/// An account, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(pub AccountName);

impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.as_str().cmp(other.0.as_str())
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Of one scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signers {
    /// How they sign.
    pub kind: SignatureKind,
    /// Who signs there.
    pub active: BTreeSet<Name>,
    /// Who does no more, and whose signatures are still good.
    pub retired: BTreeSet<Name>,
}

/// A public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Which.
    pub fingerprint: Fingerprint,
    /// What for.
    pub kind: SignatureKind,
    /// OpenPGP or PEM, in hex.
    pub key: String,
}

impl Key {
    /// The bytes of the key.
    pub fn bytes(&self) -> Vec<u8> {
        unhex_bytes(&self.key).unwrap_or_default()
    }
}

/// A file that follows from trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where.
    pub path: &'static str,
    /// `None`: it is not there.
    pub bytes: Option<Vec<u8>>,
}

impl Trust {
    /// Nothing is trusted yet.
    pub fn new(settings: Settings) -> Self {
        Self { settings, follows: None, scopes: BTreeMap::new(), keys: BTreeMap::new() }
    }

    /// The scopes that a repository is in, the innermost first: that one decides (containers-policy.json(5)), and whoever
    /// signs in one around it signs there too.
    pub fn around<'a>(&'a self, repository: &'a str) -> impl Iterator<Item = (&'a Scope, &'a Signers)> {
        let outwards =
            std::iter::successors(Some(repository), |name| name.rsplit_once('/').map(|(outer, _)| outer));
        outwards.filter_map(|name| self.scopes.get_key_value(name))
    }

    /// The scopes within one, without itself.
    fn within<'a>(&'a self, scope: &Scope) -> impl Iterator<Item = (&'a Scope, &'a Signers)> {
        let start = format!("{scope}/");
        let from = (std::ops::Bound::Included(start.as_str()), std::ops::Bound::Unbounded);
        let all = self.scopes.range::<str, _>(from);
        all.take_while(move |(inner, _)| inner.as_str().starts_with(&start))
    }

    /// A creator signs in more scopes.
    ///
    /// # Errors
    /// `ScopeTaken`
    pub fn grant(&mut self, grant: &GrantSigner) -> Result<(), Failure> {
        let creator = Name(grant.creator.clone());
        for scope in &grant.scopes {
            let others = self.around(scope.as_str()).chain(self.within(scope));
            for (there, signers) in others {
                let other = signers.active.iter().find(|other| **other != creator);
                if let Some(Name(other)) = other.filter(|_| !grant.shared) {
                    let text = format!("{other} signs in {there}; for both of them: --shared");
                    return Err(Failure::new(Reason::ScopeTaken, text));
                }
                if signers.kind != grant.kind && (there != scope || other.is_some()) {
                    let text = format!("images in {there} are signed in another way; revoke that first");
                    return Err(Failure::new(Reason::ScopeTaken, text));
                }
            }
            let nobody = Signers { kind: grant.kind, active: BTreeSet::new(), retired: BTreeSet::new() };
            let signers = self.scopes.entry(scope.clone()).or_insert(nobody);
            signers.kind = grant.kind;
            signers.retired.remove(&creator);
            signers.active.insert(creator.clone());
        }
        Ok(())
    }

    /// Or in fewer.
    pub fn revoke(&mut self, revoke: &RevokeSigner) {
        let creator = Name(revoke.creator.clone());
        let named = |scope: &Scope| revoke.scopes.is_empty() || revoke.scopes.contains(scope);
        for (_, signers) in self.scopes.iter_mut().filter(|(scope, _)| named(scope)) {
            let was = signers.active.remove(&creator);
            if revoke.distrust {
                signers.retired.remove(&creator);
            } else if was {
                signers.retired.insert(creator.clone());
            }
        }
        // What nobody may sign is what no scope names; the default rejects it.
        self.scopes.retain(|_, signers| !signers.active.is_empty() || !signers.retired.is_empty());
    }

    /// Where he signs, or signed.
    pub fn scopes_of(&self, creator: &AccountName) -> impl Iterator<Item = &Scope> {
        let creator = Name(creator.clone());
        let his =
            move |signers: &Signers| signers.active.contains(&creator) || signers.retired.contains(&creator);
        self.scopes.iter().filter(move |(_, signers)| his(signers)).map(|(scope, _)| scope)
    }

    /// Keys of those who have no scope are not kept.
    pub fn forget_keys(&mut self) {
        let signing: BTreeSet<Name> = self
            .scopes
            .values()
            .flat_map(|signers| signers.active.iter().chain(&signers.retired))
            .cloned()
            .collect();
        self.keys.retain(|creator, _| signing.contains(creator));
    }

    /// The keys that are good for a repository or a scope, each once.
    fn keys_for(&self, scope: &Scope, kind: SignatureKind) -> Vec<Vec<u8>> {
        let names: BTreeSet<&Name> = self
            .around(scope.as_str())
            .flat_map(|(_, signers)| signers.active.iter().chain(&signers.retired))
            .collect();
        let keys = names.into_iter().flat_map(|name| self.keys.get(name).into_iter().flatten());
        keys.filter(|key| key.kind == kind).map(Key::bytes).collect()
    }

    /// May he sign there, and with which keys? The scope that decides, and what is demanded in it.
    pub fn signing(&self, creator: &AccountName, repository: &Scope) -> Option<(SignatureKind, Vec<&Key>)> {
        let creator = Name(creator.clone());
        let kind = self.around(repository.as_str()).next()?.1.kind;
        let may = self.around(repository.as_str()).any(|(_, signers)| signers.active.contains(&creator));
        let keys = self.keys.get(&creator).into_iter().flatten().filter(|key| key.kind == kind);
        may.then(|| (kind, keys.collect()))
    }

    /// Would a signature of that key be accepted there?
    pub fn accepts(&self, creator: &AccountName, key: &Fingerprint, repository: &str) -> bool {
        let creator = Name(creator.clone());
        let is_signer =
            |signers: &Signers| signers.active.contains(&creator) || signers.retired.contains(&creator);
        let good = |key_: &Key| key_.fingerprint == *key;
        self.around(repository).any(|(_, signers)| is_signer(signers))
            && self.keys.get(&creator).is_some_and(|keys| keys.iter().any(good))
    }

    /// Nothing but what these keys have signed, in these scopes.
    pub fn policy(&self) -> Policy {
        let mut policy = Policy::reject_all();
        let docker = policy.transports.entry("docker".into()).or_default();
        for (scope, signers) in &self.scopes {
            let keys = self.keys_for(scope, signers.kind);
            let demanded = match signers.kind {
                _ if keys.is_empty() => Requirement::Reject,
                // One keyring: every version of containers/image reads several keys there.
                SignatureKind::Gpg => {
                    Requirement::SignedBy(SignedBy { keys: Keyring::Data(keys.concat()), identity: None })
                }
                SignatureKind::Sigstore => {
                    // Old versions know no list.
                    let keys = match <[_; 1]>::try_from(keys) {
                        Ok([key]) => PublicKeys::Data(key),
                        Err(keys) => PublicKeys::Datas(keys),
                    };
                    let keys = SigstoreKeys::Keys(keys);
                    Requirement::SigstoreSigned(SigstoreSigned { keys, rekor: None, identity: None })
                }
            };
            docker.insert(scope.as_str().to_owned(), vec![demanded]);
        }
        policy
    }

    /// The registries of all scopes, and the own.
    fn registries(&self) -> BTreeMap<String, bool> {
        let own = std::iter::once((self.settings.registry.as_str().to_owned(), false));
        let mut all: BTreeMap<String, bool> = own.collect();
        for (scope, signers) in &self.scopes {
            let registry = scope.as_str().split('/').next().unwrap_or_default();
            *all.entry(registry.to_owned()).or_default() |= signers.kind == SignatureKind::Sigstore;
        }
        all
    }

    /// All files but `/etc/hosts`.
    pub fn files(&self) -> Vec<Written> {
        // Not as default-docker: the distribution has that in a file of its own, and two of them are an error.
        let lookaside = |attachments: bool| Lookaside {
            lookaside: Some(self.settings.lookaside()),
            use_sigstore_attachments: attachments.then_some(true),
            ..Lookaside::default()
        };
        let docker =
            self.registries().into_iter().map(|(registry, attachments)| (registry, lookaside(attachments)));
        let registries_d = RegistriesD { default_docker: None, docker: docker.collect() };
        let insecure = self.settings.plain_http.then(|| {
            let location = self.settings.registry.as_str().to_owned();
            let registries = vec![Registry { prefix: None, location, insecure: true, blocked: false }];
            RegistriesConf { unqualified_search_registries: None, registries }
        });
        vec![
            Written { path: REGISTRIES_D, bytes: Some(registries_d.render()) },
            Written { path: REGISTRIES_CONF, bytes: insecure.map(|conf| conf.render()) },
            Written { path: POLICY, bytes: Some(self.policy().render()) },
        ]
    }

    /// `/etc/hosts` as it is, with podsec's block in it.
    ///
    /// # Errors
    /// `HostsConflict`
    pub fn hosts(&self, there: &[u8]) -> Result<Vec<u8>, Failure> {
        hosts::with_block(there, self.block().as_ref())
            .map_err(|error| Failure::new(Reason::HostsConflict, format!("{HOSTS}: {error}")))
    }

    fn block(&self) -> Option<Block> {
        let Settings { registry, signatures, address, names, .. } = &self.settings;
        let own = [registry.host(), signatures.host()].into_iter();
        let mut all: Vec<String> =
            own.chain(names.iter().map(podsec_policy::trust::HostName::as_str)).map(str::to_owned).collect();
        // What is an address already needs no line.
        all.retain(|name| name.parse::<std::net::IpAddr>().is_err());
        let mut seen = BTreeSet::new();
        all.retain(|name| seen.insert(name.clone()));
        address.filter(|_| !all.is_empty()).map(|address| Block { address, names: all })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::trust::{Endpoint, TrustReason};

    fn trust() -> Trust {
        Trust::new(Settings {
            registry: Endpoint::new("registry.local").unwrap(),
            signatures: Endpoint::new("sigstore.local:81").unwrap(),
            plain_http: true,
            address: Some("10.0.0.1".parse().unwrap()),
            names: Vec::new(),
        })
    }

    fn account(name: &str) -> AccountName {
        AccountName::new(name).unwrap()
    }

    fn scope(text: &str) -> Scope {
        Scope::new(text).unwrap()
    }

    fn grant(creator: &str, scopes: &[&str], shared: bool, kind: SignatureKind) -> GrantSigner {
        let scopes = scopes.iter().map(|&text| scope(text)).collect();
        GrantSigner { creator: account(creator), scopes, kind, shared, reason: TrustReason::default() }
    }

    fn revoke(creator: &str, scopes: &[&str], distrust: bool) -> RevokeSigner {
        let scopes = scopes.iter().map(|&text| scope(text)).collect();
        RevokeSigner { creator: account(creator), scopes, distrust, reason: TrustReason::default() }
    }

    fn key(number: u8, kind: SignatureKind) -> Key {
        let fingerprint = Fingerprint::new(&format!("{number:040}")).unwrap();
        Key { fingerprint, kind, key: format!("{number:02x}") }
    }

    /// What is demanded of an image: the bytes of all keys that would do.
    fn demanded(trust: &Trust, image: &str) -> Result<Vec<u8>, String> {
        let policy = trust.policy();
        match policy.decide(image).1 {
            [Requirement::SignedBy(SignedBy { keys: Keyring::Data(keys), identity: None })] => {
                Ok(keys.clone())
            }
            [
                Requirement::SigstoreSigned(SigstoreSigned {
                    keys: SigstoreKeys::Keys(PublicKeys::Data(key)),
                    ..
                }),
            ] => Ok([b"sigstore ", &key[..]].concat()),
            other => Err(format!("{other:?}")),
        }
    }

    use SignatureKind::{Gpg, Sigstore};

    #[test]
    fn only_whom_trust_names_signs() {
        let mut trust = trust();
        trust.grant(&grant("carla", &["registry.local/a"], false, Gpg)).unwrap();
        assert_eq!(demanded(&trust, "registry.local/a/x:1"), Err("[Reject]".into()), "nobody has a key yet");
        trust.keys.insert(Name(account("carla")), vec![key(1, Gpg), key(2, Gpg), key(3, Sigstore)]);
        trust.keys.insert(Name(account("dan")), vec![key(4, Gpg)]);
        assert_eq!(demanded(&trust, "registry.local/a/x:1"), Ok(vec![1, 2]));
        for other in
            ["registry.local/b:1", "registry.local/ab:1", "other.local/a/x:1", "docker.io/library/x:1"]
        {
            assert_eq!(demanded(&trust, other), Err("[Reject]".into()), "{other}");
        }
        assert_eq!(trust.policy().default, [Requirement::Reject]);
    }

    #[test]
    fn scopes_have_their_signers() {
        let mut trust = trust();
        trust.keys.insert(Name(account("carla")), vec![key(1, Gpg)]);
        trust.keys.insert(Name(account("dan")), vec![key(4, Gpg)]);
        trust.grant(&grant("carla", &["registry.local/a"], false, Gpg)).unwrap();
        for taken in ["registry.local/a", "registry.local/a/b", "registry.local"] {
            let failure = trust.clone().grant(&grant("dan", &[taken], false, Gpg)).unwrap_err();
            assert_eq!(failure.reason, Reason::ScopeTaken, "{taken}");
            assert!(trust.clone().grant(&grant("dan", &[taken], true, Sigstore)).is_err(), "{taken}");
        }
        assert!(trust.clone().grant(&grant("dan", &["registry.local/ab"], false, Gpg)).is_ok());
        // Who signs around it signs in it: nothing is taken away from carla.
        trust.grant(&grant("dan", &["registry.local/a/b"], true, Gpg)).unwrap();
        assert_eq!(demanded(&trust, "registry.local/a/b:1"), Ok(vec![1, 4]));
        assert_eq!(demanded(&trust, "registry.local/a:1"), Ok(vec![1]));
        let may = |creator, repository| trust.signing(&account(creator), &scope(repository)).is_some();
        assert!(may("carla", "registry.local/a/b/c") && may("dan", "registry.local/a/b"));
        assert!(
            !may("dan", "registry.local/a")
                && !may("dan", "registry.local/c")
                && !may("eve", "registry.local/a")
        );
    }

    #[test]
    fn what_is_revoked() {
        let mut trust = trust();
        trust.keys.insert(Name(account("carla")), vec![key(1, Gpg)]);
        trust.grant(&grant("carla", &["registry.local/a", "registry.local/b"], false, Gpg)).unwrap();
        trust.revoke(&revoke("carla", &["registry.local/a"], false));
        assert!(trust.signing(&account("carla"), &scope("registry.local/a")).is_none());
        assert_eq!(demanded(&trust, "registry.local/a:1"), Ok(vec![1]), "what he signed stays trusted");
        assert!(trust.signing(&account("carla"), &scope("registry.local/b")).is_some());
        trust.revoke(&revoke("carla", &[], true));
        trust.forget_keys();
        assert_eq!(demanded(&trust, "registry.local/a:1"), Err("[Reject]".into()));
        assert!(trust.scopes.is_empty() && trust.keys.is_empty());
    }

    #[test]
    fn other_kinds_of_signatures() {
        let mut trust = trust();
        trust.keys.insert(Name(account("carla")), vec![key(1, Gpg), key(3, Sigstore)]);
        trust.grant(&grant("carla", &["registry.local/a"], false, Gpg)).unwrap();
        trust.grant(&grant("carla", &["registry.local/a"], false, Sigstore)).unwrap();
        assert_eq!(demanded(&trust, "registry.local/a:1"), Ok(b"sigstore \x03".to_vec()));
        let files = trust.files();
        let text = |path| {
            let file = files.iter().find(|file| file.path == path).unwrap();
            String::from_utf8(file.bytes.clone().unwrap()).unwrap()
        };
        assert!(text(REGISTRIES_D).contains("use-sigstore-attachments: true"));
        assert!(text(REGISTRIES_CONF).contains("insecure = true"));
    }

    #[test]
    fn names_in_hosts() {
        let trust = trust();
        let text = trust.hosts(b"127.0.0.1 localhost\n").unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.contains("10.0.0.1") && text.contains("registry.local") && text.contains("sigstore.local")
        );
        let failure = trust.hosts(b"6.6.6.6 registry.local\n").unwrap_err();
        assert_eq!(failure.reason, Reason::HostsConflict);
    }
}
