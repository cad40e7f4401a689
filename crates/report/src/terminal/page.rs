//! A page of documentation on a terminal, and the index of them.
//!
//! Pages are Markdown, of which this knows what they use: headings, paragraphs, lists, code blocks,
//! `code`, **strong**, <links>. Text is wrapped; code blocks are left as they are, whatever their
//! width, so that commands can be copied and pictures stay whole. Text that isn't such Markdown is
//! printed as a paragraph, never lost.

use unmasq_audit::FindingId;
use unmasq_audit::explain::{Component, Topic};

use super::Style;
use super::paint::{Paint, columns};

/// Lines longer than this are hard to read, however wide the terminal is.
const READABLE: usize = 100;
/// Text stands under its heading, code apart from the text.
const TEXT: &str = "  ";
const CODE: &str = "    ";

/// The page as text, ending with a newline.
pub fn page(markdown: &str, style: &Style) -> String {
    let paint = paint(style);
    let mut text = String::new();
    let mut code = false;
    let mut block: Option<Block> = None;
    for line in markdown.lines() {
        let trimmed = line.trim_start();
        if trimmed.starts_with("```") {
            finish(&mut text, block.take(), &paint);
            code = !code;
        } else if code {
            if !line.is_empty() {
                text.push_str(CODE);
            }
            text.push_str(line);
            text.push('\n');
        } else if trimmed.is_empty() {
            finish(&mut text, block.take(), &paint);
            text.push('\n');
        } else if let Some(heading) = heading(line) {
            finish(&mut text, block.take(), &paint);
            text.push_str(&paint.bold(heading));
            text.push('\n');
        } else if let Some((marker, rest)) = item(trimmed) {
            finish(&mut text, block.take(), &paint);
            let indent = format!("{TEXT}{}", &line[..line.len() - trimmed.len()]);
            block = Some(Block { indent, marker: marker.to_owned(), words: rest.to_owned() });
        } else if let Some(block) = &mut block {
            block.words.push(' ');
            block.words.push_str(trimmed);
        } else {
            let indent = format!("{TEXT}{}", &line[..line.len() - trimmed.len()]);
            block = Some(Block { indent, marker: String::new(), words: trimmed.to_owned() });
        }
    }
    finish(&mut text, block, &paint);
    text
}

/// All pages, a line for each.
pub fn index(style: &Style) -> String {
    let paint = paint(style);
    let wide = Topic::all().map(|topic| columns(topic.name())).max().unwrap_or(0);
    let mut text = String::new();
    let findings = FindingId::ALL.iter().copied().map(Topic::Finding);
    rows(&mut text, "Findings", findings, wide, &paint);
    text.push('\n');
    let components = Component::ALL.iter().copied().map(Topic::Component);
    rows(&mut text, "Components", components, wide, &paint);
    text.push_str("\nMore of each: unmasq explain NAME\n");
    text
}

fn rows(
    text: &mut String,
    heading: &str,
    topics: impl Iterator<Item = Topic>,
    wide: usize,
    paint: &Paint,
) {
    text.push_str(&paint.bold(heading));
    text.push('\n');
    for topic in topics {
        let indent = TEXT.to_owned();
        let marker = format!("{:<wide$}  ", topic.name());
        finish(text, Some(Block { indent, marker, words: topic.title().to_owned() }), paint);
    }
}

fn paint(style: &Style) -> Paint {
    Paint::new(&Style { width: style.width.min(READABLE), ..*style })
}

/// A paragraph or an item of a list.
struct Block {
    indent: String,
    /// What stands before its first line, in the place of blanks.
    marker: String,
    words: String,
}

fn heading(line: &str) -> Option<&str> {
    let text = line.trim_start_matches('#');
    (text.len() < line.len()).then(|| text.strip_prefix(' ')).flatten()
}

/// The marker of a list's item, and the rest.
fn item(line: &str) -> Option<(&str, &str)> {
    let digits = line.len() - line.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let marker = if line.starts_with("- ") {
        2
    } else if digits > 0 && line[digits..].starts_with(". ") {
        digits + 2
    } else {
        return None;
    };
    Some(line.split_at(marker))
}

fn finish(text: &mut String, block: Option<Block>, paint: &Paint) {
    let Some(Block { indent, marker, words }) = block else { return };
    let hanging = " ".repeat(columns(&marker));
    let mut used = columns(&indent) + columns(&marker);
    text.push_str(&indent);
    text.push_str(&marker);
    let start = used;
    for unit in units(&words) {
        let wide =
            unit.iter().map(|(face, word)| columns(&shown(*face, word, paint))).sum::<usize>();
        if used > start && used + 1 + wide > paint.width {
            text.push('\n');
            text.push_str(&indent);
            text.push_str(&hanging);
            used = start;
        } else if used > start {
            text.push(' ');
            used += 1;
        }
        for (face, word) in &unit {
            text.push_str(&painted(*face, word, paint));
        }
        used += wide;
    }
    text.push('\n');
}

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Face {
    Plain,
    Code,
    Strong,
}

/// What is printed of a piece, without colours: code keeps its marks where colours can't show it.
fn shown(face: Face, word: &str, paint: &Paint) -> String {
    match face {
        Face::Code if !paint.colored() => format!("`{word}`"),
        Face::Code | Face::Plain | Face::Strong => word.to_owned(),
    }
}

fn painted(face: Face, word: &str, paint: &Paint) -> String {
    match face {
        Face::Code if !paint.colored() => shown(face, word, paint),
        Face::Code | Face::Strong => paint.bold(word),
        Face::Plain => word.to_owned(),
    }
}

/// The text in units that aren't broken. Code stays whole, with its blanks, and so do signs that
/// touch it.
fn units(text: &str) -> Vec<Vec<(Face, String)>> {
    let mut units = Vec::new();
    let mut unit: Vec<(Face, String)> = Vec::new();
    for (face, span) in spans(text) {
        if face == Face::Code {
            unit.push((face, span));
            continue;
        }
        for (number, word) in span.split(' ').enumerate() {
            if number > 0 && !unit.is_empty() {
                units.push(std::mem::take(&mut unit));
            }
            if !word.is_empty() {
                unit.push((face, word.to_owned()));
            }
        }
    }
    if !unit.is_empty() {
        units.push(unit);
    }
    units
}

/// The text by its marks, which are taken away. A mark without its end is text.
fn spans(text: &str) -> Vec<(Face, String)> {
    const MARKS: [(&str, &str, Face); 4] = [
        ("`", "`", Face::Code),
        ("**", "**", Face::Strong),
        ("*", "*", Face::Strong),
        ("<", ">", Face::Plain),
    ];
    let mut spans: Vec<(Face, String)> = Vec::new();
    let mut rest = text;
    let mut plain = String::new();
    while let Some(first) = rest.chars().next() {
        let marked = MARKS.iter().find_map(|(open, close, face)| {
            let inside = rest.strip_prefix(open)?;
            let end = inside.find(close)?;
            let (inside, after) = (&inside[..end], &inside[end + close.len()..]);
            let link = *open != "<" || inside.starts_with("https://");
            (link && !inside.is_empty() && !inside.starts_with(' '))
                .then_some((*face, inside, after))
        });
        if let Some((face, inside, after)) = marked {
            spans.push((Face::Plain, std::mem::take(&mut plain)));
            spans.push((face, inside.to_owned()));
            rest = after;
        } else {
            plain.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    spans.push((Face::Plain, plain));
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(color: bool, width: usize) -> Style {
        Style { color, verbose: false, width }
    }

    #[test]
    fn a_page_is_headings_text_and_code() {
        let markdown = "\
# A title

Some text that is long enough to be wrapped
at forty columns, with `code` and **more**.

## Fix

- One item, also long enough to be wrapped.
- See <https://example.org/a>.

1. First
   and on.

```sh
a command that is longer than forty columns and stays on its line

    indented
```
";
        let expected = "\
A title

  Some text that is long enough to be
  wrapped at forty columns, with `code`
  and more.

Fix

  - One item, also long enough to be
    wrapped.
  - See https://example.org/a.

  1. First and on.

    a command that is longer than forty columns and stays on its line

        indented
";
        assert_eq!(page(markdown, &style(false, 40)), expected);
    }

    #[test]
    fn colours_take_the_place_of_marks_and_no_columns() {
        assert_eq!(
            page("# T\n\nuse `x` **now**, `a b`\n", &style(true, 40)),
            "\x1b[1mT\x1b[0m\n\n  use \x1b[1mx\x1b[0m \x1b[1mnow\x1b[0m, \x1b[1ma b\x1b[0m\n"
        );
    }

    #[test]
    fn marks_without_an_end_are_text() {
        assert_eq!(page("a * b < c ` d\n", &style(false, 40)), "  a * b < c ` d\n");
        assert_eq!(page("1.30 is no item\n", &style(false, 40)), "  1.30 is no item\n");
    }

    /// What a page says survives: every word of every page is printed.
    #[test]
    fn nothing_of_the_pages_is_lost() {
        for topic in Topic::all() {
            let printed = page(topic.page(), &style(false, 72));
            let letters = |text: &str| -> String {
                text.chars().filter(|c| !c.is_whitespace() && !"`*<>#".contains(*c)).collect()
            };
            let fences: String = topic
                .page()
                .lines()
                .filter(|line| !line.trim_start().starts_with("```"))
                .collect::<Vec<_>>()
                .join("\n");
            assert_eq!(letters(&printed), letters(&fences), "{}", topic.name());
        }
    }

    #[test]
    fn text_keeps_to_the_width() {
        for topic in Topic::all() {
            let mut code = false;
            let prose: Vec<&str> = topic
                .page()
                .lines()
                .filter(|line| {
                    code ^= line.trim_start().starts_with("```");
                    !code && !line.trim_start().starts_with("```")
                })
                .collect();
            for line in page(&prose.join("\n"), &style(false, 72)).lines() {
                let address = line.trim().trim_start_matches("- ").starts_with("https://");
                let fits = columns(line) <= 72 || address;
                assert!(fits, "{}: {line}", topic.name());
            }
        }
    }

    #[test]
    fn the_index_has_a_row_for_each_page() {
        let index = index(&style(false, 80));
        let words = index.split_whitespace().collect::<Vec<_>>().join(" ");
        for topic in Topic::all() {
            let row = format!(" {} {}", topic.name(), topic.title());
            assert!(words.contains(&row), "{row}");
        }
        assert!(index.lines().all(|line| columns(line) <= 80), "{index}");
    }
}
