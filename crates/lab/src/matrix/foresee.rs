//! What the evaluator says of a question: over all hosts on the way, and back.

use unmasq_eval::journey::{Arrival, Journey, Net};
use unmasq_eval::trace::Query;
use unmasq_model::packet::{Family, Packet, Protocol};

use super::{Ending, Foreseen, Question, Target, proxied, serves};
use crate::cluster::plan::Kind;
use crate::cluster::{Cluster, POD_PORT};
use crate::scenario::{Entry, Fate};

/// Everything that may become of a question.
pub(super) fn foresee(
    cluster: &Cluster,
    net: &Net,
    question: &Question,
    source_port: u16,
) -> Vec<Foreseen> {
    let family = Family::of(question.address);
    let Some(source) = cluster.plan.address(question.from, family) else { return Vec::new() };
    let ports = question.port != 0;
    let mut packet = Packet::open(
        question.protocol,
        source,
        ports.then_some(source_port),
        question.address,
        ports.then_some(question.port),
    );
    packet.ttl = Some(super::TTL);
    let there = net.there(question.from, Query::opening(packet, None));
    let proxied = matches!(question.to, Target::Service { entry: Entry::Proxy, .. });
    let mut all: Vec<Foreseen> = Vec::new();
    for journey in &there {
        let endings = match proxied {
            true => proxied::endings(cluster, net, question, journey),
            false => endings(cluster, net, question, journey),
        };
        for foreseen in endings {
            if !all.contains(&foreseen) {
                all.push(foreseen);
            }
        }
    }
    all
}

fn endings(cluster: &Cluster, net: &Net, question: &Question, journey: &Journey) -> Vec<Foreseen> {
    let end = |reached: Reached| match reached {
        Reached::Unknown(why) => unknown(journey, why),
        Reached::Nobody(fate) => foreseen(journey, Ending::nobody(fate)),
        // Whoever expects to be told resets a connection that begins with anything else.
        Reached::Server(host) if proxied::expects_header(cluster, host, question.protocol) => {
            foreseen(journey, Ending::nobody(Fate::Refused))
        }
        Reached::Server(_) => foreseen(journey, answered(cluster, journey, question)),
    };
    reached(cluster, net, question.protocol, journey).into_iter().map(end).collect()
}

/// Whom a journey reaches, with the answer that comes back.
pub(super) enum Reached {
    /// A server, which is heard.
    Server(usize),
    /// Nobody: silent or refused.
    Nobody(Fate),
    /// It can't be told.
    Unknown(Vec<String>),
}

/// All that a journey and the ways back from its end come to.
pub(super) fn reached(
    cluster: &Cluster,
    net: &Net,
    protocol: Protocol,
    journey: &Journey,
) -> Vec<Reached> {
    let heard = |back: Vec<Journey>, then: &dyn Fn() -> Reached| -> Vec<Reached> {
        let way = |way: &Journey| match &way.arrival {
            Arrival::Unknown(why) => Reached::Unknown(why.clone()),
            _ if Net::answers(journey, way) => then(),
            Arrival::Delivered
            | Arrival::Left
            | Arrival::Dropped(_)
            | Arrival::Rejected(_)
            | Arrival::Lost => Reached::Nobody(Fate::Silent),
        };
        back.iter().map(way).collect()
    };
    let refused = || Reached::Nobody(Fate::Refused);
    match (&journey.arrival, &journey.legs[..]) {
        (Arrival::Unknown(why), _) => vec![Reached::Unknown(why.clone())],
        // The lab has the state of every host: nothing leaves them.
        (Arrival::Dropped(_) | Arrival::Lost | Arrival::Left, _) | (_, []) => {
            vec![Reached::Nobody(Fate::Silent)]
        }
        // By its own host, which tells it at once.
        (Arrival::Rejected(_), [_]) => vec![refused()],
        (Arrival::Rejected(_), _) => heard(net.refusal(journey), &refused),
        (Arrival::Delivered, [.., last]) if listens(cluster, protocol, journey, last.host) => {
            heard(net.back(journey), &|| Reached::Server(last.host))
        }
        // A reset or an error takes an answer's way.
        (Arrival::Delivered, _) => heard(net.back(journey), &refused),
    }
}

/// An ending with what led there.
pub(super) fn foreseen(journey: &Journey, result: Ending) -> Foreseen {
    let rewriter = |leg: &unmasq_eval::journey::Leg| Some((leg.host, leg.outcome.rewritten_by?));
    Foreseen {
        result,
        rewriters: journey.rewrites().filter_map(rewriter).collect(),
        way: journey.legs.iter().map(|leg| leg.host).collect(),
        unknown: Vec::new(),
    }
}

/// Something that can't be told.
pub(super) fn unknown(journey: &Journey, why: Vec<String>) -> Foreseen {
    Foreseen { unknown: why, ..foreseen(journey, Ending::nobody(Fate::Silent)) }
}

fn listens(cluster: &Cluster, protocol: Protocol, journey: &Journey, host: usize) -> bool {
    let plan = &cluster.plan.hosts[host];
    let port = journey.ends().and_then(|(_, to)| to.exact_port());
    if plan.kind == Kind::Proxy {
        let settings = cluster.scenario.proxy.as_ref();
        return protocol == Protocol::TCP && settings.map(|proxy| proxy.port) == port;
    }
    let own = |pod: &crate::scenario::Pod| pod.name == plan.name;
    let known = plan.kind != Kind::Pod || cluster.scenario.pods.iter().any(own);
    let icmp = matches!(protocol, Protocol::ICMP | Protocol::ICMPV6);
    serves(plan.kind) && known && (icmp || port == Some(POD_PORT))
}

fn answered(cluster: &Cluster, journey: &Journey, question: &Question) -> Ending {
    let source = journey.ends().and_then(|(source, _)| source.address);
    let own = cluster.plan.address(question.from, Family::of(question.address));
    let server = journey.legs.last().map(|leg| cluster.plan.hosts[leg.host].name.clone());
    let fate = Fate::of(own, source, None);
    Ending { fate, server, source, told: None, hops: Some(journey.hops()) }
}
