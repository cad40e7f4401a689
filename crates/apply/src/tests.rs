//! A target that is nothing but texts, and fails on demand.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde_json::json;
use unmasq_audit::{Edit, Syntax};
use unmasq_fix::deed::{FileDeed, Program, RulesDeed};

use super::*;

mod schema;

/// One node with one chain of iptables, files, and one object.
#[derive(Default)]
struct Fake {
    rules: RefCell<Vec<String>>,
    files: RefCell<BTreeMap<String, String>>,
    object: RefCell<Value>,
    /// So many changes succeed.
    left: Cell<usize>,
}

impl Fake {
    fn new() -> Fake {
        let rules = ["-A POSTROUTING -j FIRST", "-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE"];
        Fake {
            rules: RefCell::new(rules.map(str::to_owned).to_vec()),
            files: RefCell::new(BTreeMap::from([("/etc/rules".to_owned(), "old".to_owned())])),
            object: RefCell::new(json!({"spec": {"natOutgoing": true, "cidr": "10.0.0.0/8"}})),
            left: Cell::new(usize::MAX),
        }
    }

    fn spend(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left > 0
    }

    fn state(&self) -> (Vec<String>, BTreeMap<String, String>, Value) {
        let rules = self.rules.borrow().clone();
        (rules, self.files.borrow().clone(), self.object.borrow().clone())
    }
}

impl Target for Fake {
    fn run(&self, node: &str, command: &[&str], input: &str) -> Result<String, CommandError> {
        if command[0].ends_with("-save") {
            let rules = self.rules.borrow();
            let lines: String = rules.iter().map(|rule| format!("{rule}\n")).collect();
            return Ok(format!("*nat\n:POSTROUTING ACCEPT [0:0]\n{lines}COMMIT\n"));
        }
        if !self.spend() {
            let (node, command) = (node.to_owned(), command.join(" "));
            return Err(CommandError { node, command, why: "no".to_owned() });
        }
        let mut rules = self.rules.borrow_mut();
        for line in input.lines() {
            if let Some(words) = line.strip_prefix("-D ") {
                let at = rules.iter().position(|rule| *rule == format!("-A {words}")).unwrap();
                rules.remove(at);
            } else if let Some(words) = line.strip_prefix("-I POSTROUTING ") {
                let (number, words) = words.split_once(' ').unwrap();
                let at: usize = number.parse().unwrap();
                rules.insert(at - 1, format!("-A POSTROUTING {words}"));
            }
        }
        Ok(String::new())
    }

    fn read(&self, _: &str, path: &str) -> io::Result<Option<String>> {
        Ok(self.files.borrow().get(path).cloned())
    }

    fn write(&self, _: &str, path: &str, text: Option<&str>) -> io::Result<()> {
        if !self.spend() {
            return Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "read-only"));
        }
        let mut files = self.files.borrow_mut();
        match text {
            Some(text) => drop(files.insert(path.to_owned(), text.to_owned())),
            None => drop(files.remove(path)),
        }
        Ok(())
    }

    fn object(&self, _: &ObjectDeed) -> Result<Option<Value>, CommandError> {
        Ok(Some(self.object.borrow().clone()))
    }

    fn patch(&self, deed: &ObjectDeed, patch: &Value) -> Result<(), CommandError> {
        if !self.spend() {
            let (node, command) = ("cluster".to_owned(), deed.name.clone());
            return Err(CommandError { node, command, why: "forbidden".to_owned() });
        }
        unmasq_fix::merge(&mut self.object.borrow_mut(), patch);
        Ok(())
    }
}

fn deeds() -> Vec<Deed> {
    let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect();
    vec![
        Deed::Object(ObjectDeed {
            resource: "ippool".into(),
            namespace: None,
            name: "default".into(),
            patch: json!({"spec": {"natOutgoing": false}}),
            back: json!({"spec": {"natOutgoing": true}}),
        }),
        Deed::Rules(RulesDeed {
            node: "n1".into(),
            program: Program::IptablesNft,
            table: "nat".into(),
            chain: "POSTROUTING".into(),
            before: texts(&[
                "-A POSTROUTING -j FIRST",
                "-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE",
            ]),
            after: texts(&[
                "-A POSTROUTING -j FIRST",
                "-A POSTROUTING -s 10.0.0.0/8 ! -d 10.0.0.0/8 -j MASQUERADE",
            ]),
        }),
        Deed::File(FileDeed {
            node: "n1".into(),
            path: "/etc/rules".into(),
            before: Some("old".into()),
            after: Some("new".into()),
            edit: None,
        }),
    ]
}

fn journal(folder: &tempfile::TempDir) -> Journal {
    Journal::create(&folder.path().join("j"), vec!["x".into()], deeds()).unwrap()
}

#[test]
fn all_is_done_and_taken_back() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
    let before = fake.state();
    let mut journal = journal(&folder);
    check(&fake, &deeds()).unwrap();
    let outcome = apply(&fake, &mut journal, &mut |_| {});
    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    assert_eq!(journal.ended(), Some(Event::Applied));
    let (rules, files, object) = fake.state();
    assert_eq!(rules[1], "-A POSTROUTING -s 10.0.0.0/8 ! -d 10.0.0.0/8 -j MASQUERADE");
    assert_eq!(
        (files["/etc/rules"].as_str(), &object["spec"]["natOutgoing"]),
        ("new", &json!(false))
    );

    let mut journal = Journal::open(journal.path()).unwrap();
    assert!(take_back(&fake, &mut journal, &mut |_| {}).wrong.is_empty());
    assert_eq!(fake.state(), before);
    assert_eq!(Journal::open(journal.path()).unwrap().ended(), Some(Event::Undone));
}

#[test]
fn what_fails_midway_is_taken_back() {
    for succeed in 0..3 {
        let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
        let before = fake.state();
        let mut journal = journal(&folder);
        fake.left.set(succeed);
        // Taking back is a change too: it is let through once the doing has failed.
        let mut told = |entry: &Entry| {
            if entry.event == Event::Failed {
                fake.left.set(usize::MAX);
            }
        };
        let outcome = apply(&fake, &mut journal, &mut told);
        // Of a deed that has begun nobody knows whether it is done, so it is looked at.
        assert!(matches!(outcome, Outcome::TakenBack { .. }), "{succeed}: {outcome:?}");
        assert_eq!(fake.state(), before, "{succeed}");
        assert_eq!(journal.ended(), Some(Event::Undone), "{succeed}");
    }
}

#[test]
fn a_journal_that_broke_off_is_gone_on_with_or_taken_back() {
    for done in 0..=3 {
        for goes_on in [true, false] {
            let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
            let before = fake.state();
            let journal = journal(&folder);
            // What a process did that was killed, with a line that it had half written.
            let path = journal.path().to_owned();
            let mut text = std::fs::read_to_string(&path).unwrap();
            for (index, deed) in deeds().iter().enumerate().take(done) {
                forth(&fake, deed).unwrap();
                text += &format!("{{\"deed\":{index},\"event\":\"begun\"}}\n");
            }
            std::fs::write(&path, text + "{\"deed\":0,\"ev").unwrap();
            let mut journal = Journal::open(&path).unwrap();
            assert_eq!(journal.ended(), None);
            if goes_on {
                apply(&fake, &mut journal, &mut |_| {});
                assert_eq!(fake.state().1["/etc/rules"], "new");
            } else {
                take_back(&fake, &mut journal, &mut |_| {});
                assert_eq!(fake.state(), before);
            }
            assert!(Journal::open(&path).unwrap().ended().is_some(), "{done} {goes_on}");
        }
    }
}

#[test]
fn what_changed_meanwhile_is_refused() {
    let fake = Fake::new();
    fake.rules.borrow_mut().insert(0, "-A POSTROUTING -j OTHERS".to_owned());
    let error = check(&fake, &deeds()).unwrap_err().to_string();
    assert_eq!(
        error,
        "node n1, iptables-nft table nat, chain POSTROUTING is no longer as it was when it was read: \
         make the plan again"
    );
    let fake = Fake::new();
    fake.files.borrow_mut().remove("/etc/rules");
    assert!(check(&fake, &deeds()).unwrap_err().to_string().starts_with("node n1, /etc/rules"));
}

#[test]
fn a_file_keeps_what_the_capture_left_out() {
    let deed = |path: &str, before: Option<&str>, after: &str, edit| {
        let (node, path) = ("n1".into(), path.into());
        let (before, after) = (before.map(str::to_owned), Some(after.to_owned()));
        Deed::File(FileDeed { node, path, before, after, edit: Some(edit) })
    };
    let off = || Edit::Value {
        syntax: Syntax::Json,
        pointer: "/ip-masq".into(),
        old: None,
        new: Some("false".into()),
    };
    let line = Edit::Line { old: "-A X -j MASQUERADE".into(), new: "-A X -j RETURN".into() };
    let deeds = vec![
        deed("/daemon.json", Some("{\"proxies\": \"***\"}"), "", off()),
        deed("/other.json", None, "{\n  \"ip-masq\": false\n}\n", off()),
        deed("/rules.v4", Some("#\n-A X -j MASQUERADE\n"), "#\n-A X -j RETURN\n", line),
    ];
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
    let put = |path: &str, text: &str| fake.files.borrow_mut().insert(path.into(), text.into());
    put("/daemon.json", "{\"proxies\": \"http://me:secret@x\"}\n");
    put("/rules.v4", "# Generated on Monday\n-A X -j MASQUERADE\n");
    let before = fake.state();
    check(&fake, &deeds).unwrap();
    let mut journal = Journal::create(&folder.path().join("j"), Vec::new(), deeds).unwrap();
    let outcome = apply(&fake, &mut journal, &mut |_| {});
    assert!(matches!(outcome, Outcome::Applied), "{outcome:?}");
    let files = fake.state().1;
    for (path, text) in [
        ("/daemon.json", "{\"ip-masq\": false, \"proxies\": \"http://me:secret@x\"}\n"),
        ("/other.json", "{\n  \"ip-masq\": false\n}\n"),
        ("/rules.v4", "# Generated on Monday\n-A X -j RETURN\n"),
    ] {
        assert_eq!(files[path], text);
    }
    assert!(!std::fs::read_to_string(journal.path()).unwrap().contains("secret"));
    // What others write meanwhile stays.
    put("/rules.v4", "# Generated on Tuesday\n-A X -j RETURN\n");
    assert!(take_back(&fake, &mut journal, &mut |_| {}).wrong.is_empty());
    put("/rules.v4", "# Generated on Monday\n-A X -j MASQUERADE\n").unwrap();
    assert_eq!(fake.state(), before);

    put("/rules.v4", "-A X -j ACCEPT\n");
    let error = check(&fake, &journal.head().deeds).unwrap_err().to_string();
    assert_eq!(
        error,
        "node n1, /rules.v4 is no longer as it was when it was read: \
         it has no line `-A X -j MASQUERADE`. Make the plan again"
    );
}

#[test]
fn taking_back_leaves_rules_of_others_alone() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
    let mut journal = journal(&folder);
    apply(&fake, &mut journal, &mut |_| {});
    fake.rules.borrow_mut().insert(1, "-A POSTROUTING -j OTHERS".to_owned());
    assert!(take_back(&fake, &mut journal, &mut |_| {}).wrong.is_empty());
    let expected = [
        "-A POSTROUTING -j FIRST",
        "-A POSTROUTING -j OTHERS",
        "-A POSTROUTING -s 10.0.0.0/8 -j MASQUERADE",
    ];
    assert_eq!(*fake.rules.borrow(), expected);
}

/// Only the first of two deeds in one place finds what was captured.
#[test]
fn two_deeds_in_one_place() {
    let file = |before: &str, after: &str| {
        let (node, path) = ("n1".into(), "/etc/rules".into());
        let (before, after) = (Some(before.to_owned()), Some(after.to_owned()));
        Deed::File(FileDeed { node, path, before, after, edit: None })
    };
    let both = vec![file("old", "new"), file("new", "newer")];
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
    check(&fake, &both).unwrap();
    let path = folder.path().join("j");
    let mut journal = Journal::create(&path, Vec::new(), both.clone()).unwrap();
    assert!(matches!(apply(&fake, &mut journal, &mut |_| {}), Outcome::Applied));
    assert_eq!(fake.files.borrow()["/etc/rules"], "newer");
    let mut again = Journal::open(&path).unwrap();
    assert!(take_back(&fake, &mut journal, &mut |_| {}).wrong.is_empty());
    assert_eq!(fake.files.borrow()["/etc/rules"], "old");
    // By a journal in which that is not noted.
    assert!(take_back(&fake, &mut again, &mut |_| {}).wrong.is_empty());
    assert_eq!(fake.files.borrow()["/etc/rules"], "old");
    assert!(check(&fake, &[file("x", "new"), file("new", "newer")]).is_err());
}

/// A deed that has not begun is somebody else's, whatever is there.
#[test]
fn what_has_not_begun_is_not_taken_back() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
    let mut journal = journal(&folder);
    fake.files.borrow_mut().insert("/etc/rules".to_owned(), "new".to_owned());
    fake.rules.borrow_mut()[1] =
        "-A POSTROUTING -s 10.0.0.0/8 ! -d 10.0.0.0/8 -j MASQUERADE".into();
    let before = fake.state();
    assert_eq!(take_back(&fake, &mut journal, &mut |_| {}).deeds, 0);
    assert_eq!(fake.state(), before);
    let outcome = apply(&fake, &mut Journal::open(journal.path()).unwrap(), &mut |_| {});
    assert!(
        matches!(&outcome, Outcome::TakenBack { why: DeedError::Done { .. }, .. }),
        "{outcome:?}"
    );
    assert_eq!(fake.state(), before);
}

#[test]
fn a_rule_that_stands_twice_is_refused() {
    let (folder, fake) = (tempfile::tempdir().unwrap(), Fake::new());
    let twice = fake.rules.borrow()[1].clone();
    fake.rules.borrow_mut().push(twice);
    let Some(Deed::Rules(deed)) = deeds().into_iter().nth(1) else { panic!() };
    let mut deed = RulesDeed { before: fake.rules.borrow().clone(), ..deed };
    deed.after.push(deed.before[2].clone());
    let path = folder.path().join("j");
    let mut journal = Journal::create(&path, Vec::new(), vec![Deed::Rules(deed)]).unwrap();
    let before = fake.state();
    let Outcome::TakenBack { why, .. } = apply(&fake, &mut journal, &mut |_| {}) else { panic!() };
    assert!(why.to_string().contains("MASQUERADE` 2 times"), "{why}");
    assert_eq!(fake.state(), before);
}

#[test]
fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("rules.v4"), folder.path().join("link"));
    std::fs::write(&path, "old").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let attribute = ("user.unmasq", b"kept".as_slice());
    rustix::fs::setxattr(&path, attribute.0, attribute.1, rustix::fs::XattrFlags::empty()).unwrap();
    local::replace(&link, "new").unwrap();
    let mut value = [0; 9];
    let read = rustix::fs::getxattr(&path, attribute.0, &mut value[..]).unwrap();
    assert_eq!(&value[..read], attribute.1);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// What was written through a link is taken away through it.
#[test]
fn a_link_stays_when_its_file_goes() {
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("rules.v4"), folder.path().join("link"));
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let error = local::replace(&link, "new").unwrap_err().to_string();
    assert!(error.contains("a link to what isn't there"), "{error}");
    assert!(link.is_symlink() && !path.exists());
    std::fs::write(&path, "old").unwrap();
    local::remove(&link).unwrap();
    assert!(link.is_symlink() && !path.exists());
}

#[test]
fn a_journal_is_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/j");
    Journal::create(&path, Vec::new(), deeds()).unwrap();
    for (path, mode) in [("a", 0o700), ("a/b", 0o700), ("a/b/j", 0o600)] {
        let metadata = std::fs::metadata(folder.path().join(path)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{path}");
    }
}
