//! `unmasq explain`: the pages of findings and components.

use std::ffi::OsStr;
use std::io;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::error::ErrorKind;

use unmasq_audit::FindingId;
use unmasq_audit::explain::{self, Topic};
use unmasq_report::terminal;

use crate::output::{self, Exit};

/// What `-h` says at its end.
pub(crate) const EXAMPLES: &str = "\
Examples:
  unmasq explain                      all of them, a line each
  unmasq explain calico-unused-pool   a finding: its cause, its fix, how to check
  unmasq explain kube-proxy           a component: what it does to sources, and its settings";

/// Explains a finding or a component; needs nothing but itself.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The id of a finding or the name of a component. Left out: lists them
    #[arg(value_parser = Names, hide_possible_values = true)]
    name: Option<Topic>,
    /// Print the page as it is written, in Markdown
    #[arg(long)]
    markdown: bool,
}

/// Does what was asked.
pub(crate) fn run(args: &Args) -> anyhow::Result<Exit> {
    let style = output::style(false);
    let text = match (args.name, args.markdown) {
        (Some(topic), true) => topic.page().to_owned(),
        (Some(topic), false) => terminal::page(topic.page(), &style),
        (None, true) => explain::index(),
        (None, false) => terminal::index(&style),
    };
    output::write(&mut io::stdout(), text.as_bytes())?;
    Ok(Exit::Done)
}

/// Reads a name; shells complete the names, and a wrong one is answered with the nearest.
#[derive(Debug, Clone, Copy)]
struct Names;

impl TypedValueParser for Names {
    type Value = Topic;

    fn parse_ref(
        &self,
        _: &clap::Command,
        _: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<Topic, clap::Error> {
        let name = value.to_string_lossy();
        // A single finding has the page of its kind: `ID/SUBJECT`.
        let kind =
            name.split_once('/').map(|(id, _)| id).filter(|id| FindingId::from_id(id).is_some());
        Topic::from_name(kind.unwrap_or(&name)).ok_or_else(|| {
            let near = match explain::nearest(&name)[..] {
                [] => String::new(),
                ref names => format!("; nearest: {}", names.join(", ")),
            };
            let name = output::clean(&name);
            let message =
                format!("no page has the name {name}{near}\n`unmasq explain` lists them\n");
            clap::Error::raw(ErrorKind::InvalidValue, message)
        })
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(
            Topic::all().map(|topic| PossibleValue::new(topic.name()).help(topic.title())),
        ))
    }
}
