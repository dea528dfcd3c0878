//! `/etc/podsec/podsecd.toml`. Every key has a default, an unknown one is an error.

use crate::name::AccountName;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the daemon looks, unless told otherwise on its command line.
pub const CONFIG_PATH: &str = "/etc/podsec/podsecd.toml";
/// Where it listens, and clients call.
pub const SOCKET_PATH: &str = "/run/podsec/podsecd.sock";
/// Where clients fetch the sessions that they have a ticket for.
pub const ATTACH_PATH: &str = "/run/podsec/attach.sock";
/// Most bytes of one gRPC message.
pub const MAX_MESSAGE: usize = 256 * 1024;
/// Most gRPC calls at once on one connection.
pub const MAX_STREAMS: u32 = 16;

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Names of the accounts that roles hang on.
    pub accounts: Accounts,
    /// Where and how the daemon listens when systemd does not do it.
    pub socket: Socket,
    /// How much of everything.
    pub limits: Limits,
    /// The record.
    pub audit: Audit,
    /// The cluster user's namespaces.
    pub namespace: Namespace,
    /// The people that podsec makes.
    pub users: Users,
    /// gRPC server reflection (grpc/doc/server-reflection.md), for tools such as grpcurl.
    pub reflection: bool,
    /// How to get hold of the caller's process.
    pub pidfd: Pidfd,
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// `[accounts]`
    Accounts {
        /// Group of the Administrators.
        administrators: String = "wheel".into(),
        /// The user in whose namespaces rootless Kubernetes runs.
        cluster_user: String = "u7s-admin".into(),
        /// Group of the ImageUsers.
        image_users: String = "podman".into(),
        /// Second group of the ImageCreators.
        image_creators: String = "podman_dev".into(),
        /// Group of the Monitors.
        monitors: String = "podsec-monitor".into(),
        /// The user that parses what strangers send, and nothing else.
        front: String = "podsec".into(),
    }
}

section! {
    /// `[socket]`
    Socket {
        /// For gRPC.
        path: PathBuf = SOCKET_PATH.into(),
        /// For sessions.
        attach: PathBuf = ATTACH_PATH.into(),
        /// Permission bits of both. Who may ask for what is decided by the rules, not here: everybody may ask who
        /// he is. 0o660 keeps strangers out before a byte is read.
        mode: u32 = 0o666,
    }
}

section! {
    /// `[limits]`
    Limits {
        /// Connections of all users.
        connections: usize = 512,
        /// Connections of one user.
        connections_per_uid: usize = 64,
        /// Requests under way of one user, sessions apart.
        requests_per_uid: usize = 64,
        /// Sessions of all users.
        sessions: usize = 256,
        /// Sessions of one user.
        sessions_per_uid: usize = 128,
        /// Refusals recorded one by one, a uid and minute; the rest is counted in one record.
        denials_per_minute: u32 = 60,
        /// Seconds without connection, request and session after which a socket-activated podsecd ends; 0: never.
        idle_exit: u64 = 600,
        /// Seconds between SIGHUP and SIGKILL for a session whose client is gone.
        hangup_grace: u64 = 3,
    }
}

section! {
    /// `[audit]`
    Audit {
        /// One JSON object a line.
        path: PathBuf = "/var/log/podsec/audit.jsonl".into(),
        /// What podsecd must remember across its own end: open operations and the end of the audit's chain.
        state: PathBuf = "/var/lib/podsec".into(),
        /// Send every record to journald too, where it runs.
        journald: bool = true,
    }
}

section! {
    /// `[users]`
    Users {
        /// Where homes are made.
        homes: PathBuf = "/home".into(),
        /// Login shell.
        shell: PathBuf = "/bin/bash".into(),
        /// From where ranges of subordinate ids are given out. Ids of a network's users must be below it, or above the
        /// last one (CVE-2024-56433).
        first_subid: u32 = 100_000,
        /// The last one.
        last_subid: u32 = 600_100_000,
        /// Subordinate ids for each user.
        subids: u32 = 65_536,
    }
}

section! {
    /// `[namespace]`
    Namespace {
        /// State directory of podsec-u7s.
        state: PathBuf = "/run/podsec-u7s".into(),
    }
}

/// `pidfd = "auto"`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pidfd {
    /// `SO_PEERPIDFD` (Linux 6.5), else as below.
    #[default]
    Auto,
    /// pidfd_open(2) of the pid of `SO_PEERCRED`, checked again afterwards: what kernels before 6.5 get.
    Fallback,
}

/// A value that no daemon can work with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// An account name is not one.
    #[error("accounts.{key}: {source}")]
    Account {
        /// The key.
        key: &'static str,
        /// Why.
        source: crate::name::NameError,
    },
    /// A path is relative or climbs.
    #[error("{key}: {path:?} is not an absolute path without '..'")]
    Path {
        /// The key.
        key: &'static str,
        /// As given.
        path: PathBuf,
    },
    /// A number is out of range.
    #[error("{key}: {why}")]
    Number {
        /// The key.
        key: &'static str,
        /// What it may be.
        why: &'static str,
    },
}

impl Config {
    /// What the types alone do not say.
    ///
    /// # Errors
    /// [`ConfigError`] names the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let accounts = &self.accounts;
        for (key, name) in [
            ("administrators", &accounts.administrators),
            ("cluster_user", &accounts.cluster_user),
            ("image_users", &accounts.image_users),
            ("image_creators", &accounts.image_creators),
            ("monitors", &accounts.monitors),
            ("front", &accounts.front),
        ] {
            AccountName::new(name.as_str()).map_err(|source| ConfigError::Account { key, source })?;
        }
        for (key, path) in [
            ("socket.path", &self.socket.path),
            ("socket.attach", &self.socket.attach),
            ("audit.path", &self.audit.path),
            ("audit.state", &self.audit.state),
            ("namespace.state", &self.namespace.state),
            ("users.homes", &self.users.homes),
            ("users.shell", &self.users.shell),
        ] {
            if !is_plain_absolute(path) {
                return Err(ConfigError::Path { key, path: path.clone() });
            }
        }
        let number =
            |holds: bool, key, why| if holds { Ok(()) } else { Err(ConfigError::Number { key, why }) };
        number(
            self.socket.mode & !0o666 == 0,
            "socket.mode",
            "permission bits without execute, at most 0o666",
        )?;
        let limits = &self.limits;
        for (key, limit) in [
            ("limits.connections", limits.connections),
            ("limits.connections_per_uid", limits.connections_per_uid),
            ("limits.requests_per_uid", limits.requests_per_uid),
            ("limits.sessions", limits.sessions),
            ("limits.sessions_per_uid", limits.sessions_per_uid),
        ] {
            number((1..=4096).contains(&limit), key, "1 to 4096")?;
        }
        let Users { first_subid, last_subid, subids, .. } = self.users;
        number((1..=0x1000_0000).contains(&subids), "users.subids", "1 to 268435456")?;
        number(first_subid >= 65_536, "users.first_subid", "at least 65536, above the ids of users")?;
        let room = last_subid.checked_sub(first_subid).is_some_and(|room| room >= subids - 1);
        number(
            room && last_subid < 0x8000_0000,
            "users.last_subid",
            "below 2147483648, and room for one range",
        )?;
        number(limits.denials_per_minute >= 1, "limits.denials_per_minute", "at least 1")?;
        number(limits.hangup_grace <= 60, "limits.hangup_grace", "at most 60 seconds")
    }
}

fn is_plain_absolute(path: &Path) -> bool {
    use std::path::Component;
    path.is_absolute()
        && path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn empty_is_the_default() {
        assert_eq!(read("").unwrap(), Config::default());
        assert_eq!(read("[limits]\nsessions = 7").unwrap().limits.sessions, 7);
        assert_eq!(read("pidfd = \"fallback\"").unwrap().pidfd, Pidfd::Fallback);
    }

    #[test]
    fn the_example_says_the_defaults() {
        let example = include_str!("../../systemd/etc/podsecd.toml");
        assert_eq!(read(example).unwrap(), Config::default());
        // And still does when every key is uncommented, which shows that each is a key; none is left out.
        let keys: String = example
            .lines()
            .map(|line| {
                format!("{}\n", line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            })
            .collect();
        assert_eq!(read(&keys).unwrap(), Config::default());
        assert_eq!(keys.lines().filter(|line| !line.starts_with('#') && line.contains(" = ")).count(), 28);
    }

    #[test]
    fn refuses_the_unknown_and_the_absurd() {
        for (text, part) in [
            ("colour = 1", "colour"),
            ("[limits]\nsession = 7", "session"),
            ("[limits]\nsessions = 0", "limits.sessions"),
            ("[accounts]\nadministrators = \"Wheel\"", "accounts.administrators"),
            ("[socket]\npath = \"run/x\"", "socket.path"),
            ("[audit]\npath = \"/var/../x\"", "audit.path"),
            ("[socket]\nmode = 0o777", "socket.mode"),
            ("pidfd = \"never\"", "never"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
