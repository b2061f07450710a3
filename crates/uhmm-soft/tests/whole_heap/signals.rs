//! Signals, whose handlers read the heap on whatever thread they meet.

use std::{
    fs, mem, ptr,
    sync::atomic::{
        AtomicPtr, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
    time::Duration,
};

use crate::{random::mix, work::Job};

const NUMBERS: usize = 1 << 14;

/// The numbers that the handlers look at: on the heap.
static LOOKED_AT: AtomicPtr<u64> = AtomicPtr::new(ptr::null_mut());
static HANDLED: AtomicU64 = AtomicU64::new(0);

extern "C" fn handler(_: i32) {
    let count = HANDLED.fetch_add(1, Relaxed);
    let numbers = LOOKED_AT.load(Acquire);
    if numbers.is_null() {
        return;
    }
    for step in 0..4 {
        let place = usize::try_from(mix(count * 4 + step)).unwrap_or(0) % NUMBERS;
        // SAFETY: there are so many numbers; they are never freed and do not change any more.
        if unsafe { numbers.add(place).read_volatile() } != mix(place as u64) {
            uhmm::abort::abort(b"LOST: a number that a signal handler read");
        }
    }
}

/// Sets the handler for `signal`, on an alternate stack where the thread has one if `alternate`.
fn handle(signal: i32, alternate: bool) {
    // SAFETY: all zeros is an action.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as extern "C" fn(i32) as usize;
    action.sa_flags = libc::SA_RESTART | if alternate { libc::SA_ONSTACK } else { 0 };
    // One at a time: an alternate stack has no room for a second.
    // SAFETY: the set is part of the action.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    // SAFETY: the handler makes nothing but loads and what `abort` does.
    let result = unsafe { libc::sigaction(signal, &raw const action, ptr::null_mut()) };
    assert_eq!(result, 0, "sigaction: {}", std::io::Error::last_os_error());
}

/// Makes a timer send `SIGALRM` every so many microseconds; never for zero.
fn set_timer(microseconds: i64) {
    let every = libc::timeval { tv_sec: 0, tv_usec: microseconds };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: the signal has a handler.
    let result = unsafe { libc::setitimer(libc::ITIMER_REAL, &raw const timer, ptr::null_mut()) };
    assert_eq!(result, 0, "setitimer: {}", std::io::Error::last_os_error());
}

pub(crate) fn run(mut job: Job) {
    let numbers: Vec<u64> = (0..NUMBERS as u64).map(mix).collect();
    LOOKED_AT.store(numbers.leak().as_mut_ptr(), Release);
    handle(libc::SIGALRM, false);
    handle(libc::SIGUSR1, true);
    handle(libc::SIGUSR2, false);
    set_timer(3000);
    while job.goes_on() {
        let threads: Vec<i32> = fs::read_dir("/proc/self/task")
            .expect("the threads can be listed")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        for _ in 0..8 {
            let thread = threads[job.random.below(threads.len())];
            let signal = if job.random.one_in(2) { libc::SIGUSR1 } else { libc::SIGUSR2 };
            // The thread may have ended. One of the engine takes no signals.
            // SAFETY: the signal has a handler.
            unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    set_timer(0);
    println!("{} signals handled", HANDLED.load(Relaxed));
}
