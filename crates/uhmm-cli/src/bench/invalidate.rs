//! `invalidate_1m`: one page changes, among a million mirrors.
//!
//! Mirrors of one to four pages each stand every 64 pages of a reservation. Some of them, at random
//! places, have a translation of their first page, and a round changes some of those pages, at random
//! again: `AddressSpace::protection_changed`, which does all that a change told by the kernel does from
//! when it is known: it finds the block and takes its lock, finds the mirrors in the tree, calls the
//! one that is hit, and lets go. What the kernel takes to tell is not in it.
//!
//! A handler has its signals blocked for good, a thread of the program has them blocked for each change
//! by two system calls; both are measured. There is one address space a process, so the sides cannot
//! take turns: the figures among ten thousand mirrors come first, then the others are made.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use uhmm::sync::SignalsBlocked;
use uhmm::units::AddressRange;
use uhmm::{AddressSpace, Entries, Invalidation, Mirror, PageTable, Request};

use super::engine::{close_space, open_space};
use super::memory::{Area, Backing};
use super::report::Rows;
use super::rounds::Spread;
use super::{BenchError, Context, NewRow};

const FEW: usize = 10_000;
const MANY: usize = 1_000_000;

/// Of this many mirrors one may be hit; all of few.
const HIT_OF: usize = MANY / (4 * FEW);

/// Pages from the start of one mirror to that of the next.
const STRIDE: usize = 64;

/// Pages that a mirror has at most.
const MOST_PAGES: usize = 4;

/// Changes in a round.
const CHANGES: usize = 256;

/// What a change may take among a million mirrors, in nanoseconds.
const PROMISED: f64 = 1000.0;

/// How often mirrors were called.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// A page table that keeps nothing and counts its calls.
struct Counting;

// SAFETY: it has no translations; its methods do nothing but count.
unsafe impl PageTable for Counting {
    fn commit(&self, _: &Entries) {}

    fn invalidate(&self, _: &Invalidation) {
        CALLS.fetch_add(1, Relaxed);
    }
}

/// Changes among few and among many.
pub(super) fn one_of_many(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let area = Area::map(MANY * STRIDE, context.page, Backing::BasePages)?;
    let space = open_space()?;
    let mut all = Mirrors {
        space: &space,
        area,
        all: Vec::with_capacity(MANY),
        hit: Vec::new(),
        random: Xoshiro256PlusPlus::seed_from_u64(1),
    };
    let made_few = all.make(FEW, 1, context)?;
    let few = all.measure(context)?;
    let made_many = all.make(MANY, HIT_OF, context)?;
    let many = all.measure(context)?;
    drop(all);
    close_space(space)?;

    let promised = Spread::known(PROMISED);
    let cases = [
        ("by a handler, beside 1 us", "by a handler, beside 10^4 mirrors"),
        ("by the program, beside 1 us", "by the program, beside 10^4 mirrors"),
    ];
    for ((beside_promised, beside_few), (few, many)) in
        cases.into_iter().zip(few.into_iter().zip(many))
    {
        rows.add(row(beside_promised, "ns a change", Some(1.0)).measured(many.beside(promised)));
        rows.add(row(beside_few, "ns a change", Some(3.0)).measured(many.beside(few)));
    }
    let made = Spread::known(made_many).beside(Spread::known(made_few));
    rows.add(row("making one, beside 10^4 mirrors", "ns a mirror", None).measured(made));
    Ok(())
}

/// The mirrors of an area, and what is hit.
///
/// The fields end in their order: mirrors before the memory.
struct Mirrors<'a> {
    space: &'a AddressSpace,
    all: Vec<Mirror<Counting>>,
    area: Area,
    /// The pages that mirrors have translations of.
    hit: Vec<AddressRange>,
    random: Xoshiro256PlusPlus,
}

impl Mirrors<'_> {
    /// Makes mirrors until there are `count`, of the new ones each `hit_of`th with a translation, and
    /// answers nanoseconds for making one, without that.
    fn make(
        &mut self,
        count: usize,
        hit_of: usize,
        context: &Context<'_>,
    ) -> Result<f64, BenchError> {
        let before = self.all.len();
        let start = Instant::now();
        for number in before..count {
            if number % FEW == 0 {
                context.stop.check()?;
            }
            let range = self.area.range(number * STRIDE, 1 + number % MOST_PAGES)?;
            let mirror = self.space.mirror(range, Counting);
            self.all.push(mirror.map_err(BenchError::while_doing("a mirror cannot be made"))?);
        }
        let time = start.elapsed().as_secs_f64() * 1e9;
        for number in (before..count).step_by(hit_of) {
            let page = self.area.range(number * STRIDE, 1)?;
            let report = self.all[number].fault(&Request::read(page));
            let report = report.map_err(BenchError::while_doing("a page cannot be faulted"))?;
            if report.entered() != 1 {
                return Err(BenchError::failed(
                    "the measurement is void",
                    "a page has no translation",
                ));
            }
            self.hit.push(page);
        }
        #[expect(clippy::cast_precision_loss, reason = "a million")]
        Ok(time / (count - before) as f64)
    }

    /// Nanoseconds a change, where signals are blocked already and where they are not.
    fn measure(&mut self, context: &Context<'_>) -> Result<[Spread; 2], BenchError> {
        let [handler, program] = context.alone(&mut || {
            let handler = {
                let _signals = SignalsBlocked::new();
                self.round()?
            };
            Ok([handler, self.round()?])
        })?;
        Ok([handler, program])
    }

    fn round(&mut self) -> Result<f64, BenchError> {
        let count = self.hit.len() as u64;
        let mut random = || usize::try_from(self.random.next_u64() % count).unwrap_or(0);
        let pages: Vec<_> = (0..CHANGES).map(|_| self.hit[random()]).collect();
        let before = CALLS.load(Relaxed);
        let start = Instant::now();
        for page in pages {
            self.space
                .protection_changed(black_box(page))
                .map_err(BenchError::while_doing("a change cannot be told"))?;
        }
        let time = start.elapsed().as_secs_f64() * 1e9;
        if CALLS.load(Relaxed) - before != CHANGES {
            return Err(BenchError::failed("the measurement is void", "not each change was told"));
        }
        #[expect(clippy::cast_precision_loss, reason = "a few hundred changes")]
        Ok(time / CHANGES as f64)
    }
}
