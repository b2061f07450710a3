//! A device process that keeps to what a ring is, and to what a message is, and not to what they mean.

use std::{
    collections::HashSet,
    os::fd::AsFd,
    process::Command as Process,
    sync::atomic::{
        AtomicU32,
        Ordering::{Relaxed, SeqCst},
    },
    time::Duration,
};

use uhmm::{
    AddressSpace, FaultAccess, PageLocation,
    ring::{Command, Limits, Order, Receiver, Report, Words},
};
use uhmm_soft::{AccessError, Home, KernelDevice, KernelRunError, ProcessOptions, RunError};

use crate::{
    PAGES,
    kernels::{ADD, KERNELS, TOUCH},
    place::{Place, myself, start},
    shared::{
        APPLIED, COMMANDS, FRAME_COUNT, FRAMES, Memory, PAGE, READY, REPORTS, STATE, WORKERS,
        notes, orders, wake,
    },
};

/// By what it is asked for; the value is the name of a part.
pub(crate) const ASKED: &str = "UHMM_ACTING_DEVICE";

/// How a launch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// The process is not believed any more.
    Lost,
    Well,
    /// At the first item that failed.
    At(usize),
}

/// A part: its name, how many workers it has, what it does, and how the launch ends.
type Part = (&'static str, usize, fn(&mut Actor), Ends);

const PARTS: &[Part] = &[
    (
        "it leaves a launch while it waits",
        1,
        |actor| actor.say(&[actor.asks(0), DONE[0]]),
        Ends::Lost,
    ),
    ("it asks while it waits", 1, |actor| actor.say(&[actor.asks(0), actor.asks(1)]), Ends::Lost),
    ("it hints while it waits", 1, |actor| actor.say(&[actor.asks(0), actor.hints(1)]), Ends::Lost),
    ("it leaves a launch twice", 2, |actor| actor.say(&[DONE[0], DONE[0]]), Ends::Lost),
    ("who leaves is none of its workers", 2, |actor| actor.say(&[DONE[2]]), Ends::Lost),
    ("it fails at no item of the launch", 1, |actor| actor.say(&[fails(0, ITEMS)]), Ends::Lost),
    (
        "it fails at an item that is no number",
        1,
        |actor| actor.say(&[fails(0, usize::MAX)]),
        Ends::Lost,
    ),
    ("it fails and gives no reason", 1, |actor| actor.say(&[fails_by(0, 1, 99)]), Ends::Lost),
    ("it says what is no message", 1, |actor| actor.raw(&[[200; 8]]), Ends::Lost),
    ("it asks for no address", 1, |actor| actor.say(&[asks_for(usize::MAX)]), Ends::Lost),
    ("it ends", 1, |_| std::process::exit(0), Ends::Lost),
    ("it leaves, and computed nothing", 2, |actor| actor.say(&[DONE[1], DONE[0]]), Ends::Well),
    ("two fail, the later first", 2, |actor| actor.say(&[fails(1, 7), fails(0, 3)]), Ends::At(3)),
    ("it asks for what is not named", 1, Actor::asks_for_others, Ends::At(1)),
    ("it asks for all", 1, Actor::asks_for_all, Ends::Well),
    ("it claims to have applied more", 1, Actor::claims_more, Ends::Well),
    ("it writes, and does not note it", 1, Actor::writes_untold, Ends::Well),
    ("it notes what it did not do", 1, Actor::notes_all, Ends::Well),
    ("it notes anything all the time", 1, Actor::notes_anything, Ends::Well),
];

/// What a launch names: the first pages.
const GIVEN: usize = 10;
const ITEMS: usize = 10;

/// What is on the device before the launch.
const AWAY: core::ops::Range<usize> = 20..30;

const DONE: [Report; 3] =
    [Report::Done { worker: 0 }, Report::Done { worker: 1 }, Report::Done { worker: 2 }];

const fn fails(worker: usize, item: usize) -> Report {
    // The kernel gave up.
    fails_by(worker, item, 8)
}

const fn fails_by(worker: usize, item: usize, error: u64) -> Report {
    Report::Failed { worker, item: item as u64, error: [error, 0, 0, 0, 0] }
}

const fn asks_for(address: usize) -> Report {
    Report::Fault { worker: 0, address, access: FaultAccess::Write }
}

struct Actor {
    memory: Memory,
    limits: Limits,
    orders: Receiver<'static>,
    /// Where the program's pages begin.
    base: usize,
    /// How many reports were made.
    made: usize,
}

pub(crate) fn serve(part: &str) -> ! {
    let memory = Memory::map(std::io::stdin().as_fd());
    let number =
        |word: usize| usize::try_from(memory.long_word(word).load(SeqCst)).expect("64 bits");
    let limits = Limits {
        frames: number(FRAME_COUNT),
        kernels: KERNELS.len(),
        workers: number(WORKERS),
        pages: usize::MAX / PAGE,
        page_bytes: PAGE,
    };
    let &(_, _, act, _) = PARTS.iter().find(|(name, ..)| *name == part).expect("a part");
    std::thread::spawn(move || keep_table(memory, &limits));
    memory.word(STATE).store(READY, SeqCst);
    wake(memory.word(STATE));
    let orders = Receiver::new(memory.ring(orders(0)));
    let mut actor = Actor { memory, limits, orders, base: 0, made: 0 };
    let Order::Launch { arguments, .. } = actor.next_order() else {
        panic!("a launch comes first")
    };
    actor.base = usize::try_from(arguments[0]).expect("an address");
    act(&mut actor);
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// How many commands it claims to have applied beside those that it has.
static AHEAD: AtomicU32 = AtomicU32::new(0);

/// Applies commands, which it does not look at, until it is to stop.
fn keep_table(memory: Memory, limits: &Limits) {
    let mut commands = Receiver::new(memory.ring(COMMANDS));
    let mut applied = 0_u32;
    loop {
        match commands.receive().expect("the program keeps to it") {
            Some(words) => match Command::parse(words, limits).expect("it is a command") {
                Command::Stop => std::process::exit(0),
                Command::Commit { .. } | Command::Invalidate { .. } => applied += 1,
            },
            None => commands.wait(Duration::from_millis(100)),
        }
        memory.word(APPLIED).store(applied + AHEAD.load(SeqCst), SeqCst);
        wake(memory.word(APPLIED));
    }
}

impl Actor {
    fn next_order(&mut self) -> Order {
        loop {
            match self.orders.receive().expect("the program keeps to it") {
                Some(words) => return Order::parse(words, &self.limits).expect("it is an order"),
                None => self.orders.wait(Duration::from_millis(100)),
            }
        }
    }

    fn address(&self, page: usize) -> usize {
        self.base + page * PAGE
    }

    fn asks(&self, page: usize) -> Report {
        asks_for(self.address(page))
    }

    fn hints(&self, page: usize) -> Report {
        Report::Fault { worker: 0, address: self.address(page), access: FaultAccess::Prefetch }
    }

    /// Says all of it at once, once in its life.
    fn say(&mut self, reports: &[Report]) {
        let words: Vec<_> = reports.iter().map(Report::encode).collect();
        self.raw(&words);
    }

    fn raw(&mut self, words: &[Words]) {
        self.memory.say(REPORTS, words);
    }

    /// Reports one, beside others.
    fn report(&mut self, report: Report) {
        let at = REPORTS + 128 + 64 * self.made;
        for (word, value) in report.encode().iter().enumerate() {
            self.memory.long_word(at + 8 * word).store(*value, Relaxed);
        }
        self.made += 1;
        self.memory.claim(REPORTS, u32::try_from(self.made).expect("they fit"));
    }

    /// What frames begin with.
    fn seen(&self) -> HashSet<u64> {
        let first = |frame| self.memory.long_word(FRAMES + frame * PAGE).load(SeqCst);
        (0..self.limits.frames).map(first).collect()
    }

    /// That no frame has what the launch does not name, but for what is there anyway.
    fn check_frames(&self) {
        let seen = self.seen();
        let others = (GIVEN..PAGES).filter(|page| !AWAY.contains(page));
        let others: Vec<_> = others.filter(|&page| seen.contains(&Place::content(page))).collect();
        assert!(others.is_empty(), "there are {others:?} in the frames");
    }

    fn asks_for_others(&mut self) {
        for page in [GIVEN, PAGES - 1, PAGES, AWAY.start] {
            self.report(self.hints(page));
            self.report(self.asks(page));
            assert_eq!(self.next_order(), Order::Refused { cause: None }, "page {page}");
        }
        self.check_frames();
        self.report(fails(0, 1));
    }

    fn asks_for_all(&mut self) {
        self.asks_for_all_but_leaving();
        self.report(DONE[0]);
    }

    fn asks_for_all_but_leaving(&mut self) {
        for page in 0..GIVEN {
            self.report(self.asks(page));
            let order = self.next_order();
            assert!(matches!(order, Order::Served { .. }), "page {page}: {order:?}");
        }
        let seen = self.seen();
        assert!((0..GIVEN).all(|page| seen.contains(&Place::content(page))));
        self.check_frames();
    }

    /// What it wrote is lost, and nothing else.
    fn writes_untold(&mut self) {
        self.asks_for_all_but_leaving();
        for frame in 0..self.limits.frames {
            self.memory.long_word(FRAMES + frame * PAGE).store(u64::MAX, SeqCst);
        }
        self.report(DONE[0]);
    }

    fn note(memory: Memory, frames: usize, four: usize, what: u32) {
        memory.word(notes(frames, four)).store(what, SeqCst);
    }

    fn notes_all(&mut self) {
        self.asks_for_all_but_leaving();
        let frames = self.limits.frames;
        (0..frames.div_ceil(4)).for_each(|four| Self::note(self.memory, frames, four, u32::MAX));
        self.report(DONE[0]);
    }

    fn notes_anything(&mut self) {
        let (memory, frames) = (self.memory, self.limits.frames);
        std::thread::spawn(move || {
            for turn in 1_u32.. {
                let four = turn as usize % frames.div_ceil(4);
                Self::note(memory, frames, four, turn.wrapping_mul(0x9e37_79b9));
            }
        });
        self.asks_for_all();
    }

    fn claims_more(&mut self) {
        AHEAD.store(1 << 20, SeqCst);
        self.asks_for_all();
    }
}

/// Each part, and that the program goes on.
pub(crate) fn it_acts() {
    for &(name, workers, _, ends) in PARTS {
        let (space, place) = Place::open(PAGES);
        let device = actor(&space, name, workers);
        assert_eq!(device.migrate(place.part(AWAY)).unwrap().moved(), AWAY.len(), "{name}");
        let arguments = [place.base, 4096, 0, 0];
        // SAFETY: nobody else touches the place meanwhile, which holds numbers. The process writes none of it.
        let result = unsafe { device.run(TOUCH, 0..ITEMS, arguments, &[place.part(0..GIVEN)]) };
        let error = AccessError::GivenUp { address: 0 };
        let expected = match ends {
            Ends::Lost => Err(KernelRunError::Lost),
            Ends::Well => Ok(()),
            Ends::At(item) => Err(RunError::Item { item, error }.into()),
        };
        assert_eq!(result, expected, "{name}");
        let lost = ends == Ends::Lost;
        assert_eq!(device.is_lost(), lost, "{name}");
        assert_eq!(device.lost_pages() >= AWAY.len(), lost, "{name}");
        for page in GIVEN..PAGES {
            let is_away = AWAY.contains(&page);
            if !is_away {
                assert_eq!(space.locate(place.address(page)), PageLocation::System, "{name}");
            }
            let content = (!is_away || !lost).then_some(Place::content(page));
            assert_eq!(place.load(page), content, "{name}: page {page}");
        }
        let lost_pages = device.lost_pages();
        drop(device);
        let gone: Vec<_> = (0..PAGES).filter(|&page| place.load(page).is_none()).collect();
        assert_eq!(gone.len(), lost_pages, "{name}: {gone:?}");
        // The program gives up what is lost, and begins anew.
        for page in gone {
            place.fill(page..page + 1);
        }
        let device = start(&space, PAGES);
        // SAFETY: nobody else touches the place meanwhile, which holds numbers.
        unsafe { device.run(ADD, 0..PAGES, [place.base, 4096, 1, 0], &[place.range()]) }.unwrap();
        for page in 0..PAGES {
            assert_eq!(place.load(page), Some(Place::content(page) + 1), "{name}: page {page}");
        }
        drop(device);
        space.close().unwrap();
    }
}

fn actor(space: &AddressSpace, part: &str, workers: usize) -> KernelDevice {
    let mut command = Process::new(myself());
    command.env(ASKED, part);
    let options = ProcessOptions::new(PAGES * PAGE).workers(workers).command(command);
    KernelDevice::start(space, Home::OwnProcess(options), KERNELS).expect("it is ready")
}
