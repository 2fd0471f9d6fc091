//! Four cards of one machine, which migrate together.
//!
//! Deliberately absent: cards of several kinds. That lockstep needs P2P of each is shown in `tests/tests`.

use anyhow::{Context as _, Result, ensure};

use crate::device::{Card, RUNNING, new_text, state_name};
use crate::modules::Set;

/// Four cards in their order.
pub(crate) struct Row {
    cards: Vec<Card>,
}

impl Row {
    /// Makes four cards with one port each, whose names end in `digit`.
    pub(crate) fn create(set: Set, digit: char) -> Result<Self> {
        let uuid = |letter| format!("{letter}0000000-0000-0000-0000-00000000000{digit}");
        let cards = "abcd".chars().map(|letter| Card::create(set, "mtty-1", &uuid(letter)));
        Ok(Self { cards: cards.collect::<Result<_>>()? })
    }

    /// What `vfio-migrate` takes for its DEVICEs.
    pub(crate) fn arguments(&self) -> Result<Vec<String>> {
        self.cards.iter().map(Card::argument).collect()
    }

    /// Puts a text of its own into each card, and returns them.
    pub(crate) fn fill(&self) -> Result<Vec<String>> {
        let texts: Vec<_> = self.cards.iter().map(|_| new_text()).collect();
        self.cards.iter().zip(&texts).try_for_each(|(card, text)| card.fill(text))?;
        Ok(texts)
    }

    /// Fails unless each card runs and holds its text, which it loses by that.
    pub(crate) fn check(&self, texts: &[String]) -> Result<()> {
        let mut cards = self.cards.iter().zip(texts);
        cards.try_for_each(|(card, text)| card.check(RUNNING, text).context(card.uuid().to_string()))
    }

    /// Fails unless the kernel says that the cards are in these states.
    pub(crate) fn check_states(&self, wanted: [u32; 4]) -> Result<()> {
        let got: Result<Vec<_>> = self.cards.iter().map(Card::state).collect();
        let (wanted, got) = (names(&wanted), names(&got?));
        ensure!(wanted == got, "states: wanted {wanted}, got {got}");
        Ok(())
    }
}

/// The names of states.
pub(crate) fn names(states: &[u32]) -> String {
    states.iter().map(|&state| state_name(state)).collect::<Vec<_>>().join(" ")
}
