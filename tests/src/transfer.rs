//! Fleets of simulated devices for whole transfers, with a log of every SET and reset in their true order.
//!
//! Deliberately absent: a transport. Streams go through real file descriptors, a memfd where nothing else is wanted.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use vfio_migration_core::device::State;
use vfio_migration_core::session::drive::Device;
use vfio_migration_core::session::precopy::Backoff;
use vfio_migration_core::session::{Code, DataRead, Left, PrecopyInfo};
use vfio_migration_core::stream::pci_config::{Body, Layout};
use vfio_migration_host::link::Link;
use vfio_migration_host::open::Identity;
use vfio_migration_host::pci::{Applied, Refused};
use vfio_migration_host::sim::{Assigned, Config, Sim};
use vfio_migration_host::transfer::{self, Error, Load, Member, Migratable, PreCopy, Report, Save, Watch};

/// What was done to the devices of several sides: each device's number, the state that it was left in, and whether by a
/// reset.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<(usize, State, bool)>>>);

/// A simulated device that writes each SET and each reset into a log, one at a time for all devices of the log.
pub struct Logged {
    /// The device.
    pub assigned: Assigned,
    log: Log,
    number: usize,
    /// How often its configuration was set.
    pub commands: usize,
}

/// The devices of one side.
pub struct Fleet {
    /// The devices, in their order.
    pub devices: Vec<Logged>,
    /// What they are called and who drives them.
    pub identities: Vec<Identity>,
    /// Their sections' names where those are not their own.
    pub names: Vec<Option<String>>,
    buffers: Vec<Vec<u8>>,
    before: Vec<Vec<u8>>,
}

impl Log {
    /// How many SETs and resets there were of the device `number`.
    #[must_use]
    pub fn count(&self, number: usize) -> usize {
        self.0.lock().unwrap().iter().filter(|(device, ..)| *device == number).count()
    }

    /// Holds the log against the rule of lockstep.
    ///
    /// # Panics
    /// Where it was broken.
    pub fn assert_lockstep(&self, devices: Range<usize>, role: Role) {
        assert_eq!(self.breach(devices, role), None, "{self:?}");
    }

    /// Which of `devices` went to which state against the rule of lockstep: no device works while another one stands
    /// still, except after a reset. A destination counts from its RESUMING on: what it did before is nobody's concern.
    fn breach(&self, devices: Range<usize>, role: Role) -> Option<(usize, State)> {
        let mut now: Vec<_> =
            devices.clone().map(|_| (role == Role::Source).then_some(State::Running)).collect();
        let log = self.0.lock().unwrap();
        for &(device, state, reset) in log.iter().filter(|(device, ..)| devices.contains(device)) {
            let place = &mut now[device - devices.start];
            let counts = !reset && (place.is_some() || state == State::Resuming);
            *place = counts.then_some(state);
            let any = |states: &[State]| now.iter().flatten().any(|state| states.contains(state));
            let works = any(&[State::Running, State::PreCopy]);
            if works && any(&[State::Stop, State::StopCopy, State::Resuming]) {
                return Some((device, state));
            }
        }
        None
    }
}

/// On which side a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It is saved.
    Source,
    /// It is loaded.
    Destination,
}

impl Logged {
    fn note(&self, log: &mut Vec<(usize, State, bool)>, reset: bool) {
        log.push((self.number, self.assigned.sim.get_state(), reset));
    }
}

impl Device for Logged {
    fn set_state(&mut self, state: State) -> Result<(), Code> {
        let log = Arc::clone(&self.log.0);
        let mut log = log.lock().unwrap();
        let answer = self.assigned.set_state(state);
        self.note(&mut log, false);
        answer
    }

    fn precopy_info(&mut self) -> Result<PrecopyInfo, Code> {
        self.assigned.precopy_info()
    }

    fn read_data(&mut self, buffer: &mut [u8]) -> Result<DataRead, Code> {
        self.assigned.read_data(buffer)
    }

    fn write_data(&mut self, bytes: &[u8]) -> Result<usize, Code> {
        self.assigned.write_data(bytes)
    }

    fn reset(&mut self) -> Result<(), Code> {
        let log = Arc::clone(&self.log.0);
        let mut log = log.lock().unwrap();
        let answer = self.assigned.reset();
        self.note(&mut log, true);
        answer
    }
}

impl Migratable for Logged {
    fn data_size(&self) -> Option<u64> {
        Migratable::data_size(&self.assigned)
    }

    fn config_layout(&self) -> Result<Option<Layout>, Refused> {
        self.assigned.config_layout()
    }

    fn config(&mut self) -> Result<Vec<u8>, Refused> {
        self.assigned.config()
    }

    fn check_config(&self, body: &Body<'_>) -> Result<(), Refused> {
        self.assigned.check_config(body)
    }

    fn apply_config(&mut self, body: &Body<'_>) -> Result<Applied, Refused> {
        self.commands += 1;
        self.assigned.apply_config(body)
    }
}

impl Fleet {
    /// Devices `sim@SIDE.0`, `sim@SIDE.1`, … made from `configs`, with buffers of `buffer` bytes. Their numbers in the
    /// log begin with `first`.
    ///
    /// # Panics
    /// When a text is no configuration.
    #[must_use]
    pub fn new(side: &str, configs: &[impl AsRef<str>], buffer: usize, log: &Log, first: usize) -> Self {
        let sims = configs.iter().map(|text| Sim::new(text.as_ref().parse::<Config>().unwrap()));
        let devices: Vec<_> = sims
            .zip(first..)
            .map(|(sim, number)| Logged {
                assigned: Assigned::new(sim),
                log: log.clone(),
                number,
                commands: 0,
            })
            .collect();
        let identity = |at| Identity { driver: "sim".into(), address: format!("{side}.{at}") };
        let mut fleet = Self {
            identities: (0..devices.len()).map(identity).collect(),
            names: vec![None; devices.len()],
            buffers: vec![vec![0xa5; buffer]; devices.len()],
            before: vec![],
            devices,
        };
        fleet.before = fleet.contents();
        fleet
    }

    /// The devices as a transfer wants them.
    pub fn members(&mut self) -> Vec<Member<'_, Logged>> {
        let idstrs = self.idstrs();
        let parts = self.devices.iter_mut().zip(&self.identities).zip(&mut self.buffers);
        let member = |(((device, identity), buffer), idstr)| {
            let device: &mut Logged = device;
            let (features, now) = (device.assigned.sim.features(), device.assigned.sim.get_state());
            Member { device, features, now, identity, idstr, buffer }
        };
        parts
            .map(|((device, identity), buffer)| ((device, identity), &mut buffer[..]))
            .zip(idstrs)
            .map(member)
            .collect()
    }

    /// The device with the number `at`.
    #[must_use]
    pub fn sim(&self, at: usize) -> &Sim {
        &self.devices[at].assigned.sim
    }

    /// Each device's state, looked at from outside.
    #[must_use]
    pub fn states(&self) -> Vec<State> {
        self.devices.iter().map(|device| device.assigned.sim.get_state()).collect()
    }

    /// Each device's content.
    #[must_use]
    pub fn contents(&self) -> Vec<Vec<u8>> {
        self.devices.iter().map(|device| device.assigned.sim.content().to_vec()).collect()
    }

    /// The contents that a device keeps that is not reset.
    #[must_use]
    pub fn given(&self) -> &[Vec<u8>] {
        &self.before
    }

    /// From here on the present contents are those that a device keeps that is not reset, for one whose guest has written.
    pub fn take_contents_as_given(&mut self) {
        self.before = self.contents();
    }

    /// Each device's name.
    #[must_use]
    pub fn idstrs(&self) -> Vec<String> {
        let own = self.identities.iter().map(Identity::idstr);
        self.names.iter().zip(own).map(|(name, own)| name.clone().unwrap_or(own)).collect()
    }

    /// Holds what was told of this side's devices against what they are.
    ///
    /// # Panics
    /// Where a device is not told of, or is not as told.
    pub fn assert_as_told(&self, error: &Error, what: &str) {
        self.assert_as_told_or_loaded(error, &[], what);
    }

    /// The same where these contents may have been loaded.
    ///
    /// # Panics
    /// As [`Fleet::assert_as_told`].
    pub fn assert_as_told_or_loaded(&self, error: &Error, loaded: &[Vec<u8>], what: &str) {
        for (at, name) in self.idstrs().iter().enumerate() {
            let told = error.devices.iter().find(|(told, _)| told == name);
            let Some((_, left)) = told else { panic!("{what}: {name} is not told of: {error}") };
            let (state, content) = (self.sim(at).get_state(), self.sim(at).content());
            match left {
                Left::At(told) => {
                    assert_eq!(state, *told, "{what}: {name}: {error}");
                    let good =
                        content == self.before[at] || loaded.get(at).is_some_and(|loaded| content == loaded);
                    assert!(good, "{what}: the content of {name}: {error}");
                }
                Left::Reset => {
                    assert_eq!(state, State::Running, "{what}: {name}: {error}");
                    assert!(content.iter().all(|byte| *byte == 0), "{what}: {name} was not reset: {error}");
                }
                Left::Unknown => {}
            }
        }
    }

    /// Saves all devices; returns the stream.
    ///
    /// # Errors
    /// As `transfer::save`.
    ///
    /// # Panics
    /// When there is no memfd.
    pub fn save(&mut self, plan: &Save<'_>, watch: &impl Watch) -> Result<(Vec<u8>, Report), Error> {
        let mut file = temporary();
        let link = Link::new(file.as_fd(), plan.interrupt.clone());
        let report = transfer::save(self.members(), link, plan, || Ok(()), watch)?;
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        Ok((bytes, report))
    }

    /// Loads all devices from `bytes`.
    ///
    /// # Errors
    /// As `transfer::load`.
    pub fn load(&mut self, bytes: &[u8], plan: &Load) -> Result<Report, Error> {
        transfer::load(self.members(), Link::new(holding(bytes), None), plan, &quiet)
    }
}

/// The name of the device at which something went wrong, where it is told.
#[must_use]
pub fn at(error: &Error) -> Option<&str> {
    Some(&error.devices[error.at?].0)
}

/// Pre-copy whose waits are short.
#[must_use]
pub fn quick() -> PreCopy<'static> {
    PreCopy {
        backoff: Backoff::new(Duration::from_micros(50), Duration::from_millis(1)),
        ..PreCopy::default()
    }
}

/// Tells nobody.
pub fn quiet(_: &vfio_migration_core::session::Event) {}

/// An empty file without a name.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn temporary() -> File {
    File::from(rustix::fs::memfd_create("stream", rustix::fs::MemfdFlags::CLOEXEC).unwrap())
}

/// A file without a name that holds `bytes`, at its beginning.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn holding(bytes: &[u8]) -> File {
    let mut file = temporary();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    file
}

/// Does `work`, which must end by itself: nothing waits so long unless it waits for ever, also where a busy machine
/// emulates another one.
///
/// # Panics
/// When it does not end, or panics.
pub fn must_end<T: Send + 'static>(what: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, end) = channel();
    let worker = thread::spawn(move || {
        let _ = done.send(work());
    });
    match end.recv_timeout(Duration::from_secs(600)) {
        Ok(result) => result,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("{what}: does not end"),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => match worker.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("it ended without a result"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_shows_who_worked_while_another_stood_still() {
        use State::{Resuming, Running, RunningP2p, Stop, StopCopy};
        type Row = (&'static [(usize, State, bool)], Role, Option<(usize, State)>);
        let table: [Row; 6] = [
            (&[(0, RunningP2p, false), (1, RunningP2p, false), (0, StopCopy, false)], Role::Source, None),
            (&[(0, RunningP2p, false), (0, StopCopy, false)], Role::Source, Some((0, StopCopy))),
            (&[(0, RunningP2p, false), (1, Running, true), (0, StopCopy, false)], Role::Source, None),
            (&[(0, Resuming, false), (1, Resuming, false), (0, Running, true)], Role::Destination, None),
            (&[(0, Resuming, false), (1, Stop, false)], Role::Destination, None),
            (
                &[(0, Resuming, false), (1, Resuming, false), (0, Running, false)],
                Role::Destination,
                Some((0, Running)),
            ),
        ];
        for (entries, role, breach) in table {
            let log = Log(Arc::new(Mutex::new(entries.to_vec())));
            assert_eq!(log.breach(0..2, role), breach, "{entries:?}");
        }
    }
}
