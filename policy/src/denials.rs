//! How many refusals of one uid are recorded one by one. A flood of them must neither fill the disk nor go unseen,
//! so what is over the limit is counted and said in one record a minute. The same becomes of what could not be written
//! because the disk was full.

use crate::audit::Record;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_secs(60);

/// Counters by uid.
#[derive(Debug)]
pub struct Denials {
    per_minute: u32,
    windows: BTreeMap<u32, Window>,
}

#[derive(Debug)]
struct Window {
    began: Instant,
    written: u32,
    suppressed: u64,
    last: Option<Record>,
}

impl Denials {
    /// With this many records a uid and minute.
    pub fn new(per_minute: u32) -> Self {
        Self { per_minute, windows: BTreeMap::new() }
    }

    /// Gives back the record if it is to be written, else counts it.
    pub fn admit(&mut self, record: Record, now: Instant) -> Option<Record> {
        let per_minute = self.per_minute;
        let window = self.window(record.uid, now);
        if window.written < per_minute {
            window.written += 1;
            return Some(record);
        }
        self.unwritten(record, now);
        None
    }

    /// Counts a record, or a summary, that is not in the audit.
    pub fn unwritten(&mut self, record: Record, now: Instant) {
        let window = self.window(record.uid, now);
        window.suppressed += record.suppressed.unwrap_or(1);
        window.last = Some(record);
    }

    fn window(&mut self, uid: u32, now: Instant) -> &mut Window {
        let fresh = Window { began: now, written: 0, suppressed: 0, last: None };
        self.windows.entry(uid).or_insert(fresh)
    }

    /// The summaries of minutes that are over.
    pub fn due(&mut self, now: Instant) -> Vec<Record> {
        let mut due = Vec::new();
        self.windows.retain(|_, window| {
            let over = now.duration_since(window.began) >= WINDOW;
            if over {
                due.extend(window.summary());
            }
            !over
        });
        due
    }

    /// All summaries, at the end.
    pub fn flush(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.windows).into_values().filter_map(|mut window| window.summary()).collect()
    }

    /// When [`Denials::due`] wants to be asked.
    pub fn next(&self) -> Option<Instant> {
        self.windows.values().map(|window| window.began + WINDOW).min()
    }
}

impl Window {
    /// The last one that was not written, with the count of all that were not.
    fn summary(&mut self) -> Option<Record> {
        let record = self.last.take()?;
        Some(Record { suppressed: Some(self.suppressed), ..record })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Phase;

    fn record(uid: u32) -> Record {
        Record {
            micros: 0,
            phase: Phase::Deny,
            id: String::new(),
            op: String::new(),
            uid,
            login_uid: None,
            pid: 1,
            roles: vec![],
            target: String::new(),
            reason: Some("not-member".into()),
            step: None,
            ms: None,
            exit: None,
            suppressed: None,
        }
    }

    #[test]
    fn counts_what_it_does_not_write() {
        let (mut denials, start) = (Denials::new(2), Instant::now());
        let written = (0..100).filter(|_| denials.admit(record(7), start).is_some()).count();
        assert_eq!(written, 2);
        assert!(denials.admit(record(8), start).is_some(), "another uid is not affected");
        assert!(denials.due(start + Duration::from_secs(59)).is_empty());
        assert_eq!(denials.next(), Some(start + WINDOW));
        let due = denials.due(start + WINDOW);
        assert_eq!(
            due.iter().map(|record| (record.uid, record.suppressed)).collect::<Vec<_>>(),
            [(7, Some(98))]
        );
        assert!(denials.admit(record(7), start + WINDOW).is_some());
        assert!(denials.flush().is_empty());
    }

    #[test]
    fn counts_what_could_not_be_written() {
        let (mut denials, start) = (Denials::new(2), Instant::now());
        for _ in 0..3 {
            if let Some(record) = denials.admit(record(7), start) {
                denials.unwritten(record, start);
            }
        }
        let due = denials.due(start + WINDOW);
        assert_eq!(due.iter().map(|record| record.suppressed).collect::<Vec<_>>(), [Some(3)]);
        // nor could the summary
        due.into_iter().for_each(|record| denials.unwritten(record, start + WINDOW));
        denials.unwritten(record(7), start + WINDOW);
        assert_eq!(denials.flush()[0].suppressed, Some(4));
    }
}
