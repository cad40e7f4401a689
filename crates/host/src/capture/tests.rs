use std::fs;

use super::*;

fn files() -> BTreeMap<String, Vec<u8>> {
    let long = format!("nodes/n1/files/{}/x", "deep/".repeat(40));
    [
        ("capture.json", "{}"),
        ("nodes/n1/iptables-save", "*nat\nCOMMIT\n"),
        ("nodes/n1/pods/a_b/sysctl", ""),
        (long.replace("//", "/").as_str(), "\u{ff}bytes"),
    ]
    .map(|(path, content)| (path.to_owned(), content.as_bytes().to_vec()))
    .into()
}

#[test]
fn what_is_written_is_read_again() {
    let place = tempfile::tempdir().unwrap();
    for name in ["a.tar", "a.tar.gz", "a.tgz", "a.tar.zst", "a.tzst", "A.TAR.GZ", "folder", "x/y"] {
        let path = place.path().join(name);
        write(&path, &files()).unwrap();
        assert_eq!(read(&path).unwrap(), files(), "{name}");
        if path.is_file() {
            let first = fs::read(&path).unwrap();
            write(&path, &files()).unwrap();
            assert!(first == fs::read(&path).unwrap(), "{name} differs the second time");
            // The content decides, not the name.
            let renamed = place.path().join("renamed");
            fs::rename(&path, &renamed).unwrap();
            assert_eq!(read(&renamed).unwrap(), files(), "{name}");
        }
    }
}

#[test]
fn names_decide_what_is_written() {
    let place = tempfile::tempdir().unwrap();
    for (name, magic) in [("a.tgz", [0x1f, 0x8b]), ("a.tzst", [0x28, 0xb5]), ("a.tar", *b"ca")] {
        let path = place.path().join(name);
        write(&path, &files()).unwrap();
        assert_eq!(fs::read(&path).unwrap()[..2], magic, "{name}");
    }
}

#[test]
fn one_common_folder_is_left_out() {
    let strip = |paths: &[&str]| -> Vec<String> {
        let files = paths.iter().map(|path| ((*path).to_owned(), ())).collect();
        without_common_folder(files).into_keys().collect()
    };
    let cases: [(&[&str], &[&str]); 5] = [
        (&["x/capture.json", "x/nodes/a/sysctl"], &["capture.json", "nodes/a/sysctl"]),
        (&["nodes/a/sysctl", "nodes/b/sysctl"], &["nodes/a/sysctl", "nodes/b/sysctl"]),
        (&["capture.json", "nodes/a/sysctl"], &["capture.json", "nodes/a/sysctl"]),
        (&["x/y/capture.json", "x/y/z"], &["y/capture.json", "y/z"]),
        (&[], &[]),
    ];
    for (given, expected) in cases {
        assert_eq!(strip(given), expected);
    }
}

/// A tar archive whose one entry has that path and kind, which the tar crate refuses to make.
fn archive(path: &str, kind: tar::EntryType) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_entry_type(kind);
    header.set_size(3);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(b"abc");
    bytes.resize(512 * 4, 0);
    bytes
}

#[test]
fn archives_can_not_lead_out_or_elsewhere() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("a.tar");
    for name in ["../x", "a/../../x", "/etc/x"] {
        fs::write(&path, archive(name, tar::EntryType::Regular)).unwrap();
        assert!(matches!(read(&path), Err(Error::Traversal { .. })), "{name}");
    }
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Fifo] {
        fs::write(&path, archive("nodes/a/sysctl", kind)).unwrap();
        assert_eq!(read(&path).unwrap(), BTreeMap::new());
    }
    fs::write(&path, archive("./nodes/a/sysctl", tar::EntryType::Regular)).unwrap();
    assert_eq!(read(&path).unwrap(), BTreeMap::from([("nodes/a/sysctl".into(), b"abc".to_vec())]));
    let outside = BTreeMap::from([("../x".to_owned(), Vec::new())]);
    assert!(matches!(write(&path, &outside), Err(Error::Traversal { .. })));
}

#[test]
fn sizes_are_bounded() {
    let place = tempfile::tempdir().unwrap();
    let files = BTreeMap::from([("a".into(), vec![0; 6]), ("b".into(), vec![0; 5])]);
    for name in ["folder", "a.tar", "a.tar.zst", "a.tar.gz"] {
        let path = place.path().join(name);
        write(&path, &files).unwrap();
        let read = |file, total| read_within(&path, Limits { file, total });
        assert_eq!(read(6, 11).unwrap(), files, "{name}");
        assert!(matches!(read(5, 11), Err(Error::FileTooLarge { .. })), "{name}");
        assert!(matches!(read(6, 10), Err(Error::TooLarge { .. })), "{name}");
    }
}

#[test]
fn refusals_say_why() {
    let place = tempfile::tempdir().unwrap();
    let full = place.path().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "x").unwrap();
    let text = place.path().join("notes.txt");
    fs::write(&text, "hello").unwrap();
    let cut = place.path().join("cut.tar.gz");
    write(&cut, &files()).unwrap();
    fs::write(&cut, &fs::read(&cut).unwrap()[..60]).unwrap();
    let show = |path: &Path| path.display().to_string();
    let cases = [
        (write(&full, &files()), format!("{} is not empty", show(&full))),
        (write(&place.path().join("a.zip"), &files()), "archives are written as .tar".to_owned()),
        (read(&text).map(drop), format!("{} is no capture", show(&text))),
        (read(&place.path().join("none")).map(drop), "No such file".to_owned()),
        (read(&cut).map(drop), format!("read {}", show(&cut))),
    ];
    for (result, expected) in cases {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(&expected), "{message}");
    }
    assert_eq!(fs::read(full.join("mine")).unwrap(), b"x");
}

/// Names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn bad_places_are_told_before_anything_is_written() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    fs::write(at("file"), "x").unwrap();
    fs::create_dir(at("full")).unwrap();
    fs::write(at("full/mine"), "x").unwrap();
    fs::create_dir(at("empty")).unwrap();
    fs::create_dir(at("folder.tar")).unwrap();
    let before = names(place.path());
    for good in ["new", "new/below", "empty", "a.tar", "empty/a.tar.gz", "file.tar"] {
        check(&at(good)).unwrap_or_else(|error| panic!("{good}: {error}"));
    }
    let bad = [
        ("full", "is not empty"),
        ("file", "Not a directory"),
        ("file/below", "Not a directory"),
        ("file/a.tar", "Not a directory"),
        ("none/a.tar.gz", "No such file"),
        ("folder.tar", "is a directory"),
        ("a.zip", "archives are written as"),
    ];
    for (name, expected) in bad {
        let told = check(&at(name)).unwrap_err().to_string();
        assert!(told.contains(expected), "{name}: {told}");
        assert!(write(&at(name), &files()).is_err(), "{name}");
    }
    assert!(check(Path::new("/proc/x")).is_err() && check(Path::new("/proc/x.tar")).is_err());
    assert_eq!(names(place.path()), before);
    assert!(names(&at("empty")).is_empty() && names(&at("folder.tar")).is_empty());
}

#[test]
fn a_folder_is_there_as_a_whole_or_not_at_all() {
    let place = tempfile::tempdir().unwrap();
    let (new, empty) = (place.path().join("new"), place.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    // A file where another needs a folder: it fails in the middle.
    let mut impossible = files();
    impossible.insert("capture.json/below".to_owned(), Vec::new());
    for root in [&new, &empty] {
        assert!(write(root, &impossible).is_err());
    }
    assert_eq!(names(place.path()), ["empty"]);
    assert!(names(&empty).is_empty());
    for root in [&new, &empty] {
        write(root, &files()).unwrap();
        assert_eq!(names(root), ["capture.json", "nodes"]);
        assert_eq!(read(root).unwrap(), files());
    }
    assert_eq!(names(place.path()), ["empty", "new"]);
}

/// Three nodes, of which one is in the manifest only, a pod, and what belongs to no node.
fn cluster() -> BTreeMap<String, Vec<u8>> {
    let manifest = r#"{"schema": "unmasq.capture/v1", "nodes": {"n1": {}, "n3": {"files": {
        "iptables-save": {"status": "failed", "detail": "no such program"}}}}}"#;
    [
        ("capture.json", manifest),
        ("kubernetes/services.json", r#"{"items": []}"#),
        ("nodes/n1/iptables-save", "*nat\n:A - [0:0]\n-A A -j RETURN\nCOMMIT\n"),
        ("nodes/n1/processes", "kube-proxy\n"),
        ("nodes/n1/pods/a_b/sysctl", "net.ipv4.ip_forward = 0\n"),
        ("nodes/n2/iptables-save", "*filter\n:B - [0:0]\n-A B -j DROP\nCOMMIT\n"),
        ("notes/n1", "hand-made"),
    ]
    .map(|(path, content)| (path.to_owned(), content.as_bytes().to_vec()))
    .into()
}

#[test]
fn node_by_node_is_the_same_as_all_at_once() {
    let place = tempfile::tempdir().unwrap();
    for name in ["a.tar", "a.tar.zst", "folder"] {
        let path = place.path().join(name);
        write(&path, &cluster()).unwrap();
        let source = Source::open(&path).unwrap();
        let files = cluster();
        let whole = unmasq_parse::capture::parse(&files).unwrap();
        let names: Vec<&str> = source.node_names().collect();
        assert_eq!(names, ["n1", "n2", "n3"], "{name}");
        assert_eq!(source.manifest(), whole.manifest());
        let mut seen = BTreeMap::new();
        for node in names {
            let files = source.take_node(node).unwrap().unwrap();
            let alone = unmasq_parse::capture::parse(&files).unwrap();
            assert_eq!(alone.node(node), whole.node(node), "{name} {node}");
            assert_eq!(alone.node_file(node, "processes"), whole.node_file(node, "processes"));
            assert!(source.take_node(node).unwrap().is_none(), "{name} {node} is given twice");
            seen.extend(files);
        }
        assert!(source.take_node("n4").unwrap().is_none());
        let others = source.take_others().unwrap();
        let objects: Vec<_> = unmasq_parse::capture::kubernetes(&others).collect();
        assert_eq!(objects, whole.kubernetes().collect::<Vec<_>>());
        seen.extend(others);
        assert_eq!(seen, files, "{name}");
    }
}

#[test]
fn a_lone_node_has_all_files_but_those_of_the_cluster() {
    let place = tempfile::tempdir().unwrap();
    let names = ["iptables-save", "pods/a_b/sysctl", "kubernetes/pods.json"];
    for name in names {
        let path = place.path().join("bundle").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "").unwrap();
    }
    // The folder that has everything in it is left out here too.
    let source = Source::open(place.path()).unwrap();
    let node = unmasq_parse::capture::LONE_NODE;
    assert_eq!(source.node_names().collect::<Vec<_>>(), [node]);
    let files = source.take_node(node).unwrap().unwrap();
    assert_eq!(files.into_keys().collect::<Vec<_>>(), names[..2]);
    let others = source.take_others().unwrap();
    assert_eq!(others.into_keys().collect::<Vec<_>>(), names[2..]);
}

#[test]
fn a_source_is_bounded_and_must_be_a_capture() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("folder");
    write(&folder, &cluster()).unwrap();
    let total = |limit| Limits { file: 1 << 10, total: limit };
    let size = |beginning: &str| -> u64 {
        let files = cluster().into_iter().filter(|(path, _)| path.starts_with(beginning));
        files.map(|(_, content)| content.len() as u64).sum()
    };
    let manifest = size("capture.json");
    assert!(matches!(Source::within(&folder, total(manifest - 1)), Err(Error::TooLarge { .. })));
    let source = Source::within(&folder, total(manifest + size("nodes/n1/"))).unwrap();
    let taken = ["n1", "n2"].map(|name| source.take_node(name).map(drop));
    let [Ok(()), Err(Error::TooLarge { .. })] = taken else { panic!("{taken:?}") };
    let small = Limits { file: 20, total: 1 << 20 };
    assert!(matches!(Source::within(&folder, small), Err(Error::FileTooLarge { .. })));

    fs::remove_dir_all(folder.join("nodes")).unwrap();
    fs::remove_file(folder.join("capture.json")).unwrap();
    // Objects alone are a capture without nodes.
    let objects = Source::open(&folder).unwrap();
    assert_eq!(objects.node_names().count(), 0);
    assert!(objects.take_others().unwrap().keys().any(|path| path.starts_with("kubernetes/")));

    fs::remove_dir_all(folder.join("kubernetes")).unwrap();
    let error = Source::open(&folder).unwrap_err();
    assert!(matches!(error, Error::Capture { .. }), "{error}");
    assert!(error.to_string().contains("no capture.json"), "{error}");
}
