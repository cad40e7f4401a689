//! The entries of a listing, and the fields of an entry.
//!
//! Fields are taken one by one; what is left over is what nobody understood. A derived struct
//! would not do: an encapsulation repeats keys of the route that it belongs to (`ip route add …
//! encap ip dst …` prints a second `dst`), of which the first is the route's own.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use unmasq_model::origin::{Diagnostic, FileId, Origin};
use unmasq_model::packet::Family;

/// One element of a listing, not yet looked into.
pub(super) struct Entry<'a> {
    /// As it was read.
    pub(super) text: &'a str,
    /// Where it begins.
    pub(super) origin: Origin,
}

/// The elements of a listing; `{}`, which iproute2 prints for what it filtered out, is skipped.
/// `Err`: the text is not a list.
pub(super) fn entries(text: &str, file: FileId) -> Result<Vec<Entry<'_>>, Diagnostic> {
    let raw: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| Diagnostic {
        origin: Origin::new(file, u32::try_from(error.line()).unwrap_or(u32::MAX).max(1)),
        message: match text.trim() {
            "" => "the file is empty: an empty list would be []".to_owned(),
            _ => format!("not a JSON list of iproute2: {error}"),
        },
    })?;
    let mut line = 1;
    let mut counted = 0;
    let mut found = Vec::with_capacity(raw.len());
    for value in raw {
        let value = value.get();
        let start = value.as_ptr() as usize - text.as_ptr() as usize;
        let newlines = text.as_bytes()[counted..start].iter().filter(|b| **b == b'\n').count();
        line += u32::try_from(newlines).unwrap_or(0);
        counted = start;
        if value.trim_start_matches('{').trim() != "}" {
            found.push(Entry { text: value, origin: Origin::new(file, line) });
        }
    }
    Ok(found)
}

impl<'a> Entry<'a> {
    /// The entry's fields.
    pub(super) fn fields(&self) -> Result<Fields<'a>, String> {
        serde_json::from_str(self.text).map_err(|error| format!("not a JSON object: {error}"))
    }

    /// A diagnostic at the entry.
    pub(super) fn diagnostic(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic { origin: self.origin, message: message.into() }
    }
}

/// The fields of an object in the order written, duplicates kept.
pub(super) struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Takes out a field; of several with one name, the first.
    pub(super) fn take(&mut self, key: &str) -> Option<&'a RawValue> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.remove(index).1)
    }

    /// Takes out a field whose presence is what it says (`"not": null`).
    pub(super) fn take_flag(&mut self, key: &str) -> bool {
        self.take(key).is_some()
    }

    /// Takes out a string, or a number as text. `Err`: it is neither.
    pub(super) fn take_text(&mut self, key: &str) -> Result<Option<String>, String> {
        self.take_as(key, text)
    }

    /// Takes out a number, written as a JSON number or as a decimal or hexadecimal string.
    /// `Err`: it is none, or too large.
    pub(super) fn take_number<N: TryFrom<u64>>(&mut self, key: &str) -> Result<Option<N>, String> {
        self.take_as(key, |raw| N::try_from(number(raw)?).ok())
    }

    /// Takes out an address.
    pub(super) fn take_address(&mut self, key: &str) -> Result<Option<IpAddr>, String> {
        self.take_as(key, |raw| text(raw)?.parse().ok())
    }

    /// Takes out a list of strings; an absent one is empty.
    pub(super) fn take_list(&mut self, key: &str) -> Result<Vec<String>, String> {
        let list = self.take_as(key, |raw| serde_json::from_str(raw.get()).ok())?;
        Ok(list.unwrap_or_default())
    }

    /// Whether something is left that is not in `harmless`.
    pub(super) fn has_others_than(&self, harmless: &[&str]) -> bool {
        self.0.iter().any(|(name, _)| !harmless.contains(&name.as_str()))
    }

    fn take_as<T>(
        &mut self,
        key: &str,
        read: impl Fn(&'a RawValue) -> Option<T>,
    ) -> Result<Option<T>, String> {
        let Some(raw) = self.take(key) else {
            return Ok(None);
        };
        read(raw).map(Some).ok_or_else(|| format!("unreadable {key}: {}", raw.get()))
    }
}

/// A network as iproute2 prints it: `default`, `all`, an address, or an address with a length.
/// `family` is that of `default`.
pub(super) fn network(text: &str, family: Family) -> Option<IpNet> {
    match text {
        "default" | "all" | "any" => Some(everything(family)),
        _ => match text.parse() {
            Ok(net) => Some(net),
            Err(_) => text.parse::<IpAddr>().ok().map(IpNet::from),
        },
    }
}

/// The network of all addresses.
pub(super) fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => IpNet::V4(ipnet::Ipv4Net::default()),
        Family::V6 => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// A TOS byte, as a number or by its name in iproute2's rt_dsfield.
pub(super) fn tos(text: &str) -> Option<u8> {
    const NAMES: [(&str, u8); 22] = [
        ("default", 0x00),
        ("CS1", 0x20),
        ("CS2", 0x40),
        ("CS3", 0x60),
        ("CS4", 0x80),
        ("CS5", 0xa0),
        ("CS6", 0xc0),
        ("CS7", 0xe0),
        ("AF11", 0x28),
        ("AF12", 0x30),
        ("AF13", 0x38),
        ("AF21", 0x48),
        ("AF22", 0x50),
        ("AF23", 0x58),
        ("AF31", 0x68),
        ("AF32", 0x70),
        ("AF33", 0x78),
        ("AF41", 0x88),
        ("AF42", 0x90),
        ("AF43", 0x98),
        ("EF", 0xb8),
        ("lowdelay", 0x10),
    ];
    match NAMES.iter().find(|(name, _)| *name == text) {
        Some((_, value)) => Some(*value),
        None => u8::try_from(parse_number(text)?).ok(),
    }
}

fn text(raw: &RawValue) -> Option<String> {
    let raw = raw.get();
    match raw.as_bytes().first()? {
        b'"' => serde_json::from_str(raw).ok(),
        b'0'..=b'9' | b'-' => Some(raw.to_owned()),
        _ => None,
    }
}

fn number(raw: &RawValue) -> Option<u64> {
    parse_number(&text(raw)?)
}

fn parse_number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some(entry) = map.next_entry()? {
            fields.push(entry);
        }
        Ok(Fields(fields))
    }
}
