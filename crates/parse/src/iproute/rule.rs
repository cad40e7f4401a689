//! `ip -j rule` and `ip -6 -j rule` (ip/iprule.c, `print_rule`).

use ipnet::IpNet;
use unmasq_model::origin::{Diagnostic, FileId, Opaque};
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::route::{RoutingRule, RuleAction, TableId};

use super::entry::{Entry, Fields, entries, network, tos};

/// Policy rules in the order listed, which is the kernel's. The listing does not say of which
/// family it is: `ip rule` lists IPv4, `ip -6 rule` IPv6.
pub fn rules(
    text: &str,
    file: FileId,
    family: Family,
) -> (Option<Vec<RoutingRule>>, Vec<Diagnostic>) {
    let listing = match entries(text, file) {
        Ok(listing) => listing,
        Err(diagnostic) => return (None, vec![diagnostic]),
    };
    let mut found = Vec::with_capacity(listing.len());
    let mut diagnostics = Vec::new();
    for entry in &listing {
        match rule(entry, family) {
            Ok(rule) => found.push(rule),
            Err(message) => {
                diagnostics.push(entry.diagnostic(format!("{message}: {}", entry.text)));
            }
        }
    }
    (Some(found), diagnostics)
}

/// Keys that select nothing: who made the rule, that a device does not exist now (its name then
/// matches no packet), and the realms that a match gives.
const HARMLESS: &[&str] =
    &["protocol", "iif_detached", "oif_detached", "flow_from", "flow_to", "unresolved"];

/// `Err`: it can't be told where the rule belongs.
fn rule(entry: &Entry<'_>, family: Family) -> Result<RoutingRule, String> {
    let mut fields = entry.fields()?;
    let priority = fields.take_number("priority")?.ok_or("no priority")?;
    let mut rule = RoutingRule {
        family,
        priority,
        inverted: fields.take_flag("not"),
        from: None,
        to: None,
        mark: None,
        iif: None,
        oif: None,
        protocol: None,
        source_ports: None,
        destination_ports: None,
        uids: None,
        tos: None,
        action: RuleAction::Nop,
        suppress_prefix_length: None,
        opaque: None,
        origin: entry.origin,
    };
    let understood =
        selectors(&mut rule, &mut fields).and_then(|()| action(&mut rule, &mut fields));
    if understood.is_err() || fields.has_others_than(HARMLESS) {
        rule.opaque = Some(Opaque::new(entry.text));
    }
    Ok(rule)
}

/// Fills in the selectors up to the first that is not understood.
fn selectors(rule: &mut RoutingRule, fields: &mut Fields<'_>) -> Result<(), String> {
    rule.from = prefix(fields, "src", "srclen", rule.family)?;
    rule.to = prefix(fields, "dst", "dstlen", rule.family)?;
    if let Some(mark) = fields.take_number("fwmark")? {
        rule.mark = Some((mark, fields.take_number("fwmask")?.unwrap_or(u32::MAX)));
    }
    rule.iif = fields.take_text("iif")?.map(Into::into);
    rule.oif = fields.take_text("oif")?.map(Into::into);
    if let Some(name) = fields.take_text("ipproto")? {
        rule.protocol = Some(Protocol::from_name(&name).ok_or("unknown ipproto")?);
    }
    rule.source_ports = range(fields, "sport", "sport_start", "sport_end")?;
    rule.destination_ports = range(fields, "dport", "dport_start", "dport_end")?;
    rule.uids = range(fields, "uid", "uid_start", "uid_end")?;
    if let Some(text) = fields.take_text("tos")? {
        rule.tos = Some(tos(&text).ok_or("unknown tos")?).filter(|tos| *tos != 0);
    }
    rule.suppress_prefix_length = fields.take_number("suppress_prefixlen")?;
    Ok(())
}

/// `l3mdev`, `nat_gateway`, `masquerade` stay behind and make the rule opaque.
fn action(rule: &mut RoutingRule, fields: &mut Fields<'_>) -> Result<(), String> {
    let table = fields.take_text("table")?;
    let goto = fields.take_number("goto")?;
    let named = fields.take_text("action")?;
    let nop = fields.take_flag("nop");
    // While no rule has the priority that goto names, the kernel passes over the rule
    // (net/core/fib_rules.c, fib_rules_lookup).
    let unresolved = fields.take_flag("unresolved");
    rule.action = match (table, goto, named.as_deref(), nop) {
        (Some(table), None, None, false) => RuleAction::Lookup(TableId::from_name(&table)),
        (None, Some(_), None, false) if unresolved => RuleAction::Nop,
        (None, Some(priority), None, false) => RuleAction::Goto(priority),
        (None, None, Some("blackhole"), false) => RuleAction::Blackhole,
        (None, None, Some("unreachable"), false) => RuleAction::Unreachable,
        (None, None, Some("prohibit"), false) => RuleAction::Prohibit,
        (None, None, None, true) => RuleAction::Nop,
        (_, _, _, _) => return Err("unknown action".to_owned()),
    };
    Ok(())
}

/// `src` with `srclen`, which is left out for a single address.
fn prefix(
    fields: &mut Fields<'_>,
    address: &str,
    length: &str,
    family: Family,
) -> Result<Option<IpNet>, String> {
    let length: Option<u8> = fields.take_number(length)?;
    let Some(text) = fields.take_text(address)?.filter(|text| text != "all") else {
        return Ok(None);
    };
    let net = network(&text, family).ok_or_else(|| format!("unreadable {address} {text}"))?;
    if Family::of(net.addr()) != family {
        return Err(format!("{address} {text} is not {family}"));
    }
    match length {
        None => Ok(Some(net)),
        Some(length) => IpNet::new(net.addr(), length).map(Some).map_err(|error| error.to_string()),
    }
}

/// One number, or the first and the last of a range.
fn range<N: TryFrom<u64> + Copy>(
    fields: &mut Fields<'_>,
    single: &str,
    first: &str,
    last: &str,
) -> Result<Option<(N, N)>, String> {
    if let Some(number) = fields.take_number(single)? {
        return Ok(Some((number, number)));
    }
    match (fields.take_number(first)?, fields.take_number(last)?) {
        (Some(first), Some(last)) => Ok(Some((first, last))),
        (None, None) => Ok(None),
        (Some(_), None) | (None, Some(_)) => Err(format!("half a range of {single}")),
    }
}
