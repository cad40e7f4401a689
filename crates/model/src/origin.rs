//! Where a thing was read: file, line, and, for nftables, the kernel's handle.

use std::fmt;

/// Index of a file in [`crate::host::Host::files`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId(pub u16);

/// A position in a captured file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file.
    pub file: FileId,
    /// Line, counted from 1. `nft -j` writes one line, so there the handle tells more.
    pub line: u32,
    /// The kernel's handle, where the listing has one.
    pub handle: Option<u64>,
}

impl Origin {
    /// A position without a handle.
    pub const fn new(file: FileId, line: u32) -> Self {
        Origin { file, line, handle: None }
    }
}

/// Something that is kept but not understood: it makes an answer unknown where it could matter.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Opaque {
    /// The text as it was read, or the part of it that is not understood.
    pub text: Box<str>,
}

impl Opaque {
    /// Keeps `text`.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Opaque { text: text.into() }
    }
}

impl fmt::Display for Opaque {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A line that could not be read as what it should be. It costs that line, never the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong, a lower-case fragment.
    pub message: String,
}
