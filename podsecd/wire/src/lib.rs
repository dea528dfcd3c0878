//! What podsec's processes say to each other: postcard (postcard.jamesmunns.com/wire-format) in one packet each,
//! with descriptors beside it.
//!
//! Owns the messages between gate, front and worker ([`messages`]) and between client and worker
//! ([`session`]), and the [`Channel`] that carries both. Every field is a validated type of `podsec-policy`, so a
//! packet that decodes is a request that is well-formed. Must not decide or do anything.

#![forbid(unsafe_code)]

pub mod messages;
pub mod session;

use podsec_sys::socket;
use serde::{Serialize, de::DeserializeOwned};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use zeroize::Zeroize as _;

/// Most bytes of a packet: an `Enter` of [`podsec_policy::enter::MAX_BYTES`] and its wrapping. Below the smallest
/// usual socket buffer (`net.core.wmem_default`, 212992), since a packet must fit there whole.
pub const MAX_PACKET: usize = 160 * 1024;

/// Why a packet could not be sent or taken.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket.
    #[error("the other side of a podsec socket: {0}")]
    Io(#[from] io::Error),
    /// Not one of our messages.
    #[error("a packet that is not of this version of podsec: {0}")]
    Form(#[from] postcard::Error),
    /// More than [`MAX_PACKET`].
    #[error("a packet of {0} bytes is too long")]
    Length(usize),
}

impl WireError {
    /// On a non-blocking channel: not now.
    #[must_use]
    pub fn would_block(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// The other side has ended, perhaps before it took what was sent.
    #[must_use]
    pub fn is_end(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionReset};
        matches!(self, Self::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset))
    }
}

/// One end of a packet socket that carries messages.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two ends.
    ///
    /// # Errors
    /// socketpair(2)
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socket::pair()?;
        Ok((Self(a), Self(b)))
    }

    /// Sends a message and descriptors.
    ///
    /// # Errors
    /// [`WireError`]
    pub fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> Result<(), WireError> {
        // The whole room at once: a buffer that grows leaves its bytes behind where it was.
        let length = postcard::experimental::serialized_size(message)?;
        if length > MAX_PACKET {
            return Err(WireError::Length(length));
        }
        self.send_by(&mut vec![0; length], message, descriptors)
    }

    fn send_by(
        &self,
        buffer: &mut [u8],
        message: &impl Serialize,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), WireError> {
        let sent = match postcard::to_slice(message, buffer) {
            Ok(bytes) => socket::send(&self.0, bytes, descriptors).map_err(Into::into),
            Err(error) => Err(error.into()),
        };
        // it may have held a password
        buffer.zeroize();
        sent
    }

    /// Takes one message with its descriptors; `None` at the end.
    ///
    /// # Errors
    /// [`WireError`]
    pub fn receive<T: DeserializeOwned>(&self) -> Result<Option<(T, Vec<OwnedFd>)>, WireError> {
        // Most packets are small; the long ones are asked for their length first.
        let mut short = [0; 4096];
        let mut long;
        let length = socket::next_length(&self.0)?;
        if length > MAX_PACKET {
            return Err(WireError::Length(length));
        }
        let buffer = match short.get_mut(..length) {
            Some(buffer) => buffer,
            None => {
                long = vec![0; length];
                &mut long[..]
            }
        };
        if length == 0 {
            return Ok(None);
        }
        self.receive_by(buffer).map(Some)
    }

    fn receive_by<T: DeserializeOwned>(&self, buffer: &mut [u8]) -> Result<(T, Vec<OwnedFd>), WireError> {
        let received = match socket::receive(&self.0, buffer) {
            Ok((_, descriptors)) => {
                postcard::from_bytes(buffer).map(|message| (message, descriptors)).map_err(Into::into)
            }
            Err(error) => Err(error.into()),
        };
        // it may have held a password
        buffer.zeroize();
        received
    }

    /// Waits for a message no longer than `deadline`.
    ///
    /// # Errors
    /// [`WireError`]; `TimedOut`
    pub fn receive_within<T: DeserializeOwned>(
        &self,
        deadline: std::time::Duration,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, WireError> {
        if !podsec_sys::process::wait_readable(&[self.as_fd()], Some(deadline))? {
            return Err(io::Error::from(io::ErrorKind::TimedOut).into());
        }
        self.receive()
    }

    /// See [`socket::set_nonblocking`].
    ///
    /// # Errors
    /// fcntl(2)
    pub fn set_nonblocking(&self) -> io::Result<()> {
        socket::set_nonblocking(&self.0, true)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::os::fd::AsRawFd for Channel {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.0.as_raw_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{FromFront, ToFront};
    use podsec_policy::enter::{Enter, MAX_BYTES, Program};
    use podsec_policy::{Operation, Reason};
    use proptest::prelude::*;

    #[test]
    fn the_longest_request_fits() {
        let (a, b) = Channel::pair().unwrap();
        let argv = vec![b"a".to_vec(), vec![b'x'; MAX_BYTES - 3]];
        let enter = Enter::new(Program::Command(argv), None, vec![], None).unwrap();
        let request = FromFront::Request { id: 1, operation: Operation::Enter(Box::new(enter)) };
        a.send(&request, &[]).unwrap();
        assert_eq!(b.receive::<FromFront>().unwrap().unwrap().0, request);
        drop(a);
        assert!(b.receive::<FromFront>().unwrap().is_none());
    }

    #[test]
    fn too_long_is_refused_on_both_sides() {
        let (a, b) = Channel::pair().unwrap();
        let long = vec![0_u8; MAX_PACKET + 1];
        assert!(matches!(a.send(&long, &[]), Err(WireError::Length(_))));
        socket::send(&a, &long, &[]).unwrap();
        assert!(matches!(b.receive::<FromFront>(), Err(WireError::Length(_))));
    }

    #[test]
    fn nothing_of_a_frame_stays_in_its_buffer() {
        let (a, b) = Channel::pair().unwrap();
        let message = "hunter2 hunter2".to_owned();
        let (mut exact, mut short, mut long) = ([0xff; 16], [0xff; 8], [0xff; 99]);
        a.send_by(&mut exact, &message, &[]).unwrap();
        a.send_by(&mut long, &message, &[]).unwrap();
        assert!(matches!(a.send_by(&mut short, &message, &[]), Err(WireError::Form(_))));
        assert_eq!((exact, short, long), ([0; 16], [0; 8], [0; 99]));

        (exact, short) = ([0xff; 16], [0xff; 8]);
        assert_eq!(b.receive_by::<String>(&mut exact).unwrap().0, message);
        assert!(matches!(b.receive_by::<String>(&mut short), Err(WireError::Io(_))));
        assert_eq!((exact, short), ([0; 16], [0; 8]));

        exact = [0xff; 16];
        a.send(&message, &[]).unwrap();
        assert!(matches!(b.receive_by::<FromFront>(&mut exact), Err(WireError::Form(_))));
        assert_eq!(exact, [0; 16]);

        drop(b);
        exact = [0xff; 16];
        assert!(a.send_by(&mut exact, &message, &[]).unwrap_err().is_end());
        assert_eq!(exact, [0; 16]);
    }

    proptest! {
        #[test]
        fn reading_garbage_is_an_error_and_no_more(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
            let _ = postcard::from_bytes::<FromFront>(&bytes);
            let _ = postcard::from_bytes::<crate::session::FromClient>(&bytes);
        }

        #[test]
        fn refusals_travel(id in any::<u32>(), index in 0..Reason::ALL.len()) {
            let message = ToFront::Refused { id, reason: Reason::ALL[index] };
            let bytes = postcard::to_stdvec(&message).unwrap();
            prop_assert_eq!(postcard::from_bytes::<ToFront>(&bytes).unwrap(), message);
        }
    }
}
