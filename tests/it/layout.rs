//! What layouts are written with: one test for each operation of the table in the crate's
//! documentation, and that the table names tests that there are.

mod blobs;
mod entries;
mod images;
mod shared;
mod table;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use ocifs::ingest::{Error, Ingest, IngestOptions, Report};
use ocifs::oci::{Descriptor, Digest, RefName};
use ocifs::store::layout::refs::Collision;
use ocifs::store::{Layout, LayoutWriter, Verdicts, layout};
use serde_json::{Value, json};

use super::common::{Compression, REF_NAME, TestLayout, verify_layout};

type TestResult = Result<(), Box<dyn std::error::Error>>;

fn writer(layout: &TestLayout) -> LayoutWriter {
    let layout = Layout::open(layout.path(), &[]).expect("it is a layout");
    LayoutWriter::open(&layout, Arc::new(Verdicts::new(None))).expect("it can be written")
}

fn ingest(layout: &TestLayout) -> Ingest {
    Ingest::new(writer(layout), IngestOptions::default())
}

/// Brings what `name` means in one layout, or everything, into another.
fn append(from: &Path, name: Option<&str>, to: &TestLayout) -> Result<Report, Error> {
    append_over(from, name, to, Collision::Refuse)
}

fn append_over(
    from: &Path,
    name: Option<&str>,
    to: &TestLayout,
    collision: Collision,
) -> Result<Report, Error> {
    let source = Layout::open(from, &[]).expect("it is a layout");
    let entries = match name {
        Some(name) => source.resolve(name),
        None => source.resolve_all(),
    };
    let entries = entries.expect("it has that");
    let ingest = ingest(to);
    let report = ingest.commit(ingest.prepare_layout(&source, &entries, None)?, collision)?;
    verify_layout(to.path());
    Ok(report)
}

fn name(text: &str) -> RefName {
    text.parse().expect("it is a ref name")
}

fn descriptor(value: &Value) -> Descriptor {
    Descriptor::from_json(value).expect("it is a descriptor")
}

/// The digest of each name in a layout.
fn refs(layout: &TestLayout) -> BTreeMap<String, String> {
    layout.refs().into_iter().collect()
}

/// The digests of all blobs of a layout.
fn blobs(layout: &TestLayout) -> Vec<String> {
    let layout = Layout::open(layout.path(), &[]).expect("it is a layout");
    let blobs = layout.list_blobs("sha256").expect("it can be listed");
    let mut blobs: Vec<String> = blobs.iter().map(Digest::to_string).collect();
    blobs.sort();
    blobs
}

/// An image with one layer that holds `text`.
fn image(layout: &TestLayout, text: &str) -> Value {
    let layer = layout.layer(Compression::Gzip, &[("etc/motd", text.as_bytes())]);
    layout.image(&[layer])
}
