//! Sets and maps: their types and their elements.

use unmasq_model::expr::Value;
use unmasq_model::origin::{Opaque, Origin};
use unmasq_model::rule::Verdict;
use unmasq_model::set::{Data, Elements, Interval, Set};

use super::expr::Lowerer;
use super::json::{Node, SetObject};
use super::kind::{self, Kind};
use super::render;
use super::scope::Scope;

/// What a set holds.
#[derive(Debug, Clone)]
pub(super) struct SetType {
    /// The kinds of the key's fields.
    pub(super) keys: Vec<Kind>,
    pub(super) data: DataType,
    /// Because of what a lookup or an update that finds its element may break all the same: the
    /// first limit, quota or count that each element has, as it is written.
    pub(super) limits: Option<Box<str>>,
}

/// What a map has for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DataType {
    /// It is a set.
    Nothing,
    /// A named object (counter, limit …).
    Object,
    Verdict,
    /// One value, or the fields of a concatenation. Elements may have fewer: `dnat to` takes an
    /// address, or an address and a port.
    Values(Vec<Kind>),
}

/// Declares a set without its elements.
pub(super) fn declare(scope: &mut Scope, object: &SetObject<'_>, origin: Origin) {
    let keys = kinds(scope, origin, &object.kind);
    let data = match &object.map {
        Node::Null => DataType::Nothing,
        Node::Text(text) if text == "verdict" => DataType::Verdict,
        Node::Text(text) if is_object_type(text) => DataType::Object,
        node @ (Node::Bool(_)
        | Node::Number(_)
        | Node::Text(_)
        | Node::List(_)
        | Node::Object(_)) => DataType::Values(kinds(scope, origin, node)),
    };
    let family = scope.table.family;
    let limits = object.stmt.one_or_more().iter().find(|statement| limits(statement));
    let limits = limits.map(|statement| render::statement(family, statement).into());
    let flagged = object
        .flags
        .one_or_more()
        .iter()
        .any(|flag| matches!(flag.text(), Some("dynamic" | "timeout")));
    let opaque = keys
        .contains(&Kind::Opaque)
        .then(|| Opaque::new(format!("type {}", render::set_type(&object.kind))));
    let set = Set {
        name: Some(object.name.as_ref().into()),
        elements: Elements::default(),
        dynamic: flagged || limits.is_some() || object.timeout != Node::Null,
        opaque,
        size: object.size.number(),
        origin,
    };
    scope.add_set(set, SetType { keys, data, limits });
}

/// Whether a stateful statement of an element can break a rule. Anything unknown can.
pub(super) fn limits(statement: &Node<'_>) -> bool {
    !matches!(statement.single(), Some(("counter" | "last", _)))
}

impl SetType {
    /// Adds an element.
    pub(super) fn insert(
        &self,
        set: &mut Set,
        element: &Node<'_>,
        verdict: &dyn Fn(&Node<'_>) -> Option<Verdict>,
    ) {
        let (key, data) = match (&self.data, element) {
            (DataType::Nothing, _) => (element, None),
            (DataType::Object | DataType::Verdict | DataType::Values(_), Node::List(pair)) => {
                match pair.as_slice() {
                    [key, data] => (key, Some(data)),
                    _ => return keep(set, element),
                }
            }
            (DataType::Object | DataType::Verdict | DataType::Values(_), _) => {
                return keep(set, element);
            }
        };
        let key = match key.single() {
            Some(("elem", body)) => {
                set.dynamic |= body.members().iter().any(|(name, _)| depends_on_state(name));
                body.get("val").unwrap_or(key)
            }
            Some(_) | None => key,
        };
        let data = data.map_or(Data::Nothing, |data| self.data(data, verdict));
        match self.key(key) {
            Some(Key::Exact(value)) => set.elements.insert(value, data),
            Some(Key::Interval(low, high)) => set.elements.insert_interval(low, high, data),
            Some(Key::Box(fields)) => set.elements.insert_box(fields, data),
            Some(Key::Prefix(prefix)) => set.elements.insert_prefix(prefix, data),
            Some(Key::Any) => set.elements.set_default(data),
            None => keep(set, element),
        }
    }

    fn data(&self, node: &Node<'_>, verdict: &dyn Fn(&Node<'_>) -> Option<Verdict>) -> Data {
        let data = match &self.data {
            DataType::Nothing | DataType::Object => Some(Data::Nothing),
            DataType::Verdict => verdict(node).map(Data::Verdict),
            DataType::Values(kinds) => values(kinds, node).map(Data::Value),
        };
        data.unwrap_or_else(|| Data::Opaque(Opaque::new(render::expression(node))))
    }

    fn key(&self, node: &Node<'_>) -> Option<Key> {
        if node.text() == Some("*") {
            return Some(Key::Any);
        }
        if let Some(("concat", body)) = node.single() {
            return tuple(&self.keys, body.list()?);
        }
        let [kind] = self.keys.as_slice() else { return None };
        if kind.is_name() {
            let text = node.text()?;
            if let (Kind::Name, Some(prefix)) = (kind, kind::name_prefix(text)) {
                return Some(Key::Prefix(prefix.into()));
            }
        }
        match kind.value(node) {
            Some(value) => Some(Key::Exact(value)),
            None => kind.interval(node).map(|(low, high)| Key::Interval(low, high)),
        }
    }
}

enum Key {
    Exact(Value),
    Interval(u128, u128),
    Box(Box<[Interval]>),
    Prefix(Box<str>),
    /// Whatever has no element of its own.
    Any,
}

/// A constant of one field or several.
pub(super) fn values(kinds: &[Kind], node: &Node<'_>) -> Option<Value> {
    match node.single() {
        Some(("concat", body)) => {
            let fields = body.list()?;
            if fields.len() != kinds.len() {
                return None;
            }
            let fields = kinds.iter().zip(fields).map(|(kind, node)| kind.value(node));
            Some(Value::Tuple(fields.collect::<Option<_>>()?))
        }
        Some(_) | None => kinds.first()?.value(node),
    }
}

fn tuple(kinds: &[Kind], nodes: &[Node<'_>]) -> Option<Key> {
    if kinds.len() != nodes.len() {
        return None;
    }
    let pairs = || kinds.iter().zip(nodes);
    match pairs().map(|(kind, node)| kind.value(node)).collect::<Option<Box<[Value]>>>() {
        Some(fields) => Some(Key::Exact(Value::Tuple(fields))),
        None => pairs().map(|(kind, node)| kind.field(node)).collect::<Option<_>>().map(Key::Box),
    }
}

/// An element that is not understood is kept: a key that is not found may be it.
fn keep(set: &mut Set, element: &Node<'_>) {
    set.opaque.get_or_insert_with(|| Opaque::new(format!("element {element}")));
}

/// What an element may have besides its value. It goes when its time is up, and a stateful
/// statement other than a counter may break the rule that finds it (`nft_lookup_eval` runs it).
fn depends_on_state(member: &str) -> bool {
    !matches!(member, "val" | "comment" | "counter" | "last")
}

/// The kinds that a set's `type` names: `"ipv4_addr"`, `["ipv4_addr", "inet_service"]`,
/// `"ipv4_addr . inet_service"` (data of `typeof` maps), `{"typeof": expression}`.
fn kinds(scope: &mut Scope, origin: Origin, node: &Node<'_>) -> Vec<Kind> {
    match node {
        Node::Text(text) => text.split(" . ").map(Kind::of_type).collect(),
        Node::List(list) => {
            list.iter().map(|name| name.text().map_or(Kind::Opaque, Kind::of_type)).collect()
        }
        Node::Object(_) => match node.single() {
            Some(("typeof", expression)) => {
                Lowerer::new(scope, origin).expression(expression, &[]).kinds
            }
            Some(_) | None => vec![Kind::Opaque],
        },
        Node::Null | Node::Bool(_) | Node::Number(_) => vec![Kind::Opaque],
    }
}

/// Types of named objects (`obj_type_name`, src/rule.c).
fn is_object_type(name: &str) -> bool {
    matches!(
        name,
        "counter"
            | "quota"
            | "limit"
            | "ct helper"
            | "ct timeout"
            | "ct expectation"
            | "secmark"
            | "synproxy"
            | "tunnel"
    )
}
