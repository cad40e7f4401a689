//! Where in a scenario's text something stands: paths of fields, and their lines.
//!
//! The text is read once more for this, after something was found not to fit.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// Something that doesn't fit, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Misfit {
    /// From the beginning of the document.
    pub(super) path: Path,
    /// What is wrong, and what was expected.
    pub(super) what: String,
}

impl Misfit {
    pub(super) fn new(path: Path, what: impl fmt::Display) -> Misfit {
        Misfit { path, what: what.to_string() }
    }
}

/// A field's place: `remedy[0].change.programs`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Path(Vec<Segment>);

/// A step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Segment {
    /// A field of a map.
    Key(String),
    /// An item of a list, from 0.
    Index(usize),
}

impl From<&str> for Segment {
    fn from(key: &str) -> Self {
        Segment::Key(key.to_owned())
    }
}

impl FromIterator<Segment> for Path {
    fn from_iter<I: IntoIterator<Item = Segment>>(segments: I) -> Self {
        Path(segments.into_iter().collect())
    }
}

impl From<&serde_path_to_error::Path> for Path {
    fn from(path: &serde_path_to_error::Path) -> Self {
        use serde_path_to_error::Segment as Theirs;
        let segment = |segment: &Theirs| match segment {
            Theirs::Seq { index } => Some(Segment::Index(*index)),
            Theirs::Map { key } => Some(Segment::Key(key.clone())),
            // Not in the text.
            Theirs::Enum { .. } | Theirs::Unknown => None,
        };
        path.iter().filter_map(segment).collect()
    }
}

impl Path {
    pub(super) fn join(mut self, below: &Path) -> Path {
        self.0.extend(below.0.iter().cloned());
        self
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if number == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The lines of a text's values.
pub(super) struct Lines(Spanned<Tree>);

impl Lines {
    /// `None`: it can't be read.
    pub(super) fn of(text: &str) -> Option<Lines> {
        serde_saphyr::from_str(text).ok().map(Lines)
    }

    /// The line of what is at a path, or of the last on the way there that is in the text, such as
    /// the map in which a field is missing.
    pub(super) fn line(&self, path: &Path) -> Option<u64> {
        let mut at = &self.0;
        for segment in &path.0 {
            let next = match (segment, &at.value) {
                (Segment::Key(key), Tree::Map(fields)) => fields.get(key),
                (Segment::Index(index), Tree::List(items)) => items.get(*index),
                (
                    Segment::Key(_) | Segment::Index(_),
                    Tree::Map(_) | Tree::List(_) | Tree::Leaf,
                ) => None,
            };
            let Some(next) = next else { break };
            at = next;
        }
        Some(at.referenced.line()).filter(|line| *line > 0)
    }
}

/// A document without its scalars.
enum Tree {
    Map(BTreeMap<String, Spanned<Tree>>),
    List(Vec<Spanned<Tree>>),
    Leaf,
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Whole)
    }
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Tree;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((key, value)) = map.next_entry()? {
            fields.insert(key, value);
        }
        Ok(Tree::Map(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Tree, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Tree::List(items))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_str<E>(self, _: &str) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }

    fn visit_unit<E>(self) -> Result<Tree, E> {
        Ok(Tree::Leaf)
    }
}
