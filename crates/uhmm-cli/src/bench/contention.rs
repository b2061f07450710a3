//! `contention`: two devices and two threads work on the same pages while these are moved.
//!
//! Each of the four reads, writes and adds atomically, one number of a random page of 4 MiB at a time,
//! and notes how long each access took. A fifth thread has parts of one to 512 pages migrate to either
//! device and come back, and says of other parts that a device is to map them where they are. The
//! numbers that were added are one for all in each page, written are numbers that each has for itself:
//! a read that finds another number than was last written there, or a sum in the end that is not what
//! was added, and there is no row.
//!
//! One thread and one device are on the CPU where the handlers are, the others on the second one. More
//! threads want to run than there are CPUs, so the longest waits are as long as the system's scheduler
//! lets the others run. What stands for a floor is a single fault of the bare handler of [`fault`], in
//! the placement that it has there; a figure is not bounded by it.
//!
//! The most turns that passed before anybody's own in a block's queue is what the engine counted. What
//! was promised, two turns of each other side, stands for its floor; of threads that work in the engine
//! one of each.
//!
//! [`fault`]: super::fault

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{Rng, SeedableRng};
use uhmm::units::BLOCK_PAGES;
use uhmm::{AddressSpace, Shared};
use uhmm_soft::{Options, Placement, Soft};

use super::engine::{close_space, open_space};
use super::machine::Cpu;
use super::memory::{Area, Backing};
use super::report::Rows;
use super::rounds::Spread;
use super::waits::Waits;
use super::{BenchError, Context, NewRow, fault};

const BYTES: usize = 4 << 20;

/// Pages that an area of so many bytes has at most.
const MOST_PAGES: usize = BYTES / 4096;

/// How long it goes on for each round that was asked for, and at most.
const PER_ROUND: Duration = Duration::from_millis(4);
const LONGEST: Duration = Duration::from_secs(2);

/// How often the user's wish to stop is looked at.
const LOOK: Duration = Duration::from_millis(10);

const DEVICES: usize = 2;
const THREADS: usize = 2;

/// Two turns of each of the others that there are for a device, a thread, or who moves parts about.
const PROMISED_TURNS: usize = 2 * (DEVICES + THREADS);

/// The workers of the devices, and who moves parts about.
const ENGINE_THREADS: usize = DEVICES + 1;

/// Accesses of one launch.
const ITEMS: usize = 1 << 12;

/// The word of a page that all add to, and those that each has for itself, on lines of their own.
const SUM: usize = 0;
const fn word_of(who: usize) -> usize {
    8 * (1 + who)
}

/// What one of the four did. In engine memory, where devices can count too.
struct Work {
    waits: Waits,
    /// What was added, all in all.
    added: AtomicU64,
    /// The number last written to each page.
    written: [AtomicU64; MOST_PAGES],
    accesses: AtomicU64,
    /// Whether a read found another number.
    wrong: AtomicBool,
}

impl Work {
    const fn new() -> Self {
        Self {
            waits: Waits::new(),
            added: AtomicU64::new(0),
            written: [const { AtomicU64::new(0) }; MOST_PAGES],
            accesses: AtomicU64::new(0),
            wrong: AtomicBool::new(false),
        }
    }

    /// One access to a random one of `pages` pages: `word` of it is this one's own.
    fn step<E>(
        &self,
        pages: usize,
        word: usize,
        mut access: impl FnMut(usize, usize, Access) -> Result<u64, E>,
    ) -> Result<(), E> {
        let number = self.accesses.fetch_add(1, Relaxed);
        let random = mixed(number.wrapping_add((word as u64) << 48));
        let page = usize::try_from(random >> 8).unwrap_or(0) % pages;
        let written = self.written[page].load(Relaxed);
        let (word, access_kind) = match random % 3 {
            0 => (word, Access::Load),
            1 => (word, Access::Store(written + 1)),
            _ => (SUM, Access::Add(number)),
        };
        let start = Instant::now();
        let found = access(page, word, access_kind)?;
        self.waits.add(start.elapsed());
        match access_kind {
            Access::Load if found != written => self.wrong.store(true, Relaxed),
            Access::Load => {}
            Access::Store(value) => self.written[page].store(value, Relaxed),
            Access::Add(value) => {
                self.added.fetch_add(value, Relaxed);
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Access {
    Load,
    Store(u64),
    Add(u64),
}

/// Every bit of the answer depends on every bit of `number` (splitmix64).
const fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// How long accesses of either side wait.
pub(super) fn waits(
    context: &Context<'_>,
    row: NewRow<'_>,
    rows: &mut Rows,
) -> Result<(), BenchError> {
    let floor = fault::bare(context)?;
    let area = Area::map(context.page.pages_for(BYTES).max(1), context.page, Backing::BasePages)?;
    let space = open_space()?;
    space.adopt(area.all()?).map_err(BenchError::while_doing("the memory cannot be adopted"))?;
    let cpus = [context.cpus.main, context.cpus.other.unwrap_or(context.cpus.main)];
    let work = |who| {
        let memory = space.engine_memory();
        Shared::try_new(Work::new(), memory)
            .map(|work| Worker { who, work })
            .map_err(BenchError::while_doing("there is no engine memory"))
    };
    let workers = [work(0)?, work(1)?, work(2)?, work(3)?];
    let devices = [start(&space, cpus[0])?, start(&space, cpus[1])?];
    context.cpus.main.bind_this_thread()?;
    let contest = Contest { area: &area, devices: &devices, cpus, over: AtomicBool::new(false) };
    contest.run(context, &workers)?;
    drop(devices);
    check(&area, &workers)?;
    let [cpu, device] = [&workers[DEVICES..], &workers[..DEVICES]].map(all_waits);
    for (rare, common, waits) in [
        ("CPU access, p99.9", "CPU access, median", cpu),
        ("device access, p99.9", "device access, median", device),
    ] {
        rows.add(row(common, "us an access", None).measured(waits.middle().beside(floor)));
        rows.add(row(rare, "us an access", None).measured(waits.rare().beside(floor)));
    }
    let counters = space.counters();
    for (case, most, promised) in [
        ("turns waited for, most", counters.most_turns_waited, PROMISED_TURNS),
        ("of these of threads, most", counters.most_thread_turns_waited, ENGINE_THREADS),
    ] {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let [most, promised] = [most as f64, promised as f64].map(Spread::known);
        rows.add(row(case, "turns", Some(1.0)).measured(most.beside(promised)));
    }
    drop(workers);
    close_space(space)
}

/// Starts a device whose worker runs on a CPU, with a memory for half of the area.
fn start(space: &AddressSpace, cpu: Cpu) -> Result<Soft, BenchError> {
    cpu.bind_this_thread()?;
    Soft::start(space, Options::new(BYTES / 2))
        .map_err(BenchError::while_doing("the device cannot be started"))
}

/// One of the four, and what it did.
struct Worker {
    who: usize,
    work: Shared<Work>,
}

/// All that takes part.
struct Contest<'a> {
    area: &'a Area,
    devices: &'a [Soft; DEVICES],
    cpus: [Cpu; DEVICES],
    over: AtomicBool,
}

impl Contest<'_> {
    /// Has all work for as long as was asked for.
    fn run(
        &self,
        context: &Context<'_>,
        workers: &[Worker; DEVICES + THREADS],
    ) -> Result<(), BenchError> {
        let failed = Mutex::new(None);
        let note = |result: Result<(), BenchError>| {
            if let Err(error) = result {
                self.over.store(true, Relaxed);
                failed
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner)
                    .get_or_insert(error);
            }
        };
        let (devices, threads) = workers.split_at(DEVICES);
        thread::scope(|scope| {
            for (device, worker) in self.devices.iter().zip(devices) {
                scope.spawn(|| note(self.launch(device, worker)));
            }
            for (&cpu, worker) in self.cpus.iter().zip(threads) {
                scope.spawn(move || note(cpu.bind_this_thread().and_then(|()| self.touch(worker))));
            }
            let last = self.cpus[DEVICES - 1];
            scope.spawn(move || note(last.bind_this_thread().and_then(|()| self.move_about())));
            let start = Instant::now();
            let time = LONGEST.min(PER_ROUND * context.rounds);
            let mut stopped = Ok(());
            while start.elapsed() < time && stopped.is_ok() && !self.over.load(Relaxed) {
                thread::sleep(LOOK.min(time));
                stopped = context.stop.check();
            }
            self.over.store(true, Relaxed);
            stopped
        })?;
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// A device's accesses, launch after launch.
    fn launch(&self, device: &Soft, worker: &Worker) -> Result<(), BenchError> {
        let (pages, page, word) = (self.area.pages(), self.area.page_size(), word_of(worker.who));
        let start = self.area.pointer(0, pages).as_ptr().expose_provenance();
        while !self.over.load(Relaxed) {
            let work = worker.work.clone();
            // SAFETY: the kernel touches the area through its worker, numbers that are the device's own
            // or that all add to atomically, and else engine memory. It does not allocate, wait or
            // panic. The area lives until the launch is over.
            let done = unsafe {
                device.run(0..ITEMS, move |worker, _| {
                    work.step(pages, word, |number, word, access| {
                        let at = start + page.bytes_in(number) + word * size_of::<u64>();
                        match access {
                            Access::Load => worker.load(at),
                            Access::Store(value) => worker.store(at, value).map(|()| value),
                            Access::Add(value) => worker.fetch_add(at, value),
                        }
                    })
                })
            };
            done.map_err(BenchError::while_doing("a device cannot access a page"))?;
        }
        Ok(())
    }

    /// A thread's accesses.
    fn touch(&self, worker: &Worker) -> Result<(), BenchError> {
        while !self.over.load(Relaxed) {
            worker.work.step(self.area.pages(), word_of(worker.who), |page, word, access| {
                let number = self.area.word(page, word);
                Ok::<_, BenchError>(match access {
                    Access::Load => number.load(Relaxed),
                    Access::Store(value) => {
                        number.store(value, Relaxed);
                        value
                    }
                    Access::Add(value) => number.fetch_add(value, Relaxed),
                })
            })?;
        }
        Ok(())
    }

    /// Migrates parts to one device or the other, and back, and has parts mapped in place.
    fn move_about(&self) -> Result<(), BenchError> {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(2);
        let mut below = |end: usize| usize::try_from(random.next_u64() % end as u64).unwrap_or(0);
        let failed = BenchError::while_doing("pages cannot be moved about");
        let pages = self.area.pages();
        while !self.over.load(Relaxed) {
            let count = [1, 16, 64, BLOCK_PAGES][below(4)].min(pages);
            let part = self.area.range(below(pages - count + 1), count)?;
            let device = &self.devices[below(DEVICES)];
            match below(4) {
                0 => drop(device.migrate(part).map_err(failed)?),
                1 => drop(device.bring_back(part).map_err(failed)?),
                2 => device
                    .place(part, Placement::InPlace)
                    .map_err(BenchError::while_doing("pages cannot be placed"))?,
                _ => device
                    .place(part, Placement::Migrate)
                    .map_err(BenchError::while_doing("pages cannot be placed"))?,
            }
        }
        Ok(())
    }
}

/// An error where a number is not what was written there last, or added to it.
fn check(area: &Area, workers: &[Worker]) -> Result<(), BenchError> {
    let lost = |what| Err(BenchError::failed("the measurement is void", what));
    let mut added = 0_u64;
    for Worker { who, work } in workers {
        if work.wrong.load(Relaxed) {
            return lost("a read found another number than was written");
        }
        added = added.wrapping_add(work.added.load(Relaxed));
        let found = |page| area.word(page, word_of(*who)).load(Relaxed);
        if (0..area.pages()).any(|page| found(page) != work.written[page].load(Relaxed)) {
            return lost("what was written is lost");
        }
    }
    let sums = (0..area.pages()).map(|page| area.word(page, SUM).load(Relaxed));
    if sums.fold(0, u64::wrapping_add) != added {
        return lost("what was added is lost");
    }
    Ok(())
}

/// The waits of several as one.
fn all_waits(workers: &[Worker]) -> Waits {
    let all = Waits::new();
    for worker in workers {
        all.add_all(&worker.work.waits);
    }
    all
}
