//! The cgroups of the guests' processes.

use backend_process::chain;
use tracing::warn;
use xen_virtio_sandbox::{Cgroup, CgroupLimits, Delegated, State};

use super::isolation::Isolation;
use crate::process::GuestKey;

/// The subtree of cgroups that is left to this process, if there is one, and the limits of a guest's process.
#[derive(Debug)]
pub(super) struct Cgroups {
    pub(super) delegated: Option<Delegated>,
    pub(super) isolation: Isolation,
}

impl Cgroups {
    /// Logs what there isn't.
    pub(super) fn find(isolation: Isolation) -> Self {
        let found = Delegated::find().and_then(|found| {
            let Some(delegated) = found else { return Ok(None) };
            let state = delegated.prepare()?;
            Ok(Some((delegated, state)))
        });
        let delegated = match found {
            Ok(Some((delegated, State::Partial(but)))) => {
                warn!(%but, "the processes of guests can be limited in part only");
                Some(delegated)
            }
            Ok(Some((delegated, _))) => Some(delegated),
            Ok(None) => {
                let Isolation { memory, cpu_milli, .. } = isolation;
                if memory.is_some() || cpu_milli.is_some() {
                    warn!(
                        memory,
                        cpu_milli,
                        "no cgroup is delegated to this program, so the limits of the guests' processes don't hold: set Delegate=yes in its systemd unit"
                    );
                }
                None
            }
            Err(error) => {
                warn!(error = %chain(&error), "the processes of guests get no cgroups of their own");
                None
            }
        };
        Self { delegated, isolation }
    }

    /// The cgroup of a process of so many tasks, if there is a place for one.
    pub(super) fn make(&self, key: GuestKey, tasks: u32) -> Option<Cgroup> {
        let delegated = self.delegated.as_ref()?;
        let mut limits = CgroupLimits::default();
        (limits.memory, limits.cpu_milli) = (self.isolation.memory, self.isolation.cpu_milli);
        limits.tasks = Some(tasks);
        match delegated.guest(&name(key), limits) {
            Ok((cgroup, state)) => {
                if let State::Partial(but) = state {
                    warn!(%key, %but, "the guest's process can be limited in part only");
                }
                Some(cgroup)
            }
            Err(error) => {
                warn!(%key, error = %chain(&error), "the guest's process has no cgroup of its own");
                None
            }
        }
    }

    /// The one that was made before.
    pub(super) fn existing(&self, key: GuestKey) -> Option<Cgroup> {
        self.delegated.as_ref()?.existing(&name(key))
    }
}

fn name(key: GuestKey) -> String {
    format!("guest-{key}")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::node::Sharing;

    #[test]
    fn a_guests_process_may_have_the_tasks_that_it_needs_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("guest-7-grant/pids.max");
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, "max").unwrap();
        let delegated = Some(Delegated::at(dir.path()));
        let cgroups = Cgroups { delegated, isolation: Isolation::default() };
        let key = GuestKey { domid: 7, sharing: Sharing::Grant };
        assert!(cgroups.make(key, 100).is_some());
        assert_eq!(fs::read_to_string(file).unwrap(), "100");
    }
}
