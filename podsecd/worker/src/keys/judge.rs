//! Is it one good public key? gpg says, in a cage; here its listing (doc/DETAILS of GnuPG) is read and held against what
//! podsec publishes.

use super::cage;
use crate::Failure;
use crate::account::{LONG, act_as};
use podsec_policy::accounts;
use podsec_policy::config::Config;
use podsec_policy::reason::Reason;
use podsec_policy::user::Fingerprint;
use podsec_sys::credentials::Account;
use podsec_sys::file::Directory;
use podsec_sys::program::{ProgramError, Run, find_roots, run_with};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// For all that gpg does with one key, which is a matter of milliseconds: meanwhile all other changes wait.
const PATIENCE: Duration = Duration::from_secs(5);

/// Of its directories, before the pid.
const PREFIX: &str = "judge-";

/// A key that may be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Of its primary key.
    pub fingerprint: Fingerprint,
    /// As gpg names it.
    pub algorithm: String,
    /// Its first user id, escaped.
    pub user_id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The same; `None`: never.
    pub expires: Option<u64>,
    /// As gpg writes it, without other people's signatures.
    pub key: Vec<u8>,
}

/// What gpg says in the cage.
#[derive(Serialize, Deserialize)]
struct Said {
    /// Of all that is in the bytes, secret keys too.
    shown: String,
    /// Of what could be imported, so with signatures that were checked.
    listed: String,
    key: Vec<u8>,
}

/// Has it judged.
///
/// # Errors
/// `BadKey` says what is wrong with it
pub fn judge(config: &Config, bytes: &[u8]) -> Result<Judged, Failure> {
    let gpg = find_roots("gpg").map_err(|error| Failure::new(Reason::Unsupported, error))?;
    let (account, directory) = prepare(config)?;
    let said = act_as(&account, LONG, || {
        empty(&directory).map_err(|error| error.to_string())?;
        cage::shut(&directory)?;
        let said = ask(&gpg, &directory, bytes);
        let _ = empty(&directory);
        said
    });
    let _ = std::fs::remove_dir(&directory);
    let said = said
        .map_err(|failure| Failure::new(Reason::BadKey, format!("not a public key: {}", failure.detail)))?;
    read(&said.shown, &said.listed, said.key).map_err(|why| Failure::new(Reason::BadKey, why))
}

/// A directory of the parser's own, for this judge alone.
fn prepare(config: &Config) -> Result<(Account, PathBuf), Failure> {
    let passwd =
        std::fs::read_to_string("/etc/passwd").map_err(|error| Failure::new(Reason::Resources, error))?;
    let front = accounts::account(&passwd, &config.accounts.front);
    let none =
        || Failure::new(Reason::Unsupported, format!("no user {} on this host", config.accounts.front));
    let front = front.ok_or_else(none)?;
    let directory = config.socket.path.with_file_name(format!("{PREFIX}{}", std::process::id()));
    let made = || -> io::Result<()> {
        std::fs::DirBuilder::new().mode(0o700).create(&directory)?;
        Directory::open(&directory)?.give(front.uid, front.gid, 0o700)
    };
    made().map_err(crate::store::at(&directory))?;
    Ok((Account { uid: front.uid, gid: front.gid, groups: Vec::new() }, directory))
}

/// Removes what judges that were killed have left.
pub fn clean_up(config: &Config) {
    let Some(parent) = config.socket.path.parent() else { return };
    let Ok(held) = Directory::open(parent) else { return };
    for name in held.names().unwrap_or_default() {
        let pid = name.to_str().ok().and_then(|name| Some((name, name.strip_prefix(PREFIX)?.parse().ok()?)));
        if let Some((name, pid)) = pid
            && podsec_sys::process::open(pid).is_err()
        {
            let _ = held.remove_tree(name);
        }
    }
}

fn empty(directory: &Path) -> io::Result<()> {
    let held = Directory::open(directory)?;
    for name in held.names()? {
        held.remove_tree(name.to_str().map_err(io::Error::other)?)?;
    }
    Ok(())
}

fn ask(gpg: &Path, home: &Path, bytes: &[u8]) -> Result<Said, String> {
    const OPTIONS: [&str; 12] = [
        "--no-options",
        "--batch",
        "--no-tty",
        "--quiet",
        "--no-autostart",
        "--lock-never",
        "--no-random-seed-file",
        "--no-permission-warning",
        // Not always: with it gpg looks for a trustdb that it does not make, as soon as a key is not valid.
        "--trust-model",
        "direct",
        "--with-colons",
        "--homedir",
    ];
    let end = Instant::now() + PATIENCE;
    let run = |arguments: &[&str], input: &[u8]| {
        let home = home.to_str().unwrap_or_default();
        let arguments = [&OPTIONS[..], &[home], arguments].concat();
        let run = Run { input, deadline: end.saturating_duration_since(Instant::now()), ..Run::default() };
        run_with(gpg, &arguments, run).map_err(|error| match error {
            ProgramError::Failed { text, .. } => text,
            ProgramError::Deadline { .. } => "it takes too long to read".into(),
            error => error.to_string(),
        })
    };
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let shown = text(run(&["--no-keyring", "--show-keys"], bytes)?);
    if shown.lines().any(|line| line.starts_with("sec:") || line.starts_with("ssb:")) {
        return Ok(Said { shown, listed: String::new(), key: Vec::new() });
    }
    run(&["--import"], bytes)?;
    let listed = text(run(&["--list-keys"], &[])?);
    let key = run(&["--export-options", "export-minimal", "--export"], &[])?;
    Ok(Said { shown, listed, key })
}

/// `pub:validity:length:algorithm:keyid:created:expires:…` and what follows it.
fn read(shown: &str, listed: &str, key: Vec<u8>) -> Result<Judged, String> {
    let records = |text: &str, kind: &str| -> Vec<Vec<String>> {
        let records = text.lines().map(|line| line.split(':').map(str::to_owned).collect::<Vec<_>>());
        records.filter(|fields| fields.first().is_some_and(|first| first == kind)).collect()
    };
    if !records(shown, "sec").is_empty() || !records(shown, "ssb").is_empty() {
        return Err("this is a PRIVATE key: whoever saw it can sign as you. Make a new one, and publish what gpg --export prints".into());
    }
    let primary = match (&records(shown, "pub")[..], &records(listed, "pub")[..]) {
        ([], _) => return Err("there is no public key in it".into()),
        ([_], [primary]) => primary.clone(),
        ([_], _) => return Err("its self-signatures are not good".into()),
        (many, _) => return Err(format!("there are {} keys in it; publish one at a time", many.len())),
    };
    let field = |index: usize| primary.get(index).map(String::as_str).unwrap_or_default();
    let number = |index: usize| field(index).parse::<u64>().ok();
    match field(1) {
        "r" => return Err("the key is revoked".into()),
        "e" => return Err("the key has expired".into()),
        "i" | "d" => return Err("the key is not valid".into()),
        _ => {}
    }
    let expires = number(6).filter(|&expires| expires != 0);
    if expires.is_some_and(|expires| expires <= crate::store::now()) {
        return Err("the key has expired".into());
    }
    let (bits, curve) = (number(2).unwrap_or(0), field(16));
    // Numbers of RFC 9580 §9.1: RSA, ECDSA, EdDSA, Ed25519, Ed448.
    let (strong, algorithm) = match field(3) {
        "1" => (bits >= 3072, format!("rsa{bits}")),
        "19" => (bits >= 256, curve.to_owned()),
        "22" | "27" | "28" => (bits >= 255, curve.to_owned()),
        other => (false, format!("algorithm {other} of {bits} bits")),
    };
    let algorithm = podsec_policy::audit::escape(algorithm.as_bytes());
    if !strong {
        return Err(format!("{algorithm} is too weak: Ed25519, or RSA of 3072 bits and more"));
    }
    if !field(11).contains('S') {
        return Err("the key cannot sign".into());
    }
    let fingerprint = records(listed, "fpr").first().and_then(|fields| Fingerprint::new(fields.get(9)?).ok());
    let fingerprint = fingerprint.ok_or("its fingerprint is not that of an OpenPGP key of version 4")?;
    let user_id = records(listed, "uid").first().and_then(|fields| fields.get(9).cloned());
    let user_id = user_id.ok_or("it names nobody: a user id such as \"Name <name@registry>\" is missing")?;
    let user_id = podsec_policy::audit::escape(user_id.replace("\\x3a", ":").as_bytes());
    if key.is_empty() || key.len() > podsec_policy::user::PublicKey::LONGEST {
        return Err("nothing of it can be exported".into());
    }
    Ok(Judged { fingerprint, algorithm, user_id, created: number(5).unwrap_or(0), expires, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "tru::1:1795724589:0:3:1:5\n\
        pub:-:255:22:15BD764687C1A0DB:1795724543:4102444800::-:::scSC:::::ed25519:::0:\n\
        fpr:::::::::2AE1D3ACD9C06D743486775715BD764687C1A0DB:\n\
        uid:-::::1795724543::6AB0::Carol C <carol@registry.local>::::::::::0:\n";

    fn judged(change: impl Fn(&str) -> String) -> Result<Judged, String> {
        let text = change(GOOD);
        read(&text, &text, vec![1])
    }

    #[test]
    fn a_good_key() {
        let key = judged(str::to_owned).unwrap();
        assert_eq!(key.fingerprint.as_str(), "2AE1D3ACD9C06D743486775715BD764687C1A0DB");
        assert_eq!(
            (key.algorithm.as_str(), key.user_id.as_str()),
            ("ed25519", "Carol C <carol@registry.local>")
        );
        assert_eq!((key.created, key.expires), (1_795_724_543, Some(4_102_444_800)));
        assert_eq!(judged(|good| good.replace(":4102444800:", "::")).unwrap().expires, None);
        assert_eq!(judged(|good| good.replace("255:22", "3072:1")).unwrap().algorithm, "rsa3072");
    }

    #[test]
    fn what_is_wrong_with_a_key() {
        type Change = fn(&str) -> String;
        let wrong: [(Change, &str); 11] = [
            (|good| good.replace("pub:", "sec:"), "PRIVATE"),
            (|good| format!("{good}ssb:u:255:18:\n"), "PRIVATE"),
            (|good| good.replace("pub:", "xxx:"), "no public key"),
            (|good| good.repeat(2), "2 keys"),
            (|good| good.replace("pub:-", "pub:r"), "revoked"),
            (|good| good.replace("pub:-", "pub:e"), "expired"),
            (|good| good.replace("4102444800", "1795724544"), "expired"),
            (|good| good.replace("255:22", "2048:1"), "too weak"),
            (|good| good.replace("255:22", "3072:17"), "too weak"),
            (|good| good.replace("scSC", "scC"), "cannot sign"),
            (|good| good.replace("uid:", "uat:"), "names nobody"),
        ];
        for (change, why) in wrong {
            let error = judged(change).unwrap_err();
            assert!(error.contains(why), "{why}: {error}");
        }
        assert!(read(GOOD, "", vec![1]).unwrap_err().contains("self-signatures"));
        assert!(read(GOOD, GOOD, vec![]).unwrap_err().contains("exported"));
    }
}
