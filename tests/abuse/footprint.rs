//! What a process costs its machine, as Linux tells it.
#![allow(dead_code, reason = "each test file uses its part")]

use std::path::PathBuf;

/// The kernel counts processor time in hundredths of a second for everybody (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that is looked at from outside.
#[derive(Debug, Clone)]
pub struct Footprint {
    folder: PathBuf,
}

impl Footprint {
    /// Of the process with this number.
    pub fn of(id: u32) -> Footprint {
        Footprint { folder: PathBuf::from(format!("/proc/{id}")) }
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.join(file)).unwrap()
    }

    fn status_bytes(&self, key: &str) -> u64 {
        let status = self.read("status");
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        let kibibytes = line.trim_start_matches(':').trim().trim_end_matches(" kB");
        kibibytes.parse::<u64>().unwrap() * 1_024
    }

    /// Memory that it holds now, bytes.
    pub fn memory(&self) -> u64 {
        self.status_bytes("VmRSS")
    }

    /// The most that it held since [`Footprint::forget_peak`], bytes.
    pub fn memory_peak(&self) -> u64 {
        self.status_bytes("VmHWM")
    }

    /// Let the peak begin anew.
    pub fn forget_peak(&self) {
        std::fs::write(self.folder.join("clear_refs"), "5").unwrap();
    }

    /// Processor time that it has used, seconds.
    pub fn processor_seconds(&self) -> f64 {
        let stat = self.read("stat");
        // The name may have blanks; the third field follows its closing bracket.
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let fields: Vec<&str> = fields.split(' ').collect();
        let ticks = |field: usize| fields[field - 3].parse::<f64>().unwrap();
        (ticks(14) + ticks(15)) / TICKS_PER_SECOND
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(self.folder.join("fd")).unwrap().count()
    }
}
