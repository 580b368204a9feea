use proptest::prelude::*;

use crate::SECTORS;
use crate::common::*;

/// A request, which may be anything.
#[derive(Clone, Debug)]
pub struct Request {
    pub kind: u32,
    pub sector: u64,
    pub out: Vec<u8>,
    pub data_in: usize,
    /// Where the readable and the writable stream are cut into buffers.
    pub cuts: Vec<usize>,
    /// Bytes missing at the end of the header; then there is no data behind it.
    pub cut_header: usize,
    pub status: bool,
    /// The data, in either direction, lies outside of the guest's memory.
    pub lost: bool,
    pub indirect: bool,
}

/// What the driver does next.
#[derive(Clone, Debug)]
pub enum Step {
    Ask(Request),
    /// Has the worker run, and looks at what it did.
    Look,
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![2 => request().prop_map(Step::Ask), 1 => Just(Step::Look)];
    proptest::collection::vec(step, 1..if cfg!(miri) { 16 } else { 48 })
}

fn sector() -> impl Strategy<Value = u64> {
    prop_oneof![
        16 => 0..SECTORS,
        2 => SECTORS..SECTORS + 2,
        1 => any::<u64>(),
        1 => (0u64..4).prop_map(|n| u64::MAX / 512 + n),
    ]
}

/// A list of ranges, most of them valid, and most of the time all of it.
fn list() -> impl Strategy<Value = Vec<u8>> {
    let sectors = prop_oneof![12 => 0u32..6, 1 => 6u32..9, 1 => any::<u32>()];
    let flags = prop_oneof![16 => Just(0u32), 4 => Just(UNMAP), 1 => any::<u32>()];
    let cut = prop_oneof![12 => Just(0usize), 1 => 1usize..17];
    (proptest::collection::vec((sector(), sectors, flags), 0..5), cut).prop_map(|(list, cut)| {
        let mut data = ranges(&list);
        data.truncate(data.len().saturating_sub(cut));
        data
    })
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![8 => (0usize..5).prop_map(|n| n * 512), 1 => 0usize..1100, 1 => Just(20usize)]
}

fn data() -> impl Strategy<Value = Vec<u8>> {
    (len(), any::<u8>()).prop_map(|(len, seed)| {
        (0..len).map(|n| ((n / 512) as u8 ^ n as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    })
}

fn request() -> impl Strategy<Value = Request> {
    let kind = prop_oneof![
        6 => Just(IN),
        6 => Just(OUT),
        2 => Just(FLUSH),
        1 => Just(GET_ID),
        1 => Just(GET_LIFETIME),
        2 => Just(DISCARD),
        2 => Just(WRITE_ZEROES),
        1 => Just(SECURE_ERASE),
        1 => any::<u32>(),
    ];
    let out = kind.prop_flat_map(|kind| {
        let out = match kind {
            DISCARD | WRITE_ZEROES | SECURE_ERASE => list().boxed(),
            _ => data().boxed(),
        };
        (Just(kind), out)
    });
    // Most requests that aren't for data have no room for any.
    let data_in = |kind: u32, data_in: usize, more: bool| match kind {
        IN | GET_ID | GET_LIFETIME => data_in,
        _ if more => data_in,
        _ => 0,
    };
    let cuts = proptest::collection::vec(0usize..2200, 0..6);
    let cut_header = prop_oneof![16 => Just(0usize), 1 => 1usize..=16];
    let status = prop::bool::weighted(0.95);
    let odd = (prop::bool::weighted(0.1), prop::bool::weighted(0.05), any::<bool>());
    (out, sector(), len(), cuts, cut_header, status, odd).prop_map(
        move |((kind, out), sector, room, cuts, cut_header, status, (more, lost, indirect))| {
            let lost = lost && cut_header == 0;
            Request {
                kind,
                sector,
                out: if cut_header > 0 { Vec::new() } else { out },
                data_in: data_in(kind, room, more),
                cuts,
                cut_header,
                status: status || lost,
                lost,
                indirect,
            }
        },
    )
}
