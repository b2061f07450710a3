//! Two threads run programs on parts of the arena of their own, while both devices compute on a
//! third part with a result that is known, and all four add to the same counters.

use std::{
    fmt,
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
};

use proptest::{collection, strategy::Strategy};
use uhmm::units::BLOCK_PAGES;

use crate::{
    oracle::Oracle,
    run::{Failure, Machine, Runner, read_all},
    step::{Kind, Make, Step, make, show, step},
    watchdog,
    world::World,
};

/// What the threads work on: parts that share blocks, with a page between two that is never mapped,
/// so that no area is two threads' at once.
const PARTS: [Kind; 2] = [
    Kind { first: 0, pages: BLOCK_PAGES + BLOCK_PAGES / 4, ..Kind::ALL },
    Kind {
        first: BLOCK_PAGES + BLOCK_PAGES / 4 + 1,
        pages: BLOCK_PAGES + BLOCK_PAGES / 4,
        ..Kind::ALL
    },
];

/// What the devices compute on.
const SHARED: Range<usize> = 5 * BLOCK_PAGES / 2 + 2..3 * BLOCK_PAGES;

/// Pages with a number to which the threads and the devices add all the time: one that devices may
/// take, and one that they may not.
const COUNTERS: [usize; 2] = [SHARED.end + 1, SHARED.end + 3];

/// What two threads do, and how large the devices are.
#[derive(Clone)]
pub(crate) struct Programs {
    devices: [Make; 2],
    huge: bool,
    threads: [Vec<Step>; 2],
}

impl fmt::Debug for Programs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, huge, threads } = self;
        writeln!(f, "devices {devices:?}, huge pages: {huge}")?;
        for (number, steps) in threads.iter().enumerate() {
            writeln!(f, "thread {number}, after its part was mapped and adopted:")?;
            show(f, steps)?;
        }
        Ok(())
    }
}

/// Programs of at most `most` steps in all.
pub(crate) fn programs(most: usize) -> impl Strategy<Value = Programs> {
    let device = || make(vec![20, 64, 65, 100, 300, 513, 700]);
    let steps = move |part| collection::vec(step(part), 1..=most / 2);
    (device(), device(), proptest::bool::ANY, steps(PARTS[0]), steps(PARTS[1])).prop_map(
        |(first, second, huge, one, other)| Programs {
            devices: [first, second],
            huge,
            threads: [one, other],
        },
    )
}

/// What the devices do to a number.
const fn next(value: u64) -> u64 {
    value.wrapping_mul(3).wrapping_add(1)
}

fn first_value(page: usize) -> u64 {
    page as u64 * 7
}

/// One device computes, on every other page of the shared part, until told to stop. Answers how
/// often it did.
fn compute<W: World>(
    machine: &Machine<W>,
    number: usize,
    stop: &AtomicBool,
) -> Result<u64, Failure> {
    let place = machine.world.place();
    let mut rounds = 0;
    while !stop.load(Relaxed) || rounds < 3 {
        // SAFETY: the kernel uses its worker alone; the pages of this number are this device's.
        let result = unsafe {
            machine.devices[number].run(SHARED, move |worker, page| {
                if page == SHARED.start {
                    for counter in COUNTERS {
                        worker.fetch_add(place.page(counter), 1_u64)?;
                    }
                }
                if page % 2 == number {
                    let at = place.page(page);
                    let value: u64 = worker.load(at)?;
                    worker.store(at, next(value))?;
                }
                Ok(())
            })
        };
        result.map_err(|error| format!("device {number}: {error}"))?;
        rounds += 1;
        watchdog::alive();
    }
    Ok(rounds)
}

/// The processor adds to the counters.
fn count<W: World>(machine: &Machine<W>) -> Result<(), Failure> {
    COUNTERS.iter().try_for_each(|&counter| {
        let added = machine.world.fetch_add(machine.world.place().page(counter), 1);
        added.map(|_| ()).map_err(|signal| format!("a counter: {signal:?}"))
    })
}

/// Runs two programs and two devices at once.
pub(crate) fn run<W: World>(programs: &Programs) -> Result<(), Failure> {
    watchdog::start();
    let _alone = watchdog::alone(W::ALONE);
    let machine: Machine<W> = Machine::start(programs.devices, programs.huge);
    let place = machine.world.place();
    let prepared = machine.world.map(SHARED);
    if prepared.is_err() {
        return Err(format!("the shared part cannot be mapped: {prepared:?}"));
    }
    for counter in COUNTERS {
        let mapped = machine.world.map(counter..counter + 1);
        mapped.map_err(|error| format!("a counter cannot be mapped: {error}"))?;
    }
    let counter = place.range(&(COUNTERS[0]..COUNTERS[0] + 1));
    machine.space.adopt(counter).map_err(|error| error.to_string())?;
    for page in SHARED {
        let value = first_value(page).to_ne_bytes();
        machine.world.store(place.page(page), &value).map_err(|signal| format!("{signal:?}"))?;
    }
    machine.space.adopt(place.range(&SHARED)).map_err(|error| error.to_string())?;
    let stop = AtomicBool::new(false);
    let running = AtomicU64::new(2);
    let (oracles, rounds) = thread::scope(|scope| {
        let machine = &machine;
        let (stop, running) = (&stop, &running);
        let threads = [0, 1].map(|number| {
            scope.spawn(move || {
                let part = PARTS[number].first..PARTS[number].first + PARTS[number].pages;
                let mut runner = Runner::new(machine, part.clone(), false);
                let begin = [Step::Map(part.clone()), Step::Adopt(part)];
                let mut result = Ok(());
                let mut added = 0;
                for (place, step) in begin.iter().chain(&programs.threads[number]).enumerate() {
                    watchdog::trace(place, step);
                    result = count(machine).and_then(|()| runner.step(step)).map_err(|failure| {
                        format!("thread {number}, step {place}, {step:?}: {failure}")
                    });
                    added += 1;
                    if result.is_err() {
                        break;
                    }
                }
                if running.fetch_sub(1, Relaxed) == 1 {
                    stop.store(true, Relaxed);
                }
                result.map(|()| (runner.oracle, added))
            })
        });
        let devices = [0, 1].map(|number| scope.spawn(move || compute(machine, number, stop)));
        let oracles = threads.map(|thread| thread.join().expect("a thread"));
        (oracles, devices.map(|device| device.join().expect("a device's thread")))
    });
    let balanced = machine.balance();
    machine.end(|world| {
        balanced?;
        let [even, odd] = rounds;
        let rounds = [even?, odd?];
        let mut added = rounds[0] + rounds[1];
        for oracle in oracles {
            let (oracle, steps): (Oracle, u64) = oracle?;
            read_all(world, &oracle)?;
            added += steps;
        }
        for counter in COUNTERS {
            let mut loaded = [0; 8];
            let result = world.load(place.page(counter), &mut loaded);
            let counted = u64::from_ne_bytes(loaded);
            if result.is_err() || counted != added {
                return Err(format!(
                    "the counter at {counter}: {result:?}, {counted}, not {added}"
                ));
            }
        }
        for page in SHARED {
            let mut loaded = [0; 8];
            let result = world.load(place.page(page), &mut loaded);
            let expected = (0..rounds[page % 2]).fold(first_value(page), |value, _| next(value));
            if result.is_err() || u64::from_ne_bytes(loaded) != expected {
                return Err(format!(
                    "page {page} of the shared part: {result:?}, {loaded:?}, not {expected}"
                ));
            }
        }
        Ok(())
    })
}
