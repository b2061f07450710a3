//! `oversubscribe_stream` and `oversubscribe_random`: a device works on four times as much as its
//! memory holds.
//!
//! *Stream:* a kernel goes through all of it, page by page, and adds one to every number. The floor
//! is what a program does without shared addresses: two buffers, each half of the device's memory; one
//! thread copies the next part in and the last one out while another works on the part between. The
//! work on a page is the same on both sides, to the instruction: its numbers are copied out of the
//! device's memory, changed, and copied back.
//!
//! *Random:* a kernel adds one to a number of one page after the other, in a random order that is the
//! same in each round and on both sides. Each access that misses brings a page and gives one up. The
//! floor is a loop that does just this: a table says which pages are there, first come, first to go;
//! a miss is one `UFFDIO_MOVE` back and one there.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use uhmm::AddressSpace;
use uhmm_soft::{Options, Soft};

use super::engine::{close_space, open_space};
use super::memory::{Area, Backing};
use super::report::Rows;
use super::rounds::Pair;
use super::userfault::Userfault;
use super::{BenchError, Context, NewRow};

/// Pages that the device's memory holds.
const DEVICE: usize = 1024;

/// Pages of each of the floor's two buffers.
const BUFFER: usize = DEVICE / 2;

/// Pages that it works on.
const PAGES: usize = 4 * DEVICE;

/// Numbers that are worked on at a time: what the smallest page has, so they divide any.
const PIECE: usize = (4 << 10) / size_of::<u64>();

/// Accesses of a round of the random measure.
const ACCESSES: usize = 4096;

/// Rounds take long: one for each ten that were asked for.
fn few<'a>(context: &Context<'a>) -> Context<'a> {
    Context { rounds: context.rounds.div_ceil(10), ..*context }
}

/// Our side: an address space, a device with little memory, and the area.
struct Ours {
    soft: Soft,
    space: AddressSpace,
    area: Area,
}

impl Ours {
    fn open(area: Area, context: &Context<'_>) -> Result<Self, BenchError> {
        let space = open_space()?;
        context.cpus.main.bind_handlers()?;
        let options = Options::new(context.page.bytes_in(DEVICE)).keep_pages();
        let soft = Soft::start(&space, options)
            .map_err(BenchError::while_doing("the device cannot be started"))?;
        space
            .adopt(area.all()?)
            .map_err(BenchError::while_doing("the memory cannot be adopted"))?;
        Ok(Self { soft, space, area })
    }

    /// Has the kernel run once for each item.
    fn run<K>(&self, items: usize, kernel: K) -> Result<(), BenchError>
    where
        K: Fn(&mut uhmm_soft::Worker<'_>, usize) -> Result<(), uhmm_soft::AccessError>
            + Send
            + Sync
            + 'static,
    {
        // SAFETY: callers' kernels touch numbers of the area, which lives until this returns, and
        // nobody else touches them meanwhile.
        unsafe { self.soft.run(0..items, kernel) }
            .map_err(BenchError::while_doing("the device cannot work on the memory"))
    }

    fn close(self) -> Result<Area, BenchError> {
        let Self { soft, space, area } = self;
        drop(soft);
        close_space(space)?;
        Ok(area)
    }
}

/// All of it, page after page.
pub(super) fn stream(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let context = &few(context);
    let [ours, floor] = Area::filled([PAGES; 2], context.page, Backing::BasePages)?;
    let ours = Ours::open(ours, context)?;
    let buffers = Buffers::of(floor);
    let (page, numbers) = (context.page, context.page.bytes() / size_of::<u64>());
    let address = ours.area.pointer(0, PAGES).addr().get();
    let by_device = || {
        let start = Instant::now();
        ours.run(PAGES, move |worker, item| {
            let mut piece = [0_u64; PIECE];
            for first in (0..numbers).step_by(PIECE) {
                let at = address + page.bytes_in(item) + first * size_of::<u64>();
                // SAFETY: as said at `Ours::run`.
                unsafe { worker.load_slice(at, &mut piece) }?;
                change(&mut piece, first);
                // SAFETY: as above.
                unsafe { worker.store_slice(at, &piece) }?;
            }
            Ok(())
        })?;
        Ok([per_page(start)])
    };
    let by_hand = || {
        let start = Instant::now();
        buffers.stream()?;
        Ok([per_page(start)])
    };
    let pair = once_each(context, by_device, by_hand)?;
    let rounds = u64::from(context.rounds_in_all());
    let area = ours.close()?;
    for (name, area) in [("ours", &area), ("the floor", &buffers.area)] {
        check(name, area, |_| rounds)?;
    }
    rows.add(row("all pages in order", "ns a page", Some(1.3)).measured(pair));
    Ok(())
}

/// Pages at random.
pub(super) fn random(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let context = &few(context);
    let [ours, system] = Area::filled([PAGES; 2], context.page, Backing::BasePages)?;
    let ours = Ours::open(ours, context)?;
    let bare = RefCell::new(Bare::open(system, context)?);
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
    let by_hand = || {
        let start = Instant::now();
        let mut bare = bare.borrow_mut();
        order().try_for_each(|wanted| bare.add(wanted))?;
        Ok([per_access(start)])
    };
    let pair = once_each(context, by_device, by_hand)?;
    let rounds = u64::from(context.rounds_in_all());
    let mut times = vec![0_u64; PAGES];
    order().for_each(|page| times[page] += rounds);
    let (area, bare) = (ours.close()?, bare.into_inner().close()?);
    for (name, area) in [("ours", &area), ("the floor", &bare)] {
        for (page, &times) in times.iter().enumerate() {
            area.touch(page)?;
            expect(name, area.word(page, 1).load(Relaxed), times)?;
        }
    }
    rows.add(row("pages at random", "ns an access", Some(1.2)).measured(pair));
    Ok(())
}

fn once_each(
    context: &Context<'_>,
    mut ours: impl FnMut() -> Result<[f64; 1], BenchError>,
    mut floor: impl FnMut() -> Result<[f64; 1], BenchError>,
) -> Result<Pair, BenchError> {
    let [pair] = context.in_turns(&mut ours, &mut floor)?;
    Ok(pair)
}

/// What is done to a piece of the numbers of a page, from its number `first` on: all but the page's
/// mark are changed.
fn change(piece: &mut [u64; PIECE], first: usize) {
    for number in &mut piece[usize::from(first == 0)..] {
        *number = number.wrapping_add(1);
    }
}

/// An error where a page has lost its mark or a number is not `expected`.
fn check(name: &str, area: &Area, expected: impl Fn(usize) -> u64) -> Result<(), BenchError> {
    let numbers = area.page_size().bytes() / size_of::<u64>();
    for page in 0..area.pages() {
        area.touch(page)?;
        for number in [1, numbers / 2, numbers - 1] {
            expect(name, area.word(page, number).load(Relaxed), expected(page))?;
        }
    }
    Ok(())
}

fn expect(name: &str, found: u64, expected: u64) -> Result<(), BenchError> {
    if found == expected {
        return Ok(());
    }
    let what = format!("{name} has {found} where {expected} was to be");
    Err(BenchError::failed("the measurement is void", what))
}

#[expect(clippy::cast_precision_loss, reason = "a few thousand")]
fn per_page(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e9 / PAGES as f64
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

/// The floor of the stream: memory of the program, which is copied into one of two buffers and out
/// again.
struct Buffers {
    area: Area,
    numbers: usize,
    /// Those that nobody works on: both, between two rounds.
    free: Cell<Vec<Vec<u64>>>,
}

/// A buffer on its way: the first page of the area that it is of, and its content.
struct Part {
    first: usize,
    content: Vec<u64>,
}

impl Buffers {
    fn of(area: Area) -> Self {
        let numbers = area.page_size().bytes() / size_of::<u64>();
        let free = (0..2).map(|_| vec![0; BUFFER * numbers]).collect();
        Self { area, numbers, free: Cell::new(free) }
    }

    /// One thread copies, one works; each buffer goes to and fro between them.
    fn stream(&self) -> Result<(), BenchError> {
        let numbers = self.numbers;
        let (to_work, work) = mpsc::channel::<Part>();
        let (to_copy, done) = mpsc::channel::<Part>();
        let ended = || BenchError::failed("the floor cannot be measured", "its thread ended");
        thread::scope(move |scope| {
            // Its thread ends when no part can come any more.
            let to_work = to_work;
            scope.spawn(move || {
                for mut part in work {
                    for page in part.content.chunks_mut(numbers) {
                        let mut piece = [0_u64; PIECE];
                        for (number, in_buffer) in page.chunks_mut(PIECE).enumerate() {
                            piece.copy_from_slice(in_buffer);
                            change(&mut piece, number * PIECE);
                            in_buffer.copy_from_slice(&piece);
                        }
                    }
                    if to_copy.send(part).is_err() {
                        break;
                    }
                }
            });
            let mut free = self.free.take();
            let mut under_way = 0;
            for first in (0..PAGES).step_by(BUFFER) {
                let mut content = match free.pop() {
                    Some(content) => content,
                    None => self.copy_out(done.recv().map_err(|_| ended())?),
                };
                under_way = 2.min(under_way + 1);
                self.area.read(first, &mut content);
                to_work.send(Part { first, content }).map_err(|_| ended())?;
            }
            for _ in 0..under_way {
                free.push(self.copy_out(done.recv().map_err(|_| ended())?));
            }
            self.free.set(free);
            Ok(())
        })
    }

    fn copy_out(&self, part: Part) -> Vec<u64> {
        self.area.write(part.first, &part.content);
        part.content
    }
}

/// The floor of the random measure: pages are in one area or in the other.
struct Bare {
    descriptor: Userfault,
    system: Area,
    device: Area,
    is_there: Vec<bool>,
    /// Those that are there, in the order in which they came.
    there: VecDeque<usize>,
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
            there: VecDeque::with_capacity(DEVICE),
        })
    }

    /// Adds one to a number of a page on the device.
    fn add(&mut self, page: usize) -> Result<(), BenchError> {
        if !self.is_there[page] {
            if self.there.len() == DEVICE
                && let Some(oldest) = self.there.pop_front()
            {
                self.descriptor.move_pages(&self.device, &self.system, oldest, 1)?;
                self.is_there[oldest] = false;
            }
            self.descriptor.move_pages(&self.system, &self.device, page, 1)?;
            self.is_there[page] = true;
            self.there.push_back(page);
        }
        let number = self.device.word(page, 1);
        number.store(number.load(Relaxed) + 1, Relaxed);
        Ok(())
    }

    /// Brings all back.
    fn close(self) -> Result<Area, BenchError> {
        for page in self.there {
            self.descriptor.move_pages(&self.device, &self.system, page, 1)?;
        }
        Ok(self.system)
    }
}
