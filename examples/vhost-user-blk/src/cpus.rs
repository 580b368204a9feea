//! Which processors threads run on.

use std::{io, str::FromStr};

use rustix::thread::{CpuSet, sched_setaffinity};

/// A list of processors, in the order it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// Ties the calling thread to the processor of queue `index`.
    pub(crate) fn pin(&self, index: u16) -> io::Result<()> {
        let mut set = CpuSet::new();
        set.set(self.cpu(index));
        Ok(sched_setaffinity(None, &set)?)
    }

    fn cpu(&self, index: u16) -> usize {
        self.0[usize::from(index) % self.0.len()]
    }
}

impl FromStr for CpuList {
    type Err = String;

    /// Numbers and ranges with commas between them, as in Linux's cpu lists.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            match (first.parse::<usize>(), last.parse::<usize>()) {
                (Ok(first), Ok(last)) if first <= last && last < CpuSet::MAX_CPU => {
                    cpus.extend(first..=last);
                }
                _ => {
                    return Err(format!(
                        "{part:?} should be a CPU or a range of them, as in 0,2-3"
                    ));
                }
            }
        }
        Ok(Self(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_take_processors_in_the_order_written() {
        let cpus: CpuList = "4,1-2".parse().unwrap();
        assert_eq!([0, 1, 2, 3].map(|queue| cpus.cpu(queue)), [4, 1, 2, 4]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "a", "1-", "2-1", "0,,1", "0-99999999"] {
            assert!(text.parse::<CpuList>().is_err(), "{text:?}");
        }
    }
}
