//! `provisioner plan`

use std::path::PathBuf;
use std::process::ExitCode;

use super::args::{Global, PlanFlags, listen, unless_stopped};
use crate::aws::Session;
use crate::config::Pipeline;
use crate::error::Error;
use crate::operations::permissions;
use crate::output::{Output, PlanFormat};
use crate::reconcile::document::PlanDocument;
use crate::reconcile::plan::{Action, Plan, PlanOptions};
use crate::reconcile::saved_plan::SavedPlan;
use crate::resources::discover::discover;
use crate::resources::function::artifact::Artifacts;
use crate::resources::{Context, cost};

/// The exit codes of `--detailed-exitcode` if there are changes or problems, and if there are only orphans.
pub(super) const CHANGES: u8 = 2;
pub(super) const ORPHANS: u8 = 3;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Exit with 2 if there are changes, 3 if only orphans, 0 if neither
    #[arg(long)]
    detailed_exitcode: bool,
    /// Save the plan to a file, for `apply FILE`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    flags: PlanFlags,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: PlanFormat,
}

pub(crate) async fn run(args: &Args, global: &Global, output: &Output) -> Result<ExitCode, Error> {
    let pipeline = global.load()?;
    let options = PlanOptions::from(args.flags);
    let Planned { plan, document, .. } = unless_stopped(&listen()?, make(&pipeline, options)).await?;
    output.print_plan(args.format, &document)?;
    ensure_no_conflicts(&document)?;
    if let Some(file) = &args.out {
        SavedPlan::new(&pipeline, options, &document)?.write(file)?;
    }
    Ok(match args.detailed_exitcode {
        true if !plan.is_empty() => CHANGES.into(),
        true if !plan.orphans.is_empty() => ORPHANS.into(),
        true | false => ExitCode::SUCCESS,
    })
}

/// A plan and the session in which it was created.
pub(super) struct Planned<'a> {
    pub(super) session: Session<'a>,
    pub(super) plan: Plan,
    pub(super) document: PlanDocument,
}

/// Creates the plan that brings the live state in sync with the desired state.
pub(super) async fn make(pipeline: &Pipeline, options: PlanOptions) -> Result<Planned<'_>, Error> {
    // Only the comparison needs the code, so it is zipped while AWS is read.
    let artifacts = Artifacts::default();
    let loading = {
        let (pipeline, artifacts) = (pipeline.clone(), artifacts.clone());
        tokio::task::spawn_blocking(move || artifacts.load(&pipeline))
    };
    let reading = async {
        let session = Session::connect(pipeline).await?;
        let context = Context { pipeline, account: &session.account, artifacts: Some(&artifacts) };
        let found = discover(&session.aws, &context).await;
        Ok::<_, Error>((session, found))
    };
    let (loaded, read) = tokio::join!(loading, reading);
    let (session, found) = read?;
    loaded.map_err(|error| Error::internal("zip the function's binary", error))??;
    let (found, unread) = found?;
    let mut plan = Plan::reconcile(found, options);
    plan.notes.extend(unread);
    plan.notes.extend(permissions::missing(&session.aws, &session.account, &plan).await);
    let has_plain_http = session.aws.endpoint.as_ref().is_some_and(|url| url.starts_with("http://"));
    if pipeline.bucket.require_tls && has_plain_http {
        plan.notes.push(
            "the endpoint uses plain HTTP, which the bucket's policy denies to the function: set bucket.require_tls = \
             false (or --env local) for a local AWS"
                .to_owned(),
        );
    }
    plan.notes.extend(pipeline.table.billing.carries().map(|carries| format!("table.billing: {carries}")));
    let estimate = cost::estimate(pipeline, &plan);
    let document = PlanDocument::new(pipeline, &session.account, &plan, estimate);
    Ok(Planned { session, plan, document })
}

/// Fails if the plan has conflicts.
///
/// # Errors
/// One error for each conflict.
pub(super) fn ensure_no_conflicts(document: &PlanDocument) -> Result<(), Error> {
    let conflicts = document.resources.iter().filter(|entry| entry.action == Action::Conflict);
    let errors = conflicts.map(|entry| {
        let reason = entry.reason.as_deref().unwrap_or_default();
        Error::conflict(format!("{} {} {reason}", entry.kind, entry.name), entry.help.clone().unwrap_or_default())
    });
    Error::fail_with(errors.collect())
}
