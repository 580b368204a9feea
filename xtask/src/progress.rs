//! One step at a time: what is being done, for how long, and how long it takes usually.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A running step; the clock is shown until it is dropped.
pub(crate) struct Step {
    name: String,
    started: Instant,
    stop: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Step {
    pub(crate) fn start(name: &str, expected: Duration) -> Self {
        let started = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        let expected = expected.max(Duration::from_secs(1));
        let text = format!("{name} … (expected {})", human(expected));
        if !terminal {
            eprintln!("  {text}");
        }
        let every = Duration::from_secs(if terminal { 1 } else { 60 });
        let (stop, stopped) = mpsc::channel();
        let label = name.to_owned();
        let clock = thread::spawn(move || {
            if terminal {
                eprint!("\r\x1b[K  {text}");
            }
            while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                let elapsed = human(started.elapsed());
                if terminal {
                    eprint!("\r\x1b[K  {text}, {elapsed} so far");
                    let _ = std::io::stderr().flush();
                } else {
                    eprintln!("  {label}: {elapsed} of about {}", human(expected));
                }
            }
            if terminal {
                eprint!("\r\x1b[K");
            }
        });
        Self { name: name.to_owned(), started, stop: Some((stop, clock)) }
    }

    /// Ends the step as done.
    pub(crate) fn done(mut self) -> Duration {
        self.end();
        let elapsed = self.started.elapsed();
        eprintln!("  {}: done in {}", self.name, human(elapsed));
        elapsed
    }

    fn end(&mut self) {
        if let Some((stop, clock)) = self.stop.take() {
            drop(stop);
            let _ = clock.join();
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.end();
    }
}

/// `4.2 s`, `48 s` or `5 min 30 s`.
pub(crate) fn human(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        seconds @ 10..120 => format!("{seconds} s"),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}
