//! The library that is loaded into the program.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use super::RunError;

const NAME: &str = "libuhmm_preload.so";

/// What `LD_PRELOAD` is to be: our library, found beside this program, and behind it what was there.
pub(super) fn preload() -> Result<OsString, RunError> {
    let here = env::current_exe().map_err(RunError::NoPlace)?;
    let library = here.with_file_name(NAME);
    if !library.is_file() {
        return Err(RunError::NoLibrary(library));
    }
    // ld.so(8): the names are separated by these.
    if library.as_os_str().as_bytes().iter().any(|byte| matches!(byte, b' ' | b':')) {
        return Err(RunError::BadPlace(library));
    }
    let mut preload = library.into_os_string();
    if let Some(others) = env::var_os("LD_PRELOAD").filter(|others| !others.is_empty()) {
        preload.push(":");
        preload.push(others);
    }
    Ok(preload)
}
