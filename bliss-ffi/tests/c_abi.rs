//! The library as C programs use it: compiled with the committed header by gcc and by clang, linked with the shared and
//! with the static library, alone and under valgrind.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

#[path = "support/mod.rs"]
mod support;

use support::{Site, expected_score, installed, library, wait_until, web_score};

const COMPILERS: [&str; 2] = ["gcc", "clang"];

/// Which of the two libraries a program is linked with.
#[derive(Clone, Copy, Debug)]
enum Linked {
    Shared,
    Static,
}

/// The tests' program, compiled into `directory`; `None` where there is no such compiler.
fn compile(compiler: &str, linked: Linked, flags: &[&str], directory: &Path) -> Option<PathBuf> {
    compile_source("bliss-ffi/tests/c/client.c", compiler, linked, flags, directory)
}

/// A C program of the workspace, compiled into `directory`; `None` where there is no such compiler.
fn compile_source(
    source: &str,
    compiler: &str,
    linked: Linked,
    flags: &[&str],
    directory: &Path,
) -> Option<PathBuf> {
    if !installed(compiler) {
        return None;
    }
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = crate_dir.with_file_name("").join(source);
    let program = directory.join(format!("program-{compiler}-{linked:?}"));
    let mut command = Command::new(compiler);
    command.args(["-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-O1"]).args(flags);
    command.arg("-I").arg(crate_dir.join("include")).arg(source);
    command.arg("-o").arg(&program);
    match linked {
        Linked::Shared => {
            let shared = &library().shared;
            // Under its soname, as an installation would have it.
            let link = directory.join("libblissffi.so.0");
            let _ = std::os::unix::fs::symlink(shared, &link);
            command.arg(&link).arg(format!("-Wl,-rpath,{}", directory.display()));
        }
        Linked::Static => _ = command.arg(&library().archive).arg("-lgcc_s"),
    }
    command.args(["-lpthread", "-ldl", "-lm"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(program)
}

/// Every way to build the program that this machine has.
fn programs(directory: &Path, flags: &[&str]) -> Vec<PathBuf> {
    let ways = COMPILERS.iter().flat_map(|compiler| [(compiler, Linked::Shared), (compiler, Linked::Static)]);
    ways.filter_map(|(compiler, linked)| compile(compiler, linked, flags, directory)).collect()
}

fn run(mut command: Command) -> String {
    let output = command.output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{command:?}: {}: {error}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// The program under way, asked line by line.
struct Client {
    child: Child,
    to: Option<ChildStdin>,
    from: BufReader<ChildStdout>,
}

impl Client {
    /// Starts it and waits until it has opened the directory.
    fn start(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let to = child.stdin.take();
        let from = BufReader::new(child.stdout.take().unwrap());
        let mut client = Self { child, to, from };
        assert_eq!(client.line(), "open");
        client
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.from.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn ask(&mut self, line: &str) -> String {
        writeln!(self.to.as_mut().unwrap(), "{line}").unwrap();
        self.line()
    }

    fn end(mut self) {
        self.to = None;
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(program: &Path, mode: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.arg(mode).arg(directory);
    command
}

fn valgrind(program: &Path, mode: &str, directory: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--error-exitcode=9", "--leak-check=full", "--errors-for-leak-kinds=definite", "-q"]);
    command.arg(program).arg(mode).arg(directory);
    command
}

/// What a program must answer while things are published, damaged and published again.
fn scores(program: Command, site: &mut Site) {
    let mut client = Client::start(program);
    let few = "192.0.2.7 9 SE -";
    assert!(
        client
            .ask(few)
            .starts_with("1 0 0/0/0/0 / [no snapshot] [] no snapshot: nothing has been published yet")
    );
    site.publish_features();
    wait_until("features", || !client.ask(few).contains("no snapshot"));
    assert!(client.ask(few).starts_with("2 0 0/0/0/0 / [no models] []"));
    site.publish_models("7");
    wait_until("models", || !client.ask(few).contains("no models"));
    // Each model is the shadow of the other.
    let scored = |requests: f32, headers: f32, country: &str, rest: &str| {
        let [demo, strict] = [0.0, 1.0].map(|bias| expected_score(requests, headers, country, bias));
        if rest.contains("strict") {
            format!("(demo {demo}) 0 {strict} {rest} [] []")
        } else {
            format!("(strict {strict}) 0 {demo} {rest} [] []")
        }
    };
    assert_eq!(client.ask(few), scored(7.0, 9.0, "SE", "1/0/0/0 demo/7"));
    assert_eq!(client.ask("192.0.2.70 1 XX other"), scored(70.0, 1.0, "XX", "1/0/0/0 demo/7"));
    assert_eq!(client.ask("192.0.2.70 1 XX login"), scored(70.0, 1.0, "XX", "1/0/0/0 strict/7"));
    assert_eq!(client.ask("192.0.2.95 1 XX -"), scored(95.0, 1.0, "XX", "0/1/0/0 demo/7"));
    assert_eq!(client.ask("198.51.100.1 1 XX -"), scored(0.0, 1.0, "XX", "0/0/1/0 demo/7"));
    assert_eq!(client.ask("nonsense 1 XX -"), scored(0.0, 1.0, "XX", "0/0/0/1 demo/7"));
    for round in 0..5 {
        let requests = 10.0 * round as f32 + 15.0;
        site.publish_row("192.0.2.7", requests);
        site.publish_models(&format!("{round}"));
        assert_eq!(client.ask(few), scored(requests, 9.0, "SE", &format!("1/0/0/0 demo/{round}")));
    }
    client.end();
}

#[test]
fn f4_programs_score_as_soon_as_something_is_published() {
    let directory = tempfile::tempdir().unwrap();
    for program in programs(directory.path(), &[]) {
        let mut site = Site::empty();
        scores(command(&program, "score", site.path()), &mut site);
    }
}

#[test]
fn the_example_scores_one_request() {
    let directory = tempfile::tempdir().unwrap();
    for compiler in COMPILERS {
        let program = compile_source("examples/c/score.c", compiler, Linked::Shared, &[], directory.path());
        let Some(program) = program else { continue };
        let score = |site: &Site| {
            Command::new(&program).arg(site.path()).args(["192.0.2.70", "curl/8"]).output().unwrap()
        };
        let mut site = Site::empty();
        let output = score(&site);
        assert_eq!(output.status.code(), Some(1));
        let why = String::from_utf8(output.stderr).unwrap();
        assert!(why.starts_with("score: no snapshot"), "{why}");
        site.publish_features();
        site.publish_web_model("7");
        let output = score(&site);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("{} web/7\n", web_score(70.0)));
    }
}

#[test]
fn f2_wrong_calls_return_codes() {
    let directory = tempfile::tempdir().unwrap();
    let site = Site::published();
    for program in programs(directory.path(), &[]) {
        run(command(&program, "calls", site.path()));
    }
}

/// Contributions and points add up, in numbers that are known (`explain_scores` in client.c).
#[test]
fn d4_scores_are_explained_in_c() {
    let directory = tempfile::tempdir().unwrap();
    let mut site = Site::published();
    for program in programs(directory.path(), &[]) {
        run(command(&program, "explain", site.path()));
    }
    // A model without leaf weights is refused with a code of its own.
    site.publish_web_model("7");
    for program in programs(directory.path(), &[]) {
        let output = command(&program, "unexplained", site.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("explain = true"), "{output:?}");
    }
}

#[test]
fn f2_nothing_is_wrong_under_valgrind() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = compile("gcc", Linked::Shared, &[], directory.path()) else { return };
    if !installed("valgrind") {
        return;
    }
    run(valgrind(&program, "calls", Site::published().path()));
    run(valgrind(&program, "explain", Site::published().path()));
    let mut site = Site::empty();
    scores(valgrind(&program, "score", site.path()), &mut site);
}

#[test]
fn f1_malloc_is_not_called_after_opening() {
    let directory = tempfile::tempdir().unwrap();
    for program in programs(directory.path(), &["-DCOUNT_ALLOCATIONS"]) {
        let mut site = Site::empty();
        let mut client = Client::start(command(&program, "allocations", site.path()));
        assert_eq!(client.ask("nothing"), "0 1");
        site.publish_features();
        site.publish_models("1");
        wait_until("a score", || {
            let answer = client.ask("again");
            assert!(answer.starts_with("0 "), "{program:?} allocated: {answer}");
            answer == "0 0"
        });
        for round in 0..10 {
            site.publish_row("192.0.2.60", round as f32);
            site.publish_models("2");
            assert_eq!(client.ask("changed"), "0 0", "{program:?}, round {round}");
        }
        client.end();
    }
}

/// Runs the program in a mode that says "open" and "done", while things are published.
fn while_publishing(mut command: Command) {
    let mut site = Site::published();
    command.arg(site.path());
    let mut client = Client::start(command);
    for round in 0..50 {
        // Another address, so that the scores asked for stay.
        site.publish_row("203.0.113.1", round as f32);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    assert_eq!(client.line(), "done");
    client.end();
}

#[test]
fn m6_a_handle_is_used_on_both_sides_of_a_fork() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = compile("gcc", Linked::Shared, &[], directory.path()) else { return };
    let mut command = Command::new(program);
    command.arg("fork");
    while_publishing(command);
}

#[test]
fn f4_threads_have_handles_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let Some(program) = compile("gcc", Linked::Shared, &[], directory.path()) else { return };
    let mut command = Command::new(program);
    command.arg("threads");
    while_publishing(command);
}

#[test]
fn f3_the_library_has_a_versioned_soname() {
    if !installed("readelf") {
        return;
    }
    let mut readelf = Command::new("readelf");
    readelf.args(["--dynamic", "--wide"]).arg(&library().shared);
    let dynamic = run(readelf);
    assert!(dynamic.contains("Library soname: [libblissffi.so.0]"), "{dynamic}");
}

#[test]
fn f3_the_library_exports_the_functions_of_the_header_and_nothing_else() {
    if !installed("nm") {
        return;
    }
    let mut nm = Command::new("nm");
    nm.args(["--dynamic", "--defined-only", "--format=posix"]).arg(&library().shared);
    let exported: std::collections::BTreeSet<String> =
        run(nm).lines().filter_map(|line| line.split(' ').next().map(str::to_owned)).collect();
    let header =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/include/bliss_ffi.h")).unwrap();
    let declared: std::collections::BTreeSet<String> = header
        .lines()
        .filter(|line| !line.starts_with("//") && !line.starts_with(' '))
        .filter_map(|line| Some(line[..line.find('(')?].rsplit([' ', '*']).next()?.to_owned()))
        .filter(|name| name.starts_with("bliss_"))
        .collect();
    assert_eq!(exported, declared);
}

/// Crates and modules that only the daemon needs: they build tables, import CatBoost's files, or speak HTTP.
const BUILD_SIDE: [(&str, &str); 7] = [
    ("bliss_core", "build"),
    ("bliss_catboost", "build"),
    ("bliss_store", "publisher"),
    ("serde_json", ""),
    ("flatbuffers", ""),
    ("getrandom", ""),
    ("tokio", ""),
];

/// Whether a mangled symbol names something in `module` of `krate`. Paths of generics and trait implementations are
/// mangled in another way than those of functions. The standard library's own `getrandom` is not the
/// crate.
fn is_of(symbol: &str, krate: &str, module: &str) -> bool {
    let (path, mut in_generics) = (format!("{}{krate}", krate.len()), format!("{krate}.."));
    if module.is_empty() {
        let symbol = symbol.replace("6random5linux9getrandom", "");
        return symbol.contains(&path) || symbol.contains(&in_generics);
    }
    in_generics.push_str(module);
    symbol.contains(&format!("{path}{}{module}", module.len())) || symbol.contains(&in_generics)
}

#[test]
fn f3_the_library_carries_nothing_of_the_build_side() {
    if !installed("nm") {
        return;
    }
    // The archive has all that was compiled; the shared library, what the linker kept of it.
    for file in [&library().archive, &library().shared] {
        let mut nm = Command::new("nm");
        nm.args(["--defined-only", "--format=just-symbols"]).arg(file);
        let symbols = run(nm);
        let find = |krate: &str, module: &str| symbols.lines().find(|symbol| is_of(symbol, krate, module));
        // That they would be seen.
        for (krate, module) in
            [("bliss_core", "scorer"), ("bliss_catboost", "eval"), ("bliss_store", "client")]
        {
            assert!(find(krate, module).is_some(), "{}: no symbol of {krate}::{module}", file.display());
        }
        for (krate, module) in BUILD_SIDE {
            assert_eq!(find(krate, module), None, "{}: {krate}::{module} is linked", file.display());
        }
    }
}

#[test]
fn f3_the_header_is_plain_c_and_cpp() {
    let header = concat!(env!("CARGO_MANIFEST_DIR"), "/include/bliss_ffi.h");
    let ways = [
        ("gcc", "c", "-std=c99"),
        ("gcc", "c", "-std=c2x"),
        ("clang", "c", "-std=c99"),
        ("g++", "c++", "-std=c++11"),
    ];
    for (compiler, language, standard) in ways {
        if installed(compiler) {
            let mut command = Command::new(compiler);
            command.args([standard, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-x", language, header]);
            run(command);
        }
    }
}
