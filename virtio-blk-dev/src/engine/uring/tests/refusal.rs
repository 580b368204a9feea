use super::*;

/// A seccomp filter for the calling thread that answers the system call `number` with `errno`.
pub(super) fn refuse(number: libc::c_long, errno: i32) {
    let op = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut program = [
        // The number of the call: `struct seccomp_data` (linux/seccomp.h) begins with it.
        op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number as u32, 0, 1),
        op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0),
        op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: the flag concerns this thread, and takes no memory.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: a filter of four instructions, which the kernel copies.
    let result =
        unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter) };
    assert_eq!(result, 0);
}

#[test]
fn a_kernel_that_refuses_is_told_of_by_its_reason() {
    type Is = fn(&UringError) -> bool;
    let refusals: [(i32, Is); 3] = [
        (libc::ENOSYS, |error| matches!(error, UringError::Missing)),
        (libc::EPERM, |error| matches!(error, UringError::Forbidden)),
        (libc::ENOMEM, |error| matches!(error, UringError::Memory)),
    ];
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_register, libc::SYS_io_uring_enter];
    for (call, (errno, expected)) in calls.into_iter().flat_map(|call| refusals.map(|r| (call, r)))
    {
        let (_file, image) = disk(8);
        // The filter is the thread's, and ends with it.
        let error = std::thread::spawn(move || {
            refuse(call, errno);
            let checked = UringEngine::check().expect_err("refused");
            let made = UringEngine::new(image, 4).err().expect("refused");
            assert_eq!(checked.to_string(), made.to_string());
            made
        });
        let error = error.join().unwrap();
        assert!(expected(&error), "{error}");
    }
}

#[test]
fn a_kernel_that_can_says_so() {
    let (_file, image) = disk(8);
    assert_eq!(UringEngine::check().is_ok(), UringEngine::new(image, 4).is_ok());
}
