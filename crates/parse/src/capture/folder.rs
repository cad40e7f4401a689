//! The files of one network namespace, and what is known of those that are missing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use unmasq_model::origin::{Diagnostic, FileId, Origin};

use super::beyond::BPF_NETFILTER;
use super::{FileRecord, MANIFEST, Status};

/// The files that a host is made of, in the order of their [`FileId`]s. The manifest is not in the
/// folder; it is where a failure is recorded.
const FILES: [&str; 20] = [
    "iptables-save",
    "ip6tables-save",
    "iptables-legacy-save",
    "ip6tables-legacy-save",
    "nft.json",
    "nft.txt",
    "ipset.save",
    "ip-addr.json",
    "ip-link.json",
    "ip-route.json",
    "ip6-route.json",
    "ip-rule.json",
    "ip6-rule.json",
    "ip-neigh.json",
    "bridge-fdb.json",
    "sysctl",
    "ipvs",
    "tc",
    "bpf",
    "xfrm",
];

/// Whether a file beside no manifest shows that its folder is a node's.
pub(super) fn is_evidence_of_a_node(path: &str) -> bool {
    FILES.contains(&path)
}

/// The folder of a node or of a pod.
pub(super) struct Folder<'a> {
    files: &'a BTreeMap<String, Vec<u8>>,
    prefix: String,
    /// The node's records, and the folder's own path in it.
    records: Option<&'a BTreeMap<String, FileRecord>>,
    below: String,
    /// Paths by [`FileId`].
    paths: Vec<Box<str>>,
}

/// What is known of a file.
#[derive(Debug, Clone)]
pub(super) enum Found<'a> {
    /// Its text.
    Text(Text<'a>),
    /// The kernel has nothing that it could list.
    Absent,
    /// It is not there, or not what it should be: why.
    Missing(Box<str>),
}

/// The text of a file.
#[derive(Debug, Clone)]
pub(super) struct Text<'a> {
    /// The text; bytes that are no UTF-8 are U+FFFD.
    pub(super) text: Cow<'a, str>,
    /// The file.
    pub(super) file: FileId,
}

impl<'a> Folder<'a> {
    /// The folder `below` (empty, or `pods/<ns>_<pod>/`) of the node with that prefix.
    pub(super) fn new(
        files: &'a BTreeMap<String, Vec<u8>>,
        node: &str,
        below: String,
        records: Option<&'a BTreeMap<String, FileRecord>>,
    ) -> Self {
        let prefix = format!("{node}{below}");
        let mut paths: Vec<Box<str>> = Vec::new();
        for name in FILES {
            if let Some((path, _)) = files.get_key_value(&format!("{prefix}{name}")) {
                paths.push(path.as_str().into());
            }
        }
        paths.push(MANIFEST.into());
        Folder { files, prefix, records, below, paths }
    }

    /// Paths by [`FileId`].
    pub(super) fn paths(&self) -> Vec<Box<str>> {
        self.paths.clone()
    }

    /// Looks for a file. What is wrong with it, if something is, is added to `diagnostics`.
    pub(super) fn find(&self, name: &str, diagnostics: &mut Vec<Diagnostic>) -> Found<'a> {
        let path = format!("{}{name}", self.prefix);
        let record = self.records.and_then(|records| records.get(&format!("{}{name}", self.below)));
        if let Some(record) = record.filter(|record| record.status == Status::Failed) {
            let why = format!("{path}: `{}` failed: {}", record.command, record.detail);
            let origin = Origin::new(self.id(MANIFEST), 1);
            diagnostics.push(Diagnostic { origin, message: why.clone() });
            return Found::Missing(why.into());
        }
        let Some(content) = self.files.get(&path) else {
            return match record.map(|record| record.status) {
                Some(Status::Absent) => Found::Absent,
                Some(Status::Collected | Status::Failed) | None => {
                    Found::Missing(format!("{path} was not captured").into())
                }
            };
        };
        let file = self.id(&path);
        let text = String::from_utf8_lossy(content);
        let origin = Origin::new(file, 1);
        if matches!(text, Cow::Owned(_)) {
            let message = "not all of it is UTF-8: other bytes are read as U+FFFD".to_owned();
            diagnostics.push(Diagnostic { origin, message });
        }
        let wrong = match (is_output(name, &text), is_whole(name, &text)) {
            (true, true) => None,
            (true, false) => Some("is cut off: its last line has no end".to_owned()),
            (false, _) => Some(format!("is not what it should be: {}", beginning(&text))),
        };
        if let Some(wrong) = wrong {
            let why = format!("{path} {wrong}");
            let origin = Origin::new(self.id(MANIFEST), 1);
            let message = format!("{why}; it is taken as missing");
            diagnostics.push(Diagnostic { origin, message });
            return Found::Missing(why.into());
        }
        Found::Text(Text { text, file })
    }

    /// The path of a file.
    pub(super) fn path(&self, file: FileId) -> &str {
        self.paths.get(usize::from(file.0)).map_or("?", |path| path)
    }

    /// The beginning of a file.
    pub(super) fn origin(&self, name: &str) -> Origin {
        Origin::new(self.id(&format!("{}{name}", self.prefix)), 1)
    }

    fn id(&self, path: &str) -> FileId {
        let index = self.paths.iter().position(|known| **known == *path);
        FileId(index.and_then(|index| u16::try_from(index).ok()).unwrap_or(u16::MAX))
    }
}

impl<'a> Found<'a> {
    /// The text, if there is one.
    pub(super) fn text(&self) -> Option<&Text<'a>> {
        match self {
            Found::Text(text) => Some(text),
            Found::Absent | Found::Missing(_) => None,
        }
    }
}

/// The first words of a text, which may be one long line.
fn beginning(text: &str) -> String {
    const MANY: usize = 80;
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
    match first.char_indices().nth(MANY) {
        Some((end, _)) => format!("{}…", &first[..end]),
        None => first.to_owned(),
    }
}

/// Whether the listings that are read line by line end as their programs end them: half a line may
/// say something else than the whole, and what follows is not known.
fn is_whole(name: &str, text: &str) -> bool {
    match name {
        "iptables-save"
        | "ip6tables-save"
        | "iptables-legacy-save"
        | "ip6tables-legacy-save"
        | "ipset.save" => text.is_empty() || text.ends_with('\n'),
        _ => true,
    }
}

/// Whether a file can be a command's output, and not only an error message of it. Empty listings
/// of rules and sets are nothing at all; empty JSON is not.
fn is_output(name: &str, text: &str) -> bool {
    let begins = |beginnings: &[&str]| {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty()).peekable();
        lines.peek().is_none() || lines.any(|line| beginnings.iter().any(|b| line.starts_with(b)))
    };
    match name {
        "iptables-save" | "ip6tables-save" | "iptables-legacy-save" | "ip6tables-legacy-save" => {
            begins(&["*", ":", "#", "-", "[", "COMMIT"])
        }
        "nft.txt" => begins(&["table ", "#"]),
        "ipset.save" => begins(&["create ", "add ", "-N ", "-A "]),
        "sysctl" => text.contains('='),
        "bpf" => begins(&[BPF_NETFILTER]),
        // `nft -j` prints its metainfo at least. Cut off, the text doesn't end so.
        "nft.json" => {
            let text = text.trim();
            let end = text.strip_suffix('}').map(str::trim_end);
            text.starts_with('{') && end.is_some_and(|end| end.ends_with(']'))
        }
        _ if name.ends_with(".json") => text.trim_start().starts_with('['),
        _ => true,
    }
}
