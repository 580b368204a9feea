//! A bounded wait for what may never happen.

use std::{io, sync::mpsc, thread, time::Duration};

/// How long one device may hold up the handshakes of the others. libxl gives a backend 10 s.
pub(crate) const OPEN: Duration = Duration::from_secs(8);

/// Does `work` on a thread of its own; `None` if it isn't done within `timeout`. Then it goes on, and
/// what it gives is dropped.
pub(super) fn within<T: Send + 'static>(
    timeout: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Option<T>> {
    let (sender, done) = mpsc::channel();
    thread::Builder::new().name("open".into()).spawn(move || sender.send(work()))?;
    Ok(done.recv_timeout(timeout).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_in_time_is_given() {
        assert_eq!(within(Duration::from_secs(60), || 7).unwrap(), Some(7));
    }

    #[test]
    fn what_is_not_done_in_time_is_not_waited_for() {
        let (hold, held) = mpsc::channel::<()>();
        assert!(within(Duration::from_millis(10), move || held.recv()).unwrap().is_none());
        drop(hold);
    }
}
