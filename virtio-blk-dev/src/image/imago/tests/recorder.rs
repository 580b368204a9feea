use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use super::super::block::BLOCK_SIZE;

/// What happened to one of an image's files.
#[derive(Clone, Debug)]
pub(in super::super) enum Event {
    Write { offset: u64, bytes: Vec<u8> },
    Sync,
}

/// What an image did to its files, in order, and which file it was: 0 is the image's own.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Log(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: Vec<Vec<u8>>,
    events: Vec<(usize, Event)>,
    /// Events that are still carried out before each fails.
    fails_after: Option<usize>,
}

/// One file's end of it.
#[derive(Debug)]
pub(in super::super) struct Recorder {
    log: Log,
    file: usize,
}

thread_local! {
    static LOG: RefCell<Option<Log>> = const { RefCell::new(None) };
}

impl Log {
    /// Records what happens to the files that `open` opens.
    pub(super) fn of<T>(open: impl FnOnce() -> T) -> (Self, T) {
        let log = Self::default();
        LOG.set(Some(log.clone()));
        let opened = open();
        LOG.take();
        (log, opened)
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().unwrap().events.len()
    }

    pub(super) fn events(&self) -> Vec<(usize, Event)> {
        self.0.lock().unwrap().events.clone()
    }

    /// What a file was when it was opened.
    pub(super) fn initial(&self, file: usize) -> Vec<u8> {
        self.0.lock().unwrap().files[file].clone()
    }

    pub(super) fn fail_after(&self, events: usize) {
        self.0.lock().unwrap().fails_after = Some(events);
    }

    fn record(&self, file: usize, event: Event) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        match &mut state.fails_after {
            Some(0) => return Err(io::Error::from_raw_os_error(libc::EIO)),
            Some(left) => *left -= 1,
            None => {}
        }
        state.events.push((file, event));
        Ok(())
    }
}

impl Recorder {
    /// `None` where nothing is recorded.
    pub(in super::super) fn for_this_thread(file: &File) -> Option<Self> {
        let log = LOG.with_borrow(Clone::clone)?;
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let mut state = log.0.lock().unwrap();
        state.files.push(bytes);
        let file = state.files.len() - 1;
        drop(state);
        Some(Self { log, file })
    }

    pub(in super::super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.log.record(self.file, Event::Write { offset, bytes: bytes.to_vec() })
    }

    pub(in super::super) fn sync(&self) -> io::Result<()> {
        self.log.record(self.file, Event::Sync)
    }
}

/// A file at a loss of power: all up to its last flush, and of each sector that was written since,
/// what `survives` says of one write after the other.
pub(super) fn after_a_cut(
    initial: &[u8],
    events: &[(usize, Event)],
    file: usize,
    mut survives: impl FnMut() -> bool,
) -> Vec<u8> {
    let mut bytes = initial.to_vec();
    let events: Vec<&Event> =
        events.iter().filter(|(of, _)| *of == file).map(|(_, event)| event).collect();
    let synced = events.iter().rposition(|event| matches!(event, Event::Sync)).unwrap_or(0);
    for (nth, event) in events.into_iter().enumerate() {
        let Event::Write { offset, bytes: written } = event else { continue };
        let end = *offset as usize + written.len();
        // The size is a matter of the file system's journal, and comes first.
        bytes.resize(bytes.len().max(end), 0);
        assert_eq!(offset % BLOCK_SIZE as u64, 0, "no sector is written in part");
        for (sector, written) in written.chunks(BLOCK_SIZE).enumerate() {
            if nth < synced || survives() {
                let start = *offset as usize + sector * BLOCK_SIZE;
                bytes[start..start + written.len()].copy_from_slice(written);
            }
        }
    }
    bytes
}
