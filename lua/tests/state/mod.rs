//! LuaJIT with the module `resty.bliss`, and libblissffi as it is installed.

use std::path::Path;

use mlua::{Lua, Table};

use crate::support::{library, now};

/// A Lua state that finds the module, with `library`, `directory` and `now()`.
pub(crate) fn lua(directory: &Path) -> Lua {
    // SAFETY:
    // - the scripts are this test's; they need LuaJIT's `ffi`, which can do what C can.
    let lua = unsafe { Lua::unsafe_new() };
    let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("lib");
    let globals = lua.globals();
    let package: Table = globals.get("package").unwrap();
    package.set("path", format!("{0}/?.lua;{0}/?/init.lua", lib.display())).unwrap();
    package.set("cpath", "").unwrap();
    globals.set("library", library().shared.to_str().unwrap()).unwrap();
    globals.set("directory", directory.to_str().unwrap()).unwrap();
    globals.set("now", lua.create_function(|_, ()| Ok(now())).unwrap()).unwrap();
    lua
}

/// What a chunk returns.
pub(crate) fn run<R: mlua::FromLuaMulti>(lua: &Lua, chunk: &str) -> R {
    lua.load(chunk).eval().unwrap_or_else(|error| panic!("{chunk}: {error}"))
}
