//! The model.
/// The model.
pub struct Model;
