//! On which CPUs the two sides may run: a container or a batch system may have given us others than 0 and 1.

/// The first two CPUs that this process may use, the server's and the client's; `None` if there are not two: then nothing is pinned.
pub fn two() -> Option<[usize; 2]> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    first_two(list.trim())
}

/// Of a list like `0-3,8` (cpuset(7), "List format").
fn first_two(list: &str) -> Option<[usize; 2]> {
    let mut found: Vec<usize> = Vec::with_capacity(2);
    for part in list.split(',') {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high): (usize, usize) = (low.parse().ok()?, high.parse().ok()?);
        found.extend((low..=high).take(2));
        if let [server, client, ..] = found[..] {
            return Some([server, client]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_two_of_a_list() {
        assert_eq!(first_two("0-1"), Some([0, 1]));
        assert_eq!(first_two("3,5-9"), Some([3, 5]));
        assert_eq!(first_two("2,7,9"), Some([2, 7]));
        assert_eq!((first_two("4"), first_two(""), first_two("a-b")), (None, None, None));
    }
}
