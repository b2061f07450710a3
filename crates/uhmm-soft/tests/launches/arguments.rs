//! What can be an argument: memory of each kind, elements of each shape.

use std::sync::Arc;

use uhmm_soft::{
    AccessError, Element, RunError,
    zerocopy::{FromBytes, Immutable, IntoBytes},
};

use crate::{Machine, PLACEMENTS, add_one};

#[test]
fn vectors_wherever_they_are_placed() {
    let machine = Machine::start(1 << 20);
    for placement in PLACEMENTS {
        let factors: Vec<u64> = (0..1 << 17).map(|index| index % 7).collect();
        let mut numbers = vec![1_u64; factors.len()];
        machine.place(&factors, placement);
        machine.place(&numbers, placement);
        for round in 0..4_u64 {
            machine
                .device
                .launch(
                    0..factors.len(),
                    |worker, item, (factors, numbers)| {
                        let factor: u64 = factors.get(worker, item)?;
                        let number = numbers.get(worker, item)?;
                        numbers.set(worker, item, number * factor + round)
                    },
                    (&factors[..], &mut numbers[..]),
                )
                .unwrap();
            for number in &mut numbers {
                *number += 1;
            }
        }
        for (number, factor) in numbers.iter().zip(&factors) {
            let expected = (0..4).fold(1, |number, round| number * factor + round + 1);
            assert_eq!(*number, expected, "{placement:?}");
        }
    }
}

static CONSTANTS: [u32; 5000] = [7; 5000];

#[test]
fn stacks_and_constants_wherever_they_are() {
    let machine = Machine::start(1 << 20);
    for adopted in [false, true] {
        if adopted {
            machine.space.adopt_everything().unwrap();
        }
        let numbers: [u32; 4000] = core::array::from_fn(|index| u32::try_from(index).unwrap());
        let mut sums = [0_u32; 4000];
        let add = 5;
        machine
            .device
            .launch(
                0..4000,
                |worker, item, (constants, (numbers, sums))| {
                    let constant: u32 = constants.get(worker, item)?;
                    let number: u32 = numbers.get(worker, item)?;
                    sums.set(worker, item, constant + number + add)
                },
                (&CONSTANTS[..], (&numbers[..], &mut sums[..])),
            )
            .unwrap();
        for (sum, number) in sums.iter().zip(&numbers) {
            assert_eq!(*sum, number + 12);
        }
    }
}

#[test]
fn nothing_and_elements_of_no_size() {
    let machine = Machine::start(1 << 20);
    let mut nothings = [(); 3];
    let mut numbers = [0_u64; 0];
    let device = &machine.device;
    device
        .launch(
            0..1,
            |worker, _, (nothings, numbers)| {
                assert_eq!((nothings.len(), numbers.len(), numbers.is_empty()), (3, 0, true));
                nothings.set(worker, 2, ())?;
                nothings.get(worker, 2)?;
                numbers.read(worker, 0, &mut [])?;
                numbers.write(worker, 0, &[])
            },
            (&mut nothings[..], &mut numbers[..]),
        )
        .unwrap();
    let error = device.launch(0..1, |worker, _, nothings| nothings.get(worker, 3), &nothings[..]);
    let past = AccessError::OutOfBounds { first: 3, count: 1, len: 3 };
    assert_eq!(error, Err(RunError::Item { item: 0, error: past }));
    let error = device.launch(0..1, add_one, &mut numbers[..]);
    let past = AccessError::OutOfBounds { first: 0, count: 1, len: 0 };
    assert_eq!(error, Err(RunError::Item { item: 0, error: past }));
    device.launch(5..5, add_one, &mut numbers[..]).unwrap();
    #[expect(clippy::reversed_empty_ranges, reason = "it is a range without items")]
    device.launch(9..5, add_one, &mut numbers[..]).unwrap();
    device.launch(0..1000, |_, _, ()| Ok(()), ()).unwrap();
}

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, Immutable, IntoBytes)]
#[zerocopy(crate = "uhmm_soft::zerocopy")]
#[repr(C)]
struct Edge {
    to: u64,
    weight: f32,
    kind: [u16; 2],
}

impl Element for Edge {}

#[derive(Clone, Copy, Debug, PartialEq, FromBytes, Immutable, IntoBytes)]
#[zerocopy(crate = "uhmm_soft::zerocopy")]
#[repr(C)]
struct Point([f32; 3]);

impl Element for Point {}

/// Adds elements of one slice to another one by one, and copies them back as slices.
fn goes_there_and_back<T: Element + PartialEq + core::fmt::Debug>(from: &[T]) {
    const ITEM: usize = 300;
    let machine = Machine::start(1 << 20);
    let zero = T::new_zeroed();
    for placement in PLACEMENTS {
        let mut there = vec![zero; from.len()];
        let mut back = vec![zero; from.len()];
        for values in [from, &there, &back] {
            machine.place(values, placement);
        }
        let (there, back) = (&mut there[1..], &mut back[..]);
        machine
            .device
            .launch(
                0..from.len() - 1,
                |worker, item, (from, there)| {
                    let value: T = from.get(worker, item + 1)?;
                    there.set(worker, item, value)
                },
                (from, &mut *there),
            )
            .unwrap();
        machine
            .device
            .launch(
                0..there.len().div_ceil(ITEM),
                |worker, item, (there, back)| {
                    let mut part = [T::new_zeroed(); ITEM];
                    let first = item * ITEM;
                    let part = &mut part[..ITEM.min(there.len() - first)];
                    there.read(worker, first, part)?;
                    back.write(worker, first + 1, part)
                },
                (&*there, &mut *back),
            )
            .unwrap();
        assert_eq!((&there[..], &back[1..]), (&from[1..], &from[1..]), "{placement:?}");
    }
}

#[test]
fn elements_of_each_shape() {
    fn some<T>(value: impl Fn(u16) -> T) -> Vec<T> {
        (0..10_000).map(value).collect()
    }
    // From an odd byte on, and over the edges of pages.
    goes_there_and_back(&some(|index| index.to_ne_bytes()[0])[3..]);
    goes_there_and_back(&some(|index| [1, index.to_ne_bytes()[0], 3]));
    goes_there_and_back(&some(|index| index)[1..]);
    goes_there_and_back(&some(|index| -f32::from(index))[1..]);
    goes_there_and_back(&some(|index| f64::from(index).sqrt())[1..]);
    goes_there_and_back(&some(|index| i128::from(index) << 80));
    goes_there_and_back(&some(|index| [index; 5]));
    goes_there_and_back(&some(|index| Point([index.into(), 0.5, -1.0])));
    goes_there_and_back(&some(|index| Edge {
        to: index.into(),
        weight: index.into(),
        kind: [index, 1],
    }));
}

#[test]
fn what_a_call_owns_is_given_up() {
    let machine = Machine::start(1 << 20);
    let shared: Arc<[u64]> = Arc::from([3, 4, 5]);
    let boxed: Box<[u64]> = Box::from([0; 3]);
    machine
        .device
        .launch(
            0..3,
            |worker, item, (shared, boxed, vector)| {
                let number: u64 = shared.get(worker, item)?;
                boxed.set(worker, item, number)?;
                vector.set(worker, item, number)
            },
            (shared.clone(), boxed, vec![0_u64; 3]),
        )
        .unwrap();
    assert_eq!(Arc::strong_count(&shared), 1);
}
