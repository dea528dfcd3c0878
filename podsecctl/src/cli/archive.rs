//! `image save|load|list|verify|mirror`

use crate::image::mirror::Version;
use crate::image::name::{Architecture, Destination, Source};
use clap::{ArgAction, Args, ValueEnum};
use podsec_policy::user::{Fingerprint, Scope, ScopeError};
use std::path::PathBuf;

/// How archives are packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Compression {
    /// zstd(1): quick.
    #[default]
    Zstd,
    /// xz(1): what older podsecs read.
    Xz,
}

/// For which machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Architectures {
    /// This one's.
    Own,
    /// What there is of each image.
    All,
    /// Named, without duplicates.
    These(Vec<Architecture>),
}

fn architectures(text: &str) -> Result<Architectures, crate::image::name::NameError> {
    match text {
        "all" => Ok(Architectures::All),
        "own" => Ok(Architectures::Own),
        _ => {
            let mut these = text.split(',').map(Architecture::new).collect::<Result<Vec<_>, _>>()?;
            these.sort();
            these.dedup();
            Ok(Architectures::These(these))
        }
    }
}

fn registry(text: &str) -> Result<Scope, ScopeError> {
    Scope::new(text)
}

/// A number of bytes, with K, M, G or T behind it for its powers of 1024.
fn bytes(text: &str) -> Result<u64, &'static str> {
    let units = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];
    let unit = units.into_iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.parse::<u64>().ok().filter(|_| is_number);
    let number = number.and_then(|number| number.checked_mul(1 << shift)).filter(|&number| number > 0);
    number.ok_or("a size is a number of bytes, or of K, M, G or T: 64G")
}

/// About reaching registries.
#[derive(Clone, Copy, Debug, Args)]
pub struct Registry {
    /// false: plain HTTP will do, and any certificate
    #[arg(long, value_name = "true|false", default_value_t = true, action = ArgAction::Set)]
    pub tls_verify: bool,
}

/// How images are saved.
#[derive(Clone, Debug, Args)]
pub struct Saving {
    /// For which machines: amd64,arm64 and so on, own, or all that there are of each image
    #[arg(long = "arch", value_name = "ARCH,…", default_value = "own", value_parser = architectures)]
    pub architectures: Architectures,
    /// Directory for the archives
    #[arg(short, long, value_name = "DIR", default_value = ".", value_hint = clap::ValueHint::DirPath)]
    pub output: PathBuf,
    /// How they are packed
    #[arg(long, value_name = "HOW", default_value = "zstd")]
    pub compress: Compression,
    /// Replace archives that are there
    #[arg(long)]
    pub force: bool,
    /// Write an archive though some of its images could not be had
    #[arg(long)]
    pub partial: bool,
    /// About reaching the registry.
    #[command(flatten)]
    pub registry: Registry,
}

/// Images to be saved.
#[derive(Debug, Args)]
pub struct SaveImages {
    /// [NAME:TAG=][TRANSPORT:]IMAGE, as skopeo takes it; without a transport it is in a registry
    #[arg(required = true, value_name = "IMAGE", value_parser = Source::new)]
    pub images: Vec<Source>,
    /// How.
    #[command(flatten)]
    pub how: Saving,
}

/// How much is taken.
#[derive(Clone, Copy, Debug, Args)]
pub struct MaxSize {
    /// Refuse what unpacks to more than so many bytes; K, M, G and T may follow
    #[arg(long, value_name = "SIZE", default_value = "64G", value_parser = bytes)]
    pub max_size: u64,
}

/// An archive to be looked at.
#[derive(Debug, Args)]
pub struct OneArchive {
    /// The archive
    #[arg(value_hint = clap::ValueHint::FilePath)]
    pub archive: PathBuf,
    /// How much is taken.
    #[command(flatten)]
    pub size: MaxSize,
}

/// Archives to be loaded.
#[derive(Debug, Args)]
pub struct LoadImages {
    /// Archives, of an architecture each; an image that is in several becomes one for all of them
    #[arg(required = true, value_name = "ARCHIVE", value_hint = clap::ValueHint::FilePath)]
    pub archives: Vec<PathBuf>,
    /// Where to: REGISTRY[/PATH], or containers-storage: for your own podman's store; the image's name comes behind it
    #[arg(long, value_name = "WHERE", value_parser = Destination::new)]
    pub to: Destination,
    /// Refuse archives for any other architecture
    #[arg(long, value_name = "ARCH", value_parser = Architecture::new)]
    pub arch: Option<Architecture>,
    /// Leave so many first parts of the images' names away: 1 for the platform in archives of older podsecs
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub strip: usize,
    /// Only this image, such as pause:3.10; may be given again
    #[arg(long, value_name = "NAME")]
    pub only: Vec<String>,
    /// Sign each: with this key of yours, or with the newest that you have published
    #[arg(long, value_name = "FINGERPRINT", num_args = 0..=1, require_equals = true, value_parser = Fingerprint::new)]
    pub sign: Option<Option<Fingerprint>>,
    /// Read the key's passphrase from this descriptor; otherwise gpg's own agent asks where it must
    #[arg(long, value_name = "FD")]
    pub passphrase_fd: Option<u32>,
    /// Push over what is there for other architectures
    #[arg(long)]
    pub replace: bool,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// How much is taken.
    #[command(flatten)]
    pub size: MaxSize,
    /// About reaching the registry.
    #[command(flatten)]
    pub registry: Registry,
}

/// Images of a version of Kubernetes.
#[derive(Debug, Args)]
pub struct MirrorImages {
    /// Version, such as v1.34.2
    #[arg(long, value_name = "VERSION", value_parser = Version::new)]
    pub kubernetes: Version,
    /// Read from a file which images those are, one a line; - for standard input; otherwise kubeadm is asked
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub list: Option<PathBuf>,
    /// Where those of registry.k8s.io are fetched from
    #[arg(long = "registry", value_name = "REGISTRY[/PATH]", default_value = "registry.k8s.io", value_parser = registry)]
    pub from: Scope,
    /// Copy them there, and make no archives: REGISTRY[/PATH]
    #[arg(long, value_name = "WHERE", value_parser = Destination::new, conflicts_with_all = ["output", "compress", "force", "partial"])]
    pub to: Option<Destination>,
    /// Only say what would be fetched
    #[arg(long)]
    pub dry_run: bool,
    /// How archives are made.
    #[command(flatten)]
    pub how: Saving,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, Image};
    use clap::Parser as _;

    fn parse(line: &str) -> Result<Image, clap::error::ErrorKind> {
        let words = ["podsecctl", "image"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).map_err(|error| error.kind())?.command {
            Command::Image(image) => Ok(*image),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_is_done_to_archives() {
        for line in [
            "save pause:3",
            "save --arch amd64,arm64 --output /x --compress xz --force --partial a.b/c:1 x:1=dir:/x",
            "save --arch all --tls-verify=false a:1",
            "list a.tar.xz",
            "verify a.tar.xz --max-size 4G",
            "load a.tar.zst b.tar.zst --to registry.local/team --only pause:3 --only b:1 --strip 1 --sign --replace",
            "load a.tar.zst --to containers-storage: --arch amd64 --dry-run --max-size 1T",
            "mirror --kubernetes v1.34.2 --list - --registry registry.local/k8s --output /x --dry-run",
            "mirror --kubernetes 1.34.2 --to registry.local/k8s --arch all",
        ] {
            assert!(parse(line).is_ok(), "{line}: {:?}", parse(line));
        }
        for line in [
            "save",
            "save --arch ../x a:1",
            "save --arch amd64,,arm64 a:1",
            "save --compress gzip a:1",
            "save dir:/x",
            "save -- --all",
            "list",
            "list a b",
            "verify a --max-size 0",
            "verify a --max-size -1",
            "verify a --max-size 99999999999T",
            "load a.tar.zst",
            "load --to registry.local",
            "load a --to dir:/x",
            "load a --to local",
            "mirror",
            "mirror --kubernetes stable",
            "mirror --kubernetes v1.34.2 --to a.b --output /x",
            "mirror --kubernetes v1.34.2 --registry https://a.b",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn architectures_and_sizes() {
        let these = |names: &[&str]| {
            Architectures::These(names.iter().map(|name| Architecture::new(name).unwrap()).collect())
        };
        assert_eq!(architectures("arm64,amd64,arm64"), Ok(these(&["amd64", "arm64"])));
        assert_eq!(
            (architectures("all"), architectures("own")),
            (Ok(Architectures::All), Ok(Architectures::Own))
        );
        assert!(architectures("all,amd64").is_ok_and(|these| these != Architectures::All));
        assert_eq!([bytes("7"), bytes("64G"), bytes("2T")], [Ok(7), Ok(64 << 30), Ok(2 << 40)]);
        assert!(["", "K", "+1", "1KK", "1.5G", "1k"].iter().all(|text| bytes(text).is_err()));
    }
}
