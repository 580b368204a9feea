//! `cargo xtask …`: what people and CI run.

mod apt;
mod architecture;
mod baseline;
mod cache;
mod case;
mod compare;
mod console;
mod cpio;
mod cross;
mod deb;
mod debian;
mod demo;
mod domains;
mod downstream;
mod figures;
mod fuzz;
mod gate;
mod host;
mod image;
mod kernel;
mod log;
mod miri;
mod mirror;
mod paths;
mod pc;
mod peer;
mod progress;
mod qemu;
mod resolution;
mod run;
mod scale;
mod series;
mod shell;
mod source;
mod suite;
mod suites;
// What the comparison is drawn with: a dependency on it would bring all of its own.
#[path = "../../benches/compare/svg.rs"]
mod svg;
mod systemd;
mod testbed;
mod toolchain;
mod toolstack;
mod uboot;
mod vhost_user;
mod xen;
mod xen_tree;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;
use testbed::Testbed;

/// What `testbed/README.md` says at length.
const VARIABLES: &str = "\
Environment:
  XEN_VIRTIO_XEN_SOURCE  an unpacked Xen source tree to build the hypervisor from
  XEN_VIRTIO_MIRROR      the Debian mirror, if not the one the host's apt uses
  XEN_VIRTIO_SECURITY_MIRROR
                         its archive of security updates, if not `debian-security` beside `debian`
  XEN_VIRTIO_CROSS       `debian`: compile for arm64 with Debian's Rust compiler
  XDG_CACHE_HOME         where the cache is, if not in ~/.cache";

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What people and CI run in this workspace")]
enum Xtask {
    /// A stock Debian guest on real Xen lives on our disks, its console shown live.
    Demo,
    /// A guest of QEMU on `vhost-user-blk`, all tests of the workspace, then all cases of the testbed.
    Test(Jobs),
    /// Throw arbitrary registers, requests and xenstore answers at the libraries.
    Fuzz {
        /// How long each target runs.
        #[arg(long, default_value_t = 1)]
        minutes: u64,
        /// Targets to run; all, if none is named.
        targets: Vec<String>,
    },
    /// Run the tests of what is unsafe or shared under Miri, if there is one.
    Miri {
        /// Packages to run the tests of; all that have any, if none is named.
        packages: Vec<String>,
    },
    /// A hostile driver in a guest on real Xen, beside a normal guest.
    Hostile {
        /// Show the whole console.
        #[arg(short, long)]
        verbose: bool,
    },
    /// A guest of QEMU on `vhost-user-blk`: file system, flushes, verified I/O, reboot, restart.
    VhostUser {
        /// Show the whole console.
        #[arg(short, long)]
        verbose: bool,
    },
    /// Instructions, system calls and allocations of a request, against the baseline.
    Gate {
        /// Make what is counted now the baseline.
        #[arg(long)]
        update: bool,
    },
    /// A backend that has the packaged libraries and nothing else of this repository, built and tested.
    Downstream,
    /// Our block device beside its peers and the limit; `--short` ends within five minutes.
    #[command(disable_help_flag = true)]
    Compare {
        /// What the comparison itself takes: see `--help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// The daemon as a Debian package, in target/debian.
    #[command(after_help = VARIABLES)]
    Deb {
        /// What machine it is for; this one's architecture, if none is named.
        #[arg(long)]
        arch: Option<architecture::Architecture>,
        /// Features of the daemon: `imago` for qcow2 and VMDK images.
        #[arg(long, value_delimiter = ',')]
        features: Vec<String>,
    },
    /// Real Xen for Arm64 under emulation.
    #[command(subcommand, after_help = VARIABLES)]
    Testbed(Command),
}

#[derive(Subcommand)]
enum Command {
    /// Install, download and build everything; what was built before is kept.
    Build {
        /// Resolve the suite's candidates anew.
        #[arg(long)]
        update: bool,
    },
    /// List the cases.
    List,
    /// Run cases; the verdict of each is one line.
    Run {
        /// Cases to run.
        #[arg(required_unless_present = "all")]
        cases: Vec<String>,
        /// Run all cases.
        #[arg(long, conflicts_with = "cases")]
        all: bool,
        /// Show the whole console.
        #[arg(short, long)]
        verbose: bool,
        #[command(flatten)]
        jobs: Jobs,
    },
    /// What requests cost a guest, for our backend and for Xen's own, in one deterministic boot.
    Figures,
    /// What requests cost guests that are busy at once, beside one guest's with one disk.
    Scale,
    /// An interactive dom0 console, our daemon running.
    Shell,
}

#[derive(Args)]
struct Jobs {
    /// How many machines run at once; each keeps one processor busy.
    #[arg(short, long, default_value_t = paths::processors())]
    jobs: usize,
}

fn main() -> ExitCode {
    match xtask(Xtask::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True if everything passed.
fn xtask(command: Xtask) -> Result<bool> {
    match command {
        Xtask::Demo => demo::run(),
        Xtask::Miri { packages } => miri::run(&packages),
        Xtask::Fuzz { minutes, targets } => fuzz::run(minutes, &targets),
        Xtask::Test(Jobs { jobs }) => {
            let passed = vhost_user::run(false);
            Ok(suite::workspace_and_cases(jobs)? && passed)
        }
        Xtask::Hostile { verbose } => suite::run(&[case::Case::load("hostile")?], 1, verbose),
        Xtask::VhostUser { verbose } => Ok(vhost_user::run(verbose)),
        Xtask::Downstream => downstream::run(),
        Xtask::Gate { update } => gate::run(update),
        Xtask::Compare { options } => compare::run(&options),
        Xtask::Deb { arch, features } => deb::run(arch, &features),
        Xtask::Testbed(Command::Build { update }) => {
            let testbed = Testbed::build(update)?;
            testbed.daemon()?;
            testbed.versions.print();
            Ok(true)
        }
        Xtask::Testbed(Command::List) => suite::list().map(|()| true),
        Xtask::Testbed(Command::Run { cases, all, verbose, jobs: Jobs { jobs } }) => {
            let cases = if all {
                case::Case::all()
            } else {
                cases.iter().map(|name| case::Case::load(name)).collect()
            };
            suite::run(&cases?, jobs, verbose)
        }
        Xtask::Testbed(Command::Figures) => figures::run(),
        Xtask::Testbed(Command::Scale) => scale::run(),
        Xtask::Testbed(Command::Shell) => shell::run(),
    }
}
