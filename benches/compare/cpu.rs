//! Processors: who runs on which, and what they spend.

use std::io;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Ticks in which /proc/stat counts: `USER_HZ`, which is 100 on every architecture with Rust's
/// Linux targets.
const TICK: Duration = Duration::from_millis(10);

/// Where the two sides run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cores {
    pub(crate) client: usize,
    pub(crate) device: usize,
}

impl Cores {
    /// The first two processors that this process may use, or the only one.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("asking for the processors allowed")?;
        let mut usable = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let client = usable.next().context("no processor is allowed")?;
        Ok(Self { client, device: usable.next().unwrap_or(client) })
    }

    /// Pins the calling thread.
    pub(crate) fn pin(core: usize) -> Result<()> {
        let mut set = CpuSet::new();
        set.set(core);
        sched_setaffinity(None, &set).with_context(|| format!("pinning to processor {core}"))
    }
}

/// The processor time of a thread or process, exact to the nanosecond even while it runs.
///
/// The fields of /proc/PID/stat count ticks of 10 ms, and those of /proc/PID/schedstat lack what
/// a running thread has used since the last tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuClock(libc::clockid_t);

impl CpuClock {
    /// Of the calling thread, wherever it is read.
    pub(crate) fn this_thread() -> Self {
        Self(libc::CLOCK_THREAD_CPUTIME_ID)
    }

    /// Of all threads of process `pid`, past ones and the kernel's io_uring workers too.
    pub(crate) fn process(pid: u32) -> Result<Self> {
        let mut clock = 0;
        // SAFETY: writes the clock's number to `clock`.
        let error = unsafe { libc::clock_getcpuclockid(pid as libc::pid_t, &mut clock) };
        if error != 0 {
            let error = io::Error::from_raw_os_error(error);
            return Err(error).with_context(|| format!("finding the CPU clock of process {pid}"));
        }
        Ok(Self(clock))
    }

    pub(crate) fn read(self) -> Result<Duration> {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: writes the time to `time`.
        if unsafe { libc::clock_gettime(self.0, &mut time) } != 0 {
            return Err(io::Error::last_os_error()).context("reading a CPU clock");
        }
        Ok(Duration::new(time.tv_sec as u64, time.tv_nsec as u32))
    }
}

/// One side: a processor and the clock of what is meant to run there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    pub(crate) core: usize,
    pub(crate) clock: CpuClock,
}

/// The clocks of both sides, read at the ends of a window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meter {
    pub(crate) client: Side,
    /// `None` where the client's thread is the device as well.
    pub(crate) device: Option<Side>,
}

/// The clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    at: Instant,
    client: (Duration, Duration),
    device: Option<(Duration, Duration)>,
}

/// What passed between two readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spent {
    /// Processor time of the serving side.
    pub(crate) device: Duration,
    /// The greatest share of a side's processor that went to neither that side nor idleness.
    pub(crate) foreign: f64,
}

impl Meter {
    /// The clocks, each with its processor's idle time.
    pub(crate) fn read(&self) -> Result<Reading> {
        // The clocks first: they must be exact, and reading the idle times takes longer.
        let at = Instant::now();
        let device = self.device.map(|side| side.clock.read()).transpose()?;
        let client = self.client.clock.read()?;
        let stat = std::fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let idle = |side: Side| idle(&stat, side.core);
        Ok(Reading {
            at,
            client: (client, idle(self.client)?),
            device: match (device, self.device) {
                (Some(time), Some(side)) => Some((time, idle(side)?)),
                _ => None,
            },
        })
    }
}

impl Reading {
    /// From this reading to a later one.
    pub(crate) fn until(&self, later: &Self) -> Spent {
        let wall = later.at.duration_since(self.at);
        let both = [(Some(self.client), Some(later.client)), (self.device, later.device)];
        let foreign = both.into_iter().filter_map(|(from, to)| {
            let ((from_busy, from_idle), (to_busy, to_idle)) = (from?, to?);
            let known = to_busy.saturating_sub(from_busy) + to_idle.saturating_sub(from_idle);
            Some(wall.saturating_sub(known).as_secs_f64() / wall.as_secs_f64())
        });
        let busy = |reading: &Self| reading.device.unwrap_or(reading.client).0;
        Spent {
            device: busy(later).saturating_sub(busy(self)),
            foreign: foreign.fold(0.0, f64::max),
        }
    }
}

/// Idle time of processor `core`, waiting for a disk included (proc(5)).
fn idle(stat: &str, core: usize) -> Result<Duration> {
    let name = format!("cpu{core}");
    let fields = stat.lines().find_map(|line| line.strip_prefix(&name)?.strip_prefix(' '));
    let fields = fields.with_context(|| format!("no {name} in /proc/stat"))?;
    let ticks = fields.split_whitespace().skip(3).take(2);
    let ticks = ticks.map(str::parse::<u32>).sum::<Result<u32, _>>();
    Ok(TICK * ticks.with_context(|| format!("the idle time of {name} in /proc/stat"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn idle_time_is_found_by_processor() {
        let stat = "cpu  9 9 9 9 9\ncpu0 1 2 3 40 5 6 7 8\ncpu1 1 2 3 70 0 6\ncpu10 1 1 1 1 1\n";
        assert_eq!(idle(stat, 0).unwrap(), 450 * MS);
        assert_eq!(idle(stat, 1).unwrap(), 700 * MS);
        assert!(idle(stat, 2).is_err());
    }

    #[test]
    fn what_is_neither_busy_nor_idle_is_foreign() {
        let at = Instant::now();
        let start = Reading { at, client: (MS, MS), device: Some((MS, MS)) };
        let end =
            Reading { at: at + 100 * MS, client: (101 * MS, MS), device: Some((51 * MS, 21 * MS)) };
        let spent = start.until(&end);
        assert_eq!(spent.device, 50 * MS);
        assert!((spent.foreign - 0.3).abs() < 1e-9, "{spent:?}");
        let alone = Reading { device: None, ..start }.until(&Reading { device: None, ..end });
        assert_eq!((alone.device, alone.foreign), (100 * MS, 0.0));
    }

    #[test]
    fn a_busy_thread_spends_processor_time() {
        let (thread, process) = (CpuClock::this_thread(), CpuClock::process(std::process::id()));
        let process = process.unwrap();
        let (before, all) = (thread.read().unwrap(), process.read().unwrap());
        while thread.read().unwrap() < before + MS {}
        assert!(process.read().unwrap() >= all + MS, "the process has this thread's time");
    }
}
