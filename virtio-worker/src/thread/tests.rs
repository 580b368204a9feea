use super::*;
use crate::{Cpu, CpuList};
use rustix::thread::sched_getaffinity;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

fn spec() -> ThreadSpec {
    ThreadSpec::new("vq-test", Wake::new().unwrap())
}

/// The events of a thread, and what collects them.
fn events() -> (Arc<Mutex<Vec<String>>>, impl FnMut(&ThreadEvent) + Send + 'static) {
    let seen = Arc::<Mutex<Vec<String>>>::default();
    let its = Arc::clone(&seen);
    (seen, move |event: &ThreadEvent| its.lock().unwrap().push(event.to_string()))
}

/// A queue's memory, or an engine, that notes when it is dropped.
struct Noted(&'static str, Arc<Mutex<Vec<&'static str>>>);

impl Drop for Noted {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

fn until_stopped(waiter: &mut Waiter) -> u32 {
    let mut looks = 0;
    while !waiter.is_stopped() {
        looks += 1;
        waiter.wait(None, None).unwrap();
    }
    looks
}

#[test]
fn a_thread_serves_until_it_is_stopped_and_gives_its_engine_back() {
    let dropped = Arc::<Mutex<Vec<_>>>::default();
    let queue = Noted("queue", Arc::clone(&dropped));
    let (events, on_event) = events();
    let (looked, looks) = mpsc::channel();
    let serve = move |engine: &mut Vec<u8>, waiter: &mut Waiter| {
        let _queue = queue;
        while !waiter.is_stopped() {
            engine.push(1);
            looked.send(thread::current().name().map(str::to_owned)).unwrap();
            waiter.wait(None, None).unwrap();
        }
        Served::idle("its end")
    };
    let thread = QueueThread::start(spec(), Vec::new(), serve, on_event).unwrap();
    assert_eq!(looks.recv_timeout(LONG).unwrap().as_deref(), Some("vq-test"));
    thread.wake();
    looks.recv_timeout(LONG).unwrap();
    assert!(!thread.is_finished() && dropped.lock().unwrap().is_empty());

    let stopped = thread.stop();
    assert_eq!(
        *dropped.lock().unwrap(),
        ["queue"],
        "the rings are mapped when a reset is answered"
    );
    assert_eq!((stopped.engine, stopped.report), (Some(vec![1, 1]), Some("its end")));
    assert!(events.lock().unwrap().is_empty());

    // What it slept on serves the next.
    let spec = ThreadSpec::new("vq-next", stopped.wake);
    let serve = |_: &mut (), waiter: &mut Waiter| Served::idle(until_stopped(waiter));
    let thread = QueueThread::start(spec, (), serve, |_| {}).unwrap();
    assert!(thread.stop().report.is_some_and(|looks| looks <= 2), "stopped before it began");
}

#[test]
fn an_engine_with_something_in_flight_is_not_given_back() {
    let dropped = Arc::<Mutex<Vec<_>>>::default();
    let queue = Noted("queue", Arc::clone(&dropped));
    let engine = Noted("engine", Arc::clone(&dropped));
    let serve = move |_: &mut Noted, waiter: &mut Waiter| {
        let _queue = queue;
        Served::unusable(until_stopped(waiter))
    };
    let thread = QueueThread::start(spec(), engine, serve, |_| {}).unwrap();
    let stopped = thread.stop();
    assert!(stopped.engine.is_none() && stopped.report.is_some());
    assert_eq!(*dropped.lock().unwrap(), ["queue", "engine"]);
}

#[test]
fn a_panic_ends_the_queue_then_its_engine_and_is_told_at_once() {
    let dropped = Arc::<Mutex<Vec<_>>>::default();
    let queue = Noted("queue", Arc::clone(&dropped));
    let engine = Noted("engine", Arc::clone(&dropped));
    let (heard, hear) = mpsc::channel();
    let serve = move |_: &mut Noted, _: &mut Waiter| -> Served<()> {
        let _queue = queue;
        panic!("as ordered")
    };
    let on_event = move |event: &ThreadEvent| heard.send(event.to_string()).unwrap();
    let thread = QueueThread::start(spec(), engine, serve, on_event).unwrap();
    let event = hear.recv_timeout(LONG).expect("reported before anybody stops it");
    assert!(event.contains("panicked"), "{event}");
    let stopped = thread.stop();
    assert_eq!(*dropped.lock().unwrap(), ["queue", "engine"]);
    assert!(stopped.engine.is_none() && stopped.report.is_none());
}

#[test]
fn a_panic_in_the_event_handler_ends_the_thread_only() {
    let serve = |_: &mut (), _: &mut Waiter| -> Served<()> { panic!("as ordered") };
    let on_event = |_: &ThreadEvent| panic!("once more");
    let stopped = QueueThread::start(spec(), (), serve, on_event).unwrap().stop();
    assert!(stopped.engine.is_none() && stopped.report.is_none());
}

#[test]
fn a_thread_that_can_not_be_started_leaves_its_engine_with_its_starter() {
    let dropped = Arc::<Mutex<Vec<_>>>::default();
    let queue = Noted("queue", Arc::clone(&dropped));
    let serve = move |_: &mut u32, waiter: &mut Waiter| {
        let _queue = &queue;
        Served::idle(until_stopped(waiter))
    };
    // More than the address space has room for.
    let spec = spec().stack_size(isize::MAX as usize);
    let error = QueueThread::start(spec, 7, serve, |_| {}).unwrap_err();
    assert!(error.to_string().contains("\"vq-test\"") && error.to_string().contains("TasksMax="));
    assert_eq!((error.engine, dropped.lock().unwrap().as_slice()), (7, &["queue"][..]));
    drop(error.wake.waker());
}

#[test]
fn a_thread_that_is_dropped_has_ended() {
    let dropped = Arc::<Mutex<Vec<_>>>::default();
    let queue = Noted("queue", Arc::clone(&dropped));
    let serve = move |_: &mut (), waiter: &mut Waiter| {
        let _queue = queue;
        Served::idle(until_stopped(waiter))
    };
    drop(QueueThread::start(spec(), (), serve, |_| {}).unwrap());
    assert_eq!(*dropped.lock().unwrap(), ["queue"]);
}

#[test]
fn who_has_begun_a_stop_need_not_wait_for_storage_and_is_woken_at_the_end() {
    let dropped = Arc::<Mutex<Vec<_>>>::default();
    let (queue, engine) = (Noted("queue", Arc::clone(&dropped)), Noted("engine", dropped.clone()));
    let (answer, storage) = mpsc::channel::<()>();
    let serve = move |_: &mut Noted, waiter: &mut Waiter| {
        let _queue = queue;
        until_stopped(waiter);
        storage.recv().unwrap();
        Served::unusable(())
    };
    let mut registers = Wake::new().unwrap();
    let spec = spec().wake_at_end(registers.waker());
    let thread = QueueThread::start(spec, engine, serve, |_| {}).unwrap();
    thread.begin_stop();
    let begin = Instant::now();
    registers.wait(None, Some(Duration::from_millis(50))).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(50) && !thread.is_finished());
    answer.send(()).unwrap();
    registers.wait(None, Some(LONG)).unwrap();
    assert!(thread.is_finished(), "woken too early");
    assert_eq!(*dropped.lock().unwrap(), ["queue", "engine"]);
    assert_eq!(thread.stop().report, Some(()));
}

#[test]
fn the_end_of_a_thread_is_told_also_when_it_panics() {
    let serve = |_: &mut (), _: &mut Waiter| -> Served<()> { panic!("as ordered") };
    let mut registers = Wake::new().unwrap();
    let spec = spec().wake_at_end(registers.waker());
    let thread = QueueThread::start(spec, (), serve, |_| panic!("once more")).unwrap();
    registers.wait(None, Some(LONG)).unwrap();
    assert!(thread.is_finished());
}

#[test]
fn a_thread_runs_on_its_cpu_and_serves_where_that_is_not_to_be_had() {
    let where_it_runs = |cpu: Option<Cpu>| {
        let (events, on_event) = events();
        let serve = |_: &mut (), waiter: &mut Waiter| {
            until_stopped(waiter);
            Served::idle(sched_getaffinity(None).unwrap())
        };
        let thread = QueueThread::start(spec().cpu(cpu), (), serve, on_event).unwrap();
        let set = thread.stop().report.unwrap();
        (set, events.lock().unwrap().clone())
    };
    let all = sched_getaffinity(None).unwrap();
    assert_eq!(where_it_runs(None), (all, vec![]));
    let here = (0..Cpu::END).find(|cpu| all.is_set(*cpu)).unwrap();
    let cpus: CpuList = here.to_string().parse().unwrap();
    let (set, events) = where_it_runs(cpus.of_queue(0));
    assert!(set.is_set(here) && set.count() == 1 && events.is_empty());
    if let Some(nowhere) = (0..Cpu::END).rev().find(|cpu| !all.is_set(*cpu)) {
        let (set, events) = where_it_runs(Cpu::new(nowhere));
        assert_eq!(set, all);
        let expected = format!("a queue's thread can't be bound to CPU {nowhere}, and runs on any");
        assert_eq!(events, [expected]);
    }
}

#[test]
fn a_name_ends_before_a_nul() {
    let serve =
        |_: &mut (), _: &mut Waiter| Served::idle(thread::current().name().map(str::to_owned));
    let spec = ThreadSpec::new("vq-\0-1", Wake::new().unwrap());
    let thread = QueueThread::start(spec, (), serve, |_| {}).unwrap();
    assert_eq!(thread.stop().report.flatten().as_deref(), Some("vq-"));
}
