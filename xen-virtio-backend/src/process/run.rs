//! The process of a guest, from its start to its end.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use backend_process::{chain, limits};
use rustix::{
    event::PollFlags,
    net::{SocketFlags, accept_with, listen},
};
use serde::Serialize;
use tracing::{error, info};
use virtio_worker::Wake;
use xen_ioreq::DomId;
use xen_virtio_sandbox::ThreadFilters;

use super::{
    conversation::Conversation,
    line::{Line, LineError, Parcel},
    socket::BACKLOG,
    start::{Confinement, GuestKey, Start},
    wait::{await_message, await_ready},
};
use crate::{
    backend::Backend,
    guest::{End, GuestError, GuestWake, Input, Message, MessageOf, Report, Reports, Service},
    host::Host,
};

/// How long the supervisor that has started the process may take to say for what.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Why the process of a guest ends before it serves the guest.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// Whoever has started it says nothing.
    #[error(
        "the process of a guest was not told which: it is started by the program's own supervisor"
    )]
    Unknown(#[source] LineError),
    /// A descriptor or a thread can't be had, or not be waited for.
    #[error("the process of a guest can't be started")]
    System(#[source] io::Error),
    /// The guest can't be served.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// The process can't be confined.
    #[error("{0}")]
    Confine(String),
}

/// Serves the guest that the first supervisor that connects to `listener` names, until it is told to stop or the guest
/// has ended. Before that, `confine` takes the process's privileges.
pub(crate) fn serve<B: Backend, H: Host>(
    listener: OwnedFd,
    host: &H,
    confine: impl FnOnce(GuestKey, Option<Confinement>) -> Result<ThreadFilters, String>,
) -> Result<(), StartError> {
    // Whoever connects finds this process as the one that listens (SO_PEERCRED), and not the one that made the socket.
    listen(&listener, BACKLOG).map_err(|error| StartError::System(error.into()))?;
    let mut line = Line::to_supervisor(first_connection(&listener)?);
    send(&mut line, &super::version::<B>());
    let (start, _): (Start<B::Setup>, _) =
        await_message(&mut line, FIRST_WORD).map_err(StartError::Unknown)?;
    match Prepared::<B, H>::new(start, host, confine) {
        Ok(prepared) => prepared.run(listener, line),
        Err(error) => {
            let text = chain(&error).to_string();
            let reason = match limits::advice(&error) {
                Some(advice) if !text.contains(&advice) => format!("{text}: {advice}"),
                _ => text,
            };
            let reason = End::Failed(reason);
            send::<MessageOf<B>>(&mut line, &Message::Ending(reason));
            Err(error)
        }
    }
}

/// Has a message sent now, if the supervisor takes it.
fn send<T: Serialize>(line: &mut Line, message: &T) {
    if let Ok(parcel) = Parcel::new(message, Vec::new()) {
        line.push(parcel);
        // What fails is found out when the next message is received.
        let _ = line.flush();
    }
}

fn first_connection(listener: &OwnedFd) -> Result<OwnedFd, StartError> {
    await_ready(listener.as_fd(), PollFlags::IN, FIRST_WORD).map_err(StartError::Unknown)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let accepted = accept_with(listener, flags);
    accepted.map_err(|error| StartError::Unknown(LineError::Io(error.into())))
}

/// What was made with the privileges that the process has no more.
struct Prepared<B: Backend, H: Host> {
    domid: DomId,
    service: Service<H, B>,
    /// What the guest's thread is woken by, and that which talks with supervisors.
    wake: GuestWake,
    supervisor_wake: Wake,
    inputs: Sender<Input<B>>,
    inbox: Receiver<Input<B>>,
    reports: Reports<B>,
    reported: Receiver<Report<B>>,
}

impl<B: Backend, H: Host> Prepared<B, H> {
    fn new(
        start: Start<B::Setup>,
        host: &H,
        confine: impl FnOnce(GuestKey, Option<Confinement>) -> Result<ThreadFilters, String>,
    ) -> Result<Self, StartError> {
        let supervisor_wake = Wake::new().map_err(StartError::System)?;
        let (reports, reported) = Reports::channel(supervisor_wake.waker());
        let Start { key, options, server, confinement, setup } = start;
        let GuestKey { domid, sharing } = key;
        let handles =
            host.open(domid, sharing).map_err(|source| GuestError::Open { domid, source })?;
        let shared = B::share(setup);
        let (inputs, inbox) = mpsc::channel();
        let wake = GuestWake::new(handles.bell.as_ref()).map_err(StartError::System)?;
        let way_in = (inputs.clone(), wake.waker());
        let mut service =
            Service::new(domid, handles, server, options, shared, way_in, reports.clone())?;
        service.confine(confine(key, confinement).map_err(StartError::Confine)?);
        Ok(Self { domid, service, wake, supervisor_wake, inputs, inbox, reports, reported })
    }

    fn run(self, listener: OwnedFd, line: Line) -> Result<(), StartError> {
        let Self { domid, service, wake, supervisor_wake, inputs, inbox, reports, reported } = self;
        let conversation = Conversation {
            listener,
            line: Some(line),
            supervisors: 1,
            is_greeted: false,
            wake: supervisor_wake,
            reports: reported,
            inputs,
            waker: wake.waker(),
        };
        let conversation = thread::Builder::new()
            .name("supervisor".into())
            .spawn(move || conversation.run())
            .map_err(StartError::System)?;
        let mut last = LastWord { domid, reports: Some(reports), end: None };
        last.end = Some(service.run(&inbox, wake));
        drop(last);
        if conversation.join().is_err() {
            error!(
                domid,
                "the thread that talks with the supervisor panicked: report this as a bug"
            );
        }
        info!(domid, "the process of the guest ends");
        Ok(())
    }
}

/// Tells of the end when everything is let go of, however that came.
struct LastWord<B: Backend> {
    domid: DomId,
    reports: Option<Reports<B>>,
    end: Option<End>,
}

impl<B: Backend> Drop for LastWord<B> {
    fn drop(&mut self) {
        let panicked = || {
            let domid = self.domid;
            error!(
                domid,
                "the guest's thread panicked, and the guest is no longer served: `xl destroy` and `xl create` it; report this as a bug"
            );
            End::Failed("its thread panicked: report this as a bug".to_owned())
        };
        let end = self.end.take().unwrap_or_else(panicked);
        if let Some(reports) = self.reports.take() {
            reports.send(Message::Ending(end));
        }
    }
}
