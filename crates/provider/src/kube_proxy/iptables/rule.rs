//! One rule, written part by part.
//!
//! The parts must be asked for in the order in which iptables-save prints them: addresses,
//! interfaces, protocol, matches as kube-proxy gives them, target.

use std::fmt::{Display, Write};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use unmasq_model::packet::Family;

use crate::kube_proxy::proxy::Pods;
use crate::kube_proxy::service_port::Refusal;

/// A rule in the making. It is there as far as it was written; the last part ends its line.
#[must_use]
pub(super) struct Rule<'a> {
    text: &'a mut String,
}

/// A rule at the end of a chain.
pub(super) fn rule<'a>(text: &'a mut String, chain: &str) -> Rule<'a> {
    Rule { text }.push(format_args!("-A {chain}"))
}

/// A rule at the beginning of a chain.
pub(super) fn insert<'a>(text: &'a mut String, chain: &str) -> Rule<'a> {
    Rule { text }.push(format_args!("-I {chain}"))
}

impl Rule<'_> {
    fn push(self, part: impl Display) -> Self {
        // Writing to a String can't fail.
        let _ = write!(self.text, "{part}");
        self
    }

    /// From a network.
    pub(super) fn source(self, network: impl Display) -> Self {
        self.push(format_args!(" -s {network}"))
    }

    /// From outside a network.
    pub(super) fn not_source(self, network: impl Display) -> Self {
        self.push(format_args!(" ! -s {network}"))
    }

    /// From a host.
    pub(super) fn source_host(self, address: IpAddr) -> Self {
        self.source(IpNet::from(address))
    }

    /// To a network.
    pub(super) fn destination(self, network: impl Display) -> Self {
        self.push(format_args!(" -d {network}"))
    }

    /// To anything outside a network.
    pub(super) fn not_destination(self, network: impl Display) -> Self {
        self.push(format_args!(" ! -d {network}"))
    }

    /// To a host.
    pub(super) fn destination_host(self, address: IpAddr) -> Self {
        self.destination(IpNet::from(address))
    }

    /// From a pod.
    pub(super) fn pods(self, pods: Pods<'_>) -> Self {
        match pods {
            Pods::From(network) => self.source(network),
            Pods::By(name) => self.push(format_args!(" -i {name}")),
            Pods::ByPrefix(prefix) => self.push(format_args!(" -i {prefix}+")),
        }
    }

    /// To a host, and not from a pod.
    pub(super) fn not_pods(self, pods: Pods<'_>, to: IpAddr) -> Self {
        match pods {
            Pods::From(network) => self.not_source(network).destination_host(to),
            Pods::By(name) => self.destination_host(to).push(format_args!(" ! -i {name}")),
            Pods::ByPrefix(prefix) => {
                self.destination_host(to).push(format_args!(" ! -i {prefix}+"))
            }
        }
    }

    /// Of a transport protocol.
    pub(super) fn protocol(self, protocol: impl Display) -> Self {
        self.push(format_args!(" -p {protocol}"))
    }

    /// A comment. It has neither quotes nor backslashes, as no name of an object does.
    pub(super) fn comment(self, text: &str) -> Self {
        self.push(format_args!(" -m comment --comment \"{text}\""))
    }

    /// A comment, if there is one.
    pub(super) fn maybe_comment(self, text: Option<&str>) -> Self {
        match text {
            Some(text) => self.comment(text),
            None => self,
        }
    }

    /// To a port.
    pub(super) fn port(self, protocol: impl Display, port: u16) -> Self {
        self.push(format_args!(" -m {protocol} --dport {port}"))
    }

    /// From (`src`) or to (`dst`) an address of the node.
    pub(super) fn local(self, which: &str) -> Self {
        self.push(format_args!(" -m addrtype --{which}-type LOCAL"))
    }

    /// In one of these states of connection tracking.
    pub(super) fn state(self, states: &str) -> Self {
        self.push(format_args!(" -m conntrack --ctstate {states}"))
    }

    /// In none of these states.
    pub(super) fn not_state(self, states: &str) -> Self {
        self.push(format_args!(" -m conntrack ! --ctstate {states}"))
    }

    /// With a mark.
    pub(super) fn marked(self, mark: u32) -> Self {
        self.push(format_args!(" -m mark --mark {mark:#x}/{mark:#x}"))
    }

    /// Without it.
    pub(super) fn not_marked(self, mark: u32) -> Self {
        self.push(format_args!(" -m mark ! --mark {mark:#x}/{mark:#x}"))
    }

    /// Counts in an nfacct object. The two blanks are iptables-save's (extensions/libxt_nfacct.c).
    pub(super) fn nfacct(self, name: &str) -> Self {
        self.push(format_args!(" -m nfacct --nfacct-name  {name}"))
    }

    /// From a client that is in the list.
    pub(super) fn seen(self, seconds: u32, list: &str, family: Family) -> Self {
        let part = format_args!(" -m recent --rcheck --seconds {seconds} --reap --name {list}");
        self.push(part).push(format_args!(" --mask {} --rsource", whole(family)))
    }

    /// Puts the client into the list.
    pub(super) fn remember(self, list: &str, family: Family) -> Self {
        let mask = whole(family);
        self.push(format_args!(" -m recent --set --name {list} --mask {mask} --rsource"))
    }

    /// By chance, one of so many; always, if it is the last one.
    ///
    /// As it comes back from the kernel: kube-proxy writes ten decimals, iptables rounds to a
    /// multiple of 2^-31 and prints eleven (extensions/libxt_statistic.c).
    pub(super) fn one_of(self, count: usize) -> Self {
        const ONE: f64 = 2_147_483_648.0;
        if count == 1 {
            return self;
        }
        let decimals = 1e10;
        let written = (decimals / count as f64).round() / decimals;
        let probability = (written * ONE).round() / ONE;
        self.push(format_args!(" -m statistic --mode random --probability {probability:.11}"))
    }

    /// Ends in a jump.
    pub(super) fn jump(self, chain: &str) {
        self.target(chain);
    }

    /// Ends in a target.
    pub(super) fn target(self, target: &str) {
        self.push(format_args!(" -j {target}")).end();
    }

    /// Ends without a target.
    pub(super) fn end(self) {
        self.text.push('\n');
    }

    /// Ends by setting the bits of `mask` to those of `mark`; with a mask of 0 by flipping them.
    pub(super) fn set_mark(self, mark: u32, mask: u32) {
        self.push(format_args!(" -j MARK --set-xmark {mark:#x}/{mask:#x}")).end();
    }

    /// Ends in another destination.
    pub(super) fn dnat(self, protocol: impl Display, to: SocketAddr) {
        self.push(format_args!(" -m {protocol} -j DNAT --to-destination {to}")).end();
    }

    /// Ends for a client without an endpoint.
    pub(super) fn refuse(self, refusal: Refusal, family: Family) {
        self.target(match (refusal, family) {
            (Refusal::Drop, _) => "DROP",
            (Refusal::Reject, Family::V4) => "REJECT --reject-with icmp-port-unreachable",
            (Refusal::Reject, Family::V6) => "REJECT --reject-with icmp6-port-unreachable",
        });
    }
}

/// The mask that keeps a whole address.
fn whole(family: Family) -> &'static str {
    match family {
        Family::V4 => "255.255.255.255",
        Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What iptables 1.8.9 prints after a kernel has had 1/n with ten decimals.
    #[test]
    fn probabilities_are_those_that_iptables_prints() {
        for (n, expected) in [(2, "0.50000000000"), (3, "0.33333333349"), (7, "0.14285714272")] {
            let mut text = String::new();
            rule(&mut text, "A").one_of(n).jump("B");
            let expected =
                format!("-A A -m statistic --mode random --probability {expected} -j B\n");
            assert_eq!(text, expected);
        }
    }
}
