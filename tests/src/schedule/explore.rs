//! All schedules of up to so many faults, each run once.
//!
//! A run says what could have gone wrong with each of its operations; each of these, behind the last fault, makes
//! another schedule. Deliberately absent: chance.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::thread;

use super::check::{Against, check};
use super::fault::{Fault, Kinds};
use super::fleet;
use super::mutant::Mutant;
use super::rule::Wrong;
use super::run::{self, Driver, Run};
use super::setting::Setting;
use super::team::{Team, Unruly};

/// How many schedules were run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// By the number of their faults.
    pub run: [u64; 4],
    /// How many there had to be, by what the runs with one fault less have offered.
    pub offered: [u64; 4],
}

/// A schedule after which something does not hold.
#[derive(Clone, Debug)]
pub struct Found {
    /// The faults.
    pub faults: Vec<Fault>,
    /// What does not hold.
    pub wrong: Wrong,
}

impl Count {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.run.iter().sum()
    }

    /// Both counts added up.
    #[must_use]
    pub fn plus(mut self, other: &Self) -> Self {
        for at in 0..self.run.len() {
            self.run[at] += other.run[at];
            self.offered[at] += other.offered[at];
        }
        self
    }
}

/// Runs every schedule of up to `most` faults through `run`, which says what can go wrong with each operation.
///
/// # Errors
/// The first schedule of which `run` says that something does not hold.
pub fn explore(
    most: usize,
    run: &mut impl FnMut(&[Fault]) -> Result<Vec<Kinds>, Wrong>,
) -> Result<Count, Found> {
    let mut count = Count::default();
    count.offered[0] = 1;
    descend(&mut vec![], most, run, &mut count)?;
    Ok(count)
}

fn descend(
    faults: &mut Vec<Fault>,
    most: usize,
    run: &mut impl FnMut(&[Fault]) -> Result<Vec<Kinds>, Wrong>,
    count: &mut Count,
) -> Result<(), Found> {
    let offers = run(faults).map_err(|wrong| Found { faults: faults.clone(), wrong })?;
    count.run[faults.len()] += 1;
    if faults.len() == most {
        return Ok(());
    }
    let last = faults.last().copied();
    count.offered[faults.len() + 1] += behind(&offers, last);
    for (number, kinds) in offers.into_iter().enumerate() {
        for kind in kinds.iter() {
            let next = Fault { number, kind };
            if last.is_none_or(|last| is_behind(next, last)) {
                faults.push(next);
                descend(faults, most, run, count)?;
                faults.pop();
            }
        }
    }
    Ok(())
}

/// How many faults there are behind the last one.
fn behind(offers: &[Kinds], last: Option<Fault>) -> u64 {
    let (at, part) = last.map_or((0, None), |last| (last.number, Some(last.kind.part())));
    let later: usize = offers.iter().skip(at + 1).map(|kinds| kinds.iter().count()).sum();
    let here = offers.get(at).map_or(0, |kinds| kinds.iter().filter(|kind| Some(kind.part()) > part).count());
    (later + here) as u64
}

/// Whether a fault comes after another one; one operation can meet something before it, in it and behind it.
#[must_use]
pub fn is_behind(next: Fault, last: Fault) -> bool {
    (next.number, next.kind.part()) > (last.number, last.kind.part())
}

/// Runs and checks every schedule of up to `most` faults on a session of its own.
///
/// # Errors
/// The first schedule after which something does not hold.
pub fn solo(setting: &Setting, most: usize) -> Result<Count, Found> {
    mutated(setting, most, None, Against::Both)
}

/// As [`solo`], of a wrong variant, held against less.
///
/// # Errors
/// The first schedule after which something does not hold.
pub fn mutated(
    setting: &Setting,
    most: usize,
    mutant: Option<Mutant>,
    against: Against,
) -> Result<Count, Found> {
    checked(&[setting], most, against, |faults| run::run(setting, faults, Driver::Steps(mutant)))
}

/// Runs every schedule of up to `most` faults in which nobody cancels by steps and by core's loop.
///
/// # Errors
/// The first schedule of which the logs differ.
pub fn by_both_drivers(setting: &Setting, most: usize) -> Result<Count, Found> {
    explore(most, &mut |faults| {
        let steps = run::run(setting, faults, Driver::Steps(None));
        let looped = run::run(setting, faults, Driver::Loop);
        if (&steps.record.log, &steps.sent) != (&looped.record.log, &looped.sent) {
            return Err(format!(
                "{:?}\nby steps, and by the loop\n{:?}",
                steps.record.log, looped.record.log
            ));
        }
        Ok(steps.record.offers.into_iter().map(Kinds::without_cancel).collect())
    })
}

/// Runs and checks every schedule of up to `most` faults on a fleet.
///
/// # Errors
/// The first schedule after which something does not hold.
pub fn team(team: &Team, most: usize, unruly: Option<Unruly>, against: Against) -> Result<Count, Found> {
    let settings: Vec<_> = team.settings.iter().collect();
    checked(&settings, most, against, |faults| fleet::run(team, faults, unruly))
}

/// What was read short makes other records, so all harmless faults are also in the run that a run is held against.
fn checked(
    settings: &[&Setting],
    most: usize,
    against: Against,
    run: impl Fn(&[Fault]) -> Run,
) -> Result<Count, Found> {
    let mut whole: HashMap<Vec<Fault>, Vec<Vec<u8>>> = HashMap::new();
    explore(most, &mut |faults| {
        let harmless = faults.iter().copied().filter(|fault| fault.kind.is_harmless()).collect();
        let whole = whole.entry(harmless).or_insert_with_key(|harmless| run(harmless).sent);
        let run = run(faults);
        if run.record.met != faults {
            return Err(format!("only {:?} came about", run.record.met));
        }
        check(settings, faults, &run, whole, against)?;
        Ok(run.record.offers)
    })
}

/// Runs `explore_one` for every setting, on as many threads as there are processors, prints how many schedules ran, and
/// returns their sum.
///
/// # Panics
/// When something does not hold after a schedule, or a schedule was left out.
#[must_use]
pub fn all<S: Sync>(
    role: &str,
    settings: &[S],
    title: impl Fn(&S) -> String + Sync,
    explore_one: impl Fn(&S) -> Result<Count, Found> + Sync,
) -> Count {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = |thread: usize| -> Vec<(usize, Result<Count, Found>)> {
        let mine = settings.iter().enumerate().skip(thread).step_by(threads);
        mine.map(|(at, setting)| (at, explore_one(setting))).collect()
    };
    let mut counts: Vec<_> = thread::scope(|scope| {
        let share = &share;
        let running: Vec<_> = (0..threads).map(|thread| scope.spawn(move || share(thread))).collect();
        running.into_iter().flat_map(|thread| thread.join().expect("a thread that ends")).collect()
    });
    counts.sort_by_key(|&(at, _)| at);
    let mut sum = Count::default();
    for (at, count) in counts {
        let title = title(&settings[at]);
        let count = count.unwrap_or_else(|found| panic!("{title}: {:?}: {}", found.faults, found.wrong));
        assert_eq!(count.run, count.offered, "{title}: schedules that ran, and that there are");
        println!("{role}: {title}: {:?} schedules of 0, 1, 2, 3 faults", count.run);
        sum = sum.plus(&count);
    }
    // Told also where the output of a test that passes is not shown.
    let told = writeln!(io::stderr(), "{role}: {:?}, {} schedules in all", sum.run, sum.total());
    assert!(told.is_ok(), "standard error is gone");
    sum
}
