//! The calls that can be made to fail.

/// A call of [`DeviceModel`](crate::DeviceModel) or [`EventFds`](crate::eventfd::EventFds) that
/// [`FakeDomain::fail_next`](super::FakeDomain::fail_next) can make fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`nr_vcpus`](crate::DeviceModel::nr_vcpus).
    NrVcpus,
    /// [`create_ioreq_server`](crate::DeviceModel::create_ioreq_server).
    Create,
    /// [`ioreq_server_info`](crate::DeviceModel::ioreq_server_info).
    Info,
    /// [`map_mmio_range`](crate::DeviceModel::map_mmio_range).
    MapRange,
    /// [`unmap_mmio_range`](crate::DeviceModel::unmap_mmio_range).
    UnmapRange,
    /// [`set_ioreq_server_state`](crate::DeviceModel::set_ioreq_server_state).
    SetState,
    /// [`destroy_ioreq_server`](crate::DeviceModel::destroy_ioreq_server).
    Destroy,
    /// [`set_irq_level`](crate::DeviceModel::set_irq_level).
    SetIrqLevel,
    /// [`irqfd`](crate::eventfd::EventFds::irqfd).
    IrqFd,
}
