//! Serving a queue by one function of a request.

use vm_memory::GuestAddressSpace;

use crate::{Chain, LiveQueue};

/// Where [`process_queue_while`] stopped.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing is left, and the driver notifies of what comes next; or the queue is broken.
    Idle,
    /// There is more: call it again, without waiting for a notification.
    More,
    /// The next chain can't be answered yet: call it again when it can. The driver does not notify of more.
    Blocked,
}

/// Serves every chain that is available, for a device that answers at once (an entropy source):
/// `serve` gives the number of bytes it wrote. Publishes the answers, and enables notifications when
/// nothing is left.
///
/// Gives `true` if it stopped, after as many chains as the queue has room for, with more to do: a
/// driver that adds chains without end doesn't keep the caller. Call it again then.
pub fn process_queue<R: GuestAddressSpace, D: GuestAddressSpace>(
    queue: &mut LiveQueue<R, D>,
    mut serve: impl FnMut(&Chain<D>) -> u32,
) -> bool {
    process_queue_while(queue, |chain| Some(serve(chain))) == Progress::More
}

/// As [`process_queue`], for a device that can't answer each chain at once (the input of a console):
/// where `serve` gives `None`, its chain is put back as the next one of the queue, and nothing after it
/// is served.
pub fn process_queue_while<R: GuestAddressSpace, D: GuestAddressSpace>(
    queue: &mut LiveQueue<R, D>,
    mut serve: impl FnMut(&Chain<D>) -> Option<u32>,
) -> Progress {
    let mut left = queue.size();
    loop {
        queue.disable_notification();
        while let Some(rest) = left.checked_sub(1) {
            let Some(chain) = queue.pop() else {
                break;
            };
            left = rest;
            let Some(len) = serve(&chain) else {
                // It is the one popped last, so it is taken back.
                if queue.put_back(chain).is_err() {
                    queue.give_up();
                }
                queue.publish();
                return if queue.is_broken() { Progress::Idle } else { Progress::Blocked };
            };
            queue.complete(chain, len);
        }
        queue.publish();
        if queue.is_broken() {
            return Progress::Idle;
        }
        if left == 0 {
            return Progress::More;
        }
        if !queue.enable_notification() {
            return Progress::Idle;
        }
    }
}
