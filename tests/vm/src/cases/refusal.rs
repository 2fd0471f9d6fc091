//! Streams that must not be believed: afterwards the device runs, and takes a good state.

use std::fs;

use anyhow::{Context as _, Result};

use super::{check_target_works, save};
use crate::device::{RUNNING, new_text};
use crate::stream::data_records;
use crate::suite::{Bench, Case};
use crate::tool::{self, DEVICE_REFUSED, DONE, STREAM_REFUSED};

pub(super) const CASES: &[Case] = &[
    ("file_cut_at_any_byte_is_refused", cut_anywhere),
    ("file_damaged_at_any_byte_is_refused", damaged_anywhere),
    ("bytes_after_the_end_are_refused", bytes_after_the_end),
    ("state_of_a_card_with_two_ports_is_refused", two_ports),
    ("state_of_another_driver_is_refused", another_driver),
];

fn cut_anywhere(bench: &Bench) -> Result<()> {
    save(bench, GOOD)?;
    let bytes = fs::read(GOOD)?;
    for cut in 0..bytes.len() {
        refuse(bench, &bytes[..cut], &[STREAM_REFUSED])
            .with_context(|| format!("cut at byte {cut} of {}", bytes.len()))?;
    }
    Ok(())
}

/// The driver may refuse a damaged data record before its checksum can be known.
fn damaged_anywhere(bench: &Bench) -> Result<()> {
    save(bench, GOOD)?;
    let bytes = fs::read(GOOD)?;
    let data = data_records(GOOD)?;
    for at in 0..bytes.len() {
        let in_data = data.iter().any(|record| record.contains(&at));
        let codes: &[i32] = if in_data { &[STREAM_REFUSED, DEVICE_REFUSED] } else { &[STREAM_REFUSED] };
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x02;
        refuse(bench, &damaged, codes).with_context(|| format!("damaged at byte {at} of {}", bytes.len()))?;
    }
    Ok(())
}

fn bytes_after_the_end(bench: &Bench) -> Result<()> {
    save(bench, GOOD)?;
    let bytes = fs::read(GOOD)?;
    for appended in [&b"\0"[..], b"\n", &bytes] {
        let longer = [&bytes, appended].concat();
        refuse(bench, &longer, &[STREAM_REFUSED])
            .with_context(|| format!("{} bytes appended", appended.len()))?;
    }
    Ok(())
}

fn two_ports(bench: &Bench) -> Result<()> {
    bench.two_ports.fill(&new_text())?;
    tool::run(&format!("save {} --output {GOOD}", bench.two_ports.argument()?))?.expect(&[DONE])?;
    refuse(bench, &fs::read(GOOD)?, &[DEVICE_REFUSED, STREAM_REFUSED])
}

/// By its name the stream is refused before the driver gets a byte; by force the driver refuses it.
fn another_driver(bench: &Bench) -> Result<()> {
    tool::run(&format!("save sim:size=4096,seed=7 --output {BAD}"))?.expect(&[DONE])?;
    let target = bench.target.argument()?;
    tool::run(&format!("load {target} --input {BAD}"))?
        .expect_refusal(&[STREAM_REFUSED], &["sim", "mtty"])?;
    bench.target.check_state(RUNNING)?;
    tool::run(&format!("load {target} --input {BAD} --force"))?.expect_refusal(&[DEVICE_REFUSED], &[])?;
    bench.target.check_state(RUNNING)?;
    check_target_works(bench)
}

/// Loads bytes that must be refused, and shows that the device runs afterwards, and takes and gives a state.
fn refuse(bench: &Bench, bytes: &[u8], codes: &[i32]) -> Result<()> {
    fs::write(BAD, bytes)?;
    tool::run(&format!("load {} --input {BAD}", bench.target.argument()?))?
        .expect_refusal(codes, &["wanted"])?;
    bench.target.check_state(RUNNING)?;
    check_target_works(bench)
}

const GOOD: &str = "/tmp/state";
const BAD: &str = "/tmp/bad";
