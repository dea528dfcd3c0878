//! `podsecctl trust check`: what podman and skopeo would do for the caller, without podsecd and without rights.

use super::refusal::Refusal;
use crate::Context;
use crate::cli::CheckTrust;
use crate::failure::Failure;
use crate::image::{self, registry::Tool, run::Watch};
use crate::input;
use crate::output::{Output, Style, aside, clean, count};
use podsec_policy::containers::policy_json::{Keyring, Policy, PublicKeys, Requirement, SigstoreKeys};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// containers-policy.json(5)
const SYSTEM: &str = "/etc/containers/policy.json";
/// Below the home.
const OWN: &str = ".config/containers/policy.json";
/// Bytes of a policy: above what ten thousand scopes take.
const LONGEST: usize = 64 << 20;

/// How strict a policy is.
#[derive(Debug, PartialEq, Eq)]
enum Strictness {
    /// What is in no scope is rejected, and in no scope anything goes.
    Strict,
    /// Not, and why.
    Open(String),
}

pub fn run(context: &Context, arguments: &CheckTrust) -> Result<u8, Failure> {
    let path = effective()?;
    let policy = Policy::parse(&input::file(&path, LONGEST)?).map_err(|error| {
        let text =
            format!("in {} is none that podman takes, so nothing runs for you: {error}", path.display());
        Failure::Program("policy", text)
    })?;
    let strictness = strictness(&policy);
    let mut bad = strictness != Strictness::Strict;
    let (output, mut tried) = (&context.output, Vec::new());
    let watch = Watch::start().map_err(|error| Failure::Local("cannot watch for signals", error))?;
    if !output.is_json() {
        output.bytes(heading(output, &path, &policy, &strictness).as_bytes())?;
    }
    for image in &arguments.images {
        let (scope, demanded) = policy.decide(image);
        let refusal = match rejected(scope, demanded) {
            None => try_one(&watch, &path, image, output)?,
            rejected => rejected,
        };
        bad |= refusal.is_some();
        if output.is_json() {
            tried.push(object(image, scope, demanded, refusal.as_ref()));
        } else {
            output.bytes(verdict(output, image, scope, demanded, refusal.as_ref()).as_bytes())?;
        }
    }
    if output.is_json() {
        let why = match &strictness {
            Strictness::Strict => Value::Null,
            Strictness::Open(why) => why.as_str().into(),
        };
        output.object(&json!({
            "policy": path.to_string_lossy(),
            "link": link(&path).map(|target| target.to_string_lossy().into_owned()),
            "strict": strictness == Strictness::Strict,
            "why": why,
            "images": tried,
        }))?;
    }
    Ok(u8::from(bad))
}

/// The one of the caller, if there is any, even a link that leads nowhere; otherwise the system's.
fn effective() -> Result<PathBuf, Failure> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    effective_of(home.as_deref(), Path::new(SYSTEM))
}

fn effective_of(home: Option<&Path>, system: &Path) -> Result<PathBuf, Failure> {
    let own = home.map(|home| home.join(OWN)).filter(|own| own.symlink_metadata().is_ok());
    let path = own.unwrap_or_else(|| system.to_owned());
    match path.metadata() {
        Ok(_) => Ok(path),
        Err(error) => Err(Failure::File(path, error)),
    }
}

fn link(path: &Path) -> Option<PathBuf> {
    std::fs::read_link(path).ok()
}

fn strictness(policy: &Policy) -> Strictness {
    let accepts = |list: &[Requirement]| {
        // All of them have to be met.
        list.iter().all(|one| matches!(one, Requirement::InsecureAcceptAnything))
    };
    let rejects = policy.default.iter().any(|one| matches!(one, Requirement::Reject));
    if accepts(&policy.default) {
        return Strictness::Open("it accepts every image by default".to_owned());
    }
    if !rejects {
        return Strictness::Open("its default is not to reject".to_owned());
    }
    let mut open = policy.transports.iter().flat_map(|(transport, scopes)| {
        scopes.iter().filter(|(_, list)| accepts(list)).map(move |(scope, _)| (transport, scope))
    });
    match (open.next(), open.count()) {
        (None, _) => Strictness::Strict,
        (Some((transport, scope)), more) => {
            let scope = if scope.is_empty() { "everything" } else { scope };
            let more = if more == 0 {
                String::new()
            } else {
                format!(", and in {} more", count(more as u64, "scope"))
            };
            Strictness::Open(format!(
                "it accepts unsigned images of {}: {}{more}",
                clean(transport),
                clean(scope)
            ))
        }
    }
}

fn heading(output: &Output, path: &Path, policy: &Policy, strictness: &Strictness) -> String {
    let link = link(path)
        .map(|target| format!(" (a link to {})", clean(&target.to_string_lossy())))
        .unwrap_or_default();
    let scopes: usize = policy.transports.values().map(std::collections::BTreeMap::len).sum();
    let verdict = match strictness {
        Strictness::Strict if scopes == 0 => {
            format!("{}: every image is rejected", output.paint(Style::Good, "strict"))
        }
        Strictness::Strict => format!(
            "{}: what is outside of its {} is rejected",
            output.paint(Style::Good, "strict"),
            count(scopes as u64, "scope")
        ),
        Strictness::Open(why) => format!("{}: {why}", output.paint(Style::Bad, "not strict")),
    };
    output.facts(&[("policy", format!("{}{link}", clean(&path.to_string_lossy()))), ("verdict", verdict)])
}

/// What counts for an image, in words.
fn demands(list: &[Requirement]) -> String {
    let one = |one: &Requirement| match one {
        Requirement::InsecureAcceptAnything => "nothing".to_owned(),
        Requirement::Reject => "what nothing has: all is rejected".to_owned(),
        Requirement::SignedBy(signed) => match &signed.keys {
            Keyring::Data(_) => "a GPG signature by a key that is in the policy".to_owned(),
            Keyring::Path(path) => format!("a GPG signature by a key in {}", clean(path)),
            Keyring::Paths(paths) => {
                format!(
                    "a GPG signature by a key in {}",
                    paths.iter().map(|path| clean(path)).collect::<Vec<_>>().join(", ")
                )
            }
        },
        Requirement::SigstoreSigned(signed) => match &signed.keys {
            SigstoreKeys::Keys(PublicKeys::Data(_)) => {
                "a sigstore signature by the key in the policy".to_owned()
            }
            SigstoreKeys::Keys(PublicKeys::Datas(keys)) => {
                format!("a sigstore signature by one of {} in the policy", count(keys.len() as u64, "key"))
            }
            _ => "a sigstore signature".to_owned(),
        },
    };
    list.iter().map(one).collect::<Vec<_>>().join(", and ")
}

/// Whatever it is? Then nothing need be fetched.
fn rejected(scope: Option<&str>, demanded: &[Requirement]) -> Option<Refusal> {
    let is_rejected = demanded.iter().any(|one| matches!(one, Requirement::Reject));
    let why =
        if scope.is_some_and(|scope| !scope.is_empty()) { Refusal::NoSigner } else { Refusal::OutOfScope };
    is_rejected.then_some(why)
}

/// `None`: it would run.
fn try_one(watch: &Watch, policy: &Path, image: &str, output: &Output) -> Result<Option<Refusal>, Failure> {
    if !output.is_json() {
        aside(&format!("fetching {} to verify it …", clean(image)));
    }
    let verified =
        Tool::new(watch, true).and_then(|tool| tool.try_it(policy, image)).map_err(image::failure)?;
    Ok(verified.err().map(|said| Refusal::from_text(said.trim_start_matches("says: "))))
}

fn scope_word(scope: Option<&str>) -> String {
    match scope {
        None => "no scope: the default counts".to_owned(),
        Some("") => "all registries".to_owned(),
        Some(scope) => clean(scope),
    }
}

fn verdict(
    output: &Output,
    image: &str,
    scope: Option<&str>,
    demanded: &[Requirement],
    refusal: Option<&Refusal>,
) -> String {
    let verdict = match refusal {
        None => output.paint(Style::Good, "would run"),
        Some(refusal) => {
            format!("{}: {}", output.paint(Style::Bad, "would not run"), refusal.sentence())
        }
    };
    let facts = [
        ("image", clean(image)),
        ("scope", scope_word(scope)),
        ("demanded", demands(demanded)),
        ("verdict", verdict),
    ];
    format!("\n{}", output.facts(&facts))
}

fn object(image: &str, scope: Option<&str>, demanded: &[Requirement], refusal: Option<&Refusal>) -> Value {
    json!({
        "image": image,
        "scope": scope,
        "demanded": demands(demanded),
        "runs": refusal.is_none(),
        "reason": refusal.map(Refusal::name),
        "message": refusal.map(Refusal::sentence),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::run::tests::Place;

    fn policy(text: &str) -> Policy {
        Policy::parse(text.as_bytes()).unwrap()
    }

    const REJECT: &str = r#"[{"type":"reject"}]"#;
    const ANYTHING: &str = r#"[{"type":"insecureAcceptAnything"}]"#;
    const SIGNED: &str = r#"[{"type":"signedBy","keyType":"GPGKeys","keyData":"AAAA"}]"#;

    #[test]
    fn a_policy_is_strict_or_it_is_said_why_not() {
        let strict = policy(&format!(
            r#"{{"default":{REJECT},"transports":{{"docker":{{"registry.local/team":{SIGNED}}}}}}}"#
        ));
        assert_eq!(strictness(&strict), Strictness::Strict);
        for (text, why) in [
            (format!(r#"{{"default":{ANYTHING}}}"#), "every image by default"),
            (format!(r#"{{"default":{SIGNED}}}"#), "not to reject"),
            (
                format!(r#"{{"default":{REJECT},"transports":{{"docker":{{"":{ANYTHING}}}}}}}"#),
                "unsigned images of docker: everything",
            ),
            (
                format!(
                    r#"{{"default":{REJECT},"transports":{{"docker":{{"a.b/c":{ANYTHING},"a.b/d":{ANYTHING}}}}}}}"#
                ),
                "docker: a.b/c, and in 1 scope more",
            ),
        ] {
            let Strictness::Open(said) = strictness(&policy(&text)) else { panic!("{text}") };
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn ones_own_policy_goes_first() {
        let home = Place::new();
        let system = home.0.join("system");
        std::fs::File::create(&system).unwrap();
        assert_eq!(effective_of(Some(home.0.as_path()), &system).unwrap(), system);
        assert_eq!(effective_of(None, &system).unwrap(), system);
        let own = home.0.join(OWN);
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&system, &own).unwrap();
        assert_eq!(effective_of(Some(home.0.as_path()), &system).unwrap(), own);
        assert_eq!(link(&own), Some(system.clone()));
        // podman fails then, and does not take the system's
        std::fs::remove_file(&system).unwrap();
        let Err(Failure::File(path, _)) = effective_of(Some(home.0.as_path()), &system) else { panic!() };
        assert_eq!(path, own);
    }

    fn policy_of_reject() -> Policy {
        policy(&format!(
            r#"{{"default":{REJECT},"transports":{{"docker":{{"registry.local/team":{REJECT}}}}}}}"#
        ))
    }

    #[test]
    fn what_would_run_and_why_not() {
        let policy = policy(&format!(
            r#"{{"default":{REJECT},"transports":{{"docker":{{"registry.local/team":{SIGNED}}}}}}}"#
        ));
        let output = Output::plain();
        let (scope, demanded) = policy.decide("registry.local/team/app:1");
        let expected = "
image     registry.local/team/app:1
scope     registry.local/team
demanded  a GPG signature by a key that is in the policy
verdict   would run
";
        assert_eq!(verdict(&output, "registry.local/team/app:1", scope, demanded, None), expected);
        let (scope, demanded) = policy.decide("registry.local/other:1");
        let refusal = rejected(scope, demanded);
        assert_eq!(refusal, Some(Refusal::OutOfScope));
        let object = object("registry.local/other:1", scope, demanded, refusal.as_ref());
        assert_eq!((&object["runs"], &object["reason"]), (&false.into(), &"out-of-scope".into()));
        assert_eq!(object["scope"], Value::Null);
        let revoked = policy_of_reject();
        let (scope, demanded) = revoked.decide("registry.local/team/app:1");
        assert_eq!(rejected(scope, demanded), Some(Refusal::NoSigner));
    }
}
