//! What is kept, and that nothing else is.

use super::*;

fn line(text: &[&str]) -> String {
    arguments(text, |word| word.ends_with("/firewalld"))
}

#[test]
fn arguments_about_the_network() {
    let cases: [(&[&str], &str); 13] = [
        (
            &["kube-proxy", "--cluster-cidr=10.42.0.0/16,fd00:42::/56", "--v=2"],
            "kube-proxy --cluster-cidr=10.42.0.0/16,fd00:42::/56 --v=2",
        ),
        (
            &["kube-proxy", "--proxy-mode", "nftables", "--masquerade-all", "--config=/var/c.conf"],
            "kube-proxy --proxy-mode nftables --masquerade-all --config=/var/c.conf",
        ),
        (
            &["kube-proxy", "--feature-gates=NFTablesProxyMode=true,Other=false"],
            "kube-proxy --feature-gates=NFTablesProxyMode=true,Other=false",
        ),
        (
            &["k3s", "server", "--token=abc", "--disable=traefik", "--node-name", "n1"],
            "k3s server --token=*** --disable=traefik --node-name n1",
        ),
        (
            &["k3s", "agent", "-t", "abc", "--flannel-backend=host-gw"],
            "k3s agent *** *** --flannel-backend=host-gw",
        ),
        (
            &["k3s", "agent", "--kube-proxy-arg=proxy-mode=ipvs", "--kubelet-arg", "x=y"],
            "k3s agent --kube-proxy-arg=proxy-mode=ipvs --kubelet-arg ***",
        ),
        (
            &["/usr/bin/flanneld", "-iface=eth1", "-ip-masq", "-pabc"],
            "/usr/bin/flanneld -iface=eth1 -ip-masq ***",
        ),
        (&["k3s", "--cluster-secret=abc"], "k3s --cluster-secret=***"),
        (&["k3s", "--cluster-secret", "abc", "def"], "k3s --cluster-secret *** ***"),
        (&["x", "--foo", "--bar", "--bip=10.0.0.1/8"], "x --foo *** --bip=10.0.0.1/8"),
        (&["x", "--cluster-dns=http://u:p@h", "--bip=a=b"], "x --cluster-dns=*** --bip=***"),
        (
            &["/usr/bin/python3", "-s", "/usr/sbin/firewalld", "--nofork"],
            "/usr/bin/python3 *** /usr/sbin/firewalld --nofork",
        ),
        (&["x", "A=b", "u@h", "http://h"], "x *** *** ***"),
    ];
    for (given, expected) in cases {
        assert_eq!(line(given), expected);
    }
}

#[test]
fn yaml_about_the_network() {
    let given = "---\n# hunter2\ntoken: abc\ncluster-cidr: 10.42.0.0/16 # mine\n\
        flannel-backend: \"host-gw\"\ndisable:\n- traefik\n  - 'servicelb'\nnode-ip: [10.0.0.1, fd00::1]\n\
        kube-proxy-arg:\n  - proxy-mode=nftables\n  - token=abc\n  - masquerade-all=true\n\
        etcd-s3-config: |\n  a\nkubelet-arg+: [\"node-ip=10.0.0.2\"]\nmtu: 1450\n";
    let expected = "token: ***\ncluster-cidr: 10.42.0.0/16\n\
        flannel-backend: \"host-gw\"\ndisable:\n  - traefik\n  - servicelb\nnode-ip: [10.0.0.1, fd00::1]\n\
        kube-proxy-arg:\n  - proxy-mode=nftables\n  - ***\n\
        etcd-s3-config: ***\nkubelet-arg: [\"node-ip=10.0.0.2\"]\nmtu: 1450\n";
    assert_eq!(yaml(given), expected);
}

#[test]
fn json_about_the_network() {
    let docker = r#"{"bip": "10.1.0.1/24", "ip-masq": false, "mtu": 1400, "hosts": ["tcp://h"],
        "default-address-pools": [{"base": "10.2.0.0/16", "size": 24, "x": "y"}],
        "proxies": {"http-proxy": "http://u:p@h"}}"#;
    let kept: serde_json::Value =
        serde_json::from_str(&json(docker, Names::Docker).unwrap()).unwrap();
    let expected = serde_json::json!({"bip": "10.1.0.1/24", "ip-masq": false, "mtu": 1400,
        "hosts": "***", "default-address-pools": [{"base": "10.2.0.0/16", "size": 24, "x": "***"}],
        "proxies": "***"});
    assert_eq!(kept, expected);

    let cni = r#"{"name": "k8s", "cniVersion": "0.3.1", "plugins": [{"type": "calico", "mtu": 1440,
        "ipam": {"type": "host-local", "subnet": "usePodCidr", "routes": [{"dst": "0.0.0.0/0"}]},
        "policy": {"type": "k8s", "k8s_auth_token": "abc"},
        "kubernetes": {"kubeconfig": "/etc/x"}}]}"#;
    let kept: serde_json::Value = serde_json::from_str(&json(cni, Names::Cni).unwrap()).unwrap();
    let expected = serde_json::json!({"name": "k8s", "cniVersion": "0.3.1", "plugins": [{
        "type": "calico", "mtu": 1440,
        "ipam": {"type": "host-local", "subnet": "usePodCidr", "routes": [{"dst": "0.0.0.0/0"}]},
        "policy": {"type": "k8s", "k8s_auth_token": "***"}, "kubernetes": "***"}]});
    assert_eq!(kept, expected);
    for text in ["", "[]", "{", "token: x", "\"abc\"", "// x\n{}"] {
        assert_eq!(json(text, Names::Cni), None, "{text}");
    }
}

#[test]
fn environment_and_rules() {
    let given = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\nFLANNEL_MTU=1450\n\
        FLANNEL_IPMASQ=true\nFLANNEL_TOKEN=abc\nexport PASSWORD=abc\nFLANNEL_NETWORK=a@b\n";
    let expected = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.1.1/24\nFLANNEL_MTU=1450\n\
        FLANNEL_IPMASQ=true\n";
    assert_eq!(environment(given), expected);
    let given = "#!/usr/sbin/nft -f\nflush ruleset\n  # key abc\ntable ip x {\n}";
    assert_eq!(rules(given), "#\nflush ruleset\n#\ntable ip x {\n}\n");
}

/// Secrets of different looks; each has `hunter2` in it, which must not get through.
const SECRETS: [&str; 14] = [
    "hunter2",
    "-hunter2",
    "--hunter2",
    "--hunter2=x",
    "two hunter2",
    "x=hunter2",
    "u:hunter2@h",
    "http://u:hunter2@h/d",
    "http://a,http://u:hunter2@b",
    "postgres://user:pa/hunter2@h",
    "K10abc::server:hunter2",
    "\"hunter2\"",
    "'hunter2",
    "{\"a\": \"hunter2\"}",
];

#[test]
fn no_secret_is_in_arguments() {
    let templates: [&[&str]; 22] = [
        &["--token=@"],
        &["--token", "@"],
        &["-t", "@"],
        &["-t@"],
        &["-t=@"],
        &["-token", "@"],
        &["--Token=@"],
        &["--env", "PASSWORD=@"],
        &["--env=PASSWORD=@"],
        &["-e", "@"],
        &["-ePASSWORD=@"],
        &["PASSWORD=@"],
        &["--datastore-endpoint=@"],
        &["--etcd-s3-secret-key", "@"],
        &["--s3-access-key=@"],
        &["--vpn-auth=name=tailscale,joinKey=@"],
        &["--cluster-secret", "@"],
        &["--disable-token=@"],
        &["--kube-apiserver-arg=token=@"],
        &["--kubelet-arg", "token=@"],
        &["--kubelet-arg=node-labels=@"],
        &["--debug", "--token", "@"],
    ];
    for secret in SECRETS {
        for template in templates {
            let planted: Vec<String> = template.iter().map(|a| a.replace('@', secret)).collect();
            let mut given = vec!["k3s", "agent", "--cluster-cidr=10.9.0.0/16"];
            given.extend(planted.iter().map(String::as_str));
            given.extend(["--mtu=1400", "--bip", "10.8.0.1/24"]);
            let kept = line(&given);
            assert!(!kept.contains("hunter2"), "{given:?}: {kept}");
            // A title that the program has set.
            let title = given.join(" ");
            let words: Vec<&str> = title.split_whitespace().collect();
            let titled = line(&words);
            assert!(!titled.contains("hunter2"), "{title}: {titled}");
            for kept in [kept, titled] {
                assert!(kept.starts_with("k3s agent --cluster-cidr=10.9.0.0/16 "), "{kept}");
                assert!(kept.ends_with(" --mtu=1400 --bip 10.8.0.1/24"), "{kept}");
            }
        }
    }
}

#[test]
fn no_secret_is_in_yaml() {
    let templates = [
        "token: @",
        "token:    @",
        "token : @",
        "\"token\": @",
        "? token\n: @",
        "token: \"@\"",
        "token: '@'",
        "token: \"a\n@\"",
        "token: \"a\n@: b\"",
        "token: !!str \"a\n@: b\"",
        "token: &x @",
        "token: |\n  @",
        "token: |-\n  a\n  - @",
        "token: >+\n    @\n    x: @",
        "token:\n  @",
        "token:\n  a: @",
        "token:\n- @",
        "token:\n  - @\n  - a: @",
        "token: [a, @]",
        "token: [a,\n@,\nb]",
        "token: {a: b,\nc: @}",
        "psk = @",
        "s3-access-key=@",
        "{token: @}",
        "{a: b,\ntoken: @}",
        "# @",
        "a: b # @",
        "etcd-s3-secret-key: @",
        "cluster-secret: @",
        "kubelet-arg:\n  - token=@\n  - --token=@",
        "kubelet-arg: token=@",
        "kubelet-arg: [\"token=@\"]",
        "disable:\n  - |\n    - @",
        "@",
        "- @",
        "  @",
    ];
    for secret in SECRETS {
        // A word in a list about the network is a value of it.
        for template in templates {
            let text = format!("mtu: 1400\n{}\nbip: 10.8.0.1/24\n", template.replace('@', secret));
            let kept = yaml(&text);
            assert!(!kept.contains("hunter2"), "{text}: {kept}");
            assert!(kept.starts_with("mtu: 1400\n"), "{text}: {kept}");
        }
    }
}

#[test]
fn no_secret_is_in_json() {
    let templates = [
        r#"{"token": @}"#,
        "{\"token\":\n\n  @}",
        r#"{"plugins": [{"type": "x", "password": @}]}"#,
        r#"{"ipam": {"etcd": {"name": @}}}"#,
        r#"{"proxies": {"http-proxy": @}, "registry-mirrors": [@]}"#,
        r#"{"default-network-opts": {"bridge": {"x": @}}}"#,
        r#"{"log-opts": {"gelf-address": @}, "labels": [@, @]}"#,
        r#"{"kubernetes": {"k8s_auth_token": @, "name": @}}"#,
        r#"{"args": {"cni": [@]}}"#,
    ];
    for secret in SECRETS {
        let quoted = serde_json::to_string(secret).unwrap();
        for template in templates {
            let text = template.replace('@', &quoted);
            for names in [Names::Docker, Names::Cni] {
                let kept = json(&text, names).unwrap();
                assert!(!kept.contains("hunter2"), "{text}: {kept}");
            }
        }
        for text in [format!("{{\"bridge\": {secret}"), format!("// {secret}\n{{}}")] {
            assert_eq!(json(&text, Names::Docker), None, "{text}");
        }
    }
}
