use super::*;
use crate::tar::{Entry, Kind as TarKind, Limits, Region, Xattr};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// An entry in a line: the type's letter as `ls` has it (`h` for a hard link), the path,
/// and behind `>` a target.
fn entry(line: &str) -> Entry {
    let (letter, rest) = line.split_at(1);
    let (path, target) = rest.trim().split_once('>').unwrap_or((rest.trim(), ""));
    let target = target.as_bytes().to_vec();
    let device = Device { major: 1, minor: 3 };
    let kind = match letter {
        "d" => TarKind::Directory,
        "l" => TarKind::Symlink { target },
        "h" => TarKind::HardLink { target },
        "c" => TarKind::CharDevice(device),
        "b" => TarKind::BlockDevice(device),
        "p" => TarKind::Fifo,
        _ => TarKind::File(Content {
            size: path.len() as u64,
            data_offset: 512,
            stored_len: path.len() as u64,
            regions: None,
        }),
    };
    Entry {
        header_offset: 0,
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o640,
        uid: 7,
        gid: 8,
        mtime: -1,
        mtime_nanoseconds: 5,
        xattrs: Vec::new(),
    }
}

fn build(lines: &[&str]) -> Result<Tree, Error> {
    let mut builder = Builder::new(&Limits::default());
    for line in lines {
        builder.insert(&entry(line))?;
    }
    let tree = builder.finish();
    let [names, nodes, heap] = tree.tables().map(<[u8]>::to_vec);
    assert_eq!(
        Tree::from_tables(names, nodes, heap).as_ref(),
        Ok(&tree),
        "what is built keeps the invariants"
    );
    Ok(tree)
}

/// Every path with the letter of its type, `-` for implied directories, the target, and
/// for what has several names the number of them.
fn show(tree: &Tree) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![(String::new(), NodeId::ROOT)];
    while let Some((path, directory)) = todo.pop() {
        for (name, id) in tree.list(directory) {
            assert_eq!(tree.find(directory, name), Some(id));
            let path = format!("{path}{}", String::from_utf8_lossy(name));
            let node = tree.node(id);
            let text = |bytes: &[u8]| format!(">{}", String::from_utf8_lossy(bytes));
            let (letter, target) = match node.kind {
                Kind::Directory if node.named => ("d", String::new()),
                Kind::Directory => ("-", String::new()),
                Kind::File { size } => ("f", format!(" {size}")),
                Kind::Symlink { target } => ("l", text(target)),
                Kind::CharDevice(_) => ("c", String::new()),
                Kind::BlockDevice(_) => ("b", String::new()),
                Kind::Fifo => ("p", String::new()),
                Kind::Outer { target } => ("h", text(target)),
            };
            let links = match node.kind {
                Kind::Directory => String::new(),
                _ if node.links == 1 => String::new(),
                _ => format!(" x{}", node.links),
            };
            if node.kind == Kind::Directory {
                todo.push((format!("{path}/"), id));
            }
            lines.push(format!("{letter} {path}{target}{links}"));
        }
    }
    lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
    lines
}

#[test]
fn entries_become_a_tree() -> TestResult {
    let rows: &[(&str, &[&str], &[&str])] = &[
        ("nothing", &[], &[]),
        ("the root", &["d "], &[]),
        ("implied", &["f a/b/c"], &["- a", "- a/b", "f a/b/c 5"]),
        ("named later", &["f a/b", "d a"], &["d a", "f a/b 3"]),
        (
            "kinds",
            &["c a", "b b", "p c", "l d>x"],
            &["c a", "b b", "p c", "l d>x"],
        ),
        ("T25' file, file", &["f a", "p a"], &["p a"]),
        ("T25' file, dir", &["f a", "d a"], &["d a"]),
        ("T25' dir, file", &["f a/b", "f a"], &["f a 1"]),
        ("T25' dir, symlink", &["d a", "f a/b", "l a>x"], &["l a>x"]),
        (
            "a subtree that is gone stays gone",
            &["f a/b", "f a", "d a"],
            &["d a"],
        ),
        (
            "T36' a file becomes a parent",
            &["f a", "f a/b"],
            &["- a", "f a/b 3"],
        ),
        (
            "a file that is the parent of whiteouts stays one",
            &["f a", "f a/.wh.b", "f a/c/.wh.d", "f a/.wh..wh..opq"],
            &["f a 1"],
        ),
        (
            "but not of what is no whiteout",
            &["f a", "f a/.wh.", "f b", "d b/.wh.c"],
            &["- a", "f a/.wh. 6", "- b", "d b/.wh.c"],
        ),
        (
            "a whiteout makes its directory where there is none",
            &["f b", "l c>d/../e", "f d", "f c/.wh.a", "f a/.wh.b"],
            &[
                "- a",
                "f a/.wh.b 7",
                "f b 1",
                "l c>d/../e",
                "f d 1",
                "- e",
                "f e/.wh.a 7",
            ],
        ),
        (
            "T21' through a symlink",
            &["d d", "l a>d", "f a/b"],
            &["l a>d", "d d", "f d/b 3"],
        ),
        (
            "T21' out of the root",
            &["l a>/../../t", "f a/b"],
            &["l a>/../../t", "- t", "f t/b 3"],
        ),
        (
            "relative, with a way back",
            &["l x/y>../z/.", "f x/y/b"],
            &["- x", "l x/y>../z/.", "- z", "f z/b 5"],
        ),
        (
            "two symlinks",
            &["l a>b/c", "l b>d", "f a/f"],
            &["l a>b/c", "l b>d", "- d", "- d/c", "f d/c/f 3"],
        ),
        // What a `..` of a symlink takes back is not made, as in containerd and umoci.
        (
            "regression: a way back from nothing",
            &["l s>a/../b", "f s/c"],
            &["- b", "f b/c 3", "l s>a/../b"],
        ),
        (
            "regression: a way back from a file",
            &["f a", "l s>a/../b", "f s/c"],
            &["f a 1", "- b", "f b/c 3", "l s>a/../b"],
        ),
        (
            "a symlink comes where the path before went through nothing and back",
            &["l d/s>q/..", "f d/s/a", "l d/s/q>/z", "f d/s/f"],
            &["- d", "f d/a 5", "l d/q>/z", "l d/s>q/..", "f f 5"],
        ),
        (
            "one more name of a symlink comes there",
            &["l z>/y", "l d/s>q/..", "f d/s/a", "h d/q>z", "f d/s/f"],
            &[
                "- d",
                "f d/a 5",
                "l d/q>/y x2",
                "l d/s>q/..",
                "f f 5",
                "l z>/y x2",
            ],
        ),
        ("hard link", &["f a", "h b>a"], &["f a 1 x2", "f b 1 x2"]),
        (
            "hard link to a symlink",
            &["l a>x", "h b>a"],
            &["l a>x x2", "l b>x x2"],
        ),
        (
            "hard link through a symlink",
            &["f d/a", "l s>d", "h b>s/a"],
            &["f b 3 x2", "- d", "f d/a 3 x2", "l s>d"],
        ),
        (
            "links keep what is replaced",
            &["f a", "h b>a", "p a"],
            &["p a", "f b 1"],
        ),
        (
            "T23' to a later entry",
            &["h a>b", "f b"],
            &["f a 1 x2", "f b 1 x2"],
        ),
        (
            "T23' chain of later entries",
            &["h a>b", "h b>c", "h d>a", "f c"],
            &["f a 1 x4", "f b 1 x4", "f c 1 x4", "f d 1 x4"],
        ),
        (
            "to a lower layer",
            &["h a>x/y", "h b>a"],
            &["h a>x/y x2", "h b>x/y x2"],
        ),
        (
            "in a circle",
            &["h a>b", "h b>a"],
            &["h a>b x2", "h b>b x2"],
        ),
        (
            "whiteouts are names",
            &["f .wh.a", "f d/.wh..wh..opq"],
            &["f .wh.a 5", "- d", "f d/.wh..wh..opq 14"],
        ),
        (
            "sorted by bytes",
            &["f b", "f a.b", "f a/c", "f a"],
            &["f a 1", "f a.b 3", "f b 1"],
        ),
    ];
    for (name, lines, expected) in rows {
        let shown = build(lines).map(|tree| show(&tree));
        let expected: Vec<String> = expected.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(shown.as_ref(), Ok(&expected), "{name}");
    }
    Ok(())
}

#[test]
fn what_makes_no_tree() {
    let long = format!("l a>{}", "x".repeat(256));
    let rows: &[(&str, &[&str], &str)] = &[
        (
            "T23' hard link to a directory",
            &["d a", "h b>a"],
            "TAR_LINK",
        ),
        (
            "T22' through a loop",
            &["l a>b", "l b>a", "f a/c"],
            "TAR_SYMLINK_LOOP",
        ),
        (
            "T22' through itself",
            &["l a>a", "f a/c"],
            "TAR_SYMLINK_LOOP",
        ),
        (
            "a long name in a symlink",
            &[&long, "f a/c"],
            "TAR_SYMLINK_LOOP",
        ),
    ];
    for (name, lines, expected) in rows {
        assert_eq!(
            build(lines).err().map(|error| error.code()),
            Some(*expected),
            "{name}"
        );
    }
}

#[test]
fn attributes_regions_and_xattrs_survive() -> TestResult {
    let mut sparse = entry("f sparse");
    let regions = vec![
        Region {
            file_offset: 0,
            len: 512,
        },
        Region {
            file_offset: 1 << 40,
            len: 7,
        },
    ];
    sparse.kind = TarKind::File(Content {
        size: 1 << 41,
        data_offset: 4096,
        stored_len: 519,
        regions: Some(regions),
    });
    sparse.xattrs = vec![Xattr {
        name: b"user.\xff".to_vec(),
        value: b"\0".to_vec(),
    }];
    let mut builder = Builder::new(&Limits::default());
    builder.insert(&sparse)?;
    builder.insert(&entry("f whole"))?;
    let tree = builder.finish();
    let find = |name: &[u8]| tree.find(NodeId::ROOT, name).ok_or("not there");
    let (id, whole) = (find(b"sparse")?, find(b"whole")?);
    let TarKind::File(content) = sparse.kind else {
        return Err("no file".into());
    };
    assert_eq!(tree.content(id), Some(content));
    let xattrs: Vec<_> = tree.xattrs(id).collect();
    assert_eq!(xattrs, [(&b"user.\xff"[..], &b"\0"[..])]);
    let node = tree.node(id);
    let attributes = (
        node.mode,
        node.uid,
        node.gid,
        node.mtime,
        node.mtime_nanoseconds,
    );
    assert_eq!(attributes, (0o640, 7, 8, -1, 5));
    assert_eq!(
        tree.content(whole).map(|content| content.stored_len),
        Some(5)
    );
    assert_eq!(tree.xattrs(whole).count(), 0);
    assert_eq!(tree.content(NodeId::ROOT), None);
    Ok(())
}

#[test]
fn limits_count_implied_directories_and_detours() {
    let limits = Limits {
        entries: 3,
        ..Limits::default()
    };
    let mut builder = Builder::new(&limits);
    assert_eq!(builder.insert(&entry("f a/b/c")), Ok(()));
    let error = builder.insert(&entry("f d")).err();
    assert_eq!(error.map(|error| error.code()), Some("LIMIT_TAR_TREE"));

    let mut builder = Builder::new(&Limits::default());
    let target = format!("l s>{}d", "./".repeat(2000));
    builder.insert(&entry(&target)).expect("a symlink");
    let mut links = (0..100_000).map(|at| builder.insert(&entry(&format!("f s/{at}/{at}"))));
    let error = links.find_map(Result::err);
    assert_eq!(error.map(|error| error.code()), Some("LIMIT_TAR_TREE"));
}

/// Symlinks that lead one through the other: `s0 -> s1/x/x/…`, the last one to `z`.
fn chain(links: usize, deeper: usize) -> Vec<String> {
    let down = "/x".repeat(deeper);
    let link = |at: usize| match at + 1 {
        next if next == links => format!("l s{at}>z{down}"),
        next => format!("l s{at}>s{next}{down}"),
    };
    (0..links).map(link).collect()
}

#[test]
fn t18_symlinks_lead_no_deeper_than_paths() -> TestResult {
    // The name, how many symlinks and directories behind each, and what is put there.
    let rows = [
        ("as deep as allowed", 2, 2047, "f s0/f", None),
        ("one too deep", 2, 2047, "f s0/d/f", Some(4096)),
        ("two hundred thousand", 100, 2047, "f s0/f", Some(4096)),
        (
            "the target of a hard link",
            100,
            2047,
            "h f>s0/f",
            Some(4096),
        ),
        ("and back", 2, 2047, "f s0/d/../f", Some(4096)),
    ];
    for (name, links, deeper, line, expected) in rows {
        let mut builder = Builder::new(&Limits::default());
        for link in chain(links, deeper) {
            builder.insert(&entry(&link))?;
        }
        let len = builder.nodes.len();
        let max = match builder.insert(&entry(line)) {
            Err(Error::Limit { what, max, .. }) => {
                assert_eq!(what, "directories on a path", "{name}");
                Some(max)
            }
            other => other.map(|()| None)?,
        };
        assert_eq!(max, expected, "{name}");
        assert_eq!(builder.nodes.len() > len, expected.is_none(), "{name}");
    }
    Ok(())
}

#[test]
fn a_chain_of_many_links_takes_no_time() -> TestResult {
    let mut builder = Builder::new(&Limits::default());
    for at in 0..100_000 {
        builder.insert(&entry(&format!("h {at}>{}", at + 1)))?;
    }
    builder.insert(&entry("f 100000"))?;
    let tree = builder.finish();
    assert_eq!(tree.len(), 2);
    assert_eq!(tree.node(NodeId(1)).links, 100_001);
    Ok(())
}

#[test]
fn tables_that_break_an_invariant_are_refused() -> TestResult {
    let tree = build(&["f a/b", "h c>a/b", "l d>e", "d f"])?;
    let good = tree.tables().map(<[u8]>::to_vec);
    // Any byte may change a number that nobody can check; but none may make a panic or a
    // walk without end.
    for table in 0..2 {
        for at in 0..good[table].len() {
            for value in [0, 1, 4, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[table][at] = value;
                let [names, nodes, heap] = bad;
                if let Ok(tree) = Tree::from_tables(names, nodes, heap) {
                    show(&tree);
                }
            }
        }
    }
    let [names, nodes, heap] = good;
    let rows = [
        (
            "cut names",
            names[1..].to_vec(),
            nodes.clone(),
            heap.clone(),
        ),
        ("no nodes", names.clone(), vec![], heap.clone()),
        ("cut heap", names.clone(), nodes.clone(), heap[..3].to_vec()),
        ("one name less", names[NAME_LEN..].to_vec(), nodes, heap),
    ];
    for (name, names, nodes, heap) in rows {
        assert!(Tree::from_tables(names, nodes, heap).is_err(), "{name}");
    }
    Ok(())
}

#[test]
fn directories_are_moved() -> TestResult {
    type Row = (
        &'static str,
        &'static [&'static str],
        (&'static str, &'static str),
        &'static [&'static str],
    );
    let rows: &[Row] = &[
        (
            "to nothing",
            &["f a/b"],
            ("a", "x/y"),
            &["- x", "- x/y", "f x/y/b 3"],
        ),
        (
            "into another",
            &["f a/b", "f x/c"],
            ("a", "x"),
            &["- x", "f x/b 3", "f x/c 3"],
        ),
        (
            "over what is there",
            &["p a/b", "f x/b"],
            ("a", "x"),
            &["- x", "p x/b"],
        ),
        (
            "trees are merged",
            &["f a/d/b", "d a/d", "f x/d/c"],
            ("a", "x"),
            &["- x", "d x/d", "f x/d/b 5", "f x/d/c 5"],
        ),
        (
            "below",
            &["f a/b/c"],
            ("a/b", "c"),
            &["- a", "- c", "f c/c 5"],
        ),
        (
            "links stay",
            &["f a/b", "h c>a/b", "h d>low"],
            ("a", "x"),
            &["f c 3 x2", "h d>low", "- x", "f x/b 3 x2"],
        ),
        ("not there", &["f a"], ("b", "c"), &["f a 1"]),
    ];
    for (name, lines, (from, to), expected) in rows {
        let moves = [(from.as_bytes().to_vec(), to.as_bytes().to_vec())];
        let tree = Builder::moved(&build(lines)?, &moves, &Limits::default())?;
        assert_eq!(show(&tree), *expected, "{name}");
        let [names, nodes, heap] = tree.tables().map(<[u8]>::to_vec);
        assert!(Tree::from_tables(names, nodes, heap).is_ok(), "{name}");
    }
    Ok(())
}
