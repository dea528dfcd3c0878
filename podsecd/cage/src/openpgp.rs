//! OpenPGP messages that carry what they sign: whose are they, and what do they say? gpgv judges, and what was signed is a
//! stranger's bytes all of it, until somebody's key has been found to be good.

use podsec_policy::user::Fingerprint;
use podsec_sys::program::{ProgramError, Run, find_roots, run_with};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For gpgv and one message.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The program that does it.
///
/// # Errors
/// as [`find_roots`]
pub fn program() -> io::Result<PathBuf> {
    find_roots("gpgv")
}

/// Verifies a message by one of these keys: the primary key's fingerprint, and what is signed. In a cage, in whose directory
/// nothing is left.
///
/// # Errors
/// says what is wrong with the message
pub fn verify(
    gpgv: &Path,
    directory: &Path,
    keyring: &[u8],
    message: &[u8],
) -> Result<(Fingerprint, Vec<u8>), String> {
    let names = ["keys.gpg", "said"].map(|name| directory.join(name));
    let said = verify_in(gpgv, directory, &names, keyring, message);
    for name in names {
        let _ = std::fs::remove_file(name);
    }
    said
}

fn verify_in(
    gpgv: &Path,
    directory: &Path,
    [keys, said]: &[PathBuf; 2],
    keyring: &[u8],
    message: &[u8],
) -> Result<(Fingerprint, Vec<u8>), String> {
    let written = std::fs::File::create_new(keys).and_then(|mut file| file.write_all(keyring));
    written.map_err(|error| error.to_string())?;
    let [home, keyring, output] = [directory, keys, said].map(|path| path.to_string_lossy().into_owned());
    let arguments =
        ["--homedir", &home, "--keyring", &keyring, "--status-fd", "1", "--output", &output, "--", "-"];
    let run = Run { input: message, deadline: PATIENCE, ..Run::default() };
    let printed = run_with(gpgv, &arguments, run);
    let status = match &printed {
        Ok(printed) => String::from_utf8_lossy(printed).into_owned(),
        Err(ProgramError::Failed { text, .. }) => return Err(why(text)),
        Err(ProgramError::Deadline { .. }) => return Err("it takes too long to verify".into()),
        Err(error) => return Err(error.to_string()),
    };
    let signer = signer(&status)?;
    let said = std::fs::read(said).map_err(|error| error.to_string())?;
    Ok((signer, said))
}

/// What gpgv said to people, in words that name the reason.
fn why(text: &str) -> String {
    let known = [
        ("No public key", "it is not by a key that counts for this"),
        ("BAD signature", "the signature does not fit what it signs"),
        ("expired", "the key has expired"),
        ("revoked", "the key is revoked"),
        ("no signature found", "there is no signature in it"),
    ];
    let found = known.iter().find(|(part, _)| text.contains(part)).map(|(_, why)| (*why).to_owned());
    // A program that is ended for the size of what it writes says nothing any more.
    let said = text.lines().next().unwrap_or("it is too large");
    found.unwrap_or_else(|| format!("gpgv cannot read it: {said}"))
}

/// The one signer of a status (doc/DETAILS of GnuPG, "General status codes"): exactly one good signature, by a key that has
/// neither expired nor been revoked. The last field of VALIDSIG is the primary key.
fn signer(status: &str) -> Result<Fingerprint, String> {
    let lines = || status.lines().filter_map(|line| line.strip_prefix("[GNUPG:] "));
    let of = |name: &str| lines().filter(|line| line.split(' ').next() == Some(name)).count();
    for (name, why) in [
        ("EXPKEYSIG", "the key has expired"),
        ("REVKEYSIG", "the key is revoked"),
        ("EXPSIG", "the signature has expired"),
        ("BADSIG", "the signature does not fit what it signs"),
        ("ERRSIG", "it is not by a key that counts for this"),
    ] {
        if of(name) > 0 {
            return Err(why.into());
        }
    }
    let valid: Vec<&str> = lines().filter(|line| line.starts_with("VALIDSIG ")).collect();
    let [valid] = valid[..] else { return Err("it must have one signature".into()) };
    if of("GOODSIG") != 1 || of("NEWSIG") > 1 || of("PLAINTEXT") != 1 {
        return Err("it must have one signature, and carry what it signs".into());
    }
    let primary = valid.split(' ').next_back().unwrap_or_default();
    Fingerprint::new(primary).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[GNUPG:] PLAINTEXT 62 1795736379 p.json\n[GNUPG:] PLAINTEXT_LENGTH 8\n[GNUPG:] NEWSIG\n\
        [GNUPG:] KEY_CONSIDERED FCD587BEDD134CD11EA19E8FAB0DABB6CA9E4049 0\n\
        [GNUPG:] GOODSIG AB0DABB6CA9E4049 a <a@b.c>\n\
        [GNUPG:] VALIDSIG 1111111111111111111111111111111111111111 2026-11-26 1795736379 0 4 0 22 8 00 FCD587BEDD134CD11EA19E8FAB0DABB6CA9E4049\n";

    #[test]
    fn one_good_signature() {
        assert_eq!(signer(GOOD).unwrap().as_str(), "FCD587BEDD134CD11EA19E8FAB0DABB6CA9E4049");
        for (from, to) in [
            ("GOODSIG", "EXPKEYSIG"),
            ("GOODSIG", "REVKEYSIG"),
            ("GOODSIG", "EXPSIG"),
            ("GOODSIG", "BADSIG"),
            ("GOODSIG", "NOTHING"),
            ("VALIDSIG", "NOTHING"),
            ("[GNUPG:] PLAINTEXT 62", "[GNUPG:] NOTHING 62"),
            ("[GNUPG:] GOODSIG", "GOODSIG"),
        ] {
            assert!(signer(&GOOD.replace(from, to)).is_err(), "{from} {to}");
        }
        assert!(signer(&GOOD.repeat(2)).is_err());
        // A user id is not a line of its own.
        assert!(signer("[GNUPG:] BADSIG X [GNUPG:] GOODSIG a\n").is_err());
    }
}
