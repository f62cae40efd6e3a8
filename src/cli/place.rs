//! `FILE:LINE[:COL]`, and the cursor it means in a document.

use std::path::PathBuf;

use super::exit::Failure;

/// A place as written. Lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The document.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
    /// The column; `None` is the end of the line.
    pub column: Option<usize>,
}

impl Place {
    /// Reads it from its end, since a file's name may hold colons (`C:\src\main.rs:3`).
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number > 0);
        let parts = text.rsplit_once(':').and_then(|(rest, last)| {
            let last = number(last)?;
            let before = rest
                .rsplit_once(':')
                .and_then(|(file, line)| Some((file, number(line)?)));
            Some(match before {
                Some((file, line)) => (file, line, Some(last)),
                None => (rest, last, None),
            })
        });
        match parts {
            Some((file, line, column)) if !file.is_empty() => Ok(Self {
                file: PathBuf::from(file),
                line,
                column,
            }),
            _ => Err(Failure::usage(format!(
                "`{text}` is no place in a file. Write FILE:LINE or FILE:LINE:COL, such as \
                 `src/main.rs:12:5`; both count from 1."
            ))),
        }
    }

    /// The offset in `document`, in bytes.
    pub fn offset(&self, document: &str) -> Result<usize, Failure> {
        let mut start = 0;
        for _ in 1..self.line {
            let Some(end) = document[start..].find('\n') else {
                let lines = document.matches('\n').count() + 1;
                return Err(Failure::usage(format!(
                    "{}: line {} is past the end. Choose one from 1 to {lines}.",
                    self.file.display(),
                    self.line,
                )));
            };
            start += end + 1;
        }
        let line = document[start..].split('\n').next().unwrap_or_default();
        let line = line.strip_suffix('\r').unwrap_or(line);
        let Some(column) = self.column else {
            return Ok(start + line.len());
        };
        let mut ends = line.char_indices().map(|(at, _)| at).chain([line.len()]);
        ends.nth(column - 1).map(|at| start + at).ok_or_else(|| {
            Failure::usage(format!(
                "{}:{}: column {column} is past the end. Choose one from 1 to {}.",
                self.file.display(),
                self.line,
                line.chars().count() + 1,
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_from_their_end() {
        for (text, expected) in [
            ("a.rs:3", Some(("a.rs", 3, None))),
            ("a.rs:3:7", Some(("a.rs", 3, Some(7)))),
            ("C:\\a.rs:3", Some(("C:\\a.rs", 3, None))),
            ("C:\\a.rs:3:7", Some(("C:\\a.rs", 3, Some(7)))),
            ("a:b:3:7", Some(("a:b", 3, Some(7)))),
            ("a.rs", None),
            ("a.rs:0", None),
            ("a.rs:x", None),
            ("a.rs:3:", None),
            (":3", None),
            ("", None),
        ] {
            let place = Place::parse(text).ok();
            let place = place
                .as_ref()
                .map(|place| (place.file.to_str().unwrap(), place.line, place.column));
            assert_eq!(place, expected, "{text}");
        }
    }

    #[test]
    fn offsets_count_characters_and_stop_at_the_line() {
        let document = "äb\r\ncd\n";
        for (line, column, expected) in [
            (1, Some(1), Some(0)),
            (1, Some(2), Some(2)),
            (1, Some(3), Some(3)),
            (1, Some(4), None),
            (1, None, Some(3)),
            (2, None, Some(7)),
            (3, None, Some(8)),
            (3, Some(1), Some(8)),
            (4, None, None),
        ] {
            let place = Place {
                file: "f".into(),
                line,
                column,
            };
            assert_eq!(place.offset(document).ok(), expected, "{line}:{column:?}");
        }
    }
}
