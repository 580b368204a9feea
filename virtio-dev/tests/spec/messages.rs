//! Notifications by messages, one a queue and one for configuration changes (§2.3, §4.1.4.5,
//! §4.1.5.1), of whichever transport has them.

use std::sync::{Arc, Mutex};

use virtio_dev::{
    CommonField, ControlPlane, Delivery, Messages, Notifications, WriteOutcome, feature,
};

use crate::common::{Recorder, TestDevice, go_live};

/// A message is a queue's, or that of configuration changes.
struct Log {
    sent: Mutex<Vec<Option<u16>>>,
    becomes: Mutex<Delivery>,
}

impl Log {
    fn message(&self, queue: Option<u16>) -> Delivery {
        self.sent.lock().unwrap().push(queue);
        *self.becomes.lock().unwrap()
    }
    fn take(&self) -> Vec<Option<u16>> {
        std::mem::take(&mut self.sent.lock().unwrap())
    }
}

impl Messages for Log {
    fn used_buffer(&self, queue: u16) -> Delivery {
        self.message(Some(queue))
    }
    fn config_change(&self) -> Delivery {
        self.message(None)
    }
}

fn device(becomes: Delivery) -> (ControlPlane<TestDevice>, Arc<Log>) {
    let log = Arc::new(Log { sent: Mutex::default(), becomes: Mutex::new(becomes) });
    let messages = Notifications::Messages(Arc::clone(&log) as Arc<dyn Messages>);
    let mut control = ControlPlane::builder(TestDevice::default()).build(messages).unwrap();
    go_live(&mut control, feature::VERSION_1);
    (control, log)
}

#[test]
fn s2_3_each_used_buffer_notification_sends_the_message_of_its_queue() {
    let (control, log) = device(Delivery::Sent);
    control.interrupt(1).used_buffer();
    control.interrupt(0).used_buffer();
    control.interrupt(1).used_buffer();
    assert_eq!(log.take(), [Some(1), Some(0), Some(1)], "nobody acknowledges any");
    assert_eq!(control.interrupt(0).raised(), 3);
}

#[test]
fn s2_3_each_configuration_change_sends_its_message() {
    let (control, log) = device(Delivery::Sent);
    let generation = control.read(CommonField::ConfigGeneration);
    control.config_changed();
    control.config_changed();
    assert_eq!(log.take(), [None, None]);
    assert_eq!(control.read(CommonField::ConfigGeneration), generation + 2);
    control.interrupt(1).needs_reset();
    assert_eq!(log.take(), [None], "a device that needs a reset says so in the same way");
}

#[test]
fn s4_1_4_5_1_the_queues_bit_of_the_interrupt_status_is_kept_while_messages_are_disabled() {
    let (control, log) = device(Delivery::Disabled);
    control.interrupt(0).used_buffer();
    control.config_changed();
    assert_eq!((control.interrupt_status(), control.interrupt(0).raised()), (3, 0));
    assert_eq!(control.take_interrupt_status(), 3);
    assert_eq!(control.take_interrupt_status(), 0, "reading has cleared it");
    *log.becomes.lock().unwrap() = Delivery::Sent;
    control.interrupt(0).used_buffer();
    assert_eq!(control.interrupt_status(), 0, "the message says it");
    control.config_changed();
    assert_eq!(control.interrupt_status(), 2, "before the notification, with messages or without");
}

#[test]
fn a_message_that_is_masked_counts_as_suppressed() {
    let (control, _) = device(Delivery::Withheld);
    control.interrupt(0).used_buffer();
    control.config_changed();
    let interrupt = control.interrupt(0);
    assert_eq!((interrupt.raised(), interrupt.suppressed()), (0, 2));
}

#[test]
fn s2_1_2_no_message_is_sent_before_driver_ok_or_after_failed_or_by_an_earlier_run() {
    let (mut control, log) = device(Delivery::Sent);
    let earlier = control.interrupt(0);
    let queues = &mut Recorder::default();
    assert_eq!(control.write(CommonField::Status, 0, queues), WriteOutcome::Done);
    let silent = |interrupt: &virtio_dev::Interrupt| {
        interrupt.used_buffer();
        interrupt.config_change();
        interrupt.needs_reset();
        assert_eq!(log.take(), []);
    };
    silent(&control.interrupt(0));
    assert_eq!(control.write(CommonField::Status, 0, queues), WriteOutcome::Done);
    go_live(&mut control, feature::VERSION_1);
    control.config_changed();
    log.take();
    // Also of an event whose bit is set.
    silent(&earlier);
    control.interrupt(0).used_buffer();
    assert_eq!(log.take(), [Some(0)]);
    assert_eq!(control.write(CommonField::Status, 0x8f, queues), WriteOutcome::Done);
    silent(&control.interrupt(0));
}
