//! A kernel adds one to a number of one page after the other, in a random order that is the same in each
//! round and on all sides. Each access that misses brings a page and gives one up.
//!
//! There are two floors. One is a loop that does just this: a table says which pages are there, first come,
//! first to go; a miss is one `UFFDIO_MOVE` back and one there. Nobody faults in it: who misses a page is
//! who brings it, in the same function. The other is what stands in for a device where there is none: a thread
//! that faults on what it has not, and a handler that gives up the oldest page, by the same two calls.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use super::super::handler::Handler;
use super::super::memory::{Area, Backing};
use super::super::report::Rows;
use super::super::userfault::Userfault;
use super::super::{BenchError, Context, NewRow};
use super::{DEVICE, Ours, PAGES, expect, few, once_each};

/// Accesses of a round.
const ACCESSES: usize = 4096;

/// Pages at random.
pub(in super::super) fn random(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let context = &few(context);
    // One page more ends the handler.
    let [ours, of_loop, of_handler] =
        Area::filled([PAGES, PAGES, PAGES + 1], context.page, Backing::BasePages)?;
    let ours = Ours::open(ours, context)?;
    let page = context.page;
    let address = ours.area.pointer(0, PAGES).addr().get();
    let by_device = || {
        let start = Instant::now();
        ours.run(1, move |worker, _| {
            for wanted in order() {
                // The second number of the page: the first is its mark.
                let at = address + page.bytes_in(wanted) + size_of::<u64>();
                // SAFETY: as said at `Ours::run`.
                let number: u64 = unsafe { worker.load(at) }?;
                // SAFETY: as above.
                unsafe { worker.store(at, number + 1) }?;
            }
            Ok(())
        })?;
        Ok([per_access(start)])
    };
    let rounds = u64::from(context.rounds_in_all());
    let bare = RefCell::new(Bare::open(of_loop, context)?);
    let by_loop = || {
        let start = Instant::now();
        let mut bare = bare.borrow_mut();
        order().try_for_each(|wanted| bare.add(wanted))?;
        Ok([per_access(start)])
    };
    let beside_loop = once_each(context, &by_device, by_loop)?;
    check("the loop", &bare.into_inner().close()?, rounds)?;
    let handler = Handler::open(of_handler, context)?;
    let Handler { descriptor, system: there, device: away, .. } = &handler;
    let came = RefCell::new(FirstCome::new());
    let answer = move |page| {
        if let Some(oldest) = came.borrow_mut().comes(page) {
            descriptor.move_pages(there, away, oldest, 1)?;
        }
        descriptor.move_pages(away, there, page, 1)
    };
    let beside_handler = handler.served(PAGES, answer, || {
        let by_thread = || {
            let start = Instant::now();
            order().for_each(|page| add_one(there, page));
            Ok([per_access(start)])
        };
        let pair = once_each(context, &by_device, by_thread)?;
        check("the handler", there, rounds)?;
        Ok(pair)
    })?;
    check("ours", &ours.close()?, 2 * rounds)?;
    let bound = Some(1.2);
    rows.add(row("beside a loop", "ns an access", bound).measured(beside_loop));
    rows.add(row("beside a handler of faults", "ns an access", bound).measured(beside_handler));
    Ok(())
}

/// An error where a page has not the number that so many rounds make.
fn check(name: &str, area: &Area, rounds: u64) -> Result<(), BenchError> {
    let mut times = vec![0_u64; PAGES];
    order().for_each(|page| times[page] += rounds);
    for (page, &times) in times.iter().enumerate() {
        area.touch(page)?;
        expect(name, area.word(page, 1).load(Relaxed), times)?;
    }
    Ok(())
}

/// Adds one to the second number of a page.
fn add_one(area: &Area, page: usize) {
    let number = area.word(page, 1);
    number.store(number.load(Relaxed) + 1, Relaxed);
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn per_access(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / ACCESSES as f64
}

/// The pages of a round, in their order.
fn order() -> impl Iterator<Item = usize> {
    let mut random = Xoshiro256PlusPlus::seed_from_u64(7);
    (0..ACCESSES).map(move |_| {
        // There are few pages.
        usize::try_from(random.next_u64() >> 32).unwrap_or(0) % PAGES
    })
}

/// The pages that are there, in the order in which they came: first come, first to go.
struct FirstCome(VecDeque<usize>);

impl FirstCome {
    fn new() -> Self {
        Self(VecDeque::with_capacity(DEVICE))
    }

    /// Notes that a page comes. Answers which one has to go for it.
    fn comes(&mut self, page: usize) -> Option<usize> {
        let oldest = if self.0.len() == DEVICE { self.0.pop_front() } else { None };
        self.0.push_back(page);
        oldest
    }
}

/// The floor without faults: pages are in one area or in the other.
struct Bare {
    descriptor: Userfault,
    system: Area,
    device: Area,
    is_there: Vec<bool>,
    there: FirstCome,
}

impl Bare {
    fn open(system: Area, context: &Context<'_>) -> Result<Self, BenchError> {
        let device = Area::map(PAGES, context.page, Backing::BasePages)?;
        let descriptor = Userfault::open()?;
        descriptor.register(&system)?;
        descriptor.register(&device)?;
        Ok(Self {
            descriptor,
            system,
            device,
            is_there: vec![false; PAGES],
            there: FirstCome::new(),
        })
    }

    /// Adds one to a number of a page on the device.
    fn add(&mut self, page: usize) -> Result<(), BenchError> {
        if !self.is_there[page] {
            if let Some(oldest) = self.there.comes(page) {
                self.descriptor.move_pages(&self.device, &self.system, oldest, 1)?;
                self.is_there[oldest] = false;
            }
            self.descriptor.move_pages(&self.system, &self.device, page, 1)?;
            self.is_there[page] = true;
        }
        add_one(&self.device, page);
        Ok(())
    }

    /// Brings all back.
    fn close(self) -> Result<Area, BenchError> {
        for page in self.there.0 {
            self.descriptor.move_pages(&self.device, &self.system, page, 1)?;
        }
        Ok(self.system)
    }
}
