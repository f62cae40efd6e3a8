//! JSON lines out of bytes that come in any pieces. Pure.

use std::collections::VecDeque;

use super::sse::{LONGEST, SseEvent, SseFault};

/// See the module.
#[derive(Debug, Default)]
pub struct LineParser {
    line: Vec<u8>,
}

impl LineParser {
    /// Takes the next bytes and appends the lines that they complete to `lines`, as events without a name.
    /// Empty lines are none.
    ///
    /// # Errors
    /// [`SseFault`]; the stream is then of no further use.
    pub fn push(&mut self, bytes: &[u8], lines: &mut VecDeque<SseEvent>) -> Result<(), SseFault> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.line.len() + part.len() > LONGEST {
                return Err(SseFault::TooLong);
            }
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = String::from_utf8(std::mem::take(&mut self.line));
                let data = line.map_err(|_| SseFault::NotUtf8)?.trim().to_owned();
                if !data.is_empty() {
                    let name = String::new();
                    lines.push_back(SseEvent { name, data });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Result<Vec<String>, SseFault> {
        let mut parser = LineParser::default();
        let mut lines = VecDeque::new();
        for piece in pieces {
            parser.push(piece, &mut lines)?;
        }
        Ok(lines.into_iter().map(|line| line.data).collect())
    }

    #[test]
    fn a_line_is_there_when_it_ends() {
        let lines = parse(&[b"{\"a\":\"\xc3", b"\xa4\"}\r\n\n{}\n{\"half\""]).unwrap();
        assert_eq!(lines, ["{\"a\":\"\u{e4}\"}", "{}"]);
        assert_eq!(parse(&[b"\xff\n"]), Err(SseFault::NotUtf8));
        let endless = vec![b'x'; LONGEST + 1];
        assert_eq!(parse(&[&endless]), Err(SseFault::TooLong));
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(text in "[a-c\u{e4}\n]{0,40}", at in any::<prop::sample::Index>()) {
            let bytes = text.as_bytes();
            let (before, after) = bytes.split_at(at.index(bytes.len() + 1));
            prop_assert_eq!(parse(&[before, after]), parse(&[bytes]));
        }
    }
}
