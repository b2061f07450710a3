//! What of memory is in huge pages, as the system tells.

/// How many bytes from `start` on, where an area starts, are in huge pages of that area.
pub(crate) fn huge_bytes(start: usize) -> usize {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let area = format!("{start:x}-");
    let area = maps.lines().skip_while(|line| !line.starts_with(&area));
    let line = area.map(|line| line.strip_prefix("AnonHugePages:")).find_map(|line| line);
    let number = line.and_then(|line| line.trim().strip_suffix("kB")).map(str::trim);
    number.map_or(0, |number| number.parse::<usize>().unwrap() << 10)
}
