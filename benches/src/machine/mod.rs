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
mod process;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use affinity::{allowed, pin};
pub use memory::{Bandwidth, Curve, Point};
pub use ports::{Costs, Set, Unit};
pub use process::{most_resident_bytes, processor_seconds};

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
    /// By number of threads (1, 2), all threads together.
    pub bandwidth: BTreeMap<usize, Curve>,
}

impl Machine {
    /// Measures this machine; takes three seconds, and fifteen where the last cache has hundreds of MiB.
    #[must_use]
    pub fn measure(set: Set) -> Self {
        let caches = caches();
        let cores = allowed().len().max(1);
        let threads = 1..=cores.min(2);
        let bandwidth = threads
            .map(|t| (t, memory::curve(set, caches, t)))
            .collect();
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

    /// Nanoseconds of so many operations on `threads` threads.
    #[must_use]
    pub fn compute_ns(&self, unit: Unit, count: f64, threads: usize) -> f64 {
        let cost = self.costs.get(&unit).copied().unwrap_or(0.0);
        cost * count / threads.clamp(1, self.cores) as f64
    }

    /// Bandwidth of `threads` threads together over data of `resident` bytes.
    #[must_use]
    pub fn bandwidth_over(&self, resident: f64, threads: usize) -> Option<Bandwidth> {
        let most = self.bandwidth.range(..=threads.max(1)).next_back();
        most.map(|(_, curve)| curve.at(resident))
    }

    /// Half of a cache, or more than all: sizes that stand for the places.
    fn sizes(&self) -> [(Place, f64); 4] {
        let [l1, l2, l3] = self.caches.map(|c| c as f64 / 2.0);
        [
            (Place::L1, l1),
            (Place::L2, l2),
            (Place::L3, l3),
            (Place::Memory, f64::INFINITY),
        ]
    }

    /// Bandwidth of one thread at each place.
    #[must_use]
    pub fn places(&self) -> Vec<(Place, Bandwidth)> {
        let at = |(place, size)| Some((place, self.bandwidth_over(size, 1)?));
        self.sizes().into_iter().filter_map(at).collect()
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
        for (&threads, curve) in &self.bandwidth {
            write!(f, "GB/s read/write/copied, {threads} thread(s):")?;
            for (place, size) in self.sizes() {
                // The first two caches are each core's own.
                let size = if place <= Place::L2 {
                    size * threads as f64
                } else {
                    size
                };
                let b = curve.at(size);
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

    /// A machine of round numbers: every operation 1 ns; up to 32 KiB 8 bytes per ns, 4 at 1 MiB, 2 at
    /// 32 MiB, 1 from 64 MiB on; two threads have twice that but in memory.
    pub(crate) fn round() -> Machine {
        let b = |x| Bandwidth {
            read: x,
            write: x,
            copy: x,
            apart: x,
        };
        let curve = |x: f64| {
            let sizes = [(32 << 10, 8.0 * x), (1 << 20, 4.0 * x), (32 << 20, 2.0 * x)];
            let point = |(bytes, x): (usize, f64)| memory::Point {
                bytes: bytes as f64,
                bandwidth: b(x),
            };
            let mut points: Vec<_> = sizes.map(point).into_iter().collect();
            points.push(point((64 << 20, 1.0)));
            Curve(points)
        };
        Machine {
            cpu: "Round (R) 1".into(),
            cores: 2,
            isa: "Scalar".into(),
            ghz: Some(1.0),
            caches: [32 << 10, 1 << 20, 32 << 20],
            costs: Unit::ALL.iter().map(|u| (*u, 1.0)).collect(),
            bandwidth: BTreeMap::from([(1, curve(1.0)), (2, curve(2.0))]),
        }
    }

    #[test]
    fn places_and_times() {
        let m = round();
        assert_eq!(m.place_of(1000.0), Place::L1);
        assert_eq!(m.place_of(40_000.0), Place::L2);
        assert_eq!(m.place_of(4e6), Place::L3);
        assert_eq!(m.place_of(4e7), Place::Memory);
        assert_eq!(m.compute_ns(Unit::Add, 10.0, 2), 5.0);
        assert_eq!(m.compute_ns(Unit::Add, 10.0, 9), 5.0);
        let mib = 1024.0 * 1024.0;
        let read = |bytes, threads| m.bandwidth_over(bytes, threads).unwrap().read;
        assert_eq!((read(mib, 1), read(mib, 3)), (4.0, 8.0));
        assert_eq!((read(1e9, 1), read(1e9, 2)), (1.0, 1.0));
        let places: Vec<f64> = m.places().iter().map(|p| p.1.read).collect();
        assert_eq!((places[0], places[3]), (8.0, 1.0));
        assert_eq!(m.slug(), "round-r-1-scalar");
    }

    #[test]
    fn caches_grow() {
        let [l1, l2, l3] = caches();
        assert!(l1 >= 8 << 10 && l1 < l2 && l2 < l3, "{l1} {l2} {l3}");
    }
}
