//! What runs inside: the initramfs of dom0 and those of the guests.

use crate::cache::{Artefact, Cache, Recipe};
use crate::cpio::Archive;
use crate::paths;
use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;

/// Raise it when the steps below change what they make.
const REVISION: &str = "4";

/// The toolstack in dom0; `xl` and its kind live below /usr/lib/xen-VERSION/bin.
const XEN_PROGRAMS: [&str; 8] = [
    "libxl-save-helper",
    "xen-init-dom0",
    "xenconsole",
    "xenconsoled",
    "xenperf",
    "xenstored",
    "xentop",
    "xl",
];
/// The second one begins the range of those that the processes of guests run as.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
    xen-virtio-guest:x:100000:100000::/nonexistent:/bin/false\n";
const DOM0_PROGRAMS: [&str; 12] = [
    "usr/bin/setfattr",
    "usr/bin/xenstore",
    "usr/bin/xenstore-exists",
    "usr/bin/xenstore-list",
    "usr/bin/xenstore-ls",
    "usr/bin/xenstore-read",
    "usr/bin/xenstore-rm",
    "usr/bin/xenstore-watch",
    "usr/bin/xenstore-write",
    "usr/sbin/dmsetup",
    "usr/sbin/mke2fs",
    "usr/sbin/e2fsck",
];
const DOM0_FILES: [&str; 2] = ["etc/xen/xl.conf", "etc/mke2fs.conf"];
const GUEST_PROGRAMS: [&str; 2] = ["usr/sbin/mke2fs", "usr/sbin/e2fsck"];

/// dom0's initramfs without what a run adds; the artefact holds `dom0.cpio`.
pub(crate) fn dom0(cache: &Cache, tree: &Artefact) -> Result<Artefact> {
    let (init, block) = (read("dom0/init")?, read("dom0/block")?);
    let recipe = Recipe::new("dom0", 2)
        .part("revision", REVISION)
        .input(tree)
        .part("init", &init)
        .part("block", &block)
        .part("users", PASSWD)
        .part("programs", [&XEN_PROGRAMS[..], &DOM0_PROGRAMS, &DOM0_FILES].concat().join(" "));
    cache.get(recipe, |shop| {
        let from = tree.path("");
        let mut archive = base(&from)?;
        let xen = xen_dir(&from)?;
        for name in XEN_PROGRAMS {
            archive.program(&from, &format!("{xen}/{name}"))?;
            archive.symlink(&format!("usr/sbin/{name}"), &format!("/{xen}/{name}"));
        }
        for path in DOM0_PROGRAMS {
            archive.program(&from, path)?;
        }
        // glibc opens it by name when a thread is cancelled, which libxl does.
        archive.library(&from, "libgcc_s.so.1")?;
        for path in DOM0_FILES {
            archive.file(path, 0o644, &from.join(path))?;
        }
        archive.symlink("usr/sbin/mkfs.ext4", "mke2fs");
        archive.bytes("etc/passwd", 0o644, PASSWD);
        archive.bytes("etc/xen/scripts/block", 0o755, block);
        archive.bytes("init", 0o755, init);
        for dir in ["share", "var/lib/xenstored", "var/log"] {
            archive.dir(dir);
        }
        archive.symlink("var/run", "../run");
        archive.symlink("var/lock", "../run/lock");
        archive.write_to(&shop.out.join("dom0.cpio"))
    })
}

/// The slim guest's initramfs without scripts and tools; the artefact holds `guest.cpio`.
pub(crate) fn guest(cache: &Cache, tree: &Artefact) -> Result<Artefact> {
    let init = read("guest/init")?;
    let recipe = Recipe::new("guest", 1)
        .part("revision", REVISION)
        .input(tree)
        .part("init", &init)
        .part("programs", GUEST_PROGRAMS.join(" "));
    cache.get(recipe, |shop| {
        let from = tree.path("");
        let mut archive = base(&from)?;
        for path in GUEST_PROGRAMS {
            archive.program(&from, path)?;
        }
        archive.symlink("usr/sbin/mkfs.ext4", "mke2fs");
        archive.file("etc/mke2fs.conf", 0o644, &from.join("etc/mke2fs.conf"))?;
        archive.bytes("init", 0o755, init);
        archive.write_to(&shop.out.join("guest.cpio"))
    })
}

/// The initramfs that carries a stock kernel to its root file system; the artefact holds `initrd`.
pub(crate) fn stock_initrd(cache: &Cache, tree: &Artefact, kernel: &Artefact) -> Result<Artefact> {
    let init = read("guest/stock-init")?;
    let recipe = Recipe::new("stock-initrd", 1)
        .part("revision", REVISION)
        .input(tree)
        .input(kernel)
        .part("init", &init);
    cache.get(recipe, |shop| {
        let mut archive = Archive::default();
        for dir in ["proc", "sys", "dev", "root"] {
            archive.dir(dir);
        }
        archive.file("bin/busybox", 0o755, &tree.path("usr/bin/busybox"))?;
        for applet in [
            "sh",
            "mount",
            "umount",
            "insmod",
            "sed",
            "cat",
            "sleep",
            "uname",
            "poweroff",
            "switch_root",
        ] {
            archive.symlink(&format!("bin/{applet}"), "busybox");
        }
        for path in paths::files_below(&kernel.path("modules"))? {
            let name =
                path.file_name().and_then(|name| name.to_str()).context("a module's name")?;
            archive.file(&format!("modules/{name}"), 0o644, &path)?;
        }
        archive.bytes("init", 0o755, init);
        archive.write_to(&shop.out.join("initrd"))
    })
}

fn base(tree: &Path) -> Result<Archive> {
    let mut archive = Archive::merged_usr();
    archive.file("usr/bin/busybox", 0o755, &tree.join("usr/bin/busybox"))?;
    archive.symlink("usr/bin/sh", "busybox");
    for applet in ["mount", "mkdir"] {
        archive.symlink(&format!("usr/bin/{applet}"), "busybox");
    }
    Ok(archive)
}

/// `usr/lib/xen-4.20/bin`, whichever version it is.
fn xen_dir(tree: &Path) -> Result<String> {
    fs::read_dir(tree.join("usr/lib"))?
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .find(|name| {
            name.starts_with("xen-") && tree.join("usr/lib").join(name).join("bin/xl").exists()
        })
        .map(|name| format!("usr/lib/{name}/bin"))
        .context("the Xen packages bring no usr/lib/xen-…/bin/xl")
}

fn read(name: &str) -> Result<Vec<u8>> {
    let path = paths::testbed(name);
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}
