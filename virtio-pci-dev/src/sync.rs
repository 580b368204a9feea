//! The atomics and locks of the vectors: the standard library's, or loom's, for the model of masking.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    RwLock,
    atomic::{AtomicBool, AtomicU16},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    RwLock,
    atomic::{AtomicBool, AtomicU16},
};
