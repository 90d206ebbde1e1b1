//! A file tree of nodes, as a layer's will be: to be mounted, or asked without a mount.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ocifs::vfs::{
    Attr, Caching, Child, Device, Error, FileKind, Lifetime, Listing, Node, NodeKey, OpenFile,
    Patience, Stretch, Time, TreeKey,
};
use parking_lot::{Condvar, Mutex};

/// One node of a [`TestTree`]; what it does not say is empty or 0.
#[derive(Debug, Clone)]
pub struct Record {
    /// What `stat` shows. The size of a file is that of its bytes.
    pub attr: Attr,
    /// The bytes of a file, or the target of a link.
    pub bytes: Vec<u8>,
    /// Where the data of a sparse file is; everywhere, if nothing is said.
    pub data: Vec<Range<u64>>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    children: Vec<(Vec<u8>, u32)>,
}

impl Record {
    /// A node of a kind, owned by root, with nothing in it.
    pub fn new(kind: FileKind, mode: u16) -> Self {
        let attr = Attr {
            kind,
            mode,
            size: 0,
            stored: 0,
            links: 1,
            device: Device::default(),
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            other_times: None,
            lifetime: Lifetime::Forever,
        };
        Self {
            attr,
            bytes: Vec::new(),
            data: Vec::new(),
            xattrs: Vec::new(),
            children: Vec::new(),
        }
    }

    /// With these bytes.
    pub fn bytes(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.bytes = bytes.into();
        self.attr.size = self.bytes.len() as u64;
        self.attr.stored = self.attr.size;
        self
    }

    /// With other attributes.
    pub fn with(mut self, change: impl FnOnce(&mut Attr)) -> Self {
        change(&mut self.attr);
        self
    }

    /// With one more extended attribute.
    pub fn xattr(mut self, name: &[u8], value: &[u8]) -> Self {
        self.xattrs.push((name.to_vec(), value.to_vec()));
        self
    }
}

/// A tree of records. The first is the root, whose children are known only when
/// [`TestTree::reveal`] was called.
#[derive(Debug)]
pub struct TestTree {
    records: Vec<Record>,
    /// For regular files, and for everything else.
    keys: [Arc<TreeKey>; 2],
    revealed: Mutex<bool>,
    reveal: Condvar,
    /// How many children were asked for by position.
    asked: AtomicUsize,
}

impl TestTree {
    /// The root of every tree.
    pub const ROOT: u32 = 0;

    /// A tree with an empty root.
    pub fn new() -> Self {
        let content = NodeKey::content("test", "sha256:tree".into());
        let place = NodeKey::place(b"tree".to_vec(), "sha256:tree".into(), 1);
        Self {
            records: vec![Record::new(FileKind::Directory, 0o755)],
            keys: [TreeKey::new(content), TreeKey::new(place)],
            revealed: Mutex::new(false),
            reveal: Condvar::new(),
            asked: AtomicUsize::new(0),
        }
    }

    /// Adds a node, and gives its number.
    pub fn add(&mut self, parent: u32, name: impl Into<Vec<u8>>, record: Record) -> u32 {
        let number = u32::try_from(self.records.len()).expect("a test tree is small");
        self.records.push(record);
        self.link(parent, name, number);
        number
    }

    /// Gives a node one more name.
    pub fn link(&mut self, parent: u32, name: impl Into<Vec<u8>>, number: u32) {
        let children = &mut self.records[parent as usize].children;
        children.push((name.into(), number));
        children.sort_unstable();
    }

    /// Adds many empty files, named `000000` and so on.
    pub fn add_many(&mut self, parent: u32, count: u32) {
        let first = u32::try_from(self.records.len()).expect("a test tree is small");
        let file = Record::new(FileKind::Regular, 0o644);
        self.records.extend((0..count).map(|_| file.clone()));
        let names = (0..count).map(|at| (format!("{at:06}").into_bytes(), first + at));
        self.records[parent as usize].children.extend(names);
    }

    /// The tree as something to be shown; known if `revealed`.
    pub fn finish(self, revealed: bool) -> Arc<Self> {
        *self.revealed.lock() = revealed;
        Arc::new(self)
    }

    /// Makes the children of the root known; who waits for that goes on.
    pub fn reveal(&self) {
        *self.revealed.lock() = true;
        self.reveal.notify_all();
    }

    /// How many children were asked for by listings.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// One of the nodes.
    pub fn node(self: &Arc<Self>, number: u32) -> Arc<dyn Node> {
        let tree = self.clone();
        Arc::new(TreeNode { tree, number })
    }

    fn wait(&self) {
        let mut revealed = self.revealed.lock();
        self.reveal.wait_while(&mut revealed, |revealed| !*revealed);
    }
}

#[derive(Debug)]
struct TreeNode {
    tree: Arc<TestTree>,
    number: u32,
}

impl TreeNode {
    fn record(&self) -> &Record {
        &self.tree.records[self.number as usize]
    }

    /// The children, when they are known.
    fn children(&self) -> Result<&[(Vec<u8>, u32)], Error> {
        if self.kind() != FileKind::Directory {
            return Err(Error::NotDirectory);
        }
        if self.number == TestTree::ROOT {
            self.tree.wait();
        }
        Ok(&self.record().children)
    }
}

impl Node for TreeNode {
    fn key(&self) -> NodeKey {
        let place = usize::from(self.kind() != FileKind::Regular);
        NodeKey::inside(&self.tree.keys[place], self.number)
    }

    fn kind(&self) -> FileKind {
        self.record().attr.kind
    }

    fn attr(&self, _patience: Patience) -> Result<Attr, Error> {
        Ok(self.record().attr)
    }

    fn would_wait_inside(&self) -> bool {
        self.number == TestTree::ROOT && !*self.tree.revealed.lock()
    }

    fn find(&self, name: &[u8]) -> Result<Option<Arc<dyn Node>>, Error> {
        let children = self.children()?;
        let found = children.binary_search_by(|(known, _)| known.as_slice().cmp(name));
        Ok(found.ok().map(|at| self.tree.node(children[at].1)))
    }

    fn list(&self) -> Result<Vec<Child>, Error> {
        let listing = self.listing()?;
        Ok((0..).map_while(|at| listing.child(at)).collect())
    }

    fn listing(&self) -> Result<Arc<dyn Listing>, Error> {
        self.children()?;
        let (tree, number) = (self.tree.clone(), self.number);
        Ok(Arc::new(Children(TreeNode { tree, number })))
    }

    fn list_caching(&self) -> Caching {
        Caching::Keep
    }

    fn read_link(&self) -> Result<Vec<u8>, Error> {
        Ok(self.record().bytes.clone())
    }

    fn open(&self) -> Result<Arc<dyn OpenFile>, Error> {
        let (tree, number) = (self.tree.clone(), self.number);
        Ok(Arc::new(OpenRecord(TreeNode { tree, number })))
    }

    fn xattr_names(&self) -> Vec<Vec<u8>> {
        let names = self.record().xattrs.iter().map(|(name, _)| name.clone());
        names.collect()
    }

    fn xattr(&self, name: &[u8]) -> Option<Vec<u8>> {
        let mut xattrs = self.record().xattrs.iter();
        let found = xattrs.find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone())
    }
}

#[derive(Debug)]
struct Children(TreeNode);

impl Listing for Children {
    fn child(&self, at: usize) -> Option<Child> {
        self.0.tree.asked.fetch_add(1, Ordering::Relaxed);
        let (name, number) = self.0.record().children.get(at)?;
        Some(Child {
            name: name.clone(),
            node: self.0.tree.node(*number),
        })
    }
}

#[derive(Debug)]
struct OpenRecord(TreeNode);

impl OpenFile for OpenRecord {
    fn read(&self, buf: &mut [u8], offset: u64) -> Result<usize, Error> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.record().bytes.get(start..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn size(&self) -> u64 {
        self.0.record().attr.size
    }

    fn seek(&self, offset: u64, wanted: Stretch) -> Result<u64, Error> {
        let (data, size) = (&self.0.record().data, self.size());
        if offset >= size {
            return Err(Error::NoData);
        }
        let is_data = |at: u64| data.is_empty() || data.iter().any(|part| part.contains(&at));
        let found = (offset..size).find(|at| is_data(*at) == (wanted == Stretch::Data));
        match wanted {
            Stretch::Data => found.ok_or(Error::NoData),
            Stretch::Hole => Ok(found.unwrap_or(size)),
        }
    }
}
