//! Line plots as SVG, readable on a light and on a dark page.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::table::short;

/// Where plots are put.
const DIRECTORY: &str = "target/bench";
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
/// Room for the words around the plot.
const MARGIN: f64 = 56.0;
const COLOURS: [&str; 4] = ["#2a78d6", "#d97706", "#2f9e62", "#b0437c"];
/// Lines across the plot, the bottom one not counted.
const STEPS: u8 = 4;

/// How the values across are spread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    Linear,
    Logarithmic,
}

/// A line.
#[derive(Debug, Clone)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A plot, whose vertical axis begins at zero.
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) unit: &'a str,
    pub(crate) across: &'a str,
    pub(crate) scale: Scale,
    pub(crate) series: Vec<Series>,
}

impl Plot<'_> {
    /// Writes it into a file that is called like `name`.
    pub(crate) fn save(&self, name: &str) -> Result<()> {
        let name: String =
            name.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let name = name.split('-').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-");
        fs::create_dir_all(DIRECTORY)?;
        Ok(fs::write(Path::new(DIRECTORY).join(name + ".svg"), self.draw()?)?)
    }

    fn draw(&self) -> Result<String> {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\" fill=\"#808080\">\n<title>{}</title>\n",
            self.title
        );
        writeln!(svg, r#"<text x="{MARGIN}" y="18" font-size="14">{} ({})</text>"#, self.title, self.unit)?;
        writeln!(svg, r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#, WIDTH - 8.0, HEIGHT - 6.0, self.across)?;
        let top = self.points().map(|(_, y)| y).fold(0.0, f64::max);
        for step in 0..=STEPS {
            let value = top * f64::from(step) / f64::from(STEPS);
            let (y, end) = (self.y(value, top), WIDTH - MARGIN);
            writeln!(svg, r##"<path d="M{MARGIN} {y:.1}H{end}" stroke="#808080" stroke-opacity="0.3"/>"##)?;
            writeln!(
                svg,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{}</text>"#,
                MARGIN - 6.0,
                y + 4.0,
                short(value)
            )?;
        }
        let mut marks: Vec<f64> = self.points().map(|(x, _)| x).collect();
        marks.sort_by(f64::total_cmp);
        marks.dedup();
        for mark in marks {
            let (x, y) = (self.x(mark), HEIGHT - MARGIN + 18.0);
            writeln!(svg, r#"<text x="{x:.1}" y="{y}" text-anchor="middle">{mark}</text>"#)?;
        }
        for (index, (series, colour)) in self.series.iter().zip(COLOURS.iter().cycle()).enumerate() {
            let at = |(x, y): &(f64, f64)| (self.x(*x), self.y(*y, top));
            let line: Vec<String> = series.points.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            writeln!(svg, r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#, line.join(" "))?;
            for (x, y) in series.points.iter().map(at) {
                writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#)?;
            }
            let (x, y) = (MARGIN + 170.0 * index as f64, 36.0);
            writeln!(svg, r#"<text x="{x}" y="{y}" fill="{colour}">{}</text>"#, series.name)?;
        }
        Ok(svg + "</svg>\n")
    }

    fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        self.series.iter().flat_map(|series| series.points.iter().copied())
    }

    fn x(&self, value: f64) -> f64 {
        let spread = |x: f64| if self.scale == Scale::Logarithmic { x.ln() } else { x };
        let (low, high) =
            self.points().fold((f64::MAX, f64::MIN), |(low, high), (x, _)| (low.min(spread(x)), high.max(spread(x))));
        let share = if high > low { (spread(value) - low) / (high - low) } else { 0.5 };
        MARGIN + 12.0 + share * (WIDTH - 2.0 * MARGIN - 24.0)
    }

    fn y(&self, value: f64, top: f64) -> f64 {
        let share = if top > 0.0 { value / top } else { 0.0 };
        HEIGHT - MARGIN - share * (HEIGHT - 2.0 * MARGIN)
    }
}
