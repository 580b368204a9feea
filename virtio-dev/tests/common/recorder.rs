//! Queues that nobody serves, which remember what the transport asked of them.

use std::collections::BTreeSet;

use virtio_dev::{Interrupt, QueueConfig, Queues, Stop};

/// A call of a method of [`Queues`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    DriverOk,
    Start(u16),
    Stop(u16),
    ConfigWritten,
    Failed,
}

#[derive(Debug, Default)]
pub struct Recorder {
    pub calls: Vec<Call>,
    in_service: BTreeSet<u16>,
    /// A stop is done at once; otherwise the test says when.
    pub stops_at_once: bool,
}

impl<D> Queues<D> for Recorder {
    fn start(&mut self, _: &D, config: &QueueConfig, _: Interrupt) {
        assert!(self.in_service.insert(config.index), "queue {} is started twice", config.index);
        self.calls.push(Call::Start(config.index));
    }
    fn notify(&mut self, queue: u16) {
        panic!("a notification of queue {queue} is the caller's to pass on");
    }
    fn stop(&mut self, queue: u16) -> Stop {
        assert!(self.in_service.remove(&queue), "queue {queue} is stopped and not in service");
        self.calls.push(Call::Stop(queue));
        if self.stops_at_once { Stop::Done } else { Stop::Draining }
    }
    fn driver_ok(&mut self, _: u64) {
        self.calls.push(Call::DriverOk);
    }
    fn config_written(&mut self) {
        self.calls.push(Call::ConfigWritten);
    }
    fn failed(&mut self) {
        self.calls.push(Call::Failed);
    }
}
