//! What is known of devices, and what they are asked by an operator.

use std::collections::BTreeSet;

use tracing::debug;
use xen_ioreq::DomId;
use xen_store::{Store, StoreExt};

use super::{
    Handshake,
    figures::Lineage,
    stage::{Device, Stage},
};
use crate::{
    backend::Backend,
    control::{DeviceState, DeviceStatusOf, GuestName, Replies, StatusOf},
    guest::Command,
    launch::Launch,
    node::DeviceId,
    process::GuestKey,
};

impl<S: Store, L: Launch, B: Backend> Handshake<S, L, B> {
    /// Has every device log what it has done so far.
    pub fn report(&self) {
        self.guests.tell_all(&Command::Report);
    }

    /// Asks every device what it has done so far. It is waited for by [`has_figures`](Self::has_figures).
    pub fn ask_figures(&mut self) {
        self.guests.ask_figures();
    }

    /// Whether all devices that were asked have answered.
    pub fn has_figures(&self) -> bool {
        self.guests.have_given_figures()
    }

    /// What is known of each device. Figures are those that were last heard.
    pub fn status(&mut self) -> StatusOf<B> {
        let devices = &self.devices;
        self.figures.sweep(|id| devices.contains_key(&id));
        self.forget_names();
        let ids: BTreeSet<_> = self.devices.keys().chain(self.refused.keys()).copied().collect();
        let domids: BTreeSet<_> = ids.iter().map(|id| id.domid).collect();
        domids.into_iter().for_each(|domid| self.look_up_name(domid));
        StatusOf::<B> {
            devices: ids.into_iter().map(|id| self.status_of(id)).collect(),
            unknown: self.guests.of_other_versions(),
        }
    }

    /// Forgets who guests are that have no devices any more.
    fn forget_names(&mut self) {
        let ids = self.devices.keys().chain(self.refused.keys());
        let domids: BTreeSet<_> = ids.map(|id| id.domid).collect();
        self.names.retain(|domid, _| domids.contains(domid));
    }

    fn status_of(&self, id: DeviceId) -> DeviceStatusOf<B> {
        let device = self.devices.get(&id);
        let read = device.and_then(Device::read).or_else(|| self.refused.get(&id)?.read.as_ref());
        let refusal = self.refused.get(&id).map(|refused| refused.reason.clone());
        let sharing = device.and_then(Device::sharing);
        DeviceStatusOf::<B> {
            id,
            guest: self.names.get(&id.domid).cloned().unwrap_or_default(),
            state: match (device.map(|device| &device.stage), refusal) {
                (_, Some(reason)) => DeviceState::Refused(reason),
                (Some(Stage::Serving { .. }), None) => DeviceState::Serving,
                (Some(Stage::Closing { logged, .. } | Stage::Detaching { logged, .. }), None) => {
                    DeviceState::Closing { stuck: *logged }
                }
                _ => DeviceState::Opening,
            },
            read: read.cloned(),
            pid: sharing.and_then(|sharing| self.guests.pid(GuestKey { domid: id.domid, sharing })),
            figures: self.figures.of(id),
        }
    }

    /// A device is served from now on: its figures begin, or go on where those of the same device of the guest have
    /// ended before a reboot.
    pub(super) fn begin_figures(&mut self, id: DeviceId, config: &B::Config) {
        self.forget_names();
        self.look_up_name(id.domid);
        let uuid = self.names.get(&id.domid).and_then(|guest| guest.uuid.clone());
        let text = B::describe(config);
        let lineage = uuid.map(|uuid| Lineage { uuid, kind: id.kind, devid: id.devid, text });
        let devices = &self.devices;
        self.figures.begin(id, lineage, |id| devices.contains_key(&id));
    }

    /// Who a guest is. What was last known of one whose nodes are gone, or can't be read, stays.
    pub(super) fn look_up_name(&mut self, domid: DomId) {
        match self.read_name(domid) {
            Ok(GuestName { name, uuid }) => {
                let known = self.names.entry(domid).or_default();
                known.name = name.or(known.name.take());
                known.uuid = uuid.or(known.uuid.take());
            }
            Err(error) => debug!(domid, %error, "the guest's name can't be read"),
        }
    }

    fn read_name(&self, domid: DomId) -> Result<GuestName, xen_store::Error> {
        let home = self.store.domain_path(domid)?;
        let vm = self.store.lookup(None, &format!("{home}/vm"))?;
        Ok(GuestName {
            name: self.store.lookup(None, &format!("{home}/name"))?,
            uuid: vm.and_then(|path| Some(path.strip_prefix("/vm/")?.to_owned())),
        })
    }

    /// Has a device do something. What comes of it goes to `replies`.
    pub(crate) fn order(&mut self, id: DeviceId, order: B::Order, replies: Replies<B>) {
        let sharing = match self.devices.get(&id) {
            Some(device @ Device { stage: Stage::Serving { .. }, .. }) => device.sharing(),
            _ => None,
        };
        let Some(sharing) = sharing else {
            replies.done(Err(format!("{id} is not served")));
            return;
        };
        let key = GuestKey { domid: id.domid, sharing };
        let number = self.next_order;
        self.next_order += 1;
        self.guests.send(key, &Command::Order(number, id, order));
        self.orders.insert(number, (key, replies));
    }

    /// What has come of an order.
    pub(super) fn answered(&mut self, key: GuestKey, number: u64, answer: Result<String, String>) {
        if self.orders.get(&number).is_some_and(|(asked, _)| *asked == key)
            && let Some((_, replies)) = self.orders.remove(&number)
        {
            replies.done(answer);
        }
    }

    /// Has the log of each process of a guest contain what this filter lets pass, and of those that are started.
    pub fn set_log_filter(&mut self, filter: &str) {
        self.guests.set_log_filter(filter);
    }
}
