//! What the processes of guests tell.

use tracing::{info, warn};
use xen_store::Store;

use super::{
    Handshake,
    stage::{Device, Stage},
};
use crate::{
    backend::Backend,
    guest::{Hello, Message, MessageOf},
    launch::Launch,
    node::DeviceId,
    process::GuestKey,
};

/// How often a device may say something to the operator, and in how many characters. A guest may be behind it.
const MAX_NOTICES: u8 = 8;
const MAX_TEXT: usize = 1024;

/// What a guest's process says, in no more characters than the operator reads.
pub(super) fn shortened(text: String) -> String {
    text.chars().take(MAX_TEXT).collect()
}

impl<S: Store, L: Launch, B: Backend> Handshake<S, L, B> {
    /// The process of a guest tells something, which may be false if the guest has taken it over: of other guests it
    /// tells nothing.
    pub(super) fn told(
        &mut self,
        key: GuestKey,
        message: MessageOf<B>,
    ) -> Result<(), xen_store::Error> {
        match message {
            Message::Hello(hello) => {
                if self.guests.greeted(key) {
                    self.take_over(key, hello);
                    // Its guest may have ended before, which nobody tells of again.
                    self.release_dead();
                }
                Ok(())
            }
            Message::Attached(id, outcome) if self.is_of(key, id) => {
                if let Some(Device { stage: Stage::Attaching { attached, .. }, .. }) =
                    self.devices.get_mut(&id)
                {
                    *attached = Some(outcome.map_err(shortened));
                }
                self.attached(id)
            }
            Message::Detached(id) if self.is_of(key, id) => self.detached(id),
            // Once for each that was asked for: a guest must not fill the log by it.
            Message::Reserved(id, reserved)
                if id.domid == key.domid && self.reserving.remove(&id) =>
            {
                let Err(error) = reserved.map_err(shortened) else { return Ok(()) };
                warn!(%id, error, "accesses of the guest to the device's registers are not answered, and its kernel may panic on one: `xl destroy` the guest, and create it again without the device");
                Ok(())
            }
            Message::Notice(id, text) if self.is_of(key, id) => {
                if let Some(Device { stage: Stage::Serving { .. }, notices, .. }) =
                    self.devices.get_mut(&id)
                    && *notices < MAX_NOTICES
                {
                    *notices += 1;
                    self.errors.write(&self.store, id, &id.path(&self.dir), &shortened(text));
                }
                Ok(())
            }
            Message::Figures(id, figures) if self.is_of(key, id) => {
                self.figures.heard(id, figures);
                Ok(())
            }
            Message::AllFigures => {
                self.guests.gave_figures(key);
                Ok(())
            }
            Message::Answered(number, answer) => {
                self.answered(key, number, answer.map_err(shortened).map(shortened));
                Ok(())
            }
            Message::Attached(..)
            | Message::Detached(_)
            | Message::Reserved(..)
            | Message::Notice(..)
            | Message::Figures(..)
            | Message::Ending(_) => Ok(()),
        }
    }

    fn is_of(&self, key: GuestKey, id: DeviceId) -> bool {
        self.devices.get(&id).is_some_and(|device| device.is_of(key, id))
    }

    /// Takes over what the process of a guest serves for an earlier supervisor.
    fn take_over(&mut self, key: GuestKey, hello: Hello<B::Config>) {
        let is_its = |id: DeviceId| id.domid == key.domid;
        for read in hello.devices.into_iter().filter(|(node, _)| is_its(node.id)) {
            let id = read.0.id;
            self.begin_figures(id, &read.1);
            info!(%id, device = B::describe(&read.1), "taken over");
            self.devices.insert(id, Device::new(Stage::Serving { read, taken_over: true }));
        }
        for id in hello.stopping.into_iter().filter(|id| is_its(*id)) {
            let detaching = Stage::Detaching { sharing: key.sharing, logged: false };
            self.devices.insert(id, Device::new(detaching));
        }
        self.is_to_list = true;
    }
}
