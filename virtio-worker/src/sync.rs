//! The atomics between a thread and whoever wakes it: the standard library's, or loom's, for the model in
//! `tests/loom.rs`.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, Ordering};
