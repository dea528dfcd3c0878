//! Pseudo-terminals (pty(7)) and the mode of the caller's own.

use nix::pty::Winsize;
use nix::sys::termios::{self, SetArg, Termios};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

/// `/dev` of the mount namespace that this process starts in, held open: after joining another one the path leads
/// elsewhere, to what somebody else may have mounted there.
#[derive(Debug)]
pub struct Devices(OwnedFd);

impl Devices {
    /// # Errors
    /// open(2)
    pub fn open() -> io::Result<Self> {
        Ok(Self(File::open("/dev")?.into()))
    }
}

/// As [`open_in`] the `/dev` of this process's own mount namespace.
///
/// # Errors
/// as there
pub fn open(rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    open_in(&Devices::open()?, rows, columns)
}

/// A new terminal (pts(4)): its leader, and its follower opened through the leader (`TIOCGPTPEER`), so that no path that
/// somebody else may have mounted over is walked (CVE-2025-52565).
///
/// # Errors
/// open(2), ioctl_tty(2)
pub fn open_in(devices: &Devices, rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    use nix::fcntl::{OFlag, openat};
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let leader = openat(&devices.0, "ptmx", flags, nix::sys::stat::Mode::empty())?;
    let unlocked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    if unsafe { libc::ioctl(leader.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: TIOCGPTPEER takes open(2) flags and returns a descriptor.
    let fd = unsafe { libc::ioctl(leader.as_raw_fd(), libc::TIOCGPTPEER, flags.bits()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it for us.
    let follower = unsafe { OwnedFd::from_raw_fd(fd) };
    resize(&leader, rows, columns)?;
    Ok((leader, follower))
}

/// `TIOCSWINSZ`: the kernel tells the foreground job by SIGWINCH.
///
/// # Errors
/// ioctl(2)
pub fn resize(terminal: &impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// `TIOCGWINSZ`: rows and columns.
///
/// # Errors
/// ioctl(2); `ENOTTY`
pub fn size(terminal: &impl AsFd) -> io::Result<(u16, u16)> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes one winsize.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    if result == 0 { Ok((size.ws_row, size.ws_col)) } else { Err(io::Error::last_os_error()) }
}

/// Makes it the controlling terminal of this session (`TIOCSCTTY`), of which this process is the leader.
///
/// # Errors
/// ioctl(2)
pub fn control(follower: &impl AsFd) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes a number; 0 steals from nobody.
    let result = unsafe { libc::ioctl(follower.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes these descriptors 0, 1 and 2.
///
/// # Errors
/// dup2(2)
pub fn become_stdio(stdin: &impl AsFd, stdout: &impl AsFd, stderr: &impl AsFd) -> io::Result<()> {
    // From high numbers first: one of the three may sit at 0, 1 or 2, and dup2 would close another's source.
    let copy = |fd: &dyn AsFdDyn| nix::fcntl::fcntl(fd.fd(), nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(3));
    let high = [copy(stdin)?, copy(stdout)?, copy(stderr)?];
    for (target, source) in (0..).zip(high) {
        // SAFETY: dup2 replaces our own standard descriptors; nobody holds them as OwnedFd.
        if unsafe { libc::dup2(source, target) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the copy was made above, and is known to nobody else.
        drop(unsafe { OwnedFd::from_raw_fd(source) });
    }
    Ok(())
}

trait AsFdDyn {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_>;
}

impl<T: AsFd> AsFdDyn for T {
    fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.as_fd()
    }
}

/// The caller's terminal in raw mode (termios(3)) until this is dropped.
#[derive(Debug)]
pub struct RawMode {
    terminal: OwnedFd,
    before: Termios,
}

impl RawMode {
    /// # Errors
    /// tcgetattr(3), tcsetattr(3); `ENOTTY`
    pub fn enter(terminal: &impl AsFd) -> io::Result<Self> {
        let terminal = terminal.as_fd().try_clone_to_owned()?;
        let before = termios::tcgetattr(&terminal)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&terminal, SetArg::TCSADRAIN, &raw)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _ = termios::tcsetattr(&self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_of_ends() {
        let (leader, follower) = open(24, 80).unwrap();
        assert_eq!(size(&follower).unwrap(), (24, 80));
        resize(&leader, 50, 132).unwrap();
        assert_eq!(size(&follower).unwrap(), (50, 132));
        let before = termios::tcgetattr(&follower).unwrap();
        let raw = RawMode::enter(&follower).unwrap();
        assert_ne!(termios::tcgetattr(&follower).unwrap().local_flags, before.local_flags);
        drop(raw);
        assert_eq!(termios::tcgetattr(&follower).unwrap().local_flags, before.local_flags);
    }
}
