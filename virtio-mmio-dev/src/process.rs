//! Serving a queue whose requests are done at once.

use vm_memory::GuestAddressSpace;

use crate::{Chain, LiveQueue};

/// Serves every chain that is available, for a device that answers at once (an entropy source, a
/// console): `serve` gives the number of bytes it wrote. Publishes the answers, and enables
/// notifications when nothing is left.
///
/// Gives `true` if it stopped, after as many chains as the queue has room for, with more to do: a
/// driver that adds chains without end doesn't keep the caller. Call it again then.
pub fn process_queue<R: GuestAddressSpace, D: GuestAddressSpace>(
    queue: &mut LiveQueue<R, D>,
    mut serve: impl FnMut(&Chain<D>) -> u32,
) -> bool {
    let mut left = queue.size();
    loop {
        queue.disable_notification();
        while let Some(rest) = left.checked_sub(1) {
            let Some(chain) = queue.pop() else {
                break;
            };
            left = rest;
            let len = serve(&chain);
            queue.complete(chain, len);
        }
        queue.publish();
        if left == 0 {
            return !queue.is_broken();
        }
        if !queue.enable_notification() {
            return false;
        }
    }
}
