//! Single tokens against context and against the model's size, beside what the machine's memory allows.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::machine::Machine;
use super::model_file::SIZES;
use super::peer::Bench;
use super::{Arguments, Samples};

pub const CONTEXTS: [usize; 4] = [128, 512, 2048, 8192];
const KIND: &str = "q4_0";
/// The context at which models are compared.
const COMPARED: usize = 512;

/// Tokens a second of one model: ours, llama.cpp's, and the most that the memory allows.
struct Line {
    name: &'static str,
    /// Bytes of a token at [`COMPARED`].
    bytes: f64,
    /// By context.
    rates: Vec<[Option<f64>; 3]>,
}

/// Measures all sizes, prints a table and draws it.
pub fn measure(machine: &mut Machine, picture: &Path, arguments: &Arguments) -> anyhow::Result<()> {
    let mut lines = Vec::new();
    for sizes in SIZES {
        let file = sizes.file(KIND)?;
        let ours = super::in_process("tandem", &file, &["--contexts"], arguments)?;
        machine.measure_again();
        let peer = match &arguments.llama {
            Some(folder) => Bench {
                folder,
                file: &file,
                threads: arguments.threads,
            }
            .decode_at(&CONTEXTS)?,
            None => Samples::new(),
        };
        // The smallest is the other tables' model too.
        if sizes.name != SIZES[0].name {
            fs::remove_file(&file)?;
        }
        let rate = |samples: &Samples, at: usize| {
            let rates = samples.get(&format!("decode at {at}"));
            rates.cloned().and_then(super::median)
        };
        let rates = CONTEXTS.map(|at| {
            let limit = machine.read() * 1e9 / sizes.bytes_per_token(KIND, at);
            [rate(&ours, at), rate(&peer, at), Some(limit)]
        });
        lines.push(Line {
            name: sizes.name,
            bytes: sizes.bytes_per_token(KIND, COMPARED),
            rates: rates.to_vec(),
        });
    }
    print(&lines);
    fs::write(picture, svg(machine, &lines))?;
    println!("\n{} is drawn.", picture.display());
    Ok(())
}

const NAMES: [&str; 3] = ["Tandem's kernels", "llama.cpp", "memory's limit"];

/// The names of what there are rates of, with their places.
fn told(lines: &[Line]) -> impl Iterator<Item = (usize, &'static str)> {
    let has = |which: usize| {
        let mut rates = lines.iter().flat_map(|line| &line.rates);
        rates.any(|rates| rates[which].is_some())
    };
    NAMES
        .into_iter()
        .enumerate()
        .filter(move |(which, _)| has(*which))
}

fn print(lines: &[Line]) {
    let contexts = CONTEXTS.map(|at| format!("{at}")).join(" | ");
    println!("| {KIND}, tok/s behind | {contexts} |");
    println!("|---|{}", "---|".repeat(CONTEXTS.len()));
    for line in lines {
        for (which, name) in told(lines) {
            let cells: Vec<String> = line
                .rates
                .iter()
                .map(|rates| {
                    rates[which].map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
                })
                .collect();
            println!("| {}, {name} | {} |", line.name, cells.join(" | "));
        }
    }
}

/// Okabe and Ito's palette, as in the other pictures.
const COLOURS: [&str; 3] = ["#0072B2", "#E69F00", "#009E73"];
/// Full lines are ours, dashes llama.cpp's, dots the limit.
const DASHES: [&str; 3] = ["none", "6 4", "1 3"];
const PANEL: (f64, f64) = (360.0, 240.0);
const LEFT: f64 = 44.0;
const TOP: f64 = 40.0;
const BETWEEN: f64 = 60.0;

/// A panel: where it begins, and the ends of its axes.
struct Panel {
    left: f64,
    across: [f64; 2],
    up: [f64; 2],
}

impl Panel {
    /// Both axes are logarithmic.
    fn place(&self, x: f64, y: f64) -> (f64, f64) {
        let share = |value: f64, [low, high]: [f64; 2]| (value / low).ln() / (high / low).ln();
        (
            self.left + share(x, self.across) * PANEL.0,
            TOP + (1.0 - share(y, self.up)) * PANEL.1,
        )
    }

    fn line(&self, svg: &mut String, points: &[(f64, f64)], colour: &str, which: usize) {
        let places: Vec<String> = points
            .iter()
            .map(|(x, y)| {
                let (x, y) = self.place(*x, *y);
                format!("{x:.1},{y:.1}")
            })
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" \
             stroke-dasharray=\"{}\"/>",
            places.join(" "),
            DASHES[which]
        );
        // The limit is no measurement.
        let measured = if which < 2 { points } else { &[] };
        for (x, y) in measured {
            let (across, up) = self.place(*x, *y);
            let _ = writeln!(
                svg,
                "<circle cx=\"{across:.1}\" cy=\"{up:.1}\" r=\"3\" fill=\"{colour}\">\
                 <title>{y:.1} tok/s</title></circle>"
            );
        }
    }

    fn axes(&self, svg: &mut String, title: &str, marks: &[(f64, String)]) {
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" font-weight=\"bold\">{title}</text>",
            self.left,
            TOP - 12.0
        );
        let rates = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
        for rate in rates
            .into_iter()
            .filter(|rate| (self.up[0]..=self.up[1]).contains(rate))
        {
            let (x, y) = self.place(self.across[0], rate);
            let _ = writeln!(
                svg,
                "<path d=\"M{x} {y:.1}h{}\" stroke=\"#ccc\"/><text x=\"{}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{rate}</text>",
                PANEL.0,
                x - 4.0,
                y + 4.0
            );
        }
        for (value, label) in marks {
            let (x, y) = self.place(*value, self.up[0]);
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                y + 16.0
            );
        }
    }
}

fn svg(machine: &Machine, lines: &[Line]) -> String {
    let all = || {
        lines
            .iter()
            .flat_map(|line| line.rates.iter().flatten().flatten())
    };
    let up = [
        all().copied().fold(f64::MAX, f64::min) / 1.2,
        all().copied().fold(0.0, f64::max) * 1.2,
    ];
    let (width, height) = (LEFT + 2.0 * PANEL.0 + BETWEEN + 20.0, TOP + PANEL.1 + 66.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let first = Panel {
        left: LEFT,
        across: [
            CONTEXTS[0] as f64 / 1.1,
            CONTEXTS[CONTEXTS.len() - 1] as f64 * 1.1,
        ],
        up,
    };
    let marks = CONTEXTS.map(|at| (at as f64, at.to_string()));
    first.axes(&mut svg, "tokens a second behind so many others", &marks);
    let sizes = |from: fn(f64, f64) -> f64, start: f64| {
        lines.iter().map(|line| line.bytes).fold(start, from)
    };
    let second = Panel {
        left: LEFT + PANEL.0 + BETWEEN,
        across: [sizes(f64::min, f64::MAX) / 1.2, sizes(f64::max, 0.0) * 1.2],
        up,
    };
    let title = format!("behind {COMPARED}, by what a token reads");
    let marks: Vec<(f64, String)> = lines
        .iter()
        .map(|line| {
            (
                line.bytes,
                format!("{}: {:.2} GB", line.name, line.bytes / 1e9),
            )
        })
        .collect();
    second.axes(&mut svg, &title, &marks);
    let compared = CONTEXTS.iter().position(|at| *at == COMPARED).unwrap_or(0);
    for (which, name) in told(lines) {
        for (line, colour) in lines.iter().zip(COLOURS) {
            let rates = CONTEXTS.iter().zip(&line.rates);
            let points: Vec<(f64, f64)> = rates
                .filter_map(|(at, rates)| Some((*at as f64, rates[which]?)))
                .collect();
            first.line(&mut svg, &points, colour, which);
        }
        let points: Vec<(f64, f64)> = lines
            .iter()
            .filter_map(|line| Some((line.bytes, line.rates[compared][which]?)))
            .collect();
        second.line(&mut svg, &points, "#444444", which);
        let (x, y) = (LEFT + which as f64 * 150.0, height - 12.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{x} {}h28\" stroke=\"#444444\" stroke-width=\"2\" stroke-dasharray=\"{}\"/>\
             <text x=\"{}\" y=\"{y}\">{name}</text>",
            y - 4.0,
            DASHES[which],
            x + 34.0
        );
    }
    for (place, (line, colour)) in lines.iter().zip(COLOURS).enumerate() {
        let (x, y) = (LEFT + 470.0 + place as f64 * 60.0, height - 12.0);
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{}</text>",
            line.name
        );
    }
    let about = format!("Qwen3's sizes, random weights in Q4_0; {}", machine.name());
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{}\" fill=\"#666\">{}</text>",
        height - 30.0,
        about.replace('&', "&amp;").replace('<', "&lt;")
    );
    svg + "</svg>\n"
}
