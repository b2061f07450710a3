//! The userfaultfd descriptor: how one is had, what is agreed on it, and its calls, one each.

use core::{
    ffi::{CStr, c_void},
    mem::ManuallyDrop,
};

use rustix::{
    fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    fs::{Mode, OFlags},
    io::Errno,
    ioctl::{Ioctl, IoctlOutput, Opcode, ioctl},
    mm::UserfaultfdFlags,
};

use super::abi;

const DEVICE: &CStr = c"/dev/userfaultfd";

/// An ioctl by its number, whose argument is a pointer or a plain number, and whose result is the
/// number that the kernel returns.
struct Call<const OPCODE: Opcode> {
    argument: *mut c_void,
}

// SAFETY: the type only passes its argument on; who calls `ioctl` with it shows that the argument
// is what the opcode takes.
unsafe impl<const OPCODE: Opcode> Ioctl for Call<OPCODE> {
    type Output = IoctlOutput;
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.argument
    }

    unsafe fn output_from_ptr(result: IoctlOutput, _: *mut c_void) -> rustix::io::Result<i32> {
        Ok(result)
    }
}

/// Makes the call `OPCODE` with `argument`, again while a signal interrupts it.
///
/// # Safety
/// `T` is the structure that `OPCODE` takes, and what the kernel does to the memory that it names
/// is what its owner wants.
pub(super) unsafe fn call<const OPCODE: Opcode, T>(
    file: BorrowedFd<'_>,
    argument: &mut T,
) -> Result<i32, Errno> {
    loop {
        let request = Call::<OPCODE> { argument: (&raw mut *argument).cast() };
        // SAFETY: the caller's promise; the pointer is valid for reads and writes of a `T`.
        match unsafe { ioctl(file, request) } {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

/// What one bulk call of the kernel answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    /// Bytes that it says are done.
    pub(super) bytes: usize,
    /// Its error; `None` where it says that all is done.
    pub(super) error: Option<Errno>,
}

impl Reply {
    fn of(result: Result<i32, Errno>, done: i64) -> Self {
        Self { bytes: usize::try_from(done).unwrap_or(0), error: result.err() }
    }
}

/// A userfaultfd.
#[derive(Debug)]
pub(super) struct Descriptor {
    file: OwnedFd,
    user_mode_only: bool,
}

/// A child's descriptor, which reading the message of its fork has made.
///
/// # Safety
/// The descriptor of that number is one that such a message told, and is still open. It is closed
/// only by who takes it out of the wrapper.
pub(super) unsafe fn of_child(number: u32) -> ManuallyDrop<Descriptor> {
    // SAFETY: the caller's promise.
    let file = unsafe { OwnedFd::from_raw_fd(number.cast_signed()) };
    ManuallyDrop::new(Descriptor { file, user_mode_only: false })
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Descriptor {
    /// A new descriptor: from the device, else by the system call, else for user mode only.
    ///
    /// # Errors
    /// The last way's error.
    pub(super) fn new() -> Result<Self, Errno> {
        if let Ok(file) = from_device() {
            return Ok(Self { file, user_mode_only: false });
        }
        if let Ok(file) = from_system_call(0) {
            return Ok(Self { file, user_mode_only: false });
        }
        Ok(Self { file: from_system_call(abi::USER_MODE_ONLY)?, user_mode_only: true })
    }

    /// Whether faults of system calls are not for this descriptor.
    pub(super) fn user_mode_only(&self) -> bool {
        self.user_mode_only
    }

    /// Agrees on `features` and returns those that the kernel has. Once for a descriptor.
    pub(super) fn agree(&self, features: u64) -> Result<u64, Errno> {
        let mut api = abi::Api { version: abi::API_VERSION, features, calls: 0 };
        // SAFETY: the structure of the call; it touches no other memory.
        unsafe { call::<{ abi::API }, _>(self.as_fd(), &mut api) }?;
        Ok(api.features)
    }

    /// Registers a range: with [`abi::REGISTER_MISSING`] for its holes and events, where the memory is
    /// shared with [`abi::REGISTER_MINOR`] besides, with [`abi::REGISTER_WP`] for its events alone.
    ///
    /// Where the range has all of the mode already nothing changes; else its mode is replaced, with no
    /// moment in between (`fs/userfaultfd.c`, `userfaultfd_register`).
    pub(super) fn register(&self, start: usize, len: usize, mode: u64) -> Result<(), Errno> {
        let range = abi::Range { start: abi::word(start), len: abi::word(len) };
        let mut register = abi::Register { range, mode, calls: 0 };
        // SAFETY: the structure of the call; no content changes.
        unsafe { call::<{ abi::REGISTER }, _>(self.as_fd(), &mut register) }.map(drop)
    }

    /// Ends the registration of a range and wakes who waits in what was registered.
    pub(super) fn unregister(&self, start: usize, len: usize) -> Result<(), Errno> {
        let mut range = abi::Range { start: abi::word(start), len: abi::word(len) };
        // SAFETY: the structure of the call; no content changes.
        unsafe { call::<{ abi::UNREGISTER }, _>(self.as_fd(), &mut range) }.map(drop)
    }

    /// Wakes who waits on a range of at least one page. Nothing is refused about a range of pages,
    /// mapped or not.
    pub(super) fn wake(&self, start: usize, len: usize) {
        let mut range = abi::Range { start: abi::word(start), len: abi::word(len) };
        // SAFETY: the structure of the call; no content changes.
        let _ = unsafe { call::<{ abi::WAKE }, _>(self.as_fd(), &mut range) };
    }

    /// `UFFDIO_MOVE`
    pub(super) fn move_pages(&self, to: usize, from: usize, len: usize) -> Reply {
        let mut argument = abi::Copy {
            to: abi::word(to),
            from: abi::word(from),
            len: abi::word(len),
            mode: 0,
            done: 0,
        };
        // SAFETY: the structure of the call. Pages go from where they are to holes: by the contract
        // of `Mm::take` and `Mm::give` the one side is staging, and what is in the user's area is
        // looked for by who touches it next.
        let result = unsafe { call::<{ abi::MOVE }, _>(self.as_fd(), &mut argument) };
        Reply::of(result, argument.done)
    }

    /// `UFFDIO_COPY`
    pub(super) fn copy(&self, to: usize, from: usize, len: usize) -> Reply {
        let mut argument = abi::Copy {
            to: abi::word(to),
            from: abi::word(from),
            len: abi::word(len),
            mode: 0,
            done: 0,
        };
        // SAFETY: the structure of the call. Only holes of registered areas are written to.
        let result = unsafe { call::<{ abi::COPY }, _>(self.as_fd(), &mut argument) };
        Reply::of(result, argument.done)
    }

    /// `UFFDIO_ZEROPAGE`
    pub(super) fn zeropage(&self, to: usize, len: usize) -> Reply {
        let range = abi::Range { start: abi::word(to), len: abi::word(len) };
        let mut argument = abi::Fill { range, mode: 0, done: 0 };
        // SAFETY: the structure of the call. Only holes of registered areas are written to.
        let result = unsafe { call::<{ abi::ZEROPAGE }, _>(self.as_fd(), &mut argument) };
        Reply::of(result, argument.done)
    }

    /// `UFFDIO_CONTINUE`
    pub(super) fn map_existing(&self, to: usize, len: usize) -> Reply {
        let range = abi::Range { start: abi::word(to), len: abi::word(len) };
        let mut argument = abi::Fill { range, mode: 0, done: 0 };
        // SAFETY: the structure of the call. Only holes of registered shared memory get something, which
        // is what their file has.
        let result = unsafe { call::<{ abi::CONTINUE }, _>(self.as_fd(), &mut argument) };
        Reply::of(result, argument.done)
    }

    /// `UFFDIO_POISON`
    pub(super) fn poison(&self, to: usize, len: usize) -> Reply {
        let range = abi::Range { start: abi::word(to), len: abi::word(len) };
        let mut argument = abi::Fill { range, mode: 0, done: 0 };
        // SAFETY: the structure of the call. Only holes of registered areas are written to.
        let result = unsafe { call::<{ abi::POISON }, _>(self.as_fd(), &mut argument) };
        Reply::of(result, argument.done)
    }

    /// Whether an event of this descriptor is unread, or its thread has not yet gone on.
    ///
    /// A copy of no bytes is refused always; which error comes says it, for the kernel looks at
    /// pending changes before it looks at the range (`fs/userfaultfd.c`, `userfaultfd_copy`).
    pub(super) fn changing(&self) -> bool {
        self.copy(0, 0, 0).error == Some(Errno::AGAIN)
    }
}

const FLAGS: UserfaultfdFlags = UserfaultfdFlags::CLOEXEC.union(UserfaultfdFlags::NONBLOCK);

/// A descriptor from the device file, which needs no privilege but the file's permission.
fn from_device() -> Result<OwnedFd, Errno> {
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    let flags = core::ptr::without_provenance_mut(FLAGS.bits() as usize);
    let request = Call::<{ abi::NEW }> { argument: flags };
    // SAFETY: the call takes flags where others take a pointer, and touches no memory.
    let number = unsafe { ioctl(&device, request) }?;
    // SAFETY: the kernel made this descriptor for us just now, nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A descriptor by the system call.
fn from_system_call(more: u32) -> Result<OwnedFd, Errno> {
    let flags = FLAGS.union(UserfaultfdFlags::from_bits_retain(more));
    // SAFETY: a descriptor on which nothing is registered changes no memory.
    unsafe { rustix::mm::userfaultfd(flags) }
}
