//! `podsecctl image mirror`: the images of a Kubernetes version, for a site without a network.
//!
//! Must not guess which those are: kubeadm knows, or the caller does.

use super::name::Source;
use super::progress::Progress;
use super::report::{self, Got, Row};
use super::run::{Watch, program};
use super::skopeo::{Copy, Skopeo};
use super::{Trouble, complaint, layout, save, usage};
use crate::Context;
use crate::cli::{Architectures, MirrorImages};
use crate::failure::Failure;
use crate::input;
use podsec_policy::user::Scope;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::Instant;

/// Of a list.
const MOST_LIST: usize = 1 << 20;

/// Why a text is no version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a version of Kubernetes is vMAJOR.MINOR.PATCH: v1.34.2")]
pub struct VersionError;

/// Of Kubernetes: `v1.34.2`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// # Errors
    /// [`VersionError`]
    pub fn new(text: &str) -> Result<Self, VersionError> {
        let parts: Vec<_> = text.strip_prefix('v').unwrap_or(text).split('.').collect();
        let is_number = |part: &&str| {
            (1..=4).contains(&part.len())
                && part.bytes().all(|byte| byte.is_ascii_digit())
                && (*part == "0" || !part.starts_with('0'))
        };
        let fits = parts.len() == 3 && parts.iter().all(is_number);
        if fits { Ok(Self(format!("v{}", parts.join(".")))) } else { Err(VersionError) }
    }
}

pub fn run(context: &Context, watch: &Watch, arguments: &MirrorImages) -> Result<u8, Trouble> {
    let sources = sources(&references(watch, arguments)?, &arguments.from)?;
    match &arguments.to {
        _ if arguments.dry_run => Ok(show(context, arguments, &sources)?),
        Some(_) => copy(context, watch, arguments, &sources),
        None => save::save(context, watch, &sources, &arguments.how),
    }
}

/// One a line; `#` begins a comment.
fn references(watch: &Watch, arguments: &MirrorImages) -> Result<String, Trouble> {
    let text = match &arguments.list {
        Some(path) => input::file(path, MOST_LIST)?,
        None => {
            let Ok(mut command) = program("kubeadm", &[]) else {
                let text = format!(
                    "kubeadm is not installed here, and so nobody knows which images Kubernetes {0} needs: say it by \
                     --list FILE, such as made elsewhere by `kubeadm config images list --kubernetes-version {0}`",
                    arguments.kubernetes.0
                );
                return Err(Trouble::Known { reason: "no-kubeadm", said: text });
            };
            command.args(["config", "images", "list", "--kubernetes-version", &arguments.kubernetes.0]);
            let cannot = |error| Trouble::cannot_run("kubeadm", &error);
            let done = watch.run(&mut command, |_| ()).map_err(cannot)?;
            if !done.status.success() {
                let said = complaint(&done.errors, &done.status);
                return Err(Trouble::Program { name: "kubeadm", said });
            }
            done.output
        }
    };
    String::from_utf8(text).map_err(|_| usage("the list of images is not UTF-8"))
}

fn sources(list: &str, registry: &Scope) -> Result<Vec<Source>, Trouble> {
    let mut sources = Vec::new();
    for line in list.lines() {
        let text = line.split('#').next().unwrap_or_default().trim();
        if !text.is_empty() {
            sources.push(Source::from_registry(text, registry)?);
        }
    }
    if sources.is_empty() {
        return Err(usage("the list names no images"));
    }
    sources.sort();
    sources.dedup();
    Ok(sources)
}

fn show(context: &Context, arguments: &MirrorImages, sources: &[Source]) -> Result<u8, Failure> {
    let to = |source: &Source| arguments.to.as_ref().map(|to| to.reference(&source.name));
    if context.output.is_json() {
        let object = |source: &Source| json!({ "name": source.name.to_string(), "source": source.reference, "destination": to(source) });
        return context.output.object(&json!({ "images": sources.iter().map(object).collect::<Value>() }));
    }
    let line = |source: &Source| match to(source) {
        Some(to) => format!("would copy {} to {to}\n", source.reference),
        None => format!("would save {}\n", source.reference),
    };
    context.output.bytes(sources.iter().map(line).collect::<String>().as_bytes())
}

/// From registry to registry.
fn copy(
    context: &Context,
    watch: &Watch,
    arguments: &MirrorImages,
    sources: &[Source],
) -> Result<u8, Trouble> {
    let Some(to) = &arguments.to else { return Ok(0) };
    let own = super::name::Architecture::own();
    let (architecture, called) = match &arguments.how.architectures {
        Architectures::All => (None, "all"),
        Architectures::Own => (Some(&own), own.as_str()),
        Architectures::These(these) => match &these[..] {
            [one] => (Some(one), one.as_str()),
            _ => return Err(usage("--to takes one architecture, or all")),
        },
    };
    let skopeo = Skopeo::new(watch, arguments.how.registry.tls_verify)?;
    let mut progress = Progress::new(&context.output);
    let mut rows = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        progress.begin(&format!("{}, {} of {}", source.name, index + 1, sources.len()));
        let reference = to.reference(&source.name);
        let since = Instant::now();
        let options: &[&str] = match architecture {
            None => &["--preserve-digests", "--all"],
            Some(_) => &["--preserve-digests"],
        };
        let copy = Copy {
            from: &source.reference,
            to: &reference,
            directory: Path::new("/"),
            options,
            architecture,
        };
        let copied = skopeo.copy(&copy, |_| ()).and_then(|()| {
            let manifest = skopeo.manifest(&reference)?;
            let digest = layout::digest(&manifest);
            digest.ok_or_else(|| Trouble::Known { reason: "unfit", said: "it has no digest".into() })
        });
        rows.push(Row {
            name: source.name.to_string(),
            architecture: called.to_owned(),
            place: ("destination", reference),
            result: copied.map(|digest| Got { digest, size: 0, done: "copied" }),
            time: since.elapsed(),
        });
    }
    progress.clear();
    Ok(report::print(&context.output, &rows, Map::new(), &[])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(Version::new("v1.34.2"), Ok(Version("v1.34.2".into())));
        assert_eq!(Version::new("1.34.0"), Ok(Version("v1.34.0".into())));
        for bad in [
            "",
            "v1.34",
            "stable",
            "v1.34.2-rc.0",
            "v1.034.2",
            "vv1.34.2",
            "v1.34.x",
            "--x",
            "v1.2.3.4",
            "v12345.1.1",
        ] {
            assert_eq!(Version::new(bad), Err(VersionError), "{bad}");
        }
    }

    #[test]
    fn a_list_has_comments_and_no_duplicates() {
        let registry = Scope::new("registry.k8s.io").unwrap();
        let list = "# v1.34\nregistry.k8s.io/pause:3.10 # and this\n\n  coredns/coredns:v1\nregistry.k8s.io/pause:3.10\n";
        let found = sources(list, &registry).unwrap();
        let found: Vec<_> = found.iter().map(|source| source.reference.as_str()).collect();
        assert_eq!(
            found,
            ["docker://registry.k8s.io/coredns/coredns:v1", "docker://registry.k8s.io/pause:3.10"]
        );
        for bad in ["", "# nothing\n", "pause:3\n-rf\n", "a b\n"] {
            assert!(sources(bad, &registry).is_err(), "{bad}");
        }
    }
}
