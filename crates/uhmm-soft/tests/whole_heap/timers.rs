//! A program that lives by signals: timers of its threads and of the process, whose handlers read and
//! write the heap, interrupt one another, and run on stacks that lie on the heap too.

use std::{
    cell::Cell,
    mem, ptr,
    sync::atomic::{
        AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
};

use crate::{
    random::{Random, check, fill, lost, mix},
    work::Job,
};

const THREADS: usize = 3;

/// Handlers that may be under way on a thread at a time: one for each of its signals, and of the process.
const LEVELS: usize = 5;

/// Words of a level: a count, and content that it tells.
const WORDS: usize = 700;

/// The stack on which handlers run: room for a frame of each level, with all registers there are.
const STACK: usize = 256 << 10;

/// What handlers of one thread work on. On the heap, and far from one another.
struct Levels {
    words: Vec<AtomicU64>,
    depth: AtomicU64,
    handled: AtomicU64,
}

impl Levels {
    fn new() -> Self {
        let words = (0..LEVELS * WORDS).map(|place| {
            let word = place % WORDS;
            AtomicU64::new(if word == 0 { 0 } else { mix(word as u64) })
        });
        Self { words: words.collect(), depth: AtomicU64::new(0), handled: AtomicU64::new(0) }
    }

    /// Checks what the last handler of the innermost level left there, and leaves something else.
    fn work(&self) {
        let depth = self.depth.fetch_add(1, Relaxed);
        let level = usize::try_from(depth).unwrap_or(LEVELS);
        if level >= LEVELS {
            uhmm::abort::abort(b"LOST: handlers are under way that are blocked");
        }
        let words = &self.words[level * WORDS..][..WORDS];
        let count = words[0].load(Relaxed);
        // Some of them, so that others stay away for longer.
        let first = 1 + usize::try_from(count).unwrap_or(0) % 3;
        for (place, word) in words.iter().enumerate().skip(first).step_by(97) {
            let expected = mix(place as u64);
            if word.load(Relaxed) != expected {
                uhmm::abort::abort(b"LOST: a number of a signal handler");
            }
            word.store(!expected, Relaxed);
            word.store(expected, Relaxed);
        }
        words[0].store(count + 1, Relaxed);
        self.handled.fetch_add(1, Relaxed);
        self.depth.fetch_sub(1, Release);
    }

    /// The rounds of all levels.
    fn rounds(&self) -> u64 {
        self.words.iter().step_by(WORDS).map(|word| word.load(Relaxed)).sum()
    }
}

thread_local! {
    static LEVELS_HERE: Cell<*const Levels> = const { Cell::new(ptr::null()) };
}

static OF_OTHERS: AtomicU64 = AtomicU64::new(0);

extern "C" fn handler(_: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: where the thread's error number lies.
    let errno = unsafe { *libc::__errno_location() };
    let levels = LEVELS_HERE.get();
    // SAFETY: the thread has set it to what lives for as long as it takes these signals.
    match unsafe { levels.as_ref() } {
        Some(levels) => {
            levels.work();
            rearm(info);
        }
        None => {
            OF_OTHERS.fetch_add(1, Relaxed);
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// A timer that fires once, and is set anew by its handler. On the heap.
struct Timer {
    id: libc::timer_t,
    next: libc::itimerspec,
}

/// Sets the timer anew that sent the signal.
fn rearm(info: *mut libc::siginfo_t) {
    // SAFETY: it is that of a handler that runs.
    let (code, value) = unsafe { ((*info).si_code, (*info).si_value().sival_ptr) };
    let timer = value.cast::<Timer>();
    if code != libc::SI_TIMER || timer.is_null() {
        return;
    }
    // SAFETY: a timer of this kind carries the address of its own, which lives while it can fire; the
    // kernel reads its time off the heap.
    let result =
        unsafe { libc::timer_settime((*timer).id, 0, &raw const (*timer).next, ptr::null_mut()) };
    if result != 0 {
        uhmm::abort::abort(b"a timer cannot be set by its handler");
    }
}

/// A signal of this program's own.
fn signal(number: i32) -> i32 {
    libc::SIGRTMIN() + 2 + number
}

/// What a signal blocks while it is handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Blocks {
    /// Itself alone.
    Itself,
    /// All: it meets any thread, also on the alternate stack that std gives it, in the handler of a fault
    /// there. That stack has room for two handlers, not for three.
    All,
}

/// Sets the handler.
fn handle(signal: i32, on_own_stack: bool, blocks: Blocks) {
    // SAFETY: all zeros is an action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    let function: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = handler;
    action.sa_sigaction = function as usize;
    action.sa_flags =
        libc::SA_SIGINFO | libc::SA_RESTART | if on_own_stack { libc::SA_ONSTACK } else { 0 };
    if blocks == Blocks::All {
        // SAFETY: the set is part of the action.
        unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    }
    // SAFETY: the handler makes loads, stores and one call of the system.
    let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0, "sigaction: {}", std::io::Error::last_os_error());
}

fn time(microseconds: i64) -> libc::timespec {
    libc::timespec { tv_sec: 0, tv_nsec: microseconds * 1000 }
}

impl Timer {
    /// A timer that sends `signal` to this thread every so many microseconds, or once, to be set anew.
    #[expect(clippy::unnecessary_box_returns, reason = "its handler knows where it is")]
    fn of_thread(signal: i32, microseconds: i64, again: bool) -> Box<Self> {
        let once = libc::itimerspec { it_interval: time(0), it_value: time(microseconds) };
        let mut timer = Box::new(Self { id: ptr::null_mut(), next: once });
        // SAFETY: all zeros is such a structure.
        let mut event: libc::sigevent = unsafe { mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        // SAFETY: it takes nothing.
        event.sigev_notify_thread_id = unsafe { libc::gettid() };
        if !again {
            event.sigev_value.sival_ptr = (&raw mut *timer).cast();
        }
        // SAFETY: both point to what they are for.
        let made =
            unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &raw mut event, &raw mut timer.id) };
        assert_eq!(made, 0, "timer_create: {}", std::io::Error::last_os_error());
        let first = libc::itimerspec {
            it_interval: time(if again { microseconds } else { 0 }),
            it_value: time(microseconds),
        };
        // SAFETY: the timer was made just now.
        let set = unsafe { libc::timer_settime(timer.id, 0, &raw const first, ptr::null_mut()) };
        assert_eq!(set, 0, "timer_settime: {}", std::io::Error::last_os_error());
        timer
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: it was made by this thread, which blocks its signals.
        let result = unsafe { libc::timer_delete(self.id) };
        assert_eq!(result, 0, "timer_delete: {}", std::io::Error::last_os_error());
    }
}

/// Has handlers of this thread run on a stack on the heap, and answers it.
fn stack_on_the_heap() -> Vec<u8> {
    let mut stack = vec![0_u8; STACK];
    let on_heap = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: it is this thread's until `no_stack`.
    let result = unsafe { libc::sigaltstack(&raw const on_heap, ptr::null_mut()) };
    assert_eq!(result, 0, "sigaltstack: {}", std::io::Error::last_os_error());
    stack
}

fn set_of(signals: &[i32]) -> libc::sigset_t {
    // SAFETY: zeros are a set, and it is emptied and filled.
    unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&raw mut set);
        for &signal in signals {
            libc::sigaddset(&raw mut set, signal);
        }
        set
    }
}

fn block(signals: &[i32]) {
    let set = set_of(signals);
    // SAFETY: it is a set.
    let result = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
    assert_eq!(result, 0, "pthread_sigmask");
}

/// Waits for a signal that is blocked, where the kernel writes what it has to tell on the heap.
fn wait_for(signal: i32) {
    let set = Box::new(set_of(&[signal]));
    // SAFETY: zeros are such a structure.
    let mut told: Box<libc::siginfo_t> = Box::new(unsafe { mem::zeroed() });
    let most = Box::new(libc::timespec { tv_sec: 20, tv_nsec: 0 });
    loop {
        // SAFETY: all point to what they are for.
        let got = unsafe { libc::sigtimedwait(&raw const *set, &raw mut *told, &raw const *most) };
        if got == signal {
            if told.si_signo != signal || told.si_code != libc::SI_TIMER {
                let found = u64::from(told.si_code.cast_unsigned());
                lost("what was told of a signal", (&raw const *told).addr(), found);
            }
            return;
        }
        let error = std::io::Error::last_os_error();
        assert_eq!(error.raw_os_error(), Some(libc::EINTR), "sigtimedwait: {error}");
    }
}

/// One thread with its timers, for as long as one stack is in use.
fn live(random: &mut Random) -> u64 {
    let signals = [0, 1, 2].map(signal);
    let waited_for = signal(3);
    let stack = stack_on_the_heap();
    let levels = Box::new(Levels::new());
    LEVELS_HERE.set(&raw const *levels);
    let mut between = |least: i64, more| least + i64::try_from(random.below(more)).unwrap_or(0);
    let timers = [
        Timer::of_thread(signals[0], between(300, 1000), true),
        Timer::of_thread(signals[1], between(500, 2000), false),
        Timer::of_thread(signals[2], between(900, 5000), false),
        Timer::of_thread(waited_for, 2000, true),
    ];
    let seed = random.next();
    let mut content = vec![0_u8; 1 + random.below(60_000)];
    fill(&mut content, seed, 0);
    for _ in 0..20 {
        wait_for(waited_for);
        check("what a program with timers has", &content, seed, 0);
        let more = random.next();
        let mut local = [0_u8; 3000];
        fill(&mut local, more, 0);
        check("a local variable under signals", &local, more, 0);
    }
    block(&signals);
    drop(timers);
    LEVELS_HERE.set(ptr::null());
    let (rounds, handled) = (levels.rounds(), levels.handled.load(Acquire));
    if rounds != handled || levels.depth.load(Relaxed) != 0 {
        lost("a count of signals handled", (&raw const levels.handled).addr(), rounds);
    }
    no_stack();
    drop(stack);
    let set = set_of(&signals);
    // What is pending finds no levels.
    // SAFETY: it is a set.
    unsafe { libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) };
    handled
}

/// Takes this thread's stack for handlers away.
fn no_stack() {
    let none = libc::stack_t { ss_sp: ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: no handler is under way on it.
    let result = unsafe { libc::sigaltstack(&raw const none, ptr::null_mut()) };
    assert_eq!(result, 0, "sigaltstack: {}", std::io::Error::last_os_error());
}

/// Has the process's own timers, of the time that it runs, send their signals; never for zero.
fn set_timers_of_the_process(microseconds: i64) {
    let every = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    for which in [libc::ITIMER_PROF, libc::ITIMER_VIRTUAL] {
        // SAFETY: both signals have a handler.
        let result = unsafe { libc::setitimer(which, &raw const timer, ptr::null_mut()) };
        assert_eq!(result, 0, "setitimer: {}", std::io::Error::last_os_error());
    }
}

pub(crate) fn run(mut job: Job) {
    block(&[signal(3)]);
    for number in 0..3 {
        handle(signal(number), number != 1, Blocks::Itself);
    }
    handle(libc::SIGPROF, true, Blocks::All);
    handle(libc::SIGVTALRM, false, Blocks::All);
    set_timers_of_the_process(4000);
    let mut handled = 0;
    while job.goes_on() {
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let mut random = Random::new(job.random.next());
                thread::spawn(move || live(&mut random))
            })
            .collect();
        for thread in threads {
            handled += thread.join().expect("no panic");
        }
    }
    set_timers_of_the_process(0);
    println!("{handled} signals of timers handled, {} elsewhere", OF_OTHERS.load(Relaxed));
}
