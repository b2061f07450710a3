//! Graph files: what is read is a simple graph, and written as a file it is read as the same again.
#![no_main]
#![allow(dead_code, unused_imports, reason = "of the program's files only the parsers are used")]

use std::fmt::Write;

use libfuzzer_sys::fuzz_target;

#[path = "../../../../crates/uhmm-cli/src/graph/mod.rs"]
mod graph;
#[path = "../../../../crates/uhmm-cli/src/memory.rs"]
mod memory;

/// Nobody interrupts.
mod interrupt {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
    #[error("interrupted")]
    pub(crate) struct Interrupted;
}

fn read(bytes: &[u8]) -> Option<graph::Graph> {
    graph::parse(bytes, &mut |_| Ok(())).ok()
}

fuzz_target!(|data: &[u8]| {
    // A file may say that there are as many vertices as the machine has memory for.
    let is_long = |word: &[u8]| word.iter().filter(|byte| byte.is_ascii_digit()).count() > 5;
    if data.starts_with(b"%") && data.split(u8::is_ascii_whitespace).any(is_long) {
        return;
    }
    let Some(graph) = read(data) else { return };
    let vertices = graph.in_neighbours.len();
    assert_eq!(graph.out_degree.len(), vertices);
    let mut degree = vec![0; vertices];
    let mut text = String::from("%%MatrixMarket matrix coordinate pattern general\n");
    let edges: usize = graph.in_neighbours.iter().map(Vec::len).sum();
    writeln!(text, "{vertices} {vertices} {edges}").expect("a string grows");
    for (to, list) in graph.in_neighbours.iter().enumerate() {
        assert!(list.is_sorted_by(|one, other| one < other), "neighbours are in order, each once");
        for &from in list {
            assert_ne!(from as usize, to);
            degree[from as usize] += 1;
            writeln!(text, "{} {}", from + 1, to + 1).expect("a string grows");
        }
    }
    assert_eq!(graph.out_degree, degree);
    assert!(read(text.as_bytes()).is_some_and(|again| again == graph));
});
