//! Messages with descriptors, over a Unix socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use rustix::{
    io::retry_on_intr,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use serde::{Deserialize, Serialize};
use virtio_blk_dev::ImageFacts;
use xen_virtio_blk::settings::DiskSettings;

/// What the confined process is to do with its disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Make the image of these facts and the descriptors that come along.
    Attach(Box<(DiskSettings, ImageFacts)>),
    /// Have each queue read the disk, and if it can be written, do all other requests in a range of its own.
    Serve,
    /// Have the first queue write so many sectors.
    Write(u32),
    /// Have each queue flush.
    Flush,
    /// Ask the host for the image's size.
    Refresh,
    /// Close the image.
    Detach,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    /// The disk's size in bytes.
    Capacity(u64),
    /// The status of each queue's request.
    Statuses(Vec<u8>),
}

/// The most descriptors of a message (`SCM_MAX_FD`, unix(7)).
const FDS_MAX: usize = 253;

/// One end.
pub(crate) struct Channel<F>(F);

/// Two ends. Neither waits for the other for longer than a minute.
pub(crate) fn pair() -> io::Result<(Channel<OwnedFd>, OwnedFd)> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    let (own, other) = socketpair(AddressFamily::UNIX, kind, flags, None)?;
    for end in [&own, &other] {
        set_socket_timeout(end, Timeout::Recv, Some(Duration::from_secs(60)))?;
    }
    Ok((Channel(own), other))
}

impl<F: AsFd> Channel<F> {
    pub(crate) fn new(socket: F) -> Self {
        Self(socket)
    }

    pub(crate) fn send<T: Serialize>(&self, message: &T, fds: &[OwnedFd]) -> io::Result<()> {
        let bytes = postcard::to_stdvec(message).map_err(io::Error::other)?;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(fds.is_empty() || control.push(SendAncillaryMessage::ScmRights(&fds)));
        sendmsg(&self.0, &[IoSlice::new(&bytes)], &mut control, SendFlags::empty())?;
        Ok(())
    }

    /// `None` if the other end is closed.
    pub(crate) fn receive<T: for<'de> Deserialize<'de>>(
        &self,
    ) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; 1 << 16];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [IoSliceMut::new(&mut bytes)];
        // With a timeout the call isn't restarted, and an io_uring that is closed interrupts it.
        let receive = || recvmsg(&self.0, slices, &mut control, RecvFlags::CMSG_CLOEXEC);
        let received = retry_on_intr(receive)?.bytes;
        if received == 0 {
            return Ok(None);
        }
        let fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        });
        let fds = fds.collect();
        let message = postcard::from_bytes(&bytes[..received]).map_err(io::Error::other)?;
        Ok(Some((message, fds)))
    }
}
