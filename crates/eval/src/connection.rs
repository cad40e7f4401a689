//! A connection after its first packet: what conntrack keeps of it, and the packets that follow.
//!
//! In: an [`Outcome`] of the packet that opened the connection. Out: the [`Query`] of its answer,
//! or of a further packet. Such packets meet no nat rule: the kernel translates them from the
//! connection's entry (net/netfilter/nf_nat_core.c, `nf_nat_inet_fn`, `nf_nat_packet`).
//!
//! ```text
//! original   source.before ─▶ destination.before     as the opening packet came
//! reply      destination.after ─▶ source.after       as the answer comes
//! ```

use unmasq_model::expr::{Direction, End};
use unmasq_model::packet::{Packet, Protocol, Transport};

use crate::trace::{Disposition, Endpoint, Outcome, Port, Query, Rewrite, Verdict};

/// A connection as conntrack keeps it once its first packet has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tracked {
    /// Its source, as it came and as it went on.
    pub source: Rewrite,
    /// Its destination, likewise.
    pub destination: Rewrite,
    /// The connection's mark.
    pub mark: u32,
    /// `IPS_SRC_NAT_DONE`: the source's translation is settled, even if there is none. Without
    /// it, the connection began before the node had nat chains.
    pub source_done: bool,
    /// `IPS_DST_NAT_DONE`, likewise.
    pub destination_done: bool,
    /// The device that it was masqueraded for (`nf_conn_nat.masq_index`).
    pub masqueraded: Option<Box<str>>,
}

/// A packet that follows the first of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Later {
    /// The connection; `None`: the opening packet was not tracked.
    pub connection: Option<Tracked>,
    /// Which way the packet goes.
    pub direction: Direction,
    /// Whether an answer was seen before: until then a further packet still counts as new.
    pub answered: bool,
}

impl Outcome {
    /// The answer to the packet that ended so, from where it ended, with mark 0 and a time to live
    /// that nobody named. `None` for a packet that arrived nowhere, or nobody knows where, and for
    /// one that nobody answers.
    pub fn answer(&self, opening: &Packet, in_device: Option<Box<str>>) -> Option<Query> {
        if !matches!(self.verdict, Verdict::Delivered | Verdict::Forwarded) {
            return None;
        }
        self.reply(opening, in_device, self.tracked.clone())
    }

    /// What the host that refused a packet sends for it, as an answer of the connection: the error
    /// or the reset has the packet's entry, although that was never confirmed (`nf_ct_attach` in
    /// net/ipv4/icmp.c, `icmp_glue_bits`, and net/ipv4/netfilter/nf_reject_ipv4.c,
    /// `nf_send_reset`), and is translated by it.
    pub(crate) fn refusal(&self, refused: &Query) -> Option<Query> {
        let known = refused.later.as_ref().and_then(|later| later.connection.clone());
        let begun = Tracked {
            source: self.source.clone(),
            destination: self.destination.clone(),
            mark: 0,
            source_done: true,
            destination_done: true,
            masqueraded: None,
        };
        self.reply(&refused.packet, None, known.or(Some(begun)))
    }

    fn reply(
        &self,
        opening: &Packet,
        in_device: Option<Box<str>>,
        connection: Option<Tracked>,
    ) -> Option<Query> {
        let (source, destination) = (self.destination.after, self.source.after);
        let packet = Packet {
            protocol: opening.protocol,
            source: source.address?,
            destination: destination.address?,
            transport: match opening.transport {
                Transport::Ports { .. } => {
                    let (source, destination) = (source.exact_port(), destination.exact_port());
                    Transport::Ports { source, destination }
                }
                Transport::Icmp { kind, code } => {
                    // Echo and, in IPv4, timestamp (RFC 792, RFC 4443): nothing else is answered.
                    let kind = match (opening.protocol, kind) {
                        (Protocol::ICMP, 8) => 0,
                        (Protocol::ICMP, 13) => 14,
                        (Protocol::ICMPV6, 128) => 129,
                        _ => return None,
                    };
                    Transport::Icmp { kind, code }
                }
                Transport::Other => Transport::Other,
            },
            mark: 0,
            ttl: None,
        };
        let later = Later { connection, direction: Direction::Reply, answered: false };
        Some(Query { packet, in_device, later: Some(later) })
    }

    /// A further packet like the opening one.
    pub fn further(&self, opening: &Query, answered: bool) -> Query {
        let connection = self.tracked.clone();
        let later = Later { connection, direction: Direction::Original, answered };
        Query { later: Some(later), ..opening.clone() }
    }
}

impl Later {
    /// Where an end of the packet is translated to; `None`: it isn't.
    ///
    /// `nf_nat_packet`: the status bit of the end, the other one's in the direction of the answer.
    pub(crate) fn translated(&self, end: End) -> Option<Endpoint> {
        let Tracked { source, destination, .. } = self.connection.as_ref()?;
        let (rewrite, forward) = match (self.direction, end) {
            (Direction::Original, End::Source) => (source, true),
            (Direction::Original, End::Destination) => (destination, true),
            (Direction::Reply, End::Destination) => (source, false),
            (Direction::Reply, End::Source) => (destination, false),
        };
        let to = if forward { rewrite.after } else { rewrite.before };
        changed(rewrite).then_some(to)
    }

    /// Whether this end's translation is settled.
    pub(crate) fn done(&self, end: End) -> bool {
        let source = (end == End::Source) == (self.direction == Direction::Original);
        self.connection.as_ref().is_some_and(|connection| {
            if source { connection.source_done } else { connection.destination_done }
        })
    }

    /// Whether the connection counts as established for this packet.
    pub(crate) fn established(&self) -> bool {
        self.answered || self.direction == Direction::Reply
    }

    /// Whether a packet without an entry makes one: an answer that belongs to nothing is invalid
    /// in protocols that open connections (nf_conntrack_proto_tcp.c, `tcp_new`;
    /// nf_conntrack_proto_icmp.c, `nf_conntrack_icmp_packet`; SCTP, DCCP alike).
    pub(crate) fn opens(&self, protocol: Protocol) -> bool {
        let strict =
            [Protocol::TCP, Protocol::ICMP, Protocol::ICMPV6, Protocol::SCTP, Protocol::DCCP];
        self.direction == Direction::Original || !strict.contains(&protocol)
    }

    /// The flags of a packet that answers a SYN, acknowledges the answer, or repeats the SYN.
    pub(crate) fn tcp_flags(&self) -> u32 {
        const SYN: u32 = 2;
        const ACK: u32 = 16;
        match (self.direction, self.answered) {
            (Direction::Reply, _) => SYN | ACK,
            (Direction::Original, true) => ACK,
            (Direction::Original, false) => SYN,
        }
    }
}

impl Tracked {
    /// An end of one of the connection's tuples, as rules ask for it.
    pub(crate) fn tuple(&self, direction: Direction, end: End) -> Endpoint {
        match (direction, end) {
            (Direction::Original, End::Source) => self.source.before,
            (Direction::Original, End::Destination) => self.destination.before,
            (Direction::Reply, End::Source) => self.destination.after,
            (Direction::Reply, End::Destination) => self.source.after,
        }
    }

    /// `IPS_SRC_NAT`.
    pub(crate) fn source_changed(&self) -> bool {
        changed(&self.source)
    }

    /// `IPS_DST_NAT`.
    pub(crate) fn destination_changed(&self) -> bool {
        changed(&self.destination)
    }
}

fn changed(rewrite: &Rewrite) -> bool {
    rewrite.disposition == Disposition::Rewritten || rewrite.before.port != rewrite.after.port
}

impl Endpoint {
    /// The port, if it is one and known.
    pub fn exact_port(&self) -> Option<u16> {
        match self.port {
            Port::Exactly(port) => Some(port),
            Port::None | Port::Between(..) | Port::Unknown => None,
        }
    }
}
