//! The atomics and the lock between a thread and whoever wakes it or serves its queue: the standard library's, or
//! loom's, for the models in `waiter/tests.rs` and `inline/tests/model.rs`.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Mutex,
    atomic::{AtomicBool, Ordering},
};
