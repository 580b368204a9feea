//! A guest's cgroup: in a real hierarchy, and its limits in files like the kernel's.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{TRIAL, is_root};
use xen_virtio_sandbox::{CgroupError, CgroupLimits, Delegated, State};

fn limits() -> CgroupLimits {
    let mut limits = CgroupLimits::default();
    limits.memory = Some(64 << 20);
    limits.cpu_milli = Some(1500);
    limits.tasks = Some(200);
    limits
}

/// A directory with the files of a cgroup that has these controllers.
fn pretended(controllers: &str) -> (tempfile::TempDir, Delegated) {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("cgroup.controllers", controllers);
    write("cgroup.procs", "1\n");
    write("cgroup.subtree_control", "");
    fs::create_dir(directory.path().join("supervisor")).unwrap();
    write("supervisor/cgroup.procs", "2\n");
    let delegated = Delegated::at(directory.path());
    (directory, delegated)
}

#[test]
fn a_guests_limits_are_written_as_the_kernel_reads_them() {
    let (directory, delegated) = pretended("cpuset cpu io memory pids");
    assert_eq!(delegated.prepare().unwrap(), State::On);
    let control = fs::read_to_string(directory.path().join("cgroup.subtree_control")).unwrap();
    assert_eq!(control, "+pids", "the last of three");
    let guest = directory.path().join("guest-7");
    fs::create_dir(&guest).unwrap();
    for name in ["memory.max", "memory.oom.group", "cpu.max", "pids.max", "cgroup.procs"] {
        fs::write(guest.join(name), "").unwrap();
    }
    let (cgroup, state) = delegated.guest("guest-7", limits()).unwrap();
    assert_eq!(state, State::On);
    cgroup.add(4711).unwrap();
    let read = |name: &str| fs::read_to_string(guest.join(name)).unwrap();
    assert_eq!(read("memory.max"), "67108864");
    assert_eq!(read("memory.oom.group"), "1");
    assert_eq!(read("cpu.max"), "150000 100000");
    assert_eq!(read("pids.max"), "200");
    assert_eq!(read("cgroup.procs"), "4711");
    assert_eq!(cgroup.oom_kills(), None);
    fs::write(guest.join("memory.events"), "low 0\noom 3\noom_kill 2\noom_group_kill 1\n").unwrap();
    assert_eq!(cgroup.oom_kills(), Some(2));
}

#[test]
fn a_controller_that_is_not_there_is_told_of() {
    let (_directory, delegated) = pretended("cpu");
    let missing = State::Partial("the cgroup has no controller memory, pids".into());
    assert_eq!(delegated.prepare().unwrap(), missing);
    let (_, state) = delegated.guest("guest-7", limits()).unwrap();
    let missing = "the cgroup has no memory.max, memory.oom.group, cpu.max, pids.max";
    assert_eq!(state, State::Partial(missing.into()));
}

#[test]
fn a_guests_cgroup_is_no_path() {
    let (_directory, delegated) = pretended("cpu");
    for name in ["", ".", "..", "../guest-1", "a/b", "/a"] {
        let error = delegated.guest(name, limits()).unwrap_err();
        assert!(matches!(error, CgroupError::Name(_)), "{error}");
    }
}

/// Where the v2 hierarchy is mounted.
fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.find(|fields| fields.get(2) == Some(&"cgroup2")).map(|fields| fields[1].into())
}

/// A cgroup that is removed with its children.
struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        for child in ["guest-1", "supervisor", ""] {
            let _ = fs::remove_dir(self.0.join(child));
        }
    }
}

/// Runs the trial's `cgroup` in a cgroup, and says what it printed.
fn run_in(cgroup: &Path) -> String {
    let script =
        format!("echo $$ > {}/cgroup.procs && exec {TRIAL} none guest cgroup", cgroup.display());
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_process_finds_the_cgroup_that_was_left_to_it_and_no_other() {
    if !is_root() {
        return;
    }
    let Some(mount_point) = mount_point() else {
        eprintln!("SKIPPED: no cgroup v2 is mounted");
        return;
    };
    let name = format!("sandbox-trial-{}", std::process::id());
    let made = Made(mount_point.join(&name));
    fs::create_dir(&made.0).unwrap();
    assert!(run_in(&made.0).contains("refused: entity not found"), "it isn't delegated");

    let path = made.0.to_str().unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let marked = ["user.delegate", "trusted.delegate"]
        .into_iter()
        .any(|name| rustix::fs::setxattr(path, name, b"1", flags).is_ok());
    assert!(marked, "a cgroup can be marked");
    let said = run_in(&made.0);
    assert!(said.contains(&format!("done: 0::/{name}/guest-1 ")), "{said}");
    let supervisor = made.0.join("supervisor");
    assert!(supervisor.is_dir(), "where it was before");
    // From there it finds the same.
    let said = run_in(&supervisor);
    assert!(said.contains(&format!("done: 0::/{name}/guest-1 ")), "{said}");
}
