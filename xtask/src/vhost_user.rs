//! `cargo xtask vhost-user`: a real guest on `vhost-user-blk`, rebooted and started again.

use crate::cache::{Cache, Lock};
use crate::console::Console;
use crate::image::Image;
use crate::pc::{self, Guest};
use crate::progress::human;
use crate::run::{self, Watch};
use crate::{host, paths};
use anyhow::{Context as _, Result, bail};
use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const NAME: &str = "vhost-user";
const DISK: u64 = 256 << 20;
/// Of the disk's identifier, which the guest looks at.
const SERIAL: &str = "testbed-disk";
/// Real time for one machine's life, of which the first boots twice.
const TIME_LIMIT: u64 = 600;
const LAST_LINES: usize = 30;

/// Runs the case, and says in a line how it went; true if it passed, or can't be run here.
pub(crate) fn run(verbose: bool) -> bool {
    let verdict = case(verbose);
    match &verdict {
        Ok(Verdict::Passed { checks, took }) => {
            println!("PASS {NAME:<20} {checks:>3} checks  {}", human(*took));
        }
        Ok(Verdict::Skipped(why)) => println!("SKIP {NAME:<20} {why}"),
        Err(error) => println!("FAIL {NAME:<20} {error:#}"),
    }
    verdict.is_ok()
}

enum Verdict {
    Passed { checks: usize, took: Duration },
    Skipped(String),
}

fn case(verbose: bool) -> Result<Verdict> {
    if std::env::consts::ARCH != "x86_64" {
        return Ok(Verdict::Skipped("its guest is a PC, and runs on x86_64 hosts only".to_owned()));
    }
    let guest = {
        let cache = Cache::open()?;
        if let Err(error) = host::ensure_packages(&cache, &pc::PACKAGES) {
            return Ok(Verdict::Skipped(format!("{error:#}")));
        }
        Guest::build(&cache)?
    };
    let backend = pc::backend()?;
    println!("    Linux {} of Debian, on {}", guest.version, backend.display());
    let started = Instant::now();
    let checks = serve(&backend, &guest, verbose)?;
    Ok(Verdict::Passed { checks, took: started.elapsed() })
}

/// The backend's life, and within it those of two machines; gives how much was checked.
fn serve(program: &Path, guest: &Guest, verbose: bool) -> Result<usize> {
    let dir = paths::results("run").join(NAME);
    fs::create_dir_all(&dir)?;
    fs::create_dir_all(paths::results("logs"))?;
    let _lock = Lock::take(&dir.with_extension("lock"), "the case is running already")?;
    let image = Image::empty(DISK, dir.join("disk.img"))?;
    let backend = Backend::start(program, image.path(), &dir.join("socket"))?;
    let mut checks = 0;
    for boot in ["first", "again"] {
        let log = paths::results("logs").join(format!("{NAME}-{boot}.log"));
        let machine = pc::machine(guest, &dir.join("socket"), boot);
        let show = |line: &str| {
            if verbose || line.starts_with("@@ ") || line.starts_with("%% ") {
                println!("    {line}");
            }
        };
        let Watch { mut console, in_time, ended_well } =
            run::watch(machine, &log, TIME_LIMIT, &[], &show)?;
        // QEMU ends when the guest powers off; nobody else on its console says so.
        console.powered_off = ended_well;
        checks += console.checks;
        if let Some(fault) = fault(&console, in_time) {
            let from = console.lines.len().saturating_sub(LAST_LINES);
            console.lines[from..].iter().for_each(|line| println!("  | {line}"));
            bail!("boot {boot}: {fault}; the whole console: {}", log.display());
        }
    }
    backend.stop()?;
    image.fsck()?;
    Ok(checks)
}

fn fault(console: &Console, in_time: bool) -> Option<String> {
    if !in_time && console.fatal.is_none() {
        return Some(format!("not done after {TIME_LIMIT} s"));
    }
    console.fault()
}

/// A running backend, killed when dropped.
struct Backend {
    child: Child,
    log: PathBuf,
}

impl Backend {
    fn start(program: &Path, image: &Path, socket: &Path) -> Result<Self> {
        let log = paths::results("logs").join(format!("{NAME}-backend.log"));
        let mut command = Command::new(program);
        command.arg("--socket").arg(socket).arg("--image").arg(image);
        command.args(["--queues", "2", "--serial", SERIAL]);
        let child = command
            .stdin(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut backend = Self { child, log };
        let patience = Instant::now();
        while UnixStream::connect(socket).is_err() {
            if backend.child.try_wait()?.is_some() || patience.elapsed() > Duration::from_secs(30) {
                bail!("the backend doesn't listen; it says:\n{}", backend.says());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(backend)
    }

    fn says(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it as a service manager does; nothing may have gone wrong for it.
    fn stop(mut self) -> Result<()> {
        // SAFETY: the child has not been waited for, so its number is still its own.
        unsafe { libc::kill(self.child.id().cast_signed(), libc::SIGTERM) };
        let status = self.child.wait()?;
        let said = self.says();
        if !status.success() || said.contains("WARN") || said.contains("ERROR") {
            bail!("the backend ended with {status}; it said:\n{said}");
        }
        Ok(())
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
