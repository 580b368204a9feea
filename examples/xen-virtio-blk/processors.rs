//! How many processors there are.

use std::fs;

use rustix::thread::sched_getaffinity;

/// Whether this thread has only one processor to run on, and so those that it starts.
pub(crate) fn is_one() -> bool {
    sched_getaffinity(None).is_ok_and(|processors| processors.count() == 1)
}

/// How many the machine may have: as many as the kernel is prepared for, whether they are online or this process may run on them; `u32::MAX` if it
/// doesn't say.
pub(crate) fn possible() -> u32 {
    let list = fs::read_to_string("/sys/devices/system/cpu/possible");
    list.ok().and_then(|list| end(&list)).unwrap_or(u32::MAX)
}

/// One more than the last number of a list as `0-3,8`.
fn end(list: &str) -> Option<u32> {
    let last: u32 = list.trim().rsplit([',', '-']).next()?.parse().ok()?;
    last.checked_add(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_processor_of_the_kernels_list_counts() {
        assert_eq!(["0\n", "0-3\n", "0-3,8\n", "\n"].map(end), [Some(1), Some(4), Some(9), None]);
        assert!(possible() >= 1);
    }
}
