//! Which cores this process and those that it starts may use.

/// The cores that this thread may run on, ascending; empty where nobody can say.
#[must_use]
pub fn allowed() -> Vec<usize> {
    platform::allowed()
}

/// Keeps this thread, and every thread and process that it starts from now on, on `cores`. `false`
/// if the system refused or cannot.
#[must_use]
pub fn pin(cores: &[usize]) -> bool {
    platform::pin(cores)
}

#[cfg(target_os = "linux")]
mod platform {
    /// Most cores that a fixed-size set of the C library names.
    const MOST: usize = libc::CPU_SETSIZE as usize;

    pub(super) fn allowed() -> Vec<usize> {
        // SAFETY: a set of cores is a plain array of bits, for which zeros are a value; the call
        // writes at most its size; `CPU_ISSET` reads bits below `CPU_SETSIZE`.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) != 0 {
                return Vec::new();
            }
            (0..MOST).filter(|&c| libc::CPU_ISSET(c, &set)).collect()
        }
    }

    pub(super) fn pin(cores: &[usize]) -> bool {
        if cores.is_empty() || cores.iter().any(|&c| c >= MOST) {
            return false;
        }
        // SAFETY: as above; all cores are below `CPU_SETSIZE`.
        unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            cores.iter().for_each(|&c| libc::CPU_SET(c, &mut set));
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set) == 0
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod platform {
    pub(super) fn allowed() -> Vec<usize> {
        Vec::new()
    }
    pub(super) fn pin(_: &[usize]) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn threads_are_kept_where_they_are_put() {
        std::thread::spawn(|| {
            let cores = super::allowed();
            if let Some(&last) = cores.last() {
                assert!(super::pin(&[last]));
                assert_eq!(super::allowed(), [last]);
                assert!(!super::pin(&[]));
            }
        })
        .join()
        .unwrap();
    }
}
