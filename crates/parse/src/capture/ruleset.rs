//! Which table is taken from which file.
//!
//! iptables-nft's rules are in `iptables-save` with all their parameters, and in `nft.json` as
//! `xt` expressions without any; so its tables are taken from the former, where it holds them.
//! A table that iptables-nft-save calls incompatible is only in `nft.json`.
//!
//! `nft.txt` is read where `nft.json` is missing or can't be read to its end. There libxtables
//! translates what iptables-nft wrote, and not always to the same (`-m conntrack --ctstate NEW,DNAT`
//! to `ct status dnat`, in iptables 1.8.9): such a table without `iptables-save` is not known.

use std::collections::BTreeSet;

use serde::Deserialize;
use unmasq_model::host::{Backends, Seen};
use unmasq_model::origin::Diagnostic;
use unmasq_model::rule::{Action, Step, Test};
use unmasq_model::ruleset::{Backend, Ruleset, Table, TableFamily, XTABLES_NAMES, xtables_base};

use super::folder::{Folder, Found, Text};
use super::node::join;

/// The tables of all back ends, and what is known of each back end.
pub(super) fn parse(folder: &Folder<'_>, diagnostics: &mut Vec<Diagnostic>) -> (Ruleset, Backends) {
    let nft = Nft {
        json: folder.find("nft.json", diagnostics),
        listing: folder.find("nft.txt", diagnostics),
    };
    let (v4, v6) = std::thread::scope(|scope| {
        let v6 = scope.spawn(|| Xtables::parse(folder, TableFamily::Ip6, &nft));
        let v4 = Xtables::parse(folder, TableFamily::Ip, &nft);
        (v4, join(v6))
    });
    let mut xtables = [v4, v6];
    let held: BTreeSet<(TableFamily, Box<str>)> = xtables
        .iter()
        .flat_map(|family| &family.nft)
        .filter(|table| table.unreadable.is_none())
        .map(|table| (table.family, table.name.clone()))
        .collect();
    let native = nft.tables(&held, diagnostics);

    for family in &mut xtables {
        diagnostics.append(&mut family.diagnostics);
        let native = native.as_ref().map_or(&[][..], |native| &native.tables);
        family.nft.retain(|table| {
            let elsewhere =
                |other: &Table| other.family == table.family && other.name == table.name;
            table.unreadable.is_none() || !native.iter().any(elsewhere)
        });
    }
    let [v4, v6] = &xtables;
    let backends = Backends {
        nft: nft.seen(),
        iptables_nft: v4.nft_seen(&nft, native.as_ref()),
        ip6tables_nft: v6.nft_seen(&nft, native.as_ref()),
        iptables_legacy: v4.legacy_seen(),
        ip6tables_legacy: v6.legacy_seen(),
    };
    let mut tables = Vec::new();
    for family in xtables {
        tables.extend(family.nft);
        tables.extend(family.legacy);
    }
    tables.extend(native.map_or_else(Vec::new, |native| native.tables));
    (Ruleset { tables }, backends)
}

/// What iptables, or ip6tables, says of one family.
struct Xtables<'a> {
    family: TableFamily,
    save: Found<'a>,
    legacy_save: Found<'a>,
    /// Tables of iptables-nft.
    nft: Vec<Table>,
    /// Tables of iptables-legacy.
    legacy: Vec<Table>,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Xtables<'a> {
    fn parse(folder: &Folder<'a>, family: TableFamily, nft: &Nft<'_>) -> Self {
        let (save, legacy_save) = match family {
            TableFamily::Ip6 => ("ip6tables-save", "ip6tables-legacy-save"),
            TableFamily::Ip
            | TableFamily::Inet
            | TableFamily::Arp
            | TableFamily::Bridge
            | TableFamily::Netdev => ("iptables-save", "iptables-legacy-save"),
        };
        let mut diagnostics = Vec::new();
        let save = folder.find(save, &mut diagnostics);
        let legacy_save = folder.find(legacy_save, &mut diagnostics);
        let read = |text: &Text<'_>, backend| {
            crate::iptables::parse(&text.text, text.file, family, backend)
        };
        let (tables, mut found) = save.text().map_or_else(Default::default, |text| {
            let beside_legacy = legacy_save.text().is_some();
            read(text, default_backend(text, family, nft, beside_legacy))
        });
        diagnostics.append(&mut found);
        // iptables-save may be iptables-legacy-save by another name, where that is the default.
        let (mut legacy, nft): (Vec<Table>, Vec<Table>) =
            tables.into_iter().partition(|table| table.backend == Backend::Legacy);
        if let Some(text) = legacy_save.text() {
            let (tables, mut found) = read(text, Backend::Legacy);
            diagnostics.append(&mut found);
            if let (Some(unused), Some(save)) = (legacy.first(), save.text()) {
                let path = folder.path(save.file);
                let message = format!("{path} is not used: it is iptables-legacy's too");
                diagnostics.push(Diagnostic { origin: unused.origin, message });
            }
            legacy = tables;
        }
        Xtables { family, save, legacy_save, nft, legacy, diagnostics }
    }

    fn legacy_seen(&self) -> Seen {
        match &self.legacy_save {
            Found::Text(_) | Found::Absent => Seen::Captured,
            Found::Missing(_) if !self.legacy.is_empty() => Seen::Captured,
            Found::Missing(why) if self.save.text().is_some_and(mentions_legacy) => {
                Seen::Withheld(why.clone())
            }
            Found::Missing(why) => Seen::Missing(why.clone()),
        }
    }

    /// Without iptables-save, nft's listing tells whether there is something to miss.
    fn nft_seen(&self, nft: &Nft<'_>, native: Option<&Native>) -> Seen {
        let why = match &self.save {
            Found::Text(_) if !self.nft.is_empty() || self.legacy.is_empty() => {
                return Seen::Captured;
            }
            Found::Absent => return Seen::Captured,
            Found::Text(_) => "iptables-save has the rules of iptables-legacy only".into(),
            Found::Missing(why) => why.clone(),
        };
        let Some(native) = native else {
            let absent = matches!(nft.json, Found::Absent);
            return if absent { Seen::Captured } else { Seen::Missing(why) };
        };
        let misses = |table: &Table| {
            table.family == self.family
                && XTABLES_NAMES.contains(&&*table.name)
                && (has_opaque_rules(table) || native.from_text && is_built_in(table))
        };
        if native.tables.iter().any(misses) { Seen::Missing(why) } else { Seen::Captured }
    }
}

/// What nft lists.
struct Nft<'a> {
    json: Found<'a>,
    listing: Found<'a>,
}

/// The tables of nft's listing that are not taken from elsewhere.
struct Native {
    tables: Vec<Table>,
    /// They are read from the text.
    from_text: bool,
}

impl Nft<'_> {
    fn tables(
        &self,
        held: &BTreeSet<(TableFamily, Box<str>)>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Option<Native> {
        let skip = |family: TableFamily, name: &str| held.contains(&(family, name.into()));
        let listing = self.listing.text();
        if let Some(json) = self.json.text() {
            let beside = listing.map(|listing| (&*listing.text, listing.file));
            let (tables, mut found) = crate::nft::parse(&json.text, json.file, beside, &skip);
            diagnostics.append(&mut found);
            if listing.is_none() || !crate::nft::is_cut_short(&tables) {
                return Some(Native { tables, from_text: false });
            }
        }
        let listing = listing.filter(|_| !matches!(self.json, Found::Absent))?;
        let (tables, mut found) = crate::nft::text::parse(&listing.text, listing.file, &skip);
        diagnostics.append(&mut found);
        Some(Native { tables, from_text: true })
    }

    fn seen(&self) -> Seen {
        match (&self.json, &self.listing) {
            (Found::Text(_) | Found::Absent, _) | (Found::Missing(_), Found::Text(_)) => {
                Seen::Captured
            }
            (Found::Missing(why), Found::Absent | Found::Missing(_)) => Seen::Missing(why.clone()),
        }
    }

    /// Whether it has a table of one of those names.
    fn lists(&self, family: TableFamily, names: &[&str]) -> bool {
        if let Some(json) = self.json.text() {
            let listed =
                serde_json::from_str::<Listing>(&json.text).map_or(Vec::new(), |l| l.nftables);
            let family = family.to_string();
            let mut tables = listed.iter().filter_map(|object| object.table.as_ref());
            return tables.any(|t| names.contains(&t.name.as_str()) && t.family == family);
        }
        let head = format!("table {family} ");
        let mut lines = self.listing.text().into_iter().flat_map(|text| text.text.lines());
        lines.any(|line| {
            let name = line.strip_prefix(&head).and_then(|rest| rest.split_once(" {"));
            name.is_some_and(|(name, _)| names.contains(&name))
        })
    }
}

/// Whether iptables-nft may have written the table.
fn is_built_in(table: &Table) -> bool {
    let built_in = |name: &str| xtables_base(Backend::IptablesNft, &table.name, name).is_some();
    table.chains.iter().any(|chain| built_in(&chain.name))
}

/// iptables-nft-save says so when iptables-legacy has tables, which it doesn't list
/// (iptables/xtables-save.c).
fn mentions_legacy(save: &Text<'_>) -> bool {
    save.text.lines().any(|line| line.starts_with("# Warning: ") && line.contains("legacy tables"))
}

fn has_opaque_rules(table: &Table) -> bool {
    let steps = table.chains.iter().flat_map(|chain| &chain.rules).flat_map(|rule| &*rule.steps);
    steps
        .into_iter()
        .any(|step| matches!(step, Step::Test(Test::Opaque(_)) | Step::Do(Action::Opaque(_))))
}

/// Whose a listing is that doesn't say so: iptables-legacy's if it has a header, which would name
/// nf_tables otherwise; without one iptables-nft's if there is another file of iptables-legacy, or
/// nft lists a table of that name.
fn default_backend(
    save: &Text<'_>,
    family: TableFamily,
    nft: &Nft<'_>,
    beside_legacy: bool,
) -> Backend {
    if save.text.lines().any(|line| line.starts_with("# Generated by ")) {
        return Backend::Legacy;
    }
    if beside_legacy {
        return Backend::IptablesNft;
    }
    let saved = save.text.lines().filter_map(|line| line.trim_end().strip_prefix('*'));
    let listed = nft.lists(family, &saved.collect::<Vec<_>>());
    if listed { Backend::IptablesNft } else { Backend::Legacy }
}

/// As much of `nft -j list ruleset` as names its tables.
#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Object>,
}

#[derive(Deserialize)]
struct Object {
    table: Option<ListedTable>,
}

#[derive(Deserialize)]
struct ListedTable {
    family: String,
    name: String,
}
