//! A test that cannot be made on this machine says so by its name. Where the checks of the project run it may not.

/// Says that the test `name` is left out, as `reason` is not here.
///
/// # Panics
/// `CI` is set.
#[track_caller]
pub(crate) fn skip(name: &str, reason: impl core::fmt::Display) {
    assert!(std::env::var_os("CI").is_none(), "{name} needs what is not here: {reason}");
    eprintln!("skipped: {name}: {reason}");
}
