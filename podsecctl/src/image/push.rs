//! One image, or one list of images, to where it belongs.
//!
//! Owns what comes before and after the copy: nothing is pushed that is there already, no other architecture is pushed
//! over, and what is there is signed.

use super::layout;
use super::name::Architecture;
use super::registry::Reference;
use super::sign::Signer;
use super::skopeo::{Copy, Skopeo};
use super::{Trouble, clean};
use podsec_policy::trust::Digest;
use std::path::Path;

/// Of destinations.
const REGISTRY: &str = "docker://";

/// What is pushed.
pub struct Push<'a> {
    /// As skopeo takes it: `oci:images:pause:3.10`.
    pub from: &'a str,
    /// For a relative path in it.
    pub directory: &'a Path,
    /// As skopeo takes it: `docker://registry.local/pause:3.10`.
    pub to: &'a str,
    /// Of the manifest, or the list.
    pub digest: &'a Digest,
    /// Which it is for.
    pub architectures: &'a [&'a Architecture],
    /// It is a list.
    pub is_list: bool,
    /// Though other architectures are there that it is not for.
    pub replace: bool,
    /// Who signs it.
    pub sign: Option<&'a Signer<'a>>,
}

/// How it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is there now.
    New,
    /// It was there.
    Same,
}

/// Pushes, and signs.
///
/// # Errors
/// [`Trouble`]
pub fn push(skopeo: &Skopeo<'_>, push: &Push<'_>, look: impl FnMut(u32)) -> Result<Pushed, Trouble> {
    let there = skopeo.manifest(push.to).ok();
    let pushed = if there.as_deref().and_then(layout::digest).as_ref() == Some(push.digest) {
        Pushed::Same
    } else {
        if there.is_some() && !push.replace {
            keeps_others(push, &skopeo.architectures(push.to)?)?;
        }
        let mut options = vec!["--preserve-digests"];
        if push.is_list {
            options.push("--all");
        }
        if push.to.starts_with(REGISTRY) {
            // To publish is not to run: who may not run what nobody has signed yet may be the one who is to sign it.
            options.push("--insecure-policy");
        }
        let options = options.as_slice();
        let copy =
            Copy { from: push.from, to: push.to, directory: push.directory, options, architecture: None };
        skopeo.copy(&copy, look)?;
        Pushed::New
    };
    // In either case: who was interrupted between the two asks again.
    if let Some(signer) = push.sign {
        signer.sign(&Reference::new(push.to)?, Some(push.digest))?;
    }
    Ok(pushed)
}

/// A tag that is there for other machines would be gone for them.
fn keeps_others(push: &Push<'_>, there: &[Architecture]) -> Result<(), Trouble> {
    let list = |architectures: &[&Architecture]| {
        architectures.iter().map(|architecture| architecture.as_str()).collect::<Vec<_>>().join(", ")
    };
    let lost: Vec<_> = there.iter().filter(|&there| !push.architectures.contains(&there)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    let said = format!(
        "{} is there for {} and would be for {} only: load the archives of all of them together, or say --replace",
        clean(push.to),
        list(&lost),
        list(push.architectures)
    );
    Err(Trouble::Known { reason: "other-architecture", said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_architectures_are_not_pushed_over() {
        let [amd64, arm64] = ["amd64", "arm64"].map(|name| Architecture::new(name).unwrap());
        let digest = layout::digest(b"").unwrap();
        let push = |architectures: &[&Architecture], there: &[Architecture]| {
            let push = Push {
                from: "oci:images:a:1",
                directory: Path::new("/"),
                to: "docker://a.b/a:1",
                digest: &digest,
                architectures,
                is_list: false,
                replace: false,
                sign: None,
            };
            keeps_others(&push, there).map_err(|trouble| trouble.to_string())
        };
        assert_eq!(push(&[&amd64], &[]), Ok(()));
        assert_eq!(push(&[&amd64], std::slice::from_ref(&amd64)), Ok(()));
        assert_eq!(push(&[&amd64, &arm64], std::slice::from_ref(&arm64)), Ok(()));
        for there in [vec![arm64.clone()], vec![amd64.clone(), arm64.clone()]] {
            let said = push(&[&amd64], &there).unwrap_err();
            assert!(
                said.starts_with("docker://a.b/a:1 is there for arm64 and would be for amd64 only"),
                "{said}"
            );
        }
    }
}
