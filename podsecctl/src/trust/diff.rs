//! `podsecctl trust diff`

use super::show::{self, Shown, kind};
use crate::Context;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::output::{Output, Style, clean};
use podsec_proto::v1::{TrustFile, TrustSettings};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _};
use std::num::NonZeroU64;
use std::path::Path;

/// Of a file that is compared: above what ten thousand scopes take.
const LONGEST: u64 = 64 << 20;
/// Lines around a change.
const CONTEXT: usize = 3;
/// podsec knows only its own lines of it.
const HOSTS: &str = "/etc/hosts";

pub fn run(context: &Context, from: Option<NonZeroU64>, to: Option<NonZeroU64>) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    match from {
        Some(from) => {
            let (old, new) = (show::ask(&daemon, Some(from), false)?, show::ask(&daemon, to, false)?);
            revisions(context, &old, &new)
        }
        None => files(context, &show::ask(&daemon, None, true)?),
    }
}

/// What podsec wrote, and what is there.
fn files(context: &Context, shown: &Shown) -> Result<u8, Failure> {
    let mut found = Vec::new();
    for file in &shown.files {
        let there = there(Path::new(&file.path))?;
        if there.as_deref().unwrap_or_default() != file.contents || is_lost(file, there.is_some()) {
            found.push((file, there));
        }
    }
    if context.output.is_json() {
        let object = |(file, there): &(&TrustFile, Option<Vec<u8>>)| json!({ "path": file.path, "diff": unified(file, there.as_deref()) });
        context.output.object(&json!({ "files": found.iter().map(object).collect::<Value>() }))?;
    } else if found.is_empty() {
        context.output.bytes(b"all files are as podsec wrote them\n")?;
    } else {
        for (file, there) in &found {
            context.output.bytes(paint(&context.output, &unified(file, there.as_deref())).as_bytes())?;
        }
    }
    Ok(u8::from(!found.is_empty()))
}

/// An empty file is not the same as none.
fn is_lost(file: &TrustFile, is_there: bool) -> bool {
    !is_there && file.state() == podsec_proto::v1::FileState::Missing
}

fn there(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::File(path.into(), error)),
    }
}

/// As diff -u writes it, "-" for what podsec wrote.
fn unified(file: &TrustFile, there: Option<&[u8]>) -> String {
    let path = clean(&file.path);
    let name = if there.is_some() { path.clone() } else { format!("{path} (missing)") };
    if file.path == HOSTS && file.contents.is_empty() && there.is_some_and(|there| !there.is_empty()) {
        return format!(
            "--- podsec's {path}\n+++ {name}\npodsec's lines in it are damaged: what should be there cannot be shown\n"
        );
    }
    let (old, new) =
        (String::from_utf8_lossy(&file.contents), String::from_utf8_lossy(there.unwrap_or_default()));
    let diff = similar::TextDiff::from_lines(old.as_ref(), new.as_ref());
    let mut text =
        diff.unified_diff().context_radius(CONTEXT).header(&format!("podsec's {path}"), &name).to_string();
    if text.is_empty() {
        text = format!("--- podsec's {path}\n+++ {name}\n");
    }
    text
}

/// In colour; whoever changed the file by hand is not to drive the terminal.
fn paint(output: &Output, diff: &str) -> String {
    let line = |line: &str| {
        let shown: String = line.split('\t').map(clean).collect::<Vec<_>>().join("\t");
        let shown = match line.bytes().next() {
            _ if line.starts_with("--- ") || line.starts_with("+++ ") => output.paint(Style::Bold, &shown),
            Some(b'-') => output.paint(Style::Bad, &shown),
            Some(b'+') => output.paint(Style::Good, &shown),
            Some(b'@') => output.paint(Style::Dim, &shown),
            _ => shown,
        };
        shown + "\n"
    };
    diff.lines().map(line).collect()
}

/// What was said in the one, and is said in the other.
fn revisions(context: &Context, old: &Shown, new: &Shown) -> Result<u8, Failure> {
    let (gone, come) = differences(old, new);
    let (from, to) = (old.head.revision, new.head.revision);
    if context.output.is_json() {
        context.output.object(&json!({ "from": from, "to": to, "removed": gone, "added": come }))?;
    } else if gone.is_empty() && come.is_empty() {
        context.output.bytes(format!("revisions {from} and {to} say the same\n").as_bytes())?;
    } else {
        let lines =
            gone.iter().map(|line| format!("-{line}\n")).chain(come.iter().map(|line| format!("+{line}\n")));
        let text = format!("--- revision {from}\n+++ revision {to}\n{}", lines.collect::<String>());
        context.output.bytes(paint(&context.output, &text).as_bytes())?;
    }
    Ok(u8::from(!gone.is_empty() || !come.is_empty()))
}

fn differences(old: &Shown, new: &Shown) -> (Vec<String>, Vec<String>) {
    let (old, new) = (lines(old), lines(new));
    (old.difference(&new).cloned().collect(), new.difference(&old).cloned().collect())
}

/// A revision as sentences of a few words, its head apart.
fn lines(shown: &Shown) -> BTreeSet<String> {
    let TrustSettings { registry, signatures, plain_http, address, names, follows, fingerprint } =
        &shown.settings;
    let settings = [
        ("registry", registry),
        ("signatures", signatures),
        ("address", address),
        ("follows", follows),
        ("trust key", fingerprint),
    ];
    let mut lines: BTreeSet<_> = settings
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name} {value}"))
        .chain(names.iter().map(|name| format!("name {name}")))
        .chain(plain_http.then(|| "plain HTTP".to_owned()))
        .collect();
    for scope in &shown.scopes {
        let line = |what: &str| format!("scope {} {} {what}", scope.scope, kind(scope.kind()));
        if scope.signers.is_empty() {
            lines.insert(line("nobody"));
        }
        for signer in &scope.signers {
            let retired = if signer.retired { " (retired)" } else { "" };
            lines.insert(line(&format!("{}{retired}", signer.creator)));
        }
    }
    lines.extend(
        shown.keys.iter().map(|key| format!("key {} {} {}", key.creator, kind(key.kind()), key.fingerprint)),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_proto::v1::{FileState, SignatureKind};

    fn file(path: &str, state: FileState, contents: &str) -> TrustFile {
        TrustFile { path: path.into(), state: state.into(), contents: contents.as_bytes().into() }
    }

    #[test]
    fn files_as_diff_shows_them() {
        let changed = file("/x", FileState::Changed, "1\n2\n3\n4\n5\n6\n7\n8\n9\n");
        let expected = "\
--- podsec's /x
+++ /x
@@ -6,4 +6,5 @@
 6
 7
 8
-9
+9\x1b
+10
";
        let diff = unified(&changed, Some(b"1\n2\n3\n4\n5\n6\n7\n8\n9\x1b\n10\n"));
        assert_eq!(diff, expected);
        assert_eq!(paint(&Output::plain(), &diff), expected.replace('\x1b', "\\x1b"));
        let gone = unified(&file("/x", FileState::Missing, "1\n"), None);
        assert!(gone.contains("+++ /x (missing)\n") && gone.contains("\n-1\n"), "{gone}");
        let damaged = unified(&file(HOSTS, FileState::Changed, ""), Some(b"127.0.0.1 localhost\n"));
        assert!(damaged.contains("damaged") && !damaged.contains("+127"), "{damaged}");
    }

    #[test]
    fn an_empty_file_is_not_none() {
        assert!(is_lost(&file("/x", FileState::Missing, ""), false));
        assert!(!is_lost(&file("/x", FileState::Same, ""), false));
        assert_eq!(there(Path::new("/no/such/file")).unwrap(), None);
        assert_eq!(there(Path::new("/dev/null")).unwrap(), Some(Vec::new()));
        assert!(matches!(there(Path::new("/proc")), Err(Failure::File(..))));
    }

    #[test]
    fn revisions_differ_in_what_they_say() {
        let old = show::tests::shown();
        assert_eq!(differences(&old, &old), (vec![], vec![]));
        let mut new = old.clone();
        new.head.revision = 5;
        new.settings.plain_http = false;
        new.scopes[0].signers[0].retired = true;
        new.keys[0].kind = SignatureKind::Sigstore.into();
        let (gone, come) = differences(&old, &new);
        let (team, key) = ("scope registry.local/team gpg carol", "0123456789ABCDEF0123456789ABCDEF01234567");
        assert_eq!(gone, [format!("key carol gpg {key}"), "plain HTTP".into(), team.into()]);
        assert_eq!(come, [format!("key carol sigstore {key}"), format!("{team} (retired)")]);
    }
}
