//! The example in C: compiled without a warning, linked with either kind of library, and run.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds both libraries, which cargo builds for nobody who does not ask, and answers where they are.
fn libraries() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it is in a folder");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", "uhmm-capi", "--target-dir"]).arg(target);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.status().expect("cargo starts").success());
    target.join(if cfg!(debug_assertions) { "debug" } else { "release" })
}

#[track_caller]
fn runs(kind: &str, link: &[&str]) {
    let crate_folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let libraries = libraries();
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("device-{kind}"));
    let mut compiler = Command::new("cc");
    compiler
        .args(["-std=c11", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O2", "-o"])
        .arg(&program)
        .arg(crate_folder.join("examples/device.c"))
        .arg("-I")
        .arg(crate_folder.join("include"))
        .arg("-L")
        .arg(&libraries)
        .args(link);
    assert!(compiler.status().expect("there is a C compiler").success());
    let output = Command::new("timeout")
        .arg("120")
        .arg(&program)
        .env("LD_LIBRARY_PATH", &libraries)
        .output()
        .expect("it starts");
    assert!(
        output.status.success() && output.stdout == b"all hold\n" && output.stderr.is_empty(),
        "{output:?}"
    );
}

#[test]
fn the_example_holds_with_the_shared_library() {
    runs("shared", &["-luhmm_capi"]);
}

#[test]
fn the_example_holds_with_the_static_library() {
    runs("static", &["-l:libuhmm_capi.a", "-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl"]);
}

#[test]
fn the_header_is_cpp_too() {
    let mut compiler = Command::new("c++");
    compiler
        .args([
            "-std=c++17",
            "-pedantic",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-fsyntax-only",
            "-x",
            "c++",
        ])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/uhmm.h"))
        .arg("-Wno-pragma-once-outside-header");
    assert!(compiler.status().expect("there is a C++ compiler").success());
}
