//! Real mounts by the real binary. Where `/dev/fuse` is missing each test says that it
//! was skipped.

#[path = "../common/mod.rs"]
mod common;

mod archives;
mod attributes;
mod blobs;
mod cache;
mod changes;
mod container;
mod drop_readers;
mod drop_tools;
mod drops;
mod engines;
mod export;
mod failing_disk;
mod file_trees;
mod forgetting;
mod hostile_blob;
mod hostile_layout;
mod hostile_stream;
mod hostile_trees;
mod image;
mod injections;
mod killed;
mod late;
mod life;
mod lost_refs;
mod odd_names;
mod patience;
mod referrers;
mod refs_writing;
mod rootfs;
mod round_trips;
mod sample;
mod session_posix;
mod session_publish;
mod session_trees;
mod sessions;
mod shared;
mod small_files;
mod tools;
mod trees;
mod unopened;
mod users;
mod waits;
mod walk;
mod ward;
mod writers;
