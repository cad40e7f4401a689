//! Traffic policies that the API server refuses (pkg/apis/core/validation of kubernetes), so that
//! they come from a manifest that the cluster doesn't have.

use std::collections::BTreeSet;

use unmasq_cluster::kubernetes::{Service, ServiceType, Wrong};
use unmasq_cluster::read::Problem;

use super::super::super::describe::{Described, by_hand, command, sentence, title, undone, unseen};
use super::super::finding;
use super::of_service;
use crate::{
    Affected, Cause, Confidence, Evidence, Finding, FindingId, Owner, Remedy, Severity, shell,
};

const EXTERNAL: &str = "spec.externalTrafficPolicy";
const INTERNAL: &str = "spec.internalTrafficPolicy";
/// How a manifest is tried out.
const DRY_RUN: &str = "kubectl apply --dry-run=server -f";

/// `Local` where nothing outside can call.
pub(super) fn misplaced(service: &Service) -> Option<Finding> {
    if service.spec.kind == ServiceType::ExternalName {
        return None;
    }
    let name = service.full_name();
    let described = Described {
        title: title(
            format!("Service {name} has Local, but nothing outside can call it"),
            "A Service has Local, but nothing outside can call it",
        ),
        confidence: Confidence::Certain,
        cause: Cause {
            text: "externalTrafficPolicy is for Services that are called from outside: of type NodePort \
                   or LoadBalancer, or, in newer versions, with externalIPs. For others the API \
                   refuses it, so the cluster doesn't have what this manifest says."
                .to_owned(),
            setting: Some("externalTrafficPolicy: Local".to_owned()),
            place: Some(format!("Service {name}, {EXTERNAL}")),
        },
        remedies: vec![Remedy {
            lasting: true,
            title: "Take the field out, or make the Service one for outside".to_owned(),
            steps: vec![
                by_hand(
                    "For clients inside: take the line `externalTrafficPolicy: Local` out of the \
                     manifest. (For pods of the caller's own node alone, the field is \
                     internalTrafficPolicy)",
                    [],
                ),
                by_hand(
                    "Or, for clients outside: `type: NodePort` or `type: LoadBalancer` beside it",
                    [command(format!("{DRY_RUN} MANIFEST"))],
                ),
            ],
            requires: Vec::new(),
        }],
    };
    let mut found =
        of_service(FindingId::LocalPolicyInvalid, service, Severity::Warning, described);
    found.evidence = vec![
        says(
            r#"spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services"#,
            "",
        ),
        says(
            r#"spec.externalTrafficPolicy: Invalid value: "Local": ExternalTrafficPolicy can only be set on NodePort and LoadBalancer service"#,
            " in older versions",
        ),
    ];
    Some(found)
}

fn says(words: &str, when: &str) -> Evidence {
    Evidence { text: format!("the API says{when}: {words}"), trace: None, rule: None }
}

/// Services that could not be read because of their traffic policy, each once.
pub(super) fn misspelt(problems: &[Problem]) -> Vec<Finding> {
    let mut known = BTreeSet::new();
    let found = problems.iter().filter_map(|problem| of_problem(problem, problem.wrong.as_ref()?));
    found.filter(|one| known.insert(one.subject.clone())).collect()
}

/// Whether it is one of these.
pub(in super::super::super) fn is_misspelt(problem: &Problem) -> bool {
    problem.wrong.as_ref().is_some_and(|wrong| policy(wrong).is_some())
}

/// The policy's name.
fn policy(wrong: &Wrong) -> Option<&'static str> {
    match (&*wrong.kind, &*wrong.field) {
        ("Service", EXTERNAL) => Some("externalTrafficPolicy"),
        ("Service", INTERNAL) => Some("internalTrafficPolicy"),
        _ => None,
    }
}

fn of_problem(problem: &Problem, wrong: &Wrong) -> Option<Finding> {
    let field = policy(wrong)?;
    let path = &wrong.field;
    let namespace = wrong.namespace.as_deref().unwrap_or("default");
    let name = format!("{namespace}/{}", wrong.name.as_deref().unwrap_or("without a name"));
    let value = wrong.value.as_deref().unwrap_or("null");
    let string = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = string.filter(|text| !text.contains('\\'));
    let shown = text.unwrap_or(value);
    let meant = ["Local", "Cluster"].into_iter().find(|one| shown.trim().eq_ignore_ascii_case(one));
    let line = match meant {
        Some(meant) => format!("`{field}: {meant}`"),
        None => format!("`{field}: Local` or `{field}: Cluster`"),
    };
    let at = place(problem);
    let mut evidence = vec![Evidence { text: problem.to_string(), trace: None, rule: None }];
    if let (Some(text), EXTERNAL) = (text, &**path) {
        evidence.push(says(
            &format!(
                r#"{path}: Unsupported value: "{text}": supported values: "Cluster", "Local""#
            ),
            "",
        ));
        evidence.push(says(
            &format!(
                r#"{path}: Invalid value: "{text}": ExternalTrafficPolicy must be empty, Cluster or Local"#
            ),
            " in older versions",
        ));
    }
    let described = Described {
        title: title(
            format!("Service {name} asks for {field}: {shown}, which the API refuses"),
            "A Service asks for a traffic policy that the API refuses",
        ),
        confidence: Confidence::Certain,
        cause: Cause {
            text: "The API takes Cluster and Local, in these letters. It refuses the manifest as a whole, \
                   so the cluster has no such Service, or still has the one from before. What is read \
                   here is the manifest: none of its calls could be asked."
                .to_owned(),
            setting: Some(format!("{field}: {shown}")),
            place: Some(format!("Service {name}, {path} ({at})")),
        },
        remedies: vec![Remedy {
            lasting: true,
            title: format!("Write {line}"),
            steps: vec![undone(
                format!("In {at}: {line} in place of `{field}: {shown}`"),
                [command(format!("{DRY_RUN} {}", shell::file(&problem.file)))],
                [sentence("The manifest as it was.")],
            )],
            requires: vec![unseen(
                "with Local: the Service is for clients outside (type NodePort or LoadBalancer, or \
                 with externalIPs), and whoever sends them asks for health",
                command("unmasq explain local-policy-unsafe"),
            )],
        }],
    };
    let id = FindingId::LocalPolicyInvalid;
    let mut found = finding(id, name.clone(), Severity::Warning, Owner::KubeProxy, described);
    found.affected = Affected { services: vec![name], ..Affected::default() };
    found.evidence = evidence;
    Some(found)
}

/// The file with document and line, as far as known.
fn place(problem: &Problem) -> String {
    let mut text = problem.file.clone();
    if let Some(document) = problem.document {
        text.push_str(&format!(", document {document}"));
    }
    if let Some(line) = problem.line {
        text.push_str(&format!(", from line {line}"));
    }
    text
}
