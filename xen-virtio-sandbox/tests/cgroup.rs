//! Cgroups of guests, in the kernel's hierarchy and in a directory with the same files.

mod common;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use common::{Neighbour, TRIAL, is_root};
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
fn limits_are_written_in_the_kernels_format() {
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
fn missing_controllers_are_reported() {
    let (_directory, delegated) = pretended("cpu");
    let missing = State::Partial("the cgroup has no controller memory, pids".into());
    assert_eq!(delegated.prepare().unwrap(), missing);
    let (_, state) = delegated.guest("guest-7", limits()).unwrap();
    let missing = "the cgroup has no memory.max, memory.oom.group, cpu.max, pids.max";
    assert_eq!(state, State::Partial(missing.into()));
}

#[test]
fn names_that_are_paths_are_refused() {
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

/// Runs an action of the trial's in a cgroup.
fn run_in(cgroup: &Path, action: &str) -> Output {
    let procs = cgroup.join("cgroup.procs");
    let script = format!("echo $$ > {} && exec {TRIAL} none guest {action}", procs.display());
    Command::new("sh").args(["-c", &script]).output().unwrap()
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A cgroup of v2 that is left to whom it holds, if there can be one.
fn delegated() -> Option<(Made, String)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !is_root() {
        return None;
    }
    let Some(mount_point) = mount_point() else {
        eprintln!("SKIPPED: no cgroup v2 is mounted");
        return None;
    };
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("sandbox-trial-{}-{number}", std::process::id());
    let made = Made(mount_point.join(&name));
    fs::create_dir(&made.0).unwrap();
    Some((made, name))
}

fn mark(made: &Made) {
    let path = made.0.to_str().unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let marked = ["user.delegate", "trusted.delegate"]
        .into_iter()
        .any(|name| rustix::fs::setxattr(path, name, b"1", flags).is_ok());
    assert!(marked, "a cgroup can be marked");
}

#[test]
fn only_a_delegated_cgroup_is_found() {
    let Some((made, name)) = delegated() else { return };
    let output = run_in(&made.0, "cgroup");
    assert!(says(&output).contains("refused: entity not found"), "it isn't delegated: {output:?}");

    mark(&made);
    let says_child = |output: &Output| {
        let said = says(output);
        assert!(said.contains(&format!("done: 0::/{name}/guest-1 ")), "{said}");
    };
    says_child(&run_in(&made.0, "cgroup"));
    let supervisor = made.0.join("supervisor");
    assert!(supervisor.is_dir(), "where it was before");
    // From there it finds the same.
    says_child(&run_in(&supervisor, "cgroup"));
}

#[test]
fn a_process_that_exceeds_the_memory_limit_is_killed() {
    let Some((made, _)) = delegated() else { return };
    mark(&made);
    let (guest, _) = Delegated::at(&made.0).guest("guest-1", CgroupLimits::default()).unwrap();
    let said = says(&run_in(&made.0, "cgroup"));
    assert!(said.contains("done: "), "{said}");
    if !guest_has(&made, "memory.max") {
        eprintln!("SKIPPED: the memory controller isn't in v2: {said}");
        return;
    }
    // With controllers enabled for children, no process can be moved into the cgroup itself.
    let output = run_in(&made.0, "cgroup-memory");
    assert!(says(&output).contains("busy"), "{output:?}");
    let output = run_in(&made.0.join("supervisor"), "cgroup-memory");
    assert_eq!(output.status.signal(), Some(libc::SIGKILL), "{output:?}");
    assert!(guest.oom_kills() >= Some(1), "{:?}", guest.oom_kills());
}

fn guest_has(made: &Made, file: &str) -> bool {
    made.0.join("guest-1").join(file).exists()
}

#[test]
fn kill_terminates_all_processes_of_a_cgroup() {
    let Some((made, _)) = delegated() else { return };
    let (guest, _) = Delegated::at(&made.0).guest("guest-1", CgroupLimits::default()).unwrap();
    if !guest_has(&made, "cgroup.kill") {
        eprintln!("SKIPPED: it takes Linux 5.14");
        return;
    }
    let mut neighbours = [Neighbour::new(), Neighbour::new()];
    for neighbour in &neighbours {
        guest.add(neighbour.pid()).unwrap();
    }
    let error = guest.clone().remove().unwrap_err();
    assert!(matches!(error, CgroupError::Change { .. }), "it isn't empty: {error}");
    guest.kill().unwrap();
    for neighbour in &mut neighbours {
        assert_eq!(neighbour.0.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
    guest.remove().unwrap();
}
