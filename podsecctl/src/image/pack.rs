//! Packing and unpacking by xz(1) and zstd(1): programs that everybody has, that use all processors, and whose mistakes
//! stay in a process of their own, with a limit to the memory that a file can make them take.

use super::run::{Running, Watch, contents, memory, program};
use super::{Trouble, complaint};
use crate::cli::Compression;
use podsec_sys::nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout, Stdio};

/// RFC 8878 §3.1.1
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// The .xz file format, §2.1.1.1
const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];

/// Of a program's complaints, the last of which is shown.
const MOST_COMPLAINTS: u64 = 4096;

impl Compression {
    /// Behind `.tar`.
    #[must_use]
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Zstd => "zst",
            Self::Xz => "xz",
        }
    }

    /// Can it be packed so here? Asked before anything is fetched.
    ///
    /// # Errors
    /// [`Trouble::Program`]
    pub fn check(self) -> Result<(), Trouble> {
        program(self.program(), &[]).map(drop).map_err(|_| {
            let other = if self == Self::Xz { "zstd" } else { "xz" };
            let said = format!("is not installed on this host: install it, or try --compress {other}");
            Trouble::Program { name: self.program(), said }
        })
    }

    fn program(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Xz => "xz",
        }
    }

    /// The same bytes whatever the number of processors: both cut the input by their own rules. Layers are compressed
    /// already, so a higher level would only take longer.
    fn pack(self) -> &'static [&'static str] {
        match self {
            Self::Zstd => &["-q", "-c", "-9", "-T0"],
            Self::Xz => &["-q", "-c", "-6", "-T4", "--format=xz"],
        }
    }

    /// 128 MiB are enough for what either makes at its highest level (zstd's `--ultra` and `--long=31` apart).
    fn unpack(self) -> &'static [&'static str] {
        match self {
            Self::Zstd => &["-q", "-d", "-c", "--memory=128MB"],
            Self::Xz => &["-q", "-d", "-c", "-T1", "--format=xz", "--memlimit-decompress=128MiB"],
        }
    }
}

/// The unpacked bytes of a file.
#[derive(Debug)]
pub struct Unpacker(Kind);

#[derive(Debug)]
enum Kind {
    Plain(File),
    Packed { name: &'static str, program: Running, bytes: Option<ChildStdout>, errors: File },
}

impl Unpacker {
    /// By what the file begins with, whatever it is called.
    ///
    /// # Errors
    /// open(2); [`Trouble::Program`]
    pub fn open(path: &Path, watch: &Watch) -> Result<Self, Trouble> {
        let failed = |error| Trouble::file(path, error);
        let file = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        let file = file.map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a file")));
        }
        let mut magic = [0; 6];
        let _ = file.read_exact_at(&mut magic, 0);
        let compression = match magic {
            XZ => Compression::Xz,
            _ if magic.starts_with(&ZSTD) => Compression::Zstd,
            _ => return Ok(Self(Kind::Plain(file))),
        };
        let name = compression.program();
        let errors = memory().map_err(failed)?;
        let mut command = program(name, &[])?;
        command.args(compression.unpack()).stdin(file).stdout(Stdio::piped());
        command.stderr(errors.try_clone().map_err(failed)?);
        let mut program = watch.spawn(&mut command).map_err(|error| Trouble::cannot_run(name, &error))?;
        let bytes = program.child().stdout.take();
        Ok(Self(Kind::Packed { name, program, bytes, errors }))
    }

    /// After the last byte: was that the whole file?
    ///
    /// # Errors
    /// [`Trouble::Refused`], with what the program says
    pub fn finish(self) -> Result<(), Trouble> {
        let Kind::Packed { name, mut program, bytes, errors } = self.0 else { return Ok(()) };
        drop(bytes);
        let status = program.wait().map_err(|error| Trouble::cannot_run(name, &error))?;
        if status.success() {
            return Ok(());
        }
        let errors = contents(errors, MOST_COMPLAINTS).unwrap_or_default();
        Err(Trouble::Refused(format!("cannot be unpacked: {name} {}", complaint(&errors, &status))))
    }
}

impl Read for Unpacker {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(file) => file.read(buffer),
            Kind::Packed { bytes, .. } => bytes.as_mut().map_or(Ok(0), |bytes| bytes.read(buffer)),
        }
    }
}

/// Packs what is written to it into a file.
#[derive(Debug)]
pub struct Packer {
    name: &'static str,
    program: Running,
    bytes: Option<ChildStdin>,
    errors: File,
}

impl Packer {
    /// # Errors
    /// [`Trouble::Program`]
    pub fn new(compression: Compression, to: File, watch: &Watch) -> Result<Self, Trouble> {
        let name = compression.program();
        let cannot = |error| Trouble::cannot_run(name, &error);
        let errors = memory().map_err(cannot)?;
        let mut command = program(name, &[])?;
        command.args(compression.pack()).stdin(Stdio::piped()).stdout(to);
        command.stderr(errors.try_clone().map_err(cannot)?);
        let mut program = watch.spawn(&mut command).map_err(cannot)?;
        let bytes = program.child().stdin.take();
        Ok(Self { name, program, bytes, errors })
    }

    /// After the last byte.
    ///
    /// # Errors
    /// [`Trouble::Program`], with what it says
    pub fn finish(mut self) -> Result<(), Trouble> {
        drop(self.bytes.take());
        let name = self.name;
        let status = self.program.wait().map_err(|error| Trouble::cannot_run(name, &error))?;
        if status.success() {
            return Ok(());
        }
        let errors = contents(self.errors, MOST_COMPLAINTS).unwrap_or_default();
        Err(Trouble::Program { name, said: complaint(&errors, &status) })
    }
}

impl Write for Packer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.bytes {
            Some(pipe) => pipe.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.bytes.as_mut().map_or(Ok(()), Write::flush)
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::tests::Place;
    use super::*;

    fn packed(place: &Place, compression: Compression, bytes: &[u8]) -> std::path::PathBuf {
        let path = place.0.join(compression.suffix());
        let mut packer = Packer::new(compression, File::create(&path).unwrap(), &Watch::default()).unwrap();
        packer.write_all(bytes).unwrap();
        packer.finish().unwrap();
        path
    }

    fn unpacked(path: &Path) -> Result<Vec<u8>, Trouble> {
        let mut unpacker = Unpacker::open(path, &Watch::default())?;
        let mut bytes = Vec::new();
        unpacker.read_to_end(&mut bytes).unwrap();
        unpacker.finish().map(|()| bytes)
    }

    #[test]
    fn there_and_back() {
        let place = Place::new();
        let bytes: Vec<u8> = (0..3_000_000_u32).flat_map(|number| number.to_le_bytes()).collect();
        for compression in [Compression::Zstd, Compression::Xz] {
            let path = packed(&place, compression, &bytes);
            assert!(unpacked(&path).unwrap() == bytes);
            let packed = std::fs::read(&path).unwrap();
            assert!(packed.len() < bytes.len());
            let cut = |length: usize| {
                podsec_sys::file::replace(&path, &packed[..length], 0o600).unwrap();
                unpacked(&path)
            };
            assert!(matches!(cut(packed.len() - 1), Err(Trouble::Refused(_))));
            assert!(matches!(cut(packed.len() / 2), Err(Trouble::Refused(_))));
        }
        let plain = place.0.join("plain");
        podsec_sys::file::replace(&plain, &bytes, 0o600).unwrap();
        assert!(unpacked(&plain).unwrap() == bytes);
        assert!(unpacked(&place.0).is_err() && unpacked(&place.0.join("nothing")).is_err());
    }

    /// Both ask for much memory before the first byte.
    #[test]
    fn windows_have_an_end() {
        let place = Place::new();
        let path = place.0.join("bomb");
        // A frame with a window of 2 GiB: descriptor 0, window exponent 21, then one empty last block.
        let zstd = [&ZSTD[..], &[0, 21 << 3, 1, 0, 0]].concat();
        podsec_sys::file::replace(&path, &zstd, 0o600).unwrap();
        assert!(matches!(unpacked(&path), Err(Trouble::Refused(said)) if said.contains("zstd")));
        // By xz itself, with a dictionary of 512 MiB.
        let mut command = program("xz", &[]).unwrap();
        let plain = place.0.join("plain");
        podsec_sys::file::replace(&plain, b"a few bytes", 0o600).unwrap();
        command.args(["-q", "-c", "--lzma2=preset=0,dict=512MiB"]);
        command.stdin(File::open(&plain).unwrap()).stdout(File::create(&path).unwrap());
        assert!(command.status().unwrap().success());
        assert!(matches!(unpacked(&path), Err(Trouble::Refused(said)) if said.contains("xz")));
    }
}
