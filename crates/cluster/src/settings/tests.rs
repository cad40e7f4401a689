//! Settings from every place they can stand in, with those places.

use std::fmt::Debug;

use super::*;
use crate::{Process, read};

/// A node with files and, a line each, processes.
fn node(name: &str, processes: &[&str], files: &[(&str, &str)]) -> Node {
    let process = |line: &&str| {
        let mut words = line.split(' ').map(str::to_owned);
        Process { name: words.next().unwrap(), arguments: words.collect() }
    };
    Node {
        name: name.to_owned(),
        processes: Some(processes.iter().map(process).collect()),
        files: files.iter().map(|(path, text)| ((*path).into(), (*text).into())).collect(),
        ..Node::default()
    }
}

fn settings(nodes: &[Node], yaml: &str) -> Settings {
    let contents = read::objects((!yaml.is_empty()).then_some(("x.yaml", yaml.as_bytes())));
    assert_eq!(contents.problems, []);
    Settings::new(nodes, &contents.objects)
}

/// `VALUE @ PLACE` of each value.
fn shown<T: Debug + PartialEq>(values: &Values<T>) -> Vec<String> {
    values.all().iter().map(|one| format!("{:?} @ {}", one.value, one.place)).collect()
}

const KUBEADM: &str = r#"
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data:
  kubeconfig.conf: "kind: Config\n"
  config.conf: |
    apiVersion: kubeproxy.config.k8s.io/v1alpha1
    kind: KubeProxyConfiguration
    clusterCIDR: 10.244.0.0/16,fd00:244::/56
    mode: ""
    detectLocalMode: BridgeInterface
    iptables:
      masqueradeAll: false
    nodePortAddresses: null
---
kind: DaemonSet
metadata: {name: kube-proxy, namespace: kube-system}
spec: {template: {spec: {containers: [{name: kube-proxy, command: [/usr/local/bin/kube-proxy,
  --config=/var/lib/kube-proxy/config.conf, --masquerade-all]}]}}}
---
kind: Pod
metadata: {name: kube-apiserver-n1, namespace: kube-system}
spec: {hostNetwork: true, containers: [{name: kube-apiserver, command: [kube-apiserver,
  --service-cluster-ip-range=10.96.0.0/12]}]}
---
kind: ConfigMap
metadata: {name: kubeadm-config, namespace: kube-system}
data:
  ClusterConfiguration: |
    networking: {podSubnet: 10.244.0.0/16, serviceSubnet: 10.97.0.0/16}
"#;

#[test]
fn kube_proxy_of_kubeadm() {
    let nodes = [node(
        "n1",
        &["kube-proxy --cluster-cidr 10.1.0.0/16 --masquerade-all --proxy-mode=***"],
        &[],
    )];
    let found = settings(&nodes, KUBEADM);
    let proxy = &found.kube_proxy;
    let cidrs = [
        "[10.1.0.0/16] @ node n1, kube-proxy --cluster-cidr",
        "[10.244.0.0/16, fd00:244::/56] @ ConfigMap kube-system/kube-proxy, config.conf: clusterCIDR",
    ];
    assert_eq!(shown(&proxy.cluster_cidrs), cidrs);
    assert_eq!(proxy.cluster_cidrs.contradictions().len(), 1);
    // The DaemonSet's flags are ignored beside --config; the process has none.
    let all = [
        "true @ node n1, kube-proxy --masquerade-all",
        "false @ ConfigMap kube-system/kube-proxy, config.conf: iptables.masqueradeAll",
    ];
    assert_eq!(shown(&proxy.masquerade_all), all);
    let mode =
        "\"BridgeInterface\" @ ConfigMap kube-system/kube-proxy, config.conf: detectLocalMode";
    assert_eq!(shown(&proxy.detect_local_mode), [mode]);
    assert!(proxy.mode.all().is_empty() && proxy.node_port_addresses.all().is_empty());
    assert_eq!(proxy.places.len(), 2);
    let [left_out] = &found.unreadable[..] else { panic!("{:?}", found.unreadable) };
    assert_eq!(left_out.place.to_string(), "node n1, kube-proxy --proxy-mode");
    assert_eq!(left_out.what, Unread::LeftOut);
    let services = [
        "[10.96.0.0/12] @ Pod kube-system/kube-apiserver-n1, container kube-apiserver: --service-cluster-ip-range",
        "[10.97.0.0/16] @ ConfigMap kube-system/kubeadm-config, ClusterConfiguration: networking.serviceSubnet",
    ];
    assert_eq!(shown(&found.control_plane.service_cidrs), services);
    let on = |node: &str| proxy.cluster_cidrs.on(node).unwrap().value.len();
    assert_eq!((on("n1"), on("n2")), (1, 2));
}

const CANAL: &str = r#"
kind: ConfigMap
metadata: {name: canal-config, namespace: kube-system}
data:
  masquerade: "true"
  net-conf.json: '{"Network": "10.42.0.0/16", "Backend": {"Type": "vxlan"}}'
---
kind: DaemonSet
metadata: {name: canal, namespace: kube-system}
spec: {template: {spec: {hostNetwork: true, containers: [
  {name: calico-node, image: "calico/node:v3", env: [
    {name: CALICO_NETWORKING_BACKEND, value: none},
    {name: CALICO_IPV4POOL_NAT_OUTGOING, value: maybe},
    {name: CALICO_IPV4POOL_CIDR, value: 192.168.0.0/16}]},
  {name: kube-flannel, command: [/opt/bin/flanneld, --ip-masq, --kube-subnet-mgr]}]}}}
---
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {natOutgoingExclusions: IPPoolsAndHostIPs}
"#;

#[test]
fn canal_is_flannel_and_calico() {
    let env = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\nFLANNEL_IPV6_NETWORK=::/0\nFLANNEL_IPMASQ=false\n";
    let nodes = [node("n1", &[], &[("/run/flannel/subnet.env", env)])];
    let found = settings(&nodes, CANAL);
    assert!(found.is_canal());
    let networks = [
        "10.42.0.0/16 @ node n1, /run/flannel/subnet.env:1: FLANNEL_NETWORK",
        "10.42.0.0/16 @ ConfigMap kube-system/canal-config, net-conf.json: Network",
    ];
    assert_eq!(shown(&found.flannel.network), networks);
    assert_eq!(found.flannel.network.contradictions(), []);
    assert_eq!(found.flannel.network6.all(), []);
    assert_eq!(
        shown(&found.flannel.subnet),
        ["10.42.3.1/24 @ node n1, /run/flannel/subnet.env:2: FLANNEL_SUBNET"]
    );
    let masq = [
        "false @ node n1, /run/flannel/subnet.env:4: FLANNEL_IPMASQ",
        "true @ DaemonSet kube-system/canal, container kube-flannel: --ip-masq",
        "true @ ConfigMap kube-system/canal-config: masquerade",
    ];
    assert_eq!(shown(&found.flannel.ip_masq), masq);
    assert_eq!(found.flannel.ip_masq.contradictions().len(), 2);
    assert_eq!(
        shown(&found.flannel.backend),
        ["\"vxlan\" @ ConfigMap kube-system/canal-config, net-conf.json: Backend.Type"]
    );
    let cidr =
        "192.168.0.0/16 @ DaemonSet kube-system/canal, container calico-node: CALICO_IPV4POOL_CIDR";
    assert_eq!(shown(&found.calico.pool_cidr), [cidr]);
    assert_eq!(found.calico.pool_nat_outgoing.all(), []);
    assert_eq!(found.unreadable[0].what, Unread::Value("maybe".to_owned()));
    let exclusions =
        "\"IPPoolsAndHostIPs\" @ FelixConfiguration default: spec.natOutgoingExclusions";
    assert_eq!(shown(&found.calico.nat_outgoing_exclusions), [exclusions]);

    // Calico with a network of its own.
    let calico = "kind: DaemonSet\nmetadata: {name: calico-node, namespace: kube-system}\n\
        spec: {template: {spec: {containers: [{name: calico-node, env: [{name: CALICO_NETWORKING_BACKEND, value: bird}]}]}}}";
    assert!(!settings(&[], calico).is_canal());
}

#[test]
fn kube_router_and_the_controller_of_k3s() {
    let yaml = "kind: DaemonSet\nmetadata: {name: kube-router, namespace: kube-system}\n\
        spec: {template: {spec: {containers: [{name: kube-router, args: [--run-router=true, --enable-pod-egress=false, --run-service-proxy]}]}}}";
    let nodes = [node("n1", &["kube-router --enable-pod-egress --run-firewall=x"], &[])];
    let router = settings(&nodes, yaml);
    let egress = [
        "true @ node n1, kube-router --enable-pod-egress",
        "false @ DaemonSet kube-system/kube-router, container kube-router: --enable-pod-egress",
    ];
    assert_eq!(shown(&router.kube_router.pod_egress), egress);
    assert_eq!(router.kube_router.pod_egress.contradictions().len(), 1);
    assert!(router.kube_router.service_proxy.first().unwrap().value);
    assert_eq!(router.unreadable[0].what, Unread::Value("x".to_owned()));
    assert!(!settings(&[node("n1", &["k3s server"], &[])], "").kube_router.is_present());
}

#[test]
fn k3s_and_rke2() {
    let config = "# mine\ntoken: ***\ncluster-cidr:\n  - 10.42.0.0/16\n  - \"fd00:42::/56\"\nservice-cidr: 10.43.0.0/16 # x\n\
        disable: [traefik, servicelb]\nkube-proxy-arg:\n  - proxy-mode=nftables\n  - ***\n  - nodeport-addresses=10.0.0.0/8,11.0.0.0/8\n";
    let line = "k3s server --cluster-cidr=10.40.0.0/16 --cluster-cidr=fd00:40::/56 --flannel-backend none --disable-kube-proxy --kube-proxy-arg=masquerade-all=true";
    let nodes = [
        node("n1", &[line], &[]),
        node("n2", &[], &[("/etc/rancher/k3s/config.yaml", config)]),
        node("n3", &[], &[("/etc/rancher/rke2/config.yaml.d/50.yaml", "cni: canal\n")]),
    ];
    let found = settings(&nodes, "");
    let cidrs = [
        "[10.40.0.0/16, fd00:40::/56] @ node n1, k3s --cluster-cidr",
        "[10.42.0.0/16, fd00:42::/56] @ node n2, /etc/rancher/k3s/config.yaml:4: cluster-cidr",
    ];
    assert_eq!(shown(&found.rancher.cluster_cidrs), cidrs);
    assert_eq!(shown(&found.kube_proxy.cluster_cidrs), cidrs);
    assert_eq!(found.rancher.cluster_cidrs.contradictions(), []);
    assert_eq!(
        shown(&found.rancher.service_cidrs),
        ["[10.43.0.0/16] @ node n2, /etc/rancher/k3s/config.yaml:6: service-cidr"]
    );
    assert_eq!(
        shown(&found.rancher.disable),
        ["[\"traefik\", \"servicelb\"] @ node n2, /etc/rancher/k3s/config.yaml:7: disable"]
    );
    assert_eq!(
        shown(&found.rancher.flannel_backend),
        ["\"none\" @ node n1, k3s --flannel-backend"]
    );
    assert!(found.rancher.disable_kube_proxy.on("n1").unwrap().value);
    assert!(found.rancher.disable_kube_proxy.on("n2").is_none());
    assert_eq!(
        shown(&found.rancher.cni),
        ["\"canal\" @ node n3, /etc/rancher/rke2/config.yaml.d/50.yaml:1: cni"]
    );
    assert_eq!(
        shown(&found.kube_proxy.mode),
        ["\"nftables\" @ node n2, /etc/rancher/k3s/config.yaml:9: kube-proxy-arg"]
    );
    assert_eq!(found.kube_proxy.node_port_addresses.first().unwrap().value.len(), 2);
    assert_eq!(shown(&found.kube_proxy.masquerade_all), ["true @ node n1, k3s --kube-proxy-arg"]);
    assert_eq!(found.unreadable.len(), 1, "{:?}", found.unreadable);
}

#[test]
fn ip_masq_agent_with_and_without_a_list() {
    let yaml = |config: &str| {
        format!(
            "kind: ConfigMap\nmetadata: {{name: ip-masq-agent, namespace: kube-system}}\ndata:\n  config: |\n    {config}\n"
        )
    };
    let nodes =
        [node("n1", &["ip-masq-agent --masq-chain=IP-MASQ --nomasq-all-reserved-ranges"], &[])];
    let list = settings(
        &nodes,
        &yaml("nonMasqueradeCIDRs: [10.0.0.0/8, 10.9.1.1/16]\n    masqLinkLocal: true"),
    )
    .ip_masq_agent;
    let place = "ConfigMap kube-system/ip-masq-agent, config";
    assert_eq!(
        shown(&list.non_masquerade_cidrs),
        [format!("[10.0.0.0/8, 10.9.0.0/16] @ {place}: nonMasqueradeCIDRs")]
    );
    assert_eq!(shown(&list.masq_link_local), [format!("true @ {place}: masqLinkLocal")]);
    assert_eq!(
        shown(&list.nomasq_all_reserved_ranges),
        ["true @ node n1, ip-masq-agent --nomasq-all-reserved-ranges"]
    );
    let empty = settings(&[], &yaml("{\"nonMasqueradeCIDRs\": []}")).ip_masq_agent;
    assert_eq!(shown(&empty.non_masquerade_cidrs), [format!("[] @ {place}: nonMasqueradeCIDRs")]);
    let wrong = settings(&[], &yaml("nonMasqueradeCIDRs: [10.0.0.0]"));
    assert!(wrong.ip_masq_agent.non_masquerade_cidrs.all().is_empty());
    assert_eq!(wrong.unreadable[0].what, Unread::Value("10.0.0.0".to_owned()));
}

#[test]
fn docker_and_network_plugins() {
    let daemon =
        "{\n  \"bip\": \"172.7.21.1/24\",\n  \"ip-masq\": false,\n  \"hosts\": \"***\"\n}\n";
    let cni = "{\n \"plugins\": [\n  {\"type\": \"bridge\",\n   \"ipMasq\": true}]}";
    let nodes = [
        node(
            "n1",
            &["dockerd --fixed-cidr 172.7.21.128/25"],
            &[("/etc/docker/daemon.json", daemon), ("/etc/cni/net.d/10.conflist", cni)],
        ),
        node(
            "n2",
            &["dockerd -b br9 --ip-masq=true --iptables=false"],
            &[("/etc/docker/daemon.json", "{")],
        ),
    ];
    let found = settings(&nodes, "");
    let engine = &found.engine;
    assert_eq!(shown(&engine.bip), ["172.7.21.1/24 @ node n1, /etc/docker/daemon.json:2: bip"]);
    assert_eq!(shown(&engine.fixed_cidr), ["172.7.21.128/25 @ node n1, dockerd --fixed-cidr"]);
    let masq = [
        "true @ node n2, dockerd --ip-masq",
        "false @ node n1, /etc/docker/daemon.json:3: ip-masq",
    ];
    assert_eq!(shown(&engine.ip_masq), masq);
    assert_eq!(shown(&engine.bridge), ["\"br9\" @ node n2, dockerd -b"]);
    assert_eq!(shown(&engine.iptables), ["false @ node n2, dockerd --iptables"]);
    assert_eq!(
        shown(&engine.cni_ip_masq),
        ["true @ node n1, /etc/cni/net.d/10.conflist:4: plugins.0.ipMasq"]
    );
    assert_eq!(found.unreadable[0].place.to_string(), "node n2, /etc/docker/daemon.json:1");
}

#[test]
fn cilium_with_bpf() {
    let yaml = "kind: ConfigMap\nmetadata: {name: cilium-config, namespace: kube-system}\n\
        data: {enable-bpf-masquerade: \"true\", kube-proxy-replacement: \"true\"}\n---\n\
        kind: DaemonSet\nmetadata: {name: cilium, namespace: kube-system}\n\
        spec: {template: {spec: {containers: [{name: cilium-agent, command: [cilium-agent], args: [--config-dir=/tmp]}]}}}";
    let cilium = settings(&[], yaml).cilium;
    assert!(cilium.is_present());
    assert_eq!(
        shown(&cilium.bpf_masquerade),
        ["true @ ConfigMap kube-system/cilium-config: enable-bpf-masquerade"]
    );
}

#[test]
fn where_the_same_may_stand_in_pods() {
    // Without its DaemonSet, kube-proxy's pod says it.
    let yaml = "kind: Pod\nmetadata: {name: kube-proxy-x, namespace: kube-system}\n\
        spec: {containers: [{name: p, command: [/bin/sh, -c, 'exec kube-proxy --proxy-mode=ipvs']}]}";
    let proxy = settings(&[], yaml).kube_proxy;
    assert_eq!(
        shown(&proxy.mode),
        ["\"ipvs\" @ Pod kube-system/kube-proxy-x, container p: --proxy-mode"]
    );
    assert_eq!(settings(&[], ""), Settings::default());
}
