//! What the targets share: numbers out of a fuzzer's bytes.
//!
//! A target is one parser, or one side of a conversation whose other side the bytes play. None of them only looks
//! for panics: each holds what comes out against what may come out.
//!
//! Not here: the calls of `uhmm-dmirror`, whose structures are plain numbers that are checked against memory as it is
//! (any calls of its nodes, while memory changes, are a test of `uhmm-cli`); and the settings of the preloaded library,
//! which are numbers and paths that the standard library reads.

pub mod rings;

/// Bytes of a fuzzer, from which numbers are taken until none are left; then all numbers are zero.
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let (taken, rest) = self.0.split_at(N.min(self.0.len()));
        bytes[..taken.len()].copy_from_slice(taken);
        self.0 = rest;
        bytes
    }

    pub fn is_set(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `limit`, which is not zero.
    pub fn below(&mut self, limit: usize) -> usize {
        let number = if limit <= 256 {
            self.byte().into()
        } else {
            u32::from_le_bytes(self.bytes()) as usize
        };
        number % limit
    }

    /// Any number, of as few bytes as it takes to be a small one, one beside a power of two, or one of `known`
    /// and what is beside it.
    pub fn number(&mut self, known: &[u64]) -> u64 {
        let beside =
            |number: u64, byte: u8| number.wrapping_add(u64::from(byte % 3)).wrapping_sub(1);
        match self.byte() % 6 {
            0 | 1 => self.byte().into(),
            2 => u16::from_le_bytes(self.bytes()).into(),
            3 => {
                let byte = self.byte();
                beside(1 << (byte / 3 % 64), byte)
            }
            4 if !known.is_empty() => {
                let which = self.below(known.len());
                beside(known[which], self.byte())
            }
            _ => u64::from_le_bytes(self.bytes()),
        }
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
