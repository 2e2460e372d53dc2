//! F3: the declarations that Lua has are those of the header.

use std::path::Path;

#[test]
fn f3_declarations_are_up_to_date() {
    let lua = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = lua.join("lib/resty/bliss/cdefs.lua");
    let config = cbindgen::Config::from_file(lua.join("cbindgen.toml")).unwrap();
    let mut header = Vec::new();
    let bindings =
        cbindgen::Builder::new().with_crate(lua.join("../bliss-ffi")).with_config(config).generate().unwrap();
    bindings.write(&mut header);
    let header = String::from_utf8(header).unwrap();
    let (defines, declarations): (Vec<_>, Vec<_>) =
        header.lines().filter(|line| !line.is_empty()).partition(|line| line.starts_with("#define "));
    let version = defines.iter().find_map(|line| line.strip_prefix("#define BLISS_ABI_VERSION ")).unwrap();
    assert!(!declarations.iter().any(|line| line.starts_with('#')), "{header}");
    let made = format!(
        "-- Made by lua/tests/cdefs.rs from bliss-ffi/src; do not edit. bliss_ffi.h says what all this is.\n\n\
         local ffi = require \"ffi\"\n\n\
         if not pcall(ffi.typeof, \"bliss_answer_t\") then\n    ffi.cdef [[\ntypedef int32_t bliss_result_e;\n{}\n]]\n\
         end\n\nreturn {{ ABI_VERSION = {version} }}\n",
        declarations.join("\n")
    );
    if std::env::var_os("BLISS_WRITE_HEADER").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap_or_default() == made,
        "{} is not what the sources say; regenerate it with BLISS_WRITE_HEADER=1 cargo test -p lua --test cdefs",
        file.display()
    );
}
