//! PageRank in pull form, so that the result does not depend on who computes which vertex.
//!
//! One iteration has two halves. The CPU's half (`between`) divides each rank by its vertex's
//! out-degree and sums what the vertices without out-edges hold. The other half (`kernel`)
//! gives every vertex its new rank from the contributions of its in-neighbours, in the order of
//! its list. Both halves do the same floating-point operations in the same order whatever the
//! number of threads and whoever computes, so two runs agree bit for bit.

mod between;
pub(crate) mod kernel;

use crate::graph::Graph;
use crate::interrupt::{Interrupted, Stop};
use between::Sums;
use kernel::SliceOperands;

/// The share of a rank that follows the edges; the rest goes to all vertices alike.
pub(crate) const DAMPING: f64 = 0.85;

/// CPU threads that work at the same time.
pub(crate) const THREADS: usize = 2;

/// Vertices whose sums are added up before they are added to the whole, and after which a thread
/// looks whether to stop. Fixed, so that sums do not depend on the number of threads.
const CHUNK: usize = 4096;

/// What the second half of an iteration reads and writes.
pub(crate) struct Step<'a> {
    /// For each vertex, the vertices with an edge to it.
    pub(crate) in_neighbours: &'a [Vec<u32>],
    /// For each vertex, what it gives to each vertex that it has an edge to.
    pub(crate) contributions: &'a [f64],
    /// What every vertex gets whatever its in-neighbours.
    pub(crate) base: f64,
    /// For each vertex, its new rank: to be written.
    pub(crate) ranks: &'a mut [f64],
}

/// The state after an iteration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Ranks {
    /// One rank per vertex; their sum is 1, up to rounding.
    pub(crate) ranks: Vec<f64>,
    /// The sum of the absolute changes that the last iteration made.
    pub(crate) change: f64,
}

/// Runs so many iterations. `step` does the second half of each. `watch` is told the iterations
/// done and the change that the last one made. An error from either ends the run.
pub(crate) fn run<E>(
    graph: &Graph,
    iterations: u32,
    mut step: impl FnMut(Step<'_>) -> Result<(), E>,
    mut watch: impl FnMut(u32, f64) -> Result<(), E>,
) -> Result<Ranks, E> {
    let Some(vertices) = count(graph) else {
        return Ok(Ranks { ranks: Vec::new(), change: 0.0 });
    };
    let mut ranks = vec![1.0 / vertices; graph.vertices()];
    let mut next = ranks.clone();
    let mut contributions = vec![0.0; graph.vertices()];
    let mut sums = between::share(graph, &ranks, &ranks, &mut contributions, THREADS);
    for done in 1..=iterations {
        let base = base(vertices, sums);
        step(Step {
            in_neighbours: &graph.in_neighbours,
            contributions: &contributions,
            base,
            ranks: &mut next,
        })?;
        sums = between::share(graph, &ranks, &next, &mut contributions, THREADS);
        std::mem::swap(&mut ranks, &mut next);
        watch(done, sums.change)?;
    }
    Ok(Ranks { ranks, change: sums.change })
}

/// The same by CPU threads alone: what every device must equal. `watch` is told the iterations
/// done.
pub(crate) fn cpu_only(
    graph: &Graph,
    iterations: u32,
    stop: &Stop,
    watch: &mut dyn FnMut(u32),
) -> Result<Ranks, Interrupted> {
    run(
        graph,
        iterations,
        |step| cpu_step(step, stop, THREADS),
        |done, _| {
            watch(done);
            stop.check()
        },
    )
}

/// The second half of an iteration by CPU threads.
pub(crate) fn cpu_step(step: Step<'_>, stop: &Stop, threads: usize) -> Result<(), Interrupted> {
    let Step { in_neighbours, contributions, base, ranks } = step;
    let operands = SliceOperands { in_neighbours, contributions };
    let share = between::share_of(ranks.len(), threads);
    std::thread::scope(|scope| {
        let workers: Vec<_> = ranks
            .chunks_mut(share)
            .enumerate()
            .map(|(part, ranks)| {
                scope.spawn(move || rank_slice(operands, part * share, base, ranks, stop))
            })
            .collect();
        workers.into_iter().try_for_each(between::joined)
    })
}

fn rank_slice(
    mut operands: SliceOperands<'_>,
    first: usize,
    base: f64,
    ranks: &mut [f64],
    stop: &Stop,
) -> Result<(), Interrupted> {
    for (position, rank) in ranks.iter_mut().enumerate() {
        if position.is_multiple_of(CHUNK) {
            stop.check()?;
        }
        let Ok(new) = kernel::rank_of(&mut operands, first + position, base);
        *rank = new;
    }
    Ok(())
}

/// The number of vertices; none for the empty graph.
fn count(graph: &Graph) -> Option<f64> {
    let vertices = u32::try_from(graph.vertices()).unwrap_or(u32::MAX);
    (vertices > 0).then_some(f64::from(vertices))
}

/// What every vertex gets: its share of what does not follow edges, and of the ranks of vertices
/// that have no edges to follow.
fn base(vertices: f64, sums: Sums) -> f64 {
    (1.0 - DAMPING) / vertices + DAMPING * (sums.dangling / vertices)
}

#[cfg(test)]
mod tests;
