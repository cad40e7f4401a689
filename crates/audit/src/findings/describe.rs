//! Findings in words: title, cause, remedies.

use super::{Context, Group, owner_name};
use crate::matrix::{Cell, Client, Entry, Outside, Placement};
use crate::{Cause, Confidence, Remedy};

/// What a person reads of a finding.
pub(super) struct Described {
    pub(super) title: String,
    pub(super) confidence: Confidence,
    pub(super) cause: Cause,
    pub(super) remedies: Vec<Remedy>,
}

/// Describes what a group of rows has in common.
pub(super) fn describe(_: &Context<'_, '_>, _: &str, group: &Group) -> Described {
    let suspect = &group.suspect;
    Described {
        title: suspect.id.title().to_owned(),
        confidence: Confidence::Likely,
        cause: Cause {
            text: format!("{}: {}", owner_name(suspect.cause.owner), suspect.cause.rule),
            setting: None,
            place: None,
        },
        remedies: Vec::new(),
    }
}

/// Who calls whom, in words.
pub(super) fn flow(cell: &Cell) -> String {
    let to = match cell.entry {
        Entry::Pod => "a pod",
        Entry::Node => "a node",
        Entry::Outside => "the outside",
        Entry::ClusterIp => "a cluster IP",
        Entry::NodePort => "a node port",
        Entry::LoadBalancer => "a load balancer's address",
        Entry::ExternalIp => "an external IP",
    };
    let placed = match cell.placement {
        Placement::Here => ", endpoint on the same node",
        Placement::Elsewhere => ", endpoint on another node",
        Placement::None => "",
    };
    format!("{} -> {to}{placed}, {}", client(&cell.client), cell.family)
}

/// Who calls, in words.
pub(super) fn client(client: &Client) -> String {
    match client {
        Client::Pod => "a pod".to_owned(),
        Client::PodElsewhere => "a pod of another node".to_owned(),
        Client::Endpoint => "the endpoint itself".to_owned(),
        Client::Node => "the node itself".to_owned(),
        Client::NodeElsewhere => "another node".to_owned(),
        Client::Outside(Outside::Anybody) => "a client outside".to_owned(),
        Client::Outside(Outside::NamedByRule(net) | Outside::NamedBySetting(net)) => {
            format!("a client outside in {net}")
        }
    }
}
