//! `podsecctl user create`

use super::people::{self, Person};
use crate::Context;
use crate::cli::CreateUsers;
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::input;
use crate::many::{self, Tally};
use crate::output::Verb;
use podsec_policy::name::AccountName;
use podsec_policy::secret::Password;
use podsec_policy::user::{Category, KeyAlgorithm};
use podsec_proto::v1::{self, UserState, create_user_request as request};

const CREATE: Verb = Verb { done: "made", todo: "make", nothing: "was made already" };
/// Of a file of users: some ten thousand of them.
const LONGEST_FILE: usize = 1024 * 1024;

pub fn run(context: &Context, arguments: CreateUsers) -> Result<u8, Failure> {
    let people = match &arguments.from {
        Some(path) => people::listed(&input::file(path, LONGEST_FILE)?)?,
        None => people::named(&arguments)?,
    };
    let passphrase = passphrase(&arguments, &people)?;
    let users: Vec<_> =
        people.iter().map(|person| (person.name.clone(), warnings(&arguments, person))).collect();
    let daemon = Daemon::connect(&context.socket)?;
    let how = (CREATE, arguments.dry_run);
    let tally = many::change(context, &daemon, how, &users, |index| {
        let mut service = daemon.users();
        let asked = people.get(index).map(|person| message(person, &arguments, passphrase.as_ref()));
        async move { service.create(asked.unwrap_or_default()).await }
    })?;
    if !arguments.dry_run && !context.output.is_json() {
        say_what_is_next(context, &daemon, &people, &tally)?;
    }
    Ok(tally.status)
}

/// The passphrase of the keys to be made; none where none are, where none is wanted, and where nothing is done.
fn passphrase(arguments: &CreateUsers, people: &[Person]) -> Result<Option<Password>, Failure> {
    let with_key: Vec<_> = people.iter().filter(|person| person.key).collect();
    let whose = match with_key.as_slice() {
        [] if arguments.key_passphrase_fd.is_some() || arguments.no_key_passphrase => {
            let text =
                "a passphrase, and nobody to make a key for; --with-key does, or key = true in the file";
            return Err(Failure::Usage(text.into()));
        }
        [] => return Ok(None),
        [one] => format!("key of {}", one.name),
        more => format!("keys of {} creators", more.len()),
    };
    match arguments.key_passphrase_fd {
        _ if arguments.no_key_passphrase => Ok(None),
        Some(descriptor) => input::secret_from(descriptor).map(Some),
        None if arguments.dry_run => Ok(None),
        None if input::is_terminal() => {
            input::new_secret(&format!("Passphrase for the signing {whose}")).map(Some)
        }
        None => Err(Failure::Usage(format!(
            "there is no terminal to ask for the passphrase of the signing {whose} on; --key-passphrase-fd says where \
             it comes from, --no-key-passphrase that there is none"
        ))),
    }
}

/// What somebody should know who wants no passphrase.
pub fn unprotected(name: &AccountName) -> String {
    format!("nothing but the home of {name} protects the private key: it has no passphrase")
}

fn warnings(arguments: &CreateUsers, person: &Person) -> Vec<String> {
    let is_open = person.key && arguments.no_key_passphrase;
    is_open.then(|| unprotected(&person.name)).into_iter().collect()
}

fn message(person: &Person, arguments: &CreateUsers, passphrase: Option<&Password>) -> v1::CreateUserRequest {
    let algorithm = match arguments.key_algorithm.0 {
        KeyAlgorithm::Ed25519 => v1::KeyAlgorithm::Ed25519,
        KeyAlgorithm::Rsa3072 => v1::KeyAlgorithm::Rsa3072,
        KeyAlgorithm::Rsa4096 => v1::KeyAlgorithm::Rsa4096,
    };
    let key = person.key.then(|| v1::SigningKey {
        algorithm: algorithm.into(),
        days: arguments.key_days.unwrap_or_default().get(),
        passphrase: passphrase.map(|secret| secret.expose().to_vec()).unwrap_or_default(),
    });
    let category = match &person.category {
        Category::ImageCreator { shared, .. } => {
            let scopes = person.category.scopes().iter().map(ToString::to_string).collect();
            request::Category::ImageCreator(v1::ImageCreator { scopes, shared: *shared, key })
        }
        Category::ImageUser => request::Category::ImageUser(v1::ImageUser {}),
        Category::ClusterUser => request::Category::ClusterUser(v1::ClusterUser {}),
        Category::ClusterAdmin => request::Category::ClusterAdmin(v1::ClusterAdmin {}),
    };
    v1::CreateUserRequest {
        name: person.name.to_string(),
        category: Some(category),
        full_name: person.full_name.as_str().to_owned(),
        linger: person.linger,
        dry_run: arguments.dry_run,
    }
}

/// Nobody can log in before there is a password.
fn say_what_is_next(
    context: &Context,
    daemon: &Daemon,
    people: &[Person],
    tally: &Tally,
) -> Result<(), Failure> {
    if tally.changed + tally.same == 0 {
        return Ok(());
    }
    let name = match people {
        [one] => one.name.to_string(),
        _ => String::new(),
    };
    // The users are made, and that is what this command was for: a failure here is none of it.
    let Ok(found) = daemon.ask_all(daemon.users().list(v1::ListUsersRequest { name })) else { return Ok(()) };
    let is_ours = |user: &&v1::User| people.iter().any(|person| person.name.as_str() == user.name);
    let waiting = found.iter().filter(is_ours).filter(|user| user.state() == UserState::NoPassword);
    if let Some(text) = next(people, waiting.count()) {
        context.output.bytes(text.as_bytes())?;
    }
    Ok(())
}

fn next(people: &[Person], waiting: usize) -> Option<String> {
    match (people, waiting) {
        (_, 0) => None,
        ([one], _) => {
            Some(format!("{0} cannot log in before a password is set: podsecctl user passwd {0}\n", one.name))
        }
        (_, waiting) => Some(format!(
            "{waiting} of them cannot log in before a password is set: podsecctl user passwd NAME\n"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command, User};
    use clap::Parser as _;

    fn arguments(line: &str) -> CreateUsers {
        let words = ["podsecctl", "user", "create"].into_iter().chain(line.split_whitespace());
        let Command::User(command) = Cli::try_parse_from(words).unwrap().command else { panic!("{line}") };
        let User::Create(arguments) = *command else { panic!("{line}") };
        arguments
    }

    #[test]
    fn a_request_has_all_that_was_said() {
        let arguments = arguments(
            "carol --category image-creator --scope a.b/c --with-key --key-algorithm rsa4096 --key-days 30 \
             --no-key-passphrase --linger --dry-run",
        );
        let people = people::named(&arguments).unwrap();
        let made = message(&people[0], &arguments, None);
        let key =
            v1::SigningKey { algorithm: v1::KeyAlgorithm::Rsa4096.into(), days: 30, passphrase: vec![] };
        let creator = v1::ImageCreator { scopes: vec!["a.b/c".into()], shared: false, key: Some(key) };
        assert_eq!(made.category, Some(request::Category::ImageCreator(creator)));
        assert!(made.linger && made.dry_run && made.name == "carol" && made.full_name.is_empty());
        assert!(warnings(&arguments, &people[0])[0].contains("nothing but the home of carol"));
        assert_eq!(passphrase(&arguments, &people).unwrap(), None);
    }

    #[test]
    fn a_passphrase_belongs_to_a_key() {
        let arguments = arguments("carol --category image-creator --scope a.b/c --no-key-passphrase");
        let people = people::named(&arguments).unwrap();
        assert!(matches!(passphrase(&arguments, &people), Err(Failure::Usage(_))));
        assert!(warnings(&arguments, &people[0]).is_empty());
    }

    #[test]
    fn what_is_next() {
        let arguments = arguments("carol dave --category image-user");
        let people = people::named(&arguments).unwrap();
        assert_eq!(next(&people, 0), None);
        let two = "2 of them cannot log in before a password is set: podsecctl user passwd NAME\n";
        assert_eq!(next(&people, 2).as_deref(), Some(two));
        let one = "carol cannot log in before a password is set: podsecctl user passwd carol\n";
        assert_eq!(next(&people[..1], 1).as_deref(), Some(one));
    }
}
