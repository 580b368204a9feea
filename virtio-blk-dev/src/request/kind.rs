use crate::device::Params;

/// The type of a request, as statistics and errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    /// `VIRTIO_BLK_T_IN`.
    Read,
    /// `VIRTIO_BLK_T_OUT`.
    Write,
    /// `VIRTIO_BLK_T_FLUSH`.
    Flush,
    /// `VIRTIO_BLK_T_GET_ID`.
    GetId,
    /// `VIRTIO_BLK_T_GET_LIFETIME`.
    GetLifetime,
    /// `VIRTIO_BLK_T_DISCARD`.
    Discard,
    /// `VIRTIO_BLK_T_WRITE_ZEROES`.
    WriteZeroes,
    /// `VIRTIO_BLK_T_SECURE_ERASE`.
    SecureErase,
    /// Any other type, or a request whose header is missing or can't be read.
    Other,
}

impl RequestKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::GetId,
        Self::GetLifetime,
        Self::Discard,
        Self::WriteZeroes,
        Self::SecureErase,
        Self::Other,
    ];

    /// The name used in statistics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Flush => "flush",
            Self::GetId => "get_id",
            Self::GetLifetime => "get_lifetime",
            Self::Discard => "discard",
            Self::WriteZeroes => "write_zeroes",
            Self::SecureErase => "secure_erase",
            Self::Other => "other",
        }
    }
}

/// The types of requests whose data is a list of ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RangeKind {
    Discard,
    WriteZeroes,
    SecureErase,
}

impl RangeKind {
    /// The most sectors in a range, and the most ranges in a request.
    pub(super) fn limits(self, params: &Params) -> (u32, u32) {
        let limits = &params.limits;
        match self {
            Self::Discard => limits.discard.map(|l| (l.max_sectors, l.max_seg)),
            Self::WriteZeroes => limits.write_zeroes.map(|l| (l.max_sectors, l.max_seg)),
            Self::SecureErase => limits.secure_erase.map(|l| (l.max_sectors, l.max_seg)),
        }
        .unwrap_or_default()
    }
}
