//! The machine that measures: what it is, and what its ports and its memory do at most.
//!
//! Unsafe code of this crate is in this module: vector instructions behind runtime detection, and
//! the system's calls for cores.

mod affinity;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod ifma;
mod memory;
mod portable;
mod ports;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use affinity::{allowed, pin};
pub use memory::Bandwidth;
pub use ports::{Costs, Set, Unit};

/// Where bytes come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The first cache of a core.
    L1,
    /// The second.
    L2,
    /// The last.
    L3,
    /// Memory.
    Memory,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::Memory => "memory",
        })
    }
}

/// What a machine is and does at most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name.
    pub cpu: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// The instruction set of the measured loops and kernels.
    pub isa: String,
    /// GHz while one core adds.
    pub ghz: Option<f64>,
    /// Bytes of the caches: first, second, last.
    pub caches: [usize; 3],
    /// Nanoseconds per operation, one thread, operands in registers.
    pub costs: Costs,
    /// By number of threads (1, 2) and place, all threads together.
    pub bandwidth: BTreeMap<usize, BTreeMap<Place, Bandwidth>>,
}

impl Machine {
    /// Measures this machine; takes two to three seconds.
    #[must_use]
    pub fn measure(set: Set) -> Self {
        let caches = caches();
        let cores = allowed().len().max(1);
        let half = |bytes: usize| (bytes / 2 / 1024).max(8);
        // Four times the last cache, which is what another core may leave in it and more.
        let none = (4 * caches[2]).clamp(64 << 20, 512 << 20) / 1024;
        let mut bandwidth = BTreeMap::new();
        for threads in 1..=cores.min(2) {
            let at = |kib, memory| memory::measure(set, kib, threads, memory);
            let places = BTreeMap::from([
                (Place::L1, at(half(caches[0]), false)),
                (Place::L2, at(half(caches[1]), false)),
                (Place::L3, at(half(caches[2]) / threads, false)),
                (Place::Memory, at(none, true)),
            ]);
            bandwidth.insert(threads, places);
        }
        Self {
            cpu: cpu_name(),
            cores,
            isa: format!("{:?}", set.isa()),
            ghz: ports::clock(),
            caches,
            costs: set.costs(),
            bandwidth,
        }
    }

    /// The closest place that holds so many bytes.
    #[must_use]
    pub fn place_of(&self, bytes: f64) -> Place {
        let [l1, l2, l3] = self.caches.map(|c| c as f64);
        match bytes {
            b if b <= l1 => Place::L1,
            b if b <= l2 => Place::L2,
            b if b <= l3 => Place::L3,
            _ => Place::Memory,
        }
    }

    /// Which part of the accesses to so many bytes, used in turn, each place serves at best: a cache
    /// that holds a part of them can serve that part (with the best replacement; Belady, 1966), and
    /// what no cache holds comes from memory.
    #[must_use]
    pub fn shares(&self, bytes: f64) -> [(Place, f64); 4] {
        let held = self.caches.map(|c| (c as f64 / bytes).min(1.0));
        [
            (Place::L1, held[0]),
            (Place::L2, held[1] - held[0].min(held[1])),
            (Place::L3, held[2] - held[1].min(held[2])),
            (Place::Memory, 1.0 - held[2]),
        ]
    }

    /// Nanoseconds of so many operations on `threads` threads.
    #[must_use]
    pub fn compute_ns(&self, unit: Unit, count: f64, threads: usize) -> f64 {
        let cost = self.costs.get(&unit).copied().unwrap_or(0.0);
        cost * count / threads.clamp(1, self.cores) as f64
    }

    /// Nanoseconds of so many bytes read and written at a place by `threads` threads together.
    #[must_use]
    pub fn traffic_ns(&self, place: Place, (read, write): (f64, f64), threads: usize) -> f64 {
        let most = self.bandwidth.range(..=threads.max(1)).next_back();
        let bandwidth = most.and_then(|(_, places)| places.get(&place));
        bandwidth.map_or(0.0, |b| b.ns(read, write))
    }

    /// A name for files: letters, digits and dashes.
    #[must_use]
    pub fn slug(&self) -> String {
        let text = format!("{} {}", self.cpu, self.isa).to_lowercase();
        let kept: String = text
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { ' ' })
            .collect();
        kept.split_whitespace().collect::<Vec<_>>().join("-")
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [l1, l2, l3] = self.caches.map(|c| c / 1024);
        writeln!(
            f,
            "{}, {} cores, {}, caches {l1} KiB, {l2} KiB, {l3} KiB",
            self.cpu, self.cores, self.isa
        )?;
        if let Some(ghz) = self.ghz {
            write!(f, "{ghz:.2} GHz; ")?;
        }
        write!(f, "ps per operation in registers:")?;
        for (unit, ns) in &self.costs {
            write!(f, " {unit} {:.0},", ns * 1e3)?;
        }
        writeln!(f)?;
        for (threads, places) in &self.bandwidth {
            write!(f, "GB/s read/write/copied, {threads} thread(s):")?;
            for (place, b) in places {
                write!(f, " {place} {:.0}/{:.0}/{:.0},", b.read, b.write, b.copy)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |key: &str| {
        let line = info.lines().find(|l| l.starts_with(key))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let name = value("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    // Some hosts hide the number in the name; family and model still say which core it is.
    match (value("cpu family"), value("model\t")) {
        (Some(family), Some(model)) => format!("{name} (family {family} model {model})"),
        _ => name,
    }
}

/// Bytes of the data caches of core 0 by level, or common sizes where the system does not say.
fn caches() -> [usize; 3] {
    let mut sizes = [32 << 10, 512 << 10, 16 << 20];
    for index in 0..8 {
        let read = |file: &str| {
            let path = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/{file}");
            std::fs::read_to_string(path)
                .ok()
                .map(|s| s.trim().to_owned())
        };
        let (Some(level), Some(kind), Some(size)) = (read("level"), read("type"), read("size"))
        else {
            continue;
        };
        let kib = size.strip_suffix('K').and_then(|s| s.parse::<usize>().ok());
        let place = level.parse::<usize>().ok().and_then(|l| l.checked_sub(1));
        if let (Some(kib), Some(place)) = (kib, place)
            && kind != "Instruction"
            && let Some(slot) = sizes.get_mut(place)
        {
            *slot = kib * 1024;
        }
    }
    sizes
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A machine of round numbers: every operation 1 ns, every place 1 byte per ns, memory half.
    pub(crate) fn round() -> Machine {
        let b = |x| Bandwidth {
            read: x,
            write: x,
            copy: x,
        };
        let places = |x: f64| {
            BTreeMap::from([
                (Place::L1, b(8.0 * x)),
                (Place::L2, b(4.0 * x)),
                (Place::L3, b(2.0 * x)),
                (Place::Memory, b(1.0)),
            ])
        };
        Machine {
            cpu: "Round (R) 1".into(),
            cores: 2,
            isa: "Scalar".into(),
            ghz: Some(1.0),
            caches: [32 << 10, 1 << 20, 32 << 20],
            costs: Unit::ALL.iter().map(|u| (*u, 1.0)).collect(),
            bandwidth: BTreeMap::from([(1, places(1.0)), (2, places(2.0))]),
        }
    }

    #[test]
    fn places_and_times() {
        let m = round();
        assert_eq!(m.place_of(1000.0), Place::L1);
        assert_eq!(m.place_of(40_000.0), Place::L2);
        assert_eq!(m.place_of(4e6), Place::L3);
        assert_eq!(m.place_of(4e7), Place::Memory);
        let mib = 1024.0 * 1024.0;
        let shares = m.shares(64.0 * mib).map(|s| s.1);
        assert_eq!(shares, [1.0 / 2048.0, 31.0 / 2048.0, 31.0 / 64.0, 0.5]);
        assert_eq!(m.shares(1000.0).map(|s| s.1), [1.0, 0.0, 0.0, 0.0]);
        assert_eq!(m.shares(f64::INFINITY).map(|s| s.1), [0.0, 0.0, 0.0, 1.0]);
        assert_eq!(m.compute_ns(Unit::Add, 10.0, 2), 5.0);
        assert_eq!(m.compute_ns(Unit::Add, 10.0, 9), 5.0);
        assert_eq!(m.traffic_ns(Place::L2, (8.0, 0.0), 1), 2.0);
        assert_eq!(m.traffic_ns(Place::L2, (8.0, 8.0), 3), 2.0);
        assert_eq!(m.slug(), "round-r-1-scalar");
    }

    #[test]
    fn caches_grow() {
        let [l1, l2, l3] = caches();
        assert!(l1 >= 8 << 10 && l1 < l2 && l2 < l3, "{l1} {l2} {l3}");
    }
}
