//! The figures as a table for people.
//!
//! Deliberately absent: figures that the JSON object does not have.

use std::io::{self, Write};

use indicatif::BinaryBytes;

use super::figures::{ArcFigures, CopyFigures, DeviceFigures, Figures, MoveFigures, Spread};

/// Prints all tables.
pub(super) fn show(out: &mut impl Write, figures: &Figures) -> io::Result<()> {
    let Figures { device, target, rounds, no_op, arcs, save, load, downtime } = figures;
    writeln!(out, "device  {}", named(device))?;
    if let Some(target) = target {
        writeln!(out, "target  {}", named(target))?;
    }
    writeln!(out, "{rounds} rounds; times vary on a machine that does other things too: compare the ratios")?;
    show_arcs(out, no_op, arcs)?;
    show_copies(out, "save", "reads", save)?;
    if target.is_none() {
        return writeln!(out, "\nRESUMING, load and downtime need a second device: --to");
    }
    show_copies(out, "load", "writes", load)?;
    show_moves(out, downtime)
}

fn named(device: &DeviceFigures) -> String {
    format!("{}, flags {:#x}", device.name, device.flags)
}

fn show_arcs(out: &mut impl Write, no_op: &Spread, arcs: &[ArcFigures]) -> io::Result<()> {
    let head = ["min us", "median us", "max us", "to no-op"];
    writeln!(out, "\n{:<29} {:<6}{}", "arc, the ioctl alone", "on", columns(head.map(str::to_owned)))?;
    let mut line = |name: &str, on: &str, time: &Spread, ratio: Option<f64>| {
        let Spread { min_us, median_us, max_us } = time;
        let times = [min_us, median_us, max_us].map(|micros| format!("{micros:.1}"));
        let [min, median, max] = times;
        writeln!(out, "{name:<29} {on:<6}{}", columns([min, median, max, shown(ratio)]))
    };
    line("no-op", "device", no_op, Some(1.0))?;
    for arc in arcs {
        let name = format!("{} → {}", arc.from, arc.to);
        line(&name, arc.on, &arc.time, arc.ratio_to_no_op)?;
    }
    Ok(())
}

fn show_copies(out: &mut impl Write, what: &str, calls: &str, rows: &[CopyFigures]) -> io::Result<()> {
    let head = ["state", "min ms", "median ms", "max ms", "MiB/s", "to first"];
    let head = columns(head.map(str::to_owned));
    let calls =
        columns([format!("own {calls}"), "all reads".into(), "all writes".into(), "calls/MiB".into()]);
    writeln!(out, "\n{what:<4} {:<11}{head}  {calls}", "buffer")?;
    for row in rows {
        let [min, median, max] = millis(&row.time);
        let rate = format!("{:.1}", row.median_mib_per_s);
        let ratio = shown(row.ratio_to_first);
        let times = columns([bytes(row.state_bytes), min, median, max, rate, ratio]);
        let [reads, writes] = [row.read_calls, row.write_calls].map(count);
        let calls = columns([
            row.device_calls.to_string(),
            reads,
            writes,
            row.calls_per_mib.map_or("-".into(), |calls| format!("{calls:.2}")),
        ]);
        writeln!(out, "{:<4} {:<11}{times}  {calls}", "", bytes(row.buffer_bytes))?;
    }
    Ok(())
}

fn show_moves(out: &mut impl Write, rows: &[MoveFigures]) -> io::Result<()> {
    let head = ["buffer", "state", "at stop", "min ms", "median ms", "max ms", "to first"];
    let head = columns(head.map(str::to_owned));
    let medians = columns(["stop ms", "copy ms", "start ms"].map(str::to_owned));
    writeln!(out, "\n{:<16}{head}  {medians}", "downtime")?;
    for MoveFigures { pre_copy, buffer_bytes, parts, .. } in rows {
        let name = if *pre_copy { "with pre-copy" } else { "without pre-copy" };
        let Some(total) = &parts.total else {
            writeln!(out, "{name:<16} did not come to a stop that is short enough, see --max-downtime")?;
            continue;
        };
        let [min, median, max] = millis(total);
        let [state, stopped] =
            [parts.state_bytes, parts.stopped_bytes].map(|count| count.map_or("-".into(), bytes));
        let ratio = shown(parts.ratio_to_first);
        let times = columns([bytes(*buffer_bytes), state, stopped, min, median, max, ratio]);
        let part =
            |spread: &Option<Spread>| spread.as_ref().map_or("-".into(), |spread| millis(spread)[1].clone());
        let medians = columns([&parts.stop, &parts.copy, &parts.start].map(part));
        writeln!(out, "{name:<16}{times}  {medians}")?;
    }
    Ok(())
}

/// Columns of equal width, flush right.
fn columns<const N: usize>(cells: [String; N]) -> String {
    cells.map(|cell| format!("{cell:>11}")).concat()
}

/// Smallest, middle and largest in milliseconds.
fn millis(time: &Spread) -> [String; 3] {
    [time.min_us, time.median_us, time.max_us].map(|micros| format!("{:.3}", micros / 1e3))
}

fn shown(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{ratio:.3}"))
}

fn count(number: Option<u64>) -> String {
    number.map_or("-".into(), |number| number.to_string())
}

fn bytes(number: u64) -> String {
    BinaryBytes(number).to_string()
}
