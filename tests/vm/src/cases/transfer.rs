//! States that arrive: through files and pipes, and with buffers of any size.
//!
//! Deliberately absent: a QEMU at the other end, which has cases of its own.

use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::save;
use crate::device::{RUNNING, STOP, new_text};
use crate::stream::data;
use crate::suite::{Bench, Case};
use crate::tool::{self, DONE, vfio_migrate};

pub(super) const CASES: &[Case] = &[
    ("probe_tells_driver_features_state_and_size", probe_tells_all),
    ("probe_as_json_tells_the_same", probe_as_json),
    ("file_carries_the_content", file_carries_the_content),
    ("pipe_carries_the_content", pipe_carries_the_content),
    ("smallest_buffer_carries_the_content", |bench| file_with_buffer(bench, "64")),
    ("large_buffer_carries_the_content", |bench| file_with_buffer(bench, "1MiB")),
    ("order_to_leave_stopped_leaves_both_stopped", left_stopped),
    ("order_to_leave_running_leaves_both_running", left_running),
];

fn probe_tells_all(bench: &Bench) -> Result<()> {
    bench.source.fill("")?;
    let text = tool::run(&format!("probe {}", bench.source.argument()?))?.expect(&[DONE])?.output();
    for word in ["mtty", "STOP_COPY", "P2P", "PRE_COPY", "RUNNING", "60"] {
        ensure!(text.contains(word), "wanted {word:?}, got {text:?}");
    }
    Ok(())
}

fn probe_as_json(bench: &Bench) -> Result<()> {
    bench.source.fill("")?;
    let text = tool::run(&format!("probe {} --json", bench.source.argument()?))?.expect(&[DONE])?.output();
    let probe: Value = serde_json::from_str(&text)?;
    for wanted in [Value::from("mtty"), Value::from("RUNNING"), Value::from(60), Value::from(7)] {
        let values = probe.as_object().with_context(|| format!("wanted an object, got {text}"))?;
        ensure!(values.values().any(|value| *value == wanted), "wanted {wanted}, got {text}");
    }
    Ok(())
}

fn file_carries_the_content(bench: &Bench) -> Result<()> {
    let text = save(bench, "/tmp/state")?;
    bench.target.fill("something else")?;
    let (source, target) = (bench.source.argument()?, bench.target.argument()?);
    tool::run(&format!("load {target} --input /tmp/state"))?.expect(&[DONE])?;
    tool::run(&format!("save {target} --output /tmp/back"))?.expect(&[DONE])?;
    let (sent, got) = (data("/tmp/state")?, data("/tmp/back")?);
    ensure!(sent == got, "the target's state: wanted {sent:02x?}, got {got:02x?}");
    bench.target.check(RUNNING, &text)?;
    bench.source.check(RUNNING, &text).context("the source")?;
    println!("# {} bytes of state with the text {text} of {source} are in {target}", got.len());
    Ok(())
}

fn pipe_carries_the_content(bench: &Bench) -> Result<()> {
    let text = new_text();
    bench.source.fill(&text)?;
    let save = format!("save {} --output -", bench.source.argument()?);
    let mut save = tool::start(vfio_migrate(&save).stdout(Stdio::piped()))?;
    let pipe = save.stdout.take().context("it is piped")?;
    let load = tool::run_with_input(&format!("load {} --input -", bench.target.argument()?), pipe)?;
    tool::finish(save)?.expect(&[DONE])?;
    load.expect(&[DONE])?;
    bench.target.check(RUNNING, &text)?;
    bench.source.check(RUNNING, &text).context("the source")
}

fn file_with_buffer(bench: &Bench, size: &str) -> Result<()> {
    let text = new_text();
    bench.source.fill(&text)?;
    let (source, target) = (bench.source.argument()?, bench.target.argument()?);
    tool::run(&format!("save {source} --output /tmp/state --buffer {size}"))?.expect(&[DONE])?;
    tool::run(&format!("load {target} --input /tmp/state --buffer {size}"))?.expect(&[DONE])?;
    bench.target.check(RUNNING, &text)
}

fn left_stopped(bench: &Bench) -> Result<()> {
    move_and_leave(bench, "stopped")?;
    bench.source.check_state(STOP)?;
    bench.target.check_state(STOP)
}

fn left_running(bench: &Bench) -> Result<()> {
    move_and_leave(bench, "running")?;
    bench.source.check_state(RUNNING)?;
    bench.target.check_state(RUNNING)
}

fn move_and_leave(bench: &Bench, leave: &str) -> Result<()> {
    bench.source.fill(&new_text())?;
    bench.target.fill("")?;
    let (source, target) = (bench.source.argument()?, bench.target.argument()?);
    tool::run(&format!("save {source} --output /tmp/state --leave {leave}"))?.expect(&[DONE])?;
    tool::run(&format!("load {target} --input /tmp/state --leave {leave}"))?.expect(&[DONE]).map(drop)
}
