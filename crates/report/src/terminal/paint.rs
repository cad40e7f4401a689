//! Colour, width, and text from captures made safe to print.

use super::Style;
use unmasq_audit::steers;

/// A colour with a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Colour {
    /// The source is lost, or the packet.
    Red,
    /// Not known, or the cause of something.
    Yellow,
    /// The source is kept.
    Green,
}

/// How lines are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paint {
    color: bool,
    /// Nothing is cut.
    pub(super) verbose: bool,
    /// Columns.
    pub(super) width: usize,
}

impl Paint {
    pub(super) fn new(style: &Style) -> Paint {
        Paint { color: style.color, verbose: style.verbose, width: style.width.max(40) }
    }

    /// Whether colours can show anything.
    pub(super) fn colored(&self) -> bool {
        self.color
    }

    /// Bold, in a colour.
    pub(super) fn colour(&self, colour: Colour, text: &str) -> String {
        self.sgr(
            match colour {
                Colour::Red => "1;31",
                Colour::Yellow => "1;33",
                Colour::Green => "1;32",
            },
            text,
        )
    }

    /// Bold.
    pub(super) fn bold(&self, text: &str) -> String {
        self.sgr("1", text)
    }

    /// Faint.
    pub(super) fn dim(&self, text: &str) -> String {
        self.sgr("2", text)
    }

    /// Faint, line by line, so that an indent isn't painted.
    pub(super) fn dim_lines(&self, lines: &str) -> String {
        let mut text = String::new();
        for line in lines.lines() {
            let start = line.len() - line.trim_start().len();
            text.push_str(&line[..start]);
            text.push_str(&self.dim(&line[start..]));
            text.push('\n');
        }
        text
    }

    fn sgr(&self, code: &str, text: &str) -> String {
        if self.color && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// Adds a paragraph: lines after the first are indented by two more.
    pub(super) fn wrap(&self, text: &mut String, indent: &str, paragraph: &str) {
        text.push_str(&self.wrapped(indent, paragraph));
    }

    /// A paragraph, broken at blanks; a word that is too long keeps its line.
    pub(super) fn wrapped(&self, indent: &str, paragraph: &str) -> String {
        self.wrapped_from(indent, 2, paragraph)
    }

    /// The same, with lines after the first indented by so many columns more.
    pub(super) fn wrapped_from(&self, indent: &str, hanging: usize, paragraph: &str) -> String {
        let text = paragraph.trim_start();
        let leading = &paragraph[..paragraph.len() - text.len()];
        let rest = format!("{indent}{}", " ".repeat(hanging));
        self.hanging(&format!("{indent}{leading}"), &rest, text)
    }

    /// The same, behind one text in its first line, and behind another in those that follow.
    pub(super) fn hanging(&self, first: &str, rest: &str, paragraph: &str) -> String {
        let mut lines = first.to_owned();
        let mut used = columns(first);
        for (number, word) in paragraph.split(' ').enumerate() {
            let wide = columns(word);
            if number > 0 && used + 1 + wide > self.width {
                lines.push('\n');
                lines.push_str(rest);
                used = columns(rest);
            } else if number > 0 {
                lines.push(' ');
                used += 1;
            }
            lines.push_str(word);
            used += wide;
        }
        lines.push('\n');
        lines
    }

    /// The text, cut to so many columns unless everything was asked for.
    pub(super) fn cut(&self, text: &str, columns: usize) -> String {
        if self.verbose { text.to_owned() } else { cut(text, columns) }
    }

    /// The text in one line beside something as wide as `taken`, whatever was asked for: what
    /// doesn't fit is left out from a word on.
    pub(super) fn line(&self, text: &str, taken: usize) -> String {
        cut_at_word(text, self.width.saturating_sub(taken))
    }

    /// A paragraph in two lines at most, broken and ended between words.
    pub(super) fn brief(&self, indent: &str, paragraph: &str) -> String {
        let whole = self.wrapped(indent, paragraph);
        let mut lines = whole.lines();
        match (lines.next(), lines.next(), lines.next()) {
            (Some(first), Some(second), Some(_)) => {
                format!("{first}\n{}\n", cut_at_word(&format!("{second}…"), self.width))
            }
            _ => whole,
        }
    }
}

fn cut(text: &str, columns: usize) -> String {
    if self::columns(text) <= columns {
        return text.to_owned();
    }
    let kept: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{}…", kept.trim_end())
}

/// As many whole words as fit, and `…` if some don't.
fn cut_at_word(text: &str, columns: usize) -> String {
    if self::columns(text) <= columns {
        return text.to_owned();
    }
    let room: String = text.chars().take(columns.saturating_sub(1)).collect();
    let kept = room.rfind(' ').map_or(&*room, |end| &room[..end]);
    format!("{}…", kept.trim_end_matches([' ', ',', ';', ':', '…']).trim_end())
}

/// Columns that a text takes; colours take none.
pub(super) fn columns(text: &str) -> usize {
    let mut parts = text.split("\x1b[");
    let plain = parts.next().unwrap_or_default().chars().count();
    let behind = |part: &str| part.split_once('m').map_or(part, |(_, rest)| rest).chars().count();
    plain + parts.map(behind).sum::<usize>()
}

/// Text of a capture, without the characters that steer a terminal.
pub fn clean(text: &str) -> String {
    text.replace('\n', "; ").replace(steers, "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn nothing_of_a_capture_steers_a_terminal() {
        for (text, expected) in [
            ("pool-1", "pool-1"),
            ("größe", "größe"),
            ("a\nb", "a; b"),
            ("\u{1b}[31m\u{7}\u{9b}", "\u{fffd}[31m\u{fffd}\u{fffd}"),
            ("a\u{202e}txt.exe\u{2069}\u{200f}", "a\u{fffd}txt.exe\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(clean(text), expected);
        }
    }
}
