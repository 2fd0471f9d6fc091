//! What the kernel and a real device said of states, as rows: the next-state function and mtty's transition matrices.
//!
//! Deliberately absent: a rule. What a row means for core or for the simulated device is each test's matter; a row that
//! is not understood fails the test.

use vfio_migration_core::device::State;

use crate::golden::{FSM_ORACLE, MTTY_TRANSCRIPT};

/// One call of `vfio_mig_get_next_state`.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// The device's migration flags.
    pub flags: u64,
    /// The state that it is in.
    pub current: u32,
    /// The state that is asked for.
    pub requested: u32,
    /// The next state on the way, or nothing where the kernel says EINVAL.
    pub next: Option<u32>,
}

/// Every call of `vfio_mig_get_next_state`, in the order of the file.
///
/// # Panics
/// When a row is not understood.
pub fn steps() -> impl Iterator<Item = Step> {
    FSM_ORACLE.lines().filter(|line| !line.starts_with('#')).map(|row| {
        let cells: Vec<i64> = row.split(',').map(|cell| cell.parse().expect(row)).collect();
        let [flags, current, requested, result, next] = cells[..] else { panic!("{row}") };
        let state = |number: i64| u32::try_from(number).expect(row);
        let next = match result {
            0 => Some(state(next)),
            -22 => None,
            _ => panic!("{row}"),
        };
        Step {
            flags: flags.try_into().expect(row),
            current: state(current),
            requested: state(requested),
            next,
        }
    })
}

/// One SET of an mtty device that was reset before it was brought to `from`.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The state before.
    pub from: State,
    /// The number that is asked for, of a state or past the last one.
    pub to: u32,
    /// Whether the kernel gave a data fd, or its errno.
    pub answer: Result<bool, i32>,
    /// The state after.
    pub after: State,
}

/// The two matrices: from every state, with nothing written in RESUMING, and from RESUMING with a complete state.
///
/// # Panics
/// When a line is not understood.
#[must_use]
pub fn matrices() -> [Vec<Cell>; 2] {
    let mut parts = MTTY_TRANSCRIPT.split("\n== transition matrix ").skip(1);
    ["with nothing written)", "with a complete state written)"].map(|which| {
        let (title, rows) = parts.next().and_then(|part| part.split_once('\n')).expect(which);
        assert!(title.contains(which), "{title}");
        rows.lines().take_while(|line| !line.is_empty()).map(cell).collect()
    })
}

fn cell(line: &str) -> Cell {
    let (from, rest) = line.split_once(" -> ").expect(line);
    let (to, rest) = rest.split_once(": ").expect(line);
    let (answer, after) = rest.split_once(" after=").expect(line);
    let answer = match answer.trim_end() {
        "ret=0 data_fd=yes" => Ok(true),
        "ret=0 data_fd=-1" => Ok(false),
        "ret=-1 errno=EINVAL (22)" => Err(22),
        _ => panic!("{line}"),
    };
    Cell { from: state(from.trim_end()), to: state_number(to.trim_end()), answer, after: state(after) }
}

fn state(name: &str) -> State {
    State::ALL.into_iter().find(|state| state.name() == name).expect(name)
}

/// The number of a state by its name in the transcript; those that have none are there with a question mark.
///
/// # Panics
/// When it is neither.
#[must_use]
pub fn state_number(name: &str) -> u32 {
    name.strip_suffix('?').map_or_else(|| state(name).raw(), |number| number.parse().expect(name))
}
