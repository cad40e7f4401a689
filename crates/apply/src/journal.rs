//! What was about to be done, and how far it got: lines of JSON, each on the disk before what it
//! speaks of begins.
//!
//! ```text
//!  {"schema":"unmasq.journal/v1","findings":[…],"deeds":[…]}
//!  {"deed":0,"event":"begun","subject":"node n1, iptables-nft table nat, chain POSTROUTING"}
//!  {"deed":0,"event":"done",…}
//!  {"event":"applied"}
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use unmasq_fix::deed::Deed;

use crate::DeedError;

/// The name of the format.
pub const SCHEMA: &str = "unmasq.journal/v1";

/// A journal on a disk.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    /// `None`: it can only be read.
    file: Option<File>,
    /// How long it is, as whole lines.
    length: u64,
    head: Head,
    entries: Vec<Entry>,
    trouble: Option<JournalError>,
}

/// Its first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// [`SCHEMA`].
    pub schema: String,
    /// What is mended: ids of findings, with their subjects.
    pub findings: Vec<String>,
    /// What is done, in order.
    pub deeds: Vec<Deed>,
}

/// Another line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Which deed, from 0; `None`: all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deed: Option<usize>,
    /// What happened.
    pub event: Event,
    /// What the deed is about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subject: String,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Something that happens to a deed, or to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It begins.
    Begun,
    /// It is done.
    Done,
    /// It could not be done, or not be taken back.
    Failed,
    /// It is not done, or no longer.
    TakenBack,
    /// All are done.
    Applied,
    /// None is done.
    Undone,
}

/// How far a deed got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing of it is done, or no longer.
    NotBegun,
    /// It may be done.
    Begun,
    /// It is done.
    Done,
}

/// Why a journal can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The disk.
    #[error("journal {path}: {error}")]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It isn't one.
    #[error("{path} is no journal of unmasq: {why}")]
    Format {
        /// Where.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl Journal {
    /// Makes one, whose first line is on the disk when this returns. Until then there is none of
    /// this name.
    pub fn create(
        path: &Path,
        findings: Vec<String>,
        deeds: Vec<Deed>,
    ) -> Result<Self, JournalError> {
        let error = |error| JournalError::File { path: path.to_owned(), error };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder).map_err(error)?;
        }
        // Named when its first line is whole: killed before, nothing was begun, and nothing is told.
        let unnamed = PathBuf::from(format!("{}.new", path.display()));
        let _ = std::fs::remove_file(&unnamed);
        let file =
            OpenOptions::new().append(true).create_new(true).open(&unnamed).map_err(error)?;
        let head = Head { schema: SCHEMA.to_owned(), findings, deeds };
        let (path_of, file) = (path.to_owned(), Some(file));
        let mut journal =
            Journal { path: path_of, file, length: 0, head, entries: Vec::new(), trouble: None };
        let line = serde_json::to_string(&journal.head).map_err(|e| error(e.into()))?;
        journal.write(&line)?;
        let named = std::fs::hard_link(&unnamed, path);
        std::fs::remove_file(&unnamed).map_err(error)?;
        named.map_err(error)?;
        if let Some(folder) = folder {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(error)?;
        }
        Ok(journal)
    }

    /// Opens one to go on with it. A last line that is cut short is none: what it would have spoken
    /// of had not begun, or is told by what is there.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let error = |error| JournalError::File { path: path.to_owned(), error };
        let format = |why: String| JournalError::Format { path: path.to_owned(), why };
        let text = std::fs::read_to_string(path).map_err(error)?;
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut lines = whole.lines();
        let first = lines.next().ok_or_else(|| format("it has no line".to_owned()))?;
        let head: Head = serde_json::from_str(first).map_err(|e| format(format!("line 1: {e}")))?;
        if head.schema != SCHEMA {
            return Err(format(format!("its schema is {}, not {SCHEMA}", head.schema)));
        }
        let entry = |(number, line)| {
            serde_json::from_str(line).map_err(|e| format(format!("line {number}: {e}")))
        };
        let entries = (2..).zip(lines).map(entry).collect::<Result<_, _>>()?;
        let (length, path) = (whole.len() as u64, path.to_owned());
        let (file, trouble) = match OpenOptions::new().append(true).open(&path) {
            Ok(file) => {
                let cut = if length < text.len() as u64 { file.set_len(length) } else { Ok(()) };
                (Some(file), cut.err().map(error))
            }
            // It says what to take back all the same.
            Err(why) => (None, Some(error(why))),
        };
        Ok(Journal { path, file, length, head, entries, trouble })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is done.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// What happened so far.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How it ended; `None`: it was broken off.
    pub fn ended(&self) -> Option<Event> {
        let last = self.entries.iter().rev().find(|entry| entry.deed.is_none());
        let after = self.entries.last();
        last.filter(|end| Some(*end) == after).map(|entry| entry.event)
    }

    /// How far a deed got.
    pub fn stage(&self, deed: usize) -> Stage {
        let entries = self.entries.iter().filter(|entry| entry.deed == Some(deed));
        entries.fold(Stage::NotBegun, |stage, entry| match entry.event {
            Event::Begun => Stage::Begun,
            Event::Done => Stage::Done,
            Event::TakenBack => Stage::NotBegun,
            Event::Failed | Event::Applied | Event::Undone => stage,
        })
    }

    /// Why something that happened could not be noted.
    pub fn trouble(&self) -> Option<&JournalError> {
        self.trouble.as_ref()
    }

    /// Notes something that has happened anyway; if it can't be written, it is known here.
    pub(crate) fn note_if_possible(&mut self, entry: Entry, told: &mut dyn FnMut(&Entry)) {
        if let Err(why) = self.note(entry.clone(), told) {
            self.trouble.get_or_insert(why);
            told(&entry);
            self.entries.push(entry);
        }
    }

    pub(crate) fn end_if_possible(&mut self, event: Event, told: &mut dyn FnMut(&Entry)) {
        self.note_if_possible(Entry::end(event), told);
    }

    pub(crate) fn note(
        &mut self,
        entry: Entry,
        told: &mut dyn FnMut(&Entry),
    ) -> Result<(), JournalError> {
        let line = serde_json::to_string(&entry)
            .map_err(|error| JournalError::File { path: self.path.clone(), error: error.into() })?;
        self.write(&line)?;
        told(&entry);
        self.entries.push(entry);
        Ok(())
    }

    pub(crate) fn end(
        &mut self,
        event: Event,
        told: &mut dyn FnMut(&Entry),
    ) -> Result<(), JournalError> {
        self.note(Entry::end(event), told)
    }

    /// A line that can't be written as a whole is none.
    fn write(&mut self, line: &str) -> Result<(), JournalError> {
        let line = format!("{line}\n");
        let written = match &mut self.file {
            Some(file) => {
                let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_data());
                if written.is_err() {
                    // A rest of it is passed over by who reads it, if nothing comes behind it.
                    let _ = file.set_len(self.length);
                }
                written
            }
            None => Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem)),
        };
        written.map_err(|error| JournalError::File { path: self.path.clone(), error })?;
        self.length += line.len() as u64;
        Ok(())
    }
}

impl Entry {
    fn end(event: Event) -> Entry {
        Entry { deed: None, event, subject: String::new(), why: None }
    }

    pub(crate) fn of(index: usize, deed: &Deed, event: Event) -> Entry {
        Entry { deed: Some(index), event, subject: deed.subject(), why: None }
    }

    pub(crate) fn failed(index: usize, deed: &Deed, why: &DeedError) -> Entry {
        Entry { why: Some(why.to_string()), ..Entry::of(index, deed, Event::Failed) }
    }
}
