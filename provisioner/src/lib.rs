//! Reconciles an event pipeline on AWS with one `pipeline.toml`, without a state file, and reads its counts.
//!
//! Modules import downwards only:
//!
//! ```text
//! commands      one file per subcommand: arguments, run, text
//! dashboard     the page of counts and its server
//! output        stdout, stderr, formats, progress, prompt
//! operations    backfill, replay, status, outputs, logs, verify, IAM policies
//! counts        the reader of the counts table, periods
//! resources     the kinds of resources, discovery, cost
//! reconcile     the engine: diff, plan, document, graph, apply
//! aws           clients, identity, ARNs, policies, waits
//! config        pipeline.toml, one file per section
//! error private_file shutdown text
//! ```

mod aws;
mod commands;
mod config;
mod counts;
mod dashboard;
mod error;
#[cfg(fuzzing)]
pub mod fuzzing;
mod operations;
mod output;
mod private_file;
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
    let (args, output): (Vec<OsString>, Output) = (args.into_iter().collect(), Output::terminal());
    if commands::complete(&args, &output) {
        return ExitCode::SUCCESS;
    }
    let cli = match Cli::parse_args(args) {
        Ok(cli) => cli,
        Err(error) => {
            // A request for help is not an error. Usage errors exit with 1: 2 means that a plan has changes.
            let _ = error.print();
            return u8::from(error.use_stderr()).into();
        }
    };
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
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::{Path, PathBuf};

    /// The modules from top to bottom; a module imports only from modules below it.
    const LAYERS: [&str; 14] = [
        "fuzzing",
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
        "private_file",
        "shutdown",
        "text",
    ];
    /// The modules that import nothing of the crate.
    const LEAVES: [&str; 3] = ["error", "shutdown", "text"];

    /// The path of a module: `["aws", "arn"]`.
    type Module = Vec<String>;

    fn source() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
    }

    fn rust_files(folder: &Path) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
        let (folders, files): (Vec<PathBuf>, Vec<PathBuf>) = entries.partition(|path| path.is_dir());
        let mut files: Vec<PathBuf> =
            files.into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")).collect();
        files.extend(folders.iter().flat_map(|folder| rust_files(folder)));
        files
    }

    /// Reads every module of the crate except `main`, `lib` and the modules of tests.
    fn modules() -> BTreeMap<Module, String> {
        let mut modules = BTreeMap::new();
        for path in rust_files(&source()) {
            let inside = path.strip_prefix(source()).expect("a file of the crate").with_extension("");
            let module: Module = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
            let module = module.strip_suffix(&["mod".to_owned()]).map(<[String]>::to_vec).unwrap_or(module);
            if !matches!(module.last().map(String::as_str), Some("main" | "lib" | "tests" | "recorded")) {
                modules.insert(module, std::fs::read_to_string(&path).expect("a readable file"));
            }
        }
        modules
    }

    /// Expands `a::{b, c::{d, e}}` at the beginning of `text` into paths, and returns them.
    fn expand(text: &str) -> Vec<Module> {
        fn walk<'t>(mut text: &'t str, prefix: &[String], paths: &mut Vec<Module>) -> &'t str {
            let mut path = prefix.to_vec();
            loop {
                text = text.trim_start();
                if let Some(mut group) = text.strip_prefix('{') {
                    loop {
                        group = walk(group, &path, paths).trim_start();
                        match group.strip_prefix(',') {
                            Some(rest) if !rest.trim_start().starts_with('}') => group = rest,
                            rest => return rest.unwrap_or(group).trim_start().trim_start_matches('}'),
                        }
                    }
                }
                let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
                path.extend((end > 0).then(|| text[..end].to_owned()));
                text = &text[end..];
                match text.strip_prefix("::") {
                    Some(rest) => text = rest,
                    None => break,
                }
            }
            paths.push(path);
            text
        }
        let mut paths = Vec::new();
        walk(text, &[], &mut paths);
        paths
    }

    /// Returns the paths that a module names by `crate::` or `super::`, from the root of the crate. Comments are no
    /// imports, and neither are the imports of its tests.
    fn imports(module: &[String], text: &str) -> BTreeSet<Module> {
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let code: String =
            text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        let mut found = BTreeSet::new();
        for (keyword, base) in [("crate::", &[][..]), ("super::", &module[..module.len() - 1])] {
            for (at, _) in code.match_indices(keyword) {
                let paths = expand(&code[at + keyword.len()..]);
                found.extend(paths.into_iter().map(|path| [base, &path].concat()));
            }
        }
        found
    }

    fn layer(module: &str) -> usize {
        LAYERS.iter().position(|layer| *layer == module).unwrap_or_else(|| panic!("{module} is in no layer"))
    }

    fn violations(module: &[String], text: &str) -> Vec<String> {
        let rooms = imports(module, text).into_iter().filter_map(|path| path.into_iter().next());
        let others: BTreeSet<String> = rooms.filter(|room| *room != module[0]).collect();
        let is_leaf = LEAVES.contains(&module[0].as_str());
        others.into_iter().filter(|room| is_leaf || layer(room) <= layer(&module[0])).collect()
    }

    /// Returns a circle of files that import each other, if there is one. A file and its own folder are one room.
    fn circle(modules: &BTreeMap<Module, String>) -> Option<Vec<Module>> {
        let mut edges: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
        for (module, text) in modules {
            for path in imports(module, text) {
                let target = (1..=path.len()).rev().find_map(|n| modules.get_key_value(&path[..n]));
                let target = target.map(|(target, _)| target);
                let is_room = |other: &Module| other.starts_with(module) || module.starts_with(other);
                edges.entry(module).or_default().extend(target.filter(|other| !is_room(other)));
            }
        }
        // Removes the files without imports that are left, until none is; what remains is in circles or leads to one.
        loop {
            let done: Vec<&Module> = edges.iter().filter(|(_, to)| to.is_empty()).map(|(from, _)| *from).collect();
            let known: BTreeSet<&Module> = edges.keys().copied().collect();
            for to in edges.values_mut() {
                to.retain(|other| known.contains(other) && !done.contains(other));
            }
            edges.retain(|from, _| !done.contains(from));
            if done.is_empty() && edges.values().all(|to| !to.is_empty()) {
                return (!edges.is_empty()).then(|| edges.into_keys().cloned().collect());
            }
        }
    }

    fn module(path: &str) -> Module {
        path.split('/').map(str::to_owned).collect()
    }

    #[test]
    fn modules_import_from_lower_layers_only() {
        let modules = modules();
        assert!(modules.len() > 60, "{} modules", modules.len());
        for (module, text) in &modules {
            assert_eq!(violations(module, text), Vec::<String>::new(), "{}", module.join("/"));
        }
    }

    #[test]
    fn files_import_each_other_in_no_circle() {
        assert_eq!(circle(&modules()), None);
    }

    #[test]
    fn upward_import_is_a_violation() {
        let of = |path: &str, text: &str| violations(&module(path), text);
        assert_eq!(of("aws/arn", "use crate::reconcile::plan;"), ["reconcile"]);
        let grouped = "use crate::{\n    config::{Pipeline, load},\n    output::{self, Output},\n};";
        assert_eq!(of("aws/arn", grouped), ["output"]);
        assert_eq!(of("error", "fn f() { crate::text::printable(\"\") }"), ["text"]);
        assert_eq!(of("aws/arn", "/// [`crate::commands`]\nuse crate::config::Pipeline;"), Vec::<String>::new());
    }

    #[test]
    fn circle_of_three_files_is_found() {
        let mut modules = BTreeMap::from([
            (module("aws"), "mod arn;\npub(crate) use arn::Arn;".to_owned()),
            (module("aws/arn"), "use super::account::{self, Account};".to_owned()),
            (module("aws/account"), "use crate::aws::wait::Wait;".to_owned()),
            (module("aws/wait"), "use super::super::config;".to_owned()),
            (module("config"), String::new()),
        ]);
        assert_eq!(circle(&modules), None);
        modules.insert(module("aws/wait"), "use super::{arn::resource_in, clients};".to_owned());
        assert_eq!(circle(&modules), Some(["aws/account", "aws/arn", "aws/wait"].map(module).to_vec()));
    }

    #[test]
    fn reconcile_names_no_aws_service() {
        for path in rust_files(&source().join("reconcile")) {
            let text = std::fs::read_to_string(&path).expect("a readable file").to_lowercase();
            for service in ["aws_sdk", "dynamodb", "lambda", "s3", "iam:", "sqs", "cloudwatch"] {
                assert!(!text.contains(service), "{} names {service}", path.display());
            }
        }
    }
}
