//! Statements and expressions in nft's own syntax, from its JSON.
//!
//! For people to read: what has no syntax here is shown as its JSON. Numbers are written as nft
//! writes them where the JSON says enough to tell (marks in hexadecimal).

use unmasq_model::ruleset::TableFamily;

use super::json::Node;

/// A whole rule.
pub(super) fn rule(family: TableFamily, statements: &[Node<'_>], comment: Option<&str>) -> String {
    let mut words: Vec<String> = statements.iter().map(|node| statement(family, node)).collect();
    words.extend(comment.map(|comment| format!("comment \"{comment}\"")));
    words.join(" ")
}

/// A statement in a table of that family.
pub(super) fn statement(family: TableFamily, node: &Node<'_>) -> String {
    let Some((name, body)) = node.single() else {
        return node.text().map_or_else(|| node.to_string(), str::to_owned);
    };
    let text = match name {
        "match" => Some(comparison(body)),
        "accept" | "drop" | "continue" | "return" | "notrack" => Some(name.to_owned()),
        "jump" | "goto" => verdict(node),
        "vmap" => map(name, body, Style::Plain),
        "dnat" | "snat" | "masquerade" | "redirect" => nat(name, body),
        "counter" => counter(body),
        "mangle" => mangle(body),
        "reject" => reject(family, body),
        "log" => log(body),
        "limit" => limit(body),
        "quota" => quota(body),
        "ct count" => count(body),
        "ct helper" | "ct timeout" | "ct expectation" => {
            Some(format!("{name} set {}", styled(body, Style::Quoted)))
        }
        "last" => Some(last(body)),
        "flow" => body.get("flowtable").map(|table| format!("flow add {}", expression(table))),
        "set" => update(family, body, None),
        "map" => body.get("data").and_then(|data| update(family, body, Some(data))),
        "meter" => meter(family, body),
        "queue" => queue(body),
        "xt" => xt(body),
        _ => None,
    };
    text.unwrap_or_else(|| node.to_string())
}

/// What a `match` statement compares.
pub(super) fn comparison(body: &Node<'_>) -> String {
    let (Some(op), Some(left), Some(right)) =
        (body.get("op").and_then(Node::text), body.get("left"), body.get("right"))
    else {
        return body.to_string();
    };
    // `tcp flags syn / fin,syn,rst,ack`
    if let (Some(("&", operands)), "==" | "!=") = (left.single(), op)
        && let Some([field, mask @ Node::List(_)]) = operands.list()
    {
        let not = if op == "==" { "" } else { "!= " };
        return format!("{} {not}{} / {}", expression(field), expression(right), expression(mask));
    }
    let value = styled_fields(right, &styles(left));
    let flags = matches!(left.single(), Some(("ct", field) | ("payload", field))
        if matches!(key(field), Some("state" | "status" | "flags")));
    let several =
        value.starts_with('@') || matches!(right.single(), Some(("range" | "prefix" | "set", _)));
    let named = match op {
        "in" => false,
        // `must_print_eq_op`, src/expression.c.
        "==" => !several && (is_operation(left) || flags && right.text().is_some()),
        _ => true,
    };
    let op = if named { format!("{op} ") } else { String::new() };
    format!("{} {op}{value}", expression(left))
}

/// An expression, a constant, a set, an element of one.
pub(super) fn expression(node: &Node<'_>) -> String {
    styled(node, Style::Plain)
}

/// The type of a set.
pub(super) fn set_type(node: &Node<'_>) -> String {
    match (node, node.single()) {
        (_, Some(("typeof", key))) => format!("typeof {}", expression(key)),
        (Node::List(names), _) => joined(names, " . ", &[]),
        _ => expression(node),
    }
}

/// How constants are written beside an expression.
#[derive(Clone, Copy, PartialEq)]
enum Style {
    Plain,
    /// Eight hexadecimal digits.
    Mark,
    /// In quotes.
    Quoted,
    /// In quotes, unless it is the number of a device that is no more.
    Device,
}

/// The style of an expression's constants, one for each field.
fn styles(node: &Node<'_>) -> Vec<Style> {
    match node.single() {
        Some(("concat", body)) => {
            body.one_or_more().iter().flat_map(|field| styles(field).into_iter().take(1)).collect()
        }
        Some(("&" | "|" | "^" | "<<" | ">>", body)) => {
            body.one_or_more().first().map_or(vec![Style::Plain], styles)
        }
        Some(("meta" | "ct", body)) => vec![match key(body) {
            Some("mark") => Style::Mark,
            Some("iifname" | "oifname" | "ibrname" | "obrname") => Style::Quoted,
            Some("iif" | "oif") => Style::Device,
            Some(_) | None => Style::Plain,
        }],
        Some(("fib", body)) => vec![match body.get("result").and_then(Node::text) {
            Some("oif") => Style::Device,
            Some("oifname") => Style::Quoted,
            Some(_) | None => Style::Plain,
        }],
        Some(_) | None => vec![Style::Plain],
    }
}

fn styled(node: &Node<'_>, style: Style) -> String {
    styled_fields(node, &[style])
}

fn styled_fields(node: &Node<'_>, styles: &[Style]) -> String {
    let style = styles.first().copied().unwrap_or(Style::Plain);
    match node {
        Node::Null => String::new(),
        Node::Bool(true) => "exists".to_owned(),
        Node::Bool(false) => "missing".to_owned(),
        Node::Number(n) if style == Style::Mark => format!("0x{n:08x}"),
        Node::Number(n) => n.to_string(),
        Node::Text(text) => name(text, style),
        Node::List(list) if !list.is_empty() && list.iter().all(is_constant) => {
            joined(list, ",", styles)
        }
        // An element of a map.
        Node::List(list) => match list.as_slice() {
            [key, data] => format!("{} : {}", styled_fields(key, styles), expression(data)),
            _ => node.to_string(),
        },
        Node::Object(_) => object(node, styles).unwrap_or_else(|| node.to_string()),
    }
}

fn name(text: &str, style: Style) -> String {
    let number = || text.bytes().all(|byte| byte.is_ascii_digit());
    let quoted = match style {
        Style::Plain | Style::Mark => false,
        Style::Quoted => true,
        Style::Device => !number(),
    };
    if quoted && !text.starts_with('@') { format!("\"{text}\"") } else { text.to_owned() }
}

fn object(node: &Node<'_>, styles: &[Style]) -> Option<String> {
    let (name, body) = node.single()?;
    Some(match name {
        "payload" => payload(body)?,
        "meta" => match key(body)? {
            // Printed without the word "meta" (`meta_key_is_unqualified`, src/meta.c).
            key @ ("iif" | "oif" | "iifname" | "oifname") => key.to_owned(),
            key => format!("meta {key}"),
        },
        "ct" => conntrack(body)?,
        "fib" => {
            let flags = joined(body.get("flags")?.one_or_more(), " . ", &[]);
            format!("fib {flags} {}", body.get("result")?.text()?)
        }
        "numgen" => {
            let (mode, modulus) = (body.get("mode")?.text()?, body.get("mod")?);
            format!("numgen {mode} mod {}{}", expression(modulus), offset(body))
        }
        "jhash" => {
            let seed = body.get("seed").and_then(Node::number::<u32>);
            let seed = seed.map_or(String::new(), |seed| format!(" seed 0x{seed:x}"));
            let (key, modulus) = (expression(body.get("expr")?), expression(body.get("mod")?));
            format!("jhash {key} mod {modulus}{seed}{}", offset(body))
        }
        "symhash" => format!("symhash mod {}{}", expression(body.get("mod")?), offset(body)),
        "&" | "|" | "^" | "<<" | ">>" => operation(name, body, styles)?,
        "concat" => {
            let fields =
                body.list()?.iter().enumerate().map(|(i, field)| {
                    styled(field, styles.get(i).copied().unwrap_or(Style::Plain))
                });
            fields.collect::<Vec<_>>().join(" . ")
        }
        "map" => map("map", body, styles.first().copied()?)?,
        "set" => format!("{{ {} }}", joined(body.list()?, ", ", styles)),
        "range" => joined(body.list()?, "-", styles),
        "prefix" => {
            format!("{}/{}", expression(body.get("addr")?), expression(body.get("len")?))
        }
        "elem" => element(body, styles)?,
        "accept" | "drop" | "continue" | "return" => name.to_owned(),
        "jump" | "goto" => verdict(node)?,
        "tcp option" | "ip option" | "exthdr" => {
            let field = body.get("field").and_then(Node::text);
            let field = field.map_or(String::new(), |field| format!(" {field}"));
            format!("{name} {}{field}", body.get("name")?.text()?)
        }
        "rt" => format!("rt {}", key(body)?),
        _ => return None,
    })
}

fn payload(body: &Node<'_>) -> Option<String> {
    if let Some(base) = body.get("base") {
        let (offset, length) = (body.get("offset")?, body.get("len")?);
        return Some(format!("@{},{offset},{length}", base.text()?));
    }
    let tunnel = body.get("tunnel").and_then(Node::text);
    let tunnel = tunnel.map_or(String::new(), |tunnel| format!("{tunnel} "));
    Some(format!("{tunnel}{} {}", body.get("protocol")?.text()?, body.get("field")?.text()?))
}

fn conntrack(body: &Node<'_>) -> Option<String> {
    let direction = body.get("dir").and_then(Node::text);
    let direction = direction.map_or(String::new(), |direction| format!("{direction} "));
    Some(format!("ct {direction}{}", key(body)?))
}

fn operation(op: &str, body: &Node<'_>, outer: &[Style]) -> Option<String> {
    let operands = body.list()?;
    let own = styles(operands.first()?);
    let styles = if own == [Style::Plain] { outer.to_vec() } else { own };
    let shift = matches!(op, "<<" | ">>");
    let words = operands.iter().enumerate().map(|(i, operand)| {
        let styles = if shift && i > 0 { &[][..] } else { &styles };
        let text = styled_fields(operand, styles);
        let inner = operand.single().map_or(0, |(inner, _)| precedence(inner));
        if inner > precedence(op) { format!("({text})") } else { text }
    });
    Some(words.collect::<Vec<_>>().join(&format!(" {op} ")))
}

/// How loosely an operator binds (`expr_binop_precedence`, src/expression.c).
fn precedence(op: &str) -> u8 {
    match op {
        "<<" | ">>" => 1,
        "&" => 2,
        "^" => 3,
        "|" => 4,
        _ => 0,
    }
}

fn is_operation(node: &Node<'_>) -> bool {
    node.single().is_some_and(|(name, _)| precedence(name) > 0)
}

fn map(word: &str, body: &Node<'_>, style: Style) -> Option<String> {
    let key = body.get("key")?;
    let keys = styles(key);
    let data = match body.get("data")?.single() {
        Some(("set", elements)) => {
            let elements = elements.list()?.iter().map(|element| match element.list() {
                Some([key, data]) => {
                    format!("{} : {}", styled_fields(key, &keys), styled(data, style))
                }
                Some(_) | None => expression(element),
            });
            format!("{{ {} }}", elements.collect::<Vec<_>>().join(", "))
        }
        Some(_) | None => expression(body.get("data")?),
    };
    Some(format!("{} {word} {data}", expression(key)))
}

fn element(body: &Node<'_>, styles: &[Style]) -> Option<String> {
    let mut text = styled_fields(body.get("val")?, styles);
    for (name, node) in body.members() {
        match &**name {
            "val" => {}
            "counter" => text.extend([" ".to_owned(), counter(node)?]),
            "timeout" | "expires" => {
                text.push_str(&format!(" {name} {}", duration(node.number()?)));
            }
            "comment" => text.push_str(&format!(" comment \"{}\"", node.text()?)),
            "limit" => text.extend([" ".to_owned(), limit(node)?]),
            _ => return None,
        }
    }
    Some(text)
}

fn verdict(node: &Node<'_>) -> Option<String> {
    let (name, body) = node.single()?;
    Some(format!("{name} {}", body.get("target")?.text()?))
}

fn nat(name: &str, body: &Node<'_>) -> Option<String> {
    let mut text = name.to_owned();
    let word = |key: &str| body.get(key).and_then(Node::text).map(str::to_owned);
    let address = body.get("addr");
    let port = body.get("port");
    if let Some(family) = word("family") {
        text.extend([" ", &family]);
    }
    if body
        .get("type_flags")
        .is_some_and(|flags| flags.one_or_more().iter().any(|flag| flag.text() == Some("prefix")))
    {
        text.push_str(" prefix");
    }
    if address.is_some() || port.is_some() {
        text.push_str(" to ");
    }
    if let Some(address) = address {
        let rendered = expression(address);
        let bracketed = port.is_some() && address.text().is_some_and(|text| text.contains(':'));
        text.push_str(&if bracketed { format!("[{rendered}]") } else { rendered });
    }
    if let Some(port) = port {
        text.extend([":", &expression(port)]);
    }
    let flags = body.get("flags").map_or(&[][..], Node::one_or_more);
    let flags: Vec<&str> =
        flags.iter().filter_map(Node::text).filter(|flag| *flag != "netmap").collect();
    if !flags.is_empty() {
        text.extend([" ", &flags.join(",")]);
    }
    Some(text)
}

fn counter(body: &Node<'_>) -> Option<String> {
    if let Node::Null = body {
        return Some("counter".to_owned());
    }
    if body.text().is_some() || body.get("map").is_some() {
        return Some(format!("counter name {}", styled(body, Style::Quoted)));
    }
    Some(format!("counter packets {} bytes {}", body.get("packets")?, body.get("bytes")?))
}

fn mangle(body: &Node<'_>) -> Option<String> {
    let key = body.get("key")?;
    let word = match key.single()? {
        ("meta", field) => format!("meta {}", self::key(field)?),
        _ => expression(key),
    };
    Some(format!("{word} set {}", styled_fields(body.get("value")?, &styles(key))))
}

fn reject(family: TableFamily, body: &Node<'_>) -> Option<String> {
    let Some(kind) = body.get("type").and_then(Node::text) else {
        return Some("reject".to_owned());
    };
    let Some(code) = body.get("expr").and_then(Node::text) else {
        return Some(format!("reject with {kind}"));
    };
    let implied = kind == default_reject(family) && code == "port-unreachable";
    Some(if implied { "reject".to_owned() } else { format!("reject with {kind} {code}") })
}

/// What a `reject` of that family is with that doesn't say so.
pub(super) fn default_reject(family: TableFamily) -> &'static str {
    match family {
        TableFamily::Ip => "icmp",
        TableFamily::Ip6 => "icmpv6",
        TableFamily::Inet | TableFamily::Arp | TableFamily::Bridge | TableFamily::Netdev => "icmpx",
    }
}

fn log(body: &Node<'_>) -> Option<String> {
    let mut text = "log".to_owned();
    for (name, node) in body.members() {
        let value = match &**name {
            "prefix" => styled(node, Style::Quoted),
            "flags" => joined(node.one_or_more(), ",", &[]),
            "group" | "snaplen" | "queue-threshold" | "level" => expression(node),
            _ => return None,
        };
        text.push_str(&format!(" {name} {value}"));
    }
    Some(text)
}

fn limit(body: &Node<'_>) -> Option<String> {
    if let Some(text) = reference("limit", body) {
        return Some(text);
    }
    let over = if is_inverted(body) { "over " } else { "" };
    let (rate, per) = (body.get("rate")?, body.get("per")?.text()?);
    let unit = |key: &str| body.get(key).and_then(Node::text);
    let text = match unit("rate_unit") {
        Some(unit) => format!("limit rate {over}{rate} {unit}/{per}"),
        None => format!("limit rate {over}{rate}/{per}"),
    };
    // A burst of five packets, or of no bytes, is what nft doesn't mention.
    let burst: u64 = body.get("burst").map_or(Some(0), Node::number)?;
    Some(match unit("burst_unit") {
        None if burst != 5 && burst != 0 => format!("{text} burst {burst} packets"),
        Some(unit) if burst != 0 => format!("{text} burst {burst} {unit}"),
        Some(_) | None => text,
    })
}

fn quota(body: &Node<'_>) -> Option<String> {
    if let Some(text) = reference("quota", body) {
        return Some(text);
    }
    let over = if is_inverted(body) { "over " } else { "" };
    let used = match (body.get("used"), body.get("used_unit").and_then(Node::text)) {
        (Some(used), Some(unit)) => format!(" used {used} {unit}"),
        _ => String::new(),
    };
    let (value, unit) = (body.get("val")?, body.get("val_unit")?.text()?);
    Some(format!("quota {over}{value} {unit}{used}"))
}

fn count(body: &Node<'_>) -> Option<String> {
    let over = if is_inverted(body) { "over " } else { "" };
    Some(format!("ct count {over}{}", body.get("val")?))
}

fn last(body: &Node<'_>) -> String {
    match body.get("used").and_then(Node::number) {
        Some(used) => format!("last used {}", duration(used)),
        None => "last used never".to_owned(),
    }
}

fn update(family: TableFamily, body: &Node<'_>, data: Option<&Node<'_>>) -> Option<String> {
    let op = body.get("op")?.text()?;
    let set = body.get(if data.is_some() { "map" } else { "set" })?.text()?;
    let mut inner = expression(body.get("elem")?);
    for node in body.get("stmt").map_or(&[][..], Node::one_or_more) {
        inner.extend([" ", &statement(family, node)]);
    }
    if let Some(data) = data {
        inner.extend([" : ", &expression(data)]);
    }
    Some(format!("{op} {set} {{ {inner} }}"))
}

fn meter(family: TableFamily, body: &Node<'_>) -> Option<String> {
    let (name, size) = (body.get("name")?.text()?, body.get("size")?);
    let (key, inner) = (expression(body.get("key")?), statement(family, body.get("stmt")?));
    Some(format!("meter {name} size {size} {{ {key} {inner} }}"))
}

fn queue(body: &Node<'_>) -> Option<String> {
    let mut text = "queue".to_owned();
    if let Some(flags) = body.get("flags") {
        text.extend([" flags ", &joined(flags.one_or_more(), ",", &[])]);
    }
    if let Some(number) = body.get("num") {
        text.extend([" to ", &expression(number)]);
    }
    Some(text)
}

fn xt(body: &Node<'_>) -> Option<String> {
    Some(format!("xt {} \"{}\"", body.get("type")?.text()?, body.get("name")?.text()?))
}

/// `limit name "x"`, `limit name … map …`.
fn reference(word: &str, body: &Node<'_>) -> Option<String> {
    let named = body.text().is_some() || body.get("map").is_some();
    named.then(|| format!("{word} name {}", styled(body, Style::Quoted)))
}

fn is_inverted(body: &Node<'_>) -> bool {
    body.get("inv") == Some(&Node::Bool(true))
}

fn offset(body: &Node<'_>) -> String {
    match body.get("offset").and_then(Node::number::<u32>) {
        Some(0) | None => String::new(),
        Some(offset) => format!(" offset {offset}"),
    }
}

fn key<'n>(body: &'n Node<'_>) -> Option<&'n str> {
    body.get("key").or_else(|| body.get("field"))?.text()
}

fn is_constant(node: &Node<'_>) -> bool {
    matches!(node, Node::Text(_) | Node::Number(_))
}

fn joined(nodes: &[Node<'_>], separator: &str, styles: &[Style]) -> String {
    let words = nodes.iter().map(|node| styled_fields(node, styles));
    words.collect::<Vec<_>>().join(separator)
}

/// `3h`, `1m30s` (`time_print`, src/datatype.c).
fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let mut rest = seconds;
    let mut text = String::new();
    for (length, unit) in units {
        if rest >= length {
            text.push_str(&format!("{}{unit}", rest / length));
            rest %= length;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}
