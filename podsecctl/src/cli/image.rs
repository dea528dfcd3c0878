//! `image`

use super::account;
use super::archive::{LoadImages, MirrorImages, OneArchive, Registry, SaveImages};
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use podsec_policy::name::AccountName;
use podsec_policy::trivy::Level;
use podsec_policy::user::Fingerprint;
use std::ffi::OsString;
use std::path::PathBuf;

/// Publish images, sign them, and see what is signed; carry them to where there is no network
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub enum Image {
    /// Fetch images into archives, one for each architecture
    ///
    /// skopeo fetches them; what an interrupted save has got is not fetched again. An archive is written when all of its
    /// images are there.
    Save(SaveImages),
    /// Push the images of archives to a registry, or load them into your own podman's store
    ///
    /// Everything is unpacked below TMPDIR or /var/tmp and checked before anything of it is used. What is there already
    /// is not pushed again.
    Load(LoadImages),
    /// List the images of an archive
    List(OneArchive),
    /// Check that an archive is whole
    Verify(OneArchive),
    /// Fetch the images that a version of Kubernetes needs
    Mirror(MirrorImages),
    /// Build an image, and keep it only if it has no known vulnerabilities that are bad
    Build(BuildImage),
    /// Put an image into a registry, and sign it
    Push(PushImage),
    /// Sign images that are in a registry already
    Sign(SignImages),
    /// List the signatures that were published: yours, or all for administrators
    Signatures {
        /// Of this creator
        #[arg(long, value_name = "NAME", value_parser = account, value_hint = clap::ValueHint::Username)]
        creator: Option<AccountName>,
    },
}

/// Build an image, and keep it only if it has no known vulnerabilities that are bad
///
/// podman builds it, without a name; trivy looks at it; it gets its name only then, and is removed otherwise. What had that
/// name before keeps it until then. An image that was there already, since nothing in it has changed, is never removed.
/// What cannot be looked at is not kept either.
#[derive(Debug, Args)]
pub struct BuildImage {
    /// What it is called then: registry.local/team/app:1
    pub name: String,
    /// Directory with what goes into it
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    pub context: PathBuf,
    /// How it is made; by default Containerfile or Dockerfile there
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// It may have no vulnerability that is so bad, or worse
    #[arg(long, value_name = "LEVEL", default_value = "high", value_parser = level())]
    pub severity: Level,
    /// What passes for a while: TOML, a table [[exceptions]] for each, with id, until (2027-01-31), why, and image where
    /// it is for some only
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub exceptions: Option<PathBuf>,
    /// Directory of trivy's database, in which db is; by default the monitor's, or else your own, ~/.cache/trivy
    #[arg(long, value_name = "DIR", conflicts_with = "server", value_hint = clap::ValueHint::DirPath)]
    pub database: Option<PathBuf>,
    /// Ask this trivy, which has the database: http://trivy.local:4954
    #[arg(long, value_name = "URL", value_hint = clap::ValueHint::Url)]
    pub server: Option<String>,
    /// Keep it also where it cannot be looked at, and say so
    #[arg(long)]
    pub unscanned: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Further options of podman-build(1)
    #[arg(last = true, value_name = "OPTION")]
    pub options: Vec<OsString>,
}

fn level() -> impl TypedValueParser<Value = Level> {
    let names = Level::ALL.map(|level| PossibleValue::new(level.name()));
    PossibleValuesParser::new(names).map(|name| Level::from_name(&name).unwrap_or_default())
}

/// Put an image into a registry, and sign it
///
/// skopeo copies it, and remembers what `podsecctl service credential --save` has told it. With --sign the signature is
/// made with your own key, by gpg and in your own keyring, and podsecd publishes it where those who pull the image look
/// for it.
#[derive(Debug, Args)]
pub struct PushImage {
    /// The image: of your own podman's by name, or oci:DIR, dir:DIR, oci-archive:FILE or docker-archive:FILE
    pub image: String,
    /// Where to: registry.local/team/app:1
    pub destination: String,
    /// Sign it: with this key of yours, or with the newest that you have published
    #[arg(long, value_name = "FINGERPRINT", num_args = 0..=1, require_equals = true, value_parser = Fingerprint::new)]
    pub sign: Option<Option<Fingerprint>>,
    /// Sign with this sigstore key instead; the signature goes into the registry
    #[arg(long, value_name = "FILE", requires = "sign", value_hint = clap::ValueHint::FilePath)]
    pub sigstore: Option<PathBuf>,
    /// Push the images of all architectures, not only this machine's
    #[arg(long)]
    pub all: bool,
    /// About reaching the registry, and the key.
    #[command(flatten)]
    pub how: How,
}

/// Sign images that are in a registry already
#[derive(Debug, Args)]
pub struct SignImages {
    /// Images in a registry: registry.local/team/app:1
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
    /// With this key of yours; by default the newest that you have published
    #[arg(long, value_name = "FINGERPRINT", value_parser = Fingerprint::new)]
    pub key: Option<Fingerprint>,
    /// About reaching the registry, and the key.
    #[command(flatten)]
    pub how: How,
}

/// About reaching a registry, and unlocking a key.
#[derive(Debug, Args)]
pub struct How {
    /// About reaching it.
    #[command(flatten)]
    pub registry: Registry,
    /// Read the key's passphrase from this descriptor; otherwise gpg's own agent asks where it must
    #[arg(long, value_name = "FD")]
    pub passphrase_fd: Option<u32>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command, Image};
    use clap::Parser as _;
    use podsec_policy::trivy::Level;

    fn parse(line: &str) -> Option<Image> {
        let words = ["podsecctl", "image"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).ok()?.command {
            Command::Image(command) => Some(*command),
            _ => None,
        }
    }

    #[test]
    fn what_is_pushed_and_signed() {
        const KEY: &str = "0123456789ABCDEF0123456789ABCDEF01234567";
        let sign = |line: &str| match parse(line) {
            Some(Image::Push(push)) => push.sign.map(|key| key.map(|key| key.as_str().to_owned())),
            other => panic!("{line}: {other:?}"),
        };
        assert_eq!(sign("push app:1 registry.local/team/app:1"), None);
        // what follows is no key of its
        assert_eq!(sign("push --sign app:1 registry.local/team/app:1"), Some(None));
        assert_eq!(sign(&format!("push app registry.local/app --sign={KEY}")), Some(Some(KEY.to_owned())));
        for line in [
            "push app registry.local/app --sign --sigstore key --passphrase-fd 3 --tls-verify false --all --dry-run",
            "sign registry.local/team/app:1 registry.local/team/b --dry-run",
            "signatures --creator carol",
        ] {
            assert!(parse(line).is_some(), "{line}");
        }
        for line in [
            "push app",
            "push app registry.local/app --sigstore key",
            "push app registry.local/app --sign=DEADBEEF",
            "sign",
            "signatures --creator Carol",
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
    }

    #[test]
    fn what_is_built() {
        let built = |line: &str| match parse(line) {
            Some(Image::Build(build)) => Some(build),
            _ => None,
        };
        let build = built("build app:1").unwrap();
        assert_eq!((build.context, build.severity, build.file), (".".into(), Level::High, None));
        let build =
            built("build app:1 dir -f File --severity unknown -- --no-cache --build-arg X=1").unwrap();
        assert_eq!(
            (build.severity, build.options),
            (Level::Unknown, ["--no-cache", "--build-arg", "X=1"].map(Into::into).into())
        );
        for line in [
            "build",
            "build app dir more",
            "build app --severity bad",
            "build app --server x --database y",
            "build app --no-cache",
        ] {
            assert!(built(line).is_none(), "{line}");
        }
    }
}
