//! skopeo(1), run as the caller: it knows the registries, the caller's credentials and his policy.
//!
//! Must not hand it anything of the environment that it does not need, or switch the policy off.

use super::layout;
use super::name::Architecture;
use super::run::{Done, Watch, program};
use super::{Trouble, complaint};
use podsec_sys::process::Facts;
use std::path::Path;
use std::process::Command;

/// Where the caller's configuration, credentials and store are, and how registries are reached.
pub const KEPT: [&str; 20] = [
    "HOME",
    "TMPDIR",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "REGISTRY_AUTH_FILE",
    "DOCKER_CONFIG",
    "CONTAINERS_CONF",
    "CONTAINERS_REGISTRIES_CONF",
    "CONTAINERS_STORAGE_CONF",
    "STORAGE_DRIVER",
    "STORAGE_OPTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];

/// Runs it.
#[derive(Clone, Debug)]
pub struct Skopeo<'a> {
    watch: &'a Watch,
    tls_verify: bool,
}

/// A copy of one image.
#[derive(Debug)]
pub struct Copy<'a> {
    /// `TRANSPORT:…`
    pub from: &'a str,
    /// `TRANSPORT:…`
    pub to: &'a str,
    /// For relative paths in them.
    pub directory: &'a Path,
    /// What more it is told.
    pub options: &'a [&'a str],
    /// Of a list of images, only the one for this.
    pub architecture: Option<&'a Architecture>,
}

impl<'a> Skopeo<'a> {
    /// # Errors
    /// [`Trouble::Program`] where it is not installed
    pub fn new(watch: &'a Watch, tls_verify: bool) -> Result<Self, Trouble> {
        program("skopeo", &[])?;
        Ok(Self { watch, tls_verify })
    }

    /// Copies; `look` gets the pid again and again.
    ///
    /// # Errors
    /// [`Trouble::Program`], with what it says
    pub fn copy(&self, copy: &Copy<'_>, look: impl FnMut(u32)) -> Result<(), Trouble> {
        let mut command = program("skopeo", &KEPT)?;
        command.current_dir(copy.directory);
        if let Some(architecture) = copy.architecture {
            command.args(["--override-os", "linux", "--override-arch", architecture.as_str()]);
        }
        command.args(["copy", "--quiet", "--retry-times", "2"]).args(copy.options);
        if !self.tls_verify {
            command.args(["--src-tls-verify=false", "--dest-tls-verify=false"]);
        }
        self.run(command.args(["--", copy.from, copy.to]), look).map(drop)
    }

    /// The manifest of an image, or the list of manifests, as it is.
    ///
    /// # Errors
    /// [`Trouble::Program`], also where there is no such image
    pub fn manifest(&self, reference: &str) -> Result<Vec<u8>, Trouble> {
        self.inspect(&["--raw"], reference)
    }

    /// The architectures that an image is there for.
    ///
    /// # Errors
    /// [`Trouble::Program`]
    pub fn architectures(&self, reference: &str) -> Result<Vec<Architecture>, Trouble> {
        if let Some(found) = layout::platforms(&self.manifest(reference)?) {
            return Ok(found);
        }
        let config = self.inspect(&["--config", "--raw"], reference)?;
        Ok(layout::architecture_of(&config).into_iter().collect())
    }

    fn inspect(&self, options: &[&str], reference: &str) -> Result<Vec<u8>, Trouble> {
        let mut command = program("skopeo", &KEPT)?;
        command.arg("inspect").args(options);
        if !self.tls_verify {
            command.arg("--tls-verify=false");
        }
        self.run(command.args(["--", reference]), |_| ()).map(|done| done.output)
    }

    fn run(&self, command: &mut Command, look: impl FnMut(u32)) -> Result<Done, Trouble> {
        let cannot = |error| Trouble::cannot_run("skopeo", &error);
        let done = self.watch.run(command, look).map_err(cannot)?;
        if done.status.success() {
            return Ok(done);
        }
        Err(Trouble::Program { name: "skopeo", said: complaint(&done.errors, &done.status) })
    }
}

/// How many bytes a program has read (proc_pid_io(5)): what it pushes, it has read.
#[must_use]
pub fn bytes_read(pid: u32) -> u64 {
    let io = i32::try_from(pid).ok().and_then(|pid| Facts::of(pid).read("io").ok()).unwrap_or_default();
    let line = io.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.and_then(|count| count.parse().ok()).unwrap_or(0)
}
