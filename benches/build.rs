//! Tells the benchmarks how they were compiled, so that their output can say it.

fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    // The folder below the target directory is named after the profile; `PROFILE` knows only debug and release.
    let out = variable("OUT_DIR");
    let mut folders = out.rsplit(std::path::is_separator).skip_while(|folder| *folder != "build").skip(1);
    let profile = folders.next().unwrap_or("unknown").to_owned();
    let flags = variable("CARGO_ENCODED_RUSTFLAGS").replace('\x1f', " ");
    let version = std::process::Command::new(variable("RUSTC")).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    println!("cargo::rustc-env=BENCHES_PROFILE={profile}");
    println!("cargo::rustc-env=BENCHES_OPT_LEVEL={}", variable("OPT_LEVEL"));
    println!("cargo::rustc-env=BENCHES_RUSTFLAGS={}", if flags.is_empty() { "none" } else { &flags });
    println!("cargo::rustc-env=BENCHES_RUSTC={}", version.unwrap_or_default());
    println!("cargo::rerun-if-changed=build.rs");
}
