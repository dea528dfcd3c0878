//! gpg(1), run as the caller in his own keyring: it makes the key, and gives its public part out.
//!
//! Must not hand gpg anything of the environment that it does not need, or a passphrase where others can see it.

use crate::failure::Failure;
use crate::output::clean;
use podsec_policy::secret::Password;
use podsec_policy::user::{Fingerprint, KeyAlgorithm, KeyDays};
use podsec_sys::program::{PATH, find};
use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// Where the keyring is, and on which terminal or display a pinentry asks.
const KEPT: [&str; 8] = [
    "HOME",
    "GNUPGHOME",
    "GPG_TTY",
    "TERM",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "XAUTHORITY",
    "DBUS_SESSION_BUS_ADDRESS",
];

/// A key to be made.
pub struct NewKey {
    /// RFC 9580 §5.11
    pub user_id: String,
    /// Which kind.
    pub algorithm: KeyAlgorithm,
    /// Days until it expires.
    pub days: KeyDays,
    /// Of the private key.
    pub passphrase: Passphrase,
    /// Though there is one of this user id.
    pub another: bool,
}

/// Where the passphrase of a new key comes from.
pub enum Passphrase {
    /// There is none.
    None,
    /// This is it.
    This(Password),
    /// A pinentry asks for it.
    Asked,
}

impl Passphrase {
    /// What gpg reads instead of asking.
    fn told(&self) -> Option<&[u8]> {
        match self {
            Self::None => Some(b""),
            Self::This(password) => Some(password.expose()),
            Self::Asked => None,
        }
    }
}

/// Makes a signing key.
///
/// # Errors
/// [`Failure::Gpg`]
pub fn generate(key: &NewKey) -> Result<Fingerprint, Failure> {
    let days = format!("{}d", key.days.get());
    // The user id is UTF-8, whatever the locale.
    let mut arguments = vec!["--status-fd", "1", "--utf8-strings"];
    if key.another {
        arguments.push("--yes");
    }
    if key.passphrase.told().is_some() {
        arguments.extend(["--pinentry-mode", "loopback", "--passphrase-fd", "0"]);
    }
    arguments.extend(["--quick-generate-key", "--", &key.user_id, key.algorithm.name(), "sign", &days]);
    created(&run(&arguments, key.passphrase.told())?)
}

/// The public part of a key, with nothing but its own signatures.
///
/// # Errors
/// [`Failure::Gpg`], also where there is no such key
pub fn export(fingerprint: &Fingerprint) -> Result<Vec<u8>, Failure> {
    let exported =
        run(&["--export-options", "export-minimal", "--export", "--", fingerprint.as_str()], None)?;
    if exported.is_empty() {
        return Err(Failure::Gpg(format!("has no key {fingerprint} in your keyring")));
    }
    Ok(exported)
}

/// Keys that the caller can sign with.
///
/// # Errors
/// [`Failure::Gpg`]
pub fn own() -> Result<Vec<Fingerprint>, Failure> {
    run(&["--with-colons", "--list-secret-keys"], None).map(|listed| secret_keys(&listed))
}

fn run(arguments: &[&str], passphrase: Option<&[u8]>) -> Result<Vec<u8>, Failure> {
    let cannot = |error| Failure::Gpg(format!("cannot be run: {error}"));
    let path = find("gpg").ok_or_else(|| Failure::Gpg("is not installed on this host".into()))?;
    // Here and not by podsec_sys::program::run: a person may take any time to answer its pinentry, on this terminal.
    let mut command = Command::new(path);
    command.arg("--batch").args(arguments).env_clear().env("PATH", PATH).env("LC_ALL", "C.UTF-8");
    command.envs(KEPT.iter().filter_map(|&name| Some((name, std::env::var_os(name)?))));
    // Without GPG_TTY, a pinentry asks on the terminal that is standard input.
    command.stdin(if passphrase.is_some() { Stdio::piped() } else { Stdio::inherit() });
    let mut gpg = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(cannot)?;
    if let (Some(passphrase), Some(mut stdin)) = (passphrase, gpg.stdin.take()) {
        // A pipe takes that much at once. A gpg that ended without reading it says why itself.
        let _ = stdin.write_all(passphrase);
    }
    let Output { status, stdout, stderr } = gpg.wait_with_output().map_err(cannot)?;
    if status.success() { Ok(stdout) } else { Err(Failure::Gpg(complaint(&stderr, &status))) }
}

/// The last thing that gpg said is why it failed; `gpg: ` stands before it.
fn complaint(stderr: &[u8], status: &std::process::ExitStatus) -> String {
    let text = String::from_utf8_lossy(stderr);
    let said =
        text.lines().rev().map(|line| line.trim_start_matches("gpg: ").trim()).find(|line| !line.is_empty());
    match said {
        Some(said) => format!("says: {}", clean(said)),
        None => format!("failed: {status}"),
    }
}

/// `[GNUPG:] KEY_CREATED P FINGERPRINT` (gnupg/doc/DETAILS)
fn created(status: &[u8]) -> Result<Fingerprint, Failure> {
    let text = String::from_utf8_lossy(status);
    let fingerprint = |line: &str| {
        let mut words = line.strip_prefix("[GNUPG:] KEY_CREATED ")?.split(' ');
        // B: with a subkey; S would be a subkey alone.
        matches!(words.next()?, "P" | "B")
            .then(|| words.next())
            .flatten()
            .and_then(|word| Fingerprint::new(word).ok())
    };
    let mut found = text.lines().filter_map(fingerprint);
    found.next().ok_or_else(|| Failure::Gpg("made no key, and does not say why".into()))
}

/// The first `fpr` record below each `sec` (gnupg/doc/DETAILS); those below `ssb` are of subkeys.
fn secret_keys(listed: &[u8]) -> Vec<Fingerprint> {
    let text = String::from_utf8_lossy(listed);
    let mut below_key = false;
    let mut found = Vec::new();
    for line in text.lines() {
        let mut fields = line.split(':');
        match fields.next() {
            Some("sec") => below_key = true,
            Some("fpr") if below_key => {
                below_key = false;
                found.extend(fields.nth(8).and_then(|field| Fingerprint::new(field).ok()));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    const FINGERPRINT: &str = "4B83F0A2A71780556F9AFD23DCB6E4EDD5367651";

    #[test]
    fn the_fingerprint_is_what_gpg_says() {
        let status = format!(
            "[GNUPG:] PINENTRY_LAUNCHED 3\n[GNUPG:] KEY_CONSIDERED {0} 0\n[GNUPG:] KEY_CREATED S {1}\n\
             [GNUPG:] KEY_CREATED P {0}\n",
            FINGERPRINT,
            FINGERPRINT.replace('4', "5")
        );
        assert_eq!(created(status.as_bytes()).unwrap().as_str(), FINGERPRINT);
        for none in
            ["", "[GNUPG:] KEY_NOT_CREATED \n", "[GNUPG:] KEY_CREATED\n", "[GNUPG:] KEY_CREATED P DEADBEEF"]
        {
            assert!(matches!(created(none.as_bytes()), Err(Failure::Gpg(_))), "{none}");
        }
    }

    #[test]
    fn secret_keys_without_their_subkeys() {
        let listed = format!(
            "tru::1:1:0:3:1:5\nsec:u:255:22:DCB6E4EDD5367651:1:2::u:::scSC:::+::ed25519:::0:\nfpr:::::::::{0}:\n\
             grp:::::::::DCE6A0257A41080069E6FD672A63E8D259DE84A4:\nuid:u::::1::4A1F::Anna <a@b>::::::::::0:\n\
             ssb:u:255:18:4:1:::::e:::+::cv25519::\nfpr:::::::::{1}:\n",
            FINGERPRINT,
            FINGERPRINT.replace('4', "5")
        );
        let found: Vec<_> = secret_keys(listed.as_bytes()).iter().map(ToString::to_string).collect();
        assert_eq!(found, [FINGERPRINT]);
        assert!(secret_keys(b"sec:u\nfpr:\nfpr:::::::::\n").is_empty());
    }

    #[test]
    fn a_failure_is_gpgs_last_word() {
        let status = std::process::ExitStatus::from_raw(2 << 8);
        let stderr = b"gpg: agent_genkey failed: Operation cancelled\ngpg: key generation \x1b failed\n\n";
        assert_eq!(complaint(stderr, &status), r"says: key generation \x1b failed");
        assert_eq!(complaint(b"", &status), "failed: exit status: 2");
    }
}
