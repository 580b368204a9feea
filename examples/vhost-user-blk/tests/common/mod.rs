//! The program as its users run it, and a frontend with a driver to talk to it.
#![allow(dead_code, unreachable_pub, reason = "each test uses some of it")]

pub mod driver;

use std::{
    fs::{self, File},
    io::Write,
    os::unix::{
        fs::FileExt,
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// Longer than anything here takes, on the slowest machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A running `vhost-user-blk`, which is killed when it takes too long.
pub struct Backend {
    pub dir: TempDir,
    child: Arc<Mutex<Child>>,
    manager: UnixDatagram,
}

impl Backend {
    /// Serves an image of `sectors` sectors, each of which holds its number's low byte.
    pub fn start(sectors: u64, options: &[&str]) -> Self {
        Self::limited(sectors, options, &[], None)
    }

    /// Likewise, with its log written to `log`.
    pub fn logging_to(log: impl Into<Stdio>) -> Self {
        Self::limited(64, &[], &[], Some(log.into()))
    }

    /// Likewise, under limits as options of `prlimit`.
    pub fn limited(sectors: u64, options: &[&str], limits: &[&str], log: Option<Stdio>) -> Self {
        let backend = Self::spawn(sectors, options, limits, log);
        backend.connect();
        backend
    }

    /// Likewise; `None` if it can't start under these limits.
    pub fn try_limited(sectors: u64, options: &[&str], limits: &[&str]) -> Option<Self> {
        let backend = Self::spawn(sectors, options, limits, None);
        while UnixStream::connect(backend.socket()).is_err() {
            if !backend.lives() {
                return None;
            }
            thread::sleep(Duration::from_millis(2));
        }
        Some(backend)
    }

    fn spawn(sectors: u64, options: &[&str], limits: &[&str], log: Option<Stdio>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut image = File::create(dir.path().join("image")).expect("an image");
        for sector in 0..sectors {
            image.write_all(&[sector as u8; 512]).expect("its content");
        }
        let log =
            log.unwrap_or_else(|| File::create(dir.path().join("log")).expect("a log").into());
        let manager = UnixDatagram::bind(dir.path().join("notify")).expect("a socket");
        let child = Command::new("prlimit")
            .args(limits)
            .args(["--", env!("CARGO_BIN_EXE_vhost-user-blk")])
            .args(["--socket", "socket", "--image", "image"])
            .args(options)
            .current_dir(dir.path())
            .env("NOTIFY_SOCKET", dir.path().join("notify"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the program");
        let child = Arc::new(Mutex::new(child));
        let watched = Arc::downgrade(&child);
        thread::spawn(move || {
            thread::sleep(PATIENCE);
            if let Some(child) = watched.upgrade() {
                let _ = child.lock().expect("no panic").kill();
            }
        });
        Self { dir, child, manager }
    }

    pub fn lives(&self) -> bool {
        self.child.lock().expect("no panic").try_wait().expect("its status").is_none()
    }

    /// The next that the service manager is told.
    pub fn told(&self) -> String {
        self.manager.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let mut text = [0; 256];
        let len = self.manager.recv(&mut text).expect("a word to the service manager");
        String::from_utf8_lossy(&text[..len]).into_owned()
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// A connection that says nothing yet.
    pub fn connect(&self) -> UnixStream {
        let start = Instant::now();
        loop {
            match UnixStream::connect(self.socket()) {
                Ok(stream) => return stream,
                Err(error) if start.elapsed() > PATIENCE => {
                    panic!("{error}; the program said:\n{}", self.log())
                }
                Err(_) => thread::sleep(Duration::from_millis(2)),
            }
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Waits until the log has `text` so many times.
    pub fn logs(&self, text: &str, times: usize) {
        let start = Instant::now();
        while self.log().matches(text).count() < times {
            assert!(start.elapsed() < PATIENCE, "no {text:?} in:\n{}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn sector(&self, number: u64) -> [u8; 512] {
        let mut data = [0; 512];
        let image = File::open(self.dir.path().join("image")).expect("the image");
        image.read_exact_at(&mut data, number * 512).expect("its sector");
        data
    }

    /// Gives the image another length.
    pub fn truncate(&self, len: u64) {
        let image = File::options().write(true).open(self.dir.path().join("image"));
        image.and_then(|image| image.set_len(len)).expect("another length");
    }

    /// Sends SIGTERM, and gives whether it ended well.
    pub fn terminate(&self) -> bool {
        self.signal();
        self.ends().is_some_and(|status| status.success())
    }

    /// Sends SIGTERM.
    pub fn signal(&self) {
        let pid = self.child.lock().expect("no panic").id().to_string();
        assert!(Command::new("kill").arg(&pid).status().expect("kill").success());
    }

    /// Waits for its end, for as long as anything here takes.
    pub fn ends(&self) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let status = self.child.lock().expect("no panic").try_wait().expect("its status");
            if status.is_some() {
                return status;
            }
            thread::sleep(Duration::from_millis(2));
        }
        None
    }

    pub fn has_left(&self) -> bool {
        !Path::exists(&self.socket())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let mut child = self.child.lock().expect("no panic");
        let _ = child.kill();
        let _ = child.wait();
    }
}
