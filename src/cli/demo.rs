//! `elasticd demo`: elasticd on a small configuration of its own.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use super::{Exit, complain, log, run};

/// The demo's directory, below the current one.
const DIRECTORY: &str = "elasticd-demo";

const BACKENDS: &str = "\
# The instances elasticd finds. Edit, save, and look at upstreams.conf and the socket.
- { id: web-1, address: 10.0.0.1, zone: a, tags: { Role: web } }
- { id: web-2, address: 10.0.0.2, zone: b, tags: { Role: web, Port: 9090 } }
- { id: db-1,  address: 10.0.0.9, zone: a, tags: { Role: db } }
";

const CONFIG: &str = r#"# What `elasticd demo` runs on. A real one lives in /etc/elasticd/elasticd.toml.
state_dir = "DIR/state"

[api]
socket = "DIR/elasticd.sock"

[providers.demo]
type     = "file"
path     = "DIR/backends.yaml"
interval = "2s"

[services.web]
provider = "demo"
select   = { Role = "web" }
port     = { tag = "Port", default = 8080 }
# Here anything may vanish at once but the last backend; the defaults ask for more than one look.
guard    = { max_drop = "100%" }

[frontends.nginx]
type   = "nginx"
output = "DIR/upstreams.conf"
# There is no nginx here that could check the file and take it: these two lines are all that a real one does not have.
check  = []
reload = "none"
"#;

/// Writes the demo's files, unless they are there already, and runs on them.
pub fn run(log: &log::Args) -> ExitCode {
    let directory = match std::env::current_dir().map(|here| here.join(DIRECTORY)) {
        Ok(directory) => directory,
        Err(error) => {
            complain(&format!("cannot find the current directory: {error}"));
            return Exit::FAILURE.into();
        }
    };
    let text = CONFIG.replace("DIR", &directory.to_string_lossy());
    let config = directory.join("elasticd.toml");
    let written = std::fs::create_dir_all(&directory)
        .and_then(|()| write_new(&config, &text))
        .and_then(|()| write_new(&directory.join("backends.yaml"), BACKENDS));
    if let Err(error) = written {
        complain(&format!(
            "cannot write {}: {error}; run the demo in a directory that you may write to",
            directory.display()
        ));
        return Exit::FAILURE.into();
    }
    println!("look at  {DIRECTORY}/upstreams.conf");
    println!("edit     {DIRECTORY}/backends.yaml");
    println!("try      curl --unix-socket {DIRECTORY}/elasticd.sock http://localhost/v1/services/web");
    run::run(config, log)
}

/// Writes a file unless it exists: it may have been edited.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    match std::fs::File::create_new(path) {
        Ok(mut file) => file.write_all(text.as_bytes()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
