//! Networks with others left out.

use ipnet::IpNet;

/// What is left of a network without others, in as few networks as there can be.
pub(crate) fn without(net: IpNet, except: &[IpNet]) -> Vec<IpNet> {
    if except.iter().any(|one| one.contains(&net)) {
        return Vec::new();
    }
    let within: Vec<IpNet> = except.iter().copied().filter(|one| net.contains(one)).collect();
    if within.is_empty() {
        return vec![net.trunc()];
    }
    // A single address, which has no halves, would be left out as a whole.
    let halves = net.subnets(net.prefix_len() + 1).into_iter().flatten();
    halves.flat_map(|half| without(half, &within)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_network() {
        let left = |net: &str, except: &[&str]| -> Vec<String> {
            let except: Vec<IpNet> = except.iter().map(|one| one.parse().unwrap()).collect();
            without(net.parse().unwrap(), &except).iter().map(ToString::to_string).collect()
        };
        assert_eq!(left("198.51.100.0/24", &[]), ["198.51.100.0/24"]);
        assert_eq!(left("198.51.100.0/24", &["192.0.2.0/24", "::/0"]), ["198.51.100.0/24"]);
        assert_eq!(left("198.51.100.0/24", &["198.51.100.128/25"]), ["198.51.100.0/25"]);
        assert_eq!(
            left("198.51.100.0/29", &["198.51.100.3/32", "198.51.100.6/31"]),
            ["198.51.100.0/31", "198.51.100.2/32", "198.51.100.4/31"]
        );
        assert_eq!(left("198.51.100.0/24", &["198.51.0.0/16"]), [""; 0]);
        assert_eq!(left("198.51.100.7/32", &["198.51.100.7/32"]), [""; 0]);
        assert_eq!(left("2001:db8::/32", &["2001:db8:8000::/33"]), ["2001:db8::/33"]);
        assert_eq!(left("0.0.0.0/0", &["198.51.100.0/24"]).len(), 24);
    }
}
