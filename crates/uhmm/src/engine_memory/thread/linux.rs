//! Engine threads as threads of the system's C library.

use core::{
    ffi::{CStr, c_void},
    mem::{ManuallyDrop, MaybeUninit},
    ptr,
};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::stack::{STACK_BYTES, Stack};
use crate::{
    engine_memory::{EngineBox, EngineMemory, SpawnError},
    mm::Errno,
    sync::{self, Blocked, SignalsBlocked, WaitWord, change_blocked, this_thread},
};

/// The signal by which libc changes the credentials of all threads: 33 in glibc, 34 in musl.
const CREDENTIALS_SIGNAL: u32 = if cfg!(target_env = "musl") { 34 } else { 33 };

pub(super) fn on_engine_thread() -> bool {
    this_thread().is_engine_thread.get()
}

/// A thread that was started.
///
/// # Invariants
/// The thread runs on `stack` and writes to `begun` at most, until it is joined; it is joined once.
#[derive(Debug)]
pub(super) struct Running {
    thread: libc::pthread_t,
    begun: ManuallyDrop<EngineBox<WaitWord>>,
    stack: ManuallyDrop<Stack>,
}

// SAFETY: the thread's handle may be used from any thread; some libc has it as a pointer.
unsafe impl Send for Running {}
// SAFETY: as above.
unsafe impl Sync for Running {}

/// What a thread needs to begin.
struct Start<F> {
    memory: EngineMemory,
    name: &'static CStr,
    begun: *const WaitWord,
    run: F,
}

impl Running {
    pub(super) fn spawn<F>(
        memory: &EngineMemory,
        name: &'static CStr,
        run: F,
    ) -> Result<Self, SpawnError>
    where
        F: FnOnce(&SignalsBlocked) + Send + 'static,
    {
        let stack = Stack::new(memory)?;
        let begun = EngineBox::try_new(memory, WaitWord::new(0))?;
        let start = Start { memory: memory.clone(), name, begun: &raw const *begun, run };
        let (start, _) = EngineBox::into_raw(EngineBox::try_new(memory, start)?);
        match create(&stack, enter::<F>, start.cast()) {
            Ok(thread) => {
                begun.wait_while(0);
                Ok(Self {
                    thread,
                    begun: ManuallyDrop::new(begun),
                    stack: ManuallyDrop::new(stack),
                })
            }
            Err(errno) => {
                // SAFETY: no thread took the parts, which are those of the box just made.
                drop(unsafe { EngineBox::from_raw(start, memory.clone()) });
                Err(SpawnError::Refused { stack: STACK_BYTES, errno })
            }
        }
    }

    pub(super) fn thread_id(&self) -> u32 {
        self.begun.word().load(sync::atomic::Ordering::Relaxed)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SAFETY: by the invariant the thread has not been joined yet.
        if unsafe { libc::pthread_join(self.thread, ptr::null_mut()) } == 0 {
            // SAFETY: the thread is gone, so by the invariant nobody uses them; they are dropped
            // once, here.
            unsafe {
                ManuallyDrop::drop(&mut self.begun);
                ManuallyDrop::drop(&mut self.stack);
            }
        } else {
            // A thread that drops its own handle cannot wait for itself: its stack is left to it.
            // SAFETY: the thread is neither joined nor detached.
            unsafe { libc::pthread_detach(self.thread) };
        }
    }
}

/// Starts a thread on `stack` with all signals blocked, which it inherits.
fn create(
    stack: &Stack,
    enter: extern "C" fn(*mut c_void) -> *mut c_void,
    argument: *mut c_void,
) -> Result<libc::pthread_t, Errno> {
    let (start, bytes) = stack.usable();
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    let check = |error| if error == 0 { Ok(()) } else { Err(Errno(error)) };
    // SAFETY: the pointer is valid for writes of the type.
    check(unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) })?;
    // SAFETY: the attributes are initialised; the stack is the thread's alone until it is joined.
    // Blocking signals around the call changes nothing for this thread.
    let result = unsafe {
        check(libc::pthread_attr_setstack(attributes.as_mut_ptr(), start.as_ptr().cast(), bytes))
            .and_then(|()| {
                let _signals = SignalsBlocked::new();
                check(libc::pthread_create(
                    thread.as_mut_ptr(),
                    attributes.as_ptr(),
                    enter,
                    argument,
                ))
            })
    };
    // SAFETY: the attributes are initialised and not used again.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    // SAFETY: where the thread was created its handle was written.
    result.map(|()| unsafe { thread.assume_init() })
}

/// The first function of an engine thread.
extern "C" fn enter<F>(argument: *mut c_void) -> *mut c_void
where
    F: FnOnce(&SignalsBlocked) + Send + 'static,
{
    // First of all: where this code is in a library that was loaded late, libc allocates the
    // variable on its first use, and that must be over when the spawner goes on.
    this_thread().is_engine_thread.set(true);
    let signals = SignalsBlocked::for_good();
    open_credentials_signal();
    let start = argument.cast::<Start<F>>();
    // SAFETY: the spawner passed a box of this type on to this thread, with its memory in it.
    let start = unsafe {
        let memory = (*start).memory.clone();
        EngineBox::into_value(EngineBox::from_raw(start, memory))
    };
    let Start { memory, name, begun, run } = start;
    let _ = rustix::thread::set_name(name);
    // SAFETY: the spawner keeps the word until it has joined this thread.
    unsafe { &*begun }.set(sync::thread_id());
    if catch_unwind(AssertUnwindSafe(|| run(&signals))).is_err() {
        abort_after_panic(name);
    }
    drop(memory);
    ptr::null_mut()
}

/// Ends the process after a panic: whoever waits for the thread would wait for ever.
fn abort_after_panic(name: &CStr) -> ! {
    const BEFORE: &[u8] = b"an engine thread panicked: ";
    let mut message = [0; 64];
    let bytes = BEFORE.iter().chain(name.to_bytes());
    let len = bytes.zip(&mut message).map(|(byte, to)| *to = *byte).count();
    crate::abort::abort(message.get(..len).unwrap_or(BEFORE));
}

/// Unblocks the one signal that libc sends to every thread and waits for. Its handler is libc's own
/// and touches nothing that can be away.
fn open_credentials_signal() {
    change_blocked(Blocked::Without, 1 << (CREDENTIALS_SIGNAL - 1));
}
