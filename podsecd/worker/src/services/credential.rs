//! Passwords for pushing to the registry: one for each creator, made here, kept as a hash where the web server reads it.
//!
//! Must not: put a password into an argument, a file or a log. It goes to openssl's standard input and, once, to its
//! owner.

use super::{Services, private, read_text};
use crate::change::{Act, Change};
use crate::store::at;
use crate::{Failure, member};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use podsec_policy::audit::hex;
use podsec_policy::config::Config;
use podsec_policy::name::AccountName;
use podsec_policy::reason::Reason;
use podsec_policy::secret::Secret;
use podsec_policy::trust::ServiceKind;
use podsec_sys::file;
use podsec_sys::process;
use podsec_sys::program::{Run, find_roots, run_with};
use podsec_wire::messages::{Job, Reply, Step};
use std::path::Path;

/// `name:hash` of each, as ngx_http_auth_basic_module reads it.
pub const FILE: &str = "/etc/podsec/services/private/htpasswd";

/// A new password for the caller.
#[derive(Debug)]
pub struct NewCredential {
    config: Config,
    name: AccountName,
    secret: Option<Secret>,
}

impl NewCredential {
    /// From a request.
    ///
    /// # Errors
    /// `UnmanagedUser` for a caller whose name is none of podsec's kind
    pub fn new(job: &Job) -> Result<Self, Failure> {
        let nobody =
            || Failure::new(Reason::UnmanagedUser, "you have no account of a plain name on this host");
        let name = member::own_name(job.uid).ok_or_else(nobody)?;
        Ok(Self { config: (*job.config).clone(), name, secret: None })
    }

    fn todo(&self) -> Result<Option<String>, Failure> {
        registry(&self.config)?;
        Ok(Some(format!("give {} a new password for pushing", self.name)))
    }

    fn run(&mut self) -> Result<(), Failure> {
        self.secret = Some(make_for(&self.config, &self.name)?);
        Ok(())
    }

    /// What the caller hears, once it is done.
    ///
    /// # Errors
    /// `NotDeployed`
    pub fn reply(self) -> Result<Reply, Failure> {
        let registry = registry(&self.config)?;
        Ok(Reply::Credential(registry, self.name, self.secret.ok_or(Reason::Bug)?))
    }
}

impl Change for NewCredential {
    const ACTS: &'static [Act<Self>] = &[Act { step: Step::Credential, todo: Self::todo, run: Self::run }];

    /// A password that its owner never heard is worth nothing: after a crash he asks again.
    fn has_begun(&self) -> Result<bool, Failure> {
        Ok(false)
    }
}

/// The same for the files of podman and skopeo; containers-auth.json(5).
pub fn auth(registry: &str, name: &AccountName, password: &Secret) -> Secret {
    let both = Secret::new([name.as_str().as_bytes(), b":", password.expose()].concat());
    let auth = STANDARD.encode(both.expose());
    Secret::new(format!("{{\"auths\":{{\"{registry}\":{{\"auth\":\"{auth}\"}}}}}}\n").into_bytes())
}

/// How the registry is called.
///
/// # Errors
/// `NotDeployed` where this host does not have it
pub fn registry(config: &Config) -> Result<String, Failure> {
    let services =
        Services::read(config)?.filter(|services| services.server(ServiceKind::Registry).is_some());
    Ok(services.ok_or(Reason::NotDeployed)?.settings.registry.as_str().to_owned())
}

/// Makes a password for that user, in place of one that he had.
///
/// # Errors
/// `NotDeployed` without a registry; `Unsupported`, `Program`
pub fn make_for(config: &Config, name: &AccountName) -> Result<Secret, Failure> {
    registry(config)?;
    let random = process::random::<32>().map_err(|error| Failure::new(Reason::Resources, error))?;
    let secret = Secret::new(hex(&random).into_bytes());
    let openssl = find_roots("openssl").map_err(|error| Failure::new(Reason::Unsupported, error))?;
    // crypt(5), "sha512crypt": what both nginx and every openssl know. With such a password any hash would do.
    let run = Run { input: secret.expose(), ..Run::default() };
    let hash = run_with(&openssl, &["passwd", "-6", "-stdin"], run);
    let hash = hash.map_err(|error| Failure::new(Reason::Program, error))?;
    let hash = String::from_utf8(hash).unwrap_or_default();
    if !hash.starts_with("$6$") || hash.trim_end().contains([':', '\n']) {
        return Err(Failure::new(Reason::Program, "openssl passwd printed no hash"));
    }
    let others = without(&read_text(Path::new(FILE))?.unwrap_or_default(), name);
    private()?;
    write(&format!("{others}{name}:{}\n", hash.trim_end()))?;
    Ok(secret)
}

/// Is there anything to [`forget`]?
pub fn is_there(name: &AccountName) -> bool {
    let text = read_text(Path::new(FILE)).ok().flatten().unwrap_or_default();
    without(&text, name) != text
}

/// Of a creator who is removed: somebody else of that name does not inherit his password.
///
/// # Errors
/// write(2)
pub fn forget(name: &AccountName) -> Result<(), Failure> {
    let text = read_text(Path::new(FILE))?.unwrap_or_default();
    let others = without(&text, name);
    if others == text { Ok(()) } else { write(&others) }
}

fn without(text: &str, name: &AccountName) -> String {
    let others = text.lines().filter(|line| line.split(':').next() != Some(name.as_str()));
    others.flat_map(|line| [line, "\n"]).collect()
}

fn write(text: &str) -> Result<(), Failure> {
    file::replace(Path::new(FILE), text.as_bytes(), 0o640).map_err(at(Path::new(FILE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_each() {
        let name = |name: &str| AccountName::new(name).unwrap();
        let text = "ann:$6$a\nannie:$6$b\nbob:$6$c\n";
        assert_eq!(without(text, &name("ann")), "annie:$6$b\nbob:$6$c\n");
        assert_eq!(without(text, &name("zoe")), text);
        assert_eq!(without("", &name("zoe")), "");
    }
}
