//! Statements that older versions have no JSON for, and print as text (nft 1.0.6 the update of a
//! map): from the text to the JSON that newer versions print.
//!
//! An expression that is not one of the simple ones here stays text, which nothing is read from.

use std::borrow::Cow;

use super::json::Node;

/// `update @m { ip saddr timeout 1h : ip daddr }` (`map_stmt_print`, src/statement.c).
pub(super) fn map_update(text: &str) -> Option<Node<'_>> {
    let (op, rest) = text.split_once(" @")?;
    let (map, rest) = rest.split_once(" { ")?;
    let (key, data) = rest.trim_end().strip_suffix('}')?.split_once(" : ")?;
    // How long the element lives says nothing about whether it is there now. Statements of its own
    // would follow, and are not read.
    let timed = key.split_once(" timeout ").filter(|(_, time)| !time.contains(' '));
    let key = timed.map_or(key, |(key, _)| key);
    let body = vec![
        ("op".into(), Node::Text(op.into())),
        ("elem".into(), expression(key.trim())),
        ("data".into(), expression(data.trim())),
        ("map".into(), Node::Text(format!("@{map}").into())),
    ];
    Some(object("map", Node::Object(body)))
}

fn expression(text: &str) -> Node<'_> {
    let parts: Vec<Node<'_>> = text.split(" . ").map(field).collect();
    match <[Node<'_>; 1]>::try_from(parts) {
        Ok([only]) => only,
        Err(parts) => object("concat", Node::List(parts)),
    }
}

fn field(text: &str) -> Node<'_> {
    let words: Vec<&str> = text.split(' ').collect();
    let found = match words[..] {
        [header @ ("ip" | "ip6" | "tcp" | "udp" | "sctp" | "th"), field] => {
            Some(("payload", vec![("protocol", header), ("field", field)]))
        }
        ["meta", key] | [key @ ("iifname" | "oifname")] => Some(("meta", vec![("key", key)])),
        ["ct", dir @ ("original" | "reply"), _, ..] => {
            let key = text.get("ct ".len() + dir.len() + 1..).unwrap_or("");
            Some(("ct", vec![("key", key), ("dir", dir)]))
        }
        ["ct", key] => Some(("ct", vec![("key", key)])),
        _ => None,
    };
    match found {
        Some((name, members)) => {
            let member = |(key, value): (&'static str, _)| {
                (Cow::Borrowed(key), Node::Text(Cow::Borrowed(value)))
            };
            object(name, Node::Object(members.into_iter().map(member).collect()))
        }
        None => Node::Text(text.into()),
    }
}

fn object<'a>(name: &'static str, body: Node<'a>) -> Node<'a> {
    Node::Object(vec![(name.into(), body)])
}
