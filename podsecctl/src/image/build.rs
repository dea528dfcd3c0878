//! `podsecctl image build`: podman builds an image, trivy looks at it, and it gets its name only if it may.
//!
//! Both run as the caller. Must not: keep an image that was not looked at, unless it was asked to; remove one that was there
//! before; give podman or trivy an option that stands in a name.

use super::progress::Progress;
use super::run::{Scratch, Watch, program};
use super::skopeo::KEPT;
use super::{Trouble, complaint, usage};
use crate::cli::BuildImage;
use crate::failure::Failure;
use crate::output::{Output, Style, aside, clean};
use crate::{Context, time};
use podsec_policy::trivy::{self, Ask, Database, Exception, Excess, Level, Limits, Scan};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The monitor's, which everybody can read.
const SHARED: &str = "/var/cache/podsec-monitor/trivy";
/// Bytes of a report of trivy's.
const REPORT: u64 = 64 << 20;
/// Bytes of a file of exceptions.
const MOST: u64 = 1 << 20;
/// Seconds for trivy.
const PATIENCE: u64 = 1800;
/// What podman reads beside what skopeo does.
const MORE: [&str; 3] = ["BUILDAH_ISOLATION", "BUILDAH_FORMAT", "BUILDAH_LAYERS"];
/// Would say where the image goes before it was looked at, or what only we may say.
const OURS: [&str; 5] = ["--tag", "--iidfile", "--manifest", "--output", "--file"];

/// `--exceptions`
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exceptions {
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// By what an image is judged.
struct Judge {
    exceptions: Vec<Exception>,
    limits: Limits,
    now: u64,
}

/// Where trivy knows from.
enum Source {
    Server(String),
    Database(PathBuf, Database),
}

/// What became of it.
enum Verdict {
    /// Looked at, and that is what trivy knows.
    Scanned(Scan),
    /// It could not be.
    Unknown(String),
}

pub fn run(context: &Context, watch: &Watch, arguments: &BuildImage) -> Result<u8, Trouble> {
    check_name(&arguments.name)?;
    check_options(&arguments.options)?;
    let exceptions = match &arguments.exceptions {
        Some(path) => exceptions(path)?,
        None => Vec::new(),
    };
    let judge = Judge { exceptions, limits: Limits::none_from(arguments.severity), now: time::now() };
    for exception in judge.exceptions.iter().filter(|exception| exception.until.is_over(judge.now)) {
        aside(&format!(
            "podsecctl: the exception for {} has ended after {}, so it counts again",
            clean(&exception.id),
            exception.until
        ));
    }
    // Before anything is built in vain.
    let source = source(arguments, judge.now);
    if let (Err(why), false) = (&source, arguments.unscanned) {
        return Err(unknown(format!("{why}; nothing was built, and --unscanned does without")));
    }
    let output = &context.output;
    if arguments.dry_run {
        return Ok(say(output, arguments, &source)?);
    }
    let podman = Podman { watch };
    let scratch = Scratch::new(watch).map_err(Trouble::Unpack)?;
    let before = podman.images()?;
    let id = podman.build(arguments, &scratch.path().join("id"), output)?;
    let mut progress = Progress::new(output);
    progress.begin(&format!("looking at {}", clean(&arguments.name)));
    let verdict = source.and_then(|source| scan(&podman, &source, &id, &scratch));
    progress.clear();
    let verdict = verdict.map_or_else(Verdict::Unknown, Verdict::Scanned);
    let (excess, kept) = match &verdict {
        Verdict::Scanned(scan) => {
            let excess = judge.excess(scan, &arguments.name, &id);
            let is_good = excess.is_empty();
            (excess, is_good)
        }
        Verdict::Unknown(_) => (Vec::new(), arguments.unscanned),
    };
    let is_new = !before.contains(&id);
    if kept {
        podman.run(&["tag"], &[&id, &arguments.name])?;
    } else if is_new {
        podman.run(&["rmi"], &[&id])?;
    }
    let built = Built { name: &arguments.name, id: &id, kept, is_new };
    print(output, &built, &verdict, &excess)
}

fn unknown(said: String) -> Trouble {
    Trouble::Known { reason: "unscanned", said }
}

/// As podman will take it once it is built, and no sooner: host, path and tag, or a part of that.
fn check_name(name: &str) -> Result<(), Trouble> {
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (name, "latest"),
    };
    let is_tag = !tag.is_empty()
        && tag.len() <= 128
        && tag.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    let is_part = |part: &str| {
        let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-:".contains(&byte);
        part.bytes().all(inside) && part.starts_with(|first: char| first.is_ascii_alphanumeric())
    };
    if is_tag && path.len() <= 255 && path.split('/').all(is_part) {
        return Ok(());
    }
    Err(usage(format!("{} is no name for an image: registry.local/team/app:1", clean(name))))
}

/// They are podman's, but for those by which it would be told where the image goes.
fn check_options(options: &[OsString]) -> Result<(), Trouble> {
    for option in options {
        let text = option.to_string_lossy();
        let (name, _) = text.split_once('=').unwrap_or((&text, ""));
        // Short ones may be put together, those without a value first.
        let short = text.strip_prefix('-').filter(|rest| !rest.starts_with('-')).unwrap_or_default();
        let first = short.trim_start_matches('q').chars().next();
        if OURS.contains(&name) || first.is_some_and(|first| "tof".contains(first)) {
            return Err(usage(format!("{} is podsecctl's to say", clean(&text))));
        }
    }
    Ok(())
}

fn exceptions(path: &Path) -> Result<Vec<Exception>, Trouble> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(MOST).read_to_string(&mut text));
    read.map_err(|error| Trouble::file(path, error))?;
    let read: Result<Exceptions, _> = toml::from_str(&text);
    let read = read.map_err(|error| {
        usage(format!("{}: {}", clean(&path.to_string_lossy()), clean(error.to_string().trim())))
    })?;
    Ok(read.exceptions)
}

/// What there is to look at an image with; otherwise, what is missing.
fn source(arguments: &BuildImage, now: u64) -> Result<Source, String> {
    program("trivy", &[]).map_err(|trouble| trouble.to_string())?;
    if let Some(server) = &arguments.server {
        return Ok(Source::Server(server.clone()));
    }
    let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/trivy"));
    let all = match &arguments.database {
        Some(directory) => vec![directory.clone()],
        None => [Some(SHARED.into()), own].into_iter().flatten().collect(),
    };
    for directory in &all {
        let Ok(metadata) = std::fs::read(directory.join("db/metadata.json")) else { continue };
        let database = Database::read(&metadata)
            .map_err(|error| format!("{}/db/metadata.json: {}", directory.display(), clean(&error)))?;
        if database.days_old(now) > 7 {
            let days = database.days_old(now);
            aside(&format!("podsecctl: the database in {} is {days} days old", directory.display()));
        }
        return Ok(Source::Database(directory.clone(), database));
    }
    let all: Vec<_> = all.iter().map(|directory| clean(&directory.to_string_lossy())).collect();
    Err(format!(
        "there is no vulnerability database in {}: fetch one by `trivy image --download-db-only`",
        all.join(" or ")
    ))
}

/// podman(1), as the caller.
struct Podman<'a> {
    watch: &'a Watch,
}

impl Podman<'_> {
    fn command(&self) -> Result<Command, Trouble> {
        program("podman", &[&KEPT[..], &MORE].concat())
    }

    /// What is behind `--` is never an option.
    fn run(&self, what: &[&str], names: &[&str]) -> Result<Vec<u8>, Trouble> {
        let mut command = self.command()?;
        command.args(what).arg("--").args(names);
        let done =
            self.watch.run(&mut command, |_| ()).map_err(|error| Trouble::cannot_run("podman", &error))?;
        if done.status.success() {
            return Ok(done.output);
        }
        Err(Trouble::Program { name: "podman", said: complaint(&done.errors, &done.status) })
    }

    /// Ids of all that are there.
    fn images(&self) -> Result<BTreeSet<String>, Trouble> {
        let listed = self.run(&["images", "--all", "--quiet", "--no-trunc"], &[])?;
        Ok(String::from_utf8_lossy(&listed).lines().filter_map(id).collect())
    }

    /// The id of what it has built, which has no name.
    fn build(&self, arguments: &BuildImage, file: &Path, output: &Output) -> Result<String, Trouble> {
        let cannot = |error: io::Error| Trouble::cannot_run("podman", &error);
        let mut command = self.command()?;
        command.args(["build", "--iidfile"]).arg(file);
        if let Some(file) = &arguments.file {
            command.arg("--file").arg(file);
        }
        command.args(&arguments.options).arg("--").arg(&arguments.context);
        if output.is_json() {
            let done = self.watch.run(&mut command, |_| ()).map_err(cannot)?;
            if !done.status.success() {
                return Err(Trouble::Program { name: "podman", said: complaint(&done.errors, &done.status) });
            }
        } else {
            // Its steps are for people; standard output is for what becomes of it.
            let errors = io::stderr().as_fd().try_clone_to_owned().map_err(cannot)?;
            command.stdout(Stdio::from(errors));
            let status = self.watch.spawn(&mut command).and_then(|mut running| running.wait());
            let status = status.map_err(cannot)?;
            if !status.success() {
                return Err(Trouble::Program { name: "podman", said: format!("failed: {status}") });
            }
        }
        let text = std::fs::read_to_string(file).map_err(|error| Trouble::file(file, error))?;
        let said = || Trouble::Program { name: "podman", said: "says no id of what it has built".into() };
        id(&text).ok_or_else(said)
    }
}

/// `sha256:` and 64 digits, or only those.
fn id(text: &str) -> Option<String> {
    let text = text.trim();
    let id = text.strip_prefix("sha256:").unwrap_or(text);
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (id.len() == 64 && id.bytes().all(is_hex)).then(|| id.to_owned())
}

fn scan(podman: &Podman<'_>, source: &Source, id: &str, scratch: &Scratch) -> Result<Scan, String> {
    let text = |path: PathBuf| path.to_str().map(str::to_owned).ok_or("TMPDIR is not UTF-8");
    let (image, cache) = (text(scratch.path().join("image"))?, text(scratch.path().join("cache"))?);
    let save = ["image", "save", "--quiet", "--format=oci-dir", "--uncompressed", "--output", &image];
    podman.run(&save, &[id]).map_err(|trouble| trouble.to_string())?;
    let server = match source {
        Source::Server(server) => Some(server.as_str()),
        Source::Database(directory, _) => {
            // trivy opens it for writing, and locks it.
            let copied = copy_database(directory, Path::new(&cache));
            copied.map_err(|error| format!("{}: {error}", directory.display()))?;
            None
        }
    };
    let ask = Ask { input: &image, cache: &cache, server, seconds: PATIENCE };
    let mut command = program("trivy", &[]).map_err(|trouble| trouble.to_string())?;
    // It reads trivy.yaml and .trivyignore where it stands: there are none.
    command.args(ask.arguments()).current_dir(scratch.path());
    command.env("HOME", scratch.path()).env("TMPDIR", scratch.path());
    command.env("TRIVY_SKIP_VERSION_CHECK", "true").env("TRIVY_DISABLE_TELEMETRY", "true");
    let done = podman.watch.run(&mut command, |_| ()).map_err(|error| format!("trivy: {error}"))?;
    if !done.status.success() {
        let said = complaint(&done.errors, &done.status);
        return Err(format!("trivy {}", said.rsplit(r"\x09").next().unwrap_or(&said)));
    }
    if done.output.len() as u64 > REPORT {
        return Err(format!("trivy's report has more than {REPORT} bytes"));
    }
    let scan = trivy::read(&done.output).map_err(|error| clean(&error.to_string()))?;
    if scan.says_something() { Ok(scan) } else { Err("trivy found no package in it that it knows".into()) }
}

fn copy_database(from: &Path, cache: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::create_dir_all(cache.join("db"))?;
    for name in ["db/trivy.db", "db/metadata.json"] {
        std::fs::copy(from.join(name), cache.join(name))?;
        std::fs::set_permissions(cache.join(name), std::fs::Permissions::from_mode(0o600))?;
    }
    std::os::unix::fs::symlink(from.canonicalize()?.join("java-db"), cache.join("java-db"))
}

impl Judge {
    fn excess<'a>(&self, scan: &'a Scan, name: &str, id: &str) -> Vec<Excess<'a>> {
        trivy::judge(scan, &[name, id], &self.limits, &self.exceptions, self.now)
    }
}

fn say(output: &Output, arguments: &BuildImage, source: &Result<Source, String>) -> Result<u8, Failure> {
    let (name, from) = (clean(&arguments.name), clean(&arguments.context.to_string_lossy()));
    let by = match source {
        Ok(Source::Server(server)) => format!("look at it by {}", clean(server)),
        Ok(Source::Database(path, database)) => {
            format!("look at it by the database in {} of {}", path.display(), clean(&database.updated_at))
        }
        Err(why) => format!("not look at it ({why})"),
    };
    if output.is_json() {
        let source = source.as_ref().map_err(String::as_str).err();
        return output.object(&json!({ "image": arguments.name, "context": from, "unscanned": source }));
    }
    let level = arguments.severity.name();
    output.bytes(
        format!("would build {from}, {by}, and keep it as {name} if nothing in it is {level} or worse\n")
            .as_bytes(),
    )
}

/// What was built.
struct Built<'a> {
    name: &'a str,
    id: &'a str,
    kept: bool,
    /// It was not there before.
    is_new: bool,
}

impl Built<'_> {
    fn fate(&self) -> &'static str {
        match (self.kept, self.is_new) {
            (true, _) => "kept",
            (false, true) => "removed",
            (false, false) => "was there before, and was left as it was",
        }
    }
}

fn print(
    output: &Output,
    built: &Built<'_>,
    verdict: &Verdict,
    excess: &[Excess<'_>],
) -> Result<u8, Trouble> {
    let status = match verdict {
        _ if built.kept => 0,
        Verdict::Scanned(_) => 1,
        Verdict::Unknown(_) => 78,
    };
    if output.is_json() {
        output.object(&object(built, verdict, excess))?;
        return Ok(status);
    }
    let name = clean(built.name);
    match verdict {
        Verdict::Scanned(scan) => {
            if scan.is_out_of_support {
                let warning = output.paint(Style::Warn, "warning:");
                aside(&format!("{warning} {} gets no fixes any more", clean(&scan.distribution)));
            }
            if !excess.is_empty() {
                output.bytes(table(output, excess).as_bytes())?;
                let numbers: Vec<_> = excess.iter().map(number).collect();
                aside(&format!(
                    "podsecctl: {name} has vulnerabilities: {}; it {}. Build on a base image with the fixes; what does no harm passes by --exceptions",
                    numbers.join(", "),
                    if built.is_new { "was removed" } else { built.fate() }
                ));
            }
        }
        Verdict::Unknown(why) if built.kept => {
            let warning = output.paint(Style::Warn, "warning:");
            aside(&format!("{warning} {name} was kept and not looked at: {}", clean(why)));
        }
        Verdict::Unknown(why) => {
            let fate = if built.is_new { "was removed" } else { built.fate() };
            aside(&format!(
                "podsecctl: {name} could not be looked at: {}; it {fate}, and --unscanned keeps it",
                clean(why)
            ));
        }
    }
    if built.kept {
        output.bytes(format!("kept {name}\n  {}\n", built.id).as_bytes())?;
    }
    Ok(status)
}

fn number(excess: &Excess<'_>) -> String {
    format!("{} {}", excess.vulnerabilities.len() as u64 + excess.more, excess.level.name())
}

fn table(output: &Output, excess: &[Excess<'_>]) -> String {
    let rows = excess.iter().flat_map(|excess| &excess.vulnerabilities).map(|one| {
        let style = if one.level == Level::Critical { Style::Bad } else { Style::Warn };
        let level = output.paint(style, one.level.name());
        vec![level, clean(&one.id), clean(&one.package), clean(&one.installed), clean(&one.fixed)]
    });
    output.table(&["LEVEL", "ID", "PACKAGE", "INSTALLED", "FIXED IN"], &rows.collect::<Vec<_>>())
}

fn object(built: &Built<'_>, verdict: &Verdict, excess: &[Excess<'_>]) -> Value {
    let all = excess.iter().flat_map(|excess| &excess.vulnerabilities).map(|one| {
        json!({
            "level": one.level.name(), "id": one.id, "package": one.package, "installed": one.installed,
            "fixed": (!one.fixed.is_empty()).then_some(&one.fixed),
        })
    });
    let mut object = json!({
        "image": built.name,
        "id": built.id,
        "kept": built.kept,
        "removed": !built.kept && built.is_new,
        "vulnerabilities": all.collect::<Value>(),
    });
    let Value::Object(fields) = &mut object else { return object };
    match verdict {
        Verdict::Scanned(scan) => {
            fields.insert("scanned".into(), true.into());
            fields.insert("distribution".into(), scan.distribution.as_str().into());
            fields.insert("supported".into(), (!scan.is_out_of_support).into());
        }
        Verdict::Unknown(why) => {
            fields.insert("scanned".into(), false.into());
            fields.insert("why".into(), why.as_str().into());
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in [
            "app",
            "app:1",
            "localhost/app:1.2_x",
            "registry.local:5000/team/app",
            "registry.local:5000/a/b:V1",
        ] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-t",
            "--tag",
            "a//b",
            "/a",
            "a/",
            "App",
            "a:",
            "a b",
            "a\n",
            "a$(x)",
            "docker://a.b/c",
            "a@sha256:0",
            "../a",
            "a/-b",
        ] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_that_are_ours() {
        let check = |options: &[&str]| check_options(&options.iter().map(Into::into).collect::<Vec<_>>());
        for good in [
            &["--no-cache"][..],
            &["--build-arg", "X=tof"],
            &["-v", "/tmp:/x"],
            &["--target=t"],
            &["--tls-verify"],
        ] {
            assert!(check(good).is_ok(), "{good:?}");
        }
        for bad in
            ["-t", "-tx", "--tag", "--tag=x", "--iidfile=/x", "--manifest", "-o", "-f", "--output=x", "-qt"]
        {
            assert!(check(&["--no-cache", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids() {
        let hex = "0123456789abcdef".repeat(4);
        assert_eq!(id(&format!("sha256:{hex}\n")), Some(hex.clone()));
        assert_eq!(id(&hex), Some(hex.clone()));
        for bad in ["", "sha256:", "--force", &hex[1..], &hex.to_uppercase()] {
            assert_eq!(id(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_that_is_printed_drives_a_terminal() {
        let report = json!({ "SchemaVersion": 2, "Results": [{ "Packages": [{}], "Vulnerabilities": [
            { "VulnerabilityID": "CVE-1\u{1b}[2J", "PkgName": "x\ny", "Severity": "CRITICAL" },
            { "VulnerabilityID": "CVE-2", "PkgName": "x", "Severity": "LOW" },
        ] }] });
        let scan = trivy::read(report.to_string().as_bytes()).unwrap();
        let judge = Judge { exceptions: vec![], limits: Limits::none_from(Level::High), now: 0 };
        let excess = judge.excess(&scan, "a:1", "0");
        assert_eq!(
            table(&Output::plain(), &excess),
            "LEVEL     ID            PACKAGE  INSTALLED  FIXED IN\ncritical  CVE-1\\x1b[2J  x\\x0ay\n"
        );
        let built = Built { name: "a:1", id: "0", kept: false, is_new: true };
        assert_eq!(print(&Output::plain(), &built, &Verdict::Scanned(scan.clone()), &excess).unwrap(), 1);
        assert_eq!(print(&Output::plain(), &built, &Verdict::Unknown("x".into()), &[]).unwrap(), 78);
        let object = object(&built, &Verdict::Scanned(scan.clone()), &excess);
        assert_eq!(
            (&object["removed"], &object["vulnerabilities"][0]["fixed"]),
            (&true.into(), &Value::Null)
        );
    }
}
