//! From the command line to a migration, and from its outcome to the console's last lines and the machine's end.
//!
//! Deliberately absent: a way to ask the machine anything later. What it has to say it says before it ends.

use crate::boot::{Exit, exit};
use crate::console::say;
use crate::device::Device;
use crate::receive::receive;
use crate::refusal::Refusal;
use crate::serial::Serial;
use crate::setup::{Role, Setup};
use crate::stream::{Reader, Writer};
use crate::{send, trace};

/// Does what the command line wants and ends the machine.
pub(crate) fn migrate(setup: &Setup) -> ! {
    let mut device = Device::take(setup);
    let line = Serial::new(setup.patience);
    let (outcome, done, bytes) = match setup.role {
        Role::Send => {
            let mut stream = Writer::new(line);
            (send(&mut device, &mut stream), "sent", stream.offset())
        }
        Role::Receive => {
            let mut stream = Reader::new(line);
            say!("listening"); // what came before the line was set up is lost
            (receive(&mut device, &mut stream), "received", stream.offset())
        }
    };
    trace::sum_up();
    tell(&outcome, done, bytes, &device);
    exit(if outcome.is_ok() { Exit::Done } else { Exit::Failed })
}

fn tell(outcome: &Result<(), Refusal>, done: &str, bytes: u64, device: &Device) {
    let (state, checksum) = (device.state(), device.checksum());
    match outcome {
        Ok(()) => say!("{done} {bytes} bytes"),
        Err(refusal) => say!("failed: {refusal}"),
    }
    say!("the device is in {state}, its content has crc32c {checksum:08x}");
}
