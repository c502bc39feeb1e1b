//! Reads what there is, many things at a time.

use std::sync::Arc;

use aws_sdk_resourcegroupstagging::types::TagFilter;
use futures_util::stream::{self, StreamExt};

use crate::aws::{Aws, AwsError, Call};
use crate::error::Error;
use crate::kind::{Address, Observed, Resource, Scope};
use crate::owner::{self, Owner};
use crate::plan::Found;
use crate::resources;

/// Reads at the same time: all of a pipeline's resources at once, yet bounded whatever the file declares.
const AT_ONCE: usize = 16;

/// Reads what is declared, and looks for what the pipeline owns beyond that. Where the looking fails, the reason is
/// given instead: a plan of what is declared needs none of it.
///
/// # Errors
/// Every failure to read, not just the first: a person without rights should see all that is missing.
pub async fn find(aws: &Aws, scope: &Scope<'_>) -> Result<(Found, Option<AwsError>), Error> {
    let declared = resources::declared(scope);
    let (read, owned) = tokio::join!(read(aws, &declared), owned(aws, &scope.pipeline.name));
    let live = read?;
    let (arns, failure) = match owned {
        Ok(arns) => (arns, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let known: Vec<&Address> = declared.iter().map(|resource| resource.address()).collect();
    let mut undeclared = resources::at(scope, &arns);
    undeclared.retain(|resource| !known.contains(&resource.address()));
    let mut orphans = self::read(aws, &undeclared).await?;
    orphans.retain(|resource| resource.owner() == Some(Owner::Ours));
    Ok((Found { declared: live, orphans }, failure))
}

/// Reads them all, in the order given.
async fn read(aws: &Aws, resources: &[Arc<dyn Resource>]) -> Result<Vec<Box<dyn Observed>>, Error> {
    let reads = resources.iter().map(|resource| Arc::clone(resource).observe(aws));
    let results: Vec<_> = stream::iter(reads).buffered(AT_ONCE).collect().await;
    let mut observed = Vec::new();
    let mut failed = Vec::new();
    for result in results {
        match result {
            Ok(resource) => observed.push(resource),
            Err(error) => failed.push(error),
        }
    }
    match failed.len() {
        0 => Ok(observed),
        1 => Err(failed.remove(0)),
        _ => Err(Error::Several(failed)),
    }
}

/// The ARNs of what carries the pipeline's mark. Tags are found with a delay, so each is still to be read.
async fn owned(aws: &Aws, pipeline: &str) -> Result<Vec<String>, AwsError> {
    let (mut tagged, roles) = tokio::try_join!(tagged(aws, pipeline), roles(aws, pipeline))?;
    tagged.extend(roles);
    Ok(tagged)
}

async fn tagged(aws: &Aws, pipeline: &str) -> Result<Vec<String>, AwsError> {
    let filter = TagFilter::builder().key(owner::PIPELINE_TAG).values(pipeline).build();
    let mut arns = Vec::new();
    let mut token = None;
    loop {
        let request = aws.tagging.get_resources().tag_filters(filter.clone()).set_pagination_token(token);
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
        let request = aws.iam.list_roles().path_prefix(owner::role_path(pipeline)).set_marker(marker);
        let page = request.send().await.call("iam:ListRoles")?;
        arns.extend(page.roles.into_iter().map(|role| role.arn));
        marker = page.marker;
        if marker.is_none() {
            return Ok(arns);
        }
    }
}

/// What a deployer needs for [`find`] beyond reading what is declared. Neither can be bound to a resource (service
/// authorization reference).
pub const FIND_RIGHTS: [&str; 2] = ["tag:GetResources", "iam:ListRoles"];
