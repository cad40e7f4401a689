//! Kubernetes objects as they stand in files, so that one can be changed and read again.
//!
//! In: the texts of a capture's `kubernetes` folder. Out: one object with all its fields, and the
//! same files with it changed. What a field means is read by `unmasq-cluster`, not here.

use std::collections::BTreeMap;

use serde_json::Value;
use unmasq_cluster::kubernetes::Objects;
use unmasq_cluster::read;

/// The files, by their path in the capture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifests {
    files: BTreeMap<String, Vec<u8>>,
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ObjectName {
    /// As kubectl names the resource: `service`, `ippools.crd.projectcalico.org`, `DaemonSet`.
    pub resource: String,
    /// Its namespace; `None`: it has none.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// `service shop/web`
impl std::fmt::Display for ObjectName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.resource)?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)
    }
}

impl Manifests {
    /// Keeps files.
    pub fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        Manifests { files }
    }

    /// The files.
    pub fn files(&self) -> &BTreeMap<String, Vec<u8>> {
        &self.files
    }

    /// The objects as the rest of Unmasq reads them.
    pub fn objects(&self) -> Objects {
        read::objects(self.files.iter().map(|(path, text)| (&**path, &**text))).objects
    }

    /// The object of that name: the last, if it stands there more than once, as in reading.
    pub fn find(&self, name: &ObjectName) -> Option<Value> {
        let (file, index) = self.place(name)?;
        read::values(self.files.get(&file)?).into_iter().nth(index)
    }

    /// All objects that have a kind and a name.
    pub fn all(&self) -> Vec<(ObjectName, Value)> {
        let values = self.files.values().flat_map(|bytes| read::values(bytes));
        values.filter_map(|value| Some((ObjectName::of(&value)?, value))).collect()
    }

    /// Puts another object in the place of the one of that name. `false`: there is none.
    pub fn replace(&mut self, name: &ObjectName, object: Value) -> bool {
        let Some((file, index)) = self.place(name) else { return false };
        let Some(bytes) = self.files.get_mut(&file) else { return false };
        let mut values = read::values(bytes);
        let Some(place) = values.get_mut(index) else { return false };
        *place = object;
        let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": values});
        *bytes = list.to_string().into_bytes();
        true
    }

    /// Adds an object that isn't there yet, in a file of its own.
    pub fn add(&mut self, object: &Value) {
        let number = self.files.len();
        self.files
            .insert(format!("kubernetes/added-{number}.json"), object.to_string().into_bytes());
    }

    /// The file that has it, and its index there.
    fn place(&self, name: &ObjectName) -> Option<(String, usize)> {
        let mut found = None;
        for (path, bytes) in &self.files {
            // Reading all of a large cluster for one object would take long: a file without the
            // name's letters doesn't have it.
            if !holds(bytes, name.name.as_bytes()) {
                continue;
            }
            for (index, value) in read::values(bytes).iter().enumerate() {
                if name.is_of(value) {
                    found = Some((path.clone(), index));
                }
            }
        }
        found
    }
}

fn holds(bytes: &[u8], part: &[u8]) -> bool {
    // UTF-16 has a byte between the letters.
    bytes.starts_with(&[0xff, 0xfe])
        || bytes.starts_with(&[0xfe, 0xff])
        || bytes.windows(part.len().max(1)).any(|window| window == part)
}

impl ObjectName {
    fn of(object: &Value) -> Option<ObjectName> {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str).map(str::to_owned);
        Some(ObjectName {
            resource: text("/kind")?.to_ascii_lowercase(),
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name")?,
        })
    }

    fn is_of(&self, object: &Value) -> bool {
        let text = |path: &str| object.pointer(path).and_then(Value::as_str);
        let Some(kind) = text("/kind") else { return false };
        let namespace = self.namespace.as_deref();
        let namespaced = namespace
            .is_none_or(|wanted| text("/metadata/namespace").unwrap_or("default") == wanted);
        is_kind(&self.resource, kind) && text("/metadata/name") == Some(&self.name) && namespaced
    }
}

/// Whether a resource, as kubectl takes it (singular, plural, with or without its group, any case),
/// is of that kind.
pub(crate) fn is_kind(resource: &str, kind: &str) -> bool {
    let resource = resource.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let kind = kind.to_ascii_lowercase();
    let plural = match kind.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None if kind.ends_with('s') => format!("{kind}es"),
        None => format!("{kind}s"),
    };
    resource == kind || resource == plural
}

/// Merges a patch into an object (RFC 7386): `null` takes a field away, objects are merged, all else
/// is replaced.
pub fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(serde_json::Map::new());
    }
    let Value::Object(target) = object else { return };
    for (key, value) in fields {
        if value.is_null() {
            target.remove(key);
        } else {
            merge(target.entry(key.clone()).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7386, appendix A.
    #[test]
    fn merging_is_that_of_the_rfc() {
        for (object, patch, expected) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"a": "foo"}), json!("bar"), json!("bar")),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = object.clone();
            merge(&mut merged, &patch);
            assert_eq!(merged, expected, "{object} with {patch}");
        }
    }

    fn name(resource: &str, namespace: Option<&str>, name: &str) -> ObjectName {
        let namespace = namespace.map(str::to_owned);
        ObjectName { resource: resource.to_owned(), namespace, name: name.to_owned() }
    }

    #[test]
    fn an_object_is_found_and_replaced_where_it_stands() {
        let yaml = "kind: Service\nmetadata: {name: web, namespace: shop}\nspec: {x: 1}\n---\n\
                    kind: Service\nmetadata: {name: web}\nspec: {x: 2}\n";
        let json = r#"{"kind": "IPPoolList", "items": [
            {"kind": "IPPool", "metadata": {"name": "web"}, "spec": {"cidr": "10.0.0.0/8"}}]}"#;
        let mut manifests = Manifests::new(BTreeMap::from([
            ("kubernetes/a.yaml".to_owned(), yaml.as_bytes().to_vec()),
            ("kubernetes/ippools.json".to_owned(), json.as_bytes().to_vec()),
        ]));
        let at = |manifests: &Manifests, name: &ObjectName, path: &str| {
            manifests.find(name).and_then(|object| object.pointer(path).cloned())
        };
        let shop = name("services", Some("shop"), "web");
        let other = name("service", Some("default"), "web");
        let pool = name("ippools.crd.projectcalico.org", None, "web");
        assert_eq!(at(&manifests, &shop, "/spec/x"), Some(json!(1)));
        assert_eq!(at(&manifests, &other, "/spec/x"), Some(json!(2)));
        assert_eq!(at(&manifests, &pool, "/spec/cidr"), Some(json!("10.0.0.0/8")));
        assert_eq!(manifests.find(&name("networkpolicies", Some("shop"), "web")), None);

        let mut changed = manifests.find(&shop).unwrap();
        merge(&mut changed, &json!({"spec": {"x": 3}}));
        assert!(manifests.replace(&shop, changed));
        assert_eq!(at(&manifests, &shop, "/spec/x"), Some(json!(3)));
        assert_eq!(at(&manifests, &other, "/spec/x"), Some(json!(2)));
        assert!(!manifests.replace(&name("service", Some("shop"), "x"), json!({})));
    }

    #[test]
    fn resources_are_named_as_kubectl_names_them() {
        for (resource, kind, expected) in [
            ("service", "Service", true),
            ("ippools.crd.projectcalico.org", "IPPool", true),
            ("networkpolicies", "NetworkPolicy", true),
            ("ingresses.networking.k8s.io", "Ingress", true),
            ("DaemonSet", "DaemonSet", true),
            ("service", "ServiceCIDR", false),
        ] {
            assert_eq!(is_kind(resource, kind), expected, "{resource} {kind}");
        }
    }
}
