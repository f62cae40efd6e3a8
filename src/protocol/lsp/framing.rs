//! LSP's base protocol: finds message bodies in a byte stream, and goes on after what is none.
//!
//! tower-lsp's own reader ends at the first message it cannot decode, since `FramedRead` ends after
//! an error of its decoder; an editor would lose its server to one bad byte.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// A header line longer than this is none. The two that exist have less than 100 bytes.
const MAX_LINE_BYTES: usize = 4 << 10;

/// A body larger than this is taken for a broken header. A document of 50 MB stays below, also
/// where every byte of it is escaped.
const MAX_BODY_BYTES: usize = 320 << 20;

const CONTENT_LENGTH: &[u8] = b"content-length:";

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A body, not yet parsed.
    Body(Vec<u8>),
    /// Bytes that belong to no message, now skipped. Said once for each run of them.
    Garbage,
}

/// Reads frames.
#[derive(Debug)]
pub struct Frames<R> {
    input: R,
    /// The length of the body that a header has announced.
    announced: Option<usize>,
}

impl<R: AsyncBufRead + Unpin> Frames<R> {
    /// Frames of `input`.
    pub fn new(input: R) -> Self {
        Self {
            input,
            announced: None,
        }
    }

    /// The next frame, `None` at the end of the input. Not safe to cancel.
    ///
    /// # Errors
    /// When the input cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Frame>> {
        let mut garbage = false;
        let mut headers = false;
        loop {
            let Some(line) = self.line().await? else {
                return Ok(garbage.then_some(Frame::Garbage));
            };
            match Line::parse(&line) {
                Line::Length {
                    bytes,
                    after_garbage,
                } => {
                    garbage |= after_garbage;
                    self.announced = Some(bytes);
                }
                Line::OtherHeader => headers = true,
                Line::Blank if self.announced.is_some() => break,
                Line::Blank => garbage |= headers,
                Line::Garbage => garbage = true,
            }
            if garbage && self.announced.is_some() {
                // The header stays announced; its body is the next frame.
                return Ok(Some(Frame::Garbage));
            }
        }
        let length = self.announced.take().unwrap_or(0);
        let mut body = Vec::new();
        let read = (&mut self.input)
            .take(length as u64)
            .read_to_end(&mut body)
            .await?;
        Ok((read == length).then_some(Frame::Body(body)))
    }

    /// A line with its end. Of an overlong one, only the last part: a header may stand there.
    async fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        loop {
            let read = (&mut self.input)
                .take(MAX_LINE_BYTES as u64)
                .read_until(b'\n', &mut line)
                .await?;
            if read == 0 || line.ends_with(b"\n") {
                return Ok((!line.is_empty()).then_some(line));
            }
            if line.len() > MAX_LINE_BYTES {
                line.drain(..line.len() - MAX_LINE_BYTES);
                // Whatever is cut, the rest is not the start of a line.
                line[0] = b'?';
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Line {
    Length { bytes: usize, after_garbage: bool },
    OtherHeader,
    Blank,
    Garbage,
}

impl Line {
    fn parse(line: &[u8]) -> Self {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Self::Blank;
        }
        // A header may stand at the end of a line of garbage: the rest of a body whose length was
        // given too small has no line end of its own.
        let found = line
            .windows(CONTENT_LENGTH.len())
            .rposition(|window| window.eq_ignore_ascii_case(CONTENT_LENGTH));
        if let Some(at) = found {
            let value = line[at + CONTENT_LENGTH.len()..].trim_ascii();
            let bytes = std::str::from_utf8(value)
                .ok()
                .and_then(|digits| digits.parse().ok())
                .filter(|bytes| *bytes <= MAX_BODY_BYTES);
            return match bytes {
                Some(bytes) => Self::Length {
                    bytes,
                    after_garbage: at > 0,
                },
                None => Self::Garbage,
            };
        }
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        if name.len() < line.len() && !name.is_empty() && name.iter().all(is_name) {
            Self::OtherHeader
        } else {
            Self::Garbage
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::BufReader;

    use super::*;

    fn frames(input: &[u8], capacity: usize) -> Vec<Frame> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut frames = Frames::new(BufReader::with_capacity(capacity, input));
            let mut all = Vec::new();
            while let Some(frame) = frames.next().await.unwrap() {
                all.push(frame);
            }
            all
        })
    }

    fn check(input: &str, expected: &[&str]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|body| match *body {
                "?" => Frame::Garbage,
                body => Frame::Body(body.as_bytes().to_vec()),
            })
            .collect();
        for capacity in [1, 7, 8192] {
            assert_eq!(frames(input.as_bytes(), capacity), expected, "{input:?}");
        }
    }

    #[test]
    fn bodies_are_found_and_the_rest_is_skipped() {
        check("Content-Length: 2\r\n\r\n{}", &["{}"]);
        check("content-length:2\n\n{}", &["{}"]);
        check(
            "Content-Type: application/vscode-jsonrpc\r\nContent-Length: 2\r\n\r\n{}\r\nContent-Length: 2\r\n\r\n[]",
            &["{}", "[]"],
        );
        check("noise\nContent-Length: 2\r\n\r\n{}", &["?", "{}"]);
        check("noiseContent-Length: 2\r\n\r\n{}", &["?", "{}"]);
        // A length that is too small leaves the rest of the body before the next header.
        check(
            "Content-Length: 1\r\n\r\n{}Content-Length: 2\r\n\r\n[]",
            &["{", "?", "[]"],
        );
        check(
            "Content-Length: two\r\n\r\n{}Content-Length: 2\r\n\r\n[]",
            &["?", "[]"],
        );
        check(
            "Content-Length: 99999999999999999999\r\n\r\n{}Content-Length: 2\r\n\r\n[]",
            &["?", "[]"],
        );
        check(
            "Content-Type: x\r\n\r\nContent-Length: 2\r\n\r\n{}",
            &["?", "{}"],
        );
        check("Content-Length: -1\r\n\r\n", &["?"]);
        check("Content-Length: 5\r\n\r\n{}", &[]);
        check("Content-Length: 0\r\n\r\n", &[""]);
        check("", &[]);
    }

    #[test]
    fn a_long_run_of_garbage_is_one_frame() {
        for count in [4_090, 100_000] {
            for end in ["\n", ""] {
                let garbage = "x".repeat(count);
                let input = format!("{garbage}{end}Content-Length: 2\r\n\r\n{{}}");
                check(&input, &["?", "{}"]);
            }
        }
        check(&"x".repeat(5_000), &["?"]);
    }

    proptest! {
        #[test]
        fn any_bytes_end(input in proptest::collection::vec(any::<u8>(), 0..400)) {
            let found = frames(&input, 16);
            prop_assert!(found.len() <= input.len());
        }

        #[test]
        fn bodies_survive_any_noise_between(
            noise in "[^\n]{0,40}",
            body in "[ -~]{0,60}",
        ) {
            prop_assume!(!noise.to_ascii_lowercase().contains("content-length"));
            let input = format!("{noise}\nContent-Length: {}\r\n\r\n{body}", body.len());
            let found = frames(input.as_bytes(), 16);
            prop_assert_eq!(found.last(), Some(&Frame::Body(body.into_bytes())));
        }
    }
}
