//! What the calls cost on this machine. Not a check: run it with `--ignored --nocapture`, in a
//! release build.

use std::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use uhmm::{
    mm::{Access, Look, Mm, linux::Linux},
    units::{PageNumber, PageRange},
};

use crate::memory::Memory;
use crate::support::{all, empty, fact};

/// The middle one of many times that `call` took, each after `prepare`.
fn middle(rounds: usize, mut prepare: impl FnMut(), mut call: impl FnMut()) -> Duration {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            prepare();
            let start = Instant::now();
            call();
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[rounds / 2]
}

fn costs(linux: &Linux) {
    for pages in [1, 16, 64, 512] {
        let rounds = 2000;
        let memory = Memory::trapped(linux, pages);
        let staging = linux.map_staging(pages).unwrap();
        let (cpu, stage) = (memory.page(0), staging.start());
        let give_back = || _ = linux.give(stage, cpu, pages);
        let take_away = || _ = linux.take(cpu, stage, pages);
        let take =
            middle(rounds, give_back, || assert_eq!(linux.take(cpu, stage, pages), all(pages)));
        let give =
            middle(rounds, take_away, || assert_eq!(linux.give(stage, cpu, pages), all(pages)));
        // From here the holes to fill are of a second staging, so that they are had without events.
        let holes = linux.map_staging(pages).unwrap();
        take_away();
        let clear = || empty(linux, holes).unwrap();
        let to = holes.start();
        let copy = middle(rounds, clear, || assert_eq!(linux.copy(stage, to, pages), all(pages)));
        let own = middle(rounds, clear, || {
            assert_eq!(linux.zero(to, pages, Access::Write), all(pages));
        });
        let fill = || _ = linux.zero(to, pages, Access::Write);
        let empty = middle(rounds, fill, || empty(linux, holes).unwrap());
        let shared = middle(rounds, clear, || {
            assert_eq!(linux.zero(to, pages, Access::Read), all(pages));
        });
        clear();
        let poison = middle(rounds, clear, || assert_eq!(linux.poison(to, pages), all(pages)));
        let mut out = vec![Look::Hole; pages];
        let look = middle(rounds, || (), || linux.look(stage, &mut out).unwrap());
        eprintln!(
            "{pages:4} pages: take {take:?} give {give:?} copy {copy:?} zero write {own:?} read \
             {shared:?} poison {poison:?} look {look:?} empty {empty:?}"
        );
    }
    let changing = middle(5000, || (), || assert!(!linux.changing()));
    let clock_only = middle(5000, || (), || ());
    eprintln!("changing {changing:?}; the clock itself {clock_only:?}");
    let memory = Memory::new(linux, 4);
    let mapping = middle(5000, || (), || assert!(linux.mapping_at(memory.page(2)).is_ok()));
    eprintln!("the area of a page {mapping:?}");
    let trap =
        middle(1000, || linux.untrap(memory.pages).unwrap(), || linux.trap(memory.pages).unwrap());
    let one = middle(
        50,
        || (),
        || {
            linux.areas(memory.pages, &mut |_| core::ops::ControlFlow::Continue(())).unwrap();
        },
    );
    let everything = PageRange::new(PageNumber(0), linux.page_limit());
    let every = middle(
        50,
        || (),
        || linux.areas(everything, &mut |_| core::ops::ControlFlow::Continue(())).unwrap(),
    );
    let exclusions = middle(50, || (), || linux.exclusions(true, &mut |_, _| ()).unwrap());
    eprintln!("trap {trap:?}; areas {one:?}; all areas {every:?}; exclusions {exclusions:?}");
    let big = Memory::new(linux, 1 << 16);
    big.fill();
    let one = middle(
        10,
        || (),
        || {
            linux.areas(big.pages, &mut |_| core::ops::ControlFlow::Continue(())).unwrap();
        },
    );
    eprintln!("an area of 65536 pages that are there: areas {one:?}");
    big.unmap();
    let one = middle(
        100,
        || (),
        || linux.areas(big.pages, &mut |_| core::ops::ControlFlow::Continue(())).unwrap(),
    );
    eprintln!("where there is no area: areas {one:?}");
}

#[test]
#[ignore = "a measurement"]
fn costs_alone_and_with_a_busy_thread() {
    fact("costs_alone_and_with_a_busy_thread", |linux| {
        eprintln!("alone");
        costs(linux);
        eprintln!("with another thread busy");
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    spin_loop();
                }
            });
            costs(linux);
            over.store(true, Ordering::Relaxed);
        });
    });
}
