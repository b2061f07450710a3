//! A device process that writes anything anywhere into what it shares with the program.

use std::{
    ptr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst},
    time::{Duration, Instant},
};

/// By what it is asked for; the value is what its numbers are drawn from.
pub(crate) const ASKED: &str = "UHMM_EVIL_DEVICE";

/// How long it does so, so that the test ends whatever the program does.
const FOR: Duration = Duration::from_secs(20);

/// Where the word is that says that the device is ready, as the layout has it.
const STATE: usize = 7 * 8 + 4;

/// Where the word is that says how many reports there are: behind what comes first, and a ring.
const REPORTED: usize = 128 + (128 + 256 * 64);

/// The value for which it only claims so many reports as there cannot be.
pub(crate) const CLAIMS: u64 = 0;

pub(crate) fn serve() -> ! {
    let seed = std::env::var(ASKED).ok().and_then(|text| text.parse().ok()).unwrap_or(1_u64);
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    // SAFETY: fstat fills what it is given.
    let len = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        assert_eq!(libc::fstat(0, &raw mut stat), 0);
        usize::try_from(stat.st_size).expect("a size")
    };
    // SAFETY: the system chooses the addresses.
    let start = unsafe {
        libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, 0, 0)
    };
    assert!(start != libc::MAP_FAILED);
    // SAFETY: the word is in the mapping, and aligned.
    let ready = unsafe { start.byte_add(STATE).cast::<AtomicU32>().as_ref() }.expect("a mapping");
    ready.store(1, SeqCst);
    let since = Instant::now();
    if seed == CLAIMS {
        // SAFETY: as above.
        let reported = unsafe { start.byte_add(REPORTED).cast::<AtomicU32>().as_ref() };
        reported.expect("a mapping").store(1000, SeqCst);
        std::thread::sleep(FOR);
    }
    // The program is to go on first. By seed it does a little, and there are pauses, or none.
    std::thread::sleep(Duration::from_millis(50 + seed * 3 % 20));
    while since.elapsed() < FOR {
        // All, or what goes before the orders of the second worker.
        let words = if next() % 2 == 0 { len / 8 } else { 6500.min(len / 8) };
        let word = usize::try_from(next()).expect("64 bits") % words;
        let value = match next() % 6 {
            0 => next(),
            1 => next() % 300,
            // Nearly messages.
            2 => (32 + next() % 3) | ((next() % 2) << 8),
            3 => u64::MAX,
            4 => next() % 3 + 1,
            _ => (next() % 0x2_0000) | ((next() % 300) << 32),
        };
        // SAFETY: the word is in the mapping, and aligned.
        let at = unsafe { start.cast::<AtomicU64>().add(word).as_ref() }.expect("a mapping");
        at.store(value, SeqCst);
        if seed.is_multiple_of(2) && next().is_multiple_of(1000) {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    std::process::exit(0)
}
