//! All that is away comes back when a signal asks for it: for debuggers and core dumps, which see holes
//! where pages are away.
//!
//! A signal handler may run on any thread at any place, so it takes no lock: it asks a thread of the
//! engine, and where the signal ends the process it waits for the answer before it lets it end.

use core::{
    ffi::{CStr, c_int, c_void},
    mem::MaybeUninit,
    ptr,
    sync::atomic::{
        AtomicBool, AtomicI32, AtomicUsize,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use super::OpenError;
use crate::{
    engine::Engine,
    engine_memory::{EngineMemory, EngineThread, SpawnError, thread},
    migrate::ReturnCause,
    mm::{Errno, Mm, linux::Linux},
    report::Migration,
    shared::Shared,
    sync::{SignalsBlocked, WaitWord},
};

const NAME: &CStr = c"uhmm-returner";

/// Signals have numbers below.
const SIGNALS: c_int = 64;

/// For how long a process that ends waits for its pages.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// What a handler asks of the thread.
struct Requests {
    asked: WaitWord,
    /// The last that was done.
    done: WaitWord,
    /// Whether the process ends: nothing goes away any more.
    ending: AtomicBool,
    stopping: AtomicBool,
    /// The process that has the thread: a child of a fork has the handlers only.
    process: AtomicI32,
}

/// One address space a process has them.
static REQUESTS: Requests = Requests {
    asked: WaitWord::new(0),
    done: WaitWord::new(0),
    ending: AtomicBool::new(false),
    stopping: AtomicBool::new(false),
    process: AtomicI32::new(0),
};

/// What is known of one signal.
struct Known {
    /// Whether our handler is there, or passed on to by one that was put in front of it.
    in_line: AtomicBool,
    /// The handler that was there before, and its flags.
    handler: AtomicUsize,
    flags: AtomicI32,
}

static KNOWN: [Known; SIGNALS as usize] = [const {
    Known {
        in_line: AtomicBool::new(false),
        handler: AtomicUsize::new(libc::SIG_DFL),
        flags: AtomicI32::new(0),
    }
}; SIGNALS as usize];

/// What is known of a signal, whose number is one of `SIGNALS`.
fn known(signal: c_int) -> &'static Known {
    &KNOWN[usize::try_from(signal).unwrap_or(0)]
}

/// A set of signals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SignalSet(u64);

impl SignalSet {
    /// With one more. What is no signal's number is refused as signals are set up.
    pub(super) const fn with(self, signal: c_int) -> Self {
        // Bit 0, of no signal, stands for what is none.
        let valid = 0 < signal && signal < SIGNALS;
        Self(self.0 | 1 << if valid { signal } else { 0 })
    }

    fn iter(self) -> impl Iterator<Item = c_int> {
        (0..SIGNALS).filter(move |signal| self.0 >> signal & 1 != 0)
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Starts the thread that brings all back when it is asked to.
pub(super) fn start(
    engine: &Shared<Engine<Linux>>,
    memory: &EngineMemory,
) -> Result<EngineThread, SpawnError> {
    REQUESTS.stopping.store(false, Release);
    REQUESTS.process.store(process(), Release);
    let engine = engine.clone();
    thread::spawn(memory, NAME, move |_| engine.return_on_request())
}

/// Has signals ask it to.
pub(super) fn handle(signals: SignalSet) -> Result<(), OpenError> {
    for signal in signals.iter() {
        handle_one(signal).map_err(|errno| OpenError::Signal { signal, errno })?;
    }
    Ok(())
}

/// Has signals do what they did before, and ends the thread.
pub(super) fn stop(signals: SignalSet) {
    for signal in signals.iter() {
        restore(signal);
    }
    REQUESTS.stopping.store(true, Release);
    ask();
}

fn current(signal: c_int) -> Result<libc::sigaction, Errno> {
    let mut action = MaybeUninit::uninit();
    // SAFETY: there is room for an action, and none is set.
    if unsafe { libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) } != 0 {
        return Err(last_error());
    }
    // SAFETY: it was filled in.
    Ok(unsafe { action.assume_init() })
}

fn last_error() -> Errno {
    Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn set(signal: c_int, action: &libc::sigaction) -> Result<(), Errno> {
    // SAFETY: the action is one; whose handler it names is a function of this library, or what was
    // there before.
    if unsafe { libc::sigaction(signal, action, ptr::null_mut()) } != 0 {
        return Err(last_error());
    }
    Ok(())
}

fn our_handler() -> usize {
    let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_signal;
    handler as usize
}

fn handle_one(signal: c_int) -> Result<(), Errno> {
    let before = current(signal)?;
    let known = known(signal);
    // In the child of a fork it is there already, and where it could not be taken out: a second time it
    // would be its own predecessor.
    if known.in_line.load(Acquire) {
        return Ok(());
    }
    known.handler.store(before.sa_sigaction, Relaxed);
    known.flags.store(before.sa_flags, Release);
    let mut ours = before;
    ours.sa_sigaction = our_handler();
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: it is a set.
    unsafe { libc::sigfillset(&raw mut ours.sa_mask) };
    set(signal, &ours)?;
    known.in_line.store(true, Release);
    Ok(())
}

/// Has the signal do what it did before, where nobody changed that since.
fn restore(signal: c_int) {
    let Ok(mut action) = current(signal) else { return };
    if action.sa_sigaction == our_handler() {
        let known = known(signal);
        action.sa_sigaction = known.handler.load(Relaxed);
        action.sa_flags = known.flags.load(Acquire);
        // SAFETY: it is a set.
        unsafe { libc::sigemptyset(&raw mut action.sa_mask) };
        if set(signal, &action).is_ok() {
            known.in_line.store(false, Release);
        }
    }
}

fn process() -> i32 {
    // SAFETY: it takes nothing, and may be called in a handler.
    unsafe { libc::getpid() }
}

/// Asks the thread, and answers the number of the request.
fn ask() -> u32 {
    let number = REQUESTS.asked.word().fetch_add(1, Release).wrapping_add(1);
    REQUESTS.asked.wake_all();
    number
}

/// Whether the process ends by the signal, unless it has a handler, and leaves a core dump.
const fn dumps_core(signal: c_int) -> bool {
    matches!(
        signal,
        libc::SIGQUIT
            | libc::SIGILL
            | libc::SIGTRAP
            | libc::SIGABRT
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGSEGV
            | libc::SIGSYS
            | libc::SIGXCPU
            | libc::SIGXFSZ
    )
}

extern "C" fn on_signal(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: where the thread's error number lies.
    let errno = unsafe { *libc::__errno_location() };
    let known = known(signal);
    let before = known.handler.load(Relaxed);
    let here = !REQUESTS.stopping.load(Acquire) && REQUESTS.process.load(Acquire) == process();
    let ends = before == libc::SIG_DFL && (dumps_core(signal) || !here);
    if here {
        if ends {
            REQUESTS.ending.store(true, Release);
        }
        let number = ask();
        // Who handles such a signal mostly lets it end the process after all, as Rust's own does.
        if dumps_core(signal) {
            wait_for(number);
        }
    }
    if ends {
        // The signal comes again as this returns, and does what it does without us.
        // SAFETY: the calls take numbers only, and may be made in a handler.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
            libc::raise(signal);
        }
    } else if before != libc::SIG_DFL && before != libc::SIG_IGN {
        if known.flags.load(Acquire) & libc::SA_SIGINFO != 0 {
            // SAFETY: a handler with this flag is such a function.
            let handler: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) =
                unsafe { core::mem::transmute(before) };
            handler(signal, info, context);
        } else {
            // SAFETY: a handler without it is such a function.
            let handler: extern "C" fn(c_int) = unsafe { core::mem::transmute(before) };
            handler(signal);
        }
    }
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Waits until a request is done, for a while.
fn wait_for(number: u32) {
    let mut waited = Duration::ZERO;
    loop {
        let done = REQUESTS.done.word().load(Acquire);
        if number.wrapping_sub(done).cast_signed() <= 0 || waited >= PATIENCE {
            return;
        }
        REQUESTS.done.wait_at_most(done, LOOK);
        waited += LOOK;
    }
}

impl<M: Mm> Engine<M> {
    /// The work of the thread, until it is told to stop.
    fn return_on_request(&self) {
        let mut done = REQUESTS.done.word().load(Acquire);
        loop {
            let asked = REQUESTS.asked.word().load(Acquire);
            if REQUESTS.stopping.load(Acquire) {
                return;
            }
            if asked == done {
                REQUESTS.asked.wait(asked);
                continue;
            }
            let mut report = Migration::new(&self.memory);
            if REQUESTS.ending.load(Acquire) {
                self.gate.alone(&SignalsBlocked::new()).closing = true;
                self.bring_everything_back(None, ReturnCause::Request, &mut report);
            } else {
                let everything = self.all_pages();
                self.bring_all_back(everything, None, ReturnCause::Request, &mut report);
            }
            done = asked;
            REQUESTS.done.set(done);
        }
    }
}
