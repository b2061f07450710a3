//! PageRank against an independent implementation and known results.

use super::*;
use crate::graph::{index, kronecker};

/// PageRank as the textbook has it: every vertex pushes its rank along its out-edges.
fn push(graph: &Graph, iterations: u32) -> Vec<f64> {
    let vertices = f64::from(u32::try_from(graph.vertices()).unwrap());
    let mut out_edges = vec![Vec::new(); graph.vertices()];
    for (to, list) in graph.in_neighbours.iter().enumerate() {
        for &from in list {
            out_edges[index(from)].push(to);
        }
    }
    let mut ranks = vec![1.0 / vertices; graph.vertices()];
    for _ in 0..iterations {
        let mut next = vec![0.15 / vertices; graph.vertices()];
        for (rank, targets) in ranks.iter().zip(&out_edges) {
            if targets.is_empty() {
                for new in &mut next {
                    *new += 0.85 * rank / vertices;
                }
            }
            for &to in targets {
                next[to] += 0.85 * rank / f64::from(u32::try_from(targets.len()).unwrap());
            }
        }
        ranks = next;
    }
    ranks
}

fn graph(in_neighbours: Vec<Vec<u32>>) -> Graph {
    let mut out_degree = vec![0; in_neighbours.len()];
    for &from in in_neighbours.iter().flatten() {
        out_degree[index(from)] += 1;
    }
    Graph { in_neighbours, out_degree }
}

fn ranks(graph: &Graph, iterations: u32) -> Ranks {
    cpu_only(graph, iterations, &Stop::new(), &mut |_| {}).unwrap()
}

#[track_caller]
fn assert_close(ranks: &[f64], wanted: &[f64]) {
    assert_eq!(ranks.len(), wanted.len());
    for (rank, wanted) in ranks.iter().zip(wanted) {
        assert!((rank - wanted).abs() < 1e-12, "{rank} is not {wanted}");
    }
}

#[test]
fn a_ring_is_level() {
    let ring = graph(vec![vec![3], vec![0], vec![1], vec![2]]);
    let result = ranks(&ring, 30);
    assert_close(&result.ranks, &[0.25; 4]);
    assert!(result.change < 1e-12);
}

#[test]
fn a_star_has_its_closed_form() {
    // Three leaves point at vertex 0, which points at each. With n = 4 and d = 0.85, all ranks
    // but r0 being alike: r0 = (1 - d) / n + d (1 - r0).
    let star = graph(vec![vec![1, 2, 3], vec![0], vec![0], vec![0]]);
    let hub = (0.15 / 4.0 + 0.85) / 1.85;
    let leaf = (1.0 - hub) / 3.0;
    assert_close(&ranks(&star, 300).ranks, &[hub, leaf, leaf, leaf]);
}

#[test]
fn dangling_vertices_share_with_all() {
    // 0 -> 1, and 1 has no way on: r0 = 0.075 + 0.425 r1, r1 = r0 + 0.85 r0.
    let path = graph(vec![vec![], vec![0]]);
    let first = 1.0 / 2.85;
    assert_close(&ranks(&path, 300).ranks, &[first, 1.0 - first]);
}

#[test]
fn equals_the_naive_push_form() {
    for scale in [1, 6, 10, 13] {
        let graph = kronecker::generate(scale, 11, &mut |_| Ok(())).unwrap();
        assert_close(&ranks(&graph, 20).ranks, &push(&graph, 20));
    }
}

#[test]
fn ranks_sum_to_one() {
    let graph = kronecker::generate(12, 2, &mut |_| Ok(())).unwrap();
    let sum: f64 = ranks(&graph, 20).ranks.iter().sum();
    assert!((sum - 1.0).abs() < 1e-9);
}

#[test]
fn threads_change_no_bit() {
    let graph = kronecker::generate(14, 4, &mut |_| Ok(())).unwrap();
    let stop = Stop::new();
    let by = |threads| {
        run(&graph, 3, |step| cpu_step(step, &stop, threads), |_, _| Ok::<_, Interrupted>(()))
            .unwrap()
    };
    let (one, two, five) = (by(1), by(2), by(5));
    for other in [two, five] {
        assert!(one.ranks.iter().zip(&other.ranks).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
    let mut contributions = vec![0.0; graph.vertices()];
    let sums = [1, 2, 3].map(|threads| {
        let initial = vec![0.5; graph.vertices()];
        between::share(&graph, &initial, &one.ranks, &mut contributions, threads)
    });
    assert_eq!(sums[0], sums[1]);
    assert_eq!(sums[0], sums[2]);
}

#[test]
fn the_empty_graph_has_no_ranks() {
    assert!(ranks(&Graph::default(), 5).ranks.is_empty());
}

#[test]
fn stops_between_and_inside_steps() {
    let ring = graph(vec![vec![1], vec![0]]);
    let stop = Stop::new();
    let stopped = run(
        &ring,
        10,
        |_| Ok(()),
        |done, _| {
            if done == 3 {
                stop.set();
            }
            stop.check()
        },
    );
    assert_eq!(stopped, Err(Interrupted));
    assert_eq!(cpu_only(&ring, 10, &stop, &mut |_| panic!("a step ran")), Err(Interrupted));
}
