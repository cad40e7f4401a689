//! What the far end would send back: answers and errors, from the frame that arrived there.
//!
//! In: a whole Ethernet frame as it was seen. Out: a whole frame that goes the other way, from the
//! MAC that it was sent to, to the MAC that it came from. Both families; no state is kept, so a TCP
//! answer says what can be told from the segment that it answers.

use std::net::IpAddr;

use unmasq_model::packet::Protocol;

use crate::frame::{self, Flow, Mac, Segment, Wanted};

/// The time to live of answers.
const TTL: u8 = 64;
/// Where the sequence numbers of one who accepts a connection begin.
const FIRST_ANSWERED: u32 = 7_000_000;
const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;
/// What an error carries of the packet at most: RFC 1812 section 4.3.2.3, RFC 4443 section 2.4 (c),
/// without headers.
const QUOTED: (usize, usize) = (576 - 28, 1280 - 48);

/// What an ICMP error says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Complaint {
    /// Nobody listens at the port.
    PortUnreachable,
    /// No way to the host.
    HostUnreachable,
    /// Too many hops.
    TimeExceeded,
    /// The next link takes no more than so many bytes.
    TooBig(u16),
}

/// The answer to a frame:
///
/// - SYN: SYN and ACK; SYN and ACK: ACK; data or FIN: ACK of it; a bare ACK: one byte of data;
/// - UDP: UDP with the same payload;
/// - echo request: echo reply with the same identifier, number and payload.
///
/// `None`: nobody would answer (resets, errors, echo replies, other protocols).
pub fn reply_to(frame: &[u8]) -> Option<Vec<u8>> {
    let question = arrived(frame)?;
    let bytes = question.bytes;
    let (segment, sum_at) = match (question.protocol, *bytes.first()?) {
        (Protocol::TCP, _) => (tcp_answer(bytes)?, 16),
        (Protocol::UDP, _) => {
            let mut answer = swapped_ports(bytes)?;
            answer.extend(bytes.get(4..)?);
            (answer, 6)
        }
        (Protocol::ICMP, 8) => ([&[0], bytes.get(1..)?].concat(), 2),
        (Protocol::ICMPV6, 128) => ([&[129], bytes.get(1..)?].concat(), 2),
        _ => return None,
    };
    back(frame, question.destination, &question, segment, sum_at)
}

/// The reset that a closed port answers a TCP frame with.
pub fn reset_to(frame: &[u8]) -> Option<Vec<u8>> {
    let question = arrived(frame).filter(|question| question.protocol == Protocol::TCP)?;
    let heard = Heard::read(question.bytes)?;
    let (seq, ack, flags) = match heard.ack {
        Some(ack) => (ack, 0, RST),
        None => (0, heard.next, RST | ACK),
    };
    let segment = tcp(question.bytes, seq, ack, flags)?;
    back(frame, question.destination, &question, segment, 16)
}

/// The ICMP error that somebody at `from` sends about a frame, to its source. It carries the packet
/// as it arrived.
pub fn error_about(frame: &[u8], from: IpAddr, complaint: Complaint) -> Option<Vec<u8>> {
    let question = arrived(frame)?;
    let (_, _, packet) = frame::split(frame)?;
    let v6 = from.is_ipv6();
    let (kind, code, rest) = match (complaint, v6) {
        (Complaint::PortUnreachable, false) => (3, 3, 0),
        (Complaint::HostUnreachable, false) => (3, 1, 0),
        (Complaint::TimeExceeded, false) => (11, 0, 0),
        (Complaint::TooBig(mtu), false) => (3, 4, mtu),
        (Complaint::PortUnreachable, true) => (1, 4, 0),
        (Complaint::HostUnreachable, true) => (1, 3, 0),
        (Complaint::TimeExceeded, true) => (3, 0, 0),
        (Complaint::TooBig(mtu), true) => (2, 0, mtu),
    };
    let [high, low] = rest.to_be_bytes();
    let mut segment = vec![kind, code, 0, 0, 0, 0, high, low];
    let (most, protocol) =
        if v6 { (QUOTED.1, Protocol::ICMPV6) } else { (QUOTED.0, Protocol::ICMP) };
    segment.extend(packet.iter().take(most));
    back(frame, from, &Segment { protocol, ..question }, segment, 2)
}

/// The packet that an ICMP error in a frame is about, as the error has it.
pub fn quoted(frame: &[u8]) -> Option<Flow> {
    let error = arrived(frame)?;
    let is_error = match (error.protocol, *error.bytes.first()?) {
        (Protocol::ICMP, kind) => matches!(kind, 3 | 11 | 12),
        (Protocol::ICMPV6, kind) => kind < 128,
        _ => false,
    };
    let kind = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let inner = frame::read(kind, error.bytes.get(8..)?).filter(|_| is_error)?;
    inner.flow(Wanted::All)
}

/// The packet in a frame.
pub fn arrived(frame: &[u8]) -> Option<Segment<'_>> {
    let (kind, _, packet) = frame::split(frame)?;
    frame::read(kind, packet)
}

/// A frame that goes back to where another came from.
fn back(
    frame: &[u8],
    from: IpAddr,
    question: &Segment<'_>,
    mut segment: Vec<u8>,
    sum_at: usize,
) -> Option<Vec<u8>> {
    let addresses = (from, question.source);
    frame::fill(question.protocol, addresses, &mut segment, sum_at);
    let (kind, packet) = frame::packet(question.protocol, addresses, TTL, &segment).ok()?;
    let (there, here) = (Mac(frame.get(6..12)?.try_into().ok()?), frame::split(frame)?.1);
    Some(frame::ethernet(there, here, kind, &packet))
}

fn tcp_answer(segment: &[u8]) -> Option<Vec<u8>> {
    let heard = Heard::read(segment)?;
    let seq = heard.ack.unwrap_or(FIRST_ANSWERED);
    match heard.flags & (SYN | RST | ACK) {
        SYN => tcp(segment, seq, heard.next, SYN | ACK),
        flags if flags & RST != 0 => None,
        _ if heard.next == heard.seq => {
            let mut answer = tcp(segment, seq, heard.next, ACK)?;
            answer.push(b'!');
            Some(answer)
        }
        _ => tcp(segment, seq, heard.next, ACK),
    }
}

/// What a TCP segment says.
struct Heard {
    flags: u8,
    seq: u32,
    /// What it acknowledges.
    ack: Option<u32>,
    /// The sequence number after it: SYN and FIN take one each. What a SYN carries is not taken: it
    /// is sent again once the connection is there (RFC 9293 section 3.4, without RFC 7413's cookie).
    next: u32,
}

impl Heard {
    fn read(segment: &[u8]) -> Option<Heard> {
        let word = |at: usize| -> Option<u32> {
            Some(u32::from_be_bytes(segment.get(at..at + 4)?.try_into().ok()?))
        };
        let (seq, flags) = (word(4)?, *segment.get(13)?);
        let header = usize::from(segment.get(12)? >> 4) * 4;
        let payload = u32::try_from(segment.get(header..)?.len()).ok()?;
        let taken = if flags & SYN != 0 { 1 } else { payload + u32::from(flags & FIN != 0) };
        let ack = if flags & ACK != 0 { Some(word(8)?) } else { None };
        Some(Heard { flags, seq, ack, next: seq.wrapping_add(taken) })
    }
}

/// A TCP header that answers another.
fn tcp(question: &[u8], seq: u32, ack: u32, flags: u8) -> Option<Vec<u8>> {
    let mut answer = swapped_ports(question)?;
    answer.extend(seq.to_be_bytes());
    answer.extend(ack.to_be_bytes());
    answer.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    Some(answer)
}

fn swapped_ports(segment: &[u8]) -> Option<Vec<u8>> {
    Some([segment.get(2..4)?, segment.get(..2)?].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Probe;

    const THERE: Mac = Mac([2; 6]);
    const HERE: Mac = Mac([4; 6]);

    fn sent(text: &str) -> Vec<u8> {
        frame::probe(&text.parse::<Probe>().unwrap(), THERE, HERE).unwrap()
    }

    /// The segment of a good frame back: MACs and checksums are as they must be.
    fn checked(frame: &[u8], flow: &str) -> Vec<u8> {
        let (kind, to, packet) = frame::split(frame).unwrap();
        assert_eq!((to, &frame[6..12]), (HERE, &THERE.0[..]));
        let segment = frame::read(kind, packet).unwrap();
        let seen = segment.flow(Wanted::All).unwrap();
        assert_eq!(
            format!("{} > {}", seen.source, seen.destination),
            flow,
            "protocol {}",
            seen.protocol
        );
        assert!(frame::checksums_hold(frame), "{flow}");
        if segment.source.is_ipv4() {
            let length = u16::from_be_bytes([packet[2], packet[3]]);
            assert_eq!(usize::from(length), packet.len());
        }
        segment.bytes.to_vec()
    }

    #[test]
    fn tcp_shakes_hands_and_sends_data() {
        for (probe, forth, back) in [
            (
                "eth0 tcp 192.0.2.7:4001 > 10.0.0.1:80",
                "192.0.2.7:4001 > 10.0.0.1:80",
                "10.0.0.1:80 > 192.0.2.7:4001",
            ),
            (
                "eth0 tcp [2001:db8::7]:4003 > [fd00::1]:80",
                "[2001:db8::7]:4003 > [fd00::1]:80",
                "[fd00::1]:80 > [2001:db8::7]:4003",
            ),
        ] {
            let numbers = |segment: &[u8]| {
                let word = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().unwrap());
                (word(4), word(8), segment[13])
            };
            let syn = sent(probe);
            let syn_ack = reply_to(&syn).unwrap();
            // Probes begin with sequence number 1, and a SYN takes one.
            let expected = (FIRST_ANSWERED, 2, SYN | ACK);
            assert_eq!(numbers(&checked(&syn_ack, back)), expected);
            let turned = |frame: &[u8]| [&frame[6..12], &frame[..6], &frame[12..]].concat();
            let ack = reply_to(&syn_ack).unwrap();
            let expected = (2, FIRST_ANSWERED + 1, ACK);
            assert_eq!(numbers(&checked(&turned(&ack), forth)), expected);
            let data = checked(&reply_to(&ack).unwrap(), back);
            assert_eq!(numbers(&data), (FIRST_ANSWERED + 1, 2, ACK));
            assert_eq!(&data[20..], b"!");
            let reset = checked(&reset_to(&syn).unwrap(), back);
            assert_eq!(numbers(&reset), (0, 2, RST | ACK));
            assert_eq!(reply_to(&reset_to(&syn).unwrap()), None);
        }
    }

    #[test]
    fn datagrams_and_echoes_come_back_with_what_they_carry() {
        for (probe, back, carried) in [
            ("eth0 udp 192.0.2.7:4001 > 10.0.0.1:53", "10.0.0.1:53 > 192.0.2.7:4001", 8),
            ("eth0 udp [2001:db8::7]:4001 > [fd00::1]:53", "[fd00::1]:53 > [2001:db8::7]:4001", 8),
            ("eth0 icmp 192.0.2.7 > 10.0.0.1", "10.0.0.1:0 > 192.0.2.7:0", 4),
            ("eth0 icmp 2001:db8::7 > fd00::1", "[fd00::1]:0 > [2001:db8::7]:0", 4),
        ] {
            let question = sent(probe);
            let answer = reply_to(&question).unwrap();
            let segment = checked(&answer, back);
            let asked = arrived(&question).unwrap();
            // Of echoes, identifier and number too.
            assert_eq!(segment[carried..], asked.bytes[carried..], "{probe}");
            assert_eq!(segment.len(), asked.bytes.len());
            match asked.protocol {
                Protocol::ICMP => assert_eq!(segment[0], 0),
                Protocol::ICMPV6 => assert_eq!(segment[0], 129),
                _ => assert_eq!(segment[4..6], asked.bytes[4..6]),
            }
        }
        assert_eq!(reply_to(&reply_to(&sent("eth0 icmp 192.0.2.7 > 10.0.0.1")).unwrap()), None);
    }

    #[test]
    fn errors_carry_the_packet_as_it_arrived() {
        for (probe, from, back, head) in [
            (
                "eth0 udp 192.0.2.7:4001 > 10.0.0.1:53",
                "10.0.0.1",
                "10.0.0.1:0 > 192.0.2.7:0",
                [[3, 3], [3, 1], [11, 0], [3, 4]],
            ),
            (
                "eth0 tcp [2001:db8::7]:4001 > [fd00::1]:80",
                "fd00::fe",
                "[fd00::fe]:0 > [2001:db8::7]:0",
                [[1, 4], [1, 3], [3, 0], [2, 0]],
            ),
        ] {
            let question = sent(probe);
            let complaints = [
                Complaint::PortUnreachable,
                Complaint::HostUnreachable,
                Complaint::TimeExceeded,
                Complaint::TooBig(1400),
            ];
            for (complaint, head) in complaints.into_iter().zip(head) {
                let error = error_about(&question, from.parse().unwrap(), complaint).unwrap();
                let segment = checked(&error, back);
                assert_eq!(segment[..2], head, "{complaint:?}");
                let mtu =
                    if complaint == Complaint::TooBig(1400) { [0, 0, 5, 120] } else { [0; 4] };
                assert_eq!(segment[4..8], mtu);
                assert_eq!(segment[8..], question[14..]);
                assert_eq!(quoted(&error), arrived(&question).unwrap().flow(Wanted::All));
                assert_eq!(reply_to(&error), None);
            }
            assert_eq!(quoted(&question), None);
        }
    }
}
