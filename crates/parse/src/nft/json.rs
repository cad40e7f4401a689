//! The JSON of `nft -j list ruleset`: its objects, borrowed from the text.
//!
//! A rule's statements and a set's elements stay undecoded ([`RawValue`]) until somebody asks, so
//! that a table that is passed over costs no more than finding where its objects end. Nothing here
//! knows what an expression means.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The objects of the `nftables` array, undecoded, as far as the text can be read, and why no
/// further, if it can't be read to its end. `None`: the array does not even begin.
pub(super) fn objects(json: &str) -> (Option<Vec<&RawValue>>, Option<serde_json::Error>) {
    let mut found = None;
    let mut deserializer = serde_json::Deserializer::from_str(json);
    let result = Document(&mut found).deserialize(&mut deserializer);
    (found, result.and_then(|()| deserializer.end()).err())
}

/// Family and table of a rule that is written as nft writes it. Any other gives `None` and has to
/// be decoded: this only saves doing so for rules that are passed over.
pub(super) fn rule_place(object: &RawValue) -> Option<(&str, &str)> {
    let rest = object.get().strip_prefix("{\"rule\": {\"family\": \"")?;
    let (family, rest) = rest.split_once('"')?;
    let (table, _) = rest.strip_prefix(", \"table\": \"")?.split_once('"')?;
    (!family.contains('\\') && !table.contains('\\')).then_some((family, table))
}

/// One object of the array.
pub(super) enum Object<'a> {
    Table(TableObject<'a>),
    Chain(ChainObject<'a>),
    Rule(RuleObject<'a>),
    Set(SetObject<'a>),
    Element(ElementObject<'a>),
    /// What a packet's walk does not depend on: version, counters, limits, flowtables …
    Other,
}

/// A table.
#[derive(Deserialize)]
pub(super) struct TableObject<'a> {
    #[serde(borrow)]
    pub(super) family: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) handle: Option<u64>,
    #[serde(default, borrow)]
    pub(super) flags: Node<'a>,
}

/// A chain; `kind`, `hook` and `prio` are those of a base chain.
#[derive(Deserialize)]
pub(super) struct ChainObject<'a> {
    #[serde(borrow)]
    pub(super) family: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) table: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) handle: Option<u64>,
    #[serde(rename = "type")]
    pub(super) kind: Option<Cow<'a, str>>,
    pub(super) hook: Option<Cow<'a, str>>,
    pub(super) prio: Option<i32>,
    pub(super) policy: Option<Cow<'a, str>>,
}

/// A rule.
#[derive(Deserialize)]
pub(super) struct RuleObject<'a> {
    #[serde(borrow)]
    pub(super) family: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) table: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) chain: Cow<'a, str>,
    pub(super) handle: Option<u64>,
    pub(super) comment: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub(super) expr: Option<&'a RawValue>,
}

/// A set, a map (`map` is the type of its data) or a meter.
#[derive(Deserialize)]
pub(super) struct SetObject<'a> {
    #[serde(borrow)]
    pub(super) family: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) table: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    pub(super) handle: Option<u64>,
    #[serde(rename = "type", default, borrow)]
    pub(super) kind: Node<'a>,
    #[serde(default, borrow)]
    pub(super) map: Node<'a>,
    #[serde(default, borrow)]
    pub(super) flags: Node<'a>,
    #[serde(default, borrow)]
    pub(super) timeout: Node<'a>,
    #[serde(default, borrow)]
    pub(super) size: Node<'a>,
    #[serde(default, borrow)]
    pub(super) stmt: Node<'a>,
    #[serde(borrow)]
    pub(super) elem: Option<&'a RawValue>,
}

/// Elements of a set that stand apart from it.
#[derive(Deserialize)]
pub(super) struct ElementObject<'a> {
    #[serde(borrow)]
    pub(super) family: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) table: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) elem: &'a RawValue,
}

/// Calls `each` with every element of a set's `elem`, one decoded at a time. Newer versions wrap
/// the list (`{"set": [...]}`).
pub(super) fn each_element<'a>(
    elem: &'a RawValue,
    each: &mut dyn FnMut(Node<'a>),
) -> Result<(), serde_json::Error> {
    #[derive(Deserialize)]
    struct Wrapped<'a> {
        #[serde(borrow)]
        set: &'a RawValue,
    }
    let list = if elem.get().starts_with('{') {
        serde_json::from_str::<Wrapped<'a>>(elem.get())?.set
    } else {
        elem
    };
    Each(each).deserialize(&mut serde_json::Deserializer::from_str(list.get()))
}

/// A JSON value that borrows its strings: the statements of one rule, one element of a set.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Node<'a> {
    #[default]
    Null,
    Bool(bool),
    Number(i128),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
}

impl<'a> Node<'a> {
    /// Name and body of an object with one member, as all statements and expressions are.
    pub(super) fn single(&self) -> Option<(&str, &Node<'a>)> {
        match self {
            Node::Object(members) => match members.as_slice() {
                [(name, body)] => Some((name, body)),
                _ => None,
            },
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_) => None,
        }
    }

    /// A member of an object.
    pub(super) fn get(&self, name: &str) -> Option<&Node<'a>> {
        self.members().iter().find(|(key, _)| key == name).map(|(_, body)| body)
    }

    /// The members of an object; none for anything else.
    pub(super) fn members(&self) -> &[(Cow<'a, str>, Node<'a>)] {
        match self {
            Node::Object(members) => members,
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::List(_) => &[],
        }
    }

    /// A string.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Node::Text(text) => Some(text),
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::List(_) | Node::Object(_) => None,
        }
    }

    /// A number that fits.
    pub(super) fn number<T: TryFrom<i128>>(&self) -> Option<T> {
        match self {
            Node::Number(n) => T::try_from(*n).ok(),
            Node::Null | Node::Bool(_) | Node::Text(_) | Node::List(_) | Node::Object(_) => None,
        }
    }

    /// A list.
    pub(super) fn list(&self) -> Option<&[Node<'a>]> {
        match self {
            Node::List(list) => Some(list),
            Node::Null | Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::Object(_) => None,
        }
    }

    /// A list, or the one value that stands for a list of one (`"flags": "random"`).
    pub(super) fn one_or_more(&self) -> &[Node<'a>] {
        match self {
            Node::Null => &[],
            Node::List(list) => list,
            Node::Bool(_) | Node::Number(_) | Node::Text(_) | Node::Object(_) => {
                std::slice::from_ref(self)
            }
        }
    }
}

impl fmt::Display for Node<'_> {
    /// Compact JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::Null => f.write_str("null"),
            Node::Bool(value) => write!(f, "{value}"),
            Node::Number(n) => write!(f, "{n}"),
            Node::Text(text) => quoted(text, f),
            Node::List(list) => {
                f.write_str("[")?;
                for (i, node) in list.iter().enumerate() {
                    write!(f, "{}{node}", if i == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Node::Object(members) => {
                f.write_str("{")?;
                for (i, (name, body)) in members.iter().enumerate() {
                    f.write_str(if i == 0 { "" } else { "," })?;
                    quoted(name, f)?;
                    write!(f, ":{body}")?;
                }
                f.write_str("}")
            }
        }
    }
}

fn quoted(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(&serde_json::to_string(text).map_err(|_| fmt::Error)?)
}

/// The whole text; objects are put where they survive an error further on.
struct Document<'f, 'a>(&'f mut Option<Vec<&'a RawValue>>);

impl<'a> DeserializeSeed<'a> for Document<'_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'a> Visitor<'a> for Document<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a member \"nftables\"")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(name)) = map.next_key()? {
            if name == "nftables" {
                let objects = self.0.insert(Vec::new());
                map.next_value_seed(Each(&mut |object| objects.push(object)))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

/// Gives each item of a list away as soon as it is read.
struct Each<'f, T>(&'f mut dyn FnMut(T));

impl<'a, T: Deserialize<'a>> DeserializeSeed<'a> for Each<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a, T: Deserialize<'a>> Visitor<'a> for Each<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(item) = list.next_element()? {
            (self.0)(item);
        }
        Ok(())
    }
}

/// A string that is borrowed where the JSON has no escapes in it.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneMember;
        impl<'de> Visitor<'de> for OneMember {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with one member")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object::Other;
                while let Some(Name(name)) = map.next_key()? {
                    match &*name {
                        "table" => object = Object::Table(map.next_value()?),
                        "chain" => object = Object::Chain(map.next_value()?),
                        "rule" => object = Object::Rule(map.next_value()?),
                        "set" | "map" | "meter" => object = Object::Set(map.next_value()?),
                        "element" => object = Object::Element(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(object)
            }
        }
        deserializer.deserialize_map(OneMember)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Node<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Node<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Node::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(Node::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(Node::Number(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(Node::Number(value.into()))
            }

            // nft prints no fractions: one is kept as text, which no number is read from.
            fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
                Ok(Node::Text(value.to_string().into()))
            }

            fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
                Ok(Node::Text(Cow::Borrowed(value)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
                Ok(Node::Text(Cow::Owned(value.to_owned())))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut nodes = Vec::new();
                while let Some(node) = list.next_element()? {
                    nodes.push(node);
                }
                Ok(Node::List(nodes))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(Name(name)) = map.next_key()? {
                    members.push((name, map.next_value()?));
                }
                Ok(Node::Object(members))
            }
        }
        deserializer.deserialize_any(Any)
    }
}
