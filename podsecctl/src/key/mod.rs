//! `podsecctl key`: makes signing keys, publishes and withdraws them.
//!
//! Must not see a private key: gpg keeps those.

mod armor;
pub mod gpg;

use crate::Context;
use crate::cli::{GenerateKey, Key as Command, OfferKey, RevokeKey};
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::input;
use crate::many;
use crate::output::{Output, Style, Verb, clean};
use crate::time;
use crate::user;
use crate::users::own_name;
use gpg::{NewKey, Passphrase};
use podsec_policy::Reason;
use podsec_policy::name::AccountName;
use podsec_policy::user::{Fingerprint, FullName, PublicKey, Scope, key_user_id};
use podsec_proto::v1::{self, KeyChange, KeyState, PublishedKey};
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::path::Path;

const PUBLISH: Verb = Verb { done: "published", todo: "publish", nothing: "was published already" };
const ROTATE: Verb = Verb { done: "rotated to", todo: "rotate to", nothing: "is the current key already" };
const REVOKE: Verb = Verb { done: "revoked", todo: "revoke", nothing: "was revoked already" };
const GENERATE: Verb = Verb { done: "made and published", ..PUBLISH };

pub fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Generate(arguments) => generate(context, &arguments),
        Command::Publish(arguments) => offer(context, &arguments, false),
        Command::Rotate(arguments) => offer(context, &arguments, true),
        Command::Revoke(arguments) => revoke(context, &arguments),
        Command::List { name } => list(context, name.as_ref()),
        Command::Export { name, fingerprint, armor } => export(context, &name, fingerprint.as_ref(), armor),
    }
}

fn generate(context: &Context, arguments: &GenerateKey) -> Result<u8, Failure> {
    let passphrase = match arguments.passphrase_fd {
        _ if arguments.no_passphrase => Passphrase::None,
        Some(descriptor) => Passphrase::This(input::secret_from(descriptor)?),
        None if has_pinentry() => Passphrase::Asked,
        None => {
            let text = "there is no terminal to ask for the passphrase on; --passphrase-fd says where it comes from, \
                        --no-passphrase that there is none";
            return Err(Failure::Usage(text.into()));
        }
    };
    let name = own_name()?;
    let key = NewKey {
        user_id: user_id(&name, &user::record(&Daemon::connect(&context.socket)?, &name)?)?,
        algorithm: arguments.algorithm.0,
        days: arguments.days.unwrap_or_default(),
        passphrase,
        another: is_another(&published(context, Some(&name))?, arguments.rotate)?,
    };
    let fingerprint = gpg::generate(&key).map_err(|failure| match failure {
        Failure::Gpg(said) if said.ends_with("already exists") => Failure::Gpg(format!(
            "{said} in your keyring; `podsecctl key publish` publishes it, `gpg --delete-secret-and-public-keys` \
             removes it"
        )),
        failure => failure,
    })?;
    // A new connection: the passphrase may have been long in coming.
    let exported = gpg::export(&fingerprint);
    let sent = exported.and_then(|key| send(context, None, key, (arguments.rotate, false)));
    let mut change = sent.map_err(|failure| Failure::Unpublished {
        fingerprint: fingerprint.clone(),
        rotate: arguments.rotate,
        source: Box::new(failure),
    })?;
    change.fingerprint = fingerprint.to_string();
    if arguments.no_passphrase {
        change.warnings.push(user::unprotected(&name));
    }
    print(context, (GENERATE, false), change)
}

/// Does a pinentry have somewhere to ask?
fn has_pinentry() -> bool {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    input::is_terminal() || ["GPG_TTY", "DISPLAY", "WAYLAND_DISPLAY"].into_iter().any(is_set)
}

/// Of what podsec knows about its owner, so that images are signed by whom they should be.
fn user_id(name: &AccountName, user: &v1::User) -> Result<String, Failure> {
    if user.category != "image-creator" {
        let text = format!("{name} is no image creator, and nobody else signs images");
        return Err(Failure::Known { reason: Reason::OtherCategory, detail: text });
    }
    let nonsense = |_| Failure::Nonsense("the record of a user");
    let full_name = FullName::new(user.full_name.as_str()).map_err(|_| Failure::Nonsense("a full name"))?;
    let scopes = user.scopes.iter().map(|scope| Scope::new(scope.as_str())).collect::<Result<Vec<_>, _>>();
    Ok(key_user_id(name, &full_name, &scopes.map_err(nonsense)?))
}

/// Will the new key be one more? Otherwise gpg may refuse a second one of the same name: one that was made, and then
/// could not be published, is better published than left lying about.
fn is_another(keys: &[PublishedKey], rotate: bool) -> Result<bool, Failure> {
    match (keys.iter().find(|key| key.state() == KeyState::Current), rotate) {
        (Some(current), false) => {
            let current = clean(&current.fingerprint);
            let detail =
                format!("you have published the key {current} already; --rotate makes a new one beside it");
            Err(Failure::Known { reason: Reason::KeyExists, detail })
        }
        (None, true) => {
            let detail = "you have no current key to rotate from; leave --rotate out".to_owned();
            Err(Failure::Known { reason: Reason::NoKey, detail })
        }
        _ => Ok(!keys.is_empty()),
    }
}

fn offer(context: &Context, arguments: &OfferKey, rotate: bool) -> Result<u8, Failure> {
    let key = PublicKey::new(public_key(arguments.key.as_deref())?);
    let key = key.map_err(|error| Failure::Usage(error.to_string()))?.into();
    let dry_run = arguments.dry_run;
    let change = send(context, arguments.creator.as_ref(), key, (rotate, dry_run))?;
    print(context, (if rotate { ROTATE } else { PUBLISH }, dry_run), change)
}

/// By fingerprint from the caller's keyring, or from a file; by default the one key that there is in the keyring.
fn public_key(argument: Option<&Path>) -> Result<Vec<u8>, Failure> {
    let Some(path) = argument else {
        return match gpg::own()?.as_slice() {
            [one] => gpg::export(one),
            [] => Err(Failure::Usage(
                "there is no key of your own in your keyring; `podsecctl key generate` makes one".into(),
            )),
            several => {
                let list = several.iter().map(Fingerprint::as_str).collect::<Vec<_>>().join(", ");
                Err(Failure::Usage(format!("which of the keys in your keyring? {list}")))
            }
        };
    };
    match path.to_str().map(Fingerprint::new) {
        Some(Ok(fingerprint)) => gpg::export(&fingerprint),
        _ => input::file(path, PublicKey::LONGEST),
    }
}

fn send(
    context: &Context,
    creator: Option<&AccountName>,
    key: Vec<u8>,
    (rotate, dry_run): (bool, bool),
) -> Result<KeyChange, Failure> {
    let creator = creator.map(ToString::to_string).unwrap_or_default();
    let daemon = Daemon::connect(&context.socket)?;
    let mut service = daemon.keys();
    if rotate {
        daemon.ask(service.rotate(v1::RotateKeyRequest { creator, key, dry_run }))
    } else {
        daemon.ask(service.publish(v1::PublishKeyRequest { creator, key, dry_run }))
    }
}

fn revoke(context: &Context, arguments: &RevokeKey) -> Result<u8, Failure> {
    let RevokeKey { fingerprint, creator, yes, dry_run } = arguments;
    if !yes && !dry_run {
        input::confirm(&format!("Revoke {fingerprint}? No image that it signed is trusted any more."))?;
    }
    let daemon = Daemon::connect(&context.socket)?;
    let change = daemon.ask(daemon.keys().revoke(v1::RevokeKeyRequest {
        creator: creator.as_ref().map(ToString::to_string).unwrap_or_default(),
        fingerprint: fingerprint.to_string(),
        dry_run: *dry_run,
    }))?;
    print(context, (REVOKE, *dry_run), change)
}

fn print(context: &Context, (verb, dry_run): (Verb, bool), change: KeyChange) -> Result<u8, Failure> {
    let KeyChange { changed, fingerprint, steps, warnings } = change;
    let key =
        if fingerprint.is_empty() { "the key".to_owned() } else { format!("key {}", clean(&fingerprint)) };
    let change = v1::UserChange { changed, steps, warnings, fingerprint };
    if context.output.is_json() {
        return context.output.object(&many::object(&change));
    }
    let sentence = verb.sentence(&key, changed, dry_run);
    context.output.bytes(many::text(&context.output, sentence, &change, true).as_bytes())
}

/// Of one creator, or of all.
fn published(context: &Context, creator: Option<&AccountName>) -> Result<Vec<PublishedKey>, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let creator = creator.map(ToString::to_string).unwrap_or_default();
    daemon.ask_all(daemon.keys().list(v1::ListKeysRequest { creator }))
}

fn list(context: &Context, name: Option<&AccountName>) -> Result<u8, Failure> {
    let keys = published(context, name)?;
    if context.output.is_json() {
        return context.output.object(&json!({ "keys": keys.iter().map(object).collect::<Value>() }));
    }
    if keys.is_empty() {
        return context
            .output
            .bytes(b"no keys are published; `podsecctl key generate` makes and publishes one\n");
    }
    context.output.bytes(table(&context.output, &keys).as_bytes())
}

fn state(state: KeyState) -> (&'static str, Style) {
    match state {
        KeyState::Current => ("current", Style::Good),
        KeyState::Previous => ("previous", Style::Dim),
        KeyState::Revoked => ("revoked", Style::Bad),
        KeyState::Expired => ("expired", Style::Warn),
        KeyState::Unspecified => ("unknown", Style::Warn),
    }
}

fn object(key: &PublishedKey) -> Value {
    json!({
        "creator": key.creator,
        "fingerprint": key.fingerprint,
        "algorithm": key.algorithm,
        "user_id": key.user_id,
        "state": state(key.state()).0,
        "created": key.created,
        "expires": (key.expires != 0).then_some(key.expires),
        "published": key.published,
    })
}

fn table(output: &Output, keys: &[PublishedKey]) -> String {
    let row = |key: &PublishedKey| {
        let (word, style) = state(key.state());
        vec![
            clean(&key.creator),
            clean(&key.fingerprint),
            clean(&key.algorithm),
            output.paint(style, word),
            if key.expires == 0 { "never".to_owned() } else { time::show(key.expires) },
            clean(&key.user_id),
        ]
    };
    let rows: Vec<_> = keys.iter().map(row).collect();
    output.table(&["CREATOR", "FINGERPRINT", "ALGORITHM", "STATE", "EXPIRES", "USER ID"], &rows)
}

fn export(
    context: &Context,
    name: &AccountName,
    fingerprint: Option<&Fingerprint>,
    armor: bool,
) -> Result<u8, Failure> {
    let is_text = armor || context.output.is_json();
    if !is_text && std::io::stdout().is_terminal() {
        return Err(Failure::Usage("a terminal shows no binary key; --armor prints it as text".into()));
    }
    let mut keys = published(context, Some(name))?;
    keys.retain(|key| {
        let is_wanted = fingerprint.is_none_or(|wanted| key.fingerprint == wanted.as_str());
        is_wanted && matches!(key.state(), KeyState::Current | KeyState::Previous)
    });
    if keys.is_empty() {
        let which = fingerprint.map(|wanted| format!(" {wanted}")).unwrap_or_default();
        let detail = format!(
            "{name} has no key{which} that verifies images now; `podsecctl key list {name}` shows all"
        );
        return Err(Failure::Known { reason: Reason::NoKey, detail });
    }
    if context.output.is_json() {
        let key = |key: &PublishedKey| json!({ "fingerprint": key.fingerprint, "armor": as_text(std::slice::from_ref(key)) });
        return context.output.object(&json!({ "keys": keys.iter().map(key).collect::<Value>() }));
    }
    if armor {
        return context.output.bytes(as_text(&keys).as_bytes());
    }
    // One after the other is a keyring (RFC 9580 §3.6).
    let keyring: Vec<u8> = keys.into_iter().flat_map(|key| key.key).collect();
    context.output.bytes(&keyring)
}

/// sigstore's keys are text already (RFC 7468 §13).
fn is_pem(key: &PublishedKey) -> bool {
    key.key.starts_with(b"-----BEGIN ")
}

/// One block for all keys of OpenPGP, and then those of sigstore.
fn as_text(keys: &[PublishedKey]) -> String {
    let (pem, openpgp): (Vec<_>, Vec<_>) = keys.iter().partition(|key| is_pem(key));
    let keyring: Vec<u8> = openpgp.iter().flat_map(|key| key.key.clone()).collect();
    let mut text = if keyring.is_empty() { String::new() } else { armor::armor(&keyring) };
    for key in pem {
        text.extend(String::from_utf8_lossy(&key.key).lines().map(|line| clean(line) + "\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINGERPRINT: &str = "4B83F0A2A71780556F9AFD23DCB6E4EDD5367651";

    fn key(state: KeyState) -> PublishedKey {
        PublishedKey {
            creator: "carol".into(),
            fingerprint: FINGERPRINT.into(),
            algorithm: "ed25519".into(),
            user_id: "Carol\x1b <carol@registry.local>".into(),
            state: state.into(),
            created: 1,
            expires: 1_769_846_400,
            published: 2,
            key: vec![0x98],
        }
    }

    #[test]
    fn keys_for_people_and_programs() {
        let expected = "\
CREATOR  FINGERPRINT                               ALGORITHM  STATE    EXPIRES               USER ID
carol    4B83F0A2A71780556F9AFD23DCB6E4EDD5367651  ed25519    current  2026-01-31T08:00:00Z  \
Carol\\x1b <carol@registry.local>
";
        assert_eq!(table(&Output::plain(), &[key(KeyState::Current)]), expected);
        let never = PublishedKey { expires: 0, ..key(KeyState::Revoked) };
        assert!(table(&Output::plain(), std::slice::from_ref(&never)).contains("revoked  never"));
        assert_eq!(object(&never)["expires"], Value::Null);
    }

    #[test]
    fn nobody_makes_a_key_for_nothing() {
        assert!(!is_another(&[], false).unwrap());
        assert!(is_another(&[key(KeyState::Revoked)], false).unwrap());
        assert!(is_another(&[key(KeyState::Current)], true).unwrap());
        let refused = is_another(&[key(KeyState::Previous), key(KeyState::Current)], false).unwrap_err();
        assert_eq!((refused.reason(), refused.exit_status()), ("key-exists", 78));
        assert_eq!(is_another(&[key(KeyState::Expired)], true).unwrap_err().reason(), "no-key");
    }

    #[test]
    fn the_user_id_is_of_podsecs_record() {
        let name = AccountName::new("carol").unwrap();
        let mut user =
            v1::User { category: "image-creator".into(), full_name: "Carol C".into(), ..Default::default() };
        user.scopes = vec!["registry.local:5000/team".into()];
        assert_eq!(user_id(&name, &user).unwrap(), "Carol C <carol@registry.local>");
        user.scopes.push("no scope".into());
        assert!(matches!(user_id(&name, &user), Err(Failure::Nonsense(_))));
        user.category = "image-user".into();
        assert_eq!(user_id(&name, &user).unwrap_err().reason(), "other-category");
    }

    const PEM: &str = "-----BEGIN PUBLIC KEY-----\nMFkw\n-----END PUBLIC KEY-----\n";

    #[test]
    fn a_sigstore_key_is_text_and_stays_it() {
        let path = std::env::temp_dir().join(format!("podsecctl-pem-{}", std::process::id()));
        podsec_sys::file::replace(&path, PEM.as_bytes(), 0o600).unwrap();
        assert_eq!(public_key(Some(&path)).unwrap(), PEM.as_bytes());
        std::fs::remove_file(&path).unwrap();
        let sigstore = PublishedKey { key: PEM.into(), ..key(KeyState::Current) };
        assert_eq!(as_text(std::slice::from_ref(&sigstore)), PEM);
        let both = as_text(&[sigstore, key(KeyState::Current)]);
        assert!(both.starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----\n") && both.ends_with(PEM), "{both}");
    }

    #[test]
    fn a_key_from_elsewhere_has_an_end() {
        assert!(matches!(public_key(Some(Path::new("/dev/zero"))), Err(Failure::Usage(_))));
        assert!(matches!(public_key(Some(Path::new("/no/key"))), Err(Failure::File(..))));
    }
}
