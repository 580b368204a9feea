use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::State;

/// Limits of a guest's cgroup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CgroupLimits {
    /// `memory.max` in bytes. When exceeded, the kernel kills all processes of the cgroup.
    pub memory: Option<u64>,
    /// `cpu.max`, in thousandths of a CPU.
    pub cpu_milli: Option<u32>,
    /// `pids.max`: processes and threads.
    pub tasks: Option<u32>,
}

/// Setting up a cgroup failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// Reading a file in `/proc` or in the cgroup failed.
    #[error("{path} can't be read", path = path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// Writing a file in the cgroup failed, or creating or removing the cgroup did.
    #[error("{path} can't be changed{value}", path = path.display())]
    Change {
        /// Its path.
        path: PathBuf,
        /// " to" and the value, if one was written.
        value: String,
        /// The kernel's error.
        source: io::Error,
    },
    /// The name is empty, starts with a dot or contains a slash.
    #[error("{0:?} isn't a valid name of a cgroup")]
    Name(String),
}

/// A cgroup (v2) delegated to this process by the service manager (systemd: `Delegate=yes`), in which it
/// may create children. Other cgroups belong to the service manager and aren't changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delegated {
    directory: PathBuf,
}

/// The controllers of [`CgroupLimits`].
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];
/// The child for the supervisor itself: a cgroup with controllers enabled for its children can't
/// contain processes.
const SUPERVISOR: &str = "supervisor";
/// The period of `cpu.max` in µs, the kernel's default.
const PERIOD_US: u64 = 100_000;

impl Delegated {
    /// The closest delegated ancestor of this process's cgroup, or that cgroup itself. `None` without
    /// cgroup v2, or if none is delegated.
    ///
    /// # Errors
    /// `/proc` can't be read.
    pub fn find() -> Result<Option<Self>, CgroupError> {
        let (mounts, cgroups) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let Some((mount_point, own)) = own_cgroup(&mounts, &cgroups) else { return Ok(None) };
        let within = own.ancestors().take_while(|directory| directory.starts_with(&mount_point));
        let found = within.into_iter().find(|directory| is_delegated(directory));
        Ok(found.map(|directory| Self { directory: directory.to_owned() }))
    }

    /// The cgroup at this path, which the caller knows to be delegated.
    #[must_use]
    pub fn at(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// Its path.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Prepares it for guests: moves this process into the child `supervisor` and enables the
    /// available controllers for children.
    ///
    /// From then on no process can be moved into the cgroup itself (`EBUSY`). So a supervisor that is
    /// restarted while guest processes run has to be started in the child:
    /// `DelegateSubgroup=supervisor`, systemd 254 or newer.
    ///
    /// [`State::Partial`] names the controllers that aren't available.
    ///
    /// # Errors
    /// See [`CgroupError`].
    pub fn prepare(&self) -> Result<State, CgroupError> {
        let supervisor = self.child(SUPERVISOR)?;
        let available = read(self.directory.join("cgroup.controllers"))?;
        let pid = std::process::id();
        let own = read(self.directory.join("cgroup.procs"))?;
        if own.lines().any(|line| line.parse() == Ok(pid)) {
            supervisor.add(pid)?;
        } else if is_empty(&supervisor.directory)? {
            // This process is in a child made by the service manager.
            supervisor.remove()?;
        }
        let mut missing = Vec::new();
        for controller in CONTROLLERS {
            if available.split_whitespace().any(|name| name == controller) {
                write(&self.directory.join("cgroup.subtree_control"), &format!("+{controller}"))?;
            } else {
                missing.push(controller);
            }
        }
        Ok(match missing[..] {
            [] => State::On,
            _ => State::Partial(
                format!("the cgroup has no controller {}", missing.join(", ")).into(),
            ),
        })
    }

    /// Creates the child `name`, unless it exists, and sets the limits.
    ///
    /// [`State::Partial`] names the limits that can't be set, as the controller isn't available.
    ///
    /// # Errors
    /// See [`CgroupError`].
    pub fn guest(&self, name: &str, limits: CgroupLimits) -> Result<(Cgroup, State), CgroupError> {
        let cgroup = self.child(name)?;
        let cpu = limits.cpu_milli.map(|milli| {
            let quota = u64::from(milli) * PERIOD_US / 1000;
            // The kernel's minimum is a millisecond.
            format!("{} {PERIOD_US}", quota.max(1000))
        });
        let settings = [
            ("memory.max", limits.memory.map(|bytes| bytes.to_string())),
            ("memory.oom.group", limits.memory.map(|_| "1".to_owned())),
            ("cpu.max", cpu),
            ("pids.max", limits.tasks.map(|tasks| tasks.to_string())),
        ];
        let mut missing = Vec::new();
        for (file, value) in settings {
            let Some(value) = value else { continue };
            let path = cgroup.directory.join(file);
            if path.exists() {
                write(&path, &value)?;
            } else {
                missing.push(file);
            }
        }
        let state = match missing[..] {
            [] => State::On,
            _ => State::Partial(format!("the cgroup has no {}", missing.join(", ")).into()),
        };
        Ok((cgroup, state))
    }

    /// The child `name`, if it was [made](Self::guest) before, by this process or another.
    #[must_use]
    pub fn existing(&self, name: &str) -> Option<Cgroup> {
        let directory = self.directory.join(name);
        directory.is_dir().then_some(Cgroup { directory })
    }

    fn child(&self, name: &str) -> Result<Cgroup, CgroupError> {
        if name.is_empty() || name.starts_with('.') || name.contains('/') {
            return Err(CgroupError::Name(name.to_owned()));
        }
        let directory = self.directory.join(name);
        match fs::create_dir(&directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(CgroupError::Change { path: directory, value: String::new(), source: error })
            }
            _ => Ok(Cgroup { directory }),
        }
    }
}

/// The cgroup of one guest process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    directory: PathBuf,
}

impl Cgroup {
    /// Moves a process with all its threads into it.
    ///
    /// # Errors
    /// The process doesn't exist, or can't be moved.
    pub fn add(&self, pid: u32) -> Result<(), CgroupError> {
        write(&self.directory.join("cgroup.procs"), &pid.to_string())
    }

    /// The counter `oom_kill` of `memory.events`. The kernel counts the first process that it kills
    /// of a cgroup twice. `None` without the memory controller.
    #[must_use]
    pub fn oom_kills(&self) -> Option<u64> {
        let events = fs::read_to_string(self.directory.join("memory.events")).ok()?;
        events.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    }

    /// Kills all its processes, including any that are forked concurrently (`cgroup.kill`, Linux
    /// 5.14).
    ///
    /// # Errors
    /// The kernel is older.
    pub fn kill(&self) -> Result<(), CgroupError> {
        write(&self.directory.join("cgroup.kill"), "1")
    }

    /// Removes it, after its processes have exited.
    ///
    /// # Errors
    /// `EBUSY` if there are processes left.
    pub fn remove(self) -> Result<(), CgroupError> {
        fs::remove_dir(&self.directory).map_err(|source| CgroupError::Change {
            path: self.directory,
            value: String::new(),
            source,
        })
    }
}

/// The mount point of the v2 hierarchy and the path of this process's cgroup.
fn own_cgroup(mountinfo: &str, cgroups: &str) -> Option<(PathBuf, PathBuf)> {
    let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mountinfo.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, unescape(fields.next()?));
        // A path that starts with /.. is outside of the cgroup namespace.
        let within = Path::new(path).strip_prefix(root).ok()?;
        let normal = |c| matches!(c, std::path::Component::Normal(_));
        within
            .components()
            .all(normal)
            .then(|| (point.clone(), point.components().chain(within.components()).collect()))
    })
}

/// Decodes the octal escapes of a path in mountinfo.
fn unescape(field: &str) -> PathBuf {
    let mut parts = field.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        match code {
            Some(code) => path.push(code.into()),
            None => path.push('\\'),
        }
        path.push_str(if code.is_some() { &part[3..] } else { part });
    }
    path.into()
}

/// Whether systemd marked it as delegated (`user.delegate`; older versions `trusted.delegate`).
fn is_delegated(directory: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].into_iter().any(|name| {
        let mut value = [0u8; 8];
        let read = rustix::fs::getxattr(directory, name, &mut value);
        read.is_ok_and(|len| value.get(..len) == Some(b"1"))
    })
}

fn is_empty(cgroup: &Path) -> Result<bool, CgroupError> {
    Ok(read(cgroup.join("cgroup.procs"))?.trim().is_empty())
}

fn read(path: impl Into<PathBuf>) -> Result<String, CgroupError> {
    let path = path.into();
    fs::read_to_string(&path).map_err(|source| CgroupError::Read { path, source })
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    fs::write(path, value).map_err(|source| CgroupError::Change {
        path: path.to_owned(),
        value: format!(" to {value}"),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 1 0:22 / /sys rw,nosuid - sysfs sysfs rw
30 25 0:27 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn the_own_cgroup_is_found_under_where_v2_is_mounted() {
        let paths = |mounts, cgroups| {
            own_cgroup(mounts, cgroups)
                .map(|(point, own)| [point, own].map(|p| p.display().to_string()))
        };
        let point = "/sys/fs/cgroup".to_owned();
        let own = "/sys/fs/cgroup/system.slice/a.service".to_owned();
        let found = Some([point.clone(), own]);
        assert_eq!(paths(MOUNTS, "0::/system.slice/a.service\n"), found);
        assert_eq!(paths(MOUNTS, "9:name=systemd:/a\n0::/\n"), Some([point.clone(), point]));
        // Out of the namespace, under no mount, or without v2.
        assert_eq!(paths(MOUNTS, "0::/../other\n"), None);
        assert_eq!(paths("25 1 0:22 / /sys rw - sysfs sysfs rw\n", "0::/a\n"), None);
        assert_eq!(paths(MOUNTS, "9:memory:/a\n"), None);
        let part = "30 25 0:27 /a /mnt/with\\040blank rw - cgroup2 cgroup2 rw\n";
        let own = Some(["/mnt/with blank".to_owned(), "/mnt/with blank/b".to_owned()]);
        assert_eq!(paths(part, "0::/a/b\n"), own);
        assert_eq!(paths(part, "0::/c\n"), None);
    }
}
