//! Schedules of failures: every way in which up to three things go wrong in one migration.
//!
//! Each operation of a run has a number: SET, PRECOPY_INFO, read, write and reset of a device, send, receive and the
//! configuration's body on a link. A schedule is a list of up to three [`Fault`](fault::Fault)s, each with the number
//! that it happens at. [`explore`] runs all of them: it takes a run, sees which operations came after the last fault and
//! what could go wrong with each, and runs every schedule with one fault more. A number that a run never reaches would
//! be the schedule without it, so nothing is left out; a test compares with all sets of numbers.
//!
//! | file | what |
//! |---|---|
//! | `fault`, `bench`, `log` | what goes wrong, at which operation, and what was done |
//! | `card` | the model of the kernel's side of a device |
//! | `device` | the VMM's side: the data fd, and core's trait |
//! | `link` | a link in memory |
//! | `orders`, `setting`, `team` | what is ordered, of which device, beside which other one |
//! | `session`, `run`, `seat`, `fleet` | runs of one device and of two in lockstep |
//! | `rule`, `check` | what has to be done, written a second time, and the check of a log against it |
//! | `mutant` | wrong variants between a session and its device |
//! | `explore` | all schedules |
//!
//! Deliberately absent: core's rules of steps and of recovery. The model walks the uapi's table, and the check has a
//! rule of its own.

pub mod bench;
pub mod card;
pub mod check;
pub mod device;
pub mod explore;
pub mod fault;
pub mod fleet;
pub mod link;
pub mod log;
pub mod mutant;
pub mod orders;
pub mod rule;
pub mod run;
mod seat;
pub mod session;
pub mod setting;
pub mod team;
