//! The three parts of a ring, each looked up when it is first needed.

use vm_memory::GuestMemory;

use super::area::{Area, Lost, View};
use super::layout::Layout;

/// The parts of one ring, for as many accesses as a batch has: a look-up costs more than an access.
pub(super) struct Rings<'a, M: GuestMemory> {
    pub(super) descriptors: Part<'a, M>,
    pub(super) avail: Part<'a, M>,
    pub(super) used: Part<'a, M>,
}

impl<'a, M: GuestMemory> Rings<'a, M> {
    pub(super) fn new(layout: &Layout, mem: &'a M) -> Self {
        let part = |area| Part { area, mem, view: None };
        Self {
            descriptors: part(layout.descriptors),
            avail: part(layout.avail),
            used: part(layout.used),
        }
    }
}

pub(super) struct Part<'a, M: GuestMemory> {
    area: Area,
    mem: &'a M,
    view: Option<View<'a, M>>,
}

impl<'a, M: GuestMemory> Part<'a, M> {
    pub(super) fn view(&mut self) -> Result<&View<'a, M>, Lost> {
        match &mut self.view {
            Some(view) => Ok(view),
            empty => Ok(empty.insert(self.area.view(self.mem)?)),
        }
    }
}
