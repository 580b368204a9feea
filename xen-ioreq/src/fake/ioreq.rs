//! A request, as Xen puts it into a slot.

/// The fields of a request, for [`FakeVcpu::begin_raw`](super::FakeVcpu::begin_raw). The default is no request Xen sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FakeIoreq {
    /// Guest-physical address.
    pub addr: u64,
    /// What is written, or where it is.
    pub data: u64,
    /// Repetitions.
    pub count: u32,
    /// Bytes.
    pub size: u32,
    /// `data` is an address.
    pub data_is_ptr: bool,
    /// A load.
    pub read: bool,
    /// `IOREQ_TYPE_*`.
    pub kind: u8,
}
