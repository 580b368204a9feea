//! What the transport asks of the one queue.

use virtio_blk_dev::BlockDevice;
use virtio_dev::{Interrupt, QueueConfig, Queues, Stop};

/// A call of a method of [`Queues`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    DriverOk,
    Start,
    Stop,
    ConfigWritten,
    Failed,
}

/// The calls, to be acted on when the write is done: so each step is looked at by itself.
#[derive(Debug, Default)]
pub(crate) struct Calls(Vec<Call>);

impl Calls {
    /// Those since the last time.
    pub(crate) fn take(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.0)
    }
}

impl Queues<BlockDevice> for Calls {
    fn start(&mut self, _: &BlockDevice, config: &QueueConfig, _: Interrupt) {
        assert_eq!(config.index, 0);
        self.0.push(Call::Start);
    }

    fn notify(&mut self, queue: u16) {
        panic!("a notification of queue {queue}");
    }

    fn stop(&mut self, queue: u16) -> Stop {
        assert_eq!(queue, 0);
        self.0.push(Call::Stop);
        Stop::Draining
    }

    fn driver_ok(&mut self, _: u64) {
        self.0.push(Call::DriverOk);
    }

    fn config_written(&mut self) {
        self.0.push(Call::ConfigWritten);
    }

    fn failed(&mut self) {
        self.0.push(Call::Failed);
    }
}
