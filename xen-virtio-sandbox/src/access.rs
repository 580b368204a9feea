/// Which of the guest's memory the process may map or copy. The seccomp filters block the ioctls for
/// the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Access {
    /// Foreign mappings (`IOCTL_PRIVCMD_MMAPBATCH_V2`) of any page of the guest. Not needed if the
    /// guest uses grants.
    pub foreign_memory: bool,
    /// Grants (`IOCTL_GNTDEV_MAP_GRANT_REF`, `IOCTL_GNTDEV_GRANT_COPY` and the like).
    pub grants: bool,
    /// Interrupts that the kernel raises for an eventfd (`IOCTL_PRIVCMD_IRQFD`). `IOCTL_PRIVCMD_IOEVENTFD` is never
    /// allowed: it leaves pointers into the process's memory in the kernel when the process ends.
    pub irqfd: bool,
}

impl Access {
    /// For a guest without grants.
    pub const FOREIGN_MEMORY: Self = Self { foreign_memory: true, grants: false, irqfd: false };
    /// For a guest with grants (`grant_usage=1`).
    pub const GRANTS: Self = Self { foreign_memory: false, grants: true, irqfd: false };
    /// For any guest.
    pub const ALL: Self = Self { foreign_memory: true, grants: true, irqfd: true };

    /// The same, with [`irqfd`](Self::irqfd).
    #[must_use]
    pub const fn with_irqfd(self) -> Self {
        Self { irqfd: true, ..self }
    }
}
