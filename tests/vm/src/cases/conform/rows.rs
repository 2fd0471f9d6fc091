//! The table: what a device is told to do, and the rules that it breaks by that.
//!
//! Deliberately absent: why. A violation's comment in `tests/kmod/violations.h` says what it does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Context as _, Result};

use crate::modules::Set;
use crate::testdev::TestDevice;

/// Knobs, a violation where there is one, and the rules that fail.
pub(super) struct Row {
    knobs: &'static [(&'static str, &'static str)],
    violation: Option<&'static str>,
    breaks: &'static [&'static str],
    reveals: &'static [&'static str],
}

impl Row {
    /// A violation, which breaks one rule.
    const fn violation_of(violation: &'static str, breaks: &'static [&'static str]) -> Self {
        Self { knobs: &[], violation: Some(violation), breaks, reveals: &[] }
    }

    /// Knobs that break rules by themselves.
    const fn wrong(knobs: &'static [(&'static str, &'static str)], breaks: &'static [&'static str]) -> Self {
        Self { knobs, violation: None, breaks, reveals: &[] }
    }

    /// Knobs that break nothing.
    const fn legal(knobs: &'static [(&'static str, &'static str)]) -> Self {
        Self { knobs, violation: None, breaks: &[], reveals: &[] }
    }

    const fn with(self, knobs: &'static [(&'static str, &'static str)]) -> Self {
        Self { knobs, ..self }
    }

    /// Rules that are skipped without these knobs.
    const fn reveals_that(self, reveals: &'static [&'static str]) -> Self {
        Self { reveals, ..self }
    }

    /// Tells a device what to do.
    pub(super) fn apply(&self, device: &TestDevice) -> Result<()> {
        self.knobs.iter().try_for_each(|(name, value)| device.knob(name, value))?;
        self.violation.map_or(Ok(()), |name| device.violate(name))
    }

    /// The rules that fail.
    pub(super) fn breaks(&self) -> BTreeSet<String> {
        self.breaks.iter().map(|id| (*id).to_string()).collect()
    }

    /// The rules that pass, and would be skipped without this row's knobs.
    pub(super) const fn reveals(&self) -> &'static [&'static str] {
        self.reveals
    }

    /// Whether no rule fails.
    pub(super) const fn is_legal(&self) -> bool {
        self.breaks.is_empty()
    }

    /// The knobs' names.
    pub(super) fn knobs(&self) -> impl Iterator<Item = &'static str> {
        self.knobs.iter().map(|(name, _)| *name)
    }

    /// The violation's name.
    pub(super) const fn violation(&self) -> Option<&'static str> {
        self.violation
    }

    /// Whether it shows with this set of modules: Debian's kernel has no reports of dirty pages.
    pub(super) fn is_for(&self, set: Set) -> bool {
        let of_logging = |id: &&str| id.starts_with("DMA-");
        match set {
            Set::Iommufd => true,
            Set::Stock => !self.breaks.iter().chain(self.reveals).any(of_logging),
        }
    }

    /// What the program ends with.
    pub(super) fn exit_code(&self, levels: &BTreeMap<String, String>) -> Result<i32> {
        let mut code = 0;
        for id in self.breaks {
            let level = levels.get(*id).with_context(|| format!("there is no rule {id}"))?;
            code = code.max(match level.as_str() {
                "must" => 7,
                "should" => 6,
                _ => 0,
            });
        }
        Ok(code)
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let knobs = self.knobs.iter().map(|(name, value)| format!("{name}={value:?}"));
        let all: Vec<_> = knobs.chain(self.violation.map(str::to_string)).collect();
        f.write_str(&all.join(" "))
    }
}

/// Two pages in the range that the rules log.
const DIRTY: (&str, &str) = ("dirty_pages", "0x40000000 8192");

/// All rows.
pub(super) const ROWS: &[Row] = &[
    Row::wrong(&[("flags", "2")], &["FEAT-01"]),
    Row::wrong(&[("flags", "23")], &["FEAT-02"]),
    Row::violation_of("answers_unknown_feature", &["FEAT-03"]),
    Row::violation_of("v2_without_precopy", &["FEAT-04"]).with(&[("flags", "3")]),
    Row::violation_of("refuses_direct_arc", &["FSM-01"]),
    Row::violation_of("refuses_combined_arc", &["FSM-02"]),
    Row::violation_of("get_lags", &["FSM-03"]),
    Row::violation_of("refuses_current_state", &["FSM-04"]),
    Row::violation_of("back_to_precopy", &["FSM-05"]),
    Row::violation_of("ignores_flags", &["FSM-06"]).with(&[("flags", "1")]),
    Row::violation_of("takes_error", &["FSM-07"]),
    Row::violation_of("takes_unknown_state", &["FSM-08"]),
    Row::violation_of("illegal_arc_moves", &["FSM-09"]),
    Row::violation_of("illegal_is_eperm", &["FSM-10"]),
    Row::violation_of("get_says_nine", &["FSM-11"]),
    Row::violation_of("end_stops", &["FSM-12"]),
    Row::violation_of("close_stops", &["FSM-13"]),
    Row::violation_of("no_fd_in_p2p", &["FD-01"]),
    Row::violation_of("reopens_for_stop_copy", &["FD-02"]),
    Row::violation_of("fd_on_stop", &["FD-03"]),
    Row::violation_of("ended_read_is_end", &["FD-04"]),
    Row::violation_of("ended_write_is_taken", &["FD-05"]),
    Row::violation_of("replaced_goes_on", &["FD-06"]),
    Row::violation_of("reset_keeps_session", &["FD-07"]),
    Row::violation_of("saving_writable", &["FD-08"]),
    Row::violation_of("resuming_readable", &["FD-09"]),
    Row::violation_of("seekable", &["FD-10"]),
    Row::violation_of("positioned", &["FD-11"]),
    Row::violation_of("answers_unknown_ioctl", &["FD-12"]),
    Row::violation_of("ended_is_eio", &["FD-13"]),
    Row::violation_of("end_once", &["SAVE-01"]),
    // Ended sessions answer EIO then too.
    Row::wrong(&[("fault", "read 0 5")], &["SAVE-01", "FD-13"]),
    Row::violation_of("enomsg_in_stop_copy", &["SAVE-02"]),
    Row::violation_of("loses_at_small_reads", &["SAVE-03"]),
    Row::violation_of("second_save_is_empty", &["SAVE-04"]),
    Row::violation_of("second_save_is_cut", &["SAVE-04", "SAVE-05"]),
    Row::violation_of("counts_saves", &["SAVE-05"]),
    Row::violation_of("empty_read_fails", &["SAVE-06"]),
    Row::violation_of("end_not_readable", &["SAVE-07"]),
    Row::violation_of("no_info_in_p2p", &["PRE-01"]),
    Row::violation_of("info_everywhere", &["PRE-02"]),
    Row::violation_of("short_info_is_taken", &["PRE-03"]),
    Row::violation_of("stale_info", &["PRE-04"]),
    Row::violation_of("flags_without_opt_in", &["PRE-05"]),
    Row::violation_of("initial_is_zero", &["PRE-06"]),
    Row::violation_of("initial_stays", &["PRE-07"]),
    Row::violation_of("dirty_at_first", &["PRE-08"]),
    Row::violation_of("zero_in_precopy", &["PRE-09"]),
    Row::violation_of("always_ready", &["PRE-10"]),
    Row::violation_of("never_ready", &["PRE-11"]),
    Row::violation_of("second_precopy_is_empty", &["PRE-12"]),
    Row::violation_of("loses_in_p2p", &["PRE-13"]),
    Row::violation_of("precopy_read_fails", &["PRE-13"]),
    Row::violation_of("drops_unread", &["PRE-14"]),
    Row::violation_of("info_on_resuming", &["PRE-15"]),
    Row::violation_of("info_refused_as_enodev", &["PRE-16"]),
    Row::violation_of("refuses_larger_info", &["PRE-17"]),
    Row::violation_of("size_in_running_alone", &["SIZE-01"]),
    Row::wrong(&[("data_size", "0")], &["SIZE-02"]),
    Row::wrong(&[("data_size", "1")], &["SIZE-02"]),
    Row::wrong(&[("data_size", "14000")], &["SIZE-02"]),
    Row::wrong(&[("data_size", "1099511627776")], &["SIZE-03"]),
    Row::violation_of("reset_stays_stopped", &["RST-01"]),
    Row::violation_of("hides_reset", &["RST-02"]),
    Row::violation_of("broken_after_reset", &["RST-03"]),
    Row::wrong(&[("fault", "reset 0 5")], &["RST-04"]),
    // Refused resets that stop the device all the same.
    Row::violation_of("reset_stays_stopped", &["RST-04"]).with(&[("fault", "reset 0 flr\nreset 0 5")]),
    Row::violation_of("takes_cut", &["RES-01"]),
    Row::violation_of("takes_empty", &["RES-02"]),
    Row::violation_of("forgets_refusal", &["RES-03"]),
    Row::violation_of("takes_damaged_head", &["RES-04"]),
    Row::violation_of("takes_damaged_content", &["RES-05"]),
    Row::violation_of("takes_oversized", &["RES-06"]),
    Row::violation_of("needs_large_writes", &["RES-07"]),
    Row::violation_of("load_changes_a_byte", &["RES-08"]),
    Row::violation_of("refusal_sticks", &["RES-09"]),
    Row::violation_of("empty_write_fails", &["RES-10"]),
    Row::violation_of("refusal_runs", &["RES-11"]),
    Row::violation_of("start_is_refused", &["DMA-01"]),
    Row::violation_of("report_is_refused", &["DMA-02"]),
    Row::wrong(&[("log_page_size", "3000")], &["DMA-03"]),
    Row::violation_of("second_start", &["DMA-04"]),
    Row::violation_of("report_without_start", &["DMA-05"]),
    Row::violation_of("report_after_stop", &["DMA-06"]),
    Row::violation_of("report_keeps", &["DMA-07"]).with(&[DIRTY]),
    Row::violation_of("start_once", &["DMA-08"]),
    Row::violation_of("stop_is_refused", &["DMA-09"]),
    Row::legal(&[("size", "0")]),
    Row::legal(&[("size", "1")]),
    Row::legal(&[("size", "4096")]),
    Row::legal(&[("size", "70000")]),
    Row::legal(&[("seed", "77")]),
    Row::legal(&[("whole", "1")]),
    Row::legal(&[("initial", "0")]),
    Row::legal(&[("initial", "5000")]),
    Row::legal(&[("dirty_rate", "1000000")]),
    Row::legal(&[("dirty_per_read", "4096")]),
    Row::legal(&[("reinit_after", "1000")]),
    Row::legal(&[("arc_delay", "2 6 5\n1 3 5\n1 4 5")]),
    Row::legal(&[("delay_per_mib", "200")]),
    Row::legal(&[("delay_per_mib", "200"), ("ignore_nonblock", "1")]),
    Row::legal(&[("short", "100")]),
    Row::legal(&[("eintr", "3")]),
    Row::legal(&[("log_page_size", "0")]).reveals_that(&["DMA-03"]),
    Row::legal(&[("reset_on_open", "1")]),
    Row::legal(&[DIRTY]).reveals_that(&["DMA-07"]),
    Row::legal(&[("fault", "read 3 4\nwrite 5 4")]),
    // Busy for a moment.
    Row::legal(&[("fault", "reset 1 11\nreset 4 11\nreset 5 11")]),
    // The content alone is counted, without the headers.
    Row::legal(&[("data_size", "20000")]),
];
