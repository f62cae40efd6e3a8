//! The figures as a picture: one panel a measure, one group of bars a language.

use std::fmt::Write as _;

use crate::figures::Row;
use crate::measure::syntax::Language;

/// What is drawn, and the name above it.
type Panel = (&'static str, fn(&Row) -> f64);

const PANELS: [Panel; 6] = [
    ("exact", |row| row.exact),
    ("first line right", |row| row.first_line),
    ("edit similarity", |row| row.similarity),
    ("characters saved", |row| row.saved),
    ("does not parse", |row| row.does_not_parse),
    ("repeats what follows", |row| row.repeats_suffix),
];

/// Told apart also by those who see no red or no green, and in grey: Okabe and Ito's palette.
const COLOURS: [&str; 5] = ["#999999", "#E69F00", "#009E73", "#56B4E9", "#0072B2"];

const COLUMNS: usize = 3;
const PANEL: (usize, usize) = (300, 190);
const BARS: usize = 120;
const MARGIN: usize = 40;

/// An SVG of the rows by language.
pub fn svg(rows: &[Row]) -> String {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.kind.is_none()).collect();
    let mut names: Vec<&str> = Vec::new();
    let mut languages: Vec<Option<Language>> = Vec::new();
    for row in &rows {
        // Nothing is always nothing.
        if row.who != "empty" && !names.contains(&&*row.who) {
            names.push(&row.who);
        }
        if !languages.contains(&row.language) {
            languages.push(row.language);
        }
    }
    let width = COLUMNS * PANEL.0 + MARGIN;
    let height = PANELS.len().div_ceil(COLUMNS) * PANEL.1 + MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (index, (name, of)) in PANELS.into_iter().enumerate() {
        let left = MARGIN + index % COLUMNS * PANEL.0;
        let top = MARGIN + index / COLUMNS * PANEL.1;
        let bottom = top + 20 + BARS;
        let _ = writeln!(
            svg,
            "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{name}</text>",
            top + 10
        );
        for share in [0.0, 0.5, 1.0] {
            let y = bottom as f64 - share * BARS as f64;
            let _ = writeln!(
                svg,
                "<path d=\"M{left} {y}h{}\" stroke=\"#ccc\"/><text x=\"{}\" y=\"{}\" \
                 text-anchor=\"end\">{share}</text>",
                PANEL.0 - 50,
                left - 4,
                y + 4.0
            );
        }
        let group = (PANEL.0 - 50) / languages.len().max(1);
        let bar = (group - 8) / names.len().max(1);
        for (at, language) in languages.iter().enumerate() {
            let start = left + at * group + 4;
            let label = language.map_or("all", Language::id);
            let _ = writeln!(
                svg,
                "<text x=\"{start}\" y=\"{}\">{label}</text>",
                bottom + 14
            );
            for row in rows.iter().filter(|row| row.language == *language) {
                let Some(place) = names.iter().position(|name| *name == row.who) else {
                    continue;
                };
                let tall = of(row) * BARS as f64;
                let _ = writeln!(
                    svg,
                    "<rect x=\"{}\" y=\"{:.1}\" width=\"{bar}\" height=\"{tall:.1}\" fill=\"{}\">\
                     <title>{}, {label}: {:.3}</title></rect>",
                    start + place * bar,
                    bottom as f64 - tall,
                    COLOURS[(place + 1) % COLOURS.len()],
                    escaped(&row.who),
                    of(row)
                );
            }
        }
    }
    for (place, name) in names.iter().enumerate() {
        let x = MARGIN + place * (width - MARGIN) / names.len();
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"10\" width=\"10\" height=\"10\" fill=\"{}\"/><text x=\"{}\" y=\"19\">{}</text>",
            COLOURS[(place + 1) % COLOURS.len()],
            x + 14,
            escaped(name)
        );
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
