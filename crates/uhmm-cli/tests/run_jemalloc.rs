//! `uhmm run` of a program whose allocator is jemalloc.

#[path = "run/heap.rs"]
mod heap;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[test]
fn alone() {
    heap::work();
}

#[test]
fn under_chaos_its_heap_is_as_it_should() {
    heap::under_chaos("jemalloc");
}
