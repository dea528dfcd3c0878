//! What goes to stdout: JSON for programs, aligned text for people, colour only where a person looks.
//!
//! Owns the escaping of it: text that came from podsecd passes [`clean`] before it is printed.

use crate::cli::Color;
use crate::failure::Failure;
use podsec_policy::audit::escape;
use std::io::{IsTerminal as _, Write as _};

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    json: bool,
    colour: bool,
}

/// What a text means, select graphic rendition of ECMA-48 §8.3.117.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// A heading.
    Bold,
    /// Less important.
    Dim,
    /// As it should be.
    Good,
    /// Look at this.
    Warn,
    /// Not as it should be.
    Bad,
}

/// What is done to something, in words.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// `published`
    pub done: &'static str,
    /// `publish`
    pub todo: &'static str,
    /// Behind the thing, where nothing was to do: `was published already`.
    pub nothing: &'static str,
}

impl Verb {
    /// What was done, or would be.
    #[must_use]
    pub fn sentence(&self, thing: &str, changed: bool, dry_run: bool) -> String {
        match (changed, dry_run) {
            (true, false) => format!("{} {thing}", self.done),
            (true, true) => format!("would {} {thing}", self.todo),
            (false, _) => format!("{thing} {}; nothing to do", self.nothing),
        }
    }
}

/// A line for a person on stderr, for himself. Not by `eprintln!`, which panics when nobody reads it.
pub fn aside(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

impl Output {
    /// By the options, the terminal and `NO_COLOR` (no-color.org).
    #[must_use]
    pub fn new(json: bool, color: Color) -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let colour = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
                std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb
            }
        };
        Self { json, colour: colour && !json }
    }

    /// Neither JSON nor colour.
    #[must_use]
    pub fn plain() -> Self {
        Self { json: false, colour: false }
    }

    /// Does a program read it?
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints one object, and a good end.
    ///
    /// # Errors
    /// write(2)
    pub fn object(&self, value: &serde_json::Value) -> Result<u8, Failure> {
        self.bytes(format!("{value}\n").as_bytes())
    }

    /// Prints, and a good end.
    ///
    /// # Errors
    /// write(2)
    pub fn bytes(&self, bytes: &[u8]) -> Result<u8, Failure> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Output)?;
        Ok(0)
    }

    /// Coloured, where that is wanted.
    #[must_use]
    pub fn paint(&self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let code = match style {
            Style::Bold => 1,
            Style::Dim => 2,
            Style::Good => 32,
            Style::Warn => 33,
            Style::Bad => 31,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Rows under a heading, columns as wide as their longest cell.
    #[must_use]
    pub fn table(&self, heading: &[&str], rows: &[Vec<String>]) -> String {
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| width_of(cell));
            cells.chain(heading.get(column).map(|text| text.len())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heading.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let pad =
                |cell: &str, width: usize| format!("{cell}{:1$}", "", width.saturating_sub(width_of(cell)));
            let padded: Vec<String> = cells.zip(&widths).map(|(cell, &width)| pad(cell, width)).collect();
            padded.join("  ").trim_end().to_owned()
        };
        let mut text = self.paint(Style::Bold, &line(&mut heading.iter().copied()));
        text.push('\n');
        for row in rows {
            text += &line(&mut row.iter().map(String::as_str));
            text.push('\n');
        }
        text
    }

    /// Names and values below each other; empty values are left out, further lines of a value stand under its first.
    #[must_use]
    pub fn facts(&self, facts: &[(&str, String)]) -> String {
        let shown = || facts.iter().filter(|(_, value)| !value.is_empty());
        let width = shown().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in shown() {
            for (index, line) in value.lines().enumerate() {
                let name = if index == 0 { *name } else { "" };
                text += &format!("{}  {line}\n", self.paint(Style::Bold, &format!("{name:<width$}")));
            }
        }
        text
    }
}

/// Places that a text takes, without its colours. Only [`Output::paint`] puts escapes in: [`clean`] leaves none.
fn width_of(text: &str) -> usize {
    let mut in_escape = false;
    let is_seen = |c: &char| {
        let seen = !in_escape && *c != '\x1b';
        in_escape = !seen && *c != 'm';
        seen
    };
    text.chars().filter(is_seen).count()
}

/// Text from elsewhere, fit for a terminal: see [`escape`]. What podsecd escaped already stays as it is.
#[must_use]
pub fn clean(text: &str) -> String {
    let escaped = escape(text.as_bytes());
    if escaped.replace(r"\\", r"\") == text { text.to_owned() } else { escaped }
}

/// `3 h 12 min`: the two largest units.
#[must_use]
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// `1 port`, `2 ports`
#[must_use]
pub fn count(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLOURED: Output = Output { json: false, colour: true };

    #[test]
    fn columns_line_up() {
        let rows = vec![vec!["8080:80".to_owned(), "yes".to_owned()], vec!["é".to_owned(), String::new()]];
        assert_eq!(Output::plain().table(&["PORT", "KEPT"], &rows), "PORT     KEPT\n8080:80  yes\né\n");
        assert!(COLOURED.table(&["A"], &[]).starts_with("\x1b[1mA\x1b[0m"));
        let rows = vec![vec![COLOURED.paint(Style::Bad, "no"), "x".to_owned()]];
        assert!(COLOURED.table(&["KEPT", "WHY"], &rows).ends_with("\n\x1b[31mno\x1b[0m    x\n"));
    }

    #[test]
    fn facts_line_up_and_empty_ones_are_left_out() {
        let facts = [("user", "alice".to_owned()), ("gone", String::new()), ("may ask", "a\nb".to_owned())];
        assert_eq!(Output::plain().facts(&facts), "user     alice\nmay ask  a\n         b\n");
    }

    #[test]
    fn says_what_was_done_or_would_be() {
        let verb = Verb { done: "published", todo: "publish", nothing: "was published already" };
        assert_eq!(verb.sentence("8080:80", true, false), "published 8080:80");
        assert_eq!(verb.sentence("8080:80", true, true), "would publish 8080:80");
        assert_eq!(verb.sentence("8080:80", false, true), "8080:80 was published already; nothing to do");
    }

    #[test]
    fn json_is_never_coloured() {
        assert!(!Output::new(true, Color::Always).colour);
        assert!(Output::new(false, Color::Always).colour);
        assert!(!Output::new(false, Color::Never).colour);
    }

    #[test]
    fn clean_text_has_nothing_that_a_terminal_obeys() {
        assert_eq!(clean("a\x1b[2J\nb\u{202e}\\"), r"a\x1b[2J\x0ab\u{202e}\\");
        for already in ["plain", r"a\x0ab", r"\\", r"\", "ü"] {
            assert_eq!(clean(already), already);
        }
        assert!(clean(&"x".repeat(5000)).len() < 1200);
    }

    #[test]
    fn durations_and_counts() {
        assert_eq!(
            [0, 59, 60, 3600, 11_520, 90_000].map(duration),
            ["0 s", "59 s", "1 min", "1 h 0 min", "3 h 12 min", "1 d 1 h"]
        );
        assert_eq!([count(1, "port"), count(2, "port")], ["1 port", "2 ports"]);
    }
}
