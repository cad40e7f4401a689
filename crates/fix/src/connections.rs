//! Connections that keep the translation that they began with.
//!
//! nat rules are asked about a connection's first packet only, and what they said is kept with it:
//! after a change, connections from before it still arrive with the old source.
//!
//! ```text
//!  conntrack's listing ─ parse ─▶ Entry ─ its first packet again ─▶ before: rewritten ─┬─▶ kept
//!                                                                   after:  kept      ─┘
//! ```
//!
//! In: a listing and two states of a node. Out: the entries whose source would be kept if they began
//! now. Those of other rules, and those to where the change still translates, aren't among them.

use std::net::IpAddr;

use unmasq_eval::Evaluator;
use unmasq_eval::trace::{Disposition, Options, Outcome, Query};
use unmasq_model::host::Host;
use unmasq_model::packet::{Packet, Protocol, Transport};

/// A connection as conntrack lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its first packet.
    pub packet: Packet,
    /// For ICMP: its number.
    pub id: Option<u16>,
    /// Where its answers come from: the destination, translated.
    pub destination: IpAddr,
    /// Where its answers go: the source, translated.
    pub source: IpAddr,
    /// The zone; 0: none.
    pub zone: u16,
}

/// `tcp 10.1.0.7:41000 -> 10.2.0.8:80, as 10.0.0.1`
impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Packet { protocol, source, destination, transport, .. } = &self.packet;
        let (from, to) = match transport {
            Transport::Ports { source, destination } => (*source, *destination),
            Transport::Icmp { .. } | Transport::Other => (None, None),
        };
        let end = |address: &IpAddr, port: Option<u16>| match (address, port) {
            (address, None) => address.to_string(),
            (IpAddr::V4(address), Some(port)) => format!("{address}:{port}"),
            (IpAddr::V6(address), Some(port)) => format!("[{address}]:{port}"),
        };
        write!(
            f,
            "{protocol} {} -> {}, as {}",
            end(source, from),
            end(destination, to),
            self.source
        )
    }
}

/// Connections of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The node.
    pub node: String,
    /// Those that keep their old translation; `None`: what there are was not captured.
    pub entries: Option<Vec<Entry>>,
}

/// Reads /proc/net/nf_conntrack, or what `conntrack -L -o extended` prints: what it has that is a
/// connection of an IP protocol with all that names it.
pub fn parse(text: &str) -> Vec<Entry> {
    text.lines().filter_map(entry).collect()
}

fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split_whitespace();
    let family = words.next()?;
    if !matches!(family, "ipv4" | "ipv6") {
        return None;
    }
    let protocol = Protocol(words.nth(2)?.parse().ok()?);
    let fields: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
    let all = |key: &str| -> Vec<&str> {
        fields.iter().filter(|(one, _)| *one == key).map(|(_, value)| *value).collect()
    };
    let addresses = |key: &str| -> Option<(IpAddr, IpAddr)> {
        let all = all(key);
        Some((all.first()?.parse().ok()?, all.get(1)?.parse().ok()?))
    };
    let number = |key: &str| all(key).first().and_then(|value| value.parse::<u16>().ok());
    let ((source, answered), (destination, answer)) = (addresses("src")?, addresses("dst")?);
    let small = |key: &str| number(key).and_then(|number| u8::try_from(number).ok());
    let transport = match (number("sport"), number("dport"), small("type"), small("code")) {
        (Some(source), Some(destination), _, _) => {
            Transport::Ports { source: Some(source), destination: Some(destination) }
        }
        (_, _, Some(kind), Some(code)) => Transport::Icmp { kind, code },
        _ => Transport::Other,
    };
    Some(Entry {
        packet: Packet { protocol, source, destination, transport, mark: 0, ttl: None },
        id: number("id"),
        destination: answered,
        source: answer,
        // One that only one direction has is none that can be told from here.
        zone: number("zone").unwrap_or(0),
    })
}

/// The entries of a node whose source was rewritten by what `before` had and `after` hasn't.
pub fn kept(before: &Host, after: &Host, entries: Vec<Entry>) -> Vec<Entry> {
    let (old, new) =
        (Evaluator::new(before, Options::default()), Evaluator::new(after, Options::default()));
    let ask = |evaluator: &Evaluator<'_>, entry: &Entry| -> Vec<Outcome> {
        let outcomes = evaluator.trace(&Query::opening(entry.packet.clone(), None)).outcomes;
        // Of several endpoints, the one that it has.
        let there = |one: &Outcome| one.destination.after.address == Some(entry.destination);
        outcomes.into_iter().filter(there).collect()
    };
    let is_kept = |entry: &Entry| {
        if entry.source == entry.packet.source {
            return false;
        }
        let rewritten = |one: &Outcome| {
            let to = one.source.after.address;
            one.source.disposition == Disposition::Rewritten
                && to.is_none_or(|to| to == entry.source)
        };
        let (was, is) = (ask(&old, entry), ask(&new, entry));
        let preserved = |one: &Outcome| one.source.disposition == Disposition::Preserved;
        was.iter().any(rewritten) && !is.is_empty() && is.iter().all(preserved)
    };
    entries.into_iter().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_are_read() {
        // As Linux 6.x prints them: /proc/net/nf_conntrack, and conntrack -L -o extended.
        let text = "\
ipv4     2 tcp      6 431999 ESTABLISHED src=172.7.21.2 dst=172.7.22.2 sport=41000 dport=80 \
src=172.7.22.2 dst=10.4.7.21 sport=80 dport=41000 [ASSURED] mark=0 zone=0 use=2
ipv4     2 icmp     1 29 src=172.7.21.2 dst=10.0.0.9 type=8 code=0 id=7 [UNREPLIED] \
src=10.0.0.9 dst=10.4.7.21 type=0 code=0 id=7 mark=0 use=1
ipv6     10 udp      17 25 src=fd00::1 dst=fd00::2 sport=5 dport=53 packets=1 bytes=60 \
src=fd00:1::2 dst=fd00::1 sport=53 dport=5 packets=0 bytes=0 mark=0 zone=7 use=2
conntrack v1.4.7 (conntrack-tools): 3 flow entries have been shown.
";
        let entries = parse(text);
        let told: Vec<String> = entries.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "tcp 172.7.21.2:41000 -> 172.7.22.2:80, as 10.4.7.21",
                "icmp 172.7.21.2 -> 10.0.0.9, as 10.4.7.21",
                "udp [fd00::1]:5 -> [fd00::2]:53, as fd00::1",
            ]
        );
        assert_eq!((entries[1].id, entries[2].zone), (Some(7), 7));
        assert_eq!(entries[2].destination, "fd00:1::2".parse::<IpAddr>().unwrap());
    }
}
