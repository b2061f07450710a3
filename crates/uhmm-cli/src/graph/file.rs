//! Graph files: opens one and recognises its format.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use super::error::{GraphError, ParseError};
use super::{Graph, Watch, matrix_market, snap};

/// How gzip files start.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// Bytes of the file read at a time.
const BUFFER: usize = 256 * 1024;

/// Reads the graph in a file: Matrix Market if the first line says so, else a SNAP edge list.
/// `watch` is told the bytes read, then the vertices finished.
pub(crate) fn load(path: &Path, watch: Watch<'_>) -> Result<Graph, GraphError> {
    let file =
        File::open(path).map_err(|source| GraphError::Open { path: path.to_owned(), source })?;
    parse(BufReader::with_capacity(BUFFER, file), watch).map_err(|error| match error {
        ParseError::Interrupted(interrupted) => interrupted.into(),
        source => GraphError::File { path: path.to_owned(), source },
    })
}

/// Reads a graph in either format.
pub(crate) fn parse(mut input: impl BufRead, watch: Watch<'_>) -> Result<Graph, ParseError> {
    let start = input.fill_buf().map_err(|source| ParseError::Read { line: 0, source })?;
    let banner = matrix_market::BANNER;
    if start.starts_with(GZIP) {
        Err(ParseError::Compressed)
    } else if start.get(..banner.len()).is_some_and(|word| word.eq_ignore_ascii_case(banner)) {
        matrix_market::parse(input, watch)
    } else {
        snap::parse(input, watch)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::super::{kronecker, write};
    use super::*;

    fn read(bytes: &[u8]) -> Result<Graph, ParseError> {
        parse(bytes, &mut |_| Ok(()))
    }

    fn generated(scale: u32, seed: u64) -> Graph {
        kronecker::generate(scale, seed, &mut |_| Ok(())).unwrap()
    }

    /// What numbering vertices by first appearance makes of a graph written as an edge list.
    fn renumbered(graph: &Graph) -> Vec<Vec<u32>> {
        let mut numbers = HashMap::new();
        let mut lists: Vec<Vec<u32>> = Vec::new();
        let mut number = |vertex: usize, lists: &mut Vec<Vec<u32>>| {
            let next = lists.len();
            *numbers.entry(vertex).or_insert_with(|| {
                lists.push(Vec::new());
                next
            })
        };
        for (to, list) in graph.in_neighbours.iter().enumerate() {
            for &from in list {
                let from = number(super::super::index(from), &mut lists);
                let to = number(to, &mut lists);
                lists[to].push(u32::try_from(from).unwrap());
            }
        }
        for list in &mut lists {
            list.sort_unstable();
        }
        lists
    }

    #[test]
    fn says_when_a_file_is_compressed() {
        assert!(matches!(read(b"\x1f\x8b\x08\x00"), Err(ParseError::Compressed)));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let _ = read(&bytes);
        }

        #[test]
        fn near_misses_never_panic(
            banner in any::<bool>(),
            body in "[0-9 \t\n%#.eE+-]{0,300}",
            tail in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let head = "%%MatrixMarket matrix coordinate real symmetric\n";
            let mut bytes = if banner { head.as_bytes().to_vec() } else { Vec::new() };
            bytes.extend_from_slice(body.as_bytes());
            bytes.extend_from_slice(&tail);
            let _ = read(&bytes);
        }

        #[test]
        fn matrix_market_round_trip(scale in 1_u32..7, seed in any::<u64>()) {
            let graph = generated(scale, seed);
            let mut bytes = Vec::new();
            write::matrix_market(&graph, &mut bytes).unwrap();
            prop_assert_eq!(read(&bytes).unwrap(), graph);
        }

        #[test]
        fn snap_round_trip(scale in 2_u32..7, seed in any::<u64>()) {
            let graph = generated(scale, seed);
            let mut bytes = Vec::new();
            write::snap(&graph, &mut bytes).unwrap();
            prop_assert_eq!(read(&bytes).unwrap().in_neighbours, renumbered(&graph));
        }
    }
}
