//! How a port is written: `[ADDRESS:]HOST-PORT:PORT[/tcp|/udp]`, with an IPv6 address in brackets (RFC 3986 §3.2.2).
//!
//! Must not decide which ports are allowed: that is [`PortSpec`]'s.

use podsec_policy::port::{PortError, PortSpec, Protocol};
use podsec_proto::v1;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Why a text is no port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Something at a place.
    #[error("position {position}: {why}")]
    Form {
        /// Starts at 1, in characters.
        position: usize,
        /// What is expected there.
        why: &'static str,
    },
    /// Well written, and still not possible.
    #[error(transparent)]
    Port(#[from] PortError),
}

/// # Errors
/// [`SpecError`]
pub fn parse(text: &str) -> Result<PortSpec, SpecError> {
    // `part` is always a slice of `text`, so its start is where it stands.
    let at = |part: &str, why| {
        let offset = part.as_ptr().addr().saturating_sub(text.as_ptr().addr());
        let position = text.get(..offset).map_or(0, |before| before.chars().count()) + 1;
        SpecError::Form { position, why }
    };
    let (rest, protocol) = match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((rest, "tcp")) => (rest, Protocol::Tcp),
        Some((rest, "udp")) => (rest, Protocol::Udp),
        Some((_, other)) => return Err(at(other, "after the '/' comes tcp or udp")),
    };
    let (address, ports) = match rest.strip_prefix('[') {
        Some(bracketed) => {
            let closed = bracketed.split_once("]:");
            let (address, ports) = closed.ok_or_else(|| at(bracketed, "an IPv6 address ends in ']:'"))?;
            let parsed = address.parse::<Ipv6Addr>().map_err(|_| at(address, "not an IPv6 address"))?;
            (IpAddr::V6(parsed), ports)
        }
        None if rest.matches(':').count() > 2 => return Err(at(rest, "an IPv6 address stands in brackets")),
        None => match rest.split_once(':') {
            Some((address, ports)) if ports.contains(':') => {
                let parsed = address.parse::<Ipv4Addr>().map_err(|_| at(address, "not an IPv4 address"))?;
                (IpAddr::V4(parsed), ports)
            }
            _ => (IpAddr::V4(Ipv4Addr::UNSPECIFIED), rest),
        },
    };
    let two = ports.split_once(':');
    let (host, child) = two.ok_or_else(|| at(ports, "the port on the host, ':', and the port inside"))?;
    let number = |part: &str| {
        // str::parse would take a '+'.
        let digits = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u32>().ok());
        digits.flatten().ok_or_else(|| at(part, "a port is a number"))
    };
    Ok(PortSpec::new(protocol, address, number(host)?, number(child)?)?)
}

/// As [`parse`] reads it. What podsecd says goes in, so nothing is refused here; the caller escapes it.
#[must_use]
pub fn show(port: &v1::Port) -> String {
    let address = match port.host_address.as_str() {
        "" => "0.0.0.0".to_owned(),
        address if address.contains(':') => format!("[{address}]"),
        address => address.to_owned(),
    };
    format!("{address}:{}:{}/{}", port.host_port, port.child_port, protocol(port))
}

/// For programs.
#[must_use]
pub fn object(port: &v1::Port) -> serde_json::Value {
    serde_json::json!({
        "protocol": protocol(port),
        "host_address": if port.host_address.is_empty() { "0.0.0.0" } else { &port.host_address },
        "host_port": port.host_port,
        "child_port": port.child_port,
    })
}

fn protocol(port: &v1::Port) -> &'static str {
    match port.protocol() {
        v1::Protocol::Udp => "udp",
        v1::Protocol::Tcp => "tcp",
        v1::Protocol::Unspecified => "?",
    }
}

/// For a request.
#[must_use]
pub fn message(spec: PortSpec) -> v1::Port {
    let protocol = match spec.protocol() {
        Protocol::Tcp => v1::Protocol::Tcp,
        Protocol::Udp => v1::Protocol::Udp,
    };
    v1::Port {
        protocol: protocol.into(),
        host_address: spec.host_address().to_string(),
        host_port: spec.host_port().into(),
        child_port: spec.child_port().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_ways_to_write_a_port() {
        for (text, shown) in [
            ("8080:80", "tcp 0.0.0.0:8080 -> 80"),
            ("8080:80/tcp", "tcp 0.0.0.0:8080 -> 80"),
            ("127.0.0.1:8053:53/udp", "udp 127.0.0.1:8053 -> 53"),
            ("[::1]:8080:80", "tcp [::1]:8080 -> 80"),
            ("[::]:8080:80/udp", "udp [::]:8080 -> 80"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn names_the_position_of_what_is_wrong() {
        for (text, position) in [
            ("", 1),
            ("8080", 1),
            ("8080:", 6),
            (":80", 1),
            ("8080:8o", 6),
            ("+8080:80", 1),
            ("8080:80/", 9),
            ("8080:80/sctp", 9),
            ("8080:80/tcp/udp", 9),
            ("::1:8080:80", 1),
            ("localhost:8080:80", 1),
            ("1.2.3.4:8080:", 14),
            ("[::1:8080:80", 2),
            ("[1.2.3.4]:8080:80", 2),
            ("[::1]:8080", 7),
            ("é:1:2", 1),
            ("8080:é", 6),
            ("8080:80:é", 1),
        ] {
            assert!(
                matches!(parse(text), Err(SpecError::Form { position: found, .. }) if found == position),
                "{text:?}: {:?}",
                parse(text)
            );
        }
        assert_eq!(parse("80:80"), Err(SpecError::Port(PortError::Privileged(80))));
        assert_eq!(parse("8080:2379"), Err(SpecError::Port(PortError::KeptInside(2379))));
        assert_eq!(parse("8080:65536"), Err(SpecError::Port(PortError::Range(65536))));
        assert!(parse("8080:99999999999999").is_err());
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(udp: bool, address: IpAddr, host in 1024_u32..65536, child in 1_u32..65536) {
            let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
            if let Ok(spec) = PortSpec::new(protocol, address, host, child) {
                prop_assert_eq!(parse(&show(&message(spec))), Ok(spec));
            }
        }

        #[test]
        fn any_text_is_a_port_or_an_error(text in "[0-9:\\[\\]./tcpud+é]{0,24}") {
            let _ = parse(&text);
        }
    }
}
