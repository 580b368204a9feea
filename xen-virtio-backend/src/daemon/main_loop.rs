//! The daemon's main loop: xenstore, which may be lost and come back, the operator's signals, and the end.

use std::{
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

use backend_process::{Notify, Signals, chain};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tracing::{debug, error, info, warn};
use xen_store::Store;

use super::contact::{Connect, Contact, ContactError};
use crate::{
    backend::Backend,
    handshake::{Handshake, Retries},
    host::Host,
};

/// Without xenstore, nobody tells of a guest's end.
const LIVENESS: Duration = Duration::from_secs(5);

/// Why the daemon ends though it was not told to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DaemonError {
    /// Xenstore can't be had again, and no guest needs this process.
    #[error(
        "the connection to xenstored was lost, and no guest is served: start this program again when xenstored runs"
    )]
    Lost(#[source] ContactError),
    /// The main thread can't wait for events.
    #[error("can't wait for events")]
    Poll(#[from] std::io::Error),
}

/// What an operator tells the daemon.
#[derive(Debug)]
pub struct Orders {
    /// The first: refuse new devices, and end when the last guest has. The second: end.
    pub stop: Signals,
    /// Log and write what each device has done.
    pub report: Signals,
    /// Have each device look at what it stands on, as its image's size.
    pub resize: Signals,
}

/// Where the devices' figures are written at intervals.
pub trait Metrics<F> {
    /// How long it isn't due yet.
    fn wait(&self) -> Duration;

    /// Writes them now.
    fn write(&mut self, figures: &[Arc<F>]);
}

/// What the daemon does beside serving.
pub struct Extras<F> {
    /// The devices' figures.
    pub metrics: Option<Box<dyn Metrics<F> + Send>>,
    /// How long the end of guests is waited for after the first order to stop; without end if there is none.
    pub stop_timeout: Option<Duration>,
    /// Who is told of start and end, and that this loop goes round.
    pub notify: Notify,
}

impl<F> Default for Extras<F> {
    fn default() -> Self {
        Self { metrics: None, stop_timeout: None, notify: Notify::default() }
    }
}

/// A handshake and what it needs to go on.
pub struct Daemon<S: Store, H: Host, B: Backend> {
    handshake: Handshake<S, H, B>,
    connect: Connect<S>,
    link: Link<S>,
    retries: Retries<()>,
    orders: Orders,
    extras: Extras<B::Figures>,
    /// The order to stop has come; at this time it ends in any case.
    stopping: Option<Option<Instant>>,
    liveness: Instant,
}

/// The connection to xenstore.
enum Link<S> {
    Up,
    /// Tried again when [`Daemon::retries`] says so.
    Lost,
    Trying(Contact<S>),
}

impl<S: Store, H: Host, B: Backend> Daemon<S, H, B> {
    /// `connect` is how to reach xenstore anew.
    pub fn new(
        handshake: Handshake<S, H, B>,
        connect: Connect<S>,
        orders: Orders,
        extras: Extras<B::Figures>,
    ) -> Self {
        Self {
            handshake,
            connect,
            link: Link::Up,
            retries: Retries::new(),
            orders,
            extras,
            stopping: None,
            liveness: Instant::now(),
        }
    }

    /// Serves until it was told to stop and no guest is served any more, or was told twice.
    ///
    /// # Errors
    /// Xenstore was lost and no guest is served, so that a fresh start costs nobody anything; or waiting failed.
    pub fn run(mut self) -> Result<(), DaemonError> {
        self.extras.notify.ready();
        loop {
            self.extras.notify.alive();
            self.follow_xenstore()?;
            if let Some(deadline) = self.stopping {
                if self.handshake.guests() == 0 {
                    info!("no guest is served any more: ending");
                    return Ok(());
                }
                if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                    warn!(
                        guests = self.handshake.guests(),
                        "the time that --stop-timeout gives the guests is over: ending now"
                    );
                    self.handshake.abandon();
                    return Ok(());
                }
            }
            self.wait()?;
            let reported = self.orders.report.take() > 0;
            if reported {
                self.handshake.report();
            }
            if let Some(metrics) = &mut self.extras.metrics
                && (reported || metrics.wait().is_zero())
            {
                metrics.write(&self.handshake.figures());
            }
            if self.orders.resize.take() > 0 {
                self.handshake.refresh();
            }
            for _ in 0..self.orders.stop.take() {
                if self.stopping.is_some() {
                    warn!(
                        guests = self.handshake.guests(),
                        "told to stop a second time: ending now"
                    );
                    self.handshake.abandon();
                    return Ok(());
                }
                self.begin_to_stop();
            }
        }
    }

    fn begin_to_stop(&mut self) {
        self.stopping = Some(self.extras.stop_timeout.map(|timeout| Instant::now() + timeout));
        let guests = self.handshake.begin_to_stop();
        let status = format!("refuses new devices, and waits for {guests} guests to end");
        self.extras.notify.stopping(&status);
        if guests > 0 {
            info!(
                guests,
                timeout_s = self.extras.stop_timeout.map(|timeout| timeout.as_secs()),
                "told to stop: new devices are refused, and this program ends when the guests that it serves have; a \
                 second signal ends it at once, and they lose their devices"
            );
        } else {
            info!("told to stop");
        }
    }

    /// Takes in what xenstore has to tell, or tries to reach it again.
    fn follow_xenstore(&mut self) -> Result<(), DaemonError> {
        // Events may have been read along with an answer, so they come before the descriptor is asked.
        if matches!(self.link, Link::Up) {
            match self.handshake.handle_events() {
                Ok(()) => {}
                Err(error) => {
                    error!(error = %chain(&error), "the connection to xenstored is lost and tried again: devices that are served go on, new ones are not served; see `systemctl status xenstored`");
                    self.try_again();
                }
            }
        }
        if let Link::Trying(contact) = &self.link
            && let Some(result) = contact.take()
        {
            match result {
                Ok(store) => self.resume(store),
                Err(error) if self.handshake.guests() == 0 && self.stopping.is_none() => {
                    return Err(DaemonError::Lost(error));
                }
                Err(error) => {
                    debug!(error = %chain(&error), "xenstored still can't be reached");
                    self.link = Link::Lost;
                }
            }
        }
        if matches!(self.link, Link::Lost) && !self.retries.due(Instant::now()).is_empty() {
            self.try_again();
        }
        if self.watches_liveness() && self.liveness.elapsed() >= LIVENESS {
            self.liveness = Instant::now();
            self.handshake.release_dead();
        }
        if !matches!(self.link, Link::Up) {
            self.handshake.handle_ends();
        }
        Ok(())
    }

    fn try_again(&mut self) {
        self.retries.failed((), Instant::now());
        self.link = match Contact::begin(&self.connect) {
            Ok(contact) => Link::Trying(contact),
            Err(error) => {
                debug!(error = %chain(&error), "can't start to connect to xenstored");
                Link::Lost
            }
        };
    }

    fn resume(&mut self, store: S) {
        match self.handshake.reconnect(store) {
            Ok(()) => {
                info!("xenstored is reached again");
                self.retries.done(());
                self.link = Link::Up;
                // What comes next may be the first events, which were read along with an answer.
                self.liveness = Instant::now();
            }
            Err(error) => {
                debug!(error = %chain(&error), "xenstored still can't be reached");
                self.link = Link::Lost;
            }
        }
    }

    /// Whether guests may end without xenstore telling of it.
    fn watches_liveness(&self) -> bool {
        !matches!(self.link, Link::Up) || self.handshake.has_forgotten_guests()
    }

    /// Sleeps until there is something to do.
    fn wait(&self) -> Result<(), DaemonError> {
        let now = Instant::now();
        let connected = matches!(self.link, Link::Up);
        let timeouts = [
            self.extras.metrics.as_ref().map(|metrics| metrics.wait()),
            self.extras.notify.wait(),
            self.handshake.wait().filter(|_| connected),
            self.retries.wait(now).filter(|_| matches!(self.link, Link::Lost)),
            self.stopping.flatten().map(|deadline| deadline.saturating_duration_since(now)),
            self.watches_liveness().then(|| LIVENESS.saturating_sub(self.liveness.elapsed())),
        ];
        let timeout = timeouts.into_iter().flatten().min().map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let link = match &self.link {
            Link::Up => Some(self.handshake.store().as_fd()),
            Link::Trying(contact) => Some(contact.as_fd()),
            Link::Lost => None,
        };
        let own = [&self.orders.stop, &self.orders.report, &self.orders.resize];
        let fds = own
            .map(|signals| signals.as_fd())
            .into_iter()
            .chain(link)
            .chain([self.handshake.events()]);
        let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(DaemonError::Poll(error.into())),
        }
    }
}
