//! Mirrors: what devices want to be told of changes to.

mod interval_tree;
