//! The names of Services' and endpoints' chains, which kube-proxy makes from hashes.
//!
//! In: the names of a Service and its port, and an endpoint. Out: as
//! kubernetes pkg/proxy/iptables/proxier.go (`portProtoHash`, `servicePortEndpointChainName`) and
//! pkg/proxy/nftables/proxier.go (`hashAndTruncate`) name them.

use std::net::SocketAddr;

use super::service_port::ServicePort;

/// What an nftables name has room for behind the longest prefix (`chainNameBaseLengthMax`).
const LENGTH: usize = 240;

/// The end of the names of a Service's chains in iptables mode.
pub(super) fn iptables_service(service: &ServicePort<'_>) -> String {
    base32(&format!("{}{}", service.name, service.protocol), 16)
}

/// The end of the name of an endpoint's chain in iptables mode.
pub(super) fn iptables_endpoint(service: &ServicePort<'_>, endpoint: &str) -> String {
    base32(&format!("{}{}{endpoint}", service.name, service.protocol), 16)
}

/// The end of the names of a Service's chains in nftables mode.
pub(super) fn nftables_service(service: &ServicePort<'_>) -> String {
    hashed(path(service))
}

/// The end of the names of an endpoint's chain and set in nftables mode.
pub(super) fn nftables_endpoint(service: &ServicePort<'_>, endpoint: SocketAddr) -> String {
    // A name can't have colons.
    let address = endpoint.ip().to_string().replace(':', ".");
    hashed(format!("{}__{address}/{}", path(service), endpoint.port()))
}

fn path(service: &ServicePort<'_>) -> String {
    let ServicePort { service: object, protocol, port_name, .. } = service;
    format!("{}/{}/{protocol}/{port_name}", object.namespace, object.name)
}

fn hashed(name: String) -> String {
    let mut name = format!("{}-{name}", base32(&name, 8));
    if name.len() > LENGTH {
        // Names of Kubernetes objects are ASCII.
        name.truncate(LENGTH - 3);
        name.push_str("...");
    }
    name
}

/// The first characters of a SHA-256 in base32 (RFC 4648).
fn base32(text: &str, characters: usize) -> String {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let hash = hmac_sha256::Hash::hash(text.as_bytes());
    let bit = |index: usize| hash[index / 8] >> (7 - index % 8) & 1;
    (0..characters)
        .map(|index| (0..5).fold(0, |digit, place| digit << 1 | bit(5 * index + place)))
        .map(|digit| char::from(ALPHABET[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `echo -n abc | sha256sum | xxd -r -p | base32`, with coreutils.
    #[test]
    fn a_hash_is_written_in_base32() {
        assert_eq!(base32("abc", 16), "XJ4BNP4PAHH6UQKB");
        assert_eq!(base32("abc", 8), "XJ4BNP4P");
    }

    #[test]
    fn a_long_name_is_cut() {
        assert_eq!(hashed("a".repeat(231)).len(), 240);
        let cut = hashed("a".repeat(232));
        assert_eq!(cut.len(), 240);
        assert!(cut.ends_with("aa..."), "{cut}");
    }
}
