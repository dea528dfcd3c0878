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
        enter.map(|enter| Operation::Enter(Box::new(enter.reserved(self.reservation)))).map_err(|error| {
            let field = match &error {
                EnterError::EmptyCommand | EnterError::Nul { .. } | EnterError::TooMany(_) => "command.argv",
                EnterError::Directory(_) => "cwd",
                EnterError::Variable { .. } | EnterError::TooManyVariables(_) => "env",
                EnterError::Window { .. } => "terminal",
                EnterError::TooLong(_) => "command.argv and env",
            };
            refused(field, &error)
        })
    }

    fn response(outcome: Outcome) -> Option<EnterResponse> {
        let Outcome::Reply(Reply::Entering { ticket, attach, session }) = outcome else { return None };
        // The socket's path is the administrator's: one that is no UTF-8 has no place in a proto3 string.
        let attach_socket = String::from_utf8(attach.into_os_string().into_vec()).ok()?;
        let ticket = ticket.map(Vec::from).unwrap_or_default();
        Some(EnterResponse { ticket, attach_socket, session })
    }
}

fn refused(field: &str, error: &EnterError) -> Failure {
    let reason = match error {
        EnterError::EmptyCommand => Reason::EmptyArgv,
        EnterError::Variable { .. } | EnterError::TooManyVariables(_) => Reason::BadEnvironment,
        EnterError::Directory(_) => Reason::BadDirectory,
        EnterError::Nul { .. }
        | EnterError::TooMany(_)
        | EnterError::TooLong(_)
        | EnterError::Window { .. } => Reason::BadArgument,
    };
    Failure::at(field, reason, error)
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

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_policy::enter::{MAX_ARGUMENTS, MAX_BYTES};
    use podsec_proto::v1::{self, LoginShell, Terminal};
    use proptest::prelude::*;
    use std::ffi::OsString;

    fn command(argv: &[&[u8]]) -> EnterRequest {
        let command = Command { argv: argv.iter().map(|argument| argument.to_vec()).collect() };
        EnterRequest { program: Some(enter_request::Program::Command(command)), ..EnterRequest::default() }
    }

    fn login_shell() -> EnterRequest {
        EnterRequest {
            program: Some(enter_request::Program::LoginShell(LoginShell {})),
            ..EnterRequest::default()
        }
    }

    fn variable(name: &str, value: &[u8]) -> v1::EnvVar {
        v1::EnvVar { name: name.into(), value: value.to_vec() }
    }

    #[test]
    fn a_whole_session_arrives() {
        let request = EnterRequest {
            cwd: b"/srv/\xff".to_vec(),
            env: vec![variable("TERM", b"xterm"), variable("A", b"\xfe")],
            terminal: Some(Terminal { rows: 1, columns: 65535 }),
            ..command(&[b"\xff", b"", b"-c"])
        };
        let Operation::Enter(enter) = request.operation().unwrap() else { panic!("another operation") };
        assert_eq!(enter.program(), &Program::Command(vec![b"\xff".to_vec(), vec![], b"-c".to_vec()]));
        assert_eq!(enter.directory(), Some(&b"/srv/\xff"[..]));
        assert_eq!((enter.environment()[1].name(), enter.environment()[1].value()), ("A", &b"\xfe"[..]));
        assert_eq!(enter.terminal().map(Window::columns), Some(65535));
        let Operation::Enter(enter) = login_shell().operation().unwrap() else { panic!("another operation") };
        assert_eq!(
            (enter.program(), enter.directory(), enter.terminal()),
            (&Program::LoginShell, None, None)
        );
    }

    #[test]
    fn every_mistake_names_its_field() {
        let long = vec![b'x'; MAX_BYTES];
        let with = |change: fn(&mut EnterRequest)| {
            let mut request = login_shell();
            change(&mut request);
            request
        };
        let wrong = [
            (EnterRequest::default(), "program: ", Reason::EmptyArgv),
            (command(&[]), "command.argv: the command is empty", Reason::EmptyArgv),
            (command(&[b"", b"x"]), "command.argv: the command is empty", Reason::EmptyArgv),
            (
                command(&[b"a", b"b\0"]),
                "command.argv: argument 1 has a NUL byte at position 2",
                Reason::BadArgument,
            ),
            (command(&[&b"a"[..]; MAX_ARGUMENTS + 1]), "command.argv: 4097 arguments", Reason::BadArgument),
            (command(&[b"a", &long]), "command.argv and env: ", Reason::BadArgument),
            (
                with(|r| r.cwd = b"tmp".to_vec()),
                "cwd: working directory: not an absolute",
                Reason::BadDirectory,
            ),
            (with(|r| r.cwd = b"/proc/1/cwd".to_vec()), "cwd: ", Reason::BadDirectory),
            (
                with(|r| r.env = vec![variable("A", b""), variable("LD_X", b"")]),
                "env[1]: ",
                Reason::BadEnvironment,
            ),
            (with(|r| r.env = vec![variable("", b"")]), "env[0]: ", Reason::BadEnvironment),
            (with(|r| r.env = vec![variable("A=B", b"")]), "env[0]: ", Reason::BadEnvironment),
            (with(|r| r.env = vec![variable("A", b"\0")]), "env[0]: ", Reason::BadEnvironment),
            (
                with(|r| r.env = vec![variable("A", b""); 2]),
                "env: variable \"A\": given twice",
                Reason::BadEnvironment,
            ),
            (
                with(|r| r.terminal = Some(Terminal { rows: 0, columns: 80 })),
                "terminal: ",
                Reason::BadArgument,
            ),
            (
                with(|r| r.terminal = Some(Terminal { rows: 9, columns: 65536 })),
                "terminal: ",
                Reason::BadArgument,
            ),
        ];
        for (request, start, reason) in wrong {
            let failure = request.operation().unwrap_err();
            assert_eq!(failure.reason, reason, "{}", failure.detail);
            assert!(failure.detail.starts_with(start), "{}", failure.detail);
        }
    }

    fn add(protocol: i32, host_address: &str, host_port: u32, child_port: u32) -> Result<Operation, Failure> {
        let port = Port { protocol, host_address: host_address.into(), host_port, child_port };
        AddPortRequest { port: Some(port), dry_run: true }.operation()
    }

    #[test]
    fn ports() {
        for (address, text) in [("", "udp 0.0.0.0:8080 -> 80"), ("::1", "udp [::1]:8080 -> 80")] {
            let Operation::AddPort(change) = add(2, address, 8080, 80).unwrap() else {
                panic!("another operation")
            };
            assert_eq!((change.port.to_string().as_str(), change.dry_run), (text, true));
        }
        for (result, start) in [
            (add(0, "", 8080, 80), "port.protocol: 0 "),
            (add(-1, "", 8080, 80), "port.protocol: -1 "),
            (add(1, "localhost", 8080, 80), "port.host_address: "),
            (add(1, "10.0.0.1 ", 8080, 80), "port.host_address: "),
            (add(1, "010.0.0.1", 8080, 80), "port.host_address: "),
            (add(1, "224.0.0.1", 8080, 80), "port: 224.0.0.1 "),
            (add(1, "", 80, 80), "port: host port 80 "),
            (add(1, "", 65536, 80), "port: 65536 "),
            (add(1, "", 2379, 2379), "port: port 2379 "),
            (RemovePortRequest::default().operation(), "port: missing"),
        ] {
            let failure = result.unwrap_err();
            assert_eq!(failure.reason, Reason::BadArgument);
            assert!(failure.detail.starts_with(start), "{}", failure.detail);
        }
    }

    #[test]
    fn what_a_worker_found_is_shown() {
        let spec = |port| PortSpec::new(port::Protocol::Tcp, "10.1.2.3".parse().unwrap(), port, 80).unwrap();
        let found = Inspection {
            state: State::Ready,
            user: "u7s-admin".into(),
            child_pid: 7,
            namespaces: vec![("mnt".into(), 4_026_531_841, true)],
            uid_map: vec![(0, 400, 1), (1, 100_000, 65_536)],
            addresses: vec![("tap0".into(), "10.0.2.100/24".into())],
            ports: vec![(spec(8080), true, false), (spec(8081), false, true)],
            ..Inspection::default()
        };
        let shown =
            InspectRequest::response(Outcome::Reply(Reply::Inspected(Box::new(found.clone())))).unwrap();
        assert_eq!((shown.state(), shown.child_pid), (NamespaceState::Ready, 7));
        assert_eq!(shown.uid_map[1], IdMap { inside: 1, outside: 100_000, count: 65_536 });
        assert_eq!(shown.addresses[0].address, "10.0.2.100/24");
        // those that are open now
        assert_eq!(shown.ports.iter().map(|port| port.host_port).collect::<Vec<_>>(), [8080]);
        let list = ListPortsRequest::response(Outcome::Reply(Reply::Ports(found.ports))).unwrap().ports;
        assert_eq!((list[0].active, list[0].kept, list[1].active, list[1].kept), (true, false, false, true));
        assert_eq!(list[0].port.as_ref().unwrap().host_address, "10.1.2.3");
        for (state, shown) in [
            (State::Down, NamespaceState::Down),
            (State::Starting, NamespaceState::Starting),
            (State::Refused, NamespaceState::Refused),
        ] {
            assert_eq!(inspected(Inspection { state, ..Inspection::default() }).state(), shown);
        }
    }

    #[test]
    fn a_socket_without_utf_8_cannot_be_told() {
        let entered = |path: &[u8]| {
            let attach = OsString::from_vec(path.to_vec()).into();
            EnterRequest::response(Outcome::Reply(Reply::Entering {
                ticket: Some([1; 32]),
                attach,
                session: "s".into(),
            }))
        };
        assert_eq!(entered(b"/run/a").unwrap().ticket.len(), 32);
        assert!(entered(b"/run/\xff").is_none());
        assert!(EnterRequest::response(Outcome::Reply(Reply::End)).is_none());
    }

    proptest! {
        /// What goes on to the gate is what policy makes of the same values, and nothing repaired.
        #[test]
        fn nothing_is_repaired(argv in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..6), 0..4),
                               cwd in proptest::collection::vec(any::<u8>(), 0..9)) {
            let request = EnterRequest {
                cwd: cwd.clone(),
                ..command(&argv.iter().map(Vec::as_slice).collect::<Vec<_>>())
            };
            let directory = (!cwd.is_empty()).then_some(cwd);
            match (request.operation(), Enter::new(Program::Command(argv), directory, vec![], None)) {
                (Ok(operation), Ok(enter)) => prop_assert_eq!(operation, Operation::Enter(Box::new(enter))),
                (operation, enter) => prop_assert!(operation.is_err() && enter.is_err()),
            }
        }
    }
}
