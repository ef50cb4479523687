//! What is printed: one row a figure, and what it is compared with. Every row is drawn, too.

use std::cmp::Ordering;

use crate::Result;
use crate::plot::{Plot, Scale, Series};

/// Prints the head.
pub(crate) fn head() {
    println!("| what | figure | floor, or before | ratio | rounds (min–max) |");
    println!("|---|---|---|---|---|");
}

/// Prints and draws a figure that was measured in rounds, with what was measured beside it, if anything was.
pub(crate) fn row(what: &str, unit: &str, rounds: &[f64], floor: &[f64]) -> Result<()> {
    let figure = median(rounds);
    let (beside, ratio) = if floor.is_empty() {
        (String::new(), String::new())
    } else {
        (format!("{} {unit}", short(median(floor))), format!("{:.2}", figure / median(floor)))
    };
    let (min, max) = rounds.iter().fold((f64::MAX, f64::MIN), |(min, max), round| (min.min(*round), max.max(*round)));
    println!(
        "| {what} | {} {unit} | {beside} | {ratio} | {} ({}–{}) |",
        short(figure),
        rounds.len(),
        short(min),
        short(max)
    );
    let counted = |name: &str, figures: &[f64]| Series {
        name: name.to_owned(),
        points: figures.iter().enumerate().map(|(round, figure)| (round as f64 + 1.0, *figure)).collect(),
    };
    let series = [counted("gatecast", rounds), counted("floor, or before", floor)];
    let series = series.into_iter().filter(|series| !series.points.is_empty()).collect();
    Plot { title: what, unit, across: "round", scale: Scale::Linear, series }.save(&format!("{what}, {unit}"))
}

/// Draws how a figure grows over something.
pub(crate) fn growth(title: &str, unit: &str, across: &str, series: Vec<Series>) -> Result<()> {
    Plot { title, unit, across, scale: Scale::Logarithmic, series }.save(&format!("growth over {across}"))
}

/// The middle one; of an even number, the upper of the two.
pub(crate) fn median(rounds: &[f64]) -> f64 {
    quantile(rounds, 0.5)
}

/// The figure that this share of all is below.
pub(crate) fn quantile(figures: &[f64], share: f64) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    sorted.get((sorted.len() as f64 * share) as usize).copied().unwrap_or(f64::NAN)
}

/// A number as people read it.
pub(crate) fn short(figure: f64) -> String {
    if figure >= 1000.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}
