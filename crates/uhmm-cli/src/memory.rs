//! What the machine has left, so that an input that cannot fit is refused instead of starting the
//! kernel's out-of-memory killer.

use indicatif::BinaryBytes;

/// Something needs more memory than the machine has available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it needs about {} of memory and {} are available", BinaryBytes(*needed), BinaryBytes(*available))]
pub(crate) struct NotEnoughMemory {
    /// Bytes that would be needed.
    pub(crate) needed: u64,
    /// Bytes that can be had without swapping.
    pub(crate) available: u64,
}

/// An error if `needed` bytes are more than the machine has available. Passes where that is
/// unknown.
pub(crate) fn check(needed: u64) -> Result<(), NotEnoughMemory> {
    let Some(available) =
        std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| parse_available(&text))
    else {
        return Ok(());
    };
    if needed > available { Err(NotEnoughMemory { needed, available }) } else { Ok(()) }
}

pub(crate) fn parse_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_available_line() {
        let text = "MemTotal:  100 kB\nMemAvailable:    42 kB\nBuffers: 1 kB\n";
        assert_eq!(parse_available(text), Some(42 * 1024));
        assert_eq!(parse_available("MemTotal: 1 kB\n"), None);
        assert_eq!(parse_available("MemAvailable: many kB\n"), None);
    }

    #[test]
    fn refuses_what_no_machine_has() {
        assert!(check(u64::MAX).is_err());
        assert!(check(0).is_ok());
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_the_line_or_not(text in "(MemAvailable:|[0-9]{0,25}| kB|\\PC|\n){0,20}") {
            let _ = parse_available(&text);
        }
    }
}
