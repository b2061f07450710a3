//! Files that `uhmm run` is asked to run: one that is let through is of this processor and has a loader, as its bytes
//! say that are read here once more.
#![no_main]
#![allow(dead_code, reason = "of the program's files only the parser is used")]

use std::{
    ffi::OsString,
    fs::File,
    io::Read,
    os::{
        fd::{AsRawFd, FromRawFd},
        unix::fs::FileExt,
    },
    sync::LazyLock,
};

use libfuzzer_sys::fuzz_target;

#[path = "../../../../crates/uhmm-cli/src/run/program.rs"]
mod program;

/// The file that is looked at, and the start of this program's own.
struct World {
    file: File,
    own: [u8; 64],
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    // SAFETY: a new descriptor, which is the file's alone.
    let file = unsafe {
        let made = libc::memfd_create(c"program".as_ptr(), libc::MFD_CLOEXEC);
        assert!(made >= 0, "a file in memory");
        File::from_raw_fd(made)
    };
    let mut own = [0; 64];
    File::open("/proc/self/exe").and_then(|mut exe| exe.read_exact(&mut own)).expect("a program");
    World { file, own }
});

fuzz_target!(|data: &[u8]| {
    let World { file, own } = &*WORLD;
    // Mostly it begins as this very program does, the bytes being what is changed of that, and what follows.
    let mut bytes = Vec::new();
    let data = match data.split_first() {
        Some((kind, rest)) if kind % 4 > 0 && rest.len() > 2 => {
            bytes.extend_from_slice(own);
            // The segments follow at once.
            bytes[32..40].copy_from_slice(&64_u64.to_le_bytes());
            bytes[56..58].copy_from_slice(&u16::from(rest[0] % 4).to_le_bytes());
            if kind % 4 > 1 {
                bytes[usize::from(rest[1]) % 64] = rest[2];
            }
            &rest[3..]
        }
        _ => data,
    };
    bytes.extend_from_slice(data);
    if bytes.starts_with(b"#!") {
        // It leads to other files, of which some are devices. Nothing that is read is run.
        if bytes.windows(3).any(|word| word == b"dev") {
            return;
        }
    }
    file.set_len(0).and_then(|()| file.write_all_at(&bytes, 0)).expect("it is written");
    let name = OsString::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let found = program::Program::find(&name);
    if bytes.starts_with(b"#!") {
        return;
    }
    match found {
        Ok(found) => {
            assert_eq!(found.path.as_os_str(), name);
            assert!(bytes.starts_with(b"\x7fELF"));
            // The class, the order of bytes, and the machine are those of this program.
            assert_eq!((bytes[4], bytes[5], &bytes[18..20]), (own[4], own[5], &own[18..20]));
            assert!(segments(&bytes).is_some_and(|mut kinds| kinds.any(|kind| kind == 3)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

/// The kinds of the segments of an ELF file of this processor, if they are in it.
fn segments(bytes: &[u8]) -> Option<impl Iterator<Item = u32>> {
    let short = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let first = usize::try_from(u64::from_le_bytes(bytes.get(32..40)?.try_into().ok()?)).ok()?;
    let (size, count) = (usize::from(short(54)?), usize::from(short(56)?));
    let end = first.checked_add(size.checked_mul(count)?)?;
    let table = bytes.get(first..end)?;
    Some(
        table
            .chunks_exact(size.max(4))
            .map(|segment| u32::from_le_bytes(segment[..4].try_into().expect("four bytes"))),
    )
}
