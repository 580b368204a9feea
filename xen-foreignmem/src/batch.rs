//! The rules of a batch of foreign frames: every frame's result read, paged-out ones tried again.

use std::io;
use std::time::Duration;

/// How often frames that Xen is paging in are asked for, all in all.
const TRIES: u32 = 12;
/// The first pause between two tries; it doubles, so a frame is given up after about 200 ms.
const FIRST_PAUSE: Duration = Duration::from_micros(100);

/// Maps `gfns` by `call`, which gets the index of its first frame, frames and a slot for the errno
/// (negated, 0 is success) of each, as `IOCTL_PRIVCMD_MMAPBATCH_V2` does. The first call covers all
/// frames, later ones the runs that were answered -ENOENT: paged out, on their way.
pub(crate) fn map_frames(
    gfns: &[u64],
    errors: &mut [i32],
    mut call: impl FnMut(usize, &[u64], &mut [i32]) -> io::Result<()>,
) -> io::Result<()> {
    // The kernel repeats a frame's -ENOENT as the result of the whole call.
    let mut tolerant =
        |first: usize, gfns: &[u64], errors: &mut [i32]| match call(first, gfns, errors) {
            Err(error)
                if error.raw_os_error() == Some(libc::ENOENT)
                    && errors.contains(&-libc::ENOENT) =>
            {
                Ok(())
            }
            other => other,
        };
    tolerant(0, gfns, errors)?;
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        if !errors.contains(&-libc::ENOENT) {
            break;
        }
        std::thread::sleep(pause);
        pause *= 2;
        let mut first = 0;
        while let Some(skip) = errors[first..].iter().position(|&e| e == -libc::ENOENT) {
            first += skip;
            let run = errors[first..].iter().take_while(|&&e| e == -libc::ENOENT).count();
            let errors = &mut errors[first..first + run];
            errors.fill(0);
            tolerant(first, &gfns[first..first + run], errors)?;
            first += run;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paged_out_frames_are_retried_by_runs_until_they_come() {
        let mut errors = [0; 6];
        let mut calls = Vec::new();
        map_frames(&[10, 11, 12, 13, 14, 15], &mut errors, |first, gfns, errors| {
            calls.push((first, gfns.to_vec()));
            if calls.len() == 1 {
                errors[1..3].fill(-libc::ENOENT);
                errors[3] = -libc::EINVAL;
                errors[4] = -libc::ENOENT;
                return Err(io::Error::from_raw_os_error(libc::ENOENT));
            }
            Ok(())
        })
        .unwrap();
        assert_eq!(errors, [0, 0, 0, -libc::EINVAL, 0, 0]);
        assert_eq!(calls[1..], [(1, vec![11, 12]), (4, vec![14])]);
    }

    #[test]
    fn a_frame_that_never_comes_is_given_up() {
        let mut errors = [0; 2];
        let mut calls = 0;
        map_frames(&[1, 2], &mut errors, |_, _, errors| {
            calls += 1;
            errors[0] = -libc::ENOENT;
            Ok(())
        })
        .unwrap();
        assert_eq!(errors, [-libc::ENOENT, 0]);
        assert_eq!(calls, TRIES);
    }

    #[test]
    fn a_failed_call_fails_the_batch() {
        let error =
            map_frames(&[1], &mut [0], |_, _, _| Err(io::Error::from_raw_os_error(libc::ENOENT)))
                .unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
