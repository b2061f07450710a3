#![expect(
    clippy::disallowed_macros,
    clippy::disallowed_types,
    reason = "tests are off the fault path"
)]

use super::*;

/// Bytes that are alike nowhere near.
fn bytes(len: usize) -> Vec<u8> {
    (0_u32..).take(len).map(|number| (number.wrapping_mul(0x9e37_79b1) >> 24) as u8).collect()
}

#[test]
fn a_copy_is_of_all_bytes_and_no_others() {
    let large = 256 << 10;
    // On either side of where it goes another way, of whole lines and not, and not aligned.
    for len in [0, 1, 63, 4096, (128 << 10) - 64, 128 << 10, (128 << 10) + 4096, large - 1, large] {
        for (from_at, to_at) in [(0, 0), (0, 8), (7, 0), (3, 5)] {
            let from = bytes(from_at + len);
            let mut to = vec![0xee_u8; 64 + to_at + len + 64];
            let start = 64 - to.as_ptr().addr() % 64 + to_at;
            // SAFETY: both have as many bytes from there on, and are apart.
            unsafe { copy(from.as_ptr().add(from_at), to.as_mut_ptr().add(start), len) };
            assert!(to[start..start + len] == from[from_at..], "{len} bytes to {to_at}");
            let mut around = to[..start].iter().chain(&to[start + len..]);
            assert!(around.all(|&byte| byte == 0xee), "beside {len} bytes to {to_at}");
        }
    }
}
