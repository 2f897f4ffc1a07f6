//! What fleets need that no one machine can hold: arithmetic on what was measured.

use std::time::Duration;

use crate::bytes::Bytes;

/// `max_connections` where nothing is configured (NATS documentation, "Configuration", "Connection limits").
const CONNECTIONS: u64 = 65_536;
/// What one server's line carries, in bits per second.
const LINE: f64 = 1e9;
/// What one server has, in bytes.
const MEMORY: u64 = 8 << 30;
/// The processors of one server, each as fast as the one that was measured.
const PROCESSORS: f64 = 4.0;

/// What the NATS server was seen to need.
pub struct Server {
    /// In bytes, without sidecars.
    pub idle: u64,
    /// In bytes, for each sidecar.
    pub each: u64,
    /// Its processor time for each sidecar and change.
    pub change: Duration,
    /// Sidecars that it let in, in a second.
    pub attached: f64,
}

/// Replicas of the bucket among which its sidecars are shared; JetStream has 5 at most (NATS documentation, "Streams",
/// Replicas).
const REPLICAS: [f64; 3] = [1.0, 3.0, 5.0];

/// Prints the model.
pub fn print(server: &Server, measured: &[Bytes]) {
    println!(
        "\nModel of larger fleets. Assumed: what a server needs grows with its sidecars in a line ({} kB of memory, \
         {:.0} µs for a change, each); a server takes {CONNECTIONS} connections, its default, and has {} GB, 1 Gbit/s and \
         {PROCESSORS} processors like the one measured; sidecars are shared evenly among the replicas of the bucket, which \
         do all of the delivering, while further servers of the cluster, and leaf nodes, only take connections and pass \
         on; the publisher's part, and what a sidecar does with a change on its own machine, are not in it; TCP and IP \
         headers are not counted, TLS is not used.\n",
        server.each / 1000,
        server.change.as_secs_f64() * 1e6,
        MEMORY >> 30,
    );
    println!(
        "| sidecars | instances | quiet, all | a change, all | servers' memory | servers' processor time for a change | \
         servers for connections | for memory | a change is out with 1 replica in | 3 | 5 | all attach anew to one server \
         in |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
    );
    for sidecars in [10_000_u64, 100_000] {
        for bytes in measured {
            row(server, sidecars, bytes);
        }
    }
}

fn row(server: &Server, sidecars: u64, bytes: &Bytes) {
    let count = sidecars as f64;
    let memory = server.idle + sidecars * server.each;
    let quiet = (sidecars * bytes.quiet) as f64 * 8.0 / 3600.0 / 1e6;
    let change = (sidecars * bytes.change) as f64;
    let processor = server.change.as_secs_f64() * count;
    let seconds = (change * 8.0 / LINE).max(processor / PROCESSORS);
    let [one, three, five] = REPLICAS.map(|replicas| seconds / replicas);
    println!(
        "| {sidecars} | {} | {quiet:.1} Mbit/s | {:.0} MB | {:.1} GB | {processor:.1} s | {} | {} | {one:.1} s | \
         {three:.1} s | {five:.1} s | {:.0} s |",
        bytes.instances,
        change / 1e6,
        memory as f64 / 1e9,
        sidecars.div_ceil(CONNECTIONS),
        memory.div_ceil(MEMORY),
        count / server.attached,
    );
}
