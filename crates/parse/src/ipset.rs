//! `ipset save` output.
//!
//! Text in, sets by name and diagnostics out. `create` and `add` lines are read; a set of a type
//! or with an option that is not modelled is [`Content::Opaque`], an element that can't be read
//! makes a miss in its set unknown ([`IpSet::opaque`]). Ranges and subnets, which a person may
//! write and `ipset save` doesn't, are spread out.

use std::collections::BTreeMap;

use unmasq_model::ipset::{Content, Flags, HashKind, HashSet, IpSet};
use unmasq_model::origin::{Diagnostic, FileId, Opaque, Origin};
use unmasq_model::packet::Family;

mod element;
#[cfg(test)]
mod tests;

/// Reads the sets of one file.
pub fn parse(text: &str, file: FileId) -> (BTreeMap<Box<str>, IpSet>, Vec<Diagnostic>) {
    let mut reader = Reader::default();
    let mut number = 0;
    for line in text.lines() {
        number += 1;
        let origin = Origin::new(file, number);
        if let Err(message) = reader.read(origin, line.trim()) {
            reader.diagnostics.push(Diagnostic { origin, message });
        }
    }
    (reader.sets, reader.diagnostics)
}

#[derive(Default)]
struct Reader<'t> {
    sets: BTreeMap<Box<str>, IpSet>,
    /// By set: the timeout of elements that name none.
    timeouts: BTreeMap<&'t str, u32>,
    diagnostics: Vec<Diagnostic>,
}

impl<'t> Reader<'t> {
    fn read(&mut self, origin: Origin, line: &'t str) -> Result<(), String> {
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            None => Ok(()),
            Some(word) if word.starts_with('#') => Ok(()),
            Some("create" | "-N" | "n") => self.create(origin, line, words),
            Some("add" | "-A" | "a") => self.add(line, words),
            Some(command) => Err(format!("command {command} can't be followed")),
        }
    }

    fn create(
        &mut self,
        origin: Origin,
        line: &'t str,
        mut words: impl Iterator<Item = &'t str>,
    ) -> Result<(), String> {
        let (Some(name), Some(kind)) = (words.next(), words.next()) else {
            return Err("a set needs a name and a type".to_owned());
        };
        if let Some(set) = self.sets.get_mut(name) {
            set.opaque.get_or_insert_with(|| Opaque::new(line));
            return Err(format!("set {name} is created twice"));
        }
        let options = Options::read(words);
        let content = options.as_ref().and_then(|options| options.content(kind));
        let problem = match (&content, HASH_KINDS.iter().any(|(known, _)| *known == kind)) {
            (None, true) => Some(format!("set {name} has options that are not understood")),
            (Some(_) | None, _) => None,
        };
        self.timeouts.insert(name, options.map_or(0, |options| options.timeout));
        let content = content.unwrap_or_else(|| Content::Opaque(Opaque::new(line)));
        let set = IpSet { name: name.into(), content, opaque: None, origin };
        self.sets.insert(name.into(), set);
        problem.map_or(Ok(()), Err)
    }

    fn add(
        &mut self,
        line: &'t str,
        mut words: impl Iterator<Item = &'t str>,
    ) -> Result<(), String> {
        let (Some(name), Some(element)) = (words.next(), words.next()) else {
            // Whose it was can't be told.
            for set in self.sets.values_mut() {
                set.opaque.get_or_insert_with(|| Opaque::new(line));
            }
            return Err("an element needs a set and a value".to_owned());
        };
        let Some(set) = self.sets.get_mut(name) else {
            return Err(format!("set {name} is not created before"));
        };
        let default = self.timeouts.get(name).copied().unwrap_or_default();
        let added = flags(words, default).and_then(|flags| insert(set, element, flags));
        if added.is_none() {
            set.opaque.get_or_insert_with(|| Opaque::new(line));
            return Err(format!("element {element} of set {name} can't be read"));
        }
        Ok(())
    }
}

const HASH_KINDS: [(&str, HashKind); 5] = [
    ("hash:ip", HashKind::Ip),
    ("hash:net", HashKind::Net),
    ("hash:ip,port", HashKind::IpPort),
    ("hash:ip,port,ip", HashKind::IpPortIp),
    ("hash:ip,port,net", HashKind::IpPortNet),
];

/// What `create` says that matters.
struct Options {
    family: Family,
    netmask: Option<u8>,
    timeout: u32,
}

impl Options {
    /// `None`: an option is not understood, and may change what matches.
    fn read<'t>(mut words: impl Iterator<Item = &'t str>) -> Option<Options> {
        let mut options = Options { family: Family::V4, netmask: None, timeout: 0 };
        while let Some(word) = words.next() {
            match word {
                "family" => {
                    options.family = match words.next()? {
                        "inet" => Family::V4,
                        "inet6" => Family::V6,
                        _ => return None,
                    };
                }
                "netmask" => options.netmask = Some(words.next()?.parse().ok()?),
                "timeout" => options.timeout = words.next()?.parse().ok()?,
                // An element outside a range can't be added, so the range adds nothing.
                "hashsize" | "maxelem" | "bucketsize" | "initval" | "probes" | "resize" | "gc"
                | "size" | "range" => {
                    words.next()?;
                }
                "counters" | "comment" | "skbinfo" | "forceadd" => {}
                _ => return None,
            }
        }
        Some(options)
    }

    fn content(&self, kind: &str) -> Option<Content> {
        if let Some((_, kind)) = HASH_KINDS.iter().find(|(known, _)| *known == kind) {
            let fits = match self.netmask {
                None => true,
                // Newer kernels take a netmask for other types too, where it means more.
                Some(length) => *kind == HashKind::Ip && length <= self.family.bits(),
            };
            return fits.then(|| Content::Hash(HashSet::new(*kind, self.family, self.netmask)));
        }
        match kind {
            "bitmap:port" => Some(Content::BitmapPort(BTreeMap::new())),
            "list:set" => Some(Content::List(Vec::new())),
            _ => None,
        }
    }
}

/// What follows an element. `None`: a word is not understood.
fn flags<'t>(mut words: impl Iterator<Item = &'t str>, default_timeout: u32) -> Option<Flags> {
    let mut flags = Flags { nomatch: false, expires: default_timeout != 0 };
    while let Some(word) = words.next() {
        match word {
            "nomatch" => flags.nomatch = true,
            // 0 is forever.
            "timeout" => flags.expires = words.next()?.parse::<u32>().ok()? != 0,
            "packets" | "bytes" | "skbmark" | "skbprio" | "skbqueue" | "before" | "after" => {
                words.next()?;
            }
            "comment" => skip_quoted(&mut words)?,
            _ => return None,
        }
    }
    Some(flags)
}

/// A comment holds no quotes (ipset refuses them), but may hold what looks like an option.
fn skip_quoted<'t>(words: &mut impl Iterator<Item = &'t str>) -> Option<()> {
    let first = words.next()?;
    let Some(rest) = first.strip_prefix('"') else { return Some(()) };
    let closed = rest.ends_with('"') || words.any(|word| word.ends_with('"'));
    closed.then_some(())
}

fn insert(set: &mut IpSet, text: &str, flags: Flags) -> Option<()> {
    match &mut set.content {
        Content::Hash(set) => {
            for element in element::hash(text, set.kind, set.family, set.netmask)? {
                set.insert(element, flags);
            }
        }
        Content::BitmapPort(ports) => {
            let text = text.split_once(':').map_or(text, |(_, ports)| ports);
            let (low, high) = element::ports(text)?;
            ports.extend((low..=high).map(|port| (port, flags)));
        }
        // That a member may go is not said in the model: then a miss has to be unknown.
        Content::List(_) if flags.expires => return None,
        Content::List(names) => names.push(text.into()),
        // The type is opaque, and with it all elements.
        Content::Opaque(_) => {}
    }
    Some(())
}
