//! The text form of a simulated device: each key, each word, and what is said where it is wrong.
//!
//! Deliberately absent: what a device then does.

use std::num::NonZeroUsize;
use std::time::Duration;

use vfio_migration_core::device::{Features, State};
use vfio_migration_core::stream::pci_config::SpaceLength;
use vfio_migration_host::sim::{
    After, Call, Config, ConfigError, Drained, Errno, Fault, Increment, Info, Operation, Pace, Pci, Precopy,
    SIZE_MAX,
};

#[test]
fn a_config_is_read_from_text() {
    let features = Features::ALL[3];
    let table = [
        ("", Config::new(64 << 20, 0, features)),
        ("size=64MiB,seed=7,flags=7", Config::new(64 << 20, 7, features)),
        ("flags=1,size=0", Config::new(0, 0, Features::ALL[0])),
        ("flags=3,size=5B", Config::new(5, 0, Features::ALL[1])),
        ("flags=5,size=3KiB", Config::new(3 << 10, 0, Features::ALL[2])),
        ("seed=18446744073709551615", Config::new(64 << 20, u64::MAX, features)),
        ("size=1GiB", Config::new(1 << 30, 0, features)),
    ];
    for (text, config) in table {
        assert_eq!(text.parse(), config, "{text}");
    }
    assert_eq!(Config::default(), "".parse().unwrap());
    assert!(Config::new(SIZE_MAX, 0, features).is_ok());
}

#[test]
fn each_key_of_pre_copy_sets_its_field_and_no_other() {
    let default = Precopy::default();
    let table = [
        ("initial=64KiB", Precopy { initial: 64 << 10, ..default }),
        ("dirty=4KiB", Precopy { dirty: 4096, ..default }),
        ("dirty-for=3", Precopy { dirty_for: Some(3), ..default }),
        ("increment=always", Precopy { increment: Increment::Always, ..default }),
        ("increment=asked", default),
        ("reinit=2", Precopy { reinit: Some(2), ..default }),
        ("v2=no", Precopy { v2: false, ..default }),
        ("v2=yes", default),
        ("drained=0", Precopy { drained: Drained::Zero, ..default }),
        ("drained=enomsg", default),
        ("info=stale", Precopy { info: Info::Stale, ..default }),
        ("info=zeroed", default),
    ];
    for (text, precopy) in table {
        assert_eq!(text.parse(), Ok(default_but(|config| config.precopy = precopy)), "{text}");
    }
}

#[test]
fn the_other_keys_set_their_fields_and_no_others() {
    let default = Pace::default();
    let table = [
        ("short=7", Pace { short: NonZeroUsize::new(7), ..default }),
        ("slow=1500", Pace { slow: Duration::from_micros(1500), ..default }),
        ("slow-set=20", Pace { slow_set: Duration::from_micros(20), ..default }),
    ];
    for (text, pace) in table {
        assert_eq!(text.parse(), Ok(default_but(|config| config.pace = pace)), "{text}");
    }
    for (text, data_size) in
        [("data-size=0", Some(0)), ("data-size=2KiB", Some(2048)), ("data-size=exact", None)]
    {
        assert_eq!(text.parse(), Ok(default_but(|config| config.data_size = data_size)), "{text}");
    }
    for (text, space, vectors) in [
        ("pci=256", SpaceLength::Conventional, 0),
        ("pci=4096:1", SpaceLength::Extended, 1),
        ("pci=4096:2048", SpaceLength::Extended, 2048),
    ] {
        assert_eq!(
            text.parse(),
            Ok(default_but(|config| config.pci = Some(Pci { space, vectors }))),
            "{text}"
        );
    }
}

#[test]
fn a_fault_is_read_from_text_with_eio_and_the_old_state_where_nothing_else_is_said() {
    use Operation::{DataSize, Get, Info, Read, Reset, Set, SetTo, Write};
    let table = [
        ("set:1", Fault::eio(Call::nth(Set, 1))),
        ("set-stop_copy:2:EIO:error", Fault::eio(Call::nth(SetTo(State::StopCopy), 2)).leaving(After::Error)),
        (
            "set-PRE_COPY_P2P:1:5:first",
            Fault::eio(Call::nth(SetTo(State::PreCopyP2p), 1)).leaving(After::First),
        ),
        ("set:*:EBUSY:old", Fault::eio(Call::every(Set)).with(Errno::BUSY)),
        ("get:3", Fault::eio(Call::nth(Get, 3))),
        ("read:4:ENOMSG", Fault::eio(Call::nth(Read, 4)).with(Errno::NOMSG)),
        ("write:*:11", Fault::eio(Call::every(Write)).with(Errno::AGAIN)),
        ("info:1:EINVAL", Fault::eio(Call::nth(Info, 1)).with(Errno::INVAL)),
        (
            "reset:1:ETIMEDOUT:unknown",
            Fault::eio(Call::nth(Reset, 1)).with(Errno::TIMEDOUT).leaving(After::Error),
        ),
        ("data-size:1:4095", Fault::eio(Call::nth(DataSize, 1)).with(Errno::from_raw_os_error(4095))),
    ];
    for (text, fault) in table {
        let config: Config = format!("fail={text}").parse().unwrap();
        assert_eq!(config, default_but(|config| config.faults.push(fault)), "{text}");
    }
    let several: Config = "fail=read:1,guest-reset=set:*,fail=read:2,guest-reset=info:7".parse().unwrap();
    assert_eq!(several.faults, [1, 2].map(|nth| Fault::eio(Call::nth(Read, nth))));
    assert_eq!(several.guest_resets, [Call::every(Set), Call::nth(Info, 7)]);
}

#[test]
fn each_errno_has_its_kernels_number() {
    let table = [
        ("EPERM", 1),
        ("ENOENT", 2),
        ("EINTR", 4),
        ("EIO", 5),
        ("ENXIO", 6),
        ("E2BIG", 7),
        ("EBADF", 9),
        ("EAGAIN", 11),
        ("ENOMEM", 12),
        ("EACCES", 13),
        ("EFAULT", 14),
        ("EBUSY", 16),
        ("ENODEV", 19),
        ("EINVAL", 22),
        ("ENOTTY", 25),
        ("ENOSPC", 28),
        ("ESPIPE", 29),
        ("ERANGE", 34),
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
        ("ENOSYS", 38),
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]
        ("EOVERFLOW", 75),
    ];
    for (name, number) in table {
        let config: Config = format!("fail=read:1:{name}").parse().unwrap();
        assert_eq!(config.faults[0].errno.raw_os_error(), number, "{name}");
    }
}

#[test]
fn a_config_that_is_none_says_what_was_wanted_and_what_was_there() {
    let parts = "wanted size=, seed=, flags=, initial=, dirty=, dirty-for=, increment=, reinit=, v2=, drained=, \
                 info=, data-size=, pci=, short=, slow= or slow-set=, each once, or fail= or guest-reset=, got";
    let size = "wanted a number of B, KiB, MiB or GiB, got";
    let operation = "wanted set, set-STATE, get, read, write, info, reset or data-size, got";
    let nth = "wanted which call, from 1 on, or * for each, after the operation and a colon, got";
    let errno = "wanted an errno's name, for instance EIO, or its number, got";
    let after = "wanted old, after set also first or error, after reset also unknown, got";
    let pci = "wanted 256 or 4096, and :VECTORS from 0 to 2048, got";
    let table = [
        ("sise=3", format!(r#"{parts} "sise=3""#)),
        ("seed", format!(r#"{parts} "seed""#)),
        ("seed=1,", format!(r#"{parts} """#)),
        ("seed=1,seed=1", format!(r#"{parts} "seed=1""#)),
        ("v2=no,v2=no", format!(r#"{parts} "v2=no""#)),
        ("size=3MB", format!(r#"size: {size} "3MB""#)),
        ("size=MiB", format!(r#"size: {size} "MiB""#)),
        ("size=-1", format!(r#"size: {size} "-1""#)),
        ("size=18446744073709551615KiB", format!(r#"size: {size} "18446744073709551615KiB""#)),
        ("size=5GiB", format!("size: wanted at most {SIZE_MAX} bytes, got 5368709120")),
        ("seed=0x7", r#"seed: wanted a number below 2^64, got "0x7""#.to_owned()),
        ("flags=x", r#"flags: wanted 1, 3, 5 or 7, got "x""#.to_owned()),
        ("initial=all", format!(r#"initial: {size} "all""#)),
        ("dirty=", format!(r#"dirty: {size} """#)),
        ("dirty-for=ever", r#"dirty-for: wanted a number of rounds, got "ever""#.to_owned()),
        ("increment=never", r#"increment: wanted asked or always, got "never""#.to_owned()),
        ("reinit=-1", r#"reinit: wanted a number of rounds, got "-1""#.to_owned()),
        ("v2=1", r#"v2: wanted yes or no, got "1""#.to_owned()),
        ("drained=1", r#"drained: wanted enomsg or 0, got "1""#.to_owned()),
        ("info=fresh", r#"info: wanted zeroed or stale, got "fresh""#.to_owned()),
        (
            "data-size=some",
            r#"data-size: wanted a number of B, KiB, MiB or GiB, or exact, got "some""#.to_owned(),
        ),
        ("pci=255", format!(r#"pci: {pci} "255""#)),
        ("pci=256:2049", format!(r#"pci: {pci} "256:2049""#)),
        ("pci=4096:", format!(r#"pci: {pci} "4096:""#)),
        ("short=0", r#"short: wanted a number of bytes from 1 on, got "0""#.to_owned()),
        ("slow=1ms", r#"slow: wanted a number of microseconds, got "1ms""#.to_owned()),
        ("slow-set=x", r#"slow-set: wanted a number of microseconds, got "x""#.to_owned()),
        ("fail=", format!(r#"fail: {operation} """#)),
        ("fail=fly:1", format!(r#"fail: {operation} "fly""#)),
        ("fail=set-fly:1", format!(r#"fail: {operation} "set-fly""#)),
        ("fail=read", format!(r#"fail: {nth} """#)),
        ("fail=read:0", format!(r#"fail: {nth} "0""#)),
        ("fail=read:1:", format!(r#"fail: {errno} """#)),
        ("fail=read:1:EWHAT", format!(r#"fail: {errno} "EWHAT""#)),
        ("fail=read:1:4096", format!(r#"fail: {errno} "4096""#)),
        ("fail=read:1:-5", format!(r#"fail: {errno} "-5""#)),
        ("fail=read:1:EIO:error", format!(r#"fail: {after} "error""#)),
        ("fail=set:1:EIO:unknown", format!(r#"fail: {after} "unknown""#)),
        ("fail=reset:1:EIO:first", format!(r#"fail: {after} "first""#)),
        ("fail=set:1:EIO:old:", format!(r#"fail: {after} "old:""#)),
        ("guest-reset=read", format!(r#"guest-reset: {nth} """#)),
        ("guest-reset=fly:1", format!(r#"guest-reset: {operation} "fly""#)),
        ("guest-reset=read:1:EIO", format!(r#"guest-reset: {nth} "1:EIO""#)),
    ];
    for (text, message) in table {
        assert_eq!(text.parse::<Config>().unwrap_err().to_string(), message, "{text}");
    }
    for flags in [0, 2, 4, 6, 8, 9, 15] {
        let error = format!("flags={flags}").parse::<Config>().unwrap_err();
        assert!(matches!(error, ConfigError::WrongValue { key: "flags", .. }), "{flags}");
    }
    assert_eq!(
        Config::new(SIZE_MAX + 1, 0, Features::ALL[0]),
        Err(ConfigError::TooBig { got: SIZE_MAX + 1 })
    );
}

fn default_but(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}
