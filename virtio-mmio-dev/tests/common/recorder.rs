//! Queues that nobody serves, which remember what the transport asked of them.

use std::collections::BTreeSet;

use virtio_mmio_dev::{
    Ignored, Interrupt, PendingWrite, QueueConfig, Queues, Register, Stop, WriteOutcome,
};

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

/// What followed from a write: its outcome and the calls, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    None,
    /// `DRIVER_OK`: ready queues were started.
    Activate,
    QueueReady(u16),
    Notify(u16),
    QueueStop(u16),
    Failed,
    /// A reset, done or pending.
    Reset,
    ConfigWritten,
    Ignored(Ignored),
}

impl Effect {
    pub fn of(offset: u64, data: &[u8], outcome: WriteOutcome, calls: &[Call]) -> Self {
        if offset == Register::Status.offset() && data == [0; 4] {
            let pending = outcome == WriteOutcome::Pending(PendingWrite::Reset);
            assert!(pending || outcome == WriteOutcome::Done, "{outcome:?}");
            assert!(calls.iter().all(|call| matches!(call, Call::Stop(_))), "{calls:?}");
            return Self::Reset;
        }
        match (outcome, calls) {
            (WriteOutcome::Done, []) => Self::None,
            (WriteOutcome::Done, [Call::DriverOk, started @ ..]) => {
                assert!(started.iter().all(|call| matches!(call, Call::Start(_))), "{started:?}");
                Self::Activate
            }
            (WriteOutcome::Done, [Call::Failed, stopped @ ..]) => {
                assert!(stopped.iter().all(|call| matches!(call, Call::Stop(_))), "{stopped:?}");
                Self::Failed
            }
            (WriteOutcome::Done, [Call::Start(queue)]) => Self::QueueReady(*queue),
            (WriteOutcome::Done, [Call::Stop(queue)]) => Self::QueueStop(*queue),
            (WriteOutcome::Done, [Call::ConfigWritten]) => Self::ConfigWritten,
            // No second call for a queue that drains already.
            (WriteOutcome::Pending(PendingWrite::QueueStop(queue)), [] | [Call::Stop(_)]) => {
                Self::QueueStop(queue)
            }
            (WriteOutcome::Notify(queue), []) => Self::Notify(queue),
            (WriteOutcome::Ignored(why), []) => Self::Ignored(why),
            other => panic!("{other:?} at {offset:#x}"),
        }
    }
}
