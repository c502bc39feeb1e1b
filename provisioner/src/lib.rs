//! Reconciles an event pipeline on AWS with one `pipeline.toml`, without a state file, and reads its counts.
//!
//! Modules import downwards only:
//!
//! ```text
//! commands      one file per subcommand: arguments, run, text
//! dashboard     the page of counts and its server
//! output        stdout, stderr, formats, progress, prompt
//! operations    backfill, replay, status, verify, IAM policies
//! counts        the reader of the counts table, periods
//! resources     the kinds of resources, discovery, cost
//! reconcile     the engine: diff, plan, document, graph, apply
//! aws           clients, identity, ARNs, policies, waits
//! config        pipeline.toml, one file per section
//! error shutdown text
//! ```

mod aws;
mod commands;
mod config;
mod counts;
mod dashboard;
mod error;
mod operations;
mod output;
mod reconcile;
mod resources;
mod shutdown;
mod text;

use std::ffi::OsString;
use std::process::ExitCode;

use commands::Cli;
use error::ErrorKind;
use output::Output;

/// Runs the program: parses `args`, runs the command, prints its error if it fails, and returns the exit code.
pub async fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::parse_args(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A request for help is not an error. Usage errors exit with 1: 2 means that a plan has changes.
            let _ = error.print();
            return u8::from(error.use_stderr()).into();
        }
    };
    let output = Output::terminal();
    match commands::run(&cli, &output).await {
        Ok(code) => code,
        // The reader closed stdout, as with `| head`. That is a failure only of a command that makes changes: its plan
        // was not seen.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => u8::from(!cli.command.is_read_only()).into(),
        Err(error) => {
            output.error(&error);
            error.exit_code().into()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    /// The modules from top to bottom; a module imports only from modules below it.
    const LAYERS: [&str; 12] = [
        "commands",
        "dashboard",
        "output",
        "operations",
        "counts",
        "resources",
        "reconcile",
        "aws",
        "config",
        "error",
        "shutdown",
        "text",
    ];
    /// The modules that import nothing of the crate.
    const LEAVES: [&str; 3] = ["error", "shutdown", "text"];

    fn layer(module: &str) -> usize {
        LAYERS.iter().position(|layer| *layer == module).unwrap_or_else(|| panic!("{module} is in no layer"))
    }

    fn rust_files(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
        let mut files: Vec<PathBuf> =
            files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect();
        files.extend(folders.iter().flat_map(|folder| rust_files(folder)));
        files
    }

    /// Returns the first module of each `crate::` path, also in brace groups. Comments are not imports.
    fn imports(text: &str) -> Vec<String> {
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let ident = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
        let mut found = Vec::new();
        for (at, _) in code.match_indices("crate::") {
            let rest = &code[at + "crate::".len()..];
            match rest.strip_prefix('{') {
                Some(group) => {
                    let mut depth = 0;
                    let mut start = true;
                    for (i, c) in group.char_indices() {
                        match c {
                            '{' => depth += 1,
                            '}' if depth == 0 => break,
                            '}' => depth -= 1,
                            ',' if depth == 0 => start = true,
                            c if start && !c.is_whitespace() => {
                                found.push(ident(&group[i..]));
                                start = false;
                            }
                            _ => {}
                        }
                    }
                }
                None => found.push(ident(rest)),
            }
        }
        found
    }

    fn violations(module: &str, text: &str) -> Vec<String> {
        let imports = imports(text).into_iter().filter(|other| other != module);
        imports.filter(|other| LEAVES.contains(&module) || layer(other) <= layer(module)).collect()
    }

    #[test]
    fn modules_import_from_lower_layers_only() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for path in rust_files(&source) {
            let inside = path.strip_prefix(&source).expect("a file of the crate");
            let module = inside.iter().next().expect("a name").to_string_lossy().trim_end_matches(".rs").to_owned();
            if matches!(module.as_str(), "main" | "lib") {
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("a readable file");
            assert_eq!(violations(&module, &text), Vec::<String>::new(), "{}", inside.display());
        }
    }

    #[test]
    fn upward_import_is_a_violation() {
        assert_eq!(violations("aws", "use crate::reconcile::plan;"), ["reconcile"]);
        assert_eq!(
            violations("aws", "use crate::{\n    config::{Pipeline, load},\n    output::Output,\n};"),
            ["output"]
        );
        assert_eq!(violations("error", "fn f() { crate::text::printable(\"\") }"), ["text"]);
        assert_eq!(violations("aws", "/// [`crate::commands`]\nuse crate::config::Pipeline;"), Vec::<String>::new());
    }

    #[test]
    fn reconcile_names_no_aws_service() {
        for path in rust_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/reconcile")) {
            let text = std::fs::read_to_string(&path).expect("a readable file").to_lowercase();
            for service in ["aws_sdk", "dynamodb", "lambda", "s3", "iam:", "sqs", "cloudwatch"] {
                assert!(!text.contains(service), "{} names {service}", path.display());
            }
        }
    }
}
