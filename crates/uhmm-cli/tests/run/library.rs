//! The program `uhmm`, with the library beside it that it loads into others.

use std::path::Path;
use std::process::Command;
use std::sync::Once;

const UHMM: &str = env!("CARGO_BIN_EXE_uhmm");

/// The program with the library beside it. Cargo builds a library of this kind for nobody who does not ask.
pub(super) fn uhmm() -> Command {
    static LIBRARY: Once = Once::new();
    LIBRARY.call_once(|| {
        let target =
            Path::new(UHMM).parent().and_then(Path::parent).expect("cargo has its folders");
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "uhmm-preload", "--target-dir"]).arg(target);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo starts").success());
    });
    Command::new(UHMM)
}
