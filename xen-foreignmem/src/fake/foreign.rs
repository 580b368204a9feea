//! `/dev/xen/privcmd`, as far as mappings go.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use memmap2::MmapRaw;

use super::faults::Faults;
use super::pages::FakePages;
use super::ram::{FakeRam, Held};
use crate::batch::{Batch, map_frames};
use crate::domid::DomId;
use crate::error::{MapError, MapTarget};
use crate::foreign::{ForeignMemory, Holes, check_resource};
use crate::lock::lock;
use crate::mapping::{Mapping, Prot, Release, Unmap};
use crate::page::PAGE_SIZE;

/// An open `/dev/xen/privcmd` of a machine whose only guest is a [`FakeRam`]'s.
#[derive(Debug)]
pub struct FakeForeignMemory {
    ram: Arc<FakeRam>,
    domid: DomId,
    restricted: AtomicBool,
    kernel_page_size: usize,
    resources: Mutex<HashMap<(u32, u32, u32), Arc<FakePages>>>,
    bad_frames: Mutex<BTreeMap<u64, i32>>,
    faults: Faults,
    on_map: Mutex<Option<Event<[u64]>>>,
    live: Arc<Live>,
}

/// What happens in the midst of a call.
struct Event<T: ?Sized>(Box<dyn FnMut(&T) + Send>);

impl<T: ?Sized> fmt::Debug for Event<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Event")
    }
}

/// What is mapped now, and was at the most.
#[derive(Debug)]
struct Live {
    held: Arc<Held>,
    mappings: AtomicU64,
    pages: AtomicU64,
    peak_pages: AtomicU64,
    calls: AtomicU64,
    on_unmap: Mutex<Option<Event<u32>>>,
}

impl Live {
    fn new(held: Arc<Held>) -> Self {
        Self {
            held,
            mappings: AtomicU64::new(0),
            pages: AtomicU64::new(0),
            peak_pages: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            on_unmap: Mutex::default(),
        }
    }

    fn take(self: &Arc<Self>, pages: usize) -> Release {
        self.held.add();
        self.mappings.fetch_add(1, Ordering::SeqCst);
        let now = self.pages.fetch_add(pages as u64, Ordering::SeqCst) + pages as u64;
        self.peak_pages.fetch_max(now, Ordering::SeqCst);
        Release::new(self.clone(), 0, pages as u32)
    }
}

impl Unmap for Live {
    fn unmap(&self, _index: u64, count: u32) {
        if let Some(Event(event)) = lock(&self.on_unmap).as_mut() {
            event(&count);
        }
        self.mappings.fetch_sub(1, Ordering::SeqCst);
        self.pages.fetch_sub(count.into(), Ordering::SeqCst);
        self.held.remove();
    }
}

impl FakeForeignMemory {
    /// A descriptor for use with `ram`'s guest.
    pub fn new(ram: Arc<FakeRam>) -> Self {
        let domid = ram.domid();
        Self::for_domid(ram, domid)
    }

    /// A descriptor for use with any guest: with another than `ram`'s, everything fails with ESRCH.
    pub fn for_domid(ram: Arc<FakeRam>, domid: DomId) -> Self {
        Self {
            live: Arc::new(Live::new(ram.held().clone())),
            ram,
            domid,
            restricted: AtomicBool::default(),
            kernel_page_size: PAGE_SIZE,
            resources: Mutex::default(),
            bad_frames: Mutex::default(),
            faults: Faults::default(),
            on_map: Mutex::default(),
        }
    }

    /// A kernel whose pages have so many bytes, 4096 by default.
    pub fn with_kernel_page_size(mut self, bytes: usize) -> Self {
        self.kernel_page_size = bytes;
        self
    }

    /// The guest's side.
    pub fn ram(&self) -> &Arc<FakeRam> {
        &self.ram
    }

    /// Gives Xen a resource: `pages` are its frames from `frame` on.
    pub fn add_resource(&self, resource_type: u32, id: u32, frame: u32, pages: Arc<FakePages>) {
        lock(&self.resources).insert((resource_type, id, frame), pages);
    }

    /// Takes a resource away. Mappings keep their pages.
    pub fn remove_resource(&self, resource_type: u32, id: u32, frame: u32) {
        lock(&self.resources).remove(&(resource_type, id, frame));
    }

    /// Whether the descriptor was restricted to its guest.
    pub fn is_restricted(&self) -> bool {
        self.restricted.load(Ordering::SeqCst)
    }

    /// Failures of calls that map, to come.
    pub fn map_faults(&self) -> &Faults {
        &self.faults
    }

    /// Has `event` happen in the midst of each call that maps frames of the guest, when they were taken and
    /// before they are handed out, as another thread may do it. It must map nothing itself.
    pub fn on_map(&self, event: impl FnMut(&[u64]) + Send + 'static) {
        *lock(&self.on_map) = Some(Event(Box::new(event)));
    }

    /// Has `event` happen before each mapping goes, with the number of its pages. It must neither map nor
    /// unmap itself.
    pub fn on_unmap(&self, mut event: impl FnMut(u32) + Send + 'static) {
        *lock(&self.live.on_unmap) = Some(Event(Box::new(move |&pages| event(pages))));
    }

    /// From now on this frame of the guest fails with `errno`; `None` heals it.
    pub fn fail_frame(&self, gfn: u64, errno: Option<i32>) {
        let mut bad = lock(&self.bad_frames);
        match errno {
            Some(errno) => bad.insert(gfn, errno),
            None => bad.remove(&gfn),
        };
    }

    /// How many mappings there are now.
    pub fn live_mappings(&self) -> u64 {
        self.live.mappings.load(Ordering::SeqCst)
    }

    /// How many pages they have, all together.
    pub fn live_pages(&self) -> u64 {
        self.live.pages.load(Ordering::SeqCst)
    }

    /// The most pages that were mapped at any time.
    pub fn peak_pages(&self) -> u64 {
        self.live.peak_pages.load(Ordering::SeqCst)
    }

    /// How often a mapping was asked for.
    pub fn map_calls(&self) -> u64 {
        self.live.calls.load(Ordering::SeqCst)
    }

    /// Maps frames into a region of their own, which holes are left in.
    fn map_batch(&self, prot: Prot, gfns: &[u64]) -> io::Result<Batch<MmapRaw>> {
        let frames: Vec<_> = gfns.iter().map(|&gfn| self.frame(gfn)).collect();
        let pages: Vec<_> = frames.iter().map(|frame| frame.ok()).collect();
        let errors: Vec<_> = frames.iter().map(|frame| frame.err().map_or(0, |e| -e)).collect();
        let region = self.ram.pages().alias(prot, &pages)?;
        let call = match errors.contains(&-libc::ENOENT) {
            true => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            false => Ok(()),
        };
        Batch::tolerate(region, errors, call)
    }

    fn frame(&self, gfn: u64) -> Result<usize, i32> {
        match lock(&self.bad_frames).get(&gfn) {
            Some(&errno) => Err(errno),
            None => self.ram.map_frame(self.domid, gfn),
        }
    }
}

fn invalid() -> io::Error {
    io::Error::from_raw_os_error(libc::EINVAL)
}

impl ForeignMemory for FakeForeignMemory {
    fn domid(&self) -> DomId {
        self.domid
    }

    fn map_sparse(&self, prot: Prot, gfns: &[u64]) -> Result<(Mapping, Holes), MapError> {
        self.live.calls.fetch_add(1, Ordering::SeqCst);
        let target = MapTarget::Gfn(gfns.first().copied().unwrap_or_default());
        let error = |source| MapError::new(self.domid, target, source);
        if gfns.is_empty() {
            return Err(error(invalid()));
        }
        self.faults.call().map_err(error)?;
        let Batch { region, errors } =
            map_frames(gfns, |gfns| self.map_batch(prot, gfns)).map_err(error)?;
        if let Some(Event(event)) = lock(&self.on_map).as_mut() {
            event(gfns);
        }
        let holes = errors.iter().enumerate().filter(|&(_, &e)| e != 0).map(|(i, &e)| (i, -e));
        let mapping = Mapping::with_release(region, prot, self.live.take(gfns.len()));
        Ok((mapping, holes.collect()))
    }

    fn map_resource(
        &self,
        resource_type: u32,
        id: u32,
        frame: u32,
        frames: u64,
    ) -> Result<Mapping, MapError> {
        self.live.calls.fetch_add(1, Ordering::SeqCst);
        let prot = Prot::READ | Prot::WRITE;
        let target = MapTarget::Resource { resource_type, id, frame };
        let mapped = self.ram.check_known(self.domid).and_then(|()| {
            self.faults.call()?;
            check_resource(frames, self.kernel_page_size)?;
            let resource = lock(&self.resources).get(&(resource_type, id, frame)).cloned();
            let resource = resource.ok_or(io::Error::from_raw_os_error(libc::ENOENT))?;
            if frames == 0 || frames > resource.pages() as u64 {
                return Err(invalid());
            }
            let pages: Vec<_> = (0..frames as usize).map(Some).collect();
            let region = resource.alias(prot, &pages)?;
            debug_assert_eq!(region.len(), pages.len() * PAGE_SIZE);
            Ok(Mapping::with_release(region, prot, self.live.take(pages.len())))
        });
        mapped.map_err(|e| MapError::new(self.domid, target, e))
    }

    fn kernel_page_size(&self) -> usize {
        self.kernel_page_size
    }

    fn restrict(&self) -> io::Result<()> {
        self.restricted.store(true, Ordering::SeqCst);
        Ok(())
    }
}
