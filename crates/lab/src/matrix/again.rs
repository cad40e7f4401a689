//! The command that looks at one row again.
//!
//! In: a [`Row`] and the capture that was kept of its matrix. Out: an `unmasq trace` command line,
//! as a shell takes it. Pure.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use unmasq_audit::quoted;

use unmasq_model::packet::{Family, Protocol};

use super::Row;
use crate::cluster::Cluster;
use crate::cluster::plan::Kind;

/// The command line that traces a row's packet as its client sent it, through the first node on the
/// way. `None`: the client has no address of that family, or `trace` doesn't know the protocol.
pub fn trace_command(cluster: &Cluster, row: &Row, kept: &Path) -> Option<String> {
    let question = &row.question;
    let source = cluster.plan.address(question.from, Family::of(question.address))?;
    let protocol = match question.protocol {
        Protocol::TCP => "tcp",
        Protocol::UDP => "udp",
        Protocol::ICMP | Protocol::ICMPV6 => "icmp",
        _ => return None,
    };
    let ports = question.port != 0;
    let from = end(source, ports.then_some(row.source_port));
    let to = end(question.address, ports.then_some(question.port));
    let node = &cluster.plan.hosts[place(cluster, row)].name;
    Some(format!(
        "unmasq trace {} --node {node} --from {} --to {} --proto {protocol}",
        quoted(&kept.to_string_lossy()),
        quoted(&from),
        quoted(&to),
    ))
}

/// Where the packet is looked at: the first node that it comes to as its client sent it. A proxy
/// sends another one.
fn place(cluster: &Cluster, row: &Row) -> usize {
    let kind = |host: usize| cluster.plan.hosts[host].kind;
    let way = row.foreseen.first().map(|one| &one.way[..]).unwrap_or_default();
    let own = || way.iter().copied().take_while(|host| kind(*host) != Kind::Proxy);
    let node = own().find(|host| kind(*host) == Kind::Node);
    let next = || own().find(|host| *host != row.question.from && kind(*host) != Kind::Switch);
    node.or_else(next).unwrap_or(row.question.from)
}

/// An address, with a port where there is one.
pub(super) fn end(address: IpAddr, port: Option<u16>) -> String {
    match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for (word, expected) in [
            ("/tmp/unmasq-lab-x-1.2", "/tmp/unmasq-lab-x-1.2"),
            ("[fd00::1]:80", "'[fd00::1]:80'"),
            ("/tmp/a b", "'/tmp/a b'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
