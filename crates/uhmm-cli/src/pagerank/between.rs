//! What CPU threads do between two steps: read the new ranks and write the contributions.

use std::thread::ScopedJoinHandle;

use super::CHUNK;
use crate::graph::Graph;

/// Sums over vertices.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Sums {
    /// The ranks of the vertices without out-edges.
    pub(super) dangling: f64,
    /// The absolute differences between previous and present ranks.
    pub(super) change: f64,
}

/// Writes every vertex's contribution: its rank, divided among its out-edges. The sums are formed
/// chunk by chunk and the chunks added in their order, so that the number of threads has no part
/// in them.
pub(super) fn share(
    graph: &Graph,
    previous: &[f64],
    ranks: &[f64],
    contributions: &mut [f64],
    threads: usize,
) -> Sums {
    let share = share_of(ranks.len(), threads);
    std::thread::scope(|scope| {
        let workers: Vec<_> = contributions
            .chunks_mut(share)
            .zip(ranks.chunks(share))
            .zip(previous.chunks(share))
            .zip(graph.out_degree.chunks(share))
            .map(|(((contributions, ranks), previous), out_degree)| {
                scope.spawn(move || share_slice(out_degree, previous, ranks, contributions))
            })
            .collect();
        workers.into_iter().flat_map(joined).fold(Sums::default(), |total, chunk| Sums {
            dangling: total.dangling + chunk.dangling,
            change: total.change + chunk.change,
        })
    })
}

/// How many vertices each of so many threads gets: whole chunks, and at least one.
pub(super) fn share_of(vertices: usize, threads: usize) -> usize {
    vertices.div_ceil(CHUNK).div_ceil(threads).max(1) * CHUNK
}

/// Waits for a thread and passes its panic on.
pub(super) fn joined<T>(worker: ScopedJoinHandle<'_, T>) -> T {
    worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn share_slice(
    out_degree: &[u32],
    previous: &[f64],
    ranks: &[f64],
    contributions: &mut [f64],
) -> Vec<Sums> {
    contributions
        .chunks_mut(CHUNK)
        .zip(ranks.chunks(CHUNK))
        .zip(previous.chunks(CHUNK))
        .zip(out_degree.chunks(CHUNK))
        .map(|(((contributions, ranks), previous), out_degree)| {
            share_chunk(out_degree, previous, ranks, contributions)
        })
        .collect()
}

fn share_chunk(
    out_degree: &[u32],
    previous: &[f64],
    ranks: &[f64],
    contributions: &mut [f64],
) -> Sums {
    let mut sums = Sums::default();
    let vertices = contributions.iter_mut().zip(ranks).zip(previous).zip(out_degree);
    for (((contribution, &rank), &previous), &degree) in vertices {
        if degree == 0 {
            *contribution = 0.0;
            sums.dangling += rank;
        } else {
            *contribution = rank / f64::from(degree);
        }
        sums.change += (rank - previous).abs();
    }
    sums
}
