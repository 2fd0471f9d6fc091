//! Devices and files that cannot be had: each has its exit code and a message.
//!
//! Deliberately absent: a device whose driver can't migrate; every card of `mtty` can.

use std::fs::File;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};

use super::{check_target_works, save};
use crate::suite::{Bench, Case};
use crate::tool::{self, DEVICE_REFUSED, INPUT_OUTPUT, USAGE, vfio_migrate};

pub(super) const CASES: &[Case] = &[
    ("device_in_use_is_refused_and_works_afterwards", device_in_use),
    ("device_that_is_not_there_is_refused", device_missing),
    ("file_that_cannot_be_opened_is_refused", file_missing),
    ("user_without_permission_is_refused", no_permission),
    ("wrong_command_line_is_refused", wrong_usage),
];

fn device_in_use(bench: &Bench) -> Result<()> {
    save(bench, "/tmp/state")?;
    let target = bench.target.argument()?;
    let held = bench.target.open()?;
    for command in [format!("load {target} --input /tmp/state"), format!("save {target} --output /tmp/other")]
    {
        tool::run(&command)?.expect_refusal(&[(DEVICE_REFUSED, &["in use"])]).context(command)?;
    }
    drop(held);
    check_target_works(bench)
}

fn device_missing(_: &Bench) -> Result<()> {
    for device in ["/dev/vfio/devices/vfio99", "99999999-9999-9999-9999-999999999999", "0000:99:00.0"] {
        tool::run(&format!("probe {device}"))?
            .expect_refusal(&[(DEVICE_REFUSED, &[device])])
            .context(device)?;
    }
    Ok(())
}

fn file_missing(bench: &Bench) -> Result<()> {
    let missing = "/tmp/nothing/here";
    let target = bench.target.argument()?;
    for command in [format!("load {target} --input {missing}"), format!("save {target} --output {missing}")] {
        tool::run(&command)?.expect_refusal(&[(INPUT_OUTPUT, &["/tmp/nothing"])]).context(command)?;
    }
    check_target_works(bench)
}

fn no_permission(bench: &Bench) -> Result<()> {
    save(bench, "/tmp/state")?;
    let load = format!("load {} --input -", bench.target.argument()?);
    let nobody = 65534;
    let child = tool::start(vfio_migrate(&load).stdin(File::open("/tmp/state")?).uid(nobody).gid(nobody))?;
    tool::finish(child)?.expect_refusal(&[(DEVICE_REFUSED, &["permission"])])?;
    check_target_works(bench)
}

fn wrong_usage(_: &Bench) -> Result<()> {
    for arguments in ["", "fly", "save", "probe --unknown sim:size=4096,seed=1"] {
        tool::run(arguments)?.expect_refusal(&[(USAGE, &["Usage"])]).context(arguments)?;
    }
    Ok(())
}
