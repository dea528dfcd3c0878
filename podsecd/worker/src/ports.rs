//! Ports of the namespace, by rootlesskit's own API and the cluster user's own list of kept ones: as him throughout.

use crate::{Failure, Report, cluster};
use podsec_policy::operation::PortChange;
use podsec_policy::port::PortSpec;
use podsec_policy::reason::Reason;
use podsec_u7s::ports::{self, Outcome, PortsError, Store};
use podsec_u7s::rootlesskit::StateDir;
use podsec_u7s::rootlesskit::api::ApiError;
use podsec_wire::messages::{ClusterUser, Place, Reply, Step};

fn become_cluster_user<'a>(
    Place { user, state }: &'a Place,
    report: &mut Report,
) -> Result<(StateDir, &'a ClusterUser), Failure> {
    report.step(Step::Become);
    cluster::become_user(user)?;
    report.waiting(Step::Api);
    Ok((StateDir::new(state), user))
}

fn failure(error: PortsError) -> Failure {
    let reason = match &error {
        PortsError::Api(ApiError::NotRunning) => Reason::NamespaceDown,
        PortsError::Api(ApiError::PortInUse { .. }) => Reason::PortInUse,
        PortsError::Api(ApiError::Refused { .. }) | PortsError::Full => Reason::PortRefused,
        PortsError::Api(_) => Reason::Rootlesskit,
        _ => Reason::Resources,
    };
    Failure::new(reason, error)
}

/// Spec, published now, kept.
pub type Listing = Vec<(PortSpec, bool, bool)>;

/// What is published and kept.
pub fn listing(state: &StateDir, user: &ClusterUser) -> Result<Listing, Failure> {
    let listing = ports::list(&state.api(), &Store::new(&user.home)).map_err(failure)?;
    Ok(listing.ports.into_iter().map(|port| (port.spec, port.id.is_some(), port.kept)).collect())
}

/// `ListPorts`
pub fn list(place: &Place, report: &mut Report) -> Result<Reply, Failure> {
    let (state, user) = become_cluster_user(place, report)?;
    listing(&state, user).map(Reply::Ports)
}

/// `AddPort`
pub fn add(place: &Place, change: PortChange, report: &mut Report) -> Result<Reply, Failure> {
    let (state, user) = become_cluster_user(place, report)?;
    let there = listing(&state, user)?.into_iter().find(|(spec, ..)| *spec == change.port);
    if let Some((_, true, true)) = there {
        return Ok(Reply::Changed(false));
    }
    if change.dry_run {
        state.api().info().map_err(|error| failure(error.into()))?;
        return Ok(Reply::Changed(true));
    }
    let outcome = ports::add(&state.api(), &Store::new(&user.home), change.port).map_err(failure)?;
    Ok(Reply::Changed(outcome == Outcome::Changed))
}

/// `RemovePort`
pub fn remove(place: &Place, change: PortChange, report: &mut Report) -> Result<Reply, Failure> {
    let (state, user) = become_cluster_user(place, report)?;
    if change.dry_run {
        let there = listing(&state, user)?.into_iter().any(|(spec, ..)| spec == change.port);
        return Ok(Reply::Changed(there));
    }
    let outcome = ports::remove(&state.api(), &Store::new(&user.home), &change.port).map_err(failure)?;
    Ok(Reply::Changed(outcome == Outcome::Changed))
}
