//! `provisioner apply`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use super::args::{Global, PlanFlags, listen, unless_stopped};
use super::plan::{Planned, ensure_no_conflicts};
use super::{plan, verify};
use crate::aws::Aws;
use crate::error::Error;
use crate::output::apply_stream::{self, JsonReporter, Line};
use crate::output::{Output, TextOrJson, plan_text, progress, prompt};
use crate::reconcile::apply::{Outcome, apply};
use crate::reconcile::document::PlanDocument;
use crate::reconcile::plan::{Plan, PlanOptions};
use crate::reconcile::progress::Reporter;
use crate::reconcile::saved_plan::SavedPlan;
use crate::shutdown::Shutdown;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Plan that `plan --out` saved; applied as it was shown, or refused if it is stale
    #[arg(value_name = "PLANFILE")]
    plan: Option<PathBuf>,
    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Run `verify` after the apply
    #[arg(long)]
    verify: bool,
    #[command(flatten)]
    flags: PlanFlags,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: TextOrJson,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let saved = args.plan.as_deref().map(SavedPlan::read).transpose()?;
    let given = PlanOptions::from(args.flags);
    let options = saved.as_ref().map_or(Ok(given), |saved| saved.options(given))?;
    let shutdown = listen()?;
    let Planned { session, plan, document } = unless_stopped(&shutdown, plan::make(&pipeline, options)).await?;
    if let Some(saved) = &saved {
        saved.ensure_current(&pipeline, &document)?;
    }
    execute(&session.aws, &plan, &document, args.yes, &shutdown, args.format, output).await?;
    if args.verify {
        verify::verify(&session, verify::TIMEOUT_SECONDS, args.format, output).await?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a plan, asks for confirmation unless `yes`, and applies exactly this plan.
pub(super) async fn execute(
    aws: &Aws,
    plan: &Plan,
    document: &PlanDocument,
    yes: bool,
    shutdown: &Shutdown,
    format: TextOrJson,
    output: &Output,
) -> Result<(), Error> {
    match format {
        TextOrJson::Text => output.print_styled(&plan_text::plan(document))?,
        TextOrJson::Json => apply_stream::print(output, &Line::Plan { plan: document }),
    }
    ensure_no_conflicts(document)?;
    let started = Instant::now();
    let outcome = if plan.is_empty() {
        Outcome::default()
    } else {
        if !yes {
            prompt::confirm(output, prompt::APPLY, shutdown).await?;
        }
        let reporter: Box<dyn Reporter + '_> = match format {
            TextOrJson::Text => progress::for_stderr(output),
            TextOrJson::Json => Box::new(JsonReporter { output }),
        };
        apply(aws, plan, reporter.as_ref(), shutdown).await
    };
    let took = started.elapsed();
    if format == TextOrJson::Json {
        let Outcome { done, failed, skipped, stopped } = outcome;
        let signal = stopped.map(|signal| signal.to_string());
        let seconds = took.as_secs_f64();
        apply_stream::print(output, &Line::Finished { done, failed, skipped, signal, seconds });
    }
    outcome.complete()?;
    if format == TextOrJson::Text && !plan.is_empty() {
        output.print_styled(&plan_text::summary(document.counts, took))?;
    }
    Ok(())
}
