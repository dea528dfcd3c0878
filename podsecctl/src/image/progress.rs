//! How far something is: a bar on a terminal, otherwise a line for each thing that begins; nothing for programs.

use crate::output::{Output, aside};
use podsec_sys::terminal::size as size_of;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Between two looks of the bar.
const OFTEN: Duration = Duration::from_millis(100);
const WIDTH: u64 = 20;

/// Shows it, on stderr.
#[derive(Debug)]
pub struct Progress {
    is_terminal: bool,
    is_wanted: bool,
    drawn: Option<Instant>,
    shown: usize,
}

impl Progress {
    #[must_use]
    pub fn new(output: &Output) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { is_terminal, is_wanted: !output.is_json(), drawn: None, shown: 0 }
    }

    /// Something begins.
    pub fn begin(&mut self, what: &str) {
        if self.is_wanted && !self.is_terminal {
            aside(what);
        }
        self.drawn = None;
        self.draw(what, 0, None);
    }

    /// So many bytes of it are done, of so many, where that is known.
    pub fn draw(&mut self, what: &str, done: u64, total: Option<u64>) {
        let is_due = self.drawn.is_none_or(|drawn| drawn.elapsed() >= OFTEN);
        if self.is_wanted && self.is_terminal && is_due {
            // A line that is wrapped could not be written over.
            let size = size_of(&std::io::stderr()).ok().filter(|&(_, columns)| columns > 1);
            let columns = size.map_or(80, |(_, columns)| usize::from(columns));
            let text: String = line(what, done, total).chars().take(columns.saturating_sub(1)).collect();
            put(&format!("\r{text:<0$}", self.shown));
            self.shown = text.chars().count();
            self.drawn = Some(Instant::now());
        }
    }

    /// Leaves the terminal as it was, for what is printed next.
    pub fn clear(&mut self) {
        if self.shown > 0 {
            put(&format!("\r{:1$}\r", "", self.shown));
            self.shown = 0;
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn put(text: &str) {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

fn line(what: &str, done: u64, total: Option<u64>) -> String {
    match total.filter(|&total| total > 0) {
        Some(total) => {
            let done = done.min(total);
            let full = usize::try_from(u128::from(done) * u128::from(WIDTH) / u128::from(total)).unwrap_or(0);
            let (full, free) = ("#".repeat(full), ".".repeat(20_usize.saturating_sub(full)));
            format!("[{full}{free}] {} of {}  {what}", size(done), size(total))
        }
        None if done == 0 => what.to_owned(),
        None => format!("{}  {what}", size(done)),
    }
}

/// `12.3 MiB`
#[must_use]
pub fn size(bytes: u64) -> String {
    let mut unit = 1_u64;
    for name in ["B", "KiB", "MiB", "GiB"] {
        if bytes / unit < 1024 {
            let tenths = u128::from(bytes) * 10 / u128::from(unit);
            return match unit {
                1 => format!("{bytes} {name}"),
                _ => format!("{}.{} {name}", tenths / 10, tenths % 10),
            };
        }
        unit *= 1024;
    }
    format!("{} TiB", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(
            [0, 1023, 1024, 12_900_000, 5 << 30, 3 << 40].map(size),
            ["0 B", "1023 B", "1.0 KiB", "12.3 MiB", "5.0 GiB", "3 TiB"]
        );
        assert!(size(u64::MAX).ends_with(" TiB"));
    }

    #[test]
    fn lines() {
        assert_eq!(line("pause:3", 0, None), "pause:3");
        assert_eq!(line("pause:3", 2048, None), "2.0 KiB  pause:3");
        assert_eq!(line("x", 1024, Some(2048)), "[##########..........] 1.0 KiB of 2.0 KiB  x");
        assert_eq!(line("x", 9, Some(3)), "[####################] 3 B of 3 B  x");
    }
}
