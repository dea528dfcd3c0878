//! Whose stores and homes there are, and reading them as their owner.

use crate::storage::Store;
use landlock::AccessFs;
use podsec_cage::walls::{self, ALONE, NEVER};
use podsec_policy::accounts;
use podsec_policy::config::Config;
use podsec_sys::credentials::{self, Account};
use podsec_sys::nix::libc;
use podsec_sys::nix::sys::resource::{Resource, setrlimit};
use podsec_sys::process;
use seccompiler::BpfProgram;
use serde::{Serialize, de::DeserializeOwned};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// A user of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Login name.
    pub name: String,
    /// 0 is root.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: PathBuf,
    /// Is he the cluster user of the configuration?
    pub is_cluster: bool,
}

/// What whoever only reads and computes has no need of, beside what nobody in a cage has.
const FORBIDDEN: &[i64] = &[libc::SYS_socketpair, libc::SYS_sendmsg];

/// Bytes of memory for it.
const MEMORY: u64 = 512 << 20;

/// How many are asked at once. Those who do not answer cost their deadline divided by this.
const AT_ONCE: usize = 16;

/// A group that nobody has.
const NO_GROUP: u32 = 65_534;

impl Owner {
    /// Everybody of passwd(5) and group(5): root, the cluster user, people and what runs the host's services, each name once.
    /// Who is known to a directory service alone is not among them, since nobody can list those.
    ///
    /// # Errors
    /// names the file that cannot be read
    pub fn all(config: &Config) -> Result<Vec<Self>, String> {
        let read = |path: &str| {
            let bytes = std::fs::read(path).map_err(|error| format!("{path}: {error}"))?;
            let text = String::from_utf8(bytes);
            Ok::<_, String>(
                text.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()),
            )
        };
        Ok(Self::of(&read("/etc/passwd")?, &read("/etc/group")?, config))
    }

    /// The same, of the text of both files.
    #[must_use]
    pub fn of(passwd: &str, group: &str, config: &Config) -> Vec<Self> {
        // Once for all, however many they are. In one piece: each child that is asked costs by what its parent has in memory.
        let mut groups: Vec<(&str, u32)> = Vec::new();
        for line in group.lines() {
            let fields: Vec<_> = line.split(':').collect();
            let (Some(gid), Some(members)) = (accounts::number(&fields, 2), fields.get(3)) else { continue };
            groups.extend(members.split(',').filter(|member| !member.is_empty()).map(|member| (member, gid)));
        }
        groups.sort_unstable();
        let groups_of = |name: &str| {
            let from = groups.partition_point(|(member, _)| *member < name);
            let his = groups.iter().skip(from).take_while(|(member, _)| *member == name);
            his.map(|(_, gid)| *gid).collect()
        };
        let mut seen = HashSet::new();
        let first = accounts::accounts(passwd).filter(|account| seen.insert(account.name));
        let owner = |account: accounts::Account<'_>| Self {
            name: account.name.to_owned(),
            uid: account.uid,
            gid: account.gid,
            groups: groups_of(account.name),
            home: account.home.into(),
            is_cluster: account.name == config.accounts.cluster_user,
        };
        first.map(owner).collect()
    }

    /// Roots of his stores (containers-storage.conf(5)), for a process that is he: links on the way are followed by his own
    /// rights, since the cluster user's store is behind one. What he names on a command line or in the environment
    /// (`--root`, `XDG_DATA_HOME`) is not among them.
    #[must_use]
    pub fn roots(&self) -> Vec<PathBuf> {
        let (of_root, of_users) = HOST.get_or_init(host);
        let mut roots = Vec::new();
        if self.uid == 0 {
            roots.push("/var/lib/containers/storage".into());
            roots.extend(of_root.clone());
        } else {
            roots.push(self.home.join(".local/share/containers/storage"));
            roots.push(self.home.join(".local/share/usernetes/containers/storage"));
            roots.extend(storage(&self.home.join(".config/containers/storage.conf"), "graphroot"));
            roots.extend(of_users.clone());
        }
        let expand = |root: PathBuf| {
            let text = root.to_string_lossy().replace("$HOME", &self.home.to_string_lossy());
            let text = text.replace("$USER", &self.name).replace("$UID", &self.uid.to_string());
            std::fs::canonicalize(text).ok()
        };
        let mut seen = HashSet::new();
        roots.into_iter().filter_map(expand).filter(|root| seen.insert(root.clone())).collect()
    }

    /// Lets `work` read and compute as this user, in a process of its own that can neither write, start a program nor reach
    /// anybody, and gives what it says. Whatever it stumbles over, a FIFO, an endless file, a bug in a parser, is this user's
    /// own problem, and at most a lie about himself.
    ///
    /// # Errors
    /// what `work` says; that it said nothing in time
    pub fn ask<T: Serialize + DeserializeOwned>(
        &self,
        within: Duration,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let shut_in = ShutIn { parent: own_pid()?, filter: prepare()?, within, memory: MEMORY };
        let said = process::in_child(within, || self.say(&shut_in, || (), |()| work()));
        self.heard("reading ", said)
    }

    /// The same of many, several at once: who stops the process that has become him keeps nobody else waiting. `first` is
    /// done as the user, but before the process is shut in; each has a quarter of the memory.
    ///
    /// # Errors
    /// when nobody can be asked; `done` is told of everything else
    pub fn ask_all<'a, F, T: Serialize + DeserializeOwned>(
        owners: impl IntoIterator<Item = &'a Self>,
        within: Duration,
        first: impl Fn(&Self) -> F,
        work: impl Fn(&Self, F) -> Result<T, String>,
        mut done: impl FnMut(&'a Self, Result<T, String>),
    ) -> Result<(), String> {
        let memory = MEMORY / 4;
        let shut_in = ShutIn { parent: own_pid()?, filter: prepare()?, within, memory };
        let say = |owner: &&'a Self| owner.say(&shut_in, || first(owner), |found| work(owner, found));
        process::in_children(owners, AT_ONCE, within, say, |owner, said| {
            done(owner, owner.heard("reading ", said))
        });
        Ok(())
    }

    fn say<F, T: Serialize>(
        &self,
        shut_in: &ShutIn,
        first: impl FnOnce() -> F,
        work: impl FnOnce(F) -> Result<T, String>,
    ) -> Vec<u8> {
        let found = self.become_it(shut_in.parent).map(|()| first());
        let result = found.and_then(|found| shut_in.shut().and_then(|()| work(found)));
        postcard::to_stdvec(&result).unwrap_or_default()
    }

    /// Lets `work` be done as this user, in a process of its own that is not shut in: that is for `work` to do.
    ///
    /// # Errors
    /// as [`Owner::ask`]
    pub fn act<T: Serialize + DeserializeOwned>(
        &self,
        within: Duration,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        let parent = own_pid()?;
        let said = process::in_child(within, || {
            let result = self.become_it(parent).and_then(|()| work());
            postcard::to_stdvec(&result).unwrap_or_default()
        });
        self.heard("", said)
    }

    fn heard<T: DeserializeOwned>(&self, doing: &str, said: std::io::Result<Vec<u8>>) -> Result<T, String> {
        let wrong = |error: &dyn std::fmt::Display| format!("{doing}as {}: {error}", self.name);
        let said = said.map_err(|error| wrong(&error))?;
        postcard::from_bytes(&said).map_err(|error| wrong(&error))?
    }

    /// To be, for who is not root. Root's group is nobody's to become; halt and operator have it on some hosts.
    #[must_use]
    pub fn account(&self) -> Account {
        let gid = if self.gid == 0 { NO_GROUP } else { self.gid };
        Account { uid: self.uid, gid, groups: self.groups.clone() }
    }

    /// His stores; what cannot be read is said in `wrong`. For a process that is he.
    pub fn stores(&self, wrong: &mut Vec<String>) -> Vec<Store> {
        let mut all = Vec::new();
        for root in self.roots() {
            match Store::all(&root, self.uid) {
                Ok(stores) => all.extend(stores),
                Err(error) => wrong.push(error),
            }
        }
        all
    }

    fn become_it(&self, parent: i32) -> Result<(), String> {
        let become_it = || {
            if self.uid == 0 {
                // Root's own files are readable for root without a capability.
                credentials::keep_only(&[])?;
            } else {
                self.account().become_it()?;
            }
            process::die_with_parent(parent)
        };
        become_it().map_err(|error| error.to_string())
    }
}

/// What the host's storage.conf says: where root's store is, and where those of all others are. Read once for all.
static HOST: OnceLock<(Option<PathBuf>, Option<PathBuf>)> = OnceLock::new();

fn host() -> (Option<PathBuf>, Option<PathBuf>) {
    let path = Path::new("/etc/containers/storage.conf");
    (storage(path, "graphroot"), storage(path, "rootless_storage_path"))
}

/// A path in the section `[storage]` of a storage.conf; whatever is wrong with that file, podman says so itself.
fn storage(path: &Path, key: &str) -> Option<PathBuf> {
    let text = crate::storage::read_plain(path, 1 << 20).ok()?;
    let table: toml::Table = toml::from_str(std::str::from_utf8(&text).ok()?).ok()?;
    table.get("storage")?.get(key)?.as_str().filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// How a process is shut in.
struct ShutIn {
    parent: i32,
    filter: &'static BpfProgram,
    within: Duration,
    memory: u64,
}

impl ShutIn {
    /// This one, for good.
    fn shut(&self) -> Result<(), String> {
        credentials::no_new_privileges().map_err(|error| error.to_string())?;
        for (resource, most) in [
            (Resource::RLIMIT_CPU, self.within.as_secs().max(1)),
            (Resource::RLIMIT_AS, self.memory),
            (Resource::RLIMIT_FSIZE, 0),
            (Resource::RLIMIT_CORE, 0),
        ] {
            setrlimit(resource, most, most).map_err(|error| error.to_string())?;
        }
        walls::close(&[(Path::new("/"), AccessFs::ReadFile | AccessFs::ReadDir)])?;
        seccompiler::apply_filter(self.filter).map_err(|error| error.to_string())
    }
}

/// Made once for all who are asked, since it takes longer than starting one of them.
static FILTER: OnceLock<BpfProgram> = OnceLock::new();

fn prepare() -> Result<&'static BpfProgram, String> {
    HOST.get_or_init(host);
    if let Some(program) = FILTER.get() {
        return Ok(program);
    }
    let program = walls::filter(walls::refused(&[NEVER, ALONE, FORBIDDEN]), libc::EPERM)?;
    Ok(FILTER.get_or_init(|| program))
}

fn own_pid() -> Result<i32, String> {
    i32::try_from(std::process::id()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn root() -> Owner {
        Owner { name: "root".into(), uid: 0, gid: 0, groups: vec![], home: "/root".into(), is_cluster: false }
    }

    #[test]
    fn it_reads_and_does_nothing_else() {
        if !podsec_sys::nix::unistd::geteuid().is_root() {
            println!("left out: only root can become others");
            return;
        }
        let nobody = Owner { name: "nobody".into(), uid: 65533, gid: 65533, ..root() };
        for owner in [root(), nobody] {
            let did = owner.ask(Duration::from_secs(10), || {
                let shadow = std::fs::read("/etc/shadow").is_ok();
                Ok((
                    [std::fs::read("/etc/passwd").is_ok(), shadow],
                    [
                        std::fs::File::create(format!("/tmp/podsec-owner-{}", std::process::id())).is_ok(),
                        std::fs::create_dir("/tmp/podsec-owner-directory").is_ok(),
                        podsec_sys::program::run(std::path::Path::new("/usr/bin/true"), &[]).is_ok(),
                        std::net::TcpListener::bind("127.0.0.1:0").is_ok(),
                        std::os::unix::net::UnixStream::connect("/run/podsec/podsecd.sock").is_ok(),
                    ],
                ))
            });
            assert_eq!(did, Ok(([true, owner.uid == 0], [false; 5])), "{}", owner.name);
        }
    }

    #[test]
    fn what_hangs_is_given_up() {
        if !podsec_sys::nix::unistd::geteuid().is_root() {
            println!("left out: only root can become others");
            return;
        }
        let said = root().ask::<()>(Duration::from_millis(100), || {
            std::thread::sleep(Duration::from_secs(60));
            Ok(())
        });
        assert!(said.unwrap_err().contains("as root"));
        assert_eq!(root().ask::<()>(Duration::from_secs(5), || Err("why".into())), Err("why".into()));
    }

    #[test]
    fn who_does_not_answer_keeps_nobody_waiting() {
        if !podsec_sys::nix::unistd::geteuid().is_root() {
            println!("left out: only root can become others");
            return;
        }
        let owner =
            |number: u32| Owner { name: format!("u{number}"), uid: 60_000 + number, gid: 60_000, ..root() };
        let owners: Vec<_> = (0..200).map(owner).collect();
        let within = Duration::from_millis(500);
        let (mut heard, mut late) = (HashMap::new(), 0);
        let start = std::time::Instant::now();
        let work = |owner: &Owner, first: u32| {
            if owner.uid.is_multiple_of(10) {
                std::thread::sleep(Duration::from_secs(60));
            }
            // Before it was shut in, and as himself.
            assert_eq!(first, owner.uid);
            Ok(owner.uid)
        };
        let first = |_: &Owner| podsec_sys::nix::unistd::geteuid().as_raw();
        Owner::ask_all(&owners, within, first, work, |owner, said| match said {
            Ok(uid) => assert_eq!(heard.insert(owner.uid, uid), None),
            Err(why) => {
                late += 1;
                assert!(why.starts_with("reading as u"), "{why}");
            }
        })
        .unwrap();
        assert_eq!((heard.len(), late), (180, 20));
        assert!(heard.iter().all(|(uid, said)| uid == said));
        // Not twenty times half a second.
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }

    #[test]
    fn all_that_there_are() {
        let passwd = "root:x:0:0::/root:/bin/sh\namy:x:1001:1001::/home/amy:/bin/sh\nu7s-admin:x:990:989::/var/lib/u7s-admin:/bin/sh\n\
                      amy:x:0:0::/root:/bin/sh\nbroken:x:1\n+::::::\n";
        let group =
            "podman:x:10:amy,u7s-admin\nwheel:x:11:amyx,eve\nbad:x:y:amy\nusers:x:12:amy\nshort:x:13\n";
        let all = Owner::of(passwd, group, &Config::default());
        let short: Vec<_> =
            all.iter().map(|owner| (&*owner.name, owner.uid, &*owner.groups, owner.is_cluster)).collect();
        assert_eq!(
            short,
            [("root", 0, &[][..], false), ("amy", 1001, &[10, 12], false), ("u7s-admin", 990, &[10], true)]
        );
    }

    #[test]
    fn stores_where_they_are() {
        let home = std::env::temp_dir().join(format!("podsec-roots-{}", std::process::id()));
        let made = |path: &str| {
            let path = home.join(path);
            std::fs::create_dir_all(&path).unwrap();
            path
        };
        let own = Owner { name: "amy".into(), uid: 1, home: home.clone(), ..root() };
        assert_eq!(own.roots(), [""; 0].map(PathBuf::from));
        let usual = made(".local/share/containers/storage");
        let (cluster, elsewhere) = (made(".local/share/usernetes/containers/storage"), made("else/amy"));
        made(".config/containers");
        let conf = "[storage]\ndriver = 'vfs'\ngraphroot = '$HOME/else/$USER'\n";
        podsec_sys::file::replace(&home.join(".config/containers/storage.conf"), conf.as_bytes(), 0o600)
            .unwrap();
        assert_eq!(own.roots(), [usual.clone(), cluster.clone(), elsewhere]);
        // As podsec-u7s has it: one behind the other is one.
        std::fs::remove_dir_all(home.join(".local/share/containers")).unwrap();
        std::os::unix::fs::symlink("usernetes/containers", home.join(".local/share/containers")).unwrap();
        std::fs::remove_file(home.join(".config/containers/storage.conf")).unwrap();
        assert_eq!(own.roots(), [cluster]);
        std::fs::remove_dir_all(home).unwrap();
    }
}
