//! What all views of an audit share: names of Services and nodes, a step's commands, the command
//! that asks a witness again, and the part of an audit that is about one Service.
//!
//! ```text
//! Audit ─ of_service ─▶ Audit ─┬─ Subject (cluster, capture's name) ─▶ terminal
//!                              └────────────────────────────────────▶ JSON
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use unmasq_audit::change::{self, Unwritable};
use unmasq_audit::matrix::{Fate, Row, Witness};
use unmasq_audit::{
    Action, Audit, Edit, Finding, Instruction, Program, Severity, Syntax, Undo, Workload,
};
use unmasq_audit::{quoted, shell};
use unmasq_cluster::Cluster;
use unmasq_cluster::paths::{Call, Caller};
use unmasq_model::packet::Protocol;

/// What an audit is about.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The cluster: an audit names its Services and nodes by index.
    pub cluster: &'a Cluster,
    /// The capture as a command line names it; `None`: the machine that the program runs on.
    pub capture: Option<&'a str>,
    /// The Service that the audit was narrowed to ([`of_service`]).
    pub service: Option<&'a str>,
    /// The program's version.
    pub version: &'a str,
}

/// The part of an audit that is about one Service (`namespace/name`): rows with it, and findings
/// that name it, or such a row and no Service. A row keeps its other Services, because its count is theirs too.
/// Totals stay those of the whole cluster.
pub fn of_service(audit: &Audit, cluster: &Cluster, service: &str) -> Audit {
    let is_it = |index: &u32| {
        let found = cluster.objects.services.get(*index as usize);
        found.is_some_and(|found| found.full_name() == service)
    };
    let mut rows = Vec::new();
    let mut moved: BTreeMap<usize, usize> = BTreeMap::new();
    for (index, row) in audit.matrix.rows.iter().enumerate() {
        if row.services.iter().any(is_it) {
            moved.insert(index, rows.len());
            rows.push(row.clone());
        }
    }
    let findings = audit.findings.iter().filter_map(|finding| {
        let mut finding = finding.clone();
        let rows = finding.affected.rows.iter().filter_map(|row| moved.get(row).copied());
        finding.affected.rows = rows.collect();
        let services = &finding.affected.services;
        // A finding may be about some of its rows' Services.
        let named = match services.is_empty() {
            true => !finding.affected.rows.is_empty(),
            false => services.iter().any(|name| name == service),
        };
        (named || finding.subject == service).then_some(finding)
    });
    Audit {
        findings: findings.collect(),
        matrix: unmasq_audit::matrix::Matrix { rows, ..audit.matrix.clone() },
        ..audit.clone()
    }
}

/// What is done in a step, as instructions; empty where its text says all.
pub(crate) fn instructions(action: &Action) -> Vec<Instruction> {
    let command = |text: String| vec![Instruction::Command(text)];
    match action {
        Action::Patch { resource, namespace, name, patch, undo: _ } => {
            let namespace = namespace.as_deref().map(|name| format!(" -n {}", quoted(name)));
            command(format!(
                "kubectl patch {}{} --type merge -p {}",
                shell::object(resource, name),
                namespace.unwrap_or_default(),
                quoted(patch)
            ))
        }
        Action::Environment { workload, name, value, old: _ } => {
            let variable = match value {
                Some(value) => quoted(&format!("{name}={value}")),
                None => quoted(&format!("{name}-")),
            };
            let container = workload.container.as_deref();
            let container = container.map(|name| format!(" -c {}", quoted(name)));
            command(format!(
                "kubectl set env {} -n {}{} {variable}",
                quoted(&workload.to_string()),
                quoted(&workload.namespace),
                container.unwrap_or_default()
            ))
        }
        Action::Argument { program, argument, old } => {
            let mut all = vec![Instruction::Sentence(argued(program, argument, old))];
            if let Program::Workload(workload) = program {
                all.extend(command(format!(
                    "kubectl edit {} -n {}",
                    quoted(&workload.to_string()),
                    quoted(&workload.namespace)
                )));
            }
            all
        }
        Action::Rules { changes, .. } => written(change::commands(changes)),
        Action::Tables { changes, .. } => written(change::table_commands(changes)),
        Action::File { path, edit, .. } => edited(path, edit),
        Action::Restart { program: Program::Workload(workload) } => command(format!(
            "kubectl rollout restart {} -n {}",
            quoted(&workload.to_string()),
            quoted(&workload.namespace)
        )),
        Action::Restart { program: Program::OfNode { node, name } } => {
            let mut all = command(format!("systemctl restart {}", shell::operand(name)));
            if node.is_none() {
                all.insert(0, Instruction::Sentence("On every node that runs it:".to_owned()));
            }
            all
        }
        Action::ByHand { instructions, undo: _ } => instructions.clone(),
    }
}

fn written(commands: Result<Vec<String>, Unwritable>) -> Vec<Instruction> {
    match commands {
        Ok(commands) => commands.into_iter().map(Instruction::Command).collect(),
        Err(why) => vec![Instruction::Sentence(format!("By hand: {why}"))],
    }
}

fn argued(program: &Program, argument: &Option<String>, old: &Option<String>) -> String {
    let place = match program {
        Program::Workload(Workload { container: Some(container), .. }) => {
            format!("the arguments of container {container}")
        }
        Program::Workload(Workload { container: None, .. }) => "its arguments".to_owned(),
        Program::OfNode { node, name } => {
            let everywhere = if node.is_none() { " on every node" } else { "" };
            format!("the arguments of {name}{everywhere} (its unit, script or static pod)")
        }
    };
    match (argument, old) {
        (Some(new), Some(old)) => format!("In {place}, in place of {old}: {new}"),
        (Some(new), None) => format!("Among {place}: {new}"),
        (None, Some(old)) => format!("From {place}, take away: {old}"),
        (None, None) => format!("In {place}, nothing."),
    }
}

/// What must stand in a file.
fn edited(path: &str, edit: &Edit) -> Vec<Instruction> {
    let literal = |text: &str| Instruction::Literal(text.to_owned());
    let said = Instruction::Sentence;
    match edit {
        Edit::Line { old, new } => vec![
            said(format!("In {path}, this line:")),
            literal(old),
            said("becomes:".to_owned()),
            literal(new),
        ],
        Edit::Value { syntax, pointer, old, new } => {
            let (inside, name) = pointer.rsplit_once('/').unwrap_or(("", pointer));
            let inside = match inside {
                "" => String::new(),
                inside => format!(", at {inside}"),
            };
            let one = |value: &str| match syntax {
                Syntax::Json => format!("\"{name}\": {value}"),
                Syntax::Yaml => format!("{name}: {value}"),
            };
            match (new, old) {
                (Some(new), Some(old)) => vec![
                    said(format!("In {path}{inside}, in place of {}:", one(old))),
                    literal(&one(new)),
                ],
                (Some(new), None) => vec![said(format!("In {path}{inside}:")), literal(&one(new))],
                (None, Some(old)) => {
                    vec![said(format!("From {path}{inside}, take out:")), literal(&one(old))]
                }
                (None, None) => Vec::new(),
            }
        }
    }
}

/// What undoes something, as instructions.
pub(crate) fn undo(undo: &Undo) -> Vec<Instruction> {
    match undo {
        Undo::Action(action) => instructions(action),
        Undo::ByHand(instruction) => vec![instruction.clone()],
    }
}

/// The nodes that an action is done on; empty: where kubectl works, or as its text says.
pub(crate) fn nodes(action: &Action) -> &[String] {
    match action {
        Action::Rules { node, .. } | Action::Tables { node, .. } => std::slice::from_ref(node),
        Action::File { nodes, .. } => nodes,
        Action::Argument { program: Program::OfNode { node, .. }, .. }
        | Action::Restart { program: Program::OfNode { node, .. } } => node.as_slice(),
        Action::Patch { .. }
        | Action::Environment { .. }
        | Action::Argument { program: Program::Workload(_), .. }
        | Action::Restart { program: Program::Workload(_) }
        | Action::ByHand { .. } => &[],
    }
}

impl Subject<'_> {
    /// `namespace/name` of a Service.
    pub(crate) fn service_name(&self, index: u32) -> String {
        let service = self.cluster.objects.services.get(index as usize);
        service.map_or_else(|| "?".to_owned(), |service| service.full_name())
    }

    /// A Service's port: `namespace/name:port`, by its name or else its number.
    pub(crate) fn service_port(&self, service: u32, port: u32) -> String {
        let name = self.service_name(service);
        let found = self.cluster.objects.services.get(service as usize);
        match found.and_then(|found| found.spec.ports.get(port as usize)) {
            None => name,
            Some(port) if port.name.is_empty() => format!("{name}:{}", port.port),
            Some(port) => format!("{name}:{}", port.name),
        }
    }

    /// Names of a row's Services.
    pub(crate) fn services(&self, row: &Row) -> Vec<String> {
        row.services.iter().map(|index| self.service_name(*index)).collect()
    }

    /// A `trace` command, or only its flags, with the capture's name in it.
    pub(crate) fn trace(&self, command: &str) -> String {
        const TRACE: &str = "unmasq trace";
        if command.starts_with("--") {
            return self.trace(&format!("{TRACE} {command}"));
        }
        match (self.capture, command.strip_prefix(TRACE)) {
            (Some(capture), Some(rest)) => format!("{TRACE} {}{rest}", shell::file(capture)),
            (None, _) | (_, None) => command.to_owned(),
        }
    }

    /// The command that asks a witness again.
    pub(crate) fn witness(&self, witness: &Witness) -> String {
        self.trace(&format!("unmasq trace {}", self.question(&witness.call)))
    }

    fn question(&self, call: &Call) -> String {
        let node =
            |index: usize| self.cluster.nodes.get(index).map_or("?", |node| node.name.as_str());
        let to = end(call.to, call.port);
        let (from, via) = match &call.from {
            Caller::Pod { address, .. } => (end(*address, call.source_port), None),
            Caller::Outside { node: at, address } => {
                (end(*address, call.source_port), Some(node(*at)))
            }
            Caller::Node(at) => {
                let port = call.source_port.map(|port| format!(":{port}")).unwrap_or_default();
                (quoted(&format!("node/{}{port}", node(*at))), None)
            }
        };
        let mut text = format!("--from {from} --to {to}");
        if let Some(via) = via {
            text = format!("{text} {}", shell::option("--via", via));
        }
        match call.protocol {
            Protocol::TCP => {}
            // `icmp` on a command line is the one of the addresses' family.
            Protocol::ICMPV6 => text.push_str(" --proto icmp"),
            other => text.push_str(&format!(" --proto {other}")),
        }
        text
    }
}

/// `[fd00::1]:80` has brackets, which a shell may take for a pattern.
fn end(address: IpAddr, port: Option<u16>) -> String {
    match port {
        None => address.to_string(),
        Some(port) => quoted(&SocketAddr::new(address, port).to_string()),
    }
}

/// Rows where a source is lost and somebody is hurt by it.
pub(crate) fn lost(audit: &Audit) -> impl Iterator<Item = &Row> {
    let rows: BTreeSet<usize> = hurting(audit).flat_map(|(_, rows)| rows).collect();
    rows.into_iter().filter_map(|index| audit.matrix.rows.get(index))
}

/// How many Services lose sources, and are hurt by it: of those that such rows are about, the ones
/// that the findings name.
pub(crate) fn losing(audit: &Audit, subject: &Subject<'_>) -> usize {
    let hurting = hurting(audit).filter(|(_, rows)| !rows.is_empty());
    let named: BTreeSet<&String> =
        hurting.flat_map(|(finding, _)| &finding.affected.services).collect();
    let called: BTreeSet<u32> = lost(audit).flat_map(|row| row.services.iter().copied()).collect();
    called.into_iter().filter(|service| named.contains(&subject.service_name(*service))).count()
}

/// The findings that hurt, each with its rows where a source is lost.
fn hurting(audit: &Audit) -> impl Iterator<Item = (&Finding, Vec<usize>)> {
    let rewritten = |index: &usize| match audit.matrix.rows.get(*index).map(|row| &row.cell.fate) {
        Some(Fate::Rewritten(_)) => true,
        Some(
            Fate::Preserved
            | Fate::NoAnswer(_)
            | Fate::Dropped(_)
            | Fate::Rejected(_)
            | Fate::Lost
            | Fate::Unknown(_),
        )
        | None => false,
    };
    let hurting = audit.findings.iter().filter(|finding| finding.severity >= Severity::Warning);
    hurting.map(move |finding| {
        let rows = finding.affected.rows.iter().copied().filter(rewritten).collect();
        (finding, rows)
    })
}

#[cfg(test)]
pub(crate) mod fixture;
#[cfg(test)]
mod tests;
