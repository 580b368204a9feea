//! The testbed as a whole: every artefact a run may need, and what it is made of.

use crate::apt::Package;
use crate::cache::{Artefact, Cache};
use crate::case::{Case, DAEMON};
use crate::cross::{self, Compiler};
use crate::debian::{Chosen, Debian};
use crate::log::output;
use crate::resolution::SUITE;
use crate::series::Series;
use crate::suites::PassedOver;
use crate::systemd::Systemd;
use crate::xen::Sources;
use crate::xen_tree::XenTree;
use crate::{domains, host, image, kernel, paths, uboot, xen};
use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What runs are made from.
pub(crate) struct Testbed {
    xen: Artefact,
    xen_debian: Artefact,
    kernel: Artefact,
    stock_kernel: Artefact,
    stock_initrd: Artefact,
    dom0: Artefact,
    guest: Artefact,
    rootfs: Artefact,
    /// Why there is none, if so: a mirror can lack its source.
    uboot: Result<Artefact, String>,
    compiler: Compiler,
    /// The stock kernel's.
    stock_package: Package,
    /// busybox, for a dom0's initramfs.
    busybox: PathBuf,
    systemd: Option<Systemd>,
    /// Xen's.
    pub(crate) series: Series,
    pub(crate) xen_version: String,
    pub(crate) versions: Versions,
}

/// What the testbed consists of; `target/testbed/versions.json`.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Versions {
    pub(crate) suite: String,
    /// Seconds since 1970.
    pub(crate) resolved_at: u64,
    pub(crate) xen: String,
    /// The suite of Debian's own Xen and of dom0's userland.
    pub(crate) xen_suite: String,
    /// The suites before it, and why their Xen isn't used.
    pub(crate) xen_passed_over: Vec<PassedOver>,
    /// The archives of security updates that could not be reached.
    pub(crate) without_security: Vec<String>,
    pub(crate) xen_debian: String,
    pub(crate) kernel_slim: String,
    pub(crate) kernel_stock: String,
    pub(crate) qemu: String,
    pub(crate) compiler_c: String,
    pub(crate) compiler_rust: String,
}

impl Testbed {
    /// Builds what is not in the cache.
    pub(crate) fn build(update: bool) -> Result<Self> {
        let cache = Cache::open()?;
        host::ensure(&cache)?;
        let own = XenTree::named()?;
        let mut debian = Debian::resolve(&cache, update)?;
        let chosen = debian.download(own.as_ref())?;
        chosen.announce(own.as_ref());
        debian.resolution.announce();
        let Chosen { toolstack, passed_over, kept } = chosen;
        let compiler = Compiler::choose(&cache, update)?;
        let packages = &debian.resolution;
        let dom0_tree = debian.tree("packages-dom0", &toolstack.dom0)?;
        let rootfs_tree = debian.tree("packages-rootfs", &packages.rootfs)?;
        let stock_kernel = kernel::stock(&cache, &debian)?;
        let (xen, origin) = match kept {
            Some(kept) => (kept.artefact, format!("{}, built before", kept.version)),
            None => {
                let sources = Sources::choose(&toolstack, own.as_ref())?;
                (xen::with_ioreq(&cache, &debian, &sources)?, sources.to_string())
            }
        };
        let xen_version = xen::built_version(&xen)?;
        let kernel = kernel::slim(&cache, &debian)?;
        let qemu = output(Command::new("qemu-system-aarch64").arg("--version"))?;
        let versions = Versions {
            suite: SUITE.to_owned(),
            resolved_at: packages.resolved_at,
            xen: format!("{origin} with IOREQ_SERVER"),
            xen_suite: toolstack.suite.clone(),
            xen_passed_over: passed_over,
            without_security: debian.resolution.without_security.clone(),
            xen_debian: toolstack.version().to_owned(),
            kernel_slim: format!(
                "{} (linux-source {})",
                kernel.read("release")?.trim(),
                packages.linux_source.version
            ),
            kernel_stock: format!("{} ({})", debian.stock_release(), packages.stock_kernel.version),
            qemu: qemu.lines().next().unwrap_or_default().to_owned(),
            compiler_c: format!("{}gcc {}", cross::GCC_PREFIX, cross::gcc_version()?),
            compiler_rust: compiler.version()?,
        };
        versions.write()?;
        Ok(Self {
            xen_debian: xen::debians_own(&cache, &debian, &toolstack.hypervisor)?,
            stock_initrd: domains::stock_initrd(&cache, &dom0_tree, &stock_kernel)?,
            dom0: domains::dom0(&cache, &dom0_tree)?,
            guest: domains::guest(&cache, &dom0_tree)?,
            rootfs: image::rootfs(&cache, &rootfs_tree)?,
            uboot: uboot::guest(&cache, &debian).map_err(|error| format!("{error:#}")),
            stock_package: packages.stock_kernel.clone(),
            busybox: dom0_tree.path("usr/bin/busybox"),
            systemd: None,
            xen,
            kernel,
            stock_kernel,
            compiler,
            series: toolstack.series()?,
            xen_version,
            versions,
        })
    }

    /// Builds what only some cases want, if these do.
    pub(crate) fn prepare(&mut self, cases: &[Case]) -> Result<()> {
        if self.systemd.is_none() && cases.iter().any(|case| case.systemd) {
            let cache = Cache::open()?;
            self.systemd = Some(Systemd::build(&cache, &self.stock_package, self.busybox.clone())?);
        }
        Ok(())
    }

    /// A dom0 that runs systemd, which was [prepared](Self::prepare).
    pub(crate) fn systemd(&self) -> Result<&Systemd> {
        self.systemd.as_ref().context("no dom0 with systemd was prepared")
    }

    /// Our binaries for the domains: the guests' tools, and what `cases` bring to dom0.
    pub(crate) fn binaries(&self, cases: &[Case]) -> Result<PathBuf> {
        self.compiler.build(&cases.iter().flat_map(Case::examples).collect())
    }

    /// The guests' tools and the daemon.
    pub(crate) fn daemon(&self) -> Result<PathBuf> {
        self.compiler.build(&BTreeSet::from([DAEMON]))
    }

    pub(crate) fn xen(&self) -> PathBuf {
        self.xen.path("xen")
    }

    pub(crate) fn xen_debian(&self) -> PathBuf {
        self.xen_debian.path("xen")
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.kernel.path("Image")
    }

    pub(crate) fn dom0(&self) -> PathBuf {
        self.dom0.path("dom0.cpio")
    }

    pub(crate) fn guest(&self) -> PathBuf {
        self.guest.path("guest.cpio")
    }

    /// Debian's kernel and the initramfs that goes with it.
    pub(crate) fn stock(&self) -> [PathBuf; 2] {
        [self.stock_kernel.path("vmlinuz"), self.stock_initrd.path("initrd")]
    }

    /// The guests' firmware.
    pub(crate) fn uboot(&self) -> Result<PathBuf> {
        let uboot = self.uboot.as_ref().map_err(|why| anyhow!("{why}"))?;
        Ok(uboot.path("u-boot.bin"))
    }

    /// Why a case can't run here, if so.
    pub(crate) fn unmet(&self, case: &Case) -> Option<String> {
        let uboot = self.uboot.as_ref().err().filter(|_| case.uboot);
        case.unmet(self.series).or_else(|| uboot.map(|why| format!("wants U-Boot: {why}")))
    }

    pub(crate) fn rootfs(&self) -> PathBuf {
        self.rootfs.path("rootfs.img")
    }
}

impl Versions {
    fn path() -> PathBuf {
        paths::results("versions.json")
    }

    fn write(&self) -> Result<()> {
        let path = Self::path();
        fs::create_dir_all(path.parent().unwrap_or(Path::new("")))?;
        fs::write(&path, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("writing {}", path.display()))
    }

    /// The table for people.
    pub(crate) fn print(&self) {
        for (what, version) in [
            ("Debian suite", &self.suite),
            ("Debian suite, Xen", &self.xen_suite),
            ("Xen", &self.xen),
            ("Xen, Debian's own", &self.xen_debian),
            ("kernel, slim", &self.kernel_slim),
            ("kernel, stock", &self.kernel_stock),
            ("QEMU", &self.qemu),
            ("C compiler", &self.compiler_c),
            ("Rust compiler", &self.compiler_rust),
        ] {
            println!("{what:<18} {version}");
        }
        println!("{:<18} {}", "recorded in", Self::path().display());
    }
}
