//! A driver that writes what the device does not take leaves a trace in the log, and a bounded one.

mod common;

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use common::{guest_kernel::Sharing, host::OneDisk, watchdog::watchdog, window::reg};
use tracing::Level;

/// What was logged, by whatever thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines(&self, with: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(with)).map(str::to_owned).collect()
    }
}

#[test]
fn ignored_writes_are_logged_with_their_reason_and_a_limit() {
    let _watchdog = watchdog();
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt()
        .with_max_level(Level::DEBUG)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    let it = OneDisk::new(Sharing::Foreign);
    let window = it.window();
    const GUEST_PAGE_SIZE: u64 = 0x28; // of version 1 of the transport
    for _ in 0..100 {
        window.write(GUEST_PAGE_SIZE, 4096);
    }
    let lines = log.lines("a write of the guest to its registers was ignored");
    assert_eq!(lines.len(), 8, "{lines:#?}");
    for part in ["offset=0x28", "no register is there that a driver may write"] {
        assert!(lines[0].contains(part), "{}", lines[0]);
    }
    window.write(reg::STATUS, 3);
    window.write(reg::STATUS, 128 | 3);
    assert_eq!(log.lines("the guest's driver has set FAILED").len(), 1);
}
