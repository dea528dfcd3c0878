//! `podsecctl user`: makes users and looks after them.

mod create;
mod people;
mod verify;

pub use create::unprotected;

use crate::Context;
use crate::cli::{DeleteUsers, Passwd, Switch, User as Command, UserChanges};
use crate::connect::Daemon;
use crate::failure::Failure;
use crate::input;
use crate::many;
use crate::output::{Output, Style, Verb, clean};
use crate::time;
use crate::users::own_name;
use podsec_policy::name::AccountName;
use podsec_proto::v1::{self, UserState};
use serde_json::{Value, json};

const LOCK: Verb = Verb { done: "locked", todo: "lock", nothing: "was locked already" };
const UNLOCK: Verb = Verb { done: "unlocked", todo: "unlock", nothing: "was not locked" };
const DELETE: Verb = Verb { done: "deleted", todo: "delete", nothing: "was not there" };
const PASSWORD: Verb =
    Verb { done: "set the password of", todo: "set the password of", nothing: "has this password already" };

pub fn run(context: &Context, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Create(arguments) => create::run(context, arguments),
        Command::List => list(context),
        Command::Show { name } => show(context, name),
        Command::Lock(UserChanges { names, dry_run }) => {
            change(context, names, (LOCK, dry_run), |daemon, name| {
                let mut service = daemon.users();
                async move { service.lock(v1::LockUserRequest { name, dry_run }).await }
            })
        }
        Command::Unlock(UserChanges { names, dry_run }) => {
            change(context, names, (UNLOCK, dry_run), |daemon, name| {
                let mut service = daemon.users();
                async move { service.unlock(v1::UnlockUserRequest { name, dry_run }).await }
            })
        }
        Command::Passwd(arguments) => passwd(context, &arguments),
        Command::Delete(arguments) => delete(context, arguments),
        Command::Verify { names } => verify::run(context, names),
        Command::RestrictIdmaps { switch, dry_run } => restrict_id_maps(context, switch, dry_run),
    }
}

/// The same for each of some users.
fn change<F>(
    context: &Context,
    names: Vec<AccountName>,
    how: (Verb, bool),
    ask: impl Fn(&Daemon, String) -> F,
) -> Result<u8, Failure>
where
    F: Future<Output = Result<tonic::Response<v1::UserChange>, tonic::Status>> + Send + 'static,
{
    let daemon = Daemon::connect(&context.socket)?;
    let users: Vec<_> = names.into_iter().map(|name| (name, Vec::new())).collect();
    let name = |index: usize| users.get(index).map(|(name, _)| name.to_string()).unwrap_or_default();
    many::change(context, &daemon, how, &users, |index| ask(&daemon, name(index))).map(|tally| tally.status)
}

fn delete(context: &Context, arguments: DeleteUsers) -> Result<u8, Failure> {
    let DeleteUsers { users: UserChanges { names, dry_run }, remove_home, yes } = arguments;
    if !yes && !dry_run {
        let list = names.iter().map(AccountName::as_str).collect::<Vec<_>>().join(", ");
        let homes = if remove_home { ", homes and all" } else { "" };
        input::confirm(&format!("Delete {list}{homes}, and end what runs as them?"))?;
    }
    change(context, names, (DELETE, dry_run), |daemon, name| {
        let mut service = daemon.users();
        async move { service.delete(v1::DeleteUserRequest { name, remove_home, dry_run }).await }
    })
}

fn passwd(context: &Context, arguments: &Passwd) -> Result<u8, Failure> {
    let name = &arguments.name;
    let descriptor = arguments.password_fd.or(arguments.stdin.then_some(0));
    let password = match descriptor {
        Some(descriptor) => input::secret_from(descriptor)?,
        None if input::is_terminal() => input::new_secret(&format!("Password for {name}"))?,
        None => {
            let text = "there is no terminal to ask for the password on; --stdin or --password-fd says where it \
                        comes from";
            return Err(Failure::Usage(text.into()));
        }
    };
    change(context, vec![name.clone()], (PASSWORD, false), |daemon, name| {
        let mut service = daemon.users();
        let request = v1::SetPasswordRequest { name, password: password.expose().to_vec() };
        async move { service.set_password(request).await }
    })
}

fn restrict_id_maps(context: &Context, switch: Option<Switch>, dry_run: bool) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let restrict = switch.map(|switch| switch == Switch::On);
    let request = v1::RestrictIdMapsRequest { restrict, dry_run };
    let change = daemon.ask(daemon.users().restrict_id_maps(request))?;
    if context.output.is_json() {
        return context.output.object(&many::object(&change));
    }
    let verb = Verb { done: "set", todo: "set", nothing: "is as it shall be" };
    let sentence = match switch {
        None => "newuidmap and newgidmap:".to_owned(),
        Some(_) => verb.sentence("who may use newuidmap and newgidmap", change.changed, dry_run),
    };
    context.output.bytes(many::text(&context.output, sentence, &change, true).as_bytes())
}

/// podsec's record of one user.
///
/// # Errors
/// [`Failure::Unmanaged`]
pub fn record(daemon: &Daemon, name: &AccountName) -> Result<v1::User, Failure> {
    let request = v1::ListUsersRequest { name: name.to_string() };
    let found = daemon.ask_all(daemon.users().list(request))?;
    let mut his = found.into_iter().filter(|user| user.name == name.as_str());
    his.next().ok_or_else(|| Failure::Unmanaged(name.clone()))
}

fn list(context: &Context) -> Result<u8, Failure> {
    let daemon = Daemon::connect(&context.socket)?;
    let users = daemon.ask_all(daemon.users().list(v1::ListUsersRequest::default()))?;
    if context.output.is_json() {
        return context.output.object(&json!({ "users": users.iter().map(object).collect::<Value>() }));
    }
    if users.is_empty() {
        return context.output.bytes(b"podsec has made no users; `podsecctl user create` makes one\n");
    }
    let row = |user: &v1::User| {
        vec![
            clean(&user.name),
            user.uid.to_string(),
            clean(&user.category),
            state(&context.output, user),
            user.keys.to_string(),
            user.scopes.iter().map(|scope| clean(scope)).collect::<Vec<_>>().join(" "),
        ]
    };
    let rows: Vec<_> = users.iter().map(row).collect();
    let heading = ["NAME", "UID", "CATEGORY", "STATE", "KEYS", "SCOPES"];
    context.output.bytes(context.output.table(&heading, &rows).as_bytes())
}

fn show(context: &Context, name: Option<AccountName>) -> Result<u8, Failure> {
    let name = name.map_or_else(own_name, Ok)?;
    let daemon = Daemon::connect(&context.socket)?;
    let user = record(&daemon, &name)?;
    if context.output.is_json() {
        return context.output.object(&object(&user));
    }
    context.output.bytes(text(&context.output, &user).as_bytes())
}

/// For programs, for people, and how it looks.
fn word(state: UserState) -> (&'static str, &'static str, Style) {
    match state {
        UserState::Active => ("active", "active", Style::Good),
        UserState::NoPassword => ("no-password", "no password", Style::Warn),
        UserState::Locked => ("locked", "locked", Style::Warn),
        UserState::Gone => ("gone", "gone", Style::Bad),
        UserState::Unspecified => ("unknown", "unknown", Style::Warn),
    }
}

fn state(output: &Output, user: &v1::User) -> String {
    let (_, word, style) = word(user.state());
    output.paint(style, word)
}

fn object(user: &v1::User) -> Value {
    json!({
        "name": user.name,
        "uid": user.uid,
        "category": user.category,
        "state": word(user.state()).0,
        "full_name": user.full_name,
        "scopes": user.scopes,
        "shared": user.shared,
        "first_subid": (user.subids != 0).then_some(user.first_subid),
        "subids": user.subids,
        "created": user.created,
        "keys": user.keys,
    })
}

fn text(output: &Output, user: &v1::User) -> String {
    let mut scopes: Vec<_> = user.scopes.iter().map(|scope| clean(scope)).collect();
    if user.shared && !scopes.is_empty() {
        scopes.push("(shared with other creators)".into());
    }
    let last = u64::from(user.first_subid) + u64::from(user.subids.saturating_sub(1));
    let explained = match user.state() {
        UserState::NoPassword => format!(": `podsecctl user passwd {}` sets one", clean(&user.name)),
        UserState::Locked => format!(": `podsecctl user unlock {}` ends it", clean(&user.name)),
        UserState::Gone => ": removed or replaced, and not by podsec".to_owned(),
        UserState::Active | UserState::Unspecified => String::new(),
    };
    output.facts(&[
        ("user", format!("{} ({})", clean(&user.name), user.uid)),
        ("full name", clean(&user.full_name)),
        ("category", clean(&user.category)),
        ("state", state(output, user) + &explained),
        ("signs in", scopes.join("\n")),
        ("keys", if user.category == "image-creator" { user.keys.to_string() } else { String::new() }),
        ("subids", if user.subids == 0 { String::new() } else { format!("{}-{last}", user.first_subid) }),
        ("made", time::show(user.created)),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carol() -> v1::User {
        v1::User {
            name: "carol".into(),
            uid: 1107,
            category: "image-creator".into(),
            state: UserState::NoPassword.into(),
            full_name: "Carol C".into(),
            scopes: vec!["registry.local/team".into(), "registry.local/\x1bx".into()],
            shared: true,
            first_subid: 165_536,
            subids: 65_536,
            created: 1_769_846_400,
            keys: 1,
        }
    }

    #[test]
    fn for_people() {
        let expected = "\
user       carol (1107)
full name  Carol C
category   image-creator
state      no password: `podsecctl user passwd carol` sets one
signs in   registry.local/team
           registry.local/\\x1bx
           (shared with other creators)
keys       1
subids     165536-231071
made       2026-01-31T08:00:00Z
";
        assert_eq!(text(&Output::plain(), &carol()), expected);
    }

    #[test]
    fn for_programs() {
        let found = object(&carol());
        assert_eq!((&found["state"], &found["first_subid"]), (&"no-password".into(), &165_536.into()));
        assert_eq!(object(&v1::User::default())["first_subid"], Value::Null);
    }
}
