//! Values that a device can load and store: numbers, of which every bit pattern is one.

use core::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};

use uhmm::mm::Width;

mod sealed {
    pub trait Sealed {}
}

/// A number as a device loads and stores it: as one access, if it is aligned.
pub trait Plain: Copy + Default + Send + 'static + sealed::Sealed {
    /// Its width.
    const WIDTH: Width;

    /// Loads from memory that other workers may store to.
    ///
    /// # Safety
    /// `at` is aligned for `Self` and valid for reads.
    unsafe fn load(at: *mut u8) -> Self;

    /// Stores to memory that other workers may load from.
    ///
    /// # Safety
    /// `at` is aligned for `Self` and valid for writes.
    unsafe fn store(self, at: *mut u8);

    /// The value whose bits are the lowest of a word.
    fn from_word(word: u64) -> Self;

    /// The value's bits as the lowest of a word, the others being zero.
    fn to_word(self) -> u64;

    /// The value of these bytes, `size_of::<Self>()` of them, in the system's order.
    fn from_bytes(bytes: &[u8]) -> Self;

    /// Puts the value's bytes into `bytes`, `size_of::<Self>()` of them.
    fn to_bytes(self, bytes: &mut [u8]);

    /// The bytes of some values, in the system's order.
    fn bytes_of(values: &[Self]) -> &[u8] {
        // SAFETY: the trait is sealed, and its types are numbers, which have no padding.
        unsafe { core::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
    }

    /// The bytes of some values, in the system's order, to be changed.
    fn bytes_of_mut(values: &mut [Self]) -> &mut [u8] {
        // SAFETY: the trait is sealed, and its types are numbers, which have no padding and are valid
        // whatever their bits.
        unsafe { core::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
    }
}

/// A number that a device can add to and exchange as one access.
pub trait Counter: Plain {
    /// Adds to memory that others may change at the same time, and answers what was there.
    ///
    /// # Safety
    /// `at` is aligned for `Self` and valid for reads and writes.
    #[must_use]
    unsafe fn add_to(self, at: *mut u8) -> Self;

    /// Replaces this number by `new` in memory that others may change at the same time, and answers
    /// what was there: as an error where that was another number.
    ///
    /// # Safety
    /// `at` is aligned for `Self` and valid for reads and writes.
    #[expect(clippy::missing_errors_doc, reason = "both answers are what was there")]
    unsafe fn exchange_for(self, new: Self, at: *mut u8) -> Result<Self, Self>;
}

/// The same place, as one of a number; the callers see to its alignment.
const fn of_type<T>(at: *mut u8) -> *mut T {
    at.cast()
}

macro_rules! plain {
    ($($type:ty: $atomic:ty as $bits:ty, $width:ident, $to:expr, $from:expr;)*) => {
        $(
            impl sealed::Sealed for $type {}
            impl Plain for $type {
                const WIDTH: Width = Width::$width;
                #[inline]
                unsafe fn load(at: *mut u8) -> Self {
                    // SAFETY: as the caller says; racing accesses are atomic too.
                    let bits = unsafe { <$atomic>::from_ptr(of_type::<$bits>(at)) }.load(Relaxed);
                    $from(bits)
                }
                #[inline]
                unsafe fn store(self, at: *mut u8) {
                    // SAFETY: as above.
                    unsafe { <$atomic>::from_ptr(of_type::<$bits>(at)) }.store($to(self), Relaxed);
                }
                #[inline]
                fn from_word(word: u64) -> Self {
                    let lowest = word.to_le_bytes();
                    let mut own = [0; size_of::<Self>()];
                    own.copy_from_slice(&lowest[..size_of::<Self>()]);
                    Self::from_le_bytes(own)
                }
                #[inline]
                fn to_word(self) -> u64 {
                    let mut word = [0; size_of::<u64>()];
                    word[..size_of::<Self>()].copy_from_slice(&self.to_le_bytes());
                    u64::from_le_bytes(word)
                }
                fn from_bytes(bytes: &[u8]) -> Self {
                    let mut own = [0; size_of::<Self>()];
                    own.copy_from_slice(bytes);
                    Self::from_ne_bytes(own)
                }
                fn to_bytes(self, bytes: &mut [u8]) {
                    bytes.copy_from_slice(&self.to_ne_bytes());
                }
            }
        )*
    };
}

plain! {
    u8: AtomicU8 as u8, One, |v| v, |v| v;
    u16: AtomicU16 as u16, Two, |v| v, |v| v;
    u32: AtomicU32 as u32, Four, |v| v, |v| v;
    u64: AtomicU64 as u64, Eight, |v| v, |v| v;
    i8: AtomicU8 as u8, One, i8::cast_unsigned, u8::cast_signed;
    i16: AtomicU16 as u16, Two, i16::cast_unsigned, u16::cast_signed;
    i32: AtomicU32 as u32, Four, i32::cast_unsigned, u32::cast_signed;
    i64: AtomicU64 as u64, Eight, i64::cast_unsigned, u64::cast_signed;
    f32: AtomicU32 as u32, Four, f32::to_bits, f32::from_bits;
    f64: AtomicU64 as u64, Eight, f64::to_bits, f64::from_bits;
    usize: AtomicUsize as usize, Eight, |v| v, |v| v;
    isize: AtomicUsize as usize, Eight, isize::cast_unsigned, usize::cast_signed;
}

macro_rules! counter {
    ($($type:ty: $atomic:ty as $bits:ty, $to:expr, $from:expr;)*) => {
        $(
            impl Counter for $type {
                #[inline]
                unsafe fn add_to(self, at: *mut u8) -> Self {
                    // SAFETY: as the caller says; racing accesses are atomic too.
                    let number = unsafe { <$atomic>::from_ptr(of_type::<$bits>(at)) };
                    $from(number.fetch_add($to(self), SeqCst))
                }
                #[inline]
                unsafe fn exchange_for(self, new: Self, at: *mut u8) -> Result<Self, Self> {
                    // SAFETY: as above.
                    let number = unsafe { <$atomic>::from_ptr(of_type::<$bits>(at)) };
                    let before = number.compare_exchange($to(self), $to(new), SeqCst, SeqCst);
                    before.map($from).map_err($from)
                }
            }
        )*
    };
}

counter! {
    u32: AtomicU32 as u32, |v| v, |v| v;
    u64: AtomicU64 as u64, |v| v, |v| v;
    i32: AtomicU32 as u32, i32::cast_unsigned, u32::cast_signed;
    i64: AtomicU64 as u64, i64::cast_unsigned, u64::cast_signed;
    usize: AtomicUsize as usize, |v| v, |v| v;
    isize: AtomicUsize as usize, isize::cast_unsigned, usize::cast_signed;
}

// Words of a machine are words of a device.
const _: () = assert!(usize::BITS == u64::BITS);
