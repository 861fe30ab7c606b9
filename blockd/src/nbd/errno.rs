//! The engine's errors in NBD's words: NBD proto.md, "Error values".

use proto::nbd::Errno;
use volume::error::ErrorKind;

/// What a client is told of an error. A corrupt, poisoned or failing volume is an I/O error to it; which, says the message.
pub(crate) const fn errno_of(kind: ErrorKind) -> Errno {
    match kind {
        ErrorKind::InvalidRequest => Errno::Inval,
        ErrorKind::NoSpace => Errno::NoSpc,
        ErrorKind::Fenced | ErrorKind::Closing => Errno::Shutdown,
        ErrorKind::Corrupt | ErrorKind::Unavailable | ErrorKind::Poisoned => Errno::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_errno() {
        let pairs = [
            (ErrorKind::InvalidRequest, 22),
            (ErrorKind::NoSpace, 28),
            (ErrorKind::Fenced, 108),
            (ErrorKind::Closing, 108),
            (ErrorKind::Corrupt, 5),
            (ErrorKind::Unavailable, 5),
            (ErrorKind::Poisoned, 5),
        ];
        for (kind, number) in pairs {
            assert_eq!(errno_of(kind).to_wire(), number, "{kind}");
        }
    }
}
