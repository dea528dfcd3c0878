//! A signing key for a new creator, made by gpg as him in his own home. The private key is his file from the first byte.

use super::judge::{Judged, judge};
use crate::Failure;
use crate::account::{LONG, act_as};
use podsec_policy::config::Config;
use podsec_policy::reason::Reason;
use podsec_policy::user::NewKey;
use podsec_sys::credentials::Account;
use podsec_sys::program::{ProgramError, Run, find_roots, run_with};
use std::path::Path;
use std::time::Duration;

/// For what gpg looks up, and for a key of 4096 bits. All of it together ends before [`act_as`] loses patience: what is in
/// the home may keep gpg waiting for ever.
const SOON: Duration = Duration::from_secs(3);
const MAKING: Duration = Duration::from_secs(20);
/// What the user id is in, whatever the locale.
const UTF_8: &str = "--utf8-strings";

/// Makes it, unless he has one of that user id already, and gives the public part.
///
/// # Errors
/// `Program` with what gpg said
pub fn generate(
    config: &Config,
    (account, home): (&Account, &Path),
    user_id: &str,
    key: &NewKey,
) -> Result<Judged, Failure> {
    let missing = |error| Failure::new(Reason::Unsupported, error);
    let (gpg, gpgconf) = (find_roots("gpg").map_err(missing)?, find_roots("gpgconf").map_err(missing)?);
    let public = act_as(account, LONG, || {
        let made = make(&gpg, home, user_id, key);
        // gpg started an agent, which would stay.
        let _ = call(&gpgconf, home, &["--kill", "all"], (SOON, &[]));
        made.map_err(|error| error.to_string())
    });
    let public = public.map_err(|failure| Failure::new(Reason::Program, failure.detail))?;
    judge(config, &public)
}

fn call(
    program: &Path,
    home: &Path,
    arguments: &[&str],
    (deadline, input): (Duration, &[u8]),
) -> Result<Vec<u8>, ProgramError> {
    run_with(program, arguments, Run { input, environment: &[("HOME", home)], deadline })
}

fn make(gpg: &Path, home: &Path, user_id: &str, key: &NewKey) -> Result<Vec<u8>, ProgramError> {
    // Exactly this one, and no search.
    let exactly = format!("={user_id}");
    let list = ["--batch", UTF_8, "--with-colons", "--list-secret-keys", "--", &exactly];
    match call(gpg, home, &list, (SOON, &[])) {
        Ok(_) => {}
        // There is none.
        Err(ProgramError::Failed { .. }) => {
            let days = format!("{}d", key.days.get());
            let passphrase =
                key.passphrase.as_ref().map(podsec_policy::secret::Password::expose).unwrap_or_default();
            // By arguments and not by a file of parameters: there a name could be a directive.
            let arguments =
                ["--batch", UTF_8, "--quiet", "--pinentry-mode", "loopback", "--passphrase-fd", "0"];
            let generate = ["--quick-generate-key", "--", user_id, key.algorithm.name(), "sign", &days];
            call(gpg, home, &[&arguments[..], &generate].concat(), (MAKING, passphrase))?;
        }
        Err(error) => return Err(error),
    }
    let export = ["--batch", UTF_8, "--export-options", "export-minimal", "--export", "--", &exactly];
    call(gpg, home, &export, (SOON, &[]))
}
