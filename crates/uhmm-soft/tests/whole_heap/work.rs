//! The side that works: it opens the address space, starts the threads, and ends them in time.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use uhmm::AddressSpace;
use uhmm_soft::{Options, Soft};

use crate::{
    allocator::Allocator,
    areas, calls, chaos, collector, devices, forks, heap, locks, processes,
    progress::{Kind, Progress, Stage},
    random::Random,
    signals, threads, timers,
};

/// The variable by which the descriptor of the counters is passed on.
pub(crate) const PROGRESS: &str = "UHMM_CHAOS_PROGRESS";

/// The variable that chooses kinds of work.
pub(crate) const ONLY: &str = "UHMM_CHAOS_ONLY";

/// The number in an environment variable, if it is set.
pub(crate) fn number_in(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is not a number: {value}")))
}

/// What every kind of work has.
pub(crate) struct Job {
    pub(crate) kind: Kind,
    pub(crate) random: Random,
    progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
}

impl Job {
    /// Whether to go on; counts the round that ends.
    pub(crate) fn goes_on(&self) -> bool {
        self.progress.count(self.kind);
        !self.stop.load(Relaxed)
    }
}

/// What the work is done with.
pub(crate) struct World {
    pub(crate) space: AddressSpace,
    /// Held by who takes an adoption back, and by who relies on one.
    pub(crate) adoption: Mutex<()>,
    pub(crate) devices: [Soft; 2],
}

const MIB: usize = 1 << 20;

fn open() -> Option<World> {
    let space = match AddressSpace::open() {
        Ok(space) => space,
        Err(error) => {
            let needed = std::env::var_os("CI").is_some();
            assert!(!needed, "the whole heap needs what is not here: {error}");
            eprintln!("skipped: the whole heap: {error}");
            return None;
        }
    };
    let devices = [(24, 1), (48, 2)].map(|(mib, workers)| {
        Soft::start(&space, Options::new(mib * MIB).workers(workers)).expect("a device starts")
    });
    Some(World { space, adoption: Mutex::new(()), devices })
}

pub(crate) fn run() {
    let Some(number) = number_in(PROGRESS) else { return };
    let progress = Progress::inherited(i32::try_from(number).expect("a descriptor is small"));
    let progress = Arc::new(progress);
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        before(panic);
        std::process::abort();
    }));
    heap::keep_mapping_large_blocks();
    let Some(world) = open() else { return };
    let world = Arc::new(world);
    let seconds = number_in("UHMM_CHAOS_SECONDS").unwrap_or(12);
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    let seed = number_in("UHMM_CHAOS_SEED").unwrap_or(now);
    let only = std::env::var(ONLY).ok();
    println!("{seconds} s of work on the heap of {}, seed {seed}", Allocator::chosen().name());

    let stop = Arc::new(AtomicBool::new(false));
    let workers = Kind::ALL.into_iter().filter(|kind| {
        let chosen = |only: &String| only.split(',').any(|name| name == kind.name());
        only.as_ref().is_none_or(chosen)
    });
    let workers: Vec<_> = workers
        .map(|kind| {
            let random = Random::new(seed ^ (kind as u64) << 32);
            let job = Job { kind, random, progress: progress.clone(), stop: stop.clone() };
            let world = world.clone();
            progress.begin(kind);
            let named = thread::Builder::new().name(kind.name().to_owned());
            named.spawn(move || begin(job, &world)).expect("a thread starts")
        })
        .collect();
    progress.enter(Stage::Working);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        thread::sleep(Duration::from_millis(50));
    }
    progress.enter(Stage::Ending);
    stop.store(true, Relaxed);
    for worker in workers {
        worker.join().expect("no thread panics");
    }
    let world = Arc::into_inner(world).expect("all threads have ended");
    let counters = world.space.counters();
    drop(world.devices);
    world.space.close().expect("everything comes back");
    for (name, value) in counters.iter().filter(|&(_, value)| value > 0) {
        println!("{name:>24} {value}");
    }
    if only.is_none() {
        assert!(counters.to_device_request > 0, "nothing went to a device");
        assert!(counters.cpu_faults > 0, "nothing was fetched back by the CPU");
        assert_eq!(counters.failed_for_memory, 0, "accesses failed");
    }
    progress.enter(Stage::Done);
}

fn begin(job: Job, world: &World) {
    match job.kind {
        Kind::Chaos => chaos::run(job, world),
        Kind::Devices => devices::run(job, world),
        Kind::Boxes => heap::boxes(job),
        Kind::Vectors => heap::vectors(job),
        Kind::Maps => heap::maps(job),
        Kind::Blocks => heap::blocks(job),
        Kind::Trim => heap::trim(job),
        Kind::Areas => areas::run(job, false),
        Kind::HugeAreas => areas::run(job, true),
        Kind::Condition => locks::condition(job),
        Kind::Channels => locks::channels(job),
        Kind::Threads => threads::storms(job),
        Kind::Locals => threads::locals(job),
        Kind::Files => calls::files(job),
        Kind::Pipes => calls::pipes(job),
        Kind::Signals => signals::run(job),
        Kind::Timers => timers::run(job),
        Kind::Collector => collector::run(job, world),
        Kind::Processes => processes::run(&job),
        Kind::Forks => forks::run(job, world),
    }
}
