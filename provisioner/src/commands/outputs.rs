//! `provisioner outputs`

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::ValueEnum;

use super::args::Global;
use crate::aws::{Account, Aws};
use crate::error::Error;
use crate::operations::outputs::{Outputs, SegmentForm};
use crate::output::Output;
use crate::resources::Context;
use crate::text::printable;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: OutputsFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum OutputsFormat {
    /// For people
    #[default]
    Table,
    /// For programs: one JSON object
    Json,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let aws = Aws::connect(&pipeline).await?;
    // A file that names its account needs no call.
    let account = match Account::declared(&pipeline) {
        Some(account) => account,
        None => Account::caller_identity(&aws, &pipeline).await?,
    };
    let context = Context { pipeline: &pipeline, account: &account, artifacts: None };
    let outputs = Outputs::of(&context, aws.is_local());
    match args.format {
        OutputsFormat::Table => output.print(&text(&outputs))?,
        OutputsFormat::Json => output.print_json(&outputs)?,
    }
    if !outputs.segment.is_counted {
        output.notes(&[format!(
            "Segment writes below {}, but notification.prefix is {}: its files are not counted",
            outputs.segment.folder,
            printable(&outputs.bucket.prefix)
        )]);
    }
    Ok(ExitCode::SUCCESS)
}

/// Adds a line with a title and a value.
fn add(out: &mut String, title: &str, value: &str) {
    out.push_str(&format!("    {title:<12}  {}\n", printable(value)));
}

fn text(outputs: &Outputs) -> String {
    let Outputs { pipeline, region, account, resources, segment, .. } = outputs;
    let mut out = format!("{pipeline} in {region}, account {account}\n");
    let mut seen = BTreeSet::new();
    for resource in resources {
        // A part of a resource that is listed has the same ARN.
        if !seen.insert(&resource.arn) {
            continue;
        }
        out.push_str(&format!("\n{} {}\n", resource.kind, printable(&resource.name)));
        add(&mut out, "ARN", &resource.arn);
        for (title, value) in [("URL", &resource.url), ("console", &resource.console_url)] {
            if let Some(value) = value {
                add(&mut out, title, value);
            }
        }
    }
    let SegmentForm { region, bucket, role_arn, external_id, folder, .. } = segment;
    out.push_str("\nSegment's form (AWS S3 destination)\n");
    add(&mut out, "region", region);
    add(&mut out, "bucket name", bucket);
    match (role_arn, external_id) {
        (Some(role_arn), Some(external_id)) => {
            add(&mut out, "IAM role ARN", role_arn);
            add(&mut out, "external ID", &format!("{external_id} (the workspace; the role demands it)"));
        }
        _ => add(
            &mut out,
            "IAM role ARN",
            "none: set segment.workspace_id in pipeline.toml and run `provisioner apply`, which creates the role",
        ),
    }
    add(&mut out, "folder", &format!("{folder} (Segment's own; the form does not ask for it)"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::tests::{FILES, in_context};

    #[test]
    fn text_lists_each_arn_once_and_ends_with_the_form() {
        for file in FILES {
            let text = in_context(file, |context| text(&Outputs::of(context, false)));
            let arns: Vec<&str> = text.lines().filter(|line| line.starts_with("    ARN ")).collect();
            assert_eq!(arns.iter().collect::<BTreeSet<_>>().len(), arns.len(), "{text}");
            let (_, form) = text.split_once("\nSegment's form").expect("a form");
            let has_role = form.contains("role/pipeline/events/events-segment");
            assert_eq!(has_role, file.contains("[segment]"), "{form}");
            assert_ne!(has_role, form.contains("set segment.workspace_id"), "{form}");
        }
    }
}
