//! Words of commands that a person copies into a shell.
//!
//! Names are a capture's, and a capture may be anybody's: whatever a command takes from one goes
//! through [`quoted`]. No word that comes out of it has a line break in it, so a command is one
//! line, or a document of our own behind `<<`.

/// A word of a command line, in quotes if a shell would read more into it. One with control
/// characters is written as POSIX.1-2024 and bash have it (`$'a\nb'`, section 2.2.4).
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if !word.contains(steers) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let mut text = String::from("$'");
    for letter in word.chars() {
        match letter {
            '\'' | '\\' => text.extend(['\\', letter]),
            '\n' => text.push_str("\\n"),
            other if steers(other) => {
                let mut bytes = [0; 4];
                for byte in other.encode_utf8(&mut bytes).bytes() {
                    text.push_str(&format!("\\{byte:03o}"));
                }
            }
            other => text.push(other),
        }
    }
    text + "'"
}

/// Whether a character steers a terminal instead of being shown: control characters, and those that
/// turn the direction of what follows (UAX #9, 2.1 to 2.6), by which a command reads as another one.
pub fn steers(c: char) -> bool {
    let turns = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c.is_control() || turns
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_the_word_back() {
        for (word, expected) in [
            ("n1", "n1"),
            ("", "''"),
            ("a b", "'a b'"),
            ("x'; touch /tmp/pwn #", r"'x'\''; touch /tmp/pwn #'"),
            ("$(id)`id`\\", "'$(id)`id`\\'"),
            ("a\u{202e}b", r"$'a\342\200\256b'"),
            ("a\nEOF\nb'\\n", r"$'a\nEOF\nb\'\\n'"),
            ("\u{1b}]0;x\u{7}1\u{85}", r"$'\033]0;x\0071\302\205'"),
        ] {
            let text = quoted(word);
            assert_eq!(text, expected);
            assert!(!text.contains(steers), "{text:?}");
            let line = format!("printf %s {text}");
            let read = Command::new("bash").args(["-c", &line]).output().unwrap();
            assert_eq!(String::from_utf8(read.stdout).unwrap(), word);
        }
    }
}
