//! Whether the guest's writes are cached: as it was told, through whatever frontend.
//!
//! With `CONFIG_WCE` the field `writeback` says so (virtio 1.2 §5.2.6.2), and a guest that reads 0
//! there sends no flushes. Over vhost-user it is the frontend that shows the field to its guest,
//! by what it has read of it here and has set itself. QEMU reads the configuration once, when its
//! device is made: neither when it connects again nor when its guest resets the device. So the
//! field here has to stay what the frontend knows, and a frontend that may know another value than
//! is known here, as this program was started again under it, must find writes going through.

/// The field `writeback`, as the frontends know it.
#[derive(Debug)]
pub(crate) struct WriteCache {
    /// How the device begins.
    default: bool,
    /// What a frontend was told or has set last; none yet since the program began.
    field: Option<bool>,
    /// It was set.
    switched: bool,
    /// The frontend that is connected has neither asked nor set.
    unknown: bool,
}

impl WriteCache {
    pub(crate) fn new(default: bool) -> Self {
        Self { default, field: None, switched: false, unknown: true }
    }

    /// A frontend has connected: the one of before, which goes on with what it knew, or another,
    /// which will ask.
    pub(crate) fn connected(&mut self) {
        self.unknown = true;
    }

    /// The frontend asks for the field.
    pub(crate) fn read(&mut self) -> bool {
        if self.unknown {
            *self = Self { unknown: false, ..Self::new(self.default) };
        }
        *self.field.get_or_insert(self.default)
    }

    /// The frontend sets the field.
    pub(crate) fn set(&mut self, on: bool) {
        (self.field, self.switched, self.unknown) = (Some(on), true, false);
    }

    /// Whether writes may be cached for a driver with `CONFIG_WCE`. One without `FLUSH` begins
    /// with no cache (virtio 1.2 §5.2.5.2), whatever the field was before that was known.
    pub(crate) fn is_on(&self, flush: bool) -> bool {
        self.field.is_some_and(|on| on && (flush || self.switched))
    }

    /// Whether the guest may have been told anything.
    pub(crate) fn is_known(&self) -> bool {
        self.field.is_some()
    }
}
