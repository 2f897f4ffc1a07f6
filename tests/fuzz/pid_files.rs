//! Mutated pid files: no process is found but the one that the file plainly names.

use std::process::{Child, Command, Stdio};

use elasticd::sys::process::{Executable, Find, Process};

use crate::{for_a_while, mutated};

const TOKENS: &[&str] = &[
    "0",
    "1",
    "-",
    "+",
    " ",
    "\n",
    "\0",
    ".",
    "0x",
    "e",
    "\u{660}",
    "\u{feff}",
    "99999999999",
    "-1",
    "4294967296",
    "2147483648",
];

struct Sleeper(Child);

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn whatever_a_pid_file_holds() {
    let sleeper = Sleeper(Command::new("sleep").arg("100000").stdin(Stdio::null()).spawn().expect("sleep runs"));
    let (own, pid) = (std::process::id().to_string(), sleeper.0.id().to_string());
    let seeds = [format!("{pid}\n"), format!("  {pid} \n"), "1\n".to_owned(), own, format!("{pid}\n{pid}\n"), pid];
    let seeds: Vec<&str> = seeds.iter().map(String::as_str).collect();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("pid");
    let find = Find::PidFile { path: path.clone(), executable: Executable::new("sleep") };
    let mut found = 0_u64;
    for_a_while("pid files", |random| {
        let bytes = mutated(random, &seeds, TOKENS);
        std::fs::write(&path, &bytes).expect("written");
        let text = String::from_utf8_lossy(&bytes);
        match Process::find_here(&find) {
            Ok(process) => {
                found += 1;
                // `+5` and `005` are 5.
                let digits = text.trim().trim_start_matches('+').trim_start_matches('0');
                assert_eq!(digits, process.identity.pid.to_string(), "{text:?}");
                assert!(process.identity.pid != 1 && process.identity.pid.cast_unsigned() != std::process::id());
            }
            Err(error) => assert!(error.to_string().len() < 1000, "{error}"),
        }
    });
    assert!(found > 0);
    println!("pid files: {found} named a process");
}
