//! Who can call from outside, who can be called there, and what is known of the way between.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use unmasq_cluster::Cluster;
use unmasq_cluster::paths::Caller;
use unmasq_model::packet::{Family, Protocol};

use super::super::clients::ANYBODY;
use super::super::questions::Question;
use super::super::{Clients, Entry, Outside};
use super::{Check, LeftOut, What};

/// From where connections are made, beside pods and nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vantage {
    /// Hosts outside of the cluster, which call and are called.
    pub hosts: Vec<HostOutside>,
    /// Whether whoever has a fitting address may call: a person who reads it finds a host.
    pub anybody: bool,
    /// Networks that a router outside translates on their way out; `None`: not known.
    pub masquerades: Option<Vec<IpNet>>,
    /// Networks of pods that a router outside has routes to; `None`: not known.
    pub knows_pods: Option<Vec<IpNet>>,
    /// Who takes only TCP connections that begin with a PROXY protocol header.
    pub want_header: Vec<IpAddr>,
}

/// A host outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostOutside {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The networks that it has a way to; `None`: all.
    pub reaches: Option<Vec<IpNet>>,
}

impl Vantage {
    /// The host with an address.
    pub(super) fn host(&self, address: IpAddr) -> Option<&HostOutside> {
        self.hosts.iter().find(|host| host.addresses.contains(&address))
    }

    /// These hosts in the place of those that stand for somebody. Where no host can stand in, the
    /// question is asked all the same, so that it is counted as left out.
    pub(super) fn clients(&self, clients: &Clients) -> Clients {
        let mut all = clients.clone();
        all.callers.clear();
        let addresses: Vec<IpAddr> =
            self.hosts.iter().flat_map(|host| host.addresses.iter().copied()).collect();
        let net = |outside: &Outside| match outside {
            Outside::Anybody => None,
            Outside::NamedByRule(net) | Outside::NamedBySetting(net) => Some(*net),
        };
        let nets: Vec<IpNet> =
            clients.callers.iter().filter_map(|(outside, _)| net(outside)).collect();
        for (outside, address) in &clients.callers {
            let is_it = |one: &&IpAddr| {
                let named = nets.iter().any(|net| net.contains(*one));
                let fits = net(outside).map_or(!named, |net| net.contains(*one));
                Family::of(**one) == Family::of(*address) && fits
            };
            let real: Vec<IpAddr> = addresses.iter().filter(is_it).copied().collect();
            let stand_in = real.is_empty().then_some(*address);
            let callers = real.into_iter().chain(stand_in);
            all.callers.extend(callers.map(|one| (outside.clone(), one)));
        }
        let has = |family| addresses.iter().any(|one| Family::of(*one) == family);
        // A network that a rule names as a destination is asked for by an address of it.
        let is_replaced = |one: &&IpAddr| ANYBODY.contains(one) && has(Family::of(**one));
        let stand_ins = clients.destinations.iter().filter(|one| !is_replaced(one));
        all.destinations = addresses.iter().chain(stand_ins).copied().collect();
        all
    }

    /// Why nobody can try it.
    pub(super) fn obstacle(&self, question: &Question, pods: &BTreeSet<IpAddr>) -> Option<LeftOut> {
        let call = &question.call;
        if !matches!(call.protocol, Protocol::TCP | Protocol::UDP) {
            return Some(LeftOut::Protocol(call.protocol));
        }
        if question.entry == Entry::Outside && self.host(call.to).is_none() {
            return Some(LeftOut::NobodyOutside);
        }
        match call.from {
            Caller::Pod { address, .. } => (!pods.contains(&address)).then_some(LeftOut::NoPod),
            Caller::Node(_) => None,
            Caller::Outside { address, .. } => match self.host(address) {
                Some(host) => (!host.has_way_to(call.to)).then(|| no_way(host)),
                None if self.anybody => None,
                None => {
                    let outside = question.outside.clone().unwrap_or(Outside::Anybody);
                    Some(LeftOut::NoCaller(outside))
                }
            },
        }
    }

    /// Why what is predicted up to the cluster's edge, or to a socket, says nothing of what comes then.
    pub(super) fn beyond(&self, cluster: &Cluster, check: &Check) -> Option<LeftOut> {
        let call = check.call();
        let wants_header = |(address, _)| self.want_header.contains(&address);
        if call.protocol == Protocol::TCP
            && check.predicted.iter().filter_map(|one| one.at).any(wants_header)
        {
            return Some(LeftOut::WantsHeader);
        }
        let hidden = |pod: IpAddr| match &self.knows_pods {
            None => Some(LeftOut::RouterUnknown),
            Some(nets) => {
                let known = nets.iter().any(|net| net.contains(&pod));
                (!known).then_some(LeftOut::PodsUnknown)
            }
        };
        if check.outside.is_some() && check.entry == Entry::Pod {
            return hidden(call.to);
        }
        if check.entry != Entry::Outside {
            return None;
        }
        let pods = cluster.networks.cluster_pods(Family::of(call.to));
        let is_pod = |one: &IpAddr| pods.ranges.iter().any(|net| net.contains(one));
        let leaves = check.predicted.iter().filter_map(|one| match &one.what {
            What::Preserved => check.own,
            What::Rewritten(source) => Some(*source),
            What::Silence | What::Nobody | What::Refusal | What::Unknown(_) => None,
        });
        leaves.into_iter().find_map(|source| {
            let Some(masquerades) = &self.masquerades else {
                return Some(LeftOut::RouterUnknown);
            };
            if masquerades.iter().any(|net| net.contains(&source)) {
                return Some(LeftOut::TranslatedOutside);
            }
            if let Some(why) = hidden(source).filter(|_| is_pod(&source)) {
                return Some(why);
            }
            self.host(call.to).filter(|host| !host.has_way_to(source)).map(no_way)
        })
    }
}

fn no_way(host: &HostOutside) -> LeftOut {
    LeftOut::NoWay(host.name.clone())
}

impl HostOutside {
    fn has_way_to(&self, address: IpAddr) -> bool {
        self.reaches.as_ref().is_none_or(|nets| nets.iter().any(|net| net.contains(&address)))
    }
}
