//! Files that a subcommand writes besides its result.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// A file could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}", path.display())]
pub(crate) struct OutputError {
    path: PathBuf,
    source: io::Error,
}

impl From<OutputError> for Failure {
    fn from(error: OutputError) -> Self {
        Self::new(error)
    }
}

/// A file that was created and is yet to be written.
pub(crate) struct Output {
    path: PathBuf,
    file: File,
}

impl Output {
    /// Creates a file, or empties the one that is there.
    pub(crate) fn create(path: &Path) -> Result<Self, OutputError> {
        match File::create(path) {
            Ok(file) => Ok(Self { path: path.to_owned(), file }),
            Err(source) => Err(OutputError { path: path.to_owned(), source }),
        }
    }

    /// Has it written, all of it.
    pub(crate) fn write(
        self,
        content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), OutputError> {
        let Self { path, file } = self;
        let mut out = BufWriter::new(file);
        content(&mut out).and_then(|()| out.flush()).map_err(|source| OutputError { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_named() {
        let Err(error) = Output::create(Path::new("/nowhere/at/all")) else { panic!("created") };
        assert!(error.to_string().starts_with("cannot write /nowhere/at/all: "), "{error}");
        // A device that is always full.
        let full = Output::create(Path::new("/dev/full")).unwrap();
        let error = full.write(|out| out.write_all(&vec![0; 1 << 16])).unwrap_err();
        assert!(error.to_string().starts_with("cannot write /dev/full: "), "{error}");
    }
}
