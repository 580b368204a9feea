//! What other backends of this kind have got wrong where several parts meet, each tried here by a guest
//! through the whole stack. Those that lie within one part are tested there.

mod addresses;
mod broken_rings;
#[path = "../common/mod.rs"]
mod common;
mod interrupts;
mod life_cycle;
mod registers;
mod requests;

use common::{
    block::{BlockRequests, FEATURE_FLUSH, IN, OK},
    host::sector_pattern,
    one_disk::OneDisk,
};
use virtio_dev::feature::{ACCESS_PLATFORM, INDIRECT_DESC, VERSION_1};
use xen_virtio_backend::fake::{FakeDriver, Sharing};

const FEATURES: u64 = VERSION_1 | FEATURE_FLUSH | INDIRECT_DESC;

fn features(sharing: Sharing) -> u64 {
    match sharing {
        Sharing::Foreign => FEATURES,
        // Without tables of buffers, each of which would be one more grant.
        Sharing::Grant => FEATURES & !INDIRECT_DESC | ACCESS_PLATFORM,
    }
}

fn start(it: &OneDisk) -> FakeDriver {
    FakeDriver::start(it.window(), &it.kernel, features(it.kernel.sharing()))
}

/// The device still does what it is for.
fn assert_serves(driver: &mut FakeDriver) {
    let data = driver.buffer(512);
    assert_eq!(driver.request(IN, 11, Some((data.device, 512))), (OK, 513));
    assert_eq!(driver.get::<512>(data.guest), sector_pattern(11));
    driver.release(data);
}
