//! The guests that are served.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use backend_process::chain;
use tracing::{error, info, warn};
use xen_ioreq::{DeviceModel, DomId, Error, Liveness, Operation, ServerId};

use super::event::EventSender;
use super::guest::Guest;
use super::refusal::{AttachError, ended};
use crate::{
    backend::Backend,
    guest::{Command, CommandOf, End, GuestError, GuestOptions, MapBudget},
    launch::{Earlier, Launch, Launched},
    node::Sharing,
    process::GuestKey,
    transport_kind::TransportKind,
};

/// How long a process that was started in the place of another one has to last, if it is to be replaced too.
const TRIAL: Duration = Duration::from_secs(60);

/// The processes of every guest that has, or had, a device here. A process is started for the guest's first device and
/// stays until the domain ends, even when its devices are closed before: an access to their windows that nobody answers
/// would be an external abort in the guest.
pub(super) struct Guests<L: Launch, B: Backend> {
    launch: L,
    /// For each guest.
    budget: MapBudget,
    events: EventSender<B>,
    guests: BTreeMap<GuestKey, Served<L::Model, B>>,
    /// Those that were asked for figures and have not given all.
    asked: Vec<GuestKey>,
    /// Processes that have ended before their guests, and why.
    lost: BTreeMap<GuestKey, String>,
}

struct Served<M: DeviceModel, B: Backend> {
    process: Guest<B>,
    model: Arc<M>,
    /// Made before it was started.
    server: ServerId,
    stage: Stage,
    /// Its server may have windows.
    has_windows: bool,
    /// Since when it is in the place of one that was killed.
    replaces: Option<Instant>,
}

/// What is known of a process.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Which devices it has.
    Serving,
    /// An earlier supervisor has started it, and it is to say which devices it has.
    Joining,
    /// It is of another version, and serves its guest to the end.
    OtherVersion,
    /// It was told to end, and has not yet.
    Ending,
}

/// What could not be asked says nothing of the guest.
fn is_alive<M: DeviceModel>(model: &Arc<M>, server: ServerId) -> bool {
    !matches!(Liveness::new(Arc::clone(model), server).is_alive(), Ok(false))
}

impl<M: DeviceModel, B: Backend> Served<M, B> {
    /// Whether it takes what is asked of all.
    fn is_told(&self) -> bool {
        [Stage::Serving, Stage::Joining].contains(&self.stage)
    }

    fn is_alive(&self) -> bool {
        is_alive(&self.model, self.server)
    }
}

impl<L: Launch, B: Backend> Guests<L, B> {
    /// What guests have to tell goes to `events`. Those that an earlier supervisor has served join; of those whose
    /// processes have ended meanwhile, others take the places.
    pub(super) fn new(launch: L, budget: MapBudget, events: EventSender<B>, backend: &B) -> Self {
        let (guests, asked, lost) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        let mut guests = Self { launch, budget, events, guests, asked, lost };
        let mut ended = Vec::new();
        for Earlier { key, server, launched } in guests.launch.earlier() {
            let Some(launched) = launched else {
                ended.push((key, server));
                continue;
            };
            info!(domid = key.domid, sharing = %key.sharing, pid = launched.process.pid(), "an earlier supervisor has left this guest's process: taking it over");
            let joined = guests.launch.model(key.domid);
            if let Err(error) =
                joined.and_then(|model| guests.add(key, model, server, launched, Stage::Joining))
            {
                warn!(%key, error = %chain(&error), "the process of a guest can't be taken over: it serves its guest on, and ends with it");
            }
        }
        // Those for grants first: one in the place of another gets its key if it isn't another's.
        ended.sort_by_key(|(key, _)| Reverse(*key));
        ended.into_iter().for_each(|(key, server)| guests.ended_before(key, server, backend));
        guests
    }

    fn add(
        &mut self,
        key: GuestKey,
        model: Arc<L::Model>,
        server: ServerId,
        launched: Launched,
        stage: Stage,
    ) -> io::Result<()> {
        let process = Guest::start(key, launched, self.events.clone())?;
        let (has_windows, replaces) = (stage != Stage::Serving, None);
        let served = Served { process, model, server, stage, has_windows, replaces };
        self.guests.insert(key, served);
        Ok(())
    }

    /// Asks something of each process, and of one that joins as soon as it has.
    pub(super) fn tell_all(&self, command: &CommandOf<B>) {
        let told = self.guests.values().filter(|served| served.is_told());
        told.for_each(|served| served.process.send(command));
    }

    /// Each process that takes commands.
    pub(super) fn iter(&self) -> impl Iterator<Item = (GuestKey, &Guest<B>)> {
        let serving = self.guests.iter().filter(|(_, served)| served.stage == Stage::Serving);
        serving.map(|(key, served)| (*key, &served.process))
    }

    /// Asks something of a process, if it takes commands.
    pub(super) fn send(&self, key: GuestKey, command: &CommandOf<B>) {
        if let Some(served) = self.guests.get(&key).filter(|its| its.stage == Stage::Serving) {
            served.process.send(command);
        }
    }

    /// Each process of one guest that takes commands.
    pub(super) fn of(&self, domid: DomId) -> impl Iterator<Item = (GuestKey, &Guest<B>)> {
        self.iter().filter(move |(key, _)| key.domid == domid)
    }

    /// How many guests need what serves them.
    pub(super) fn count(&self) -> usize {
        let needed = self.guests.iter().filter(|(_, served)| served.stage != Stage::Ending);
        let mut domids: Vec<_> = needed.map(|(key, _)| key.domid).collect();
        domids.dedup();
        domids.len()
    }

    /// Whether a process has devices of the guest that aren't known.
    pub(super) fn is_unknown(&self, domid: DomId) -> bool {
        let unknown = [Stage::Joining, Stage::OtherVersion];
        self.guests.iter().any(|(key, its)| key.domid == domid && unknown.contains(&its.stage))
    }

    /// Whether there are processes that are to say what they have, or were told to end and have not yet.
    pub(super) fn are_waited_for(&self) -> bool {
        let waited = [Stage::Joining, Stage::Ending];
        self.guests.values().any(|served| waited.contains(&served.stage))
    }

    /// The process for such devices of a guest. It is started if there is none yet.
    pub(super) fn take_on(
        &mut self,
        key: GuestKey,
        transport: TransportKind,
        backend: &B,
    ) -> Result<&Guest<B>, AttachError> {
        let domid = key.domid;
        if !self.guests.contains_key(&key) {
            let opened = self.launch.model(domid);
            let model = opened.map_err(|source| GuestError::Open { domid, source })?;
            let server = model
                .create_ioreq_server()
                .map_err(|source| Error::DeviceModel {
                    domid,
                    operation: Operation::Create,
                    source,
                })
                .map_err(GuestError::from)?;
            self.lost.remove(&key);
            if let Err(error) = self.start(key, Arc::clone(&model), server, transport, backend) {
                // Nobody has use for it.
                let _ = model.destroy_ioreq_server(server);
                return Err(error);
            }
        }
        match self.guests.get(&key) {
            Some(Served { process, stage: Stage::Serving, .. }) => Ok(process),
            _ => Err(AttachError::Ending { domid }),
        }
    }

    /// The process that answers the windows of a guest's devices that are not served: one that there is, or else one
    /// that can't map the guest's memory.
    pub(super) fn take_on_any(
        &mut self,
        domid: DomId,
        transport: TransportKind,
        backend: &B,
    ) -> Result<&Guest<B>, AttachError> {
        let there = self.of(domid).next().map(|(key, _)| key);
        let key = there.unwrap_or(GuestKey { domid, sharing: Sharing::Grant });
        self.take_on(key, transport, backend)
    }

    /// A process has said which devices it has. True if it has joined by that.
    pub(super) fn greeted(&mut self, key: GuestKey) -> bool {
        let Some(served) = self.guests.get_mut(&key) else { return false };
        // It does next what it is asked.
        served.has_windows = true;
        let joins = served.stage == Stage::Joining;
        if joins {
            served.stage = Stage::Serving;
        }
        joins
    }

    /// A process is of another version.
    pub(super) fn is_of_other_version(&mut self, key: GuestKey) {
        if let Some(served) = self.guests.get_mut(&key) {
            served.stage = Stage::OtherVersion;
        }
        self.gave_figures(key);
    }

    /// The number of a process.
    pub(super) fn pid(&self, key: GuestKey) -> Option<u32> {
        self.guests.get(&key)?.process.pid()
    }

    /// The guests of processes that are of another version.
    pub(super) fn of_other_versions(&self) -> Vec<DomId> {
        let their = self.guests.iter().filter(|(_, its)| its.stage == Stage::OtherVersion);
        their.map(|(key, _)| key.domid).collect()
    }

    /// What the log of each process contains from now on, and of each that is started.
    pub(super) fn set_log_filter(&mut self, filter: &str) {
        self.launch.set_log_filter(filter);
        self.tell_all(&Command::LogFilter(filter.to_owned()));
    }

    /// Whether a guest is served and lives.
    pub(super) fn is_alive(&self, domid: DomId) -> bool {
        let mut its = self.guests.iter().filter(|(key, _)| key.domid == domid);
        its.any(|(_, served)| served.stage != Stage::Ending && served.is_alive())
    }

    /// Has those end whose domains have ended; which they are. `@releaseDomain` names no domain, so every guest is
    /// asked.
    pub(super) fn release_dead(&mut self) -> Vec<GuestKey> {
        let mut dead = Vec::new();
        for (key, served) in &mut self.guests {
            // One that joins is asked when it has.
            if served.stage == Stage::Serving && !served.is_alive() {
                info!(domid = key.domid, sharing = %key.sharing, "the guest has ended");
                served.process.send(&Command::Stop);
                served.stage = Stage::Ending;
                dead.push(*key);
            }
        }
        dead
    }

    /// A process has ended. Why, if its guest lives and nobody had told it to.
    pub(super) fn ended(&mut self, key: GuestKey, end: End, backend: &B) -> Option<String> {
        self.asked.retain(|asked| *asked != key);
        let served = self.guests.remove(&key)?;
        if served.stage == Stage::Ending || !served.is_alive() {
            self.launch.forget(key);
            return None;
        }
        let Served { model, server, .. } = &served;
        // One that was killed may have claimed some before it was heard.
        if matches!(end, End::Failed(_)) && !served.has_windows {
            let _ = model.destroy_ioreq_server(*server);
            self.launch.forget(key);
        } else {
            self.replace(key, Arc::clone(model), *server, served.replaces, backend);
        }
        let reason = end.reason();
        self.lost.insert(key, reason.clone());
        Some(reason)
    }

    /// The process of a guest has ended while there was no supervisor.
    fn ended_before(&mut self, key: GuestKey, server: ServerId, backend: &B) {
        let domid = key.domid;
        let model = match self.launch.model(domid) {
            Ok(model) => model,
            Err(error) => {
                warn!(%key, error = %chain(&error), "the process of a guest has ended while no supervisor ran, and it isn't known whether the guest still runs, as it can't be asked of Xen: if it does, `xl destroy` it");
                return;
            }
        };
        let is_taken =
            self.guests.iter().any(|(its, served)| its.domid == domid && served.server == server);
        if is_taken || !is_alive(&model, server) {
            self.launch.forget(key);
            return;
        }
        let reason = "it has ended while no supervisor ran, so that the cause is not known";
        error!(domid, sharing = %key.sharing, "{}", ended(reason));
        self.replace(key, model, server, None, backend);
        self.lost.insert(key, reason.to_owned());
    }

    /// Why the process that has served such devices of a guest has ended before the guest, if it has.
    pub(super) fn lost(&self, key: GuestKey) -> Option<&str> {
        self.lost.get(&key).map(String::as_str)
    }

    /// Has another process answer for one that was killed: its IOREQ server is still there, and the guest's vCPUs wait
    /// for its answers.
    fn replace(
        &mut self,
        killed: GuestKey,
        model: Arc<L::Model>,
        server: ServerId,
        replaced: Option<Instant>,
        backend: &B,
    ) {
        let domid = killed.domid;
        let lasted = replaced.is_none_or(|since| since.elapsed() >= TRIAL);
        let started = if lasted {
            // One that can't map the guest's memory, if there is none yet.
            let grants = GuestKey { domid, sharing: Sharing::Grant };
            let key = if self.guests.contains_key(&grants) { killed } else { grants };
            // What was on its bus is answered as the windows are: as nothing.
            self.start(key, Arc::clone(&model), server, TransportKind::Mmio, backend).map(|()| key)
        } else {
            Err(AttachError::Replaced { domid, seconds: TRIAL.as_secs() })
        };
        match started {
            Ok(key) => {
                if let Some(served) = self.guests.get_mut(&key) {
                    served.replaces = Some(Instant::now());
                    served.has_windows = true;
                }
                info!(%key, "another process answers the guest's accesses to the devices that the one that has ended has served");
                if key == killed {
                    return;
                }
            }
            Err(error) => {
                error!(domid, error = %chain(&error), "accesses of the guest to the devices that its process has served are not answered, and its kernel may panic on one: `xl destroy` and `xl create` it");
                // The guest's vCPUs would wait without end. An abort says what is wrong.
                let _ = model.destroy_ioreq_server(server);
            }
        }
        self.launch.forget(killed);
    }

    /// Starts a process that takes over this server.
    fn start(
        &mut self,
        key: GuestKey,
        model: Arc<L::Model>,
        server: ServerId,
        transport: TransportKind,
        backend: &B,
    ) -> Result<(), AttachError> {
        let options = GuestOptions { map_budget: self.budget, transport };
        let launched = self.launch.launch(key, options, server, backend)?;
        self.add(key, model, server, launched, Stage::Serving).map_err(|source| {
            self.launch.forget(key);
            AttachError::Link { domid: key.domid, source }
        })
    }

    /// Asks each for the figures of its devices.
    pub(super) fn ask_figures(&mut self) {
        for (key, served) in self.guests.iter().filter(|(_, served)| served.is_told()) {
            if !self.asked.contains(key) {
                served.process.send(&Command::Figures);
                self.asked.push(*key);
            }
        }
    }

    /// One has given all.
    pub(super) fn gave_figures(&mut self, key: GuestKey) {
        self.asked.retain(|asked| *asked != key);
    }

    /// Whether all have.
    pub(super) fn have_given_figures(&self) -> bool {
        self.asked.is_empty()
    }
}
