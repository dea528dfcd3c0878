//! `podsec.v1.ServiceService`: the servers behind trust as operations, and what workers found as its messages.
//!
//! Must not keep or print the password for pushing: it passes once, to the caller whose it is.

use crate::dispatch::{Outcome, Rpc};
use crate::status::Failure;
use crate::trust::address_or_none;
use podsec_policy::operation::Method;
use podsec_policy::trust::{DeployService, RemoveService, ServiceKind};
use podsec_policy::{Operation, Reason};
use podsec_proto::v1::{
    self, DeployServiceRequest, NewCredentialRequest, RegistryCredential, RemoveServiceRequest,
    ServiceChange, ServiceStatusRequest, ServiceStatusResponse,
};
use podsec_wire::messages::{Reply, ServiceHealth, ServiceState};

impl Rpc for DeployServiceRequest {
    const METHOD: Method = Method::DeployService;
    type Response = ServiceChange;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::DeployService(DeployService {
            kind: kind(self.kind)?,
            address: address_or_none("address", &self.address)?,
            port: port_or_none(self.port)?,
            dry_run: self.dry_run,
        }))
    }

    fn response(outcome: Outcome) -> Option<ServiceChange> {
        change(outcome)
    }
}

fn kind(number: i32) -> Result<ServiceKind, Failure> {
    match v1::ServiceKind::try_from(number) {
        Ok(v1::ServiceKind::Registry) => Ok(ServiceKind::Registry),
        Ok(v1::ServiceKind::Signatures) => Ok(ServiceKind::Signatures),
        Ok(v1::ServiceKind::Unspecified) | Err(_) => {
            Err(Failure::at("kind", Reason::BadArgument, "say registry or signatures"))
        }
    }
}

fn port_or_none(number: u32) -> Result<Option<u16>, Failure> {
    let port = u16::try_from(number).map_err(|_| {
        Failure::at("port", Reason::BadArgument, "a port is 1 to 65535, or 0 for the endpoint's own")
    })?;
    Ok(Some(port).filter(|&port| port > 0))
}

impl Rpc for RemoveServiceRequest {
    const METHOD: Method = Method::RemoveService;
    type Response = ServiceChange;

    fn operation(self) -> Result<Operation, Failure> {
        let (kind, remove_data, dry_run) = (kind(self.kind)?, self.remove_data, self.dry_run);
        Ok(Operation::RemoveService(RemoveService { kind, remove_data, dry_run }))
    }

    fn response(outcome: Outcome) -> Option<ServiceChange> {
        change(outcome)
    }
}

/// What every change of a server answers.
fn change(outcome: Outcome) -> Option<ServiceChange> {
    let Outcome::Reply(Reply::Change(change)) = outcome else { return None };
    let changed = !change.steps.is_empty();
    Some(ServiceChange { changed, steps: change.steps, warnings: change.warnings })
}

impl Rpc for ServiceStatusRequest {
    const METHOD: Method = Method::ServiceStatus;
    type Response = ServiceStatusResponse;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::ServiceStatus)
    }

    fn response(outcome: Outcome) -> Option<ServiceStatusResponse> {
        let Outcome::Reply(Reply::Services(services)) = outcome else { return None };
        Some(ServiceStatusResponse { services: services.into_iter().map(found).collect() })
    }
}

fn found(service: ServiceState) -> v1::ServiceState {
    let kind = match service.kind {
        ServiceKind::Registry => v1::ServiceKind::Registry,
        ServiceKind::Signatures => v1::ServiceKind::Signatures,
    };
    let health = match service.health {
        ServiceHealth::NotDeployed => v1::ServiceHealth::NotDeployed,
        ServiceHealth::Ok => v1::ServiceHealth::Ok,
        ServiceHealth::Down => v1::ServiceHealth::Down,
        ServiceHealth::Foreign => v1::ServiceHealth::Foreign,
    };
    v1::ServiceState {
        kind: kind.into(),
        health: health.into(),
        detail: service.detail,
        address: service.address,
        size: service.size,
        certificate_expires: service.certificate_expires.unwrap_or_default(),
        changed_files: service.changed_files,
    }
}

impl Rpc for NewCredentialRequest {
    const METHOD: Method = Method::NewCredential;
    type Response = RegistryCredential;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::NewCredential)
    }

    fn response(outcome: Outcome) -> Option<RegistryCredential> {
        let Outcome::Reply(Reply::Credential(registry, name, password)) = outcome else { return None };
        // podsec's own passwords are text: a proto3 string holds nothing else.
        let password = std::str::from_utf8(password.expose()).ok()?.to_owned();
        Some(RegistryCredential { registry, name: name.into(), password })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::name::AccountName;
    use podsec_policy::secret::Secret;
    use podsec_wire::messages::Change;
    use proptest::prelude::*;

    fn deploy(kind: i32, address: &str, port: u32, dry_run: bool) -> Result<Operation, Failure> {
        DeployServiceRequest { kind, address: address.into(), port, dry_run }.operation()
    }

    fn remove(kind: i32, remove_data: bool, dry_run: bool) -> Result<Operation, Failure> {
        RemoveServiceRequest { kind, remove_data, dry_run }.operation()
    }

    #[test]
    fn every_field_arrives() {
        use ServiceKind::{Registry, Signatures};
        let deployed = |kind, address: Option<&str>, port, dry_run| {
            let address = address.map(|address| address.parse().unwrap());
            Operation::DeployService(DeployService { kind, address, port, dry_run })
        };
        let removed = |kind, remove_data, dry_run| {
            Operation::RemoveService(RemoveService { kind, remove_data, dry_run })
        };
        for (given, expected) in [
            (deploy(1, "", 0, true), deployed(Registry, None, None, true)),
            (deploy(2, "10.1.2.3", 1, false), deployed(Signatures, Some("10.1.2.3"), Some(1), false)),
            (deploy(1, "::", 65_535, false), deployed(Registry, Some("::"), Some(65_535), false)),
            (remove(1, true, false), removed(Registry, true, false)),
            (remove(2, false, true), removed(Signatures, false, true)),
            (ServiceStatusRequest {}.operation(), Operation::ServiceStatus),
            (NewCredentialRequest {}.operation(), Operation::NewCredential),
        ] {
            assert_eq!(given.unwrap(), expected);
        }
    }

    #[test]
    fn every_mistake_names_its_field() {
        for (given, start, reason) in [
            (deploy(0, "", 0, true), "kind: say registry or signatures", Reason::BadArgument),
            (deploy(3, "", 0, true), "kind: say registry or signatures", Reason::BadArgument),
            (deploy(-1, "", 0, true), "kind: ", Reason::BadArgument),
            (deploy(1, "registry.local", 0, true), "address: not an IPv4 or IPv6 address", Reason::BadHost),
            (deploy(1, "10.1.2.3/24", 0, true), "address: ", Reason::BadHost),
            (deploy(1, "[::1]", 0, true), "address: ", Reason::BadHost),
            (deploy(1, "0.0.0.0; root /;", 0, true), "address: ", Reason::BadHost),
            (deploy(1, "", 65_536, true), "port: a port is 1 to 65535", Reason::BadArgument),
            // no truncation to 16 bits: this would be 443
            (deploy(1, "", 65_536 + 443, true), "port: ", Reason::BadArgument),
            (deploy(1, "", u32::MAX, true), "port: ", Reason::BadArgument),
            (remove(0, true, true), "kind: say registry or signatures", Reason::BadArgument),
            (remove(3, true, true), "kind: ", Reason::BadArgument),
        ] {
            let failure = given.unwrap_err();
            assert_eq!(failure.reason, reason, "{}", failure.detail);
            assert!(failure.detail.starts_with(start), "{}", failure.detail);
        }
    }

    #[test]
    fn changes_are_shown() {
        let shown: [fn(Outcome) -> Option<ServiceChange>; 2] =
            [DeployServiceRequest::response, RemoveServiceRequest::response];
        for shown in shown {
            let made = Change { fingerprint: None, steps: vec!["a".into()], warnings: vec!["w".into()] };
            let change = shown(Outcome::Reply(Reply::Change(made))).unwrap();
            assert!(change.changed && change.steps == ["a"] && change.warnings == ["w"]);
            let nothing = shown(Outcome::Reply(Reply::Change(Change::default()))).unwrap();
            assert_eq!(nothing, ServiceChange::default());
            assert_eq!(shown(Outcome::Reply(Reply::End)), None);
        }
    }

    #[test]
    fn services_are_shown() {
        let kinds = [
            (ServiceKind::Registry, v1::ServiceKind::Registry),
            (ServiceKind::Signatures, v1::ServiceKind::Signatures),
        ];
        let healths = [
            (ServiceHealth::NotDeployed, v1::ServiceHealth::NotDeployed, None),
            (ServiceHealth::Ok, v1::ServiceHealth::Ok, Some(7)),
            (ServiceHealth::Down, v1::ServiceHealth::Down, Some(7)),
            (ServiceHealth::Foreign, v1::ServiceHealth::Foreign, None),
        ];
        let both = kinds.iter().flat_map(|kind| healths.iter().map(move |health| (kind, health)));
        let (mut services, mut expected) = (Vec::new(), Vec::new());
        for ((kind, shown_kind), (health, shown_health, expires)) in both {
            let detail = format!("number {}", services.len());
            let address = "https://registry.local".to_owned();
            let changed_files = vec!["/etc/podsec/registry.yml".to_owned()];
            services.push(ServiceState {
                kind: *kind,
                health: *health,
                detail: detail.clone(),
                address: address.clone(),
                size: 1 << 40,
                certificate_expires: *expires,
                changed_files: changed_files.clone(),
            });
            expected.push(v1::ServiceState {
                kind: (*shown_kind).into(),
                health: (*shown_health).into(),
                detail,
                address,
                size: 1 << 40,
                certificate_expires: expires.unwrap_or(0),
                changed_files,
            });
        }
        let shown = ServiceStatusRequest::response(Outcome::Reply(Reply::Services(services))).unwrap();
        assert_eq!(shown.services, expected);
        assert_eq!(ServiceStatusRequest::response(Outcome::Reply(Reply::End)), None);
    }

    fn credential(password: &[u8]) -> Outcome {
        let (name, password) = (AccountName::new("carol").unwrap(), Secret::new(password.to_vec()));
        Outcome::Reply(Reply::Credential("registry.local:5000".into(), name, password))
    }

    #[test]
    fn a_credential_is_shown_and_not_printed() {
        let shown = NewCredentialRequest::response(credential(b"hunter2 hunter2")).unwrap();
        assert_eq!((shown.registry.as_str(), shown.name.as_str()), ("registry.local:5000", "carol"));
        assert_eq!(shown.password, "hunter2 hunter2");
        for printed in
            [format!("{shown:?}"), format!("{shown:#?}"), format!("{:?}", credential(b"hunter2 hunter2"))]
        {
            // as text, and as the numbers that bytes are printed as
            assert!(!printed.contains("hunter") && !printed.contains("104, 117"), "{printed}");
        }
        assert_eq!(NewCredentialRequest::response(credential(b"hunter2\xff")), None);
        assert_eq!(NewCredentialRequest::response(Outcome::Reply(Reply::End)), None);
    }

    proptest! {
        /// Each text is made of characters that no sentence of ours has, so one of them in a detail is the caller's.
        #[test]
        fn no_text_of_a_caller_comes_back(text in "[\u{2600}-\u{26ff}\u{1b}\u{202e}]{1,50}") {
            let detail = deploy(1, &text, 0, true).unwrap_err().detail;
            prop_assert!(detail.chars().all(|c| c == ' ' || c.is_ascii_graphic()), "{}", detail);
        }

        /// What goes on to the gate is what std makes of the same values, and nothing repaired.
        #[test]
        fn nothing_is_repaired(address in "[0-9]{1,3}\\.[0-9]\\.[0-9]\\.[0-9]{1,2}|[0-9a-f:]{0,6}", port in 0_u32..131_072) {
            let parsed = (!address.is_empty()).then(|| address.parse()).transpose();
            match (deploy(2, &address, port, false), parsed) {
                (Ok(Operation::DeployService(deployed)), Ok(parsed)) => {
                    prop_assert_eq!(deployed.address, parsed);
                    prop_assert_eq!(deployed.port.map_or(0, u32::from), port);
                }
                (given, parsed) => prop_assert!(given.is_err() && (parsed.is_err() || port > 65_535)),
            }
        }
    }
}
