//! One run of a case: its files put together, the machine started and watched, the verdict.

use crate::cache::Lock;
use crate::case::{Case, Content, DAEMON, Hypervisor};
use crate::console::{self, Console};
use crate::cpio::Archive;
use crate::image::Image;
use crate::paths;
use crate::qemu::{Machine, Mode};
use crate::testbed::Testbed;
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// How long a machine may go on after it has said something fatal.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) name: String,
    /// Why it is no pass.
    pub(crate) fault: Option<String>,
    pub(crate) console: Console,
    pub(crate) took: Duration,
    pub(crate) log: PathBuf,
    /// Where the run's files are.
    pub(crate) dir: PathBuf,
    disks: Vec<(String, Image)>,
}

impl Outcome {
    /// A disk of the case, as the run left it.
    pub(crate) fn disk(&self, name: &str) -> Option<&Image> {
        self.disks.iter().find(|(disk, _)| disk == name).map(|(_, image)| image)
    }
}

/// Runs a case. `binaries` is where ours for arm64 are, `echo` sees each line of the console.
pub(crate) fn run(
    testbed: &Testbed,
    binaries: &Path,
    case: &Case,
    echo: &(dyn Fn(&str) + Sync),
) -> Result<Outcome> {
    let dir = paths::results("run").join(&case.name);
    let log = paths::results("logs").join(format!("{}.log", case.name));
    let _lock =
        Lock::take(&dir.with_extension("lock"), &format!("case {} is running already", case.name))?;
    fs::create_dir_all(&dir)?;
    fs::create_dir_all(paths::results("logs"))?;

    let mut disks = disks(testbed, case, &dir)?;
    if case.systemd {
        let root = testbed.systemd()?.root(dir.join("dom0-root.img"))?;
        disks.push(("dom0-root".to_owned(), root));
    }
    let mut machine = machine(testbed, binaries, Some(case), &dir)?;
    machine.disks =
        disks.iter().map(|(name, image)| (name.clone(), image.path().to_owned())).collect();

    let started = Instant::now();
    let Watch { console, in_time, ended_well } =
        watch(machine.command(), &log, case.time_limit, &case.allowed, echo)?;
    let fault = fault(case, &console, in_time, ended_well, &disks);
    let _ = fs::remove_file(&machine.initrd);
    Ok(Outcome {
        name: case.name.clone(),
        fault,
        console,
        took: started.elapsed(),
        log,
        dir,
        disks,
    })
}

/// What a machine said, and how it ended.
pub(crate) struct Watch {
    pub(crate) console: Console,
    pub(crate) in_time: bool,
    pub(crate) ended_well: bool,
}

/// Starts a machine and watches it until its end, or the limit in seconds. `echo` sees each line.
pub(crate) fn watch(
    mut command: Command,
    log: &Path,
    time_limit: u64,
    allowed: &[String],
    echo: &(dyn Fn(&str) + Sync),
) -> Result<Watch> {
    let started = Instant::now();
    // Standard error comes to the console's log by the same pipe.
    let (reader, writer) = std::io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    let program = command.get_program().to_owned();
    let mut qemu = command.spawn().with_context(|| format!("starting {}", program.display()))?;
    drop(command);
    let (sender, lines) = mpsc::channel();
    let log = log.to_owned();
    let reading =
        thread::spawn(move || console::read(reader, &log, started, |line| drop(sender.send(line))));

    let mut console = Console::default();
    let mut deadline = started + Duration::from_secs(time_limit);
    let in_time = loop {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                echo(&line);
                let healthy = console.fatal.is_none();
                console.take(&line, allowed);
                if healthy && console.fatal.is_some() {
                    deadline = deadline.min(Instant::now() + LAST_WORDS);
                }
            }
            Err(RecvTimeoutError::Timeout) => break false,
            Err(RecvTimeoutError::Disconnected) => break true,
        }
    };
    let ended_well = end(&mut qemu, in_time)?;
    if let Ok(read) = reading.join() {
        read?;
    }
    Ok(Watch { console, in_time, ended_well })
}

fn fault(
    case: &Case,
    console: &Console,
    in_time: bool,
    ended_well: bool,
    disks: &[(String, Image)],
) -> Option<String> {
    if !in_time && console.fatal.is_none() {
        return Some(format!("not done after {} s", case.time_limit));
    }
    if let Some(fault) = console.fault() {
        return Some(fault);
    }
    if !ended_well {
        return Some("QEMU did not end well".to_owned());
    }
    let checked = disks.iter().filter(|(name, _)| case.fsck.contains(name));
    checked.map(|(_, image)| image.fsck()).find_map(Result::err).map(|error| format!("{error:#}"))
}

/// Waits for the machine's end, or brings it about.
fn end(qemu: &mut Child, by_itself: bool) -> Result<bool> {
    if !by_itself {
        qemu.kill()?;
    }
    Ok(qemu.wait()?.success() && by_itself)
}

fn disks(testbed: &Testbed, case: &Case, dir: &Path) -> Result<Vec<(String, Image)>> {
    case.disks
        .iter()
        .map(|(name, content)| {
            let path = dir.join(format!("{name}.img"));
            let image = match content {
                Content::Rootfs => Image::copy(&testbed.rootfs(), path)?,
                Content::Empty(size) => Image::empty(size << 20, path)?,
            };
            Ok((name.clone(), image))
        })
        .collect()
}

/// The machine of a case, or of the shell: its initramfs is written to `dir`.
pub(crate) fn machine(
    testbed: &Testbed,
    binaries: &Path,
    case: Option<&Case>,
    dir: &Path,
) -> Result<Machine> {
    let initrd = dir.join("initrd.cpio");
    let mut file = BufWriter::new(File::create(&initrd)?);
    let kernel = match case.filter(|case| case.systemd) {
        Some(case) => {
            let systemd = testbed.systemd()?;
            let mut archive = systemd.initramfs(case)?;
            guests(&mut archive, "payload/", testbed, binaries, Some(case))?;
            archive.write(&mut file)?;
            systemd.kernel()
        }
        None => {
            std::io::copy(&mut File::open(testbed.dom0())?, &mut file)?;
            cargo_of(testbed, binaries, case)?.write(&mut file)?;
            testbed.kernel()
        }
    };
    file.flush().with_context(|| format!("writing {}", initrd.display()))?;
    Ok(Machine {
        xen: match case.map(|case| case.hypervisor) {
            Some(Hypervisor::Debian) => testbed.xen_debian(),
            Some(Hypervisor::Ioreq) | None => testbed.xen(),
        },
        kernel,
        initrd_size: fs::metadata(&initrd)?.len(),
        initrd,
        memory: case.map_or(2048, |case| case.memory),
        dom0_memory: case.map_or(768, |case| case.dom0_memory),
        vcpus: case.map_or(2, |case| case.vcpus),
        cmdline: case.map_or("xvt.shell".to_owned(), |case| case.cmdline.clone()),
        mode: Mode::Deterministic,
        disks: Vec::new(),
    })
}

/// What a run adds to dom0's initramfs: the case, our binaries, the guests' kernels.
fn cargo_of(testbed: &Testbed, binaries: &Path, case: Option<&Case>) -> Result<Archive> {
    let mut archive = Archive::default();
    for script in ["lib.sh", "run.sh", "shell.sh"] {
        archive.file(&format!("testbed/{script}"), 0o644, &paths::testbed("dom0").join(script))?;
    }
    if let Some(case) = case {
        archive.file("testbed/case.sh", 0o644, &case.script)?;
        archive.bytes("testbed/transport", 0o644, case.transport.name());
    }
    archive.file("usr/bin/bio", 0o755, &binaries.join("bio"))?;
    for example in case.map_or(vec![DAEMON], |case| case.examples().collect()) {
        archive.file(&format!("usr/bin/{example}"), 0o755, &binaries.join(example))?;
    }
    guests(&mut archive, "", testbed, binaries, case)?;
    Ok(archive)
}

/// Adds what guests boot, below `prefix`.
fn guests(
    archive: &mut Archive,
    prefix: &str,
    testbed: &Testbed,
    binaries: &Path,
    case: Option<&Case>,
) -> Result<()> {
    let path = |name: &str| format!("{prefix}guest/{name}");
    archive.file(&path("slim/Image"), 0o644, &testbed.kernel())?;
    archive.bytes(&path("slim/initrd"), 0o644, slim_initrd(testbed, binaries, case)?);
    if case.is_some_and(|case| case.uboot) {
        archive.file(&path("u-boot/u-boot.bin"), 0o644, &testbed.uboot()?)?;
    }
    if case.is_none_or(|case| case.stock_guest) {
        let [kernel, initrd] = testbed.stock();
        archive.file(&path("stock/vmlinuz"), 0o644, &kernel)?;
        archive.file(&path("stock/initrd"), 0o644, &initrd)?;
    }
    Ok(())
}

fn slim_initrd(testbed: &Testbed, binaries: &Path, case: Option<&Case>) -> Result<Vec<u8>> {
    let mut initrd = fs::read(testbed.guest())?;
    let mut archive = Archive::default();
    let tools = case.into_iter().flat_map(|case| &case.tools).map(String::as_str);
    for tool in ["bio"].into_iter().chain(tools) {
        archive.file(&format!("usr/bin/{tool}"), 0o755, &binaries.join(tool))?;
    }
    for script in paths::files_below(&paths::testbed("guest"))? {
        if let Some(name) =
            script.file_name().and_then(|name| name.to_str()).filter(|name| name.ends_with(".sh"))
        {
            archive.file(&format!("scripts/{name}"), 0o644, &script)?;
        }
    }
    archive.write(&mut initrd)?;
    Ok(initrd)
}
