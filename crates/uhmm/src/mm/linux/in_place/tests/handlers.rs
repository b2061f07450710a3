//! Our handler and the program's, each scenario in a child of its own.

use core::{
    ffi::c_int,
    sync::atomic::{AtomicI32, AtomicUsize},
};

use super::*;

/// How often a handler of the program was called, and with which code last.
static CALLS: AtomicUsize = AtomicUsize::new(0);
static CODE: AtomicI32 = AtomicI32::new(0);
/// The page that it makes accessible.
static PAGE: AtomicUsize = AtomicUsize::new(0);
/// What it passes on to, if anything.
static BEHIND: AtomicUsize = AtomicUsize::new(0);
/// What it saw while it ran: blocked signals, and where its stack is.
static BLOCKED: AtomicU64 = AtomicU64::new(0);
static STACK: AtomicUsize = AtomicUsize::new(0);

type Informed = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// A handler of the program: makes its page accessible, or passes on.
extern "C" fn informed(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: a handler's information is the kernel's.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    CODE.store(code, Relaxed);
    let behind = BEHIND.load(Relaxed);
    if behind != 0 && (code <= 0 || address != PAGE.load(Relaxed)) {
        CALLS.fetch_add(1, Relaxed);
        // SAFETY: it is what sigaction(2) answered for a handler with `SA_SIGINFO`.
        unsafe { core::mem::transmute::<usize, Informed>(behind)(signal, info, context) };
    } else {
        plain(signal);
    }
}

/// A handler of the program that is told nothing but the signal: makes its page accessible.
extern "C" fn plain(_: c_int) {
    CALLS.fetch_add(1, Relaxed);
    BLOCKED.store(accesses::blocked(), Relaxed);
    let local = 0_u8;
    STACK.store((&raw const local).addr(), Relaxed);
    page().protect(READ_WRITE);
}

/// The page that a handler makes accessible.
fn page() -> Page {
    Page(ptr::with_exposed_provenance_mut(PAGE.load(Relaxed)))
}

fn calls() -> usize {
    CALLS.load(Relaxed)
}

/// Sets what is done about both signals, and answers what was before.
fn set(handler: usize, flags: c_int, also_blocked: Option<c_int>) -> usize {
    // SAFETY: zeros are an action; the handlers are ours.
    unsafe {
        let mut action = core::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        if let Some(signal) = also_blocked {
            libc::sigaddset(&raw mut action.sa_mask, signal);
        }
        let mut before = core::mem::zeroed::<libc::sigaction>();
        assert_eq!(libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()), 0);
        assert_eq!(libc::sigaction(libc::SIGSEGV, &raw const action, &raw mut before), 0);
        before.sa_sigaction
    }
}

fn set_informed(flags: c_int) -> usize {
    set(informed as *const () as usize, libc::SA_SIGINFO | flags, None)
}

fn raise(signal: c_int) {
    // SAFETY: a signal to this process.
    unsafe { libc::kill(libc::getpid(), signal) };
}

/// Runs a scenario in a child, where both signals have their default action at first, and there is
/// a page without access. Answers how it ended: what does not hold ends it with the number of the
/// line after it, less a multiple of 200.
fn scenario(body: impl FnOnce(&Accessors) -> Result<(), u32>) -> i32 {
    in_child(|| {
        let Ok(accessors) = Accessors::new() else { return 254 };
        let page = Page::new();
        page.protect(NONE);
        PAGE.store(page.address(), Relaxed);
        set(libc::SIG_DFL, 0, None);
        match body(&accessors) {
            Ok(()) => 0,
            Err(line) => (line % 200).cast_signed() + 1,
        }
    })
}

/// Ends a scenario where something does not hold.
macro_rules! holds {
    ($what:expr) => {
        if !$what {
            return Err(line!());
        }
    };
}

/// Whether an access in place is refused.
fn refused(open: &Open<'_>) -> bool {
    open.fetch_add(8, Width::Eight, 1) == Err(Refused)
        && open.load(page().address() + page_bytes(), Width::One) == Err(Refused)
}

/// Reads where nothing is, as a broken program does.
fn crash() {
    Page(ptr::without_provenance_mut(8)).read(0);
}

#[test]
fn a_program_without_handlers_crashes_as_ever() {
    for opened in [false, true] {
        let end = scenario(|accessors| {
            let open = Open::new(accessors);
            holds!(refused(&open));
            let _open = opened.then_some(open);
            crash();
            Ok(())
        });
        assert_eq!(end, -libc::SIGSEGV);
    }
    let end = scenario(|accessors| {
        let open = Open::new(accessors);
        let (page, file) = Page::of_file();
        holds!(rustix::fs::ftruncate(&file, 0).is_ok());
        holds!(open.load(page.address(), Width::One) == Err(Refused));
        page.read(0);
        Ok(())
    });
    assert_eq!(end, -libc::SIGBUS);
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        let end = scenario(|accessors| {
            let _open = Open::new(accessors);
            raise(signal);
            Ok(())
        });
        assert_eq!(end, -signal);
    }
}

#[test]
fn a_program_that_ignores_the_signals_survives_those_that_are_sent() {
    let end = scenario(|accessors| {
        set(libc::SIG_IGN, 0, None);
        let open = Open::new(accessors);
        holds!(refused(&open));
        raise(libc::SIGSEGV);
        raise(libc::SIGBUS);
        holds!(refused(&open));
        Ok(())
    });
    assert_eq!(end, 0);
    let end = scenario(|accessors| {
        set(libc::SIG_IGN, 0, None);
        let _open = Open::new(accessors);
        crash();
        Ok(())
    });
    assert_eq!(end, -libc::SIGSEGV);
}

#[test]
fn a_handler_from_before_gets_what_is_not_for_accesses() {
    let end = scenario(|accessors| {
        set_informed(0);
        let open = Open::new(accessors);
        holds!(refused(&open));
        holds!(open.load(page().address(), Width::One) == Err(Refused));
        holds!(calls() == 0);
        holds!(page().read(0) == 0 && calls() == 1);
        holds!(CODE.load(Relaxed) == 2);
        drop(open);
        page().protect(NONE);
        holds!(page().read(0) == 0 && calls() == 2);
        raise(libc::SIGSEGV);
        holds!(calls() == 3 && CODE.load(Relaxed) == libc::SI_USER);
        Ok(())
    });
    assert_eq!(end, 0);
    let end = scenario(|accessors| {
        set(plain as *const () as usize, 0, None);
        let open = Open::new(accessors);
        holds!(refused(&open) && calls() == 0);
        holds!(page().read(0) == 0 && calls() == 1);
        Ok(())
    });
    assert_eq!(end, 0);
}

#[test]
fn a_handler_that_came_later_and_passes_on_gets_what_is_not_for_accesses() {
    let end = scenario(|accessors| {
        let first = Open::new(accessors);
        BEHIND.store(set_informed(0), Relaxed);
        holds!(refused(&first) && calls() == 2);
        let second = Open::new(accessors);
        holds!(refused(&second) && refused(&first) && calls() == 2);
        holds!(page().read(0) == 0 && calls() == 3);
        // Its own handler, ours of the second opening, its handler, ours of the first.
        crash();
        Ok(())
    });
    assert_eq!(end, -libc::SIGSEGV);
}

#[test]
fn handlers_that_come_and_go_use_nothing_up_and_different_ones_do() {
    let end = scenario(|accessors| {
        let first = Open::new(accessors);
        for _ in 0..3 * signals::DEPTH {
            let before = set_informed(0);
            BEHIND.store(before, Relaxed);
            holds!(refused(&Open::new(accessors)));
            set(before, libc::SA_SIGINFO, None);
            holds!(refused(&Open::new(accessors)));
        }
        let mut full = None;
        for more in 0..=signals::DEPTH {
            let Ok(number) = c_int::try_from(more) else { return Err(line!()) };
            set(informed as *const () as usize, libc::SA_SIGINFO, Some(libc::SIGRTMIN() + number));
            match accessors.open() {
                Ok(accessor) => accessors.close(accessor),
                Err(error) => full = full.or(Some((more, error))),
            }
        }
        holds!(full.is_some_and(|(more, error)| more > 2 && error == Errno(libc::ENOSPC)));
        drop(first);
        Ok(())
    });
    assert_eq!(end, 0);
}

#[test]
fn a_handler_that_wants_to_be_called_once_is() {
    let once = |accessors: &Accessors| {
        set_informed(libc::SA_RESETHAND);
        let open = Open::new(accessors);
        page().protect(NONE);
        let before = calls();
        holds!(refused(&open) && refused(&open) && calls() == before);
        holds!(page().read(0) == 0 && calls() == before + 1);
        holds!(refused(&open) && calls() == before + 1);
        Ok(())
    };
    // Put there anew, it is to be called once more.
    let end = scenario(|accessors| once(accessors).and_then(|()| once(accessors)));
    assert_eq!(end, 0);
    let end = scenario(|accessors| {
        once(accessors)?;
        page().protect(NONE);
        page().read(0);
        Ok(())
    });
    assert_eq!(end, -libc::SIGSEGV);
}

#[test]
fn a_handler_runs_with_the_signals_blocked_that_it_asked_for() {
    const SEGV: u64 = 1 << (libc::SIGSEGV - 1);
    const USR1: u64 = 1 << (libc::SIGUSR1 - 1);
    for (flags, also_blocked, expected) in [
        (0, None, SEGV),
        (0, Some(libc::SIGUSR1), SEGV | USR1),
        (libc::SA_NODEFER, None, 0),
        (libc::SA_NODEFER, Some(libc::SIGUSR1), USR1),
    ] {
        let end = scenario(|accessors| {
            let handler = informed as *const () as usize;
            set(handler, libc::SA_SIGINFO | flags, also_blocked);
            drop(Open::new(accessors));
            holds!(page().read(0) == 0 && calls() == 1);
            holds!(BLOCKED.load(Relaxed) & (SEGV | USR1) == expected);
            Ok(())
        });
        assert_eq!(end, 0, "{flags} {also_blocked:?}");
    }
}

#[test]
fn a_handler_runs_on_the_stack_that_it_asked_for() {
    for flags in [0, libc::SA_ONSTACK] {
        let end = scenario(|accessors| {
            let stack = Page::several(16);
            let len = 16 * page_bytes();
            let alternate = libc::stack_t { ss_sp: stack.0, ss_flags: 0, ss_size: len };
            // SAFETY: the memory is the stack's alone.
            holds!(unsafe { libc::sigaltstack(&raw const alternate, ptr::null_mut()) } == 0);
            set_informed(flags);
            let open = Open::new(accessors);
            holds!(refused(&open));
            holds!(page().read(0) == 0 && calls() == 1);
            let at = STACK.load(Relaxed);
            let on_it = (stack.address()..stack.address() + len).contains(&at);
            holds!(on_it == (flags == libc::SA_ONSTACK));
            Ok(())
        });
        assert_eq!(end, 0, "{flags}");
    }
}

#[test]
fn the_runtimes_handler_still_tells_of_stacks_that_overflow() {
    #[expect(unconditional_recursion, reason = "that is the test")]
    fn overflow(depth: usize) -> usize {
        core::hint::black_box([depth; 64])[1] + overflow(depth + 1)
    }
    let end = in_child(|| {
        let Ok(accessors) = Accessors::new() else { return 254 };
        let _open = Open::new(&accessors);
        // SAFETY: the descriptor of this child's standard error.
        unsafe { libc::close(2) };
        i32::from(overflow(0) == 0)
    });
    assert_eq!(end, -libc::SIGABRT);
}

#[test]
fn signals_that_the_program_sends_come_through_in_the_midst_of_accesses() {
    let end = scenario(|accessors| {
        set_informed(0);
        let over = AtomicBool::new(false);
        let thread = AtomicU32::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let open = Open::new(accessors);
                thread.store(crate::sync::thread_id(), Release);
                let at = Page::new().address();
                while !over.load(Relaxed) {
                    if open.fetch_add(at, Width::Eight, 1).is_err() {
                        CALLS.store(usize::MAX / 2, Relaxed);
                    }
                }
            });
            let _end = Over(&over);
            while thread.load(Acquire) == 0 {
                std::thread::yield_now();
            }
            for round in 0..200 {
                let thread = thread.load(Relaxed);
                // SAFETY: a signal to a thread of this process.
                unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGSEGV) };
                while calls() == round {
                    std::thread::yield_now();
                }
            }
        });
        holds!(calls() == 200);
        Ok(())
    });
    assert_eq!(end, 0);
}

#[test]
fn a_signal_of_ours_that_comes_late_or_bare_is_for_nobody() {
    let end = scenario(|accessors| {
        set_informed(0);
        let open = Open::new(accessors);
        let me = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        holds!(signals::send(me).is_ok() && calls() == 0);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the limit concerns this child.
        holds!(unsafe { libc::setrlimit(libc::RLIMIT_SIGPENDING, &raw const none) } == 0);
        holds!(signals::send(me).is_ok() && calls() == 0);
        holds!(refused(&open) && calls() == 0);
        Ok(())
    });
    assert_eq!(end, 0);
}
