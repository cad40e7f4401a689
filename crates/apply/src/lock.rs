//! One at a time on a journal, and on the folder that it is in: a container may have the host's
//! network and journals, and another `/run`, where the host's own lock is.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

/// Locks that are held as long as it lives, and no longer than its process.
#[derive(Debug)]
pub struct Lock {
    held: Vec<File>,
}

/// Why a lock can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another has it.
    #[error("another unmasq fix is at work here, and holds {path}: wait until it has ended")]
    Held {
        /// What is locked.
        path: PathBuf,
    },
    /// It can't be locked.
    #[error("{path} can't be locked, so another could be at work at the same time: {error}")]
    File {
        /// What.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Lock {
    /// That of a journal or its folder.
    pub fn of(path: &Path) -> Result<Lock, LockError> {
        let mut lock = Lock { held: Vec::new() };
        lock.and(path)?;
        Ok(lock)
    }

    /// Another one too.
    pub fn and(&mut self, path: &Path) -> Result<(), LockError> {
        let error = |error| LockError::File { path: path.to_owned(), error };
        let file = File::open(path).map_err(error)?;
        match file.try_lock() {
            Ok(()) => self.held.push(file),
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { path: path.to_owned() });
            }
            Err(TryLockError::Error(why)) => return Err(error(why)),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_is_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("j");
        std::fs::write(&path, "").unwrap();
        let first = Lock::of(&path).unwrap();
        let refused = Lock::of(&path).unwrap_err().to_string();
        assert!(refused.starts_with("another unmasq fix is at work here"), "{refused}");
        drop(first);
        Lock::of(&path).unwrap();
    }
}
