//! What a plan does to objects, as the lab's settings: from them the owners' writers write rules.

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use unmasq_fix::deed::{Deed, ObjectDeed};
use unmasq_fix::{Manifests, ObjectName, merge};
use unmasq_lab::scenario::{KubeProxySettings, ProxyMode, Scenario};

/// The first port that the API server gives to health checks here: like it, none that is taken.
const HEALTH_PORTS: u16 = 32_200;

/// The settings after the deeds; `after` has the objects then.
pub(crate) fn after(scenario: &Scenario, deeds: &[Deed], after: &Manifests) -> Result<Scenario> {
    let mut changed = scenario.clone();
    for deed in deeds {
        match deed {
            Deed::Object(deed) => {
                let name = ObjectName {
                    resource: deed.resource.clone(),
                    namespace: deed.namespace.clone(),
                    name: deed.name.clone(),
                };
                let object = after.find(&name).with_context(|| format!("{name} is gone"))?;
                of_object(&mut changed, deed, &object).with_context(|| name.to_string())?;
            }
            // What stands in files is read at the next start, and rules are changed themselves.
            Deed::File(_) | Deed::Rules(_) | Deed::Table(_) => {}
        }
    }
    Ok(changed)
}

fn of_object(scenario: &mut Scenario, deed: &ObjectDeed, object: &Value) -> Result<()> {
    let resource = deed.resource.to_ascii_lowercase();
    let programs = &mut scenario.programs;
    match (resource.split('.').next().unwrap_or_default(), &*deed.name) {
        ("service", name) => {
            let mut services = scenario.manifests.iter_mut();
            let service = services.find(|one| one["metadata"]["name"] == name);
            patch_service(service.context("no such Service")?, &deed.patch);
        }
        ("ippools", name) => {
            let mut pools = programs.calico.iter_mut().flat_map(|calico| &mut calico.pools);
            let pool = pools.find(|pool| pool.name == name).context("no such pool")?;
            pool.nat_outgoing = object["spec"]["natOutgoing"] == true;
        }
        ("configmap", "kube-proxy") => {
            let settings = programs.kube_proxy.as_mut().context("no kube-proxy")?;
            kube_proxy(settings, &yaml(object, "config.conf")?)?;
        }
        ("configmap", "ip-masq-agent") => {
            let agent = programs.ip_masq_agent.as_mut().context("no ip-masq-agent")?;
            let config = yaml(object, "config")?;
            agent.non_masquerade_cidrs =
                serde_json::from_value(config["nonMasqueradeCIDRs"].clone())?;
            agent.masq_link_local = config["masqLinkLocal"] == true;
        }
        ("daemonset", "kube-router") => {
            let router = programs.kube_router.as_mut().context("no kube-router")?;
            let args = &object["spec"]["template"]["spec"]["containers"][0]["args"];
            let args = args.as_array().context("no arguments")?;
            router.pod_egress = !args.contains(&json!("--enable-pod-egress=false"));
        }
        // Its variables act only where there is no pool yet (node/pkg/lifecycle/startup/startup.go).
        ("daemonset", "calico-node") => {}
        // It writes its rules once, at its start, and takes none away: those that are there are
        // changed by deeds of their own.
        ("configmap" | "daemonset", name) if name.contains("flannel") || name.contains("canal") => {
        }
        (resource, name) => bail!("the lab has no settings for {resource} {name}"),
    }
    Ok(())
}

/// As the API server does it: a load balancer's Service with Local gets a port for health checks.
fn patch_service(service: &mut Value, patch: &Value) {
    merge(service, patch);
    let spec = &mut service["spec"];
    if spec["type"] != "LoadBalancer" {
        return;
    }
    let local = spec["externalTrafficPolicy"] == "Local";
    if local && spec["healthCheckNodePort"].is_null() {
        let port = spec["ports"][0]["nodePort"].as_u64().unwrap_or_default() % 100;
        spec["healthCheckNodePort"] = json!(u64::from(HEALTH_PORTS) + port);
    } else if !local {
        merge(spec, &json!({"healthCheckNodePort": null}));
    }
}

fn kube_proxy(settings: &mut KubeProxySettings, config: &Value) -> Result<()> {
    let ranges = config["clusterCIDR"].as_str().context("no clusterCIDR")?;
    let ranges: Result<Vec<_>, _> = ranges.split(',').map(str::parse).collect();
    settings.cluster_cidrs = Some(ranges?);
    let section = match settings.mode {
        ProxyMode::Iptables => "iptables",
        ProxyMode::Nftables => "nftables",
    };
    ensure!(config["mode"] == section, "kube-proxy's mode changes");
    settings.masquerade_all = config[section]["masqueradeAll"] == true;
    Ok(())
}

/// A YAML document in a ConfigMap.
fn yaml(object: &Value, key: &str) -> Result<Value> {
    let text = object["data"][key].as_str().with_context(|| format!("no {key}"))?;
    Ok(serde_saphyr::from_str(text)?)
}
