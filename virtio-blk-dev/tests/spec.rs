//! One test for each rule of the specification that a block device can break.
#![cfg(feature = "test-utils")]

mod common;

use common::*;
use virtio_blk_dev::BlockConfig;

fn writable(sectors: u64) -> (Guest, std::sync::Arc<virtio_blk_dev::fake::FakeImage>) {
    guest(sectors, &BlockConfig::default(), F_ALL)
}

#[test]
fn read_returns_the_sectors_and_a_length_of_data_and_status() {
    let (mut guest, _) = writable(16);
    let answer = guest.request(IN, 3, &[], 1024);
    let expected: Vec<u8> = [[3; 512], [4; 512]].concat();
    assert_eq!(answer, Answer { status: OK, len: 1025, data: expected });
}
