//! Who receives what a host sends out of a device.

use std::collections::BTreeMap;
use std::net::IpAddr;

use unmasq_eval::journey::{Landing, Wiring};
use unmasq_model::packet::Packet;

/// The wires of a network, by host and device.
#[derive(Debug, Clone, Default)]
pub struct Wires(BTreeMap<(usize, Box<str>), Wire>);

/// What is at the other end.
#[derive(Debug, Clone)]
pub enum Wire {
    /// One device, whatever the next hop: a point-to-point link whose other end answers for all.
    Peer {
        /// The host.
        host: usize,
        /// Its device.
        device: Box<str>,
    },
    /// A switch, a bridge or a tunnel network: who has the next hop's address gets it.
    Shared(Vec<Neighbour>),
}

/// Who has an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// The address.
    pub address: IpAddr,
    /// The host.
    pub host: usize,
    /// Its device.
    pub device: Box<str>,
}

impl Wires {
    pub(super) fn add(&mut self, host: usize, device: &str, wire: Wire) {
        self.0.insert((host, device.into()), wire);
    }

    /// Plugs a neighbour into a host's own bridge.
    pub(super) fn join(&mut self, host: usize, bridge: &str, neighbour: Neighbour) {
        let key = (host, bridge.into());
        match self.0.entry(key).or_insert_with(|| Wire::Shared(Vec::new())) {
            Wire::Shared(neighbours) => neighbours.push(neighbour),
            Wire::Peer { .. } => {}
        }
    }
}

impl Wiring for Wires {
    fn next(&self, host: usize, device: &str, next_hop: IpAddr, _: &Packet) -> Landing {
        match self.0.get(&(host, device.into())) {
            None => Landing::Unknown(format!("nothing is known of what is behind {device}")),
            Some(Wire::Peer { host, device }) => {
                Landing::Host { host: *host, device: device.clone() }
            }
            Some(Wire::Shared(neighbours)) => {
                match neighbours.iter().find(|neighbour| neighbour.address == next_hop) {
                    Some(Neighbour { host, device, .. }) => {
                        Landing::Host { host: *host, device: device.clone() }
                    }
                    None => Landing::Nowhere,
                }
            }
        }
    }
}
