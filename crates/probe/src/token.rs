//! What a request carries, so that its answer can be told from others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

static TOKENS: AtomicU64 = AtomicU64::new(0);

/// A payload that nobody else sends.
pub fn token() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let number = TOKENS.fetch_add(1, Ordering::Relaxed);
    format!("{}{:x}-{number}", mark(), now.as_nanos())
}

/// Whether it is a token of this process.
pub fn is_own(text: &str) -> bool {
    text.starts_with(&mark())
}

fn mark() -> String {
    format!("unmasq-{}-", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_told_from_each_other_and_from_those_of_other_processes() {
        let (one, other) = (token(), token());
        assert_ne!(one, other);
        assert!(is_own(&one) && is_own(&other));
        assert!(!is_own(&format!("unmasq-{}-1-1", std::process::id() + 1)));
    }
}
