//! How much memory the device has, as the command line says it.

use std::num::NonZeroU64;
use std::str::FromStr;

/// A size in bytes, or a fraction of the graph's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeviceMemory {
    /// So many bytes.
    Bytes(NonZeroU64),
    /// So much of what the graph takes.
    OfGraph {
        /// Parts.
        parts: NonZeroU64,
        /// Into how many parts the graph is divided.
        of: NonZeroU64,
    },
}

/// The text is no size of device memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DeviceMemoryError {
    /// It is neither a size nor a fraction.
    #[error("give bytes (67108864, 64MiB) or a part of the graph's size (1/4, 25%, 0.25)")]
    NotASize,
    /// It is a part of something where there is nothing that it could be a part of.
    #[error("give bytes (67108864, 64MiB)")]
    NotBytes,
    /// It is zero.
    #[error("the device needs some memory")]
    Zero,
    /// It does not fit 64 bits.
    #[error("that is more than 64 bits can count")]
    TooLarge,
}

impl DeviceMemory {
    /// The bytes that this is for a graph of a size; at least one.
    pub(crate) fn bytes(self, graph_bytes: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.get(),
            Self::OfGraph { parts, of } => {
                let product = u128::from(graph_bytes) * u128::from(parts.get());
                u64::try_from(product / u128::from(of.get())).unwrap_or(u64::MAX).max(1)
            }
        }
    }
}

impl FromStr for DeviceMemory {
    type Err = DeviceMemoryError;

    fn from_str(text: &str) -> Result<Self, DeviceMemoryError> {
        let text = text.trim();
        if let Some((parts, of)) = text.split_once('/') {
            return of_graph(integer(parts)?, integer(of)?);
        }
        if let Some(percent) = text.strip_suffix('%') {
            let (parts, of) = decimal(percent)?;
            return of_graph(parts, of.checked_mul(100).ok_or(DeviceMemoryError::TooLarge)?);
        }
        if text.ends_with(|last: char| last.is_ascii_digit()) && text.contains('.') {
            let (parts, of) = decimal(text)?;
            return of_graph(parts, of);
        }
        bytes(text)
    }
}

fn of_graph(parts: u64, of: u64) -> Result<DeviceMemory, DeviceMemoryError> {
    let parts = NonZeroU64::new(parts).ok_or(DeviceMemoryError::Zero)?;
    let of = NonZeroU64::new(of).ok_or(DeviceMemoryError::NotASize)?;
    Ok(DeviceMemory::OfGraph { parts, of })
}

/// Reads bytes, with or without a unit. All units are binary.
fn bytes(text: &str) -> Result<DeviceMemory, DeviceMemoryError> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(DeviceMemoryError::NotASize),
    };
    let (parts, of) = decimal(number)?;
    let bytes = (u128::from(parts) << shift) / u128::from(of);
    let bytes = u64::try_from(bytes).map_err(|_| DeviceMemoryError::TooLarge)?;
    NonZeroU64::new(bytes).map(DeviceMemory::Bytes).ok_or(DeviceMemoryError::Zero)
}

/// Reads a decimal number as a fraction.
fn decimal(text: &str) -> Result<(u64, u64), DeviceMemoryError> {
    let Some((whole, digits)) = text.split_once('.') else {
        return Ok((integer(text)?, 1));
    };
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(DeviceMemoryError::NotASize);
    }
    let of = u32::try_from(digits.len())
        .ok()
        .and_then(|places| 10_u64.checked_pow(places))
        .ok_or(DeviceMemoryError::TooLarge)?;
    Ok((integer(&format!("{whole}{digits}"))?, of))
}

fn integer(text: &str) -> Result<u64, DeviceMemoryError> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|digit| digit.is_ascii_digit()) {
        return Err(DeviceMemoryError::NotASize);
    }
    text.parse().map_err(|_| DeviceMemoryError::TooLarge)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of_kilo(text: &str) -> Result<u64, DeviceMemoryError> {
        text.parse().map(|memory: DeviceMemory| memory.bytes(1000))
    }

    #[test]
    fn reads_bytes_and_fractions() {
        let cases = [
            ("1", 1),
            ("4096", 4096),
            ("64KiB", 65536),
            ("2m", 2 << 20),
            ("1.5 GiB", 3 << 29),
            ("1/4", 250),
            (" 3 / 2 ", 1500),
            ("25%", 250),
            ("12.5%", 125),
            ("0.25", 250),
            ("1.0", 1000),
            ("1/5000", 1),
        ];
        for (text, bytes) in cases {
            assert_eq!(of_kilo(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_size() {
        for text in ["", "x", "-1", "1/0", "1//4", "%", "1e9", "4 parsecs", ".", "1.2.3", "+5"] {
            assert_eq!(of_kilo(text), Err(DeviceMemoryError::NotASize), "{text}");
        }
        for text in ["0", "0/4", "0%", "0.0", "0.1b"] {
            assert_eq!(of_kilo(text), Err(DeviceMemoryError::Zero), "{text}");
        }
        for text in ["18446744073709551616", "99999999999G", "0.000000000000000000001"] {
            assert_eq!(of_kilo(text), Err(DeviceMemoryError::TooLarge), "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in any::<String>(), near in "[0-9./%kKiBGT ]{0,30}", graph: u64) {
            for text in [text, near] {
                if let Ok(memory) = text.parse::<DeviceMemory>() {
                    prop_assert!(memory.bytes(graph) > 0);
                }
            }
        }
    }
}
