use super::manifest::{CARRIED, SERVED};
use super::read::merge;
use super::*;

#[test]
fn every_builtin_scenario_fits_together_through_its_whole_remedy() {
    for (name, text) in BUILTIN {
        let scenario = Scenario::parse(text).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(scenario.name, *name);
        let states = Scenario::after_steps(text).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!(states.len(), scenario.remedy.len(), "{name}");
        assert!(!scenario.expect.is_empty(), "{name} expects nothing");
        let changes = scenario
            .expect
            .iter()
            .any(|expect| expect.before != expect.after || expect.sometimes_before.is_some());
        assert!(changes, "{name}: the remedy changes nothing that is expected");
    }
}

#[test]
fn a_patch_merges_replaces_and_removes() {
    let merged = |mut target: Value, patch: Value| {
        merge(&mut target, &patch);
        target
    };
    use serde_json::json;
    // RFC 7386, appendix A.
    assert_eq!(merged(json!({"a": "b"}), json!({"a": "c"})), json!({"a": "c"}));
    assert_eq!(merged(json!({"a": "b"}), json!({"b": "c"})), json!({"a": "b", "b": "c"}));
    assert_eq!(merged(json!({"a": "b"}), json!({"a": null})), json!({}));
    assert_eq!(merged(json!({"a": ["b"]}), json!({"a": "c"})), json!({"a": "c"}));
    assert_eq!(
        merged(json!({"a": {"b": "c"}}), json!({"a": {"b": "d", "c": null}})),
        json!({"a": {"b": "d"}})
    );
    assert_eq!(merged(json!({}), json!({"a": {"bb": {"ccc": null}}})), json!({"a": {"bb": {}}}));
}

const SCHEMA_TEXT: &str = include_str!("../../../../schemas/scenario.v1.json");
const GUIDE: &str = include_str!("../../../../docs/scenarios/README.md");

/// The example of the guide.
fn example() -> &'static str {
    let (_, rest) = GUIDE.split_once("```yaml\n").unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn every_builtin_scenario_and_the_example_fit_the_schema() {
    let schema: Value = serde_json::from_str(SCHEMA_TEXT).unwrap();
    jsonschema::meta::validate(&schema).unwrap();
    assert_eq!(schema["properties"]["schema"]["const"], SCHEMA);
    let validator = jsonschema::validator_for(&schema).unwrap();
    for (name, text) in BUILTIN.iter().copied().chain([("the example", example())]) {
        let document: Value = serde_saphyr::from_str(text).unwrap();
        let errors: Vec<String> = validator
            .iter_errors(&document)
            .map(|e| format!("{}: {e}", e.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{name}: {errors:#?}");
        let mut wanting = document.clone();
        wanting["wants"] = serde_json::json!({"schema": "unmasq.expect/v1"});
        assert!(validator.is_valid(&wanting), "{name}: wants is refused");
        let mut wrong = document;
        wrong["network"]["betwen"] = Value::Null;
        assert!(!validator.is_valid(&wrong), "{name}: an unknown field is let through");
    }
}

#[test]
fn the_example_of_the_guide_fits_together_and_the_guide_lists_all_scenarios() {
    let states = Scenario::after_steps(example()).unwrap();
    assert_eq!(states.len(), 1);
    for (name, _) in BUILTIN {
        assert!(GUIDE.contains(&format!("| `{name}` |")), "{name}");
    }
}

/// The example with one text in the place of another.
fn changed(from: &str, to: &str) -> String {
    assert_eq!(example().matches(from).count(), 1, "{from}");
    example().replace(from, to)
}

/// What is said of a text, and the line that it names.
fn complaint(text: &str) -> (String, String) {
    let error = Scenario::after_steps(text).map(|_| ()).unwrap_err();
    let error = format!("{error:#}");
    let number = error.split_once("line ").and_then(|(_, rest)| rest.split_once(':'));
    let number: usize = number.unwrap_or_else(|| panic!("{error}")).0.parse().unwrap();
    (error, text.lines().nth(number - 1).unwrap().trim().to_owned())
}

#[test]
fn what_does_not_fit_is_told_with_its_line_and_path() {
    // Of the example's two manifests, the second is the remedy's: it is indented more.
    let found = "      type: NodePort\n      selector: {app: web}";
    let remedy = "            type: NodePort\n            selector: {app: web}";
    let local = "            externalTrafficPolicy: Local\n";
    for (text, path, what, line) in [
        (
            changed(local, "            externalTrafficPolicy: 7\n"),
            ": remedy[0].change.manifests[0].spec.externalTrafficPolicy: ",
            "invalid type",
            "externalTrafficPolicy: 7",
        ),
        (
            changed("    change:\n", "    change:\n      programs: {kube-proxy: {mode: [x]}}\n"),
            ": remedy[0].change.programs.kube-proxy.mode: ",
            "invalid type: sequence",
            "programs: {kube-proxy: {mode: [x]}}",
        ),
        (
            changed(
                "    change:\n",
                "    change:\n      programs:\n        calico:\n          pools:\n            \
                 - name: a\n              cidr: 10.42.0.0/16\n              nat-outgoing: \"off\"\n",
            ),
            ": remedy[0].change.programs.calico.pools[0].nat-outgoing: ",
            "invalid type: string \"off\", expected a boolean",
            "nat-outgoing: \"off\"",
        ),
        (
            changed("    change:\n", "    change:\n      network: {pods: null}\n"),
            ": remedy[0].change.network: ",
            "missing field `pods`",
            "network: {pods: null}",
        ),
        (
            changed(found, "      type: NodePort\n      selector: {app: [web]}"),
            ": manifests[0].spec.selector.app: ",
            "invalid type: sequence",
            "selector: {app: [web]}",
        ),
        (
            changed("    kind: Service\n    metadata: {name: web, namespace: default}\n    spec:",
                    "    kind: Servce\n    metadata: {name: web, namespace: default}\n    spec:"),
            ": manifests[0].kind: ",
            "\"Servce\" is no kind that the lab knows: it serves Service, and carries",
            "kind: Servce",
        ),
        (
            changed(remedy, "            type: NodePort\n            ports: 80\n            selector: {app: web}")
                .replace("            ports: [{port: 80, targetPort: 8080, nodePort: 30080}]\n", ""),
            ": remedy[0].change.manifests[0].spec.ports: ",
            "invalid type: integer `80`, expected a sequence",
            "ports: 80",
        ),
        (
            changed("remedy:\n", "  - {apiVersion: v1, kind: Pod, metadata: {name: x}}\nremedy:\n"),
            ": manifests[1].kind: ",
            "Pod objects follow from nodes, pods and Services",
            "- {apiVersion: v1, kind: Pod, metadata: {name: x}}",
        ),
    ] {
        let (error, at) = complaint(&text);
        assert!(error.contains(path) && error.contains(what), "{path}{what}\n{error}");
        assert_eq!(at, line, "{error}");
    }
    let carried = "  - {apiVersion: v1, kind: ConfigMap, metadata: {name: x}}\nremedy:\n";
    assert_eq!(Scenario::after_steps(&changed("remedy:\n", carried)).unwrap().len(), 1);
}

/// The schema lists the same kinds.
#[test]
fn the_schema_knows_the_same_kinds() {
    let schema: Value = serde_json::from_str(SCHEMA_TEXT).unwrap();
    let kinds = &schema["properties"]["manifests"]["items"]["properties"]["kind"]["enum"];
    let kinds: Vec<&str> = kinds.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let known: Vec<&str> = std::iter::once(SERVED).chain(CARRIED.iter().copied()).collect();
    assert_eq!(kinds, known);
}
