//! `VerifyUser`: is he as he was made, and which ways around signed images are open to him? What can be tried is tried, as
//! him, with the programs that are there; what cannot be is said to be not tried. Nothing of it is decided by reading
//! rules: it is seen.

use super::{Entry, Shadow, groups, guard, idmaps, managed, subids};
use crate::account::{LONG, SOON, act_as};
use crate::{Failure, Report};
use podsec_policy::config::Config;
use podsec_policy::name::AccountName;
use podsec_policy::user::Category;
use podsec_sys::program::{ProgramError, Run, find, run_with};
use podsec_wire::messages::{Finding, FindingState as State, Job, Protection, Reply, Step, UserState};
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

/// All that can be said.
///
/// # Errors
/// `UnmanagedUser`, `NotOwner`
pub fn verify(job: &Job, name: &AccountName, report: &mut Report) -> Result<Reply, Failure> {
    report.step(Step::Read);
    super::self_or_administrator(job, name)?;
    let config = &job.config;
    let (record, entry) = managed(config, name)?;
    let mut findings = Findings(Vec::new());
    account(&mut findings, config, &record.category, name, &entry)?;
    // Without a home there is nothing to be tried in.
    let has_home = entry.home.symlink_metadata().is_ok_and(|meta| meta.uid() == entry.account.uid);
    if record.category == Category::ImageUser && has_home {
        report.waiting(Step::Guard);
        ways_around(&mut findings, config, &entry)?;
    }
    Ok(Reply::Findings(findings.0))
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, name: &str, protection: Protection, state: State, detail: impl Into<String>) {
        let detail = podsec_policy::audit::escape(detail.into().as_bytes());
        self.0.push(Finding { name: name.into(), protection, state, detail });
    }

    fn account(&mut self, name: &str, holds: bool, good: &str, bad: impl Into<String>) {
        let state = if holds { State::Ok } else { State::Broken };
        self.add(name, Protection::Account, state, if holds { good.to_owned() } else { bad.into() });
    }
}

fn account(
    findings: &mut Findings,
    config: &Config,
    category: &Category,
    name: &AccountName,
    entry: &Entry,
) -> Result<(), Failure> {
    let state = match Shadow::read(name)?.state() {
        UserState::NoPassword => "waits for a password",
        UserState::Locked => "locked",
        UserState::Active | UserState::Gone => "in use",
    };
    findings.add("account", Protection::Account, State::Ok, format!("uid {}, {state}", entry.account.uid));
    let group = super::etc("group")?;
    let wanted = groups(config, category);
    let missing: Vec<_> = wanted.iter().copied().filter(|wanted| !entry.is_in(&group, wanted)).collect();
    let text = if wanted.is_empty() { "needs none".to_owned() } else { wanted.join(", ") };
    findings.account("groups", missing.is_empty(), &text, format!("is not in {}", missing.join(", ")));
    if *category == Category::ClusterUser {
        let holds = !entry.is_in(&group, &config.accounts.image_users);
        let bad = format!("is in {}, and a person of the cluster must not be", config.accounts.image_users);
        findings.account("no-containers", holds, "not an image user", bad);
    }
    if category.has_containers() {
        match subids::of(name.as_str()) {
            Ok([Some((first, count)), Some(_)]) => {
                findings.account(
                    "subids",
                    true,
                    &format!("{count} from {first}, overlapping with nothing"),
                    "",
                );
            }
            Ok(_) => {
                findings.account("subids", false, "", "has none; make him whole again: podsecctl user create")
            }
            Err(failure) => findings.account("subids", false, "", failure.detail),
        }
    }
    let meta = entry.home.symlink_metadata();
    let holds = meta
        .as_ref()
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == entry.account.uid && meta.mode() & 0o077 == 0);
    let home = entry.home.display();
    findings.account(
        "home",
        holds,
        &format!("{home}, his alone"),
        format!("{home} is not a directory that he alone can enter"),
    );
    if *category == Category::ClusterUser {
        let kube = entry.home.join(".kube");
        let mode = act_as(&entry.account, SOON, || {
            Ok(kube.symlink_metadata().map(|meta| (meta.is_dir(), meta.mode())).ok())
        })?;
        let holds = mode.is_some_and(|(directory, mode)| directory && mode & 0o077 == 0);
        findings.account(
            "kube",
            holds,
            "~/.kube, his alone",
            "~/.kube is not a directory that he alone can enter",
        );
    }
    Ok(())
}

fn ways_around(findings: &mut Findings, config: &Config, entry: &Entry) -> Result<(), Failure> {
    use Protection::{Containment, Detection, GuardRail};
    let tried = act_as(&entry.account, LONG, || try_all(entry))?;
    let state = if tried.guarded { State::Ok } else { State::Broken };
    let text = if tried.guarded {
        "root's strict policy.json is the one that his programs read"
    } else {
        "~/.config/containers/policy.json is not root's strict one; place it again: podsecctl user create"
    };
    findings.add("policy", GuardRail, state, text);
    let fixed = match &tried.rename {
        Ok(()) if tried.movable => {
            (State::Unsupported, "renamed away: the file system cannot make it immutable")
        }
        Ok(()) => (State::Broken, "he can rename ~/.config away: it is not immutable"),
        Err(_) => (State::Ok, "cannot be renamed away"),
    };
    findings.add("rename-config", GuardRail, fixed.0, fixed.1);
    for (name, outcome) in tried.programs {
        let (state, text) = match outcome {
            Ok(true) => (State::Open, "an image that nobody signed was taken".to_owned()),
            Ok(false) => (State::Ok, "an image that nobody signed was refused".to_owned()),
            Err(why) => (State::NotTried, why),
        };
        findings.add(&name, GuardRail, state, text);
    }
    findings.add(
        "own-program",
        GuardRail,
        State::Open,
        "a program that he brings along reads no policy; nothing here can be tried",
    );
    findings.add(
        "podman-load",
        GuardRail,
        State::NotTried,
        "podman load, import and build from scratch ask no policy for what they make",
    );
    let namespace = if tried.namespace { State::Open } else { State::Ok };
    findings.add(
        "single-uid-namespace",
        GuardRail,
        namespace,
        "a user namespace of his own uid alone, without newuidmap",
    );
    findings.add(
        "detection",
        Detection,
        State::NotTried,
        "this looks once; the monitor policy looks every hour where its timer is enabled (podsecctl check)",
    );
    let text = if idmaps::is_restricted(config) {
        "newuidmap and newgidmap are for image users alone, which does not contain an image user: he runs podman as himself"
    } else {
        "none: he runs podman as himself, and everybody may use newuidmap (podsecctl user restrict-idmaps)"
    };
    findings.add("containment", Containment, State::Open, text);
    Ok(())
}

/// What came of it, in the user's own process.
#[derive(serde::Serialize, serde::Deserialize)]
struct Tried {
    guarded: bool,
    movable: bool,
    rename: Result<(), String>,
    /// Was the image taken, or why could that not be tried?
    programs: Vec<(String, Result<bool, String>)>,
    namespace: bool,
}

/// As the user, who may do all of it.
fn try_all(entry: &Entry) -> Result<Tried, String> {
    let state = guard::state(entry).map_err(|failure| failure.detail)?;
    let guarded = state != guard::State::Absent;
    let config = entry.home.join(".config");
    let away = entry.home.join(format!(".podsec-verify-{}", std::process::id()));
    let rename = std::fs::rename(&config, &away).map_err(|error| error.to_string());
    if rename.is_ok() {
        // At once, since his programs look for it.
        std::fs::rename(&away, &config)
            .map_err(|error| format!("{} is now {}: {error}", config.display(), away.display()))?;
    }
    let programs =
        try_programs(&entry.home, &away, guarded).map_err(|error| format!("{}: {error}", away.display()));
    let _ = std::fs::remove_dir_all(&away);
    Ok(Tried {
        guarded,
        movable: state == guard::State::Movable,
        rename,
        programs: programs?,
        // Last: it changes this process.
        namespace: podsec_sys::nix::sched::unshare(podsec_sys::nix::sched::CloneFlags::CLONE_NEWUSER).is_ok(),
    })
}

/// Lets skopeo copy an image that nobody signed, in the ways of docs/threats.md.
fn try_programs(home: &Path, at: &Path, guarded: bool) -> io::Result<Vec<(String, Result<bool, String>)>> {
    std::fs::create_dir(at)?;
    std::fs::set_permissions(at, Permissions::from_mode(0o700))?;
    let (image, other) = (at.join("image"), at.join("home"));
    unsigned_image(&image)?;
    std::fs::create_dir_all(other.join(".config/containers"))?;
    let accept = other.join(".config/containers/policy.json");
    put(&accept, b"{\"default\":[{\"type\":\"insecureAcceptAnything\"}]}")?;
    let accept = accept.display().to_string();
    let ways: [(&str, &Path, &[&str]); 4] = [
        ("plain-copy", home, &[]),
        ("other-home", &other, &[]),
        ("policy-option", home, &["--policy", &accept]),
        ("insecure-policy", home, &["--insecure-policy"]),
    ];
    let outcomes = ways.into_iter().enumerate().map(|(number, (name, home, options))| {
        // What he has put in the place of the policy may be a FIFO, and skopeo would wait for it.
        if !guarded && name == "plain-copy" {
            return (name.to_owned(), Err("the policy is his own".to_owned()));
        }
        let (from, to) = (format!("dir:{}", image.display()), format!("dir:{}/{number}", at.display()));
        let arguments = [options, &["copy", &from, &to]].concat();
        // What skopeo keeps for later goes with the rest of the trial.
        let environment = [("HOME", home), ("XDG_RUNTIME_DIR", at), ("XDG_DATA_HOME", at)];
        (name.to_owned(), is_taken(&arguments, &environment))
    });
    Ok(outcomes.collect())
}

fn is_taken(arguments: &[&str], environment: &[(&str, &Path)]) -> Result<bool, String> {
    let skopeo = find("skopeo").ok_or("skopeo is not installed")?;
    match run_with(&skopeo, arguments, Run { environment, ..Run::default() }) {
        Ok(_) => Ok(true),
        Err(ProgramError::Failed { text, .. }) if text.contains("rejected") => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// The smallest image there is, in the layout of `dir:` (containers-transports(5)): a configuration, and no layer.
fn unsigned_image(at: &Path) -> io::Result<()> {
    use sha2::{Digest as _, Sha256};
    let config =
        br#"{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    let digest = podsec_policy::audit::hex(&Sha256::digest(config));
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{{"mediaType":"application/vnd.docker.container.image.v1+json","size":{},"digest":"sha256:{digest}"}},"layers":[]}}"#,
        config.len()
    );
    std::fs::create_dir(at)?;
    put(&at.join(digest), config)?;
    put(&at.join("manifest.json"), manifest.as_bytes())?;
    put(&at.join("version"), b"Directory Transport Version: 1.1\n")
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    use std::io::Write as _;
    std::fs::File::create_new(path)?.write_all(bytes)
}
