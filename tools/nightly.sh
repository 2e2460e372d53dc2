# Sourced: which nightly Rust the fuzz targets and AddressSanitizer use, in $nightly. BLISS_NIGHTLY names another.
#
# The pinned one if it is installed, otherwise whatever `nightly` is installed, with a note.
pinned=nightly-2026-05-20
nightly=${BLISS_NIGHTLY:-$pinned}
# Cargo would download an absent toolchain unasked.
if ! rustup toolchain list 2>/dev/null | grep "^$nightly\b" >/dev/null; then
    echo "note: $nightly is not installed (rustup toolchain install $nightly); using the installed nightly" >&2
    nightly=nightly
fi
