//! The daemon's main loop: xenstore, which may be lost and come back, the operator's signals, and the end.

use std::{
    mem,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use backend_process::{Logging, Notify, Signals, chain};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tracing::{debug, error, info, warn};
use xen_store::Store;

use super::contact::{Connect, Contact, ContactError};
use crate::{
    backend::Backend,
    control::{Asked, Replies, Request, Server, StatusOf},
    handshake::{Handshake, Retries},
    launch::Launch,
};

/// Without xenstore, nobody tells of a guest's end.
const LIVENESS: Duration = Duration::from_secs(5);
/// How long the devices' figures are waited for.
const FIGURES: Duration = Duration::from_secs(1);

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
    /// End. The processes of guests go on, and are taken over by the next supervisor.
    pub stop: Signals,
    /// Log and write what each device has done.
    pub report: Signals,
    /// Have each device look at what it stands on, as its image's size.
    pub resize: Signals,
}

/// Where the devices' figures are written at intervals.
pub trait Metrics<B: Backend> {
    /// How long it isn't due yet.
    fn wait(&self) -> Duration;

    /// Writes them now.
    fn write(&mut self, status: &StatusOf<B>);
}

/// What the daemon does beside serving.
pub struct Extras<B: Backend> {
    /// The devices' figures.
    pub metrics: Option<Box<dyn Metrics<B> + Send>>,
    /// Who is told of start and end, and that this loop goes round.
    pub notify: Notify,
    /// Where operators are heard ([`control`](crate::control)): below this run directory, which nobody else uses.
    pub control: Option<PathBuf>,
}

impl<B: Backend> Default for Extras<B> {
    fn default() -> Self {
        Self { metrics: None, notify: Notify::default(), control: None }
    }
}

/// A handshake and what it needs to go on.
pub struct Daemon<S: Store, L: Launch, B: Backend> {
    handshake: Handshake<S, L, B>,
    connect: Connect<S>,
    link: Link<S>,
    retries: Retries<()>,
    orders: Orders,
    extras: Extras<B>,
    control: Option<Server<B>>,
    /// The devices were asked for their figures, which are taken as they are at this time in any case.
    figures: Option<Instant>,
    /// The metrics wait for them.
    metrics_wanted: bool,
    /// Operators who wait for them.
    waiting: Vec<Replies<B>>,
    liveness: Instant,
}

/// The connection to xenstore.
enum Link<S> {
    Up,
    /// Tried again when [`Daemon::retries`] says so.
    Lost,
    Trying(Contact<S>),
}

/// The control socket. Without it guests are served all the same.
fn listen<B: Backend>(run_dir: &Path) -> Option<Server<B>> {
    Server::start(run_dir)
        .inspect_err(|error| {
            warn!(dir = %run_dir.display(), error = %chain(error), "there is no control socket, so operators can't ask this program anything: correct the error, and restart it");
        })
        .ok()
}

impl<S: Store, L: Launch, B: Backend> Daemon<S, L, B> {
    /// `connect` is how to reach xenstore anew.
    pub fn new(
        handshake: Handshake<S, L, B>,
        connect: Connect<S>,
        orders: Orders,
        extras: Extras<B>,
    ) -> Self {
        let control = extras.control.as_deref().and_then(listen);
        Self {
            handshake,
            connect,
            link: Link::Up,
            retries: Retries::new(),
            orders,
            extras,
            control,
            figures: None,
            metrics_wanted: false,
            waiting: Vec::new(),
            liveness: Instant::now(),
        }
    }

    /// Supervises until it is told to stop.
    ///
    /// # Errors
    /// Xenstore was lost and no guest is served, so that a fresh start costs nobody anything; or waiting failed.
    pub fn run(mut self) -> Result<(), DaemonError> {
        self.extras.notify.ready();
        loop {
            self.extras.notify.alive();
            self.follow_xenstore()?;
            let reported = self.orders.report.take() > 0;
            if reported {
                self.handshake.report();
            }
            if self.orders.resize.take() > 0 {
                self.handshake.refresh();
            }
            if self.orders.stop.take() > 0 {
                let guests = self.handshake.guests();
                self.extras.notify.stopping(&format!("leaves {guests} guests to the next start"));
                info!(
                    guests,
                    "told to stop: the processes of guests serve on, and are taken over when this program is started again"
                );
                return Ok(());
            }
            self.answer_operators();
            self.follow_figures(reported);
            self.wait()?;
        }
    }

    /// Takes what operators ask by the control socket.
    fn answer_operators(&mut self) {
        let Some(control) = &mut self.control else { return };
        for Asked { request, replies } in control.take() {
            match request {
                Request::Status => self.waiting.push(replies),
                Request::Order(id, order) => self.handshake.order(id, order, replies),
                Request::LogFilter(filter) => {
                    let set = Logging::set_filter(&filter);
                    if set.is_ok() {
                        self.handshake.set_log_filter(&filter);
                        info!(filter, "the log has another filter, as an operator wants");
                    }
                    replies.done(set.map(|()| filter).map_err(|error| chain(&error).to_string()));
                }
            }
        }
    }

    /// Gathers the devices' figures when the metrics are due, or `now`, or an operator waits for them; and passes them on
    /// when they are there.
    fn follow_figures(&mut self, now: bool) {
        let due =
            self.extras.metrics.as_ref().is_some_and(|metrics| now || metrics.wait().is_zero());
        self.metrics_wanted |= due;
        if self.figures.is_none() && (self.metrics_wanted || !self.waiting.is_empty()) {
            self.handshake.ask_figures();
            self.figures = Some(Instant::now() + FIGURES);
        }
        let Some(latest) = self.figures else { return };
        if !self.handshake.has_figures() && latest > Instant::now() {
            return;
        }
        self.figures = None;
        let status = self.handshake.status();
        if mem::take(&mut self.metrics_wanted)
            && let Some(metrics) = &mut self.extras.metrics
        {
            metrics.write(&status);
        }
        for replies in self.waiting.drain(..) {
            replies.send_status(&status);
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
                Err(error) if self.handshake.guests() == 0 => {
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
            match (self.figures, &self.extras.metrics) {
                (Some(latest), _) => Some(latest.saturating_duration_since(now)),
                (None, metrics) => metrics.as_ref().map(|metrics| metrics.wait()),
            },
            self.extras.notify.wait(),
            self.handshake.wait().filter(|_| connected),
            self.retries.wait(now).filter(|_| matches!(self.link, Link::Lost)),
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
            .chain([self.handshake.events()])
            .chain(self.control.as_ref().map(AsFd::as_fd));
        let mut fds: Vec<_> = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(DaemonError::Poll(error.into())),
        }
    }
}
