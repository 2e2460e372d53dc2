//! How much memory the control group of this process still allows.
//!
//! Pages of a tmpfs are charged to the group that touches them first. Where the group has no room the kernel does not
//! refuse `fallocate`, it kills; so the room is compared before.

use std::path::{Path, PathBuf};

/// Bytes that may still be taken before a limit of this process's control group or of one above it is met.
/// `None`: no limit is known.
pub fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

/// The same, of a system whose files are under `root`.
fn available_under(root: &Path) -> Option<u64> {
    let read = |path: &str| std::fs::read(root.join(path)).ok();
    let (groups, mounts) = (read("proc/self/cgroup")?, read("proc/self/mountinfo")?);
    let (groups, mounts) = (String::from_utf8_lossy(&groups), String::from_utf8_lossy(&mounts));
    groups.lines().filter_map(|line| group_room(root, line, &mounts)).min()
}

fn group_room(root: &Path, line: &str, mounts: &str) -> Option<u64> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let version = match controllers {
        "" => &V2,
        other if other.split(',').any(|name| name == "memory") => &V1,
        _ => return None,
    };
    let rooms = mount_points(mounts, version).filter_map(|(mount, top)| {
        let mount = root.join(mount.strip_prefix("/").ok()?);
        let inside =
            Path::new(path).strip_prefix(&top).or_else(|_| Path::new(path).strip_prefix("/")).ok()?;
        let bottom = mount.join(inside);
        bottom
            .ancestors()
            .take_while(|group| group.starts_with(&mount))
            .filter_map(|group| room(group, version))
            .min()
    });
    rooms.min()
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

/// Where the hierarchy is mounted, and which group is the top one there, from the lines of `mountinfo`.
fn mount_points(mounts: &str, version: &Version) -> impl Iterator<Item = (PathBuf, PathBuf)> {
    mounts.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (file_system, _, options) = (after.next()?, after.next()?, after.next()?);
        let fits = file_system == version.file_system
            && version.option.is_none_or(|wanted| options.split(',').any(|option| option == wanted));
        let mut before = before.split(' ').skip(3);
        let (top, point) = (before.next()?, before.next()?);
        fits.then(|| (PathBuf::from(unescape(point)), PathBuf::from(unescape(top))))
    })
}

/// What `mountinfo` writes in place of characters that separate its fields.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |field, (written, meant)| field.replace(written, meant))
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

    /// A system with these control groups.
    struct System(tempfile::TempDir);

    const V1_MOUNT: &str = "30 20 0:26 / /sys/fs/cgroup/memory rw,nosuid shared:4 - cgroup cgroup rw,memory";
    const V2_MOUNT: &str = "30 20 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";

    impl System {
        fn new(groups: &str, mounts: &str) -> System {
            let system = System(tempfile::tempdir().unwrap());
            system.write("proc/self/cgroup", groups);
            system.write("proc/self/mountinfo", mounts);
            system
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }

        fn v2(&self, group: &str, limit: &str, usage: &str, stat: &str) {
            for (file, text) in [("memory.max", limit), ("memory.current", usage), ("memory.stat", stat)] {
                self.write(&format!("sys/fs/cgroup/{group}/{file}"), text);
            }
        }

        fn v1(&self, group: &str, limit: &str, usage: &str, stat: &str) {
            let files = [("limit_in_bytes", limit), ("usage_in_bytes", usage), ("stat", stat)];
            for (file, text) in files {
                self.write(&format!("sys/fs/cgroup/memory/{group}/memory.{file}"), text);
            }
        }

        fn available(&self) -> Option<u64> {
            available_under(self.0.path())
        }
    }

    #[test]
    fn cgroup_v2_the_smallest_room_of_all_groups_above_counts() {
        for (group, room) in [("/a/b/c", Some(160)), ("/a/b", Some(160)), ("/a", Some(160)), ("/", None)] {
            let system = System::new(&format!("0::{group}\n"), V2_MOUNT);
            system.v2("a", "1000\n", "900\n", "anon 5\ninactive_file 50\nactive_file 10\n");
            system.v2("a/b", "max\n", "800\n", "");
            system.v2("a/b/c", "700\n", "100\n", "inactive_file 3\n");
            assert_eq!(system.available(), room, "{group}");
        }
        // The lowest one may be the narrowest; and one that is over its limit has no room.
        let system = System::new("0::/a/b\n", V2_MOUNT);
        system.v2("a", "1000\n", "100\n", "");
        system.v2("a/b", "200\n", "100\n", "");
        assert_eq!(system.available(), Some(100));
        system.v2("a/b", "200\n", "300\n", "inactive_file 20\n");
        assert_eq!(system.available(), Some(0));
    }

    #[test]
    fn cgroup_v1_the_group_of_the_memory_controller_counts() {
        let groups = "5:cpu,cpuacct:/elsewhere\n4:memory:/a/b\n1:name=systemd:/x\n0::/x\n";
        let mounts = [
            "29 20 0:25 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct",
            V1_MOUNT,
            "31 20 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        ];
        let system = System::new(groups, &mounts.join("\n"));
        system.v1("", "9223372036854771712\n", "5000\n", "total_inactive_file 40\n");
        system.v1("a", "1000\n", "900\n", "inactive_file 500\ntotal_inactive_file 30\ntotal_active_file 5\n");
        system.v1("a/b", "9223372036854771712\n", "800\n", "");
        system.v1("elsewhere", "10\n", "10\n", "");
        assert_eq!(system.available(), Some(135));
    }

    #[test]
    fn limits_above_all_memory_are_room() {
        let system = System::new("0::/a\n", V2_MOUNT);
        system.v2("a", "18446744073709551615\n", "4096\n", "inactive_file 8192\n");
        assert_eq!(system.available(), Some(u64::MAX));
        let system = System::new("4:memory:/\n", V1_MOUNT);
        system.v1("", "9223372036854771712\n", "4096\n", "");
        assert_eq!(system.available(), Some(9_223_372_036_854_771_712 - 4096));
        system.v1("", "99999999999999999999999\n", "4096\n", "");
        assert_eq!(system.available(), None, "no number");
    }

    #[test]
    fn without_limits_or_files_no_limit_is_known() {
        let system = System::new("0::/a\n", V2_MOUNT);
        assert_eq!(system.available(), None, "no such group");
        system.v2("a", "max\n", "100\n", "");
        assert_eq!(system.available(), None);
        system.v2("a", "1000\n", "100\n", "");
        std::fs::remove_file(system.0.path().join("sys/fs/cgroup/a/memory.stat")).unwrap();
        assert_eq!(system.available(), Some(900), "nothing can be taken back");
        std::fs::remove_file(system.0.path().join("sys/fs/cgroup/a/memory.current")).unwrap();
        assert_eq!(system.available(), None);
        for missing in ["proc/self/cgroup", "proc/self/mountinfo"] {
            let system = System::new("0::/a\n", V2_MOUNT);
            system.v2("a", "1000\n", "100\n", "");
            assert_eq!(system.available(), Some(900));
            std::fs::remove_file(system.0.path().join(missing)).unwrap();
            assert_eq!(system.available(), None, "{missing}");
        }
        for (groups, mounts) in [
            ("", ""),
            ("nonsense", "nonsense"),
            ("0::/a", V1_MOUNT),
            ("4:memory:/a", V2_MOUNT),
            ("0::a", V2_MOUNT),
        ] {
            let system = System::new(groups, mounts);
            system.v2("a", "1000\n", "100\n", "");
            assert_eq!(system.available(), None, "{groups} {mounts}");
        }
    }

    #[test]
    fn containers_see_their_group_at_the_mount_point() {
        // The mount begins at the container's own group: by its name outside, or by its name in a namespace.
        let mount = "30 20 0:26 /docker/77 /sys/fs/cgroup ro - cgroup2 cgroup rw";
        for path in ["/docker/77", "/", "/docker/77/inner"] {
            let system = System::new(&format!("0::{path}\n"), mount);
            system.v2("", "1000\n", "400\n", "");
            system.v2("inner", "max\n", "400\n", "");
            assert_eq!(system.available(), Some(600), "{path}");
        }
        // A group outside of the namespace, and a mount point with a blank in its name after one that shows nothing.
        let system = System::new("0::/../other\n", V2_MOUNT);
        system.v2("", "1000\n", "400\n", "");
        assert_eq!(system.available(), Some(600));
        let mounts = format!("{V2_MOUNT}\n31 20 0:26 / /mnt/c\\040g rw - cgroup2 cgroup2 rw\n");
        let system = System::new("0::/a\n", &mounts);
        for (file, text) in [("max", "1000"), ("current", "1")] {
            system.write(&format!("mnt/c g/a/memory.{file}"), text);
        }
        assert_eq!(system.available(), Some(999));
    }
}
