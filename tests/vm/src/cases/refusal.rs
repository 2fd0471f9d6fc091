//! Streams that must not be believed: afterwards the device runs, and takes a good state.
//!
//! Deliberately absent: damage with a good checksum. Whoever can write that is believed, as far as the driver goes along.

use std::fs;

use anyhow::{Context as _, Result};

use super::{check_target_works, save};
use crate::device::new_text;
use crate::stream::data_records;
use crate::suite::{Bench, Case};
use crate::tool::{self, DEVICE_REFUSED, DONE, Refusal, STREAM_REFUSED};

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
        refuse(bench, &bytes[..cut], &[DAMAGED])
            .with_context(|| format!("cut at byte {cut} of {}", bytes.len()))?;
    }
    Ok(())
}

/// The driver may refuse a damaged data record before its checksum can be known.
fn damaged_anywhere(bench: &Bench) -> Result<()> {
    save(bench, GOOD)?;
    let bytes = fs::read(GOOD)?;
    let data = data_records(GOOD)?;
    let name = bytes.windows(5).position(|word| word == b"mtty@").context("no driver's name in the file")?;
    for at in 0..bytes.len() {
        let ways: &[Refusal<'_>] = if data.iter().any(|record| record.contains(&at)) {
            &[DAMAGED, REFUSED_DATA]
        } else if (name..name + 4).contains(&at) {
            &[OTHER_DRIVER]
        } else {
            &[DAMAGED]
        };
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x02;
        refuse(bench, &damaged, ways).with_context(|| format!("damaged at byte {at} of {}", bytes.len()))?;
    }
    Ok(())
}

fn bytes_after_the_end(bench: &Bench) -> Result<()> {
    save(bench, GOOD)?;
    let bytes = fs::read(GOOD)?;
    for appended in [&b"\0"[..], b"\n", &bytes] {
        let longer = [&bytes, appended].concat();
        refuse(bench, &longer, &[DAMAGED]).with_context(|| format!("{} bytes appended", appended.len()))?;
    }
    Ok(())
}

fn two_ports(bench: &Bench) -> Result<()> {
    bench.two_ports.fill(&new_text())?;
    tool::run(&format!("save {} --output {GOOD}", bench.two_ports.argument()?))?.expect(&[DONE])?;
    refuse(bench, &fs::read(GOOD)?, &[REFUSED_DATA])
}

/// By its name the stream is refused before the driver gets a byte; by force the driver refuses it.
fn another_driver(bench: &Bench) -> Result<()> {
    tool::run(&format!("save sim:size=4096,seed=7 --output {BAD}"))?.expect(&[DONE])?;
    let load = format!("load {} --input {BAD}", bench.target.argument()?);
    tool::run(&load)?.expect_refusal(&[(STREAM_REFUSED, &["sim", "mtty", "wanted"])])?;
    check_target_works(bench)?;
    tool::run(&format!("{load} --force"))?.expect_refusal(&[REFUSED_DATA]).context("by force")?;
    check_target_works(bench)
}

/// Loads bytes that must be refused, and shows that the device runs afterwards, and takes and gives a state.
fn refuse(bench: &Bench, bytes: &[u8], ways: &[Refusal<'_>]) -> Result<()> {
    fs::write(BAD, bytes)?;
    tool::run(&format!("load {} --input {BAD}", bench.target.argument()?))?.expect_refusal(ways)?;
    check_target_works(bench)
}

/// What is said of bytes that are missing, too many or other ones.
const DAMAGED: Refusal<'_> = (STREAM_REFUSED, &["wanted", "byte"]);
/// What is said of a card's damaged name: the kind of card has no place in the stream.
const OTHER_DRIVER: Refusal<'_> = (STREAM_REFUSED, &["wanted", "mtty", "driver"]);
/// What is said of data that the driver did not take.
const REFUSED_DATA: Refusal<'_> = (DEVICE_REFUSED, &["section", "record", "byte"]);

const GOOD: &str = "/tmp/state";
const BAD: &str = "/tmp/bad";
