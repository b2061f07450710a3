//! Graph500's Kronecker generator.
//!
//! A graph of scale *s* has 2^*s* vertices and is drawn from 16 · 2^*s* edges. Each bit of an
//! edge's two ends falls into one quadrant of the adjacency matrix, with the probabilities
//! A = 0.57, B = 0.19, C = 0.19, D = 0.05; then vertices are renamed by a random permutation.
//! The edges are undirected: each counts in both directions. Loops are dropped and duplicates
//! merged, so a graph has somewhat fewer edges than were drawn. Scale and seed fix the graph.

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::builder::Builder;
use super::error::GraphError;
use super::{Graph, Watch, index};
use crate::memory;

/// Edges drawn per vertex.
const EDGE_FACTOR: u64 = 16;

/// The largest scale, bounded by what 32 bits can number.
pub(crate) const MAX_SCALE: u32 = 31;

/// How often [`Watch`] is called: once per this many edges.
const STRIDE: u64 = 1 << 16;

/// Cumulated probabilities of the quadrants A, B, C, as fractions of 2^32.
const QUADRANTS: [u32; 3] = [percent(57), percent(57 + 19), percent(57 + 19 + 19)];

#[expect(clippy::cast_possible_truncation, reason = "below 100 % it is below 2^32")]
const fn percent(of_one: u64) -> u32 {
    assert!(of_one < 100);
    ((of_one << 32) / 100) as u32
}

/// How many edges the generator draws for a scale: the last number that `watch` is told.
pub(crate) const fn drawn_edges(scale: u32) -> u64 {
    EDGE_FACTOR << scale
}

/// Draws a graph of scale 0 to [`MAX_SCALE`]. `watch` is told the edges drawn.
pub(crate) fn generate(scale: u32, seed: u64, watch: Watch<'_>) -> Result<Graph, GraphError> {
    let vertices = 1_u32 << scale.min(MAX_SCALE);
    let total = drawn_edges(scale);
    check_memory(scale, vertices)?;
    let mut builder =
        Builder::with_vertices(vertices).map_err(|source| GraphError::Scale { scale, source })?;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
    let names = permutation(vertices, &mut random);
    for drawn in 0..total {
        if drawn.is_multiple_of(STRIDE) {
            watch(drawn)?;
        }
        let (one, other) = edge(scale, &mut random);
        let (one, other) = (names[index(one)], names[index(other)]);
        builder.add_edge(one, other);
        builder.add_edge(other, one);
    }
    Ok(builder.finish(&mut |_| watch(total))?)
}

/// Refuses a scale for which the lists, with the slack of growing vectors, would not fit.
fn check_memory(scale: u32, vertices: u32) -> Result<(), GraphError> {
    let entries = 2 * drawn_edges(scale);
    let slack = 2;
    let needed = u64::from(vertices) * (Builder::BYTES_PER_VERTEX + size_of::<u32>() as u64)
        + entries * slack * size_of::<u32>() as u64;
    memory::check(needed).map_err(|source| GraphError::Scale { scale, source })
}

/// The two ends of a random edge, before vertices are renamed.
fn edge(scale: u32, random: &mut impl Rng) -> (u32, u32) {
    let [a, b, c] = QUADRANTS;
    let (mut row, mut column) = (0, 0);
    for _ in 0..scale {
        let draw = random.next_u32();
        row = row << 1 | u32::from(draw >= b);
        column = column << 1 | u32::from((a..b).contains(&draw) || draw >= c);
    }
    (row, column)
}

/// A random order of the numbers below `count`.
fn permutation(count: u32, random: &mut impl Rng) -> Vec<u32> {
    let mut names: Vec<u32> = (0..count).collect();
    for last in (1..count).rev() {
        names.swap(index(last), index(below(last + 1, random)));
    }
    names
}

/// A random number below `bound`: the high half of a product, whose bias of at most 2^-32 · bound
/// does not matter here.
fn below(bound: u32, random: &mut impl Rng) -> u32 {
    let product = u64::from(random.next_u32()) * u64::from(bound);
    (product >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupted;

    fn generated(scale: u32, seed: u64) -> Graph {
        generate(scale, seed, &mut |_| Ok(())).unwrap()
    }

    #[test]
    fn seed_and_scale_fix_the_graph() {
        assert_eq!(generated(8, 5), generated(8, 5));
        assert_ne!(generated(8, 5), generated(8, 6));
    }

    #[test]
    fn edges_go_both_ways_and_lists_are_simple() {
        let graph = generated(9, 1);
        assert_eq!(graph.vertices(), 512);
        for (to, list) in graph.in_neighbours.iter().enumerate() {
            assert!(list.is_sorted_by(|one, next| one < next));
            assert_eq!(list.len(), index(graph.out_degree[to]));
            for &from in list {
                assert_ne!(index(from), to);
                let back = u32::try_from(to).unwrap();
                assert!(graph.in_neighbours[index(from)].binary_search(&back).is_ok());
            }
        }
    }

    #[test]
    fn degrees_are_skewed() {
        let graph = generated(12, 3);
        let mut degrees = graph.out_degree.clone();
        degrees.sort_unstable_by(|one, other| other.cmp(one));
        let top: u64 = degrees[..degrees.len() / 100].iter().map(|&degree| u64::from(degree)).sum();
        // With equal chances one vertex in a hundred would hold one edge in a hundred.
        assert!(top * 8 > graph.edges(), "{top} of {}", graph.edges());
        assert!(degrees.iter().filter(|&&degree| degree == 0).count() > degrees.len() / 20);
    }

    #[test]
    fn quadrants_have_the_probabilities_of_graph500() {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut hits = [[0_u32; 2]; 2];
        for _ in 0..100_000 {
            let (row, column) = edge(1, &mut random);
            hits[index(row)][index(column)] += 1;
        }
        for (got, wanted) in hits.as_flattened().iter().zip([57_000, 19_000, 19_000, 5_000]) {
            assert!(got.abs_diff(wanted) < 700, "{hits:?}");
        }
    }

    #[test]
    fn a_permutation_holds_every_number_once() {
        let mut names = permutation(1000, &mut Xoshiro256PlusPlus::seed_from_u64(9));
        assert!(!names.is_sorted());
        names.sort_unstable();
        assert!(names.iter().copied().eq(0..1000));
    }

    #[test]
    fn stops_when_told() {
        let stopped = generate(4, 1, &mut |_| Err(Interrupted));
        assert!(matches!(stopped, Err(GraphError::Interrupted(_))));
    }
}
