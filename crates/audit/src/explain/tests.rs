//! That every page is there, has what a reader looks for, and can be printed.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::*;

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

/// The page's lines that are outside of code blocks, with their numbers.
fn prose(page: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    page.lines().enumerate().filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

fn sections(page: &str) -> Vec<&str> {
    prose(page).filter_map(|(_, line)| line.strip_prefix("## ")).collect()
}

/// The text of a section, without its heading.
fn section<'a>(page: &'a str, name: &str) -> &'a str {
    let start = page.find(&format!("\n## {name}\n")).unwrap() + name.len() + 5;
    let rest = &page[start..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

#[test]
fn a_page_begins_with_its_heading() {
    for topic in Topic::all() {
        let first = topic.page().lines().next().unwrap();
        assert_eq!(first, format!("# {}", topic.title()), "{}", topic.name());
    }
}

#[test]
fn every_finding_has_the_sections_that_a_reader_looks_for() {
    for finding in FindingId::ALL {
        let page = Topic::Finding(*finding).page();
        let expected = ["Cause", "Picture", "Fix", "Check", "References"];
        assert_eq!(sections(page), expected, "{finding}");
        assert!(section(page, "Picture").contains("```text"), "{finding}: a picture");
        assert!(section(page, "References").contains("<https://"), "{finding}: a reference");
    }
}

#[test]
fn every_component_has_its_sections_and_names_findings_that_exist() {
    for component in Component::ALL {
        let topic = Topic::Component(*component);
        let expected = ["By default", "Rules", "Settings", "Findings", "References"];
        assert_eq!(sections(topic.page()), expected, "{}", topic.name());
        let findings = section(topic.page(), "Findings");
        let mut named = 0;
        for line in findings.lines().filter_map(|line| line.strip_prefix("- `")) {
            let id = line.split('`').next().unwrap();
            assert!(FindingId::from_id(id).is_some(), "{}: {id}", topic.name());
            named += 1;
        }
        assert!(named > 0, "{}: no findings", topic.name());
    }
}

#[test]
fn lines_are_short_and_clean() {
    for topic in Topic::all() {
        let name = topic.name();
        assert!(topic.page().ends_with('\n') && !topic.page().ends_with("\n\n"), "{name}");
        for (number, line) in topic.page().lines().enumerate() {
            let at = format!("{name}:{}", number + 1);
            let address = line.trim().starts_with("<https://") && !line.trim().contains(' ');
            assert!(line.chars().count() <= 100 || address, "{at}: longer than 100 columns");
            assert_eq!(line.trim_end(), line, "{at}: blanks at the end");
            assert!(!line.contains('\t'), "{at}: a tabulator");
            assert!(!line.contains("<http://") && !line.contains("](http://"), "{at}: not https");
        }
    }
}

#[test]
fn code_blocks_are_closed_and_say_what_they_are() {
    for topic in Topic::all() {
        let mut open = false;
        for (number, line) in topic.page().lines().enumerate() {
            let Some(kind) = line.trim_start().strip_prefix("```") else { continue };
            open = !open;
            let known = ["text", "sh", "yaml", "json", "nft", "nginx", "haproxy"].contains(&kind);
            assert_eq!(known, open, "{}:{}: ```{kind}", topic.name(), number + 1);
        }
        assert!(!open, "{}: a block without an end", topic.name());
    }
}

/// A line to be typed belongs in a block, where it can be copied whole.
#[test]
fn commands_stand_in_code_blocks() {
    let commands = ["kubectl ", "iptables ", "ip6tables ", "nft ", "conntrack ", "systemctl "];
    for topic in Topic::all() {
        for (number, line) in prose(topic.page()) {
            for command in commands {
                let typed = format!("`{command}");
                let at = format!("{}:{}", topic.name(), number + 1);
                assert!(!line.contains(&typed), "{at}: {command}outside of a block");
            }
        }
    }
}

/// `id` in backticks that looks like a finding's name is one.
#[test]
fn pages_that_are_named_exist() {
    for topic in Topic::all() {
        for (number, line) in prose(topic.page()) {
            let at = format!("{}:{}", topic.name(), number + 1);
            for name in line.split("unmasq explain ").skip(1) {
                let name: String =
                    name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
                assert!(Topic::from_name(&name).is_some(), "{at}: {name}");
            }
        }
    }
}

#[test]
fn there_is_no_page_without_a_name() {
    for (folder, names) in [
        ("findings", FindingId::ALL.iter().map(|finding| finding.id()).collect::<BTreeSet<_>>()),
        ("components", Component::ALL.iter().map(|component| component.name()).collect()),
    ] {
        for entry in fs::read_dir(docs().join(folder)).unwrap() {
            let file = entry.unwrap().file_name().into_string().unwrap();
            let name = file.strip_suffix(".md").unwrap();
            assert!(names.contains(name) || file == "README.md", "{folder}/{file}");
        }
    }
}

#[test]
fn the_index_is_up_to_date() {
    let written = fs::read_to_string(docs().join("findings/README.md")).unwrap();
    assert_eq!(written, index(), "run: unmasq explain --markdown > docs/findings/README.md");
}

#[test]
fn names_and_aliases_lead_to_one_topic_each() {
    let mut seen = BTreeSet::new();
    for topic in Topic::all() {
        for name in std::iter::once(topic.name()).chain(topic.aliases().iter().copied()) {
            assert!(seen.insert(name), "{name} twice");
            assert_eq!(Topic::from_name(name), Some(topic));
        }
    }
    assert_eq!(Topic::from_name("containerd"), Some(Topic::Component(Component::Docker)));
    assert_eq!(Topic::from_name("Docker"), None);
}
