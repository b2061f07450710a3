//! SNAP edge lists: a line holds the two ids of an edge, `#` starts a comment.
//!
//! Every line is one directed edge, also in files whose comments say that the graph is
//! undirected. Ids are any integers of 64 bits; vertices are numbered densely in the order in
//! which their ids first appear.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::BufRead;

use super::error::{LineFault, ParseError};
use super::lines::{Columns, Lines};
use super::{Graph, Watch, builder::Builder};

/// Reads an edge list. `watch` is told the bytes read, then the vertices finished.
pub(super) fn parse(input: impl BufRead, watch: Watch<'_>) -> Result<Graph, ParseError> {
    let mut lines = Lines::new(input, watch);
    let mut builder = Builder::default();
    let mut vertices = HashMap::new();
    while lines.advance()? {
        let text = lines.current().trim_ascii_start();
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        read_edge(lines.columns())
            .and_then(|(from, to)| {
                let from = number(&mut vertices, &mut builder, from)?;
                let to = number(&mut vertices, &mut builder, to)?;
                builder.add_edge(from, to);
                Ok(())
            })
            .map_err(|fault| lines.fault(fault))?;
    }
    if vertices.is_empty() {
        return Err(ParseError::NoVertices);
    }
    drop(vertices);
    Ok(builder.finish(lines.into_watch())?)
}

fn read_edge(mut columns: Columns<'_>) -> Result<(u64, u64), LineFault> {
    let edge = (columns.integer("source")?, columns.integer("target")?);
    columns.end()?;
    Ok(edge)
}

/// The vertex of an id: a new one if the id is new. At most [`u32::MAX`] vertices, so that their
/// count fits as well.
fn number(
    vertices: &mut HashMap<u64, u32>,
    builder: &mut Builder,
    id: u64,
) -> Result<u32, LineFault> {
    let count = vertices.len() as u64;
    match vertices.entry(id) {
        Entry::Occupied(known) => Ok(*known.get()),
        Entry::Vacant(new) => match u32::try_from(count) {
            Ok(vertex) if vertex < u32::MAX => {
                builder.add_vertex();
                Ok(*new.insert(vertex))
            }
            _ => Err(LineFault::TooManyVertices { vertices: count + 1 }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Graph, String> {
        parse(text, &mut |_| Ok(())).map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_ids_as_they_appear() {
        let graph = read(
            b"# Directed graph\n# FromNodeId\tToNodeId\n18446744073709551615\t7\n\n 7 0\r\n0 7\n0 0\n7 0",
        )
        .unwrap();
        assert_eq!(graph.in_neighbours, [vec![], vec![0, 2], vec![1]]);
        assert_eq!(graph.out_degree, [1, 1, 1]);
    }

    #[test]
    fn names_line_and_fault() {
        let cases: [(&[u8], &str); 7] = [
            (b"", "it has no vertices"),
            (b"# nothing\n\n", "it has no vertices"),
            (b"1 2\n3\n", "line 2: column 2 (target) is missing"),
            (b"1 2 3\n", "line 1: unexpected \"3\" after the last column"),
            (b"1 -2\n", "line 1: column 2 (target) is \"-2\", not an integer in range"),
            (
                b"18446744073709551616 1\n",
                "line 1: column 1 (source) is \"18446744073709551616\", not an integer in range",
            ),
            (
                b"# \xff\xfe\n\xff 1\n",
                "line 2: column 1 (source) is \"\\xff\", not an integer in range",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(read(text).unwrap_err(), expected, "{}", text.escape_ascii());
        }
    }
}
