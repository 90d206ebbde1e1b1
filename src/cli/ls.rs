//! `ocifs ls`: what a mount would list.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use ocifs::vfs::node::{Child, Node};
use ocifs::vfs::{FileKind, Patience};
use serde_json::Value;

use super::format::{self, Align};
use super::output::{self, Flow};
use super::progress;
use super::source::{self, Source, SourceOptions};
use super::tree::{self, LastLink};

/// The directory of the mount root that is found but not listed.
const HIDDEN: &[u8] = b".ocifs";

/// Arguments of `ocifs ls`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The layout: a directory or an archive.
    #[arg(value_name = "LAYOUT")]
    source: PathBuf,
    /// What to list, as in a mount: alpine:3.19/layers, or / for the top [default: all refs].
    path: Option<OsString>,
    /// Show mode, link count, owner, size, time (UTC) and link target; waits until sizes
    /// are known.
    #[arg(short, long)]
    long: bool,
    /// List what is in directories too.
    #[arg(short = 'R', long)]
    recursive: bool,
    /// Do not hide .ocifs.
    #[arg(short, long)]
    all: bool,
    /// Print an array of objects.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source_options: SourceOptions,
}

/// Lists a path of the tree.
///
/// # Errors
/// If the layout or the path cannot be read.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let source = source::open(&arguments.source, &arguments.source_options, None)?;
    let mut listing = Listing {
        source: &source,
        arguments,
        objects: Vec::new(),
    };
    listing.run()?;
    if arguments.json {
        output::json(&Value::Array(listing.objects))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One line of a listing.
struct Item {
    path: Vec<u8>,
    /// How it is called where it is listed.
    shown: Vec<u8>,
    node: Arc<dyn Node>,
}

struct Listing<'a> {
    source: &'a Source,
    arguments: &'a Arguments,
    /// What was listed, if it is to be JSON.
    objects: Vec<Value>,
}

impl Listing<'_> {
    fn run(&mut self) -> anyhow::Result<()> {
        let path = match &self.arguments.path {
            None if !self.arguments.recursive => return self.refs(),
            None => b"",
            Some(path) => path.as_bytes(),
        };
        let node = self.start(path)?;
        if node.kind() == FileKind::Directory {
            return self.directory(path, &*node, true).map(|_| ());
        }
        let item = Item {
            path: path.to_vec(),
            shown: path.to_vec(),
            node,
        };
        self.show(&[item]).map(|_| ())
    }

    /// The node to begin with; a link to a directory stands for the directory, unless
    /// the link itself is to be shown.
    fn start(&self, path: &[u8]) -> anyhow::Result<Arc<dyn Node>> {
        let find = |last| {
            let find = || tree::find(&self.source.vfs, path, last);
            progress::of_passes(&self.source.views, find)
        };
        let node = find(LastLink::Keep)?;
        if node.kind() == FileKind::Symlink && !self.arguments.long {
            let target = find(LastLink::Follow);
            return Ok(target
                .ok()
                .filter(|target| target.kind() == FileKind::Directory)
                .unwrap_or(node));
        }
        Ok(node)
    }

    /// All refs by their whole names.
    fn refs(&mut self) -> anyhow::Result<()> {
        let mut paths = tree::refs(&self.source.views);
        if self.arguments.all {
            paths.insert(0, HIDDEN.to_vec());
        }
        let item = |path: Vec<u8>| -> anyhow::Result<Item> {
            let node = tree::find(&self.source.vfs, &path, LastLink::Keep)?;
            let shown = path.clone();
            Ok(Item { path, shown, node })
        };
        let items: Vec<Item> = paths.into_iter().map(item).collect::<Result<_, _>>()?;
        self.show(&items).map(|_| ())
    }

    fn directory(&mut self, path: &[u8], node: &dyn Node, first: bool) -> anyhow::Result<Flow> {
        let items = self.children(path, node)?;
        if self.arguments.recursive && !self.arguments.json {
            let title = if path.is_empty() { b"/" } else { path };
            let space = if first { "" } else { "\n" };
            if output::line(&format!("{space}{}:", output::printable(title)))? == Flow::Stop {
                return Ok(Flow::Stop);
            }
        }
        if self.show(&items)? == Flow::Stop {
            return Ok(Flow::Stop);
        }
        if self.arguments.recursive {
            for item in &items {
                let directory = item.node.kind() == FileKind::Directory;
                if directory && self.directory(&item.path, &*item.node, false)? == Flow::Stop {
                    return Ok(Flow::Stop);
                }
            }
        }
        Ok(Flow::Continue)
    }

    fn children(&self, path: &[u8], node: &dyn Node) -> anyhow::Result<Vec<Item>> {
        let list = progress::of_passes(&self.source.views, || node.list());
        let mut children = list.with_context(|| output::printable(path))?;
        children.sort_by(|a, b| a.name.cmp(&b.name));
        let is_root = path.iter().all(|byte| *byte == b'/');
        if self.arguments.all
            && is_root
            && let Some(node) = node.find(HIDDEN)?
        {
            let name = HIDDEN.to_vec();
            children.insert(0, Child { name, node });
        }
        let item = |child: Child| Item {
            path: tree::join(path, &child.name),
            shown: child.name,
            node: child.node,
        };
        Ok(children.into_iter().map(item).collect())
    }

    fn show(&mut self, items: &[Item]) -> anyhow::Result<Flow> {
        if self.arguments.json {
            for item in items {
                let object = self.waiting(|| self.object(item))?;
                self.objects.push(object);
            }
            return Ok(Flow::Continue);
        }
        let mut text = if self.arguments.long {
            self.waiting(|| long(items))?
        } else {
            let names = items.iter().map(|item| output::printable(&item.shown));
            names.map(|name| name + "\n").collect()
        };
        // The line's end is put there again.
        if text.pop().is_none() {
            return Ok(Flow::Continue);
        }
        Ok(output::line(&text)?)
    }

    /// One item as JSON. An image is opened first, so that what is wrong with it shows.
    fn object(&self, item: &Item) -> anyhow::Result<Value> {
        if item.node.xattr(b"user.oci.digest").is_some() && item.node.kind() == FileKind::Directory
        {
            item.node.list()?;
        }
        let patience = if self.arguments.long {
            Patience::Wait
        } else {
            Patience::Never
        };
        tree::describe(&item.path, &*item.node, patience)
    }

    fn waiting<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.arguments.long {
            progress::of_passes(&self.source.views, work)
        } else {
            work()
        }
    }
}

/// Items with their attributes, one line each.
fn long(items: &[Item]) -> anyhow::Result<String> {
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let shown = output::printable(&item.shown);
        let attr = item
            .node
            .attr(Patience::Wait)
            .with_context(|| shown.clone())?;
        let name = match item.node.read_link() {
            Ok(target) => format!("{shown} -> {}", output::printable(&target)),
            Err(_) => shown,
        };
        rows.push([
            format::mode(attr.kind, attr.mode),
            attr.links.to_string(),
            attr.uid.to_string(),
            attr.gid.to_string(),
            format::size_or_device(&attr),
            format::minute(attr.mtime.seconds),
            name,
        ]);
    }
    let numbers = Align::Right;
    let columns = [
        Align::Left,
        numbers,
        numbers,
        numbers,
        numbers,
        Align::Left,
        Align::Left,
    ];
    Ok(format::table(&rows, columns))
}
