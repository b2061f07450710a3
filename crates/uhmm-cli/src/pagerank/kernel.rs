//! The part of PageRank that a device runs: the new rank of one vertex.

use std::convert::Infallible;

use super::DAMPING;
use crate::graph::index;

/// How many neighbours are read at a time.
const BATCH: usize = 64;

/// How the kernel reads what it computes with. The CPU reads slices; a device reads the same
/// addresses through its own page table. Each does the floating-point operations of [`rank_of`]
/// alone.
pub(crate) trait Operands {
    /// A vertex's list of in-neighbours: where it is and how long.
    type List: Copy;
    /// What can go wrong in a read.
    type Error;

    /// Finds the list of a vertex.
    fn list(&mut self, vertex: usize) -> Result<Self::List, Self::Error>;

    /// Copies neighbours from position `from` of a list on, as many as are there and fit, and
    /// returns how many: fewer than fit only at the end of the list.
    fn neighbours(
        &mut self,
        list: Self::List,
        from: usize,
        into: &mut [u32],
    ) -> Result<usize, Self::Error>;

    /// Reads the contribution of a vertex.
    fn contribution(&mut self, vertex: u32) -> Result<f64, Self::Error>;
}

/// The new rank of a vertex: contributions are added in the order of its list.
pub(crate) fn rank_of<O: Operands>(
    operands: &mut O,
    vertex: usize,
    base: f64,
) -> Result<f64, O::Error> {
    let list = operands.list(vertex)?;
    let mut batch = [0; BATCH];
    let mut from = 0;
    let mut sum = 0.0;
    loop {
        let got = operands.neighbours(list, from, &mut batch)?;
        for &neighbour in &batch[..got] {
            sum += operands.contribution(neighbour)?;
        }
        if got < BATCH {
            return Ok(vertex_rank(sum, base));
        }
        from += got;
    }
}

/// The new rank of a vertex, from the sum of its in-neighbours' contributions and from what every
/// vertex gets.
pub(crate) fn vertex_rank(sum_of_contributions: f64, base: f64) -> f64 {
    base + DAMPING * sum_of_contributions
}

/// Reads operands as the CPU does.
#[derive(Clone, Copy)]
pub(crate) struct SliceOperands<'a> {
    /// For each vertex, the vertices with an edge to it.
    pub(crate) in_neighbours: &'a [Vec<u32>],
    /// For each vertex, its contribution.
    pub(crate) contributions: &'a [f64],
}

impl<'a> Operands for SliceOperands<'a> {
    type List = &'a [u32];
    type Error = Infallible;

    fn list(&mut self, vertex: usize) -> Result<&'a [u32], Infallible> {
        Ok(&self.in_neighbours[vertex])
    }

    fn neighbours(
        &mut self,
        list: &'a [u32],
        from: usize,
        into: &mut [u32],
    ) -> Result<usize, Infallible> {
        let rest = &list[from..];
        let got = rest.len().min(into.len());
        into[..got].copy_from_slice(&rest[..got]);
        Ok(got)
    }

    fn contribution(&mut self, vertex: u32) -> Result<f64, Infallible> {
        Ok(self.contributions[index(vertex)])
    }
}
