/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ways in which the device breaks the uapi when it is told to: V(name), one after the other.
 * Each is a file below violations/ of a device. A comment says which rule is broken and how.
 *
 * Deliberately absent: what the knobs can break already (flags=2, data_size=0, fault,
 * log_page_size=3000).
 */
#ifndef MIGTEST_VIOLATIONS_H
#define MIGTEST_VIOLATIONS_H

#define MT_VIOLATIONS(V) \
	/* FEAT-03: features beyond those of the header answer 0 */ \
	V(answers_unknown_feature) \
	/* FEAT-04: feature 12 is taken although the flags lack PRE_COPY */ \
	V(v2_without_precopy) \
	/* FSM-01: PRE_COPY_P2P to PRE_COPY is refused */ \
	V(refuses_direct_arc) \
	/* FSM-02: STOP to PRE_COPY_P2P is refused as one SET */ \
	V(refuses_combined_arc) \
	/* FSM-03: GET in RUNNING_P2P says RUNNING */ \
	V(get_lags) \
	/* FSM-04: SET to the state that the device is in is refused */ \
	V(refuses_current_state) \
	/* FSM-05: STOP_COPY goes back to PRE_COPY and PRE_COPY_P2P with its session */ \
	V(back_to_precopy) \
	/* FSM-06: every state can be reached, whatever the flags are */ \
	V(ignores_flags) \
	/* FSM-07: SET to ERROR leads there and answers 0 */ \
	V(takes_error) \
	/* FSM-08: SET to a number that is no state answers 0 and changes nothing */ \
	V(takes_unknown_state) \
	/* FSM-09: a refused impossible arc from STOP_COPY leads to STOP */ \
	V(illegal_arc_moves) \
	/* FSM-10: impossible arcs answer EPERM */ \
	V(illegal_is_eperm) \
	/* FSM-11: GET in STOP says 9 */ \
	V(get_says_nine) \
	/* FSM-12: the read that finds the end of data in STOP_COPY leads to STOP */ \
	V(end_stops) \
	/* FSM-13: the close of a session's last data fd leads to STOP */ \
	V(close_stops) \
	/* FD-01: RUNNING_P2P to PRE_COPY_P2P gives no data fd */ \
	V(no_fd_in_p2p) \
	/* FD-02: PRE_COPY* to STOP_COPY gives another fd for the rest; the old one has ended */ \
	V(reopens_for_stop_copy) \
	/* FD-03: SET to STOP gives a data fd where it ends a session; the fd has ended */ \
	V(fd_on_stop) \
	/* FD-04: read of an ended data fd answers 0 */ \
	V(ended_read_is_end) \
	/* FD-05: write to an ended data fd takes all and does nothing */ \
	V(ended_write_is_taken) \
	/* FD-06: where one SET ends a session and opens another one, the first goes on */ \
	V(replaced_goes_on) \
	/* FD-07: a reset leaves the session as it is */ \
	V(reset_keeps_session) \
	/* FD-08: the saving fd takes every write and does nothing */ \
	V(saving_writable) \
	/* FD-09: read of the resuming fd answers 0 */ \
	V(resuming_readable) \
	/* FD-10: lseek on a data fd answers 0 */ \
	V(seekable) \
	/* FD-11: pread and pwrite do on a data fd what read and write do */ \
	V(positioned) \
	/* FD-12: every ioctl that is not of the uapi's answers 0 on a data fd */ \
	V(answers_unknown_ioctl) \
	/* FD-13: an ended data fd answers EIO */ \
	V(ended_is_eio) \
	/* SAVE-01: from the second read at the end of data in STOP_COPY on it answers EIO */ \
	V(end_once) \
	/* SAVE-02: the end of data in STOP_COPY is ENOMSG */ \
	V(enomsg_in_stop_copy) \
	/* SAVE-03: a read of less than 64 bytes loses the byte behind them */ \
	V(loses_at_small_reads) \
	/* SAVE-04: the second session in a row that begins in STOP gives nothing */ \
	V(second_save_is_empty) \
	/* SAVE-04, and so SAVE-05: the second session in a row that begins in STOP has no end record */ \
	V(second_save_is_cut) \
	/* SAVE-05: the head counts the sessions */ \
	V(counts_saves) \
	/* SAVE-06: a read of 0 bytes answers EINVAL */ \
	V(empty_read_fails) \
	/* SAVE-07: poll at the end of data in STOP_COPY says nothing */ \
	V(end_not_readable) \
	/* PRE-01: PRECOPY_INFO in PRE_COPY_P2P answers EINVAL */ \
	V(no_info_in_p2p) \
	/* PRE-02: PRECOPY_INFO answers in STOP_COPY and on an ended fd */ \
	V(info_everywhere) \
	/* PRE-03: PRECOPY_INFO takes every argsz from 8 on */ \
	V(short_info_is_taken) \
	/* PRE-04: PRECOPY_INFO writes only those fields that are not 0 */ \
	V(stale_info) \
	/* PRE-05: PRECOPY_INFO always says REINIT */ \
	V(flags_without_opt_in) \
	/* PRE-06: PRECOPY_INFO always says initial_bytes 0 */ \
	V(initial_is_zero) \
	/* PRE-07: PRECOPY_INFO says what initial_bytes were at first, whatever was read */ \
	V(initial_stays) \
	/* PRE-08: PRECOPY_INFO says 4096 dirty bytes more until something was read */ \
	V(dirty_at_first) \
	/* PRE-09: the end of data in PRE_COPY is 0 */ \
	V(zero_in_precopy) \
	/* PRE-10: poll in PRE_COPY and PRE_COPY_P2P says readable without data */ \
	V(always_ready) \
	/* PRE-11: poll in PRE_COPY and PRE_COPY_P2P never says readable */ \
	V(never_ready) \
	/* PRE-12: from the second pre-copy since a reset on, all data come in STOP_COPY */ \
	V(second_precopy_is_empty) \
	/* PRE-13: the first page that is due in PRE_COPY_P2P is not in the stream */ \
	V(loses_in_p2p) \
	/* PRE-13: every read in PRE_COPY and PRE_COPY_P2P answers EIO */ \
	V(precopy_read_fails) \
	/* PRE-14: pre-copy data that were not read by STOP_COPY are not in the stream */ \
	V(drops_unread) \
	/* PRE-15: PRECOPY_INFO answers on a resuming fd */ \
	V(info_on_resuming) \
	/* PRE-16: PRECOPY_INFO where it may not be asked for answers ENODEV */ \
	V(info_refused_as_enodev) \
	/* PRE-17: PRECOPY_INFO takes no argsz but 24 */ \
	V(refuses_larger_info) \
	/* SIZE-01: MIG_DATA_SIZE outside of RUNNING answers EINVAL */ \
	V(size_in_running_alone) \
	/* RST-01: a reset leads to STOP */ \
	V(reset_stays_stopped) \
	/* RST-02: GET_INFO does not say FLAGS_RESET */ \
	V(hides_reset) \
	/* RST-03: after a reset in STOP no step leads there, until a reset in another state */ \
	V(broken_after_reset) \
	/* RES-01: data that break off are taken, unless there were none at all */ \
	V(takes_cut) \
	/* RES-02: RESUMING to STOP without any data is taken */ \
	V(takes_empty) \
	/* RES-03: RESUMING to STOP is taken after a refused write */ \
	V(forgets_refusal) \
	/* RES-04: the head's first 16 bytes are not looked at */ \
	V(takes_damaged_head) \
	/* RES-05: the content's checksum is not looked at */ \
	V(takes_damaged_content) \
	/* RES-06: bytes behind the end are taken */ \
	V(takes_oversized) \
	/* RES-07: a write of less than 64 bytes is refused */ \
	V(needs_large_writes) \
	/* RES-08: a load changes the content's first byte */ \
	V(load_changes_a_byte) \
	/* RES-09: after a refused load and a reset the next load is refused too, by its first write */ \
	V(refusal_sticks) \
	/* RES-10: a write of 0 bytes answers EINVAL */ \
	V(empty_write_fails) \
	/* RES-11: a refused RESUMING to STOP leads to RUNNING */ \
	V(refusal_runs) \
	/* DMA-01: START answers EIO */ \
	V(start_is_refused) \
	/* DMA-02: REPORT answers EIO */ \
	V(report_is_refused) \
	/* DMA-04: START is taken while a log is on */ \
	V(second_start) \
	/* DMA-05: REPORT is taken before the first START since the device was opened or reset */ \
	V(report_without_start) \
	/* DMA-06: REPORT is taken after STOP */ \
	V(report_after_stop) \
	/* DMA-07: REPORT leaves what it tells */ \
	V(report_keeps) \
	/* DMA-08: START is refused after a STOP, until the device is opened anew or reset */ \
	V(start_once) \
	/* DMA-09: STOP ends the log and answers EIO */ \
	V(stop_is_refused)

#endif
