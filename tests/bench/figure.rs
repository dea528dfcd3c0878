//! What is measured, how it is judged, and how it is shown.

use serde::Serialize;
use std::time::Duration;

/// What a figure has to be within.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Value divided by peer.
    RatioAtMost(f64),
    /// Value divided by peer.
    RatioAtLeast(f64),
    /// The value itself.
    AtMost(f64),
}

/// One figure.
#[derive(Clone, Debug)]
pub struct Figure {
    bench: &'static str,
    what: String,
    unit: &'static str,
    value: f64,
    peer: Option<(String, f64)>,
    bound: Option<Bound>,
}

/// As a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    bench: &'a str,
    metric: String,
    value: f64,
    peer: Option<f64>,
    ratio: Option<f64>,
    bound: Option<f64>,
    ok: bool,
}

impl Figure {
    /// With neither peer nor bound.
    pub fn new(bench: &'static str, what: impl Into<String>, unit: &'static str, value: f64) -> Self {
        Self { bench, what: what.into(), unit, value, peer: None, bound: None }
    }

    /// Compared with that.
    pub fn against(mut self, name: impl Into<String>, value: f64) -> Self {
        self.peer = Some((name.into(), value));
        self
    }

    /// Judged by that.
    pub fn bound(mut self, bound: Bound) -> Self {
        self.bound = Some(bound);
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.as_ref().map(|(_, peer)| self.value / peer)
    }

    /// Is it within its bound? Without one it is.
    pub fn is_ok(&self) -> bool {
        match (self.bound, self.ratio()) {
            (None, _) => true,
            (Some(Bound::AtMost(bound)), _) => self.value <= bound,
            (Some(Bound::RatioAtMost(bound)), Some(ratio)) => ratio <= bound,
            (Some(Bound::RatioAtLeast(bound)), Some(ratio)) => ratio >= bound,
            (Some(_), None) => false,
        }
    }

    fn json(&self) -> String {
        let against = self.peer.as_ref().map(|(name, _)| format!(" / {name}")).unwrap_or_default();
        let line = Line {
            bench: self.bench,
            metric: format!("{} [{}]{against}", self.what, self.unit),
            value: round(self.value),
            peer: self.peer.as_ref().map(|&(_, value)| round(value)),
            ratio: self.ratio().map(round),
            bound: self.bound.map(|bound| match bound {
                Bound::RatioAtMost(bound) | Bound::RatioAtLeast(bound) | Bound::AtMost(bound) => bound,
            }),
            ok: self.is_ok(),
        };
        serde_json::to_string(&line).expect("plain numbers")
    }

    fn row(&self) -> String {
        let number =
            |value: f64| if value.abs() < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") };
        let peer = self.peer.as_ref().map(|(name, value)| format!("{} {name}", number(*value)));
        let bound = self.bound.map(|bound| match bound {
            Bound::RatioAtMost(bound) => format!("≤ {bound:.2} ×"),
            Bound::RatioAtLeast(bound) => format!("≥ {bound:.2} ×"),
            Bound::AtMost(bound) => format!("≤ {bound} {}", self.unit),
        });
        format!(
            "{:<14} {:<34} {:>9} {:<5} {:<22} {:>8} {:>11}  {}",
            self.bench,
            self.what,
            number(self.value),
            self.unit,
            peer.unwrap_or_default(),
            self.ratio().map(|ratio| format!("{ratio:.2} ×")).unwrap_or_default(),
            bound.clone().unwrap_or_default(),
            if bound.is_none() {
                ""
            } else if self.is_ok() {
                "ok"
            } else {
                "MISSED"
            },
        )
    }
}

/// The first line of a table.
pub fn header() -> String {
    format!(
        "{:<14} {:<34} {:>9} {:<5} {:<22} {:>8} {:>11}",
        "bench", "what", "value", "", "against", "ratio", "bound"
    )
}

/// Shows it, and says whether it is within its bound.
pub fn show(figure: &Figure, json: bool) -> bool {
    println!("{}", if json { figure.json() } else { figure.row() });
    figure.is_ok()
}

/// No more digits than mean something.
fn round(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Measured one after the other.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// None yet.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// One more.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// One more, in milliseconds.
    pub fn push_time(&mut self, time: Duration) {
        self.push(time.as_secs_f64() * 1e3);
    }

    /// The smallest that is not below that share of them.
    pub fn quantile(&self, share: f64) -> f64 {
        quantile(self.0.clone(), share)
    }

    /// The middle one.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// How the ratio of medians went up and down during the run, in five parts of it: noise of the machine shows here.
    pub fn spread(&self, other: &Self) -> String {
        let part = |samples: &[f64], index: usize| {
            quantile(samples[samples.len() * index / 5..samples.len() * (index + 1) / 5].to_vec(), 0.5)
        };
        if self.0.len().min(other.0.len()) < 10 {
            return String::new();
        }
        let mut ratios: Vec<f64> = (0..5).map(|index| part(&self.0, index) / part(&other.0, index)).collect();
        ratios.sort_by(f64::total_cmp);
        format!("ratio in fifths of the run {:.2} to {:.2}", ratios[0], ratios[4])
    }
}

fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (share * values.len() as f64).ceil() as usize;
    values.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        let mut samples = Samples::default();
        (1..=10).rev().for_each(|value| samples.push(f64::from(value)));
        assert_eq!(
            [0.0, 0.5, 0.9, 0.99, 1.0].map(|share| samples.quantile(share)),
            [1.0, 5.0, 9.0, 10.0, 10.0]
        );
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn a_missed_bound_is_not_ok() {
        let figure = |bound| Figure::new("x", "p50", "ms", 3.0).against("y", 2.0).bound(bound);
        assert!(figure(Bound::RatioAtMost(1.5)).is_ok() && !figure(Bound::RatioAtMost(1.4)).is_ok());
        assert!(figure(Bound::RatioAtLeast(1.5)).is_ok() && !figure(Bound::RatioAtLeast(1.6)).is_ok());
        assert!(figure(Bound::AtMost(3.0)).is_ok() && !figure(Bound::AtMost(2.9)).is_ok());
        // Nothing measured is nothing reached.
        assert!(!Figure::new("x", "p50", "ms", f64::NAN).bound(Bound::AtMost(3.0)).is_ok());
        assert_eq!(
            figure(Bound::RatioAtMost(1.4)).json(),
            r#"{"bench":"x","metric":"p50 [ms] / y","value":3.0,"peer":2.0,"ratio":1.5,"bound":1.4,"ok":false}"#
        );
    }
}
