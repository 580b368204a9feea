//! The confined process, as the one that started it sees it.

use std::{
    env,
    fs::File,
    io::{self, Read, Seek},
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use virtio_blk_dev::{ImageFiles, RawImage};
use xen_virtio_blk::settings::DiskSettings;

use crate::channel::{Answer, Channel, Request, pair};

/// Tells the test's own program to be the confined process, with so many io_urings.
pub(crate) const RINGS: &str = "CONFINED_RINGS";

/// A process that is confined, and has been asked for nothing yet.
pub(crate) struct Process {
    child: Child,
    channel: Channel<OwnedFd>,
    log: File,
}

impl Process {
    pub(crate) fn start(rings: u16) -> Self {
        let (channel, other) = pair().expect("a pair of sockets");
        let log = tempfile::tempfile().expect("a file for the log");
        let mut command = Command::new(env::current_exe().expect("this program's path"));
        command.env(RINGS, rings.to_string()).stdin(other).stdout(Stdio::null());
        let child = command.stderr(log.try_clone().expect("a descriptor")).spawn();
        Self { child: child.expect("this program once more"), channel, log }
    }

    /// Passes an image's files on, and gives the disk's capacity.
    pub(crate) fn attach(&mut self, settings: &DiskSettings, files: ImageFiles) -> u64 {
        let (facts, fds) = files.into_parts();
        match self.ask(&Request::Attach(Box::new((settings.clone(), facts))), &fds) {
            Answer::Capacity(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn does(&mut self, request: &Request) {
        assert_eq!(self.ask(request, &[]), Answer::Done);
    }

    /// # Panics
    /// The process ended.
    pub(crate) fn ask(&mut self, request: &Request, fds: &[OwnedFd]) -> Answer {
        let sent = self.channel.send(request, fds);
        match sent.and_then(|()| self.channel.receive()) {
            Ok(Some((answer, _))) => answer,
            ended => panic!("{request:?}: {:?}\n{}", ended.err(), self.log()),
        }
    }

    /// Ends it, and makes sure that it made no system call that it may not. A path that was looked up
    /// without success is one, too.
    pub(crate) fn end(mut self) {
        drop(std::mem::replace(&mut self.channel, pair().expect("a pair of sockets").0));
        let status = self.child.wait().expect("its status");
        let log = self.log();
        assert!(status.success() && !log.contains("not allowed"), "{status}\n{log}");
        eprintln!("{log}");
    }

    fn log(&mut self) -> String {
        let mut log = String::new();
        let read = self.log.rewind().and_then(|()| self.log.read_to_string(&mut log));
        read.map_or_else(|error: io::Error| error.to_string(), |_| log)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until nobody has the image open, soon after its disk was detached.
pub(crate) fn wait_closed(path: &Path) {
    let begin = Instant::now();
    while let Err(error) = RawImage::open(path, false) {
        assert!(begin.elapsed() < Duration::from_secs(5), "{error}");
        thread::sleep(Duration::from_millis(10));
    }
}
