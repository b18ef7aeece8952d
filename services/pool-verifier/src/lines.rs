//! Lines off a socket, with the cap held while reading: a peer that never sends a newline costs
//! at most one line's memory.

use std::io;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};

/// Bytes read from the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// A line without its newline.
    Whole(Vec<u8>),
    /// More than the cap without a newline; the rest of that line is skipped.
    TooLong,
    /// The peer is done. A last line without newline is not one.
    End,
}

/// Reads lines of at most `bytes_max` bytes.
#[derive(Debug)]
pub struct LineReader<R> {
    reader: BufReader<R>,
    line: Vec<u8>,
    bytes_max: usize,
    is_skipping: bool,
}

impl<R: AsyncRead + Unpin> LineReader<R> {
    /// Lines of `reader`.
    pub fn new(reader: R, bytes_max: usize) -> LineReader<R> {
        let reader = BufReader::with_capacity(READ_BYTES, reader);
        LineReader { reader, line: Vec::new(), bytes_max, is_skipping: false }
    }

    /// Wait for bytes and take them. `None` if the line is not complete yet, so that the caller
    /// can tell a slow line from silence.
    ///
    /// Cancelling the future loses nothing.
    ///
    /// # Errors
    /// Those of the socket.
    pub async fn step(&mut self) -> io::Result<Option<Line>> {
        let bytes = self.reader.fill_buf().await?;
        if bytes.is_empty() {
            return Ok(Some(Line::End));
        }
        let newline = bytes.iter().position(|byte| *byte == b'\n');
        let taken = newline.unwrap_or(bytes.len());
        let consumed = newline.map_or(bytes.len(), |at| at + 1);
        let mut step = None;
        if self.is_skipping {
            self.is_skipping = newline.is_none();
        } else if self.line.len() + taken > self.bytes_max {
            self.line = Vec::new();
            self.is_skipping = newline.is_none();
            step = Some(Line::TooLong);
        } else {
            self.line.extend_from_slice(bytes.get(..taken).unwrap_or_default());
            if newline.is_some() {
                step = Some(Line::Whole(std::mem::take(&mut self.line)));
            }
        }
        self.reader.consume(consumed);
        Ok(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(bytes: &[u8], bytes_max: usize) -> Vec<Line> {
        let mut reader = LineReader::new(bytes, bytes_max);
        let mut lines = Vec::new();
        loop {
            match reader.step().await.unwrap() {
                Some(Line::End) => return lines,
                Some(line) => lines.push(line),
                None => {}
            }
        }
    }

    #[tokio::test]
    async fn the_cap_is_exact_and_the_rest_is_skipped() {
        let whole = |text: &str| Line::Whole(text.into());
        assert_eq!(
            lines(b"abc\nabcd\n\nx\ny", 3).await,
            [whole("abc"), Line::TooLong, whole(""), whole("x")]
        );
        let long = vec![b'a'; 3 * READ_BYTES];
        let bytes = [&long[..], b"\nb\n"].concat();
        assert_eq!(lines(&bytes, READ_BYTES).await, [Line::TooLong, whole("b")]);
        assert_eq!(lines(&bytes, long.len()).await.len(), 2);
    }
}
