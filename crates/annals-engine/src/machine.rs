//! The machine: how much memory it has.

/// The bytes of memory that this process may use: those of the machine, or of its control group if that has
/// fewer. `None` if the system does not tell.
pub fn memory_bytes() -> Option<u64> {
    let least = [of_machine(), of_group()].into_iter().flatten().min();
    least.filter(|bytes| *bytes > 0)
}

#[cfg(target_os = "linux")]
fn of_machine() -> Option<u64> {
    let found = rustix::system::sysinfo();
    u64::try_from(u128::from(found.totalram) * u128::from(found.mem_unit.max(1))).ok()
}

#[cfg(not(target_os = "linux"))]
fn of_machine() -> Option<u64> {
    None
}

/// The limit of the control group, in which containers run: of version 2, or of version 1. Without a limit
/// the files say `max`, or a number larger than any memory.
fn of_group() -> Option<u64> {
    let files = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    files.iter().find_map(|file| std::fs::read_to_string(file).ok()?.trim().parse().ok())
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_memory() {
        let megabyte = 1 << 20;
        assert!(memory_bytes().is_some_and(|bytes| bytes > megabyte), "{:?}", memory_bytes());
        let status = std::fs::read_to_string("/proc/meminfo").unwrap();
        let total: u64 = status.split_whitespace().nth(1).unwrap().parse().unwrap();
        assert_eq!(of_machine().map(|bytes| bytes >> 10), Some(total));
    }
}
