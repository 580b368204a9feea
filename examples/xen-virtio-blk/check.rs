//! `xen-virtio-blk check`: what this domain can do as a backend, and what to do about the rest.

mod confinement;
mod finding;

use std::{error::Error, fmt, fs, io, os::fd::AsFd, path::Path, process::ExitCode};

use backend_process::{chain, output};
use rustix::io::Errno;

use virtio_blk_dev::UringEngine;
use xen_evtchn::Evtchn;
use xen_foreignmem::{Gntdev, Privcmd};
use xen_ioreq::{DeviceModel, XenDeviceModel, eventfd::EventFds};
use xen_virtio_backend::daemon;

use finding::{Finding, Verdict};

/// A domain id that Xen never gives to a guest: the highest below the reserved ones
/// (`DOMID_FIRST_RESERVED`, xen/include/public/xen.h).
const NO_SUCH_DOMAIN: u16 = 0x7fef;

/// Prints every finding; fails if something is missing that no disk can do without.
pub fn run() -> ExitCode {
    let findings = [
        hypervisor(),
        device("privcmd", "xen-privcmd", Privcmd::open(NO_SUCH_DOMAIN).map(drop)),
        device("evtchn", "xen-evtchn", Evtchn::open().map(drop)),
        grants(),
        xenstore(),
        ioreq_server(),
        irqfd(),
        unpopulated_memory(),
        io_uring(),
    ];
    let findings: Vec<_> = findings.into_iter().chain(confinement::findings()).collect();
    for finding in &findings {
        print(finding);
    }
    if findings.iter().any(|finding| matches!(finding.verdict, Verdict::Missing { .. })) {
        print("\nThis domain can't serve virtio disks yet: see the lines marked MISSING.");
        return ExitCode::FAILURE;
    }
    print("\nThis domain can serve virtio disks.");
    ExitCode::SUCCESS
}

/// Prints a line, as far as somebody reads it: the answer is the exit code.
fn print(line: impl fmt::Display) {
    let _ = output::line(line);
}

fn hypervisor() -> Finding {
    let read = |node: &str| {
        fs::read_to_string(format!("/sys/hypervisor/{node}"))
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let version = || {
        Some(format!(
            "{}.{}{}",
            read("version/major")?,
            read("version/minor")?,
            read("version/extra")?
        ))
    };
    match read("type") {
        Some(kind) if kind == "xen" => Finding {
            what: "hypervisor",
            found: format!("Xen {}", version().unwrap_or_else(|| "of unknown version".into())),
            verdict: Verdict::Fine,
        },
        // The kernel may lack CONFIG_XEN_SYS_HYPERVISOR; the other device nodes decide.
        None if Path::new("/proc/xen").exists() => Finding {
            what: "hypervisor",
            found: "Xen (its version isn't shown: no /sys/hypervisor)".into(),
            verdict: Verdict::Fine,
        },
        other => Finding {
            what: "hypervisor",
            found: other.unwrap_or_else(|| "none: /sys/hypervisor/type isn't there".into()),
            verdict: Verdict::Missing {
                remedy: "boot this system as dom0 or a driver domain of Xen".into(),
            },
        },
    }
}

fn device(name: &'static str, module: &str, opened: io::Result<()>) -> Finding {
    let what = match name {
        "privcmd" => "/dev/xen/privcmd",
        "evtchn" => "/dev/xen/evtchn",
        _ => "/dev/xen/gntdev",
    };
    let verdict = match &opened {
        Ok(()) => Verdict::Fine,
        Err(error) => Verdict::Missing { remedy: open_remedy(error, module) },
    };
    Finding {
        what,
        found: opened.map_or_else(|error| chain(&error).to_string(), |()| "opens".into()),
        verdict,
    }
}

fn open_remedy(error: &io::Error, module: &str) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => format!("modprobe {module}, or build the kernel with it"),
        io::ErrorKind::PermissionDenied => "run as root, or give this user access to it".into(),
        _ => format!("look at the kernel's log for {module}"),
    }
}

fn grants() -> Finding {
    let mut finding = device("gntdev", "xen-gntdev", Gntdev::open(NO_SUCH_DOMAIN).map(drop));
    if let (Verdict::Fine, Ok(limit)) =
        (&finding.verdict, fs::read_to_string("/sys/module/xen_gntdev/parameters/limit"))
    {
        finding.found = format!("opens; at most {} grants a mapping", limit.trim());
    }
    finding
}

fn xenstore() -> Finding {
    let what = "xenstore";
    match daemon::open() {
        Ok(_) => Finding { what, found: "answers".into(), verdict: Verdict::Fine },
        Err(error) => Finding {
            what,
            found: error.source().map_or_else(String::new, |source| chain(source).to_string()),
            verdict: Verdict::Missing { remedy: error.to_string() },
        },
    }
}

/// Asks about a domain that isn't: Xen looks for it only if it knows the hypercall at all.
fn ioreq_server() -> Finding {
    let what = "Xen's IOREQ servers";
    let asked = Privcmd::open(NO_SUCH_DOMAIN)
        .and_then(|privcmd| XenDeviceModel::new(privcmd.into()).nr_vcpus());
    let Err(error) = asked else {
        return Finding { what, found: "answer".into(), verdict: Verdict::Fine };
    };
    let (found, verdict) = match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::SRCH) => ("answer".into(), Verdict::Fine),
        Some(Errno::NOSYS | Errno::OPNOTSUPP) => (
            format!("not in this Xen ({error})"),
            Verdict::Missing {
                remedy: "build Xen with CONFIG_EXPERT=y and CONFIG_IOREQ_SERVER=y; \
                         Debian's arm64 package is built without"
                    .into(),
            },
        ),
        Some(Errno::PERM | Errno::ACCESS) => (
            format!("refused ({error})"),
            Verdict::Missing {
                remedy: "run in dom0, or give this domain the device-model right in the XSM policy; in a \
                         driver domain boot the kernel with xen_privcmd.unrestricted=1"
                    .into(),
            },
        ),
        _ => (
            format!("can't be asked ({error})"),
            Verdict::Missing { remedy: "correct what is wrong with /dev/xen/privcmd first".into() },
        ),
    };
    Finding { what, found, verdict }
}

/// Interrupts raised by the kernel: undoing what was never done says whether it could be.
fn irqfd() -> Finding {
    let asked = Privcmd::open(NO_SUCH_DOMAIN).and_then(|privcmd| {
        XenDeviceModel::new(privcmd.into()).irqfd(32, io::stderr().as_fd(), false)
    });
    eventfd("irqfd", asked, "interrupts cost some 2 % of a small request more")
}

fn eventfd(what: &'static str, asked: io::Result<()>, without: &str) -> Finding {
    match asked.err().and_then(|error| error.raw_os_error()).map(Errno::from_raw_os_error) {
        Some(Errno::OPNOTSUPP | Errno::NOTTY) => Finding {
            what,
            found: format!("not in this kernel: {without}"),
            verdict: Verdict::Lacking {
                remedy: "build dom0's kernel (Linux 6.8 or newer) with CONFIG_XEN_PRIVCMD_EVENTFD=y, for backends \
                         that use it"
                    .into(),
            },
        },
        // Anything else is said of the nonsense that was asked, by code that is there.
        _ => Finding { what, found: "in this kernel".into(), verdict: Verdict::Fine },
    }
}

/// Foreign mappings need page frames without memory behind them: Xen offers "extended regions" for
/// them in the device tree, and the kernel must be built to take them.
fn unpopulated_memory() -> Finding {
    let what = "unpopulated memory";
    let reg = fs::read("/proc/device-tree/hypervisor/reg").unwrap_or_default();
    // Entries of two address and two size cells; the first is the grant table's (Linux,
    // Documentation/devicetree/bindings/arm/xen.txt).
    let sizes = reg.chunks_exact(16).skip(1).filter_map(|entry| entry[8..].try_into().ok());
    let bytes: u64 = sizes.map(u64::from_be_bytes).sum();
    if bytes == 0 {
        return Finding {
            what,
            found: "Xen offers no extended regions".into(),
            verdict: Verdict::Lacking {
                remedy: "every page mapped from a guest costs this domain a page of its own memory: use Xen \
                         4.16 or newer without ext_regions=no, or grant_usage=1 in xl.cfg"
                    .into(),
            },
        };
    }
    let found = format!("Xen offers {} MiB of extended regions", bytes >> 20);
    match kernel_option("CONFIG_XEN_UNPOPULATED_ALLOC") {
        Some(false) => Finding {
            what,
            found: format!("{found}, but this kernel doesn't use them"),
            verdict: Verdict::Lacking {
                remedy:
                    "build the kernel with CONFIG_XEN_UNPOPULATED_ALLOC=y, or use grant_usage=1"
                        .into(),
            },
        },
        Some(true) => Finding { what, found, verdict: Verdict::Fine },
        None => Finding {
            what,
            found: format!(
                "{found}; whether this kernel uses them is unknown, as it has no /boot/config-* file"
            ),
            verdict: Verdict::Fine,
        },
    }
}

/// The engine that disks are served by where it can be had.
fn io_uring() -> Finding {
    let what = "io_uring";
    match UringEngine::check() {
        Ok(()) => {
            Finding { what, found: "in this kernel, and allowed".into(), verdict: Verdict::Fine }
        }
        Err(error) => Finding {
            what,
            found: "can't be used: disks are served by the engine sync".into(),
            verdict: Verdict::Lacking { remedy: chain(&error).to_string() },
        },
    }
}

/// Whether the running kernel was built with `option`, if its configuration is where Debian puts it.
fn kernel_option(option: &str) -> Option<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").ok()?;
    let config = fs::read_to_string(format!("/boot/config-{}", release.trim())).ok()?;
    Some(config.lines().any(|line| line == format!("{option}=y")))
}
