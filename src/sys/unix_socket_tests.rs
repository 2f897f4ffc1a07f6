use std::os::unix::fs::symlink;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

struct Place {
    directory: TempDir,
    path: PathBuf,
}

fn place() -> Place {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("elasticd.sock");
    Place { directory, path }
}

impl Place {
    fn entries(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).expect("a listing");
        let mut names: Vec<_> = entries.map(|e| e.expect("an entry").file_name().display().to_string()).collect();
        names.sort();
        names
    }
}

/// A socket nobody listens on any more.
fn leave_stale(path: &Path) -> Identity {
    drop(std::os::unix::net::UnixListener::bind(path).expect("a socket"));
    Identity::of(&fs::symlink_metadata(path).expect("a socket file"))
}

fn refused(path: &Path) -> String {
    bind(path, 0o660, None).expect_err("must be refused").to_string()
}

#[tokio::test]
async fn has_its_mode_and_leaves_nothing_but_the_lock() {
    let place = place();
    for mode in [0o600, 0o660, 0o666, 0o777] {
        let listener = bind(&place.path, mode, None).expect("a listener");
        let found = fs::symlink_metadata(&place.path).expect("a socket file");
        assert_eq!(found.permissions().mode() & 0o7777, mode);
        assert!(found.file_type().is_socket());
        assert_eq!(place.entries(), ["elasticd.sock", "elasticd.sock.lock"]);
        assert_eq!(listener.path(), place.path);
        drop(listener);
        assert_eq!(place.entries(), ["elasticd.sock.lock"]);
    }
}

#[tokio::test]
async fn has_the_group_it_was_given() {
    let place = place();
    let own = fs::metadata(place.directory.path()).expect("a directory").gid();
    let gid = if nix::unistd::geteuid().is_root() { 12_345 } else { own };
    let _listener = bind(&place.path, 0o660, Some(gid)).expect("a listener");
    assert_eq!(fs::symlink_metadata(&place.path).expect("a socket file").gid(), gid);
}

#[tokio::test]
async fn serves_connections_after_the_rename() {
    let place = place();
    let listener = bind(&place.path, 0o600, None).expect("a listener");
    let mut client = UnixStream::connect(&place.path).await.expect("a connection");
    let mut server = listener.accept().await.expect("a connection");
    client.write_all(b"hello").await.expect("written");
    drop(client);
    let mut read = String::new();
    server.read_to_string(&mut read).await.expect("read");
    assert_eq!(read, "hello");
}

#[tokio::test]
async fn the_path_is_never_seen_with_another_mode() {
    let place = place();
    let path = place.path.clone();
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watcher = std::thread::spawn({
        let done = done.clone();
        move || {
            let mut modes = std::collections::BTreeSet::new();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                if let Ok(found) = fs::symlink_metadata(&path) {
                    modes.insert(found.permissions().mode() & 0o7777);
                }
            }
            modes
        }
    });
    for _ in 0..300 {
        drop(bind(&place.path, 0o612, None).expect("a listener"));
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let modes = watcher.join().expect("the watcher");
    assert!(modes.iter().all(|mode| *mode == 0o612), "{modes:?}");
}

#[tokio::test]
async fn replaces_a_stale_socket() {
    let place = place();
    let stale = leave_stale(&place.path);
    let _listener = bind(&place.path, 0o600, None).expect("a listener");
    assert_ne!(Identity::of(&fs::symlink_metadata(&place.path).expect("a socket file")), stale);
    UnixStream::connect(&place.path).await.expect("a connection");
    assert_eq!(place.entries(), ["elasticd.sock", "elasticd.sock.lock"]);
}

#[tokio::test]
async fn refuses_a_live_socket_even_if_its_backlog_is_full() {
    let place = place();
    let flags = SockFlag::SOCK_CLOEXEC;
    let live = socket(AddressFamily::Unix, SockType::Stream, flags, None).expect("a socket");
    nix::sys::socket::bind(live.as_raw_fd(), &UnixAddr::new(&place.path).expect("an address")).expect("bound");
    nix::sys::socket::listen(&live, nix::sys::socket::Backlog::new(0).expect("a backlog")).expect("listening");
    let _waiting = UnixStream::connect(&place.path).await.expect("a connection");
    assert_eq!(probe(&place.path), Err(Errno::EAGAIN));
    let message = refused(&place.path);
    assert!(message.contains("another process answers on it; stop it or set api.socket"), "{message}");
    assert!(place.path.exists());
}

#[tokio::test]
async fn refuses_what_is_not_a_socket_and_leaves_it() {
    let place = place();
    fs::write(&place.path, "precious").expect("a file");
    assert!(refused(&place.path).contains("a regular file is there"));
    assert_eq!(fs::read_to_string(&place.path).expect("the file"), "precious");
    fs::remove_file(&place.path).expect("removed");

    fs::create_dir(&place.path).expect("a directory");
    assert!(refused(&place.path).contains("a directory is there"));
    fs::remove_dir(&place.path).expect("still an empty directory");

    // A link, even to a stale socket: whoever made it did not mean us to replace it.
    let target = place.directory.path().join("target.sock");
    leave_stale(&target);
    symlink(&target, &place.path).expect("a link");
    assert!(refused(&place.path).contains("a symbolic link is there"));
    assert_eq!(fs::read_link(&place.path).expect("the link"), target);
    assert!(target.exists());
}

#[tokio::test]
async fn what_appears_meanwhile_is_kept() {
    let place = place();
    let staged = place.directory.path().join("s");
    leave_stale(&staged);
    fs::write(&place.path, "precious").expect("a file");
    let error = put_in_place(&place.path, &staged, None).expect_err("must be refused");
    assert!(error.to_string().contains("just appeared"), "{error}");
    let error = put_in_place(&place.path, &staged, Some(Identity(0, 0))).expect_err("must be refused");
    assert!(error.to_string().contains("just appeared"), "{error}");
    assert_eq!(fs::read_to_string(&place.path).expect("the file"), "precious");
    // A stale socket that somebody else removed is no obstacle.
    fs::remove_file(&place.path).expect("removed");
    put_in_place(&place.path, &staged, Some(Identity(0, 0))).expect("in place");
}

#[tokio::test]
async fn says_what_is_wrong_with_the_path() {
    let place = place();
    let long = place.directory.path().join("x".repeat(100));
    assert!(refused(&long).contains("bytes too long for a Unix socket; set api.socket"));
    let orphan = place.directory.path().join("missing/elasticd.sock");
    assert!(refused(&orphan).contains("there is no directory"), "{}", refused(&orphan));
    fs::write(place.directory.path().join("file"), "").expect("a file");
    let below_a_file = place.directory.path().join("file/elasticd.sock");
    assert!(refused(&below_a_file).contains("there is no directory"), "{}", refused(&below_a_file));
    assert!(refused(Path::new("/")).contains("names no file"));
    assert!(refused(Path::new("/tmp/")).contains("names no file"));
    let mode = bind(&place.path, 0o1660, None).expect_err("must be refused");
    assert!(mode.to_string().contains("mode 1660"), "{mode}");
    // /proc takes no new files from anybody, root included.
    let unwritable = refused(Path::new("/proc/elasticd.sock"));
    assert!(unwritable.contains("cannot write to the directory /proc"), "{unwritable}");
    assert_eq!(place.entries(), ["file"]);
}

#[tokio::test]
async fn the_longest_path_works() {
    let place = place();
    let room = MAX_PATH - place.directory.path().as_os_str().len() - 1;
    let path = place.directory.path().join("x".repeat(room));
    let _listener = bind(&path, 0o600, None).expect("a listener");
    UnixStream::connect(&path).await.expect("a connection");
    assert!(matches!(bind(&path.with_extension("yy"), 0o600, None), Err(Error::TooLong { len: 3, .. })));
}

#[tokio::test]
async fn of_two_that_start_together_one_wins() {
    for _ in 0..20 {
        let place = place();
        leave_stale(&place.path);
        let start = || {
            let path = place.path.clone();
            let runtime = tokio::runtime::Handle::current();
            std::thread::spawn(move || {
                let _inside = runtime.enter();
                bind(&path, 0o600, None)
            })
        };
        let (one, two) = (start(), start());
        let (one, two) = (one.join().expect("a result"), two.join().expect("a result"));
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        let loser = one.as_ref().err().or(two.as_ref().err()).expect("a loser");
        assert!(matches!(loser, Error::Locked { .. } | Error::Live { .. }), "{loser}");
        UnixStream::connect(&place.path).await.expect("the winner answers");
    }
}

#[tokio::test]
async fn removes_on_drop_only_what_it_made() {
    let place = place();
    let listener = bind(&place.path, 0o600, None).expect("a listener");
    let moved = place.directory.path().join("moved.sock");
    fs::rename(&place.path, &moved).expect("moved away");
    fs::write(&place.path, "somebody else's").expect("a file");
    drop(listener);
    assert_eq!(fs::read_to_string(&place.path).expect("the file"), "somebody else's");
    assert!(moved.exists());
}
