//! The state of the rootless namespaces. That they are down is an answer here, not a failure.

use crate::cluster::{self, Host};
use crate::{Failure, Report, ports};
use podsec_policy::reason::Reason;
use podsec_sys::namespace::{self, Kind};
use podsec_sys::nix::ifaddrs::getifaddrs;
use podsec_sys::nix::sys::socket::{SockaddrLike as _, SockaddrStorage};
use podsec_sys::process::Facts;
use podsec_u7s::rootlesskit::StateDir;
use podsec_wire::messages::{Inspection, Place, Reply, State, Step};
use std::net::IpAddr;

/// Looks, as the cluster user, at everything that can be seen without entering; then enters the network namespace for
/// its addresses.
pub fn run(place: &Place, host: &Host, report: &mut Report) -> Result<Reply, Failure> {
    let (user, uid) = (&place.user, place.user.uid);
    let state = StateDir::new(&place.state);
    report.step(Step::Find);
    let target = cluster::find(place);
    report.step(Step::Become);
    cluster::become_user(user)?;
    let mut inspection = Inspection { user: user.name.clone(), uid, ..Inspection::default() };
    report.step(Step::Judge);
    let found = target.and_then(|target| {
        inspection.child_pid = u32::try_from(target.pid).unwrap_or(0);
        let found = target.judge(uid, host)?;
        Ok((target, found))
    });
    report.waiting(Step::Api);
    inspection.ports = ports::listing(&state, user).unwrap_or_default();
    match found {
        Err(failure) => {
            inspection.state = match failure.reason {
                Reason::NamespaceDown => State::Down,
                Reason::NamespaceStarting | Reason::NamespaceGone => State::Starting,
                _ => State::Refused,
            };
            inspection.reason =
                if failure.detail.is_empty() { failure.reason.sentence().into() } else { failure.detail };
        }
        Ok((target, found)) => {
            inspection.state = State::Ready;
            inspection.namespaces = found
                .iter()
                .map(|(kind, namespace, own)| (kind.name().to_owned(), namespace.inode(), *own))
                .collect();
            let facts = Facts::of(target.pid);
            inspection.uid_map = id_map(&facts.read("uid_map").unwrap_or_default());
            inspection.gid_map = id_map(&facts.read("gid_map").unwrap_or_default());
            if let Ok(info) = state.api().info() {
                let safe = |text: String| podsec_policy::audit::escape(text.as_bytes());
                inspection.version = safe(info.version);
                inspection.network_driver =
                    info.network_driver.map(|driver| safe(driver.driver)).unwrap_or_default();
                inspection.port_driver =
                    info.port_driver.map(|driver| safe(driver.driver)).unwrap_or_default();
            }
            report.step(Step::Join);
            let joined = namespace::join(&target.process, &[Kind::User, Kind::Network]);
            joined.map_err(|error| Failure::new(Reason::Setns, error))?;
            inspection.addresses = addresses();
        }
    }
    Ok(Reply::Inspected(Box::new(inspection)))
}

/// Lines of three numbers, user_namespaces(7).
fn id_map(text: &str) -> Vec<(u32, u32, u32)> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace().map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn addresses() -> Vec<(String, String)> {
    let Ok(interfaces) = getifaddrs() else { return Vec::new() };
    let listed = interfaces.filter_map(|interface| {
        let (address, mask) = (ip(&interface.address?)?, ip(&interface.netmask?)?);
        Some((interface.interface_name, format!("{address}/{}", prefix(mask))))
    });
    listed.collect()
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    debug_assert!(address.len() > 0);
    address.as_sockaddr_in6().map(|v6| v6.ip().into())
}

fn prefix(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(mask) => u32::from(mask).leading_ones(),
        IpAddr::V6(mask) => u128::from(mask).leading_ones(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_and_masks() {
        assert_eq!(
            id_map("         0        997          1\n         1     100000      65536\n"),
            [(0, 997, 1), (1, 100_000, 65_536)]
        );
        assert_eq!(id_map("x\n1 2\n"), []);
        assert_eq!(prefix("255.255.255.0".parse().unwrap()), 24);
        assert_eq!(prefix("ffff:ffff:ffff:ffff::".parse().unwrap()), 64);
    }
}
