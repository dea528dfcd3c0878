//! OpenPGP messages that carry what they sign ([`openpgp`]): gpgv judges in a cage, and what was signed is read there too.

use crate::{Failure, cage};
use podsec_cage::openpgp;
use podsec_policy::config::Config;
use podsec_policy::reason::Reason;
use podsec_policy::user::Fingerprint;
use serde::{Serialize, de::DeserializeOwned};

/// Verifies a message by one of these keys, which gives what it says and its primary key's fingerprint to `read`.
///
/// # Errors
/// `Unsupported`; `BadSignature` with what is wrong
pub fn verified<T: Serialize + DeserializeOwned>(
    config: &Config,
    split: impl FnOnce() -> Result<(Vec<u8>, Vec<u8>), String>,
    read: impl FnOnce(&Fingerprint, &[u8]) -> Result<T, String>,
) -> Result<T, Failure> {
    let gpgv = openpgp::program().map_err(|error| Failure::new(Reason::Unsupported, error))?;
    let said = cage::inside(config, |directory| {
        let (keyring, message) = split()?;
        let (signer, said) = openpgp::verify(&gpgv, directory, &keyring, &message)?;
        read(&signer, &said)
    });
    said.map_err(|failure| match failure.reason {
        Reason::BadKey => Failure { reason: Reason::BadSignature, ..failure },
        _ => failure,
    })
}
