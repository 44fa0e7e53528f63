//! The table of `docs/benchmarks.md`: a row a measurement, ours beside the peer's, the ratio, what the
//! ratio was to be, and whether it is.

use crate::sample::Sample;

/// One peer's result.
pub(crate) struct Figure {
    /// As it is printed.
    pub(crate) text: String,
    /// What is compared: the median of times, the rate.
    pub(crate) value: f64,
    /// The best of many, where there are many.
    pub(crate) best: Option<f64>,
}

impl Figure {
    /// A rate, or anything that is one number.
    pub(crate) fn plain(value: f64) -> Self {
        let text = if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") };
        Self { text, value, best: None }
    }

    pub(crate) fn noted(value: f64, text: String) -> Self {
        Self { text, value, best: None }
    }
}

impl From<Sample> for Figure {
    fn from(sample: Sample) -> Self {
        Self { text: sample.to_string(), value: sample.median_ms(), best: Some(sample.min_ms()) }
    }
}

/// What a row is to show. Ratios are ours to the peer's.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    /// Time, memory: so many times the peer's at most.
    AtMost(f64),
    /// A rate: so many times the peer's at least.
    AtLeast(f64),
    /// So much of ours at most, whatever the peer's is.
    Within(f64, &'static str),
    /// Both: at most this ratio, and so much of ours.
    Both(f64, f64, &'static str),
    /// Printed for comparison.
    Open,
}

impl Target {
    fn words(self) -> String {
        match self {
            Self::AtMost(ratio) => format!("≤ {ratio} ×"),
            Self::AtLeast(ratio) => format!("≥ {ratio} ×"),
            Self::Within(most, unit) => format!("≤ {most} {unit}"),
            Self::Both(ratio, most, unit) => format!("≤ {ratio} ×, ≤ {most} {unit}"),
            Self::Open => String::new(),
        }
    }

    fn is_met(self, ours: f64, ratio: Option<f64>) -> Option<bool> {
        match self {
            Self::AtMost(most) => ratio.map(|ratio| ratio <= most),
            Self::AtLeast(least) => ratio.map(|ratio| ratio >= least),
            Self::Within(most, _) => Some(ours <= most),
            Self::Both(most, own, _) => ratio.map(|ratio| ratio <= most && ours <= own),
            Self::Open => None,
        }
    }
}

/// The head of the table.
pub(crate) fn head(peer: &str) {
    println!("| what | Wharfage | {peer} | ratio | target | met |\n|---|---|---|---|---|---|");
}

/// One row: ours first, then the peer's if there is one.
pub(crate) fn row(what: &str, figures: &[Figure], target: Target) {
    let Some(ours) = figures.first() else { return };
    let theirs = figures.get(1);
    let ratio = theirs.map(|theirs| ours.value / theirs.value).filter(|ratio| ratio.is_finite());
    let best = theirs.and_then(|theirs| Some(ours.best? / theirs.best?));
    let shown = |ratio: f64| if ratio < 10.0 { format!("{ratio:.2}") } else { format!("{ratio:.0}") };
    let ratios = [ratio, best].into_iter().flatten().map(shown).collect::<Vec<_>>().join(" / ");
    let ratios = if ratios.is_empty() { ratios } else { format!("{ratios} ×") };
    let met = match target.is_met(ours.value, ratio) {
        Some(true) => "yes",
        Some(false) => "**no**",
        None => "",
    };
    let theirs = theirs.map_or("", |figure| figure.text.as_str());
    println!("| {what} | {} | {theirs} | {ratios} | {} | {met} |", ours.text, target.words());
}
