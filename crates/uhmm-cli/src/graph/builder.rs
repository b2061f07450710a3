//! Collects edges in any order and makes a simple graph of them.

use super::{Graph, Watch, index};
use crate::interrupt::Interrupted;
use crate::memory::{self, NotEnoughMemory};

/// How often [`Watch`] is called: once per this many edges or vertices.
const STRIDE: usize = 1 << 16;

/// A graph under construction.
#[derive(Default)]
pub(super) struct Builder {
    in_neighbours: Vec<Vec<u32>>,
}

impl Builder {
    /// Heap bytes for a vertex without edges, with the four numbers that PageRank and its check
    /// keep for it.
    pub(super) const BYTES_PER_VERTEX: u64 =
        (size_of::<Vec<u32>>() + size_of::<u32>() + 4 * size_of::<f64>()) as u64;

    /// A graph of so many vertices and no edges yet.
    pub(super) fn with_vertices(vertices: u32) -> Result<Self, NotEnoughMemory> {
        memory::check(u64::from(vertices) * Self::BYTES_PER_VERTEX)?;
        Ok(Self { in_neighbours: vec![Vec::new(); index(vertices)] })
    }

    /// Appends a vertex.
    pub(super) fn add_vertex(&mut self) {
        self.in_neighbours.push(Vec::new());
    }

    /// Adds an edge between two vertices that exist; one from a vertex to itself is dropped.
    pub(super) fn add_edge(&mut self, from: u32, to: u32) {
        if from != to {
            self.in_neighbours[index(to)].push(from);
        }
    }

    /// Sorts the lists, merges duplicates, gives back what the vectors reserved in vain. `watch`
    /// is told the number of vertices done.
    pub(super) fn finish(self, watch: Watch<'_>) -> Result<Graph, Interrupted> {
        let mut in_neighbours = self.in_neighbours;
        in_neighbours.shrink_to_fit();
        let mut out_degree = vec![0_u32; in_neighbours.len()];
        let mut done = 0;
        for lists in in_neighbours.chunks_mut(STRIDE) {
            for list in lists.iter_mut() {
                list.sort_unstable();
                list.dedup();
                list.shrink_to_fit();
                for &from in &*list {
                    out_degree[index(from)] += 1;
                }
            }
            done += lists.len() as u64;
            watch(done)?;
        }
        Ok(Graph { in_neighbours, out_degree })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makes_a_simple_graph_with_ascending_lists() {
        let mut builder = Builder::with_vertices(2).unwrap();
        builder.add_vertex();
        for (from, to) in [(2, 0), (1, 0), (2, 0), (1, 1), (0, 2)] {
            builder.add_edge(from, to);
        }
        let graph = builder.finish(&mut |_| Ok(())).unwrap();
        assert_eq!(graph.in_neighbours, [vec![1, 2], vec![], vec![0]]);
        assert_eq!(graph.out_degree, [1, 1, 1]);
        assert_eq!((graph.vertices(), graph.edges()), (3, 3));
        let headers = 3 * size_of::<Vec<u32>>() as u64;
        assert_eq!(graph.bytes(), headers + 3 * 4 + 3 * 4);
    }

    #[test]
    fn refuses_more_vertices_than_memory_holds() {
        if memory::check(u64::from(u32::MAX) * Builder::BYTES_PER_VERTEX).is_err() {
            assert!(Builder::with_vertices(u32::MAX).is_err());
        }
    }
}
