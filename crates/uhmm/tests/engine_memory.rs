//! What only the system can show of engine memory: guards, forks, stacks, signals. Each thing that
//! ends a process runs in a child of its own.
#![cfg(not(any(shuttle, miri)))]
#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    reason = "tests are off the fault path"
)]

use std::{
    ffi::CStr,
    process::Command,
    ptr,
    sync::{Arc, Mutex},
};

use uhmm::{
    engine_memory::{EngineBox, EngineMemory, EngineThread, SpawnError, thread},
    sync::SignalsBlocked,
};

const MIB: usize = 1 << 20;

/// How a child ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Exit(i32),
    Signal(i32),
}

/// Runs `run` in the child of a fork, which exits with 0 after it.
fn in_child(run: impl FnOnce()) -> End {
    // SAFETY: the child makes system calls and what `run` does, and exits without unwinding.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "fork: {}", std::io::Error::last_os_error());
    if child == 0 {
        // SAFETY: the calls are sound; a time limit, so that no failure hangs the test.
        unsafe { libc::alarm(20) };
        run();
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: the pointer is valid for the status.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Exit(libc::WEXITSTATUS(status))
    }
}

/// Loads a byte.
fn touch(address: usize) {
    // SAFETY: called only in children whose end by a signal is what is looked for, or on memory
    // that is there.
    unsafe { ptr::with_exposed_provenance::<u8>(address).read_volatile() };
}

/// Starts an engine thread that lives until the function returned is called.
fn held_thread(memory: &EngineMemory) -> (EngineThread, impl FnOnce() + use<>) {
    let held: &'static Mutex<()> = Box::leak(Box::new(Mutex::new(())));
    let guard = held.lock().unwrap();
    let thread = thread::spawn(memory, c"uhmm-held", |_| drop(held.lock())).unwrap();
    (thread, move || drop(guard))
}

#[test]
fn a_fork_does_not_inherit_it() {
    let memory = EngineMemory::map(4 * MIB).unwrap();
    let value = EngineBox::try_new(&memory, 5_u8).unwrap();
    let at = (&raw const *value).expose_provenance();
    touch(at);
    assert_eq!(in_child(|| touch(at)), End::Signal(libc::SIGSEGV));
    assert_eq!(*value, 5);
}

#[test]
fn guards_fault_on_both_sides() {
    let memory = EngineMemory::map(MIB).unwrap();
    let range = memory.range();
    assert!(memory.contains(range.start()) && !memory.contains(range.end()));
    // A mapping that a child inherits would fault at its guards only; this one is not inherited, so
    // the child maps its own.
    for side in [0, 1] {
        let end = in_child(|| {
            let memory = EngineMemory::map(MIB).unwrap();
            let bytes = EngineBox::<[u8]>::try_zeroed(&memory, MIB).unwrap();
            let range = memory.range();
            let page = rustix::param::page_size();
            // What is accessible comes first: only the guard itself may fault. At the end that is the
            // last that can be handed out; behind it lies the reserve.
            let last = (&raw const bytes[MIB - 1]).addr();
            touch(if side == 0 { range.start() + page } else { last });
            // SAFETY: ends the child, with a sign that it came so far, where the guard is open.
            unsafe { libc::signal(libc::SIGSEGV, expected_fault as *const () as usize) };
            touch(if side == 0 { range.start() + page - 1 } else { range.end() - page });
        });
        assert_eq!(end, End::Exit(77));
    }
}

extern "C" fn expected_fault(_signal: i32) {
    // SAFETY: ends the child at once.
    unsafe { libc::_exit(77) };
}

#[test]
fn nothing_stays_mapped_after_the_last_handle() {
    let end = in_child(|| {
        let memory = EngineMemory::map(64 * MIB).unwrap();
        let other = memory.clone();
        let value = EngineBox::try_new(&memory, 1_u8).unwrap();
        let at = (&raw const *value).expose_provenance();
        drop((memory, other));
        assert_eq!(*value, 1);
        drop(value);
        touch(at);
    });
    assert_eq!(end, End::Signal(libc::SIGSEGV));
}

#[test]
fn freed_runs_go_back_to_the_system() {
    let memory = EngineMemory::map(64 * MIB).unwrap();
    let resident = |at: usize, len: usize| {
        let mut pages = vec![0_u8; len / rustix::param::page_size()];
        let start = ptr::with_exposed_provenance_mut(at);
        // SAFETY: the range is mapped while `memory` lives, and there is a byte for each page.
        assert_eq!(unsafe { libc::mincore(start, len, pages.as_mut_ptr()) }, 0);
        pages.iter().filter(|&&page| page & 1 != 0).count()
    };
    let mut big = EngineBox::<[u8]>::try_zeroed(&memory, 16 * MIB).unwrap();
    let at = big.as_ptr().expose_provenance();
    assert_eq!(resident(at, 16 * MIB), 0);
    big.fill(1);
    assert!(resident(at, 16 * MIB) > 0);
    drop(big);
    assert_eq!(resident(at, 16 * MIB), 0);
}

#[test]
fn a_thread_lives_in_engine_memory_and_takes_no_signal() {
    let memory = EngineMemory::map(4 * MIB).unwrap();
    let seen = Arc::new(Mutex::new((0_usize, 0_u32, 0_u64, String::new())));
    let (tell, own) = (seen.clone(), memory.clone());
    let run = move |_: &SignalsBlocked| {
        let local = 0_u8;
        let mut blocked = 0_u64;
        let mut name = [0_u8; 16];
        // SAFETY: the pointers are valid for a kernel signal set and for a name of 16 bytes.
        unsafe {
            libc::syscall(libc::SYS_rt_sigprocmask, 0, ptr::null::<u64>(), &raw mut blocked, 8);
            libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
        }
        let name = CStr::from_bytes_until_nul(&name).unwrap().to_str().unwrap().to_owned();
        assert!(thread::on_engine_thread() && own.used() > 0);
        *tell.lock().unwrap() = ((&raw const local).addr(), uhmm::sync::thread_id(), blocked, name);
    };
    let thread = thread::spawn(&memory, c"uhmm-a-long-name", run).unwrap();
    let id = thread.thread_id();
    thread.join();
    let seen = seen.lock().unwrap();
    assert!(memory.contains(seen.0));
    assert_eq!((seen.1, seen.3.as_str()), (id, "uhmm-a-long-nam"));
    // All but the two that cannot be blocked and the one by which libc changes credentials.
    let open =
        [libc::SIGKILL, libc::SIGSTOP, 33].iter().fold(0, |open, at| open | 1_u64 << (at - 1));
    assert_eq!(seen.2, !open);
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_stack_overflow_hits_the_guard() {
    #[expect(unconditional_recursion, reason = "the stack is to overflow")]
    fn down(depth: u64) -> u64 {
        let deeper = std::hint::black_box([depth + 1; 64]);
        down(deeper[7]) + deeper[3]
    }
    let end = in_child(|| {
        let memory = EngineMemory::map(4 * MIB).unwrap();
        // Below the stack: what the overflow would write to.
        let _below = EngineBox::<[u8]>::try_zeroed(&memory, MIB).unwrap();
        thread::spawn(&memory, c"uhmm-deep", |_| assert!(down(0) > 0)).unwrap().join();
    });
    assert_eq!(end, End::Signal(libc::SIGSEGV));
}

#[test]
fn no_room_for_a_stack_is_an_error() {
    let memory = EngineMemory::map(100 << 10).unwrap();
    let error = thread::spawn(&memory, c"uhmm-none", |_| {}).unwrap_err();
    assert!(matches!(error, SpawnError::Memory(_)), "{error}");
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_program_can_change_its_credentials() {
    let end = in_child(|| {
        let memory = EngineMemory::map(4 * MIB).unwrap();
        let (thread, open) = held_thread(&memory);
        // SAFETY: changes nothing, but asks every thread.
        assert_eq!(unsafe { libc::setuid(libc::getuid()) }, 0);
        open();
        thread.join();
    });
    assert_eq!(end, End::Exit(0));
}

/// libc's fork takes the caller's control block off a list that holds those of engine threads, but
/// only where the caller is the main thread.
#[test]
fn the_main_thread_can_fork() {
    let output = Command::new(std::env::current_exe().unwrap()).env(FORKS, "1").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(output.stdout, b"forked\n");
}

/// Set in the environment of a process whose main thread is to fork.
const FORKS: &str = "UHMM_TEST_FORK_ON_MAIN_THREAD";

/// The test harness leaves no main thread to tests, so this runs before it.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = fork_on_the_main_thread;

extern "C" fn fork_on_the_main_thread() {
    if std::env::var_os(FORKS).is_none() {
        return;
    }
    let memory = EngineMemory::map(4 * MIB).unwrap();
    let (first, open_first) = held_thread(&memory);
    let (second, open_second) = held_thread(&memory);
    assert_eq!(in_child(|| {}), End::Exit(0));
    open_first();
    open_second();
    drop((first, second));
    assert_eq!(memory.used(), 0);
    println!("forked");
    std::process::exit(0);
}
