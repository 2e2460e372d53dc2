//! F3: the header that is committed is the one that cbindgen makes of the sources.

use std::path::Path;

#[test]
fn f3_header_is_up_to_date() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = crate_dir.join("include/bliss_ffi.h");
    let config = cbindgen::Config::from_file(crate_dir.join("cbindgen.toml")).unwrap();
    let mut made = Vec::new();
    cbindgen::Builder::new().with_crate(crate_dir).with_config(config).generate().unwrap().write(&mut made);
    if std::env::var_os("BLISS_WRITE_HEADER").is_some() {
        std::fs::write(&header, &made).unwrap();
    }
    let committed = std::fs::read(&header).unwrap_or_default();
    assert!(
        made == committed,
        "{} is not what the sources say; regenerate it with BLISS_WRITE_HEADER=1 cargo test -p bliss-ffi --test header",
        header.display()
    );
}
