//! Pages that never leave main memory: control blocks of threads, writable data of loaded objects.
//!
//! A thread's control block holds words that the kernel reads and writes as the thread runs and
//! ends: the word cleared at its end, the list of robust locks, the area of restartable sequences.
//! On a trapped hole those accesses fail without a fault. Where it lies the kernel tells of one of
//! them, the head of the robust list; libc keeps the others near it.
//!
//! What the engine itself notes of a thread lies among the thread's own data, as far from the control
//! block as all that the objects loaded at first have there takes. It is read and written under locks
//! and by who serves faults.

use core::{
    ffi::{CStr, c_int, c_void},
    mem::MaybeUninit,
    ptr,
};

use rustix::{
    fs::{Mode, OFlags, RawDir},
    io::Errno as E,
};

use crate::{
    mm::{Errno, Exclusion},
    processor::thread_pointer,
    sync::{ThisThread, this_thread},
    units::{AddressRange, PageRange, PageSize},
};

/// How far from the head of a thread's robust list the word lies at most that the kernel clears as
/// the thread ends: 16 bytes in glibc, less than 200 in musl (`struct pthread` of either).
const NEAR: usize = 512;

/// Where in relation to the head of its robust list a thread's other words lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadBlocks {
    /// Bytes from the head of the list to the area of restartable sequences, wrapping; the same for
    /// all threads, as both lie at fixed places around the thread's pointer. Zero where libc has
    /// none.
    sequences: usize,
    /// Bytes from the head of the list to what the engine notes, wrapping; the same for all threads, as
    /// it lies at a fixed place from the thread's pointer too. Zero where there is no such list.
    noted: usize,
}

impl ThreadBlocks {
    /// Asks libc where it keeps the area of restartable sequences, and looks where the note is.
    pub(super) fn find() -> Self {
        // SAFETY: the symbol, where it exists, is a word that libc wrote before `main`
        // (glibc manual, "Restartable Sequences").
        let offset = unsafe {
            let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr());
            symbol.cast::<isize>().as_ref().copied()
        };
        let Ok(Some(head)) = robust_list(0) else { return Self { sequences: 0, noted: 0 } };
        let sequences = match (offset, thread_pointer()) {
            (Some(offset), pointer) if pointer != 0 => {
                pointer.wrapping_add_signed(offset).wrapping_sub(head)
            }
            _ => 0,
        };
        Self { sequences, noted: ptr::from_ref(this_thread()).addr().wrapping_sub(head) }
    }

    /// Visits the control block of every thread that lives, and what the engine notes of it.
    ///
    /// A thread that starts meanwhile may be missed, unless its block lies in its stack, which the
    /// areas tell.
    pub(super) fn visit(
        self,
        page: PageSize,
        visit: &mut dyn FnMut(PageRange, Exclusion),
    ) -> Result<(), Errno> {
        let found = find_number(c"/proc/self/task", |thread| {
            match robust_list(thread) {
                Ok(Some(head)) => {
                    visit(self.pages(head, page), Exclusion::ThreadControlBlock);
                    visit(self.noted_pages(head, page), Exclusion::ThreadControlBlock);
                }
                // Not made by libc, or gone by now.
                Ok(None) | Err(E::SRCH) => {}
                Err(error) => return Err(error),
            }
            Ok(None::<()>)
        });
        Ok(found.map(drop)?)
    }

    /// The pages of the control block around the head of a robust list: what lies near it, and as
    /// far as the area of restartable sequences.
    fn pages(self, head: usize, page: PageSize) -> PageRange {
        let sequences_page = page.page_of(head.wrapping_add(self.sequences));
        let first = page.page_of(head.saturating_sub(NEAR)).min(sequences_page);
        let last = page.page_of(head.saturating_add(NEAR)).max(sequences_page);
        PageRange::new(first, last.plus(1))
    }

    /// The pages of what the engine notes of the thread whose robust list has its head there.
    fn noted_pages(self, head: usize, page: PageSize) -> PageRange {
        let noted = head.wrapping_add(self.noted);
        let last = page.page_of(noted.saturating_add(size_of::<ThisThread>() - 1));
        PageRange::new(page.page_of(noted), last.plus(1))
    }
}

/// Goes through the names in a directory of `/proc` that are numbers, as of threads or descriptors, up to where
/// `find` finds something.
pub(super) fn find_number<T>(
    directory: &CStr,
    mut find: impl FnMut(c_int) -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(directory, flags, Mode::empty())?;
    let mut buffer = [MaybeUninit::<u8>::uninit(); 2048];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Err(E::INTR) => continue,
            entry => entry?,
        };
        if let Some(number) = number(entry.file_name().to_bytes())
            && let Some(found) = find(number)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The number that a name is; `None` for other names.
fn number(name: &[u8]) -> Option<c_int> {
    name.iter().try_fold(0, |number: c_int, &digit| {
        let value = digit.checked_sub(b'0').filter(|&value| value < 10)?;
        number.checked_mul(10)?.checked_add(value.into())
    })
}

/// The address of the head of a thread's robust list; of the calling thread's for zero.
fn robust_list(thread: c_int) -> Result<Option<usize>, E> {
    let mut head = 0_usize;
    let mut len = 0_usize;
    // SAFETY: both pointers are valid for the word that get_robust_list(2) writes.
    let result =
        unsafe { libc::syscall(libc::SYS_get_robust_list, thread, &raw mut head, &raw mut len) };
    if result == 0 {
        Ok(Some(head).filter(|&head| head != 0))
    } else {
        // SAFETY: libc's error number of this thread is always readable.
        Err(E::from_raw_os_error(unsafe { *libc::__errno_location() }))
    }
}

/// Visits the stacks of the calling thread: its own, which a program can have provided in any memory, and
/// the one that its signal handlers run on, of which only the thread itself can be told. But for the main
/// thread libc uses the heap.
pub(super) fn stacks(page: PageSize, visit: &mut dyn FnMut(PageRange, Exclusion)) {
    let mut visit = |start: *mut c_void, bytes| {
        if let Ok(bytes) = AddressRange::new(start.addr(), bytes) {
            visit(bytes.pages_touched(page), Exclusion::Stack);
        }
    };
    let mut alternate = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: there is room for what is told, and nothing is set.
    if unsafe { libc::sigaltstack(ptr::null(), alternate.as_mut_ptr()) } == 0 {
        // SAFETY: it was filled in.
        let alternate = unsafe { alternate.assume_init() };
        if alternate.ss_flags & libc::SS_DISABLE == 0 {
            visit(alternate.ss_sp, alternate.ss_size);
        }
    }
    // The system makes the main thread's own, and its area says so.
    if rustix::thread::gettid() == rustix::process::getpid() {
        return;
    }
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: it is this thread's own handle, which is alive, and there is room for its attributes.
    if unsafe { libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) } != 0 {
        return;
    }
    let (mut start, mut bytes) = (ptr::null_mut(), 0);
    // SAFETY: the attributes were filled in, and are not used after they are destroyed.
    let told = unsafe {
        let told = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut start, &raw mut bytes);
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        told
    };
    if told == 0 {
        visit(start, bytes);
    }
}

/// What the walk over the loaded objects carries along.
struct Walk<'a> {
    page: PageSize,
    visit: &'a mut dyn FnMut(PageRange, Exclusion),
}

/// Visits the writable segments of every loaded object. Takes the loader's lock.
pub(super) fn objects(page: PageSize, visit: &mut dyn FnMut(PageRange, Exclusion)) {
    let mut walk = Walk { page, visit };
    // SAFETY: `object` is called before this returns, with the pointer to `walk`.
    unsafe { libc::dl_iterate_phdr(Some(object), ptr::from_mut(&mut walk).cast()) };
}

/// Visits the writable segments of one object.
unsafe extern "C" fn object(info: *mut libc::dl_phdr_info, _: usize, walk: *mut c_void) -> c_int {
    // SAFETY: the loader calls with a valid description and with what `objects` passed, and nothing
    // else reaches either during the call.
    let (info, walk) = unsafe { (&*info, &mut *walk.cast::<Walk<'_>>()) };
    if info.dlpi_phdr.is_null() {
        return 0;
    }
    // SAFETY: the description names its table of program headers with its length.
    let headers =
        unsafe { core::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W == 0 {
            continue;
        }
        let start = super::abi::bytes(info.dlpi_addr.wrapping_add(header.p_vaddr));
        if let Ok(bytes) = AddressRange::new(start, super::abi::bytes(header.p_memsz)) {
            (walk.visit)(bytes.pages_touched(walk.page), Exclusion::ObjectData);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    #[cfg(not(any(shuttle, miri)))]
    use std::sync::mpsc;

    use super::*;
    #[cfg(not(any(shuttle, miri)))]
    use crate::testing::spawn;
    use crate::units::PageNumber;

    #[test]
    fn numbers_of_threads() {
        assert_eq!(number(b"1234"), Some(1234));
        assert_eq!(number(b"."), None);
        assert_eq!(number(b"99999999999"), None);
    }

    #[test]
    fn a_block_reaches_to_its_sequences() {
        let page = PageSize::new(4096).unwrap();
        let blocks = |sequences| ThreadBlocks { sequences, noted: 0 };
        let near = blocks(0).pages(0x5800, page);
        assert_eq!(near, PageRange::of(PageNumber(5), 1));
        let edge = blocks(0).pages(0x5010, page);
        assert_eq!(edge, PageRange::of(PageNumber(4), 2));
        let below = blocks(0_usize.wrapping_sub(0x3000)).pages(0x5000, page);
        assert_eq!(below, PageRange::of(PageNumber(2), 4));
        let above = blocks(0x3000).pages(0x5000, page);
        assert_eq!(above, PageRange::of(PageNumber(4), 5));
    }

    #[test]
    fn a_note_far_from_its_block_is_found() {
        let page = PageSize::new(4096).unwrap();
        let noted = |noted| ThreadBlocks { sequences: 0, noted }.noted_pages(0x1_0000, page);
        assert_eq!(noted(0_usize.wrapping_sub(0xf000)), PageRange::of(PageNumber(1), 1));
        assert_eq!(noted(0_usize.wrapping_sub(8)), PageRange::of(PageNumber(15), 2));
        assert_eq!(noted(0x3000), PageRange::of(PageNumber(19), 1));
    }

    #[cfg(not(any(shuttle, miri)))]
    #[test]
    fn what_is_noted_of_each_thread_is_visited() {
        let page = crate::mm::linux::page_size();
        // Of a thread as of another.
        for blocks in [ThreadBlocks::find(), spawn(ThreadBlocks::find).join().unwrap()] {
            let (tell, told) = mpsc::channel();
            let (end, ended) = mpsc::channel::<()>();
            let thread = spawn(move || {
                tell.send(here()).unwrap();
                ended.recv().ok();
            });
            let notes = [here(), told.recv().unwrap()];
            let ends = notes.map(|note| [note, note + size_of::<ThisThread>() - 1]);
            let mut found = [[false; 2]; 2];
            blocks
                .visit(page, &mut |pages, _| {
                    for (found, at) in found.iter_mut().flatten().zip(ends.iter().flatten()) {
                        *found |= pages.contains(page.page_of(*at));
                    }
                })
                .unwrap();
            assert_eq!(found, [[true; 2]; 2], "{ends:x?}");
            drop(end);
            thread.join().unwrap();
        }
    }

    /// What the calling thread's note is at.
    #[cfg(not(any(shuttle, miri)))]
    fn here() -> usize {
        ptr::from_ref(this_thread()).addr()
    }
}
