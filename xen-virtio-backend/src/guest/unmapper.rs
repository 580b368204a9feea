//! The thread that unmaps what a guest's INVALIDATE put out of use.

use std::{
    sync::mpsc::{self, Sender},
    thread::{self, JoinHandle},
};

use backend_process::chain;
use tracing::error;
use xen_foreignmem::Retired;
use xen_ioreq::DomId;

/// Unmaps on a thread of its own, which is started when there is something to unmap for the first time.
///
/// It takes a hypercall a page: a second or so for 4 GiB, in which the guest's thread has traps to answer.
/// What waits here is bounded, as it still counts against the guest's budget.
pub(super) struct Unmapper {
    domid: DomId,
    thread: Option<(Sender<Retired>, JoinHandle<()>)>,
}

impl Unmapper {
    pub(super) fn new(domid: DomId) -> Self {
        Self { domid, thread: None }
    }

    /// Has them unmapped soon.
    pub(super) fn unmap(&mut self, retired: Retired) {
        if retired.is_empty() {
            return;
        }
        if self.thread.is_none() {
            let (sender, inbox) = mpsc::channel::<Retired>();
            let name = format!("unmap-{}", self.domid);
            match thread::Builder::new().name(name).spawn(move || inbox.into_iter().for_each(drop))
            {
                Ok(thread) => self.thread = Some((sender, thread)),
                // They are unmapped here and now.
                Err(error) => {
                    error!(domid = self.domid, error = %chain(&error), "no thread can be started to unmap the guest's memory, so its accesses to its devices wait for that: raise the limit of tasks (TasksMax= of the systemd unit, `ulimit -u`)");
                    return;
                }
            }
        }
        if let Some((sender, _)) = &self.thread {
            // It ends with the sender only.
            let _ = sender.send(retired);
        }
    }
}

impl Unmapper {
    /// Waits until everything that was handed over is unmapped.
    pub(super) fn finish(&mut self) {
        if let Some((sender, thread)) = self.thread.take() {
            drop(sender);
            if thread.join().is_err() {
                error!(
                    domid = self.domid,
                    "the thread that unmaps the guest's memory panicked: report this as a bug"
                );
            }
        }
    }
}

impl Drop for Unmapper {
    fn drop(&mut self) {
        self.finish();
    }
}
