//! How disks are served: the command line for all of them, a file for some.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use backend_process::chain;
use tracing::warn;
use virtio_blk_dev::{ImageFormat, RateLimits, UringConfig, UringEngine, UringError};
use xen_virtio_backend::{MapBudget, Transports};

use crate::{
    args::RunArgs,
    engine_kind::EngineKind,
    identity::Identity,
    rate::{Bps, Iops},
};

mod disk;
mod error;
mod file;
mod table;

pub use disk::{Cache, DiskSettings};
pub use error::SettingsError;
use file::ConfigFile;
use table::DiskTable;

/// Disks of one guest whose queues get io_urings. Those of more disks are served by the synchronous engine.
const DISKS: u16 = 16;
/// The most io_urings of a guest. One takes some 20 KiB.
const MAX_RINGS: u16 = 256;

/// How every disk is served.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    all: DiskSettings,
    disks: BTreeMap<PathBuf, DiskSettings>,
    map_budget: MapBudget,
    transports: Transports,
}

impl Settings {
    /// The same for every disk.
    pub fn new(all: DiskSettings) -> Self {
        let (map_budget, transports) = (MapBudget::default(), Transports::default());
        Self { all, disks: BTreeMap::new(), map_budget, transports }
    }

    /// What the command line and the file it names say.
    ///
    /// # Errors
    /// What is wrong there, or can't be had here.
    pub fn load(args: &RunArgs) -> Result<Self, SettingsError> {
        Self::load_where(args, UringEngine::check(), ImageFormat::is_available)
    }

    /// As [`load`](Self::load), on a kernel with or without io_uring and in a build with these formats.
    fn load_where(
        args: &RunArgs,
        uring: Result<(), UringError>,
        is_available: impl Fn(ImageFormat) -> bool,
    ) -> Result<Self, SettingsError> {
        let file = args.config.as_deref().map(ConfigFile::read).transpose()?;
        let ConfigFile { disks, guests } = file.unwrap_or_default();
        let asked = disks.values().map(|table| table.engine).chain([args.engine]);
        let engine = choose(asked, args.engine, uring)?;
        let all = DiskSettings {
            engine,
            direct: args.direct,
            logical_block_size: args.logical_block_size,
            queues: args.queues,
            queue_size: args.queue_size,
            limits: RateLimits {
                ops: args.iops.map(|Iops(rate)| rate),
                bytes: args.bps.map(|Bps(rate)| rate),
            },
            cpus: args.cpus.clone().unwrap_or_default(),
            poll: Duration::from_micros(args.poll_us),
            ..DiskSettings::default()
        };
        let map_budget = args.map_budget.unwrap_or_default();
        let guests = guests.into_iter().filter_map(|(name, its)| Some((name, its.transport?)));
        let transports = Transports { default: args.transport, guests: guests.collect() };
        let settings = Self { map_budget, transports, ..Self::with_tables(all, disks)? };
        check_formats(&settings.disks, is_available)?;
        for disk in settings.disks.values().chain([&settings.all]) {
            // Where the process can't even ask, pinning will fail and say so.
            if let Ok(Some(cpu)) = disk.cpus.first_not_allowed() {
                return Err(SettingsError::Cpu(cpu));
            }
        }
        Ok(settings)
    }

    /// How much of each guest's memory may be mapped.
    pub fn map_budget(&self) -> MapBudget {
        self.map_budget
    }

    /// How the disks of each guest are reached.
    pub fn transports(&self) -> &Transports {
        &self.transports
    }

    /// How many io_urings the process of a guest needs: one for each queue of as many disks as guests have.
    pub(crate) fn rings(&self) -> u16 {
        let all = self.disks.values().chain([&self.all]);
        let queues = all.filter(|disk| disk.engine == EngineKind::IoUring).map(|disk| disk.queues);
        queues.max().unwrap_or(0).saturating_mul(DISKS).min(MAX_RINGS)
    }

    /// How many threads the disks of a guest may have at most on a machine of so many processors: one for each queue of as
    /// many disks as guests have, and for each io_uring what the kernel starts to carry out what would block: as many as
    /// it has entries, or four times the processors (`io_wq_create`, io_uring_enter(2)).
    pub(crate) fn threads(&self, processors: u32) -> u32 {
        let queues = self.disks.values().chain([&self.all]).map(|disk| disk.queues).max();
        let workers = u32::from(UringConfig::default().depth).min(processors.saturating_mul(4));
        u32::from(queues.unwrap_or(0)) * u32::from(DISKS) + u32::from(self.rings()) * workers
    }

    /// How the disk with this image is served: as the table says that names it, by this path or by
    /// another one of the same file or device. It asks the image's storage, and waits for its answer.
    pub fn of(&self, image: &Path) -> &DiskSettings {
        let by_path = self.disks.get(image);
        by_path.or_else(|| self.by_identity(image)).unwrap_or(&self.all)
    }

    fn by_identity(&self, image: &Path) -> Option<&DiskSettings> {
        let identity = Identity::of(image)?;
        let mut disks = self.disks.iter();
        let found = disks.find(|(path, _)| Identity::of(path).as_ref() == Some(&identity));
        found.map(|(_, settings)| settings)
    }

    /// Logs each table whose image is none of `images`: its disk may still come, or its name is mistyped.
    pub(crate) fn warn_of_unmatched(&self, images: &BTreeSet<PathBuf>) {
        for image in self.unmatched(images) {
            warn!(
                "config: table [{image:?}] matches no disk yet; it will if an xl.cfg names this image"
            );
        }
    }

    fn unmatched(&self, images: &BTreeSet<PathBuf>) -> Vec<&PathBuf> {
        let by_path = self.disks.keys().filter(|image| !images.contains(*image));
        let left: Vec<&PathBuf> = by_path.collect();
        if left.is_empty() {
            return left;
        }
        let there: Vec<Identity> = images.iter().filter_map(|image| Identity::of(image)).collect();
        let is_there =
            |image: &Path| Identity::of(image).is_some_and(|identity| there.contains(&identity));
        left.into_iter().filter(|image| !is_there(image)).collect()
    }

    fn with_tables(
        all: DiskSettings,
        tables: BTreeMap<PathBuf, DiskTable>,
    ) -> Result<Self, SettingsError> {
        let mut disks = BTreeMap::new();
        for (image, table) in tables {
            let states_blocks = table.logical_block_size.is_some();
            let disk = table.over(&all);
            if disk.direct && disk.format != ImageFormat::Raw {
                return Err(SettingsError::Direct { image, format: disk.format });
            }
            if states_blocks && disk.format != ImageFormat::Raw {
                return Err(SettingsError::LogicalBlockSize { image, format: disk.format });
            }
            disks.insert(image, disk);
        }
        Ok(Self { disks, ..Self::new(all) })
    }
}

/// Refuses a table whose format this program was built without: its disk could never be served.
fn check_formats(
    disks: &BTreeMap<PathBuf, DiskSettings>,
    is_available: impl Fn(ImageFormat) -> bool,
) -> Result<(), SettingsError> {
    match disks.iter().find(|(_, disk)| !is_available(disk.format)) {
        Some((image, disk)) => {
            Err(SettingsError::Format { image: image.clone(), format: disk.format })
        }
        None => Ok(()),
    }
}

/// The engine of disks of which the file doesn't say another. One that was asked for by name is never
/// replaced in silence.
fn choose(
    asked: impl IntoIterator<Item = Option<EngineKind>>,
    preferred: Option<EngineKind>,
    uring: Result<(), UringError>,
) -> Result<EngineKind, SettingsError> {
    match uring {
        Ok(()) => Ok(preferred.unwrap_or(EngineKind::IoUring)),
        Err(error) if asked.into_iter().any(|kind| kind == Some(EngineKind::IoUring)) => {
            Err(error.into())
        }
        Err(error) => {
            if preferred.is_none() {
                warn!(error = %chain(&error), "io_uring can't be used: disks are served by the engine sync");
            }
            Ok(EngineKind::Sync)
        }
    }
}

#[cfg(test)]
mod tests;
