//! What the evaluator says of a question: over all hosts on the way, and back.

use unmasq_eval::journey::{Arrival, Journey, Net};
use unmasq_eval::trace::Query;
use unmasq_model::packet::{Family, Packet, Protocol};

use super::{Ending, Foreseen, Question, serves};
use crate::cluster::plan::Kind;
use crate::cluster::{Cluster, POD_PORT};
use crate::scenario::Fate;

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
    let mut all: Vec<Foreseen> = Vec::new();
    for journey in &there {
        for foreseen in endings(cluster, net, question, journey) {
            if !all.contains(&foreseen) {
                all.push(foreseen);
            }
        }
    }
    all
}

fn endings(cluster: &Cluster, net: &Net, question: &Question, journey: &Journey) -> Vec<Foreseen> {
    let nobody = |fate| Ending { fate, server: None, source: None, hops: None };
    let foreseen = |result| Foreseen {
        result,
        rewritten_by: journey
            .rewrites()
            .filter_map(|leg| Some((leg.host, leg.outcome.rewritten_by?)))
            .last(),
        way: journey.legs.iter().map(|leg| leg.host).collect(),
        unknown: Vec::new(),
    };
    match &journey.arrival {
        Arrival::Unknown(why) => {
            vec![Foreseen { unknown: why.clone(), ..foreseen(nobody(Fate::Silent)) }]
        }
        Arrival::Dropped(_) | Arrival::Lost => vec![foreseen(nobody(Fate::Silent))],
        Arrival::Rejected(_) => vec![foreseen(nobody(refused(journey)))],
        Arrival::Delivered => {
            let Some(last) = journey.legs.last() else { return Vec::new() };
            let kind = cluster.plan.hosts[last.host].kind;
            if !listens(cluster, last.host, kind, journey, question) {
                return vec![foreseen(nobody(refused(journey)))];
            }
            let back = net.back(journey);
            let mut all = Vec::new();
            for way in &back {
                if let Arrival::Unknown(why) = &way.arrival {
                    let unknown = why.clone();
                    all.push(Foreseen { unknown, ..foreseen(nobody(Fate::Silent)) });
                } else if Net::answers(journey, way) {
                    all.push(foreseen(answered(cluster, journey, question)));
                } else {
                    all.push(foreseen(nobody(Fate::Silent)));
                }
            }
            all
        }
    }
}

/// Whether somebody refuses so that the client hears of it: the error goes the packet's way back,
/// which is that of an answer.
fn refused(_journey: &Journey) -> Fate {
    Fate::Refused
}

fn listens(
    cluster: &Cluster,
    host: usize,
    kind: Kind,
    journey: &Journey,
    question: &Question,
) -> bool {
    let known = kind != Kind::Pod
        || cluster.scenario.pods.iter().any(|pod| pod.name == cluster.plan.hosts[host].name);
    let port = journey.ends().and_then(|(_, to)| to.exact_port());
    let icmp = matches!(question.protocol, Protocol::ICMP | Protocol::ICMPV6);
    serves(kind) && known && (icmp || port == Some(POD_PORT))
}

fn answered(cluster: &Cluster, journey: &Journey, question: &Question) -> Ending {
    let source = journey.ends().and_then(|(source, _)| source.address);
    let own = cluster.plan.address(question.from, Family::of(question.address));
    let server = journey.legs.last().map(|leg| cluster.plan.hosts[leg.host].name.clone());
    let fate = if source == own { Fate::Preserved } else { Fate::Rewritten };
    Ending { fate, server, source, hops: Some(journey.hops()) }
}
