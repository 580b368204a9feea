//! Queues without anybody behind them, for tests and benchmarks (feature `test-utils`).

use crate::{Interrupt, QueueConfig, Queues, Stop};

/// Queues that nobody serves, for whoever takes [`ControlPlane::queue`](crate::ControlPlane::queue) and serves it by hand. They
/// stop at once: end what serves one before the driver takes it back.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoQueues;

impl<D> Queues<D> for NoQueues {
    fn start(&mut self, _device: &D, _config: &QueueConfig, _interrupt: Interrupt) {}

    fn notify(&mut self, _queue: u16) {}

    fn stop(&mut self, _queue: u16) -> Stop {
        Stop::Done
    }
}
