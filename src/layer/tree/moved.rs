//! Moves a directory of a tree, as if its entries had had other paths.

use super::builder::{Absent, Builder, Draft, DraftName, split};
use super::heap::Heap;
use super::record::{HeapPart, RECORD_LEN, Record};
use super::{Error, NodeId, Tree, narrow};
use crate::tar;

impl Builder {
    /// The tree as it would be if, for each of `moves`, the entries below the first path
    /// had had paths below the second instead, and had come last. Nothing is left where
    /// they were. No directory that is moved may have got anything from an earlier move.
    ///
    /// # Errors
    /// [`Error::SymlinkLoop`] if symlinks in the tree make a place unusable,
    /// [`Error::Limit`] if it were more than `limits` accept.
    pub fn moved(
        tree: &Tree,
        moves: &[(Vec<u8>, Vec<u8>)],
        limits: &tar::Limits,
    ) -> Result<Tree, Error> {
        let mut builder = Self::of(tree, limits);
        for (from, to) in moves {
            builder.move_directory(tree, from, to)?;
        }
        Ok(builder.finish())
    }

    fn move_directory(&mut self, tree: &Tree, from: &[u8], to: &[u8]) -> Result<(), Error> {
        let Some((parent, name)) = split(from) else {
            return Ok(());
        };
        let parent = self.directory(parent, Absent::Stop, 0)?;
        let number = parent.and_then(|parent| self.find(parent, name));
        self.last = None;
        let Some(number) = number else {
            return Ok(());
        };
        let source = self.take(number).node;
        let target = self.directory(to, Absent::Make, 0)?;
        self.last = None;
        self.merge(tree, source, target.expect("what is absent is made"))
    }

    /// A builder that has built `tree`: names and nodes have the same numbers.
    fn of(tree: &Tree, limits: &tar::Limits) -> Self {
        let mut builder = Self::new(limits);
        let [_, nodes, heap] = tree.tables();
        builder.heap = Heap::from_bytes(heap.to_vec());
        let count = nodes.len() / RECORD_LEN;
        let record = |id| tree.record(NodeId(narrow(id)));
        builder.nodes = (0..count)
            .map(|id| Record {
                links: 0,
                ..record(id)
            })
            .collect();
        for id in 0..count {
            for number in tree.names(NodeId(narrow(id))) {
                let name = tree.name_record(number);
                let (start, len) = (name.start, name.len.into());
                builder.put(DraftName {
                    directory: narrow(id),
                    name: HeapPart { start, len },
                    node: name.node,
                });
            }
        }
        builder
    }

    /// Moves what is in the directory `source` to `target`.
    fn merge(&mut self, tree: &Tree, source: Draft, target: Draft) -> Result<(), Error> {
        let mut todo = vec![(source, target)];
        while let Some((source, target)) = todo.pop() {
            for number in tree.names(NodeId(source)) {
                let DraftName { name, node, .. } = self.take(number);
                let name = self.heap.get(name).to_vec();
                let is_directory = |node: Draft| self.nodes[node as usize].is_directory();
                match self.child(target, &name) {
                    Some(there) if is_directory(there) && is_directory(node) => {
                        let record = self.nodes[node as usize];
                        if record.named {
                            self.nodes[there as usize] = record;
                        }
                        todo.push((node, there));
                    }
                    _ => self.set(target, &name, node, 0)?,
                }
            }
        }
        Ok(())
    }
}
