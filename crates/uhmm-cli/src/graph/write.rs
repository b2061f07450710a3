//! Writes graphs as files, so that tests can read them again.

use std::io::{self, Write};

use super::Graph;

/// Writes a general pattern matrix.
pub(super) fn matrix_market(graph: &Graph, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "%%MatrixMarket matrix coordinate pattern general")?;
    writeln!(out, "{0} {0} {1}", graph.vertices(), graph.edges())?;
    for (to, list) in graph.in_neighbours.iter().enumerate() {
        for &from in list {
            writeln!(out, "{} {}", u64::from(from) + 1, to + 1)?;
        }
    }
    Ok(())
}

/// Writes an edge list; vertices without edges are not in it.
pub(super) fn snap(graph: &Graph, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "# FromNodeId\tToNodeId")?;
    for (to, list) in graph.in_neighbours.iter().enumerate() {
        for from in list {
            writeln!(out, "{from}\t{to}")?;
        }
    }
    Ok(())
}
