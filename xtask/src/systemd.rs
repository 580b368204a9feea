//! A dom0 that runs systemd: Debian's own kernel, its userland on a disk, and what a run adds in an initramfs.

use crate::apt::{self, Package};
use crate::cache::{Artefact, Cache, Recipe};
use crate::case::Case;
use crate::cpio::Archive;
use crate::image::Image;
use crate::suites::Suites;
use crate::{deb, kernel, paths, resolution};
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Raise it when the steps below change what they make.
const REVISION: &str = "2";
const SIZE: &str = "600M";
/// What boots, serves guests and installs a package; the solver takes no package for essential here.
const USERLAND: [&str; 23] = [
    "base-files",
    "base-passwd",
    "bash",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "dpkg",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "mawk",
    "procps",
    "sed",
    "systemd-sysv",
    "sysvinit-utils",
    "tar",
    "udev",
    "util-linux",
    "xen-system-arm64",
];
/// What isn't built into the kernel. All are loaded by the initramfs, so that the root needs none.
const MODULES: [&str; 6] =
    ["virtio_mmio", "virtio_blk", "xenfs", "xen_privcmd", "xen_evtchn", "xen_gntdev"];
/// What nobody reads there.
const LEFT_OUT: [&str; 5] =
    ["boot", "usr/share/doc", "usr/share/info", "usr/share/locale", "usr/share/man"];
/// Units that would wait for a user or the time, or compute for long.
const MASKED: [&str; 6] = [
    "getty.target",
    "ldconfig.service",
    "serial-getty@hvc0.service",
    "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service",
    "timers.target",
];
const APPLETS: [&str; 9] =
    ["sh", "mount", "umount", "insmod", "cp", "mkdir", "poweroff", "sleep", "switch_root"];

/// What such a dom0 is made of.
pub(crate) struct Systemd {
    kernel: Artefact,
    root: Artefact,
    busybox: PathBuf,
    deb: PathBuf,
}

/// The userland's packages, as the suite had them at one moment.
#[derive(Serialize, Deserialize)]
struct Packages {
    /// Seconds since 1970.
    resolved_at: u64,
    /// What was asked for.
    wanted: String,
    all: Vec<Package>,
}

impl Systemd {
    /// Builds what is not in the cache, of this kernel's package, and with the busybox at that path.
    pub(crate) fn build(cache: &Cache, stock: &Package, busybox: PathBuf) -> Result<Self> {
        let deb = deb::for_testbed(cache)?;
        let debs = cache.path("debs");
        let packages = packages(cache)?;
        Ok(Self {
            kernel: kernel::packaged(cache, "linux-systemd", &debs, stock, &MODULES)?,
            root: root(cache, &debs, &packages)?,
            busybox,
            deb,
        })
    }

    pub(crate) fn kernel(&self) -> PathBuf {
        self.kernel.path("vmlinuz")
    }

    /// A copy of the root file system, which a run may change.
    pub(crate) fn root(&self, to: PathBuf) -> Result<Image> {
        Image::copy(&self.root.path("root.img"), to)
    }

    /// The initramfs, but for what is added under `payload/`, which comes into the root.
    pub(crate) fn initramfs(&self, case: &Case) -> Result<Archive> {
        let mut archive = Archive::default();
        for dir in ["proc", "sys", "dev", "root"] {
            archive.dir(dir);
        }
        archive.file("bin/busybox", 0o755, &self.busybox)?;
        for applet in APPLETS {
            archive.symlink(&format!("bin/{applet}"), "busybox");
        }
        for path in paths::files_below(&self.kernel.path("modules"))? {
            let name =
                path.file_name().and_then(|name| name.to_str()).context("a module's name")?;
            archive.file(&format!("modules/{name}"), 0o644, &path)?;
        }
        archive.file("init", 0o755, &paths::testbed("systemd/init"))?;
        for (to, from) in [
            ("lib.sh", paths::testbed("dom0/lib.sh")),
            ("run.sh", paths::testbed("systemd/run.sh")),
            ("end.sh", paths::testbed("systemd/end.sh")),
            ("case.sh", case.script.clone()),
            ("xen-virtio-blk.deb", self.deb.clone()),
        ] {
            archive.file(&format!("payload/testbed/{to}"), 0o644, &from)?;
        }
        Ok(archive)
    }
}

/// The packages in the cache, or the suite's candidates, downloaded.
fn packages(cache: &Cache) -> Result<Vec<Package>> {
    let kept = cache.path("systemd-packages.json");
    let known = fs::read(&kept).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let is_there = |package: &Package| cache.path("debs").join(&package.file).exists();
    let wanted = USERLAND.join(" ");
    let known = known.filter(|known: &Packages| {
        known.wanted == wanted
            && known.all.iter().all(is_there)
            && !resolution::is_old(known.resolved_at)
    });
    if let Some(known) = known {
        return Ok(known.all);
    }
    let apt = Suites::new(cache).refreshed(resolution::SUITE)?;
    let log = cache.log("systemd-packages")?;
    let all = cache.timed("systemd-packages", Duration::from_secs(40), || {
        let all = apt.closure(&USERLAND)?;
        apt.download(&all, &log)?;
        Ok(all)
    })?;
    let resolved_at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let packages = Packages { resolved_at, wanted, all };
    fs::write(kept, serde_json::to_vec_pretty(&packages)?)?;
    Ok(packages.all)
}

/// The root file system; the artefact holds `root.img`.
fn root(cache: &Cache, debs: &Path, packages: &[Package]) -> Result<Artefact> {
    let units = paths::files_below(&paths::testbed("systemd/units"))?;
    let mut recipe = packages.iter().fold(Recipe::new("systemd-root", 20), |recipe, package| {
        recipe.part("package", &package.file)
    });
    recipe = recipe.part("revision", REVISION).part("masked", MASKED.join(" "));
    for unit in &units {
        recipe =
            recipe.part("unit", unit.as_os_str().as_encoded_bytes()).part("text", fs::read(unit)?);
    }
    cache.get(recipe, |shop| {
        let root = shop.work.join("root");
        let _ = fs::remove_dir_all(&root);
        apt::unpack(debs, packages, &root, shop.log)?;
        for dir in LEFT_OUT {
            let _ = fs::remove_dir_all(root.join(dir));
        }
        configure(&root, &units)?;
        let mut mke2fs = Command::new("mke2fs");
        mke2fs.args(["-q", "-t", "ext4", "-L", "root", "-E", "root_owner=0:0"]);
        mke2fs.args(["-O", "^orphan_file,^metadata_csum_seed", "-d"]);
        shop.log.run(mke2fs.arg(&root).arg(shop.out.join("root.img")).arg(SIZE))
    })
}

/// What the packages' maintainer scripts and an installer would have done.
fn configure(root: &Path, units: &[PathBuf]) -> Result<()> {
    for (link, to) in [("usr/bin/sh", "dash"), ("usr/bin/awk", "mawk")] {
        if !root.join(link).exists() {
            symlink(to, root.join(link))?;
        }
    }
    for dir in
        ["proc", "sys", "dev", "tmp", "run", "root", "var/log/xen/console", "var/lib/dpkg/info"]
    {
        fs::create_dir_all(root.join(dir))?;
    }
    fs::create_dir_all(root.join("var/lib/dpkg/updates"))?;
    fs::create_dir_all(root.join("var/lib/dpkg/triggers"))?;
    let masters = root.join("usr/share/base-passwd");
    for file in ["passwd", "group"] {
        fs::copy(masters.join(format!("{file}.master")), root.join("etc").join(file))?;
    }
    for (file, text) in [
        ("var/lib/dpkg/status", ""),
        ("etc/hostname", "dom0\n"),
        // An empty one would have systemd ask who this is.
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        // libxl saves no guest on Arm.
        ("etc/default/xendomains", "XENDOMAINS_SAVE=\nXENDOMAINS_STOP_MAXWAIT=120\n"),
        ("etc/default/xen", "XENCONSOLED_ARGS=\"--log=guest --log-dir=/var/log/xen/console\"\n"),
    ] {
        fs::write(root.join(file), text).with_context(|| format!("writing {file}"))?;
    }
    let etc = root.join("etc/systemd/system");
    let wanted = etc.join("multi-user.target.wants");
    fs::create_dir_all(&wanted)?;
    for unit in ["xen.service", "xendomains.service"] {
        symlink(format!("/usr/lib/systemd/system/{unit}"), wanted.join(unit))?;
    }
    for unit in MASKED {
        symlink("/dev/null", etc.join(unit))?;
    }
    for unit in units {
        fs::copy(unit, etc.join(unit.file_name().context("a unit's name")?))?;
    }
    symlink("testbed.target", etc.join("default.target"))?;
    Ok(())
}
