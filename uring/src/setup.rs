//! Making a ring, or saying why there can be none.

use io_uring::IoUring;
use std::{fmt, fs, io};

/// How large a ring is made.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// Entries that can wait for one submission; more are submitted early. Clamped to what the kernel allows.
    pub submissions: u32,
    /// Completions that can wait without the kernel having to allocate.
    pub completions: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { submissions: 512, completions: 4096 }
    }
}

/// What the kernel granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// Work runs in the ring's thread when it enters, never in an interrupt of it (Linux 6.1).
    DeferredTaskRun,
    /// Work runs in the ring's thread at its next system call (Linux 5.19).
    CooperativeTaskRun,
    /// Work interrupts the ring's thread.
    Plain,
}

/// Why there is no ring: what a person can do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetupCause {
    /// The kernel has no io_uring, or a filter pretends so.
    Missing,
    /// `kernel.io_uring_disabled` forbids it, to all (2) or to those without privilege (1).
    DisabledBySysctl(u8),
    /// Something else forbids it: a seccomp filter or a security module, as container runtimes set up.
    Forbidden,
    /// Below Linux 5.11: what is there lacks what a ring needs.
    KernelTooOld,
    /// The locked-memory limit (RLIMIT_MEMLOCK) or memory is exhausted.
    NoMemory,
    /// The limit on open files (RLIMIT_NOFILE) is exhausted.
    NoFiles,
    /// Anything else.
    Other,
}

/// A ring could not be made.
#[derive(Debug)]
pub struct SetupError {
    /// Why.
    pub cause: SetupCause,
    source: Option<io::Error>,
}

impl SetupError {
    pub(crate) fn from_io(source: io::Error) -> Self {
        let cause = match source.raw_os_error() {
            Some(libc::ENOSYS) => SetupCause::Missing,
            Some(libc::EPERM | libc::EACCES) => match disabled_by_sysctl() {
                Some(level) if level > 0 => SetupCause::DisabledBySysctl(level),
                _ => SetupCause::Forbidden,
            },
            Some(libc::ENOMEM) => SetupCause::NoMemory,
            Some(libc::EMFILE | libc::ENFILE) => SetupCause::NoFiles,
            Some(libc::EINVAL) => SetupCause::KernelTooOld,
            _ => SetupCause::Other,
        };
        Self { cause, source: Some(source) }
    }
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("io_uring is not available: ")?;
        match self.cause {
            SetupCause::Missing => f.write_str("the kernel has none, or a seccomp filter hides it (ENOSYS)"),
            SetupCause::DisabledBySysctl(level) => {
                write!(f, "the sysctl kernel.io_uring_disabled is {level}; set it to 0 to allow it")
            }
            SetupCause::Forbidden => f.write_str(
                "forbidden by a seccomp filter or security module; container runtimes do so by default, \
                 allow io_uring_setup, io_uring_enter and io_uring_register",
            ),
            SetupCause::KernelTooOld => f.write_str("the kernel is too old; Linux 5.11 or newer is needed"),
            SetupCause::NoMemory => f.write_str("no memory for it; raise the locked-memory limit (RLIMIT_MEMLOCK)"),
            SetupCause::NoFiles => f.write_str("too many open files; raise RLIMIT_NOFILE"),
            SetupCause::Other => f.write_str("the kernel refuses to make a ring"),
        }
    }
}

impl std::error::Error for SetupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

/// Makes a ring with the most that this kernel grants.
pub(crate) fn make_ring(config: Config) -> Result<(IoUring, Features), SetupError> {
    let attempts = [Features::DeferredTaskRun, Features::CooperativeTaskRun, Features::Plain];
    let mut refused = None;
    for features in attempts {
        match build(config, features) {
            Ok(ring) if is_sufficient(&ring) => return Ok((ring, features)),
            Ok(_) => return Err(SetupError { cause: SetupCause::KernelTooOld, source: None }),
            // An older kernel knows fewer flags and refuses the others.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refused = Some(error),
            Err(error) => return Err(SetupError::from_io(error)),
        }
    }
    Err(SetupError::from_io(refused.unwrap_or_else(|| io::ErrorKind::Other.into())))
}

fn build(config: Config, features: Features) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_clamp().setup_cqsize(config.completions.max(config.submissions));
    match features {
        Features::DeferredTaskRun => {
            builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
        }
        Features::CooperativeTaskRun => {
            builder.setup_coop_taskrun().setup_taskrun_flag().setup_submit_all();
        }
        Features::Plain => {}
    }
    builder.build(config.submissions)
}

/// Without these, completions could be lost, submitted arguments would have to outlive the submission in places where
/// they do not, and waiting could not time out.
fn is_sufficient(ring: &IoUring) -> bool {
    let params = ring.params();
    params.is_feature_nodrop() && params.is_feature_submit_stable() && params.is_feature_ext_arg()
}

fn disabled_by_sysctl() -> Option<u8> {
    fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_told_from_the_errno_and_says_what_to_do() {
        let cause_of = |errno| SetupError::from_io(io::Error::from_raw_os_error(errno));
        for (errno, cause, word) in [
            (libc::ENOSYS, SetupCause::Missing, "seccomp"),
            (libc::ENOMEM, SetupCause::NoMemory, "RLIMIT_MEMLOCK"),
            (libc::EMFILE, SetupCause::NoFiles, "RLIMIT_NOFILE"),
            (libc::EINVAL, SetupCause::KernelTooOld, "5.11"),
            (libc::EIO, SetupCause::Other, "refuses"),
        ] {
            let error = cause_of(errno);
            assert_eq!(error.cause, cause);
            assert!(error.to_string().contains(word), "{error}");
        }
        let forbidden = cause_of(libc::EPERM).cause;
        assert!(matches!(forbidden, SetupCause::Forbidden | SetupCause::DisabledBySysctl(1..=2)));
    }
}
