//! Words of commands that a person copies into a shell.
//!
//! Names are a capture's, and a capture may be anybody's: whatever a command takes from one goes
//! through [`quoted`]. No word that comes out of it has a line break in it, so a command is one
//! line, or a document of our own behind `<<`.

/// A word of a command line, in quotes if a shell would read more into it. One with control
/// characters is what `printf` makes of its octal escapes: `$'a\nb'` is no quote in every shell that
/// is somebody's `sh` (dash, BusyBox of old), and an apostrophe in it would end the word there.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    if !word.contains(steers) {
        return format!("'{}'", word.replace('\'', "'\\''"));
    }
    let mut text = String::from("\"$(printf '");
    for (index, letter) in word.chars().enumerate() {
        match letter {
            '%' => text.push_str("%%"),
            '\\' => text.push_str("\\\\"),
            // No word of a command can have it.
            '\0' => text.push(char::REPLACEMENT_CHARACTER),
            // An interactive bash looks for `!` in double quotes; printf would take options.
            '\'' | '!' => octal(letter, &mut text),
            '-' if index == 0 => octal(letter, &mut text),
            other if steers(other) => octal(other, &mut text),
            other => text.push(other),
        }
    }
    // A shell takes line breaks at the end away, and the word would be another's name.
    if word.ends_with('\n') {
        text.push(' ');
    }
    text + "')\""
}

fn octal(letter: char, text: &mut String) {
    let mut bytes = [0; 4];
    for byte in letter.encode_utf8(&mut bytes).bytes() {
        text.push_str(&format!("\\{byte:03o}"));
    }
}

/// A word that is no option, after all options: behind `--` if it looks like one.
pub fn operand(word: &str) -> String {
    let dashes = if word.starts_with('-') { "-- " } else { "" };
    format!("{dashes}{}", quoted(word))
}

/// An option of Unmasq with its value, which may look like an option too.
pub fn option(name: &str, value: &str) -> String {
    let between = if value.starts_with('-') { '=' } else { ' ' };
    format!("{name}{between}{}", quoted(value))
}

/// The path of a file, which is no option.
pub fn file(path: &str) -> String {
    let here = if path.starts_with('-') { "./" } else { "" };
    quoted(&format!("{here}{path}"))
}

/// An object as kubectl takes it in one word: a name alone might look like an option.
pub fn object(resource: &str, name: &str) -> String {
    quoted(&format!("{resource}/{name}"))
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
            ("a\u{202e}b", r#""$(printf 'a\342\200\256b')""#),
            ("a\nEOF\nb'\\n%s!", r#""$(printf 'a\012EOF\012b\047\\n%%s\041')""#),
            ("-n\t$(id)`id`\"", r#""$(printf '\055n\011$(id)`id`"')""#),
            ("\u{1b}]0;x\u{7}1\u{85}", r#""$(printf '\033]0;x\0071\302\205')""#),
        ] {
            let text = quoted(word);
            assert_eq!(text, expected);
            assert!(!text.contains(steers), "{text:?}");
            let line = format!("printf %s {text}");
            for shell in ["sh", "dash", "bash"] {
                let read = Command::new(shell).args(["-c", &line]).output().unwrap();
                assert_eq!(String::from_utf8(read.stdout).unwrap(), word, "{shell}");
            }
        }
    }

    /// Not the name of somebody else, who has none.
    #[test]
    fn a_line_break_at_the_end_stays_one() {
        assert_eq!(quoted("web\n"), r#""$(printf 'web\012 ')""#);
        assert_eq!(quoted("a\0\n"), "\"$(printf 'a\u{fffd}\\012 ')\"");
    }

    #[test]
    fn what_looks_like_an_option_is_none() {
        assert_eq!((operand("n1"), operand("-n1")), ("n1".to_owned(), "-- -n1".to_owned()));
        assert_eq!(option("--via", "n1"), "--via n1");
        assert_eq!(option("--via", "-n 1"), "--via='-n 1'");
        assert_eq!((file("a/b"), file("-a b")), ("a/b".to_owned(), "'./-a b'".to_owned()));
        assert_eq!(object("service", "-web"), "service/-web");
    }
}
