//! Failures on demand.

use std::io;
use std::sync::Mutex;

use crate::lock::lock;

/// Calls that are to fail: the nth from now, with an errno.
#[derive(Debug, Default)]
pub struct Faults {
    planned: Mutex<Vec<(usize, i32)>>,
}

impl Faults {
    /// Lets the `nth` call from now on (0 is the next) fail with `errno`. Plans add up.
    pub fn fail_nth(&self, nth: usize, errno: i32) {
        lock(&self.planned).push((nth, errno));
    }

    /// Counts a call; its failure, if it was planned.
    pub(crate) fn call(&self) -> io::Result<()> {
        let mut planned = lock(&self.planned);
        let due = planned.iter().position(|&(nth, _)| nth == 0).map(|at| planned.remove(at));
        for (nth, _) in planned.iter_mut() {
            *nth = nth.saturating_sub(1);
        }
        match due {
            None => Ok(()),
            Some((_, errno)) => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}
