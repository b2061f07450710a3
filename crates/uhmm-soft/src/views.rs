//! What a kernel sees of its arguments: views, which know where they end.
//!
//! A kernel has its views by reference, for the time of one item, and they cannot be copied. So a
//! view is used only while the launch holds the argument.

use core::{
    marker::PhantomData,
    sync::atomic::{
        AtomicI32, AtomicI64, AtomicIsize, AtomicU32, AtomicU64, AtomicUsize,
        Ordering::{Acquire, Release},
        fence,
    },
};

use uhmm::mm::Mm;

use crate::{
    element::{self, Element},
    errors::AccessError,
    plain::Counter,
    worker::Worker,
};

/// Where consecutive values lie.
///
/// # Invariants
/// There are `len` values of type `T` at `address`, whose provenance is exposed; they may be read,
/// and written where the view that has this says so, as long as the view is reachable.
#[derive(Debug)]
struct Span<T> {
    address: usize,
    len: usize,
    values: PhantomData<T>,
}

impl<T> Span<T> {
    fn new(first: *const T, len: usize) -> Self {
        Self { address: first.expose_provenance(), len, values: PhantomData }
    }

    /// The address of `count` values from the place `first` on.
    fn at(&self, first: usize, count: usize) -> Result<usize, AccessError> {
        if first.checked_add(count).is_none_or(|end| end > self.len) {
            return Err(AccessError::OutOfBounds { first, count, len: self.len });
        }
        Ok(self.address + first * size_of::<T>())
    }
}

impl<T: Element> Span<T> {
    fn get<M: Mm>(&self, worker: &mut Worker<'_, M>, index: usize) -> Result<T, AccessError> {
        let address = self.at(index, 1)?;
        // SAFETY: by the invariant the value is there and may be read.
        unsafe { element::load(worker, address) }
    }

    fn read<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        first: usize,
        into: &mut [T],
    ) -> Result<(), AccessError> {
        let address = self.at(first, into.len())?;
        // SAFETY: by the invariant the values are there and may be read.
        unsafe { element::load_slice(worker, address, into) }
    }

    fn prefetch<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        first: usize,
        count: usize,
    ) -> Result<(), AccessError> {
        worker.prefetch(self.at(first, count)?, count * size_of::<T>());
        Ok(())
    }
}

/// A slice that a kernel reads.
#[derive(Debug)]
pub struct In<T>(Span<T>);

impl<T: Element> In<T> {
    /// # Safety
    /// While the view can be reached, the values are there and nobody writes them.
    pub(crate) unsafe fn new(first: *const T, len: usize) -> Self {
        Self(Span::new(first, len))
    }

    /// How many elements it has.
    pub const fn len(&self) -> usize {
        self.0.len
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Reads an element.
    ///
    /// # Errors
    /// [`AccessError`] where there is no such element, or its page cannot be had.
    pub fn get<M: Mm>(&self, worker: &mut Worker<'_, M>, index: usize) -> Result<T, AccessError> {
        self.0.get(worker, index)
    }

    /// Says that `count` elements from the place `first` on will be accessed soon, as
    /// [`Worker::prefetch`] does.
    ///
    /// # Errors
    /// [`AccessError`] where there are not so many.
    pub fn prefetch<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        first: usize,
        count: usize,
    ) -> Result<(), AccessError> {
        self.0.prefetch(worker, first, count)
    }

    /// Reads the elements from the place `first` on into `into`.
    ///
    /// # Errors
    /// [`AccessError`] where there are not so many, or a page cannot be had; `into` may be filled in
    /// part then.
    pub fn read<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        first: usize,
        into: &mut [T],
    ) -> Result<(), AccessError> {
        self.0.read(worker, first, into)
    }
}

/// A slice that a kernel reads and writes.
///
/// Nothing keeps two items from the same element. Where one writes what another reads or writes at
/// the same time, an element that is a number of up to eight bytes, or otherwise as large as its
/// alignment, is one of those that were written; another element can be a mix of them.
#[derive(Debug)]
pub struct InOut<T>(Span<T>);

impl<T: Element> InOut<T> {
    /// # Safety
    /// While the view can be reached, the values are there and nobody else reads or writes them.
    pub(crate) unsafe fn new(first: *mut T, len: usize) -> Self {
        Self(Span::new(first, len))
    }

    /// How many elements it has.
    pub const fn len(&self) -> usize {
        self.0.len
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Reads an element.
    ///
    /// # Errors
    /// [`AccessError`] where there is no such element, or its page cannot be had.
    pub fn get<M: Mm>(&self, worker: &mut Worker<'_, M>, index: usize) -> Result<T, AccessError> {
        self.0.get(worker, index)
    }

    /// Says that `count` elements from the place `first` on will be accessed soon, as
    /// [`Worker::prefetch`] does.
    ///
    /// # Errors
    /// [`AccessError`] where there are not so many.
    pub fn prefetch<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        first: usize,
        count: usize,
    ) -> Result<(), AccessError> {
        self.0.prefetch(worker, first, count)
    }

    /// Reads the elements from the place `first` on into `into`.
    ///
    /// # Errors
    /// [`AccessError`] where there are not so many, or a page cannot be had; `into` may be filled in
    /// part then.
    pub fn read<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        first: usize,
        into: &mut [T],
    ) -> Result<(), AccessError> {
        self.0.read(worker, first, into)
    }

    /// Writes an element.
    ///
    /// # Errors
    /// [`AccessError`] where there is no such element, or its page cannot be had; of an element
    /// that is not as large as its alignment a part may be written then.
    pub fn set<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        index: usize,
        value: T,
    ) -> Result<(), AccessError> {
        let address = self.0.at(index, 1)?;
        // SAFETY: by the invariant the value is there and may be written.
        unsafe { element::store(worker, address, value) }
    }

    /// Writes `values` over the elements from the place `first` on.
    ///
    /// # Errors
    /// [`AccessError`] where there are not so many, or a page cannot be had; they may be written in
    /// part then.
    pub fn write<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        first: usize,
        values: &[T],
    ) -> Result<(), AccessError> {
        let address = self.0.at(first, values.len())?;
        // SAFETY: by the invariant the values are there and may be written.
        unsafe { element::store_slice(worker, address, values) }
    }
}

mod sealed {
    pub trait Sealed {}
}

/// An atomic that the CPU and devices can use at the same time.
#[diagnostic::on_unimplemented(message = "`{Self}` is not an atomic that devices can use")]
pub trait Atomic: Send + Sync + sealed::Sealed + 'static {
    /// The number in it.
    type Value: Counter;
}

macro_rules! atomic {
    ($($atomic:ty: $value:ty;)*) => {
        $(
            impl sealed::Sealed for $atomic {}
            impl Atomic for $atomic {
                type Value = $value;
            }
            const _: () = assert!(size_of::<$atomic>() == size_of::<$value>());
        )*
    };
}

atomic! {
    AtomicU32: u32;
    AtomicU64: u64;
    AtomicUsize: usize;
    AtomicI32: i32;
    AtomicI64: i64;
    AtomicIsize: isize;
}

/// A slice of atomics, which CPU threads, workers and other devices use at the same time.
#[derive(Debug)]
pub struct Atomics<A>(Span<A>);

impl<A: Atomic> Atomics<A> {
    /// # Safety
    /// While the view can be reached, the atomics are there.
    pub(crate) unsafe fn new(first: *const A, len: usize) -> Self {
        Self(Span::new(first, len))
    }

    /// How many atomics it has.
    pub const fn len(&self) -> usize {
        self.0.len
    }

    /// Whether it has none.
    pub const fn is_empty(&self) -> bool {
        self.0.len == 0
    }

    /// Loads a number, as `Ordering::Acquire` does.
    ///
    /// # Errors
    /// [`AccessError`] where there is no such atomic, or its page cannot be had.
    pub fn load<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        index: usize,
    ) -> Result<A::Value, AccessError> {
        let address = self.0.at(index, 1)?;
        // SAFETY: by the invariant there is an atomic.
        let value = unsafe { worker.load(address) }?;
        fence(Acquire);
        Ok(value)
    }

    /// Stores a number, as `Ordering::Release` does.
    ///
    /// # Errors
    /// [`AccessError`] where there is no such atomic, or its page cannot be had.
    pub fn store<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        index: usize,
        value: A::Value,
    ) -> Result<(), AccessError> {
        let address = self.0.at(index, 1)?;
        fence(Release);
        // SAFETY: by the invariant there is an atomic.
        unsafe { worker.store(address, value) }
    }

    /// Adds to a number, wrapping, and answers what was there: sequentially consistent.
    ///
    /// # Errors
    /// [`AccessError`] where there is no such atomic, or its page cannot be had.
    pub fn fetch_add<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        index: usize,
        value: A::Value,
    ) -> Result<A::Value, AccessError> {
        let address = self.0.at(index, 1)?;
        // SAFETY: by the invariant there is an atomic.
        unsafe { worker.fetch_add(address, value) }
    }

    /// Replaces a number by `new` if it is `expected`, and answers what was there, as an error where
    /// that was another: sequentially consistent.
    ///
    /// # Errors
    /// [`AccessError`] where there is no such atomic, or its page cannot be had.
    pub fn compare_exchange<M: Mm>(
        &self,
        worker: &mut Worker<'_, M>,
        index: usize,
        expected: A::Value,
        new: A::Value,
    ) -> Result<Result<A::Value, A::Value>, AccessError> {
        let address = self.0.at(index, 1)?;
        // SAFETY: by the invariant there is an atomic.
        unsafe { worker.compare_exchange(address, expected, new) }
    }
}
