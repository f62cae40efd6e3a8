//! Small models go round in circles: where a completion starts to repeat itself.

use super::place::is_distinctive;

/// The longest cycle of lines that is recognised.
const LONGEST_CYCLE: usize = 4;

/// The longest piece of a line whose repetition is recognised, in characters: a few words.
const LONGEST_PIECE: usize = 24;

/// How often a piece must come in a row. A table of numbers says `0, ` four times by right.
const TIMES: usize = 6;

/// Where `text` starts to repeat its own lines. `ended` says that its last line is complete.
pub fn by_lines(text: &str, ended: bool) -> Option<usize> {
    let mut lines: Vec<(usize, &str)> = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.ends_with('\n') || ended {
            lines.push((at, line.trim()));
        }
        at += line.len();
    }
    for end in 1..=lines.len() {
        let seen = &lines[..end];
        for cycle in 1..=LONGEST_CYCLE {
            // A single line may come twice by right; not three times, nor several lines twice.
            let times = if cycle == 1 { 3 } else { 2 };
            let Some(from) = end.checked_sub(cycle * times) else {
                continue;
            };
            let (first, rest) = seen[from..].split_at(cycle);
            let again = rest
                .chunks(cycle)
                .all(|one| one.iter().map(|(_, l)| l).eq(first.iter().map(|(_, l)| l)));
            if again && first.iter().any(|(_, line)| is_distinctive(line)) {
                return Some(rest[0].0);
            }
        }
    }
    None
}

/// Where a line of `text` starts to say the same piece again and again. A run of one character, as in
/// `// --------`, is a ruler and not a circle.
pub fn within_line(text: &str) -> Option<usize> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let characters: Vec<(usize, char)> = line.char_indices().collect();
        // The one that is complete first, so that it does not matter in which pieces the text came.
        let runs = (2..=LONGEST_PIECE).filter_map(|length| first_run(&characters, length));
        if let Some((_, first)) = runs.min() {
            return Some(at + characters[first].0);
        }
        at += line.len();
    }
    None
}

/// Where a piece of `length` characters has first come [`TIMES`] times in a row: the indices of the
/// last and of the first of these characters.
fn first_run(characters: &[(usize, char)], length: usize) -> Option<(usize, usize)> {
    let mut equal = 0;
    for end in length..characters.len() {
        if characters[end].1 == characters[end - length].1 {
            equal += 1;
        } else {
            equal = 0;
        }
        if equal == length * (TIMES - 1) {
            let first = end + 1 - length * TIMES;
            let piece = &characters[first..first + length];
            if piece.iter().any(|(_, c)| *c != piece[0].1) {
                return Some((end, first));
            }
            // A ruler, which may be followed by something else.
            equal -= 1;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_that_come_again_and_again_are_found_at_their_first() {
        let check = |text: &str, at: Option<usize>| assert_eq!(within_line(text), at, "{text}");
        check("\"\"\"Return # # # # # # # # # # #", Some(9));
        check("a, a, a, a, a, a, a, a, ", Some(0));
        check("x = 1\ny = foo.foo.foo.foo.foo.foo.foo.", Some(10));
        check("é é é é é é é é", Some(0));
        check("// ------------------------------------ section", None);
        check("[0, 0, 0, 0]", None);
        check("let x = 1;", None);
        check("", None);
    }
}
