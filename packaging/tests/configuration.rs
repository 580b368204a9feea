//! What the package has the service read and start is what the program understands.

use clap::Parser;
use std::path::{Path, PathBuf};
use xen_virtio_blk::args::{Cli, Command, RunArgs};
use xen_virtio_blk::settings::Settings;
use xen_virtio_sandbox::IdRange;

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn run_args(words: &str) -> RunArgs {
    let cli = Cli::try_parse_from(words.split_whitespace())
        .unwrap_or_else(|error| panic!("{words}: {error}"));
    match cli.command {
        Command::Run(args) => *args,
        other => panic!("{words}: {other:?}"),
    }
}

/// The value of an assignment, in a unit's `Environment=` or in an environment file.
fn assigned(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.split_once(&format!("{name}=")));
    line.unwrap_or_else(|| panic!("nothing assigns {name}")).1.trim_matches('"').to_owned()
}

#[test]
fn the_service_starts_the_program_with_options_that_it_has() {
    let (unit, defaults) = (file("systemd/xen-virtio-blk.service"), file("etc/default"));
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("ExecStart=");
    let plain = run_args(&start.replace("$OPTIONS", &assigned(&unit, "Environment=OPTIONS")));
    assert_eq!(plain.config, Some(PathBuf::from("/etc/xen-virtio-blk/disks.toml")));
    assert_eq!(plain.run_dir, Path::new("/run/xen-virtio-blk"), "which tmpfiles.d makes");
    assert!(file("systemd/tmpfiles.conf").contains("\nd /run/xen-virtio-blk "));
    let shown = run_args(&start.replace("$OPTIONS", &assigned(&defaults, "#OPTIONS")));
    assert_eq!((shown.queues, shown.guest_memory_max), (2, Some(256 << 20)));
}

/// The values of a setting of the unit, in the order in which they stand there.
fn settings<'a>(unit: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    unit.lines().filter_map(move |line| line.strip_prefix(name)?.strip_prefix('='))
}

#[test]
fn the_guests_processes_outlive_a_stop_and_a_restart_of_the_service() {
    let unit = file("systemd/xen-virtio-blk.service");
    let set = |name| settings(&unit, name).last();
    assert_eq!(set("KillMode"), Some("process"));
    assert_eq!(set("ExecStop"), None);
    assert_eq!(set("RefuseManualStop"), None);
    // It would remove their sockets.
    assert_eq!(set("RuntimeDirectory"), None);
    assert_eq!(set("OOMPolicy"), Some("continue"));
    let controllers: Vec<_> = set("Delegate").unwrap_or_default().split(' ').collect();
    assert_eq!(controllers, ["cpu", "memory", "pids"]);
    // What `Delegated::prepare` has the main process in.
    assert_eq!(set("DelegateSubgroup"), Some("supervisor"));
}

#[test]
fn the_service_leaves_the_guests_processes_what_they_confine_themselves_with() {
    let unit = file("systemd/xen-virtio-blk.service");
    let words = |name| settings(&unit, name).flat_map(str::split_whitespace).collect::<Vec<_>>();
    let has = |name, needed: &[&str]| {
        let words = words(name);
        needed.iter().for_each(|word| assert!(words.contains(word), "{name} lacks {word}"));
    };
    has("RestrictNamespaces", &["mnt", "net", "ipc", "uts"]);
    let capabilities =
        ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP", "CAP_KILL"];
    has("CapabilityBoundingSet", &capabilities);
    let calls = ["@mount", "seccomp", "landlock_restrict_self", "@system-service"];
    has("SystemCallFilter", &calls);
    // The ids of guests' processes don't exist in a user namespace; their /proc and cgroups must be seen.
    for name in ["PrivateUsers", "ProtectProc", "ProcSubset", "ProtectControlGroups", "DynamicUser"]
    {
        assert!(words(name).is_empty(), "{name}");
    }
}

#[test]
fn the_file_of_disks_says_nothing_as_it_is_and_shows_only_settings_that_there_are() {
    let shipped = file("etc/disks.toml");
    assert!(shipped.lines().all(|line| line.is_empty() || line.starts_with('#')));
    let shown: String = shipped
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .filter(|line| !line.starts_with(' '))
        .fold(String::new(), |text, line| text + line + "\n");
    assert!(shown.contains("[\"/images/db.img\"]") && shown.contains("discard"));
    let dir = tempfile::tempdir().unwrap();
    for text in [shipped, shown.replace("io_uring", "sync").replace("0-3", "0")] {
        let path = dir.path().join("disks.toml");
        std::fs::write(&path, text).unwrap();
        let args = run_args(&format!("xen-virtio-blk run --config {}", path.display()));
        Settings::load(&args).unwrap();
    }
}

#[test]
fn the_guests_user_ids_lie_where_nobody_else_allocates_any() {
    let text = file("systemd/sysusers.conf");
    let line = text.lines().find(|line| line.starts_with("u ")).expect("a user");
    let mut words = line.split_whitespace().skip(1);
    assert_eq!(words.next(), Some(IdRange::USER));
    let base: u64 = words.next().expect("a user id").parse().unwrap();
    let ids = base..base + u64::from(IdRange::LEN);
    // systemd's containers; shadow's SUB_UID_MIN to SUB_UID_MAX; as a signed number, negative.
    for others in [524_288..1_879_048_192, 100_000..600_100_001, 0x8000_0000..0x1_0000_0000] {
        assert!(ids.end <= others.start || others.end <= ids.start, "{ids:?} {others:?}");
    }
    // The range that systemd has for images of foreign systems (UIDS-GIDS).
    assert!(ids.end <= 2_147_352_576);
}

#[test]
fn systemd_makes_the_user_and_the_run_directory() {
    let root = tempfile::tempdir().unwrap();
    for (program, arguments, name, place) in [
        ("systemd-sysusers", &[][..], "systemd/sysusers.conf", "usr/lib/sysusers.d"),
        ("systemd-tmpfiles", &["--create"][..], "systemd/tmpfiles.conf", "usr/lib/tmpfiles.d"),
    ] {
        let place = root.path().join(place);
        std::fs::create_dir_all(&place).unwrap();
        std::fs::create_dir_all(root.path().join("etc")).unwrap();
        std::fs::write(place.join("xen-virtio-blk.conf"), file(name)).unwrap();
        let mut command = std::process::Command::new(program);
        command
            .args(arguments)
            .arg(format!("--root={}", root.path().display()))
            .arg("xen-virtio-blk.conf");
        match command.output() {
            Err(error) => return println!("skipped: {program}: {error}"),
            Ok(out) if out.status.success() => {}
            Ok(out) => panic!("{program}: {}", String::from_utf8_lossy(&out.stderr)),
        }
    }
    let users = std::fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(users.contains("xen-virtio-guest:x:1879048192:1879048192:"), "{users}");
    assert!(root.path().join("run/xen-virtio-blk").is_dir());
}
