//! Ports of the namespace published on the host by rootlesskit.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// Ports that never leave the namespace: etcd's client and peer port, whose mutual TLS is the cluster's root of
/// trust, and the kubelet's read-only port, which asks nobody who they are.
pub const KEPT_INSIDE: [u16; 3] = [2379, 2380, 10255];

/// The first port that a process without privilege may bind (`ip_unprivileged_port_start`, ip(7)).
pub const FIRST_UNPRIVILEGED: u16 = 1024;

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Transmission control protocol.
    Tcp,
    /// User datagram protocol.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// One port to publish. Only [`PortSpec::new`] makes one, also on the way out of a file or a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct PortSpec {
    protocol: Protocol,
    host_address: IpAddr,
    host_port: u16,
    child_port: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    protocol: Protocol,
    host_address: IpAddr,
    host_port: u16,
    child_port: u16,
}

/// Why a port cannot be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// Below 1024.
    #[error(
        "host port {0} is below {FIRST_UNPRIVILEGED}: the cluster user cannot bind it; choose a higher one"
    )]
    Privileged(u16),
    /// Zero, or above 65535.
    #[error("{0} is not a port: 1 to 65535")]
    Range(u32),
    /// One of [`KEPT_INSIDE`].
    #[error("port {0} (etcd, or the kubelet's read-only port) never leaves the namespace")]
    KeptInside(u16),
    /// Multicast, broadcast or documentation addresses cannot be bound.
    #[error("{0} is not an address of a host")]
    Address(IpAddr),
}

impl PortSpec {
    /// Checks the numbers; whether the address is this host's and the port is free, only a bind can tell.
    ///
    /// # Errors
    /// [`PortError`] names the part that is wrong.
    pub fn new(
        protocol: Protocol,
        host_address: IpAddr,
        host_port: u32,
        child_port: u32,
    ) -> Result<Self, PortError> {
        let port = |number: u32| match u16::try_from(number) {
            Ok(0) | Err(_) => Err(PortError::Range(number)),
            Ok(port) if KEPT_INSIDE.contains(&port) => Err(PortError::KeptInside(port)),
            Ok(port) => Ok(port),
        };
        let (host_port, child_port) = (port(host_port)?, port(child_port)?);
        if host_port < FIRST_UNPRIVILEGED {
            return Err(PortError::Privileged(host_port));
        }
        let broadcast = matches!(host_address, IpAddr::V4(v4) if v4.is_broadcast());
        // An IPv4 address in IPv6 clothes would be the same port under a second name.
        let mapped = matches!(host_address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        if host_address.is_multicast() || broadcast || mapped {
            return Err(PortError::Address(host_address));
        }
        Ok(Self { protocol, host_address, host_port, child_port })
    }

    /// Transport protocol.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
    /// Address on the host; unspecified means all of them.
    #[must_use]
    pub fn host_address(&self) -> IpAddr {
        self.host_address
    }
    /// Port on the host.
    #[must_use]
    pub fn host_port(&self) -> u16 {
        self.host_port
    }
    /// Port inside the namespace.
    #[must_use]
    pub fn child_port(&self) -> u16 {
        self.child_port
    }
}

impl TryFrom<Unchecked> for PortSpec {
    type Error = PortError;
    fn try_from(raw: Unchecked) -> Result<Self, PortError> {
        Self::new(raw.protocol, raw.host_address, raw.host_port.into(), raw.child_port.into())
    }
}

impl From<PortSpec> for Unchecked {
    fn from(spec: PortSpec) -> Self {
        let PortSpec { protocol, host_address, host_port, child_port } = spec;
        Self { protocol, host_address, host_port, child_port }
    }
}

/// `tcp 0.0.0.0:8080 -> 80`
impl fmt::Display for PortSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = std::net::SocketAddr::new(self.host_address, self.host_port);
        write!(f, "{} {host} -> {}", self.protocol, self.child_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const ANY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

    #[test]
    fn keeps_cluster_ports_inside_on_both_sides() {
        for port in KEPT_INSIDE {
            let number = u32::from(port);
            assert_eq!(PortSpec::new(Protocol::Tcp, ANY, number, 80), Err(PortError::KeptInside(port)));
            assert_eq!(PortSpec::new(Protocol::Udp, ANY, 8080, number), Err(PortError::KeptInside(port)));
        }
    }

    #[test]
    fn refuses_what_cannot_be_bound() {
        let v4 = |a, b, c, d| IpAddr::V4(Ipv4Addr::new(a, b, c, d));
        assert_eq!(PortSpec::new(Protocol::Tcp, ANY, 1023, 80), Err(PortError::Privileged(1023)));
        assert_eq!(PortSpec::new(Protocol::Tcp, ANY, 0, 80), Err(PortError::Range(0)));
        assert_eq!(PortSpec::new(Protocol::Tcp, ANY, 65536, 80), Err(PortError::Range(65536)));
        assert_eq!(PortSpec::new(Protocol::Tcp, ANY, 8080, 0), Err(PortError::Range(0)));
        for address in [v4(224, 0, 0, 1), v4(255, 255, 255, 255), "::ffff:1.2.3.4".parse().unwrap()] {
            assert_eq!(PortSpec::new(Protocol::Tcp, address, 8080, 80), Err(PortError::Address(address)));
        }
    }

    #[test]
    fn reading_checks_again() {
        let good = r#"{"protocol":"tcp","host_address":"0.0.0.0","host_port":8080,"child_port":80}"#;
        let spec: PortSpec = serde_json::from_str(good).unwrap();
        assert_eq!(serde_json::to_string(&spec).unwrap(), good);
        assert_eq!(spec.to_string(), "tcp 0.0.0.0:8080 -> 80");
        assert!(serde_json::from_str::<PortSpec>(&good.replace("8080", "2379")).is_err());
    }
}
