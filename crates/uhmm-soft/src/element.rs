//! What slices that a kernel reaches are made of: types of plain bytes.
//!
//! An element is accessed in units, numbers as wide as its alignment, always the same for one type.
//! So workers that race for an element see each unit whole, and never access the same bytes by atomics of
//! different widths, which the language does not allow.

use uhmm::mm::Mm;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{errors::AccessError, plain::Plain, worker::Worker};

/// A type of plain bytes: any bytes are a value, there is no padding, and nothing changes behind a
/// shared reference.
///
/// It is implemented for numbers and arrays. For another type, derive zerocopy's traits, which check
/// all that, and implement this one, which has nothing to fill in:
///
/// ```
/// use uhmm_soft::{Element, zerocopy::{FromBytes, Immutable, IntoBytes}};
///
/// #[derive(Clone, Copy, FromBytes, Immutable, IntoBytes)]
/// #[zerocopy(crate = "uhmm_soft::zerocopy")]
/// #[repr(C)]
/// struct Edge {
///     to: u32,
///     weight: f32,
/// }
///
/// impl Element for Edge {}
/// ```
///
/// A trait for all that has zerocopy's would keep atomics out of the arguments: the compiler
/// has to know that no atomic is an element.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not known as a type of plain bytes",
    note = "derive `Clone`, `Copy` and zerocopy's `FromBytes`, `Immutable` and `IntoBytes`, then write `impl Element for {Self} {{}}`"
)]
pub trait Element: FromBytes + IntoBytes + Immutable + Copy + Send + Sync + 'static {}

macro_rules! element {
    ($($type:ty)*) => {
        $(impl Element for $type {})*
    };
}

element! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 }

impl Element for () {}

impl<T: Element, const N: usize> Element for [T; N] {}

/// Loads an element: as one access where it is one unit.
///
/// # Safety
/// There are `T`s at the address, and [access by address](Worker#safety-of-accesses-by-address) is
/// allowed.
pub(crate) unsafe fn load<T: Element, M: Mm>(
    worker: &mut Worker<'_, M>,
    address: usize,
) -> Result<T, AccessError> {
    let mut value = T::new_zeroed();
    let bytes = value.as_mut_bytes();
    // SAFETY: the caller's promise; each type of element has its units.
    unsafe {
        match (size_of::<T>(), align_of::<T>()) {
            (1, _) => worker.load::<u8>(address)?.to_bytes(bytes),
            (2, 2) => worker.load::<u16>(address)?.to_bytes(bytes),
            (4, 4) => worker.load::<u32>(address)?.to_bytes(bytes),
            (8, 8) => worker.load::<u64>(address)?.to_bytes(bytes),
            _ => load_slice(worker, address, core::slice::from_mut(&mut value))?,
        }
    }
    Ok(value)
}

/// Stores an element: as one access where it is one unit.
///
/// # Safety
/// As of [`load`].
pub(crate) unsafe fn store<T: Element, M: Mm>(
    worker: &mut Worker<'_, M>,
    address: usize,
    value: T,
) -> Result<(), AccessError> {
    let bytes = value.as_bytes();
    // SAFETY: the caller's promise; each type of element has its units.
    unsafe {
        match (size_of::<T>(), align_of::<T>()) {
            (1, _) => worker.store(address, u8::from_bytes(bytes)),
            (2, 2) => worker.store(address, u16::from_bytes(bytes)),
            (4, 4) => worker.store(address, u32::from_bytes(bytes)),
            (8, 8) => worker.store(address, u64::from_bytes(bytes)),
            _ => store_slice(worker, address, core::slice::from_ref(&value)),
        }
    }
}

/// Loads consecutive elements.
///
/// # Safety
/// As of [`load`].
pub(crate) unsafe fn load_slice<T: Element, M: Mm>(
    worker: &mut Worker<'_, M>,
    address: usize,
    values: &mut [T],
) -> Result<(), AccessError> {
    let bytes = values.as_mut_bytes();
    // SAFETY: the caller's promise; each type of element has its units.
    unsafe {
        match align_of::<T>() {
            1 => worker.load_slice::<u8>(address, bytes),
            2 => worker.load_slice::<u16>(address, units_mut(bytes)),
            4 => worker.load_slice::<u32>(address, units_mut(bytes)),
            _ => worker.load_slice::<u64>(address, units_mut(bytes)),
        }
    }
}

/// Stores consecutive elements.
///
/// # Safety
/// As of [`load`].
pub(crate) unsafe fn store_slice<T: Element, M: Mm>(
    worker: &mut Worker<'_, M>,
    address: usize,
    values: &[T],
) -> Result<(), AccessError> {
    let bytes = values.as_bytes();
    // SAFETY: the caller's promise; each type of element has its units.
    unsafe {
        match align_of::<T>() {
            1 => worker.store_slice::<u8>(address, bytes),
            2 => worker.store_slice::<u16>(address, units(bytes)),
            4 => worker.store_slice::<u32>(address, units(bytes)),
            _ => worker.store_slice::<u64>(address, units(bytes)),
        }
    }
}

/// The bytes of elements as units, which are no wider than the elements are aligned for.
fn units<U: FromBytes + Immutable>(bytes: &[u8]) -> &[U] {
    let units = <[U]>::ref_from_bytes(bytes);
    units.unwrap_or_else(|_| unreachable!("elements are made of whole units"))
}

/// As [`units`], to be changed.
fn units_mut<U: FromBytes + IntoBytes>(bytes: &mut [u8]) -> &mut [U] {
    let units = <[U]>::mut_from_bytes(bytes);
    units.unwrap_or_else(|_| unreachable!("elements are made of whole units"))
}
