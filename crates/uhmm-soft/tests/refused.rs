//! Misuse that does not compile: each file in `refused`, with what the compiler says.
//!
//! After a change of the compiler's words: `TRYBUILD=overwrite cargo test -p uhmm-soft --test refused`.

#[test]
fn misuse_is_refused() {
    trybuild::TestCases::new().compile_fail("tests/refused/*.rs");
}
