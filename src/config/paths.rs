//! Where things are if nothing else is configured.

/// The configuration file, where none is named.
pub const DEFAULT_PATH: &str = "/etc/elasticd/elasticd.toml";

/// The query socket, where none is configured.
pub const DEFAULT_SOCKET: &str = "/run/elasticd/elasticd.sock";

/// The admin socket, where none is configured.
pub const DEFAULT_ADMIN_SOCKET: &str = "/run/elasticd/admin.sock";
