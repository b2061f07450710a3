//! Accesses in place: what they do, where they are refused, and for whom they wait.

use super::{super::*, *};
use crate::{
    mm::{Access, Accessor, Message, Refused, Width},
    sync::atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
    testing::{alone, explore, spawn},
};

const VALUE: u64 = 0x8182_8384_8586_8788;

fn model(late_refusals: bool) -> Model {
    Model::new(ModelOptions { late_refusals, ..Default::default() })
}

/// Runs `body` with an accessor of the calling thread.
fn with_accessor<R>(model: &Model, body: impl FnOnce(&Accessor) -> R) -> R {
    let accessor = model.open_accessor().unwrap();
    let result = body(&accessor);
    model.close_accessor(accessor);
    result
}

fn load_word(model: &Model, accessor: &Accessor, page: usize) -> Result<u64, Refused> {
    let address = address(model, PageNumber(page));
    // SAFETY: the model's own accessor, and an aligned address.
    unsafe { model.load_in_place(accessor, address, Width::Eight) }
}

/// Every access of a page; whether each was made.
fn all(model: &Model, accessor: &Accessor, page: usize) -> [bool; 6] {
    let at = address(model, PageNumber(page));
    let width = Width::Four;
    // SAFETY: as in `load_word`.
    unsafe {
        [
            model.load_in_place(accessor, at, width).is_ok(),
            model.copy_in_place(accessor, at + 3, &mut [0; 2]).is_ok(),
            model.store_in_place(accessor, at, width, 1).is_ok(),
            model.compare_exchange_in_place(accessor, at, width, 1, 1).is_ok(),
            model.fetch_add_in_place(accessor, at, width, 0).is_ok(),
            model.write_in_place(accessor, at + 3, &[1; 2]).is_ok(),
        ]
    }
}

const MADE: [bool; 6] = [true; 6];
const REFUSED: [bool; 6] = [false; 6];

#[test]
fn each_width_reaches_its_bytes_alone() {
    alone(|| {
        let model = model(false);
        map(&model, range(0, 2));
        for width in [Width::One, Width::Two, Width::Four, Width::Eight] {
            with_accessor(&model, |accessor| {
                let at = 8;
                let part = width.part_of(VALUE);
                let above = !width.part_of(u64::MAX);
                // SAFETY: as in `load_word`.
                unsafe {
                    let word = || model.load_in_place(accessor, at, Width::Eight).unwrap();
                    model.store_in_place(accessor, at, Width::Eight, u64::MAX).unwrap();
                    model.store_in_place(accessor, at, width, VALUE).unwrap();
                    assert_eq!(word(), above | part);
                    assert_eq!(model.load_in_place(accessor, at, width), Ok(part));
                    let exchange = |expected, new| {
                        model.compare_exchange_in_place(accessor, at, width, expected, new)
                    };
                    assert_eq!(exchange(1, 2), Ok(Err(part)));
                    assert_eq!(exchange(VALUE, 5), Ok(Ok(part)));
                    assert_eq!(model.fetch_add_in_place(accessor, at, width, u64::MAX), Ok(5));
                    assert_eq!(word(), above | 4);
                }
            });
        }
        with_accessor(&model, |accessor| {
            let edge = address(&model, PageNumber(1)) - 3;
            let mut out = [0; 6];
            // SAFETY: as in `load_word`.
            unsafe {
                model.write_in_place(accessor, edge, &[1, 2, 3, 4, 5, 6]).unwrap();
                model.copy_in_place(accessor, edge, &mut out).unwrap();
            }
            assert_eq!(out, [1, 2, 3, 4, 5, 6]);
        });
    });
}

#[test]
fn what_the_program_could_not_touch_is_refused() {
    alone(|| {
        let model = model(false);
        map(&model, range(0, 6));
        with_accessor(&model, |accessor| {
            assert_eq!(all(&model, accessor, 7), REFUSED, "no area");
            assert_eq!(all(&model, accessor, 0), MADE, "a hole, as the program would fill it");
            model.protect(range(1, 2), READ_ONLY).unwrap();
            assert_eq!(all(&model, accessor, 1), [true, true, false, false, false, false]);
            model.protect(range(2, 3), NONE).unwrap();
            assert_eq!(all(&model, accessor, 2), REFUSED);
            store(&model, PageNumber(3), 7);
            assert!(model.swap_out(PageNumber(3)));
            assert_eq!(load_word(&model, accessor, 3), Ok(0x0707_0707_0707_0707));
            model.share_by_fork(range(3, 4));
            assert_eq!(all(&model, accessor, 3), MADE);
            model.set_memory_limit(Some(0));
            assert_eq!(all(&model, accessor, 4)[2..], [false; 4]);
            model.set_memory_limit(None);
            model.trap(range(5, 6)).unwrap();
            assert_eq!(all(&model, accessor, 5), REFUSED, "a trapped hole");
            assert_eq!(model.waiting(range(5, 6)), 0);
            assert_eq!(model.poison(PageNumber(5), 1).stop, None);
            assert_eq!(all(&model, accessor, 5), REFUSED, "a mark");
        });
    });
}

/// Reads what there is.
fn read(model: &Model) -> Vec<Message> {
    let mut messages = [Message::Unmapped(range(0, 0)); 8];
    let count = model.read(&mut messages);
    messages[..count].to_vec()
}

#[test]
fn a_trapped_hole_is_refused_when_it_is_read_and_served_later() {
    explore(|| {
        let model = model(true);
        map(&model, range(0, 2));
        model.trap(range(0, 2)).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let device = {
            let (model, over) = (model.clone(), Arc::clone(&over));
            spawn(move || {
                let result = with_accessor(&model, |accessor| load_word(&model, accessor, 1));
                over.store(true, Release);
                result
            })
        };
        let program = {
            let model = model.clone();
            spawn(move || load(&model, PageNumber(1)))
        };
        let mut told = Vec::new();
        while !over.load(Acquire) || told.is_empty() {
            told.extend(read(&model));
            crate::sync::yield_now();
        }
        assert_eq!(device.join().unwrap(), Err(Refused));
        assert!(matches!(told[..], [Message::Fault { page: PageNumber(1), .. }]), "{told:?}");
        assert_eq!(model.waiting(range(0, 2)), 1, "the program");
        assert_eq!(model.zero(PageNumber(1), 1, Access::Read).stop, None);
        assert_eq!(program.join().unwrap(), 0);
        with_accessor(&model, |accessor| assert_eq!(load_word(&model, accessor, 1), Ok(0)));
    });
}

#[test]
fn an_access_that_waits_goes_on_where_its_page_comes() {
    explore(|| {
        let model = model(true);
        map(&model, range(0, 2));
        model.trap(range(0, 2)).unwrap();
        let device = {
            let model = model.clone();
            spawn(move || with_accessor(&model, |accessor| all(&model, accessor, 1)))
        };
        while model.waiting(range(0, 2)) == 0 {
            crate::sync::yield_now();
        }
        model.wake(range(0, 2));
        assert_eq!(model.zero(PageNumber(1), 1, Access::Read).stop, None);
        assert_eq!(device.join().unwrap(), MADE);
        assert_eq!(read(&model), []);
    });
}
