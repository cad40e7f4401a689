//! Where kube-proxy is told a setting, and how it is told another value there: in its ConfigMap, in
//! a file, or by a flag.

use std::collections::BTreeSet;

use unmasq_cluster::kubernetes::ConfigMap;
use unmasq_cluster::settings::Place;

use super::super::{
    Context, argument, command, literal, of_node, rollout, sentence, step, undone, workload,
};
use crate::{Action, Instruction, Program, Step, Workload, WorkloadKind, quoted, shell};

/// A setting of kube-proxy, in its configuration and as a flag.
pub(super) struct Change {
    pub(super) field: &'static str,
    pub(super) flag: &'static str,
    pub(super) old: String,
    pub(super) new: String,
}

impl Change {
    fn line(&self, value: &str) -> String {
        format!("{}: {value}", self.field)
    }
}

/// Where kube-proxy is told its settings.
enum Told<'c> {
    Map(&'c ConfigMap),
    /// Files that were not read: the paths after `--config`. Flags beside that are ignored
    /// (cmd/kube-proxy/app/options.go of kubernetes, `Complete`).
    Files(BTreeSet<String>),
    Flags,
}

impl<'c> Told<'c> {
    fn of(context: &Context<'_, 'c>) -> Told<'c> {
        let objects = &context.cluster.objects;
        let mut maps = objects.config_maps.iter();
        let is_it = |map: &&ConfigMap| {
            let mut texts = map.data.values();
            map.metadata.name.contains("kube-proxy")
                && texts.any(|text| text.contains("KubeProxyConfiguration"))
        };
        if let Some(map) = maps.find(is_it) {
            return Told::Map(map);
        }
        let processes =
            context.cluster.nodes.iter().flat_map(|node| node.processes.iter().flatten());
        let processes = processes
            .filter(|one| one.name == "kube-proxy")
            .map(|one| one.arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let pods = objects.pods.iter().map(|pod| &pod.spec);
        let specs = objects.daemon_sets.iter().map(|set| &set.spec.template.spec).chain(pods);
        let containers = specs.flat_map(|spec| &spec.containers);
        let containers = containers
            .map(|one| one.words().collect::<Vec<_>>())
            .filter(|words| words.iter().any(|word| word.rsplit('/').next() == Some("kube-proxy")));
        let paths: BTreeSet<String> =
            processes.chain(containers).filter_map(|words| config_of(&words)).collect();
        match paths.is_empty() {
            true => Told::Flags,
            false => Told::Files(paths),
        }
    }
}

/// The path after `--config`.
fn config_of(words: &[&str]) -> Option<String> {
    let mut all = words.iter();
    while let Some(word) = all.next() {
        if let Some(path) = word.strip_prefix("--config=") {
            return Some(path.to_owned());
        }
        if *word == "--config" {
            return all.next().map(|path| (*path).to_owned());
        }
    }
    None
}

/// Changes where they count. `place`: where the first of them stands today.
pub(super) fn told(
    context: &Context<'_, '_>,
    place: Option<&Place>,
    changes: &[Change],
) -> Vec<Step> {
    // What k3s and rke2 hand on are flags; a file of theirs isn't kube-proxy's.
    let handed_on = place.filter(|place| match place {
        Place::File { path, .. } => path.contains("/rancher/"),
        Place::Process { program, .. } => program != "kube-proxy",
        Place::Object { .. } | Place::State { .. } | Place::Given { .. } => false,
    });
    let lines = |value: fn(&Change) -> &str| -> Vec<Instruction> {
        changes.iter().map(|one| literal(one.line(value(one)))).collect()
    };
    match (handed_on, Told::of(context)) {
        (None, Told::Map(map)) => {
            let mut steps = vec![edit_config_map(map, changes)];
            steps.extend(restart(&map.metadata.namespace));
            steps
        }
        (None, Told::Files(paths)) => {
            let paths: Vec<String> = paths.into_iter().collect();
            let text = format!(
                "kube-proxy runs with --config, beside which it ignores flags: in {}, on every node, \
                 and restart it",
                paths.join(", ")
            );
            vec![undone(text, lines(|one| &one.new), lines(|one| &one.old))]
        }
        (Some(_), _) | (None, Told::Flags) => match place {
            Some(place) => {
                let flag = |one: &Change| at(context, place, one.flag, &one.old, &one.new);
                changes.iter().map(flag).collect()
            }
            None => {
                let flags = |value: fn(&Change) -> &str| -> Vec<Instruction> {
                    let one = |one: &Change| literal(format!("--{}={}", one.flag, value(one)));
                    changes.iter().map(one).collect()
                };
                let text = "Where kube-proxy is started, unless that is with --config: beside it flags \
                            are ignored, and the file counts. Restart it on every node";
                vec![undone(text, flags(|one| &one.new), flags(|one| &one.old))]
            }
        },
    }
}

/// Lines of a configuration in a ConfigMap's key.
fn edit_config_map(map: &ConfigMap, changes: &[Change]) -> Step {
    let (namespace, name) = (&map.metadata.namespace, &map.metadata.name);
    let lines = || map.data.values().flat_map(|text| text.lines());
    let has = |one: &Change| {
        lines().any(|line| {
            line.trim_start().strip_prefix(one.field).is_some_and(|rest| rest.starts_with(':'))
        })
    };
    let news: Vec<String> = changes.iter().map(|one| one.line(&one.new)).collect();
    let text = format!("Set {} in the ConfigMap {namespace}/{name}", news.join(", "));
    let (of, map_name) = (quoted(namespace), shell::object("configmap", name));
    // A line that isn't there can't be replaced.
    if !changes.iter().all(has) {
        let edit = format!("kubectl -n {of} edit {map_name}");
        let olds = changes.iter().map(|one| match has(one) {
            true => literal(one.line(&one.old)),
            false => sentence(format!("Take {} out again.", one.field)),
        });
        return undone(
            text,
            [command(edit)].into_iter().chain(news.into_iter().map(literal)),
            olds,
        );
    }
    let change = |value: fn(&Change) -> &str| {
        let edits = changes.iter().map(|one| {
            // A replacement's own signs, each behind a backslash.
            let value = value(one).replace('\\', r"\\").replace('#', r"\#").replace('&', r"\&");
            quoted(&format!(r"s#^\( *{}:\).*#\1 {value}#", one.field))
        });
        let edits: Vec<String> = edits.collect();
        let sed = match &edits[..] {
            [one] => one.clone(),
            more => more.iter().map(|one| format!("-e {one}")).collect::<Vec<_>>().join(" "),
        };
        format!("kubectl -n {of} get {map_name} -o yaml | sed {sed}")
    };
    let (there, back) = (change(|one| &one.new), change(|one| &one.old));
    undone(
        format!("{text}; look at the difference first"),
        [
            command(format!("{there} | kubectl diff -f -")),
            command(format!("{there} | kubectl apply -f -")),
        ],
        [command(format!("{back} | kubectl apply -f -"))],
    )
}

fn restart(namespace: &str) -> Vec<Step> {
    let proxy = Workload {
        kind: WorkloadKind::DaemonSet,
        namespace: namespace.to_owned(),
        name: "kube-proxy".to_owned(),
        container: None,
    };
    let program = Program::Workload(proxy.clone());
    let meanwhile = "Meanwhile a node's rules stay in the kernel and connections work; changes of \
                     Services wait";
    vec![
        step("kube-proxy reads it when it starts", Action::Restart { program }),
        rollout(&proxy, meanwhile),
    ]
}

/// The setting where it was found outside of a ConfigMap.
fn at(context: &Context<'_, '_>, place: &Place, key: &str, old: &str, new: &str) -> Step {
    let restart = "and restart it, on every node";
    let flag = |value: &str| format!("--{key}={value}");
    match place {
        Place::File { node, path, .. } if path.contains("/rancher/") => {
            let lines = |value: &str| literal(format!("kube-proxy-arg: [\"{key}={value}\"]"));
            undone(
                format!(
                    "On {node}, in {path}: the argument that k3s or rke2 hands on to kube-proxy, {restart}"
                ),
                [lines(new)],
                [lines(old)],
            )
        }
        Place::Process { node, program, .. } if program.starts_with("k3s") || program == "rke2" => {
            let handed_on = |value: &str| format!("--kube-proxy-arg={key}={value}");
            step(
                format!("On {node}: the argument that {program} hands on to kube-proxy, {restart}"),
                of_node(Some(node), program, &handed_on(new), Some(handed_on(old))),
            )
        }
        Place::Process { node, program, flag: written, .. } => {
            // A switch stands alone.
            let old = if old == "true" { written.clone() } else { flag(old) };
            step(
                format!("On {node}: {program}'s argument, in its unit or static pod, {restart}"),
                of_node(Some(node), program, &flag(new), Some(old)),
            )
        }
        Place::Object { kind, namespace, name, .. } => {
            match workload(std::slice::from_ref(place)) {
                Some(found) => step(
                    format!("kube-proxy's argument in {kind} {namespace}/{name}"),
                    argument(context, found, &flag(new)),
                ),
                None => undone(
                    format!("kube-proxy's argument in {kind} {namespace}/{name}"),
                    [literal(flag(new))],
                    [literal(flag(old))],
                ),
            }
        }
        Place::File { .. } | Place::State { .. } | Place::Given { .. } => undone(
            format!("Where it stands ({place}), {restart}"),
            [literal(flag(new))],
            [literal(flag(old))],
        ),
    }
}
