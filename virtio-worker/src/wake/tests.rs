use super::*;
use rustix::event::{EventfdFlags, eventfd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

const LONG: Option<Duration> = Some(Duration::from_secs(60));
const SOON: Option<Duration> = Some(Duration::from_millis(50));

fn kick() -> OwnedFd {
    eventfd(0, EventfdFlags::empty()).unwrap()
}

fn signal(fd: &OwnedFd) {
    rustix::io::write(fd, &1_u64.to_ne_bytes()).unwrap();
}

/// Whether a sleep that nothing ends but `SOON` ends by it.
fn sleeps(wake: &mut Wake) -> bool {
    let begin = Instant::now();
    wake.wait(None, SOON).unwrap();
    Some(begin.elapsed()) >= SOON
}

fn is_readable(wake: &Wake) -> bool {
    let mut fds = [PollFd::new(wake, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
}

#[test]
fn a_wake_up_before_the_sleep_is_not_lost() {
    let mut wake = Wake::new().unwrap();
    wake.waker().wake();
    wake.wait(None, None).unwrap();
    wake.waker().wake();
    wake.wait(None, LONG).unwrap();
    assert!(sleeps(&mut wake));
}

#[test]
fn wake_ups_that_nobody_has_seen_yet_are_one_system_call() {
    let mut wake = Wake::new().unwrap();
    let wakers = [wake.waker(), wake.waker()];
    for _ in 0..1000 {
        wakers.iter().for_each(Waker::wake);
    }
    assert_eq!(wake.0.event.signals(), 1);
    wake.wait(None, Some(Duration::ZERO)).unwrap();
    wakers[0].wake();
    assert_eq!(wake.0.event.signals(), 1, "the sleeper has looked, and must look again");
}

#[test]
fn a_sleep_ends_by_a_wake_up_an_edge_the_host_or_in_time() {
    let mut wake = Wake::new().unwrap();
    let (edge, (host, mut peer)) = (kick(), UnixStream::pair().unwrap());
    wake.watch(edge.as_fd()).unwrap();
    wake.waker().wake();
    wake.wait(Some(host.as_fd()), LONG).unwrap();
    signal(&edge);
    wake.wait(Some(host.as_fd()), LONG).unwrap();
    peer.write_all(b"x").unwrap();
    wake.wait(Some(host.as_fd()), None).unwrap();
    (&host).read_exact(&mut [0]).unwrap();
    assert!(sleeps(&mut wake), "something was left over");
}

#[test]
fn a_host_descriptor_ends_every_sleep_while_it_is_readable_and_none_where_it_is_left_out() {
    let mut wake = Wake::new().unwrap();
    let (host, mut peer) = UnixStream::pair().unwrap();
    peer.write_all(b"x").unwrap();
    for _ in 0..3 {
        wake.wait(Some(host.as_fd()), None).unwrap();
    }
    assert!(sleeps(&mut wake));
}

#[test]
fn each_edge_of_a_watched_descriptor_ends_one_sleep_and_none_is_read() {
    let (mut wake, kick) = (Wake::new().unwrap(), kick());
    wake.watch(kick.as_fd()).unwrap();
    for _ in 0..3 {
        signal(&kick);
        wake.wait(None, None).unwrap();
    }
    let mut count = [0; 8];
    let waker = wake.waker();
    let (woken, heard) = mpsc::channel();
    let sleeper = thread::spawn(move || {
        wake.wait(None, None).unwrap();
        woken.send(()).unwrap();
    });
    assert!(heard.recv_timeout(SOON.unwrap()).is_err(), "woken by nothing");
    waker.wake();
    heard.recv_timeout(LONG.unwrap()).unwrap();
    sleeper.join().unwrap();
    rustix::io::read(&kick, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 3);
}

#[test]
fn a_descriptor_that_is_watched_twice_ends_one_sleep() {
    let (mut wake, kick) = (Wake::new().unwrap(), kick());
    wake.watch(kick.as_fd()).unwrap();
    wake.watch(kick.as_fd()).unwrap();
    signal(&kick);
    wake.wait(None, LONG).unwrap();
    assert!(sleeps(&mut wake));
}

#[test]
fn a_descriptor_that_can_not_be_waited_for_is_refused() {
    let file = tempfile::tempfile().unwrap();
    let error = Wake::new().unwrap().watch(file.as_fd()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn a_timeout_is_not_rounded_to_milliseconds() {
    let mut wake = Wake::new().unwrap();
    let timeout = Duration::from_micros(100);
    let shortest = (0..100)
        .map(|_| {
            let begin = Instant::now();
            wake.wait(None, Some(timeout)).unwrap();
            begin.elapsed()
        })
        .min()
        .unwrap();
    assert!((timeout..Duration::from_millis(1)).contains(&shortest), "{shortest:?}");
}

#[test]
fn its_descriptor_is_readable_until_the_wake_up_is_taken() {
    let mut wake = Wake::new().unwrap();
    assert!(!is_readable(&wake));
    for _ in 0..2 {
        wake.waker().wake();
        assert!(is_readable(&wake));
        wake.wait(None, Some(Duration::ZERO)).unwrap();
        assert!(!is_readable(&wake));
    }
}
