//! The rules of a batch of foreign frames: every frame's result read, paged-out ones waited for.

use std::io;
use std::time::Duration;

/// How often frames that Xen is paging in are asked for, all in all.
const TRIES: u32 = 12;
/// The first pause between two tries; it doubles, so a frame is given up after about 200 ms.
const FIRST_PAUSE: Duration = Duration::from_micros(100);

/// Frames mapped one after the other, and the result of each: 0, or its errno negated, as
/// `IOCTL_PRIVCMD_MMAPBATCH_V2` gives it.
pub(crate) struct Batch<T> {
    pub(crate) region: T,
    pub(crate) errors: Vec<i32>,
}

impl<T> Batch<T> {
    /// What a call says that repeats a frame's -ENOENT as the result of the whole, as the kernel does.
    pub(crate) fn tolerate(region: T, errors: Vec<i32>, call: io::Result<()>) -> io::Result<Self> {
        match call {
            Err(error)
                if error.raw_os_error() != Some(libc::ENOENT)
                    || !errors.contains(&-libc::ENOENT) =>
            {
                Err(error)
            }
            _ => Ok(Self { region, errors }),
        }
    }

    /// Those of `gfns`, which were mapped by this batch, that are paged out.
    fn paged_out(&self, gfns: &[u64]) -> Vec<u64> {
        let errors = self.errors.iter();
        gfns.iter().zip(errors).filter(|&(_, &e)| e == -libc::ENOENT).map(|(&gfn, _)| gfn).collect()
    }
}

/// Maps `gfns` by `map`, which makes a new region for the frames it is given.
///
/// Frames that were answered -ENOENT are paged out and on their way. Only they are asked for again, in a
/// region of their own that is dropped at once; when they are there, all are mapped anew. The kernel
/// would take a second call for a part of a region, but on a domain with a translated physmap (Arm,
/// PVH) it gives that part the backing pages of the region's start (`mmap_batch_fn` of
/// `drivers/xen/privcmd.c` counts from `pages[0]`), so that two places of the region are one frame.
pub(crate) fn map_frames<T>(
    gfns: &[u64],
    mut map: impl FnMut(&[u64]) -> io::Result<Batch<T>>,
) -> io::Result<Batch<T>> {
    let mut batch = map(gfns)?;
    let mut missing = batch.paged_out(gfns);
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        if missing.is_empty() {
            return Ok(batch);
        }
        std::thread::sleep(pause);
        pause *= 2;
        missing = map(&missing)?.paged_out(&missing);
        if missing.is_empty() {
            batch = map(gfns)?;
            // Another frame may have been paged out meanwhile.
            missing = batch.paged_out(gfns);
        }
    }
    if missing.len() < batch.paged_out(gfns).len() {
        // Some came, others are given up.
        batch = map(gfns)?;
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One frame after another that is found paged out, call by call.
    fn answer(calls: &mut Vec<Vec<u64>>, gfns: &[u64], out: &[u64]) -> io::Result<Batch<usize>> {
        calls.push(gfns.to_vec());
        let errors: Vec<_> =
            gfns.iter().map(|gfn| if out.contains(gfn) { -libc::ENOENT } else { 0 }).collect();
        let call = match errors.contains(&-libc::ENOENT) {
            true => Err(io::Error::from_raw_os_error(libc::ENOENT)),
            false => Ok(()),
        };
        Batch::tolerate(calls.len(), errors, call)
    }

    #[test]
    fn paged_out_frames_alone_are_asked_for_again_and_no_region_is_mapped_in_parts() {
        let mut calls = Vec::new();
        let out: [&[u64]; 4] = [&[11, 12, 14], &[14], &[], &[]];
        let batch = map_frames(&[10, 11, 12, 13, 14, 15], |gfns| {
            let out = out[calls.len()];
            answer(&mut calls, gfns, out)
        })
        .unwrap();
        let all = vec![10, 11, 12, 13, 14, 15];
        assert_eq!(calls, [all.clone(), vec![11, 12, 14], vec![14], all]);
        assert_eq!((batch.region, batch.errors), (4, vec![0; 6]), "the region of the last call");
    }

    #[test]
    fn a_frame_that_goes_while_another_comes_is_waited_for_too() {
        let mut calls = Vec::new();
        let out: [&[u64]; 5] = [&[1], &[], &[2], &[], &[]];
        let batch = map_frames(&[1, 2], |gfns| {
            let out = out[calls.len()];
            answer(&mut calls, gfns, out)
        })
        .unwrap();
        assert_eq!(calls, [vec![1, 2], vec![1], vec![1, 2], vec![2], vec![1, 2]]);
        assert_eq!(batch.errors, [0, 0]);
    }

    #[test]
    fn a_frame_that_never_comes_is_given_up() {
        let mut calls = Vec::new();
        let batch = map_frames(&[1, 2], |gfns| answer(&mut calls, gfns, &[1])).unwrap();
        assert_eq!(batch.errors, [-libc::ENOENT, 0]);
        assert_eq!(calls.len(), TRIES as usize);
        assert!(calls[1..].iter().all(|call| *call == [1]));
    }

    #[test]
    fn what_came_is_mapped_though_another_frame_is_given_up() {
        for came in [2, TRIES as usize - 1] {
            let mut calls = Vec::new();
            let batch = map_frames(&[1, 2], |gfns| {
                let out: &[u64] = if calls.len() < came { &[1, 2] } else { &[1] };
                answer(&mut calls, gfns, out)
            })
            .unwrap();
            assert_eq!(batch.errors, [-libc::ENOENT, 0]);
        }
    }

    #[test]
    fn a_failed_call_fails_the_batch() {
        let refused = || Err(io::Error::from_raw_os_error(libc::ENOENT));
        let batch = map_frames(&[1], |_| Batch::tolerate((), vec![0], refused()));
        assert_eq!(batch.err().and_then(|error| error.raw_os_error()), Some(libc::ENOENT));
    }
}
