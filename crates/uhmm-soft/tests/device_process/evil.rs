//! A device process that writes anything anywhere into what it shares with the program.

use std::{
    os::fd::AsFd,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use crate::shared::{Memory, READY, REPORTS, STATE};

/// By what it is asked for; the value is what its numbers are drawn from.
pub(crate) const ASKED: &str = "UHMM_EVIL_DEVICE";

/// How long it does so, so that the test ends whatever the program does.
const FOR: Duration = Duration::from_secs(20);

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
    let memory = Memory::map(std::io::stdin().as_fd());
    memory.word(STATE).store(READY, SeqCst);
    let since = Instant::now();
    if seed == CLAIMS {
        memory.claim(REPORTS, 1000);
        std::thread::sleep(FOR);
    }
    // The program is to go on first. By seed it does a little, and there are pauses, or none.
    std::thread::sleep(Duration::from_millis(50 + seed * 3 % 20));
    while since.elapsed() < FOR {
        // All, or what goes before the orders of the second worker.
        let words = if next() % 2 == 0 { memory.len / 8 } else { 6500.min(memory.len / 8) };
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
        memory.long_word(8 * word).store(value, SeqCst);
        if seed.is_multiple_of(2) && next().is_multiple_of(1000) {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
    std::process::exit(0)
}
