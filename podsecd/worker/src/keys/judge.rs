//! Is it one good public key? gpg says, in a cage; here its listing (doc/DETAILS of GnuPG) is read and held against what
//! podsec publishes.

use crate::{Failure, cage};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podsec_policy::config::Config;
use podsec_policy::reason::Reason;
use podsec_policy::trust::SignatureKind;
use podsec_policy::user::Fingerprint;
use podsec_sys::program::{ProgramError, Run, find_roots, run_with};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::path::Path;
use std::time::{Duration, Instant};

/// For all that gpg does with one key, which is a matter of milliseconds: meanwhile all other changes wait.
const PATIENCE: Duration = Duration::from_secs(5);

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
    /// As gpg writes it, without other people's signatures; sigstore's as PEM.
    pub key: Vec<u8>,
    /// What it is for.
    pub kind: SignatureKind,
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
    if let Some(key) = sigstore(bytes) {
        return key.map_err(|why| Failure::new(Reason::BadKey, why));
    }
    let gpg = find_roots("gpg").map_err(|error| Failure::new(Reason::Unsupported, error))?;
    let said = cage::inside(config, |directory| ask(&gpg, directory, bytes))
        .map_err(|failure| Failure { detail: format!("not a public key: {}", failure.detail), ..failure })?;
    read(&said.shown, &said.listed, said.key).map_err(|why| Failure::new(Reason::BadKey, why))
}

/// A public key of sigstore's: ECDSA on P-256, in PEM (RFC 7468 §13). All but the point is always the same (RFC 5480), so
/// nothing is parsed; `None`: something else. Whether the point is on the curve is for verifiers.
fn sigstore(bytes: &[u8]) -> Option<Result<Judged, String>> {
    const HEADER: &str = "-----BEGIN PUBLIC KEY-----";
    const FOOTER: &str = "-----END PUBLIC KEY-----";
    // SEQUENCE of the algorithms id-ecPublicKey and prime256v1, and a BIT STRING of an uncompressed point.
    const PREFIX: [u8; 27] = [
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
    ];
    let text = std::str::from_utf8(bytes).ok()?.trim().strip_prefix(HEADER)?;
    let der = || {
        let body: String = text.strip_suffix(FOOTER)?.split_ascii_whitespace().collect();
        let der = STANDARD.decode(&body).ok()?;
        (der.starts_with(&PREFIX) && der.len() == PREFIX.len() + 64).then_some(der)
    };
    let Some(der) = der() else {
        return Some(Err("a sigstore key is ECDSA on P-256, as cosign generate-key-pair makes it".into()));
    };
    let hash = podsec_policy::audit::hex(&Sha256::digest(&der));
    let fingerprint = match Fingerprint::new(&hash) {
        Ok(fingerprint) => fingerprint,
        Err(error) => return Some(Err(error.to_string())),
    };
    // As everybody writes it: nothing of the caller's text stays.
    let lines: Vec<String> = STANDARD
        .encode(&der)
        .as_bytes()
        .chunks(64)
        .map(|line| String::from_utf8_lossy(line).into())
        .collect();
    let pem = format!("{HEADER}\n{}\n{FOOTER}\n", lines.join("\n"));
    Some(Ok(Judged {
        fingerprint,
        algorithm: "ecdsa-p256".into(),
        user_id: "sigstore".into(),
        created: crate::store::now(),
        expires: None,
        key: pem.into_bytes(),
        kind: SignatureKind::Sigstore,
    }))
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
    Ok(Judged {
        fingerprint,
        algorithm,
        user_id,
        created: number(5).unwrap_or(0),
        expires,
        key,
        kind: SignatureKind::Gpg,
    })
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
