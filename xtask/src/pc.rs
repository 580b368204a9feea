//! A PC under emulation: Debian's own kernel for amd64, and a guest that exercises its disk.

use crate::apt::{Apt, Package};
use crate::cache::{Artefact, Cache, Recipe};
use crate::cpio::Archive;
use crate::mirror::Mirror;
use crate::resolution::{self, SUITE};
use crate::{apt, kernel, paths};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Raise it when the steps below change what they make.
const REVISION: &str = "1";
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What the guest's kernel doesn't have built in. ext4 asks for its checksum by name.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];
const USERLAND: [&str; 2] = ["busybox-static", "e2fsprogs"];
const PROGRAMS: [&str; 2] = ["usr/sbin/mke2fs", "usr/sbin/e2fsck"];
/// What the host needs for it, beside Rust.
pub(crate) const PACKAGES: [&str; 8] = [
    "binutils",
    "ca-certificates",
    "cpio",
    "e2fsprogs",
    "gcc",
    "libc6-dev",
    "qemu-system-x86",
    "xz-utils",
];

/// The packages, as the suite had them at one moment.
#[derive(Serialize, Deserialize)]
struct Packages {
    /// Seconds since 1970.
    resolved_at: u64,
    kernel: Package,
    userland: Vec<Package>,
}

/// A guest: its kernel, and the initramfs that is all of its userland.
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    pub(crate) version: String,
}

impl Guest {
    /// Builds what is not in the cache.
    pub(crate) fn build(cache: &Cache) -> Result<Self> {
        let debs = cache.path("debs");
        let packages = packages(cache, &debs)?;
        let kernel = kernel::packaged(cache, "linux-pc", &debs, &packages.kernel, &MODULES)?;
        let userland = packages
            .userland
            .iter()
            .fold(Recipe::new("packages-pc", 8), |r, package| r.part("package", &package.file));
        let userland = cache
            .get(userland, |shop| apt::unpack(&debs, &packages.userland, shop.out, shop.log))?;
        let initrd = initrd(cache, &kernel, &userland, &tools()?)?;
        Ok(Self {
            kernel: kernel.path("vmlinuz"),
            initrd: initrd.path("initrd"),
            version: packages.kernel.version,
        })
    }
}

/// The packages in the cache, or the suite's candidates if they are old or not there.
fn packages(cache: &Cache, debs: &Path) -> Result<Packages> {
    let kept = cache.path("pc-packages.json");
    let known = fs::read(&kept).ok().and_then(|text| serde_json::from_slice(&text).ok());
    let known = known.filter(|known: &Packages| known.present(debs));
    let old = match known {
        Some(known) if !resolution::is_old(known.resolved_at) => return Ok(known),
        old => old,
    };
    match (candidates(cache, debs), old) {
        (Ok(packages), _) => {
            fs::write(kept, serde_json::to_vec_pretty(&packages)?)?;
            Ok(packages)
        }
        (Err(error), Some(old)) => {
            eprintln!("  {SUITE} cannot be asked now; using what it had last\n  ({error:#})");
            Ok(old)
        }
        (Err(error), None) => Err(error),
    }
}

/// The suite's candidates, downloaded.
fn candidates(cache: &Cache, debs: &Path) -> Result<Packages> {
    let sources = Mirror::find()?.suite(SUITE);
    let apt = Apt::new(cache.path("apt-pc"), debs.to_owned(), "amd64", sources)?;
    let log = cache.log("pc-packages")?;
    cache.timed("pc-packages", Duration::from_secs(40), || {
        for archive in apt.update(&log)? {
            eprintln!("  the security updates of {archive} can't be reached, and aren't used");
        }
        let depends = apt.field("linux-image-cloud-amd64", "Depends")?;
        let kernel = depends
            .split([',', ' '])
            .find(|name| name.starts_with("linux-image-"))
            .context("linux-image-cloud-amd64 depends on no kernel")?;
        let packages = Packages {
            resolved_at: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
            kernel: apt.candidate(kernel)?,
            userland: apt.closure(&USERLAND)?,
        };
        apt.download(&packages.all(), &log)?;
        Ok(packages)
    })
}

impl Packages {
    fn all(&self) -> Vec<Package> {
        let mut all = self.userland.clone();
        all.push(self.kernel.clone());
        all
    }

    fn present(&self, debs: &Path) -> bool {
        self.all().iter().all(|package| debs.join(&package.file).exists())
    }
}

fn initrd(cache: &Cache, kernel: &Artefact, userland: &Artefact, tools: &Path) -> Result<Artefact> {
    let init = fs::read(paths::testbed("pc").join("init"))?;
    let bio = fs::read(tools.join("bio"))?;
    let recipe = Recipe::new("pc-initrd", 1)
        .part("revision", REVISION)
        .input(kernel)
        .input(userland)
        .part("programs", PROGRAMS.join(" "))
        .part("bio", &bio)
        .part("init", &init);
    cache.get(recipe, |shop| {
        let from = userland.path("");
        let mut archive = Archive::merged_usr();
        // Where amd64's ABI has its loader.
        archive.symlink("lib64", "usr/lib64");
        archive.file("usr/bin/busybox", 0o755, &from.join("usr/bin/busybox"))?;
        for applet in ["sh", "mount"] {
            archive.symlink(&format!("usr/bin/{applet}"), "busybox");
        }
        for path in PROGRAMS {
            archive.program(&from, path)?;
        }
        archive.symlink("usr/sbin/mkfs.ext4", "mke2fs");
        archive.file("etc/mke2fs.conf", 0o644, &from.join("etc/mke2fs.conf"))?;
        for path in paths::files_below(&kernel.path("modules"))? {
            let name =
                path.file_name().and_then(|name| name.to_str()).context("a module's name")?;
            archive.file(&format!("modules/{name}"), 0o644, &path)?;
        }
        archive.bytes("usr/bin/bio", 0o755, bio);
        archive.bytes("init", 0o755, init);
        archive.write_to(&shop.out.join("initrd"))
    })
}

/// Our tools for the guest, static: the guest's C library is another one than the host's.
fn tools() -> Result<PathBuf> {
    let target_dir = paths::results("cargo");
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--quiet", "--package", "testbed-tools", "--bins"]);
    cargo.args(["--target", TARGET]).arg("--target-dir").arg(&target_dir);
    cargo.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS", "-C target-feature=+crt-static");
    // It travels in an initramfs: the smaller the better.
    cargo.envs([("CARGO_PROFILE_RELEASE_DEBUG", "0"), ("CARGO_PROFILE_RELEASE_STRIP", "symbols")]);
    build(&mut cargo, "testbed-tools")?;
    Ok(target_dir.join(TARGET).join("release"))
}

/// The backend as its users build it.
pub(crate) fn backend() -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["build", "--release", "--quiet", "--package", "vhost-user-blk"]);
    build(&mut cargo, "vhost-user-blk")?;
    Ok(paths::target().join("release/vhost-user-blk"))
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(paths::root()).stdin(Stdio::null());
    cargo
}

fn build(cargo: &mut Command, what: &str) -> Result<()> {
    if cargo.status().context("starting cargo")?.success() {
        return Ok(());
    }
    bail!("building {what} failed")
}

/// A PC whose memory and disk are shared with the backend that listens at `socket`.
pub(crate) fn machine(guest: &Guest, socket: &Path, boot: &str) -> Command {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35,memory-backend=memory", "-accel", "tcg,thread=multi"]);
    qemu.args(["-cpu", "max", "-smp", "2", "-m", "512M"]);
    qemu.args(["-object", "memory-backend-memfd,id=memory,size=512M,share=on"]);
    qemu.args(["-nodefaults", "-display", "none", "-serial", "stdio"]);
    qemu.arg("-chardev").arg(format!("socket,id=disk,path={}", socket.display()));
    qemu.args(["-device", "vhost-user-blk-pci,chardev=disk,num-queues=2"]);
    qemu.arg("-kernel").arg(&guest.kernel).arg("-initrd").arg(&guest.initrd);
    let cmdline = format!("console=ttyS0 rdinit=/init panic=-1 loglevel=4 xvt.boot={boot}");
    qemu.arg("-append").arg(cmdline);
    qemu
}
