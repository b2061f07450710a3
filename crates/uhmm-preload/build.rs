//! Has the library bring its unwinder along.
//!
//! It is loaded into every program that another one starts, and would have the dynamic loader find, map and relocate
//! `libgcc_s.so.1` there, for panics alone: that is half of what the library costs a program at its start. The compiler
//! has the same as a static library. To the linker the name that std asks for is made to stand for that, by a script in
//! its language, where the compiler says that it is there; else all is as ever.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=RUSTC_LINKER");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|is| is == value);
    if !is("CARGO_CFG_TARGET_OS", "linux") || !is("CARGO_CFG_TARGET_ENV", "gnu") {
        return;
    }
    let compiler = env::var("RUSTC_LINKER").unwrap_or_else(|_| "cc".into());
    let told = Command::new(compiler).arg("-print-file-name=libgcc_eh.a").output();
    let is_there = told.is_ok_and(|told| {
        // Where it is not, the bare name comes back.
        Path::new(String::from_utf8_lossy(&told.stdout).trim_end()).is_absolute()
    });
    if let (true, Ok(folder)) = (is_there, env::var("OUT_DIR")) {
        let script = Path::new(&folder).join("libgcc_s.so");
        if fs::write(script, "GROUP ( -lgcc_eh -lgcc )\n").is_ok() {
            println!("cargo:rustc-link-search=native={folder}");
        }
    }
}
