//! What rootless namespaces need of the machine, all of it checked, and all that is missing said at once.
//!
//! Must not: change anything. Sources: user_namespaces(7), subuid(5), newuidmap(1), cgroups(7); rootlesskit's and
//! slirp4netns' documentation.

use podsec_sys::program;
use podsec_u7s::config::{Config, NetworkDriver, Toggle};
use podsec_u7s::files;
use podsec_u7s::rootlesskit::command::Found;
use rustix::fs::{Mode, OFlags};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Ids that a container image may use; less, and images with a `nobody` cannot be unpacked.
const IDS: u64 = 65536;
const ACCOUNTS_LIMIT: usize = 16 * 1024 * 1024;

/// One thing that is missing, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

/// Checks everything.
pub(crate) fn check(config: &Config, group: Option<&Path>) -> Result<Found, Vec<Problem>> {
    let mut missing = Missing(Vec::new());
    let user = config.user.as_str();
    missing.identity(user);
    missing.kernel();
    let rootlesskit = missing.program("rootlesskit", "install rootlesskit 1.1 or later");
    let driver = match config.network.driver {
        NetworkDriver::Slirp4netns => missing.program("slirp4netns", "install slirp4netns"),
        NetworkDriver::Pasta => {
            missing.program("pasta", "install passt, or set network.driver to slirp4netns")
        }
    };
    if let (Some(rootlesskit), NetworkDriver::Pasta) = (&rootlesskit, config.network.driver) {
        missing.pasta(rootlesskit);
    }
    missing.program("ip", "install iproute2 (rootlesskit configures the network with it)");
    missing.id_tool("newuidmap");
    missing.id_tool("newgidmap");
    missing.ids(user, "/etc/subuid", "--add-subuids", &[]);
    missing.ids(user, "/etc/subgid", "--add-subgids", &["-g"]);
    missing.tun();
    missing.directory(config.state_dir.as_path(), "systemd-tmpfiles --create podsec.conf makes it");
    missing.directory(
        config.home.as_path(),
        "systemd-sysusers and systemd-tmpfiles --create podsec.conf make it",
    );
    if config.evacuate_cgroup2 == Toggle::On && group.is_none() {
        missing.add(
            "evacuate_cgroup2 = true, but the control group is not ours to divide",
            "needs cgroup v2 and a unit with Delegate=yes (podsec-u7s.service); or set it to \"auto\"",
        );
    }
    let namespaces = config.namespaces.cgroup && config.namespaces.pid;
    let evacuate = config.evacuate_cgroup2 != Toggle::Off && namespaces && group.is_some();
    match (rootlesskit, driver) {
        (Some(rootlesskit), Some(driver)) if missing.0.is_empty() => {
            Ok(Found { rootlesskit, driver, evacuate })
        }
        _ => Err(missing.0),
    }
}

struct Missing(Vec<Problem>);

impl Missing {
    fn add(&mut self, what: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Problem { what: what.into(), remedy: remedy.into() });
    }

    fn identity(&mut self, user: &str) {
        let uid = rustix::process::geteuid().as_raw();
        if uid == 0 {
            self.add("this runs as root", format!("run it as {user}: systemctl start podsec-u7s"));
        }
        // Only the file is asked: a name service would need its libraries, which a static program must not load.
        let passwd = text("/etc/passwd").unwrap_or_default();
        if let Some(wanted) = uid_of(&passwd, user).filter(|wanted| *wanted != uid && uid != 0) {
            self.add(
                format!("this runs as uid {uid}, not as {user} (uid {wanted})"),
                format!("run it as {user}"),
            );
        }
        if rustix::thread::no_new_privs().unwrap_or(false) {
            self.add(
                "no_new_privs is set, so newuidmap gets no privilege",
                "remove NoNewPrivileges= and what implies it from the unit, or do not start it from podsecd",
            );
        }
    }

    fn kernel(&mut self) {
        for (key, remedy) in [
            ("kernel/unprivileged_userns_clone", "sysctl kernel.unprivileged_userns_clone=1"),
            ("user/max_user_namespaces", "sysctl user.max_user_namespaces=28633"),
        ] {
            let value = text(Path::new("/proc/sys").join(key));
            if value.is_some_and(|value| value.trim() == "0") {
                self.add(format!("user namespaces are switched off by {}", key.replace('/', ".")), remedy);
            }
        }
    }

    fn program(&mut self, name: &str, remedy: &str) -> Option<PathBuf> {
        let found = program::find(name);
        if found.is_none() {
            self.add(format!("{name} is missing"), remedy);
        }
        found
    }

    /// Neither setuid nor capable, it could not write the maps.
    fn id_tool(&mut self, name: &str) {
        let Some(path) = program::find(name) else {
            // Present but not for us is how ALT keeps it for one group (control newuidmap podmanonly).
            let there = std::env::split_paths(program::PATH).any(|directory| directory.join(name).is_file());
            let remedy = if there {
                "add the user to the group that may run it"
            } else {
                "install uidmap (shadow-submap)"
            };
            return self.add(format!("{name} is missing or not executable"), remedy);
        };
        let setuid = path.metadata().is_ok_and(|file| file.uid() == 0 && file.mode() & 0o4000 != 0);
        let capable = || rustix::fs::getxattr(&path, "security.capability", &mut [0; 64]).is_ok();
        if !setuid && !capable() {
            let remedy = format!("chmod u+s {} (as root), or install it again", path.display());
            self.add(format!("{} is neither setuid root nor capable", path.display()), remedy);
        }
    }

    fn ids(&mut self, user: &str, file: &str, option: &str, flags: &[&str]) {
        let uid = rustix::process::geteuid().as_raw().to_string();
        let mut count = text(file).map_or(0, |text| ids(&text, user, &uid));
        // Ranges may come from a directory instead (subid: in nsswitch.conf); rootlesskit asks the same program.
        if let Some(getsubids) = program::find("getsubids").filter(|_| count < IDS) {
            let arguments: Vec<_> = flags.iter().copied().chain([user]).collect();
            count = program::run(&getsubids, &arguments).map_or(count, |printed| printed_ids(&printed));
        }
        if count < IDS {
            self.add(
                format!("{file} gives {user} {count} ids, not the {IDS} that container images need"),
                format!("usermod {option} 100000-165535 {user} (as root, with a range that nobody has)"),
            );
        }
    }

    fn pasta(&mut self, rootlesskit: &Path) {
        let version = program::run(rootlesskit, &["--version"]).unwrap_or_default();
        if major(&version).is_some_and(|major| major < 2) {
            self.add(
                format!("{} does not know pasta", version.trim()),
                "install rootlesskit 2.0 or later, or set network.driver to slirp4netns",
            );
        }
    }

    fn tun(&mut self) {
        let tun = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        if let Err(error) = tun {
            self.add(
                format!("/dev/net/tun cannot be opened ({})", std::io::Error::from(error)),
                "modprobe tun, and let everybody use it: chmod 0666 /dev/net/tun (as root)",
            );
        }
    }

    fn directory(&mut self, path: &Path, remedy: &str) {
        let uid = rustix::process::geteuid().as_raw();
        match path.symlink_metadata() {
            Ok(found) if !found.is_dir() => {
                self.add(format!("{} is not a directory", path.display()), remedy)
            }
            // Whoever owns or can write it could plant a readiness marker or a socket of his own.
            Ok(found) if found.uid() != uid || found.mode() & 0o022 != 0 => self.add(
                format!(
                    "{} is not ours alone (uid {}, mode {:o})",
                    path.display(),
                    found.uid(),
                    found.mode() & 0o7777
                ),
                remedy,
            ),
            Ok(_) => {}
            Err(error) => self.add(format!("{}: {error}", path.display()), remedy),
        }
    }
}

fn text(path: impl AsRef<Path>) -> Option<String> {
    let real = path.as_ref().canonicalize().ok()?;
    let bytes = files::read(&real, ACCOUNTS_LIMIT).ok()??;
    String::from_utf8(bytes).ok()
}

/// passwd(5)
fn uid_of(passwd: &str, user: &str) -> Option<u32> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(user))?;
    line.split(':').nth(2)?.parse().ok()
}

/// Ids of all ranges of a user in subuid(5): `name-or-uid:first:count`.
fn ids(text: &str, user: &str, uid: &str) -> u64 {
    let ranges = text.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        match *fields.as_slice() {
            [owner, first, count] if owner == user || owner == uid => {
                // A range beyond 32 bits is none.
                let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
                first.checked_add(count).map(|_| u64::from(count))
            }
            _ => None,
        }
    });
    ranges.sum()
}

/// The same as getsubids(1) prints it: `0: name first count`.
fn printed_ids(text: &str) -> u64 {
    let counts = text.lines().filter_map(|line| line.split_ascii_whitespace().nth(3)?.parse::<u32>().ok());
    counts.map(u64::from).sum()
}

/// `rootlesskit version 1.1.0` gives 1.
fn major(text: &str) -> Option<u32> {
    text.trim().strip_prefix("rootlesskit version ")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_ids_of_one_user() {
        let text = "# comment\nroot:100000:65536\nu7s-admin:200000:40000\n999:300000:25536\nu7s-admin2:1:65536\n\
                    u7s-admin:4294967295:5\nu7s-admin:x:5\nu7s-admin:1\n";
        assert_eq!(ids(text, "u7s-admin", "999"), 65536);
        assert_eq!(ids(text, "nobody", "65534"), 0);
        assert_eq!(printed_ids("0: u7s-admin 200000 40000\n1: u7s-admin 300000 25536\nError x\n"), 65536);
    }

    #[test]
    fn reads_accounts_and_versions() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nu7s-admin:x:998:998::/var/lib/u7s-admin:/bin/bash\n";
        assert_eq!((uid_of(passwd, "u7s-admin"), uid_of(passwd, "u7s")), (Some(998), None));
        assert_eq!(
            (major("rootlesskit version 2.0.2\n"), major("rootlesskit version 1.1.0"), major("")),
            (Some(2), Some(1), None)
        );
    }

    #[test]
    fn names_everything_that_is_missing_with_its_remedy() {
        let config = Config::parse(
            "user = 'podsec-nobody'\nhome = '/podsec-none'\nstate_dir = '/etc/passwd'\nevacuate_cgroup2 = true",
        );
        let problems = check(&config.unwrap(), None).unwrap_err();
        let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
        for part in [
            "/etc/subuid gives podsec-nobody 0 ids",
            "--add-subgids",
            "/podsec-none: No such file",
            "/etc/passwd is not a directory",
            "Delegate=yes",
        ] {
            assert!(texts.iter().any(|text| text.contains(part)), "{part}: {texts:#?}");
        }
        assert!(problems.iter().all(|problem| !problem.remedy.is_empty()));
    }

    #[test]
    fn a_directory_of_others_is_a_problem() {
        let mut missing = Missing(Vec::new());
        missing.directory(Path::new("/tmp"), "x");
        assert!(missing.0[0].what.contains("not ours alone"), "{:?}", missing.0);
    }
}
