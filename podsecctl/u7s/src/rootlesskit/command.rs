//! rootlesskit's command line for a configuration.
//!
//! Owns: which flag says what. Must not: look at the machine or run anything; what is there is told by [`Found`].
//! Source: cmd/rootlesskit/main.go of rootlesskit 1.1.0 and 2.0.2.

use crate::config::{AbsPath, Config, NetworkDriver, PortDriver, Propagation, Toggle};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The leaf of the delegated control group that rootlesskit moves into.
pub const EVACUATION: &str = "podsec-u7s";

/// What the preflight found on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// rootlesskit.
    pub rootlesskit: PathBuf,
    /// slirp4netns or pasta.
    pub driver: PathBuf,
    /// Whether the control group is ours to divide.
    pub evacuate: bool,
}

/// rootlesskit's arguments, up to its own `--`-less list of what to run inside.
#[must_use]
pub fn arguments(config: &Config, found: &Found, exists: impl Fn(&Path) -> bool) -> Vec<OsString> {
    let mut flags = Flags(Vec::new());
    let (network, namespaces) = (&config.network, &config.namespaces);
    flags.value("state-dir", crate::rootlesskit::StateDir::new(config.state_dir.as_path()).rootlesskit());
    match network.driver {
        NetworkDriver::Slirp4netns => {
            flags.value("net", "slirp4netns");
            flags.value("slirp4netns-binary", &found.driver);
            flags.value("slirp4netns-sandbox", toggle(network.slirp4netns_sandbox));
            flags.value("slirp4netns-seccomp", toggle(network.slirp4netns_seccomp));
        }
        NetworkDriver::Pasta => {
            flags.value("net", "pasta");
            flags.value("pasta-binary", &found.driver);
        }
    }
    flags.value("mtu", network.mtu.to_string());
    if let Some(cidr) = network.cidr {
        flags.value("cidr", cidr.to_string());
    }
    flags.switch("disable-host-loopback", network.disable_host_loopback);
    flags.value(
        "port-driver",
        match config.port_driver() {
            PortDriver::None => "none",
            PortDriver::Builtin => "builtin",
            PortDriver::Slirp4netns => "slirp4netns",
            PortDriver::Implicit => "implicit",
        },
    );
    for path in config.copy_up.iter().map(AbsPath::as_path).filter(|path| exists(path)) {
        flags.value("copy-up", path);
    }
    flags.value(
        "propagation",
        match config.propagation {
            Propagation::Rslave => "rslave",
            Propagation::Rprivate => "rprivate",
        },
    );
    flags.switch("cgroupns", namespaces.cgroup);
    flags.switch("pidns", namespaces.pid);
    flags.switch("ipcns", namespaces.ipc);
    flags.switch("utsns", namespaces.uts);
    if found.evacuate {
        flags.value("evacuate-cgroup2", EVACUATION);
    }
    flags.0
}

fn toggle(toggle: Toggle) -> &'static str {
    match toggle {
        Toggle::Auto => "auto",
        Toggle::On => "true",
        Toggle::Off => "false",
    }
}

struct Flags(Vec<OsString>);

impl Flags {
    /// `--name=value` in one word, so that no value is ever taken for a flag.
    fn value(&mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) {
        let mut word = OsString::from(format!("--{name}="));
        word.push(value);
        self.0.push(word);
    }

    fn switch(&mut self, name: &str, on: bool) {
        if on {
            self.0.push(format!("--{name}").into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str, evacuate: bool, missing: &[&str]) -> String {
        let config = Config::parse(text).unwrap();
        let found =
            Found { rootlesskit: "/usr/bin/rootlesskit".into(), driver: "/usr/bin/driver".into(), evacuate };
        let words = arguments(&config, &found, |path| !missing.iter().any(|gone| Path::new(gone) == path));
        words.iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_defaults_are_what_kubernetes_in_a_user_namespace_needs() {
        assert_eq!(
            line("", true, &["/etc/sysconfig", "/var/lib/crio"]),
            "--state-dir=/run/podsec-u7s/rootlesskit --net=slirp4netns --slirp4netns-binary=/usr/bin/driver \
             --slirp4netns-sandbox=true --slirp4netns-seccomp=true --mtu=65520 --disable-host-loopback \
             --port-driver=builtin --copy-up=/etc --copy-up=/run --copy-up=/var/lib --copy-up=/opt \
             --copy-up=/usr/libexec --propagation=rslave --cgroupns --pidns --ipcns --utsns \
             --evacuate-cgroup2=podsec-u7s"
        );
    }

    #[test]
    fn everything_can_be_said_otherwise() {
        let text = "copy_up = ['/etc']\nremove = []\npropagation = 'rprivate'\n[namespaces]\ncgroup = false\n\
                    ipc = false\nuts = false\n[network]\ndriver = 'pasta'\nport_driver = 'implicit'\nmtu = 1500\n\
                    cidr = '10.96.0.0/12'\ndisable_host_loopback = false\n";
        assert_eq!(
            line(text, false, &[]),
            "--state-dir=/run/podsec-u7s/rootlesskit --net=pasta --pasta-binary=/usr/bin/driver --mtu=1500 \
             --cidr=10.96.0.0/12 --port-driver=implicit --copy-up=/etc --propagation=rprivate --pidns"
        );
        let text = "network.slirp4netns_sandbox = 'auto'\nnetwork.slirp4netns_seccomp = false\n\
                    network.port_driver = 'slirp4netns'";
        let line = line(text, false, &[]);
        for part in ["--slirp4netns-sandbox=auto", "--slirp4netns-seccomp=false", "--port-driver=slirp4netns"]
        {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains("evacuate"), "{line}");
    }
}
