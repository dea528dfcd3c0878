//! The servers behind trust: a registry, and a web server that stands before it and gives out signatures.
//!
//! Both run from files and units of podsec's own, beside the distribution's. Every file follows from [`Services`], which
//! holds typed values only, so nothing of a caller's can mean anything to a server. A new configuration is tried by the
//! server itself before it takes the place of the old one. Must not: touch, stop or look into a server that is not
//! podsec's.

mod certificate;
pub mod credential;
mod listener;
mod registry;
mod unit;
mod web;

use crate::account::system as account;
use crate::change::{Act, Change};
use crate::store::{at, now, public_directory, read_json, read_text, remove, write_json};
use crate::{Failure, Report, trust};
use podsec_policy::config::Config;
use podsec_policy::reason::Reason;
use podsec_policy::trust::{DeployService, Endpoint, RemoveService, ServiceKind, Settings};
use podsec_sys::file::{self, Directory};
use podsec_sys::systemd;
use podsec_wire::messages::{Job, Reply, ServiceHealth, ServiceState, Step};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Configuration of both, for everybody to read.
const CONFIGURATION: &str = "/etc/podsec/services";
/// What only the web server reads: keys, and hashes of passwords. Whatever is made in it gets the web server's group from
/// the directory (`S_ISGID`, inode(7)), so it takes no capability.
const PRIVATE: &str = "/etc/podsec/services/private";
/// Root of what the web server gives out.
const PUBLIC: &str = "/var/sigstore";
/// Signatures in it, as containers-registries.d(5) has them.
const SIGNATURES: &str = "/var/sigstore/sigstore";

const ALL: [ServiceKind; 2] = [ServiceKind::Registry, ServiceKind::Signatures];

/// What is deployed, and from what: all that the servers' files follow from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Services {
    /// Of trust, as they were when one of the two was deployed last ([`of_servers`]).
    settings: Settings,
    /// Has the host IPv6? A web server that is told to listen there without does not start.
    ipv6: bool,
    servers: BTreeMap<ServiceKind, Server>,
}

/// One of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Server {
    /// As asked for; `None`: all.
    address: Option<IpAddr>,
    /// As asked for; `None`: the endpoint's.
    port: Option<u16>,
    /// SHA-256 of the file with its certificate. It is part of the configuration, so a renewed one is a new configuration
    /// that the web server has to read.
    certificate: Option<String>,
}

impl Services {
    fn path(config: &Config) -> PathBuf {
        config.audit.state.join("services.json")
    }

    /// `None`: nothing is deployed.
    fn read(config: &Config) -> Result<Option<Self>, Failure> {
        read_json(&Self::path(config))
    }

    fn endpoint(&self, kind: ServiceKind) -> &Endpoint {
        match kind {
            ServiceKind::Registry => &self.settings.registry,
            ServiceKind::Signatures => &self.settings.signatures,
        }
    }

    fn server(&self, kind: ServiceKind) -> Option<&Server> {
        self.servers.get(&kind)
    }

    /// Where it listens.
    fn sockets(&self, kind: ServiceKind) -> Vec<SocketAddr> {
        let Some(server) = self.server(kind) else { return Vec::new() };
        let usual = if self.settings.plain_http { 80 } else { 443 };
        let port = server.port.or(self.endpoint(kind).port()).unwrap_or(usual);
        let every = [Some(Ipv4Addr::UNSPECIFIED.into()), self.ipv6.then_some(Ipv6Addr::UNSPECIFIED.into())];
        let addresses = server.address.map_or(every, |address| [Some(address), None]);
        addresses.into_iter().flatten().map(|address: IpAddr| SocketAddr::new(address, port)).collect()
    }

    /// What is to be on disk, but for what is secret.
    fn files(&self) -> Vec<(PathBuf, String)> {
        let web = (PathBuf::from(web::FILE), web::render(self, web::Place::Here));
        let registry = self.server(ServiceKind::Registry);
        let registry = registry.map(|_| (PathBuf::from(registry::FILE), registry::render(registry::STORE)));
        [Some(web), registry].into_iter().flatten().collect()
    }

    /// Those that are not as they should be.
    fn differing(&self) -> Result<Vec<PathBuf>, Failure> {
        let mut differing = Vec::new();
        for (path, text) in self.files() {
            if read_text(&path)?.as_ref() != Some(&text) {
                differing.push(path);
            }
        }
        Ok(differing)
    }

    fn write(&self, config: &Config) -> Result<(), Failure> {
        public_directory(Path::new(CONFIGURATION))?;
        for (path, text) in self.files() {
            file::replace(&path, text.as_bytes(), 0o644).map_err(at(&path))?;
        }
        write_json(&Self::path(config), self)
    }

    /// Does somebody else's program listen where one of these shall, or where this one shall?
    fn foreign(&self, only: Option<ServiceKind>) -> Result<Option<String>, Failure> {
        let own = account(web::USER)?.uid;
        let wanted = ALL.into_iter().filter(|&kind| only.is_none_or(|only| only == kind));
        let wanted: Vec<SocketAddr> = wanted.flat_map(|kind| self.sockets(kind)).collect();
        Ok(listener::conflict(&listener::listeners(), own, &wanted).map(|found| {
            let port = found.address.port();
            format!(
                "{} is in use by a program of {}, which is not podsec's and stays as it is; ss -ltnp 'sport = :{port}' names it",
                found.address,
                listener::user(found.uid),
            )
        }))
    }
}

/// What of trust's settings servers follow from: not where their names lead.
fn of_servers(settings: Settings) -> Settings {
    Settings { address: None, names: Vec::new(), ..settings }
}

/// A directory to try things in, empty at first, gone at the end.
struct Scratch {
    path: PathBuf,
    parent: Directory,
}

impl Scratch {
    const NAME: &str = "services";

    /// There is one at a time: whoever makes it has the lock of changes.
    fn new(config: &Config) -> Result<Self, Failure> {
        let path = config.socket.path.with_file_name(Self::NAME);
        let parent = path.parent().ok_or(Reason::Bug)?;
        let parent = Directory::open(parent).map_err(at(parent))?;
        // Of one that was killed.
        parent.remove_tree(Self::NAME).and_then(|()| parent.make(Self::NAME, 0o700)).map_err(at(&path))?;
        Ok(Self { path, parent })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.parent.remove_tree(Self::NAME);
    }
}

/// Is the directory there of what only the web server reads?
fn has_private() -> Result<bool, Failure> {
    use std::os::unix::fs::MetadataExt as _;
    let gid = account(web::USER)?.gid;
    let good = |meta: std::fs::Metadata| (meta.uid(), meta.gid(), meta.mode()) == (0, gid, 0o42750);
    Ok(Path::new(PRIVATE).symlink_metadata().is_ok_and(good))
}

/// Makes it.
fn private() -> Result<(), Failure> {
    if has_private()? {
        return Ok(());
    }
    public_directory(Path::new(CONFIGURATION))?;
    let (path, gid) = (Path::new(PRIVATE), account(web::USER)?.gid);
    let made = || -> io::Result<()> {
        let parent = Directory::open(Path::new(CONFIGURATION))?;
        let directory = parent.open_or_make("private", 0o700)?;
        // The mode while the group is this process's own: afterwards S_ISGID takes CAP_FSETID (chmod(2)).
        directory.give(0, 0, 0o2750)?;
        directory.give(0, gid, 0o2750)
    };
    made().map_err(at(path))
}

/// Certificates of what is deployed, and when they expire; `None`: it cannot be read.
///
/// # Errors
/// when podsec's records cannot be read
pub fn certificates(config: &Config) -> Result<Vec<(PathBuf, Option<u64>)>, Failure> {
    let services = Services::read(config)?.filter(|services| !services.settings.plain_http);
    let mut paths: Vec<_> = services
        .iter()
        .flat_map(|services| services.servers.keys().map(|&kind| certificate::path(kind)))
        .collect();
    if !paths.is_empty() {
        paths.push(certificate::PUBLISHED.into());
    }
    let with_end = |path: PathBuf| {
        let end = certificate::expires(&path);
        (path, end)
    };
    Ok(paths.into_iter().map(with_end).collect())
}

// ---- deploying

/// A server to be set up, or brought to what trust says now.
#[derive(Debug)]
pub struct Deploy {
    config: Config,
    deploy: DeployService,
    settings: Option<Settings>,
}

impl Deploy {
    /// From a request.
    ///
    /// # Errors
    /// when trust cannot be read
    pub fn new(job: &Job, deploy: DeployService) -> Result<Self, Failure> {
        let config = (*job.config).clone();
        let settings = trust::settings(&config)?.map(of_servers);
        Ok(Self { config, deploy, settings })
    }

    /// What is to be deployed then, with the certificates that are there now. The other server follows trust as well.
    fn next(&self) -> Result<Services, Failure> {
        let settings = self.settings.clone().ok_or(Reason::NoTrust)?;
        let mut servers = Services::read(&self.config)?.map(|services| services.servers).unwrap_or_default();
        let DeployService { kind, address, port, .. } = self.deploy;
        servers.insert(kind, Server { address, port, certificate: None });
        for (kind, server) in &mut servers {
            server.certificate = if settings.plain_http { None } else { certificate::hash(*kind)? };
        }
        Ok(Services { settings, ipv6: listener::has_ipv6(), servers })
    }

    /// The servers' own judgement, on what they would get; before it nothing is changed.
    fn test_todo(&self) -> Result<Option<String>, Failure> {
        let next = self.next()?;
        if let Some(foreign) = next.foreign(None)? {
            return Err(Failure::new(Reason::PortInUse, foreign));
        }
        web::program()?;
        let mut what = "nginx";
        if next.server(ServiceKind::Registry).is_some() {
            registry::program()?;
            account(registry::USER)?;
            what = "nginx and docker-registry";
        }
        Ok(self.configuration_todo()?.map(|_| format!("have {what} try the configuration")))
    }

    fn test_run(&mut self) -> Result<(), Failure> {
        let (next, scratch) = (self.next()?, Scratch::new(&self.config)?);
        web::try_out(&next, &scratch.path)?;
        if next.server(ServiceKind::Registry).is_some() {
            registry::try_out(&scratch.path)?;
        }
        Ok(())
    }

    fn certificate_todo(&self) -> Result<Option<String>, Failure> {
        certificate::todo(&self.next()?)
    }

    fn certificate_run(&mut self) -> Result<(), Failure> {
        private()?;
        let scratch = Scratch::new(&self.config)?;
        certificate::run(&self.next()?, &scratch.path)
    }

    fn store_todo(&self) -> Result<Option<String>, Failure> {
        let next = self.next()?;
        let mut todo = Vec::new();
        if !has_private()? {
            todo.push(format!("make {PRIVATE} for the web server"));
        }
        if next.server(ServiceKind::Registry).is_some() && !registry::has_store()? {
            todo.push(format!("make the store {}", registry::STORE));
        }
        if next.server(ServiceKind::Signatures).is_some() && !Path::new(SIGNATURES).is_dir() {
            todo.push(format!("make the store {SIGNATURES}"));
        }
        todo.extend(certificate::public_todo(&next)?);
        Ok((!todo.is_empty()).then(|| todo.join("; ")))
    }

    fn store_run(&mut self) -> Result<(), Failure> {
        let next = self.next()?;
        private()?;
        if next.server(ServiceKind::Registry).is_some() {
            registry::make_store()?;
        }
        if next.server(ServiceKind::Signatures).is_some() {
            public_directory(Path::new(SIGNATURES))?;
        }
        certificate::public_run(&next)
    }

    fn configuration_todo(&self) -> Result<Option<String>, Failure> {
        let next = self.next()?;
        let differing = next.differing()?;
        let same = differing.is_empty()
            && Services::read(&self.config)?.as_ref() == Some(&next)
            && self.certificate_todo()?.is_none();
        if same {
            return Ok(None);
        }
        let kind = self.deploy.kind;
        let sockets: Vec<String> = next.sockets(kind).iter().map(ToString::to_string).collect();
        let (scheme, endpoint) = (next.settings.scheme(), next.endpoint(kind).as_str());
        Ok(Some(format!("configure the {} {scheme}://{endpoint} on {}", words(kind), sockets.join(" and "))))
    }

    fn configuration_run(&mut self) -> Result<(), Failure> {
        self.next()?.write(&self.config)
    }

    fn unit_todo(&self) -> Result<Option<String>, Failure> {
        Ok(unit::todo(&self.next()?))
    }

    fn unit_run(&mut self) -> Result<(), Failure> {
        unit::run(&self.next()?)
    }
}

fn words(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Registry => "registry",
        ServiceKind::Signatures => "server of signatures",
    }
}

impl Change for Deploy {
    const ACTS: &'static [Act<Self>] = &[
        Act { step: Step::Test, todo: Self::test_todo, run: Self::test_run },
        Act { step: Step::Certificate, todo: Self::certificate_todo, run: Self::certificate_run },
        Act { step: Step::Store, todo: Self::store_todo, run: Self::store_run },
        Act { step: Step::Configuration, todo: Self::configuration_todo, run: Self::configuration_run },
        Act { step: Step::Unit, todo: Self::unit_todo, run: Self::unit_run },
    ];

    fn warnings(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !systemd::runs() {
            warnings.push(format!(
                "no systemd runs here, so nothing was started; by hand: what ExecStart= of {} says, as their users",
                unit::names(&[ServiceKind::Registry]).join(" and ")
            ));
        }
        let DeployService { kind, port, .. } = self.deploy;
        if let (Some(port), Ok(next)) = (port, self.next()) {
            let endpoint = next.endpoint(kind).clone();
            let expected = Services { servers: [(kind, Server::default())].into(), ..next };
            if expected.sockets(kind).first().is_some_and(|usual| usual.port() != port) {
                warnings.push(format!(
                    "trust calls it {}, which is another port than {port}: clients find it only if something passes them on",
                    endpoint.as_str()
                ));
            }
        }
        warnings
    }
}

// ---- removing

/// A server to be removed.
#[derive(Debug)]
pub struct Remove {
    config: Config,
    remove: RemoveService,
}

impl Remove {
    /// From a request.
    pub fn new(job: &Job, remove: RemoveService) -> Self {
        Self { config: (*job.config).clone(), remove }
    }

    /// What stays; `None`: nothing.
    fn rest(&self) -> Result<Option<Services>, Failure> {
        let Some(mut services) = Services::read(&self.config)? else { return Ok(None) };
        services.servers.remove(&self.remove.kind);
        Ok(Some(services).filter(|services| !services.servers.is_empty()))
    }

    /// Files that nothing needs any more.
    fn needless(&self) -> Result<Vec<PathBuf>, Failure> {
        let rest = self.rest()?;
        let mut needless = Vec::new();
        if self.remove.kind == ServiceKind::Registry {
            needless.push(PathBuf::from(registry::FILE));
        }
        if rest.is_none() {
            needless.push(web::FILE.into());
            needless.push(Services::path(&self.config));
        }
        Ok(needless.into_iter().filter(|path| path.exists()).collect())
    }

    fn configuration_todo(&self) -> Result<Option<String>, Failure> {
        let rest = self.rest()?;
        let same = rest == Services::read(&self.config)?
            && self.needless()?.is_empty()
            && rest
                .as_ref()
                .map_or(Ok(true), |rest| rest.differing().map(|differing| differing.is_empty()))?;
        Ok((!same).then(|| format!("remove the configuration of the {}", words(self.remove.kind))))
    }

    fn configuration_run(&mut self) -> Result<(), Failure> {
        let (rest, needless) = (self.rest()?, self.needless()?);
        if let Some(rest) = rest {
            rest.write(&self.config)?;
        }
        // The record last: what it stands for is gone then.
        needless.iter().try_for_each(|path| remove(path))
    }

    fn unit_todo(&self) -> Result<Option<String>, Failure> {
        match self.rest()? {
            Some(rest) => {
                let stop = unit::stop_todo(&unneeded(&rest));
                let reload = unit::todo(&rest);
                Ok(match (stop, reload) {
                    (Some(stop), Some(reload)) => Some(format!("{stop}; {reload}")),
                    (stop, reload) => stop.or(reload),
                })
            }
            None => Ok(unit::stop_todo(&ALL)),
        }
    }

    fn unit_run(&mut self) -> Result<(), Failure> {
        match self.rest()? {
            Some(rest) => {
                // The web server first, so that nobody is sent to what is not there.
                if unit::todo(&rest).is_some() {
                    unit::run(&rest)?;
                }
                unit::stop(&unneeded(&rest))
            }
            None => unit::stop(&ALL),
        }
    }

    fn certificate_todo(&self) -> Result<Option<String>, Failure> {
        let files = self.certificates()?;
        Ok((!files.is_empty()).then(|| format!("remove the certificate of the {}", words(self.remove.kind))))
    }

    /// The authority goes with the last server and its data; as long as other hosts may trust it, it is to be had again.
    fn certificates(&self) -> Result<Vec<PathBuf>, Failure> {
        let last = self.rest()?.is_none();
        Ok(certificate::files(self.remove.kind, last, last && self.remove.remove_data))
    }

    fn certificate_run(&mut self) -> Result<(), Failure> {
        certificate::remove_all(&self.certificates()?)
    }

    fn credential_todo(&self) -> Result<Option<String>, Failure> {
        let there = self.remove.remove_data
            && self.remove.kind == ServiceKind::Registry
            && Path::new(credential::FILE).exists();
        Ok(there.then(|| "remove all passwords for pushing".into()))
    }

    fn credential_run(&mut self) -> Result<(), Failure> {
        remove(Path::new(credential::FILE))
    }

    /// Its data; of signatures podsec remembers whose they are, too.
    fn stores(&self) -> Vec<PathBuf> {
        match self.remove.kind {
            ServiceKind::Registry => vec![registry::STORE.into()],
            ServiceKind::Signatures => vec![SIGNATURES.into(), self.config.audit.state.join("signatures")],
        }
    }

    fn store_todo(&self) -> Result<Option<String>, Failure> {
        let is_full = |path: &PathBuf| std::fs::read_dir(path).is_ok_and(|mut all| all.next().is_some());
        let full = self.stores().into_iter().filter(is_full);
        let full: Vec<String> = full.map(|path| path.display().to_string()).collect();
        let todo = self.remove.remove_data && !full.is_empty();
        Ok(todo.then(|| format!("remove all that is in {}", full.join(" and "))))
    }

    fn store_run(&mut self) -> Result<(), Failure> {
        let empty = |store: &Path| Directory::open(store).and_then(|held| held.empty());
        let mut stores = self.stores();
        stores.retain(|store| store.exists());
        stores.iter().try_for_each(|store| empty(store).map_err(at(store)))
    }
}

fn unneeded(rest: &Services) -> Vec<ServiceKind> {
    let registry = rest.server(ServiceKind::Registry).is_some();
    if registry { Vec::new() } else { vec![ServiceKind::Registry] }
}

impl Change for Remove {
    const ACTS: &'static [Act<Self>] = &[
        Act { step: Step::Configuration, todo: Self::configuration_todo, run: Self::configuration_run },
        Act { step: Step::Unit, todo: Self::unit_todo, run: Self::unit_run },
        Act { step: Step::Certificate, todo: Self::certificate_todo, run: Self::certificate_run },
        Act { step: Step::Credential, todo: Self::credential_todo, run: Self::credential_run },
        Act { step: Step::Store, todo: Self::store_todo, run: Self::store_run },
    ];

    fn warnings(&mut self) -> Vec<String> {
        if systemd::runs() || web::configuration().is_none() {
            return Vec::new();
        }
        vec!["no systemd runs here, so the servers go on as they are; end or restart them by hand".into()]
    }
}

// ---- status

/// `ServiceStatus`
///
/// # Errors
/// when podsec's own files cannot be read
pub fn status(job: &Job, report: &mut Report) -> Result<Reply, Failure> {
    report.waiting(Step::Read);
    let services = Services::read(&job.config)?;
    let settings = trust::settings(&job.config)?.map(of_servers);
    let states =
        ALL.into_iter().map(|kind| match services.as_ref().filter(|all| all.server(kind).is_some()) {
            Some(services) => state(services, kind, settings.as_ref()),
            None => Ok(ServiceState {
                kind,
                health: ServiceHealth::NotDeployed,
                detail: format!("not deployed; podsecctl service deploy {}", kind.name()),
                address: String::new(),
                size: 0,
                certificate_expires: None,
                changed_files: Vec::new(),
            }),
        });
    Ok(Reply::Services(states.collect::<Result<_, _>>()?))
}

fn state(
    services: &Services,
    kind: ServiceKind,
    settings: Option<&Settings>,
) -> Result<ServiceState, Failure> {
    let again = format!("podsecctl service deploy {}", kind.name());
    let mut changed = services.differing()?;
    // The web server's file is both servers'; the registry's is not.
    changed.retain(|path| kind == ServiceKind::Registry || path != Path::new(registry::FILE));
    let mut details = Vec::new();
    let mut expires = None;
    if !services.settings.plain_http {
        let path = certificate::path(kind);
        if certificate::hash(kind)? != services.server(kind).and_then(|server| server.certificate.clone()) {
            changed.push(path.clone());
        }
        expires = certificate::expires(&path);
        if expires.is_none_or(|expires| expires < now() + certificate::SOON) {
            details.push(format!("the certificate expires soon or cannot be read; {again}"));
        }
    }
    if settings != Some(&services.settings) {
        details.push(format!("trust has other settings now; {again}"));
    }
    let health = match (services.foreign(Some(kind))?, health(services, kind)) {
        (Some(foreign), _) => {
            details.insert(0, foreign);
            ServiceHealth::Foreign
        }
        (None, Err(why)) => {
            details.insert(0, why);
            ServiceHealth::Down
        }
        (None, Ok(())) => ServiceHealth::Ok,
    };
    if health == ServiceHealth::Ok {
        details.insert(0, "answers".into());
    }
    let size = match kind {
        ServiceKind::Registry => listener::size(Path::new(registry::STORE)),
        ServiceKind::Signatures => listener::size(Path::new(SIGNATURES)),
    };
    let changed_files = changed.iter().map(|path| path.display().to_string()).collect();
    Ok(ServiceState {
        kind,
        health,
        detail: podsec_policy::audit::escape(details.join("; ").as_bytes()),
        address: format!("{}://{}", services.settings.scheme(), services.endpoint(kind).as_str()),
        size,
        certificate_expires: expires,
        changed_files,
    })
}

/// Asks it, by a socket in the file system: podsecd has no network of its own. It is the same server block that answers
/// on the port, and nginx does not run without the ports of its configuration.
fn health(services: &Services, kind: ServiceKind) -> Result<(), String> {
    let (unit, log) = (unit::name(kind), |unit| format!("journalctl --unit {unit} says why"));
    // For a moment after a reload, processes of before answer, too.
    let wanted = web::fingerprint(services);
    for attempt in 0.. {
        match web::configuration() {
            Some(loaded) if loaded == wanted => break,
            Some(_) if attempt < 10 => std::thread::sleep(Duration::from_millis(100)),
            Some(_) => {
                let web = unit::WEB;
                return Err(format!("{web} runs with another configuration; systemctl reload {web}"));
            }
            None => return Err(format!("{} does not run; {}", unit::WEB, log(unit::WEB))),
        }
    }
    let host = services.endpoint(kind).host();
    let (path, good) = match kind {
        ServiceKind::Registry => ("/v2/", 200),
        ServiceKind::Signatures => (web::ALIVE, 204),
    };
    match web::get(host, path) {
        Ok((status, _)) if status == good => Ok(()),
        Ok((status, _)) => Err(format!("{unit} answers with status {status}; {}", log(unit))),
        Err(error) => Err(format!("{unit} does not answer ({error}); {}", log(unit))),
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Both, deployed without more being said.
    pub(in crate::services) fn services(registry: &str, signatures: &str, plain_http: bool) -> Services {
        let endpoint = |text: &str| Endpoint::new(text).unwrap();
        let (registry, signatures) = (endpoint(registry), endpoint(signatures));
        let settings = Settings { registry, signatures, plain_http, address: None, names: Vec::new() };
        Services { settings, ipv6: true, servers: ALL.map(|kind| (kind, Server::default())).into() }
    }

    #[test]
    fn where_they_listen() {
        let sockets = |services: &Services, kind| -> Vec<String> {
            services.sockets(kind).iter().map(ToString::to_string).collect()
        };
        let mut tls = services("registry.local:5000", "sigstore.local", false);
        assert_eq!(sockets(&tls, ServiceKind::Registry), ["0.0.0.0:5000", "[::]:5000"]);
        assert_eq!(sockets(&tls, ServiceKind::Signatures), ["0.0.0.0:443", "[::]:443"]);
        tls.ipv6 = false;
        let asked = Server { address: Some("::1".parse().unwrap()), port: Some(7), certificate: None };
        tls.servers.insert(ServiceKind::Registry, asked);
        assert_eq!(sockets(&tls, ServiceKind::Registry), ["[::1]:7"]);
        assert_eq!(sockets(&tls, ServiceKind::Signatures), ["0.0.0.0:443"]);
        tls.servers.remove(&ServiceKind::Signatures);
        assert_eq!(sockets(&tls, ServiceKind::Signatures), [""; 0]);
        assert_eq!(sockets(&services("a.b", "c.d", true), ServiceKind::Registry), ["0.0.0.0:80", "[::]:80"]);
    }

    #[test]
    fn the_record_reads_back() {
        let all = services("registry.local", "sigstore.local", false);
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Services>(&text).unwrap(), all);
        for bad in
            [text.replace("registry.local", "registry.local; root /"), text.replace("Registry", "Other")]
        {
            assert!(serde_json::from_str::<Services>(&bad).is_err(), "{bad}");
        }
    }
}
