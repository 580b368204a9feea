//! Processors: who runs on which, and what they spend.

use std::fs;
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

/// Threads whose waiting for a processor is asked for.
#[derive(Clone, Copy, Debug)]
enum Threads {
    Calling,
    OfProcess(u32),
}

impl Threads {
    /// How long they have been ready to run and did not (the second field of
    /// /proc/PID/task/TID/schedstat); `None` from a kernel that doesn't tell.
    fn waited(self) -> Option<Duration> {
        match self {
            Self::Calling => waited(&fs::read_to_string("/proc/thread-self/schedstat").ok()?),
            Self::OfProcess(pid) => {
                let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
                // One that has ended meanwhile waits no more.
                let stats = tasks.filter_map(|task| {
                    fs::read_to_string(task.ok()?.path().join("schedstat")).ok()
                });
                stats.map(|stat| waited(&stat)).sum()
            }
        }
    }
}

fn waited(schedstat: &str) -> Option<Duration> {
    schedstat.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// One side of a comparison: a processor, and what is meant to run there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Side {
    core: usize,
    clock: CpuClock,
    threads: Threads,
}

impl Side {
    /// The calling thread.
    pub(crate) fn this_thread(core: usize) -> Self {
        Self { core, clock: CpuClock::this_thread(), threads: Threads::Calling }
    }

    pub(crate) fn process(core: usize, pid: u32) -> Result<Self> {
        Ok(Self { core, clock: CpuClock::process(pid)?, threads: Threads::OfProcess(pid) })
    }

    fn state(&self, stat: &str, busy: Duration) -> Result<State> {
        Ok(State { busy, idle: idle(stat, self.core)?, waited: self.threads.waited() })
    }
}

/// Where a side stands.
#[derive(Clone, Copy, Debug)]
struct State {
    busy: Duration,
    /// Of its processor.
    idle: Duration,
    waited: Option<Duration>,
}

impl State {
    /// How much of `wall` others took from this side, at most. What its processor neither idled
    /// nor spent on it may have been taken while it slept; what it waited it may have waited for
    /// threads of its own. So it is the lesser of both.
    fn taken(&self, later: &Self, wall: Duration) -> f64 {
        let known = later.busy.saturating_sub(self.busy) + later.idle.saturating_sub(self.idle);
        let elsewhere = wall.saturating_sub(known);
        let waited = later.waited.zip(self.waited).map(|(to, from)| to.saturating_sub(from));
        waited.map_or(elsewhere, |waited| waited.min(elsewhere)).as_secs_f64() / wall.as_secs_f64()
    }
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
    client: State,
    device: Option<State>,
}

/// What passed between two readings.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spent {
    /// Processor time of the serving side.
    pub(crate) device: Duration,
    /// The share of the time that others took from one of the sides.
    pub(crate) foreign: f64,
}

impl Meter {
    /// The clocks, each with its processor's idle time.
    pub(crate) fn read(&self) -> Result<Reading> {
        // The clocks first: they must be exact, and reading the idle times takes longer.
        let at = Instant::now();
        let device = self.device.map(|side| side.clock.read()).transpose()?;
        let client = self.client.clock.read()?;
        let stat = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let client = self.client.state(&stat, client)?;
        let device = match (self.device, device) {
            (Some(side), Some(busy)) => Some(side.state(&stat, busy)?),
            _ => None,
        };
        Ok(Reading { at, client, device })
    }
}

impl Reading {
    /// From this reading to a later one.
    pub(crate) fn until(&self, later: &Self) -> Spent {
        let wall = later.at.duration_since(self.at);
        let device = self.device.zip(later.device);
        let (from, to) = device.unwrap_or((self.client, later.client));
        Spent {
            device: to.busy.saturating_sub(from.busy),
            foreign: from.taken(&to, wall).max(self.client.taken(&later.client, wall)),
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

    /// Of a hundred milliseconds.
    fn spent(busy: u32, idle: u32, waited: Option<u32>) -> Spent {
        let at = Instant::now();
        let from = State { busy: MS, idle: MS, waited: Some(MS) };
        let to = State {
            busy: (busy + 1) * MS,
            idle: (idle + 1) * MS,
            waited: waited.map(|waited| (waited + 1) * MS),
        };
        let client = State { busy: 101 * MS, ..from };
        let before = Reading { at, client: from, device: Some(from) };
        before.until(&Reading { at: at + 100 * MS, client, device: Some(to) })
    }

    #[test]
    fn time_is_taken_if_it_is_neither_used_nor_idle_and_was_waited_for() {
        for (busy, idle, waited, taken) in [
            (50, 20, Some(40), 0.3),
            (50, 20, Some(10), 0.1),
            (50, 20, None, 0.3),
            (80, 20, Some(70), 0.0),
        ] {
            let spent = spent(busy, idle, waited);
            assert_eq!(spent.device, busy * MS);
            assert!((spent.foreign - taken).abs() < 1e-9, "{busy} {idle} {waited:?}: {spent:?}");
        }
    }

    #[test]
    fn the_client_is_the_device_where_there_is_no_other() {
        let state = |busy| State { busy: busy * MS, idle: MS, waited: None };
        let at = Instant::now();
        let before = Reading { at, client: state(5), device: None };
        let spent = before.until(&Reading { at: at + 100 * MS, client: state(85), device: None });
        assert_eq!(spent.device, 80 * MS);
        assert!((spent.foreign - 0.2).abs() < 1e-9, "{spent:?}");
    }

    #[test]
    fn waiting_is_the_second_number() {
        assert_eq!(waited("3000000 2000000 7\n"), Some(2 * MS));
        assert_eq!(waited(""), None);
    }

    #[test]
    fn a_busy_thread_spends_processor_time() {
        let thread = CpuClock::this_thread();
        let process = CpuClock::process(std::process::id()).unwrap();
        // In this order: what the thread spends between the two belongs to the process's share.
        let all = process.read().unwrap();
        let before = thread.read().unwrap();
        while thread.read().unwrap() < before + MS {}
        assert!(process.read().unwrap() >= all + MS, "the process has this thread's time");
    }
}
