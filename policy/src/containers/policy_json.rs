//! containers-policy.json(5): which images are accepted.
//!
//! Owns the document as types, and which requirements count for an image. Must not do: evaluate them.
//!
//! What is read here is a subset of what containers/image reads. Left out is what no image passes anyway
//! (`signedBaseLayer`, types of keys other than `GPGKeys`, an empty list of keys), text that is not UTF-8, base64 with line
//! breaks in it, and scopes of ostree and containers-storage. The versions at members are those of containers/image that read them
//! first; an older one refuses the whole file. podman 4.3 has 5.23.

use super::DocumentError;
use super::reference::{Reference, is_name};
use super::tree::{Members, Node, Tree};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;

/// The document. A list of requirements must not be empty: it is written as it is, and its readers refuse everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where nothing else counts.
    pub default: Vec<Requirement>,
    /// By transport (containers-transports(5)) and scope; the scope "" is the whole transport.
    pub transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// One requirement; an image has to meet all of its list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// Every image, whoever made it.
    InsecureAcceptAnything,
    /// No image.
    Reject,
    /// Simple signing, by OpenPGP keys.
    SignedBy(SignedBy),
    /// A sigstore signature; 5.22.
    SigstoreSigned(SigstoreSigned),
}

/// `signedBy`, with `"keyType": "GPGKeys"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedBy {
    /// Any of them may have signed.
    pub keys: Keyring,
    /// Of what; `None` is [`Identity::MatchRepoDigestOrExact`].
    pub identity: Option<Identity>,
}

/// OpenPGP keys, binary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keyring {
    /// `keyPath`: a file.
    Path(String),
    /// `keyPaths`: files; 5.23.
    Paths(Vec<String>),
    /// `keyData`: the keyring itself, one or more keys.
    Data(Vec<u8>),
}

/// `sigstoreSigned`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigstoreSigned {
    /// Whose signature.
    pub keys: SigstoreKeys,
    /// `rekorPublicKey…`: of the log that the signature has to be in; 5.24.
    pub rekor: Option<PublicKeys>,
    /// Of what; `None` is [`Identity::MatchRepoDigestOrExact`].
    pub identity: Option<Identity>,
}

/// By what a signer is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SigstoreKeys {
    /// His key.
    Keys(PublicKeys),
    /// A certificate of Fulcio's; needs [`SigstoreSigned::rekor`]; 5.24.
    Fulcio(Box<Fulcio>),
    /// A certificate of an authority of one's own; 5.34.1.
    Pki(Box<Pki>),
}

/// Public keys, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKeys {
    /// `keyPath`: a file.
    Path(String),
    /// `keyPaths`: files; 5.32.2.
    Paths(Vec<String>),
    /// `keyData`: one key.
    Data(Vec<u8>),
    /// `keyDatas`: several; 5.32.2.
    Datas(Vec<Vec<u8>>),
}

/// `fulcio`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fulcio {
    /// `caPath` or `caData`
    pub ca: Certificates,
    /// `oidcIssuer`
    pub oidc_issuer: String,
    /// `subjectEmail`
    pub subject_email: String,
}

/// `pki`; one of the subjects at least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pki {
    /// `caRootsPath` or `caRootsData`
    pub roots: Certificates,
    /// `caIntermediatesPath` or `caIntermediatesData`
    pub intermediates: Option<Certificates>,
    /// `subjectEmail`
    pub subject_email: Option<String>,
    /// `subjectHostname`
    pub subject_hostname: Option<String>,
}

/// Certificates, PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificates {
    /// A file.
    Path(String),
    /// Themselves.
    Data(Vec<u8>),
}

/// `signedIdentity`: which name a signature has to be for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The image's.
    MatchExact,
    /// The same, or its repository, if the image is named by a digest.
    MatchRepoDigestOrExact,
    /// Its repository, whatever the tag.
    MatchRepository,
    /// `dockerReference`, with a tag or a digest.
    ExactReference(String),
    /// `dockerRepository`, whatever the tag.
    ExactRepository(String),
    /// Where the image's begins with the one, the other instead of that.
    RemapIdentity {
        /// `host[:port][/path]`
        prefix: String,
        /// The same.
        signed_prefix: String,
    },
}

impl Policy {
    /// Rejects every image.
    #[must_use]
    pub fn reject_all() -> Self {
        Self { default: vec![Requirement::Reject], transports: BTreeMap::new() }
    }

    /// # Errors
    /// [`DocumentError`]
    pub fn parse(text: &[u8]) -> Result<Self, DocumentError> {
        let tree: Tree =
            serde_json::from_slice(text).map_err(|error| DocumentError::Syntax(error.to_string()))?;
        let mut top = Node::top("policy", tree).members()?;
        let default = requirements(top.need("default")?)?;
        let mut transports = BTreeMap::new();
        if let Some(node) = top.take("transports") {
            for (transport, scopes) in node.members()?.rest() {
                let mut found = BTreeMap::new();
                for (scope, node) in scopes.members()?.rest() {
                    if !is_scope(&transport, &scope) {
                        return Err(node.wrong("is no scope of its transport"));
                    }
                    found.insert(scope, requirements(node)?);
                }
                transports.insert(transport, found);
            }
        }
        top.end()?;
        Ok(Self { default, transports })
    }

    /// The document, always the same for the same policy.
    #[must_use]
    pub fn render(&self) -> Vec<u8> {
        let list = |list: &[Requirement]| Tree::List(list.iter().map(Requirement::tree).collect());
        let scopes = |scopes: &BTreeMap<String, Vec<Requirement>>| {
            Tree::Map(scopes.iter().map(|(scope, found)| (scope.clone(), list(found))).collect())
        };
        let transports = self.transports.iter().map(|(transport, found)| (transport.clone(), scopes(found)));
        let mut top = vec![("default".to_owned(), list(&self.default))];
        if !self.transports.is_empty() {
            top.push(("transports".to_owned(), Tree::Map(transports.collect())));
        }
        // A tree of strings always can be written. If not: an empty file, which everybody refuses.
        let mut text = serde_json::to_vec_pretty(&Tree::Map(top)).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// What counts for an image of the transport `docker`, and the scope by which it was found; `None`: the default.
    /// `image` is `host[:port]/path`, perhaps with `:tag` or `@digest`; what is no name of an image is rejected.
    #[must_use]
    pub fn decide(&self, image: &str) -> (Option<&str>, &[Requirement]) {
        static REJECT: [Requirement; 1] = [Requirement::Reject];
        let Some(reference) = Reference::parse(image) else { return (None, &REJECT) };
        let found = self.transports.get("docker").and_then(|scopes| {
            reference.scopes().iter().find_map(|scope| scopes.get_key_value(scope.as_str()))
        });
        found.map_or((None, &self.default), |(scope, found)| (Some(scope), found))
    }
}

/// As the transports of containers/image see it (`ValidatePolicyConfigurationScope`); those that it does not know take
/// every text.
fn is_scope(transport: &str, scope: &str) -> bool {
    let is_path = |text: &str| {
        text.strip_prefix('/')
            .is_some_and(|rest| !rest.split('/').any(|part| matches!(part, "" | "." | "..")))
    };
    scope.is_empty()
        || match transport {
            "dir" | "oci" | "oci-archive" | "sif" => is_path(scope),
            "docker-archive" | "tarball" | "ostree" | "containers-storage" => false,
            // The digest of an image has no namespaces.
            "docker-daemon" => {
                !["sha256:", "sha384:", "sha512:"].iter().any(|algorithm| scope.starts_with(algorithm))
            }
            "atomic" => {
                let parts: Vec<_> = scope.split('/').skip(1).collect();
                match parts.as_slice() {
                    [] => true,
                    [namespace] => !namespace.contains(':'),
                    [namespace, stream] => !namespace.contains(':') && stream.matches(':').count() <= 1,
                    _ => false,
                }
            }
            _ => true,
        }
}

fn requirements(node: Node) -> Result<Vec<Requirement>, DocumentError> {
    node.some(Requirement::read)
}

impl Requirement {
    fn read(node: Node) -> Result<Self, DocumentError> {
        let mut members = node.members()?;
        let kind = members.need("type")?;
        let found = match kind.text()? {
            "insecureAcceptAnything" => Self::InsecureAcceptAnything,
            "reject" => Self::Reject,
            "signedBy" => Self::SignedBy(SignedBy::read(&mut members)?),
            "sigstoreSigned" => Self::SigstoreSigned(SigstoreSigned::read(&mut members)?),
            _ => return Err(kind.wrong("is no type of requirement that is known here")),
        };
        members.end()?;
        Ok(found)
    }

    fn tree(&self) -> Tree {
        let mut members = Vec::new();
        match self {
            Self::InsecureAcceptAnything => text(&mut members, "type", "insecureAcceptAnything"),
            Self::Reject => text(&mut members, "type", "reject"),
            Self::SignedBy(signed) => {
                text(&mut members, "type", "signedBy");
                text(&mut members, "keyType", "GPGKeys");
                match &signed.keys {
                    Keyring::Path(path) => text(&mut members, "keyPath", path),
                    Keyring::Paths(paths) => texts(&mut members, "keyPaths", paths),
                    Keyring::Data(bytes) => text(&mut members, "keyData", &STANDARD.encode(bytes)),
                }
                identity(&mut members, signed.identity.as_ref());
            }
            Self::SigstoreSigned(signed) => {
                text(&mut members, "type", "sigstoreSigned");
                match &signed.keys {
                    SigstoreKeys::Keys(keys) => keys.write(&mut members, KEY),
                    SigstoreKeys::Fulcio(fulcio) => members.push(("fulcio".to_owned(), fulcio.tree())),
                    SigstoreKeys::Pki(pki) => members.push(("pki".to_owned(), pki.tree())),
                }
                if let Some(keys) = &signed.rekor {
                    keys.write(&mut members, REKOR);
                }
                identity(&mut members, signed.identity.as_ref());
            }
        }
        Tree::Map(members)
    }
}

impl SignedBy {
    fn read(members: &mut Members) -> Result<Self, DocumentError> {
        let kind = members.need("keyType")?;
        kind.text_if(|kind| kind == "GPGKeys", "must be GPGKeys")?;
        let path = members.take("keyPath").map(|node| path_of(&node).map(Keyring::Path));
        let paths = members.take("keyPaths").map(|node| node.some(|node| path_of(&node)).map(Keyring::Paths));
        let data = members.take("keyData").map(|node| bytes_of(&node).map(Keyring::Data));
        let keys = at_most_one([path, paths, data], members)?
            .ok_or_else(|| members.wrong("needs keyPath, keyPaths or keyData"))?;
        Ok(Self { keys, identity: Identity::read(members)? })
    }
}

impl SigstoreSigned {
    fn read(members: &mut Members) -> Result<Self, DocumentError> {
        let keys = PublicKeys::read(members, KEY).transpose().map(|keys| keys.map(SigstoreKeys::Keys));
        let fulcio =
            members.take("fulcio").map(|node| Fulcio::read(node).map(Box::new).map(SigstoreKeys::Fulcio));
        let pki = members.take("pki").map(|node| Pki::read(node).map(Box::new).map(SigstoreKeys::Pki));
        let keys = at_most_one([keys, fulcio, pki], members)?
            .ok_or_else(|| members.wrong("needs keyPath, keyPaths, keyData, keyDatas, fulcio or pki"))?;
        let rekor = PublicKeys::read(members, REKOR)?;
        if matches!(keys, SigstoreKeys::Fulcio(_)) && rekor.is_none() {
            return Err(members.wrong("needs a key of Rekor's for fulcio"));
        }
        Ok(Self { keys, rekor, identity: Identity::read(members)? })
    }
}

/// What [`PublicKeys`] are called: path, paths, data, datas.
type Names = [&'static str; 4];
const KEY: Names = ["keyPath", "keyPaths", "keyData", "keyDatas"];
const REKOR: Names =
    ["rekorPublicKeyPath", "rekorPublicKeyPaths", "rekorPublicKeyData", "rekorPublicKeyDatas"];

impl PublicKeys {
    fn read(members: &mut Members, names: Names) -> Result<Option<Self>, DocumentError> {
        let [name_of_path, name_of_paths, name_of_data, name_of_datas] = names;
        let one_path = members.take(name_of_path).map(|node| path_of(&node).map(Self::Path));
        let paths = members.take(name_of_paths).map(|node| node.some(|node| path_of(&node)).map(Self::Paths));
        let one_data = members.take(name_of_data).map(|node| bytes_of(&node).map(Self::Data));
        let datas =
            members.take(name_of_datas).map(|node| node.some(|node| bytes_of(&node)).map(Self::Datas));
        at_most_one([one_path, paths, one_data, datas], members)
    }

    fn write(&self, members: &mut Vec<(String, Tree)>, names: Names) {
        let [name_of_path, name_of_paths, name_of_data, name_of_datas] = names;
        match self {
            Self::Path(path) => text(members, name_of_path, path),
            Self::Paths(paths) => texts(members, name_of_paths, paths),
            Self::Data(bytes) => text(members, name_of_data, &STANDARD.encode(bytes)),
            Self::Datas(datas) => {
                let datas: Vec<_> = datas.iter().map(|bytes| STANDARD.encode(bytes)).collect();
                texts(members, name_of_datas, &datas);
            }
        }
    }
}

impl Fulcio {
    fn read(node: Node) -> Result<Self, DocumentError> {
        let mut members = node.members()?;
        let ca = Certificates::read(&mut members, "caPath", "caData")?
            .ok_or_else(|| members.wrong("needs caPath or caData"))?;
        let oidc_issuer = members.need("oidcIssuer")?.text()?.to_owned();
        let subject_email = members.need("subjectEmail")?.text()?.to_owned();
        members.end()?;
        Ok(Self { ca, oidc_issuer, subject_email })
    }

    fn tree(&self) -> Tree {
        let mut members = Vec::new();
        self.ca.write(&mut members, "caPath", "caData");
        text(&mut members, "oidcIssuer", &self.oidc_issuer);
        text(&mut members, "subjectEmail", &self.subject_email);
        Tree::Map(members)
    }
}

impl Pki {
    fn read(node: Node) -> Result<Self, DocumentError> {
        let mut members = node.members()?;
        let roots = Certificates::read(&mut members, "caRootsPath", "caRootsData")?
            .ok_or_else(|| members.wrong("needs caRootsPath or caRootsData"))?;
        let intermediates = Certificates::read(&mut members, "caIntermediatesPath", "caIntermediatesData")?;
        let mut subject = |key| members.take(key).map(|node| node.text().map(str::to_owned)).transpose();
        let (subject_email, subject_hostname) = (subject("subjectEmail")?, subject("subjectHostname")?);
        if subject_email.is_none() && subject_hostname.is_none() {
            return Err(members.wrong("needs subjectEmail or subjectHostname"));
        }
        members.end()?;
        Ok(Self { roots, intermediates, subject_email, subject_hostname })
    }

    fn tree(&self) -> Tree {
        let mut members = Vec::new();
        self.roots.write(&mut members, "caRootsPath", "caRootsData");
        if let Some(certificates) = &self.intermediates {
            certificates.write(&mut members, "caIntermediatesPath", "caIntermediatesData");
        }
        for (key, subject) in
            [("subjectEmail", &self.subject_email), ("subjectHostname", &self.subject_hostname)]
        {
            subject.iter().for_each(|subject| text(&mut members, key, subject));
        }
        Tree::Map(members)
    }
}

impl Certificates {
    fn read(
        members: &mut Members,
        name_of_path: &str,
        name_of_data: &str,
    ) -> Result<Option<Self>, DocumentError> {
        let path = members.take(name_of_path).map(|node| path_of(&node).map(Self::Path));
        let data = members.take(name_of_data).map(|node| bytes_of(&node).map(Self::Data));
        at_most_one([path, data], members)
    }

    fn write(&self, members: &mut Vec<(String, Tree)>, name_of_path: &str, name_of_data: &str) {
        match self {
            Self::Path(path) => text(members, name_of_path, path),
            Self::Data(bytes) => text(members, name_of_data, &STANDARD.encode(bytes)),
        }
    }
}

impl Identity {
    fn read(members: &mut Members) -> Result<Option<Self>, DocumentError> {
        let Some(node) = members.take("signedIdentity") else { return Ok(None) };
        let mut members = node.members()?;
        let kind = members.need("type")?;
        let identity = match kind.text()? {
            "matchExact" => Self::MatchExact,
            "matchRepoDigestOrExact" => Self::MatchRepoDigestOrExact,
            "matchRepository" => Self::MatchRepository,
            "exactReference" => Self::ExactReference(members.need("dockerReference")?.text_if(
                |text| Reference::parse(text).is_some_and(|reference| reference.is_exact()),
                "is no image with a tag or a digest",
            )?),
            "exactRepository" => Self::ExactRepository(
                members
                    .need("dockerRepository")?
                    .text_if(|text| Reference::parse(text).is_some(), "is no repository")?,
            ),
            "remapIdentity" => {
                let mut prefix = |key| members.need(key)?.text_if(is_name, "is not host[:port][/path]");
                Self::RemapIdentity { prefix: prefix("prefix")?, signed_prefix: prefix("signedPrefix")? }
            }
            _ => return Err(kind.wrong("is no type of identity that is known here")),
        };
        members.end()?;
        Ok(Some(identity))
    }
}

fn identity(members: &mut Vec<(String, Tree)>, identity: Option<&Identity>) {
    let Some(identity) = identity else { return };
    let mut inner = Vec::new();
    match identity {
        Identity::MatchExact => text(&mut inner, "type", "matchExact"),
        Identity::MatchRepoDigestOrExact => text(&mut inner, "type", "matchRepoDigestOrExact"),
        Identity::MatchRepository => text(&mut inner, "type", "matchRepository"),
        Identity::ExactReference(reference) => {
            text(&mut inner, "type", "exactReference");
            text(&mut inner, "dockerReference", reference);
        }
        Identity::ExactRepository(repository) => {
            text(&mut inner, "type", "exactRepository");
            text(&mut inner, "dockerRepository", repository);
        }
        Identity::RemapIdentity { prefix, signed_prefix } => {
            text(&mut inner, "type", "remapIdentity");
            text(&mut inner, "prefix", prefix);
            text(&mut inner, "signedPrefix", signed_prefix);
        }
    }
    members.push(("signedIdentity".to_owned(), Tree::Map(inner)));
}

/// What is there of things that exclude each other.
fn at_most_one<T, const N: usize>(
    found: [Option<Result<T, DocumentError>>; N],
    members: &Members,
) -> Result<Option<T>, DocumentError> {
    let mut found = found.into_iter().flatten();
    let first = found.next().transpose()?;
    match found.next() {
        Some(_) => Err(members.wrong("says in two ways which keys are meant")),
        None => Ok(first),
    }
}

fn path_of(node: &Node) -> Result<String, DocumentError> {
    node.text().map(str::to_owned)
}

fn bytes_of(node: &Node) -> Result<Vec<u8>, DocumentError> {
    STANDARD.decode(node.text()?).map_err(|_| node.wrong("is not base64 (RFC 4648 §4)"))
}

fn text(members: &mut Vec<(String, Tree)>, key: &str, value: &str) {
    members.push((key.to_owned(), Tree::Text(value.to_owned())));
}

fn texts(members: &mut Vec<(String, Tree)>, key: &str, values: &[String]) {
    members.push((key.to_owned(), Tree::List(values.iter().cloned().map(Tree::Text).collect())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(text: &str) -> String {
        Policy::parse(text.as_bytes()).unwrap_err().to_string()
    }

    /// A policy with this one requirement.
    fn with(requirement: &str) -> String {
        format!("{{\"default\": [{requirement}]}}")
    }

    #[test]
    fn as_it_is_written() {
        let mut policy = Policy::reject_all();
        assert_eq!(
            String::from_utf8(policy.render()).unwrap(),
            "{\n  \"default\": [\n    {\n      \"type\": \"reject\"\n    }\n  ]\n}\n"
        );
        let signed =
            SignedBy { keys: Keyring::Data(vec![0x99, 1]), identity: Some(Identity::MatchRepository) };
        let scopes = BTreeMap::from([("a.b/c".to_owned(), vec![Requirement::SignedBy(signed)])]);
        policy.transports.insert("docker".to_owned(), scopes);
        let compact: Tree = serde_json::from_slice(&policy.render()).unwrap();
        assert_eq!(
            serde_json::to_string(&compact).unwrap(),
            "{\"default\":[{\"type\":\"reject\"}],\"transports\":{\"docker\":{\"a.b/c\":[{\"type\":\"signedBy\",\
             \"keyType\":\"GPGKeys\",\"keyData\":\"mQE=\",\"signedIdentity\":{\"type\":\"matchRepository\"}}]}}}"
        );
        assert_eq!(Policy::parse(&policy.render()), Ok(policy));
    }

    #[test]
    fn errors_name_the_place() {
        let deep = "{\"default\": [{\"type\": \"reject\"}], \"transports\": {\"docker\": {\"a\\u001b.b\": \
                    [{\"type\": \"reject\"}, {\"type\": \"signedBy\", \"keyType\": \"GPGKeys\", \"keyData\": \"!\"}]}}}";
        assert_eq!(
            problem(deep),
            "policy.transports.docker[\"a\\u{1b}.b\"][1].keyData: is not base64 (RFC 4648 §4)"
        );
        assert_eq!(problem("{}"), "policy.default: is missing");
        assert_eq!(problem("{\"default\": []}"), "policy.default: must not be empty");
        assert_eq!(
            problem("{\"default\": [{\"type\": \"reject\"}], \"d\\u0065fault\": 1}"),
            "the key \"default\" is there twice at line 1 column 52"
        );
        assert_eq!(
            problem(&with("{\"type\": \"reject\", \"x\": 1}")),
            "policy.default[0].x: is no key that is known here"
        );
    }

    #[test]
    fn one_way_to_say_whose_keys() {
        let gpg = "\"type\": \"signedBy\", \"keyType\": \"GPGKeys\"";
        let sigstore = "\"type\": \"sigstoreSigned\"";
        for (good, keys) in [
            (gpg, "\"keyPath\": \"/k\""),
            (gpg, "\"keyPaths\": [\"/k\"]"),
            (sigstore, "\"keyDatas\": [\"AA==\"]"),
            (sigstore, "\"keyPath\": \"/k\", \"rekorPublicKeyData\": \"AA==\""),
            (
                sigstore,
                "\"fulcio\": {\"caPath\": \"/c\", \"oidcIssuer\": \"i\", \"subjectEmail\": \"e\"}, \
                 \"rekorPublicKeyPath\": \"/r\"",
            ),
            (sigstore, "\"pki\": {\"caRootsData\": \"AA==\", \"subjectHostname\": \"h\"}"),
        ] {
            assert!(Policy::parse(with(&format!("{{{good}, {keys}}}")).as_bytes()).is_ok(), "{keys}");
        }
        for (kind, keys) in [
            (gpg, "\"signedIdentity\": {\"type\": \"matchExact\"}"),
            (gpg, "\"keyPath\": \"/k\", \"keyData\": \"AA==\""),
            (gpg, "\"keyPath\": null, \"keyData\": \"AA==\""),
            (gpg, "\"keyPath\": \"\""),
            (gpg, "\"keyPaths\": []"),
            (gpg, "\"keyPaths\": [\"\"]"),
            (gpg, "\"keyDatas\": [\"AA==\"]"),
            (gpg, "\"keyData\": \"AA\""),
            (gpg, "\"keyData\": \"AB==\""),
            (gpg, "\"keyData\": \"A-_A\""),
            (gpg, "\"keyPath\": \"/k\", \"signedIdentity\": null"),
            (
                gpg,
                "\"keyPath\": \"/k\", \"signedIdentity\": {\"type\": \"exactReference\", \"dockerReference\": \"a.b/c\"}",
            ),
            (gpg, "\"keyPath\": \"/k\", \"rekorPublicKeyPath\": \"/r\""),
            ("\"type\": \"signedBy\"", "\"keyPath\": \"/k\""),
            ("\"type\": \"signedBy\", \"keyType\": \"X\"", "\"keyPath\": \"/k\""),
            (sigstore, "\"keyType\": \"GPGKeys\", \"keyPath\": \"/k\""),
            (sigstore, "\"keyData\": \"AA==\", \"keyDatas\": [\"AA==\"]"),
            (
                sigstore,
                "\"keyPath\": \"/k\", \"rekorPublicKeyPath\": \"/r\", \"rekorPublicKeyData\": \"AA==\"",
            ),
            (sigstore, "\"rekorPublicKeyPath\": \"/r\""),
            (sigstore, "\"fulcio\": {\"caPath\": \"/c\", \"oidcIssuer\": \"i\", \"subjectEmail\": \"e\"}"),
            (sigstore, "\"pki\": {\"caRootsData\": \"AA==\"}"),
            (
                sigstore,
                "\"pki\": {\"caRootsData\": \"AA==\", \"caRootsPath\": \"/c\", \"subjectEmail\": \"e\"}",
            ),
        ] {
            let text = with(&format!("{{{kind}, {keys}}}"));
            assert!(Policy::parse(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn scopes_of_transports() {
        for (transport, good, bad) in [
            ("dir", "/a/b", "/a/../b"),
            ("dir", "/a", "/"),
            ("oci", "/a:tag", "a"),
            ("oci-archive", "/a", "/a/"),
            ("docker-archive", "", "/a"),
            ("docker-daemon", "a.b/c", "sha256:00"),
            ("atomic", "h:1/n/s:t", "h/n:t"),
            ("atomic", "h", "h/n/s/x"),
        ] {
            assert!(is_scope(transport, good), "{transport} {good}");
            assert!(!is_scope(transport, bad), "{transport} {bad}");
        }
        assert_eq!(
            problem(
                "{\"default\": [{\"type\": \"reject\"}], \"transports\": {\"dir\": {\"a\": [{\"type\": \"reject\"}]}}}"
            ),
            "policy.transports.dir.a: is no scope of its transport"
        );
        assert!(is_scope("docker", "*.a.b") && is_scope("unheard-of", "/"));
    }

    #[test]
    fn decides_by_the_most_exact_scope() {
        let mut policy =
            Policy { default: vec![Requirement::InsecureAcceptAnything], ..Policy::reject_all() };
        assert_eq!(policy.decide("a.b/c"), (None, &policy.default[..]));
        let scopes =
            ["a.b/team/app:1", "a.b/team/app", "a.b/team", "a.b", "*.b", "x.y:1", "*.y", ""].map(|scope| {
                let path = Keyring::Path(format!("/{scope}"));
                (scope.to_owned(), vec![Requirement::SignedBy(SignedBy { keys: path, identity: None })])
            });
        policy.transports.insert("docker".to_owned(), BTreeMap::from(scopes));
        for (image, scope) in [
            ("a.b/team/app:1", "a.b/team/app:1"),
            ("a.b/team/app:2", "a.b/team/app"),
            ("a.b/team/app", "a.b/team/app"),
            ("a.b/team/application", "a.b/team"),
            ("a.b/teams/app", "a.b"),
            ("a.b:5000/team/app", "*.b"),
            ("c.a.b/team/app", "*.b"),
            ("x.y:1/app", "x.y:1"),
            ("x.y:2/app", "*.y"),
            ("x.y/app", "*.y"),
            ("y.z/app", ""),
        ] {
            let (found, requirements) = policy.decide(image);
            assert_eq!(found, Some(scope), "{image}");
            assert_eq!(requirements, &policy.transports["docker"][scope][..]);
        }
        for bad in ["", "a.b/team/App", "a.b/team/app:1\n", "a.b/../x"] {
            assert_eq!(policy.decide(bad), (None, &[Requirement::Reject][..]), "{bad:?}");
        }
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 1..40)
    }

    fn some<T: std::fmt::Debug>(one: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
        prop::collection::vec(one, 1..4)
    }

    fn identity() -> impl Strategy<Value = Option<Identity>> {
        let name = "[a-z]{1,3}\\.[a-z]{1,3}(:[1-9]{1,4})?(/[a-z]{1,5}){1,3}";
        prop_oneof![
            Just(None),
            Just(Some(Identity::MatchExact)),
            Just(Some(Identity::MatchRepoDigestOrExact)),
            Just(Some(Identity::MatchRepository)),
            name.prop_map(|name| Some(Identity::ExactReference(name + ":1"))),
            name.prop_map(|name| Some(Identity::ExactRepository(name))),
            (name, name)
                .prop_map(|(prefix, signed_prefix)| Some(Identity::RemapIdentity { prefix, signed_prefix })),
        ]
    }

    fn certificates() -> impl Strategy<Value = Certificates> {
        prop_oneof!["\\PC{1,9}".prop_map(Certificates::Path), bytes().prop_map(Certificates::Data)]
    }

    fn public_keys() -> impl Strategy<Value = PublicKeys> {
        prop_oneof![
            "\\PC{1,9}".prop_map(PublicKeys::Path),
            some("\\PC{1,9}").prop_map(PublicKeys::Paths),
            bytes().prop_map(PublicKeys::Data),
            some(bytes()).prop_map(PublicKeys::Datas),
        ]
    }

    fn sigstore() -> impl Strategy<Value = SigstoreSigned> {
        let maybe_keys = prop::option::of(public_keys());
        let plain = (public_keys(), maybe_keys).prop_map(|(keys, rekor)| (SigstoreKeys::Keys(keys), rekor));
        let fulcio = (certificates(), "\\PC{1,9}", "\\PC{1,9}", public_keys());
        let fulcio = fulcio.prop_map(|(ca, oidc_issuer, subject_email, rekor)| {
            (SigstoreKeys::Fulcio(Box::new(Fulcio { ca, oidc_issuer, subject_email })), Some(rekor))
        });
        let pki =
            (certificates(), prop::option::of(certificates()), prop::option::of("\\PC{1,9}"), "\\PC{1,9}");
        let pki = pki.prop_map(|(roots, intermediates, subject_email, host)| {
            let pki = Pki { roots, intermediates, subject_email, subject_hostname: Some(host) };
            (SigstoreKeys::Pki(Box::new(pki)), None)
        });
        (prop_oneof![plain, fulcio, pki], identity()).prop_map(|((keys, rekor), identity)| SigstoreSigned {
            keys,
            rekor,
            identity,
        })
    }

    fn requirement() -> impl Strategy<Value = Requirement> {
        let keyring = prop_oneof![
            "\\PC{1,9}".prop_map(Keyring::Path),
            some("\\PC{1,9}").prop_map(Keyring::Paths),
            bytes().prop_map(Keyring::Data),
        ];
        prop_oneof![
            Just(Requirement::Reject),
            Just(Requirement::InsecureAcceptAnything),
            (keyring, identity())
                .prop_map(|(keys, identity)| Requirement::SignedBy(SignedBy { keys, identity })),
            sigstore().prop_map(Requirement::SigstoreSigned),
        ]
    }

    proptest! {
        #[test]
        fn parse_is_the_inverse_of_render(
            default in some(requirement()),
            scopes in prop::collection::btree_map("\\PC{0,12}|[\\x00-\\x7f]{0,12}", some(requirement()), 0..4),
            transport in "docker|\\PC{0,6}x",
        ) {
            let policy = Policy { default, transports: BTreeMap::from([(transport, scopes)]) };
            let text = policy.render();
            prop_assert!(text.ends_with(b"\n"));
            prop_assert_eq!(Policy::parse(&text), Ok(policy));
        }

        #[test]
        fn never_panics(text in "\\PC{0,60}|[\\[\\]{}\",:a-z\\\\]{0,60}") {
            let _ = Policy::parse(text.as_bytes());
            let _ = Policy::reject_all().decide(&text);
        }
    }
}
