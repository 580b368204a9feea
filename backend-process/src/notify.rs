//! What the service manager is told (sd_notify(3)).

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    process,
    time::{Duration, Instant},
};

use crate::chain;
use tracing::debug;

/// The service manager, if there is one and it wants to be told.
#[derive(Debug, Default)]
pub struct Notify {
    socket: Option<OsString>,
    watchdog: Option<Watchdog>,
}

/// When the service manager is next told that the program lives.
#[derive(Debug)]
struct Watchdog {
    interval: Duration,
    due: Instant,
}

impl Notify {
    /// The one that the environment names (`NOTIFY_SOCKET`), with the watchdog that it has for this process
    /// (`WATCHDOG_USEC`, `WATCHDOG_PID`; sd_watchdog_enabled(3)).
    pub fn from_env() -> Self {
        let limit = watchdog_limit(|name| env::var(name).ok(), process::id());
        let notify = Self { socket: env::var_os("NOTIFY_SOCKET"), watchdog: None };
        match limit {
            Some(limit) => notify.with_watchdog(limit),
            None => notify,
        }
    }

    /// The one that listens at `socket`.
    pub fn at(socket: &OsStr) -> Self {
        Self { socket: Some(socket.to_owned()), watchdog: None }
    }

    /// It takes the program for hung when it hasn't heard of it for `limit`. It is told twice in that time.
    pub fn with_watchdog(self, limit: Duration) -> Self {
        Self { watchdog: Some(Watchdog { interval: limit / 2, due: Instant::now() }), ..self }
    }

    /// The program's main loop goes round. Call this in the loop itself, not on a thread of its own: that thread would
    /// go on when the loop hangs. It sends no more than the watchdog needs.
    pub fn alive(&mut self) {
        let now = Instant::now();
        let Some(watchdog) = self.watchdog.as_mut().filter(|watchdog| watchdog.due <= now) else {
            return;
        };
        watchdog.due = now + watchdog.interval;
        self.send("WATCHDOG=1");
    }

    /// How long the main loop may sleep before [`Self::alive`] is due; without end if there is no watchdog.
    pub fn wait(&self) -> Option<Duration> {
        let watchdog = self.watchdog.as_ref()?;
        Some(watchdog.due.saturating_duration_since(Instant::now()))
    }

    /// Whoever comes from now on is served.
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Nobody else is served; `status` says what is waited for.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={status}"));
    }

    fn send(&self, state: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = send(socket, state) {
            debug!(?socket, error = %chain(&error), "can't write to the service manager's NOTIFY_SOCKET");
        }
    }
}

/// After what time without a word process `pid` is taken for hung, by the variables of its environment.
fn watchdog_limit(var: impl Fn(&str) -> Option<String>, pid: u32) -> Option<Duration> {
    // Inherited by a child that it isn't meant for.
    if var("WATCHDOG_PID").is_some_and(|whose| whose.parse() != Ok(pid)) {
        return None;
    }
    let limit = var("WATCHDOG_USEC")?.parse().ok().filter(|&limit| limit > 0)?;
    Some(Duration::from_micros(limit))
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        path => SocketAddr::from_pathname(OsStr::from_bytes(path))?,
    };
    let datagram = UnixDatagram::unbound()?;
    // A manager that doesn't read must not stop this.
    datagram.set_nonblocking(true)?;
    datagram.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_manager_hears_of_the_start_and_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("backend-process-test-{}", std::process::id());
        let listeners = [
            (path.clone().into_os_string(), UnixDatagram::bind(&path).unwrap()),
            (
                OsString::from(format!("@{name}")),
                UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            ),
        ];
        for (socket, listener) in listeners {
            let notify = Notify::at(&socket);
            notify.ready();
            notify.stopping("waits for 2 guests");
            let mut text = [0; 64];
            let len = listener.recv(&mut text).unwrap();
            assert_eq!(&text[..len], b"READY=1");
            let len = listener.recv(&mut text).unwrap();
            assert_eq!(&text[..len], b"STOPPING=1\nSTATUS=waits for 2 guests");
        }
        // Neither no manager nor one that is gone is an error.
        Notify::default().ready();
        Notify::at(OsStr::new("/nowhere/notify")).ready();
    }

    #[test]
    fn the_watchdog_is_told_twice_in_its_time_however_often_the_loop_goes_round() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let heard = || {
            let mut text = [0; 64];
            let texts = std::iter::from_fn(|| {
                listener.recv(&mut text).ok().map(|len| text[..len].to_vec())
            });
            texts.inspect(|text| assert_eq!(text, b"WATCHDOG=1")).count()
        };
        let mut notify = Notify::at(path.as_os_str());
        assert_eq!(notify.wait(), None);
        notify.alive();
        assert_eq!(heard(), 0, "there is no watchdog");
        let mut notify = notify.with_watchdog(Duration::from_secs(3600));
        assert_eq!(notify.wait(), Some(Duration::ZERO));
        for _ in 0..3 {
            notify.alive();
        }
        assert_eq!(heard(), 1);
        let wait = notify.wait().unwrap();
        assert!(
            (Duration::from_secs(1700)..=Duration::from_secs(1800)).contains(&wait),
            "{wait:?}"
        );
        let mut notify = notify.with_watchdog(Duration::from_millis(2));
        for _ in 0..2 {
            notify.alive();
            std::thread::sleep(notify.wait().unwrap());
        }
        assert_eq!(heard(), 2);
    }

    #[test]
    fn a_watchdog_that_is_for_another_process_or_never_ends_is_none() {
        let limit = |usec: Option<&str>, pid: Option<&str>| {
            let var = |name: &str| match name {
                "WATCHDOG_USEC" => usec.map(str::to_owned),
                _ => pid.map(str::to_owned),
            };
            watchdog_limit(var, 42)
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(limit(Some("1000000"), Some("42")), second);
        assert_eq!(limit(Some("1000000"), None), second);
        for (usec, pid) in [
            (None, Some("42")),
            (Some("1000000"), Some("43")),
            (Some("0"), Some("42")),
            (Some("soon"), Some("42")),
            (Some("1000000"), Some("")),
        ] {
            assert_eq!(limit(usec, pid), None, "{usec:?} {pid:?}");
        }
    }
}
