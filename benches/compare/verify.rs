//! Whether a device stores what it is given and gives what is stored.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail};
use vm_memory::Bytes as _;
use xen_virtio_benches::{Driver, Kind, Request};

use crate::client::Port;
use crate::random::Random;

const BLOCK: usize = 4096;
/// Blocks tried through each queue.
const BLOCKS: u64 = 64;

/// Writes blocks through the device and reads the image, then the other way round.
pub(crate) fn verify<P: Port>(
    port: &mut P,
    drivers: &mut [Driver<'_>],
    image: &File,
    image_len: u64,
) -> Result<()> {
    let mut random = Random::new(0x5eed);
    for (index, driver) in drivers.iter_mut().enumerate() {
        for _ in 0..BLOCKS {
            let at = random.below(image_len / BLOCK as u64) * BLOCK as u64;
            let request = |kind| Request { kind, sector: at / 512, len: BLOCK as u32 };
            let (given, mut got) = (pattern(&mut random), vec![0; BLOCK]);

            driver.data(0, BLOCK).copy_from(&given);
            carry_out(port, driver, index, request(Kind::Write))?;
            carry_out(port, driver, index, Request { kind: Kind::Flush, sector: 0, len: 0 })?;
            image.read_exact_at(&mut got, at).context("reading the image")?;
            if got != given {
                bail!("what was written at {at:#x} is not in the image");
            }

            let stored = pattern(&mut random);
            image.write_all_at(&stored, at).context("writing the image")?;
            carry_out(port, driver, index, request(Kind::Read))?;
            driver.data(0, BLOCK).read_slice(&mut got, 0).context("reading the buffer")?;
            if got != stored {
                bail!("what was read at {at:#x} is not what the image holds");
            }
        }
    }
    Ok(())
}

fn pattern(random: &mut Random) -> Vec<u8> {
    (0..BLOCK).map(|_| random.below(256) as u8).collect()
}

/// One request, waited for with an interrupt, so that a device that sends none is found here.
fn carry_out<P: Port>(
    port: &mut P,
    driver: &mut Driver<'_>,
    queue: usize,
    request: Request,
) -> Result<()> {
    driver.submit(0, request);
    if driver.publish() {
        port.kick(queue)?;
    }
    let mut done = Vec::new();
    loop {
        if let Err(failed) = driver.reap(&mut done) {
            bail!("{request:?}: {failed:?}");
        }
        if !done.is_empty() {
            return Ok(());
        }
        if driver.enable_interrupts() && !port.sleep()? {
            bail!("no interrupt for {request:?}");
        }
    }
}
