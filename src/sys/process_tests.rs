use super::*;
use crate::sys::ticks::{now_ticks, ticks_per_second};

#[test]
fn an_executable_is_matched_by_path_or_by_name() {
    assert!(Executable::new("nginx").is(Path::new("/usr/sbin/nginx")));
    assert!(Executable::new("nginx").is(Path::new("/usr/sbin/nginx (deleted)")));
    assert!(Executable::new("/usr/sbin/nginx").is(Path::new("/usr/sbin/nginx")));
    assert!(!Executable::new("/opt/nginx").is(Path::new("/usr/sbin/nginx")));
    assert!(!Executable::new("nginx").is(Path::new("/usr/sbin/nginx-debug")));
}

#[test]
fn ticks_and_start_times_are_on_one_scale() {
    let ourselves = identity(std::process::id().cast_signed()).expect("we run");
    assert!(ourselves.start_ticks <= now_ticks());
    assert!(now_ticks() - ourselves.start_ticks < ticks_per_second() * 3600);
}
