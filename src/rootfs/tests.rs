use super::*;
use crate::layer::tree::{Builder, Kind};
use crate::tar::{self, Device, Entry, Kind as TarKind};

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// An entry in a line: the type's letter as `ls` has it (`h` for a hard link), the path,
/// and behind `>` a target.
fn entry(line: &str, mode: u16) -> Entry {
    let (letter, rest) = line.split_at(1);
    let (path, target) = rest.trim().split_once('>').unwrap_or((rest.trim(), ""));
    let target = target.as_bytes().to_vec();
    let kind = match letter {
        "d" => TarKind::Directory,
        "l" => TarKind::Symlink { target },
        "h" => TarKind::HardLink { target },
        "c" => TarKind::CharDevice(Device { major: 0, minor: 0 }),
        "p" => TarKind::Fifo,
        _ => TarKind::File(Content {
            size: 0,
            data_offset: 512,
            stored_len: 0,
            regions: None,
        }),
    };
    Entry {
        header_offset: 0,
        path: path.as_bytes().to_vec(),
        kind,
        mode,
        uid: 0,
        gid: 0,
        mtime: 0,
        mtime_nanoseconds: 0,
        xattrs: Vec::new(),
    }
}

/// A layer whose entries have its number as mode.
fn layer(number: usize, lines: &[&str]) -> Result<Arc<Tree>, Box<dyn std::error::Error>> {
    let mut builder = Builder::new(&tar::Limits::default());
    for line in lines {
        builder.insert(&entry(line, u16::try_from(number)?))?;
    }
    Ok(Arc::new(builder.finish()))
}

fn layers(lines: &[&[&str]]) -> Result<Vec<Arc<Tree>>, Box<dyn std::error::Error>> {
    let layers = lines.iter().enumerate();
    layers.map(|(at, lines)| layer(at, lines)).collect()
}

/// Every path with the letter of its type, the target, the layer, and for what has several
/// names the number of them; directories that no entry names as `-`.
fn show(rootfs: &Rootfs) -> Vec<String> {
    let mut lines = Vec::new();
    let mut todo = vec![(String::new(), NodeId::ROOT)];
    while let Some((path, directory)) = todo.pop() {
        for (at, (name, id)) in rootfs.list(directory).enumerate() {
            assert_eq!(rootfs.find(directory, name), Some(id));
            assert_eq!(rootfs.name_at(directory, at), Some((name, id)));
            let path = format!("{path}{}", String::from_utf8_lossy(name));
            let node = rootfs.node(id);
            let text = |bytes: &[u8]| format!(">{}", String::from_utf8_lossy(bytes));
            let (letter, target) = match node.kind {
                Kind::Directory if node.named => ("d", String::new()),
                Kind::Directory => ("-", String::new()),
                Kind::File { .. } => ("f", String::new()),
                Kind::Symlink { target } => ("l", text(target)),
                Kind::CharDevice(_) | Kind::BlockDevice(_) => ("c", String::new()),
                Kind::Fifo => ("p", String::new()),
                Kind::Outer { target } => ("h", text(target)),
            };
            if node.kind == Kind::Directory {
                let is_directory = |id| rootfs.node(id).kind == Kind::Directory;
                let inner = rootfs.list(id).filter(|(_, id)| is_directory(*id)).count();
                assert_eq!(node.links as usize, inner + 2, "{path}");
                todo.push((format!("{path}/"), id));
            }
            let links = match node.links {
                links if links > 1 && node.kind != Kind::Directory => format!(" x{links}"),
                _ => String::new(),
            };
            let from = if node.named {
                rootfs.layer(id).to_string()
            } else {
                "-".to_owned()
            };
            assert!(
                !node.named || node.mode as usize == rootfs.layer(id),
                "{path}"
            );
            lines.push(format!("{letter} {path}{target} {from}{links}"));
        }
    }
    lines.sort_by(|a, b| a[2..].cmp(&b[2..]));
    lines
}

type Row = (
    &'static str,
    &'static [&'static [&'static str]],
    &'static [&'static str],
);

fn check(rows: &[Row]) -> TestResult {
    for (name, lines, expected) in rows {
        let rootfs = Rootfs::new(layers(lines)?).map_err(|error| format!("{name}: {error}"))?;
        assert_eq!(show(&rootfs), *expected, "{name}");
    }
    Ok(())
}

#[test]
fn layers_are_merged() -> TestResult {
    check(&[
        ("no layers", &[], &[]),
        ("C14 an empty layer", &[&[], &["f a"]], &["f a 1"]),
        ("both are seen", &[&["f a"], &["f b"]], &["f a 0", "f b 1"]),
        ("the upper counts", &[&["f a"], &["p a"]], &["p a 1"]),
        (
            "directories are merged",
            &[&["d d", "f d/a"], &["d d", "f d/b"]],
            &["d d 1", "f d/a 0", "f d/b 1"],
        ),
        (
            "W8 implied directory keeps the attributes",
            &[&["d d"], &["f d/b"]],
            &["d d 0", "f d/b 1"],
        ),
        (
            "W8 implied in both",
            &[&["f d/a"], &["f d/b"]],
            &["- d -", "f d/a 0", "f d/b 1"],
        ),
        (
            "W8 file to directory",
            &[&["f a"], &["d a", "f a/b"]],
            &["d a 1", "f a/b 1"],
        ),
        (
            "W8 directory to file",
            &[&["d a", "f a/b"], &["f a"]],
            &["f a 1"],
        ),
        (
            "W8 and back",
            &[&["d a", "f a/b"], &["f a"], &["d a"]],
            &["d a 2"],
        ),
        (
            "a directory replaces a symlink",
            &[&["l a>b", "f b/c"], &["d a", "f a/d"]],
            &["d a 1", "f a/d 1", "- b -", "f b/c 0"],
        ),
        (
            "W11 one layer twice",
            &[&["f a", "f b"], &["f .wh.a"], &["f a", "f b"]],
            &["f a 2", "f b 2"],
        ),
        ("W12 case", &[&["f A"], &["f a"]], &["f A 0", "f a 1"]),
        (
            "T27' a 0:0 device is no whiteout",
            &[&["f a"], &["c a"]],
            &["c a 1"],
        ),
    ])
}

#[test]
fn regression_the_root_is_that_of_the_highest_layer_that_names_it() -> TestResult {
    type Row = (
        &'static str,
        &'static [&'static [&'static str]],
        Option<u16>,
    );
    let rows: &[Row] = &[
        ("in none", &[&["f a"], &[]], None),
        ("in the base", &[&["d "], &["f a"]], Some(0)),
        ("in two", &[&["d "], &["d "], &[]], Some(1)),
    ];
    for (name, lines, expected) in rows {
        let rootfs = Rootfs::new(layers(lines)?)?;
        let root = rootfs.node(NodeId::ROOT);
        assert_eq!(root.named.then_some(root.mode), *expected, "{name}");
    }
    Ok(())
}

#[test]
fn whiteouts_act_on_lower_layers_only() -> TestResult {
    check(&[
        ("gone", &[&["f a", "f b"], &["f .wh.a"]], &["f b 0"]),
        ("W4 absent", &[&["f b"], &["f .wh.a"]], &["f b 0"]),
        ("a whole directory", &[&["d d", "f d/a"], &["f .wh.d"]], &[]),
        (
            "and new again",
            &[&["d d", "f d/a"], &["f .wh.d"], &["d d"]],
            &["d d 2"],
        ),
        ("W3 before", &[&["f a"], &["f .wh.a", "f a"]], &["f a 1"]),
        ("W3 after", &[&["f a"], &["f a", "f .wh.a"]], &["f a 1"]),
        (
            "a directory of the same layer",
            &[&["d d", "f d/a"], &["f .wh.d", "d d", "f d/b"]],
            &["d d 1", "f d/b 1"],
        ),
        (
            "W2 opaque last",
            &[&["d d", "f d/a"], &["d d", "f d/b", "f d/.wh..wh..opq"]],
            &["d d 1", "f d/b 1"],
        ),
        (
            "W2 opaque first",
            &[&["d d", "f d/a"], &["f d/.wh..wh..opq", "f d/b"]],
            &["d d 0", "f d/b 1"],
        ),
        (
            "W2 opaque root",
            &[&["f a", "d d"], &["f .wh..wh..opq", "f b"]],
            &["f b 1"],
        ),
        (
            "opaque and then more",
            &[&["f d/a"], &["f d/.wh..wh..opq"], &["f d/c"]],
            &["- d -", "f d/c 2"],
        ),
        (
            "only below",
            &[&["f d/a"], &["f d/.wh.a"], &["f d/a"]],
            &["- d -", "f d/a 2"],
        ),
        (
            "W7 leftovers",
            &[
                &["d .wh..wh.plnk", "f .wh..wh.plnk/1.2", "f .wh..wh.aufs"],
                &["f a"],
            ],
            &["f a 1"],
        ),
        (
            "a name like one",
            &[&["f .wh", "f a.wh.b"]],
            &["f .wh 0", "f a.wh.b 0"],
        ),
        (
            "W5 of a symlink",
            &[&["f d/a", "l s>d"], &["f .wh.s"]],
            &["- d -", "f d/a 0"],
        ),
        (
            "W5 through a symlink",
            &[&["f d/a", "l s>d"], &["f s/.wh.a"]],
            &["- d -", "l s>d 0"],
        ),
        (
            "sorted beside what it hides",
            &[&["f -", "f a", "f z"], &["f .wh.-", "f .wh.z"]],
            &["f a 0"],
        ),
    ])
}

#[test]
fn hard_links_across_layers() -> TestResult {
    check(&[
        (
            "within a layer",
            &[&["f a", "h b>a"]],
            &["f a 0 x2", "f b 0 x2"],
        ),
        (
            "one name replaced",
            &[&["f a", "h b>a"], &["f b"]],
            &["f a 0", "f b 1"],
        ),
        (
            "one name hidden",
            &[&["f a", "h b>a"], &["f .wh.a"]],
            &["f b 0"],
        ),
        (
            "to a lower layer",
            &[&["f a"], &["h b>a"]],
            &["f a 0 x2", "f b 0 x2"],
        ),
        (
            "W9 which hides it later",
            &[&["f a"], &["h b>a"], &["f .wh.a"]],
            &["f b 0"],
        ),
        (
            "W9 which its own layer hides",
            &[&["f a"], &["h b>a", "f .wh.a"]],
            &["f b 0"],
        ),
        (
            "to a link to a lower layer",
            &[&["f a"], &["h b>a"], &["h c>b"]],
            &["f a 0 x3", "f b 0 x3", "f c 0 x3"],
        ),
        (
            "through a symlink",
            &[&["f d/a", "l s>d"], &["h b>s/a"]],
            &["f b 0 x2", "- d -", "f d/a 0 x2", "l s>d 0"],
        ),
        (
            "to a symlink",
            &[&["l s>d"], &["h b>s"]],
            &["l b>d 0 x2", "l s>d 0 x2"],
        ),
        (
            "regression: through a symlink of a lower layer to one of its own",
            &[&["l s>d", "d d"], &["f d/a", "h b>s/a"]],
            &["f b 1 x2", "d d 0", "f d/a 1 x2", "l s>d 0"],
        ),
        (
            "T23' to nothing",
            &[&["f a"], &["h b>c"]],
            &["f a 0", "h b>c 1"],
        ),
        (
            "to what was hidden",
            &[&["f a"], &["f .wh.a"], &["h b>a"]],
            &["h b>a 2"],
        ),
        (
            "to a directory",
            &[&["d a"], &["h b>a"]],
            &["d a 0", "h b>a 1"],
        ),
        (
            "to what is above an opaque marker",
            &[
                &["f d/a"],
                &["f d/.wh..wh..opq", "f d/b"],
                &["h c>d/a", "h e>d/b"],
            ],
            &["h c>d/a 2", "- d -", "f d/b 1 x2", "f e 1 x2"],
        ),
    ])
}

#[test]
fn entries_follow_symlinks_of_lower_layers() -> TestResult {
    check(&[
        (
            "usr-merged",
            &[&["d usr", "d usr/lib", "l lib>usr/lib"], &["f lib/a"]],
            &["l lib>usr/lib 0", "d usr 0", "d usr/lib 0", "f usr/lib/a 1"],
        ),
        (
            "absolute",
            &[&["d usr/lib", "l lib>/usr/lib"], &["f lib/a"]],
            &[
                "l lib>/usr/lib 0",
                "- usr -",
                "d usr/lib 0",
                "f usr/lib/a 1",
            ],
        ),
        (
            "to nothing yet",
            &[&["l lib>usr/lib"], &["f lib/a"]],
            &["l lib>usr/lib 0", "- usr -", "- usr/lib -", "f usr/lib/a 1"],
        ),
        (
            "out of the root",
            &[&["l a>../../../b", "d b"], &["f a/c"]],
            &["l a>../../../b 0", "d b 0", "f b/c 1"],
        ),
        (
            "two symlinks",
            &[&["l a>b", "l b>c", "d c"], &["f a/x"]],
            &["l a>b 0", "l b>c 0", "d c 0", "f c/x 1"],
        ),
        (
            "a symlink further down",
            &[&["l a>b", "d b", "l b/c>../d", "d d"], &["f a/c/x"]],
            &["l a>b 0", "d b 0", "l b/c>../d 0", "d d 0", "f d/x 1"],
        ),
        (
            "an entry of its own replaces it",
            &[&["l a>b", "d b"], &["d a", "f a/x"]],
            &["d a 1", "f a/x 1", "d b 0"],
        ),
        (
            "over what is there",
            &[&["l a>b", "f b/x"], &["p a/x"]],
            &["l a>b 0", "- b -", "p b/x 1"],
        ),
        (
            "in several layers",
            &[&["l a>b", "d b"], &["f a/x"], &["f a/y", "f .wh.b"]],
            &["l a>b 0", "- b -", "f b/y 2"],
        ),
        (
            "a symlink to a file",
            &[&["l a>b", "f b"], &["f a/x"]],
            &["l a>b 0", "- b -", "f b/x 1"],
        ),
        (
            "regression: its own layer replaces what the symlink leads through",
            &[&["l a>b/c", "l b>d", "d d"], &["d b", "f a/x"]],
            &["l a>b/c 0", "d b 1", "- b/c -", "f b/c/x 1", "d d 0"],
        ),
        (
            "regression: its own layer hides what the symlink leads through",
            &[&["l a>b/c", "l b>d", "d d"], &["f .wh.b", "f a/x"]],
            &["l a>b/c 0", "- b -", "- b/c -", "f b/c/x 1", "d d 0"],
        ),
        (
            "regression: the symlink is replaced later",
            &[&["l a>b", "d b"], &["f a/x"], &["f a"]],
            &["f a 2", "d b 0", "f b/x 1"],
        ),
        (
            "regression: the symlink is hidden later",
            &[&["l a>b", "d b"], &["f a/x"], &["f .wh.a"]],
            &["d b 0", "f b/x 1"],
        ),
        (
            "regression: all around the symlink is hidden later",
            &[&["l d/a>../b", "d b"], &["f d/a/x"], &["f .wh.d"]],
            &["d b 0", "f b/x 1"],
        ),
        (
            "regression: a directory around the symlink is replaced later",
            &[&["l d/a>../b", "d b"], &["f d/a/x"], &["f d"], &["d d"]],
            &["d b 0", "f b/x 1", "d d 3"],
        ),
        (
            "hidden before",
            &[&["l a>b", "d b"], &["f .wh.a", "f a/x"]],
            &["- a -", "f a/x 1", "d b 0"],
        ),
    ])
}

#[test]
fn what_makes_no_root_file_system() -> TestResult {
    let rows: &[(&str, &[&[&str]], &str)] = &[
        ("W1 no name", &[&["f .wh."]], "LAYER_WHITEOUT"),
        ("W1 dot", &[&["f d/.wh.."]], "LAYER_WHITEOUT"),
        ("W1 dots", &[&["f .wh..."]], "LAYER_WHITEOUT"),
        ("W1 unknown", &[&["f .wh..wh.x"]], "LAYER_WHITEOUT"),
        (
            "W2 opaque directory",
            &[&["d d/.wh..wh..opq"]],
            "LAYER_WHITEOUT",
        ),
        ("W6 symlink", &[&["l .wh.a>b"]], "LAYER_WHITEOUT"),
        (
            "W6 hard link to nothing",
            &[&["h .wh.a>b"]],
            "LAYER_WHITEOUT",
        ),
        ("W6 directory", &[&["f .wh.a/b"]], "LAYER_WHITEOUT"),
        (
            "loop",
            &[&["l a>b", "l b>a"], &["f a/x"]],
            "LAYER_SYMLINK_LOOP",
        ),
        ("self", &[&["l a>a"], &["f a/x"]], "LAYER_SYMLINK_LOOP"),
    ];
    for (name, lines, expected) in rows {
        let error = Rootfs::new(layers(lines)?).err();
        assert_eq!(error.map(|error| error.code()), Some(*expected), "{name}");
    }
    let error = Rootfs::new(layers(&[&[], &["f a/b/.wh."]])?).err();
    let text = error.map(|error| error.to_string());
    let expected = "layer 1: whiteout \"a/b/.wh.\": it hides no name";
    assert_eq!(text.as_deref(), Some(expected));
    Ok(())
}

#[test]
fn one_layer_shows_its_whiteouts() -> TestResult {
    let tree = layer(
        0,
        &["f d/.wh..wh..opq", "f .wh.a", "f b", "h c>b", "h e>low"],
    )?;
    let rootfs = Rootfs::of_layer(tree);
    let expected = [
        "f .wh.a 0",
        "f b 0 x2",
        "f c 0 x2",
        "- d -",
        "f d/.wh..wh..opq 0",
        "h e>low 0",
    ];
    assert_eq!(show(&rootfs), expected);
    Ok(())
}

/// The names in the root.
fn names(rootfs: &Rootfs) -> Vec<&[u8]> {
    rootfs.list(NodeId::ROOT).map(|(name, _)| name).collect()
}

#[test]
fn no_layers_make_an_empty_root() -> TestResult {
    let rootfs = Rootfs::new(Vec::new())?;
    assert!(rootfs.is_empty() && rootfs.len() == 1);
    assert_eq!(rootfs.node(NodeId::ROOT).kind, Kind::Directory);
    assert_eq!(rootfs.find(NodeId::ROOT, b"a"), None);
    Ok(())
}

#[test]
fn w10_many_layers_take_linear_time() -> TestResult {
    let opaque = layer(0, &["f .wh..wh..opq", "f a"])?;
    let rootfs = Rootfs::new(vec![opaque; 10_000])?;
    assert_eq!(
        (names(&rootfs), rootfs.layer(NodeId(1))),
        (vec![&b"a"[..]], 9_999)
    );
    let hiding: Vec<String> = (0..1000).map(|at| format!("f d/.wh.{at}")).collect();
    let hiding: Vec<&str> = hiding.iter().map(String::as_str).collect();
    let rootfs = Rootfs::new(vec![layer(0, &hiding)?; 4096])?;
    assert_eq!((names(&rootfs), rootfs.len()), (vec![&b"d"[..]], 2));
    let mut through = vec![layer(0, &["f s/y"])?; 4096];
    through[0] = layer(0, &["l s>d", "f d/x"])?;
    assert_eq!(Rootfs::new(through)?.len(), 5);
    Ok(())
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

/// What merging these layers comes to: so many nodes, or the limit that it hits.
fn outcome(layers: &[Vec<String>], limits: &Limits) -> Result<(u64, &'static str), String> {
    let mut trees = Vec::new();
    for (number, lines) in layers.iter().enumerate() {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        trees.push(layer(number, &lines).map_err(|error| error.to_string())?);
    }
    match merge::merge(trees, limits) {
        Ok(rootfs) => Ok((rootfs.len() as u64, "")),
        Err(Error::Limit { what, max }) => Ok((max, what)),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn t18_symlinks_of_lower_layers_lead_no_deeper_than_paths() -> TestResult {
    let depth = "directories on a path";
    let bytes = "bytes of paths through symlinks of lower layers";
    let limits = Limits {
        path_bytes: 1 << 16,
        ..Limits::default()
    };
    let one = |line: &str| vec![line.to_owned()];
    let many = |letter: &str, end: &str, count: usize| -> Vec<String> {
        (0..count)
            .map(|at| format!("{letter} s{at}{end}"))
            .collect()
    };
    let far = format!(">{}", "x/".repeat(1000));
    let rows = [
        (
            "as deep as allowed",
            vec![chain(2, 2047), one("f s0/f")],
            (4099, ""),
        ),
        (
            "one too deep",
            vec![chain(2, 2047), one("f s0/d/f")],
            (4096, depth),
        ),
        ("10,000", vec![chain(5, 2046), one("f s0/f")], (4096, depth)),
        (
            "half a million",
            vec![chain(255, 2046), one("f s0/f")],
            (4096, depth),
        ),
        (
            "a hard link",
            vec![chain(255, 2046), one("h f>s0/f")],
            (4096, depth),
        ),
        (
            "many far away",
            vec![many("l", &far, 30), many("f", "/f", 30)],
            (1032, ""),
        ),
        (
            "too many",
            vec![many("l", &far, 40), many("f", "/f", 40)],
            (1 << 16, bytes),
        ),
    ];
    for (name, layers, expected) in rows {
        assert_eq!(outcome(&layers, &limits)?, expected, "{name}");
    }
    Ok(())
}

#[test]
fn the_size_of_all_layers_is_bounded() -> TestResult {
    let entries = "names, files and directories in all layers";
    let weight = "bytes of metadata in all layers";
    let limits = Limits {
        entries: 1000,
        weight: 1 << 20,
        ..Limits::default()
    };
    let one = |line: &str| vec![line.to_owned()];
    let mut linked = one("f f");
    linked.extend((0..97).map(|at| format!("h {at}>f")));
    // The root and a file, with 98 names.
    let linked = |count: usize| vec![linked.clone(); count];
    let heavy = |at: usize| {
        vec![
            format!("l t>{at}{}", "x".repeat(1 << 17)),
            "f s/y".to_owned(),
        ]
    };
    let below = |base: &str| vec![one(base), heavy(0)];
    let rows = [
        ("W11 each name counts", linked(10), (2, "")),
        ("W11 each time", linked(11), (1000, entries)),
        ("distinct heavy ones", (0..7).map(heavy).collect(), (4, "")),
        (
            "too many of them",
            (0..9).map(heavy).collect(),
            (1 << 20, weight),
        ),
        ("what is not moved", below("d s"), (4, "")),
    ];
    for (name, layers, expected) in rows {
        assert_eq!(outcome(&layers, &limits)?, expected, "{name}");
    }
    Ok(())
}

#[test]
fn w11_one_layer_many_times_takes_memory_once_unless_it_is_moved() -> TestResult {
    let limits = Limits {
        weight: 1 << 20,
        ..Limits::default()
    };
    let heavy = layer(1, &[&format!("l t>{}", "x".repeat(1 << 16)), "f s/y"])?;
    let over = |base: &str| -> Result<Vec<Arc<Tree>>, Box<dyn std::error::Error>> {
        let mut layers = vec![heavy.clone(); 300];
        layers[0] = layer(0, &[base])?;
        Ok(layers)
    };
    let rootfs = merge::merge(over("d s")?, &limits)?;
    assert!((1 << 16..2 << 16).contains(&rootfs.weight()), "as it is");
    let error = merge::merge(over("l s>d")?, &limits).err();
    let text = error.map(|error| error.to_string());
    let expected =
        "the root file system has more than the limit of 1048576 bytes of metadata in all layers";
    assert_eq!(text.as_deref(), Some(expected), "moved");
    let mut few = over("l s>d")?;
    few.truncate(4);
    let rootfs = merge::merge(few, &limits)?;
    assert!(rootfs.weight() > 3 << 16, "those that were moved count");
    Ok(())
}

#[test]
fn w10_looking_up_paths_takes_few_steps() -> TestResult {
    let steps = "steps of looking up paths in lower layers";
    let limits = Limits {
        steps: 1 << 16,
        ..Limits::default()
    };
    let max = limits.steps;
    let many = |line: &dyn Fn(usize) -> String, count: usize| -> Vec<String> {
        (0..count).map(line).collect()
    };
    let deep = "d/".repeat(1000);
    let files = many(&|at| format!("f {deep}{at}"), 1000);
    let links = many(&|at| format!("h {at}>{deep}{at}"), 1000);
    let nothing = many(&|at| format!("h {at}>x"), 1000);
    let through = many(&|at| format!("h {at}>s0/{at}/f"), 1000);
    let below = many(&|at| format!("f s0/{at}/f"), 1000);
    let far = many(&|at| format!("h {at}>{deep}{at}"), 1000);
    let mut heavy = many(&|at| format!("l {at}>{at}{}", "x".repeat(1 << 18)), 64);
    heavy.push("f s/x".to_owned());
    let link = vec!["l s>d".to_owned()];
    let rows: [(&str, Vec<Vec<String>>, _); 9] = [
        ("links into one directory", vec![files, links], (2001, "")),
        ("links to nothing", vec![nothing.clone(); 4], (1001, "")),
        ("the same in many layers", vec![nothing; 100], (max, steps)),
        ("far into nothing", vec![far.clone(); 3], (1001, "")),
        ("in many layers", vec![far; 6], (max, steps)),
        ("a heavy layer", vec![heavy.clone(), link.clone()], (66, "")),
        (
            "a heavy layer that is moved",
            vec![link, heavy],
            (max, steps),
        ),
        (
            "links through symlinks",
            vec![chain(200, 10), through],
            (max, steps),
        ),
        (
            "files below symlinks",
            vec![chain(200, 10), below],
            (4202, ""),
        ),
    ];
    for (name, layers, expected) in rows {
        assert_eq!(outcome(&layers, &limits)?, expected, "{name}");
    }
    Ok(())
}

#[test]
fn w10_rounds_cost_steps() -> TestResult {
    let layers = [
        vec!["l a>b".to_owned()],
        vec!["f a/s/x".to_owned(), "f y".to_owned()],
    ];
    let with = |steps| Limits {
        steps,
        ..Limits::default()
    };
    assert_eq!(outcome(&layers, &with(100))?.1, "");
    let (max, what) = outcome(&layers, &with(10))?;
    assert_eq!(
        (max, what),
        (10, "steps of looking up paths in lower layers")
    );
    Ok(())
}
