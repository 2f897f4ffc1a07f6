//! A query socket that another process holds open while elasticd is replaced.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::elasticd::Elasticd;
use crate::harness::{SetOnDrop, until};

/// Listens at the path it is given, and starts the program it is given three times with that socket, as systemd does,
/// each time once the file `next` is there.
const HOLDER: &str = r#"
import os, signal, socket, subprocess, sys, time
path, directory, argv = sys.argv[1], sys.argv[2], sys.argv[3:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen(128)
os.dup2(listener.fileno(), 3, inheritable=True)
for round in range(3):
    shell = ["sh", "-c", 'export LISTEN_PID=$$ LISTEN_FDS=1; exec "$@"', "sh", *argv]
    child = subprocess.Popen(shell, pass_fds=(3,))
    deadline = time.monotonic() + 30
    while not os.path.exists(directory + "/next") and time.monotonic() < deadline:
        time.sleep(0.01)
    os.remove(directory + "/next")
    child.send_signal(signal.SIGTERM if round < 2 else signal.SIGKILL)
    child.wait(60)
"#;

#[test]
fn an_upgrade_refuses_no_query() {
    let config = "[providers.local]\ntype = 'fixed'\ninstances = [{ id = 'a', address = '10.0.0.1:80' }]\n\
                  [services.web]\nprovider = 'local'\n";
    let elasticd = Elasticd::new(config);
    let socket = elasticd.path("sock");
    let mut holder = Command::new("python3")
        .args(["-c", HOLDER])
        .args([&socket, &elasticd.path(""), Path::new(env!("CARGO_BIN_EXE_elasticd"))])
        .arg("--config")
        .args([&elasticd.path("elasticd.toml"), Path::new("run")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3 runs");
    until("the socket is there", || elasticd.try_get("/v1/services/web").filter(|(status, ..)| *status == 200));
    let over = AtomicBool::new(false);
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answer = elasticd.try_get("/v1/services/web?format=text");
                assert!(answer.is_some(), "a query was refused");
                // The restored set is there at once.
                let (status, head, body) = answer.expect("an answer");
                assert_eq!((status, body.as_str()), (200, "10.0.0.1:80\n"), "{head}");
                assert!(head.contains("\r\nage: "), "{head}");
                asked.fetch_add(1, Ordering::Relaxed);
            }
        });
        let stop = SetOnDrop(&over);
        for round in 0..2 {
            let old = elasticd.status()["uptime_seconds"].as_u64();
            assert!(old.is_some(), "round {round}");
            std::fs::write(elasticd.path("next"), "").expect("written");
            until("the next one", || (!elasticd.path("next").exists()).then_some(()));
            until("it answers", || elasticd.try_get("/readyz").filter(|(status, ..)| *status == 200));
            let enough = asked.load(Ordering::Relaxed) + 10;
            until("more queries", || (asked.load(Ordering::Relaxed) >= enough).then_some(()));
        }
        drop(stop);
        asking.join().expect("no query was refused");
    });
    assert!(socket.exists(), "it is not ours to remove");
    std::fs::write(elasticd.path("next"), "").expect("written");
    until("the holder ends", || holder.try_wait().expect("a status"));
}
