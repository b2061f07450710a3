//! The functions by which a process ends without a word to anybody, or becomes another program, defined again:
//! what is observed of it is written before.
//!
//! Of those that become another program the ones with a list of arguments (`execl` and its kin) are libc's
//! alone: such a list cannot be passed on. The last second before them is not written.

use core::{
    ffi::{c_char, c_int},
    mem::transmute,
};

use uhmm_record::Stage;

use crate::{next::Next, observe};

macro_rules! ends {
    ($($name:ident, $next:ident, $symbol:literal;)*) => {$(
        static $next: Next = Next::of($symbol);

        /// As libc's.
        ///
        /// # Safety
        /// As libc's.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name(status: c_int) -> ! {
            observe::end(Stage::Ended);
            // SAFETY: it is the function of that name, which has this type.
            let next: unsafe extern "C" fn(c_int) -> ! = unsafe { transmute($next.address()) };
            // SAFETY: the caller's promise.
            unsafe { next(status) }
        }
    )*};
}

ends! {
    _exit, NEXT_EXIT, c"_exit";
    _Exit, NEXT_CAPITAL_EXIT, c"_Exit";
}

/// Looks up what comes after those that may be called at any moment, also where the loader is at work.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_UP: extern "C" fn() = look_up;

extern "C" fn look_up() {
    NEXT_EXIT.address();
    NEXT_CAPITAL_EXIT.address();
}

type Strings = *const *const c_char;

macro_rules! replaces {
    ($($name:ident, $symbol:literal, ($($argument:ident: $type:ty),*);)*) => {$(
        /// As libc's.
        ///
        /// # Safety
        /// As libc's.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($argument: $type),*) -> c_int {
            static NEXT: Next = Next::of($symbol);
            observe::end(Stage::Replaced);
            // SAFETY: it is the function of that name, which has this type.
            let next: unsafe extern "C" fn($($type),*) -> c_int = unsafe { transmute(NEXT.address()) };
            // SAFETY: the caller's promise.
            let failed = unsafe { next($($argument),*) };
            observe::did_not_end();
            failed
        }
    )*};
}

replaces! {
    execve, c"execve", (path: *const c_char, arguments: Strings, environment: Strings);
    execv, c"execv", (path: *const c_char, arguments: Strings);
    execvp, c"execvp", (file: *const c_char, arguments: Strings);
    execvpe, c"execvpe", (file: *const c_char, arguments: Strings, environment: Strings);
    fexecve, c"fexecve", (descriptor: c_int, arguments: Strings, environment: Strings);
    execveat, c"execveat", (directory: c_int, path: *const c_char, arguments: Strings, environment: Strings, flags: c_int);
}
