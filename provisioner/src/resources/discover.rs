//! Reads what there is, many things at a time.

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

/// Reads at the same time: all of a pipeline's resources at once, yet bounded whatever the file declares.
const AT_ONCE: usize = 16;

/// Reads what is declared, and looks for what the pipeline owns beyond that. Where the looking fails it is told of in a
/// line each: a plan of what is declared needs none of it.
///
/// # Errors
/// Every failure to read what is declared, not just the first: a person without rights should see all that is missing.
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
            let note = format!("what the pipeline owns and no longer declares was not looked for: {why}");
            return Ok((found, vec![note]));
        }
    };
    let known: Vec<&Address> = declared.iter().map(|resource| resource.address()).collect();
    let mut others = super::at_arns(context, &arns);
    others.retain(|resource| !known.contains(&resource.address()));
    let mut unread = Vec::new();
    for (result, other) in self::read(aws, &others).await.into_iter().zip(&others) {
        match result {
            Ok(resource) if resource.ownership() == Some(Ownership::Owned) => found.orphans.push(resource),
            Ok(_) => {}
            Err(error) => {
                let why = error.summary();
                unread.push(format!("{} seems to be this pipeline's and is not declared: {why}", other.address()));
                found.unread.push(other.address().clone());
            }
        }
    }
    Ok((found, unread))
}

/// Reads them all, in the order given.
async fn read(aws: &Aws, resources: &[Arc<dyn Declared>]) -> Vec<Result<Box<dyn Observed>, Error>> {
    let reads = resources.iter().map(|resource| Arc::clone(resource).observe(aws));
    stream::iter(reads).buffered(AT_ONCE).collect().await
}

/// The ARNs of what carries the pipeline's mark. Tags are found with a delay, so each is still to be read.
async fn owned(aws: &Aws, pipeline: &str) -> Result<Vec<String>, AwsError> {
    let (mut tagged, roles) = tokio::try_join!(tagged(aws, pipeline), roles(aws, pipeline))?;
    tagged.extend(roles);
    Ok(tagged)
}

async fn tagged(aws: &Aws, pipeline: &str) -> Result<Vec<String>, AwsError> {
    let filter = |key: &str, value: &str| TagFilter::builder().key(key).values(value).build();
    let ours = [filter(PIPELINE_TAG, pipeline), filter(MANAGED_BY_TAG, MANAGED_BY)];
    let mut arns = Vec::new();
    let mut token = None;
    loop {
        let request = aws.tagging.get_resources().set_tag_filters(Some(ours.to_vec()));
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

/// The tagging API does not tell of roles.
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

/// What a deployer needs for [`discover`] beyond reading what is declared. Neither can be bound to a resource (service
/// authorization reference).
pub(crate) const DISCOVERY_ACTIONS: [&str; 2] = ["tag:GetResources", "iam:ListRoles"];
