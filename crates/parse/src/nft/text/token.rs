//! The words of a rule, a set's line or its elements.
//!
//! A word has its dots, slashes, colons and dashes in it (`10.0.0.0/8`, `fd00::1`,
//! `echo-request`), because only its place tells what they mean there; standing alone they are
//! words too (the ` . ` of a concatenation).

/// A word or a sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Word(&'a str),
    /// The text between quotes.
    Quoted(&'a str),
    Sign(&'static str),
    /// A quote without its end, a character that nft does not use.
    Broken,
}

/// Longer ones first.
const SIGNS: [&str; 19] = [
    "==", "!=", "<=", ">=", "<<", ">>", "<", ">", "!", "=", "&", "|", "^", "{", "}", "(", ")", "[",
    "]",
];

/// Reads a text word by word. A copy of it is a place to come back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tokens<'a> {
    text: &'a str,
    /// Where the next word begins, without the space before it.
    at: usize,
    /// Whether there is space before it.
    spaced: bool,
    next: Option<(Token<'a>, usize)>,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Tokens<'a> {
        let mut tokens = Tokens { text, at: 0, spaced: false, next: None };
        tokens.seek(0);
        tokens
    }

    /// What comes next.
    pub(super) fn peek(&self) -> Option<Token<'a>> {
        self.next.map(|(token, _)| token)
    }

    /// Whether there is space before what comes next.
    pub(super) fn spaced(&self) -> bool {
        self.spaced
    }

    /// What is left.
    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    /// What lies between here and a later place in the same text.
    pub(super) fn rest_until(&self, later: &Tokens<'a>) -> &'a str {
        self.text.get(self.at..later.at).unwrap_or("").trim_end()
    }

    /// Takes what comes next.
    pub(super) fn take(&mut self) -> Option<Token<'a>> {
        let (token, end) = self.next?;
        self.seek(end);
        Some(token)
    }

    /// Takes a word.
    pub(super) fn word(&mut self) -> Option<&'a str> {
        match self.peek()? {
            Token::Word(word) => {
                self.take();
                Some(word)
            }
            Token::Quoted(_) | Token::Sign(_) | Token::Broken => None,
        }
    }

    /// Takes a name, quoted or not.
    pub(super) fn name(&mut self) -> Option<&'a str> {
        match self.peek()? {
            Token::Word(name) | Token::Quoted(name) => {
                self.take();
                Some(name)
            }
            Token::Sign(_) | Token::Broken => None,
        }
    }

    /// Takes the word, if it comes next.
    pub(super) fn is(&mut self, word: &str) -> bool {
        let found = self.peek() == Some(Token::Word(word));
        if found {
            self.take();
        }
        found
    }

    /// Takes the sign, if it comes next.
    pub(super) fn sign(&mut self, sign: &'static str) -> bool {
        let found = self.peek() == Some(Token::Sign(sign));
        if found {
            self.take();
        }
        found
    }

    /// Takes a colon at the beginning of a word (`:80`), or a colon that stands alone.
    pub(super) fn colon(&mut self) -> bool {
        let found = matches!(self.peek(), Some(Token::Word(word)) if word.starts_with(':'));
        if found {
            self.part(1);
        }
        found
    }

    /// Takes the beginning of a word, so many bytes of it.
    pub(super) fn part(&mut self, length: usize) {
        self.seek(self.at + length);
    }

    fn seek(&mut self, from: usize) {
        let rest = &self.text[from..];
        let begun = rest.trim_start();
        self.at = from + (rest.len() - begun.len());
        self.spaced = begun.len() < rest.len();
        self.next = lex(begun).map(|(token, length)| (token, self.at + length));
    }
}

fn lex(text: &str) -> Option<(Token<'_>, usize)> {
    let first = *text.as_bytes().first()?;
    if first == b'"' {
        return Some(match text[1..].split_once('"') {
            Some((quoted, _)) => (Token::Quoted(quoted), quoted.len() + 2),
            None => (Token::Broken, text.len()),
        });
    }
    if first == b',' {
        return Some((Token::Sign(","), 1));
    }
    if first == b';' {
        return Some((Token::Sign(";"), 1));
    }
    if let Some(sign) = SIGNS.into_iter().find(|sign| text.starts_with(sign)) {
        return Some((Token::Sign(sign), sign.len()));
    }
    let end = text.find(|c: char| c.is_whitespace() || "\",;=!<>&|^{}()[]".contains(c));
    match &text[..end.unwrap_or(text.len())] {
        "" => Some((Token::Broken, text.len())),
        word => Some((Token::Word(word), word.len())),
    }
}
