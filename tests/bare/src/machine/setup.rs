//! What the machine is told on its kernel's command line: `role=send size=40960 seed=7`.
//!
//! Deliberately absent: a way on after a word that is not understood. It ends the machine in a panic.

use core::str::FromStr;

use vfio_migration_core::device::{Features, State};

/// The command line's words.
pub(crate) struct Setup {
    /// `role=send`, `role=receive` or `role=overflow`.
    pub(crate) role: Role,
    /// `size=`: the bytes of the device's content, a multiple of 512.
    pub(crate) size: usize,
    /// `seed=`: what the content is made from before anything is received.
    pub(crate) seed: u64,
    /// `features=`: 1, 3, 5 or 7, the uapi's flags.
    pub(crate) features: Features,
    /// `refuse=`, as often as needed: a state that the device refuses, by its name.
    pub(crate) refused: [bool; State::ALL.len()],
    /// `patience=`: after so many milliseconds of silence the line counts as closed.
    pub(crate) patience: u32,
}

/// Which side of a migration the machine is, if any.
pub(crate) enum Role {
    /// It sends its device's state.
    Send,
    /// It receives one.
    Receive,
    /// It uses up its stack.
    Overflow,
}

impl Setup {
    /// Reads the words; the later one of two counts.
    pub(crate) fn parse(words: &str) -> Self {
        let mut setup = Self {
            role: Role::Send,
            size: 0,
            seed: 0,
            features: Features { p2p: true, pre_copy: true },
            refused: [false; State::ALL.len()],
            patience: 30_000,
        };
        for word in words.split_ascii_whitespace() {
            let read = word.split_once('=').and_then(|(key, value)| setup.set(key, value));
            assert!(
                read.is_some(),
                "wanted role=send, receive or overflow, size, seed, features, refuse, patience; got {word}"
            );
        }
        setup
    }

    fn set(&mut self, key: &str, value: &str) -> Option<()> {
        match (key, value) {
            ("role", "send") => self.role = Role::Send,
            ("role", "receive") => self.role = Role::Receive,
            ("role", "overflow") => self.role = Role::Overflow,
            ("size", _) => self.size = number(value)?,
            ("seed", _) => self.seed = number(value)?,
            ("features", _) => self.features = Features::from_raw(number(value)?)?,
            ("refuse", _) => {
                let state = State::ALL.into_iter().find(|state| state.name() == value)?;
                self.refused[state as usize] = true;
            }
            ("patience", _) => self.patience = number(value)?,
            _ => return None,
        }
        Some(())
    }
}

fn number<T: FromStr>(value: &str) -> Option<T> {
    value.parse().ok()
}
