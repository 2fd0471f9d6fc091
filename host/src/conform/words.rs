//! What a driver answered, in the words that its author knows: the names of errnos and states.
//!
//! Deliberately absent: sentences for operators. Who reads this has the driver's source open.

use rustix::io::{Errno, Result as Answer};
use vfio_migration_core::device::State;

/// An answer that carries nothing.
pub(super) fn said<T>(answer: &Answer<T>) -> String {
    answer.as_ref().map_or_else(|errno| name(*errno), |_| "success".to_owned())
}

/// The answer of a read or a write.
pub(super) fn bytes(answer: &Answer<usize>) -> String {
    match answer {
        Ok(1) => "1 byte".to_owned(),
        Ok(count) => format!("{count} bytes"),
        Err(errno) => name(*errno),
    }
}

/// The answer of a GET of the state.
pub(super) fn state(answer: &Answer<u32>) -> String {
    match answer {
        Ok(number) => number_of_state(*number),
        Err(errno) => name(*errno),
    }
}

/// A state's name, or the number where the uapi has none.
pub(super) fn number_of_state(number: u32) -> String {
    State::from_raw(number).map_or_else(|| number.to_string(), |state| state.name().to_owned())
}

/// An errno's name in C.
pub(super) fn name(errno: Errno) -> String {
    let known = NAMES.iter().find(|(known, _)| *known == errno);
    known.map_or_else(|| format!("errno {}", errno.raw_os_error()), |(_, name)| (*name).to_owned())
}

/// A few of many findings: what does not fit into a line is counted.
pub(super) fn first_few(findings: &[String]) -> String {
    const FEW: usize = 3;
    let few = findings.iter().take(FEW).cloned().collect::<Vec<_>>().join("; ");
    match findings.len().saturating_sub(FEW) {
        0 => few,
        more => format!("{few}; and {more} more"),
    }
}

const NAMES: [(Errno, &str); 34] = [
    (Errno::PERM, "EPERM"),
    (Errno::NOENT, "ENOENT"),
    (Errno::INTR, "EINTR"),
    (Errno::IO, "EIO"),
    (Errno::NXIO, "ENXIO"),
    (Errno::TOOBIG, "E2BIG"),
    (Errno::BADF, "EBADF"),
    (Errno::AGAIN, "EAGAIN"),
    (Errno::NOMEM, "ENOMEM"),
    (Errno::ACCESS, "EACCES"),
    (Errno::FAULT, "EFAULT"),
    (Errno::BUSY, "EBUSY"),
    (Errno::EXIST, "EEXIST"),
    (Errno::NODEV, "ENODEV"),
    (Errno::INVAL, "EINVAL"),
    (Errno::NOTTY, "ENOTTY"),
    (Errno::FBIG, "EFBIG"),
    (Errno::NOSPC, "ENOSPC"),
    (Errno::SPIPE, "ESPIPE"),
    (Errno::PIPE, "EPIPE"),
    (Errno::RANGE, "ERANGE"),
    (Errno::NOSYS, "ENOSYS"),
    (Errno::NOMSG, "ENOMSG"),
    (Errno::NODATA, "ENODATA"),
    (Errno::PROTO, "EPROTO"),
    (Errno::BADMSG, "EBADMSG"),
    (Errno::MSGSIZE, "EMSGSIZE"),
    (Errno::OVERFLOW, "EOVERFLOW"),
    (Errno::OPNOTSUPP, "EOPNOTSUPP"),
    (Errno::ALREADY, "EALREADY"),
    (Errno::TIMEDOUT, "ETIMEDOUT"),
    (Errno::REMOTEIO, "EREMOTEIO"),
    (Errno::CANCELED, "ECANCELED"),
    (Errno::CONNRESET, "ECONNRESET"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_by_the_names_of_the_header() {
        assert_eq!(said(&Ok::<(), Errno>(())), "success");
        assert_eq!(said(&Err::<(), _>(Errno::NOMSG)), "ENOMSG");
        assert_eq!(
            [bytes(&Ok(1)), bytes(&Ok(0)), bytes(&Err(Errno::NODEV))],
            ["1 byte", "0 bytes", "ENODEV"]
        );
        assert_eq!([state(&Ok(3)), state(&Ok(9)), state(&Err(Errno::IO))], ["STOP_COPY", "9", "EIO"]);
        assert_eq!(name(Errno::from_raw_os_error(4095)), "errno 4095");
    }

    #[test]
    fn of_many_findings_the_first_few_are_told_and_the_others_counted() {
        let findings = ["a", "b", "c", "d", "e"].map(str::to_owned);
        assert_eq!(first_few(&findings), "a; b; c; and 2 more");
        assert_eq!(first_few(&findings[..2]), "a; b");
    }
}
