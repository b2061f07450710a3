//! The program to run: where it is, and whether a library can be loaded into it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use object::elf;
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, ReadCache};

/// How many scripts may stand one behind another, as for the kernel (`execve(2)`).
const MOST_SCRIPTS: usize = 4;

/// How much of a script's first line the kernel reads.
const SCRIPT_LINE: usize = 255;

/// A program that can be run with a preloaded library.
#[derive(Debug)]
pub(super) struct Program {
    /// Its file.
    pub(super) path: PathBuf,
}

/// Why a program cannot be run with a preloaded library.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRunnable {
    /// There is no such file.
    #[error("{} was not found{}", name.display(), if *searched { " in the directories of PATH" } else { "" })]
    NotFound {
        /// As it was named.
        name: OsString,
        /// Whether it was looked for in `PATH`.
        searched: bool,
    },
    /// The file cannot be read or executed.
    #[error("{} cannot be run: {error}", path.display())]
    NoAccess {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It is no program.
    #[error("{} is neither an ELF program nor a script", .0.display())]
    NoProgram(PathBuf),
    /// It is linked statically.
    #[error(
        "{} is linked statically: nothing can be loaded into it; use a build of it that is linked dynamically",
        .0.display()
    )]
    Static(PathBuf),
    /// It is for another processor.
    #[error(
        "{} is for another kind of processor or another size of address than uhmm: run it with a build of uhmm \
         for that",
        .0.display()
    )]
    Foreign(PathBuf),
    /// It changes who it runs as.
    #[error(
        "{} runs as another user or group, or with capabilities of its own: the dynamic loader loads nothing into \
         such a program; run it as that user",
        .0.display()
    )]
    Privileged(PathBuf),
    /// Too many scripts.
    #[error("{} is run by a script that is run by a script, too many times over", .0.display())]
    Scripts(PathBuf),
}

impl Program {
    /// Finds a program as `execvp(3)` does, and looks at it and at what runs it.
    pub(super) fn find(name: &OsStr) -> Result<Self, NotRunnable> {
        let path = search(name)?;
        let mut looked_at = path.clone();
        for _ in 0..=MOST_SCRIPTS {
            match look(&looked_at)? {
                Kind::Program => return Ok(Self { path }),
                Kind::Script { interpreter } => looked_at = interpreter,
            }
        }
        Err(NotRunnable::Scripts(path))
    }
}

/// Where a name leads.
fn search(name: &OsStr) -> Result<PathBuf, NotRunnable> {
    let searched = !name.as_bytes().contains(&b'/');
    let found = if searched {
        env::var_os("PATH").and_then(|path| {
            env::split_paths(&path)
                .map(|directory| directory.join(name))
                .find(|path| is_executable(path))
        })
    } else {
        Some(PathBuf::from(name)).filter(|path| path.exists())
    };
    found.ok_or_else(|| NotRunnable::NotFound { name: name.to_owned(), searched })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

/// What a file that is to be executed is.
enum Kind {
    Program,
    Script { interpreter: PathBuf },
}

fn look(path: &Path) -> Result<Kind, NotRunnable> {
    let no_access = |error| NotRunnable::NoAccess { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(no_access)?;
    let mut start = Vec::with_capacity(SCRIPT_LINE);
    file.by_ref().take(SCRIPT_LINE as u64).read_to_end(&mut start).map_err(no_access)?;
    if let Some(line) = start.strip_prefix(b"#!") {
        let line = line.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let mut words =
            line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
        let interpreter = words.next().ok_or_else(|| NotRunnable::NoProgram(path.to_owned()))?;
        return Ok(Kind::Script { interpreter: OsString::from_vec(interpreter.to_vec()).into() });
    }
    if !start.starts_with(&elf::ELFMAG) {
        return Err(NotRunnable::NoProgram(path.to_owned()));
    }
    check_privileges(path, &file).map_err(no_access)??;
    check_elf(path, file)?;
    Ok(Kind::Program)
}

/// Whether the loader would run it in secure mode (`ld.so(8)`), in which it loads from trusted directories
/// only.
fn check_privileges(path: &Path, file: &File) -> io::Result<Result<(), NotRunnable>> {
    const SET_USER: u32 = 0o4000;
    const SET_GROUP: u32 = 0o2000;
    let attributes = file.metadata()?;
    let user = rustix::process::geteuid();
    let other_user = attributes.mode() & SET_USER != 0 && attributes.uid() != user.as_raw();
    let other_group = attributes.mode() & SET_GROUP != 0
        && attributes.gid() != rustix::process::getegid().as_raw();
    // Their content does not matter; there is none where the attribute is not.
    let mut content = [0_u8; 64];
    let has_capabilities =
        rustix::fs::fgetxattr(file, c"security.capability", &mut content[..]).is_ok();
    let privileged = other_user || other_group || has_capabilities && !user.is_root();
    Ok(if privileged { Err(NotRunnable::Privileged(path.to_owned())) } else { Ok(()) })
}

/// What of an ELF file's header tells whether our library fits.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    is_64_bit: bool,
    little_endian: bool,
    machine: u16,
    /// Whether the kernel is to start a loader for it.
    has_loader: bool,
}

/// The shape of an ELF file; `None` where it is none, or is damaged.
fn shape(file: File) -> Option<Shape> {
    fn of<H: FileHeader<Endian = Endianness>>(
        data: &ReadCache<File>,
        is_64_bit: bool,
    ) -> Option<Shape> {
        let header = H::parse(data).ok()?;
        let endian = header.endian().ok()?;
        let segments = header.program_headers(endian, data).ok()?;
        Some(Shape {
            is_64_bit,
            little_endian: endian == Endianness::Little,
            machine: header.e_machine(endian),
            has_loader: segments.iter().any(|segment| segment.p_type(endian) == elf::PT_INTERP),
        })
    }
    let data = ReadCache::new(file);
    of::<elf::FileHeader64<Endianness>>(&data, true)
        .or_else(|| of::<elf::FileHeader32<Endianness>>(&data, false))
}

fn check_elf(path: &Path, file: File) -> Result<(), NotRunnable> {
    let theirs = shape(file).ok_or_else(|| NotRunnable::NoProgram(path.to_owned()))?;
    let ours = File::open("/proc/self/exe").ok().and_then(shape);
    if let Some(ours) = ours
        && (theirs.machine, theirs.is_64_bit, theirs.little_endian)
            != (ours.machine, ours.is_64_bit, ours.little_endian)
    {
        return Err(NotRunnable::Foreign(path.to_owned()));
    }
    if theirs.has_loader { Ok(()) } else { Err(NotRunnable::Static(path.to_owned())) }
}
