//! The picture of a stream: bytes from left to right, phase by phase, a row for each device.
//!
//! Memory dwarfs all else, so no one scale shows everything. A bar at the top is to scale; below it each phase is drawn
//! out on its own, wide enough for its name, and what has a few bytes is still some pixels wide.
//!
//! Deliberately absent: scripts and fonts. The picture is the same in a browser, an editor and on paper.

use std::fmt::{self, Write};

use indicatif::BinaryBytes;
use vfio_migration_host::qemu::Phase;

use super::picture::{Ink, Lane, Picture, Row, Span};

/// The picture as the text of an SVG file; `title` is what the stream is called.
pub(super) fn draw(picture: &Picture, title: &str) -> String {
    let mut svg = Svg { out: String::new(), picture, columns: columns(picture), y: 0.0 };
    // Writing to a string does not fail.
    let _ = svg.all(title);
    svg.out
}

/// A phase on the page.
struct Column {
    phase: Phase,
    begin: u64,
    end: u64,
    left: f64,
    width: f64,
}

struct Svg<'a> {
    out: String,
    picture: &'a Picture,
    columns: Vec<Column>,
    /// Where the next thing goes.
    y: f64,
}

impl Svg<'_> {
    fn all(&mut self, title: &str) -> fmt::Result {
        let height = self.height();
        writeln!(
            self.out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"Helvetica, Arial, sans-serif\" font-size=\"12\" fill=\"#24292f\">"
        )?;
        writeln!(self.out, "<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>")?;
        self.title(title)?;
        self.bar()?;
        self.heads()?;
        self.lanes()?;
        self.channels()?;
        self.legend()?;
        writeln!(self.out, "</svg>")
    }

    fn height(&self) -> f64 {
        let damage = if self.picture.damage.is_some() { DAMAGE } else { 0.0 };
        let channels = match self.picture.channels.len() {
            0 => 0.0,
            count => CHANNELS_HEAD + count as f64 * LANE,
        };
        let lanes = self.picture.lanes.len() as f64 * LANE;
        TITLE + damage + BAR + HEADS + lanes + channels + LEGEND
    }

    fn title(&mut self, title: &str) -> fmt::Result {
        let Picture { machine, bytes, damage, .. } = self.picture;
        let of = match machine.as_str() {
            "" => "a stream of VFIO devices alone".to_owned(),
            machine => format!("machine {machine}"),
        };
        self.text(MARGIN, 34.0, "font-size=\"20\" font-weight=\"bold\"", title)?;
        let what = format!("QEMU migration stream, {of}, {}, {bytes} bytes", BinaryBytes(*bytes));
        self.text(MARGIN, 54.0, QUIET, &what)?;
        self.y = TITLE;
        if let Some((at, message)) = damage {
            let message = format!("read up to byte {at}: {}", shortened(message, 190));
            self.text(MARGIN, self.y + 8.0, "fill=\"#c0392b\" font-weight=\"bold\"", &message)?;
            self.y += DAMAGE;
        }
        Ok(())
    }

    /// The whole stream to scale, and from each phase lines to where it is drawn out.
    fn bar(&mut self) -> fmt::Result {
        let (top, scale) = (self.y, PLOT / self.picture.bytes.max(1) as f64);
        self.label(top + 11.0, "to scale", "")?;
        for column in &self.columns {
            let left = LEFT + column.begin as f64 * scale;
            let width = ((column.end - column.begin) as f64 * scale).max(MARK);
            let left = left.min(LEFT + PLOT - width);
            let (light, dark) = colours(column.phase);
            let (from, to) = (top + 16.0, top + BAR);
            let (right, below) = (left + width, column.left + column.width);
            writeln!(
                self.out,
                "<path d=\"M{left:.1} {from} L{right:.1} {from} L{below:.1} {to} L{:.1} {to} Z\" fill=\"{light}\" \
                 fill-opacity=\"0.55\"/><rect x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"16\" fill=\"{dark}\"/>",
                column.left
            )?;
        }
        self.y += BAR;
        Ok(())
    }

    /// What each phase is called, how large it is and where it begins.
    fn heads(&mut self) -> fmt::Result {
        let (top, bottom) = (self.y, self.y + HEADS + self.picture.lanes.len() as f64 * LANE);
        self.label(top + 18.0, "phase", "each drawn out on its own")?;
        for column in std::mem::take(&mut self.columns) {
            let Column { phase, begin, end, left, width } = column;
            let (light, dark) = colours(phase);
            writeln!(
                self.out,
                "<rect x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{light}\" fill-opacity=\"0.35\"/>\
                 <rect x=\"{left:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"3\" fill=\"{dark}\"/>",
                bottom - top
            )?;
            let at = left + 6.0;
            self.text(at, top + 20.0, "font-weight=\"bold\" font-size=\"13\"", phase.name())?;
            let size = end - begin;
            let share = 100.0 * size as f64 / self.picture.bytes.max(1) as f64;
            let percent = if share < 0.1 { "<0.1".into() } else { format!("{share:.1}") };
            self.text(at, top + 35.0, "font-size=\"11\"", &format!("{}, {percent} %", BinaryBytes(size)))?;
            self.text(at, top + 49.0, SMALL, &format!("from byte {begin}"))?;
            if phase == Phase::StopCopy && self.picture.switchover {
                writeln!(
                    self.out,
                    "<line x1=\"{left:.1}\" y1=\"{:.1}\" x2=\"{left:.1}\" y2=\"{bottom:.1}\" stroke=\"#c0392b\" \
                     stroke-width=\"2\" stroke-dasharray=\"5 3\"/>",
                    top - 4.0
                )?;
                let still = "fill=\"#c0392b\" font-size=\"11\"";
                self.text(at, top + 62.0, still, "the machine stands still")?;
            }
            self.columns.push(Column { phase, begin, end, left, width });
        }
        self.y += HEADS;
        Ok(())
    }

    fn lanes(&mut self) -> fmt::Result {
        let picture = self.picture;
        for lane in &picture.lanes {
            self.lane(lane, |svg, span| {
                let column =
                    svg.columns.iter().find(|column| (column.begin..column.end).contains(&span.begin))?;
                let scale = column.width / (column.end - column.begin) as f64;
                Some((column.left, column.width, column.begin, scale))
            })?;
        }
        Ok(())
    }

    fn channels(&mut self) -> fmt::Result {
        let picture = self.picture;
        let Some(longest) = picture.channels.iter().map(|lane| lane.bytes).max() else { return Ok(()) };
        let scale = PLOT / longest.max(1) as f64;
        let size = BinaryBytes(longest);
        self.label(self.y + 28.0, "channels beside it", "")?;
        self.text(
            LEFT,
            self.y + 28.0,
            SMALL,
            &format!("to scale, from 0 to {size}; what they carry comes meanwhile"),
        )?;
        self.y += CHANNELS_HEAD;
        for lane in &picture.channels {
            let (y, width) = (self.y + PAD, lane.bytes as f64 * scale);
            writeln!(
                self.out,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"#f3f4f6\"/>",
                LANE - 2.0 * PAD
            )?;
            self.lane(lane, |_, _| Some((LEFT, PLOT, 0, scale)))?;
        }
        Ok(())
    }

    /// One row; `place` tells where the column of a span begins on the page, how wide it is, its first byte, and pixels a
    /// byte.
    fn lane(
        &mut self,
        lane: &Lane,
        place: impl Fn(&Self, &Span) -> Option<(f64, f64, u64, f64)>,
    ) -> fmt::Result {
        let top = self.y;
        writeln!(
            self.out,
            "<line x1=\"{MARGIN}\" y1=\"{top}\" x2=\"{}\" y2=\"{top}\" stroke=\"#d0d7de\" stroke-width=\"0.5\"/>",
            LEFT + PLOT
        )?;
        self.label(top + 21.0, &shortened(&lane.name, 28), &about(lane))?;
        for ink in Ink::ALL {
            for span in &lane.strips[ink as usize].spans {
                let Some((left, width, first, scale)) = place(self, span) else { continue };
                let begin = left + (span.begin - first) as f64 * scale;
                let long = ((span.end - span.begin) as f64 * scale).max(MARK).min(width);
                // Those that were joined have others between them.
                let long = if ink == Ink::EndOfState && span.things > 1 { MARK } else { long };
                self.span(ink, span, begin.min(left + width - long), long)?;
            }
        }
        self.y += LANE;
        Ok(())
    }

    fn span(&mut self, ink: Ink, span: &Span, left: f64, width: f64) -> fmt::Result {
        let (colour, name) = look(ink);
        let (y, height) = match ink {
            Ink::Start | Ink::Part | Ink::End | Ink::Full => (self.y + PAD, LANE - 2.0 * PAD),
            _ => (self.y + PAD + 11.0, LANE - 2.0 * PAD - 13.0),
        };
        let size = span.end - span.begin;
        let several = if span.things > 1 { format!("{} × ", span.things) } else { String::new() };
        let edge = if width > 6.0 { " stroke=\"#ffffff\" stroke-width=\"0.8\"" } else { "" };
        writeln!(
            self.out,
            "<rect x=\"{left:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\"{edge}><title>{several}{name}, \
             bytes {} to {}</title></rect>",
            span.begin, span.end
        )?;
        let (y, size, colour, labels) = match ink {
            Ink::Start | Ink::Part | Ink::End | Ink::Full => {
                (self.y + PAD + 8.5, 8.5, "#57606a", vec![format!("{several}{name}")])
            }
            _ => {
                let labels =
                    vec![format!("{several}{name} {}", BinaryBytes(size)), format!("{several}{name}")];
                let colour = if ink == Ink::Description { "#24292f" } else { "#ffffff" };
                (y + height / 2.0 + 4.0, 11.0, colour, labels)
            }
        };
        match labels.iter().find(|label| wide(label, size) + 6.0 < width) {
            Some(label) => {
                self.text(left + 3.5, y, &format!("font-size=\"{size}\" fill=\"{colour}\""), label)
            }
            None => Ok(()),
        }
    }

    fn legend(&mut self) -> fmt::Result {
        let (mut x, mut y) = (LEFT, self.y + 24.0);
        self.label(y + 10.0, "colours", "")?;
        for (colour, words) in legend(self.picture) {
            let width = 31.0 + wide(words, 11.0);
            if x + width > LEFT + PLOT {
                (x, y) = (LEFT, y + LEGEND_ROW);
            }
            writeln!(
                self.out,
                "<rect x=\"{x:.1}\" y=\"{y}\" width=\"12\" height=\"12\" rx=\"2\" fill=\"{colour}\"/>"
            )?;
            self.text(x + 17.0, y + 10.0, "font-size=\"11\"", words)?;
            x += width;
        }
        let scale = "Within a phase bytes are to scale; the phases are not to each other: each is as wide as the logarithm of \
                     its bytes. Nothing is narrower than 3 pixels.";
        self.text(LEFT, y + 32.0, SMALL, scale)?;
        let sections = "A pale box is a section, with its kind above what it holds. Hold the pointer over anything for its bytes.";
        self.text(LEFT, y + 47.0, SMALL, sections)
    }

    /// What stands before a row.
    fn label(&mut self, y: f64, name: &str, about: &str) -> fmt::Result {
        self.text(MARGIN, y, "font-weight=\"bold\"", name)?;
        self.text(MARGIN, y + 14.0, SMALL, about)
    }

    fn text(&mut self, x: f64, y: f64, style: &str, text: &str) -> fmt::Result {
        if text.is_empty() {
            return Ok(());
        }
        writeln!(self.out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {style}>{}</text>", escaped(text))
    }
}

/// Where each phase is on the page: as wide as the logarithm of its bytes, and at least wide enough for its words.
fn columns(picture: &Picture) -> Vec<Column> {
    let there = Phase::ALL.into_iter().zip(picture.phases);
    let there: Vec<_> =
        there.filter_map(|(phase, bytes)| bytes.map(|(begin, end)| (phase, begin, end))).collect();
    let weight = |begin: u64, end: u64| ((end - begin).max(2) as f64).log2();
    let weights: f64 = there.iter().map(|(_, begin, end)| weight(*begin, *end)).sum();
    let gaps = GAP * there.len().saturating_sub(1) as f64;
    let spare = PLOT - gaps - COLUMN * there.len() as f64;
    let mut left = LEFT;
    let place = |(phase, begin, end): (Phase, u64, u64)| {
        let width = COLUMN + spare * weight(begin, end) / weights;
        let column = Column { phase, begin, end, left, width };
        left += width + GAP;
        column
    };
    there.into_iter().map(place).collect()
}

/// The colours that are in the picture, with what they are.
fn legend(picture: &Picture) -> Vec<(&'static str, &'static str)> {
    let lanes = || picture.lanes.iter().chain(&picture.channels);
    let drawn = |ink: &Ink| lanes().any(|lane| !lane.strips[*ink as usize].spans.is_empty());
    let named = |ink| {
        let (colour, name) = look(ink);
        let words = match ink {
            Ink::Start | Ink::Part | Ink::End | Ink::Full => return None,
            Ink::Opaque => "another device's section",
            Ink::Frame if picture.channels.is_empty() => "configuration, commands, end",
            Ink::Frame => "configuration, commands, SYNC, end",
            Ink::Memory => "guest memory",
            _ => name,
        };
        Some((colour, words))
    };
    let mut inks: Vec<_> = Ink::ALL.into_iter().filter(drawn).collect();
    inks.sort_by_key(|ink| *ink == Ink::EndOfState);
    inks.into_iter().filter_map(named).collect()
}

/// What a row holds, in a few words.
fn about(lane: &Lane) -> String {
    let bytes = BinaryBytes(lane.bytes);
    match lane.row {
        Row::Stream => format!("{bytes} of no device"),
        Row::Memory => format!("{bytes}, {} pages", lane.pages),
        Row::Vfio => format!("{bytes}, {} DATA of {}", lane.data_records, BinaryBytes(lane.data_bytes)),
        Row::Others => format!("{bytes} of {} devices", lane.devices),
        Row::Channel if lane.data_records > 0 => {
            format!("{bytes}, {} DATA of {}", lane.data_records, BinaryBytes(lane.data_bytes))
        }
        Row::Channel => format!("{bytes}, {} pages", lane.pages),
    }
}

/// The light and the dark colour of a phase.
const fn colours(phase: Phase) -> (&'static str, &'static str) {
    match phase {
        Phase::Setup => ("#dbe4ec", "#7a8ea1"),
        Phase::Iterations => ("#d6ecd9", "#4f9d69"),
        Phase::StopCopy => ("#f9ddd6", "#d0644b"),
        Phase::Devices => ("#e9e0f2", "#8d6bb1"),
        Phase::End => ("#e8e8e4", "#8b8b80"),
    }
}

/// The colour of something and what it is called.
const fn look(ink: Ink) -> (&'static str, &'static str) {
    match ink {
        Ink::Start => ("#e4e8ec", "START"),
        Ink::Part => ("#e4e8ec", "PART"),
        Ink::End => ("#e4e8ec", "END"),
        Ink::Full => ("#e4e8ec", "FULL"),
        Ink::Memory => ("#6c8ebf", "memory"),
        Ink::Opaque => ("#9aa5b1", "device"),
        Ink::Frame => ("#3d4852", "stream"),
        Ink::Description => ("#cfcfc4", "description"),
        Ink::Data => ("#e08a1e", "DATA"),
        Ink::Config => ("#7b4ea3", "CONFIG"),
        Ink::Setup => ("#2a9d8f", "SETUP"),
        Ink::InitDataSent => ("#0b7fab", "INIT_DATA_SENT"),
        Ink::ConfigLoadReady => ("#c2185b", "CONFIG_LOAD_READY"),
        Ink::EndOfState => ("#1b1f24", "END_OF_STATE"),
        Ink::Broken => ("#c0392b", "not whole"),
    }
}

/// About how wide a text is at this size, in pixels: fonts differ.
fn wide(text: &str, size: f64) -> f64 {
    let letter = |letter: char| match letter {
        ' ' | '.' | ',' | ':' | '/' | '-' | 'i' | 'j' | 'l' | 't' | 'f' | 'r' | 'I' => 0.32,
        'm' | 'w' | 'M' | 'W' | '×' | '…' => 0.85,
        letter if letter.is_uppercase() || letter == '_' => 0.68,
        _ => 0.56,
    };
    text.chars().map(letter).sum::<f64>() * size
}

/// A text of at most so many characters, without its middle.
fn shortened(text: &str, most: usize) -> String {
    let letters: Vec<char> = text.chars().collect();
    if letters.len() <= most {
        return text.into();
    }
    let (front, back) = (most / 2, most - most / 2 - 1);
    letters[..front].iter().chain(&['…']).chain(&letters[letters.len() - back..]).collect()
}

/// A text that is nothing but text in XML, which can't have most control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}')
            }
            letter => escaped.push(letter),
        }
    }
    escaped
}

const WIDTH: f64 = 1280.0;
const MARGIN: f64 = 24.0;
/// Where bytes begin.
const LEFT: f64 = 220.0;
/// How wide all bytes are.
const PLOT: f64 = WIDTH - LEFT - MARGIN;
const TITLE: f64 = 78.0;
const DAMAGE: f64 = 24.0;
const BAR: f64 = 44.0;
const HEADS: f64 = 72.0;
const LANE: f64 = 50.0;
/// What is free above and below in a row.
const PAD: f64 = 5.0;
const CHANNELS_HEAD: f64 = 42.0;
const LEGEND: f64 = 92.0 + LEGEND_ROW;
/// From one row of colours to the next.
const LEGEND_ROW: f64 = 20.0;
/// Between two phases.
const GAP: f64 = 3.0;
/// The narrowest phase.
const COLUMN: f64 = 104.0;
/// The narrowest thing.
const MARK: f64 = 3.0;
const QUIET: &str = "fill=\"#57606a\"";
const SMALL: &str = "font-size=\"11\" fill=\"#57606a\"";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_any_characters_is_text_and_nothing_else() {
        assert_eq!(escaped("a<b>&\"c\u{0}\u{1b}ü"), "a&lt;b&gt;&amp;\"c\u{fffd}\u{fffd}ü");
    }

    #[test]
    fn a_long_name_loses_its_middle() {
        assert_eq!(shortened("0000:00:02.0/vfio", 27), "0000:00:02.0/vfio");
        assert_eq!(shortened("0123456789", 6), "012…89");
        assert_eq!(shortened("ü123456789", 5), "ü1…89");
    }
}
