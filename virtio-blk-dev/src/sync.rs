//! The atomics and the lock of what the workers of a disk share: the standard library's, or loom's, for the model in
//! `worker/rate_limiter/tests/model.rs`.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};
