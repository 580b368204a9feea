//! A connection between a supervisor and the process of a guest: messages, and open files that travel with them.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, IoSliceMut},
    mem::{self, MaybeUninit},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Instant,
};

use rustix::{
    event::PollFlags,
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Serialize, de::DeserializeOwned};

use super::packet_rate::{INTERVAL, MAX_PACKETS, PacketRate};
use crate::close::close;

/// Bytes of one packet. A longer message takes several.
const PACKET: usize = 32 << 10;
/// Files of one packet: `SCM_MAX_FD` (linux/include/net/scm.h).
const PACKET_FILES: usize = 253;
/// What one message may have. The other side may be in the hands of a guest.
const MESSAGE: usize = 512 << 10;
const MESSAGE_FILES: usize = 4096;

/// First byte of a packet that ends its message, and of one that doesn't.
const LAST: u8 = 0;
const MORE: u8 = 1;

/// Why nothing more comes over a line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LineError {
    /// The other side has closed it, or has ended.
    #[error("the connection was closed")]
    Closed,
    /// It failed.
    #[error("the connection failed")]
    Io(#[from] io::Error),
    /// A message is none.
    #[error("a message can't be understood")]
    Message(#[from] postcard::Error),
    /// A message has no end.
    #[error("a message is longer than {MESSAGE} bytes, or brings more than {MESSAGE_FILES} files")]
    TooLong,
    /// Messages have no end.
    #[error("more than {MAX_PACKETS} packets that answer nothing have come within {} s", INTERVAL.as_secs())]
    TooMany,
}

impl From<Errno> for LineError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            errno => Self::Io(errno.into()),
        }
    }
}

/// Bytes, and the files that travel with them.
#[derive(Default)]
pub(crate) struct Parcel {
    bytes: Vec<u8>,
    files: Vec<OwnedFd>,
    /// After the files: it tells when they are closed.
    closed: Option<OnClosed>,
}

/// Tells when it is dropped.
pub(crate) struct OnClosed(Box<dyn Fn() + Send>);

impl Drop for OnClosed {
    fn drop(&mut self) {
        self.0();
    }
}

impl Parcel {
    /// A message.
    ///
    /// # Errors
    /// It has no form as bytes.
    pub(crate) fn new(
        message: &impl Serialize,
        files: Vec<OwnedFd>,
    ) -> Result<Self, postcard::Error> {
        Ok(Self { bytes: postcard::to_stdvec(message)?, files, closed: None })
    }

    /// With what is to be done when its files are closed on this side, which may take as long as their storage takes to
    /// answer: after it was sent, or if it is dropped.
    pub(crate) fn when_closed(self, closed: impl Fn() + Send + 'static) -> Self {
        Self { closed: Some(OnClosed(Box::new(closed))), ..self }
    }
}

/// One end of a connection (`SOCK_SEQPACKET`). Nothing here blocks.
pub(crate) struct Line {
    socket: OwnedFd,
    takes_files: bool,
    /// Of what comes from the process of a guest.
    rate: Option<PacketRate>,
    /// Files of the message that is being sent.
    sent: Vec<OwnedFd>,
    /// Packets to be sent.
    outgoing: VecDeque<Parcel>,
    /// The message that comes in.
    incoming: Parcel,
}

impl Line {
    /// The end of a supervisor. The kernel drops what files the other one sends, and it may not send without end.
    pub(crate) fn to_guest(socket: OwnedFd) -> Self {
        Self::new(socket, false, Some(PacketRate::new()))
    }

    /// The end of the process of a guest.
    pub(crate) fn to_supervisor(socket: OwnedFd) -> Self {
        Self::new(socket, true, None)
    }

    fn new(socket: OwnedFd, takes_files: bool, rate: Option<PacketRate>) -> Self {
        Self {
            socket,
            takes_files,
            rate,
            outgoing: VecDeque::new(),
            sent: Vec::new(),
            incoming: Parcel::default(),
        }
    }

    /// What to wait for.
    pub(crate) fn interest(&self) -> PollFlags {
        match self.outgoing.is_empty() {
            true => PollFlags::IN,
            false => PollFlags::IN | PollFlags::OUT,
        }
    }

    /// Takes a message to be sent by [`flush`](Self::flush).
    pub(crate) fn push(&mut self, parcel: Parcel) {
        let Parcel { bytes, files, mut closed } = parcel;
        let mut files = files.into_iter().peekable();
        let mut chunks = bytes.chunks(PACKET).peekable();
        loop {
            let chunk = chunks.next().unwrap_or_default();
            let its: Vec<_> = files.by_ref().take(PACKET_FILES).collect();
            let last = chunks.peek().is_none() && files.peek().is_none();
            let bytes = [&[if last { LAST } else { MORE }], chunk].concat();
            let closed = if last { closed.take() } else { None };
            self.outgoing.push_back(Parcel { bytes, files: its, closed });
            if last {
                return;
            }
        }
    }

    /// Whether all was sent.
    pub(crate) fn is_flushed(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Sends what can be sent now.
    ///
    /// # Errors
    /// The line is of no more use.
    pub(crate) fn flush(&mut self) -> Result<(), LineError> {
        while let Some(Parcel { bytes, files, .. }) = self.outgoing.front() {
            let fds: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FILES))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, flags) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            let Some(packet) = self.outgoing.pop_front() else { break };
            if let Some(rate) = &mut self.rate {
                rate.sent();
            }
            self.sent.extend(packet.files);
            if packet.bytes.first() == Some(&LAST) {
                let files = mem::take(&mut self.sent);
                match files.is_empty() {
                    true => drop(packet.closed),
                    // The files first.
                    false => close((files, packet.closed)),
                }
            }
        }
        Ok(())
    }

    /// The next message, if all of it is there, and the files that came with it: fewer than were sent, if this process
    /// can't have more.
    ///
    /// # Errors
    /// The line is of no more use.
    pub(crate) fn receive<T: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<(T, Vec<OwnedFd>)>, LineError> {
        let Some(Parcel { bytes, files, .. }) = self.receive_parcel()? else { return Ok(None) };
        Ok(Some((postcard::from_bytes(&bytes)?, files)))
    }

    fn receive_parcel(&mut self) -> Result<Option<Parcel>, LineError> {
        let mut packet = vec![0; 1 + PACKET];
        loop {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FILES))];
            let mut ancillary = match self.takes_files {
                true => RecvAncillaryBuffer::new(&mut space),
                false => RecvAncillaryBuffer::default(),
            };
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let received =
                recvmsg(&self.socket, &mut [IoSliceMut::new(&mut packet)], &mut ancillary, flags);
            let bytes = match received {
                Ok(received) => received.bytes,
                // The other side has closed it without having read all. What it had sent before comes next.
                Err(Errno::INTR | Errno::CONNRESET) => continue,
                Err(Errno::AGAIN) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            for message in ancillary.drain() {
                if let RecvAncillaryMessage::ScmRights(files) = message {
                    self.incoming.files.extend(files);
                }
            }
            let Some((kind, bytes)) = packet[..bytes].split_first() else {
                return Err(LineError::Closed);
            };
            if self.rate.as_mut().is_some_and(|rate| !rate.count(Instant::now())) {
                return Err(LineError::TooMany);
            }
            self.incoming.bytes.extend_from_slice(bytes);
            if self.incoming.bytes.len() > MESSAGE || self.incoming.files.len() > MESSAGE_FILES {
                return Err(LineError::TooLong);
            }
            if *kind == LAST {
                return Ok(Some(mem::take(&mut self.incoming)));
            }
        }
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read, Seek, Write},
        os::fd::AsRawFd,
    };

    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (Line, Line) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        (Line::to_guest(pair.0), Line::to_supervisor(pair.1))
    }

    /// Sends a message and receives it, in turns.
    fn pass<T: Serialize + DeserializeOwned>(
        from: &mut Line,
        to: &mut Line,
        message: &T,
        files: Vec<OwnedFd>,
    ) -> Result<(T, Vec<OwnedFd>), LineError> {
        from.push(Parcel::new(message, files).unwrap());
        loop {
            from.flush()?;
            if let Some(received) = to.receive()? {
                assert!(from.is_flushed());
                return Ok(received);
            }
        }
    }

    #[test]
    fn a_message_of_any_length_arrives_with_all_its_files_in_order() {
        let (mut supervisor, mut guest) = pair();
        for (length, count) in [(0, 0), (5, 1), (PACKET - 1, 0), (PACKET, 253), (300_000, 600)] {
            let bytes: Vec<u8> = (0..length).map(|index| index as u8).collect();
            let file = |index: usize| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&index.to_le_bytes()).unwrap();
                OwnedFd::from(file)
            };
            let files = (0..count).map(file).collect();
            let (received, files) = pass(&mut supervisor, &mut guest, &bytes, files).unwrap();
            assert_eq!((received == bytes, files.len()), (true, count));
            for (index, file) in files.into_iter().enumerate() {
                let (mut file, mut content) = (File::from(file), [0; 8]);
                file.rewind().unwrap();
                file.read_exact(&mut content).unwrap();
                assert_eq!(usize::from_le_bytes(content), index);
            }
        }
    }

    #[test]
    fn the_supervisor_takes_no_files_from_a_guests_process() {
        let (mut supervisor, mut guest) = pair();
        let (read, write) = io::pipe().unwrap();
        let (number, files) = pass(&mut guest, &mut supervisor, &7, vec![write.into()]).unwrap();
        assert_eq!((number, files.len()), (7, 0));
        // The other end has hung up: nobody has it any more.
        let mut fds = [rustix::event::PollFd::new(&read, PollFlags::IN)];
        rustix::event::poll(&mut fds, None).unwrap();
        assert!(read.as_raw_fd() >= 0 && fds[0].revents().contains(PollFlags::HUP));
    }

    #[test]
    fn a_message_without_end_is_refused() {
        let (mut supervisor, mut guest) = pair();
        let error = pass(&mut guest, &mut supervisor, &vec![0_u8; MESSAGE + 1], vec![]);
        assert!(matches!(error, Err(LineError::TooLong)));
    }

    #[test]
    fn packets_without_end_are_refused_if_they_are_of_the_process_of_a_guest() {
        let (mut supervisor, mut guest) = pair();
        // Each is a message's, whose end never comes, and has nothing in it.
        let send = |guest: &mut Line| {
            guest.outgoing.push_back(Parcel { bytes: vec![MORE], ..Parcel::default() });
            guest.flush()
        };
        let refused = (0..=2 * MAX_PACKETS).find_map(|_| {
            send(&mut guest).unwrap();
            supervisor.receive::<u8>().err()
        });
        assert!(matches!(refused, Some(LineError::TooMany)), "{refused:?}");
        for number in 0..=2 * MAX_PACKETS {
            assert_eq!(pass(&mut supervisor, &mut guest, &number, vec![]).unwrap().0, number);
        }
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error_and_so_is_the_end() {
        let (mut supervisor, mut guest) = pair();
        guest.outgoing.push_back(Parcel { bytes: vec![LAST, 0xff], ..Parcel::default() });
        guest.flush().unwrap();
        assert!(matches!(supervisor.receive::<String>(), Err(LineError::Message(_))));
        drop(guest);
        assert!(matches!(supervisor.receive::<String>(), Err(LineError::Closed)));
        supervisor.push(Parcel::new(&1, vec![]).unwrap());
        assert!(matches!(supervisor.flush(), Err(LineError::Closed)));
    }
}
