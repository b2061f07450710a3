//! `uhmm run` of a program whose allocator is mimalloc.

#[path = "run/heap.rs"]
mod heap;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[test]
fn alone() {
    heap::work();
}

#[test]
fn under_chaos_its_heap_is_as_it_should() {
    heap::under_chaos("mimalloc");
}
