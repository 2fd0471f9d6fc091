//! `vfio-migrate conform`.
//!
//! Deliberately absent: a device that is in use. What is tried loses its content and stops it at any time.

mod output;
mod sharers;

use std::os::fd::AsFd;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use vfio_migration_core::device::State;
use vfio_migration_host::conform::{Lab, Level, Report, Rule, UnknownRule, rules, run as try_rules, select};
use vfio_migration_host::interrupt::Interrupt;
use vfio_migration_host::open::{Identity, Name, Opened};
use vfio_migration_host::trace::TARGET;

use self::output::{Format, Header};
use crate::stdio::say;
use crate::trace::TraceArguments;
use crate::{Fail, Outcome, interrupt_on_signals, new_interrupt, stdout_failed};

#[derive(clap::Args)]
#[command(override_usage = "\
vfio-migrate conform [OPTIONS] <DEVICE>
       vfio-migrate conform --list [--rule <ID>]... [--json|--markdown]
       vfio-migrate conform --explain <ID>")]
#[command(after_help = "\
Examples:
  vfio-migrate conform 0000:3b:00.2
  vfio-migrate conform 0000:3b:00.2 --partner 0000:3b:00.3 --tap
  vfio-migrate conform /dev/vfio/devices/vfio1 --rule FSM --rule RES-03 --json
  vfio-migrate conform --list
  vfio-migrate conform --explain FSM-07

The device loses its content: it is saved, stopped, reset, and given damaged states. It must be in RUNNING and nobody
else's; with fd:N only processes that this one descends from may hold it too, and they must leave it alone. At the end,
also after Ctrl-C, it is in RUNNING, or it is said why not.

A rule may trip a bug that takes the kernel down with all that runs on it: try a driver on a machine that may be lost.
FD-05, FD-06, FD-07 and FD-13 write to a data fd whose session has ended, which virtio_vfio_pci answers with a NULL
dereference in the kernel; no other rule does that.

States are loaded into the partner, a device of the same driver with the same flags; without one into the device itself
after a reset, where a reset that keeps the state hides a load that does nothing. Two states are held in memory.

-v and --trace-json tell each rule as it begins, and each SET of a known state and each reset with its answer; pieces of
data are not told.

Exit codes: 0 no rule of level must or should failed; 6 a rule of level should failed; 7 one of level must; others as
for every command. In TAP a failed note is a TODO, which no consumer counts.")]
pub(crate) struct Arguments {
    /// The device: a path, an address, a UUID or fd:N
    #[arg(required_unless_present_any = ["list", "explain"])]
    device: Option<String>,
    /// Load states into this device, of the same driver with the same flags
    #[arg(long, value_name = "DEVICE", requires = "device")]
    partner: Option<String>,
    /// Try this rule alone, or this family (FSM); can be given several times
    #[arg(long, value_name = "ID")]
    rule: Vec<String>,
    /// Print one JSON object
    #[arg(long, group = "format")]
    json: bool,
    /// Print TAP, version 14
    #[arg(long, group = "format")]
    tap: bool,
    /// Print a page of Markdown
    #[arg(long, group = "format")]
    markdown: bool,
    /// Print the rules, and try none
    #[arg(long, conflicts_with_all = ["device", "partner", "explain", "tap"])]
    list: bool,
    /// Explain a rule, and try none
    #[arg(long, value_name = "ID", conflicts_with_all = ["device", "partner", "rule", "format"])]
    explain: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, trace: &TraceArguments) -> Outcome {
    let rules = selected(&arguments.rule)?;
    let format = arguments.format(trace.is_verbose());
    if let Some(id) = &arguments.explain {
        return output::explain(known(id)?).map_err(stdout_failed);
    }
    match &arguments.device {
        Some(device) => arguments.try_on(device, &rules, format),
        None => output::list(&rules, format).map_err(stdout_failed),
    }
}

impl Arguments {
    fn format(&self, verbose: bool) -> Format {
        match (self.json, self.tap, self.markdown) {
            (true, ..) => Format::Json,
            (_, true, _) => Format::Tap,
            (_, _, true) => Format::Markdown,
            (false, false, false) => Format::Table { verbose },
        }
    }

    fn try_on(&self, device: &str, rules: &[&'static Rule], format: Format) -> Outcome {
        if self.partner.as_deref() == Some(device) {
            return Err(same_device(device));
        }
        let interrupt = new_interrupt()?;
        let subject = Subject::open(device)?;
        let partner = self.partner.as_deref().map(Subject::open).transpose()?;
        let mut lab = subject.lab(&interrupt)?;
        let mut other = partner.as_ref().map(|partner| partner.lab(&interrupt)).transpose()?;
        if let (Some(partner), Some(other)) = (&partner, &other) {
            if subject.is(partner) {
                return Err(same_device(device));
            }
            check_alike((&subject, &lab), (partner, other))?;
        }
        let names: Vec<_> =
            [Some(&subject), partner.as_ref()].into_iter().flatten().map(Subject::name).collect();
        say(format_args!("vfio-migrate: the content of {} is lost from here on", names.join(" and of ")));
        interrupt_on_signals(&interrupt)?;
        // Where steps are told, each rule is told too.
        let is_told = tracing::enabled!(target: TARGET, tracing::Level::INFO);
        let progress = if is_told { ProgressBar::hidden() } else { progress(rules.len()) };
        let report = try_rules(&mut lab, other.as_mut(), rules, |rule| {
            tracing::info!(target: TARGET, rule = rule.id, "{}: {}", rule.id, rule.statement);
            progress.set_message(rule.id);
            progress.inc(1);
        });
        progress.finish_and_clear();
        let header = Header {
            device,
            partner: self.partner.as_deref(),
            driver: &subject.identity.driver,
            flags: lab.flags(),
        };
        end(&header, &report, format, &interrupt)
    }
}

/// A device that is tried.
struct Subject {
    device: String,
    identity: Identity,
    opened: Opened,
    is_inherited: bool,
}

impl Subject {
    fn open(device: &str) -> Result<Self, Fail> {
        if device.starts_with("sim:") {
            return Err(Fail::usage(anyhow::anyhow!(
                "{device}: wanted a device of the kernel; a simulated one has no driver"
            )));
        }
        let name: Name = device.parse()?;
        let (identity, opened) = (name.identify()?, name.open()?);
        let is_inherited = matches!(name, Name::Fd(..));
        if is_inherited {
            let sharers = sharers::of(opened.as_fd());
            if !sharers.is_empty() {
                let sharers = sharers.join(", ");
                return Err(Fail::device(anyhow::anyhow!(
                    "{device} is in use by another process: {sharers}"
                )));
            }
        }
        Ok(Self { device: device.to_owned(), identity, opened, is_inherited })
    }

    fn name(&self) -> String {
        format!("'{}'", self.identity.idstr())
    }

    /// Whether both are one device. Two that were opened by name can't be: each is opened once.
    fn is(&self, other: &Self) -> bool {
        let by_fd = self.is_inherited || other.is_inherited;
        by_fd && sharers::are_one(self.opened.as_fd(), other.opened.as_fd())
    }

    fn lab<'a>(&'a self, interrupt: &Interrupt) -> Result<Lab<'a>, Fail> {
        let lab = Lab::new(self.opened.as_fd(), self.identity.idstr(), interrupt.clone())?;
        match lab.state() {
            Some(State::Running) => Ok(lab),
            state => Err(Fail::device(anyhow::anyhow!(
                "{} is in {}, wanted RUNNING: someone migrates it, or was killed while doing so; if nobody does, \
                 `vfio-migrate recover {}` brings it back",
                self.name(),
                state.map_or("no state", State::name),
                self.device
            ))),
        }
    }
}

fn same_device(device: &str) -> Fail {
    Fail::usage(anyhow::anyhow!("--partner: wanted another device than '{device}'"))
}

/// Fails where a state of the one device is none for the other.
fn check_alike(device: (&Subject, &Lab<'_>), partner: (&Subject, &Lab<'_>)) -> Outcome {
    let of = |(subject, lab): (&Subject, &Lab<'_>)| (subject.identity.driver.clone(), lab.flags());
    let (wanted, got) = (of(device), of(partner));
    if wanted == got {
        return Ok(());
    }
    Err(Fail::device(anyhow::anyhow!(
        "the partner: wanted driver {} with flags {:#x}, got {} with {:#x}",
        wanted.0,
        wanted.1,
        got.0,
        got.1
    )))
}

/// Prints the report and says what is to be said of the devices.
fn end(header: &Header<'_>, report: &Report, format: Format, interrupt: &Interrupt) -> Outcome {
    let stuck = stuck(header, report);
    stuck.iter().for_each(say);
    let place = match header.partner {
        _ if !stuck.is_empty() => "a device does not run",
        Some(_) => "the devices are in RUNNING",
        None => "the device is in RUNNING",
    };
    if let Some(signal) = interrupt.asked() {
        let exit = u8::try_from(128 + signal).unwrap_or(u8::MAX);
        return Err(Fail { exit, error: anyhow::anyhow!("ended by signal {signal}; {place}") });
    }
    output::report(header, report, format).map_err(stdout_failed)?;
    let failed = Level::ALL.map(|level| (level, report.failed(level))).into_iter();
    let failed: Vec<_> =
        failed.filter(|(_, count)| *count > 0).map(|(level, count)| format!("{count} {level}")).collect();
    let broken = |exit| Err(Fail { exit, error: anyhow::anyhow!("rules failed: {}", failed.join(", ")) });
    match (report.failed(Level::Must), report.failed(Level::Should)) {
        (0, 0) if stuck.is_empty() => Ok(()),
        (0, 0) => Err(Fail::device(anyhow::anyhow!("{place}"))),
        (0, _) => broken(SHOULD_FAILED),
        _ => broken(MUST_FAILED),
    }
}

/// What there is to be said of each device that is not in RUNNING.
fn stuck(header: &Header<'_>, report: &Report) -> Vec<String> {
    let left = [Some(&report.left), report.partner_left.as_ref()].into_iter().flatten();
    let devices = [Some(header.device), header.partner].into_iter().flatten();
    let stuck = left.zip(devices).filter_map(|(left, device)| Some((left.as_ref().err()?, device)));
    stuck
        .map(|(reason, device)| {
            format!(
                "vfio-migrate: {device}: {reason}; try `vfio-migrate recover {device} --reset`, and if that does not \
                 help, close it everywhere and load its driver anew"
            )
        })
        .collect()
}

fn selected(names: &[String]) -> Result<Vec<&'static Rule>, Fail> {
    select(names).map_err(|UnknownRule(name)| unknown_rule("--rule", &name))
}

fn known(id: &str) -> Result<&'static Rule, Fail> {
    rules().find(|rule| rule.id.eq_ignore_ascii_case(id)).ok_or_else(|| unknown_rule("--explain", id))
}

fn unknown_rule(option: &str, got: &str) -> Fail {
    Fail::usage(anyhow::anyhow!("{option}: wanted a rule of `vfio-migrate conform --list`, got '{got}'"))
}

/// On a terminal, which rule is tried and how many there are.
fn progress(rules: usize) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(rules as u64), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{msg:8} {wide_bar} {pos}/{len}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Exit code: a rule of level should failed, and none of level must.
const SHOULD_FAILED: u8 = 6;
/// Exit code: a rule of level must failed.
const MUST_FAILED: u8 = 7;
