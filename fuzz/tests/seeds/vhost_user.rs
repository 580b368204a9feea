//! Frontends as QEMU is one, and others.

use xen_virtio_fuzz::vhost_user::{FILES, MEMORY, NOISE, Report, run};

const GET_FEATURES: u8 = 1;
const SET_FEATURES: u8 = 2;
const SET_OWNER: u8 = 3;
const SET_MEM_TABLE: u8 = 5;
const SET_VRING_NUM: u8 = 8;
const SET_VRING_ADDR: u8 = 9;
const SET_VRING_BASE: u8 = 10;
const GET_VRING_BASE: u8 = 11;
const SET_VRING_KICK: u8 = 12;
const SET_VRING_CALL: u8 = 13;
const GET_PROTOCOL_FEATURES: u8 = 15;
const SET_PROTOCOL_FEATURES: u8 = 16;
const SET_VRING_ENABLE: u8 = 18;
const GET_CONFIG: u8 = 24;
const SET_CONFIG: u8 = 25;
const RESET_DEVICE: u8 = 34;
const ADD_MEM_REG: u8 = 37;

/// Where the frontend has the guest's memory.
const USER: u64 = 0x1000_0000;
const FEATURES: u64 = 1 << 32 | 1 << 30 | 1 << 11 | 1 << 9;
/// MQ, REPLY_ACK, CONFIG, RESET_DEVICE, CONFIGURE_MEM_SLOTS.
const PROTOCOL: u64 = 1 | 1 << 3 | 1 << 9 | 1 << 13 | 1 << 15;

fn message(request: u8, file: Option<&str>, body: &[u8]) -> Vec<u8> {
    let kind = file.map(|file| FILES.iter().position(|kind| *kind == file).unwrap() as u8);
    let files = kind.map_or(0, |kind| 1 << 4 | kind);
    [&[request, 1, files, body.len() as u8], body].concat()
}

fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn longs(longs: &[u64]) -> Vec<u8> {
    longs.iter().flat_map(|long| long.to_ne_bytes()).collect()
}

fn region() -> Vec<u8> {
    longs(&[0, MEMORY.into(), USER, 0])
}

/// A read of sector 0 in the ring at 0: header, data and status at 0x1000.
fn patches() -> Vec<u8> {
    let mut table = Vec::new();
    for (addr, len, flags, next) in
        [(0x1000_u64, 16_u32, 1_u16, 1_u16), (0x1200, 512, 3, 2), (0x1100, 1, 2, 0)]
    {
        table.extend(addr.to_le_bytes());
        table.extend(len.to_le_bytes());
        table.extend(flags.to_le_bytes());
        table.extend(next.to_le_bytes());
    }
    let avail = [0, 0, 1, 0, 0, 0];
    let mut bytes = vec![2];
    for (at, patch) in [(0_u16, &table[..]), (0x400, &avail[..])] {
        bytes.extend(at.to_le_bytes());
        bytes.push(patch.len() as u8);
        bytes.extend(patch);
    }
    bytes
}

fn negotiation() -> Vec<Vec<u8>> {
    vec![
        message(SET_OWNER, None, &[]),
        message(GET_FEATURES, None, &[]),
        message(GET_PROTOCOL_FEATURES, None, &[]),
        message(SET_PROTOCOL_FEATURES, None, &longs(&[PROTOCOL])),
        message(SET_FEATURES, None, &longs(&[FEATURES])),
        message(SET_MEM_TABLE, Some("memory"), &[words(&[1, 0]), region()].concat()),
    ]
}

fn ring(descriptors: u64) -> Vec<Vec<u8>> {
    let parts = longs(&[descriptors, USER + 0x800, USER + 0x400, 0]);
    vec![
        message(SET_VRING_NUM, None, &words(&[0, 16])),
        message(SET_VRING_BASE, None, &words(&[0, 0])),
        message(SET_VRING_ADDR, None, &[words(&[0, 0]), parts].concat()),
        message(SET_VRING_CALL, Some("eventfd"), &longs(&[0])),
        message(SET_VRING_KICK, Some("eventfd"), &longs(&[0])),
        message(SET_VRING_ENABLE, None, &words(&[0, 1])),
    ]
}

fn config(request: u8, value: u8) -> Vec<u8> {
    message(request, None, &[words(&[32, 1, 0]), vec![value]].concat())
}

/// The whole input of these messages.
fn input(parts: &[Vec<Vec<u8>>]) -> Vec<u8> {
    [patches(), parts.concat().concat()].concat()
}

fn base() -> Vec<Vec<u8>> {
    vec![message(GET_VRING_BASE, None, &words(&[0, 0]))]
}

#[test]
fn the_seeds_are_kept_and_reach_what_they_are_for() {
    let served = input(&[negotiation(), ring(USER), base()]);
    let misaligned = input(&[negotiation(), ring(USER + 8), base()]);
    let outside = input(&[negotiation(), ring(USER + u64::from(MEMORY)), base()]);
    let cache = vec![config(GET_CONFIG, 0), config(SET_CONFIG, 0), config(GET_CONFIG, 0)];
    let reset = vec![message(RESET_DEVICE, None, &[])];
    let switched = input(&[negotiation(), cache.clone(), reset, cache]);
    let add = |file| message(ADD_MEM_REG, Some(file), &[longs(&[0]), region()].concat());
    let short = input(&[negotiation(), vec![add("short"), add("null"), add("memory")]]);
    let noise = [input(&[negotiation()]), vec![NOISE, 1, 2, 3]].concat();
    let made = [
        ("served", served.clone()),
        ("misaligned", misaligned.clone()),
        ("outside-the-memory", outside.clone()),
        ("cache-switched", switched.clone()),
        ("files-of-all-kinds", short.clone()),
        ("noise-at-the-end", noise.clone()),
        ("nothing", Vec::new()),
    ];
    super::keep("vhost_user", &made, |data| {
        run(data);
    });

    let answers = |input: &[u8]| {
        let Report { heard, answers } = run(input);
        assert!(heard, "{answers:?}");
        answers
    };
    let refused = |answers: &[(u32, u64)]| -> Vec<u32> {
        let questions = [GET_FEATURES, GET_PROTOCOL_FEATURES, GET_VRING_BASE, GET_CONFIG];
        let acks = answers.iter().filter(|(it, _)| !questions.contains(&(*it as u8)));
        acks.filter(|(_, status)| *status != 0).map(|(request, _)| *request).collect()
    };
    assert_eq!(answers(&served).len(), 12, "the first three are before acknowledgements");
    assert_eq!(refused(&answers(&served)), [0_u32; 0]);
    // The queue is the guest's to set up: no message fails for it.
    assert_eq!(refused(&answers(&misaligned)), [0_u32; 0]);
    assert_eq!(refused(&answers(&outside)), [u32::from(SET_VRING_ENABLE)]);
    assert_eq!(refused(&answers(&switched)), [0_u32; 0]);
    assert_eq!(refused(&answers(&short)), [u32::from(ADD_MEM_REG); 3]);
    assert!(!run(&noise).heard);
    assert_eq!(run(&[]), Report { heard: true, answers: Vec::new() });
}
