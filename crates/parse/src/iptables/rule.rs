//! One rule line as a [`Rule`].
//!
//! A line in, a rule and what is wrong with it out. The kernel tests addresses, devices and
//! protocol before any match (ip_packet_match in net/ipv4/netfilter/ip_tables.c), so these come
//! first in that order, then the matches as written.

use unmasq_model::expr::{Device, End, Expr, Field};
use unmasq_model::origin::{Opaque, Origin};
use unmasq_model::packet::{Family, Protocol};
use unmasq_model::rule::{Action, NamePattern, Rule, Step, Test};
use unmasq_model::ruleset::ChainId;

use super::token::{Line, OptionRef, Owner};
use super::value::{Network, equal};
use super::{matches, target};

/// Buffers that are kept from line to line.
pub(super) struct Tools<'b, 't> {
    pub(super) line: &'b mut Line<'t>,
    pub(super) steps: &'b mut Vec<Step>,
}

/// What a line was read as.
pub(super) struct Read {
    pub(super) rule: Rule,
    /// The index that `-I` asks for; `None` for the end.
    pub(super) insert_at: Option<usize>,
    pub(super) problems: Vec<String>,
}

/// Reads a rule. A malformed line gives a rule that may do anything to any packet.
pub(super) fn lower<'t>(
    text: &'t str,
    origin: Origin,
    family: Family,
    chain: impl Fn(&str) -> Option<ChainId>,
    tools: &mut Tools<'_, 't>,
) -> Read {
    tools.steps.clear();
    let mut comment = None;
    let mut insert_at = None;
    let mut problems = Vec::new();
    let read = tools.line.read(text).map_err(str::to_owned).and_then(|()| {
        let head = Head::of(tools.line)?;
        insert_at = head.insert_at;
        head.tests(family, tools.steps);
        for m in tools.line.matches(head.known_protocol()) {
            matches::lower(m, family, tools.steps, &mut comment);
        }
        Ok(())
    });
    match read {
        Ok(()) => {
            tools.steps.push(Step::Do(Action::Count));
            let ending = target::lower(tools.line, family, chain);
            if let (true, Some(Action::Opaque(opaque))) = (ending.undeclared, &ending.action) {
                problems.push(format!("no chain or target is known for {opaque}"));
            }
            tools.steps.extend(ending.action.map(Step::Do));
        }
        Err(message) => {
            problems.push(message);
            tools.steps.clear();
            tools.steps.push(Step::Test(Test::Opaque(Opaque::new(text))));
            tools.steps.push(Step::Do(Action::Opaque(Opaque::new(text))));
        }
    }
    // Collected from a buffer, so that the box is allocated once, at its size.
    let steps = tools.steps.drain(..).collect();
    Read { rule: Rule { steps, text: text.into(), comment, origin }, insert_at, problems }
}

/// Options of the rule itself.
#[derive(Default)]
struct Head<'l> {
    source: Option<OptionRef<'l>>,
    destination: Option<OptionRef<'l>>,
    in_device: Option<OptionRef<'l>>,
    out_device: Option<OptionRef<'l>>,
    protocol: Option<OptionRef<'l>>,
    fragment: Option<OptionRef<'l>>,
    insert_at: Option<usize>,
}

impl<'l> Head<'l> {
    fn of(line: &'l Line<'_>) -> Result<Head<'l>, String> {
        let mut head = Head::default();
        for option in line.options(Owner::Rule) {
            let slot = match option.name {
                "-s" | "--source" | "--src" => &mut head.source,
                "-d" | "--destination" | "--dst" => &mut head.destination,
                "-i" | "--in-interface" => &mut head.in_device,
                "-o" | "--out-interface" => &mut head.out_device,
                "-p" | "--protocol" | "--proto" => &mut head.protocol,
                "-f" | "--fragment" => &mut head.fragment,
                "-A" | "--append" if option.one().is_some() && !option.negated => continue,
                "-I" | "--insert" if !option.negated => {
                    head.insert_at = Some(insert_index(option)?);
                    continue;
                }
                // Counters as `iptables -S -v` writes them.
                "-c" | "--set-counters" if !option.negated => continue,
                name => return Err(format!("option {name} is not one of a rule")),
            };
            if slot.replace(option).is_some() {
                return Err(format!("option {} is there twice", option.name));
            }
        }
        for option in
            [head.source, head.destination, head.in_device, head.out_device, head.protocol]
        {
            if let Some(option) = option.filter(|option| option.one().is_none()) {
                return Err(format!("option {} needs one argument", option.name));
            }
        }
        Ok(head)
    }

    /// The protocol that a match may be implied by.
    fn known_protocol(&self) -> Option<Protocol> {
        let option = self.protocol.filter(|option| !option.negated)?;
        protocol(option.one()?)
    }

    fn tests(&self, family: Family, steps: &mut Vec<Step>) {
        let address = |option: &OptionRef<'_>, end| {
            let network = Network::read(option.one()?, family)?;
            let field = Field::Address(family, end);
            let needed = option.negated || !network.is_all();
            Some(needed.then(|| network.test(field, option.negated)))
        };
        push(steps, self.source, |option| address(option, End::Source));
        push(steps, self.destination, |option| address(option, End::Destination));
        push(steps, self.in_device, |option| device(option, Device::In));
        push(steps, self.out_device, |option| device(option, Device::Out));
        push(steps, self.protocol, protocol_test);
        push(steps, self.fragment, |_| None);
    }
}

/// Appends an option's test: `Some(None)` is no test at all, `None` is not understood.
fn push(
    steps: &mut Vec<Step>,
    option: Option<OptionRef<'_>>,
    lower: impl Fn(&OptionRef<'_>) -> Option<Option<Test>>,
) {
    let Some(option) = option else { return };
    let test = lower(&option).unwrap_or_else(|| Some(Test::Opaque(Opaque::new(option.text))));
    steps.extend(test.map(Step::Test));
}

fn device(option: &OptionRef<'_>, device: Device) -> Option<Option<Test>> {
    let text = option.one()?;
    let (name, wildcard) = match text.strip_suffix('+') {
        Some(prefix) => (prefix, true),
        None => (text, false),
    };
    if name.is_empty() && !option.negated {
        return wildcard.then_some(None);
    }
    let pattern = NamePattern { name: name.into(), wildcard };
    Some(Some(Test::DeviceName { device, pattern, negated: option.negated }))
}

fn protocol(text: &str) -> Option<Protocol> {
    if text.eq_ignore_ascii_case("all") {
        return Some(Protocol(0));
    }
    Protocol::from_name(text).or_else(|| Protocol::from_name(&text.to_ascii_lowercase()))
}

/// Protocol 0 is any, negated or not: the kernel doesn't test it.
fn protocol_test(option: &OptionRef<'_>) -> Option<Option<Test>> {
    let number = protocol(option.one()?)?.0;
    let test = || Test::Compare {
        left: Expr::Field(Field::L4Proto),
        op: equal(option.negated),
        right: Expr::number(number),
    };
    Some((number != 0).then(test))
}

/// `-I CHAIN [N]`: rules are counted from 1.
fn insert_index(option: OptionRef<'_>) -> Result<usize, String> {
    if option.one().is_some() {
        return Ok(0);
    }
    let position = option.two().and_then(|(_, n)| n.parse::<usize>().ok());
    let index = position.and_then(|n| n.checked_sub(1));
    index.ok_or_else(|| "the place to insert at is not a number".to_owned())
}
