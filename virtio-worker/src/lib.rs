//! What the thread of a virtio queue needs, whatever the device, the transport and the hypervisor.
//!
//! * [`QueueThread`] starts a named thread that owns its queue and borrows an engine, serves the queue
//!   until it is stopped, and gives the engine back.
//! * [`Wake`] is what such a thread sleeps on: an eventfd, further descriptors and a timeout. A [`Waker`]
//!   wakes it. No wake-up is lost, and those that the thread has not yet seen are coalesced.
//!   [`EngineWaiter`] has it sleep on its engine's descriptor, too.
//! * [`InlineSlot`] lets the thread that passes a notification on serve the queue, if that needs no wait and the
//!   queue's thread sleeps: a request that comes alone is spared the way from thread to thread.
//! * [`CpuList`] says which CPU the thread of each queue runs on.
//! * [`LogLimit`] limits how often a message is logged that a guest can cause.
//!
//! The crate prints and logs nothing: it reports a [`ThreadEvent`] to a handler. Linux only.
//!
//! # Example
//! The receive queue of a console. Its thread sleeps until the driver notifies the queue or the host's
//! end has something to read. A socket stands for that end here, and a counter for the queue.
//! ```
//! use std::io::{Read, Write};
//! use std::os::fd::AsFd;
//! use std::os::unix::net::UnixStream;
//! use virtio_worker::{QueueThread, Served, ThreadSpec, Waiter, Wake};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut terminal, mut host) = UnixStream::pair()?;
//! host.set_nonblocking(true)?;
//!
//! // No engine carries out this queue's I/O, so there is none to lend: `()`.
//! let serve = move |_: &mut (), waiter: &mut Waiter| {
//!     let mut received = 0;
//!     let mut bytes = [0; 64];
//!     while !waiter.is_stopped() {
//!         if let Ok(len) = host.read(&mut bytes) {
//!             // To the driver's buffers; here, back to the terminal.
//!             received += len;
//!             let _ = host.write_all(&bytes[..len]);
//!         }
//!         // `None` instead of the descriptor where the driver has left no buffer to read into.
//!         if waiter.wait(Some(host.as_fd()), None).is_err() {
//!             break;
//!         }
//!     }
//!     Served::idle(received)
//! };
//! let spec = ThreadSpec::new("vq-console-0", Wake::new()?);
//! let thread = QueueThread::start(spec, (), serve, |event| eprintln!("{event}"))?;
//!
//! thread.wake(); // The driver has notified the queue.
//! terminal.write_all(b"login: ")?;
//! let mut echo = [0; 7];
//! terminal.read_exact(&mut echo)?;
//!
//! let stopped = thread.stop(); // Before the reset is answered.
//! assert_eq!(stopped.report, Some(7));
//! # Ok(())
//! # }
//! ```
//! For a disk, the closure calls `virtio_blk_dev::Worker::serve`, and the engine is its I/O engine.
//!
//! # Threats
//! | who | what is done about it |
//! |---|---|
//! | a guest notifies a queue without end | while the thread has not seen a wake-up, the next one makes no system call |
//! | a guest resets its device without end | the `Wake` and the engine are kept from thread to thread, so that a reset creates no descriptor |
//! | a guest causes messages without end | [`LogLimit`]: eight lines a minute for each message |
//! | a frontend passes a descriptor that is no eventfd, or fills its counter | a [watched](Wake::watch) descriptor is never read, and one that can't be waited for is refused |
//! | the code that serves a queue panics, on whichever thread | the queue and the engine are dropped on the queue's thread, and the program goes on |
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod cpu_list;
mod engine_waiter;
#[cfg_attr(loom, path = "event_model.rs")]
mod event;
mod inline;
mod log_limit;
mod served;
mod spec;
mod start_error;
mod sync;
mod thread;
mod thread_event;
mod waiter;
mod wake;

pub use cpu_list::{Cpu, CpuList, ParseCpuListError};
pub use engine_waiter::EngineWaiter;
pub use inline::{Inline, InlineHandle, InlineOwner, InlineSlot, ServeInline};
pub use log_limit::LogLimit;
pub use served::{EngineState, Served, Stopped};
pub use spec::ThreadSpec;
pub use start_error::{SpawnError, StartError};
pub use thread::QueueThread;
pub use thread_event::ThreadEvent;
pub use waiter::Waiter;
pub use wake::{Wake, Waker};
