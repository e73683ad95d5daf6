//! What this process has used so far.

/// Seconds of the processor, of all threads together; `None` where nobody can say.
#[must_use]
pub fn processor_seconds() -> Option<f64> {
    platform::processor_seconds()
}

/// The most memory that was resident at once, bytes; `None` where nobody can say.
#[must_use]
pub fn most_resident_bytes() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024.0)
}

#[cfg(target_os = "linux")]
mod platform {
    pub(super) fn processor_seconds() -> Option<f64> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the call writes one `timespec`, to which the reference points.
        let done = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
        (done == 0).then_some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    pub(super) fn processor_seconds() -> Option<f64> {
        None
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn work_and_memory_are_seen() {
        let before = processor_seconds().unwrap();
        let data: Vec<u64> = (0..4_000_000).map(|i: u64| i.wrapping_mul(i)).collect();
        assert!(std::hint::black_box(&data).len() == 4_000_000);
        let used = processor_seconds().unwrap() - before;
        assert!(used > 0.0 && used < 600.0, "{used}");
        assert!(most_resident_bytes().unwrap() > 32e6);
    }
}
