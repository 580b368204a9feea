//! What a frontend says: any messages, with any files, and any contents of the guest's memory, which
//! the rings lie in.
//!
//! An input begins with the number of its patches of the memory, each a place (two bytes), a length
//! (one) and its bytes. Then come messages: a request, flags (0: none, 1: to be acknowledged, else
//! as they are beside the version), files (the kind, see [`FILES`], in the lower half, how many in
//! the upper), the length of the body and the body. A request of [`NOISE`] has what is left sent as
//! it is.

use std::fs::File;
use std::io::{ErrorKind, IoSlice, Read};
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg, sockopt};
use vhost_user_blk::args::{Args, EngineKind};
use vhost_user_blk::device::Device;
use vhost_user_blk::server::converse;

use crate::input::Input;

/// The guest's memory in bytes.
pub const MEMORY: u16 = 0x8000;
/// A request that is none: what follows is no message.
pub const NOISE: u8 = 255;
/// Kinds of files: the guest's memory, half a page of another, an eventfd, a device without
/// contents.
pub const FILES: [&str; 4] = ["memory", "short", "eventfd", "null"];

/// As many messages as have room in a socket, with their answers.
const MESSAGES: usize = 32;
const VERSION: u32 = 1;
const REPLY: u32 = 1 << 2;
const NEED_REPLY: u32 = 1 << 3;
const GET_FEATURES: u32 = 1;
const SET_PROTOCOL_FEATURES: u32 = 16;
/// The requests that are answered only where the frontend asks for an acknowledgement; all others
/// are questions.
const SETTINGS: [u32; 16] = [2, 3, 4, 5, 8, 9, 10, 12, 13, 14, 16, 18, 25, 34, 37, 38];
/// `VHOST_USER_PROTOCOL_F_REPLY_ACK`
const REPLY_ACK: u64 = 1 << 3;

/// What an input came to, for the tests of the seeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The frontend was heard out.
    pub heard: bool,
    /// The requests that were answered, each with the first eight bytes of the answer.
    pub answers: Vec<(u32, u64)>,
}

static DEVICE: LazyLock<Arc<Device>> = LazyLock::new(|| {
    let image = std::env::temp_dir().join(format!("vhost-user-fuzz-{}", std::process::id()));
    File::create(&image).and_then(|file| file.set_len(0x4000)).expect("an image");
    let device = Device::open(&Args {
        socket: PathBuf::new(),
        image: image.clone(),
        read_only: false,
        engine: EngineKind::Sync,
        direct: false,
        logical_block_size: None,
        queues: 2,
        queue_size: 16,
        poll_us: 0,
        serial: String::new(),
        cpus: None,
        stop_timeout: None,
    });
    std::fs::remove_file(&image).expect("the image's removal");
    Arc::new(device.expect("a device"))
});

/// The files of one input.
struct Files([OwnedFd; 4]);

impl Files {
    fn new(patches: &[(u16, &[u8])]) -> Self {
        let memory = |len| {
            let file = File::from(memfd_create("guest", MemfdFlags::CLOEXEC).expect("memory"));
            file.set_len(len).expect("its size");
            file
        };
        let guest = memory(MEMORY.into());
        for &(at, bytes) in patches {
            let room = usize::from(MEMORY.saturating_sub(at)).min(bytes.len());
            guest.write_all_at(&bytes[..room], at.into()).expect("the memory");
        }
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let null = File::open("/dev/null").expect("/dev/null");
        Self([guest.into(), memory(0x800).into(), event.expect("an eventfd"), null.into()])
    }
}

/// Carries out one input.
pub fn run(data: &[u8]) -> Report {
    let mut input = Input::new(data);
    let patches: Vec<_> = (0..input.u8() % 16)
        .map(|_| {
            let (at, len) = (input.u16() % MEMORY, input.u8());
            (at, input.bytes(len.into()))
        })
        .collect();
    let files = Files::new(&patches);
    let (mut frontend, backend) = UnixStream::pair().expect("a pair of sockets");
    sockopt::set_socket_send_buffer_size(&backend, 1 << 20).expect("room for answers");
    let mut said = Vec::new();
    let mut noise = false;
    while !input.is_empty() && said.len() < MESSAGES && !noise {
        let request = input.u8();
        noise = request == NOISE;
        if noise {
            send(&frontend, input.rest(), &[]);
        } else {
            said.push(message(&mut input, request.into(), &frontend, &files));
        }
    }
    frontend.shutdown(Shutdown::Write).expect("an end");
    let own = backend.try_clone().expect("another descriptor");
    let heard = converse(backend, &own, Arc::clone(&DEVICE));
    drop(own);
    let mut bytes = Vec::new();
    // Who is hung up on with something unheard finds the connection reset behind the answers.
    if let Err(error) = frontend.read_to_end(&mut bytes) {
        assert!(!heard && error.kind() == ErrorKind::ConnectionReset, "{error}");
    }
    let answers = answers(&bytes);
    check(&said, &answers, heard, noise);
    serves();
    Report { heard, answers }
}

/// A message as it was sent.
struct Message {
    request: u32,
    flags: u32,
    body: Vec<u8>,
}

fn message(input: &mut Input<'_>, request: u32, to: &UnixStream, files: &Files) -> Message {
    let (flags, kinds, len) = (input.u8(), input.u8(), input.u8());
    let flags = match flags {
        0 => VERSION,
        1 => VERSION | NEED_REPLY,
        other => u32::from(other) << 2 | VERSION,
    };
    let body = input.bytes(len.into()).to_vec();
    let kind = &files.0[usize::from(kinds % 16) % FILES.len()];
    let fds = vec![kind.as_fd(); usize::from(kinds >> 4).min(8)];
    let mut bytes = Vec::new();
    for word in [request, flags, body.len() as u32] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(&body);
    send(to, &bytes, &fds);
    Message { request, flags, body }
}

fn send(to: &UnixStream, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(8))];
    let mut files = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(files.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let sent = sendmsg(to, &[IoSlice::new(bytes)], &mut files, SendFlags::NOSIGNAL);
    assert_eq!(sent.expect("a message that fits in a socket"), bytes.len());
}

/// Request and first eight bytes of each answer.
fn answers(mut bytes: &[u8]) -> Vec<(u32, u64)> {
    let word = |bytes: &[u8], at| u32::from_ne_bytes(std::array::from_fn(|byte| bytes[at + byte]));
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        assert!(bytes.len() >= 12, "half an answer: {bytes:?}");
        let [request, flags, size] = [0, 4, 8].map(|at| word(bytes, at));
        assert_eq!(flags, VERSION | REPLY, "flags of an answer to {request}");
        assert!(bytes.len() - 12 >= size as usize, "an answer of {size} bytes to {request}");
        let (body, rest) = bytes[12..].split_at(size as usize);
        let first = std::array::from_fn(|byte| body.get(byte).copied().unwrap_or(0));
        answers.push((request, u64::from_ne_bytes(first)));
        bytes = rest;
    }
    answers
}

/// The answers are those of messages, in their order; where the frontend was heard out, of every
/// question and of every message that asks to be acknowledged.
fn check(said: &[Message], answers: &[(u32, u64)], heard: bool, noise: bool) {
    let mut answers = answers.iter().map(|(request, _)| *request).peekable();
    let (mut asked, mut taken) = (false, false);
    for (nth, Message { request, flags, body }) in said.iter().enumerate() {
        asked |= *request == GET_FEATURES;
        if let (SET_PROTOCOL_FEATURES, Ok(value)) = (*request, body.as_slice().try_into()) {
            taken = u64::from_ne_bytes(value) & REPLY_ACK != 0;
        }
        let expected = !SETTINGS.contains(request) || asked && taken && flags & NEED_REPLY != 0;
        let answered = expected && answers.next_if_eq(request).is_some();
        assert!(
            answered || !expected || !heard || noise,
            "no answer to message {nth}, request {request}"
        );
    }
    // What is no message as a whole may have one in it.
    assert!(noise || answers.peek().is_none(), "an answer to nothing: {:?}", answers.next());
}

/// The next frontend finds the device as every one does.
fn serves() {
    let (mut frontend, backend) = UnixStream::pair().expect("a pair of sockets");
    let asked: Vec<u8> =
        [GET_FEATURES, VERSION, 0].iter().flat_map(|word| word.to_ne_bytes()).collect();
    send(&frontend, &asked, &[]);
    frontend.shutdown(Shutdown::Write).expect("an end");
    let own = backend.try_clone().expect("another descriptor");
    assert!(converse(backend, &own, Arc::clone(&DEVICE)));
    drop(own);
    frontend.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
    let mut answer = [0; 20];
    frontend.read_exact(&mut answer).expect("the features");
    assert_eq!(answer[..4], GET_FEATURES.to_ne_bytes());
}
