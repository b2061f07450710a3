//! Values that a device can load and store: numbers, of which every bit pattern is one.

use core::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};

mod sealed {
    pub trait Sealed {}
}

/// A number as a device loads and stores it: as one access, if it is aligned.
pub trait Plain: Copy + Default + Send + 'static + sealed::Sealed {
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

    /// The value of these bytes, `size_of::<Self>()` of them, in the system's order.
    fn from_bytes(bytes: &[u8]) -> Self;

    /// Puts the value's bytes into `bytes`, `size_of::<Self>()` of them.
    fn to_bytes(self, bytes: &mut [u8]);
}

/// The same place, as one of a number; the callers see to its alignment.
const fn of_type<T>(at: *mut u8) -> *mut T {
    at.cast()
}

macro_rules! plain {
    ($($type:ty: $atomic:ty as $bits:ty, $to:expr, $from:expr;)*) => {
        $(
            impl sealed::Sealed for $type {}
            impl Plain for $type {
                unsafe fn load(at: *mut u8) -> Self {
                    // SAFETY: as the caller says; racing accesses are atomic too.
                    let bits = unsafe { <$atomic>::from_ptr(of_type::<$bits>(at)) }.load(Relaxed);
                    $from(bits)
                }
                unsafe fn store(self, at: *mut u8) {
                    // SAFETY: as above.
                    unsafe { <$atomic>::from_ptr(of_type::<$bits>(at)) }.store($to(self), Relaxed);
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
    u8: AtomicU8 as u8, |v| v, |v| v;
    u16: AtomicU16 as u16, |v| v, |v| v;
    u32: AtomicU32 as u32, |v| v, |v| v;
    u64: AtomicU64 as u64, |v| v, |v| v;
    i8: AtomicU8 as u8, i8::cast_unsigned, u8::cast_signed;
    i16: AtomicU16 as u16, i16::cast_unsigned, u16::cast_signed;
    i32: AtomicU32 as u32, i32::cast_unsigned, u32::cast_signed;
    i64: AtomicU64 as u64, i64::cast_unsigned, u64::cast_signed;
    f32: AtomicU32 as u32, f32::to_bits, f32::from_bits;
    f64: AtomicU64 as u64, f64::to_bits, f64::from_bits;
}

plain! {
    usize: AtomicUsize as usize, |v| v, |v| v;
    isize: AtomicUsize as usize, isize::cast_unsigned, usize::cast_signed;
}
