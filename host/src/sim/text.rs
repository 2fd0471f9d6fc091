//! The text form of a [`Config`]: `key=value`, separated by commas.
//!
//! Deliberately absent: what the keys mean; the table is at [`sim`](super).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rustix::io::Errno;
use vfio_migration_core::device::{Features, State};
use vfio_migration_core::stream::pci_config::{SpaceLength, VECTORS_MAX};

use super::config::{Config, Drained, Increment, Info, SIZE_MAX};
use super::fault::{After, Call, Fault, Operation};
use super::space::Pci;
use crate::size;

/// Why a text is no [`Config`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A part between commas that is no `key=value`, or its key unknown or there for the second time.
    WrongPart {
        /// The part.
        got: String,
    },
    /// A value that its key can't have.
    WrongValue {
        /// The value's key.
        key: &'static str,
        /// What the key can have.
        wanted: &'static str,
        /// The value, or the part of it that is wrong.
        got: String,
    },
    /// A size above [`SIZE_MAX`].
    TooBig {
        /// The size in bytes.
        got: u64,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongPart { got } => write!(f, "wanted {KEYS}, got {got:?}"),
            Self::WrongValue { key, wanted, got } => write!(f, "{key}: wanted {wanted}, got {got:?}"),
            Self::TooBig { got } => write!(f, "size: wanted at most {SIZE_MAX} bytes, got {got}"),
        }
    }
}

impl std::error::Error for ConfigError {}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let mut seen = Vec::new();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let wrong = || ConfigError::WrongPart { got: part.to_owned() };
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let again = seen.contains(&key) && !matches!(key, "fail" | "guest-reset");
            if again || !set(&mut config, key, value)? {
                return Err(wrong());
            }
            seen.push(key);
        }
        Ok(config)
    }
}

/// Returns whether there is such a key.
fn set(config: &mut Config, key: &str, value: &str) -> Result<bool, ConfigError> {
    let precopy = &mut config.precopy;
    match key {
        "size" => config.size = Config::new(bytes("size", value)?, 0, config.features)?.size,
        "seed" => config.seed = number("seed", "a number below 2^64", value)?,
        "flags" => config.features = flags(value)?,
        "initial" => precopy.initial = bytes("initial", value)?,
        "dirty" => precopy.dirty = bytes("dirty", value)?,
        "dirty-for" => precopy.dirty_for = Some(number("dirty-for", "a number of rounds", value)?),
        "increment" => {
            let words = [("asked", Increment::Asked), ("always", Increment::Always)];
            precopy.increment = word("increment", "asked or always", value, words)?;
        }
        "reinit" => precopy.reinit = Some(number("reinit", "a number of rounds", value)?),
        "v2" => precopy.v2 = word("v2", "yes or no", value, [("yes", true), ("no", false)])?,
        "drained" => {
            let words = [("enomsg", Drained::NoMsg), ("0", Drained::Zero)];
            precopy.drained = word("drained", "enomsg or 0", value, words)?;
        }
        "info" => {
            let words = [("zeroed", Info::Zeroed), ("stale", Info::Stale)];
            precopy.info = word("info", "zeroed or stale", value, words)?;
        }
        "data-size" if value == "exact" => config.data_size = None,
        "data-size" => config.data_size = Some(data_size(value)?),
        "pci" => config.pci = Some(pci(value)?),
        "short" => config.pace.short = Some(number("short", "a number of bytes from 1 on", value)?),
        "slow" => config.pace.slow = micros("slow", value)?,
        "slow-set" => config.pace.slow_set = micros("slow-set", value)?,
        "fail" => config.faults.push(fault(value)?),
        "guest-reset" => config.guest_resets.push(call("guest-reset", value)?),
        _ => return Ok(false),
    }
    Ok(true)
}

/// `BYTES[:VECTORS]`.
fn pci(value: &str) -> Result<Pci, ConfigError> {
    let wrong = || wrong_value("pci", "256 or 4096, and :VECTORS from 0 to 2048", value);
    let (bytes, vectors) = value.split_once(':').unwrap_or((value, "0"));
    let is_long = |space: &SpaceLength| bytes.parse() == Ok(space.bytes());
    let space = SpaceLength::ALL.into_iter().find(is_long).ok_or_else(wrong)?;
    let vectors = vectors.parse().ok().filter(|vectors| *vectors <= VECTORS_MAX).ok_or_else(wrong)?;
    Ok(Pci { space, vectors })
}

/// `OPERATION:NTH[:ERRNO[:AFTER]]`.
fn fault(value: &str) -> Result<Fault, ConfigError> {
    let mut parts = value.splitn(4, ':');
    let (operation, nth) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let call = Call { operation: operation_called("fail", operation)?, nth: nth_called("fail", nth)? };
    let mut fault = Fault::eio(call);
    if let Some(name) = parts.next() {
        fault.errno = errno(name)?;
    }
    if let Some(name) = parts.next() {
        fault.after = after(call.operation, name)?;
    }
    Ok(fault)
}

/// `OPERATION:NTH`.
fn call(key: &'static str, value: &str) -> Result<Call, ConfigError> {
    let (operation, nth) = value.split_once(':').unwrap_or((value, ""));
    Ok(Call { operation: operation_called(key, operation)?, nth: nth_called(key, nth)? })
}

fn operation_called(key: &'static str, name: &str) -> Result<Operation, ConfigError> {
    let state = |name: &str| State::ALL.into_iter().find(|state| state.name().eq_ignore_ascii_case(name));
    Ok(match name {
        "set" => Operation::Set,
        "get" => Operation::Get,
        "read" => Operation::Read,
        "write" => Operation::Write,
        "info" => Operation::Info,
        "reset" => Operation::Reset,
        "data-size" => Operation::DataSize,
        _ => {
            let to = name.strip_prefix("set-").and_then(state);
            Operation::SetTo(to.ok_or_else(|| wrong_value(key, OPERATIONS, name))?)
        }
    })
}

fn nth_called(key: &'static str, text: &str) -> Result<Option<u64>, ConfigError> {
    match text.parse() {
        Ok(nth @ 1..) => Ok(Some(nth)),
        _ if text == "*" => Ok(None),
        _ => Err(wrong_value(
            key,
            "which call, from 1 on, or * for each, after the operation and a colon",
            text,
        )),
    }
}

fn errno(name: &str) -> Result<Errno, ConfigError> {
    let named = ERRNOS.into_iter().find(|(known, _)| *known == name).map(|(_, errno)| errno);
    let numbered = || name.parse().ok().filter(|number| (1..=4095).contains(number));
    named
        .or_else(|| numbered().map(Errno::from_raw_os_error))
        .ok_or_else(|| wrong_value("fail", "an errno's name, for instance EIO, or its number", name))
}

fn after(operation: Operation, name: &str) -> Result<After, ConfigError> {
    match (operation, name) {
        (_, "old") => Ok(After::Old),
        (Operation::Set | Operation::SetTo(_), "first") => Ok(After::First),
        (Operation::Set | Operation::SetTo(_), "error") | (Operation::Reset, "unknown") => Ok(After::Error),
        _ => Err(wrong_value("fail", "old, after set also first or error, after reset also unknown", name)),
    }
}

fn bytes(key: &'static str, value: &str) -> Result<u64, ConfigError> {
    size::parse_size(value).ok_or_else(|| wrong_value(key, size::WANTED, value))
}

fn data_size(value: &str) -> Result<u64, ConfigError> {
    size::parse_size(value)
        .ok_or_else(|| wrong_value("data-size", "a number of B, KiB, MiB or GiB, or exact", value))
}

fn micros(key: &'static str, value: &str) -> Result<Duration, ConfigError> {
    number(key, "a number of microseconds", value).map(Duration::from_micros)
}

fn flags(value: &str) -> Result<Features, ConfigError> {
    let found = Features::ALL.into_iter().find(|features| Ok(features.raw()) == value.parse());
    found.ok_or_else(|| wrong_value("flags", "1, 3, 5 or 7", value))
}

fn number<T: FromStr>(key: &'static str, wanted: &'static str, value: &str) -> Result<T, ConfigError> {
    value.parse().map_err(|_| wrong_value(key, wanted, value))
}

fn word<T>(
    key: &'static str,
    wanted: &'static str,
    value: &str,
    words: [(&str, T); 2],
) -> Result<T, ConfigError> {
    let found = words.into_iter().find(|(word, _)| *word == value);
    found.map(|(_, meaning)| meaning).ok_or_else(|| wrong_value(key, wanted, value))
}

fn wrong_value(key: &'static str, wanted: &'static str, got: &str) -> ConfigError {
    ConfigError::WrongValue { key, wanted, got: got.to_owned() }
}

const KEYS: &str = "size=, seed=, flags=, initial=, dirty=, dirty-for=, increment=, reinit=, v2=, drained=, info=, \
                    data-size=, pci=, short=, slow= or slow-set=, each once, or fail= or guest-reset=";
const OPERATIONS: &str = "set, set-STATE, get, read, write, info, reset or data-size";

/// The names that drivers and the kernel's VFIO code answer with, and a few more; others have their numbers.
const ERRNOS: [(&str, Errno); 28] = [
    ("EPERM", Errno::PERM),
    ("ENOENT", Errno::NOENT),
    ("EINTR", Errno::INTR),
    ("EIO", Errno::IO),
    ("ENXIO", Errno::NXIO),
    ("E2BIG", Errno::TOOBIG),
    ("EBADF", Errno::BADF),
    ("EAGAIN", Errno::AGAIN),
    ("ENOMEM", Errno::NOMEM),
    ("EACCES", Errno::ACCESS),
    ("EFAULT", Errno::FAULT),
    ("EBUSY", Errno::BUSY),
    ("ENODEV", Errno::NODEV),
    ("EINVAL", Errno::INVAL),
    ("ENOTTY", Errno::NOTTY),
    ("ENOSPC", Errno::NOSPC),
    ("ESPIPE", Errno::SPIPE),
    ("ERANGE", Errno::RANGE),
    ("ENOSYS", Errno::NOSYS),
    ("ENOMSG", Errno::NOMSG),
    ("ENODATA", Errno::NODATA),
    ("EPROTO", Errno::PROTO),
    ("EBADMSG", Errno::BADMSG),
    ("EOVERFLOW", Errno::OVERFLOW),
    ("EOPNOTSUPP", Errno::OPNOTSUPP),
    ("ETIMEDOUT", Errno::TIMEDOUT),
    ("EREMOTEIO", Errno::REMOTEIO),
    ("ECANCELED", Errno::CANCELED),
];
