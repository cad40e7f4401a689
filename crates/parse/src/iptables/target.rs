//! Targets (`-j`, `-g`) as actions.
//!
//! A target's name and options in, [`Action`]s out. One that is not understood, or has an option
//! that is not, is [`Action::Opaque`] with its text.

use std::net::IpAddr;

use unmasq_model::expr::{BitOp, Expr, Field, Value};
use unmasq_model::origin::Opaque;
use unmasq_model::packet::Family;
use unmasq_model::rule::{Action, Nat, NatAddress, NatKind, NatPorts, Verdict};
use unmasq_model::ruleset::ChainId;

use super::token::{Line, OptionRef, Owner, join};
use super::value::{self, Network, mark, number, port};

/// What a rule does, and whether its target is one that nobody declared.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ending {
    /// What happens at the end; nothing for a rule without target.
    pub(super) action: Option<Action>,
    /// A target that is neither a chain of the table nor an extension that is known by name.
    pub(super) undeclared: bool,
}

/// The action of a line's target.
pub(super) fn lower(
    line: &Line<'_>,
    family: Family,
    chain: impl Fn(&str) -> Option<ChainId>,
) -> Ending {
    let mut heads = line.options(Owner::Target).filter(is_head);
    let Some(head) = heads.next() else { return Ending { action: None, undeclared: false } };
    let text = || join(line.options(Owner::Target));
    let opaque =
        |undeclared| Ending { action: Some(Action::Opaque(Opaque::new(text()))), undeclared };
    let Some(name) = head.one().filter(|_| !head.negated && heads.next().is_none()) else {
        return opaque(false);
    };
    let mut options = line.options(Owner::Target).filter(|option| !is_head(option));
    let found = chain(name);
    let action = match (found, builtin(name)) {
        (_, Some(verdict)) => options.next().is_none().then_some(Action::Verdict(verdict)),
        (Some(id), None) if head.is(&["-g", "--goto"]) => {
            options.next().is_none().then_some(Action::Verdict(Verdict::Goto(id)))
        }
        (Some(id), None) => options.next().is_none().then_some(Action::Verdict(Verdict::Jump(id))),
        (None, None) => {
            let known = Extension::of(name);
            let undeclared = known.is_none() && !OPAQUE.contains(&name);
            let action = known.and_then(|target| target.lower(options, family));
            let Some(action) = action else { return opaque(undeclared) };
            Some(action)
        }
    };
    match action {
        Some(action) => Ending { action: Some(action), undeclared: false },
        None => opaque(false),
    }
}

fn is_head(option: &OptionRef<'_>) -> bool {
    option.is(&["-j", "--jump", "-g", "--goto"])
}

/// Verdicts, whose names no chain can have.
fn builtin(name: &str) -> Option<Verdict> {
    match name {
        "ACCEPT" => Some(Verdict::Accept),
        "DROP" => Some(Verdict::Drop),
        "RETURN" => Some(Verdict::Return),
        _ => None,
    }
}

/// Extensions that are known to exist and are kept as they are: they change what is not modelled,
/// or take the packet away.
const OPAQUE: [&str; 19] = [
    "DNPT", "DSCP", "ECN", "HL", "HMARK", "IPMARK", "MIRROR", "NFQUEUE", "QUEUE", "ROUTE", "SAME",
    "SET", "SNPT", "SYNPROXY", "TARPIT", "TEE", "TOS", "TPROXY", "TTL",
];

/// Extensions that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extension {
    Reject,
    Mark,
    Connmark,
    Dnat,
    Snat,
    Masquerade,
    Redirect,
    Netmap,
    Ct,
    NoTrack,
    /// Goes on (`XT_CONTINUE`) and changes nothing that rules test or routes read.
    Watches,
}

impl Extension {
    fn of(name: &str) -> Option<Extension> {
        Some(match name {
            "REJECT" => Extension::Reject,
            "MARK" => Extension::Mark,
            "CONNMARK" => Extension::Connmark,
            "DNAT" => Extension::Dnat,
            "SNAT" => Extension::Snat,
            "MASQUERADE" => Extension::Masquerade,
            "REDIRECT" => Extension::Redirect,
            "NETMAP" => Extension::Netmap,
            "CT" => Extension::Ct,
            "NOTRACK" => Extension::NoTrack,
            "LOG" | "NFLOG" | "ULOG" | "TRACE" | "AUDIT" | "CHECKSUM" | "TCPMSS" | "CLASSIFY"
            | "RATEEST" | "IDLETIMER" => Extension::Watches,
            _ => return None,
        })
    }

    fn lower<'l>(
        self,
        options: impl Iterator<Item = OptionRef<'l>>,
        family: Family,
    ) -> Option<Action> {
        let mut options = options;
        match self {
            Extension::Reject => reject(options, family),
            Extension::Mark => set_mark(options),
            Extension::Connmark => connmark(options),
            Extension::Dnat => nat(NatKind::Dnat, options, family),
            Extension::Snat => nat(NatKind::Snat, options, family),
            Extension::Masquerade => nat(NatKind::Masquerade, options, family),
            Extension::Redirect => nat(NatKind::Redirect, options, family),
            Extension::Netmap => netmap(options, family),
            Extension::Ct => ct(options),
            Extension::NoTrack => options.next().is_none().then_some(Action::NoTrack),
            Extension::Watches => Some(Action::Log),
        }
    }
}

fn reject<'l>(mut options: impl Iterator<Item = OptionRef<'l>>, family: Family) -> Option<Action> {
    let default = match family {
        Family::V4 => "icmp-port-unreachable",
        Family::V6 => "icmp6-port-unreachable",
    };
    let with = match options.next() {
        None => default,
        Some(option) => option.one().filter(|_| option.is(&["--reject-with"]))?,
    };
    options.next().is_none().then_some(Action::Reject { with: with.into() })
}

/// `(field & ~mask) ^ value` (mark_tg in net/netfilter/xt_mark.c).
fn replaced(field: Field, mask: u32, value: Expr) -> Expr {
    if mask == u32::MAX {
        return value;
    }
    let kept = Expr::masked(Expr::Field(field), !mask);
    match value {
        Expr::Const(Value::Number(0)) => kept,
        value => Expr::bits(BitOp::Xor, kept, value),
    }
}

/// The five ways in which MARK and CONNMARK set a mark (libxt_MARK.c, libxt_CONNMARK.c): mask and
/// value of `(mark & ~mask) ^ value`.
fn mark_operation(option: &OptionRef<'_>) -> Option<(u32, u32)> {
    let text = option.one().filter(|_| !option.negated)?;
    Some(match option.name {
        "--set-xmark" => {
            let (value, mask) = mark(text)?;
            (mask, value)
        }
        "--set-mark" => {
            let (value, mask) = mark(text)?;
            (value | mask, value)
        }
        "--and-mark" => (!number(text)?, 0),
        "--or-mark" => (number(text)?, number(text)?),
        "--xor-mark" => (0, number(text)?),
        _ => return None,
    })
}

fn set_mark<'l>(mut options: impl Iterator<Item = OptionRef<'l>>) -> Option<Action> {
    let (mask, value) = mark_operation(&options.next()?)?;
    let new = replaced(Field::Mark, mask, Expr::number(value));
    options.next().is_none().then_some(Action::SetMark(new))
}

/// net/netfilter/xt_connmark.c. Restoring without a connection changes nothing: the field is
/// absent then, which ends the rule.
fn connmark<'l>(options: impl Iterator<Item = OptionRef<'l>>) -> Option<Action> {
    let mut operation = None;
    let (mut nfmask, mut ctmask) = (u32::MAX, u32::MAX);
    for option in options {
        match option.name {
            "--nfmask" => nfmask = number(option.one()?)?,
            "--ctmask" => ctmask = number(option.one()?)?,
            "--mask" => {
                nfmask = number(option.one()?)?;
                ctmask = nfmask;
            }
            _ if operation.is_none() => operation = Some(option),
            _ => return None,
        }
        if option.negated {
            return None;
        }
    }
    let operation = operation?;
    Some(match operation.name {
        "--save-mark" if operation.is_switch() => {
            let saved = Expr::masked(Expr::Field(Field::Mark), nfmask);
            Action::SetCtMark(replaced(Field::CtMark, ctmask, saved))
        }
        "--restore-mark" if operation.is_switch() => {
            let restored = Expr::masked(Expr::Field(Field::CtMark), ctmask);
            Action::SetMark(replaced(Field::Mark, nfmask, restored))
        }
        _ => {
            let (mask, value) = mark_operation(&operation)?;
            Action::SetCtMark(replaced(Field::CtMark, mask, Expr::number(value)))
        }
    })
}

/// `--notrack` is NOTRACK; the others set up what the first packet's walk doesn't see.
fn ct<'l>(options: impl Iterator<Item = OptionRef<'l>>) -> Option<Action> {
    let mut action = Action::CtTemplate;
    for option in options {
        match option.name {
            "--notrack" if option.is_switch() => action = Action::NoTrack,
            "--zone" | "--zone-orig" | "--zone-reply" | "--helper" | "--timeout" | "--ctevents"
            | "--expevents" => {}
            _ => return None,
        }
    }
    Some(action)
}

fn nat<'l>(
    kind: NatKind,
    options: impl Iterator<Item = OptionRef<'l>>,
    family: Family,
) -> Option<Action> {
    let (to, needs_to) = match kind {
        NatKind::Dnat => ("--to-destination", true),
        NatKind::Snat => ("--to-source", true),
        NatKind::Masquerade | NatKind::Redirect => ("--to-ports", false),
        NatKind::Netmap(_) => return None,
    };
    let mut range = None;
    let mut random = false;
    for option in options {
        match option.name {
            "--random" | "--random-fully" if option.is_switch() => random = true,
            "--persistent" if option.is_switch() && needs_to => {}
            name if (name == to || !needs_to && name == "--to-port") && range.is_none() => {
                let text = option.one().filter(|_| !option.negated)?;
                range = Some(if needs_to {
                    nat_range(text, family)?
                } else {
                    (None, Some(nat_ports(text)?))
                });
            }
            _ => return None,
        }
    }
    if needs_to && range.is_none() {
        return None;
    }
    let (address, ports) = range.unwrap_or_default();
    Some(Action::Nat(Nat { kind, family: None, address, ports, random }))
}

/// `ADDRESS[-ADDRESS][:PORT[-PORT]]`, IPv6 addresses in brackets where a port follows. A shifted
/// range (`:PORT-PORT/BASE`) is not understood.
fn nat_range(text: &str, family: Family) -> Option<(Option<NatAddress>, Option<NatPorts>)> {
    if let Some(ports) = text.strip_prefix(':').and_then(nat_ports) {
        return Some((None, Some(ports)));
    }
    let (addresses, ports) = match (family, text.strip_prefix('[')) {
        (Family::V4, _) => match text.split_once(':') {
            Some((addresses, ports)) => (addresses, Some(ports)),
            None => (text, None),
        },
        (Family::V6, None) => (text, None),
        (Family::V6, Some(rest)) => {
            let (addresses, rest) = rest.split_once(']')?;
            let ports = if rest.is_empty() { None } else { Some(rest.strip_prefix(':')?) };
            (addresses, ports)
        }
    };
    let ports = match ports {
        Some(text) => Some(nat_ports(text)?),
        None => None,
    };
    Some((Some(nat_address(addresses, family)?), ports))
}

fn nat_address(text: &str, family: Family) -> Option<NatAddress> {
    let exactly = |address: IpAddr| NatAddress::Expr(Expr::Const(Value::address(address)));
    let Some((low, high)) = text.split_once('-') else {
        return Some(exactly(value::address(text, family)?));
    };
    let (low, high) = (value::address(low, family)?, value::address(high, family)?);
    match low.cmp(&high) {
        std::cmp::Ordering::Less => Some(NatAddress::Range(low, high)),
        std::cmp::Ordering::Equal => Some(exactly(low)),
        std::cmp::Ordering::Greater => None,
    }
}

fn nat_ports(text: &str) -> Option<NatPorts> {
    let Some((low, high)) = text.split_once('-') else {
        return Some(NatPorts::Expr(Expr::number(port(text)?)));
    };
    let (low, high) = (port(low)?, port(high)?);
    match low.cmp(&high) {
        std::cmp::Ordering::Less => Some(NatPorts::Range(low, high)),
        std::cmp::Ordering::Equal => Some(NatPorts::Expr(Expr::number(low))),
        std::cmp::Ordering::Greater => None,
    }
}

fn netmap<'l>(mut options: impl Iterator<Item = OptionRef<'l>>, family: Family) -> Option<Action> {
    let option = options.next()?;
    let text = option.one().filter(|_| option.is(&["--to"]) && !option.negated)?;
    let to = Network::read(text, family)?.prefix()?;
    let kind = NatKind::Netmap(to);
    let nat = Nat { kind, family: None, address: None, ports: None, random: false };
    options.next().is_none().then_some(Action::Nat(nat))
}
