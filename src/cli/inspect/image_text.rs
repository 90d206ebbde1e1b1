//! An image in words.

use ocifs::oci::annotations::REF_NAME;
use serde_json::{Map, Value};

use super::super::format::{self, Align};
use super::super::output;
use super::image::{About, Image, Layer, Manifest, Platform};
use super::{clean, referrers, row};

impl Image {
    /// The description for people.
    pub(super) fn text(&self) -> String {
        let mut text = output::printable(&self.path);
        let mut put = |name, value: &Option<String>| {
            if let Some(value) = value {
                row(&mut text, name, &clean(value));
            }
        };
        if self.ref_name.as_deref().map(str::as_bytes) != Some(&self.path) {
            put("ref name", &self.ref_name);
        }
        put("digest", &self.digest);
        put("media type", &self.media_type);
        put_annotations(&mut text, &self.annotations);
        if let Some(index) = &self.index {
            index.put(&mut text);
        }
        if let Some(platforms) = &self.platforms {
            row(&mut text, "platforms", &platforms.len().to_string());
            text.push('\n');
            text.push_str(table(platforms).trim_end());
        }
        if let Some(manifest) = &self.manifest {
            // Said above already, where there is no index.
            if self.digest.as_ref() != Some(&manifest.digest) {
                text.push('\n');
                row(&mut text, "manifest", &clean(&manifest.digest));
            }
            manifest.put(&mut text);
        }
        referrers::put(&mut text, &self.referrers);
        text
    }
}

impl About {
    fn put(&self, text: &mut String) {
        if let Some(artifact_type) = &self.artifact_type {
            row(text, "artifact type", &clean(artifact_type));
        }
        if let Some(subject) = &self.subject {
            row(text, "subject", subject);
        }
        put_annotations(text, &self.annotations);
    }
}

impl Manifest {
    fn put(&self, text: &mut String) {
        self.about.put(text);
        if let Some(platform) = &self.platform {
            row(text, "platform", &clean(platform));
        }
        if let Some(created) = &self.created {
            row(text, "created", created);
        }
        row(text, "config", self.config.digest.as_str());
        row(text, "config type", &clean(self.config.media_type.as_str()));
        let size = format::size(self.stored());
        row(
            text,
            "layers",
            &format!("{}, {size} as stored", self.layers.len()),
        );
        for (number, layer) in self.layers.iter().enumerate() {
            layer.put(text, number);
        }
    }
}

impl Layer {
    fn put(&self, text: &mut String, number: usize) {
        let descriptor = &self.descriptor;
        let media_type = clean(descriptor.media_type.as_str());
        let mut lines = vec![descriptor.digest.to_string()];
        let size = format::size(descriptor.size);
        let compression = match self.compression() {
            Some("none") => ", not compressed".to_owned(),
            Some(compression) => format!(", {compression}"),
            None => String::new(),
        };
        lines.push(format!("{size}{compression}, {media_type}"));
        lines.extend(self.diff_id.as_ref().map(|id| format!("DiffID {id}")));
        lines.extend(self.created_by.as_ref().map(|step| clean(step)));
        for (key, value) in descriptor.annotations.iter() {
            lines.push(format!("{}={}", clean(key), clean(value)));
        }
        let lines = lines.join("\n       ");
        text.push_str(&format!("\n  {number:02}   {lines}"));
    }
}

fn put_annotations(text: &mut String, annotations: &Map<String, Value>) {
    // The name has a place of its own.
    for (key, value) in annotations.iter().filter(|(key, _)| *key != REF_NAME) {
        let value = clean(value.as_str().unwrap_or_default());
        row(text, "annotation", &format!("{}={value}", clean(key)));
    }
}

/// The rows of an index; the one that the image directory shows has a star.
fn table(platforms: &[Platform]) -> String {
    let cells = |platform: &Platform| {
        let star = if platform.is_default { "*" } else { " " };
        let about = platform.about.as_ref().map(|about| {
            let other = platforms.iter().find(|other| other.digest == *about);
            other.map_or(about, |other| &other.name)
        });
        [
            format!("  {star} {}", clean(&platform.name)),
            platform.size.map_or_else(String::new, format::size),
            platform.digest.clone(),
            about.map_or_else(String::new, |about| format!("attests to {}", clean(about))),
        ]
    };
    let rows: Vec<_> = platforms.iter().map(cells).collect();
    let (left, right) = (Align::Left, Align::Right);
    format::table(&rows, [left, right, left, left])
}
