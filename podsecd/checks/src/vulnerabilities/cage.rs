//! trivy and what reads an image for it, shut in: a process that is the store's owner, and then can write into one directory
//! of its own, start the programs of the system and trivy, and reach nobody, or the one server that has the database.
//!
//! Beside [`crate::owner::Owner::ask`], in which no program can be started.

use crate::owner::Owner;
use landlock::{
    Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
use podsec_cage::walls::{self, NEVER, NEWEST};
use podsec_sys::credentials;
use podsec_sys::nix::libc;
use podsec_sys::nix::sys::resource::{Resource, setrlimit};
use podsec_sys::process;
use seccompiler::{SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};
use serde::{Serialize, de::DeserializeOwned};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What programs need to start and to find a host by name. Neither homes nor `/run` nor `/var`.
const READABLE: [&str; 8] = ["/usr", "/lib", "/lib64", "/bin", "/etc", "/proc", "/sys", "/dev/urandom"];
/// Bytes of memory that a program can write to: a database is mapped, not read.
const MEMORY: u64 = 4 << 30;
/// Of names, by DNS over TCP.
const DOMAIN: u16 = 53;

/// Whom it may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Nobody.
    None,
    /// Whoever listens on this port of TCP.
    Port(u16),
    /// Everybody: for what fetches the database, and has read nothing of a user's.
    All,
}

/// What it may do, beside reading what programs need.
#[derive(Clone, Debug)]
pub struct Cage {
    /// Read, and run.
    pub readable: Vec<PathBuf>,
    /// Its own directory.
    pub writable: PathBuf,
    /// Whom it may reach.
    pub network: Network,
    /// Bytes of its largest file.
    pub largest: u64,
    /// Then it is given up.
    pub within: Duration,
}

impl Cage {
    /// Lets `work` be done as that user, in a process of its own that is shut in.
    ///
    /// # Errors
    /// what `work` says; that it said nothing in time; which wall could not be built
    pub fn run_as<T: Serialize + DeserializeOwned>(
        &self,
        owner: &Owner,
        work: impl FnOnce() -> Result<T, String>,
    ) -> Result<T, String> {
        owner.act(self.within, || self.shut().and_then(|()| work()))
    }

    /// Shuts this process and whatever it starts in, for good.
    fn shut(&self) -> Result<(), String> {
        credentials::no_new_privileges().map_err(|error| error.to_string())?;
        for (resource, most) in [
            // trivy has a thread for each processor.
            (Resource::RLIMIT_CPU, self.within.as_secs().saturating_mul(8).max(1)),
            (Resource::RLIMIT_DATA, MEMORY),
            (Resource::RLIMIT_FSIZE, self.largest),
            (Resource::RLIMIT_CORE, 0),
        ] {
            setrlimit(resource, most, most).map_err(|error| error.to_string())?;
        }
        self.close_file_system().map_err(|error| error.to_string())?;
        self.filter_calls().map_err(|error| error.to_string())
    }

    fn close_file_system(&self) -> Result<(), landlock::RulesetError> {
        let read = AccessFs::from_read(NEWEST);
        // What is written there is never run.
        let write = AccessFs::from_all(NEWEST) & !AccessFs::Execute;
        let ports = match self.network {
            Network::Port(port) => vec![port, DOMAIN],
            Network::None | Network::All => vec![],
        };
        let ports = ports.into_iter().map(|port| NetPort::new(port, AccessNet::ConnectTcp));
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?;
        if self.network != Network::All {
            ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST))?;
        }
        ruleset
            .create()?
            .add_rules(path_beneath_rules(READABLE, read))?
            .add_rules(path_beneath_rules(&self.readable, read))?
            .add_rules(path_beneath_rules([&self.writable], write))?
            .add_rules(path_beneath_rules(["/dev/null"], AccessFs::ReadFile | AccessFs::WriteFile))?
            .add_rules(ports.map(Ok::<_, landlock::RulesetError>))?
            .restrict_self()
            .map(drop)
    }

    fn filter_calls(&self) -> Result<(), Box<dyn std::error::Error>> {
        let mut rules = walls::refused(&[NEVER]);
        // Sockets of the host's own services have paths, of which not every kernel's landlock knows.
        let mut others = Vec::new();
        if self.network != Network::None {
            let not = |family: libc::c_int| {
                let family = u64::from(family.unsigned_abs());
                SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)
            };
            others.push(SeccompRule::new(vec![not(libc::AF_INET)?, not(libc::AF_INET6)?])?);
        }
        rules.insert(libc::SYS_socket, others);
        Ok(seccompiler::apply_filter(&walls::filter(rules, libc::EPERM)?)?)
    }
}

/// A directory of an owner's own, beneath one that is root's alone: nobody else can name it. Emptied by its owner.
#[derive(Debug)]
pub struct Scratch<'a> {
    owner: &'a Owner,
    outer: PathBuf,
}

/// Within the one that root made.
const INNER: &str = "own";
/// For making and removing it.
const SOON: Duration = Duration::from_secs(120);

impl<'a> Scratch<'a> {
    /// Makes the directory beneath which they are, where there is none: everybody comes through, nobody can list it.
    ///
    /// # Errors
    /// mkdir(2); `PermissionDenied` where it is not root's alone
    pub fn make_base(base: &Path) -> std::io::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let is_new = !base.exists();
        process::make_root_owned(base, 0o711)?;
        // Whatever the umask.
        if is_new { std::fs::set_permissions(base, std::fs::Permissions::from_mode(0o711)) } else { Ok(()) }
    }

    /// # Errors
    /// says which directory could not be made
    pub fn new(base: &Path, owner: &'a Owner) -> Result<Self, String> {
        use std::os::unix::fs::PermissionsExt as _;
        let random: [u8; 16] = process::random().map_err(|error| error.to_string())?;
        let name: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let outer = base.join(format!("{}-{name}", owner.uid));
        let failed = |error: std::io::Error| format!("{}: {error}", outer.display());
        let mode = |mode| std::fs::set_permissions(&outer, std::fs::Permissions::from_mode(mode));
        std::fs::create_dir(&outer).map_err(failed)?;
        let scratch = Self { owner, outer: outer.clone() };
        // This process may give nothing away (CAP_CHOWN), so he makes his own, where for a moment everybody could who knew
        // 128 random bits.
        mode(0o777).map_err(failed)?;
        let made = owner.act(SOON, || {
            use std::os::unix::fs::DirBuilderExt as _;
            let made = std::fs::DirBuilder::new().mode(0o700).create(scratch.path());
            made.map_err(|error| error.to_string())
        });
        mode(0o711).map_err(failed)?;
        made.map(|()| scratch)
    }

    /// His.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.outer.join(INNER)
    }

    /// What a run before this one left, that was killed.
    pub fn clear(base: &Path) {
        for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let uid = name.to_str().and_then(|name| name.split_once('-'));
            let Some(uid) = uid.filter(|(_, rest)| rest.len() == 32).and_then(|(uid, _)| uid.parse().ok())
            else {
                continue;
            };
            let owner = Owner {
                name: format!("uid {uid}"),
                uid,
                gid: 0,
                groups: vec![],
                home: "/".into(),
                is_cluster: false,
            };
            drop(Scratch { owner: &owner, outer: entry.path() });
        }
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let inner = self.path();
        let emptied = self.owner.act(SOON, || {
            let emptied = podsec_sys::file::Directory::open(&inner).and_then(|inner| inner.empty());
            emptied.map_err(|error| error.to_string())
        });
        let removed = std::fs::remove_dir(&inner).and_then(|()| std::fs::remove_dir(&self.outer));
        if let Err(error) = removed {
            let why = emptied.err().unwrap_or_default();
            eprintln!("podsec-monitor: {} is left: {error}; {why}", self.outer.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_sys::program::run;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;

    fn is_root() -> bool {
        let is_root = podsec_sys::nix::unistd::geteuid().is_root();
        if !is_root {
            println!("left out: only root can become others");
        }
        is_root
    }

    fn owner(uid: u32) -> Owner {
        Owner { name: format!("u{uid}"), uid, gid: uid, groups: vec![], home: "/".into(), is_cluster: false }
    }

    /// Of root's alone, as `/var/cache` is; the temporary directory is not.
    fn base(name: &str) -> PathBuf {
        let base = PathBuf::from(format!("/var/cache/podsec-test-{}-{name}", std::process::id()));
        Scratch::make_base(&base).unwrap();
        base
    }

    #[test]
    fn a_directory_of_his_own_comes_and_goes() {
        use std::os::unix::fs::MetadataExt as _;
        if !is_root() {
            return;
        }
        let base = base("scratch");
        for owner in [owner(0), owner(65_533)] {
            let scratch = Scratch::new(&base, &owner).unwrap();
            let (outer, inner) = (scratch.outer.metadata().unwrap(), scratch.path().metadata().unwrap());
            assert_eq!((outer.uid(), outer.mode() & 0o7777), (0, 0o711));
            assert_eq!((inner.uid(), inner.mode() & 0o7777), (owner.uid, 0o700));
            let make = || {
                std::fs::create_dir_all(scratch.path().join("a/b")).map_err(|error| error.to_string())?;
                std::os::unix::fs::symlink("/etc", scratch.path().join("c"))
                    .map_err(|error| error.to_string())
            };
            owner.act(SOON, make).unwrap();
            drop(scratch);
            assert_eq!(std::fs::read_dir(&base).unwrap().count(), 0);
            // One that nobody dropped.
            std::mem::forget(Scratch::new(&base, &owner).unwrap());
            Scratch::clear(&base);
            assert_eq!(std::fs::read_dir(&base).unwrap().count(), 0);
        }
        std::fs::create_dir(base.join("trivy")).unwrap();
        Scratch::clear(&base);
        assert!(base.join("trivy").exists() && Path::new("/etc/passwd").exists());
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn what_he_may_do_in_there() {
        if !is_root() {
            return;
        }
        let base = base("cage");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (here, path) = (listener.local_addr().unwrap(), base.join("socket"));
        let _unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        for owner in [owner(0), owner(65_533)] {
            for network in [Network::None, Network::Port(here.port()), Network::Port(1), Network::All] {
                let scratch = Scratch::new(&base, &owner).unwrap();
                let writable = scratch.path();
                let within = Duration::from_secs(20);
                let cage = Cage { readable: vec![], writable, network, largest: 1 << 20, within };
                let did = cage.run_as(&owner, || {
                    let file = |path: &Path| std::fs::File::create(path).is_ok();
                    std::fs::copy("/usr/bin/true", scratch.path().join("true")).err();
                    Ok((
                        [file(&scratch.path().join("x")), run(Path::new("/usr/bin/true"), &[]).is_ok()],
                        [
                            file(Path::new("/tmp/podsec-cage")),
                            file(Path::new("/var/tmp/podsec-cage")),
                            std::fs::read_dir("/root").is_ok(),
                            std::fs::read_dir("/var/lib").is_ok(),
                            run(&scratch.path().join("true"), &[]).is_ok(),
                            UnixStream::connect(&path).is_ok(),
                            TcpListener::bind("127.0.0.1:0").is_ok(),
                        ],
                        TcpStream::connect(here).is_ok(),
                    ))
                });
                let reaches = matches!(network, Network::All) || network == Network::Port(here.port());
                assert_eq!(did, Ok(([true; 2], [false; 7], reaches)), "{} {network:?}", owner.name);
            }
        }
        std::fs::remove_dir_all(base).unwrap();
    }
}
