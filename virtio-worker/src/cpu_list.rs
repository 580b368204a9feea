use std::fmt;
use std::io;
use std::str::FromStr;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The number of a CPU, less than [`Cpu::END`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Cpu(usize);

impl Cpu {
    /// The number of CPUs in a `cpu_set_t` of sched_setaffinity(2).
    pub const END: usize = CpuSet::MAX_CPU;

    /// The CPU `number`; `None` if it is not below [`Cpu::END`]. The CPU need not exist.
    pub fn new(number: usize) -> Option<Self> {
        (number < Self::END).then_some(Self(number))
    }

    /// Its number.
    pub fn number(self) -> usize {
        self.0
    }

    /// Binds the calling thread to this CPU, and the threads that it starts from now on.
    ///
    /// # Errors
    /// The CPU does not exist or is not in the process's cpuset (EINVAL).
    pub fn pin_this_thread(self) -> io::Result<()> {
        let mut set = CpuSet::new();
        set.set(self.0);
        Ok(sched_setaffinity(None, &set)?)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The CPUs for the queues of a device: queue 0 gets the first, queue 1 the second, round robin. With an
/// empty list, the scheduler chooses.
///
/// The text form is that of `taskset -c`, such as `0-3,6`. A CPU that is listed twice is refused: two
/// threads that poll on one CPU take turns of a whole scheduler tick.
///
/// With the feature `serde` it is a sequence of their numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CpuList(Vec<Cpu>);

/// Why a text is not a list of CPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseCpuListError {
    /// A part between commas is neither a CPU nor a range.
    #[error(
        "{0:?} should be a CPU or a range of them below {end}, as in 0,2 or 0-3",
        end = Cpu::END
    )]
    Part(String),
    /// A CPU is listed twice.
    #[error("CPU {0} is in the list twice")]
    Twice(Cpu),
}

impl CpuList {
    /// The CPU for the thread of `queue`.
    pub fn of_queue(&self, queue: u16) -> Option<Cpu> {
        let turn = usize::from(queue).checked_rem(self.0.len())?;
        self.0.get(turn).copied()
    }

    /// The first CPU of the list that the calling thread is not allowed to run on, so that a program can
    /// refuse the list when it starts.
    ///
    /// # Errors
    /// What sched_getaffinity(2) returned: EINVAL on a machine with more than [`Cpu::END`] CPUs.
    pub fn first_not_allowed(&self) -> io::Result<Option<Cpu>> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let allowed = sched_getaffinity(None)?;
        Ok(self.0.iter().copied().find(|cpu| !allowed.is_set(cpu.0)))
    }

    /// Adds a CPU. As each is in the list once, the list has at most [`Cpu::END`] of them.
    fn add(&mut self, cpu: Cpu) -> Result<(), ParseCpuListError> {
        if self.0.contains(&cpu) {
            return Err(ParseCpuListError::Twice(cpu));
        }
        self.0.push(cpu);
        Ok(())
    }
}

impl FromStr for CpuList {
    type Err = ParseCpuListError;

    fn from_str(text: &str) -> Result<Self, ParseCpuListError> {
        let mut list = Self::default();
        for part in text.split(',') {
            let range = range(part).ok_or_else(|| ParseCpuListError::Part(part.to_owned()))?;
            range.filter_map(Cpu::new).try_for_each(|cpu| list.add(cpu))?;
        }
        Ok(list)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for CpuList {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let numbers = <Vec<usize> as serde::Deserialize>::deserialize(deserializer)?;
        let mut list = Self::default();
        for number in numbers {
            let cpu = Cpu::new(number).ok_or_else(|| ParseCpuListError::Part(number.to_string()));
            cpu.and_then(|cpu| list.add(cpu)).map_err(serde::de::Error::custom)?;
        }
        Ok(list)
    }
}

/// `first-last` or `first`; blanks around the numbers are allowed.
fn range(part: &str) -> Option<std::ops::RangeInclusive<usize>> {
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last && last < Cpu::END).then_some(first..=last)
}

/// Digits only: `usize` would accept a sign.
fn number(text: &str) -> Option<usize> {
    let text = text.trim();
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn list(text: &str) -> CpuList {
        text.parse().unwrap()
    }

    #[test]
    fn queues_get_the_cpus_in_the_order_written_round_robin() {
        let cpus = list("4,1-2");
        assert_eq!([0, 1, 2, 3].map(|queue| cpus.of_queue(queue)), [4, 1, 2, 4].map(Cpu::new));
        assert_eq!(CpuList::default().of_queue(0), None);
        assert_eq!(list(" 4, 1 - 2 "), cpus);
    }

    #[test]
    fn what_is_no_list_of_cpus_is_refused_by_its_part() {
        for text in ["", "x", "-1", "+1", "1-", "-", "2-1", "1024", "0-99999999", "1:2"] {
            let error = ParseCpuListError::Part(text.to_owned());
            assert_eq!(text.parse::<CpuList>(), Err(error), "{text:?}");
        }
        assert_eq!("0,,1".parse::<CpuList>(), Err(ParseCpuListError::Part(String::new())));
        assert_eq!("0,1,x".parse::<CpuList>(), Err(ParseCpuListError::Part("x".to_owned())));
    }

    #[test]
    fn a_cpu_that_is_in_the_list_twice_is_refused() {
        for text in ["1,1", "0-2,1", "1,0-1"] {
            let error = ParseCpuListError::Twice(Cpu(1));
            assert_eq!(text.parse::<CpuList>(), Err(error), "{text:?}");
        }
    }

    #[test]
    #[cfg(feature = "serde")]
    fn a_list_passes_serde_and_what_is_no_list_does_not() {
        let passed = |numbers: &[usize]| {
            let bytes = postcard::to_stdvec(numbers).unwrap();
            postcard::from_bytes::<CpuList>(&bytes)
        };
        let bytes = postcard::to_stdvec(&list("4,1-2")).unwrap();
        assert_eq!(postcard::from_bytes::<CpuList>(&bytes), Ok(list("4,1-2")));
        assert_eq!(passed(&[]), Ok(CpuList::default()));
        for numbers in [&[1, 2, 1][..], &[Cpu::END]] {
            assert!(passed(numbers).is_err(), "{numbers:?}");
        }
    }

    #[test]
    fn a_cpu_that_the_thread_is_not_allowed_to_run_on_is_found() {
        let allowed = sched_getaffinity(None).unwrap();
        let here = (0..Cpu::END).find(|cpu| allowed.is_set(*cpu)).unwrap();
        assert_eq!(list(&here.to_string()).first_not_allowed().unwrap(), None);
        assert_eq!(CpuList::default().first_not_allowed().unwrap(), None);
        if let Some(nowhere) = (0..Cpu::END).find(|cpu| !allowed.is_set(*cpu)) {
            let cpus = list(&format!("{here},{nowhere}"));
            assert_eq!(cpus.first_not_allowed().unwrap(), Cpu::new(nowhere));
        }
    }
}
