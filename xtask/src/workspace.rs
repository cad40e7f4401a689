//! The workspace as cargo sees it: where it is, its packages and who depends on whom.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// Where Unmasq runs, as in deny.toml. Packages for other systems are neither fetched nor judged.
const PLATFORMS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// The cargo that runs this command.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// What `cargo metadata` says, as far as it is needed.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// All packages that are built, with their dependencies.
    pub(crate) packages: Vec<Package>,
    /// Ids of the workspace's own packages.
    pub(crate) workspace_members: Vec<String>,
    /// Which version each dependency became.
    pub(crate) resolve: Resolve,
}

/// A package.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) manifest_path: PathBuf,
}

/// The resolved graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// A package of the graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) deps: Vec<NodeDependency>,
}

/// An edge of the graph.
#[derive(Debug, Deserialize)]
pub(crate) struct NodeDependency {
    pub(crate) pkg: String,
    pub(crate) dep_kinds: Vec<DependencyKind>,
}

/// Why an edge is there.
#[derive(Debug, Deserialize)]
pub(crate) struct DependencyKind {
    /// `None`: normal; else `build` or `dev`.
    pub(crate) kind: Option<String>,
}

impl NodeDependency {
    /// Whether it is there for tests only.
    pub(crate) fn only_dev(&self) -> bool {
        self.dep_kinds.iter().all(|kind| kind.kind.as_deref() == Some("dev"))
    }
}

impl Metadata {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Metadata> {
        let output = cargo()
            .args(["metadata", "--format-version", "1", "--locked"])
            .args(PLATFORMS.map(|platform| format!("--filter-platform={platform}")))
            .stderr(Stdio::inherit())
            .output()
            .context("cargo metadata can't be run")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", output.status);
        }
        serde_json::from_slice(&output.stdout).context("cargo metadata printed something else")
    }

    /// Packages by id.
    pub(crate) fn by_id(&self) -> BTreeMap<&str, &Package> {
        self.packages.iter().map(|package| (&*package.id, package)).collect()
    }

    /// The edges of a package.
    pub(crate) fn dependencies(&self, id: &str) -> &[NodeDependency] {
        self.resolve.nodes.iter().find(|node| node.id == id).map_or(&[], |node| &node.deps)
    }

    /// Whether the package is of this workspace.
    pub(crate) fn is_member(&self, id: &str) -> bool {
        self.workspace_members.iter().any(|member| member == id)
    }
}

impl Package {
    /// The package's folder.
    pub(crate) fn folder(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }

    /// The name of the package's folder in `crates/`; `None` for what is elsewhere.
    pub(crate) fn crate_name(&self) -> Option<&str> {
        let folder = self.folder();
        let parent = folder.parent()?.file_name()?.to_str()?;
        if parent == "crates" { folder.file_name()?.to_str() } else { None }
    }
}
