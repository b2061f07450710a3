//! The handler of SIGSEGV and SIGBUS, and its place in front of the program's.
//!
//! A fault in a critical part of the routines ends the access. So does a signal that another thread
//! [sends](send) where the access waits on a trapped hole: the wait is interruptible, and the
//! handler runs with the thread at the faulting instruction. All else is passed on to what was there
//! before.
//!
//! What was there before is known by the handler's address: there are several, alike but for their
//! number, and each passes on to what it found. Where the program puts a handler of its own in front
//! of ours, another of ours goes in front of that when an accessor is opened, or renewed, next. If the program's
//! passes on to what *it* found, that is our older one, and so each is asked once, the newest first.
//! Until then accesses end as long as the program's handler passes on what it does not know.
//!
//! A handler is never taken away again: the program's may pass on to it, and one may run just then.

use core::{
    ffi::{c_int, c_void},
    mem::offset_of,
    ptr,
    sync::atomic::{
        AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

use rustix::io::Errno as E;

use super::{processor::Context, routines};
use crate::{
    mm::Errno,
    sync::{Blocked, change_blocked, this_thread},
};

/// The signals that a fault of an access raises.
const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// By which accesses that wait are ended.
const SENT: c_int = libc::SIGSEGV;

/// Those two, as a kernel signal set.
const OURS: u64 = 1 << (libc::SIGSEGV - 1) | 1 << (libc::SIGBUS - 1);

/// The signals that libc sends itself: 32 and 33 in glibc, 32 to 34 in musl.
const OF_LIBC: u64 = if cfg!(target_env = "musl") { 0b111 } else { 0b11 } << (32 - 1);

/// What is blocked for sure on a thread with an accessor; the kernel blocks two others never.
const OTHERS: u64 = !(OURS | OF_LIBC | 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1));

/// Those of them that every system has.
const STANDARD: u64 = OTHERS & ((1 << 31) - 1);

/// How many handlers of the program ours can be in front of, one in front of the other.
pub(super) const DEPTH: usize = 8;

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Our handlers. Each is known by its address here, and only here.
static HANDLERS: [Handler; DEPTH] = [
    handler::<0>,
    handler::<1>,
    handler::<2>,
    handler::<3>,
    handler::<4>,
    handler::<5>,
    handler::<6>,
    handler::<7>,
];

/// What each handler passes on to, for each signal.
static BEFORE: [[Before; DEPTH]; SIGNALS.len()] =
    [const { [const { Before::new() }; DEPTH] }; SIGNALS.len()];

const FREE: u32 = 0;
const CLAIMED: u32 = 1;
const KNOWN: u32 = 2;

/// What was done about a signal before one of our handlers was put there.
///
/// # Invariants
/// Written once, by who brings `state` from `FREE` to `CLAIMED`; read where it is `KNOWN`.
struct Before {
    state: AtomicU32,
    /// `SIG_DFL`, `SIG_IGN`, or the address of a function.
    handler: AtomicUsize,
    flags: AtomicI32,
    mask: AtomicU64,
    /// It was to be called once, and was.
    spent: AtomicBool,
}

impl Before {
    const fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            handler: AtomicUsize::new(libc::SIG_DFL),
            flags: AtomicI32::new(0),
            mask: AtomicU64::new(0),
            spent: AtomicBool::new(false),
        }
    }

    /// Whether it is known, and the same as `action`.
    fn is(&self, action: &libc::sigaction) -> bool {
        self.state.load(Acquire) == KNOWN
            && self.handler.load(Relaxed) == action.sa_sigaction
            && self.flags.load(Relaxed) == action.sa_flags
            && self.mask.load(Relaxed) == first_word(&action.sa_mask)
    }

    /// Makes it `action`, if it is nobody's yet. Answers whether it was.
    fn become_same(&self, action: &libc::sigaction) -> bool {
        if self.state.compare_exchange(FREE, CLAIMED, Acquire, Relaxed).is_err() {
            return false;
        }
        self.handler.store(action.sa_sigaction, Relaxed);
        self.flags.store(action.sa_flags, Relaxed);
        self.mask.store(first_word(&action.sa_mask), Relaxed);
        self.state.store(KNOWN, Release);
        true
    }

    /// Passes a signal on.
    ///
    /// # Safety
    /// The arguments are those of a handler that runs.
    unsafe fn pass_on(&self, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
        let known = self.state.load(Acquire) == KNOWN;
        let flags = self.flags.load(Relaxed);
        let mut handler = if known { self.handler.load(Relaxed) } else { libc::SIG_DFL };
        if flags & libc::SA_RESETHAND != 0 && self.spent.swap(true, AcqRel) {
            handler = libc::SIG_DFL;
        }
        // SAFETY: the caller's promise. What is neither of the two numbers is a function of the
        // type that the flags tell, as the program gave it to the kernel.
        unsafe {
            match handler {
                // The kernel ignores no fault.
                libc::SIG_IGN if !is_fault(info) => {}
                libc::SIG_DFL | libc::SIG_IGN => end_by(signal, info),
                _ if flags & libc::SA_SIGINFO != 0 => {
                    core::mem::transmute::<usize, Handler>(handler)(signal, info, context);
                }
                _ => core::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal),
            }
        }
    }
}

/// Sees to it that a handler of ours is in front for both signals.
///
/// # Errors
/// `ENOSPC` where the program has put too many different handlers in front of ours; the system's
/// error where it refuses.
pub(super) fn install() -> Result<(), Errno> {
    for (signal, before) in SIGNALS.into_iter().zip(&BEFORE) {
        let mut current = exchange(signal, None)?;
        while !is_ours(&current) {
            let place = place_for(&current, before).ok_or(Errno(libc::ENOSPC))?;
            let replaced = exchange(signal, Some(&in_front_of(&current, HANDLERS[place])))?;
            if before[place].is(&replaced) {
                break;
            }
            // The program put another one there meanwhile, and ours goes in front of that.
            current = replaced;
        }
    }
    Ok(())
}

fn is_ours(action: &libc::sigaction) -> bool {
    HANDLERS.iter().any(|&handler| handler as usize == action.sa_sigaction)
}

/// The handler that passes on to `action`: one that did so before, or a new one.
fn place_for(action: &libc::sigaction, before: &[Before; DEPTH]) -> Option<usize> {
    let known = before.iter().position(|before| before.is(action));
    if let Some(place) = known {
        // To be called once again.
        before[place].spent.store(false, Release);
    }
    known.or_else(|| before.iter().position(|before| before.become_same(action)))
}

/// Our handler in front of `action`: it runs with the signals blocked, and on the stack, that the
/// one behind it asked for, and interrupts system calls as that would.
fn in_front_of(action: &libc::sigaction, handler: Handler) -> libc::sigaction {
    /// `SA_EXPOSE_TAGBITS`: whether a fault's address has its tag (Linux 5.11).
    const TAGS: c_int = 0x800;
    const LIKE_BEFORE: c_int = libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART | TAGS;
    let mut ours = *action;
    ours.sa_sigaction = handler as usize;
    ours.sa_flags = libc::SA_SIGINFO
        | match action.sa_sigaction {
            libc::SIG_DFL | libc::SIG_IGN => libc::SA_RESTART,
            _ => action.sa_flags & LIKE_BEFORE,
        };
    ours
}

/// Sets what is done about a signal, where something is given, and answers what was before.
fn exchange(signal: c_int, action: Option<&libc::sigaction>) -> Result<libc::sigaction, Errno> {
    // SAFETY: zeros are a value of the type.
    let mut before = unsafe { core::mem::zeroed::<libc::sigaction>() };
    let action = action.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the pointers are null or valid. Our handlers may run at any time.
    if unsafe { libc::sigaction(signal, action, &raw mut before) } == 0 {
        Ok(before)
    } else {
        Err(last_error())
    }
}

/// The handler of that number.
extern "C" fn handler<const NUMBER: usize>(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    let which = usize::from(signal != SIGNALS[0]);
    // SAFETY: the kernel, or a handler that passes a signal on, calls with what it has for a
    // handler with `SA_SIGINFO`: both point to what is the handler's while it runs.
    unsafe {
        if !ends_here(info, &mut *context.cast()) {
            BEFORE[which][NUMBER].pass_on(signal, info, context);
        }
    }
}

/// Deals with a signal that is for an access in place, and answers whether it is.
///
/// # Safety
/// `info` is that of a handler that runs.
unsafe fn ends_here(info: *const libc::siginfo_t, context: &mut Context) -> bool {
    // SAFETY: the caller's promise; the kernel's structure is longer than what is read of it.
    let (fault, sent) = unsafe { (is_fault(info), &*info.cast::<Sent>()) };
    // Where the user has as many signals queued as may be, one of ours comes without its data.
    let bare = sent.code == libc::SI_USER && sent.process == 0 && sent.user == 0;
    let ours = sent.code == libc::SI_QUEUE && sent.value == cookie();
    if (fault || ours || bare) && routines::refuse(context) {
        return true;
    }
    // Where it is ours the access has ended meanwhile. What comes bare is taken for ours on a thread
    // with an accessor, which is known by what it has blocked.
    ours || bare && context.blocked & STANDARD == STANDARD
}

/// Whether an instruction of the thread raised the signal, rather than somebody sent it.
///
/// # Safety
/// `info` is that of a handler that runs.
unsafe fn is_fault(info: *const libc::siginfo_t) -> bool {
    // SAFETY: the caller's promise.
    let code = unsafe { (*info).si_code };
    code > libc::SI_USER && code != libc::BUS_MCEERR_AO
}

/// Ends the process by the signal, as if there were no handler: when this one returns.
///
/// # Safety
/// `info` is that of a handler that runs.
unsafe fn end_by(signal: c_int, info: *const libc::siginfo_t) {
    // SAFETY: zeros are the default action.
    let default = unsafe { core::mem::zeroed::<libc::sigaction>() };
    let _ = exchange(signal, Some(&default));
    // A fault comes again by itself; what was sent is sent again.
    // SAFETY: the caller's promise.
    if !unsafe { is_fault(info) } {
        let _ = queue(rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs(), signal, info);
    }
}

/// What a signal is sent with: `siginfo_t`, as the kernel lays it out for `SI_QUEUE`
/// (`include/uapi/asm-generic/siginfo.h`).
#[repr(C)]
#[derive(Debug)]
struct Sent {
    signal: c_int,
    error: c_int,
    code: c_int,
    gap: c_int,
    process: c_int,
    user: u32,
    value: usize,
    room: [usize; 12],
}

const _: () = {
    assert!(size_of::<Sent>() == size_of::<libc::siginfo_t>());
    assert!(offset_of!(Sent, code) == offset_of!(libc::siginfo_t, si_code));
    assert!(offset_of!(Sent, process) == 16 && offset_of!(Sent, value) == 24);
};

/// By what our signals are known: an address that nobody else has.
fn cookie() -> usize {
    (&raw const BEFORE).addr()
}

/// Has the access end that `thread` is in, a thread of this process: where it is in a critical part
/// as the signal comes, it is refused.
///
/// # Errors
/// `ESRCH` where there is no such thread; the system's error where it refuses.
pub(super) fn send(thread: u32) -> Result<(), Errno> {
    let sent = Sent {
        signal: SENT,
        error: 0,
        code: libc::SI_QUEUE,
        gap: 0,
        process: rustix::process::getpid().as_raw_nonzero().get(),
        user: rustix::process::getuid().as_raw(),
        value: cookie(),
        room: [0; 12],
    };
    queue(thread, SENT, (&raw const sent).cast())
}

/// Queues a signal to a thread of this process.
fn queue(thread: u32, signal: c_int, info: *const libc::siginfo_t) -> Result<(), Errno> {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: the callers' pointers are to a whole structure (rt_tgsigqueueinfo(2)).
    let result =
        unsafe { libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info) };
    if result == 0 { Ok(()) } else { Err(last_error()) }
}

/// Whether this thread has no accessor.
pub(super) fn none_open() -> bool {
    this_thread().accessors.get().0 == 0
}

/// Notes an accessor of this thread: the signals by which accesses end come to it, and all others of
/// the program wait.
pub(super) fn open() {
    let (accessors, before) = this_thread().accessors.get();
    let blocked = change_blocked(Blocked::With, OTHERS);
    change_blocked(Blocked::Without, OURS);
    this_thread().accessors.set((accessors + 1, if accessors == 0 { blocked } else { before }));
}

/// Notes its end: with the last, signals are as before the first.
pub(super) fn close() {
    let (accessors, before) = this_thread().accessors.get();
    this_thread().accessors.set((accessors - 1, before));
    if accessors == 1 {
        change_blocked(Blocked::Only, before);
    }
}

/// The part of a set that the kernel knows.
fn first_word(set: &libc::sigset_t) -> u64 {
    // SAFETY: every libc's set is longer than the kernel's, and starts with it.
    unsafe { ptr::from_ref(set).cast::<u64>().read() }
}

fn last_error() -> Errno {
    // SAFETY: libc's error number of this thread is always readable.
    E::from_raw_os_error(unsafe { *libc::__errno_location() }).into()
}
