//! Reads the live state of the declared resources, and discovers orphaned ones.

use std::sync::Arc;

use aws_sdk_resourcegroupstagging::types::TagFilter;
use futures_util::stream::{self, StreamExt};

use super::Context;
use crate::aws::{Aws, AwsError, Call, role_path};
use crate::config::{MANAGED_BY, MANAGED_BY_TAG, PIPELINE_TAG};
use crate::error::Error;
use crate::reconcile::ownership::Ownership;
use crate::reconcile::plan::Found;
use crate::reconcile::resource::{Address, Declared, Observed};

/// The maximum number of concurrent reads: enough for all resources of a pipeline with ten consumers, and a bound for
/// larger ones. One that waits for another makes the chain of calls longer.
const CONCURRENT_READS: usize = 64;

/// Reads the declared resources, and looks for orphaned ones. Each failure of this search becomes a note, since the
/// plan of the declared resources does not depend on it.
///
/// # Errors
/// All failures to read the declared resources, not just the first, so that a user sees all missing permissions at
/// once.
pub(crate) async fn discover(aws: &Aws, context: &Context<'_>) -> Result<(Found, Vec<String>), Error> {
    let declared = super::desired(context);
    let (read, owned) = tokio::join!(read(aws, &declared), owned(aws, &context.pipeline.name));
    let mut failed = Vec::new();
    let mut found = Found::default();
    for result in read {
        match result {
            Ok(resource) => found.declared.push(resource),
            Err(error) => failed.push(error),
        }
    }
    Error::fail_with(failed)?;

    let arns = match owned {
        Ok(arns) => arns,
        Err(error) => {
            let why = error.short();
            let note = format!("failed to look for orphaned resources: {why}");
            return Ok((found, vec![note]));
        }
    };
    let known: Vec<&Address> = declared.iter().map(|resource| resource.address()).collect();
    let mut candidates = super::at_arns(context, &arns);
    candidates.retain(|resource| !known.contains(&resource.address()));
    let mut notes = Vec::new();
    for (result, candidate) in self::read(aws, &candidates).await.into_iter().zip(&candidates) {
        match result {
            Ok(resource) if resource.ownership() == Some(Ownership::Owned) => found.orphans.push(resource),
            Ok(_) => {}
            // The tag index lists deleted resources for a while.
            Err(_) if Arc::clone(candidate).is_absent(aws).await => {}
            Err(error) => {
                let why = error.summary();
                notes.push(format!("{} may be orphaned: {why}", candidate.address()));
                found.unread.push(candidate.address().clone());
            }
        }
    }
    Ok((found, notes))
}

/// Reads the resources concurrently, and returns them in the given order.
async fn read(aws: &Aws, resources: &[Arc<dyn Declared>]) -> Vec<Result<Box<dyn Observed>, Error>> {
    let reads = resources.iter().map(|resource| Arc::clone(resource).observe(aws));
    stream::iter(reads).buffered(CONCURRENT_READS).collect().await
}

/// Returns the ARNs of the resources with the pipeline's ownership markers. The tag index is eventually consistent, so
/// the caller must still read each resource.
async fn owned(aws: &Aws, pipeline: &str) -> Result<Vec<String>, AwsError> {
    let (mut tagged, roles) = tokio::try_join!(tagged(aws, pipeline), roles(aws, pipeline))?;
    tagged.extend(roles);
    Ok(tagged)
}

async fn tagged(aws: &Aws, pipeline: &str) -> Result<Vec<String>, AwsError> {
    let filter = |key: &str, value: &str| TagFilter::builder().key(key).values(value).build();
    let markers = [filter(PIPELINE_TAG, pipeline), filter(MANAGED_BY_TAG, MANAGED_BY)];
    let mut arns = Vec::new();
    let mut token = None;
    loop {
        let request = aws.tagging.get_resources().set_tag_filters(Some(markers.to_vec()));
        let request = request.set_pagination_token(token);
        let page = request.send().await.call("tag:GetResources")?;
        let found = page.resource_tag_mapping_list.unwrap_or_default();
        arns.extend(found.into_iter().filter_map(|mapping| mapping.resource_arn));
        token = page.pagination_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(arns);
        }
    }
}

/// Lists the pipeline's roles, which the tagging API does not return.
async fn roles(aws: &Aws, pipeline: &str) -> Result<Vec<String>, AwsError> {
    let mut arns = Vec::new();
    let mut marker = None;
    loop {
        let request = aws.iam.list_roles().path_prefix(role_path(pipeline)).set_marker(marker);
        let page = request.send().await.call("iam:ListRoles")?;
        arns.extend(page.roles.into_iter().map(|role| role.arn));
        marker = page.marker;
        if marker.is_none() {
            return Ok(arns);
        }
    }
}

/// The IAM actions that [`discover`] needs in addition to reading the declared resources. Neither supports
/// resource-level permissions (service authorization reference).
pub(crate) const DISCOVERY_ACTIONS: [&str; 2] = ["tag:GetResources", "iam:ListRoles"];
