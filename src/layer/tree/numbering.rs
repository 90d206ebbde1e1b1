//! The last step in making a tree: final numbers for names and nodes.

use std::collections::HashMap;

use super::builder::{Builder, Draft, DraftName, NOWHERE, ROOT};
use super::record::{HeapPart, NAME_LEN, Name, RECORD_LEN, Shape};
use super::{NodeId, Tree, narrow};

/// The last number that stands for "has none yet".
const UNSEEN: u32 = u32::MAX;

/// Gives nodes their final numbers: directory by directory, from the root.
pub(super) struct Numbering {
    /// The names of each directory: those of the draft `d` are `by_directory[starts[d]..starts[d + 1]]`.
    starts: Vec<u32>,
    by_directory: Vec<u32>,
    /// What each name leads to.
    leads_to: Vec<Draft>,
    /// The final number of each draft.
    numbers: Vec<u32>,
    order: Vec<Draft>,
    names: Vec<u8>,
}

impl Numbering {
    pub(super) fn new(builder: &Builder, joined: &HashMap<Draft, Draft>) -> Self {
        let mut starts = vec![0_u32; builder.nodes.len() + 1];
        let is_there = |name: &&DraftName| name.directory != NOWHERE;
        for name in builder.names.iter().filter(is_there) {
            starts[name.directory as usize + 1] += 1;
        }
        for at in 1..starts.len() {
            starts[at] += starts[at - 1];
        }
        let mut next = starts.clone();
        let mut by_directory = vec![0; builder.names.len()];
        let names = builder.names.iter().enumerate();
        for (number, name) in names.filter(|(_, name)| is_there(name)) {
            let place = &mut next[name.directory as usize];
            by_directory[*place as usize] = narrow(number);
            *place += 1;
        }
        let end = |name: &DraftName| joined.get(&name.node).copied().unwrap_or(name.node);
        Self {
            starts,
            by_directory,
            leads_to: builder.names.iter().map(end).collect(),
            numbers: vec![UNSEEN; builder.nodes.len()],
            order: Vec::new(),
            names: Vec::new(),
        }
    }

    /// The tree that `builder` has built.
    pub(super) fn run(mut self, mut builder: Builder) -> Tree {
        self.number(ROOT);
        let mut at = 0;
        while let Some(&draft) = self.order.get(at) {
            if builder.nodes[draft as usize].is_directory() {
                self.directory(draft, &mut builder);
            }
            at += 1;
        }
        let mut nodes = Vec::with_capacity(self.order.len() * RECORD_LEN);
        for draft in self.order {
            nodes.extend_from_slice(&builder.nodes[draft as usize].bytes());
        }
        Tree {
            names: self.names,
            nodes,
            heap: builder.heap.into_bytes(),
        }
    }

    /// Writes the names of a directory, and numbers what they lead to.
    fn directory(&mut self, draft: Draft, builder: &mut Builder) {
        let range = self.starts[draft as usize] as usize..self.starts[draft as usize + 1] as usize;
        let mut list = self.by_directory[range].to_vec();
        // Tars list directories in order more often than not, which a stable sort likes.
        list.sort_by_key(|number| builder.heap.get(builder.names[*number as usize].name));
        let first = narrow(self.names.len() / NAME_LEN);
        let mut links = 2;
        for number in &list {
            let leads_to = self.leads_to[*number as usize];
            let node = self.number(leads_to);
            let record = &mut builder.nodes[leads_to as usize];
            if record.is_directory() {
                links += 1;
            } else {
                record.links += 1;
            }
            let HeapPart { start, len } = builder.names[*number as usize].name;
            let name = Name {
                start,
                len: u8::try_from(len).expect("a name has 255 bytes at most"),
                node: node.0,
            };
            self.names.extend_from_slice(&name.bytes());
        }
        let record = &mut builder.nodes[draft as usize];
        record.links = links;
        record.shape = Shape::Directory {
            first,
            count: narrow(list.len()),
        };
    }

    fn number(&mut self, draft: Draft) -> NodeId {
        let number = &mut self.numbers[draft as usize];
        if *number == UNSEEN {
            *number = narrow(self.order.len());
            self.order.push(draft);
        }
        NodeId(*number)
    }
}
