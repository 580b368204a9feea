//! The log's lines between those who log and the one thread that writes them.
//!
//! tracing-appender's non-blocking writer isn't used: its guard reports a writer that is stuck by
//! `eprintln!`, which on a stuck standard error waits for ever and on a closed one panics; and it
//! neither counts the lines whose writing failed nor says in the log that any are missing.

use std::{
    collections::VecDeque,
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing_subscriber::fmt::{
    MakeWriter,
    format::Writer,
    time::{FormatTime, SystemTime},
};

/// How many bytes of lines wait at most; a line that finds no room is lost.
const ROOM: usize = 1 << 20;
/// How often a log that could not be written is tried again while there is nothing new to write.
const RETRY: Duration = Duration::from_secs(1);

/// Takes lines without ever waiting for whoever reads them.
#[derive(Clone)]
pub(crate) struct LogQueue(Arc<Shared>);

struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<Line>,
    bytes: usize,
    /// Lines that found no room since the last that did.
    lost: u64,
    /// The thread has taken something that it hasn't dealt with yet.
    writing: bool,
}

struct Line {
    lost_before: u64,
    text: Vec<u8>,
}

impl LogQueue {
    /// Starts the thread that writes to `sink`. It lives as long as the process.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(crate) fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self(Arc::new(Shared {
            queue: Mutex::default(),
            filled: Condvar::new(),
            written: Condvar::new(),
        }));
        let its = queue.clone();
        let mut scribe = Scribe { sink, lost: 0, error: None, torn: false };
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                let (lost, text) = its.next(scribe.lost != 0);
                scribe.write(lost, text.as_deref());
            }
        })?;
        Ok(queue)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a line, with its newline, behind the others, or counts it as lost.
    pub(crate) fn push(&self, text: &[u8]) {
        let mut queue = self.lock();
        if queue.bytes + text.len() > ROOM {
            queue.lost += 1;
            return;
        }
        queue.bytes += text.len();
        let lost_before = mem::take(&mut queue.lost);
        queue.lines.push_back(Line { lost_before, text: text.into() });
        drop(queue);
        self.0.filled.notify_one();
    }

    /// Waits until all lines are written, or lost, but no longer than `patience`.
    pub(crate) fn drain(&self, patience: Duration) {
        let waiting = |queue: &mut Queue| queue.writing || !queue.lines.is_empty();
        let _ = self.0.written.wait_timeout_while(self.lock(), patience, waiting);
    }

    /// Waits for a line, or for lines having been lost, or (`retry`) for some time: the number
    /// lost until now, and the line.
    fn next(&self, retry: bool) -> (u64, Option<Vec<u8>>) {
        let mut queue = self.lock();
        queue.writing = false;
        if queue.lines.is_empty() {
            self.0.written.notify_all();
        }
        let idle = |queue: &mut Queue| queue.lines.is_empty() && queue.lost == 0;
        let filled = &self.0.filled;
        if retry {
            let woken = filled.wait_timeout_while(queue, RETRY, idle);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        } else {
            queue = filled.wait_while(queue, idle).unwrap_or_else(PoisonError::into_inner);
        }
        queue.writing = true;
        match queue.lines.pop_front() {
            Some(line) => {
                queue.bytes -= line.text.len();
                (line.lost_before, Some(line.text))
            }
            None => (mem::take(&mut queue.lost), None),
        }
    }
}

/// Each event comes in one piece, and is taken whatever becomes of it.
impl Write for LogQueue {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.push(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Writes lines, and where some are missing, how many.
struct Scribe<S> {
    sink: S,
    lost: u64,
    /// Why, unless they found no room.
    error: Option<io::Error>,
    /// The end of a line is missing.
    torn: bool,
}

impl<S: Write> Scribe<S> {
    fn write(&mut self, lost: u64, line: Option<&[u8]>) {
        self.lost += lost;
        if self.lost != 0 && self.put(self.notice().as_bytes()) {
            (self.lost, self.error) = (0, None);
        }
        if let Some(line) = line {
            // Not tried where the notice that has to stand before it failed.
            if self.lost != 0 || !self.put(line) {
                self.lost += 1;
            }
        }
    }

    fn notice(&self) -> String {
        let mut text = String::new();
        let _ = SystemTime.format_time(&mut Writer::new(&mut text));
        let why = self.error.as_ref().map_or_else(
            || "it was written too slowly".to_owned(),
            |error| format!("it could not be written: {error}"),
        );
        text + &format!("  WARN lines of this log are missing here: {why} lost={}\n", self.lost)
    }

    /// Whether all of it was written.
    fn put(&mut self, mut text: &[u8]) -> bool {
        if self.torn && self.sink.write(b"\n").is_ok_and(|written| written == 1) {
            self.torn = false;
        }
        let mut begun = false;
        while !text.is_empty() {
            match self.sink.write(text) {
                Ok(written) if written != 0 => {
                    (text, begun) = (text.get(written..).unwrap_or_default(), true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                failed => {
                    self.error =
                        Some(failed.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
                    self.torn |= begun;
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs::{self, File, OpenOptions},
        io::Read,
        sync::mpsc,
        time::Instant,
    };

    const PATIENCE: Duration = Duration::from_secs(30);

    /// A file system of so many bytes.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn room(&self, bytes: usize) {
            self.0.lock().unwrap().1 = bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let (content, room) = &mut *self.0.lock().unwrap();
            let len = text.len().min(*room);
            if len == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= len;
            content.extend(&text[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_log_that_could_not_be_written_says_how_much_is_missing_when_it_can() {
        let disk = Disk::default();
        disk.room(10);
        let log = LogQueue::start(disk.clone()).unwrap();
        for _ in 0..5 {
            log.push(b"first\n");
        }
        log.drain(PATIENCE);
        assert_eq!(disk.text(), "first\nfirs");
        disk.room(10_000);
        log.push(b"second\n");
        log.drain(PATIENCE);
        let text = disk.text();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!((lines[0], lines[1], lines[3]), ("first", "firs", "second"), "{text}");
        assert!(lines[2].contains("missing here: it could not be written"), "{text}");
        assert!(lines[2].ends_with("lost=4"), "{text}");
    }

    #[test]
    fn the_missing_lines_are_told_of_without_a_new_one() {
        let disk = Disk::default();
        let log = LogQueue::start(disk.clone()).unwrap();
        log.push(b"lost\n");
        log.drain(PATIENCE);
        disk.room(10_000);
        let start = Instant::now();
        while !disk.text().contains("lost=1") {
            assert!(start.elapsed() < PATIENCE, "{}", disk.text());
            thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn a_pipe_that_nobody_reads_makes_nobody_wait_and_loses_what_finds_no_room() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = LogQueue::start(writer).unwrap();
        let (done, pushed) = mpsc::channel();
        let its = log.clone();
        thread::spawn(move || {
            let line = [&[b'x'; 1023][..], b"\n"].concat();
            // More than the pipe and the queue hold together.
            for _ in 0..2048 {
                its.push(&line);
            }
            its.drain(Duration::from_millis(50));
            let _ = done.send(());
        });
        pushed.recv_timeout(PATIENCE).expect("whoever logs waits for whoever reads");
        let lost = log.lock().lost;
        assert!((512..2048).contains(&lost), "{lost}");

        let (mut text, mut piece) = (String::new(), vec![0; 1 << 16]);
        while !text.contains("lost=") || !text.ends_with('\n') {
            let len = reader.read(&mut piece).unwrap();
            text += std::str::from_utf8(&piece[..len]).unwrap();
        }
        let notice = text.lines().find(|line| line.contains("lost=")).unwrap();
        assert!(notice.contains("written too slowly"), "{notice}");
        assert!(notice.ends_with(&format!("lost={lost}")), "{notice}");
        assert_eq!(text.lines().count() as u64 + lost, 2049);
    }

    #[test]
    fn a_pipe_without_a_reader_ends_nobody() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let log = LogQueue::start(writer).unwrap();
        for _ in 0..3 {
            log.push(b"line\n");
            log.drain(PATIENCE);
        }
        assert!(!log.lock().writing);
    }

    #[test]
    fn a_full_device_ends_nobody() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let log = LogQueue::start(full).unwrap();
        for _ in 0..3 {
            log.push(b"line\n");
            log.drain(PATIENCE);
        }
        assert!(!log.lock().writing);
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let log = LogQueue::start(File::create(&path).unwrap()).unwrap();
        let lines: Vec<_> = (0..1000).map(|number| format!("line {number}\n")).collect();
        for line in &lines {
            log.push(line.as_bytes());
        }
        log.drain(PATIENCE);
        assert_eq!(fs::read_to_string(path).unwrap(), lines.concat());
    }
}
