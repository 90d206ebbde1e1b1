//! What a mount that can be written to does with refs: changes them, and looks after those
//! that it has changed.

use std::path::Path;
use std::sync::Arc;

use ocifs::store::layout::Committer;
use ocifs::store::layout::refs::Collision;
use ocifs::store::layout::writer::Sharing;
use ocifs::vfs::Naming;

use super::error::Refusal;
use super::shown::Shown;
use super::source::{self, Source};

/// Lets refs be changed through what is going to be mounted at `mountpoint`.
///
/// # Errors
/// If the layout cannot be written to.
pub(crate) fn accept(
    source: &Source,
    shown: &Arc<Shown>,
    collision: Collision,
    sharing: Sharing,
    mountpoint: &Path,
) -> anyhow::Result<Arc<Committer>> {
    let directory = source.directory.as_ref();
    let directory = directory.ok_or_else(|| Refusal::failure("an archive cannot be changed"))?;
    let writer = source::writer(directory, source.verdicts.clone())?.sharing(sharing);
    let view = source.views.snapshot().view().as_ref().clone();
    let observer = {
        let shown = shown.clone();
        Box::new(move |view| shown.show(view))
    };
    let committer = Arc::new(Committer::new(writer, view, observer));
    let naming = Naming::new(
        source.views.clone(),
        committer.clone(),
        collision,
        mountpoint.to_owned(),
    );
    source.vfs.accept_names(naming);
    Ok(committer)
}
