//! The drop box of a mount.

use std::sync::Arc;

use ocifs::ingest::{Ingest, IngestOptions};
use ocifs::store::layout::Committer;
use ocifs::store::layout::refs::Collision;
use ocifs::vfs::dropbox::session::{SessionLimits, Sessions, SessionsOptions};
use ocifs::vfs::dropbox::{Commits, DropBox, DropBoxOptions, Limits};

use super::mount::Arguments;
use super::source::Source;

/// Puts a drop box into the root of what is going to be mounted.
pub(crate) fn place(
    source: &Source,
    committer: &Arc<Committer>,
    collision: Collision,
    arguments: &Arguments,
) -> Arc<DropBox> {
    let ingest = Ingest::new(committer.writer().clone(), IngestOptions::default());
    let options = DropBoxOptions {
        owner: source.views.owner(),
        // Whoever may use the mount may drop things, and remove only what is theirs.
        mode: if arguments.allow_other { 0o1777 } else { 0o755 },
        limits: Limits::default(),
    };
    let commits = Commits::new(committer.clone(), ingest, collision);
    let sessions = sessions(source, committer, collision, arguments);
    let drop_box = DropBox::new(commits, sessions, options);
    let reporter = drop_box.clone();
    let status = Box::new(move || reporter.status());
    source.views.place_drop_box(drop_box.node(), status);
    let taker = drop_box.clone();
    source
        .views
        .accept_referrers(Box::new(move |subject, artifact_type| {
            taker.attachments(subject, artifact_type)
        }));
    drop_box
}

/// The sessions that there are; without a place for them there can be none.
fn sessions(
    source: &Source,
    committer: &Arc<Committer>,
    collision: Collision,
    arguments: &Arguments,
) -> Option<Arc<Sessions>> {
    let options = SessionsOptions {
        collision,
        compression: arguments.compress.into(),
        limits: SessionLimits::default(),
    };
    let (layout, verdicts) = (source.directory.clone()?, source.verdicts.clone());
    match Sessions::open(layout, committer.clone(), verdicts, options) {
        Ok(sessions) => {
            source.vfs.heed(sessions.postponed().clone());
            Some(sessions)
        }
        Err(error) => {
            log::warn!("there are no sessions: {error}");
            None
        }
    }
}
