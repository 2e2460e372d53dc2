//! `P_state` as readers and writer find it: mapped, and checked for what does not change in it.
//!
//! # Orderings
//!
//! Loads are relaxed: what is looked at here does not change, or is a clock. The generation's are in [`crate::protocol`].

use std::os::fd::OwnedFd;

use bliss_os::{file::FileInfo, map::Map};

use crate::error::{Error, FileKind};
use crate::layout::{LAYOUT, PAGE, STATE_MAGIC, State};
use crate::paths::{Owners, Paths};
use crate::primitive::Ordering;
use crate::protocol;

/// The state in a mapping that [`open_state`] made.
pub(crate) fn state_of(map: &Map) -> Option<&State> {
    map.get(0)
}

/// Of the system on which the heartbeat was stamped.
pub(crate) fn boot_id(state: &State) -> Option<[u64; 2]> {
    let [high, low] = &state.boot_id;
    Some([high.load(Ordering::Relaxed), low.load(Ordering::Relaxed)])
}

/// Opens `P_state` for reading and checks what does not change in it.
pub(crate) fn open_state(paths: &Paths, owners: &Owners) -> Result<Option<(Map, FileInfo)>, Error> {
    let Some((fd, info)) = paths.open(FileKind::State, false, owners)? else { return Ok(None) };
    let map = map_state(paths, &fd, &info, false)?;
    Ok(Some((map, info)))
}

/// Maps `P_state` and checks what does not change in it.
pub(crate) fn map_state(paths: &Paths, fd: &OwnedFd, info: &FileInfo, writable: bool) -> Result<Map, Error> {
    let path = || paths.path_of(FileKind::State);
    if info.size != PAGE {
        // Also the file of the published crate, which has 16 bytes.
        return Err(Error::Corrupt { path: path(), what: "the file size", expected: PAGE, found: info.size });
    }
    let map = Map::new(fd, PAGE, writable).map_err(paths.io(FileKind::State, "mmap"))?;
    let Some(state) = state_of(&map) else {
        return Err(Error::Corrupt { path: path(), what: "the file size", expected: PAGE, found: map.len() });
    };
    let magic = state.magic.load(Ordering::Relaxed);
    if magic != STATE_MAGIC {
        return Err(Error::Foreign { path: path(), expected: STATE_MAGIC, found: magic });
    }
    let layout = state.layout.load(Ordering::Relaxed);
    if layout != LAYOUT {
        return Err(Error::Layout { path: path(), expected: LAYOUT, found: layout });
    }
    let generation = state.generation.load(Ordering::Relaxed);
    if generation > protocol::MAX_GENERATION {
        let (expected, what) = (protocol::MAX_GENERATION, "the generation");
        return Err(Error::Corrupt { path: path(), what, expected, found: generation });
    }
    Ok(map)
}
