//! What a kernel is launched over, and what it sees of that.

use std::sync::Arc;

use crate::{
    element::Element,
    views::{Atomics, In, InOut},
};

mod sealed {
    pub trait Sealed {}
}

/// What a kernel can be launched over: one argument, or a tuple of up to six.
///
/// | argument | the kernel sees |
/// | --- | --- |
/// | `&[T]`, `Arc<[T]>` | [`In<T>`] |
/// | `&mut [T]`, `Vec<T>`, `Box<[T]>` | [`InOut<T>`] |
/// | `&[A]`, `Arc<[A]>`, `Vec<A>`, with `A` an [`Atomic`](crate::Atomic) | [`Atomics<A>`] |
/// | a tuple of arguments | the tuple of what it sees of each |
///
/// `T` is an [`Element`]. What is owned is for launches that outlive a call, and is given back.
///
/// Nothing has to be adopted for a launch. What is not is mapped where it is: so are stacks, constants
/// and files, which never migrate.
#[diagnostic::on_unimplemented(
    message = "a kernel cannot be launched over `{Self}`",
    note = "arguments are slices of elements or of atomics, and tuples of up to six of them, as in `(&xs[..], &mut ys[..])`"
)]
pub trait Arguments: Send + sealed::Sealed {
    /// What the kernel sees of them.
    type Views: Send + Sync;

    /// The views of the arguments.
    ///
    /// # Safety
    /// Until the views cannot be reached any more, the arguments stay where they are and are not
    /// touched.
    #[doc(hidden)]
    unsafe fn views(&mut self) -> Self::Views;
}

/// Arguments of `T: $bound` of each type, seen as `$view`, with a pointer from `$pointer`.
macro_rules! arguments {
    ($($bound:ident: $($type:ty)* => $view:ident, $pointer:ident;)*) => {
        $($(
            impl<T: $bound> sealed::Sealed for $type {}
            impl<T: $bound> Arguments for $type {
                type Views = $view<T>;
                unsafe fn views(&mut self) -> $view<T> {
                    // SAFETY: while the argument stays and nobody touches it, it lends its values
                    // to the view, as the table at the trait says.
                    unsafe { $view::new(self.$pointer(), self.len()) }
                }
            }
        )*)*
    };
}

arguments! {
    Element: &[T] Arc<[T]> => In, as_ptr;
    Element: &mut [T] Vec<T> Box<[T]> => InOut, as_mut_ptr;
}

/// Arguments of atomics. One by one, so that the compiler sees that none is an element.
macro_rules! atomic_arguments {
    ($($atomic:ident)*) => {
        $(atomic_arguments! { of core::sync::atomic::$atomic })*
    };
    (of $atomic:ty) => {
        atomic_arguments! { $atomic: &[$atomic], Arc<[$atomic]>, Vec<$atomic> }
    };
    ($atomic:ty: $($type:ty),*) => {
        $(
            impl sealed::Sealed for $type {}
            impl Arguments for $type {
                type Views = Atomics<$atomic>;
                unsafe fn views(&mut self) -> Atomics<$atomic> {
                    // SAFETY: the atomics are there as long as the argument is.
                    unsafe { Atomics::new(self.as_ptr(), self.len()) }
                }
            }
        )*
    };
}

atomic_arguments! { AtomicU32 AtomicU64 AtomicUsize AtomicI32 AtomicI64 AtomicIsize }

macro_rules! tuple {
    ($($argument:ident $place:tt),*) => {
        impl<$($argument: Arguments),*> sealed::Sealed for ($($argument,)*) {}
        impl<$($argument: Arguments),*> Arguments for ($($argument,)*) {
            type Views = ($($argument::Views,)*);
            unsafe fn views(&mut self) -> Self::Views {
                // SAFETY: the parts stay as the tuple does.
                unsafe { ($(self.$place.views(),)*) }
            }
        }
    };
}

impl sealed::Sealed for () {}

impl Arguments for () {
    type Views = ();
    unsafe fn views(&mut self) {}
}

tuple! { A 0 }
tuple! { A 0, B 1 }
tuple! { A 0, B 1, C 2 }
tuple! { A 0, B 1, C 2, D 3 }
tuple! { A 0, B 1, C 2, D 3, E 4 }
tuple! { A 0, B 1, C 2, D 3, E 4, F 5 }
