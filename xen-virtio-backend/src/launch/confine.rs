//! The process of a guest gives up its privileges.

use backend_process::{chain, limits};
use xen_virtio_sandbox::{Access, Ids, Limits, Report, Sandbox, ThreadFilters};

use crate::{
    node::Sharing,
    process::{Confinement, GuestKey},
};

/// Confines this process, which has one thread.
pub(super) fn confine(
    key: GuestKey,
    confinement: Confinement,
) -> Result<(ThreadFilters, Report), String> {
    let ids = confinement.ids.map(|(uid, gid)| Ids::new(uid, gid)).transpose();
    let ids = ids.map_err(|error| chain(&error).to_string())?;
    let mut limits = Limits::default();
    limits.open_files = confinement.open_files;
    limits.threads = confinement.threads;
    let access = match key.sharing {
        Sharing::Foreign => Access::FOREIGN_MEMORY,
        Sharing::Grant => Access::GRANTS,
    };
    let access = access.with_irqfd();
    let entered = Sandbox::new(ids).limits(limits).access(access).enter();
    let confined = entered.map_err(|error| {
        let text = format!("the process of the guest can't be confined: {}", chain(&error));
        limits::advice(&error).map(|advice| format!("{text}: {advice}")).unwrap_or(text)
    })?;
    Ok((confined.filters, confined.report))
}
