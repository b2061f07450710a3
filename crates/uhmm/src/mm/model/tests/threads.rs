//! Several threads: faults served, changes waited for. Each runs once here, with tight and with
//! loose changes, and in many orders under the schedule explorer.

#[cfg(shuttle)]
use shuttle::thread;
#[cfg(not(shuttle))]
use std::thread;

use super::{super::*, *};
use crate::{
    mm::{Access, Backing, Message, Mm as _, Stop},
    sync::{
        atomic::{AtomicBool, Ordering},
        thread_id,
    },
};

/// Runs `scenario` on models of both kinds, in many orders where those can be chosen.
fn explore(scenario: impl Fn(Model) + Send + Sync + 'static) {
    let both = move || {
        for loose_changes in [false, true] {
            scenario(Model::new(ModelOptions { loose_changes, ..Default::default() }));
        }
    };
    #[cfg(shuttle)]
    shuttle::check_random(both, 300);
    #[cfg(not(shuttle))]
    both();
}

/// Runs `program` on a thread of its own.
fn run<R: Send + 'static>(
    model: &Model,
    program: impl FnOnce(&Model) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    let model = model.clone();
    thread::spawn(move || program(&model))
}

/// Waits for messages and reads them.
fn read(model: &Model) -> Vec<Message> {
    model.wait(None);
    let mut messages = [Message::Unmapped(range(0, 0)); 8];
    let count = model.read(&mut messages);
    messages[..count].to_vec()
}

/// Waits until as many messages are read.
fn read_all(model: &Model, count: usize) -> Vec<Message> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(read(model));
    }
    all
}

/// A hole of a trapped area, whose message is read.
fn faulted<R: Send + 'static>(
    model: &Model,
    program: impl FnOnce(&Model) -> R + Send + 'static,
) -> thread::JoinHandle<R> {
    map(model, range(0, 4));
    model.trap(range(0, 4)).unwrap();
    let program = run(model, program);
    assert!(matches!(read(model)[..], [Message::Fault { page: PageNumber(1), .. }]));
    program
}

#[test]
fn a_load_waits_for_its_page() {
    explore(|model| {
        map(&model, range(0, 4));
        model.trap(range(0, 4)).unwrap();
        let loader = run(&model, |model| (thread_id(), load(model, PageNumber(1))));
        let messages = read(&model);
        assert_eq!(model.read(&mut [Message::Unmapped(range(0, 0))]), 0, "read once");
        assert_eq!(model.waiting(range(0, 4)), 1);
        let zeroed = model.zero(PageNumber(0), 4, Access::Write);
        assert_eq!((zeroed.pages, zeroed.stop), (4, None));
        let (thread, byte) = loader.join().unwrap();
        let page = PageNumber(1);
        assert_eq!(messages, [Message::Fault { page, access: Access::Read, thread }]);
        assert_eq!(byte, 0);
    });
}

#[test]
fn every_way_of_filling_wakes() {
    explore(|model| {
        map(&model, range(0, 4));
        model.trap(range(0, 4)).unwrap();
        let staging = model.map_staging(2).unwrap().start();
        assert_eq!(model.zero(staging, 2, Access::Write).stop, None);
        let program: Vec<_> = (0..3)
            .map(|page| {
                run(&model, move |model| model.store(address(model, PageNumber(page)), &[1]))
            })
            .collect();
        read_all(&model, 3);
        assert_eq!(model.give(staging, PageNumber(0), 1).stop, None);
        assert_eq!(model.copy(staging.plus(1), PageNumber(1), 1).stop, None);
        assert_eq!(model.poison(PageNumber(2), 1).stop, None);
        let results: Vec<_> = program.into_iter().map(|program| program.join().unwrap()).collect();
        let address = address(&model, PageNumber(2));
        assert_eq!(results, [Ok(()), Ok(()), Err(Signal::Bus(address))]);
    });
}

#[test]
fn a_fill_of_a_page_that_is_there_wakes() {
    explore(|model| {
        let loader = faulted(&model, |model| load(model, PageNumber(1)));
        // As a kernel that reports a page as refused and wakes nobody has left it.
        model.held().pages.set_zeroed(PageNumber(1), pages::PageState::OWN);
        let done = model.zero(PageNumber(1), 1, Access::Read);
        assert_eq!(done.stop, Some(Stop::Present));
        assert_eq!(loader.join().unwrap(), 0);
    });
}

#[test]
fn an_unmap_waits_until_it_is_read() {
    explore(|model| {
        map_trapped(&model, range(0, 4));
        map(&model, range(4, 8));
        let returned = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&returned);
        let program = run(&model, move |model| {
            model.unmap(range(6, 7)).unwrap();
            model.unmap(range(2, 6)).unwrap();
            flag.store(true, Ordering::SeqCst);
        });
        model.wait(None);
        assert!(model.changing() && !returned.load(Ordering::SeqCst));
        let stop = |model: &Model, page| model.zero(PageNumber(page), 1, Access::Read).stop;
        assert_eq!(stop(&model, 3), Some(Stop::Changing));
        assert_eq!(stop(&model, 0), Some(Stop::Changing), "the whole address space");
        assert_eq!(model.content(PageNumber(3)), Ok(None), "after the fact");
        assert_eq!(read(&model), [Message::Unmapped(range(2, 6))]);
        program.join().unwrap();
        assert!(!model.changing());
        assert_eq!(stop(&model, 3), Some(Stop::NoArea));
        assert_eq!(stop(&model, 0), Some(Stop::Present));
    });
}

#[test]
fn a_discard_is_told_before_the_pages_go() {
    explore(|model| {
        map_trapped(&model, range(0, 4));
        map_trapped(&model, range(5, 6));
        let program = run(&model, |model| model.discard(range(2, 6)));
        model.wait(None);
        assert!(model.try_load(address(&model, PageNumber(3)), &mut [0]), "still there");
        let staging = model.map_staging(1).unwrap().start();
        let done = model.take(PageNumber(0), staging, 1);
        assert_eq!(done.stop, Some(Stop::Changing));
        let expected = [Message::Discarded(range(2, 4)), Message::Discarded(range(5, 6))];
        assert_eq!(read_all(&model, 2), expected);
        assert_eq!(program.join().unwrap(), Err(NO_MEMORY), "page 4 is not mapped");
        for page in [2, 3, 5] {
            assert_eq!(model.content(PageNumber(page)), Ok(None));
        }
        assert!(!model.changing());
    });
}

#[test]
fn a_move_over_a_mapping_tells_of_both() {
    explore(|model| {
        map_trapped(&model, range(0, 4));
        map_trapped(&model, range(6, 9));
        let program = run(&model, |model| model.remap(range(1, 3), Some(PageNumber(7)), false));
        let expected = [
            Message::Unmapped(range(7, 9)),
            Message::Remapped { from: range(1, 3), to: PageNumber(7) },
            Message::Unmapped(range(1, 3)),
        ];
        assert_eq!(read_all(&model, 3), expected);
        assert_eq!(program.join().unwrap(), Ok(range(7, 9)));
        assert_eq!(load(&model, PageNumber(8)), 2);
        let staging = model.map_staging(2).unwrap().start();
        let done = model.take(PageNumber(7), staging, 2);
        assert_eq!((done.pages, done.stop), (2, None));
        assert_eq!(model.violations(), [], "it is trapped there");
    });
}

#[test]
fn a_move_that_keeps_the_range_tells_of_the_move_alone() {
    explore(|model| {
        map_trapped(&model, range(0, 2));
        let program = run(&model, |model| {
            let kept = model.remap(range(0, 2), None, true);
            (kept, model.remap_and_grow(range(2, 4), 3, Some(PageNumber(8))))
        });
        let expected = [
            Message::Remapped { from: range(0, 2), to: PageNumber(2) },
            Message::Remapped { from: range(2, 4), to: PageNumber(8) },
            Message::Unmapped(range(2, 4)),
        ];
        assert_eq!(read_all(&model, 3), expected);
        assert_eq!(program.join().unwrap(), (Ok(range(2, 4)), Ok(range(8, 11))));
        let zeroed = model.zero(PageNumber(0), 2, Access::Read);
        assert_eq!(zeroed.stop, None, "still trapped");
        assert_eq!(model.zero(PageNumber(10), 1, Access::Read).stop, None, "what grew too");
    });
}

#[test]
fn a_mapping_over_a_range_ends_its_trapping() {
    explore(|model| {
        map_trapped(&model, range(0, 4));
        let program = run(&model, |model| map(model, range(1, 2)));
        assert_eq!(read(&model), [Message::Unmapped(range(1, 2))]);
        program.join().unwrap();
        assert_eq!(load(&model, PageNumber(1)), 0);
        let zeroed = model.zero(PageNumber(1), 1, Access::Read);
        assert_eq!(zeroed.stop, Some(Stop::NoArea));
    });
}

#[test]
fn a_waiter_sleeps_through_changes_until_woken() {
    explore(|model| {
        let loader = faulted(&model, |model| model.load(address(model, PageNumber(1)), &mut [0]));
        let unmapper = run(&model, |model| {
            model.protect(range(0, 4), NONE).unwrap();
            model.unmap(range(0, 4)).unwrap();
        });
        assert_eq!(read(&model), [Message::Unmapped(range(0, 4))]);
        unmapper.join().unwrap();
        assert_eq!(model.waiting(range(0, 4)), 1);
        model.wake(range(1, 2));
        let address = address(&model, PageNumber(1));
        assert_eq!(loader.join().unwrap(), Err(Signal::Segv(address)));
    });
}

#[test]
fn a_waiter_woken_without_its_page_faults_again() {
    explore(|model| {
        let loader = faulted(&model, |model| load(model, PageNumber(1)));
        model.wake(range(0, 4));
        assert_eq!(read(&model).len(), 1);
        model.untrap(range(0, 4)).unwrap();
        assert_eq!(loader.join().unwrap(), 0, "the system's own zeros");
    });
}

#[test]
fn faults_are_read_before_changes() {
    explore(|model| {
        map(&model, range(0, 4));
        map(&model, range(8, 9));
        model.trap(range(0, 4)).unwrap();
        model.trap(range(8, 9)).unwrap();
        let unmapper = run(&model, |model| model.unmap(range(8, 9)));
        model.wait(None);
        let loader = run(&model, |model| load(model, PageNumber(1)));
        while model.waiting(range(0, 4)) == 0 {
            thread::yield_now();
        }
        let mut one = [Message::Unmapped(range(0, 0))];
        assert_eq!(model.read(&mut one), 1);
        assert!(matches!(one[0], Message::Fault { .. }));
        assert_eq!(model.read(&mut one), 1);
        assert_eq!(one, [Message::Unmapped(range(8, 9))]);
        unmapper.join().unwrap().unwrap();
        assert_eq!(model.zero(PageNumber(1), 1, Access::Read).stop, None);
        loader.join().unwrap();
    });
}

#[test]
fn pins_and_locks_wait_as_stores_do() {
    explore(|model| {
        let program = faulted(&model, |model| {
            model.pin(PageNumber(1)).unwrap();
            model.lock(range(0, 1)).unwrap();
        });
        assert_eq!(model.zero(PageNumber(1), 1, Access::Write).stop, None);
        let [Message::Fault { page, access, .. }] = read(&model)[..] else { panic!("no fault") };
        assert_eq!((page, access), (PageNumber(0), Access::Write));
        assert_eq!(model.zero(PageNumber(0), 1, Access::Read).stop, None, "then written");
        program.join().unwrap();
        assert_eq!(model.memory_used(), 2);
    });
}

#[test]
fn a_kick_ends_one_wait() {
    explore(|model| {
        model.kick();
        model.wait(None);
        let waiter = run(&model, |model| model.wait(None));
        model.kick();
        waiter.join().unwrap();
        model.wait(Some(core::time::Duration::from_millis(1)));
        assert_eq!(model.read(&mut []), 0);
    });
}

#[test]
fn changes_of_watched_areas_are_told_as_of_trapped_ones() {
    explore(|model| {
        for (start, backing) in
            [(0, Backing::PrivateAnonymous), (8, Backing::SharedFile), (16, Backing::PrivateFile)]
        {
            let file = model.map(Some(PageNumber(start)), 4, READ_WRITE, backing).unwrap();
            store(&model, file.start(), 1);
            model.watch(file).unwrap();
            let to = PageNumber(start + 32);
            let program = run(&model, move |model| {
                model.discard(PageRange::of(file.start(), 2)).unwrap();
                model.remap(file, Some(to), false).unwrap();
                model.unmap(PageRange::of(to, 1)).unwrap();
            });
            let expected = [
                Message::Discarded(PageRange::of(file.start(), 2)),
                Message::Remapped { from: file, to },
                Message::Unmapped(file),
                Message::Unmapped(PageRange::of(to, 1)),
            ];
            assert_eq!(read_all(&model, 4), expected);
            program.join().unwrap();
        }
    });
}

#[test]
fn no_change_is_missed_as_watched_areas_become_trapped() {
    explore(|model| {
        map(&model, range(0, 4));
        model.watch(range(0, 4)).unwrap();
        let program = run(&model, |model| {
            model.unmap(range(0, 1)).unwrap();
            model.unmap(range(1, 2)).unwrap();
        });
        model.trap(range(2, 4)).unwrap();
        let expected = [Message::Unmapped(range(0, 1)), Message::Unmapped(range(1, 2))];
        assert_eq!(read_all(&model, 2), expected);
        program.join().unwrap();
    });
}

#[test]
fn populating_waits_for_who_serves_it() {
    explore(|model| {
        let program = faulted(&model, |model| {
            let populated = model.populate(range(1, 3), Access::Write);
            (populated.pages, populated.failure)
        });
        assert_eq!(model.zero(PageNumber(1), 2, Access::Write).stop, None);
        assert_eq!(program.join().unwrap(), (2, None));
    });
}
