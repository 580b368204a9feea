//! The register map of virtio-mmio version 2 (virtio 1.2 §4.2.2).

use virtio_dev::CommonField;

/// Who may do what with a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The driver reads it.
    Read,
    /// The driver writes it.
    Write,
    /// Both.
    ReadWrite,
}

impl Access {
    pub(crate) fn reads(self) -> bool {
        matches!(self, Self::Read | Self::ReadWrite)
    }

    pub(crate) fn writes(self) -> bool {
        matches!(self, Self::Write | Self::ReadWrite)
    }
}

macro_rules! registers {
    ($($(#[$doc:meta])* $name:ident = $offset:literal, $access:ident;)*) => {
        /// A control register: 32 bits, little-endian, at its offset in the window.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Register {
            $($(#[$doc])* $name,)*
        }

        impl Register {
            /// Every register, in the order of their offsets.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The register at `offset`, if one is there.
            #[inline]
            pub const fn at(offset: u64) -> Option<Self> {
                match offset {
                    $($offset => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Its offset in the window, in bytes.
            #[inline]
            pub const fn offset(self) -> u64 {
                match self {
                    $(Self::$name => $offset,)*
                }
            }

            /// Whether the driver reads or writes it.
            #[inline]
            pub const fn access(self) -> Access {
                match self {
                    $(Self::$name => Access::$access,)*
                }
            }
        }
    };
}

registers! {
    /// "virt".
    MagicValue = 0x000, Read;
    /// 2.
    Version = 0x004, Read;
    /// What the device is; 0 would be a placeholder without one.
    DeviceId = 0x008, Read;
    /// Who made it.
    VendorId = 0x00c, Read;
    /// 32 offered feature bits, of the selected page.
    DeviceFeatures = 0x010, Read;
    /// Selects the page of `DeviceFeatures`.
    DeviceFeaturesSel = 0x014, Write;
    /// 32 feature bits the driver takes, of the selected page.
    DriverFeatures = 0x020, Write;
    /// Selects the page of `DriverFeatures`.
    DriverFeaturesSel = 0x024, Write;
    /// Selects the queue the queue registers are about.
    QueueSel = 0x030, Write;
    /// The largest size of the selected queue, 0 if it is not there.
    QueueSizeMax = 0x034, Read;
    /// The size the driver uses.
    QueueSize = 0x038, Write;
    /// 1 makes the queue live, 0 stops it.
    QueueReady = 0x044, ReadWrite;
    /// The kick: the index of a queue with new available buffers.
    QueueNotify = 0x050, Write;
    /// Bit 0: used buffers; bit 1: configuration change.
    InterruptStatus = 0x060, Read;
    /// Clears the bits written.
    InterruptAck = 0x064, Write;
    /// The device status; writing 0 resets the device.
    Status = 0x070, ReadWrite;
    /// Address of the descriptor table, low half.
    QueueDescLow = 0x080, Write;
    /// Address of the descriptor table, high half.
    QueueDescHigh = 0x084, Write;
    /// Address of the available ring, low half.
    QueueDriverLow = 0x090, Write;
    /// Address of the available ring, high half.
    QueueDriverHigh = 0x094, Write;
    /// Address of the used ring, low half.
    QueueDeviceLow = 0x0a0, Write;
    /// Address of the used ring, high half.
    QueueDeviceHigh = 0x0a4, Write;
    /// Selects the shared memory region the next four are about.
    ShmSel = 0x0ac, Write;
    /// Its length, low half.
    ShmLenLow = 0x0b0, Read;
    /// Its length, high half.
    ShmLenHigh = 0x0b4, Read;
    /// Its guest physical address, low half.
    ShmBaseLow = 0x0b8, Read;
    /// Its guest physical address, high half.
    ShmBaseHigh = 0x0bc, Read;
    /// 1 resets the selected queue, with `VIRTIO_F_RING_RESET`; reads 1 until it is done.
    QueueReset = 0x0c0, ReadWrite;
    /// Changes whenever the configuration space does.
    ConfigGeneration = 0x0fc, Read;
}

impl Register {
    /// What the control plane has at this register. Of the others, the transport has the constants,
    /// and the control plane the interrupt status, the notification and the device's identity.
    pub(crate) fn common(self) -> Option<CommonField> {
        Some(match self {
            Self::MagicValue
            | Self::Version
            | Self::DeviceId
            | Self::VendorId
            | Self::QueueNotify
            | Self::InterruptStatus
            | Self::InterruptAck => return None,
            Self::DeviceFeatures => CommonField::DeviceFeatures,
            Self::DeviceFeaturesSel => CommonField::DeviceFeaturesSel,
            Self::DriverFeatures => CommonField::DriverFeatures,
            Self::DriverFeaturesSel => CommonField::DriverFeaturesSel,
            Self::QueueSel => CommonField::QueueSel,
            Self::QueueSizeMax => CommonField::QueueSizeMax,
            Self::QueueSize => CommonField::QueueSize,
            Self::QueueReady => CommonField::QueueReady,
            Self::Status => CommonField::Status,
            Self::QueueDescLow => CommonField::QueueDescLow,
            Self::QueueDescHigh => CommonField::QueueDescHigh,
            Self::QueueDriverLow => CommonField::QueueDriverLow,
            Self::QueueDriverHigh => CommonField::QueueDriverHigh,
            Self::QueueDeviceLow => CommonField::QueueDeviceLow,
            Self::QueueDeviceHigh => CommonField::QueueDeviceHigh,
            Self::ShmSel => CommonField::ShmSel,
            Self::ShmLenLow => CommonField::ShmLenLow,
            Self::ShmLenHigh => CommonField::ShmLenHigh,
            Self::ShmBaseLow => CommonField::ShmBaseLow,
            Self::ShmBaseHigh => CommonField::ShmBaseHigh,
            Self::QueueReset => CommonField::QueueReset,
            Self::ConfigGeneration => CommonField::ConfigGeneration,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_aligned_and_ascending_below_the_config_space() {
        for pair in Register::ALL.windows(2) {
            assert!(pair[0].offset() < pair[1].offset());
        }
        for register in Register::ALL {
            assert_eq!(register.offset() % 4, 0);
            assert!(register.offset() < 0x100);
            assert_eq!(Register::at(register.offset()), Some(*register));
        }
    }

    #[test]
    fn between_the_registers_there_is_nothing() {
        let count = (0..0x1000).filter_map(Register::at).count();
        assert_eq!(count, Register::ALL.len());
    }
}
