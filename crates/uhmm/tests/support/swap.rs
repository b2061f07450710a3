//! Swap, for as long as a test wants it.

use std::{
    ffi::{CStr, CString},
    fs,
    io::{self, Write},
};

/// A file that the system swaps to, until this is dropped.
pub(crate) struct Swap {
    path: CString,
}

impl Swap {
    /// Nothing where the system has swap already, else a small file of it, or why there can be none.
    pub(crate) fn found_or_made() -> Result<Option<Self>, String> {
        let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
        if swaps.lines().count() > 1 {
            return Ok(None);
        }
        Self::make().map(Some).map_err(|error| format!("no swap, and none can be made: {error}"))
    }

    /// Makes a file of a few pages as `mkswap` does (`union swap_header` of `linux/swap.h`).
    fn make() -> io::Result<Self> {
        const PAGES: usize = 2048;
        // SAFETY: it asks for a number.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap();
        let mut bytes = vec![0_u8; PAGES * page];
        bytes[1024..1028].copy_from_slice(&1_u32.to_ne_bytes());
        bytes[1028..1032].copy_from_slice(&u32::try_from(PAGES - 1).unwrap().to_ne_bytes());
        bytes[page - 10..page].copy_from_slice(b"SWAPSPACE2");
        // Tests run at the same time, each with a file of its own.
        let name = std::env::temp_dir().join("uhmm-swap-XXXXXX");
        let name = CString::new(name.to_str().unwrap()).unwrap().into_raw();
        // SAFETY: the string is ours, and as long afterwards.
        let (file, path) = unsafe { (libc::mkstemp(name), CString::from_raw(name)) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        let swap = Self { path };
        // SAFETY: the descriptor was opened just now.
        let mut file = unsafe { <fs::File as std::os::fd::FromRawFd>::from_raw_fd(file) };
        file.write_all(&bytes)?;
        let path: &CStr = &swap.path;
        // SAFETY: the path is a string that is terminated.
        match unsafe { libc::swapon(path.as_ptr(), 0) } {
            0 => Ok(swap),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Swap {
    fn drop(&mut self) {
        // SAFETY: the path is a string that is terminated.
        unsafe {
            libc::swapoff(self.path.as_ptr());
            libc::unlink(self.path.as_ptr());
        }
    }
}
