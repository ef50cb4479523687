//! What is printed: one row a figure, and what it is compared with.

use std::cmp::Ordering;

/// Prints the head.
pub(crate) fn head() {
    println!("| what | figure | floor | ratio | rounds (min–max) |");
    println!("|---|---|---|---|---|");
}

/// Prints a figure that was measured in rounds, with what was measured beside it, if anything was.
pub(crate) fn row(what: &str, unit: &str, rounds: &[f64], floor: &[f64]) {
    let figure = median(rounds);
    let (floor, ratio) = if floor.is_empty() {
        (String::new(), String::new())
    } else {
        (format!("{} {unit}", short(median(floor))), format!("{:.2}", figure / median(floor)))
    };
    let (min, max) = rounds.iter().fold((f64::MAX, f64::MIN), |(min, max), round| (min.min(*round), max.max(*round)));
    println!(
        "| {what} | {} {unit} | {floor} | {ratio} | {} ({}–{}) |",
        short(figure),
        rounds.len(),
        short(min),
        short(max)
    );
}

/// The middle one; of an even number, the upper of the two.
pub(crate) fn median(rounds: &[f64]) -> f64 {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

fn short(figure: f64) -> String {
    if figure >= 1000.0 { format!("{figure:.0}") } else { format!("{figure:.2}") }
}
