//! `podsec.v1.NamespaceService`: its messages as operations, and what workers found as its messages.

use crate::dispatch::{Outcome, Rpc};
use crate::status::Failure;
use podsec_policy::enter::{Enter, EnterError, EnvVar, Program, Window};
use podsec_policy::operation::{Method, PortChange};
use podsec_policy::port::{self, PortSpec};
use podsec_policy::{Operation, Reason};
use podsec_proto::v1::{
    AddPortRequest, AddPortResponse, Address, Command, EnterRequest, EnterResponse, IdMap, InspectRequest,
    InspectResponse, ListPortsRequest, ListPortsResponse, Namespace, NamespaceState, Port, Protocol,
    PublishedPort, RemovePortRequest, RemovePortResponse, enter_request,
};
use podsec_wire::messages::{Inspection, Reply, State};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::ffi::OsStringExt as _;

impl Rpc for InspectRequest {
    const METHOD: Method = Method::Inspect;
    type Response = InspectResponse;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::Inspect)
    }

    fn response(outcome: Outcome) -> Option<InspectResponse> {
        let Outcome::Reply(Reply::Inspected(found)) = outcome else { return None };
        Some(inspected(*found))
    }
}

fn inspected(found: Inspection) -> InspectResponse {
    let maps = |maps: Vec<(u32, u32, u32)>| {
        maps.into_iter().map(|(inside, outside, count)| IdMap { inside, outside, count }).collect()
    };
    let state = match found.state {
        State::Down => NamespaceState::Down,
        State::Starting => NamespaceState::Starting,
        State::Ready => NamespaceState::Ready,
        State::Refused => NamespaceState::Refused,
    };
    InspectResponse {
        state: state.into(),
        reason: found.reason,
        user: found.user,
        uid: found.uid,
        child_pid: found.child_pid,
        namespaces: found
            .namespaces
            .into_iter()
            .map(|(kind, inode, own)| Namespace { kind, inode, own })
            .collect(),
        uid_map: maps(found.uid_map),
        gid_map: maps(found.gid_map),
        addresses: found
            .addresses
            .into_iter()
            .map(|(interface, address)| Address { interface, address })
            .collect(),
        network_driver: found.network_driver,
        port_driver: found.port_driver,
        rootlesskit_version: found.version,
        ports: found.ports.iter().filter(|&&(_, active, _)| active).map(|(spec, ..)| port(spec)).collect(),
    }
}

impl Rpc for EnterRequest {
    const METHOD: Method = Method::Enter;
    type Response = EnterResponse;

    fn operation(self) -> Result<Operation, Failure> {
        let program = match self.program {
            Some(enter_request::Program::Command(Command { argv })) => Program::Command(argv),
            Some(enter_request::Program::LoginShell(_)) => Program::LoginShell,
            None => {
                return Err(Failure::new(
                    Reason::EmptyArgv,
                    "program: neither a command nor the login shell",
                ));
            }
        };
        let directory = Some(self.cwd).filter(|cwd| !cwd.is_empty());
        let mut environment = Vec::with_capacity(self.env.len());
        for (index, variable) in self.env.into_iter().enumerate() {
            let checked = EnvVar::new(variable.name, variable.value);
            environment.push(checked.map_err(|error| refused(&format!("env[{index}]"), &error))?);
        }
        let window = self.terminal.map(|terminal| Window::new(terminal.rows, terminal.columns)).transpose();
        let window = window.map_err(|error| refused("terminal", &error))?;
        let enter = Enter::new(program, directory, environment, window);
        enter.map(|enter| Operation::Enter(Box::new(enter))).map_err(|error| {
            let field = match &error {
                EnterError::EmptyCommand | EnterError::Nul { .. } | EnterError::TooMany(_) => "command.argv",
                EnterError::Directory(_) => "cwd",
                EnterError::Variable { .. } => "env",
                EnterError::Window { .. } => "terminal",
                EnterError::TooLong(_) => "command.argv and env",
            };
            refused(field, &error)
        })
    }

    fn response(outcome: Outcome) -> Option<EnterResponse> {
        let Outcome::Reply(Reply::Entered { ticket, attach, session }) = outcome else { return None };
        // The socket's path is the administrator's: one that is no UTF-8 has no place in a proto3 string.
        let attach_socket = String::from_utf8(attach.into_os_string().into_vec()).ok()?;
        Some(EnterResponse { ticket: ticket.to_vec(), attach_socket, session })
    }
}

fn refused(field: &str, error: &EnterError) -> Failure {
    let reason = match error {
        EnterError::EmptyCommand => Reason::EmptyArgv,
        EnterError::Variable { .. } => Reason::BadEnvironment,
        EnterError::Directory(_) => Reason::BadDirectory,
        EnterError::Nul { .. }
        | EnterError::TooMany(_)
        | EnterError::TooLong(_)
        | EnterError::Window { .. } => Reason::BadArgument,
    };
    Failure::new(reason, format!("{field}: {error}"))
}

impl Rpc for ListPortsRequest {
    const METHOD: Method = Method::ListPorts;
    type Response = ListPortsResponse;

    fn operation(self) -> Result<Operation, Failure> {
        Ok(Operation::ListPorts)
    }

    fn response(outcome: Outcome) -> Option<ListPortsResponse> {
        let Outcome::Reply(Reply::Ports(ports)) = outcome else { return None };
        Some(ListPortsResponse { ports: published(ports) })
    }
}

impl Rpc for AddPortRequest {
    const METHOD: Method = Method::AddPort;
    type Response = AddPortResponse;

    fn operation(self) -> Result<Operation, Failure> {
        change(self.port, self.dry_run).map(Operation::AddPort)
    }

    fn response(outcome: Outcome) -> Option<AddPortResponse> {
        let Outcome::Reply(Reply::Changed(changed)) = outcome else { return None };
        Some(AddPortResponse { changed })
    }
}

impl Rpc for RemovePortRequest {
    const METHOD: Method = Method::RemovePort;
    type Response = RemovePortResponse;

    fn operation(self) -> Result<Operation, Failure> {
        change(self.port, self.dry_run).map(Operation::RemovePort)
    }

    fn response(outcome: Outcome) -> Option<RemovePortResponse> {
        let Outcome::Reply(Reply::Changed(changed)) = outcome else { return None };
        Some(RemovePortResponse { changed })
    }
}

fn change(port: Option<Port>, dry_run: bool) -> Result<PortChange, Failure> {
    let bad = |detail: String| Failure::new(Reason::BadArgument, detail);
    let port = port.ok_or_else(|| bad("port: missing".to_owned()))?;
    let protocol = match Protocol::try_from(port.protocol) {
        Ok(Protocol::Tcp) => port::Protocol::Tcp,
        Ok(Protocol::Udp) => port::Protocol::Udp,
        Ok(Protocol::Unspecified) | Err(_) => {
            return Err(bad(format!("port.protocol: {} is neither tcp (1) nor udp (2)", port.protocol)));
        }
    };
    let address = match port.host_address.as_str() {
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        text => text.parse().map_err(|_| bad("port.host_address: not an IPv4 or IPv6 address".to_owned()))?,
    };
    let port = PortSpec::new(protocol, address, port.host_port, port.child_port);
    Ok(PortChange { port: port.map_err(|error| bad(format!("port: {error}")))?, dry_run })
}

fn published(ports: Vec<(PortSpec, bool, bool)>) -> Vec<PublishedPort> {
    let one = |(spec, active, kept): &(PortSpec, bool, bool)| PublishedPort {
        port: Some(port(spec)),
        active: *active,
        kept: *kept,
    };
    ports.iter().map(one).collect()
}

fn port(spec: &PortSpec) -> Port {
    let protocol = match spec.protocol() {
        port::Protocol::Tcp => Protocol::Tcp,
        port::Protocol::Udp => Protocol::Udp,
    };
    Port {
        protocol: protocol.into(),
        host_address: spec.host_address().to_string(),
        host_port: spec.host_port().into(),
        child_port: spec.child_port().into(),
    }
}
