//! The nodes of a lab's cluster as what deeds are done on. There is no API there: objects of the lab
//! change with its settings.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;

use serde_json::Value;
use unmasq_apply::{CommandError, Target};
use unmasq_fix::deed::ObjectDeed;
use unmasq_lab::session::Session;

/// The nodes of a session, with files that only the test has.
pub(crate) struct Nodes<'s> {
    session: &'s Session,
    /// Texts by node and path.
    pub(crate) files: RefCell<BTreeMap<(String, String), String>>,
}

impl<'s> Nodes<'s> {
    /// Without any file.
    pub(crate) fn of(session: &'s Session) -> Self {
        Nodes { session, files: RefCell::default() }
    }
}

impl Target for Nodes<'_> {
    fn run(&self, node: &str, command: &[&str], input: &str) -> Result<String, CommandError> {
        let namespace = self.session.cluster.namespace(node);
        namespace.and_then(|namespace| namespace.exec_with(command, input)).map_err(|error| {
            let (node, command) = (node.to_owned(), command.join(" "));
            CommandError { node, command, why: format!("{error:#}") }
        })
    }

    fn read(&self, node: &str, path: &str) -> io::Result<Option<String>> {
        Ok(self.files.borrow().get(&(node.to_owned(), path.to_owned())).cloned())
    }

    fn write(&self, node: &str, path: &str, text: Option<&str>) -> io::Result<()> {
        let key = (node.to_owned(), path.to_owned());
        let mut files = self.files.borrow_mut();
        match text {
            Some(text) => drop(files.insert(key, text.to_owned())),
            None => drop(files.remove(&key)),
        }
        Ok(())
    }

    fn object(&self, deed: &ObjectDeed) -> Result<Option<Value>, CommandError> {
        Err(none(deed))
    }

    fn patch(&self, deed: &ObjectDeed, _: &Value) -> Result<(), CommandError> {
        Err(none(deed))
    }
}

fn none(deed: &ObjectDeed) -> CommandError {
    let (node, command) = ("cluster".to_owned(), deed.name.clone());
    CommandError { node, command, why: "there is no API here".to_owned() }
}
