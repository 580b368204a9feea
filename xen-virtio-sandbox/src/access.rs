/// Which of a guest's memory its process may map or copy. What isn't needed is kept from it by
/// seccomp: the ioctls are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// Foreign mappings (`IOCTL_PRIVCMD_MMAPBATCH_V2`): any page of the guest. A guest that uses
    /// grants needs none.
    pub foreign_memory: bool,
    /// Grants (`IOCTL_GNTDEV_MAP_GRANT_REF`, `IOCTL_GNTDEV_GRANT_COPY` and the like).
    pub grants: bool,
    /// Interrupts and notifications in the kernel (`IOCTL_PRIVCMD_IRQFD`,
    /// `IOCTL_PRIVCMD_IOEVENTFD`).
    pub eventfds: bool,
}

impl Access {
    /// Of a guest that grants nothing.
    pub const FOREIGN_MEMORY: Self = Self { foreign_memory: true, grants: false, eventfds: false };
    /// Of a guest that grants all that its backend sees.
    pub const GRANTS: Self = Self { foreign_memory: false, grants: true, eventfds: false };
    /// Of any guest.
    pub const ALL: Self = Self { foreign_memory: true, grants: true, eventfds: true };

    /// The same, with [`eventfds`](Self::eventfds).
    #[must_use]
    pub const fn with_eventfds(self) -> Self {
        Self { eventfds: true, ..self }
    }
}
