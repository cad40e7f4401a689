//! nftables sets and maps, named and anonymous.

use std::collections::BTreeMap;

use crate::expr::Value;
use crate::origin::{Opaque, Origin};
use crate::rule::Verdict;
use crate::ruleset::ChainId;

/// Index of a set in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SetId(pub u32);

/// A set or a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Name; `None` for an anonymous one.
    pub name: Option<Box<str>>,
    /// What it holds.
    pub elements: Elements,
    /// Whether rules or timeouts change it while packets pass: a lookup then depends on state.
    pub dynamic: bool,
    /// What of it is not understood, if something is: then a miss is unknown.
    pub opaque: Option<Opaque>,
    /// How many elements it takes.
    pub size: Option<u32>,
    /// Where it is declared.
    pub origin: Origin,
}

impl Set {
    /// Whether it takes no element that it doesn't have yet.
    pub fn is_full(&self) -> bool {
        self.size.is_some_and(|size| self.elements.len() >= size as usize)
    }
}

/// What a map has for a key; a set has [`Data::Nothing`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// The element of a set.
    Nothing,
    /// A value.
    Value(Value),
    /// A verdict.
    Verdict(Verdict),
    /// Data that is not understood.
    Opaque(Opaque),
}

/// The elements of a set: single keys, and boxes of intervals (one interval for each field).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Elements {
    exact: BTreeMap<Value, Data>,
    /// Intervals of single-field sets by their lower bound. The kernel keeps them disjoint
    /// (nft refuses conflicting intervals), so the one that begins last before a key is the only
    /// one that can hold it.
    intervals: BTreeMap<u128, (u128, Data)>,
    boxes: Vec<(Box<[Interval]>, Data)>,
    names: Vec<(Box<str>, Data)>,
    default: Option<Data>,
}

/// An interval with both ends in, or a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interval {
    /// Numbers from the first to the second.
    Numbers(u128, u128),
    /// Exactly this name.
    Name(Box<str>),
}

/// A field of a key, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// This value.
    Is(Value),
    /// A number of this range, both ends in.
    Within(u128, u128),
    /// Anything.
    Any,
}

impl Part {
    fn may_be(&self, value: &Value) -> bool {
        match (self, value) {
            (Part::Is(known), value) => known == value,
            (Part::Within(low, high), Value::Number(n)) => low <= n && n <= high,
            (Part::Within(..), Value::Name(_) | Value::Tuple(_)) => false,
            (Part::Any, _) => true,
        }
    }

    fn may_be_in(&self, interval: &Interval) -> bool {
        match (self, interval) {
            (Part::Is(known), interval) => interval.holds(known),
            (Part::Within(low, high), Interval::Numbers(from, to)) => low <= to && from <= high,
            (Part::Within(..), Interval::Name(_)) => false,
            (Part::Any, _) => true,
        }
    }
}

impl Interval {
    fn holds(&self, value: &Value) -> bool {
        match (self, value) {
            (Interval::Numbers(low, high), Value::Number(n)) => low <= n && n <= high,
            (Interval::Name(name), Value::Name(other)) => name == other,
            (Interval::Numbers(..), Value::Name(_) | Value::Tuple(_))
            | (Interval::Name(_), Value::Number(_) | Value::Tuple(_)) => false,
        }
    }
}

impl Elements {
    /// Adds a single key.
    pub fn insert(&mut self, key: Value, data: Data) {
        self.exact.insert(key, data);
    }

    /// Adds an interval of a single-field set, both ends in.
    pub fn insert_interval(&mut self, low: u128, high: u128, data: Data) {
        self.intervals.insert(low, (high, data));
    }

    /// Adds an element of a concatenation of which some field is an interval.
    pub fn insert_box(&mut self, fields: Box<[Interval]>, data: Data) {
        self.boxes.push((fields, data));
    }

    /// Adds all names that begin with `prefix` (`"eth*"`).
    pub fn insert_prefix(&mut self, prefix: Box<str>, data: Data) {
        self.names.push((prefix, data));
    }

    /// Sets the data of every key that has no element (`*` in a map).
    pub fn set_default(&mut self, data: Data) {
        self.default = Some(data);
    }

    /// What the set has for `key`.
    pub fn get(&self, key: &Value) -> Option<&Data> {
        if let Some(data) = self.exact.get(key) {
            return Some(data);
        }
        let found = match key {
            Value::Number(n) => self
                .intervals
                .range(..=*n)
                .next_back()
                .filter(|(_, (high, _))| n <= high)
                .map(|(_, (_, data))| data),
            Value::Name(name) => self
                .names
                .iter()
                .find(|(prefix, _)| name.starts_with(&**prefix))
                .map(|(_, data)| data),
            Value::Tuple(fields) => self
                .boxes
                .iter()
                .find(|(intervals, _)| {
                    intervals.len() == fields.len()
                        && intervals.iter().zip(fields).all(|(interval, f)| interval.holds(f))
                })
                .map(|(_, data)| data),
        };
        found.or(self.default.as_ref())
    }

    /// Whether a number of which only the range is known is among the keys of a single-field set:
    /// `None` where some numbers of the range are and others are not.
    pub fn holds_range(&self, low: u128, high: u128) -> Option<bool> {
        if self.default.is_some() {
            return Some(true);
        }
        let inside = |(from, (to, _)): (&u128, &(u128, Data))| *from <= low && high <= *to;
        if self.intervals.range(..=low).next_back().is_some_and(inside) {
            return Some(true);
        }
        let overlaps =
            self.intervals.range(..=high).next_back().is_some_and(|(_, (to, _))| low <= *to)
                || self.exact.range(Value::Number(low)..=Value::Number(high)).next().is_some();
        if overlaps { None } else { Some(false) }
    }

    /// Whether some tuple agrees with a key of which some fields are not known.
    pub fn may_hold(&self, key: &[Part]) -> bool {
        let agrees = |fields: &[Value]| {
            fields.len() == key.len()
                && fields.iter().zip(key).all(|(field, part)| part.may_be(field))
        };
        self.default.is_some()
            || self.exact.keys().any(|element| match element {
                Value::Tuple(fields) => agrees(fields),
                Value::Number(_) | Value::Name(_) => false,
            })
            || self.boxes.iter().any(|(intervals, _)| {
                intervals.len() == key.len()
                    && intervals.iter().zip(key).all(|(interval, part)| part.may_be_in(interval))
            })
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.exact.len()
            + self.intervals.len()
            + self.boxes.len()
            + self.names.len()
            + usize::from(self.default.is_some())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// These elements with what differs between two other states of the set carried over: single
    /// keys that `after` has no more are gone, those that it has anew or with other data are in.
    /// `None`: they differ in more than single keys, or a key that would go isn't there as it was.
    pub fn carried_over(&self, before: &Elements, after: &Elements) -> Option<Elements> {
        let single = |all: &Elements| Elements { exact: BTreeMap::new(), ..all.clone() };
        if single(before) != single(after) {
            return None;
        }
        let mut carried = self.clone();
        for (key, data) in &before.exact {
            if after.exact.get(key) != Some(data)
                && carried.exact.remove(key).as_ref() != Some(data)
            {
                return None;
            }
        }
        for (key, data) in &after.exact {
            if before.exact.get(key) != Some(data) {
                carried.exact.insert(key.clone(), data.clone());
            }
        }
        Some(carried)
    }

    /// The same elements with every chain that data jump to under another number.
    pub fn renumbered(mut self, chain: &mut dyn FnMut(ChainId) -> ChainId) -> Elements {
        let exact = self.exact.values_mut();
        let all = exact
            .chain(self.intervals.values_mut().map(|(_, data)| data))
            .chain(self.boxes.iter_mut().map(|(_, data)| data))
            .chain(self.names.iter_mut().map(|(_, data)| data))
            .chain(&mut self.default);
        for data in all {
            match data {
                Data::Verdict(verdict) => *verdict = verdict.renumbered(chain),
                Data::Nothing | Data::Value(_) | Data::Opaque(_) => {}
            }
        }
        self
    }

    /// The numbers of a field of all keys, each as a range with both ends in. Keys that are no
    /// tuple have one field.
    pub fn ranges(&self, field: usize) -> impl Iterator<Item = (u128, u128)> + '_ {
        let exact = self.exact.keys().filter_map(move |key| {
            let value = match key {
                Value::Tuple(fields) => fields.get(field)?,
                Value::Number(_) | Value::Name(_) => Some(key).filter(|_| field == 0)?,
            };
            value.as_number().map(|number| (number, number))
        });
        let intervals = self.intervals.iter().filter(move |_| field == 0);
        let boxes = self.boxes.iter().filter_map(move |(fields, _)| match fields.get(field)? {
            Interval::Numbers(low, high) => Some((*low, *high)),
            Interval::Name(_) => None,
        });
        exact.chain(intervals.map(|(low, (high, _))| (*low, *high))).chain(boxes)
    }

    /// The data of all elements.
    pub fn data(&self) -> impl Iterator<Item = &Data> {
        self.exact
            .values()
            .chain(self.intervals.values().map(|(_, data)| data))
            .chain(self.boxes.iter().map(|(_, data)| data))
            .chain(self.names.iter().map(|(_, data)| data))
            .chain(&self.default)
    }
}
