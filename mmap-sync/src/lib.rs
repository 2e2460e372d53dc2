//! Wait-free publication of a value from one writer process to many reader processes through memory-mapped files.
