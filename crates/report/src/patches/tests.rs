use unmasq_cluster::read;

use super::*;

/// Containers and variables of a workload, with all that a patch doesn't say.
fn workload(image: &str, variables: &[(&str, &str)], arguments: &[&str]) -> Value {
    let variables: Vec<Value> =
        variables.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({"spec": {"template": {"spec": {"containers": [
        {"name": "sidecar", "image": "s:1"},
        {"name": "main", "image": image, "env": variables, "args": arguments},
    ]}}}})
}

#[test]
fn a_patch_has_only_what_changes() {
    let before = workload("m:1", &[("A", "1"), ("B", "2")], &["--x"]);
    let after = workload("m:1", &[("A", "1"), ("B", "3"), ("C", "4")], &["--x", "--y"]);
    let containers = |items: Value| json!({"spec": {"template": {"spec": {"containers": items}}}});
    assert_eq!(
        strategic(&before, &after),
        Some(containers(json!([{
            "name": "main",
            "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
            "args": ["--x", "--y"],
        }])))
    );
    assert_eq!(
        strategic(&after, &before),
        Some(containers(json!([{
            "name": "main",
            "env": [{"name": "B", "value": "2"}, {"name": "C", "$patch": "delete"}],
            "args": ["--x"],
        }])))
    );
    assert_eq!(strategic(&before, &before), None);
    assert_eq!(
        strategic(&json!({"a": 1, "b": {"c": 2}}), &json!({"a": 1})),
        Some(json!({"b": null}))
    );
}

#[test]
fn two_patches_are_one() {
    for (first, second, expected) in [
        (json!({"a": {"b": 1}}), json!({"a": {"c": null}}), json!({"a": {"b": 1, "c": null}})),
        (json!({"a": {"b": 1}}), json!({"a": {"b": 2}}), json!({"a": {"b": 2}})),
        (json!({"a": [1]}), json!({"a": [1, 2], "d": 3}), json!({"a": [1, 2], "d": 3})),
    ] {
        let mut both = first.clone();
        compose(&mut both, &second);
        assert_eq!(both, expected);
    }
}

#[test]
fn fields_are_named_as_kubectl_prints_them() {
    let before = workload("m:1", &[("A", "1")], &["--x"]);
    let after = workload("m:1", &[("A", "1"), ("B", "2")], &["--x", "--y"]);
    let (forth, back) = (strategic(&before, &after).unwrap(), strategic(&after, &before).unwrap());
    let main = ".spec.template.spec.containers[?(@.name==\"main\")]";
    let all: Vec<(String, String, String)> = leaves(&forth, &back)
        .unwrap()
        .into_iter()
        .map(|leaf| (leaf.path, leaf.before, leaf.after))
        .collect();
    let expected = |path: &str, before: &str, after: &str| {
        (format!("{main}{path}"), before.to_owned(), after.to_owned())
    };
    assert_eq!(
        all,
        [expected(".args[*]", "--x", "--x --y"), expected(".env[?(@.name==\"B\")].value", "", "2"),]
    );
    let switched =
        leaves(&json!({"spec": {"a.b": false}}), &json!({"spec": {"a.b": null}})).unwrap();
    assert_eq!((&*switched[0].path, &*switched[0].before), (".spec.a\\.b", ""));
    assert!(leaves(&json!({"a": [{"x": 1}]}), &json!({"a": []})).is_none());
    assert!(leaves(&json!({}), &json!({})).is_none());
}

#[test]
fn what_is_written_is_read_back() {
    for value in [
        json!({"apiVersion": "v1", "kind": "X", "metadata": {"name": "a"}, "spec": {}}),
        json!({"a": [], "b": null, "c": [1, "2", true, null, "no", "", "- x", "a: b", "0x1f", "~"]}),
        json!({"a": [{"b": [{"c": 1, "d": [2]}]}, {"b": "x"}], "e": [[1], ["x"]]}),
        json!({"text": "one\n  two\n\nthree\n", "other": "one\ntwo", "more": " one\ntwo\n\n"}),
        json!({"a b": "1.5", "on": "1e3", "tab": "a\tb\nc", "é": "\u{202e}", "n": "2026-01-01"}),
        json!({"list": ["one\ntwo\n", "#x", "x #y", "x"]}),
    ] {
        let text = yaml::document(&value);
        assert_eq!(read::values(text.as_bytes()), [value], "{text}");
    }
}
