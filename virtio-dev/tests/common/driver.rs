//! A driver's view of a device whose transport has one line.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use virtio_dev::{CommonField, ControlPlane, Interrupt, IrqLine, Notifications, WriteOutcome};

use super::{Recorder, TestDevice};

pub struct Driver {
    pub control: ControlPlane<TestDevice>,
    /// Rising edges of the line.
    edges: Arc<AtomicU64>,
}

impl Driver {
    /// A device that is live and takes these features.
    pub fn live(features: u64) -> Self {
        let edges = Arc::new(AtomicU64::new(0));
        let line = Arc::clone(&edges);
        let line = move || {
            line.fetch_add(1, Ordering::Relaxed);
        };
        Self { control: live_control(features, line), edges }
    }

    pub fn edges(&self) -> u64 {
        self.edges.load(Ordering::Relaxed)
    }

    pub fn interrupt(&self) -> Interrupt {
        self.control.interrupt(0)
    }
}

/// A live device with these features, whose interrupts go to `line`.
pub fn live_control(features: u64, line: impl IrqLine + 'static) -> ControlPlane<TestDevice> {
    let line = Notifications::Line(Box::new(line));
    let mut control = ControlPlane::builder(TestDevice::default()).build(line).unwrap();
    go_live(&mut control, features);
    control
}

pub fn go_live(control: &mut ControlPlane<TestDevice>, features: u64) {
    for (field, value) in [
        (CommonField::Status, 3),
        (CommonField::DriverFeatures, features as u32),
        (CommonField::DriverFeaturesSel, 1),
        (CommonField::DriverFeatures, (features >> 32) as u32),
        (CommonField::Status, 11),
        (CommonField::Status, 15),
    ] {
        assert_eq!(control.write(field, value, &mut Recorder::default()), WriteOutcome::Done);
    }
}
