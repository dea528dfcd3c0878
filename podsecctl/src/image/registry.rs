//! skopeo(1) towards a registry, where it signs and verifies: as the caller, with his keyring.
//!
//! Must not: hand it a passphrase where others can see it, sign what is not the manifest that the registry was asked for,
//! or switch the policy off for what does not come from this host.

use super::run::{Scratch, Watch, contents, memory, program};
use super::skopeo::KEPT;
use super::{Trouble, complaint, layout, usage};
use crate::output::{Output, aside, clean};
use podsec_policy::secret::Secret;
use podsec_policy::trust::is_tag;
use podsec_policy::trust::{Digest, SignatureBytes};
use podsec_policy::user::{Fingerprint, Scope};
use podsec_sys::nix::fcntl::OFlag;
use podsec_sys::nix::unistd::geteuid;
use std::fmt;
use std::io::{self, IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the keyring is, and where a pinentry asks.
const KEYRING: [&str; 7] =
    ["GNUPGHOME", "GPG_TTY", "TERM", "DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "DBUS_SESSION_BUS_ADDRESS"];
/// Bytes of a manifest, as containers/image bounds it.
const MANIFEST: usize = 4 << 20;
/// The first skopeo whose sigstore signatures podman reads.
const SIGSTORE: (u32, u32) = (1, 11);

/// Transports of images that are on this host.
const LOCAL: [&str; 5] = ["containers-storage:", "oci:", "oci-archive:", "dir:", "docker-archive:"];

/// An image in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// `host[:port]/path`
    pub repository: Scope,
    /// Of what.
    pub version: Version,
}

/// Which image of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// What the name means now.
    Tag(String),
    /// This one.
    Digest(Digest),
}

impl Reference {
    /// `[docker://]host[:port]/path[:tag|@digest]`, with a host that has a dot, as podsec's scopes have: a short name
    /// means something else on each host.
    ///
    /// # Errors
    /// [`Trouble::Failure`]
    pub fn new(text: &str) -> Result<Self, Trouble> {
        let unfit = |why: &str| usage(format!("{}: {why}", clean(text)));
        let full = text.strip_prefix("docker://").unwrap_or(text);
        let path = full.find('/').unwrap_or(full.len());
        let (name, version) = match full.split_once('@') {
            Some((name, digest)) => {
                let digest = Digest::new(digest).map_err(|error| unfit(&error.to_string()))?;
                (name, Version::Digest(digest))
            }
            None => match full.rfind(':').filter(|&colon| colon > path) {
                Some(colon) => {
                    let (name, tag) = full.split_at_checked(colon).unwrap_or((full, ""));
                    (name, Version::Tag(tag.trim_start_matches(':').to_owned()))
                }
                None => (full, Version::Tag("latest".to_owned())),
            },
        };
        let repository = Scope::new(name).map_err(|error| unfit(&error.to_string()))?;
        if !repository.as_str().contains('/') {
            return Err(unfit("an image of a registry is HOST/NAME, such as registry.local/team/app:1"));
        }
        match &version {
            Version::Tag(tag) if !is_tag(tag) => Err(unfit("a tag has letters, digits, '_', '.' and '-'")),
            _ => Ok(Self { repository, version }),
        }
    }

    /// The same repository's image of that digest.
    #[must_use]
    pub fn at(&self, digest: &Digest) -> Self {
        Self { repository: self.repository.clone(), version: Version::Digest(digest.clone()) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}:{tag}", self.repository),
            Version::Digest(digest) => write!(f, "{}@{digest}", self.repository),
        }
    }
}

/// An image of this host, as skopeo takes it: a name means one of the caller's own podman.
///
/// # Errors
/// [`Trouble::Failure`]
pub fn local(text: &str) -> Result<String, Trouble> {
    let unfit = |why: &str| usage(format!("{}: {why}", clean(text)));
    if text.is_empty() || text.starts_with('-') || text.chars().any(char::is_control) {
        return Err(unfit("not the name of an image"));
    }
    if text.contains("://") {
        return Err(unfit(
            "an image of a registry is not taken from there unverified: pull it with podman first, and push that",
        ));
    }
    if let Some(transport) = LOCAL.into_iter().find(|transport| text.starts_with(transport)) {
        let rest = text.get(transport.len()..).unwrap_or_default();
        return if rest.is_empty() { Err(unfit("and which?")) } else { Ok(text.to_owned()) };
    }
    let first = text.split('/').next().unwrap_or_default();
    let is_short = first == text || !first.contains(['.', ':']) && first != "localhost";
    // What podman build calls it: skopeo itself would think of docker.io.
    let host = if is_short { "localhost/" } else { "" };
    Ok(format!("containers-storage:{host}{text}"))
}

/// A sigstore key in a file, and what unlocks it.
#[derive(Clone, Copy, Debug)]
pub struct SigstoreKey<'a> {
    /// Of the private key.
    pub file: &'a Path,
    /// Asked by skopeo where there is none.
    pub passphrase: Option<&'a Secret>,
}

/// skopeo, and a directory for what is in between.
#[derive(Debug)]
pub struct Tool<'a> {
    watch: &'a Watch,
    scratch: Scratch,
    tls_verify: bool,
}

impl<'a> Tool<'a> {
    /// # Errors
    /// [`Trouble::Program`] where it is not installed; mkdtemp(3)
    pub fn new(watch: &'a Watch, tls_verify: bool) -> Result<Self, Trouble> {
        program("skopeo", &[])?;
        Ok(Self { watch, scratch: Scratch::new(watch).map_err(Trouble::Unpack)?, tls_verify })
    }

    /// Copies an image of this host to a registry, and gives the digest that it has there. Whether the policy lets the
    /// caller run it is no question here: it is his own.
    ///
    /// # Errors
    /// [`Trouble::Program`], with what it says
    pub fn push(
        &self,
        source: &str,
        to: &Reference,
        all: bool,
        key: Option<SigstoreKey<'_>>,
        output: &Output,
    ) -> Result<Digest, Trouble> {
        let mut command = self.command()?;
        command.arg("--insecure-policy");
        if key.is_some() {
            self.can_sigstore()?;
            self.attachments(&to.repository)?;
            command.arg("--registries.d").arg(self.path("registries.d"));
        }
        // Signatures of a directory are of another name.
        command.args(["copy", "--remove-signatures", "--digestfile"]).arg(self.path("digest"));
        if all {
            command.arg("--all");
        }
        self.tls(&mut command, "--dest-tls-verify");
        if let Some(SigstoreKey { file, passphrase }) = key {
            command.arg("--sign-by-sigstore-private-key").arg(file);
            match passphrase {
                Some(passphrase) => told(&mut command, "--sign-passphrase-file", passphrase)?,
                None => _ = command.stdin(Stdio::inherit()),
            }
        }
        let is_terminal = io::stderr().is_terminal() && !output.is_json();
        if !is_terminal {
            command.arg("--quiet");
        }
        if !output.is_json() {
            aside(&format!("copying {} to {to} …", clean(source)));
        }
        command.arg("--").arg(source).arg(format!("docker://{to}"));
        if is_terminal {
            self.show(&mut command)?
        } else {
            self.run(&mut command).map(drop)?
        }
        let written = self.read("digest", 128)?;
        let text = String::from_utf8_lossy(&written);
        Digest::new(text.trim()).map_err(|_| said("wrote no digest"))
    }

    /// The manifest as the registry has it; what is named by a digest is of that digest.
    ///
    /// # Errors
    /// [`Trouble::Program`]
    pub fn manifest(&self, image: &Reference) -> Result<(Vec<u8>, Digest), Trouble> {
        let mut command = self.command()?;
        command.args(["inspect", "--raw"]);
        self.tls(&mut command, "--tls-verify");
        command.arg("--").arg(format!("docker://{image}"));
        let manifest = self.run(&mut command)?;
        if manifest.len() > MANIFEST {
            return Err(said(&format!("gave a manifest of more than {MANIFEST} bytes")));
        }
        let digest = checked(&manifest, image)?;
        Ok((manifest, digest))
    }

    /// A signature with the caller's key (containers-signature(5)).
    ///
    /// # Errors
    /// [`Trouble::Program`]
    pub fn sign(
        &self,
        manifest: &[u8],
        image: &Reference,
        key: &Fingerprint,
        passphrase: Option<&Secret>,
    ) -> Result<Vec<u8>, Trouble> {
        let scratch = self.scratch.open().map_err(Trouble::Unpack)?;
        for name in ["manifest", "signature"] {
            let _ = scratch.remove_tree(name);
        }
        scratch.make_file("manifest", manifest, 0o600).map_err(Trouble::Unpack)?;
        let mut command = self.command()?;
        command.args(["standalone-sign", "--output"]).arg(self.path("signature"));
        if let Some(passphrase) = passphrase {
            told(&mut command, "--passphrase-file", passphrase)?;
        }
        command.arg("--").arg(self.path("manifest")).arg(image.to_string()).arg(key.as_str());
        self.run(&mut command).map_err(without_terminal)?;
        self.read("signature", SignatureBytes::LONGEST as u64)
    }

    /// Does what podman does before it runs the image, with that policy; what skopeo says where it does not go.
    ///
    /// # Errors
    /// [`Trouble`], where it could not be tried
    pub fn try_it(&self, policy: &Path, image: &str) -> Result<Result<(), String>, Trouble> {
        self.scratch.open().and_then(|scratch| scratch.make("image", 0o700)).map_err(Trouble::Unpack)?;
        let mut command = self.command()?;
        command.arg("--policy").arg(policy).args(["copy", "--quiet"]);
        self.tls(&mut command, "--src-tls-verify");
        command.arg("--").arg(format!("docker://{}", image.strip_prefix("docker://").unwrap_or(image)));
        command.arg(format!("dir:{}", self.path("image").display()));
        let done =
            self.watch.run(&mut command, |_| ()).map_err(|error| Trouble::cannot_run("skopeo", &error))?;
        Ok(if done.status.success() { Ok(()) } else { Err(complaint(&done.errors, &done.status)) })
    }

    /// Gives it a password, which it keeps for itself and podman.
    ///
    /// # Errors
    /// [`Trouble::Program`], also where it has nowhere to keep it
    pub fn login(&self, registry: &str, name: &str, password: &[u8]) -> Result<(), Trouble> {
        let has = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        if !has("XDG_RUNTIME_DIR") && !has("REGISTRY_AUTH_FILE") && runtime_directory().is_none() {
            let text = "has nowhere to keep a password: there is no XDG_RUNTIME_DIR, which a login makes, and no \
                        REGISTRY_AUTH_FILE";
            return Err(said(text));
        }
        let mut command = self.command()?;
        command.args(["login", "--username", name, "--password-stdin"]);
        self.tls(&mut command, "--tls-verify");
        command.arg("--").arg(registry).stdin(in_memory(password)?);
        self.run(&mut command).map(drop)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// What it has written to the directory, which is nobody else's.
    fn read(&self, name: &str, most: u64) -> Result<Vec<u8>, Trouble> {
        let read = || -> io::Result<Vec<u8>> {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW;
            let mut bytes = Vec::new();
            self.scratch
                .open()?
                .open_beneath(Path::new(name), flags, 0)?
                .take(most + 1)
                .read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| Trouble::file(&self.path(name), error))?;
        if bytes.len() as u64 > most {
            return Err(said(&format!("wrote a {name} of more than {most} bytes")));
        }
        Ok(bytes)
    }

    fn command(&self) -> Result<Command, Trouble> {
        let mut command = program("skopeo", &KEPT)?;
        command.envs(KEYRING.iter().filter_map(|&name| Some((name, std::env::var_os(name)?))));
        // gpg looks at its standard input for it, which skopeo does not hand on.
        if std::env::var_os("GPG_TTY").is_none()
            && io::stdin().is_terminal()
            && let Ok(terminal) = std::fs::read_link("/proc/self/fd/0")
        {
            command.env("GPG_TTY", terminal);
        }
        // Without one it looks for credentials where only root may, and fails.
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
            command.env("XDG_RUNTIME_DIR", runtime_directory().as_deref().unwrap_or(self.scratch.path()));
        }
        Ok(command)
    }

    fn tls(&self, command: &mut Command, option: &str) {
        if !self.tls_verify {
            command.arg(format!("{option}=false"));
        }
    }

    fn run(&self, command: &mut Command) -> Result<Vec<u8>, Trouble> {
        let done = self.watch.run(command, |_| ()).map_err(|error| Trouble::cannot_run("skopeo", &error))?;
        if done.status.success() {
            Ok(done.output)
        } else {
            Err(said(&complaint(&done.errors, &done.status)))
        }
    }

    /// With its own progress, on our standard error: the output is ours.
    fn show(&self, command: &mut Command) -> Result<(), Trouble> {
        let mut run = || -> io::Result<_> {
            let errors = memory()?;
            let terminal = std::os::fd::AsFd::as_fd(&io::stderr()).try_clone_to_owned()?;
            let status = self.watch.spawn(command.stdout(terminal).stderr(errors.try_clone()?))?.wait()?;
            Ok((status, contents(errors, 64 * 1024)?))
        };
        let (status, errors) = run().map_err(|error| Trouble::cannot_run("skopeo", &error))?;
        if status.success() { Ok(()) } else { Err(said(&complaint(&errors, &status))) }
    }

    fn can_sigstore(&self) -> Result<(), Trouble> {
        let printed = self.run(self.command()?.arg("--version"))?;
        let found =
            version(&String::from_utf8_lossy(&printed)).ok_or_else(|| said("does not say its version"))?;
        if found < SIGSTORE {
            let ((major, minor), (needed, above)) = (found, SIGSTORE);
            return Err(said(&format!(
                "{major}.{minor} makes no sigstore signatures, {needed}.{above} and newer do; --sign without --sigstore \
                 signs with GPG"
            )));
        }
        Ok(())
    }

    /// Signatures go into the registry (containers-registries.d(5)); nothing else of the host's configuration counts
    /// for that push.
    fn attachments(&self, repository: &Scope) -> Result<(), Trouble> {
        let registry = repository.as_str().split('/').next().unwrap_or_default();
        // A scope has no character that YAML could take for anything else.
        let text = format!("docker:\n  \"{registry}\":\n    use-sigstore-attachments: true\n");
        let made = self.scratch.open().and_then(|scratch| scratch.make("registries.d", 0o700));
        let made = made.and_then(|directory| directory.make_file("podsec.yaml", text.as_bytes(), 0o600));
        made.map(drop).map_err(Trouble::Unpack)
    }
}

/// gpg's pinentry found nobody to ask.
fn without_terminal(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Program { name, said }
            if said.contains("Inappropriate ioctl") || said.contains("No pinentry") =>
        {
            let more = "the key has a passphrase, and there is no terminal to ask for it on; --passphrase-fd says where \
                        it comes from";
            Trouble::Program { name, said: format!("{said}: {more}") }
        }
        trouble => trouble,
    }
}

/// What a login of the caller has made.
fn runtime_directory() -> Option<PathBuf> {
    let uid = geteuid();
    let path = PathBuf::from(format!("/run/user/{uid}"));
    path.metadata().is_ok_and(|metadata| metadata.is_dir() && metadata.uid() == uid.as_raw()).then_some(path)
}

fn said(text: &str) -> Trouble {
    Trouble::Program { name: "skopeo", said: text.to_owned() }
}

/// Is it what was asked for? The registry may say anything.
fn checked(manifest: &[u8], image: &Reference) -> Result<Digest, Trouble> {
    let found = layout::digest(manifest).ok_or_else(|| said("gave no manifest"))?;
    match &image.version {
        Version::Digest(asked) if *asked != found => {
            Err(said(&format!("gave another manifest than that of {image}: the registry has {found} there")))
        }
        _ => Ok(found),
    }
}

/// The passphrase on its standard input, which nobody else can open.
fn told(command: &mut Command, option: &str, passphrase: &Secret) -> Result<(), Trouble> {
    command.args([option, "/dev/stdin"]).stdin(in_memory(passphrase.expose())?);
    Ok(())
}

/// Bytes to be read from the beginning.
fn in_memory(bytes: &[u8]) -> Result<Stdio, Trouble> {
    let made = || -> io::Result<Stdio> {
        let mut file = memory()?;
        file.write_all(bytes)?;
        file.seek(SeekFrom::Start(0))?;
        Ok(file.into())
    };
    made().map_err(|error| Trouble::cannot_run("skopeo", &error))
}

/// `skopeo version 1.9.3`
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().nth(2)?.split(['.', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;

    #[test]
    fn images_in_a_registry() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, repository, full) in [
            ("registry.local/team/app:1", "registry.local/team/app", "registry.local/team/app:1"),
            ("docker://registry.local:5000/app", "registry.local:5000/app", "registry.local:5000/app:latest"),
            (
                "registry.local:5000/a/b:v1.2_x-y",
                "registry.local:5000/a/b",
                "registry.local:5000/a/b:v1.2_x-y",
            ),
            (
                &format!("registry.local/app@{digest}"),
                "registry.local/app",
                &format!("registry.local/app@{digest}"),
            ),
        ] {
            let reference = Reference::new(text).unwrap();
            assert_eq!((reference.repository.as_str(), reference.to_string().as_str()), (repository, full));
        }
        for bad in [
            "",
            "app",
            "app:1",
            "team/app:1",
            "registry.local",
            "registry.local:5000",
            "registry.local/app:",
            "registry.local/app:-x",
            "registry.local/app:1:2",
            "registry.local/../app:1",
            "registry.local/App:1",
            "registry.local/app@sha256:12",
            &format!("registry.local/app:1@{digest}"),
            "oci:x",
            "--all",
            "registry.local/a b",
        ] {
            assert!(matches!(Reference::new(bad), Err(Trouble::Failure(Failure::Usage(_)))), "{bad}");
        }
    }

    #[test]
    fn images_of_this_host() {
        for (text, source) in [
            ("app", "containers-storage:localhost/app"),
            ("app:1", "containers-storage:localhost/app:1"),
            ("team/app:1", "containers-storage:localhost/team/app:1"),
            ("localhost/app:1", "containers-storage:localhost/app:1"),
            ("registry.local/team/app:1", "containers-storage:registry.local/team/app:1"),
            ("containers-storage:localhost/app:1", "containers-storage:localhost/app:1"),
            ("oci:/tmp/x:latest", "oci:/tmp/x:latest"),
            ("docker-archive:x.tar", "docker-archive:x.tar"),
        ] {
            assert_eq!(local(text).unwrap(), source);
        }
        for bad in ["", "-a", "docker://a.b/c:1", "oci:", "a\nb", "docker-daemon://x"] {
            assert!(matches!(local(bad), Err(Trouble::Failure(Failure::Usage(_)))), "{bad}");
        }
    }

    #[test]
    fn versions() {
        assert_eq!(version("skopeo version 1.9.3\n"), Some((1, 9)));
        assert!(version("skopeo version 1.18.0 commit: x").unwrap() > SIGSTORE);
        assert!(version("skopeo version 1.9.3").unwrap() < SIGSTORE);
        assert_eq!(version("skopeo version one"), None);
    }

    #[test]
    fn a_manifest_is_the_one_that_was_asked_for() {
        let image = Reference::new("registry.local/team/app:1").unwrap();
        let found = checked(b"{}", &image).unwrap();
        assert_eq!(checked(b"{}", &image.at(&found)).unwrap(), found);
        let refused = checked(b"{ }", &image.at(&found)).unwrap_err().to_string();
        assert!(
            refused.starts_with("skopeo gave another manifest than that of registry.local/team/app@"),
            "{refused}"
        );
    }
}
