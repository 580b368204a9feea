/// What addresses, offsets and lengths of direct I/O must be multiples of. Both are powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Alignment {
    /// The alignment of addresses in memory.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "power_of_two"))]
    pub memory: u32,
    /// The alignment of offsets in the image, and of the length of each buffer.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "power_of_two"))]
    pub offset: u32,
}

#[cfg(feature = "serde")]
fn power_of_two<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match <u32 as serde::Deserialize>::deserialize(deserializer)? {
        bytes if bytes.is_power_of_two() => Ok(bytes),
        bytes => {
            Err(serde::de::Error::custom(format!("an alignment of {bytes} is not a power of two")))
        }
    }
}

impl Alignment {
    /// Buffered I/O: no alignment is needed.
    pub const BYTE: Self = Self { memory: 1, offset: 1 };

    /// Whether a transfer of these buffers at `offset` is aligned.
    pub fn is_met(&self, iovecs: &[libc::iovec], offset: u64) -> bool {
        self.is_met_by(offset)
            && iovecs.iter().all(|iovec| {
                self.is_met_by(iovec.iov_len as u64)
                    && iovec.iov_base.addr() & mask(self.memory) as usize == 0
            })
    }

    /// Whether an offset or a length is aligned.
    pub fn is_met_by(&self, offset: u64) -> bool {
        offset & mask(self.offset) == 0
    }
}

pub(super) fn mask(alignment: u32) -> u64 {
    u64::from(alignment.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alignment_is_of_address_length_and_offset() {
        let alignment = Alignment { memory: 4, offset: 512 };
        let iovec = |addr: usize, iov_len| libc::iovec {
            iov_base: std::ptr::without_provenance_mut(addr),
            iov_len,
        };
        assert!(alignment.is_met(&[iovec(4, 512), iovec(8, 1024)], 1536));
        assert!(!alignment.is_met(&[iovec(4, 512)], 256));
        assert!(!alignment.is_met(&[iovec(4, 512), iovec(6, 512)], 512));
        assert!(!alignment.is_met(&[iovec(4, 512), iovec(8, 8)], 512));
        assert!(Alignment::BYTE.is_met(&[iovec(7, 3)], 11));
    }
}
