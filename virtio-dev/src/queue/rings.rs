//! The three parts of a ring, each looked up when it is first needed.

use vm_memory::GuestMemory;

use super::area::{Area, Entry, RingInaccessible, View};
use super::descriptor::RawDescriptor;
use super::layout::{Avail, Layout, Used};

/// The parts of one ring, for as many accesses as a batch has: a look-up costs more than an access.
pub(super) struct Rings<'a, M: GuestMemory> {
    pub(super) descriptors: Part<'a, M, RawDescriptor>,
    pub(super) avail: Part<'a, M, Avail>,
    pub(super) used: Part<'a, M, Used>,
}

impl<'a, M: GuestMemory> Rings<'a, M> {
    pub(super) fn new(layout: &Layout, mem: &'a M) -> Self {
        Self {
            descriptors: Part::new(layout.descriptors, mem),
            avail: Part::new(layout.avail, mem),
            used: Part::new(layout.used, mem),
        }
    }
}

pub(super) struct Part<'a, M: GuestMemory, T: Entry> {
    area: Area,
    mem: &'a M,
    view: Option<View<'a, M, T>>,
}

impl<'a, M: GuestMemory, T: Entry> Part<'a, M, T> {
    fn new(area: Area, mem: &'a M) -> Self {
        Self { area, mem, view: None }
    }

    #[inline]
    pub(super) fn view(&mut self) -> Result<&View<'a, M, T>, RingInaccessible> {
        match &mut self.view {
            Some(view) => Ok(view),
            empty => Ok(empty.insert(self.area.view(self.mem)?)),
        }
    }
}
