//! Names of uids and back, for people. By getent(1), since the client is linked statically and the account
//! database is behind plugins that only a dynamic program can load.

use crate::failure::Failure;
use crate::output::clean;
use podsec_policy::name::AccountName;
use podsec_sys::nix::unistd::Uid;
use std::collections::HashMap;
use std::process::{Command, Stdio};

const GETENT: &str = "/usr/bin/getent";

/// What was looked up so far.
#[derive(Debug, Default)]
pub struct Users(HashMap<u32, Option<String>>);

impl Users {
    /// `alice`, or the number where the database has no name for it.
    pub fn name(&mut self, uid: u32) -> String {
        let known = self.0.entry(uid).or_insert_with(|| {
            let entry = passwd(&uid.to_string())?;
            (entry.uid == uid).then_some(entry.name)
        });
        known.clone().unwrap_or_else(|| uid.to_string())
    }

    /// `alice (1000)`
    pub fn name_and_number(&mut self, uid: u32) -> String {
        let name = self.name(uid);
        if name == uid.to_string() { name } else { format!("{name} ({uid})") }
    }
}

/// The uid of a user by name; a number is taken as it is.
#[must_use]
pub fn uid(user: &str) -> Option<u32> {
    if user.bytes().all(|byte| byte.is_ascii_digit()) {
        return user.parse().ok();
    }
    passwd(user).map(|entry| entry.uid)
}

/// What the caller is called.
///
/// # Errors
/// [`Failure::NoUser`]: nothing, or what no user of podsec's can be called
pub fn own_name() -> Result<AccountName, Failure> {
    let uid = Uid::current().as_raw();
    let name = Users::default().name(uid);
    AccountName::new(name.as_str()).map_err(|_| Failure::NoUser(name))
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    uid: u32,
}

fn passwd(key: &str) -> Option<Entry> {
    let mut getent = Command::new(GETENT);
    getent.args(["passwd", "--", key]).env_clear().stdin(Stdio::null()).stderr(Stdio::null());
    let output = getent.output().ok()?;
    output.status.success().then(|| entry(&output.stdout)).flatten()
}

/// First line of passwd(5): `name:password:uid:…`
fn entry(line: &[u8]) -> Option<Entry> {
    let mut fields = line.split(|&byte| byte == b':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
    Some(Entry { name: clean(&String::from_utf8_lossy(name)), uid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_line_of_passwd() {
        let found = |name: &str, uid| Some(Entry { name: name.into(), uid });
        assert_eq!(entry(b"alice:x:1000:1000:A:/home/alice:/bin/sh\n"), found("alice", 1000));
        assert_eq!(entry(b"a\x1b[2J:x:7:7::/:/\n"), found(r"a\x1b[2J", 7));
        for bad in [
            &b""[..],
            b"\n",
            b"alice",
            b"alice:x",
            b"alice:x:y:",
            b":x:1:",
            b"alice:x:-1:",
            b"a:x:4294967296:",
        ] {
            assert_eq!(entry(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn asks_the_database_of_this_host() {
        let mut users = Users::default();
        assert_eq!(users.name_and_number(0), "root (0)");
        // (uid_t)-1 is nobody's
        assert_eq!(users.name_and_number(u32::MAX), "4294967295");
        assert_eq!(uid("root"), Some(0));
        assert_eq!(uid("1234"), Some(1234));
        for nobody in ["", "-k", "--help", "no such user", "99999999999"] {
            assert_eq!(uid(nobody), None, "{nobody:?}");
        }
    }
}
