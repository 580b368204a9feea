//! What a hostile driver does, one thing at a time.

use crate::rig::Rig;
use anyhow::Result;

type Run = Box<dyn Fn(&mut Rig) -> Result<()>>;

/// One thing a driver does that it must not, or that a device must bear; fails if the device
/// answers it otherwise than the clause lets it.
pub(crate) struct Action {
    pub(crate) group: &'static str,
    pub(crate) name: String,
    /// Of virtio 1.2.
    pub(crate) clause: &'static str,
    run: Run,
}

impl Action {
    pub(crate) fn run(&self, rig: &mut Rig) -> Result<()> {
        (self.run)(rig)
    }
}

/// The actions of all groups.
#[derive(Default)]
pub(crate) struct Table {
    group: &'static str,
    pub(crate) actions: Vec<Action>,
}

impl Table {
    /// Adds what `add` adds, as a group.
    pub(crate) fn group(&mut self, group: &'static str, add: fn(&mut Self)) {
        self.group = group;
        add(self);
    }

    pub(crate) fn add(
        &mut self,
        clause: &'static str,
        name: impl Into<String>,
        run: impl Fn(&mut Rig) -> Result<()> + 'static,
    ) {
        let (group, name) = (self.group, name.into());
        self.actions.push(Action { group, name, clause, run: Box::new(run) });
    }
}
