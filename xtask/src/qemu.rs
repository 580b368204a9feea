//! The emulated machine: an arm64 board with virtualization, Xen on it, and dom0 in Xen.

use std::path::PathBuf;
use std::process::Command;

/// RAM begins at 0x4000_0000; QEMU puts Xen at its start and the device tree 128 MiB above.
/// guest-loader copies raw blobs to where it is told, so they are kept clear of both, and
/// low: blobs in the middle of RAM leave no contiguous banks for dom0's direct map.
const KERNEL_AT: u64 = 0x4100_0000;
const INITRD_AT: u64 = 0x4300_0000;
const DEVICE_TREE_AT: u64 = 0x4800_0000;
/// Where an initramfs goes that would reach the device tree.
const LARGE_INITRD_AT: u64 = 0x4a00_0000;

/// How time passes.
pub(crate) enum Mode {
    /// One host thread; virtual time is the number of executed instructions, 1 ns each, and
    /// sleeping costs no time. Two runs of the same input give the same console.
    Deterministic,
    /// A host thread for each processor, real time, a directory of the host as 9p share.
    Fast { share: PathBuf },
}

/// A machine to start.
pub(crate) struct Machine {
    pub(crate) xen: PathBuf,
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
    /// The size of `initrd`, in bytes.
    pub(crate) initrd_size: u64,
    /// Emulated memory and dom0's share of it, in MiB.
    pub(crate) memory: u32,
    pub(crate) dom0_memory: u32,
    pub(crate) vcpus: u32,
    /// Added to dom0's kernel command line.
    pub(crate) cmdline: String,
    pub(crate) mode: Mode,
    /// Name (as serial number) and raw image of each disk.
    pub(crate) disks: Vec<(String, PathBuf)>,
}

impl Machine {
    pub(crate) fn command(&self) -> Command {
        let mut qemu = Command::new("qemu-system-aarch64");
        qemu.args(["-machine", "virt,virtualization=on,gic-version=3", "-cpu", "cortex-a57"]);
        qemu.arg("-smp").arg(self.vcpus.to_string()).arg("-m").arg(self.memory.to_string());
        qemu.args(["-nic", "none", "-display", "none", "-no-reboot"]);
        // panic=-1: a kernel that panicked ends at once, where a delay would be a busy loop.
        let mut cmdline = format!("console=hvc0 rdinit=/init panic=-1 loglevel=4 {}", self.cmdline);
        match &self.mode {
            Mode::Deterministic => {
                qemu.args(["-accel", "tcg,thread=single,tb-size=512"]);
                qemu.args(["-icount", "shift=0,sleep=off"]);
                // A seed, not dtb-randomness=off: that starves the kernels' entropy.
                qemu.args(["-seed", "1", "-rtc", "clock=vm,base=2026-01-01T00:00:00"]);
                qemu.args(["-serial", "stdio", "-monitor", "none"]);
            }
            Mode::Fast { share } => {
                qemu.args(["-accel", "tcg,thread=multi,tb-size=512", "-serial", "mon:stdio"]);
                qemu.arg("-fsdev")
                    .arg(format!("local,id=share,security_model=none,path={}", share.display()));
                qemu.args(["-device", "virtio-9p-device,fsdev=share,mount_tag=share"]);
                cmdline.push_str(" xvt.share");
            }
        }
        for (name, path) in &self.disks {
            // The host's disk is not waited for: virtual time goes on meanwhile, to the next timeout if nobody works.
            let cache = "cache=unsafe";
            qemu.arg("-drive")
                .arg(format!("if=none,id={name},format=raw,{cache},file={}", path.display()));
            qemu.arg("-device").arg(format!("virtio-blk-device,drive={name},serial={name}"));
        }
        qemu.arg("-kernel").arg(&self.xen).arg("-append").arg(format!(
            "dom0_mem={}M dom0_max_vcpus={} console=dtuart bootscrub=0 loglvl=all guest_loglvl=all",
            self.dom0_memory, self.vcpus
        ));
        let kernel = self.kernel.display();
        qemu.arg("-device")
            .arg(format!("guest-loader,addr={KERNEL_AT:#x},kernel={kernel},bootargs={cmdline}"));
        let (at, initrd) = (self.initrd_at(), self.initrd.display());
        qemu.arg("-device").arg(format!("guest-loader,addr={at:#x},initrd={initrd}"));
        qemu
    }

    fn initrd_at(&self) -> u64 {
        if INITRD_AT + self.initrd_size <= DEVICE_TREE_AT { INITRD_AT } else { LARGE_INITRD_AT }
    }
}
