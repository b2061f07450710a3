//! Matrix Market files: `matrix coordinate pattern|real|integer
//! general|symmetric|skew-symmetric`.
//!
//! The entry in row *i* and column *j* is the edge from vertex *i* to vertex *j*; of a symmetric
//! or skew-symmetric matrix, the edge back as well. Values are checked and not used: an entry is
//! an edge even where its value is zero. Entries above the diagonal of a symmetric matrix, which
//! the format does not allow, are read all the same.

use std::io::BufRead;

use super::error::{LineFault, ParseError};
use super::lines::{Columns, Lines, shown};
use super::{Graph, Watch, builder::Builder};

/// What the first line of every Matrix Market file starts with.
pub(super) const BANNER: &[u8] = b"%%MatrixMarket";

#[derive(Clone, Copy)]
enum Field {
    Pattern,
    Real,
    Integer,
}

#[derive(Clone, Copy)]
struct Banner {
    field: Field,
    both_directions: bool,
}

struct Size {
    vertices: u32,
    entries: u64,
}

/// Reads a Matrix Market file. `watch` is told the bytes read, then the vertices finished.
pub(super) fn parse(input: impl BufRead, watch: Watch<'_>) -> Result<Graph, ParseError> {
    let mut lines = Lines::new(input, watch);
    if !lines.advance()? {
        return Err(ParseError::NoSizeLine);
    }
    let banner = read_banner(lines.columns()).map_err(|fault| lines.fault(fault))?;
    if !next_content(&mut lines)? {
        return Err(ParseError::NoSizeLine);
    }
    let size = read_size(lines.columns()).map_err(|fault| lines.fault(fault))?;
    if size.vertices == 0 {
        return Err(ParseError::NoVertices);
    }
    let mut builder = Builder::with_vertices(size.vertices)?;
    let mut found = 0;
    while next_content(&mut lines)? {
        if found == size.entries {
            return Err(lines.fault(LineFault::TooManyEntries { promised: size.entries }));
        }
        let (row, column) = read_entry(lines.columns(), banner.field, size.vertices)
            .map_err(|fault| lines.fault(fault))?;
        builder.add_edge(row, column);
        if banner.both_directions {
            builder.add_edge(column, row);
        }
        found += 1;
    }
    if found < size.entries {
        return Err(ParseError::TooFewEntries { promised: size.entries, found });
    }
    Ok(builder.finish(lines.into_watch())?)
}

/// Advances to the next line that is neither blank nor a comment; false at the end.
fn next_content<R: BufRead>(lines: &mut Lines<'_, R>) -> Result<bool, ParseError> {
    while lines.advance()? {
        let text = lines.current().trim_ascii_start();
        if !text.is_empty() && !text.starts_with(b"%") {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read_banner(mut columns: Columns<'_>) -> Result<Banner, LineFault> {
    expect(&mut columns, "banner", &[("%%MatrixMarket", ())], "%%MatrixMarket")?;
    expect(&mut columns, "object", &[("matrix", ())], "matrix")?;
    expect(&mut columns, "format", &[("coordinate", ())], "coordinate")?;
    let fields = [("pattern", Field::Pattern), ("real", Field::Real), ("integer", Field::Integer)];
    let field = expect(&mut columns, "field", &fields, "pattern, real or integer")?;
    let symmetries = [("general", false), ("symmetric", true), ("skew-symmetric", true)];
    let known = "general, symmetric or skew-symmetric";
    let both_directions = expect(&mut columns, "symmetry", &symmetries, known)?;
    columns.end()?;
    Ok(Banner { field, both_directions })
}

/// Reads a word of the first line, in whatever case it is written.
fn expect<T: Copy>(
    columns: &mut Columns<'_>,
    what: &'static str,
    words: &[(&str, T)],
    known: &'static str,
) -> Result<T, LineFault> {
    let word = columns.word(what)?;
    words
        .iter()
        .find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()))
        .map(|&(_, meaning)| meaning)
        .ok_or_else(|| LineFault::Unsupported { what, text: shown(word), known })
}

fn read_size(mut columns: Columns<'_>) -> Result<Size, LineFault> {
    let rows: u64 = columns.integer("rows")?;
    let matrix_columns: u64 = columns.integer("columns")?;
    let entries = columns.integer("entries")?;
    columns.end()?;
    if rows != matrix_columns {
        return Err(LineFault::NotSquare { rows, columns: matrix_columns });
    }
    let vertices =
        u32::try_from(rows).map_err(|_| LineFault::TooManyVertices { vertices: rows })?;
    Ok(Size { vertices, entries })
}

fn read_entry(
    mut columns: Columns<'_>,
    field: Field,
    vertices: u32,
) -> Result<(u32, u32), LineFault> {
    let row = columns.vertex("row", vertices)?;
    let column = columns.vertex("column", vertices)?;
    match field {
        Field::Pattern => {}
        Field::Real => {
            columns.number()?;
        }
        Field::Integer => {
            columns.integer::<i128>("value")?;
        }
    }
    columns.end()?;
    Ok((row, column))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupted;

    fn read(text: &str) -> Result<Graph, String> {
        parse(text.as_bytes(), &mut |_| Ok(())).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_general_patterns() {
        let graph = read(
            "%%MatrixMarket matrix coordinate pattern general\n\
             % a comment\n\n3 3 4\n1 2\n  % another\n1 2\r\n3\t2\n2 2",
        )
        .unwrap();
        assert_eq!(graph.in_neighbours, [vec![], vec![0, 2], vec![]]);
        assert_eq!(graph.out_degree, [1, 0, 1]);
    }

    #[test]
    fn reads_symmetric_and_skew_symmetric_in_both_directions() {
        for (kind, value) in [
            ("real symmetric", "-1.5e3"),
            ("INTEGER Skew-Symmetric", "-7"),
            ("pattern symmetric", ""),
        ] {
            let text = format!("%%matrixmarket MATRIX coordinate {kind}\n2 2 1\n2 1 {value}\n");
            assert_eq!(read(&text).unwrap().in_neighbours, [vec![1], vec![0]], "{kind}");
        }
    }

    #[test]
    fn names_line_and_fault() {
        let head = "%%MatrixMarket matrix coordinate";
        let cases = [
            (String::new(), "it ends before the size line (rows, columns, entries)"),
            (format!("{head} pattern\n"), "line 1: column 5 (symmetry) is missing"),
            (
                format!("{head} complex general\n"),
                "line 1: cannot read a Matrix Market file of field \"complex\", only pattern, \
                 real or integer",
            ),
            (
                format!("{head} real general more\n"),
                "line 1: unexpected \"more\" after the last column",
            ),
            (
                format!("{head} real general\n% only\n"),
                "it ends before the size line (rows, columns, entries)",
            ),
            (format!("{head} real general\n\n3 3\n"), "line 3: column 3 (entries) is missing"),
            (
                format!("{head} real general\n3 4 1\n"),
                "line 2: the matrix has 3 rows and 4 columns; a graph needs as many of both",
            ),
            (
                format!("{head} real general\n4294967296 4294967296 1\n"),
                "line 2: 4294967296 vertices are more than the 4294967295 that can be numbered",
            ),
            (
                format!("{head} real general\n99999999999999999999 1 1\n"),
                "line 2: column 1 (rows) is \"99999999999999999999\", not an integer in range",
            ),
            (format!("{head} real general\n0 0 0\n"), "it has no vertices"),
            (format!("{head} pattern general\n2 2 1\n1\n"), "line 3: column 2 (column) is missing"),
            (
                format!("{head} pattern general\n2 2 1\n1 x\n"),
                "line 3: column 2 (column) is \"x\", not an integer in range",
            ),
            (
                format!("{head} pattern general\n2 2 1\n-1 1\n"),
                "line 3: column 1 (row) is \"-1\", not an integer in range",
            ),
            (
                format!("{head} pattern general\n2 2 1\n1 2 3\n"),
                "line 3: unexpected \"3\" after the last column",
            ),
            (
                format!("{head} pattern general\n2 2 1\n0 1\n"),
                "line 3: column 1 (row) is 0, outside 1 to 2",
            ),
            (
                format!("{head} pattern general\n2 2 1\n1 3\n"),
                "line 3: column 2 (column) is 3, outside 1 to 2",
            ),
            (format!("{head} real general\n2 2 1\n1 2\n"), "line 3: column 3 (value) is missing"),
            (
                format!("{head} real general\n2 2 1\n1 2 1,5\n"),
                "line 3: column 3 (value) is \"1,5\", not a number",
            ),
            (
                format!("{head} integer general\n2 2 1\n1 2 1.5\n"),
                "line 3: column 3 (value) is \"1.5\", not an integer in range",
            ),
            (
                format!("{head} pattern general\n2 2 1\n1 2\n2 1\n"),
                "line 4: one entry more than the 1 that the size line promises",
            ),
            (
                format!("{head} pattern general\n2 2 3\n1 2\n2 1\n"),
                "it ends after 2 of the 3 entries that its size line promises",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(&text).unwrap_err(), expected, "{text}");
        }
    }

    #[test]
    fn stops_when_told() {
        let text = "%%MatrixMarket matrix coordinate pattern general\n1 1 0\n";
        let stopped = parse(text.as_bytes(), &mut |_| Err(Interrupted));
        assert!(matches!(stopped, Err(ParseError::Interrupted(_))));
    }
}
