//! The header is what is made of the crate now, and says of all that it has what it is.

use std::fs;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The header as it is to be.
fn made() -> String {
    let config = cbindgen::Config::from_file(folder().join("cbindgen.toml")).expect("it is valid");
    let mut bytes = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(folder().join("src/lib.rs"))
        .generate()
        .expect("the crate can be parsed")
        .write(&mut bytes);
    let text = String::from_utf8(bytes).expect("it is text");
    text.replace("// # Safety\n", "// What must hold:\n")
}

#[test]
fn the_header_is_that_of_the_crate() {
    let path = Path::new(&folder()).join("include/uhmm.h");
    let made = made();
    if std::env::var_os("UHMM_WRITE_HEADER").is_some() {
        fs::write(&path, &made).expect("it can be written");
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == made,
        "include/uhmm.h is not that of the crate: UHMM_WRITE_HEADER=1 cargo test -p uhmm-capi --test header"
    );
}

#[test]
fn all_of_it_is_documented() {
    let made = made();
    let mut before = "";
    let mut functions = 0;
    for line in made.lines() {
        let begins_function =
            line.contains(" uhmm_") && line.contains('(') && !line.starts_with("//");
        let begins_type = line.starts_with("typedef ");
        if begins_function && !line.starts_with(' ') || begins_type {
            assert!(before.starts_with("//"), "nothing is said of: {line}");
            functions += usize::from(begins_function);
        }
        before = line;
    }
    assert!(functions > 20, "the functions were not found: {functions}");
}

/// What no test calls could be anything.
#[test]
fn all_functions_are_called_by_the_example() {
    let example = fs::read_to_string(folder().join("examples/device.c")).expect("it is there");
    let made = made();
    let functions = made.lines().filter_map(|line| {
        let (before, _) = line.split_once('(')?;
        let name = before.split_whitespace().last()?.trim_start_matches('*');
        (!line.starts_with([' ', '/']) && name.starts_with("uhmm_")).then_some(name)
    });
    let functions: Vec<_> = functions.collect();
    assert!(functions.len() > 30, "{functions:?}");
    for name in functions {
        assert!(example.contains(&format!("{name}(")), "nothing calls {name}");
    }
}
