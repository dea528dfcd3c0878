//! tar(5), as little of it as an archive of images needs: plain files and directories, in the format of POSIX.1-1988 (ustar)
//! and GNU tar, read strictly and written so that the same files give the same bytes.
//!
//! Must not know of links, devices, sparse files or long names: those are refused by their kind, before a byte of them
//! is looked at.

use std::io::{self, Read, Write};

const BLOCK: usize = 512;
/// After the end tar(1) fills up its last record, 20 blocks by default; `-b` makes it larger.
const MOST_PADDING: u64 = 1 << 20;
/// Of the records of an extended header (pax(1)).
const MOST_EXTENDED: u64 = 4096;
/// The largest number that fits into the 11 octal digits of a size.
const MOST_OCTAL: u64 = 0o777_7777_7777;

/// Why it is none that is read here.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub enum TarError {
    #[error("{0}")]
    Read(#[from] io::Error),
    #[error("it ends in the middle")]
    Short,
    #[error("it is no tar: {0}")]
    Header(&'static str),
    #[error("{name:?} is {kind}")]
    Kind { name: String, kind: &'static str },
    #[error("more follows after its end")]
    Trailing,
}

/// A file or directory in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As it is written there.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Has no bytes.
    pub is_directory: bool,
}

/// Reads one. The bytes of the entry that [`Reader::next`] gave last come by [`Read`].
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    left: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
    pub fn new(from: R) -> Self {
        Self { from, left: 0, padding: 0 }
    }

    /// What it read from.
    pub fn into_inner(self) -> R {
        self.from
    }

    /// The next entry; what was not read of the one before is passed over.
    ///
    /// # Errors
    /// [`TarError`]
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut has_times = false;
        loop {
            self.skip()?;
            let Some(header) = self.block()? else { return Err(TarError::Short) };
            if header.iter().all(|&byte| byte == 0) {
                self.end()?;
                return Ok(None);
            }
            let header = Header::new(&header)?;
            self.left = header.entry.size;
            self.padding = header.entry.size.next_multiple_of(BLOCK as u64) - header.entry.size;
            match header.kind {
                b'0' | 0 => return Ok(Some(header.entry)),
                b'5' if header.entry.size == 0 => return Ok(Some(header.entry)),
                // Python and bsdtar write times of less than a second so.
                b'x' if !has_times => {
                    self.only_times(header.entry.name)?;
                    has_times = true;
                }
                kind => return Err(TarError::Kind { name: header.entry.name, kind: kind_name(kind) }),
            }
        }
    }

    /// `LENGTH KEY=VALUE\n`, again and again. A path, a size or a sparse map in it would make the entry another one than
    /// its header says.
    fn only_times(&mut self, name: String) -> Result<(), TarError> {
        let refused =
            || TarError::Kind { name, kind: "described by an extended header that says more than times" };
        let mut text = Vec::new();
        if self.left > MOST_EXTENDED {
            return Err(refused());
        }
        self.read_to_end(&mut text)?;
        let Ok(text) = String::from_utf8(text) else { return Err(refused()) };
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let record =
                rest.split_once(' ').and_then(|(length, _)| rest.split_at_checked(length.parse().ok()?));
            let Some((record, after)) = record.filter(|(record, _)| !record.is_empty()) else {
                return Err(refused());
            };
            let said = record.strip_suffix('\n').and_then(|record| record.split_once(' ')?.1.split_once('='));
            if !said.is_some_and(|(key, _)| ["mtime", "atime", "ctime"].contains(&key)) {
                return Err(refused());
            }
            rest = after;
        }
        Ok(())
    }

    fn skip(&mut self) -> Result<(), TarError> {
        let count = self.left + self.padding;
        let skipped = io::copy(&mut (&mut self.from).take(count), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped == count { Ok(()) } else { Err(TarError::Short) }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        match self.from.read_exact(&mut block) {
            Ok(()) => Ok(Some(block)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Zeros, and not many. Read to their end, so that whoever unpacks sees its own checksum.
    fn end(&mut self) -> Result<(), TarError> {
        let mut padding = 0;
        let mut some = [0; 8 * 1024];
        loop {
            let count = match self.from.read(&mut some) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            padding += count as u64;
            if padding > MOST_PADDING || some.iter().take(count).any(|&byte| byte != 0) {
                return Err(TarError::Trailing);
            }
        }
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&mut self.from).take(self.left).read(buffer)?;
        if count == 0 && self.left > 0 && !buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, TarError::Short.to_string()));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

struct Header {
    entry: Entry,
    kind: u8,
}

impl Header {
    fn new(block: &[u8; BLOCK]) -> Result<Self, TarError> {
        let field = |from: usize, length: usize| block.get(from..from + length).unwrap_or_default();
        let bad = TarError::Header;
        // The sum of all bytes, its own taken for blanks.
        let sum: u64 = block
            .iter()
            .enumerate()
            .map(|(index, &byte)| u64::from(if (148..156).contains(&index) { b' ' } else { byte }))
            .sum();
        if octal(field(148, 8)) != Some(sum) {
            return Err(bad("a checksum is wrong"));
        }
        let prefix = match field(257, 8) {
            b"ustar\x0000" => text(field(345, 155)),
            // GNU has other things there.
            b"ustar  \0" => Some(""),
            _ => return Err(bad("a header is neither POSIX's nor GNU's")),
        };
        let (Some(prefix), Some(name)) = (prefix, text(field(0, 100))) else {
            return Err(bad("a name is not UTF-8"));
        };
        let name = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let size = number(field(124, 12)).filter(|&size| size <= i64::MAX.cast_unsigned());
        let size = size.ok_or(bad("a size is no number"))?;
        let kind = block.get(156).copied().unwrap_or_default();
        Ok(Self { entry: Entry { name, size, is_directory: kind == b'5' }, kind })
    }
}

fn kind_name(kind: u8) -> &'static str {
    match kind {
        b'1' => "a hard link",
        b'2' => "a symbolic link",
        b'3' | b'4' => "a device",
        b'5' => "a directory with contents",
        b'6' => "a FIFO",
        b'x' | b'g' => "an extended header",
        b'L' | b'K' => "a name that is too long",
        b'S' => "a sparse file",
        _ => "of an unknown kind",
    }
}

/// Up to the first NUL.
fn text(field: &[u8]) -> Option<&str> {
    std::str::from_utf8(field.split(|&byte| byte == 0).next().unwrap_or_default()).ok()
}

/// Octal digits, or, after a first byte of 0x80, a large number as it is (GNU tar).
fn number(field: &[u8]) -> Option<u64> {
    match field.split_first() {
        Some((0x80, digits)) => digits.iter().try_fold(0_u64, |number, &digit| {
            number.checked_mul(256).map(|number| number + u64::from(digit))
        }),
        _ => octal(field),
    }
}

fn octal(field: &[u8]) -> Option<u64> {
    let digits = text(field)?.trim_matches(' ');
    let is_octal = !digits.is_empty() && digits.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
    is_octal.then(|| u64::from_str_radix(digits, 8).ok()).flatten()
}

/// Writes one: everything is root's, and of 1970-01-01.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
}

impl<W: Write> Writer<W> {
    pub fn new(to: W) -> Self {
        Self { to }
    }

    /// # Errors
    /// write(2), and `InvalidInput` for a name of more than 100 bytes
    pub fn directory(&mut self, name: &str) -> io::Result<()> {
        self.to.write_all(&header(name, 0, b'5', b"0000755")?)
    }

    /// A file of that size, whose bytes are read.
    ///
    /// # Errors
    /// as [`Writer::directory`]; `UnexpectedEof` where there are fewer
    pub fn file(&mut self, name: &str, size: u64, bytes: impl Read) -> io::Result<()> {
        self.to.write_all(&header(name, size, b'0', b"0000644")?)?;
        if io::copy(&mut bytes.take(size), &mut self.to)? != size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{name} became shorter")));
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        io::copy(&mut io::repeat(0).take(padding), &mut self.to).map(drop)
    }

    /// The end: two blocks of zeros.
    ///
    /// # Errors
    /// write(2)
    pub fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&[0; 2 * BLOCK])?;
        Ok(self.to)
    }
}

fn header(name: &str, size: u64, kind: u8, mode: &[u8]) -> io::Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let mut put = |from: usize, bytes: &[u8]| {
        if let Some(field) = block.get_mut(from..from + bytes.len()) {
            field.copy_from_slice(bytes);
        }
    };
    if name.len() > 100 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is too long for a tar")));
    }
    put(0, name.as_bytes());
    put(100, mode);
    put(108, b"0000000");
    put(116, b"0000000");
    if size <= MOST_OCTAL {
        put(124, format!("{size:011o}").as_bytes());
    } else {
        put(124, &[0x80]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(148, b"        ");
    let sum: u64 = block.iter().map(|&byte| u64::from(byte)).sum();
    if let Some(field) = block.get_mut(148..155) {
        field.copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    Ok(block)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A header of any kind, with nothing checked.
    pub fn raw(name: &str, size: u64, kind: u8) -> Vec<u8> {
        header(name, size, kind, b"0000644").unwrap().to_vec()
    }

    /// A header with other bytes somewhere, and the checksum set right.
    pub fn edited(mut block: Vec<u8>, from: usize, bytes: &[u8]) -> Vec<u8> {
        block[from..from + bytes.len()].copy_from_slice(bytes);
        block[148..156].copy_from_slice(b"        ");
        let sum: u64 = block[..BLOCK].iter().map(|&byte| u64::from(byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }

    pub fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut padded = bytes.to_vec();
        padded.resize(bytes.len().next_multiple_of(BLOCK), 0);
        padded
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, TarError> {
        let mut reader = Reader::new(bytes);
        let mut found = Vec::new();
        while let Some(entry) = reader.next()? {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes)?;
            found.push((entry, bytes));
        }
        Ok(found)
    }

    fn written() -> Vec<u8> {
        let mut writer = Writer::new(Vec::new());
        writer.directory("amd64/").unwrap();
        writer.file("amd64/a", 3, &b"abc"[..]).unwrap();
        writer.file("amd64/b", 512, &[7; 512][..]).unwrap();
        writer.file("amd64/c", 0, io::empty()).unwrap();
        writer.finish().unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let found = read(&written()).unwrap();
        let entry = |name: &str, size, is_directory| Entry { name: name.into(), size, is_directory };
        assert_eq!(
            found,
            [
                (entry("amd64/", 0, true), vec![]),
                (entry("amd64/a", 3, false), b"abc".to_vec()),
                (entry("amd64/b", 512, false), vec![7; 512]),
                (entry("amd64/c", 0, false), vec![]),
            ]
        );
        assert!(Writer::new(Vec::new()).file("x", 4, &b"abc"[..]).is_err());
        assert!(Writer::new(Vec::new()).directory(&"x".repeat(101)).is_err());
    }

    /// By a tar that shares no code with this one.
    #[test]
    fn tar_reads_and_writes_the_same() {
        let Some(tar) = podsec_sys::program::find("tar") else { return println!("no tar here") };
        let directory = std::env::temp_dir().join(format!("podsec-tar-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let run = |arguments: &[&str]| {
            let output =
                std::process::Command::new(&tar).args(arguments).current_dir(&directory).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            output.stdout
        };
        podsec_sys::file::replace(&directory.join("x.tar"), &written(), 0o600).unwrap();
        let listed = String::from_utf8(run(&["--numeric-owner", "-tvf", "x.tar"])).unwrap();
        assert!(listed.contains("drwxr-xr-x 0/0") && listed.contains("amd64/b"), "{listed}");
        run(&["-xf", "x.tar"]);
        assert_eq!(std::fs::read(directory.join("amd64/a")).unwrap(), b"abc");
        for format in ["ustar", "gnu", "posix"] {
            let archive = run(&["-c", "--sort=name", "--format", format, "amd64"]);
            assert_eq!(read(&archive).unwrap(), read(&written()).unwrap(), "{format}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn large_sizes() {
        for size in [MOST_OCTAL, MOST_OCTAL + 1, i64::MAX.cast_unsigned()] {
            let block: [u8; BLOCK] = raw("a", size, b'0').try_into().unwrap();
            assert_eq!(Header::new(&block).unwrap().entry.size, size);
        }
        for bad in [
            &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..],
            b"-0000000001\0",
            b"0000000009\0",
            &[0; 12],
        ] {
            let block: [u8; BLOCK] = edited(raw("a", 0, b'0'), 124, bad).try_into().unwrap();
            assert!(Header::new(&block).is_err(), "{bad:?}");
        }
        let block: [u8; BLOCK] =
            edited(raw("a", 0, b'0'), 124, b"\x80\0\0\0\x80\0\0\0\0\0\0\0").try_into().unwrap();
        assert!(Header::new(&block).is_err(), "more than an i64");
    }

    #[test]
    fn kinds_that_are_refused() {
        for (kind, what) in [
            (b'1', "a hard link"),
            (b'2', "a symbolic link"),
            (b'3', "a device"),
            (b'4', "a device"),
            (b'6', "a FIFO"),
            (b'7', "of an unknown kind"),
            (b'S', "a sparse file"),
            (b'L', "a name that is too long"),
            (b'g', "an extended header"),
            (b'V', "of an unknown kind"),
        ] {
            let error = read(&raw("a", 0, kind)).unwrap_err().to_string();
            assert_eq!(error, format!("\"a\" is {what}"));
        }
        assert!(read(&[raw("a", 512, b'5'), vec![0; 512]].concat()).is_err());
    }

    #[test]
    fn extended_headers_say_times_only() {
        let with = |records: &str| {
            let header = raw("PaxHeaders/a", records.len() as u64, b'x');
            read(&[header, padded(records.as_bytes()), raw("a", 0, b'0'), vec![0; 1024]].concat())
        };
        assert_eq!(with("22 mtime=1700000000.5\n").unwrap().len(), 1);
        assert_eq!(with("22 mtime=1700000000.5\n11 atime=1\n").unwrap().len(), 1);
        for bad in [
            "16 path=../../x\n",
            "10 size=9\n",
            "22 GNU.sparse.major=1\n",
            "14 linkpath=x\n",
            "5 mtime=1\n",
            "99 mtime=1\n",
            "0 mtime=1\n",
            "mtime=1\n",
            "9 mtime=1",
            &"11 atime=1\n".repeat(1000),
        ] {
            assert!(matches!(with(bad), Err(TarError::Kind { .. })), "{bad}");
        }
        let twice = [raw("x", 0, b'x'), raw("x", 0, b'x')].concat();
        assert!(matches!(read(&twice), Err(TarError::Kind { .. })));
    }

    #[test]
    fn damage_shows() {
        let good = written();
        for end in 0..good.len() - 1024 {
            assert!(read(&good[..end]).is_err(), "cut at {end}");
        }
        for (index, bit) in [(0, 1), (124, 1), (148, 1), (156, 1), (257, 1), (300, 1)] {
            let mut bad = good.clone();
            bad[index] ^= bit;
            assert!(read(&bad).is_err(), "byte {index}");
        }
        assert!(matches!(read(&[&good[..], b"x"].concat()), Err(TarError::Trailing)));
        assert!(read(&[&good[..], &[0; 9 * 1024]].concat()).is_ok());
        assert!(matches!(read(&[&good[..], &vec![0; 1 << 20]].concat()), Err(TarError::Trailing)));
        assert!(matches!(read(b"not a tar"), Err(TarError::Short)));
        assert!(matches!(read(&[b'x'; 1024]), Err(TarError::Header(_))));
    }

    #[test]
    fn an_entry_that_is_not_read_is_passed_over() {
        let written = written();
        let mut reader = Reader::new(&written[..]);
        let mut names = Vec::new();
        while let Some(entry) = reader.next().unwrap() {
            names.push(entry.name);
        }
        assert_eq!(names, ["amd64/", "amd64/a", "amd64/b", "amd64/c"]);
    }
}
