use std::fmt;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use crate::served::{EngineState, Served, Stopped};
use crate::spec::ThreadSpec;
use crate::start_error::{SpawnError, StartError};
use crate::sync::{AtomicBool, Ordering};
use crate::trouble::Trouble;
use crate::waiter::{Stop, Waiter};
use crate::wake::{Wake, Waker};

/// The engine and the report, as far as there are any.
type Left<E, R> = (Option<E>, Option<R>);

/// A thread that serves one queue. It owns the queue, so that nothing stands between it and the rings,
/// and borrows an engine of type `E`, which outlives it: a guest may reset its device as often as it
/// likes.
///
/// It ends when it is [stopped](Self::stop) or dropped, either of which waits for it.
pub struct QueueThread<E, R> {
    wake: Wake,
    stop: Stop,
    /// It has dropped the queue and, unless that is to be given back, the engine.
    ended: Arc<AtomicBool>,
    /// Taken when it is joined.
    thread: Option<JoinHandle<Left<E, R>>>,
}

impl<E: Send + 'static, R: Send + 'static> QueueThread<E, R> {
    /// Starts a thread that calls `serve` once, with `engine` and with what to sleep on.
    ///
    /// `serve` owns the queue. It serves it until [`Waiter::is_stopped`] or until it can't, gets back what
    /// the engine has in flight, and returns; the queue is dropped with it, before [`stop`](Self::stop)
    /// returns. For a device that has no engine, that is `()`.
    ///
    /// What goes wrong besides, `told` hears: it is called on the new thread. If `serve` panics, the queue
    /// is dropped while it unwinds, `told` is called, and the engine is dropped.
    ///
    /// # Errors
    /// The thread can't be started. `serve` is dropped, and with it the queue; the engine and the wake-up
    /// come back in the error.
    pub fn start<S, T>(
        spec: ThreadSpec,
        engine: E,
        serve: S,
        mut told: T,
    ) -> Result<Self, StartError<E>>
    where
        S: FnOnce(&mut E, &mut Waiter) -> Served<R> + Send + 'static,
        T: FnMut(&Trouble) + Send + 'static,
    {
        let ThreadSpec { name, wake, cpu, stack_size, at_end } = spec;
        let (mut waiter, stop) = Waiter::new(wake.lend());
        // It is handed over when there is a thread to take it.
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
                told(&Trouble::NotPinned { cpu, source });
            }
            let serve = AssertUnwindSafe(|| serve(&mut engine, &mut waiter));
            let (report, engine) = match panic::catch_unwind(serve) {
                Ok(Served { report, engine: EngineState::Idle }) => (Some(report), Some(engine)),
                Ok(Served { report, engine: EngineState::Unusable }) => {
                    discard(engine);
                    (Some(report), None)
                }
                Err(payload) => {
                    told(&Trouble::Panicked);
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

    /// Stops the thread, and waits for its end. After this, neither the queue nor what it mapped is there
    /// any more.
    ///
    /// That may take as long as the storage takes for what is in flight; who must not wait asks
    /// [`is_finished`](Self::is_finished).
    pub fn stop(mut self) -> Stopped<E, R> {
        let (engine, report) = self.join();
        Stopped { wake: self.wake.lend(), engine, report }
    }
}

impl<E, R> QueueThread<E, R> {
    /// Wakes the thread: the driver has notified the queue, or something else has changed that the thread
    /// should look at.
    pub fn wake(&self) {
        self.stop.waker().wake();
    }

    /// The same for another thread.
    pub fn waker(&self) -> Waker {
        self.stop.waker().clone()
    }

    /// Tells the thread to stop, without waiting for it. [`ThreadSpec::wake_at_end`] tells of its end.
    pub fn begin_stop(&self) {
        self.stop.give();
    }

    /// The thread has ended: the queue is dropped, and [`stop`](Self::stop) waits for nothing but the kernel's
    /// clean-up of the thread.
    pub fn is_finished(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn join(&mut self) -> Left<E, R> {
        self.stop.give();
        // What panics behind the panic of `serve` is gone with its thread.
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

/// Tells of a thread's end when it is dropped, on whichever way that comes.
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

/// Drops what may not be whole any more: a panic of its destructor would take the report along.
fn discard<T>(value: T) {
    let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(value)));
}

#[cfg(all(test, not(loom)))]
mod tests;
