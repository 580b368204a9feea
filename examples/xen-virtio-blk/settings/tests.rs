use std::{fs, path::Path};

use backend_process::chain;
use clap::Parser;
use rustix::thread::{CpuSet, sched_getaffinity};
use tempfile::NamedTempFile;
use virtio_blk_dev::{Rate, Serial};
use virtio_worker::Cpu;
use xen_virtio_backend::TransportKind;

use super::*;
use crate::args::{Cli, Command};

/// The command line of `run` with these options and a file of this text.
fn command_line(text: &str, options: &[&str]) -> (NamedTempFile, RunArgs) {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), text).unwrap();
    let fixed = ["xen-virtio-blk", "run", "--config", file.path().to_str().unwrap()];
    let Command::Run(args) = Cli::parse_from(fixed.iter().chain(options)).command else {
        panic!("another command");
    };
    (file, *args)
}

fn settings(all: DiskSettings, text: &str) -> Result<Settings, SettingsError> {
    Settings::with_tables(all, ConfigFile::parse(Path::new("disks.toml"), text)?.disks)
}

#[test]
fn a_table_overrides_what_it_names_for_its_image_alone() {
    let all = DiskSettings { queues: 3, ..DiskSettings::default() };
    let text = r#"
        ["/images/db.img"]
        serial = "db-0"
        engine = "io_uring"
        direct = true
        logical_block_size = 4096
        queues = 2
        cache = "writethrough"
        iops = 500
        bps = "100M/1G"
        cpus = "0-1,3"
        poll_us = 0
        discard = false

        ["/images/old.qcow2"]
        format = "qcow2"
    "#;
    let settings = settings(all, text).unwrap();
    let disk = settings.of(Path::new("/images/db.img"));
    assert_eq!(disk.serial, Some(Serial::new("db-0").unwrap()));
    assert_eq!((disk.engine, disk.direct, disk.queues), (EngineKind::IoUring, true, 2));
    assert_eq!((disk.cache, disk.poll, disk.discard), (Cache::Writethrough, Duration::ZERO, false));
    assert_eq!(disk.limits.ops, Some(Rate { per_second: 500, burst: 500 }));
    assert_eq!(disk.limits.bytes, Some(Rate { per_second: 100 << 20, burst: 1 << 30 }));
    assert_eq!(disk.cpus.of_queue(2), Cpu::new(3));
    assert_eq!(disk.logical_block_size, Some(4096));
    let old = settings.of(Path::new("/images/old.qcow2"));
    assert_eq!((old.format, old.engine, old.queues), (ImageFormat::Qcow2, EngineKind::Sync, 3));
    let other = settings.of(Path::new("/images/other.img"));
    assert_eq!((other.format, other.queues, other.discard), (ImageFormat::Raw, 3, true));
    for disk in [disk, old, other] {
        let bytes = postcard::to_stdvec(disk).unwrap();
        assert_eq!(postcard::from_bytes::<DiskSettings>(&bytes).as_ref(), Ok(disk), "by serde");
    }
}

/// Otherwise its bytes would be served as they are, and the guest would overwrite the container.
#[test]
fn a_table_holds_for_its_image_by_whatever_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::write(path("disk.qcow2"), []).unwrap();
    fs::write(path("other.img"), []).unwrap();
    std::os::unix::fs::symlink("disk.qcow2", path("link")).unwrap();
    let text = format!(
        "[{:?}]\nformat = \"qcow2\"\n[{:?}]\nqueues = 2",
        path("disk.qcow2"),
        path("missing"),
    );
    let settings = settings(DiskSettings::default(), &text).unwrap();
    for alias in ["disk.qcow2", "link", "./disk.qcow2"] {
        assert_eq!(settings.of(&path(alias)).format, ImageFormat::Qcow2, "{alias}");
    }
    assert_eq!(settings.of(&path("other.img")).format, ImageFormat::Raw);
    assert_eq!(settings.of(&path("missing")).queues, 2);
    assert_eq!(settings.of(&path("gone")).queues, 1);
    let unmatched =
        |images: &[&str]| settings.unmatched(&images.iter().map(|name| path(name)).collect()).len();
    assert_eq!((unmatched(&[]), unmatched(&["link"]), unmatched(&["link", "missing"])), (2, 1, 0));
}

#[test]
fn what_is_wrong_in_the_file_is_named() {
    for (line, hint) in [
        ("iosp = 5", "iosp"),
        ("format = \"vhd\"", "vhd"),
        ("format = \"qcow2\"\ndirect = true", "direct"),
        ("engine = \"threads\"", "threads"),
        ("logical_block_size = 4095", "4095: a logical block size is a power of two from 512"),
        ("logical_block_size = 256", "from 512 to 65536"),
        ("format = \"qcow2\"\nlogical_block_size = 4096", "for raw images"),
        ("queues = 0", "from 1 to 256"),
        ("queues = 257", "from 1 to 256"),
        ("cache = \"unsafe\"", "unsafe"),
        ("iops = \"fast\"", "fast"),
        ("bps = 0", "should be a rate"),
        ("cpus = \"1-0\"", "1-0"),
        ("poll_us = -1", "-1"),
        ("poll_us = 1000001", "1000001"),
        ("serial = \"of more than twenty bytes\"", "of more than twenty bytes"),
    ] {
        let error = settings(DiskSettings::default(), &format!("[\"/a.img\"]\n{line}"));
        let error = chain(&error.unwrap_err()).to_string();
        assert!(error.contains(hint), "{line}: {error}");
    }
    let error = settings(DiskSettings::default(), "[disk]\nqueues = 1").unwrap_err();
    assert!(error.to_string().contains("absolute path"), "{error}");
}

#[test]
fn a_setting_outside_of_a_table_is_named_and_shown_where_it_belongs() {
    let error = settings(DiskSettings::default(), "queues = 2").unwrap_err().to_string();
    for part in ["disks.toml", "queues", "outside of a table", "[\"/images/db.img\"]"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_wrong_file_is_told_of_once() {
    let error = settings(DiskSettings::default(), "[\"/a.img\"]\niosp = 5").unwrap_err();
    let (text, shown) = (error.to_string(), format!("{:#}", anyhow::Error::from(error)));
    assert_eq!(shown.matches("iosp").count(), text.matches("iosp").count() + 2, "{shown}");
    assert_eq!(shown.matches("unknown field").count(), 1, "{shown}");
}

#[test]
fn a_format_that_this_build_cannot_serve_is_refused_at_the_start() {
    let text = "[\"/a.img\"]\nqueues = 2\n[\"/b.img\"]\nformat = \"qcow2\"";
    let (_file, args) = command_line(text, &[]);
    let load = |formats: &[ImageFormat]| {
        Settings::load_where(&args, Ok(()), |format| formats.contains(&format))
    };
    load(&[ImageFormat::Raw, ImageFormat::Qcow2]).unwrap();
    let error = load(&[ImageFormat::Raw]).unwrap_err().to_string();
    for part in ["/b.img", "qcow2", "--features imago"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(Settings::load(&args).is_ok(), cfg!(feature = "imago"));
}

#[test]
fn a_cpu_that_this_process_may_not_run_on_is_refused_at_the_start_wherever_it_is_named() {
    let allowed = sched_getaffinity(None).unwrap();
    let Some(cpu) = (0..CpuSet::MAX_CPU).find(|cpu| !allowed.is_set(*cpu)) else {
        return eprintln!("skipped: this process may run on every CPU that there can be");
    };
    let list = cpu.to_string();
    for (text, options) in [
        (String::new(), vec!["--cpus", &list]),
        (format!("[\"/a.img\"]\ncpus = \"{list}\""), Vec::new()),
    ] {
        let (_file, args) = command_line(&text, &options);
        let error = Settings::load(&args).unwrap_err();
        assert!(
            matches!(error, SettingsError::Cpu(found) if found.number() == cpu),
            "{text}: {error}"
        );
    }
}

#[test]
fn io_uring_is_chosen_where_it_can_be_had_and_never_replaced_in_silence() {
    use EngineKind::{IoUring, Sync};
    let no = || Err(UringError::Missing);
    assert_eq!(choose([None], None, Ok(())).unwrap(), IoUring);
    assert_eq!(choose([Some(Sync)], Some(Sync), Ok(())).unwrap(), Sync);
    assert_eq!(choose([None], None, no()).unwrap(), Sync);
    assert!(choose([Some(IoUring)], Some(IoUring), no()).is_err());
    let of_one_disk = choose([Some(IoUring), None], None, no()).unwrap_err().to_string();
    assert!(of_one_disk.contains("io_uring"), "{of_one_disk}");
}

#[test]
fn a_file_that_isnt_there_is_named() {
    let error = ConfigFile::read(Path::new("/nowhere/disks.toml")).unwrap_err().to_string();
    assert!(error.contains("/nowhere/disks.toml"), "{error}");
}

#[test]
fn a_guest_may_have_the_threads_of_the_greatest_disk_for_each_of_its_disks() {
    let all = DiskSettings { queues: 2, ..DiskSettings::default() };
    let threads = |all: &DiskSettings, text, processors| {
        settings(all.clone(), text).unwrap().threads(processors)
    };
    let sync = DiskSettings { engine: EngineKind::Sync, ..all.clone() };
    assert_eq!(threads(&sync, "", 8), 16 * 2);
    assert_eq!(threads(&sync, "[\"/a.img\"]\nqueues = 6\n", 8), 16 * 6);
    // What the kernel starts for each of the io_urings.
    let uring = DiskSettings { engine: EngineKind::IoUring, ..all };
    assert_eq!(threads(&uring, "", 8), 16 * 2 + 16 * 2 * 4 * 8);
    assert_eq!(threads(&uring, "", u32::MAX), 16 * 2 + 16 * 2 * 128);
    // There are only so many.
    let most = DiskSettings { queues: 256, ..uring };
    assert_eq!(threads(&most, "", 8), 16 * 256 + 256 * 4 * 8);
}

#[test]
fn a_guest_that_the_file_names_has_its_own_transport() {
    let text = "[guests.mail]\ntransport = \"pci\"\n[guests.\"web 1\"]\n";
    let (_file, args) = command_line(text, &[]);
    let settings = Settings::load(&args).unwrap();
    let of = |name| settings.transports().of(Some(name));
    assert_eq!(of("mail"), TransportKind::Pci);
    assert_eq!((of("web 1"), of("other")), (TransportKind::Mmio, TransportKind::Mmio));
}

#[test]
fn what_the_file_says_wrong_of_a_guest_is_told_with_its_line() {
    for (text, what) in
        [("[guests.mail]\ntransport = \"usb\"\n", "usb"), ("[guests.mail]\nqueues = 2\n", "queues")]
    {
        let error = ConfigFile::parse(Path::new("disks.toml"), text).unwrap_err();
        let text = chain(&error).to_string();
        assert!(text.contains(what) && text.contains("line 2"), "{text}");
    }
}
