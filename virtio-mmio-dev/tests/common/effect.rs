//! What followed from a write.

use virtio_dev::{Ignored, PendingWrite, WriteOutcome};
use virtio_mmio_dev::Register;

use super::Call;

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
