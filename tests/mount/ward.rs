//! A mount with one good image among bad ones, and what its paths answer.
//!
//! Every check of a bad one looks at three things: the errno of open(2), the stable code
//! in `user.oci.error` and `.ocifs/status.json`, and that the good image is as it was.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::{
    Compression, Layer, MountFailure, MountOptions, Need, TestLayout, TestMount, has, tar_of,
};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub(crate) const TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// The files of the good image's layer.
pub(crate) const FILES: &[(&str, &[u8])] = &[("etc/", b""), ("etc/motd", b"hello\n")];

/// How long a single answer of a mount may take, whatever was put before it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the contract allows until a change by another tool is seen.
pub(crate) const SEEN: Duration = Duration::from_millis(1000);

/// Whether this machine can mount; otherwise reports the test as skipped.
pub(crate) fn can_mount(test: &str) -> bool {
    has(test, &[Need::Fuse])
}

/// A layout with the ref `good`, to which others are added.
pub(crate) struct Ward {
    pub(crate) layout: TestLayout,
    /// Descriptor of the good image.
    pub(crate) good: Value,
    /// Its one layer.
    pub(crate) layer: Layer,
}

impl Ward {
    pub(crate) fn new() -> Self {
        let layout = TestLayout::new();
        let layer = layout.layer(Compression::Gzip, FILES);
        let good = layout.image(std::slice::from_ref(&layer));
        layout.add_ref("good", &good);
        Self {
            layout,
            good,
            layer,
        }
    }

    /// The good image's manifest, as text to be spoilt.
    pub(crate) fn manifest_text(&self) -> String {
        fs::read_to_string(self.layout.blob_path(&self.good)).expect("the manifest is readable")
    }

    /// Adds the ref `name` whose manifest is this text.
    pub(crate) fn add_manifest(&self, name: &str, text: impl AsRef<[u8]>) {
        let manifest = self.layout.blob(MANIFEST, text.as_ref());
        self.layout.add_ref(name, &manifest);
    }

    /// Adds the ref `name` whose image has these layers, given as their descriptors.
    pub(crate) fn add_image_of(&self, name: &str, layers: &[Value]) -> Value {
        let config = self.layout.json(CONFIG, &json!({"os": "linux"}));
        let members = json!({"config": config, "layers": layers});
        let manifest = self.layout.manifest(&members);
        self.layout.add_ref(name, &manifest);
        manifest
    }

    /// Where `index.json` is.
    pub(crate) fn index_path(&self) -> PathBuf {
        self.layout.path().join("index.json")
    }

    pub(crate) fn mount(self) -> Mounted {
        let options = MountOptions::new(self.layout.path());
        self.mount_with(options)
    }

    pub(crate) fn mount_with(self, options: MountOptions) -> Mounted {
        Mounted {
            mount: options.start(),
            ward: self,
        }
    }
}

/// A ward that is mounted.
pub(crate) struct Mounted {
    pub(crate) ward: Ward,
    pub(crate) mount: TestMount,
}

impl Mounted {
    /// Opens a path and reads all of it.
    ///
    /// # Panics
    /// If that takes for ever.
    pub(crate) fn read(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let whole = self.mount.join(path);
        let read = move || {
            let mut bytes = Vec::new();
            File::open(whole)?.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        in_time(path, PATIENCE, read)
    }

    /// The error number of open(2); 0 where it succeeds.
    pub(crate) fn errno(&self, path: &str) -> i32 {
        let whole = self.mount.join(path);
        let opened = in_time(path, PATIENCE, move || File::open(whole));
        opened.err().map_or(0, |error| {
            error
                .raw_os_error()
                .unwrap_or_else(|| panic!("{path}: {error}"))
        })
    }

    /// The names in a directory, sorted.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let whole = self.mount.join(path);
        let list = move || -> std::io::Result<Vec<String>> {
            let names = fs::read_dir(whole)?.map(|entry| Ok(entry?.file_name()));
            let names: std::io::Result<Vec<_>> = names.collect();
            let text = |name: std::ffi::OsString| name.to_string_lossy().into_owned();
            Ok(names?.into_iter().map(text).collect())
        };
        let listed = in_time(path, PATIENCE, list);
        let mut names = listed.unwrap_or_else(|error| panic!("list {path:?}: {error}"));
        names.sort();
        names
    }

    /// The extended attribute `user.oci.NAME`, if there is one.
    pub(crate) fn xattr(&self, path: &str, name: &str) -> Option<String> {
        xattr(&self.mount.join(path), name)
    }

    /// The stable codes in `status.json`.
    pub(crate) fn status_codes(&self) -> Vec<String> {
        let bytes = self.read(".ocifs/status.json").expect("it is readable");
        let status: Value = serde_json::from_slice(&bytes).expect("it is JSON");
        let errors = status["errors"].as_array().expect("errors are a list");
        let code = |error: &Value| error["code"].as_str().unwrap_or_default().to_owned();
        errors.iter().map(code).collect()
    }

    /// Opening `path` fails with `errno`, and the attribute and the status say `code`.
    pub(crate) fn assert_refused(&self, row: &str, path: &str, errno: i32, code: &str) {
        let answer = self.errno(path);
        assert_eq!(
            errno_name(answer),
            errno_name(errno),
            "{row}: open {path}\n{}",
            self.mount.stderr()
        );
        let error = self.xattr(path, "error").unwrap_or_default();
        let said = error.split(':').next().unwrap_or_default();
        assert_eq!(said, code, "{row}: user.oci.error of {path}: {error}");
        let codes = self.status_codes();
        assert!(
            codes.iter().any(|listed| listed == code),
            "{row}: {code} is not in status.json: {codes:?}"
        );
        self.assert_good(row);
    }

    /// The ref `name` is a directory with nothing but `file`, whose open fails so; the
    /// directory says it too.
    pub(crate) fn assert_bad_ref(&self, name: &str, file: &str, errno: i32, code: &str) {
        assert_eq!(self.names(name), [file], "{name}: what it holds");
        self.assert_refused(name, &format!("{name}/{file}"), errno, code);
        let error = self.xattr(name, "error").unwrap_or_default();
        assert!(
            error.starts_with(&format!("{code}: ")),
            "{name}: user.oci.error of the directory: {error:?}"
        );
    }

    /// Opening `path` gives exactly these bytes, and nothing says that it is wrong.
    pub(crate) fn assert_holds(&self, row: &str, path: &str, expected: &[u8]) {
        match self.read(path) {
            Ok(bytes) => assert!(
                bytes == expected,
                "{row}: {path} has {} bytes that are not the {} expected",
                bytes.len(),
                expected.len()
            ),
            Err(error) => panic!("{row}: {path}: {error}\n{}", self.mount.stderr()),
        }
        assert_eq!(self.xattr(path, "error"), None, "{row}: {path}");
    }

    /// The good image is complete and right.
    pub(crate) fn assert_good(&self, row: &str) {
        let manifest = self.ward.manifest_text();
        self.assert_holds(row, "good/manifest.json", manifest.as_bytes());
        self.assert_holds(row, "good/layers/00.tar", &tar_of(FILES));
        assert_eq!(self.xattr("good", "error"), None, "{row}: good");
    }

    /// Whether the root shows `name`.
    pub(crate) fn shows(&self, name: &str) -> bool {
        self.names("").iter().any(|shown| shown == name)
    }
}

/// The extended attribute `user.oci.NAME` of a path, if there is one.
pub(crate) fn xattr(path: &Path, name: &str) -> Option<String> {
    let mut value = vec![0; 64 << 10];
    let name = format!("user.oci.{name}");
    match rustix::fs::getxattr(path, name.as_str(), &mut value[..]) {
        Ok(len) => {
            value.truncate(len);
            Some(String::from_utf8(value).expect("attributes are text"))
        }
        Err(rustix::io::Errno::NODATA) => None,
        Err(error) => panic!("{name} of {}: {error}", path.display()),
    }
}

/// What `answer` returns, if it does so in time: a mount that hangs must not take the
/// test with it.
pub(crate) fn in_time<T: Send + 'static>(
    what: &str,
    limit: Duration,
    answer: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more if it took too long.
        let _ = sender.send(answer());
    });
    receiver
        .recv_timeout(limit)
        .unwrap_or_else(|_| panic!("{what:?}: no answer in {limit:?}"))
}

/// Waits until `is_so` holds.
///
/// # Panics
/// If it does not in time.
pub(crate) fn assert_within(limit: Duration, what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + limit;
    while !is_so() {
        assert!(Instant::now() < end, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Mounting `source` is refused with this exit status, in words that contain `text`.
pub(crate) fn assert_no_mount(row: &str, source: &Path, status: i32, text: &str) {
    match MountOptions::new(source).try_start() {
        Ok(_) => panic!("{row}: it is mounted"),
        Err(MountFailure {
            status: ended,
            stderr,
        }) => {
            let code = ended.and_then(|ended| ended.code());
            assert_eq!(code, Some(status), "{row}: {stderr}");
            assert!(stderr.contains(text), "{row}: {text:?} is not in: {stderr}");
            assert!(!stderr.contains("panicked"), "{row}: {stderr}");
        }
    }
}

/// An error number as people know it.
pub(crate) fn errno_name(errno: i32) -> String {
    let known = [
        (0, "no error"),
        (libc::ENOENT, "ENOENT"),
        (libc::EIO, "EIO"),
        (libc::EACCES, "EACCES"),
        (libc::ENODATA, "ENODATA"),
        (libc::EBADMSG, "EBADMSG"),
        (libc::EUCLEAN, "EUCLEAN"),
        (libc::EOPNOTSUPP, "EOPNOTSUPP"),
        (libc::EFBIG, "EFBIG"),
        (libc::ESTALE, "ESTALE"),
    ];
    let name = known.iter().find(|(number, _)| *number == errno);
    name.map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_owned())
}
