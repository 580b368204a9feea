use super::super::*;
use crate::{QueueThread, Served, ThreadEvent, ThreadSpec, Waiter, Wake};
use std::sync::Mutex as StdMutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, ThreadId};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(60);

/// Tells on which thread it serves.
struct Server {
    served: Sender<ThreadId>,
    /// What it does inline.
    inline: Arc<StdMutex<fn() -> Inline>>,
    dropped: Sender<ThreadId>,
}

impl Server {
    fn serve(&self) {
        self.served.send(thread::current().id()).unwrap();
    }
}

impl ServeInline for Server {
    fn serve_inline(&mut self) -> Inline {
        let inline = *self.inline.lock().unwrap();
        let done = inline();
        if done == Inline::Done {
            self.serve();
        }
        done
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.dropped.send(thread::current().id());
    }
}

struct Queue {
    thread: QueueThread<(), ()>,
    handle: InlineHandle,
    served: Receiver<ThreadId>,
    dropped: Receiver<ThreadId>,
    inline: Arc<StdMutex<fn() -> Inline>>,
    events: Receiver<String>,
    /// Its thread's.
    id: ThreadId,
}

/// A queue whose thread sleeps.
fn queue() -> Queue {
    let (served, serves) = mpsc::channel();
    let (dropped, drops) = mpsc::channel();
    let (event, events) = mpsc::channel();
    let inline = Arc::new(StdMutex::new((|| Inline::Done) as fn() -> Inline));
    let slot = InlineSlot::new();
    let handle = slot.handle();
    let server = Server { served, inline: Arc::clone(&inline), dropped };
    let serve = move |_: &mut (), waiter: &mut Waiter| {
        let mut owner = slot.put(server);
        while !waiter.is_stopped() {
            owner.with(|server| server.serve());
            waiter.wait(None, None).unwrap();
        }
        drop(owner.end());
        Served::idle(())
    };
    let on_event = move |told: &ThreadEvent| event.send(told.to_string()).unwrap();
    let spec = ThreadSpec::new("vq-inline", Wake::new().unwrap());
    let thread = QueueThread::start(spec, (), serve, on_event).unwrap();
    let id = serves.recv_timeout(LONG).unwrap();
    // It has let go of the queue when that can be served here.
    while handle.serve() != Inline::Done {
        thread::yield_now();
    }
    assert_eq!(serves.recv_timeout(LONG).unwrap(), thread::current().id());
    Queue { thread, handle, served: serves, dropped: drops, inline, events, id }
}

#[test]
fn a_notification_is_served_on_the_thread_that_passes_it_on_and_the_queues_sleeps_on() {
    let queue = queue();
    for _ in 0..3 {
        queue.thread.notify(&queue.handle);
        assert_eq!(queue.served.try_recv().unwrap(), thread::current().id());
    }
    queue.thread.stop();
    // Nobody had woken it before.
    assert_eq!(queue.served.try_recv().ok(), None);
    assert_eq!(queue.dropped.try_recv().unwrap(), queue.id);
}

#[test]
fn what_cannot_be_served_inline_is_served_by_the_queues_thread() {
    let queue = queue();
    *queue.inline.lock().unwrap() = || Inline::NeedsThread;
    queue.thread.notify(&queue.handle);
    assert_eq!(queue.served.recv_timeout(LONG).unwrap(), queue.id);
}

#[test]
fn a_queue_that_was_told_to_stop_is_not_served_inline() {
    let queue = queue();
    queue.thread.begin_stop();
    queue.thread.notify(&queue.handle);
    queue.thread.stop();
    assert!(queue.served.try_iter().all(|thread| thread == queue.id));
    assert_eq!(queue.handle.serve(), Inline::NeedsThread);
}

#[test]
fn a_panic_inline_ends_the_queue_on_its_own_thread_and_not_the_one_that_notified_it() {
    let queue = queue();
    *queue.inline.lock().unwrap() = || panic!("inline");
    queue.thread.notify(&queue.handle);
    assert!(queue.events.recv_timeout(LONG).unwrap().contains("panicked"));
    assert_eq!(queue.dropped.recv_timeout(LONG).unwrap(), queue.id);
    queue.thread.notify(&queue.handle);
    assert_eq!(queue.thread.stop().report, None);
}

#[test]
fn a_slot_without_a_server_needs_the_thread() {
    let slot = InlineSlot::<Server>::new();
    let handle = slot.handle();
    assert_eq!(handle.serve(), Inline::NeedsThread);
    drop(slot);
    assert_eq!(handle.serve(), Inline::NeedsThread);
}
