//! Where sections and the device's bytes stand in a file, as `vfio-migrate inspect` sees it.
//!
//! Deliberately absent: a reader of the format. Whether `inspect` sees it right is shown in `host/tests`.

use std::fs;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::tool::{self, DONE};

/// A section of a stream.
pub(crate) struct Section {
    /// START, PART, END or FULL.
    pub(crate) kind: String,
    /// The name that it began with.
    pub(crate) name: String,
    /// All of it, with its footer.
    pub(crate) place: Range<usize>,
    /// What is between its head and its footer.
    pub(crate) payload: Range<usize>,
    /// Its records, where its device is one of VFIO.
    pub(crate) records: Vec<Record>,
}

/// A record: its name and its place.
pub(crate) type Record = (String, Range<usize>);

impl Section {
    /// The names of its records.
    pub(crate) fn record_names(&self) -> Vec<&str> {
        self.records.iter().map(|(name, _)| name.as_str()).collect()
    }
}

/// All sections of a file.
pub(crate) fn sections(path: &str) -> Result<Vec<Section>> {
    let said = tool::run(&format!("inspect {path} --json"))?.expect(&[DONE])?.output();
    let contents: Value = serde_json::from_str(&said)?;
    let sections = contents["sections"].as_array().with_context(|| format!("no sections in {said}"))?;
    sections.iter().map(|value| section(value).with_context(|| format!("no section: {value}"))).collect()
}

/// The places of a file's data records, with their tags and lengths; there is at least one.
pub(crate) fn data_records(path: &str) -> Result<Vec<Range<usize>>> {
    let outcome = tool::run(&format!("inspect {path} --json"))?.expect(&[DONE])?;
    let mut found = Vec::new();
    collect(&serde_json::from_str(&outcome.output())?, &mut found);
    ensure!(!found.is_empty(), "no data record in {path}: got {}", outcome.output());
    Ok(found)
}

/// The device's bytes in a file, without the tags and lengths of their records.
pub(crate) fn data(path: &str) -> Result<Vec<u8>> {
    let file = fs::read(path)?;
    let data = data_records(path)?.into_iter().map(|record| file[record].iter().skip(HEAD));
    Ok(data.flatten().copied().collect())
}

/// How many bytes of a file with several devices a load may get before it waits, by what it is in the middle of then.
pub(crate) struct Places {
    data: Vec<Range<usize>>,
    length: usize,
}

impl Places {
    /// Within the START sections.
    pub(crate) const STARTS: &str = "in the START sections";

    /// The places of the file at `path`.
    pub(crate) fn of(path: &str) -> Result<Self> {
        Ok(Self { data: data_records(path)?, length: fs::read(path)?.len() })
    }

    /// All places, with their names.
    pub(crate) fn all(&self) -> [(&'static str, usize); 6] {
        let first = &self.data[0];
        let middle = &self.data[self.data.len() / 2];
        let last = &self.data[self.data.len() - 1];
        [
            (Self::STARTS, first.start / 2),
            ("before the data", first.start),
            ("within the data", middle.end - 10),
            ("behind the data", last.end),
            ("in the description", self.length - 10),
            ("before the end", self.length),
        ]
    }
}

fn section(value: &Value) -> Option<Section> {
    let number = |value: &Value, key| usize::try_from(value[key].as_u64()?).ok();
    let text = |value: &Value, key| value[key].as_str().map(str::to_string);
    let record = |value: &Value| {
        let offset = number(value, "offset")?;
        Some((text(value, "record")?, offset..offset + number(value, "length")?))
    };
    let (begins, payload, footer) =
        (number(value, "begins")?, number(value, "payload")?, number(value, "footer")?);
    Some(Section {
        kind: text(value, "section")?,
        name: text(value, "idstr")?,
        place: begins..footer + FOOTER,
        payload: payload..footer,
        records: value["records"].as_array()?.iter().map(record).collect::<Option<_>>()?,
    })
}

/// Collects every object that is a data record, wherever it stands.
fn collect(value: &Value, found: &mut Vec<Range<usize>>) {
    let number = |key| usize::try_from(value.get(key)?.as_u64()?).ok();
    if let (Some("DATA"), Some(offset), Some(length)) =
        (value.get("record").and_then(Value::as_str), number("offset"), number("length"))
    {
        found.push(offset..offset + length);
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        Value::Object(fields) => fields.values().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// The bytes of a section's footer.
const FOOTER: usize = 5;
/// The bytes of a data record's tag and length.
const HEAD: usize = 16;
