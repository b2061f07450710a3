//! The allocator against an oracle, and what its types promise. No system call but the backing's,
//! so that these run under the interpreter and the schedule explorer too.
#![expect(clippy::disallowed_types, reason = "tests are off the fault path")]

use core::{alloc::Layout, ptr::NonNull};

use allocator_api2::alloc::Allocator;
#[cfg(not(miri))]
use proptest::prelude::*;

use super::{
    EngineBox, EngineMemory, EngineMemoryError, EngineVec, Refused, Urgent, allocator::BIG,
    backing, thread,
};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

const LIMIT: usize = if cfg!(miri) { 1 << 18 } else { 4 << 20 };

/// Runs a test in this world.
fn world(test: impl Fn() + Send + Sync + 'static) {
    #[cfg(shuttle)]
    shuttle::check_random(test, 20);
    #[cfg(not(shuttle))]
    test();
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Allocate { size: usize, align: usize, zeroed: bool },
    Free { which: usize },
    Resize { which: usize, size: usize },
}

/// A block that is in use, all of whose bytes are `fill`.
#[derive(Debug)]
struct Block {
    at: NonNull<u8>,
    layout: Layout,
    fill: u8,
}

impl Block {
    fn fill(&self, from: usize) {
        // SAFETY: the test owns the block.
        unsafe { self.at.add(from).write_bytes(self.fill, self.layout.size() - from) };
    }

    fn check(&self, len: usize) {
        // SAFETY: the test owns the block and has written it.
        let bytes = unsafe { core::slice::from_raw_parts(self.at.as_ptr(), len) };
        assert!(bytes.iter().all(|&byte| byte == self.fill), "content of {self:?}");
    }

    fn overlaps(&self, other: &Self) -> bool {
        let (a, b) = (self.at.addr().get(), other.at.addr().get());
        a < b + other.layout.size() && b < a + self.layout.size()
    }
}

#[cfg(not(miri))]
fn sizes() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0..300_usize, 3 => 300..9000_usize, 1 => 9000..300_000_usize]
}

#[cfg(not(miri))]
fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        5 => (sizes(), 0..17_u32, any::<bool>())
            .prop_map(|(size, align, zeroed)| Step::Allocate { size, align: 1 << align, zeroed }),
        3 => any::<usize>().prop_map(|which| Step::Free { which }),
        2 => (any::<usize>(), sizes()).prop_map(|(which, size)| Step::Resize { which, size }),
    ]
}

/// Plays `steps` on a memory of its own, checking every promise after each.
fn play(steps: &[Step]) {
    let memory = EngineMemory::map(LIMIT).unwrap();
    let mut blocks: Vec<Block> = Vec::new();
    for (fill, step) in (1..=255).cycle().zip(steps) {
        match *step {
            Step::Allocate { size, align, zeroed } => {
                let layout = Layout::from_size_align(size, align).unwrap();
                let got = match memory.obtain(layout, zeroed) {
                    Ok(got) => got,
                    Err(error) => {
                        let used = memory.used();
                        assert_eq!(
                            error,
                            EngineMemoryError::Exhausted { asked: size, used, limit: LIMIT }
                        );
                        continue;
                    }
                };
                assert!(got.len() >= size && got.cast::<u8>().addr().get().is_multiple_of(align));
                let block = Block { at: got.cast(), layout, fill: 0 };
                if zeroed {
                    block.check(size);
                }
                assert!(size == 0 || !blocks.iter().any(|other| block.overlaps(other)));
                let block = Block { fill, ..block };
                block.fill(0);
                blocks.push(block);
            }
            Step::Free { which } if !blocks.is_empty() => {
                let block = blocks.swap_remove(which % blocks.len());
                block.check(block.layout.size());
                // SAFETY: the test owns the block.
                unsafe { memory.deallocate(block.at, block.layout) };
            }
            Step::Resize { which, size } if !blocks.is_empty() => {
                let index = which % blocks.len();
                let block = &mut blocks[index];
                let layout = Layout::from_size_align(size, block.layout.align()).unwrap();
                // SAFETY: the test owns the block.
                if let Ok(moved) = unsafe { memory.resize(block.at, block.layout, layout) } {
                    let kept = size.min(block.layout.size());
                    *block = Block { at: moved.cast(), layout, fill: block.fill };
                    block.check(kept);
                    block.fill(kept);
                    let block = &blocks[index];
                    assert!(blocks.iter().enumerate().all(|(other, with)| {
                        other == index || size == 0 || !block.overlaps(with)
                    }));
                }
            }
            Step::Free { .. } | Step::Resize { .. } => {}
        }
    }
    for block in blocks {
        block.check(block.layout.size());
        // SAFETY: the test owns the block.
        unsafe { memory.deallocate(block.at, block.layout) };
    }
    assert_eq!(memory.used(), 0);
    // All that was freed is one run again, so all of it can be had at once.
    let (runs, _) = memory.with_state(|state| state.pages.free());
    assert!(runs <= 1, "{runs} free runs");
    assert!(memory.obtain(Layout::array::<u8>(LIMIT).unwrap(), false).is_ok());
}

#[test]
#[cfg(not(miri))]
fn any_steps_keep_every_promise() {
    let (cases, most) = if cfg!(shuttle) { (4, 40) } else { (200, 400) };
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in prop::collection::vec(steps(), 1..most))| {
        world(move || play(&steps));
    });
}

/// The interpreter is too slow for `proptest`.
#[test]
fn some_steps_keep_every_promise() {
    let mut number = 1_usize;
    let mut below = |limit| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (number >> 33) % limit
    };
    let steps: Vec<Step> = (0..if cfg!(miri) { 60 } else { 120 })
        .map(|step| match step % 4 {
            0 | 1 => {
                let size = if step % 5 == 0 { below(9000) } else { below(300) };
                Step::Allocate { size, align: 1 << below(14), zeroed: step % 3 == 0 }
            }
            2 => Step::Resize { which: below(1000), size: below(900) },
            _ => Step::Free { which: below(1000) },
        })
        .collect();
    world(move || play(&steps));
}

#[test]
fn exhaustion_is_an_error_with_numbers_and_ends() {
    world(|| {
        let memory = EngineMemory::map(64 << 10).unwrap();
        let mut boxes: Vec<EngineBox<[u64; 32]>> = Vec::new();
        let error = loop {
            match EngineBox::try_new(&memory, [7; 32]) {
                Ok(one) => boxes.push(one),
                Err(error) => break error,
            }
        };
        assert_eq!(
            error,
            EngineMemoryError::Exhausted { asked: 256, used: 64 << 10, limit: 64 << 10 }
        );
        assert!(EngineVec::<u8>::new(memory.clone()).try_push(1).is_err());
        assert!(boxes.pop().is_some_and(|one| *one == [7; 32]));
        let again = EngineBox::try_new(&memory, 1_u8).unwrap_err();
        assert!(matches!(again, EngineMemoryError::Exhausted { asked: 1, .. }), "{again}");
        assert!(EngineBox::try_new(&memory, [7_u64; 32]).is_ok());
        boxes.clear();
        assert_eq!(memory.used(), 0);
        assert!(EngineBox::<[u8]>::try_zeroed(&memory, 64 << 10).is_ok());
    });
}

#[test]
fn limits_that_cannot_be_are_errors() {
    world(|| {
        assert!(matches!(EngineMemory::map(0), Err(EngineMemoryError::Limit { asked: 0, .. })));
        let all = EngineMemory::map(usize::MAX);
        assert!(matches!(all, Err(EngineMemoryError::Limit { asked: usize::MAX, .. })));
        let memory = EngineMemory::map(1).unwrap();
        assert_eq!(memory.limit(), backing::page_size().bytes());
        let much = EngineVec::<u64>::try_with_capacity(&memory, usize::MAX);
        assert!(matches!(much, Err(EngineMemoryError::Exhausted { asked: usize::MAX, .. })));
        let aligned = Layout::from_size_align(1, 1 << 60).unwrap();
        assert!(memory.allocate(aligned).is_err());
    });
}

#[test]
fn a_block_of_zeros_is_zero_after_use() {
    world(|| {
        let memory = EngineMemory::map(1 << 20).unwrap();
        for len in [1, 100, 5000, BIG - 1, BIG, 3 * BIG] {
            for _ in 0..2 {
                let mut zeros = EngineBox::<[u8]>::try_zeroed(&memory, len).unwrap();
                assert!(
                    zeros.iter().step_by(if cfg!(miri) { 127 } else { 1 }).all(|&byte| byte == 0),
                    "{len}"
                );
                zeros.fill(0xff);
            }
        }
    });
}

#[test]
fn a_vector_holds_what_is_put_in() {
    world(|| {
        let memory = EngineMemory::map(1 << 20).unwrap();
        let mut vec = EngineVec::try_with_capacity(&memory, 3).unwrap();
        for number in 0..1000_u32 {
            vec.try_push(number).unwrap();
        }
        assert!(vec.iter().copied().eq(0..1000));
        vec.try_insert(0, 7).unwrap();
        assert_eq!((vec.remove(0), vec.remove(2000), vec.swap_remove(2000)), (Some(7), None, None));
        assert_eq!((vec.swap_remove(0), vec[0], vec.pop()), (Some(0), 999, Some(998)));
        vec.truncate(2);
        vec.try_extend_from_slice(&[5, 6]).unwrap();
        assert_eq!(*vec, [999, 1, 5, 6]);
        assert!(vec.try_reserve(1 << 30).is_err());
        assert_eq!(*vec, [999, 1, 5, 6]);
        assert!(vec.capacity() > 1000);
        vec.try_shrink(0).unwrap();
        assert!(vec.capacity() < 1000 && *vec == [999, 1, 5, 6]);
        vec[0] = 3;
        vec.clear();
        assert!(vec.is_empty() && vec.memory().contains(vec.as_ptr().addr()));
        let mut units = EngineVec::new(memory.clone());
        units.try_extend_from_slice(&[(); 1000]).unwrap();
        assert_eq!(units.len(), 1000);
        drop((vec, units));
        assert_eq!(memory.used(), 0);
    });
}

trait Shape {
    fn corners(&self) -> usize;
}

struct Square<'a>(&'a AtomicUsize);

impl Shape for Square<'_> {
    fn corners(&self) -> usize {
        4
    }
}

impl Drop for Square<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_box_drops_what_it_holds_once() {
    world(|| {
        let dropped = AtomicUsize::new(0);
        let memory = EngineMemory::map(1 << 20).unwrap();
        let boxed = EngineBox::try_new(&memory, Square(&dropped)).unwrap();
        let shape = crate::engine_box_as!(boxed, dyn Shape + '_);
        assert_eq!((shape.corners(), dropped.load(Relaxed)), (4, 0));
        drop(shape);
        assert_eq!(dropped.load(Relaxed), 1);
        let value = EngineBox::into_value(EngineBox::try_new(&memory, Square(&dropped)).unwrap());
        assert_eq!((memory.used(), dropped.load(Relaxed)), (0, 1));
        drop(value);
        let slice = crate::engine_box_as!(EngineBox::try_new(&memory, [1, 2]).unwrap(), [i32]);
        assert_eq!(*slice, [1, 2]);
    });
}

#[test]
fn threads_share_the_memory_and_keep_it_alive() {
    world(|| {
        let memory = EngineMemory::map(LIMIT).unwrap();
        let sum = std::sync::Arc::new(AtomicU64::new(0));
        let threads: Vec<_> = (1..=3_u64)
            .map(|number| {
                let (own, sum) = (memory.clone(), sum.clone());
                thread::spawn(&memory, c"uhmm-test", move |_| {
                    assert!(thread::on_engine_thread());
                    let mut vec = EngineVec::new(own);
                    for _ in 0..if cfg!(any(shuttle, miri)) { 6 } else { 3000 } {
                        vec.try_push(number).unwrap();
                        let other = EngineBox::try_new(vec.memory(), number).unwrap();
                        sum.fetch_add(*other, Relaxed);
                    }
                    assert!(vec.iter().all(|&at| at == number));
                })
                .unwrap()
            })
            .collect();
        assert!(!thread::on_engine_thread());
        assert!(threads.iter().all(|thread| thread.thread_id() != crate::sync::thread_id()));
        drop(threads);
        assert_eq!(sum.load(Relaxed), 6 * if cfg!(any(shuttle, miri)) { 6 } else { 3000 });
        assert_eq!(memory.used(), 0);
    });
}

#[test]
fn urgent_work_has_a_reserve_and_nobody_else() {
    world(|| {
        let memory = EngineMemory::map(64 << 12).unwrap();
        let page = backing::page_size().bytes();
        let usual = memory.limit() / page;
        let take = || EngineVec::<u8>::try_with_capacity(&memory, page);
        let held: Vec<_> = (0..usual).map(|_| take().unwrap()).collect();
        let refused = take().map(drop);
        assert!(matches!(refused, Err(EngineMemoryError::Exhausted { .. })), "{refused:?}");
        let urgent = Urgent::new();
        {
            // They nest.
            let _inner = Urgent::new();
        }
        let mut reserve: Vec<_> = core::iter::from_fn(|| take().ok()).collect();
        assert_eq!(reserve.len(), (usual / 16).max(16));
        for vec in &mut reserve {
            vec.try_extend_from_slice(&[7]).unwrap();
        }
        drop(urgent);
        drop(held);
        assert!(take().is_ok());
        drop(reserve);
        let whole: Vec<_> = core::iter::from_fn(|| take().ok()).collect();
        assert_eq!(whole.len(), usual);
    });
}

#[test]
fn memory_is_refused_once_to_whom_it_is_to_be() {
    world(|| {
        let memory = EngineMemory::map(64 << 12).unwrap();
        let take = || EngineBox::try_new(&memory, 1_u64).is_ok();
        let before = memory.times_asked();
        memory.inject_refusal(2, Refused::Ordinary);
        assert_eq!([take(), take(), take()], [true, false, true]);
        assert_eq!(memory.times_asked(), before + 3);
        let urgent = Urgent::new();
        memory.inject_refusal(1, Refused::Ordinary);
        assert_eq!([take(), take()], [true, true]);
        memory.inject_refusal(1, Refused::Everybody);
        assert_eq!([take(), take()], [false, true]);
        drop(urgent);
        memory.inject_refusal(5, Refused::Everybody);
        assert!(memory.clear_refusal() && !memory.clear_refusal());
    });
}
