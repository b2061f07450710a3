//! What can be wrong with a graph.

use std::io;
use std::path::PathBuf;

use crate::interrupt::Interrupted;
use crate::memory::NotEnoughMemory;

/// A graph could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GraphError {
    /// The file cannot be opened.
    #[error("cannot open the graph file {}: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The content of the file cannot be used.
    #[error("cannot use the graph file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        source: ParseError,
    },
    /// A generated graph would be too big.
    #[error("cannot generate a graph of scale {scale}: {source}; choose a smaller --scale")]
    Scale {
        /// The scale asked for.
        scale: u32,
        /// By how much it is too big.
        source: NotEnoughMemory,
    },
    /// The user asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// What is wrong with the content of a graph file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ParseError {
    /// One line is wrong.
    #[error("line {line}: {fault}")]
    Line {
        /// Its number, from 1.
        line: u64,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// The file ends before all promised entries.
    #[error("it ends after {found} of the {promised} entries that its size line promises")]
    TooFewEntries {
        /// Entries according to the size line.
        promised: u64,
        /// Entries in the file.
        found: u64,
    },
    /// A Matrix Market file ends before the line with its size.
    #[error("it ends before the size line (rows, columns, entries)")]
    NoSizeLine,
    /// The graph is empty.
    #[error("it has no vertices")]
    NoVertices,
    /// The file starts as gzip files do.
    #[error("it is compressed; decompress it first, with gunzip")]
    Compressed,
    /// The size line asks for more than the machine has.
    #[error(transparent)]
    NotEnoughMemory(#[from] NotEnoughMemory),
    /// Reading failed.
    #[error("cannot read on after line {line}: {source}")]
    Read {
        /// Lines read so far.
        line: u64,
        /// What the operating system said.
        source: io::Error,
    },
    /// The user asked to stop.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
}

/// What is wrong with one line. Text from the file is escaped and cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineFault {
    /// The line is longer than any sensible one.
    #[error("longer than {limit} bytes")]
    TooLong {
        /// The longest line that is read.
        limit: usize,
    },
    /// A column is not there.
    #[error("column {column} ({what}) is missing")]
    MissingColumn {
        /// Its number, from 1.
        column: usize,
        /// What it should hold.
        what: &'static str,
    },
    /// There is text after the last column.
    #[error("unexpected \"{text}\" after the last column")]
    ExtraText {
        /// The first word too many.
        text: String,
    },
    /// A column is not an integer, or not one of 64 bits.
    #[error("column {column} ({what}) is \"{text}\", not an integer in range")]
    BadInteger {
        /// Its number, from 1.
        column: usize,
        /// What it should hold.
        what: &'static str,
        /// What it holds.
        text: String,
    },
    /// A column is not a number.
    #[error("column {column} (value) is \"{text}\", not a number")]
    BadNumber {
        /// Its number, from 1.
        column: usize,
        /// What it holds.
        text: String,
    },
    /// An index is not that of a row or column.
    #[error("column {column} ({what}) is {index}, outside 1 to {size}")]
    OutOfRange {
        /// Its number, from 1.
        column: usize,
        /// What it should hold.
        what: &'static str,
        /// The index.
        index: u64,
        /// The largest index there is.
        size: u32,
    },
    /// There are more entries than promised.
    #[error("one entry more than the {promised} that the size line promises")]
    TooManyEntries {
        /// Entries according to the size line.
        promised: u64,
    },
    /// A word of the first line is none that can be read.
    #[error("cannot read a Matrix Market file of {what} \"{text}\", only {known}")]
    Unsupported {
        /// Which word.
        what: &'static str,
        /// The word.
        text: String,
        /// The words that can be read.
        known: &'static str,
    },
    /// The matrix is not square, so its rows and columns are not the same vertices.
    #[error("the matrix has {rows} rows and {columns} columns; a graph needs as many of both")]
    NotSquare {
        /// Rows according to the size line.
        rows: u64,
        /// Columns according to the size line.
        columns: u64,
    },
    /// There are more vertices than 32 bits can number.
    #[error("{vertices} vertices are more than the {} that can be numbered", u32::MAX)]
    TooManyVertices {
        /// How many there are.
        vertices: u64,
    },
}
