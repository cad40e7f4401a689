//! Values in rules: addresses with masks, ports, marks, numbers, names of bits.
//!
//! Text in, model values and tests out. `None` means "not understood": the caller keeps the text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use unmasq_model::expr::{BitOp, Expr, Field};
use unmasq_model::packet::Family;
use unmasq_model::rule::{Comparison, Test};

/// A number as `xtables_strtoui` reads it with base 0: `0x1f`, `017`, `15`.
pub(super) fn number(text: &str) -> Option<u32> {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u32::from_str_radix(hex, 16).ok();
    }
    match text.strip_prefix('0') {
        Some(octal) if !octal.is_empty() => u32::from_str_radix(octal, 8).ok(),
        Some(_) | None => text.parse().ok(),
    }
}

/// `value` or `value/mask`; the mask is all ones where there is none.
pub(super) fn mark(text: &str) -> Option<(u32, u32)> {
    match text.split_once('/') {
        Some((value, mask)) => Some((number(value)?, number(mask)?)),
        None => Some((number(text)?, u32::MAX)),
    }
}

/// `(field & mask) == value` (mark_mt in net/netfilter/xt_mark.c).
pub(super) fn masked(field: Field, text: &str, negated: bool) -> Option<Test> {
    let (value, mask) = mark(text)?;
    let left = Expr::masked(Expr::Field(field), mask);
    Some(Test::Compare { left, op: equal(negated), right: Expr::number(value) })
}

/// `==`, or `!=` for a negated test.
pub(super) fn equal(negated: bool) -> Comparison {
    if negated { Comparison::Ne } else { Comparison::Eq }
}

/// A test of a field against one number, or a range of them.
pub(super) fn within(field: Field, low: u128, high: u128, negated: bool) -> Test {
    let left = Expr::Field(field);
    if low == high {
        Test::Compare { left, op: equal(negated), right: Expr::number(low) }
    } else {
        Test::Range { left, low, high, negated }
    }
}

/// A port: a number. Listings never have service names.
pub(super) fn port(text: &str) -> Option<u16> {
    u16::try_from(number(text)?).ok()
}

/// `80`, `80:90`, `80:`, `:90` with `:`, or with the separator given.
pub(super) fn port_range(text: &str, separator: char) -> Option<(u16, u16)> {
    let Some((low, high)) = text.split_once(separator) else {
        return port(text).map(|port| (port, port));
    };
    let low = if low.is_empty() { 0 } else { port(low)? };
    let high = if high.is_empty() { u16::MAX } else { port(high)? };
    (low <= high).then_some((low, high))
}

/// An address of the family.
pub(super) fn address(text: &str, family: Family) -> Option<IpAddr> {
    match family {
        Family::V4 => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        Family::V6 => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
    }
}

/// The bits of an address.
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

const FULL_V4: u128 = 0xffff_ffff;

/// An address with its mask, as bits; `/24`, `/255.255.255.0` and `/ffff:ffff::` are masks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    base: u128,
    mask: u128,
    full: u128,
}

impl Network {
    /// Reads one; host bits are cleared, as iptables does.
    pub(super) fn read(text: &str, family: Family) -> Option<Network> {
        let full = match family {
            Family::V4 => FULL_V4,
            Family::V6 => u128::MAX,
        };
        let (base, mask) = match text.split_once('/') {
            None => (text, full),
            Some((base, mask)) => (base, read_mask(mask, full, family)?),
        };
        Some(Network { base: bits(address(base, family)?) & mask, mask, full })
    }

    /// Whether every address is in it.
    pub(super) fn is_all(self) -> bool {
        self.mask == 0
    }

    /// The length of its mask; `None` for a mask with gaps.
    pub(super) fn prefix_len(self) -> Option<u8> {
        let host = self.full ^ self.mask;
        let contiguous = host & host.wrapping_add(1) == 0;
        contiguous.then_some(u8::try_from(self.mask.count_ones()).ok()?)
    }

    /// The network; `None` for a mask with gaps.
    pub(super) fn prefix(self) -> Option<IpNet> {
        let base = match self.full {
            FULL_V4 => IpAddr::V4(Ipv4Addr::from(u32::try_from(self.base).ok()?)),
            _ => IpAddr::V6(Ipv6Addr::from(self.base)),
        };
        IpNet::new(base, self.prefix_len()?).ok()
    }

    /// The test that a field is in it: one of the shapes that the evaluator indexes on, except
    /// for masks with gaps.
    pub(super) fn test(self, field: Field, negated: bool) -> Test {
        if self.prefix_len().is_some() {
            return within(field, self.base, self.base | (self.full ^ self.mask), negated);
        }
        let left = Expr::bits(BitOp::And, Expr::Field(field), Expr::number(self.mask));
        Test::Compare { left, op: equal(negated), right: Expr::number(self.base) }
    }
}

fn read_mask(text: &str, full: u128, family: Family) -> Option<u128> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return address(text, family).map(bits);
    }
    let length: u8 = text.parse().ok()?;
    if length > family.bits() {
        return None;
    }
    let host = full.checked_shr(u32::from(length)).unwrap_or(0);
    Some(full ^ host)
}

/// The bits of a list of names (`NEW,ESTABLISHED`), case ignored as iptables does.
pub(super) fn flags(text: &str, names: &[(&str, u32)]) -> Option<u32> {
    text.split(',').try_fold(0, |bits, name| {
        let (_, bit) = names.iter().find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(bits | bit)
    })
}
