//! Lines of bounded length out of a byte stream, and the columns in a line.

use std::io::{BufRead, Read};
use std::str::FromStr;

use super::Watch;
use super::error::{LineFault, ParseError};

/// The longest line that is read, its end included. Matrix Market allows 1024 bytes; comments in
/// the wild are longer.
pub(super) const LINE_LIMIT: usize = 64 * 1024;

/// How often [`Watch`] is called: once per this many lines.
const STRIDE: u64 = 1 << 14;

/// Reads lines, counts them, and reports the bytes read so far.
pub(super) struct Lines<'a, R> {
    input: R,
    buffer: Vec<u8>,
    line: u64,
    bytes: u64,
    watch: Watch<'a>,
}

impl<'a, R: BufRead> Lines<'a, R> {
    pub(super) fn new(input: R, watch: Watch<'a>) -> Self {
        Self { input, buffer: Vec::new(), line: 0, bytes: 0, watch }
    }

    /// Reads the next line; false at the end of the input.
    pub(super) fn advance(&mut self) -> Result<bool, ParseError> {
        if self.line.is_multiple_of(STRIDE) {
            (self.watch)(self.bytes)?;
        }
        self.buffer.clear();
        let limit = LINE_LIMIT as u64 + 1;
        let got = self
            .input
            .by_ref()
            .take(limit)
            .read_until(b'\n', &mut self.buffer)
            .map_err(|source| ParseError::Read { line: self.line, source })?;
        if got == 0 {
            return Ok(false);
        }
        self.line += 1;
        self.bytes += got as u64;
        if got > LINE_LIMIT {
            return Err(self.fault(LineFault::TooLong { limit: LINE_LIMIT }));
        }
        Ok(true)
    }

    /// The line that [`Lines::advance`] read, its end included.
    pub(super) fn current(&self) -> &[u8] {
        &self.buffer
    }

    /// The columns of the current line.
    pub(super) fn columns(&self) -> Columns<'_> {
        Columns { rest: &self.buffer, column: 0 }
    }

    /// An error about the current line.
    pub(super) fn fault(&self, fault: LineFault) -> ParseError {
        ParseError::Line { line: self.line, fault }
    }

    /// The watcher, for what follows the reading.
    pub(super) fn into_watch(self) -> Watch<'a> {
        self.watch
    }
}

/// The columns of a line: what white space separates.
pub(super) struct Columns<'a> {
    rest: &'a [u8],
    column: usize,
}

impl<'a> Columns<'a> {
    /// The next column, which should hold `what`.
    pub(super) fn word(&mut self, what: &'static str) -> Result<&'a [u8], LineFault> {
        self.column += 1;
        self.next().ok_or(LineFault::MissingColumn { column: self.column, what })
    }

    /// The next column, an integer.
    pub(super) fn integer<T: FromStr>(&mut self, what: &'static str) -> Result<T, LineFault> {
        let word = self.word(what)?;
        parse(word).ok_or_else(|| LineFault::BadInteger {
            column: self.column,
            what,
            text: shown(word),
        })
    }

    /// The next column, a real number. Infinities and what is not a number pass: values are not
    /// used.
    pub(super) fn number(&mut self) -> Result<f64, LineFault> {
        let word = self.word("value")?;
        parse(word).ok_or_else(|| LineFault::BadNumber { column: self.column, text: shown(word) })
    }

    /// The next column, an index from 1 to `size`; returned from 0.
    pub(super) fn vertex(&mut self, what: &'static str, size: u32) -> Result<u32, LineFault> {
        let index: u64 = self.integer(what)?;
        match u32::try_from(index) {
            Ok(known) if (1..=size).contains(&known) => Ok(known - 1),
            _ => Err(LineFault::OutOfRange { column: self.column, what, index, size }),
        }
    }

    /// An error if there is another column.
    pub(super) fn end(mut self) -> Result<(), LineFault> {
        match self.next() {
            None => Ok(()),
            Some(word) => Err(LineFault::ExtraText { text: shown(word) }),
        }
    }

    fn next(&mut self) -> Option<&'a [u8]> {
        let line = self.rest.trim_ascii_start();
        if line.is_empty() {
            return None;
        }
        let end = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
        let (word, rest) = line.split_at(end);
        self.rest = rest;
        Some(word)
    }
}

fn parse<T: FromStr>(word: &[u8]) -> Option<T> {
    str::from_utf8(word).ok()?.parse().ok()
}

/// A word of the file, fit for a terminal: bytes that do not print escaped, long ones cut.
pub(super) fn shown(word: &[u8]) -> String {
    const LONGEST: usize = 40;
    let cut = &word[..word.len().min(LONGEST)];
    let ellipsis = if cut.len() < word.len() { "..." } else { "" };
    format!("{}{ellipsis}", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first_fault(input: &[u8]) -> Option<ParseError> {
        let mut watch = |_| Ok(());
        let mut lines = Lines::new(input, &mut watch);
        loop {
            match lines.advance() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(error),
            }
        }
    }

    #[test]
    fn refuses_a_line_without_end_before_it_is_all_read() {
        let mut input = b"fine\n".to_vec();
        input.resize(input.len() + 10 * LINE_LIMIT, b'7');
        let error = first_fault(&input).unwrap();
        assert_eq!(error.to_string(), "line 2: longer than 65536 bytes");
    }

    #[test]
    fn takes_a_line_of_exactly_the_limit() {
        let mut input = vec![b'7'; LINE_LIMIT - 1];
        input.push(b'\n');
        assert!(first_fault(&input).is_none());
        input.insert(0, b'7');
        assert!(first_fault(&input).is_some());
    }

    #[test]
    fn words_are_escaped_and_cut() {
        assert_eq!(shown(b"\xff\x1b[1m"), "\\xff\\x1b[1m");
        assert_eq!(shown(&[b'a'; 50]), format!("{}...", "a".repeat(40)));
    }
}
