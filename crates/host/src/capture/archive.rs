//! Captures as archives.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use tar::{Archive, Builder, EntryType, Header};
use tempfile::NamedTempFile;

use super::{Error, Files, io_error, parent, relative};

/// The folder that everything in an archive is in.
const FOLDER: &str = "capture";

/// How a tar archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Not at all.
    Tar,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

impl Format {
    /// The format for a name; `None` for a name that is none of an archive.
    pub(super) fn by_name(path: &Path) -> Result<Option<Format>, Error> {
        const OTHERS: [&str; 10] =
            [".gz", ".zst", ".zip", ".xz", ".txz", ".bz2", ".tbz2", ".7z", ".lz4", ".br"];
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
        if ends(&[".tar"]) {
            Ok(Some(Format::Tar))
        } else if ends(&[".tar.gz", ".tgz"]) {
            Ok(Some(Format::Gzip))
        } else if ends(&[".tar.zst", ".tzst"]) {
            Ok(Some(Format::Zstd))
        } else if ends(&OTHERS) {
            Err(Error::UnknownArchive(path.into()))
        } else {
            Ok(None)
        }
    }

    /// The format of a file that begins so.
    fn by_content(beginning: &[u8]) -> Option<Format> {
        if beginning.starts_with(&[0x1f, 0x8b]) {
            Some(Format::Gzip)
        } else if beginning.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Some(Format::Zstd)
        } else if beginning.get(257..262) == Some(b"ustar") {
            Some(Format::Tar)
        } else {
            None
        }
    }
}

/// Reads all regular files of the archive.
pub(super) fn read(found: &mut Files<'_>) -> Result<(), Error> {
    let root = found.root;
    let mut file = File::open(root).map_err(io_error("open", root))?;
    let mut beginning = Vec::new();
    (&file).take(512).read_to_end(&mut beginning).map_err(io_error("read", root))?;
    file.seek(SeekFrom::Start(0)).map_err(io_error("read", root))?;
    let file = BufReader::new(file);
    match Format::by_content(&beginning) {
        None => Err(Error::NoArchive(root.into())),
        Some(Format::Tar) => unpack(found, file),
        Some(Format::Gzip) => unpack(found, MultiGzDecoder::new(file)),
        Some(Format::Zstd) => {
            let decoder = zstd::Decoder::with_buffer(file).map_err(io_error("read", root))?;
            unpack(found, decoder)
        }
    }
}

/// Whether an archive can be written there; nothing is left behind.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    if path.is_dir() {
        return Err(io_error("write", path)(io::ErrorKind::IsADirectory.into()));
    }
    temporary(path).map(drop)
}

/// Writes an archive beside its place and moves it there.
pub(super) fn write(
    path: &Path,
    format: Format,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<(), Error> {
    let mut file = temporary(path)?;
    let buffer = BufWriter::new(file.as_file_mut());
    let packed = match format {
        Format::Tar => pack(buffer, files).and_then(|mut buffer| buffer.flush()),
        Format::Gzip => pack(GzEncoder::new(buffer, flate2::Compression::default()), files)
            .and_then(|encoder| encoder.finish()?.flush()),
        Format::Zstd => zstd::Encoder::new(buffer, 0)
            .and_then(|encoder| pack(encoder, files))
            .and_then(|encoder| encoder.finish()?.flush()),
    };
    packed.map_err(io_error("write", path))?;
    file.persist(path).map_err(|error| io_error("write", path)(error.error))?;
    Ok(())
}

/// A file beside the archive's place, which is removed unless it is moved there.
fn temporary(path: &Path) -> Result<NamedTempFile, Error> {
    NamedTempFile::new_in(parent(path)).map_err(io_error("write", path))
}

fn unpack(found: &mut Files<'_>, reader: impl Read) -> Result<(), Error> {
    // Headers, padding and names come on top of the files; whatever claims more is cut off.
    let bound = found.limits.total.saturating_mul(2).saturating_add(1 << 20);
    let mut archive = Archive::new(reader.take(bound));
    let root = found.root;
    for entry in archive.entries().map_err(io_error("read", root))? {
        let entry = entry.map_err(io_error("read", root))?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {}
            _ => continue,
        }
        let path = entry.path().map_err(io_error("read", root))?.into_owned();
        let name = relative(&path).ok_or_else(|| Error::Traversal {
            archive: root.into(),
            path: path.display().to_string(),
        })?;
        found.add(name, entry)?;
    }
    Ok(())
}

fn pack<W: Write>(writer: W, files: &BTreeMap<String, Vec<u8>>) -> io::Result<W> {
    let mut archive = Builder::new(writer);
    for (name, content) in files {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), content.as_slice())?;
    }
    archive.into_inner()
}
