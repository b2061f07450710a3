//! Waits of instructions on trapped holes, and signals that come meanwhile: what ending an access in
//! place relies on.

use std::{
    arch::asm,
    ffi::{c_int, c_void},
    ptr,
    sync::atomic::{AtomicI32, AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

use uhmm::mm::{Access, Message, Mm, linux::Linux};

use crate::memory::Memory;
use crate::support::{all, fact, in_child, unread};

/// How often the handler ran, where its thread was, and the code and the value that came with it.
static RUNS: AtomicUsize = AtomicUsize::new(0);
static POSITION: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
static VALUE: AtomicUsize = AtomicUsize::new(0);
/// Where the instruction is that touches the hole.
static TOUCHING: AtomicUsize = AtomicUsize::new(0);

extern "C" fn note(_: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: a handler's information is the kernel's; the value is there for every code.
    unsafe {
        CODE.store((*info).si_code, SeqCst);
        VALUE.store((*info).si_value().sival_ptr.addr(), SeqCst);
    }
    // SAFETY: a handler's context is of this type.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext };
    #[cfg(target_arch = "x86_64")]
    let position = registers.gregs[usize::try_from(libc::REG_RIP).unwrap_or(0)].cast_unsigned();
    #[cfg(target_arch = "aarch64")]
    let position = registers.pc;
    POSITION.store(usize::try_from(position).unwrap_or(0), SeqCst);
    RUNS.fetch_add(1, SeqCst);
}

/// An instruction that touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Touch {
    Load,
    Store,
    Atomic,
    Copy,
}

/// Touches eight bytes, and notes where the instruction is that does.
fn touch(touch: Touch, at: *mut u8) {
    let note = TOUCHING.as_ptr();
    let mut own = [0_u64; 1];
    // SAFETY: eight bytes of the test's own memory, and of this function's.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        match touch {
            Touch::Load => asm!("lea {t}, [rip + 2f]", "mov [{note}], {t}", "2: mov {t}, [{at}]",
                note = in(reg) note, at = in(reg) at, t = out(reg) own[0]),
            Touch::Store => asm!("lea {t}, [rip + 2f]", "mov [{note}], {t}", "2: mov [{at}], {t}",
                note = in(reg) note, at = in(reg) at, t = out(reg) own[0]),
            Touch::Atomic => asm!("lea {t}, [rip + 2f]", "mov [{note}], {t}",
                "2: lock xadd [{at}], {t}",
                note = in(reg) note, at = in(reg) at, t = out(reg) own[0]),
            Touch::Copy => asm!("lea {t}, [rip + 2f]", "mov [{note}], {t}", "2: rep movsb",
                note = in(reg) note, inout("rsi") at => _, inout("rdi") own.as_mut_ptr() => _,
                inout("rcx") 8 => _, t = out(reg) _),
        }
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        match touch {
            Touch::Load => asm!("adr {t}, 2f", "str {t}, [{note}]", "2: ldar {t}, [{at}]",
                note = in(reg) note, at = in(reg) at, t = out(reg) own[0]),
            Touch::Store => asm!("adr {t}, 2f", "str {t}, [{note}]", "2: stlr {t}, [{at}]",
                note = in(reg) note, at = in(reg) at, t = out(reg) own[0]),
            Touch::Atomic => asm!("adr {t}, 2f", "str {t}, [{note}]", "2: ldaxr {t}, [{at}]",
                "stlxr {f:w}, {t}, [{at}]", "cbnz {f:w}, 2b",
                note = in(reg) note, at = in(reg) at, t = out(reg) own[0], f = out(reg) _),
            Touch::Copy => asm!("adr {t}, 2f", "str {t}, [{note}]", "2: ldp {t}, {u}, [{at}]",
                note = in(reg) note, at = in(reg) at, t = out(reg) own[0], u = out(reg) _),
        }
    }
    std::hint::black_box(own);
}

fn handle() {
    // SAFETY: zeros and the handler are an action.
    unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = note as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()), 0);
    }
}

/// Sends the thread a signal and waits until its handler has run.
fn signal(thread: u32) {
    let runs = RUNS.load(SeqCst);
    // SAFETY: a signal to a thread of this process.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
    assert_eq!(sent, 0);
    while RUNS.load(SeqCst) == runs {
        thread::yield_now();
    }
}

/// The one message that there is.
fn one(linux: &Linux) -> Message {
    loop {
        linux.wait(None);
        if let [message, rest @ ..] = &unread(linux)[..] {
            assert_eq!(rest, []);
            return *message;
        }
    }
}

/// How long this thread has had a processor.
fn processor_time() -> Duration {
    // SAFETY: zeros are a time, and the pointer is valid.
    let time = unsafe {
        let mut time = std::mem::zeroed::<libc::timespec>();
        assert_eq!(libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time), 0);
        time
    };
    Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap())
}

#[test]
fn a_signal_ends_the_wait_of_an_instruction() {
    fact("a_signal_ends_the_wait_of_an_instruction", |linux| {
        handle();
        for kind in [Touch::Load, Touch::Store, Touch::Atomic, Touch::Copy] {
            let memory = Memory::new(linux, 1);
            linux.trap(memory.pages).unwrap();
            thread::scope(|scope| {
                let toucher = scope.spawn(move || {
                    let before = processor_time();
                    touch(kind, memory.at(0));
                    processor_time().saturating_sub(before)
                });
                let fault = one(linux);
                let Message::Fault { thread, .. } = fault else { panic!("{fault:?}") };
                for _ in 0..10 {
                    // The handler runs while the hole is still one, at the instruction, which then
                    // waits anew.
                    signal(thread);
                    assert_eq!(POSITION.load(SeqCst), TOUCHING.load(SeqCst), "{kind:?}");
                    assert_eq!(one(linux), fault);
                }
                // A message that nobody read ends with its wait.
                for _ in 0..10 {
                    signal(thread);
                }
                thread::sleep(Duration::from_millis(30));
                assert_eq!(unread(linux), [fault]);
                thread::sleep(Duration::from_millis(30));
                assert_eq!(unread(linux), []);
                assert_eq!(linux.zero(memory.page(0), 1, Access::Write), all(1));
                let spent = toucher.join().unwrap();
                assert!(spent < Duration::from_millis(20), "{kind:?} spun for {spent:?}");
            });
        }
    });
}

#[test]
fn a_signal_beyond_the_limit_comes_without_its_data() {
    fact("a_signal_beyond_the_limit_comes_without_its_data", |_| {
        // In a child, as the limit concerns the whole process.
        let came = |limit: Option<libc::rlim_t>| {
            in_child(|| {
                handle();
                if let Some(limit) = limit {
                    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
                    // SAFETY: the limit is valid.
                    unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const limit) };
                }
                let value = libc::sigval { sival_ptr: ptr::without_provenance_mut(7) };
                // SAFETY: a signal to this process, whose only thread takes it before this returns.
                let sent = unsafe { libc::sigqueue(libc::getpid(), libc::SIGUSR1, value) };
                match (sent, CODE.load(SeqCst), VALUE.load(SeqCst)) {
                    (0, libc::SI_QUEUE, 7) => 1,
                    (0, libc::SI_USER, 0) => 2,
                    _ => 3,
                }
            })
        };
        assert_eq!((came(None), came(Some(0))), (1, 2));
    });
}
