//! The files that follow from the keys of `pipeline.toml` and from the arguments of the commands: the JSON Schema, the
//! reference and the man pages. `make generate` writes them, and a test checks that they are current.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};
use clap_mangen::Man;
use serde_json::Value as Json;

use super::{Cli, plan, status};
use crate::config;
use crate::error::Error;
use crate::shutdown::Signal;

/// The folder of the man pages, below the root of the repository.
const MAN: &str = "docs/man";

const HEADING: &str = "\
# Reference

`make generate` writes this page from the declarations in `provisioner/src`; the [README](../README.md) explains the terms.

## pipeline.toml

In a default, `NAME` is `pipeline.name`. A section `[environments.NAME]` overrides keys of these sections with `--env NAME`.

";

const VARIABLES: [(&str, &str); 10] = [
    ("PIPELINE_CONFIG", "the file, if `--config` is not given; empty counts as unset"),
    ("PIPELINE_ENV", "the environment, if `--env` is not given; empty counts as unset"),
    ("AWS_PROFILE, AWS_ACCESS_KEY_ID", "the sign-in; all other variables and files of the AWS CLI count too"),
    ("AWS_REGION", "must be `pipeline.region` if it is set"),
    ("AWS_ENDPOINT_URL", "another endpoint than AWS's, for all services; with `_SERVICE` for one"),
    ("AWS_CA_BUNDLE", "further certificate authorities, as PEM"),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "the proxy, and the hosts that are reached without it"),
    ("NO_COLOR", "no colours on terminals"),
    ("COLUMNS", "the width of tables, instead of that of the terminal"),
    ("XDG_CACHE_HOME", "the folder, instead of `~/.cache`, of the names of events for completions"),
];

/// Returns the program without the git revision in its version.
fn program() -> Command {
    let mut program = Cli::command().version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    program.build();
    program
}

fn visible(program: &Command) -> impl Iterator<Item = &Command> {
    program.get_subcommands().filter(|command| !command.is_hide_set())
}

/// Returns the content of every generated file, by its path below the root of the repository.
fn files() -> BTreeMap<String, String> {
    let (program, schema) = (program(), config::schema());
    let mut files = BTreeMap::from([
        ("docs/pipeline.schema.json".to_owned(), format!("{:#}\n", schema.as_value())),
        ("docs/reference.md".to_owned(), reference(schema.as_value(), &program)),
    ]);
    for command in std::iter::once(&program).chain(visible(&program)) {
        let (page, mut text) = (Man::new(command.clone()).manual("provisioner"), Vec::new());
        page.render(&mut text).expect("a man page");
        files.insert(format!("{MAN}/{}", page.get_filename()), String::from_utf8(text).expect("UTF-8"));
    }
    files
}

fn reference(schema: &Json, program: &Command) -> String {
    let mut out = HEADING.to_owned();
    for (name, section) in schema["properties"].as_object().into_iter().flatten() {
        if name != "environments" {
            section_reference(&mut out, name, section);
        }
    }
    out.push_str("## Commands\n\n    provisioner [OPTIONS] COMMAND\n\n");
    arguments(&mut out, program.get_arguments().filter(|arg| arg.is_global_set()));
    for command in visible(program) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let usage = command.clone().render_usage().to_string();
        let usage = usage.trim_start_matches("Usage: ").trim();
        out.push_str(&format!("### `{}`\n\n{about}.\n\n    {usage}\n\n", command.get_name()));
        let own = command.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id().as_str() != "help");
        arguments(&mut out, own);
    }
    let error = Error::usage("", "").exit_code();
    out.push_str(&format!(
        "## Exit codes\n\n\
         | code | meaning |\n| --- | --- |\n\
         | 0 | success |\n\
         | {error} | any error, also wrong usage and a refused plan |\n\
         | {} | `plan --detailed-exitcode`: there are changes or problems |\n\
         | {} | `plan --detailed-exitcode`: only resources are orphaned |\n\
         | {} | `status`: the pipeline does not count, or may not |\n\
         | {} | SIGINT |\n\
         | {} | SIGTERM |\n\n",
        plan::CHANGES,
        plan::ORPHANS,
        status::NOT_WORKING,
        Signal::Interrupt.exit_code(),
        Signal::Terminate.exit_code(),
    ));
    out.push_str("## Environment variables\n\n| variable | meaning |\n| --- | --- |\n");
    for (variable, meaning) in VARIABLES {
        out.push_str(&row(&[code(variable), meaning.to_owned()]));
    }
    out
}

fn section_reference(out: &mut String, path: &str, section: &Json) {
    let (title, section) = match section["items"].is_object() {
        true => (format!("[[{path}]]"), &section["items"]),
        false => (format!("[{path}]"), section),
    };
    let heading = "| key | type | default | values | meaning | example |\n| --- | --- | --- | --- | --- | --- |\n";
    out.push_str(&format!("### `{title}`\n\n{heading}"));
    if section["additionalProperties"].is_object() {
        out.push_str(&key_reference("*", &section["additionalProperties"], false));
    }
    let children = || section["properties"].as_object().into_iter().flatten();
    for (name, child) in children().filter(|(_, child)| !is_section(child)) {
        let is_required = section["required"].as_array().is_some_and(|required| required.iter().any(|key| key == name));
        out.push_str(&key_reference(name, child, is_required));
    }
    out.push('\n');
    for (name, child) in children().filter(|(_, child)| is_section(child)) {
        section_reference(out, &format!("{path}.{name}"), child);
    }
}

fn is_section(schema: &Json) -> bool {
    schema["properties"].is_object() || schema["items"]["properties"].is_object()
}

fn key_reference(name: &str, schema: &Json, is_required: bool) -> String {
    let kind = match schema["type"].as_str() {
        Some("integer") => "whole number",
        Some("boolean") => "true or false",
        Some("string") => "text",
        Some("array") => "list of texts",
        Some("object") => "table of texts",
        _ => "text or table",
    };
    let text = schema["description"].as_str().unwrap_or_default();
    let (meaning, in_words) = text.split_once(" Default: ").unwrap_or((text, ""));
    let default = match &schema["default"] {
        Json::Null if is_required => "required".to_owned(),
        Json::Null => in_words.trim_end_matches('.').to_owned(),
        default => literal(default),
    };
    let example = literal(&schema["examples"][0]);
    row(&[code(name), kind.to_owned(), default, values(schema), meaning.to_owned(), example])
}

/// Returns the values that a key accepts, in words.
fn values(schema: &Json) -> String {
    let of_all = ["items", "additionalProperties"].into_iter().map(|part| &schema[part]).find(|part| part.is_object());
    let single = of_all.unwrap_or(schema);
    let number = |of: &Json, name: &str| of[name].as_u64();
    let mut parts = Vec::new();
    if let Some(allowed) = single["enum"].as_array() {
        parts.push(allowed.iter().map(literal).collect::<Vec<_>>().join(", "));
    }
    if let (Some(least), Some(most)) = (number(single, "minimum"), number(single, "maximum")) {
        parts.push(format!("{least} to {most}"));
    }
    if let (Some(unit), Some(last)) = (single["x-unit"].as_str(), parts.last_mut()) {
        last.push_str(&format!(" {unit}"));
    }
    match (number(single, "minLength"), number(single, "maxLength")) {
        (Some(least), Some(most)) if least == most => parts.push(format!("{least} characters")),
        (Some(least), Some(most)) => parts.push(format!("{least} to {most} characters")),
        (None, Some(most)) => parts.push(format!("up to {most} characters")),
        (_, None) => {}
    }
    if let Some(pattern) = single["pattern"].as_str() {
        parts.push(match pattern.strip_prefix('^').and_then(|rest| rest.strip_suffix("*$")) {
            Some(letters) if letters.starts_with('[') => format!("of {}", code(letters)),
            _ => format!("of the form {}", code(pattern.trim_start_matches('^').trim_end_matches('$'))),
        });
    }
    if let Some(least) = number(schema, "minItems") {
        parts.push(format!("{least} or more entries"));
    }
    if let Some(most) = number(schema, "maxItems") {
        parts.push(format!("up to {most} entries"));
    }
    if let Some([word, units]) = schema["anyOf"].as_array().map(Vec::as_slice) {
        let (word, units) = (literal(&word["const"]), &units["properties"]["read"]);
        parts.push(format!("{word}, or units from {} to {}", units["minimum"], units["maximum"]));
    }
    parts.join(", ")
}

/// Lists arguments, if there are any.
fn arguments<'a>(out: &mut String, args: impl Iterator<Item = &'a Arg>) {
    let rows: String = args.filter(|arg| !arg.is_hide_set()).map(argument).collect();
    if !rows.is_empty() {
        out.push_str(&format!("| argument | meaning |\n| --- | --- |\n{rows}\n"));
    }
}

fn argument(arg: &Arg) -> String {
    let short = arg.get_short().filter(|_| arg.get_long().is_some()).map(|short| format!("-{short}, "));
    let mut meaning = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values = arg.get_possible_values();
    let values = values.iter().filter(|value| !value.is_hide_set()).map(|value| match value.get_help() {
        Some(help) => format!("{} ({help})", code(value.get_name())),
        None => code(value.get_name()),
    });
    let values: Vec<String> = values.collect();
    if !values.is_empty() {
        meaning.push_str(&format!(": {}", values.join(", ")));
    }
    if let ([default, ..], true) = (arg.get_default_values(), arg.get_action().takes_values()) {
        meaning.push_str(&format!(" [default: {}]", default.to_string_lossy()));
    }
    row(&[code(&format!("{}{arg}", short.unwrap_or_default())), meaning])
}

fn row(cells: &[String]) -> String {
    let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
    format!("| {} |\n", cells.join(" | "))
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// Returns a value as TOML.
fn literal(value: &Json) -> String {
    code(&toml::Value::try_from(value).expect("a value of TOML").to_string())
}

#[test]
fn generated_files_are_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let files = files();
    let pages = std::fs::read_dir(root.join(MAN)).into_iter().flatten().flatten();
    let pages = pages.map(|entry| format!("{MAN}/{}", entry.file_name().to_string_lossy()));
    let obsolete: Vec<String> = pages.filter(|page| !files.contains_key(page)).collect();
    if std::env::var_os("GENERATE").is_some() {
        std::fs::create_dir_all(root.join(MAN)).expect("a folder");
        for page in obsolete {
            std::fs::remove_file(root.join(page)).expect("an obsolete page");
        }
        for (path, text) in files {
            std::fs::write(root.join(&path), text).expect("a generated file");
        }
        return;
    }
    let is_current = |path: &str, text: &str| std::fs::read_to_string(root.join(path)).is_ok_and(|found| found == text);
    let stale = files.iter().filter(|(path, text)| !is_current(path, text)).map(|(path, _)| path.clone());
    let stale: Vec<String> = stale.chain(obsolete).collect();
    assert!(stale.is_empty(), "run `make generate` and review the diff: {} out of date", stale.join(", "));
}
