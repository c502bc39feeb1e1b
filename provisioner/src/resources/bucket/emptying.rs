//! Deletes all objects of the bucket, with all of their versions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use futures_util::stream::{self, TryStreamExt};

use crate::aws::ResourceError;
use crate::aws::{Aws, Call, absent_on};
use crate::error::Error;
use crate::reconcile::resource::StepContext;

use super::state::Bucket;

/// Pages of up to a thousand versions that are deleted at the same time.
const DELETES_AT_ONCE: usize = 8;

/// Listings, the last of which finds nothing, unless somebody goes on writing into the bucket.
const PASSES: usize = 10;

/// Where a listing goes on.
#[derive(Debug, Default)]
struct Cursor {
    key: Option<String>,
    version: Option<String>,
}

impl Bucket {
    /// Deletes every version of every object: one lists, a page ahead, while others delete. What arrives meanwhile is
    /// found by listing again, until there is nothing.
    pub(super) async fn empty(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let (found, done) = (AtomicU64::new(0), AtomicU64::new(0));
        for _ in 0..PASSES {
            let before = found.load(Relaxed);
            let pages = stream::try_unfold(Some(Cursor::default()), |cursor| self.page(step.aws, cursor, &found));
            pages
                .try_for_each_concurrent(DELETES_AT_ONCE, |doomed| async {
                    let count = doomed.len();
                    self.delete_objects(step.aws, doomed).await?;
                    let now = done.fetch_add(u64::try_from(count).unwrap_or_default(), Relaxed);
                    (step.on_progress)(now + u64::try_from(count).unwrap_or_default(), found.load(Relaxed));
                    Ok(())
                })
                .await?;
            if found.load(Relaxed) == before {
                break;
            }
        }
        // Where it never ends, S3 says so when the bucket is deleted.
        Ok(())
    }

    /// The versions of a page, and where the next one begins.
    async fn page(
        &self,
        aws: &Aws,
        cursor: Option<Cursor>,
        found: &AtomicU64,
    ) -> Result<Option<(Vec<ObjectIdentifier>, Option<Cursor>)>, ResourceError> {
        let Some(cursor) = cursor else { return Ok(None) };
        let request = aws.s3.list_object_versions().bucket(&self.name).expected_bucket_owner(&self.account);
        let request = request.set_key_marker(cursor.key).set_version_id_marker(cursor.version);
        let Some(page) = absent_on(request.send().await.call("s3:ListBucketVersions"), &["NoSuchBucket"])? else {
            return Ok(None);
        };
        let versions = page.versions().iter().map(|v| (v.key(), v.version_id()));
        let markers = page.delete_markers().iter().map(|m| (m.key(), m.version_id()));
        let doomed: Result<Vec<ObjectIdentifier>, _> = versions
            .chain(markers)
            .filter_map(|(key, version)| key.map(|key| (key, version)))
            .map(|(key, version)| {
                ObjectIdentifier::builder().key(key).set_version_id(version.map(str::to_owned)).build()
            })
            .collect();
        let doomed = doomed?;
        found.fetch_add(u64::try_from(doomed.len()).unwrap_or_default(), Relaxed);
        let more = page.is_truncated == Some(true);
        let next = more.then_some(Cursor { key: page.next_key_marker, version: page.next_version_id_marker });
        Ok(Some((doomed, next)))
    }

    async fn delete_objects(&self, aws: &Aws, doomed: Vec<ObjectIdentifier>) -> Result<(), ResourceError> {
        if doomed.is_empty() {
            return Ok(());
        }
        let delete = Delete::builder().set_objects(Some(doomed)).quiet(true).build()?;
        let request = aws.s3.delete_objects().bucket(&self.name).expected_bucket_owner(&self.account);
        let deleted = request.delete(delete).send().await.call("s3:DeleteObjectVersion")?;
        // A refusal of one object is no failure of the call, and asking again would not end.
        let Some(refused) = deleted.errors().first() else { return Ok(()) };
        Err(Error::conflict(
            format!(
                "failed to delete object {} of bucket {}: {} {}",
                refused.key().unwrap_or_default().escape_debug(),
                self.name,
                refused.code().unwrap_or_default(),
                refused.message().unwrap_or_default(),
            ),
            "lift what protects the object, then run destroy again",
        )
        .into())
    }
}
