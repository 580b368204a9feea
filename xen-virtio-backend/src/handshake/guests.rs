//! The guests that are served.

use std::{
    collections::BTreeMap,
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use backend_process::chain;
use tracing::{error, info, warn};
use xen_ioreq::{DeviceModel, DomId, Liveness, ServerId};

use super::{event::EventSender, guest::Guest, refusal::AttachError};
use crate::{
    backend::Backend,
    guest::{Command, CommandOf, GuestError, MapBudget},
    launch::{Launch, Launched},
    node::Sharing,
    process::GuestKey,
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
}

struct Served<M: DeviceModel, B: Backend> {
    process: Guest<B>,
    model: Arc<M>,
    /// `None` as long as it isn't known.
    server: Option<ServerId>,
    stage: Stage,
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

impl<M: DeviceModel, B: Backend> Served<M, B> {
    /// What could not be asked says nothing of the guest.
    fn is_alive(&self) -> bool {
        let Some(server) = self.server else { return true };
        !matches!(Liveness::new(Arc::clone(&self.model), server).is_alive(), Ok(false))
    }
}

impl<L: Launch, B: Backend> Guests<L, B> {
    /// What guests have to tell goes to `events`. Those that an earlier supervisor has served join.
    pub(super) fn new(launch: L, budget: MapBudget, events: EventSender<B>) -> Self {
        let mut guests =
            Self { launch, budget, events, guests: BTreeMap::new(), asked: Vec::new() };
        for (key, launched) in guests.launch.running() {
            info!(domid = key.domid, sharing = %key.sharing, pid = launched.process.pid(), "an earlier supervisor has left this guest's process: taking it over");
            let joined = guests.launch.model(key.domid);
            if let Err(error) =
                joined.and_then(|model| guests.add(key, model, launched, Stage::Joining))
            {
                warn!(%key, error = %chain(&error), "the process of a guest can't be taken over: it serves its guest on, and ends with it");
            }
        }
        guests
    }

    fn add(
        &mut self,
        key: GuestKey,
        model: Arc<L::Model>,
        launched: Launched,
        stage: Stage,
    ) -> io::Result<()> {
        let process = Guest::start(key, launched, self.events.clone())?;
        self.guests.insert(key, Served { process, model, server: None, stage, replaces: None });
        Ok(())
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
    pub(super) fn take_on(&mut self, key: GuestKey, backend: &B) -> Result<&Guest<B>, AttachError> {
        let domid = key.domid;
        if !self.guests.contains_key(&key) {
            let opened = self.launch.model(domid);
            let model = opened.map_err(|source| GuestError::Open { domid, source })?;
            let launched = self.launch.launch::<B>(key, self.budget, None, backend.setup())?;
            self.add(key, model, launched, Stage::Serving)
                .map_err(|source| AttachError::Link { domid, source })?;
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
        backend: &B,
    ) -> Result<&Guest<B>, AttachError> {
        let there = self.of(domid).next().map(|(key, _)| key);
        self.take_on(there.unwrap_or(GuestKey { domid, sharing: Sharing::Grant }), backend)
    }

    /// A process has said which server it is. True if it has joined by that.
    pub(super) fn greeted(&mut self, key: GuestKey, server: ServerId) -> bool {
        let Some(served) = self.guests.get_mut(&key) else { return false };
        served.server = Some(server);
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
            let told = [Stage::Serving, Stage::Joining].contains(&served.stage);
            if told && !served.is_alive() {
                info!(domid = key.domid, sharing = %key.sharing, "the guest has ended");
                served.process.send(&Command::Stop);
                served.stage = Stage::Ending;
                dead.push(*key);
            }
        }
        dead
    }

    /// A process has ended. True if nobody had told it to.
    pub(super) fn ended(&mut self, key: GuestKey, backend: &B) -> bool {
        self.asked.retain(|asked| *asked != key);
        let Some(served) = self.guests.remove(&key) else { return false };
        let unexpected = served.stage != Stage::Ending;
        if unexpected && let Some(server) = served.server.filter(|_| served.is_alive()) {
            self.replace(key, &served, server, backend);
        }
        unexpected
    }

    /// Has another process answer for one that was killed: its IOREQ server is still there, and the guest's vCPUs wait
    /// for its answers.
    fn replace(
        &mut self,
        GuestKey { domid, sharing }: GuestKey,
        killed: &Served<L::Model, B>,
        server: ServerId,
        backend: &B,
    ) {
        let lasted = killed.replaces.is_none_or(|since| since.elapsed() >= TRIAL);
        let replaced = if lasted {
            // One that can't map the guest's memory, if there is none yet.
            let grants = GuestKey { domid, sharing: Sharing::Grant };
            let is_there = self.guests.contains_key(&grants);
            let key = if is_there { GuestKey { domid, sharing } } else { grants };
            self.start_in_place(key, Arc::clone(&killed.model), server, backend)
        } else {
            Err(AttachError::Replaced { domid, seconds: TRIAL.as_secs() })
        };
        if let Err(error) = replaced {
            error!(domid, error = %chain(&error), "accesses of the guest to the devices that its process has served are not answered, and its kernel may panic on one: `xl destroy` and `xl create` it");
            // The guest's vCPUs would wait without end. An abort says what is wrong.
            let _ = killed.model.destroy_ioreq_server(server);
        }
    }

    fn start_in_place(
        &mut self,
        key: GuestKey,
        model: Arc<L::Model>,
        server: ServerId,
        backend: &B,
    ) -> Result<(), AttachError> {
        let domid = key.domid;
        let left = Some(server);
        let launched = self.launch.launch::<B>(key, self.budget, left, backend.setup())?;
        self.add(key, model, launched, Stage::Serving)
            .map_err(|source| AttachError::Link { domid, source })?;
        if let Some(served) = self.guests.get_mut(&key) {
            served.server = left;
            served.replaces = Some(Instant::now());
        }
        info!(%key, "another process answers the guest's accesses to the devices that the one that has ended has served");
        Ok(())
    }

    /// Asks each for the figures of its devices.
    pub(super) fn ask_figures(&mut self) {
        let keys: Vec<_> = self.iter().map(|(key, _)| key).collect();
        for key in keys.into_iter().filter(|key| !self.asked.contains(key)).collect::<Vec<_>>() {
            if let Some(served) = self.guests.get(&key) {
                served.process.send(&Command::Figures);
                self.asked.push(key);
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
