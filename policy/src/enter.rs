//! What a caller may say about the session that he wants inside the namespaces.

use serde::{Deserialize, Serialize};

/// Most arguments of one command.
pub const MAX_ARGUMENTS: usize = 4096;
/// Most variables of one request.
pub const MAX_VARIABLES: usize = 256;
/// Bytes of all arguments and variables together, so that the request fits one frame to the gate.
pub const MAX_BYTES: usize = 120 * 1024;
/// `PATH_MAX`, path_resolution(7), less its NUL.
pub const MAX_PATH: usize = 4095;

/// Why a session cannot be asked for like this.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnterError {
    /// execve(2) with no argv[0] has been a root hole before (CVE-2021-4034).
    #[error("the command is empty: name a program, or ask for the login shell")]
    EmptyCommand,
    /// An argument ends at its NUL for the kernel, and not for us.
    #[error("argument {index} has a NUL byte at position {position}")]
    Nul {
        /// 0 is the program.
        index: usize,
        /// Starts at 1.
        position: usize,
    },
    /// More than [`MAX_ARGUMENTS`].
    #[error("{0} arguments; at most {MAX_ARGUMENTS} go into one command")]
    TooMany(usize),
    /// More than [`MAX_VARIABLES`].
    #[error("{0} variables; at most {MAX_VARIABLES} go into one request")]
    TooManyVariables(usize),
    /// More than [`MAX_BYTES`].
    #[error("arguments and variables take {0} bytes; at most {MAX_BYTES} go into one request")]
    TooLong(usize),
    /// Not absolute, too long, with a NUL, or into `/proc`.
    #[error("working directory: {0}")]
    Directory(&'static str),
    /// See [`EnvVar::new`].
    #[error("variable {name:?}: {why}")]
    Variable {
        /// As sent, shortened.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A window has 1 to 65535 rows and columns.
    #[error("a window of {rows} rows and {columns} columns")]
    Window {
        /// As sent.
        rows: u32,
        /// As sent.
        columns: u32,
    },
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Program {
    /// argv as given, looked up in the session's own PATH, inside the namespaces, as the cluster user.
    Command(Vec<Vec<u8>>),
    /// The cluster user's shell.
    LoginShell,
}

/// A variable for the session's environment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(String, Vec<u8>)", into = "(String, Vec<u8>)")]
pub struct EnvVar {
    name: String,
    value: Vec<u8>,
}

/// Names by which the dynamic loader, libc, a shell or an interpreter runs code or reads files of the caller's
/// choice before the program's first instruction. The session is the cluster user's, not the caller's: what he
/// can do with the command line is in the audit, what he could do with these is not.
const HOSTILE_PREFIXES: [&str; 6] = ["LD_", "MALLOC_", "GLIBC_", "BASH_FUNC_", "PYTHON", "RUBY"];
const HOSTILE_NAMES: [&str; 36] = [
    "BASHOPTS",
    "BASH_ENV",
    "CDPATH",
    "ENV",
    "FPATH",
    "GCONV_PATH",
    "GETCONF_DIR",
    "GIO_EXTRA_MODULES",
    "GNUPGHOME",
    "HOME",
    "HOSTALIASES",
    "IFS",
    "JAVA_TOOL_OPTIONS",
    "LOCALDOMAIN",
    "LOCPATH",
    "LOGNAME",
    "LOCALE_ARCHIVE",
    "NIS_PATH",
    "NLSPATH",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PATH",
    "PERL5DB",
    "PERL5LIB",
    "PERL5OPT",
    "PERLLIB",
    "PS4",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "ROOTLESSKIT_STATE_DIR",
    "SHELL",
    "SHELLOPTS",
    "TMPDIR",
    "TZDIR",
    "USER",
    "XDG_RUNTIME_DIR",
];

impl EnvVar {
    /// A POSIX name (XBD 8.1: letters, digits, `_`, no leading digit) that does not change how programs load, and
    /// a value without NUL.
    ///
    /// # Errors
    /// [`EnterError::Variable`].
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Result<Self, EnterError> {
        let (name, value) = (name.into(), value.into());
        let refuse = |why| {
            let name = name.chars().take(64).collect();
            Err(EnterError::Variable { name, why })
        };
        let mut bytes = name.bytes();
        if !bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_') {
            return refuse("a name starts with a letter or '_'");
        }
        if !bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return refuse("a name has only letters, digits and '_'");
        }
        if HOSTILE_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            || HOSTILE_NAMES.contains(&name.as_str())
        {
            return refuse("the session sets or clears this one itself");
        }
        if value.contains(&0) {
            return refuse("the value has a NUL byte");
        }
        Ok(Self { name, value })
    }

    /// Sent along without being asked for: how the caller's terminal works and which language he reads
    /// (locale(7)).
    #[must_use]
    pub fn is_customary(name: &str) -> bool {
        matches!(name, "TERM" | "COLORTERM" | "LANG" | "LANGUAGE") || name.starts_with("LC_")
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
    /// The value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }
}

impl TryFrom<(String, Vec<u8>)> for EnvVar {
    type Error = EnterError;
    fn try_from((name, value): (String, Vec<u8>)) -> Result<Self, EnterError> {
        Self::new(name, value)
    }
}

impl From<EnvVar> for (String, Vec<u8>) {
    fn from(variable: EnvVar) -> Self {
        (variable.name, variable.value)
    }
}

/// Size of a terminal's window in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "(u16, u16)", into = "(u16, u16)")]
pub struct Window {
    rows: u16,
    columns: u16,
}

impl Window {
    /// # Errors
    /// [`EnterError::Window`] for zero or more than 65535 of either.
    pub fn new(rows: u32, columns: u32) -> Result<Self, EnterError> {
        match (u16::try_from(rows), u16::try_from(columns)) {
            (Ok(rows @ 1..), Ok(columns @ 1..)) => Ok(Self { rows, columns }),
            _ => Err(EnterError::Window { rows, columns }),
        }
    }
    /// Lines.
    #[must_use]
    pub fn rows(self) -> u16 {
        self.rows
    }
    /// Characters a line.
    #[must_use]
    pub fn columns(self) -> u16 {
        self.columns
    }
}

impl TryFrom<(u16, u16)> for Window {
    type Error = EnterError;
    fn try_from((rows, columns): (u16, u16)) -> Result<Self, EnterError> {
        Self::new(rows.into(), columns.into())
    }
}

impl From<Window> for (u16, u16) {
    fn from(window: Window) -> Self {
        (window.rows, window.columns)
    }
}

/// A session, as asked for and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct Enter {
    program: Program,
    directory: Option<Vec<u8>>,
    environment: Vec<EnvVar>,
    terminal: Option<Window>,
    reservation: u64,
}

#[derive(Serialize, Deserialize)]
struct Unchecked {
    program: Program,
    directory: Option<Vec<u8>>,
    environment: Vec<EnvVar>,
    terminal: Option<Window>,
    reservation: u64,
}

impl Enter {
    /// # Errors
    /// [`EnterError`] names the part that is wrong.
    pub fn new(
        program: Program,
        directory: Option<Vec<u8>>,
        environment: Vec<EnvVar>,
        terminal: Option<Window>,
    ) -> Result<Self, EnterError> {
        let mut bytes = 0;
        if let Program::Command(argv) = &program {
            if argv.first().is_none_or(Vec::is_empty) {
                return Err(EnterError::EmptyCommand);
            }
            if argv.len() > MAX_ARGUMENTS {
                return Err(EnterError::TooMany(argv.len()));
            }
            for (index, argument) in argv.iter().enumerate() {
                if let Some(at) = argument.iter().position(|&byte| byte == 0) {
                    return Err(EnterError::Nul { index, position: at + 1 });
                }
                bytes += argument.len() + 1;
            }
        }
        if environment.len() > MAX_VARIABLES {
            // Also so that looking for doubles, below, stays short: the gate does it for every caller.
            return Err(EnterError::TooManyVariables(environment.len()));
        }
        for (index, variable) in environment.iter().enumerate() {
            bytes += variable.name.len() + variable.value.len() + 2;
            // Two of a name: programs differ in which one they believe.
            if environment.iter().take(index).any(|other| other.name == variable.name) {
                return Err(EnterError::Variable { name: variable.name.clone(), why: "given twice" });
            }
        }
        if bytes > MAX_BYTES {
            return Err(EnterError::TooLong(bytes));
        }
        if let Some(path) = &directory {
            check_directory(path).map_err(EnterError::Directory)?;
        }
        Ok(Self { program, directory, environment, terminal, reservation: 0 })
    }

    /// The same, for which the caller has made a reservation under this number; 0: none.
    #[must_use]
    pub fn reserved(self, reservation: u64) -> Self {
        Self { reservation, ..self }
    }

    /// What runs.
    #[must_use]
    pub fn program(&self) -> &Program {
        &self.program
    }
    /// Where; the cluster user's home when `None`.
    #[must_use]
    pub fn directory(&self) -> Option<&[u8]> {
        self.directory.as_deref()
    }
    /// Beside what the session sets itself.
    #[must_use]
    pub fn environment(&self) -> &[EnvVar] {
        &self.environment
    }
    /// On a new terminal of this size; `None`: on the caller's own descriptors.
    #[must_use]
    pub fn terminal(&self) -> Option<Window> {
        self.terminal
    }
    /// See [`Enter::reserved`].
    #[must_use]
    pub fn reservation(&self) -> u64 {
        self.reservation
    }
}

/// The kernel's magic links below `/proc` lead to whatever a descriptor or another process has open
/// (CVE-2024-21626), so no directory is named through it.
fn check_directory(path: &[u8]) -> Result<(), &'static str> {
    if path.first() != Some(&b'/') {
        return Err("not an absolute path");
    }
    if path.len() > MAX_PATH {
        return Err("longer than 4095 bytes");
    }
    if path.contains(&0) {
        return Err("has a NUL byte");
    }
    let mut parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    if parts.clone().any(|part| part == b"..") {
        return Err("has a '..'; name the directory itself");
    }
    if parts.next() == Some(b"proc") {
        return Err("below /proc");
    }
    Ok(())
}

impl TryFrom<Unchecked> for Enter {
    type Error = EnterError;
    fn try_from(raw: Unchecked) -> Result<Self, EnterError> {
        let enter = Self::new(raw.program, raw.directory, raw.environment, raw.terminal)?;
        Ok(enter.reserved(raw.reservation))
    }
}

impl From<Enter> for Unchecked {
    fn from(enter: Enter) -> Self {
        let Enter { program, directory, environment, terminal, reservation } = enter;
        Self { program, directory, environment, terminal, reservation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn command(argv: &[&[u8]]) -> Result<Enter, EnterError> {
        Enter::new(Program::Command(argv.iter().map(|a| a.to_vec()).collect()), None, vec![], None)
    }

    #[test]
    fn commands() {
        assert!(command(&[b"true"]).is_ok());
        assert_eq!(command(&[]), Err(EnterError::EmptyCommand));
        assert_eq!(command(&[b"", b"x"]), Err(EnterError::EmptyCommand));
        assert_eq!(command(&[b"a", b"b\0c"]), Err(EnterError::Nul { index: 1, position: 2 }));
        assert_eq!(command(&[&b"a"[..]; 4097]), Err(EnterError::TooMany(4097)));
        let long = vec![b'x'; 128 * 1024];
        assert_eq!(command(&[b"a", &long]), Err(EnterError::TooLong(2 + 128 * 1024 + 1)));
        assert!(command(&[b"a", &long[..MAX_BYTES - 3]]).is_ok());
    }

    #[test]
    fn directories() {
        let at = |path: &[u8]| Enter::new(Program::LoginShell, Some(path.to_vec()), vec![], None);
        for good in [&b"/"[..], b"/tmp", b"/var//lib/./x", b"/process"] {
            assert!(at(good).is_ok(), "{}", good.escape_ascii());
        }
        let long = [b"/".to_vec(), vec![b'a'; 4095]].concat();
        let bad: [&[u8]; 9] = [
            b"",
            b"tmp",
            b"/a\0b",
            &long,
            b"/proc",
            b"/proc/self/fd/3",
            b"//./proc/1/cwd",
            b"/a/../proc",
            b"/..",
        ];
        for path in bad {
            assert!(at(path).is_err(), "{}", path.escape_ascii());
        }
    }

    #[test]
    fn variables() {
        for good in ["TERM", "LC_ALL", "KUBECONFIG", "_x9", "ENVIRONMENT"] {
            assert!(EnvVar::new(good, "v").is_ok(), "{good}");
        }
        let bad = [
            "",
            "9A",
            "A=B",
            "A=B=C",
            "A B",
            "A\0",
            "Ä",
            "-",
            "LD_PRELOAD",
            "LD_",
            "PATH",
            "BASH_ENV",
            "ENV",
            "IFS",
            "GCONV_PATH",
            "PERL5OPT",
            "MALLOC_PERTURB_",
            "GLIBC_TUNABLES",
            "BASH_FUNC_ls%%",
            "HOME",
            "PYTHONPATH",
        ];
        for name in bad {
            assert!(EnvVar::new(name, "v").is_err(), "{name:?}");
        }
        assert!(EnvVar::new("A", "x\0y").is_err());
        let many = |count| (0..count).map(|n| EnvVar::new(format!("V{n}"), "").unwrap()).collect::<Vec<_>>();
        assert!(Enter::new(Program::LoginShell, None, many(MAX_VARIABLES), None).is_ok());
        let over = Enter::new(Program::LoginShell, None, many(MAX_VARIABLES + 1), None);
        assert_eq!(over, Err(EnterError::TooManyVariables(MAX_VARIABLES + 1)));
        let twice = vec![EnvVar::new("A", "1").unwrap(), EnvVar::new("A", "2").unwrap()];
        assert!(Enter::new(Program::LoginShell, None, twice, None).is_err());
    }

    #[test]
    fn windows() {
        assert!(Window::new(24, 80).is_ok());
        for (rows, columns) in [(0, 80), (24, 0), (65536, 80), (24, u32::MAX)] {
            assert_eq!(Window::new(rows, columns), Err(EnterError::Window { rows, columns }));
        }
    }

    proptest! {
        /// Whatever a frame holds, reading it gives a checked session or an error.
        #[test]
        fn reading_checks_again(argv in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..5), 0..4),
                                directory in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)),
                                name in "[A-Z=_]{0,4}", reservation in any::<u64>()) {
            let raw = (Program::Command(argv.clone()), directory.clone(), vec![(name.clone(), b"v".to_vec())],
                       None::<(u16, u16)>, reservation);
            let bytes = postcard::to_stdvec(&raw).unwrap();
            let expected = EnvVar::new(name, "v").and_then(|v| Enter::new(Program::Command(argv), directory, vec![v], None))
                .map(|enter| enter.reserved(reservation));
            match (postcard::from_bytes::<Enter>(&bytes), expected) {
                (Ok(read), Ok(expected)) => prop_assert_eq!(read, expected),
                (read, expected) => prop_assert!(read.is_err() && expected.is_err()),
            }
        }
    }
}
