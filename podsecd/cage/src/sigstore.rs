//! Signatures of sigstore's by a key (github.com/sigstore/cosign, specs/SIGNATURE_SPEC.md): ECDSA on SHA-256, which openssl
//! verifies. Certificates and logs are not looked at, since no trust of podsec's asks for them.

use podsec_sys::program::{ProgramError, Run, find_roots, run_with};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For openssl and one signature.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// The program that does it.
///
/// # Errors
/// as [`find_roots`]
pub fn program() -> io::Result<PathBuf> {
    find_roots("openssl")
}

/// Verifies that one of these keys (PEM) has signed the payload. In a cage, in whose directory nothing is left.
///
/// # Errors
/// says what is wrong
pub fn verify(
    openssl: &Path,
    directory: &Path,
    keys: &[Vec<u8>],
    payload: &[u8],
    signature: &[u8],
) -> Result<(), String> {
    let mut said = Err("no key counts for this".to_owned());
    for key in keys {
        let files = [("key.pem", &key[..]), ("signature", signature)]
            .map(|(name, bytes)| (directory.join(name), bytes));
        said = verify_by(openssl, &files, payload);
        for (file, _) in files {
            let _ = std::fs::remove_file(file);
        }
        if said.is_ok() {
            break;
        }
    }
    said
}

/// By the key and the signature that have to be in these files.
fn verify_by(openssl: &Path, files: &[(PathBuf, &[u8]); 2], payload: &[u8]) -> Result<(), String> {
    for (file, bytes) in files {
        let written = std::fs::File::create_new(file).and_then(|mut file| file.write_all(bytes));
        written.map_err(|error| error.to_string())?;
    }
    let [key, signature] = files.each_ref().map(|(file, _)| file.to_string_lossy());
    let arguments = ["dgst", "-sha256", "-verify", &key, "-signature", &signature];
    // Its configuration is in a directory that is closed here, and nothing in it is wanted.
    let environment = [("OPENSSL_CONF", Path::new("/dev/null"))];
    let run = Run { input: payload, environment: &environment, deadline: PATIENCE };
    match run_with(openssl, &arguments, run) {
        Ok(_) => Ok(()),
        Err(ProgramError::Failed { code: Some(1), .. }) => {
            Err("it is not by a key that counts for this".into())
        }
        Err(error) => Err(error.to_string()),
    }
}
