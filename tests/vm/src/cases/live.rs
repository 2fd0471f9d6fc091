//! A device that works on while it is copied: what it does in pre-copy arrives.
//!
//! Deliberately absent: dirty data. What `mtty` gives in pre-copy never changes; its content comes with the stop. A
//! device that changes is in `large`.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use vfio_migration_core::session::Event;
use vfio_migration_host::buffer::Buffer;
use vfio_migration_host::device::Device;
use vfio_migration_host::link::Link;
use vfio_migration_host::open::Identity;
use vfio_migration_host::transfer::{Member, PreCopy, Save, Watch, save};

use super::library::borrow;
use crate::device::{Card, RUNNING, new_text};
use crate::suite::{Bench, Case};
use crate::tool::{self, DONE};

pub(super) const CASES: &[Case] = &[
    ("content_written_when_pre_copy_begins_arrives", |bench| {
        written_during(bench, |event| matches!(event, Event::PrecopyInfo { .. }))
    }),
    ("content_written_after_data_were_read_in_pre_copy_arrives", |bench| {
        written_during(bench, |event| matches!(event, Event::ReadData { .. }))
    }),
];

fn written_during(bench: &Bench, moment: fn(&Event) -> bool) -> Result<()> {
    let new = new_text();
    save_and_write(&bench.source, moment, &new)?;
    bench.target.fill(&new_text())?;
    tool::run(&format!("load {} --input /tmp/state", bench.target.argument()?))?.expect(&[DONE])?;
    bench.target.check(RUNNING, &new)?;
    bench.source.check(RUNNING, &new).context("the source")
}

/// Saves a card, and writes a text into it when `moment` comes, while the save waits for that.
fn save_and_write(card: &Card, moment: fn(&Event) -> bool, text: &str) -> Result<()> {
    let held = card.open()?;
    held.fill(&new_text())?;
    let opened = borrow(&held)?;
    let mut device = Device::new(opened.as_fd())?;
    let identity = Identity { driver: "mtty".into(), address: card.uuid().into() };
    let (features, now, idstr) = (device.features(), device.state(), identity.idstr());
    let mut buffer = Buffer::for_source(4096)?;
    let buffer = buffer.bytes();
    let member = Member { device: &mut device, features, now, identity: &identity, idstr, buffer };
    let plan = Save { pre_copy: Some(PreCopy::default()), ..Save::default() };
    let link = Link::new(File::create("/tmp/state")?, None);
    let (reached, is_reached) = channel();
    let (go, may_go) = channel();
    let pause = Pause { moment, reached, may_go: Mutex::new(may_go), over: AtomicBool::new(false) };
    let saved = thread::scope(|scope| {
        let saved = scope.spawn(|| save(vec![member], link, &plan, || Ok(()), &pause));
        is_reached.recv_timeout(PATIENCE).context("the moment did not come")?;
        held.fill(text)?;
        go.send(())?;
        saved.join().map_err(|_| anyhow!("save panicked"))
    });
    Ok(saved?.map(drop)?)
}

/// Tells when a moment comes for the first time, and holds the save up until it may go on.
struct Pause {
    moment: fn(&Event) -> bool,
    reached: Sender<()>,
    may_go: Mutex<Receiver<()>>,
    over: AtomicBool,
}

impl Watch for Pause {
    fn event(&self, _: &str, event: &Event) {
        if (self.moment)(event) && !self.over.swap(true, Ordering::Relaxed) {
            // Nobody waits any more where the other side has failed, which says why.
            let _ = self.reached.send(());
            let may_go = self.may_go.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = may_go.recv_timeout(PATIENCE);
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
