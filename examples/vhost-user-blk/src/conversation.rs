//! What is said on a connection, from its begin to its end: a message that can't be followed is
//! answered, and the next one listened to, as a frontend whose backend hangs up has a guest without
//! a disk. Only a connection that is broken, or on which messages can't be told apart any more,
//! ends.

use std::{
    array,
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use backend_process::{chain, limits};
use rustix::{
    io::{Errno, ioctl_fionread},
    net::{RecvFlags, recv},
};
use tracing::warn;
use vhost::vhost_user::{
    BackendReqHandler, Error, VhostUserBackendReqHandlerMut, message::VhostUserVringAddrFlags,
};
use virtio_worker::LogLimit;

use crate::session::Session;

/// Request, flags and size of the body, each of four bytes.
const HEADER: usize = 12;
/// No body is longer, and no message has more files: these are `vhost`'s own limits.
const MAX_BODY: u32 = 0x1000;
const MAX_FILES: usize = 32;
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;

// The requests that are told apart here; the numbers are the protocol's.
const SET_MEM_TABLE: u32 = 5;
const SET_VRING_ADDR: u32 = 9;
const SET_VRING_KICK: u32 = 12;
const SET_VRING_CALL: u32 = 13;
const SET_VRING_ERR: u32 = 14;
const SET_VRING_ENABLE: u32 = 18;
const SET_CONFIG: u32 = 25;
const ADD_MEM_REG: u32 = 37;
const REM_MEM_REG: u32 = 38;
const RESET_DEVICE: u32 = 34;

/// A queue's index and flags, and where its three parts and its log are.
const ADDRESSES: usize = 40;

/// What a message begins with.
#[derive(Clone, Copy, Debug)]
struct Header {
    request: u32,
    flags: u32,
    size: u32,
}

/// What becomes of the connection after a message that could not be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next message; an answer has been given.
    GoOn,
    /// The next message, after an answer to this one.
    Answer,
    /// Nobody knows where the next message begins, or how to answer this one.
    HangUp,
}

/// Follows what the frontend says until it goes.
///
/// # Errors
/// The connection broke within a message, or can't be made sense of.
pub(crate) fn follow(
    connection: UnixStream,
    own: &UnixStream,
    session: &Arc<Mutex<Session>>,
) -> Result<(), Error> {
    let limit = LogLimit::new();
    let mut handler = BackendReqHandler::from_stream(connection, Arc::clone(session));
    loop {
        let mut begin = [0; HEADER + ADDRESSES];
        let begin = match recv(own, &mut begin, RecvFlags::PEEK) {
            // The end between two messages is no error; in the middle of one it is.
            Ok((_, 0)) => return Ok(()),
            Ok((_, len)) => begin.get(..len).unwrap_or_default(),
            Err(Errno::INTR) => continue,
            Err(_) => return Ok(()),
        };
        let Some(header) = Header::parse(begin) else {
            handler.handle_request()?;
            continue;
        };
        let has_addresses = header.has_addresses(begin.len());
        let files = header.files(begin);
        let room = room_for(own, files);
        let (no_room, before) = (room.is_err(), pending(own));
        let followed = match room {
            Err(error) => skip(own, header).and(Err(Error::ReqHandlerError(error))),
            Ok(()) if has_addresses => take_addresses(own, header, session),
            Ok(()) => handler.handle_request(),
        };
        let Err(error) = followed else { continue };
        let next = match &error {
            // As a reply to nothing, it may have been refused with no answer.
            _ if !header.is_sound() => Next::HangUp,
            // With files that it takes none of, `vhost` has read no further than the header, and
            // has answered nothing.
            Error::InvalidMessage if files == 0 && !header.was_read(before, pending(own)) => {
                Next::HangUp
            }
            Error::ReqHandlerError(_) if has_addresses || no_room => Next::Answer,
            error => Next::after(error, header.request),
        };
        if next == Next::HangUp {
            return Err(error);
        }
        if let Some(dropped) = limit.allow() {
            let error = match &error {
                Error::ReqHandlerError(refusal) => chain(refusal).to_string(),
                error => chain(error).to_string(),
            };
            warn!(
                request = header.request,
                error,
                dropped,
                "a message of the frontend is refused: see the documentation of `vhost-user` for what it may send"
            );
        }
        if next == Next::Answer && header.wants_answer() && lock(session).acknowledges() {
            header.answer(own, 1).map_err(Error::SocketError)?;
        }
    }
}

fn lock(session: &Mutex<Session>) -> MutexGuard<'_, Session> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes that have arrived and are not read yet; none if that can't be told.
fn pending(own: &UnixStream) -> u64 {
    ioctl_fionread(own).unwrap_or(0)
}

/// Makes sure that `files` descriptors can come with the message: where there is no room for them,
/// they are lost, and `vhost` with them, which takes the rest of the message for the next one.
fn room_for(own: &UnixStream, files: usize) -> io::Result<()> {
    let room: io::Result<Vec<_>> = (0..files).map(|_| own.as_fd().try_clone_to_owned()).collect();
    room.map(drop).map_err(limits::explain)
}

/// Takes a message from the connection that is not to be followed, and closes what came with it.
fn skip(mut own: &UnixStream, header: Header) -> Result<(), Error> {
    if !header.is_sound() {
        return Err(Error::InvalidMessage);
    }
    let mut message = vec![0; HEADER + header.size as usize];
    own.read_exact(&mut message).map_err(Error::SocketError)
}

impl Header {
    fn parse(begin: &[u8]) -> Option<Self> {
        let word = |at| u32_at(begin, at);
        (begin.len() >= HEADER).then(|| Self { request: word(0), flags: word(4), size: word(8) })
    }

    /// Whether the message is one whose contents `vhost` would call no message at all where the
    /// guest has set its queue up wrongly, and all of it has arrived.
    fn has_addresses(&self, arrived: usize) -> bool {
        self.request == SET_VRING_ADDR
            && self.is_sound()
            && self.size as usize == ADDRESSES
            && arrived == HEADER + ADDRESSES
    }

    /// How many descriptors come with the message that begins so, at most.
    fn files(&self, begin: &[u8]) -> usize {
        match self.request {
            // The number of regions, each with a file.
            SET_MEM_TABLE if begin.len() >= HEADER + 4 => {
                (u32_at(begin, HEADER) as usize).min(MAX_FILES)
            }
            SET_MEM_TABLE => MAX_FILES,
            SET_VRING_KICK | SET_VRING_CALL | SET_VRING_ERR | ADD_MEM_REG => 1,
            _ => 0,
        }
    }

    /// Whether the message's end can be told. `vhost` reads no further than the header of one that
    /// has a flag which is reserved, and would take its body for the next message.
    fn is_sound(&self) -> bool {
        self.flags & !NEED_REPLY == VERSION && self.size <= MAX_BODY
    }

    /// Whether the message and its body were read, of so many bytes that were pending before and are
    /// now. If more have come meanwhile, that can't be told.
    fn was_read(&self, before: u64, now: u64) -> bool {
        self.size > 0 && before.checked_sub(now) == Some(HEADER as u64 + u64::from(self.size))
    }

    fn wants_answer(&self) -> bool {
        self.flags & NEED_REPLY != 0
    }

    /// Acknowledges the request: 0 if it was done, anything else if not.
    fn answer(&self, mut own: &UnixStream, status: u32) -> io::Result<()> {
        let mut answer = [0; HEADER + 8];
        let words = [self.request, VERSION | REPLY, 8, status, 0];
        for (bytes, word) in answer.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        own.write_all(&answer)
    }
}

impl Next {
    /// After an error of `vhost`.
    fn after(error: &Error, request: u32) -> Self {
        match error {
            // The session's own refusals: the message was understood, and is answered by `vhost`.
            Error::ReqHandlerError(_) => Self::GoOn,
            // Of these the whole message has been read, as files may come with them or their
            // values are checked last; `vhost` has answered the first two.
            Error::InvalidMessage | Error::InvalidParam => match request {
                SET_MEM_TABLE | SET_CONFIG => Self::GoOn,
                SET_VRING_KICK | SET_VRING_CALL | SET_VRING_ERR | SET_VRING_ENABLE
                | ADD_MEM_REG | REM_MEM_REG => Self::Answer,
                _ => Self::HangUp,
            },
            // What was not negotiated. A question that is not answered would keep the frontend
            // waiting for ever, so it is hung up on.
            Error::InactiveFeature(_) | Error::InactiveOperation(_) => match request {
                SET_VRING_ENABLE | SET_CONFIG | ADD_MEM_REG | REM_MEM_REG | RESET_DEVICE => {
                    Self::Answer
                }
                _ => Self::HangUp,
            },
            _ => Self::HangUp,
        }
    }
}

/// Takes a whole SET_VRING_ADDR from the connection. Where the parts of a queue are is the guest's
/// word: what is wrong with it is the queue's fault, and none of the protocol.
fn take_addresses(
    mut own: &UnixStream,
    header: Header,
    session: &Mutex<Session>,
) -> Result<(), Error> {
    let mut message = [0; HEADER + ADDRESSES];
    own.read_exact(&mut message).map_err(Error::SocketError)?;
    let body = &message[HEADER..];
    let flags = VhostUserVringAddrFlags::from_bits_truncate(u32_at(body, 4));
    let [descriptors, used, avail, log] = [8, 16, 24, 32].map(|at| u64_at(body, at));
    let mut session = lock(session);
    session.set_vring_addr(u32_at(body, 0), flags, descriptors, used, avail, log)?;
    if header.wants_answer() && session.acknowledges() {
        header.answer(own, 0).map_err(Error::SocketError)?;
    }
    Ok(())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(array::from_fn(|byte| bytes[at + byte]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(array::from_fn(|byte| bytes[at + byte]))
}
