//! What this process itself uses.

use procfs::ProcResult;
use procfs::process::Process;

/// Memory, processor time and open files of this process.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Resident memory, in bytes.
    pub resident_bytes: u64,
    /// Processor time used since the process started, in user and system mode, in seconds.
    pub processor_seconds: f64,
    /// Open file descriptors.
    pub open_files: u64,
}

impl Usage {
    /// Reads `/proc/self`. May block.
    ///
    /// # Errors
    ///
    /// `/proc` is not mounted, or not readable.
    pub fn read() -> ProcResult<Self> {
        let myself = Process::myself()?;
        let stat = myself.stat()?;
        Ok(Self {
            resident_bytes: stat.rss * procfs::page_size(),
            // Ticks of a hundredth of a second: exact as a float for a million years.
            processor_seconds: (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64,
            open_files: myself.fd_count()? as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_and_used_memory_are_counted() {
        let before = Usage::read().expect("readable");
        assert!(before.resident_bytes > 1 << 20 && before.processor_seconds >= 0.0, "{before:?}");
        // Other tests of this process open and close files meanwhile, but not half as many.
        let open: Vec<_> = (0..200).map(|_| std::fs::File::open("/dev/null").expect("opened")).collect();
        let after = Usage::read().expect("readable");
        assert!(after.open_files >= before.open_files + 100, "{before:?} {after:?}");
        drop(open);
    }
}
