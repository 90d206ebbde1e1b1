//! What those tests share in which the daemon fails, or is killed, over what its users do.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::TestMount;
use crate::patience::until;

const AT_ALL: Duration = Duration::from_secs(10);

/// Makes an artifact in a layout, and leaves it.
pub(crate) const FILL_LAYOUT: &str = r#"
add() { sum=$(printf %s "$1" | sha256sum) && sum=${sum%% *} && printf %s "$1" >"blobs/sha256/$sum"; }
pointer() { printf '{"mediaType":"%s","digest":"sha256:%s","size":%s}' "$1" "$sum" "${#2}"; }
fill() {
    mkdir -p blobs/sha256 && add "content of $name" || return
    blob=$(pointer application/octet-stream "content of $name")
    manifest="{\"schemaVersion\":2,\"mediaType\":\"$type\",\"config\":$blob,\"layers\":[$blob]}"
    add "$manifest" || return
    printf '{"schemaVersion":2,"manifests":[%s]}' "$(pointer $type "$manifest")" >index.json &&
        printf '{"imageLayoutVersion":"1.0.0"}' >oci-layout && cd /
}
type=application/vnd.oci.image.manifest.v1+json
"#;

/// As long as this lives, the calls of a process fail.
pub(crate) struct Failing {
    strace: Child,
    log: tempfile::NamedTempFile,
}

impl Failing {
    /// `rule` is one of strace's for injections.
    pub(crate) fn new(mount: &TestMount, rule: &str) -> Self {
        let pid = mount.pid().to_string();
        let injection = format!("inject={rule}");
        let log = tempfile::NamedTempFile::new().expect("a temporary file can be made");
        let mut command = Command::new("strace");
        command.args(["-f", "-e", &injection, "-p", &pid, "-o"]);
        let child = command.arg(log.path()).stderr(Stdio::null()).spawn();
        let strace = child.expect("strace can be started");
        let failing = Self { strace, log };
        until(AT_ALL, "all threads are traced", || {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the daemon runs");
            let mut tasks = tasks.flatten();
            tasks.all(|task| {
                let status = fs::read_to_string(task.path().join("status"));
                status.is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
            })
        });
        failing
    }

    /// Lets the calls go well again; whether one has failed.
    pub(crate) fn end(mut self) -> bool {
        self.let_go();
        let log = fs::read_to_string(self.log.path());
        log.expect("strace writes text").contains("(INJECTED)")
    }

    /// Waits for the end of the process, which a rule has killed. To let go of one that is
    /// just ending is more than strace can do.
    pub(crate) fn wait_for_end(&mut self) {
        self.end_strace();
    }

    fn let_go(&mut self) {
        // By this signal it lets go of the process first.
        self.send(Signal::INT);
        self.end_strace();
    }

    /// Waits for the end of strace. Of threads that all are killed at once it can miss one,
    /// and waits for that one for ever; when it is gone itself, they end.
    fn end_strace(&mut self) {
        let end = Instant::now() + AT_ALL;
        while let Ok(None) = self.strace.try_wait() {
            if Instant::now() > end {
                self.send(Signal::KILL);
                let (Ok(_) | Err(_)) = self.strace.wait();
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn send(&self, signal: Signal) {
        let pid = i32::try_from(self.strace.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let (Ok(()) | Err(_)) = kill_process(pid, signal);
        }
    }
}

impl Drop for Failing {
    fn drop(&mut self) {
        if let Ok(None) = self.strace.try_wait() {
            self.let_go();
        }
    }
}
