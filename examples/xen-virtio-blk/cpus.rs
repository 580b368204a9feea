//! Which CPUs the workers of a disk's queues run on.

use std::{collections::BTreeSet, str::FromStr};

use rustix::{
    io,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// CPUs in the order in which a disk's queues get them: queue 0 the first, round robin. Empty: the
/// scheduler chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(Vec<usize>);

impl CpuList {
    /// The CPU that the worker of `queue` is for.
    pub fn of_queue(&self, queue: usize) -> Option<usize> {
        let turn = queue.checked_rem(self.0.len())?;
        self.0.get(turn).copied()
    }

    /// The first CPU of the list that this process may not run on.
    pub fn out_of_reach(&self) -> io::Result<Option<usize>> {
        let allowed = sched_getaffinity(None)?;
        Ok(self.0.iter().copied().find(|cpu| !allowed.is_set(*cpu)))
    }
}

/// Has the calling thread run on `cpu`, and nowhere else.
pub(crate) fn pin_to(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
}

/// As `taskset -c` has it: `0-3,6`.
impl FromStr for CpuList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let range = first.trim().parse().ok().zip(last.trim().parse().ok());
            match range
                .filter(|(first, last): &(usize, usize)| first <= last && *last < CpuSet::MAX_CPU)
            {
                Some((first, last)) => cpus.extend(first..=last),
                None => {
                    return Err(format!(
                        "{part:?} should be a CPU or a range of them below {}, as 0,2 or 0-3",
                        CpuSet::MAX_CPU
                    ));
                }
            }
        }
        if cpus.iter().collect::<BTreeSet<_>>().len() < cpus.len() {
            return Err(format!("{text:?} names a CPU twice"));
        }
        Ok(Self(cpus))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_get_the_cpus_in_turn() {
        let cpus: CpuList = "2,4-5".parse().unwrap();
        assert_eq!([0, 1, 2, 3].map(|queue| cpus.of_queue(queue)), [2, 4, 5, 2].map(Some));
        assert_eq!(CpuList::default().of_queue(0), None);
    }

    #[test]
    fn what_is_no_list_of_cpus_is_refused() {
        for text in ["", "x", "1,", "3-1", "1024", "0-99999999", "-1", "1,1", "0-2,1"] {
            assert!(text.parse::<CpuList>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_cpu_that_isnt_there_is_out_of_reach_and_one_that_is_can_be_pinned_to() {
        let allowed = sched_getaffinity(None).unwrap();
        let here = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).unwrap();
        let mut cpus = CpuList(vec![here]);
        assert_eq!(cpus.out_of_reach(), Ok(None));
        if let Some(nowhere) = (0..CpuSet::MAX_CPU).find(|cpu| !allowed.is_set(*cpu)) {
            cpus.0.push(nowhere);
            assert_eq!(cpus.out_of_reach(), Ok(Some(nowhere)));
        }
        let pinned = std::thread::spawn(move || {
            pin_to(here).unwrap();
            sched_getaffinity(None).unwrap()
        });
        let pinned = pinned.join().unwrap();
        assert!(pinned.is_set(here) && pinned.count() == 1);
    }
}
