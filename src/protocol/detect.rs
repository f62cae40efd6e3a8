//! Tells LSP from MCP by the first byte that a client sends, without taking it away.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Messages framed by `Content-Length` headers.
    Lsp,
    /// One JSON object a line.
    Mcp,
}

/// Why it cannot be told what the client speaks.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// The input ended before its first byte.
    #[error(
        "standard input ended before a message came. Start tandem from an editor or an MCP host, \
         or run `tandem --help`."
    )]
    Closed,
    /// The first byte belongs to neither protocol.
    #[error(
        "the first byte on standard input is {0:?}, and neither LSP (`Content-Length: ..`) nor MCP \
         (`{{..}}`) begins so. Check what the client sends, or say `tandem lsp` or `tandem mcp`."
    )]
    Unknown(char),
    /// The input could not be read.
    #[error("standard input could not be read: {0}. Check how the client starts tandem.")]
    Io(#[from] io::Error),
}

/// Looks at the first byte that is not blank. Blank bytes before it are dropped, which neither
/// protocol minds; the byte itself stays for the protocol's own reader.
///
/// # Errors
/// [`DetectError`] when there is no such byte, or it belongs to neither protocol.
pub async fn detect<R: AsyncBufRead + Unpin>(input: &mut R) -> Result<Protocol, DetectError> {
    loop {
        let buffer = input.fill_buf().await?;
        if buffer.is_empty() {
            return Err(DetectError::Closed);
        }
        let blank = buffer
            .iter()
            .take_while(|byte| byte.is_ascii_whitespace())
            .count();
        match buffer.get(blank) {
            None => input.consume(blank),
            Some(b'{') => {
                input.consume(blank);
                return Ok(Protocol::Mcp);
            }
            Some(b'C' | b'c') => {
                input.consume(blank);
                return Ok(Protocol::Lsp);
            }
            Some(&byte) => return Err(DetectError::Unknown(char::from(byte))),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, BufReader};

    use super::*;

    async fn check(input: &str, expected: Option<Protocol>, left: &str) {
        // A buffer of one byte makes every byte its own read.
        for capacity in [1, 64] {
            let mut reader = BufReader::with_capacity(capacity, input.as_bytes());
            let found = detect(&mut reader).await;
            assert_eq!(found.ok(), expected, "{input:?}");
            let mut rest = String::new();
            reader.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, left, "{input:?}");
        }
    }

    #[tokio::test]
    async fn the_first_byte_decides_and_stays() {
        check("{\"id\":1}", Some(Protocol::Mcp), "{\"id\":1}").await;
        check(" \r\n\t{}", Some(Protocol::Mcp), "{}").await;
        check(
            "Content-Length: 2",
            Some(Protocol::Lsp),
            "Content-Length: 2",
        )
        .await;
        check(
            "\ncontent-length: 2",
            Some(Protocol::Lsp),
            "content-length: 2",
        )
        .await;
        check("", None, "").await;
        check(" \n", None, "").await;
    }

    #[tokio::test]
    async fn anything_else_is_an_error_with_the_next_step() {
        let error = detect(&mut "hello".as_bytes()).await.unwrap_err();
        assert!(matches!(error, DetectError::Unknown('h')));
        assert!(error.to_string().contains("tandem lsp"), "{error}");
        let error = detect(&mut "".as_bytes()).await.unwrap_err();
        assert!(error.to_string().contains("--help"), "{error}");
    }
}
