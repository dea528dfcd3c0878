//! What images are called: on the command line, in an archive, at a registry. The grammar is that of distribution/reference.
//!
//! Must not repair: what is no name is refused, since skopeo gets what comes out of here.

use podsec_policy::trust::Digest;
use podsec_policy::trust::is_tag;
use podsec_policy::user::Scope;
use std::fmt;

/// `registry.k8s.io`
const HOST_SIGNS: [char; 2] = ['.', ':'];
/// What skopeo(1) calls transports, and takes an image from.
const TRANSPORTS: [&str; 7] =
    ["docker", "containers-storage", "docker-daemon", "dir", "oci", "oci-archive", "docker-archive"];

/// Why a text is no name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum NameError {
    #[error(
        "an architecture is called as in Go, a-z and 0-9, at most 16 of them: amd64, arm64, ppc64le, 386"
    )]
    Architecture,
    #[error(
        "an image is called PATH:TAG: up to 8 parts of a-z and 0-9 with '.', '_', '__' or '-' between, and up to 128 letters, digits, '_', '.' and '-'"
    )]
    Image,
    #[error("{0:?} names no image: [TRANSPORT:][REGISTRY/]PATH[:TAG][@sha256:…]")]
    Reference(String),
    #[error("{0} does not say what the image is called: write NAME:TAG={0}")]
    Nameless(String),
    #[error(
        "--to takes REGISTRY[/PATH], where the registry's name has a dot (127.0.0.1:5000/team), or containers-storage:[REGISTRY[/PATH]]"
    )]
    Destination,
}

/// As Go calls it (GOARCH), and so `architecture` in the OCI image specification (config.md).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Architecture(String);

impl Architecture {
    const LONGEST: usize = 16;

    /// # Errors
    /// [`NameError::Architecture`]
    pub fn new(text: &str) -> Result<Self, NameError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = (1..=Self::LONGEST).contains(&text.len()) && text.bytes().all(allowed);
        if fits { Ok(Self(text.to_owned())) } else { Err(NameError::Architecture) }
    }

    /// Of this machine.
    #[must_use]
    pub fn own() -> Self {
        let name = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Self(name.to_owned())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an image is called in an archive: `coredns/coredns:v1.11.1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageName {
    path: String,
    tag: String,
}

impl ImageName {
    /// # Errors
    /// [`NameError::Image`]
    pub fn new(text: &str) -> Result<Self, NameError> {
        let (path, tag) = text.rsplit_once(':').ok_or(NameError::Image)?;
        Self::of(path, tag)
    }

    fn of(path: &str, tag: &str) -> Result<Self, NameError> {
        // A scope is a registry and such a path.
        let fits = !path.is_empty() && Scope::new(format!("registry.local/{path}")).is_ok();
        if fits && is_tag(tag) {
            Ok(Self { path: path.to_owned(), tag: tag.to_owned() })
        } else {
            Err(NameError::Image)
        }
    }

    /// The same without the first parts of its path; `None` where nothing would be left.
    #[must_use]
    pub fn without(&self, parts: usize) -> Option<Self> {
        let rest: Vec<_> = self.path.split('/').skip(parts).collect();
        let path = rest.join("/");
        (!path.is_empty()).then(|| Self { path, tag: self.tag.clone() })
    }

    /// Does somebody who says this mean it? The path may be left out as far as its last part.
    #[must_use]
    pub fn is_meant_by(&self, text: &str) -> bool {
        let full = self.to_string();
        full == text || full.strip_suffix(text).is_some_and(|before| before.ends_with('/'))
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path, self.tag)
    }
}

/// An image to be fetched.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Source {
    /// As skopeo takes it: `docker://registry.k8s.io/pause:3.10`.
    pub reference: String,
    /// What it will be called.
    pub name: ImageName,
}

impl Source {
    /// `[NAME:TAG=][TRANSPORT:]…`; without a transport it is at a registry.
    ///
    /// # Errors
    /// [`NameError`]
    pub fn new(text: &str) -> Result<Self, NameError> {
        if let Some((name, reference)) = text.split_once('=')
            && let Ok(name) = ImageName::new(name)
        {
            return Ok(Self { reference: Self::reference(reference)?.0, name });
        }
        let (reference, name) = Self::reference(text)?;
        let name = name.ok_or_else(|| NameError::Nameless(text.to_owned()))?;
        Ok(Self { reference, name })
    }

    /// What skopeo takes, and a name, where the text has one.
    fn reference(text: &str) -> Result<(String, Option<ImageName>), NameError> {
        let unfit = || NameError::Reference(text.to_owned());
        if text.is_empty() || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(unfit());
        }
        let transport = text.split_once(':').filter(|(transport, _)| TRANSPORTS.contains(transport));
        // A repository may be called `oci`, with a tag; what follows a transport's colon is longer than that.
        let (transport, rest) = match transport {
            Some(("docker", rest)) => ("docker", rest.strip_prefix("//").ok_or_else(unfit)?),
            Some(found) => found,
            None => ("docker", text),
        };
        if rest.is_empty() {
            return Err(unfit());
        }
        match transport {
            "docker" => {
                let found = Repository::new(rest).ok_or_else(unfit)?;
                Ok((format!("docker://{}", found.reference()), found.name()))
            }
            "containers-storage" | "docker-daemon" => {
                // Also by an id, or with what is in brackets before it: then it has no name.
                let name = Repository::new(rest).and_then(|found| found.name());
                Ok((format!("{transport}:{rest}"), name))
            }
            _ => {
                let name = rest.split_once(':').and_then(|(_, name)| Repository::new(name)?.name());
                Ok((format!("{transport}:{rest}"), name))
            }
        }
    }

    /// The same image, fetched from another registry: of those of `registry.k8s.io`, and of those that name none.
    ///
    /// # Errors
    /// [`NameError`]
    pub fn from_registry(text: &str, registry: &Scope) -> Result<Self, NameError> {
        let found = Repository::new(text).ok_or_else(|| NameError::Reference(text.to_owned()))?;
        let name = found.name().ok_or_else(|| NameError::Nameless(text.to_owned()))?;
        let moved = match found.host {
            None | Some(KUBERNETES) => format!("{registry}/{}", found.rest()),
            Some(_) => text.to_owned(),
        };
        let moved = Repository::new(&moved).ok_or_else(|| NameError::Reference(text.to_owned()))?;
        Ok(Self { reference: format!("docker://{}", moved.reference()), name })
    }
}

/// Where the images of Kubernetes are.
const KUBERNETES: &str = "registry.k8s.io";

/// `[HOST/]PATH[:TAG][@sha256:…]`
struct Repository<'a> {
    host: Option<&'a str>,
    path: &'a str,
    tag: Option<&'a str>,
    digest: Option<Digest>,
}

impl<'a> Repository<'a> {
    fn new(text: &'a str) -> Option<Repository<'a>> {
        let (text, digest) = match text.split_once('@') {
            Some((text, digest)) => (text, Some(Digest::new(digest).ok()?)),
            None => (text, None),
        };
        let (host, rest) = match text.split_once('/') {
            Some((first, rest)) if first.contains(HOST_SIGNS) || first == "localhost" => (Some(first), rest),
            _ => (None, text),
        };
        let (path, tag) = rest.split_once(':').map_or((rest, None), |(path, tag)| (path, Some(tag)));
        // `localhost` is the one host without a dot that there is.
        let is_host = |host: &str| {
            let dotted =
                host.strip_prefix("localhost").map_or_else(|| host.to_owned(), |port| format!("a.b{port}"));
            Scope::new(dotted).is_ok()
        };
        let fits = host.is_none_or(is_host) && ImageName::of(path, tag.unwrap_or("latest")).is_ok();
        fits.then_some(Self { host, path, tag, digest })
    }

    /// skopeo takes a tag or a digest; the digest is what decides.
    fn reference(&self) -> String {
        let host = self.host.map(|host| format!("{host}/")).unwrap_or_default();
        match &self.digest {
            Some(digest) => format!("{host}{}@{digest}", self.path),
            None => format!("{host}{}:{}", self.path, self.tag.unwrap_or("latest")),
        }
    }

    /// All but the host.
    fn rest(&self) -> String {
        let tag = self.tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{}{tag}{digest}", self.path)
    }

    /// A digest alone is no name to find an image by.
    fn name(&self) -> Option<ImageName> {
        let tag = self.tag.or(self.digest.is_none().then_some("latest"))?;
        ImageName::of(self.path, tag).ok()
    }
}

/// Where images are brought to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// `registry.local/team`
    Registry(Scope),
    /// The caller's own store, below such a name.
    Storage(String),
}

impl Destination {
    /// # Errors
    /// [`NameError::Destination`]
    pub fn new(text: &str) -> Result<Self, NameError> {
        let scope = |text: &str| Scope::new(text).map_err(|_| NameError::Destination);
        match text.strip_prefix("containers-storage:") {
            // podman's own name for what comes from no registry.
            Some("") => Ok(Self::Storage("localhost".into())),
            Some(below) => scope(below).map(|scope| Self::Storage(scope.to_string())),
            None => scope(text.strip_prefix("docker://").unwrap_or(text)).map(Self::Registry),
        }
    }

    /// As skopeo takes it.
    #[must_use]
    pub fn reference(&self, name: &ImageName) -> String {
        match self {
            Self::Registry(scope) => format!("docker://{scope}/{name}"),
            Self::Storage(below) => format!("containers-storage:{below}/{name}"),
        }
    }

    /// Can it hold one image of several architectures?
    #[must_use]
    pub fn is_registry(&self) -> bool {
        matches!(self, Self::Registry(_))
    }
}

/// As people write it.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(scope) => write!(f, "{scope}"),
            Self::Storage(below) => write!(f, "containers-storage:{below}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures() {
        for good in ["amd64", "arm64", "arm", "ppc64le", "386", "s390x", "riscv64"] {
            assert_eq!(Architecture::new(good).unwrap().to_string(), good);
        }
        for bad in ["", ".", "..", "a/b", "AMD64", "amd64 ", "arm64/v8", "x86_64", "amd64amd64amd64am"] {
            assert_eq!(Architecture::new(bad), Err(NameError::Architecture), "{bad}");
        }
        assert!(Architecture::new(Architecture::own().as_str()).is_ok());
    }

    #[test]
    fn names() {
        for good in ["pause:3.10", "c10f/pause:3.10", "a/b/c:v1.11_x-Y", "a__b/c-d.e:_"] {
            assert_eq!(ImageName::new(good).unwrap().to_string(), good);
        }
        for bad in [
            "", "pause", "pause:", ":3", "/pause:3", "a//b:3", "../b:3", "A:3", "a:.3", "a:b/c", "-a:3",
            "a@b:3",
        ] {
            assert_eq!(ImageName::new(bad), Err(NameError::Image), "{bad}");
        }
        assert!(ImageName::new(&format!("a:{}", "3".repeat(128))).is_ok());
        assert!(ImageName::new(&format!("a:{}", "3".repeat(129))).is_err());
        let name = ImageName::new("c10f/coredns/coredns:v1").unwrap();
        assert_eq!(name.without(1), ImageName::new("coredns/coredns:v1").ok());
        assert_eq!((name.without(0), name.without(3)), (Some(name.clone()), None));
        assert!(name.is_meant_by("coredns:v1") && name.is_meant_by("c10f/coredns/coredns:v1"));
        assert!(!name.is_meant_by("dns:v1") && !name.is_meant_by("coredns") && !name.is_meant_by(""));
    }

    #[test]
    fn what_is_fetched_and_what_it_will_be_called() {
        let hex = "0".repeat(64);
        for (text, reference, name) in [
            ("pause:3", "docker://pause:3", "pause:3"),
            ("library/pause", "docker://library/pause:latest", "library/pause:latest"),
            (
                "registry.k8s.io/coredns/coredns:v1",
                "docker://registry.k8s.io/coredns/coredns:v1",
                "coredns/coredns:v1",
            ),
            ("docker://127.0.0.1:5000/a:1", "docker://127.0.0.1:5000/a:1", "a:1"),
            ("localhost:5000/a:1", "docker://localhost:5000/a:1", "a:1"),
            ("a.b/c:1@sha256:HEX", "docker://a.b/c@sha256:HEX", "c:1"),
            ("x:2=a.b/c@sha256:HEX", "docker://a.b/c@sha256:HEX", "x:2"),
            ("containers-storage:localhost/app", "containers-storage:localhost/app", "app:latest"),
            ("oci:/tmp/x:a.b/app:1", "oci:/tmp/x:a.b/app:1", "app:1"),
            ("docker-archive:/tmp/x.tar:app:1", "docker-archive:/tmp/x.tar:app:1", "app:1"),
            ("team/app:1=dir:/tmp/a=b", "dir:/tmp/a=b", "team/app:1"),
        ] {
            let source = Source::new(&text.replace("HEX", &hex));
            let source = source.unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(source.reference, reference.replace("HEX", &hex), "{text}");
            assert_eq!(source.name.to_string(), name, "{text}");
        }
        for nameless in ["dir:/tmp/x", "a.b/c@sha256:HEX", "oci:/tmp/x", "containers-storage:@HEX"] {
            let text = nameless.replace("HEX", &hex);
            assert_eq!(Source::new(&text), Err(NameError::Nameless(text.clone())));
        }
        for bad in [
            "",
            "--all",
            "-a",
            "docker:a",
            "docker://",
            "oci:",
            "A:1",
            "a b",
            "a\nb",
            "a.b/../c:1",
            "a:1:2",
            "a@sha256:1",
            "a.b:x/c:1",
            "x:2=--all",
            "ostree:a@b",
        ] {
            assert_eq!(
                Source::new(bad).err().map(|error| error.to_string().is_empty()),
                Some(false),
                "{bad}"
            );
        }
    }

    #[test]
    fn another_registry_is_only_where_it_is_fetched_from() {
        let registry = Scope::new("registry.local:5000/k8s").unwrap();
        for (text, reference) in [
            ("registry.k8s.io/coredns/coredns:v1", "docker://registry.local:5000/k8s/coredns/coredns:v1"),
            ("coredns/coredns:v1", "docker://registry.local:5000/k8s/coredns/coredns:v1"),
            ("quay.io/coredns/coredns:v1", "docker://quay.io/coredns/coredns:v1"),
        ] {
            let source = Source::from_registry(text, &registry).unwrap();
            assert_eq!(
                (source.reference.as_str(), source.name.to_string().as_str()),
                (reference, "coredns/coredns:v1")
            );
        }
        assert!(Source::from_registry("dir:/x", &registry).is_err());
    }

    #[test]
    fn destinations() {
        let name = ImageName::new("c10f/pause:3.10").unwrap();
        for (text, reference) in [
            ("registry.local/team", "docker://registry.local/team/c10f/pause:3.10"),
            ("docker://127.0.0.1:5000", "docker://127.0.0.1:5000/c10f/pause:3.10"),
            ("containers-storage:", "containers-storage:localhost/c10f/pause:3.10"),
            ("containers-storage:registry.local/x", "containers-storage:registry.local/x/c10f/pause:3.10"),
        ] {
            assert_eq!(Destination::new(text).unwrap().reference(&name), reference);
        }
        for bad in
            ["", "-x", "local", "registry.local/", "dir:/x", "registry.local/a:1", "docker://", "a.b/../c"]
        {
            assert_eq!(Destination::new(bad), Err(NameError::Destination), "{bad}");
        }
    }
}
