//! A node of the lab whose rules of two back ends masquerade pods, with a folder as its `/etc`, and
//! the command on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;
use unmasq_lab::Namespace;
use unmasq_lab::privilege::search_path;
use unmasq_lab::scenario::builtin;
use unmasq_lab::session::Session;

/// The node.
pub(crate) const NAME: &str = "hdss7-21";
const SCENARIO: &str = "flannel-host-masquerade";
/// The engine's rule, which its back end of now has, and that of the time before.
pub(crate) const RULE: &str = "-A POSTROUTING -s 172.7.21.0/24 ! -o docker0 -j MASQUERADE";

/// Goes to the node's files and its name, and becomes the command.
const INSIDE: &str = "echo hdss7-21 > /proc/sys/kernel/hostname
    mount --bind \"$1/etc\" /etc
    mount --bind \"$1/lib\" /var/lib
    mount --bind \"$1/run\" /run
    shift
    exec \"$@\"";

pub(crate) struct Node {
    session: Session,
    folder: TempDir,
}

/// What the deeds change, each in its listing's words; counters are none.
pub(crate) type Parts = BTreeMap<&'static str, String>;

impl Node {
    pub(crate) fn up() -> Result<Node> {
        Node::with("")
    }

    /// With what a shell does on it before it is captured.
    pub(crate) fn with(script: &str) -> Result<Node> {
        let session = Session::up(builtin(SCENARIO).context("no such scenario")?, &|_| {})?;
        let folder = tempfile::tempdir()?;
        let node = Node { session, folder };
        let namespace = node.namespace()?;
        namespace.script(&format!("iptables-nft -t nat {RULE}"))?;
        let listed = namespace.exec(&["iptables-legacy-save", "-t", "nat"])?;
        namespace.script(script)?;
        let copied = Command::new("cp").args(["-a", "/etc"]).arg(node.path("etc")).status()?;
        ensure!(copied.success(), "cp -a /etc");
        for folder in ["etc/iptables", "etc/docker", "lib", "run", "journals"] {
            fs::create_dir_all(node.path(folder))?;
        }
        fs::write(node.path("etc/iptables/rules.v4"), listed)?;
        for (path, bytes) in node.session.capture()? {
            let path = node.path("capture").join(path);
            fs::create_dir_all(path.parent().context("a folder")?)?;
            fs::write(path, bytes)?;
        }
        let files = node.path("capture").join("nodes").join(NAME).join("files/etc");
        fs::create_dir_all(files.join("iptables"))?;
        fs::copy(node.path("etc/iptables/rules.v4"), files.join("iptables/rules.v4"))?;
        fs::copy(files.join("docker/daemon.json"), node.path("etc/docker/daemon.json"))?;
        Ok(node)
    }

    pub(crate) fn namespace(&self) -> Result<&Namespace> {
        self.session.cluster.namespace(NAME)
    }

    /// A path of the node's folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.path("journals/journal")
    }

    /// What mends the finding, with the journal at its place.
    pub(crate) fn apply(&self) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        let (capture, journal) = (text(self.path("capture")), text(self.journal()));
        // The rules without the pods of other hosts, in the kernel and in files.
        let words =
            ["host-masquerade", &capture, "--remedy", "2", "--apply", "--journal", &journal];
        words.map(str::to_owned).to_vec()
    }

    pub(crate) fn undo(&self) -> Vec<String> {
        vec!["--undo".to_owned(), self.journal().display().to_string()]
    }

    /// Starts `unmasq fix`; `before` are the words of another command in front of it, and programs
    /// of the folder `first` are found before the system's.
    pub(crate) fn start(
        &self,
        before: &[String],
        arguments: &[String],
        first: &Path,
    ) -> Result<Child> {
        let mut path = first.as_os_str().to_owned();
        path.push(":");
        path.push(search_path());
        let mut command = Command::new("unshare");
        command.args(["--uts", "--mount", "sh", "-ec", INSIDE, "sh"]).arg(self.folder.path());
        command.args(before).arg(env!("CARGO_BIN_EXE_unmasq")).arg("fix").args(arguments);
        command.env("PATH", path).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.namespace()?.enter(|| command.spawn())?.context("unshare")
    }

    fn fix_behind(&self, before: &[String], arguments: &[String]) -> Result<Output> {
        Ok(self.start(before, arguments, Path::new("/nowhere"))?.wait_with_output()?)
    }

    /// Runs it, which has to end with this code and to say all of this.
    pub(crate) fn says(&self, arguments: &[String], code: i32, words: &[&str]) -> Result<String> {
        self.says_behind(&[], arguments, code, words)
    }

    /// The same behind the words of another command.
    pub(crate) fn says_behind(
        &self,
        before: &[String],
        arguments: &[String],
        code: i32,
        words: &[&str],
    ) -> Result<String> {
        let output = self.fix_behind(before, arguments)?;
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        ensure!(output.status.code() == Some(code), "{arguments:?}: {}\n{said}", output.status);
        for word in words {
            ensure!(said.contains(word), "{arguments:?}: {word}\n{said}");
        }
        Ok(said)
    }

    pub(crate) fn parts(&self) -> Result<Parts> {
        let namespace = self.namespace()?;
        let listed = |program: &str| -> Result<String> {
            let text = namespace.exec(&[program, "-t", "nat"])?;
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let line = |line: &str| line.split(" [").next().unwrap_or(line).to_owned() + "\n";
            Ok(lines.map(line).collect())
        };
        let file = |path: &str| -> Result<String> {
            let path = self.path(path);
            let folder = path.parent().context("a folder")?;
            let mut names = String::new();
            for entry in fs::read_dir(folder)? {
                names += &format!("{}\n", entry?.file_name().display());
            }
            // The file is the only one of its folder, but for what a killed one leaves.
            let name = path.file_name().context("a name")?.to_string_lossy();
            let left = names.replace(&format!(".{name}.unmasq\n"), "");
            ensure!(left == format!("{name}\n"), "{}: {names}", folder.display());
            Ok(fs::read_to_string(path)?)
        };
        Ok(BTreeMap::from([
            ("iptables-legacy", listed("iptables-legacy-save")?),
            ("iptables-nft", listed("iptables-nft-save")?),
            ("/etc/iptables/rules.v4", file("etc/iptables/rules.v4")?),
            ("/etc/docker/daemon.json", file("etc/docker/daemon.json")?),
        ]))
    }

    /// Whether a killed one left something beside files that nobody has cleared away.
    pub(crate) fn is_littered(&self) -> bool {
        let left = ["etc/iptables/.rules.v4.unmasq", "etc/docker/.daemon.json.unmasq"];
        left.iter().any(|path| self.path(path).exists())
    }
}
