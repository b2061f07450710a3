//! A userfaultfd with nothing around it: the floor that ours stands beside.
//!
//! Structures and numbers as in `include/uapi/linux/userfaultfd.h` of Linux 6.8. No events are asked
//! for, so changes of the areas registered here need no reader.

use std::ffi::c_void;

use rustix::event::{PollFd, PollFlags};
use rustix::fd::{AsFd, FromRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, ioctl, opcode};
use rustix::mm::UserfaultfdFlags;

use super::BenchError;
use super::memory::Area;

const GROUP: u8 = 0xAA;
const NEW: Opcode = opcode::none(GROUP, 0x00);
const API: Opcode = opcode::read_write::<[u64; 3]>(GROUP, 0x3F);
const REGISTER: Opcode = opcode::read_write::<[u64; 4]>(GROUP, 0x00);
const UNREGISTER: Opcode = opcode::read::<[u64; 2]>(GROUP, 0x01);
const COPY: Opcode = opcode::read_write::<[u64; 5]>(GROUP, 0x03);
const MOVE: Opcode = opcode::read_write::<[u64; 5]>(GROUP, 0x05);

const VERSION: u64 = 0xAA;
const MISSING: u64 = 1;
const WRITE_PROTECTION: u64 = 2;
const USER_MODE_ONLY: u32 = 1;
/// Faults name the thread and the byte, as ours ask for; and pages can be moved.
const FEATURES: u64 = 1 << 8 | 1 << 11 | 1 << 16;
/// The first byte of a message that tells of a fault.
const PAGEFAULT: u64 = 0x12;

/// A call with `WORDS` words, which it may answer in.
pub(super) struct Call<'a, const OPCODE: Opcode, const WORDS: usize>(
    pub(super) &'a mut [u64; WORDS],
);

// SAFETY: the opcodes that it is used with hold the size of what they take, and are used with arrays
// of that size alone; what the kernel does to other memory is shown where the calls are made.
unsafe impl<const OPCODE: Opcode, const WORDS: usize> Ioctl for Call<'_, OPCODE, WORDS> {
    type Output = ();
    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        OPCODE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.0.as_mut_ptr().cast()
    }

    unsafe fn output_from_ptr(_: IoctlOutput, _: *mut c_void) -> rustix::io::Result<()> {
        Ok(())
    }
}

/// A new descriptor, by its flags.
struct New(u32);

// SAFETY: the call takes flags in place of a pointer, and touches no memory.
unsafe impl Ioctl for New {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        NEW
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::without_provenance_mut(self.0 as usize)
    }

    unsafe fn output_from_ptr(fd: IoctlOutput, _: *mut c_void) -> rustix::io::Result<OwnedFd> {
        // SAFETY: the kernel made this descriptor just now, nobody else has it.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}

/// A userfaultfd of its own, on which areas are registered for their holes.
pub(super) struct Userfault(OwnedFd);

impl Userfault {
    /// Opens one, by the device file, else the system call, as the engine does.
    pub(super) fn open() -> Result<Self, BenchError> {
        let failed = BenchError::while_doing("a userfaultfd for the floor cannot be opened");
        let flags = UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK;
        let file = by_device(flags).or_else(|_| by_system_call(flags)).map_err(failed)?;
        let opened = Self(file);
        opened.call::<API, 3>([VERSION, FEATURES, 0]).0.map_err(failed)?;
        Ok(opened)
    }

    /// Registers an area for its holes.
    pub(super) fn register(&self, area: &Area) -> Result<(), BenchError> {
        self.register_for(area, MISSING)
    }

    /// Registers an area as the engine does that watches it, for write protection.
    pub(super) fn watch(&self, area: &Area) -> Result<(), BenchError> {
        self.register_for(area, WRITE_PROTECTION)
    }

    fn register_for(&self, area: &Area, mode: u64) -> Result<(), BenchError> {
        let [start, len] = bytes(area, 0, area.pages());
        self.call::<REGISTER, 4>([start, len, mode, 0])
            .0
            .map_err(BenchError::while_doing("memory for the floor cannot be registered"))
    }

    /// Ends an area's registration and wakes who waits in it.
    pub(super) fn unregister(&self, area: &Area) {
        let _ = self.call::<UNREGISTER, 2>(bytes(area, 0, area.pages()));
    }

    /// Moves `pages` pages from one area to the same places of another, where there are holes.
    pub(super) fn move_pages(
        &self,
        from: &Area,
        to: &Area,
        first: usize,
        pages: usize,
    ) -> Result<(), BenchError> {
        self.transfer::<MOVE>(from, to, first, pages)
            .map_err(BenchError::while_doing("pages of the floor cannot be moved"))
    }

    /// Copies `pages` pages from one area to the same places of another, where there are holes, and
    /// wakes who waits for them.
    pub(super) fn copy(
        &self,
        from: &Area,
        to: &Area,
        first: usize,
        pages: usize,
    ) -> Result<(), BenchError> {
        self.transfer::<COPY>(from, to, first, pages)
            .map_err(BenchError::while_doing("pages of the floor cannot be copied"))
    }

    fn transfer<const OPCODE: Opcode>(
        &self,
        from: &Area,
        to: &Area,
        first: usize,
        pages: usize,
    ) -> rustix::io::Result<()> {
        let [mut source, mut left] = bytes(from, first, pages);
        let [mut target, _] = bytes(to, first, pages);
        loop {
            let (result, [.., done]) = self.call::<OPCODE, 5>([target, source, left, 0, 0]);
            match result {
                Ok(()) => return Ok(()),
                // A part is done; or, where nothing is, what stood in the way passes.
                Err(Errno::AGAIN | Errno::INTR) => {
                    let done = if done.cast_signed() > 0 { done } else { 0 };
                    source += done;
                    target += done;
                    left -= done;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for a fault, reads it, and returns its address.
    pub(super) fn next_fault(&self) -> rustix::io::Result<usize> {
        loop {
            rustix::event::poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None)?;
            let mut message = [0_u8; 32];
            match rustix::io::read(&self.0, &mut message) {
                Ok(_) => {}
                Err(Errno::AGAIN | Errno::INTR) => continue,
                Err(error) => return Err(error),
            }
            let (words, _) = message.as_chunks::<8>();
            if u64::from(words[0][0]) == PAGEFAULT {
                let address = u64::from_ne_bytes(words[2]);
                return usize::try_from(address).map_err(|_| Errno::FAULT);
            }
        }
    }

    fn call<const OPCODE: Opcode, const WORDS: usize>(
        &self,
        mut words: [u64; WORDS],
    ) -> (rustix::io::Result<()>, [u64; WORDS]) {
        let call = Call::<OPCODE, WORDS>(&mut words);
        // SAFETY: the words are what the opcode takes. The memory that they name is of areas, into
        // which there are no references.
        let result = unsafe { ioctl(self.0.as_fd(), call) };
        (result, words)
    }
}

/// `pages` pages of an area from `first` on: their address, and their length in bytes.
fn bytes(area: &Area, first: usize, pages: usize) -> [u64; 2] {
    let address = area.pointer(first, pages).as_ptr().expose_provenance();
    [address as u64, area.page_size().bytes_in(pages) as u64]
}

fn by_device(flags: UserfaultfdFlags) -> rustix::io::Result<OwnedFd> {
    let device =
        rustix::fs::open(c"/dev/userfaultfd", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: the call makes a descriptor and changes no memory.
    unsafe { ioctl(device, New(flags.bits())) }
}

fn by_system_call(flags: UserfaultfdFlags) -> rustix::io::Result<OwnedFd> {
    // SAFETY: a descriptor on which nothing is registered changes no memory.
    unsafe { rustix::mm::userfaultfd(flags) }.or_else(|_| {
        let flags = flags | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
        // SAFETY: as above.
        unsafe { rustix::mm::userfaultfd(flags) }
    })
}
