//! A directed graph in ordinary heap memory, as a newcomer would write it, and where it can come
//! from: Graph500's generator, Matrix Market files, SNAP edge lists.
//!
//! Whatever the source, the graph is simple: edges from a vertex to itself are dropped, edges
//! that occur more than once count once, and each list of in-neighbours ascends. So the lists do
//! not depend on the order of the input, and neither do the sums that PageRank forms over them.

mod builder;
mod error;
mod file;
pub(crate) mod kronecker;
mod lines;
mod matrix_market;
mod snap;
#[cfg(test)]
mod write;

pub(crate) use error::GraphError;
pub(crate) use file::load;
#[cfg(fuzzing)]
pub(crate) use file::parse;

use crate::interrupt::Interrupted;

/// Told how far reading or generating has come; an error ends the work.
pub(crate) type Watch<'a> = &'a mut dyn FnMut(u64) -> Result<(), Interrupted>;

/// A directed graph: for each vertex the vertices with an edge to it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Graph {
    /// The sources of the edges that end at a vertex, ascending.
    pub(crate) in_neighbours: Vec<Vec<u32>>,
    /// How many edges start at a vertex.
    pub(crate) out_degree: Vec<u32>,
}

impl Graph {
    /// How many vertices there are.
    pub(crate) fn vertices(&self) -> usize {
        self.in_neighbours.len()
    }

    /// How many edges there are.
    pub(crate) fn edges(&self) -> u64 {
        self.out_degree.iter().map(|&degree| u64::from(degree)).sum()
    }

    /// The heap bytes that the graph takes: what its vectors reserve, and the headers of the
    /// vectors inside. What the allocator adds to each block is not counted.
    pub(crate) fn bytes(&self) -> u64 {
        let lists: usize = self.in_neighbours.iter().map(Vec::capacity).sum();
        let bytes = lists * size_of::<u32>()
            + self.in_neighbours.capacity() * size_of::<Vec<u32>>()
            + self.out_degree.capacity() * size_of::<u32>();
        bytes.try_into().unwrap_or(u64::MAX)
    }
}

/// The position of a vertex in the vectors of a graph.
pub(crate) fn index(vertex: u32) -> usize {
    const _: () = assert!(usize::BITS >= u32::BITS);
    vertex as usize
}
