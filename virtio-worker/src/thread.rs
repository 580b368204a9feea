use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use crate::inline::{Inline, InlineHandle};
use crate::served::{EngineState, Served, Stopped};
use crate::spec::ThreadSpec;
use crate::start_error::{SpawnError, StartError};
use crate::sync::{AtomicBool, Ordering};
use crate::thread_event::ThreadEvent;
use crate::waiter::{Stop, Waiter};
use crate::wake::{Wake, Waker};

/// What the thread returns: the engine if it can be used again, and the report if it did not panic.
type Output<E, R> = (Option<E>, Option<R>);

/// A thread that serves one queue.
///
/// The thread owns the queue, so that no lock is taken to access the rings. It borrows an engine of type
/// `E`, for example an io_uring, which can be passed to the next thread: a guest may reset its device any
/// number of times.
///
/// [`stop`](Self::stop) and dropping the value both stop the thread and wait for its end.
pub struct QueueThread<E, R> {
    wake: Wake,
    stop: Stop,
    /// The thread has dropped the queue, and the engine unless it returns it.
    ended: Arc<AtomicBool>,
    /// `None` once it is joined.
    thread: Option<JoinHandle<Output<E, R>>>,
}

impl<E: Send + 'static, R: Send + 'static> QueueThread<E, R> {
    /// Starts a thread that calls `serve` once.
    ///
    /// `serve` owns the queue. It serves the queue until [`Waiter::is_stopped`] returns true or an error makes
    /// that impossible, waits for what the engine has in flight, and returns. The queue is dropped with it,
    /// before [`stop`](Self::stop) returns. A device without an engine passes `()`.
    ///
    /// `on_event` is called on the new thread for each [`ThreadEvent`]. If `serve` panics, the queue is dropped
    /// while it unwinds, then `on_event` is called, then the engine is dropped.
    ///
    /// # Errors
    /// The thread can't be started. `serve` is dropped, and the queue with it; the error contains the engine
    /// and the `Wake`.
    pub fn start<S, T>(
        spec: ThreadSpec,
        engine: E,
        serve: S,
        mut on_event: T,
    ) -> Result<Self, StartError<E>>
    where
        S: FnOnce(&mut E, &mut Waiter) -> Served<R> + Send + 'static,
        T: FnMut(&ThreadEvent) + Send + 'static,
    {
        let ThreadSpec { name, wake, cpu, stack_size, at_end } = spec;
        let (mut waiter, stop) = Waiter::new(wake.share());
        // Sent once the thread exists, so that the engine is still here if it does not.
        let (lend, lent) = mpsc::sync_channel(1);
        let ended = Arc::new(AtomicBool::new(false));
        let end = End { ended: Arc::clone(&ended), at_end };
        let run = move || {
            // Dropped last.
            let _end = end;
            let Ok(mut engine) = lent.recv() else { return (None, None) };
            if let Some(cpu) = cpu
                && let Err(source) = cpu.pin_this_thread()
            {
                on_event(&ThreadEvent::NotPinned { cpu, source });
            }
            let serve = AssertUnwindSafe(|| serve(&mut engine, &mut waiter));
            let (report, engine) = match panic::catch_unwind(serve) {
                Ok(Served { report, engine: EngineState::Idle }) => (Some(report), Some(engine)),
                Ok(Served { report, engine: EngineState::Unusable }) => {
                    discard(engine);
                    (Some(report), None)
                }
                Err(payload) => {
                    on_event(&ThreadEvent::Panicked);
                    discard(payload);
                    discard(engine);
                    (None, None)
                }
            };
            (engine, report)
        };
        let mut builder = thread::Builder::new().name(name.clone());
        if let Some(bytes) = stack_size {
            builder = builder.stack_size(bytes);
        }
        let spawned = builder.spawn(run);
        let (source, engine) = match spawned {
            Err(source) => (source, engine),
            Ok(thread) => match lend.send(engine) {
                Ok(()) => return Ok(Self { wake, stop, ended, thread: Some(thread) }),
                // Nothing comes between the thread's start and its receiving.
                Err(mpsc::SendError(engine)) => {
                    (io::Error::other("it ended before it began"), engine)
                }
            },
        };
        Err(StartError { reason: SpawnError { name, source }, wake, engine })
    }

    /// Stops the thread and waits for its end. When this returns, the queue is dropped, and its rings are
    /// unmapped.
    ///
    /// This takes as long as the requests in flight take. A caller that must not wait for them calls
    /// [`begin_stop`](Self::begin_stop) first, and this when [`is_finished`](Self::is_finished) is true.
    pub fn stop(mut self) -> Stopped<E, R> {
        let (engine, report) = self.join();
        Stopped { wake: self.wake.share(), engine, report }
    }
}

impl<E, R> QueueThread<E, R> {
    /// Wakes the thread: the driver has notified the queue, or something else has changed.
    pub fn wake(&self) {
        self.stop.waker().wake();
    }

    /// The driver has notified the queue: what is there is served [inline](crate::InlineSlot), on this thread, or the
    /// queue's thread is woken. Not inline once the thread was told to stop.
    pub fn notify(&self, queue: &InlineHandle) {
        if self.stop.is_given() || queue.serve() == Inline::NeedsThread {
            self.wake();
        }
    }

    /// Wakes the thread from other threads.
    pub fn waker(&self) -> Waker {
        self.stop.waker().clone()
    }

    /// Tells the thread to stop, and does not wait. See [`ThreadSpec::wake_at_end`].
    pub fn begin_stop(&self) {
        self.stop.give();
    }

    /// Whether the thread has ended: the queue is dropped, and [`stop`](Self::stop) returns without waiting for
    /// requests.
    pub fn is_finished(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn join(&mut self) -> Output<E, R> {
        self.stop.give();
        // An error: `on_event` or a destructor panicked.
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or((None, None))
    }
}

impl<E, R> Drop for QueueThread<E, R> {
    /// Stops the thread, and waits for its end.
    fn drop(&mut self) {
        if self.thread.is_some() {
            drop(self.join());
        }
    }
}

impl<E, R> fmt::Debug for QueueThread<E, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let thread = self.thread.as_ref().map(JoinHandle::thread);
        f.debug_struct("QueueThread").field("thread", &thread).finish_non_exhaustive()
    }
}

/// Reports the thread's end when it is dropped, also during a panic.
struct End {
    ended: Arc<AtomicBool>,
    at_end: Option<Waker>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        if let Some(waker) = &self.at_end {
            waker.wake();
        }
    }
}

/// Drops a value whose destructor may panic, as that of an engine in an unknown state.
fn discard<T>(value: T) {
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(value)));
}

#[cfg(all(test, not(loom)))]
mod tests;
