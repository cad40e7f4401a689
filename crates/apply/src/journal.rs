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
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use unmasq_fix::deed::Deed;

use crate::DeedError;
use crate::local::{folder_of, sync};

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
    /// Whether a line behind those was cut short.
    is_cut_short: bool,
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
        Journal::make_folder(path)?;
        // Named when its first line is whole: killed before, nothing was begun, and nothing is told.
        let unnamed = PathBuf::from(format!("{}.new", path.display()));
        let _ = std::fs::remove_file(&unnamed);
        // It has files' texts, which are not for everybody.
        let mut options = OpenOptions::new();
        options.append(true).create_new(true).mode(0o600);
        let file = options.open(&unnamed).map_err(error)?;
        let head = Head { schema: SCHEMA.to_owned(), findings, deeds };
        let mut journal = Journal {
            path: path.to_owned(),
            file: Some(file),
            length: 0,
            is_cut_short: false,
            head,
            entries: Vec::new(),
            trouble: None,
        };
        let line = serde_json::to_string(&journal.head).map_err(|e| error(e.into()))?;
        journal.write(&line)?;
        let named = std::fs::hard_link(&unnamed, path);
        std::fs::remove_file(&unnamed).map_err(error)?;
        named.map_err(error)?;
        sync(folder_of(path)).map_err(error)?;
        Ok(journal)
    }

    /// Makes the folder that a journal is to be in, and those it is in.
    pub fn make_folder(path: &Path) -> Result<&Path, JournalError> {
        let folder = folder_of(path);
        let error = |error| JournalError::File { path: folder.to_owned(), error };
        make_folder(folder).map_err(error)?;
        Ok(folder)
    }

    /// The folder that it is in.
    pub fn folder(path: &Path) -> &Path {
        folder_of(path)
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
        let is_cut_short = length < text.len() as u64;
        let (file, trouble) = match OpenOptions::new().append(true).open(&path) {
            Ok(file) => (Some(file), None),
            // It says what to take back all the same.
            Err(why) => (None, Some(error(why))),
        };
        Ok(Journal { path, file, length, is_cut_short, head, entries, trouble })
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

    fn write(&mut self, line: &str) -> Result<(), JournalError> {
        let line = format!("{line}\n");
        let written = self.append(&line);
        written.map_err(|error| JournalError::File { path: self.path.clone(), error })?;
        self.length += line.len() as u64;
        Ok(())
    }

    /// A line that can't be written as a whole is none: its rest goes before the next one comes.
    fn append(&mut self, line: &str) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem));
        };
        if self.is_cut_short {
            file.set_len(self.length)?;
        }
        self.is_cut_short = true;
        file.write_all(line.as_bytes())?;
        file.sync_data()?;
        self.is_cut_short = false;
        Ok(())
    }
}

/// Makes a folder, and those it is in, so that they are on the disk when this returns.
fn make_folder(folder: &Path) -> io::Result<()> {
    let missing = folder.ancestors().take_while(|one| !one.as_os_str().is_empty() && !one.exists());
    let missing: Vec<&Path> = missing.collect();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    missing.into_iter().try_for_each(|made| sync(folder_of(made)))
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
