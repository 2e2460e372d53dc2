//! The C library of BLISS: features and bot scores inside a web server's workers.
