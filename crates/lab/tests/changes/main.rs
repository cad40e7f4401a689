//! Changes of rules as the kernel takes them: the transaction leads to the rules that the model
//! foresees, and its inverse back.

#[allow(clippy::unwrap_used, reason = "a test that can't prepare itself has failed")]
#[path = "../../../audit/tests/captured/mod.rs"]
mod captured;
#[path = "../trials/mod.rs"]
mod trials;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use unmasq_audit::change::{
    RuleChange, TableChange, Transaction, apply, commands, inverse, locate, table_commands,
    table_transaction, transactions,
};
use unmasq_audit::expect::Expectations;
use unmasq_audit::{Action, Request, audit};
use unmasq_cluster::{Cluster, Overrides, read};
use unmasq_lab::Namespace;
use unmasq_model::origin::FileId;
use unmasq_model::rule::{Rule, Step, Test as Asked};
use unmasq_model::ruleset::{Backend, Ruleset, Table, TableFamily};
use unmasq_parse::{iptables, nft};

use trials::Test;

const TESTS: [Test; 9] = [
    ("iptables_legacy", || xtables(&IPTABLES, "iptables-legacy")),
    ("iptables_nft", || xtables(&IPTABLES, "iptables-nft")),
    ("ip6tables_legacy", || xtables(&IP6TABLES, "ip6tables-legacy")),
    ("ip6tables_nft", || xtables(&IP6TABLES, "ip6tables-nft")),
    ("nft_ip", || native("ip", "10.7", "16")),
    ("nft_ip6", || native("ip6", "fd07:", "32")),
    ("a_rule_that_is_gone", a_rule_that_is_gone),
    ("several_programs_of_a_host", remedies_of_the_flannel_example),
    ("pins_of_examples", pins_of_examples),
];

fn main() -> ExitCode {
    trials::run(TESTS)
}

/// A chain before, and what becomes of each rule.
struct Xtables {
    family: TableFamily,
    before: &'static [&'static str],
    after: &'static [&'static str],
}

const IPTABLES: Xtables = Xtables {
    family: TableFamily::Ip,
    before: &[
        "-s 172.7.21.0/24 ! -o docker0 -m comment --comment \"it's \\\"a\\\" $HOME \\\\b\" -j MASQUERADE",
        "-s 10.1.0.0/16 -p tcp -m tcp --dport 80 -j SNAT --to-source 192.0.2.7",
        "-m mark --mark 0x4000/0x4000 -j RETURN",
        "-s 10.2.0.0/16 -j MASQUERADE --random-fully",
    ],
    after: &[
        "-m mark --mark 0x8000/0x8000 -j RETURN",
        "-s 172.7.21.0/24 ! -d 172.7.0.0/16 ! -o docker0 -m comment --comment \"it's \\\"a\\\" $HOME \\\\b\" -m iprange ! --dst-range 10.0.0.0-10.0.0.255 -j MASQUERADE",
        "-m mark --mark 0x4000/0x4000 -j RETURN",
        "-s 10.2.0.0/16 -j MASQUERADE --random-fully",
        "-s 10.3.0.0/16 -j RETURN",
    ],
};

const IP6TABLES: Xtables = Xtables {
    family: TableFamily::Ip6,
    before: &[
        "-s fd07:21::/64 ! -o docker0 -m comment --comment \"it's \\\"a\\\"\" -j MASQUERADE",
        "-s fd01::/64 -p tcp -m tcp --dport 80 -j SNAT --to-source fd99::7",
        "-m mark --mark 0x4000/0x4000 -j RETURN",
        "-s fd02::/64 -j MASQUERADE --random-fully",
    ],
    after: &[
        "-m mark --mark 0x8000/0x8000 -j RETURN",
        "-s fd07:21::/64 ! -d fd07::/16 ! -o docker0 -m comment --comment \"it's \\\"a\\\"\" -j MASQUERADE",
        "-m mark --mark 0x4000/0x4000 -j RETURN",
        "-s fd02::/64 -j MASQUERADE --random-fully",
        "-s fd03::/64 -j RETURN",
    ],
};

/// An insertion in front, the first rule replaced, the second deleted, an addition at the end.
fn four(like: &RuleChange, before: &[Rule], after: &[Rule]) -> Vec<RuleChange> {
    let change = |position: usize, old: Option<&Rule>, new: Option<&Rule>| RuleChange {
        position,
        old: old.cloned(),
        new: new.cloned(),
        ..like.clone()
    };
    vec![
        change(0, Some(&before[0]), Some(&after[1])),
        change(0, None, Some(&after[0])),
        change(1, Some(&before[1]), None),
        change(4, None, Some(&after[4])),
    ]
}

fn of(backend: Backend, family: TableFamily, table: &str, chain: &str) -> RuleChange {
    let (table, chain) = (table.to_owned(), chain.to_owned());
    RuleChange { backend, family, table, chain, position: 0, old: None, new: None }
}

fn xtables(case: &Xtables, tool: &str) -> Result<()> {
    let namespace = Namespace::new("changes")?;
    let load = |rules: &[&str]| -> Result<()> {
        let rules: String = rules.iter().map(|rule| format!("-A POSTROUTING {rule}\n")).collect();
        let text = format!("*nat\n:POSTROUTING ACCEPT [0:0]\n{rules}COMMIT\n");
        namespace.exec_with(&[&format!("{tool}-restore")], &text).map(drop)
    };
    // What the kernel makes of the rules that are to come.
    load(case.after)?;
    let wanted = saved(&namespace, tool, case.family)?;
    load(case.before)?;
    let before = saved(&namespace, tool, case.family)?;
    let backend = if tool.ends_with("legacy") { Backend::Legacy } else { Backend::IptablesNft };
    let like = of(backend, case.family, "nat", "POSTROUTING");
    let changes = four(&like, rules(&before, &like)?, rules(&wanted, &like)?);
    there_and_back(&namespace, &changes, &mut || saved(&namespace, tool, case.family))?;
    // Typed by a person, too.
    for command in commands(&changes)? {
        namespace.script(&command)?;
    }
    alike(&saved(&namespace, tool, case.family)?, &wanted)
}

/// Rules of the nat table as iptables-save lists them.
fn saved(namespace: &Namespace, tool: &str, family: TableFamily) -> Result<Ruleset> {
    let text = namespace.exec(&[&format!("{tool}-save"), "-t", "nat"])?;
    let (tables, diagnostics) = iptables::parse(&text, FileId(0), family, Backend::Legacy);
    ensure!(diagnostics.is_empty(), "{diagnostics:?} in {text}");
    Ok(Ruleset { tables })
}

fn native(family: &'static str, net: &str, length: &str) -> Result<()> {
    let table = if family == "ip" { TableFamily::Ip } else { TableFamily::Ip6 };
    let net = |number: u8| match table {
        TableFamily::Ip => format!("{net}.{number}.0/24"),
        _ => format!("{net}{number}::/{length}"),
    };
    let before = [
        format!(
            "{family} saddr {} oifname != \"docker0\" counter packets 5 bytes 60 masquerade comment \"it's $HOME `x`\"",
            net(1)
        ),
        format!("{family} saddr {{ {}, {} }} masquerade fully-random", net(2), net(5)),
        "meta mark & 0x00004000 == 0x00000000 return".to_owned(),
        format!("{family} saddr {} masquerade", net(3)),
    ];
    let after = [
        "meta mark 0x00008000 return".to_owned(),
        before[0].replacen(" oifname", &format!(" {family} daddr != {} oifname", net(4)), 1),
        before[2].clone(),
        before[3].clone(),
        format!("{family} saddr {} return", net(4)),
    ];
    let namespace = Namespace::new("changes")?;
    let load = |rules: &[String]| -> Result<()> {
        let text = format!(
            "table {family} t\ndelete table {family} t\ntable {family} t {{\nchain C {{\n\
             type nat hook postrouting priority srcnat; policy accept;\n{}\n}}\n}}\n",
            rules.join("\n")
        );
        namespace.exec_with(&["nft", "-f", "-"], &text).map(drop)
    };
    load(&after)?;
    let mut wanted = listed(&namespace)?;
    load(&before)?;
    let before = listed(&namespace)?;
    let like = of(Backend::Nft, table, "t", "C");
    // The kernel has yet to give these rules their handles.
    for rule in wanted.tables.iter_mut().flat_map(|table| &mut table.chains[0].rules) {
        rule.origin.handle = None;
    }
    let changes = four(&like, rules(&before, &like)?, rules(&wanted, &like)?);
    there_and_back(&namespace, &changes, &mut || listed(&namespace))?;
    // Typed by a person, who looks up the handles of the new rules.
    let changes = locate(&changes, &listed(&namespace)?)?;
    for command in commands(&changes)? {
        namespace.script(&command)?;
    }
    alike(&listed(&namespace)?, &wanted)?;
    for command in commands(&inverse(&changes))? {
        ensure!(command.contains("sed -n"), "{command}");
        namespace.script(&command)?;
    }
    alike(&listed(&namespace)?, &before)
}

/// Native tables as nft lists them.
fn listed(namespace: &Namespace) -> Result<Ruleset> {
    let json = namespace.exec(&["nft", "-j", "list", "ruleset"])?;
    let text = namespace.exec(&["nft", "-a", "list", "ruleset"])?;
    let none = |_: TableFamily, _: &str| false;
    let (tables, diagnostics) = nft::parse(&json, FileId(0), Some((&text, FileId(1))), &none);
    ensure!(diagnostics.is_empty(), "{diagnostics:?} in {text}");
    Ok(Ruleset { tables })
}

fn rules<'r>(ruleset: &'r Ruleset, like: &RuleChange) -> Result<&'r [Rule]> {
    let table = ruleset.tables.iter().find(|table| *table.name == *like.table);
    let chain =
        table.and_then(|table| table.chains.iter().find(|chain| *chain.name == *like.chain));
    Ok(&chain.context("no such chain")?.rules)
}

/// Carries changes out, compares with the model, and undoes them.
fn there_and_back(
    namespace: &Namespace,
    changes: &[RuleChange],
    read: &mut dyn FnMut() -> Result<Ruleset>,
) -> Result<()> {
    let before = read()?;
    let mut foreseen = before.clone();
    apply(&mut foreseen, changes)?;
    run(namespace, &transactions(changes)?)?;
    let after = read()?;
    alike(&after, &foreseen)?;
    ensure!(alike(&after, &before).is_err(), "nothing has changed");
    let back = locate(&inverse(changes), &after)?;
    run(namespace, &transactions(&back)?)?;
    alike(&read()?, &before)
}

fn run(namespace: &Namespace, transactions: &[Transaction]) -> Result<()> {
    for one in transactions {
        let command: Vec<&str> = one.command.iter().map(String::as_str).collect();
        namespace.exec_with(&command, &one.input)?;
    }
    Ok(())
}

/// Compares texts and steps, rule by rule. What has no text of its own (a set's number) is left
/// out.
fn alike(seen: &Ruleset, expected: &Ruleset) -> Result<()> {
    let (seen, expected) = (read_out(seen), read_out(expected));
    ensure!(seen == expected, "seen {seen:#?}\nexpected {expected:#?}");
    Ok(())
}

fn read_out(ruleset: &Ruleset) -> Vec<String> {
    let mut lines = Vec::new();
    for table in &ruleset.tables {
        lines.push(format!("{:?} {} {}", table.backend, table.family, table.name));
        for chain in &table.chains {
            lines.push(format!("{} {:?}", chain.name, chain.base));
            lines.extend(chain.rules.iter().map(|rule| meant(table, rule)));
        }
    }
    lines
}

fn meant(table: &Table, rule: &Rule) -> String {
    let step = |step: &Step| match step {
        Step::Test(Asked::Member { key, set, negated }) => {
            format!("{key:?} {negated} {:?}", table.set(*set).elements)
        }
        Step::Test(_) | Step::Do(_) => format!("{step:?}"),
    };
    let steps: Vec<String> = rule.steps.iter().map(step).collect();
    format!("{} {:?} {steps:?}", rule.text, rule.comment)
}

/// A transaction for a rule that has been changed since leaves everything as it is.
fn a_rule_that_is_gone() -> Result<()> {
    let namespace = Namespace::new("changes")?;
    let load =
        "*nat\n-A POSTROUTING -s 10.1.0.0/16 -j MASQUERADE\n-A POSTROUTING -j RETURN\nCOMMIT\n";
    for (tool, backend) in
        [("iptables-legacy", Backend::Legacy), ("iptables-nft", Backend::IptablesNft)]
    {
        namespace.exec_with(&[&format!("{tool}-restore")], load)?;
        let before = saved(&namespace, tool, TableFamily::Ip)?;
        let like = of(backend, TableFamily::Ip, "nat", "POSTROUTING");
        let there = rules(&before, &like)?;
        let mut gone = there[0].clone();
        gone.text = gone.text.replace("10.1.", "10.9.").into();
        let changes = [
            RuleChange { position: 1, old: Some(there[1].clone()), ..like.clone() },
            RuleChange { old: Some(gone), ..like },
        ];
        ensure!(run(&namespace, &transactions(&changes)?).is_err(), "{tool} deleted another rule");
        alike(&saved(&namespace, tool, TableFamily::Ip)?, &before)?;
    }
    Ok(())
}

fn example(name: &str) -> Result<Cluster> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name);
    let contents = read::capture(&captured::files(&root))?;
    Ok(Cluster::new(contents.nodes, contents.objects, Overrides::default()))
}

/// What the findings of an example have done to a node.
fn actions(cluster: &Cluster, node: &str) -> (Vec<Vec<RuleChange>>, Vec<Vec<TableChange>>) {
    let audit = audit(cluster, &Expectations::default(), Request::default(), &|_, _| {});
    let (mut rules, mut tables) = (Vec::new(), Vec::new());
    let steps = audit.findings.iter().flat_map(|one| &one.remedies).flat_map(|one| &one.steps);
    for step in steps {
        match &step.action {
            Action::Rules { node: at, changes } if at == node => rules.push(changes.clone()),
            Action::Tables { node: at, changes } if at == node => tables.push(changes.clone()),
            _ => {}
        }
    }
    (rules, tables)
}

/// Docker's rule, as it stands in the example's node.
fn remedies_of_the_flannel_example() -> Result<()> {
    let cluster = example("flannel-host")?;
    let node = cluster.nodes.first().context("no node")?;
    let (rules, _) = actions(&cluster, &node.name);
    ensure!(!rules.is_empty(), "no remedy changes a rule");
    let state =
        captured::files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/flannel-host"));
    let path = format!("nodes/{}/iptables-legacy-save", node.name);
    let text = String::from_utf8(state.get(&path).context("no rules")?.clone())?;
    for changes in rules {
        let namespace = Namespace::new("changes")?;
        namespace.exec_with(&["iptables-legacy-restore"], &text)?;
        there_and_back(&namespace, &changes, &mut || {
            saved(&namespace, "iptables-legacy", TableFamily::Ip)
        })?;
    }
    Ok(())
}

/// The kernel lists a pin as the model has it, and has nothing left of it when it is undone.
fn pins_of_examples() -> Result<()> {
    let mut seen = 0;
    for name in ["canal-rke", "flannel-host", "kube-router-dualstack"] {
        let cluster = example(name)?;
        let node = cluster.nodes.first().context("no node")?;
        for changes in actions(&cluster, &node.name).1 {
            seen += 1;
            let namespace = Namespace::new("changes")?;
            run(&namespace, &[table_transaction(&changes)?])?;
            let made: Vec<Table> = changes.iter().filter_map(|one| one.new.clone()).collect();
            alike(&listed(&namespace)?, &Ruleset { tables: made })?;
            ensure!(run(&namespace, &[table_transaction(&changes)?]).is_err(), "made twice");
            let back: Vec<TableChange> = changes.iter().map(TableChange::inverse).collect();
            run(&namespace, &[table_transaction(&back)?])?;
            alike(&listed(&namespace)?, &Ruleset::default())?;
            for command in table_commands(&changes)?.iter().chain(&table_commands(&back)?) {
                namespace.script(command)?;
            }
            alike(&listed(&namespace)?, &Ruleset::default())?;
        }
    }
    ensure!(seen >= 2, "{seen} pins");
    Ok(())
}
