//! The caller's terminal in raw mode, and its way back, whatever ends the program: an error and a return drop the
//! guard, a panic runs its hook (release builds abort, so nothing is dropped), and the signals that would end the
//! program are answered by [`super::Session`] with a return.

use podsec_sys::terminal::RawMode;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, Once, PoisonError};

/// One a process, where the panic hook finds it.
static TERMINAL: Mutex<Option<RawMode>> = Mutex::new(None);

/// Raw mode until this is dropped.
#[derive(Debug)]
pub struct Raw(());

impl Raw {
    /// # Errors
    /// tcsetattr(3)
    pub fn enter(terminal: &impl AsFd) -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let usual = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                // The message, too, is only readable on a cooked terminal.
                if let Ok(mut held) = TERMINAL.try_lock() {
                    drop(held.take());
                }
                usual(panic);
            }));
        });
        let raw = RawMode::enter(terminal)?;
        *TERMINAL.lock().unwrap_or_else(PoisonError::into_inner) = Some(raw);
        Ok(Self(()))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        drop(TERMINAL.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podsec_sys::nix::sys::termios::{LocalFlags, tcgetattr};

    #[test]
    fn comes_back_on_return_and_on_panic() {
        let (_leader, follower) = podsec_sys::terminal::open(24, 80).unwrap();
        let is_raw = || !tcgetattr(&follower).unwrap().local_flags.contains(LocalFlags::ICANON);
        let raw = Raw::enter(&follower).unwrap();
        assert!(is_raw());
        drop(raw);
        assert!(!is_raw());
        // The hook alone, as where a panic aborts: the guard is still held when it is looked at.
        let raw = Raw::enter(&follower).unwrap();
        let panicked = std::thread::spawn(|| panic!("for the hook")).join();
        assert!(panicked.is_err() && !is_raw());
        drop(raw);
    }
}
