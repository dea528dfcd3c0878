//! `/etc/podsec/u7s.toml`: what the namespaces look like. Every key has a default; an unknown key is an error.
//!
//! Owns: reading and checking the file. Must not: look at the machine (that is the preflight's work).
//! Source of the values: rootlesskit(1) of 1.1 and 2.0, `--help` and docs/network.md, docs/port.md there.

use podsec_policy::name::AccountName;
use podsec_policy::port::PortSpec;
use serde::{Deserialize, Deserializer, de::Error as _};
use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// Where the configuration is read from unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/etc/podsec/u7s.toml";

/// The file is for people; a larger one is a mistake.
const LIMIT: usize = 64 * 1024;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, remote = "Self")]
pub struct Config {
    /// Who runs rootlesskit.
    pub user: AccountName,
    /// That user's home; `ports.json` lies in it.
    pub home: AbsPath,
    /// Marker of readiness, and rootlesskit's own state directory below it.
    pub state_dir: AbsPath,
    /// What survives a restart of the namespaces.
    pub data_dir: AbsPath,
    /// Directories inside that are bind mounts of the same path below `data_dir`.
    pub data_over: Vec<AbsPath>,
    /// Directories that become writable inside: a tmpfs of links to what the host has there.
    pub copy_up: Vec<AbsPath>,
    /// What of the host's is hidden inside: entries of directories that were copied up.
    pub remove: Vec<AbsPath>,
    /// Further bind mounts.
    pub binds: Vec<Bind>,
    /// Symbolic links to make inside.
    pub links: Vec<Link>,
    /// How mounts made later on the host come in.
    pub propagation: Propagation,
    /// Whether rootlesskit moves itself into a leaf of its delegated control group, so that controllers can be used.
    pub evacuate_cgroup2: Toggle,
    /// Program that runs inside once everything is set up, with its arguments.
    pub payload: Payload,
    /// Which namespaces are unshared besides user, mount and net.
    pub namespaces: Namespaces,
    /// The way out.
    pub network: Network,
    /// Ports published at every start, besides those that `podsecctl port add` keeps.
    pub ports: Vec<PortSpec>,
}

/// Which namespaces are unshared besides user, mount and net. podsecd enters only where all of them are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Namespaces {
    /// cgroup_namespaces(7)
    pub cgroup: bool,
    /// pid_namespaces(7)
    pub pid: bool,
    /// ipc_namespaces(7)
    pub ipc: bool,
    /// uts_namespaces(7)
    pub uts: bool,
}

/// The way out.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    /// Who moves the packets.
    pub driver: NetworkDriver,
    /// Largest packet.
    pub mtu: Mtu,
    /// The network inside; rootlesskit takes 10.0.2.0/24 by itself.
    pub cidr: Option<Cidr>,
    /// The host's 127.0.0.1 cannot be reached from inside.
    pub disable_host_loopback: bool,
    /// Who publishes ports; the default depends on the network driver.
    pub port_driver: Option<PortDriver>,
    /// slirp4netns in an empty mount namespace without capabilities.
    pub slirp4netns_sandbox: Toggle,
    /// slirp4netns under a filter of system calls.
    pub slirp4netns_seccomp: Toggle,
    /// One more address (/32) of the interface inside: the node's, as other nodes know it.
    pub node_address: Option<NodeAddress>,
}

/// Network drivers that leave the namespaces with a network of their own. `host` is not among them: whoever enters
/// would be on the host's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkDriver {
    /// slirp4netns(1)
    Slirp4netns,
    /// pasta(1), from rootlesskit 2.0 on
    Pasta,
}

/// Who publishes ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PortDriver {
    /// Nobody.
    None,
    /// rootlesskit itself: fastest; the source address is lost.
    Builtin,
    /// slirp4netns: slower; IPv4 only.
    Slirp4netns,
    /// pasta publishes whatever listens inside, etcd and the kubelet's read-only port too.
    Implicit,
}

/// Yes, no, or as the machine can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "ToggleText")]
pub enum Toggle {
    /// Where it is possible.
    Auto,
    /// Or do not start.
    On,
    /// Never.
    Off,
}

/// mount_namespaces(7): the two kinds that rootlesskit's copy-up works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Host mounts come in, ours never go out.
    Rslave,
    /// Nothing comes in.
    Rprivate,
}

/// A bind mount inside the namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bind {
    /// What is shown.
    pub source: AbsPath,
    /// Where it is shown; made where it is missing.
    pub target: AbsPath,
}

/// A symbolic link inside the namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// Where the link is.
    pub path: AbsPath,
    /// What it leads to.
    pub target: AbsPath,
}

/// Why a value of the configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not written the one way a path can be written.
    #[error(
        "path {0:?} must be absolute, below /, at most 4095 bytes, and without '.', '..', '//' or a '/' at the end"
    )]
    Path(String),
    /// Too small for IPv6, or larger than rootlesskit takes.
    #[error("mtu {0} is not between 1280 and 65521")]
    Mtu(u32),
    /// Not a network.
    #[error(
        "cidr {0:?} must be an IPv4 network such as 10.0.2.0/24, with a prefix of 8 to 25 and no host bits"
    )]
    Cidr(String),
    /// Not a host's address.
    #[error("node_address {0} is not the address of a host")]
    NodeAddress(Ipv4Addr),
    /// Nothing to run, or not by its path.
    #[error("payload must be the absolute path of a program and its arguments, without NUL")]
    Payload,
    /// Neither of the three.
    #[error("{0:?} is none of true, false, \"auto\"")]
    Toggle(String),
    /// rootlesskit uses /tmp while it copies.
    #[error("copy_up: {0} cannot be copied up, rootlesskit itself works in it")]
    CopyUp(AbsPath),
    /// Would be the host's own file.
    #[error("remove: the directory of {0} is not in copy_up, so this would be the host's own file")]
    Remove(AbsPath),
    /// rootlesskit refuses it later, less clearly.
    #[error(
        "network: port_driver {1:?} does not work with driver {0:?}: slirp4netns takes builtin, slirp4netns or none; pasta takes implicit or none"
    )]
    Drivers(NetworkDriver, PortDriver),
    /// rootlesskit refuses it later.
    #[error("evacuate_cgroup2 = true needs namespaces.cgroup and namespaces.pid")]
    Evacuate,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is wrong; the text names line and column.
    #[error("{} is wrong; correct it, or remove the key to have its default:\n{source}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What the parser met, and where.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads `path`; without one, [`DEFAULT_PATH`], where a missing file means all defaults.
    ///
    /// # Errors
    /// [`ConfigError`]: unreadable or wrong.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (file, required) = path.map_or((Path::new(DEFAULT_PATH), false), |path| (path, true));
        // A configuration may well be a link (into a copied-up /etc it always is), so unlike state it is followed.
        let real = file.canonicalize();
        let read = real.and_then(|real| crate::files::read(&real, LIMIT)).and_then(|bytes| {
            let bytes = bytes.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
        });
        match read {
            Ok(text) => Self::parse(&text)
                .map_err(|source| ConfigError::Parse { path: file.into(), source: Box::new(source) }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !required => Ok(Self::default()),
            Err(source) => Err(ConfigError::Read { path: file.into(), source }),
        }
    }

    /// Reads the text of a configuration.
    ///
    /// # Errors
    /// The parser's, with line and column.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The port driver, chosen or by default. Not `implicit` for pasta: that publishes etcd on the host.
    #[must_use]
    pub fn port_driver(&self) -> PortDriver {
        self.network.port_driver.unwrap_or(match self.network.driver {
            NetworkDriver::Slirp4netns => PortDriver::Builtin,
            NetworkDriver::Pasta => PortDriver::None,
        })
    }

    fn check(&self) -> Result<(), ValueError> {
        if let Some(path) = self.copy_up.iter().find(|path| path.as_path().starts_with("/tmp")) {
            return Err(ValueError::CopyUp(path.clone()));
        }
        let copied_up = |path: &AbsPath| {
            let parent = path.as_path().parent();
            self.copy_up.iter().any(|copied| Some(copied.as_path()) == parent)
        };
        if let Some(path) = self.remove.iter().find(|path| !copied_up(path)) {
            return Err(ValueError::Remove(path.clone()));
        }
        let drivers = (self.network.driver, self.port_driver());
        match drivers {
            (_, PortDriver::None)
            | (NetworkDriver::Slirp4netns, PortDriver::Builtin | PortDriver::Slirp4netns)
            | (NetworkDriver::Pasta, PortDriver::Implicit) => {}
            (network, port) => return Err(ValueError::Drivers(network, port)),
        }
        if self.evacuate_cgroup2 == Toggle::On && !(self.namespaces.cgroup && self.namespaces.pid) {
            return Err(ValueError::Evacuate);
        }
        Ok(())
    }
}

// `remote` leaves the derived reader as an inherent function, so that this one can add what spans several keys.
impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let config = Self::deserialize(deserializer)?;
        config.check().map_err(D::Error::custom)?;
        Ok(config)
    }
}

impl Default for Config {
    #[expect(
        clippy::expect_used,
        reason = "parses a constant; the test of the defaults would not get past it"
    )]
    fn default() -> Self {
        let paths = |list: &[&str]| list.iter().map(|path| AbsPath(path.into())).collect();
        Self {
            user: AccountName::new("u7s-admin").expect("a constant"),
            home: AbsPath("/var/lib/u7s-admin".into()),
            state_dir: AbsPath("/run/podsec-u7s".into()),
            data_dir: AbsPath("/var/lib/u7s-admin/data".into()),
            data_over: paths(&[
                "/var/lib/kubelet",
                "/var/lib/cni",
                "/var/log",
                "/var/lib/containers",
                "/var/cache",
            ]),
            copy_up: paths(&[
                "/etc",
                "/etc/sysconfig",
                "/run",
                "/var/lib",
                "/opt",
                "/var/lib/crio",
                "/usr/libexec",
            ]),
            remove: paths(&[
                "/run/xtables.lock",
                "/run/netns",
                "/run/runc",
                "/run/crun",
                "/run/flannel",
                "/run/containerd",
                "/run/containers",
                "/run/crio",
                "/etc/containerd",
                "/etc/crio",
            ]),
            binds: Vec::new(),
            links: Vec::new(),
            propagation: Propagation::Rslave,
            evacuate_cgroup2: Toggle::Auto,
            payload: Payload { program: AbsPath("/bin/sleep".into()), arguments: vec!["infinity".into()] },
            namespaces: Namespaces::default(),
            network: Network::default(),
            ports: Vec::new(),
        }
    }
}

impl Default for Namespaces {
    fn default() -> Self {
        Self { cgroup: true, pid: true, ipc: true, uts: true }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self {
            driver: NetworkDriver::Slirp4netns,
            mtu: Mtu(65520),
            cidr: None,
            disable_host_loopback: true,
            port_driver: None,
            slirp4netns_sandbox: Toggle::On,
            slirp4netns_seccomp: Toggle::On,
            node_address: None,
        }
    }
}

/// A path written the one way it can be: absolute, below `/`, no component that leads back.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct AbsPath(PathBuf);

impl AbsPath {
    /// # Errors
    /// [`ValueError::Path`].
    pub fn new(text: impl Into<String>) -> Result<Self, ValueError> {
        let text = text.into();
        let clean = text.strip_prefix('/').is_some_and(|rest| {
            rest.split('/').all(|part| !matches!(part, "" | "." | "..")) && !rest.contains('\0')
        });
        if clean && text.len() < 4096 { Ok(Self(text.into())) } else { Err(ValueError::Path(text)) }
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The same path below `root`.
    #[must_use]
    pub fn below(&self, root: &Self) -> PathBuf {
        root.0.join(self.0.strip_prefix("/").unwrap_or(&self.0))
    }
}

impl TryFrom<String> for AbsPath {
    type Error = ValueError;
    fn try_from(text: String) -> Result<Self, ValueError> {
        Self::new(text)
    }
}

impl fmt::Display for AbsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

/// Largest packet, 1280 (IPv6's floor, RFC 8200 section 5) to 65521 (rootlesskit's ceiling).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Mtu(u32);

impl TryFrom<u32> for Mtu {
    type Error = ValueError;
    fn try_from(number: u32) -> Result<Self, ValueError> {
        if (1280..=65521).contains(&number) { Ok(Self(number)) } else { Err(ValueError::Mtu(number)) }
    }
}

impl fmt::Display for Mtu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The network inside. rootlesskit gives .2 to the gateway, .3 to the resolver and .100 to us, hence a prefix of at
/// most 25.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

impl TryFrom<String> for Cidr {
    type Error = ValueError;
    fn try_from(text: String) -> Result<Self, ValueError> {
        let parsed = text.split_once('/').and_then(|(network, prefix)| {
            let network: Ipv4Addr = network.parse().ok()?;
            // parse() alone would also take "+8" and "08".
            let number: u8 = prefix.parse().ok().filter(|number: &u8| number.to_string() == prefix)?;
            let host_bits = network.to_bits() & u32::MAX.checked_shr(number.into()).unwrap_or(0);
            let unicast = !network.is_unspecified() && !network.is_multicast() && !network.is_loopback();
            ((8..=25).contains(&number) && host_bits == 0 && unicast)
                .then_some(Self { network, prefix: number })
        });
        parsed.ok_or(ValueError::Cidr(text))
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// An address that a host can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Ipv4Addr")]
pub struct NodeAddress(Ipv4Addr);

impl TryFrom<Ipv4Addr> for NodeAddress {
    type Error = ValueError;
    fn try_from(address: Ipv4Addr) -> Result<Self, ValueError> {
        let first = address.octets().first().copied();
        let bad = address.is_loopback() || address.is_link_local() || first == Some(0) || first >= Some(224);
        if bad { Err(ValueError::NodeAddress(address)) } else { Ok(Self(address)) }
    }
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A program by its path, and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
pub struct Payload {
    program: AbsPath,
    arguments: Vec<String>,
}

impl Payload {
    /// The program.
    #[must_use]
    pub fn program(&self) -> &AbsPath {
        &self.program
    }
    /// Its arguments, without its name.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }
}

impl TryFrom<Vec<String>> for Payload {
    type Error = ValueError;
    fn try_from(mut words: Vec<String>) -> Result<Self, ValueError> {
        if words.is_empty() || words.iter().any(|word| word.contains('\0')) {
            return Err(ValueError::Payload);
        }
        let program = AbsPath::new(words.remove(0)).map_err(|_| ValueError::Payload)?;
        Ok(Self { program, arguments: words })
    }
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected true, false or \"auto\"")]
enum ToggleText {
    Plain(bool),
    Text(String),
}

impl TryFrom<ToggleText> for Toggle {
    type Error = ValueError;
    fn try_from(text: ToggleText) -> Result<Self, ValueError> {
        match text {
            ToggleText::Plain(true) => Ok(Self::On),
            ToggleText::Plain(false) => Ok(Self::Off),
            ToggleText::Text(text) if text == "auto" => Ok(Self::Auto),
            ToggleText::Text(text) => Err(ValueError::Toggle(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXAMPLE: &str = include_str!("../../../systemd/etc/u7s.toml");

    fn refused(text: &str) -> String {
        Config::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_example_says_the_defaults() {
        assert_eq!(Config::parse(EXAMPLE).unwrap(), Config::default());
        // And still does when every key in it is uncommented, which also shows that each is a real key.
        let lines = EXAMPLE.lines().map(|line| line.strip_prefix("#").filter(|rest| !rest.starts_with(' ')));
        let keys: String =
            lines.zip(EXAMPLE.lines()).map(|(key, line)| format!("{}\n", key.unwrap_or(line))).collect();
        assert!(keys.lines().filter(|line| line.contains(" = ")).count() > 25, "{keys}");
        let mut all = Config::parse(&keys).unwrap();
        // These three have no default to write down, so the file shows an example of each.
        assert_eq!(all.network.cidr.take().unwrap().to_string(), "10.0.2.0/24");
        assert_eq!(all.network.node_address.take().unwrap().to_string(), "192.0.2.10");
        assert_eq!(all.network.port_driver.take(), Some(PortDriver::Builtin));
        assert_eq!(all, Config::default());
    }

    #[test]
    fn errors_name_the_place() {
        let text = refused("user = 'u7s-admin'\nmtuu = 3\n");
        assert!(text.contains("line 2") && text.contains("mtuu"), "{text}");
        let text = refused("[network]\ndriver = 'host'\n");
        assert!(text.contains("line 2") && text.contains("slirp4netns"), "{text}");
        let text = refused("[network]\nmtu = 70000\n");
        assert!(text.contains("line 2") && text.contains("65521"), "{text}");
    }

    #[test]
    fn refuses_what_rootlesskit_would_or_what_would_touch_the_host() {
        for (text, part) in [
            ("copy_up = ['/tmp/x']", "works in it"),
            ("remove = ['/home/x']", "host's own"),
            ("copy_up = ['/etc']\nremove = ['/run/netns']", "host's own"),
            ("network.driver = 'pasta'\nnetwork.port_driver = 'builtin'", "does not work"),
            ("network.port_driver = 'implicit'", "does not work"),
            ("evacuate_cgroup2 = true\nnamespaces.pid = false", "needs namespaces"),
            ("evacuate_cgroup2 = 'yes'", "auto"),
            ("payload = []", "payload"),
            ("payload = ['sleep']", "payload"),
            ("payload = ['/bin/sleep', \"a\\u0000\"]", "payload"),
            ("home = '/'", "path"),
            ("home = '/var/../etc'", "path"),
            ("network.cidr = '10.0.2.1/24'", "cidr"),
            ("network.cidr = '10.0.2.0/+24'", "cidr"),
            ("network.cidr = '10.0.2.128/26'", "cidr"),
            ("network.cidr = '0.0.0.0/8'", "cidr"),
            ("network.node_address = '127.0.0.1'", "node_address"),
            ("network.node_address = '224.0.0.1'", "node_address"),
            ("[[ports]]\nprotocol='tcp'\nhost_address='0.0.0.0'\nhost_port=2379\nchild_port=2379", "2379"),
        ] {
            let message = refused(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn pasta_publishes_nothing_by_itself() {
        assert_eq!(Config::parse("network.driver = 'pasta'").unwrap().port_driver(), PortDriver::None);
        assert_eq!(Config::default().port_driver(), PortDriver::Builtin);
    }

    #[test]
    fn only_the_default_file_may_be_missing() {
        let missing = Path::new("/nonexistent/u7s.toml");
        assert!(matches!(Config::load(Some(missing)), Err(ConfigError::Read { .. })));
        let scratch = crate::files::tests::Scratch::new();
        scratch.put("u7s.toml", "home = 'x'");
        let error = Config::load(Some(&scratch.0.join("u7s.toml"))).unwrap_err().to_string();
        assert!(error.contains("u7s.toml") && error.contains("line 1"), "{error}");
    }

    proptest! {
        #[test]
        fn paths_are_never_repaired(text in "/?([a.]{0,3}/?){0,4}") {
            let normal = text.len() > 1
                && Path::new(&text).components().collect::<PathBuf>().as_os_str() == text.as_str()
                && text.starts_with('/')
                && !text.split('/').any(|part| part == "..");
            prop_assert_eq!(AbsPath::new(text.clone()).is_ok(), normal);
        }

        #[test]
        fn networks_are_written_back_as_they_were_read(bits: u32, prefix in 0u8..=33) {
            let network = Ipv4Addr::from_bits(bits & u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0));
            let text = format!("{network}/{prefix}");
            if let Ok(cidr) = Cidr::try_from(text.clone()) {
                prop_assert_eq!(cidr.to_string(), text);
                prop_assert!((8..=25).contains(&prefix));
            } else {
                let special = network.is_unspecified() || network.is_loopback() || network.is_multicast();
                prop_assert!(special || !(8..=25).contains(&prefix));
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "[a-z_]{0,12} ?= ?[\\[\\]'\"a-z0-9/.{}]{0,20}") {
            let _ = Config::parse(&text);
        }
    }
}
