//! What each scenario's cluster shows of its settings, before the remedy and after it. The
//! expected texts are what `kubectl get` and `unmasq collect` show of such a cluster.

use super::*;
use crate::scenario::{BUILTIN, builtin};

/// As found, and after each step of the remedy.
fn states(name: &str) -> Vec<Scenario> {
    let text = builtin(name).unwrap();
    let first = Scenario::parse(text).unwrap();
    [first].into_iter().chain(Scenario::after_steps(text).unwrap()).collect()
}

fn object(scenario: &Scenario, kind: &str, name: &str) -> Value {
    let found: Vec<Value> = objects(scenario)
        .into_iter()
        .filter(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .collect();
    assert_eq!(found.len(), 1, "{kind} {name}");
    found.into_iter().next().unwrap()
}

/// A ConfigMap's text.
fn data(scenario: &Scenario, name: &str, key: &str) -> String {
    object(scenario, "ConfigMap", name)["data"][key].as_str().unwrap().to_owned()
}

/// A text of YAML or JSON.
fn parsed(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// A DaemonSet's containers.
fn containers(scenario: &Scenario, name: &str) -> Vec<Value> {
    let set = object(scenario, "DaemonSet", name);
    set["spec"]["template"]["spec"]["containers"].as_array().unwrap().clone()
}

fn file(scenario: &Scenario, node: usize, path: &str) -> Option<String> {
    let files = node_files(scenario, &scenario.nodes[node]);
    files.get(path).map(|text| String::from_utf8(text.clone()).unwrap())
}

fn names(scenario: &Scenario) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let name = |one: &Value| format!("{} {}", text(&one["kind"]), text(&one["metadata"]["name"]));
    let mut names: Vec<String> = objects(scenario).iter().map(name).collect();
    names.sort();
    names
}

#[test]
fn kube_proxy() {
    for (name, cidr) in [
        ("service-cluster-policy", "10.42.0.0/16,fd00:42::/48"),
        ("cluster-cidr-too-small", "10.244.0.0/23,fd00:244::/48"),
    ] {
        let scenario = &states(name)[0];
        let config = parsed(&data(scenario, "kube-proxy", "config.conf"));
        assert_eq!(config["kind"], "KubeProxyConfiguration");
        assert_eq!(config["clusterCIDR"], cidr);
        assert_eq!(config["detectLocalMode"], "");
        assert_eq!(config["nodePortAddresses"], Value::Null);
        let command = &containers(scenario, "kube-proxy")[0]["command"];
        assert_eq!(command[1], "--config=/var/lib/kube-proxy/config.conf");
    }
    let wide = &states("cluster-cidr-too-small")[1];
    let config = parsed(&data(wide, "kube-proxy", "config.conf"));
    assert_eq!(config["clusterCIDR"], "10.244.0.0/16,fd00:244::/48");
    let line = "/usr/local/bin/kube-proxy --config=/var/lib/kube-proxy/config.conf \
                --hostname-override=new-3\n";
    assert!(file(wide, 2, "processes").unwrap().contains(line));
}

#[test]
fn each_mode_of_kube_proxy_has_a_masquerade_all_of_its_own() {
    use crate::scenario::ProxyMode;
    let mut scenario = states("service-cluster-policy").remove(0);
    for (mode, name, other) in [
        (ProxyMode::Iptables, "iptables", "nftables"),
        (ProxyMode::Nftables, "nftables", "iptables"),
    ] {
        let proxy = scenario.programs.kube_proxy.as_mut().unwrap();
        (proxy.mode, proxy.masquerade_all) = (mode, true);
        let config = parsed(&data(&scenario, "kube-proxy", "config.conf"));
        assert_eq!(config["mode"], name);
        assert_eq!(config[name]["masqueradeAll"], true);
        assert_eq!(config[other]["masqueradeAll"], false);
    }
}

#[test]
fn flannel_in_pods() {
    for (name, nftables) in [("stale-flannel-rules", false), ("l7-forwarded-for", true)] {
        let scenario = &states(name)[0];
        let v4 = scenario.network.pods[0].to_string();
        let conf = parsed(&data(scenario, "kube-flannel-cfg", "net-conf.json"));
        assert_eq!(conf["Network"], v4);
        assert_eq!(conf["EnableIPv6"], true);
        assert_eq!(conf["EnableNFTables"], nftables);
        assert_eq!(conf["Backend"]["Type"], "vxlan");
        let args = &containers(scenario, "kube-flannel-ds")[0]["args"];
        assert_eq!(*args, json!(["--ip-masq", "--kube-subnet-mgr"]));
    }
    let scenario = &states("stale-flannel-rules")[0];
    let set = object(scenario, "DaemonSet", "kube-flannel-ds");
    assert_eq!(set["metadata"]["namespace"], "kube-flannel");
    let env = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.2.1/24\n\
               FLANNEL_IPV6_NETWORK=fd00:244::/48\nFLANNEL_IPV6_SUBNET=fd00:244:0:2::1/64\n\
               FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
    assert_eq!(file(scenario, 1, "files/run/flannel/subnet.env").unwrap(), env);
    let line = "/opt/bin/flanneld --ip-masq --kube-subnet-mgr\n";
    assert!(file(scenario, 1, "processes").unwrap().starts_with(line));
    assert!(file(scenario, 1, "files/etc/cni/net.d/10-flannel.conflist").is_some());
}

#[test]
fn flannel_and_the_engine_as_programs_of_the_host() {
    let [found, excluded, told] = &states("flannel-host-masquerade")[..] else { panic!() };
    assert_eq!(names(found), Vec::<String>::new());
    let env = "FLANNEL_NETWORK=172.7.0.0/16\nFLANNEL_SUBNET=172.7.21.1/24\nFLANNEL_MTU=1500\n\
               FLANNEL_IPMASQ=false\n";
    let processes = "\
/opt/flannel/flanneld --public-ip=10.4.7.21 --etcd-endpoints=*** --iface=eth0 \
--subnet-file=/run/flannel/subnet.env
/opt/kubernetes/bin/kube-proxy --cluster-cidr=172.7.0.0/16 --proxy-mode=iptables \
--hostname-override=hdss7-21 --kubeconfig=***
/usr/bin/dockerd --bip=172.7.21.1/24 --mtu=1500 *** *** --containerd=***
";
    for state in [found, excluded, told] {
        assert_eq!(file(state, 0, "files/run/flannel/subnet.env").unwrap(), env);
        assert_eq!(file(state, 0, "processes").unwrap(), processes);
    }
    let daemon = |state| parsed(&file(state, 0, "files/etc/docker/daemon.json").unwrap());
    assert_eq!(daemon(found)["ip-masq"], Value::Null);
    assert_eq!(daemon(excluded)["ip-masq"], Value::Null);
    assert_eq!(daemon(told)["ip-masq"], false);
    // dockerd doesn't start with a setting in both places.
    assert_eq!(daemon(told)["bip"], Value::Null);
    let kept = |state| file(state, 1, "files/etc/sysconfig/iptables");
    assert_eq!(kept(found), None);
    let rule = "-A POSTROUTING -s 172.7.22.0/24 ! -d 172.7.0.0/16 ! -o docker0 -j MASQUERADE\n";
    assert!(kept(excluded).unwrap().contains(rule) && kept(told).unwrap().contains(rule));
}

#[test]
fn an_engine_with_a_network_of_its_own() {
    let [found, mended] = &states("engine-subnet-overlap")[..] else { panic!() };
    let daemon = |state| parsed(&file(state, 0, "files/etc/docker/daemon.json").unwrap());
    assert_eq!(daemon(found)["bip"], Value::Null, "172.17.0.0/16 is its own choice");
    assert_eq!(daemon(mended)["bip"], "198.18.255.1/24");
    assert!(file(found, 0, "processes").unwrap().contains("/usr/bin/dockerd *** ***"));
}

#[test]
fn canal() {
    let [found, mended] = &states("canal-unused-pool")[..] else { panic!() };
    let expected = [
        "ConfigMap canal-config",
        "ConfigMap kube-proxy",
        "DaemonSet canal",
        "DaemonSet kube-proxy",
        "IPPool default-ipv4-ippool",
    ];
    for (state, nat_outgoing) in [(found, true), (mended, false)] {
        assert_eq!(names(state), expected);
        let pool = object(state, "IPPool", "default-ipv4-ippool");
        assert_eq!(pool["apiVersion"], "crd.projectcalico.org/v1");
        assert_eq!(pool["spec"]["cidr"], "192.168.0.0/16");
        assert_eq!(pool["spec"]["natOutgoing"], nat_outgoing);
        let containers = containers(state, "canal");
        assert_eq!(containers[0]["name"], "calico-node");
        let value = |name| {
            let env = containers[0]["env"].as_array().unwrap();
            env.iter().find(|one| one["name"] == name).map(|one| one["value"].clone())
        };
        assert_eq!(value("CALICO_NETWORKING_BACKEND"), Some(json!("none")));
        assert_eq!(value("CALICO_IPV4POOL_CIDR"), Some(json!("192.168.0.0/16")));
        let off = (!nat_outgoing).then(|| json!("0"));
        assert_eq!(value("CALICO_IPV4POOL_NAT_OUTGOING"), off);
        assert_eq!(containers[1]["name"], "kube-flannel");
        let command = json!(["/opt/bin/flanneld", "--ip-masq", "--kube-subnet-mgr"]);
        assert_eq!(containers[1]["command"], command);
        let conf = parsed(&data(state, "canal-config", "net-conf.json"));
        assert_eq!(conf["Network"], "10.42.0.0/16");
        let processes = "/opt/bin/flanneld --ip-masq --kube-subnet-mgr\n\
            /usr/local/bin/kube-proxy --config=/var/lib/kube-proxy/config.conf \
            --hostname-override=n1\ncalico-node ***\n";
        assert_eq!(file(state, 0, "processes").unwrap(), processes);
        assert!(file(state, 0, "files/etc/cni/net.d/10-canal.conflist").is_some());
    }
}

#[test]
fn calico_alone() {
    let scenario = &states("cluster-cidr-too-small")[0];
    let pool = object(scenario, "IPPool", "v6");
    assert_eq!(pool["spec"]["blockSize"], 122);
    assert_eq!(object(scenario, "IPPool", "first")["spec"]["blockSize"], 26);
    let containers = containers(scenario, "calico-node");
    let env = containers[0]["env"].as_array().unwrap();
    assert!(env.contains(&json!({"name": "CALICO_NETWORKING_BACKEND", "value": "bird"})));
    let is_pool = |one: &&Value| one["name"] == "CALICO_IPV4POOL_CIDR";
    assert!(!env.iter().any(|one| is_pool(&one)), "a person made the pools");
    assert_eq!(data(scenario, "calico-config", "calico_backend"), "bird");
}

#[test]
fn kube_router_on_k3s() {
    let [found, off, _] = &states("kube-router-egress")[..] else { panic!() };
    let args = |state| containers(state, "kube-router")[0]["args"].as_array().unwrap().clone();
    let flag = json!("--enable-pod-egress=false");
    assert!(args(found).contains(&json!("--run-service-proxy=true")));
    assert!(!args(found).iter().any(|one| one.as_str().unwrap().contains("pod-egress")));
    assert!(args(off).contains(&flag));
    let processes = |state| file(state, 1, "processes").unwrap();
    assert!(processes(found).starts_with("/usr/local/bin/k3s server\n/usr/local/bin/kube-router "));
    assert!(!processes(found).contains("pod-egress"));
    assert!(processes(off).ends_with(" --enable-pod-egress=false\n"));
    let config = "cluster-cidr: 10.42.0.0/16,2001:db8:42::/48\ndisable-kube-proxy: true\n\
                  disable-network-policy: true\nflannel-backend: none\n\
                  node-ip: 192.168.10.11,2001:db8:10::11\n\
                  service-cidr: 10.43.0.0/16,2001:db8:43::/112\n";
    assert_eq!(file(found, 0, "files/etc/rancher/k3s/config.yaml").unwrap(), config);
    assert_eq!(names(found), ["ConfigMap kube-router-cfg", "DaemonSet kube-router"]);
}

#[test]
fn klipper_on_k3s() {
    let [found, off] = &states("klipper-lb")[..] else { panic!() };
    // The digits by sha256sum of default/web.
    assert_eq!(names(found), ["DaemonSet svclb-web-82b3ade9"]);
    let containers = containers(found, "svclb-web-82b3ade9");
    assert_eq!(containers.len(), 2);
    assert_eq!(containers[0]["name"], "lb-tcp-80");
    let env = json!([
        {"name": "SRC_PORT", "value": "80"},
        {"name": "SRC_RANGES", "value": "0.0.0.0/0,::/0"},
        {"name": "DEST_PROTO", "value": "TCP"},
        {"name": "DEST_PORT", "value": "80"},
        {"name": "DEST_IPS", "value": "10.43.0.80,fd00:43::80"},
    ]);
    assert_eq!(containers[0]["env"], env);
    assert_eq!(names(off), Vec::<String>::new());
    let config = |state| file(state, 0, "files/etc/rancher/k3s/config.yaml").unwrap();
    assert!(config(found).contains("flannel-ipv6-masq: true\n"));
    assert!(!config(found).contains("servicelb"));
    assert!(config(off).contains("disable:\n  - servicelb\n"));
    let plan = crate::cluster::plan::plan(found);
    let pods = balancer_pods(found, &plan);
    assert_eq!(pods.len(), 2);
    assert_eq!(pods[0]["metadata"]["namespace"], "kube-system");
    assert!(balancer_pods(off, &plan).is_empty());
}

#[test]
fn ip_masq_agent() {
    let [found, mended] = &states("ip-masq-agent-empty-list")[..] else { panic!() };
    let networks =
        |state| parsed(&data(state, "ip-masq-agent", "config"))["nonMasqueradeCIDRs"].clone();
    assert_eq!(networks(found), json!([]));
    assert_eq!(networks(mended), json!(["10.60.0.0/16", "10.128.0.0/20", "10.200.0.0/16"]));
    assert!(file(found, 0, "processes").unwrap().starts_with("/ip-masq-agent\n"));
}

#[test]
fn a_capture_has_every_process_and_file_and_no_other() {
    for (name, text) in BUILTIN {
        let scenario = Scenario::parse(text).unwrap();
        for node in &scenario.nodes {
            let machine = machine(&scenario, node);
            let (processes, paths) = (machine.processes.len(), machine.files.len());
            assert!(processes > 0, "{name}: no program runs");
            let files = machine.collected();
            let lines = String::from_utf8(files["processes"].clone()).unwrap();
            assert_eq!(lines.lines().count(), processes, "{name}: {lines}");
            assert_eq!(files.len(), paths + 1, "{name}: {:?}", files.keys());
        }
    }
}

/// Of a capture, what follows from the scenario alone.
fn is_written(path: &str) -> bool {
    let below = path.strip_prefix("nodes/").and_then(|rest| rest.split_once('/'));
    let below = below.map_or(path, |(_, below)| below);
    let of_node = below.starts_with("files/") || below == "processes";
    of_node || path.starts_with("kubernetes/") || path == "expect.yaml"
}

#[test]
fn the_examples_are_of_the_scenarios_as_they_are() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let example = path.display();
        let files = unmasq_host::capture::read(&path).unwrap();
        let by: Value = serde_json::from_slice(&files["capture.json"]).unwrap();
        let name = by["by"].as_str().unwrap().strip_prefix("unmasq lab, scenario ").unwrap();
        let scenario = &states(name)[0];
        let plan = crate::cluster::plan::plan(scenario);
        let manifests = crate::cluster::objects::Manifests::new(scenario, &plan).unwrap();
        let mut written: BTreeMap<String, Vec<u8>> = manifests.files().into_iter().collect();
        for node in &scenario.nodes {
            let own = node_files(scenario, node).into_iter();
            written.extend(own.map(|(path, text)| (format!("nodes/{}/{path}", node.name), text)));
        }
        let kept: BTreeMap<String, Vec<u8>> =
            files.into_iter().filter(|(path, _)| is_written(path)).collect();
        let text =
            |text: Option<&Vec<u8>>| text.map(|text| String::from_utf8_lossy(text).into_owned());
        for path in kept.keys().chain(written.keys()) {
            let (kept, written) = (text(kept.get(path)), text(written.get(path)));
            assert_eq!(kept, written, "{example}/{path} is old (cargo xtask examples)");
        }
        count += 1;
    }
    assert_eq!(count, 4, "examples");
}
