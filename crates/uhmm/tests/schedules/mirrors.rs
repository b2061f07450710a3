//! Devices that map pages where they are, among others that take them.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

use shuttle::thread;
use uhmm::{
    AccessorNumber, Entries, InFlight, InPlace, Invalidation, Lane, Mirror, PageError, PageTable,
    Refuser, Request, Width,
    engine_memory::EngineVec,
    mm::model::Model,
    sync::{
        Lock, SignalsBlocked,
        atomic::{
            AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    units::{BLOCK_PAGES, PageNumber, PageRange},
};

use crate::{
    device::Worker,
    explore::explore,
    world::{READ_ONLY, World, bytes, load, map, pages, store, word},
};

const NOTHING: usize = 0;
const READ: usize = 1;
const WRITE: usize = 2;

/// A device without memory: an entry a page, and one worker that adds in place.
struct InPlaceTable {
    entries: EngineVec<AtomicUsize>,
    in_flight: InFlight,
    accessor: Lock<Option<AccessorNumber>>,
    refuser: Refuser<Model>,
    /// How often it was given translations. No step of its own to the explorer.
    commits: AtomicU64,
    /// Whether its mirror has ended: no call comes any more.
    ended: Arc<AtomicBool>,
}

impl InPlaceTable {
    fn new(world: &World) -> Self {
        let memory = world.space.engine_memory();
        let mut entries = EngineVec::try_with_capacity(memory, world.space.page_limit().0).unwrap();
        for _ in 0..world.space.page_limit().0 {
            entries.try_push(AtomicUsize::new(NOTHING)).unwrap();
        }
        Self {
            entries,
            in_flight: InFlight::new(memory, 1).unwrap(),
            accessor: Lock::new(None),
            refuser: world.space.refuser(),
            commits: AtomicU64::new(0),
            ended: Arc::new(AtomicBool::new(false)),
        }
    }

    fn entries(&self, pages: PageRange) -> &[AtomicUsize] {
        &self.entries[pages.start().0..pages.end().0]
    }
}

// SAFETY: entries are made by `commit` alone; `invalidate` clears them and waits for the accesses in
// flight, which are made in place and by their entry; nothing here waits for a call of the core.
unsafe impl PageTable for InPlaceTable {
    fn commit(&self, entries: &Entries) {
        assert!(!self.ended.load(SeqCst), "a mirror that has ended is given a translation");
        self.commits.fetch_add(1, SeqCst);
        let value = if entries.write { WRITE } else { READ };
        self.entries(entries.pages).iter().for_each(|entry| entry.store(value, Release));
    }

    fn invalidate(&self, invalidation: &Invalidation) {
        assert!(!self.ended.load(SeqCst), "a mirror that has ended is told");
        self.entries(invalidation.pages).iter().for_each(|entry| entry.store(NOTHING, Relaxed));
        self.in_flight.wait_for_accesses_or(|_| {
            let accessor = *self.accessor.lock(&SignalsBlocked::new());
            if let Some(accessor) = accessor {
                self.refuser.refuse(accessor);
            }
        });
    }
}

/// The thread of the device.
struct Adder<'a> {
    mirror: &'a Mirror<InPlaceTable, Model>,
    lane: Lane<'a>,
    in_place: InPlace<'a, Model>,
}

impl<'a> Adder<'a> {
    fn new(mirror: &'a Mirror<InPlaceTable, Model>) -> Self {
        let in_place = mirror.in_place().unwrap();
        *mirror.table().accessor.lock(&SignalsBlocked::new()) = Some(in_place.number());
        // SAFETY: a mirror has one adder, so nobody else has the lane.
        let lane = unsafe { mirror.table().in_flight.open(0) };
        Self { mirror, lane, in_place }
    }

    /// Adds to a word in place, after as many faults as it takes.
    fn add(&mut self, page: PageNumber, value: u64) -> Result<u64, PageError> {
        let table = self.mirror.table();
        loop {
            let in_place = &self.in_place;
            let done = self.lane.access(|| {
                if table.entries[page.0].load(Acquire) != WRITE {
                    return None;
                }
                // SAFETY: the word is aligned, and others access it atomically.
                unsafe { in_place.fetch_add(word(page, 0), Width::Eight, value) }.ok()
            });
            if let Some(before) = done {
                return Ok(before);
            }
            let request = Request::write(bytes(PageRange::of(page, 1))).anew();
            let report = self.mirror.fault(&request).unwrap();
            let failed = report.failures().next();
            if let Some(failure) = failed {
                return Err(failure.error);
            }
        }
    }
}

fn mirror(world: &World, of: PageRange) -> Mirror<InPlaceTable, Model> {
    world.space.mirror(bytes(of), InPlaceTable::new(world)).unwrap()
}

#[test]
fn pages_are_mapped_in_place_while_another_device_takes_them() {
    explore("in place and taken", &["mapped_in_place", "invalidations", "cpu_faults"], || {
        const ROUNDS: u64 = 2;
        let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
        let world = World::with(range);
        let device = world.attach(3, 1);
        let mirror = mirror(&world, range);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut adder = Adder::new(&mirror);
                for _ in 0..ROUNDS {
                    for page in range.pages() {
                        adder.add(page, 1).unwrap();
                    }
                }
            });
            scope.spawn(|| {
                let mut worker = Worker::new(&device, 0);
                for _ in 0..ROUNDS {
                    for page in range.pages() {
                        worker.add(word(page, 0), 1).unwrap();
                    }
                }
            });
            scope.spawn(|| {
                for page in range.pages() {
                    world.model.fetch_add(word(page, 0), 1).unwrap();
                }
            });
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), 2 * ROUNDS + 1, "{page:?}");
        }
        drop((device, mirror));
        world.end()
    });
}

#[test]
fn an_area_is_unmapped_under_translations_in_place() {
    explore("unmap under a mirror", &["invalidations", "changes"], || {
        let range = pages(BLOCK_PAGES - 1, BLOCK_PAGES + 1);
        let world = World::open();
        map(&world.model, range);
        let mirror = mirror(&world, range);
        let over = AtomicBool::new(false);
        let (all, after) = (AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut adder = Adder::new(&mirror);
                for _ in 0..4 {
                    let was_over = over.load(SeqCst);
                    all.fetch_add(1, SeqCst);
                    match adder.add(range.start(), 1) {
                        Ok(_) => drop(after.fetch_add(u64::from(was_over), SeqCst)),
                        Err(error) => assert!(error == PageError::NoArea && !was_over, "{error}"),
                    }
                }
            });
            scope.spawn(|| {
                store(&world.model, word(range.start(), 1), 7);
                world.model.unmap(range).unwrap();
                map(&world.model, range);
                over.store(true, SeqCst);
                assert_eq!(load(&world.model, word(range.start(), 1)), 0, "new memory is zeros");
            });
        });
        let bounds = after.load(SeqCst)..=all.load(SeqCst);
        let sum = load(&world.model, word(range.start(), 0));
        assert!(bounds.contains(&sum), "{sum} additions are left, not {bounds:?}");
        drop(mirror);
        world.end()
    });
}

#[test]
fn a_mirror_ends_while_it_is_told() {
    explore("drop against callback", &["invalidations", "changes"], || {
        let range = pages(0, 2);
        let world = World::open();
        map(&world.model, range);
        let mirrors: Vec<_> = (0..3).map(|_| mirror(&world, range)).collect();
        for mirror in &mirrors {
            mirror.fault(&Request::read(bytes(range))).unwrap();
        }
        thread::scope(|scope| {
            scope.spawn(|| world.model.unmap(range).unwrap());
            for mirror in mirrors {
                scope.spawn(move || {
                    let ended = Arc::clone(&mirror.table().ended);
                    drop(mirror);
                    ended.store(true, SeqCst);
                });
            }
        });
        world.end()
    });
}

/// Ends what all mirrors have of `pages`, and checks that each that was given nothing since has
/// nothing.
fn end_all(world: &World, mirrors: &[Mirror<InPlaceTable, Model>], pages: PageRange) {
    let commits = |mirror: &Mirror<InPlaceTable, _>| mirror.table().commits.load(SeqCst);
    let before: Vec<_> = mirrors.iter().map(commits).collect();
    world.space.protection_changed(bytes(pages)).unwrap();
    for (mirror, before) in mirrors.iter().zip(before) {
        let nothing = |entry: &AtomicUsize| entry.load(Acquire) == NOTHING;
        let ended = mirror.table().entries(pages).iter().all(nothing);
        assert!(ended || commits(mirror) != before, "{:?} was not told", mirror.id());
    }
}

#[test]
fn all_mirrors_are_told() {
    explore("all mirrors are told", &["mapped_in_place", "invalidations"], || {
        let range = pages(BLOCK_PAGES - 2, BLOCK_PAGES + 2);
        let world = World::open();
        map(&world.model, range);
        // In each block a page is there and one is not, so no mirror gets all that it asks for.
        for page in [BLOCK_PAGES - 2, BLOCK_PAGES].map(PageNumber) {
            store(&world.model, word(page, 0), 7);
        }
        // More than an invalidation looks up at a time.
        let mirrors: Vec<_> = (0..3).map(|_| mirror(&world, range)).collect();
        let request = Request::present(bytes(range));
        thread::scope(|scope| {
            for mirror in &mirrors {
                let request = &request;
                scope.spawn(move || mirror.fault(request).unwrap());
            }
            scope.spawn(|| {
                for _ in 0..2 {
                    end_all(&world, &mirrors, range);
                }
            });
        });
        for mirror in &mirrors {
            mirror.fault(&request).unwrap();
        }
        end_all(&world, &mirrors, range);
        drop(mirrors);
        world.end()
    });
}

/// A table that drops its mirror as it is told.
struct Dropper {
    own: Arc<Mutex<Option<Mirror<Dropper, Model>>>>,
    dropped: Arc<AtomicBool>,
}

// SAFETY: it has no translations; dropping a mirror is no call of the core that it waits for.
unsafe impl PageTable for Dropper {
    fn commit(&self, _: &Entries) {}

    fn invalidate(&self, _: &Invalidation) {
        let own = self.own.lock().unwrap().take();
        drop(own);
        assert!(!self.dropped.load(SeqCst), "a table is dropped while a call of it runs");
    }
}

impl Drop for Dropper {
    fn drop(&mut self) {
        self.dropped.store(true, SeqCst);
    }
}

#[test]
fn a_mirror_is_dropped_by_its_own_table() {
    explore("drop within callback", &["invalidations"], || {
        let range = pages(BLOCK_PAGES - 1, BLOCK_PAGES + 1);
        let world = World::open();
        map(&world.model, range);
        let (own, dropped) = (Arc::new(Mutex::new(None)), Arc::new(AtomicBool::new(false)));
        let table = Dropper { own: Arc::clone(&own), dropped: Arc::clone(&dropped) };
        let mirror = world.space.mirror(bytes(range), table).unwrap();
        mirror.fault(&Request::read(bytes(range))).unwrap();
        *own.lock().unwrap() = Some(mirror);
        thread::scope(|scope| {
            for page in range.pages() {
                let world = &world;
                scope.spawn(move || {
                    let one = bytes(PageRange::of(page, 1));
                    world.space.protection_changed(one).unwrap();
                });
            }
        });
        // Somebody comes by.
        drop(self::mirror(&world, range));
        assert!(dropped.load(SeqCst));
        world.end()
    });
}

#[test]
fn no_translation_for_writing_is_left_after_protection_was_told() {
    explore("protection told to mirrors", &["mapped_in_place", "invalidations"], || {
        let range = pages(BLOCK_PAGES - 1, BLOCK_PAGES + 1);
        let world = World::open();
        map(&world.model, range);
        let mirror = mirror(&world, range);
        let is_left = || {
            let entries = mirror.table().entries(range);
            entries.iter().any(|entry| entry.load(Acquire) == WRITE)
        };
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..3 {
                    let report = mirror.fault(&Request::write(bytes(range)).anew()).unwrap();
                    assert!(report.failures().all(|it| it.error == PageError::Protection));
                }
            });
            scope.spawn(|| {
                world.model.protect(range, READ_ONLY).unwrap();
                world.space.protection_changed(bytes(range)).unwrap();
                assert!(!is_left());
            });
        });
        assert!(!is_left(), "one was entered for what was seen before");
        mirror.fault(&Request::read(bytes(range))).unwrap();
        assert!(!is_left());
        drop(mirror);
        world.end()
    });
}

#[test]
fn exclusive_pages_are_wanted_back_by_the_cpu() {
    explore("exclusive against the CPU", &["made_exclusive", "cpu_faults"], || {
        const ROUNDS: u64 = 2;
        let range = pages(BLOCK_PAGES - 1, BLOCK_PAGES + 1);
        let world = World::with(range);
        let device = world.attach(2, 1);
        let mirror = mirror(&world, range);
        thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    device.make_exclusive(bytes(range)).unwrap();
                    let mut worker = Worker::new(&device, 0);
                    // It adds by a load and a store: nobody else may have the page meanwhile.
                    for page in range.pages() {
                        worker.add(word(page, 0), 1).unwrap();
                    }
                }
            });
            scope.spawn(|| {
                for _ in 0..ROUNDS {
                    for page in range.pages() {
                        world.model.fetch_add(word(page, 0), 1).unwrap();
                    }
                }
            });
            scope.spawn(|| {
                let mut adder = Adder::new(&mirror);
                for page in range.pages() {
                    adder.add(page, 1).unwrap();
                }
            });
        });
        for page in range.pages() {
            assert_eq!(load(&world.model, word(page, 0)), 2 * ROUNDS + 1, "{page:?}");
        }
        drop((device, mirror));
        world.end()
    });
}
