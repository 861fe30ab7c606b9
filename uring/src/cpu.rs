//! Which cores a thread runs on.

use std::io;
use std::mem;

/// The cores that the calling thread may run on, in order.
///
/// # Errors
/// What `sched_getaffinity` says.
pub fn allowed() -> io::Result<Vec<usize>> {
    // SAFETY: a `cpu_set_t` is an array of integers, for which zeros are a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `set` is writable for the size given; 0 names the calling thread.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let cores = 0..usize::try_from(libc::CPU_SETSIZE).unwrap_or(0);
    // SAFETY: every core asked for is below `CPU_SETSIZE`, the number of bits in the set.
    Ok(cores.filter(|core| unsafe { libc::CPU_ISSET(*core, &set) }).collect())
}

/// Makes the calling thread run on `core` only.
///
/// # Errors
/// `InvalidInput` when there can be no such core, otherwise what `sched_setaffinity` says.
pub fn pin_current_thread(core: usize) -> io::Result<()> {
    if core >= usize::try_from(libc::CPU_SETSIZE).unwrap_or(0) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a `cpu_set_t` is an array of integers, for which zeros are a value.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `core` is below `CPU_SETSIZE`, the number of bits in the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: `set` is readable for the size given; 0 names the calling thread.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if result != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_run_on_its_core_only() {
        let core = *allowed().unwrap().last().unwrap();
        std::thread::spawn(move || {
            pin_current_thread(core).unwrap();
            assert_eq!(allowed().unwrap(), [core]);
        })
        .join()
        .unwrap();
        assert_eq!(pin_current_thread(usize::MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
