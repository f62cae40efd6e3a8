//! Server-sent events out of bytes that come in any pieces. Pure.
//!
//! Written here rather than taken from a crate: the ones there are wrap a whole HTTP client or
//! buffer without bound, and what is needed is a page of code (WHATWG HTML, section 9.2.6).

use std::collections::VecDeque;

/// The longest line and the most data of one event, in bytes. The servers' events are below a few
/// kilobytes; this only keeps a server that lies from filling the memory.
pub(super) const LONGEST: usize = 1 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SseEvent {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its data, lines joined by line breaks.
    pub data: String,
}

/// Why bytes are no event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseFault {
    /// A line or an event is longer than any that a sound server sends.
    #[error("an event is longer than {} bytes", LONGEST)]
    TooLong,
    /// The bytes are not UTF-8.
    #[error("an event is not UTF-8 text")]
    NotUtf8,
}

/// See the module.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    after_carriage_return: bool,
    started: bool,
    name: String,
    data: String,
    has_data: bool,
}

impl SseParser {
    /// Takes the next bytes and appends the events that they complete to `events`.
    ///
    /// # Errors
    /// [`SseFault`]; the stream is then of no further use.
    pub fn push(
        &mut self,
        mut bytes: &[u8],
        events: &mut VecDeque<SseEvent>,
    ) -> Result<(), SseFault> {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.after_carriage_return) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > LONGEST {
                return Err(SseFault::TooLong);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else { break };
            self.after_carriage_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            let line = std::mem::take(&mut self.line);
            self.line(&line, events)?;
            self.line = line;
            self.line.clear();
        }
        Ok(())
    }

    fn line(&mut self, line: &[u8], events: &mut VecDeque<SseEvent>) -> Result<(), SseFault> {
        let mut line = std::str::from_utf8(line).map_err(|_| SseFault::NotUtf8)?;
        if !std::mem::replace(&mut self.started, true) {
            line = line.strip_prefix('\u{feff}').unwrap_or(line);
        }
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            let data = std::mem::take(&mut self.data);
            if std::mem::take(&mut self.has_data) {
                events.push_back(SseEvent { name, data });
            }
            return Ok(());
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if self.data.len() + value.len() >= LONGEST {
                    return Err(SseFault::TooLong);
                }
                if self.has_data {
                    self.data.push('\n');
                }
                self.has_data = true;
                self.data.push_str(value);
            }
            // Comments, which have no field name, and fields for reconnecting, which we never do.
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(pieces: &[&[u8]]) -> Result<Vec<(String, String)>, SseFault> {
        let mut parser = SseParser::default();
        let mut events = VecDeque::new();
        for piece in pieces {
            parser.push(piece, &mut events)?;
        }
        Ok(events
            .into_iter()
            .map(|event| (event.name, event.data))
            .collect())
    }

    fn check(stream: &str, expected: &[(&str, &str)]) {
        let got = parse(&[stream.as_bytes()]).unwrap();
        let got: Vec<_> = got.iter().map(|(n, d)| (&**n, &**d)).collect();
        assert_eq!(got, expected, "{stream:?}");
    }

    #[test]
    fn events_as_the_standard_reads_them() {
        check("event: a\ndata: 1\n\n", &[("a", "1")]);
        check("event: a\r\ndata: 1\r\n\r\n", &[("a", "1")]);
        check("event:a\rdata:1\r\r", &[("a", "1")]);
        check("\u{feff}data: 1\n\n", &[("", "1")]);
        check("data: 1\ndata:  2\ndata\n\n", &[("", "1\n 2\n")]);
        check(
            ": comment\nid: 7\nretry: 5\nother: x\ndata: 1\n\n",
            &[("", "1")],
        );
        check("event: a\n\ndata: 1\n\n", &[("", "1")]);
        check("data: 1\n\n\n\ndata: 2\n\n", &[("", "1"), ("", "2")]);
        check("data: cut off\n", &[]);
    }

    #[test]
    fn what_is_no_text_or_has_no_end_is_a_fault() {
        assert_eq!(parse(&[b"data: \xff\n\n"]), Err(SseFault::NotUtf8));
        let long = vec![b'a'; LONGEST + 1];
        assert_eq!(parse(&[&long]), Err(SseFault::TooLong));
        let line = [b"data: ".as_slice(), &vec![b'a'; LONGEST / 2], b"\n"].concat();
        assert_eq!(parse(&[&line, &line, &line]), Err(SseFault::TooLong));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_changes_nothing(
            stream in "(event: [a-z]{1,4}|data: ?[é€a ]{0,6}|:c|\r|\n|\r\n){0,24}",
            cuts in proptest::collection::vec(0usize..64, 0..8),
        ) {
            let bytes = stream.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            let mut pieces = Vec::new();
            let mut from = 0;
            for cut in cuts {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            pieces.push(&bytes[from..]);
            prop_assert_eq!(parse(&pieces), parse(&[bytes]));
        }

        #[test]
        fn any_bytes_are_taken_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = parse(&[&bytes]);
        }
    }
}
