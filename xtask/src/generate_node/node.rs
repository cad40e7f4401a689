//! The rest of a generated node: devices, addresses, routes and settings.
//!
//! In: a cluster, as the node sees it. A node as Calico without encapsulation leaves it: each pod behind a veth device with a host
//! route, each other node's pods by way of that node. No bridge, no policy routing.

use anyhow::Result;

use super::cluster::{Cluster, node_address};

/// `capture.json`.
pub(super) const CAPTURE: &str = concat!(
    r#"{"schema": "unmasq.capture/v1", "created": "2026-01-01T00:00:00Z", "#,
    r#""by": "xtask generate-node"}"#,
    "\n"
);

/// How a listing of `nft -j` begins.
pub(super) const NFT_BEGIN: &str = concat!(
    r#"{"nftables": [{"metainfo": {"version": "1.0.6", "release_name": "Lester Gooch #5", "#,
    r#""json_schema_version": 1}}"#
);

/// Files that are there and empty: nothing of that kind is on the node.
pub(super) const EMPTY: &[&str] =
    &["ip6tables-save", "iptables-legacy-save", "ip6tables-legacy-save", "ipset.save"];

/// Hands each file's name and content to `file`.
pub(super) fn write(
    cluster: &Cluster,
    mut file: impl FnMut(&str, &str) -> Result<()>,
) -> Result<()> {
    file("ip-link.json", &list(links(cluster, false)))?;
    file("ip-addr.json", &list(links(cluster, true)))?;
    file("ip-route.json", &list(routes(cluster)))?;
    file("ip6-route.json", &list(Vec::new()))?;
    let rule = |priority: u32, table: &str| {
        format!(r#"{{"priority":{priority},"src":"all","table":"{table}","protocol":"kernel"}}"#)
    };
    let (local, main, default) = (rule(0, "local"), rule(32766, "main"), rule(32767, "default"));
    file("ip6-rule.json", &list(vec![local.clone(), main.clone()]))?;
    file("ip-rule.json", &list(vec![local, main, default]))?;
    file("sysctl", &sysctl(cluster))
}

fn list(objects: Vec<String>) -> String {
    format!("[{}]\n", objects.join(","))
}

/// The device of a pod.
fn veth(pod: u32) -> String {
    format!("cali{pod:011x}")
}

/// The pods of this node.
fn pods(cluster: &Cluster) -> impl Iterator<Item = u32> {
    cluster.pods(cluster.this_node).into_iter().map(|(pod, _)| pod)
}

fn links(cluster: &Cluster, with_addresses: bool) -> Vec<String> {
    let addresses = |list: String| match with_addresses {
        true => format!(r#","addr_info":[{list}]"#),
        false => String::new(),
    };
    let address = |local: String, length: u8, scope: &str, label: &str| {
        format!(
            r#"{{"family":"inet","local":"{local}","prefixlen":{length},"scope":"{scope}","label":"{label}","valid_life_time":4294967295,"preferred_life_time":4294967295}}"#
        )
    };
    let lo = address("127.0.0.1".into(), 8, "host", "lo");
    let this = node_address(cluster.this_node);
    let eth0 = address(this.to_string(), 24, "global", "eth0");
    let [a, b, c, d] = this.octets();
    let mut links = vec![
        format!(
            r#"{{"ifindex":1,"ifname":"lo","flags":["LOOPBACK","UP","LOWER_UP"],"mtu":65536,"qdisc":"noqueue","operstate":"UNKNOWN","link_type":"loopback","address":"00:00:00:00:00:00","broadcast":"00:00:00:00:00:00"{}}}"#,
            addresses(lo)
        ),
        format!(
            r#"{{"ifindex":2,"ifname":"eth0","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,"qdisc":"mq","operstate":"UP","link_type":"ether","address":"02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}","broadcast":"ff:ff:ff:ff:ff:ff"{}}}"#,
            addresses(eth0)
        ),
    ];
    links.extend(pods(cluster).map(|pod| {
        format!(
            r#"{{"ifindex":{},"link_index":2,"ifname":"{}","flags":["BROADCAST","MULTICAST","UP","LOWER_UP"],"mtu":1500,"qdisc":"noqueue","operstate":"UP","link_type":"ether","address":"ee:ee:ee:ee:ee:ee","broadcast":"ff:ff:ff:ff:ff:ff","link_netnsid":{pod},"linkinfo":{{"info_kind":"veth"}}{}}}"#,
            pod + 3,
            veth(pod),
            addresses(String::new())
        )
    }));
    links
}

fn routes(cluster: &Cluster) -> Vec<String> {
    let this = node_address(cluster.this_node);
    let mut routes = vec![
        r#"{"type":"unicast","dst":"default","gateway":"10.250.0.1","dev":"eth0","protocol":"static","scope":"global","flags":[]}"#.to_owned(),
        format!(r#"{{"type":"unicast","dst":"10.250.0.0/24","dev":"eth0","protocol":"kernel","scope":"link","prefsrc":"{this}","flags":[]}}"#),
    ];
    for node in 0..cluster.nodes {
        let network = cluster.pod_network(node);
        routes.push(if node == cluster.this_node {
            format!(r#"{{"type":"blackhole","dst":"{network}","protocol":"bird","scope":"global","flags":[]}}"#)
        } else {
            let gateway = node_address(node);
            format!(r#"{{"type":"unicast","dst":"{network}","gateway":"{gateway}","dev":"eth0","protocol":"bird","scope":"global","flags":[]}}"#)
        });
    }
    routes.extend(pods(cluster).map(|pod| {
        let address = cluster.pod_address(cluster.this_node, pod);
        format!(
            r#"{{"type":"unicast","dst":"{address}","dev":"{}","protocol":"boot","scope":"link","flags":[]}}"#,
            veth(pod)
        )
    }));
    let this = this.to_string();
    for (kind, destination, device, source) in [
        ("local", "127.0.0.0/8", "lo", "127.0.0.1"),
        ("local", "127.0.0.1", "lo", "127.0.0.1"),
        ("broadcast", "127.255.255.255", "lo", "127.0.0.1"),
        ("local", &this, "eth0", &this),
        ("broadcast", "10.250.0.255", "eth0", &this),
    ] {
        let scope = if kind == "local" { "host" } else { "link" };
        routes.push(format!(
            r#"{{"type":"{kind}","dst":"{destination}","dev":"{device}","table":"local","protocol":"kernel","scope":"{scope}","prefsrc":"{source}","flags":[]}}"#
        ));
    }
    routes
}

fn sysctl(cluster: &Cluster) -> String {
    let fixed = ["all", "default", "eth0", "lo"].map(str::to_owned);
    let mut devices: Vec<String> = fixed.into_iter().chain(pods(cluster).map(veth)).collect();
    devices.sort();
    let mut text = String::new();
    for device in &devices {
        let setting = |name: &str, value: u8| format!("net.ipv4.conf.{device}.{name} = {value}\n");
        text.push_str(&setting("forwarding", 1));
        text.push_str(&setting("route_localnet", u8::from(device == "all")));
        text.push_str(&setting("rp_filter", 0));
        text.push_str(&setting("src_valid_mark", 0));
    }
    text.push_str("net.ipv4.ip_forward = 1\n");
    for device in &devices {
        text.push_str(&format!("net.ipv6.conf.{device}.forwarding = 0\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn the_files_are_valid_and_agree() {
        let mut files = std::collections::BTreeMap::new();
        let cluster = Cluster::of_lone_node(1, 1);
        write(&cluster, |name, content| {
            files.insert(name.to_owned(), content.to_owned());
            Ok(())
        })
        .unwrap();
        let json = |name: &str| -> Vec<Value> { serde_json::from_str(&files[name]).unwrap() };
        let links: Vec<Value> = json("ip-link.json").iter().map(|l| l["ifname"].clone()).collect();
        let addr = json("ip-addr.json");
        assert_eq!(addr.iter().map(|l| l["ifname"].clone()).collect::<Vec<_>>(), links);
        for route in json("ip-route.json") {
            assert!(route["type"] == "blackhole" || links.contains(&route["dev"]), "{route}");
        }
        // The client of the measurements is a pod of this node.
        let client = super::super::CLIENT.split(':').next().unwrap();
        assert!(json("ip-route.json").iter().any(|route| route["dst"] == client));
        assert!(files["sysctl"].contains("net.ipv4.ip_forward = 1\n"));
    }

    #[test]
    fn the_beginnings_are_valid() {
        let capture: Value = serde_json::from_str(CAPTURE).unwrap();
        assert_eq!(capture["schema"], "unmasq.capture/v1");
        let listing: Value = serde_json::from_str(&format!("{NFT_BEGIN}]}}")).unwrap();
        assert_eq!(listing["nftables"].as_array().unwrap().len(), 1);
    }
}
