//! Looks at the files of a synchronizer.
//!
//! ```text
//! mmap-sync inspect PREFIX    generation, sizes, writer, readers and what they pin
//! mmap-sync verify PREFIX     checks everything; exit code 1 if something is wrong
//! ```

use std::process::ExitCode;

use mmap_sync::{Options, inspect};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["inspect", prefix] => match inspect::inspect(&Options::new(prefix)) {
            Ok(report) => {
                print!("{report}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        ["verify", prefix] => {
            let (lines, errors) = inspect::verify(&Options::new(prefix));
            lines.iter().for_each(|line| println!("{line}"));
            errors.iter().for_each(|error| eprintln!("{error}"));
            if errors.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        _ => {
            eprintln!("usage: mmap-sync inspect PREFIX | mmap-sync verify PREFIX");
            ExitCode::from(2)
        }
    }
}
