//! How much memory the control group of this process still allows.
//!
//! Pages of a tmpfs are charged to the group that touches them first. Where the group has no room the kernel does not
//! refuse `fallocate`, it kills; so the room is compared before.

use std::path::{Path, PathBuf};

/// Bytes that may still be taken before a limit of this process's control group or of one above it is met.
/// `None`: no limit is known.
pub(crate) fn available() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    groups.lines().filter_map(|line| group_room(line, &mounts)).min()
}

fn group_room(line: &str, mounts: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let version = match controllers {
        "" => &V2,
        other if other.split(',').any(|name| name == "memory") => &V1,
        _ => return None,
    };
    let (mount, root) = mount_point(mounts, version)?;
    let inside = Path::new(path).strip_prefix(&root).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
    let bottom = mount.join(inside);
    bottom
        .ancestors()
        .take_while(|group| group.starts_with(&mount))
        .filter_map(|group| room(group, version))
        .min()
}

struct Version {
    file_system: &'static str,
    /// Must be among the mount's options.
    option: Option<&'static str>,
    limit: &'static str,
    usage: &'static str,
    /// Fields of `memory.stat` with what the kernel can take back without killing.
    reclaimable: [&'static str; 2],
}

const V1: Version = Version {
    file_system: "cgroup",
    option: Some("memory"),
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    reclaimable: ["total_inactive_file", "total_active_file"],
};

const V2: Version = Version {
    file_system: "cgroup2",
    option: None,
    limit: "memory.max",
    usage: "memory.current",
    reclaimable: ["inactive_file", "active_file"],
};

/// Mount point and root of the hierarchy, from the lines of `mountinfo`.
fn mount_point(mounts: &str, version: &Version) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (file_system, _, options) = (after.next()?, after.next()?, after.next()?);
        let fits = file_system == version.file_system
            && version.option.is_none_or(|wanted| options.split(',').any(|option| option == wanted));
        let mut before = before.split(' ').skip(3);
        let (root, point) = (before.next()?, before.next()?);
        fits.then(|| (PathBuf::from(point), PathBuf::from(root)))
    })
}

fn room(group: &Path, version: &Version) -> Option<u64> {
    let number = |file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let limit = number(version.limit)?;
    let usage = number(version.usage)?;
    let stat = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let reclaimable: u64 = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| version.reclaimable.contains(name))
        .filter_map(|(_, value)| value.trim().parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    Some(limit.saturating_sub(usage.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_room_of_all_groups_above_counts() {
        let dir = tempfile::tempdir().unwrap();
        let make = |path: &str, limit: &str, usage: &str, stat: &str| {
            let group = dir.path().join(path);
            std::fs::create_dir_all(&group).unwrap();
            std::fs::write(group.join("memory.max"), limit).unwrap();
            std::fs::write(group.join("memory.current"), usage).unwrap();
            std::fs::write(group.join("memory.stat"), stat).unwrap();
        };
        make("a", "1000\n", "900\n", "anon 5\ninactive_file 50\nactive_file 10\n");
        make("a/b", "max\n", "800\n", "");
        make("a/b/c", "700\n", "100\n", "");
        let mounts =
            format!("30 20 0:26 / {} rw,nosuid shared:4 - cgroup2 cgroup2 rw\n", dir.path().display());
        assert_eq!(group_room("0::/a/b/c", &mounts), Some(160));
        assert_eq!(group_room("0::/a/b", &mounts), Some(160));
        assert_eq!(group_room("0::/", &mounts), None);
        assert_eq!(group_room("4:memory:/a", &mounts), None);
    }
}
