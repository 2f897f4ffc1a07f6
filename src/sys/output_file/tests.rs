use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use rustix::fs::{XattrFlags, setxattr};

use super::*;

const PLAIN: Ownership = Ownership { mode: Some(0o640), uid: None, gid: None };

/// An output, with a store in the same mount and one in another.
struct Place {
    dir: tempfile::TempDir,
    stores: Vec<Store>,
    _elsewhere: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let elsewhere = tempfile::tempdir_in("/dev/shm").expect("another mount");
        fs::create_dir(dir.path().join("out")).expect("made");
        let stores: Vec<_> = [dir.path(), elsewhere.path()].map(|state_dir| Store::new(state_dir, "f")).into();
        for store in &stores {
            store.create().expect("made");
        }
        Self { dir, stores, _elsewhere: elsewhere }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("out/list.conf")
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.dir.path().join("out")).expect("readable");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

fn ready(store: &Store, target: &Path, text: &str, ownership: Ownership) -> Prepared {
    prepare(&Unconfined::default(), store, target, text.as_bytes(), ownership).expect("prepared")
}

fn place(store: &Store, target: &Path, text: &str, ownership: Ownership) {
    let prepared = ready(store, target, text, ownership);
    let lock = swap(&Unconfined::default(), store, target, prepared).expect("swapped");
    assert!(lock.expect("locked").is_of(target));
    assert_eq!(fs::read_to_string(target).expect("readable"), text);
}

#[test]
fn swaps_and_goes_back_and_nothing_else_ever_lies_in_the_directory() {
    let place_of = Place::new();
    let target = place_of.target();
    for store in &place_of.stores {
        let first = ready(store, &target, "one", PLAIN);
        assert_eq!((place_of.names().len(), &first.previous), (0, &None));
        let candidate = first.candidate.clone().expect("there is room");
        assert_eq!(fs::read_to_string(&candidate).expect("readable"), "one");
        assert_eq!(fs::metadata(&candidate).expect("there").mode() & 0o777, 0o640);
        assert!(candidate.to_string_lossy().ends_with("-list.conf"), "{}", candidate.display());
        swap(&Unconfined::default(), store, &target, first).expect("swapped");
        assert_eq!(fs::metadata(&target).expect("there").mode() & 0o7777, 0o640);

        let second = ready(store, &target, "two", PLAIN);
        assert_eq!((second.previous.as_deref(), second.is_kept), (Some(&b"one"[..]), true));
        assert_eq!(place_of.names(), ["list.conf"]);
        swap(&Unconfined::default(), store, &target, second).expect("swapped");
        assert_eq!((fs::read_to_string(&target).expect("readable"), place_of.names().len()), ("two".to_owned(), 1));
        put_back(&Unconfined::default(), store, &target, None).expect("restored").expect("locked");
        assert_eq!((fs::read_to_string(&target).expect("readable"), place_of.names().len()), ("one".to_owned(), 1));
        assert!(!store.candidate(&target).exists() && !store.previous(&target).exists());
        remove(&Unconfined::default(), &target).expect("removed");
        assert_eq!(place_of.names().len(), 0);
    }
}

#[test]
fn a_previous_version_that_the_store_has_no_room_for_is_put_back_from_memory() {
    let place_of = Place::new();
    let (target, store) = (place_of.target(), &place_of.stores[1]);
    place(store, &target, "one", PLAIN);
    fs::remove_dir_all(store.previous(&target).parent().expect("a directory")).expect("removed");
    fs::remove_dir_all(store.candidate(&target).parent().expect("a directory")).expect("removed");
    let second = ready(store, &target, "two", PLAIN);
    assert!(!second.is_kept && second.candidate.is_none());
    let previous = second.previous.clone();
    swap(&Unconfined::default(), store, &target, second).expect("swapped");
    assert!(put_back(&Unconfined::default(), store, &target, None).expect_err("lost").to_string().contains("is lost"));
    put_back(&Unconfined::default(), store, &target, previous).expect("restored");
    assert_eq!(fs::read_to_string(&target).expect("readable"), "one");
    assert_eq!(fs::metadata(&target).expect("there").mode() & 0o777, 0o640);
}

#[test]
fn what_others_did_meanwhile_is_not_overwritten() {
    let place_of = Place::new();
    let target = place_of.target();
    for store in &place_of.stores {
        let new = ready(store, &target, "new", PLAIN);
        fs::write(&target, "theirs").expect("written");
        let error = swap(&Unconfined::default(), store, &target, new).expect_err("another's").to_string();
        assert!(error.contains("in this moment"), "{error}");
        let new = ready(store, &target, "new", PLAIN);
        fs::write(&target, "theirs, edited").expect("written");
        swap(&Unconfined::default(), store, &target, new).expect_err("edited");
        assert_eq!(
            (fs::read_to_string(&target).expect("readable"), place_of.names().len()),
            ("theirs, edited".to_owned(), 1)
        );
        fs::remove_file(&target).expect("removed");
    }
}

#[test]
fn mode_and_attributes_stay_unless_configured() {
    let place_of = Place::new();
    let target = place_of.target();
    for store in &place_of.stores {
        fs::write(&target, "one").expect("written");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o604)).expect("ours");
        setxattr(&target, "user.note", b"keep me", XattrFlags::empty()).expect("set");
        let has = || {
            let mut value = [0; 16];
            let note = rustix::fs::getxattr(&target, "user.note", &mut value[..]).is_ok();
            (fs::metadata(&target).expect("there").mode() & 0o777, note)
        };
        place(store, &target, "two", Ownership::default());
        assert_eq!(has(), (0o604, true));
        place(store, &target, "three", PLAIN);
        assert_eq!(has(), (0o640, true));
        put_back(&Unconfined::default(), store, &target, None).expect("restored");
        assert_eq!(has(), (0o604, true), "as the file that was replaced");
        fs::remove_file(&target).expect("removed");
    }
}

#[test]
fn mode_is_put_right_in_place_and_never_of_a_file_that_has_other_names() {
    let place_of = Place::new();
    let target = place_of.target();
    place(&place_of.stores[0], &target, "one", PLAIN);
    let righted = || put_right(&Unconfined::default(), &target, PLAIN).expect("there");
    assert_eq!(righted(), Righted::Already);
    let inode = fs::metadata(&target).expect("there").ino();
    fs::set_permissions(&target, fs::Permissions::from_mode(0o666)).expect("ours");
    assert_eq!(righted(), Righted::Done("mode 0666 instead of 0640".to_owned()));
    assert_eq!((righted(), fs::metadata(&target).expect("there").ino()), (Righted::Already, inode));
    fs::set_permissions(&target, fs::Permissions::from_mode(0o666)).expect("ours");
    fs::hard_link(&target, place_of.dir.path().join("other")).expect("linked");
    assert!(matches!(righted(), Righted::MustReplace(_)));
    assert_eq!(fs::metadata(&target).expect("there").mode() & 0o777, 0o666);
}

#[test]
fn a_link_or_a_pipe_at_the_target_is_replaced_and_not_kept() {
    let place_of = Place::new();
    let (target, victim) = (place_of.target(), place_of.dir.path().join("victim"));
    fs::write(&victim, "precious").expect("written");
    let link = || symlink(&victim, &target).expect("linked");
    let pipe = || nix::unistd::mkfifo(&target, nix::sys::stat::Mode::S_IRWXU).expect("made");
    for store in &place_of.stores {
        for plant in [&link as &dyn Fn(), &pipe] {
            plant();
            let new = ready(store, &target, "new", PLAIN);
            assert!(new.previous.is_none() && !new.is_kept);
            swap(&Unconfined::default(), store, &target, new).expect("swapped");
            assert!(fs::symlink_metadata(&target).expect("there").is_file());
            assert_eq!(
                (fs::read_to_string(&victim).expect("readable"), place_of.names().len()),
                ("precious".to_owned(), 1)
            );
            remove(&Unconfined::default(), &target).expect("removed");
        }
    }
}

#[test]
fn what_an_earlier_version_left_beside_the_output_is_taken_away_and_a_previous_version_is_kept() {
    let place_of = Place::new();
    let target = place_of.target();
    for store in &place_of.stores {
        for is_needed in [true, false] {
            fs::write(&target, "new").expect("written");
            fs::write(target.with_file_name(".list.conf.elasticd"), "previous").expect("written");
            fs::write(target.with_file_name(".list.conf.elasticd.lock"), "").expect("written");
            tidy(&Unconfined::default(), store, &target, move |bytes| is_needed && bytes == b"previous").expect("done");
            assert_eq!(place_of.names(), ["list.conf"]);
            assert_eq!(fs::read_to_string(store.previous(&target)).ok().as_deref(), is_needed.then_some("previous"));
            store.discard(&target);
        }
    }
}

#[test]
fn an_error_names_the_path_and_the_remedy() {
    let store = &Place::new().stores[0];
    let target = Path::new("/nonexistent/dir/out");
    let error = prepare(&Unconfined::default(), store, target, b"", PLAIN).expect_err("must fail").to_string();
    assert!(error.contains("/nonexistent/dir/out") && error.contains("create the directory"), "{error}");
}
