//! Copying between two descriptors as far as both are ready, so that one loop can serve several of them.

use podsec_sys::nix::fcntl::OFlag;
use podsec_sys::nix::poll::PollFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;

/// Also the most that is written at once: a terminal that says it is ready takes some, and would make us wait for
/// room for the rest.
const CHUNK: usize = 4096;

/// End of file, as typed (termios(3), `VEOF`).
const END_OF_FILE: u8 = 4;

/// One direction.
#[derive(Debug)]
pub struct Pump {
    source: Option<File>,
    sink: Option<File>,
    buffer: Vec<u8>,
    /// Of the buffer.
    written: usize,
    /// At the source's end, type end-of-file into the sink, a terminal.
    types_end: bool,
    at_line_start: bool,
    /// What broke the sink.
    broken: Option<io::Error>,
}

impl Pump {
    /// From one to the other; both of them are closed as soon as the other is gone.
    #[must_use]
    pub fn new(source: File, sink: File) -> Self {
        Self {
            source: Some(source),
            sink: Some(sink),
            buffer: Vec::with_capacity(CHUNK),
            written: 0,
            types_end: false,
            at_line_start: true,
            broken: None,
        }
    }

    /// The same, into a terminal that must be told of the source's end by a character.
    #[must_use]
    pub fn typing_end(source: File, sink: File) -> Self {
        Self { types_end: true, ..Self::new(source, sink) }
    }

    /// What it waits for; `None` when it is done.
    #[must_use]
    pub fn waits_for(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match (&self.source, &self.sink) {
            (_, Some(sink)) if self.holds_some() => Some((sink.as_fd(), PollFlags::POLLOUT)),
            (Some(source), Some(_)) => Some((source.as_fd(), PollFlags::POLLIN)),
            _ => None,
        }
    }

    /// Read and not yet written.
    #[must_use]
    pub fn holds_some(&self) -> bool {
        self.written < self.buffer.len()
    }

    /// Was the sink lost before the source's end? Told once.
    pub fn take_broken(&mut self) -> Option<io::Error> {
        self.broken.take()
    }

    /// One read or one write, after poll(2) said that it is possible.
    pub fn step(&mut self) {
        if self.holds_some() { self.write() } else { self.read() }
    }

    fn read(&mut self) {
        let Some(source) = &mut self.source else { return };
        self.written = 0;
        self.buffer.resize(CHUNK, 0);
        let result = source.read(&mut self.buffer);
        self.buffer.truncate(*result.as_ref().unwrap_or(&0));
        match result {
            Ok(1..) => self.at_line_start = self.buffer.last() == Some(&b'\n'),
            Err(error) if is_for_later(&error) => {}
            // EIO: the other side of the terminal is gone.
            Ok(0) | Err(_) => {
                self.source = None;
                if self.types_end {
                    // In the middle of a line the first one only sends the line (termios(3)).
                    self.buffer.resize(if self.at_line_start { 1 } else { 2 }, END_OF_FILE);
                } else {
                    self.sink = None;
                }
            }
        }
    }

    fn write(&mut self) {
        let Some(sink) = &mut self.sink else { return };
        match sink.write(self.buffer.get(self.written..).unwrap_or_default()) {
            Ok(count) => self.written += count,
            Err(error) if is_for_later(&error) => {}
            Err(error) => {
                // Closing the source tells whoever writes there.
                (self.source, self.sink) = (None, None);
                self.broken = Some(error);
                self.buffer.clear();
            }
        }
        if self.source.is_none() && !self.holds_some() {
            self.sink = None;
        }
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A standard descriptor to read from or write to. A terminal can make a write wait for ever, so it needs
/// `O_NONBLOCK`; but that flag belongs to the open file, which the shell shares. So a terminal is opened anew; where
/// that is not allowed (it was somebody else's before su) it is used as it is. Anything else keeps its position in the
/// file, and does not wait for a [`CHUNK`] when poll(2) said so (pipe(7), `PIPE_BUF`).
///
/// # Errors
/// fcntl(2)
pub fn standard(fd: &(impl AsFd + IsTerminal), write: bool) -> io::Result<File> {
    let shared = || Ok(fd.as_fd().try_clone_to_owned()?.into());
    if !fd.is_terminal() {
        return shared();
    }
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let path = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
    let opened = OpenOptions::new().read(!write).write(write).custom_flags(flags.bits()).open(path);
    opened.or_else(|_| shared())
}

/// An end of a pipe of our own.
///
/// # Errors
/// fcntl(2)
pub fn nonblocking(fd: OwnedFd) -> io::Result<File> {
    podsec_sys::socket::set_nonblocking(&fd, true)?;
    Ok(fd.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_sys::nix::poll::{PollFd, PollTimeout, poll};

    fn pipe() -> (File, File) {
        let (reader, writer) = io::pipe().unwrap();
        (nonblocking(reader.into()).unwrap(), nonblocking(writer.into()).unwrap())
    }

    /// Steps as long as something is ready.
    fn settle(pump: &mut Pump) {
        while let Some((fd, flags)) = pump.waits_for() {
            if poll(&mut [PollFd::new(fd, flags)], PollTimeout::ZERO).unwrap() == 0 {
                return;
            }
            pump.step();
        }
    }

    fn read(file: &mut File) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = file.read_to_end(&mut bytes);
        bytes
    }

    #[test]
    fn copies_everything_and_closes() {
        let ((from, mut feed), (mut out, to)) = (pipe(), pipe());
        let mut pump = Pump::new(from, to);
        feed.write_all(&[7; 10_000]).unwrap();
        settle(&mut pump);
        assert_eq!(read(&mut out), [7; 10_000]);
        drop(feed);
        settle(&mut pump);
        assert!(pump.waits_for().is_none());
        assert_eq!(out.read(&mut [0; 1]).unwrap(), 0, "the sink is closed");
    }

    #[test]
    fn a_full_sink_makes_it_wait_and_nothing_is_lost() {
        let ((from, mut feed), (mut out, to)) = (pipe(), pipe());
        let mut pump = Pump::new(from, to);
        let (mut sent, mut got) = (0, 0);
        while sent < 300_000 {
            sent += feed.write(&vec![1; 50_000]).unwrap_or(0);
            settle(&mut pump);
            if pump.holds_some() {
                got += read(&mut out).len();
            }
        }
        drop(feed);
        while pump.waits_for().is_some() {
            settle(&mut pump);
            got += read(&mut out).len();
        }
        assert_eq!(got + read(&mut out).len(), sent);
    }

    #[test]
    fn a_broken_sink_closes_the_source() {
        let ((from, mut feed), (out, to)) = (pipe(), pipe());
        let mut pump = Pump::new(from, to);
        drop(out);
        feed.write_all(b"x").unwrap();
        settle(&mut pump);
        assert_eq!(pump.take_broken().unwrap().kind(), io::ErrorKind::BrokenPipe);
        assert!(pump.take_broken().is_none());
        assert_eq!(feed.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn types_the_end_into_a_terminal() {
        for (text, end) in [(&b""[..], 1), (b"line\n", 1), (b"part", 2)] {
            let ((from, mut feed), (mut out, to)) = (pipe(), pipe());
            let mut pump = Pump::typing_end(from, to);
            feed.write_all(text).unwrap();
            drop(feed);
            settle(&mut pump);
            assert_eq!(read(&mut out), [text, &vec![4; end]].concat());
        }
    }

    #[test]
    fn opening_anew_leaves_the_shared_flags_alone() {
        use podsec_sys::nix::fcntl::{FcntlArg, fcntl};
        let (_leader, follower) = podsec_sys::terminal::open(24, 80).unwrap();
        let own = standard(&follower, true).unwrap();
        let flags = |fd: BorrowedFd<'_>| OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL).unwrap());
        assert!(flags(own.as_fd()).contains(OFlag::O_NONBLOCK));
        assert!(!flags(follower.as_fd()).contains(OFlag::O_NONBLOCK));
    }
}
