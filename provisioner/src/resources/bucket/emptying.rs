//! The deletion of all objects of the bucket, with all of their versions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use aws_sdk_s3::types::{Delete, EncodingType, ObjectIdentifier};
use futures_util::stream::{self, TryStreamExt};

use crate::aws::{Aws, Call, ResourceError, absent_on, denied_action, listing};
use crate::error::Error;
use crate::reconcile::resource::StepContext;
use crate::text::counted;

use super::state::Bucket;

/// The maximum number of concurrent delete calls; each deletes a page of up to 1,000 versions.
const CONCURRENT_DELETES: usize = 8;

/// The maximum number of complete listings. The last one finds no versions, unless other writers keep adding objects.
const PASSES: usize = 10;

/// The position at which a listing continues.
#[derive(Debug, Default)]
struct Cursor {
    key: Option<String>,
    version: Option<String>,
}

/// The maximum number of pages that are listed to count the objects before a deletion.
const COUNTED_PAGES: usize = 20;

impl Bucket {
    /// Returns the number of objects, and of their versions if there are more.
    pub(super) async fn content(&self, aws: &Aws) -> Result<String, ResourceError> {
        let (versions, mut objects, mut last) = (AtomicU64::new(0), 0, None);
        let mut cursor = Some(Cursor::default());
        for _ in 0..COUNTED_PAGES {
            let Some((page, next)) = self.page(aws, cursor.take(), &versions).await? else { break };
            for identifier in page {
                objects += u64::from(last.as_ref() != Some(&identifier.key));
                last = Some(identifier.key);
            }
            cursor = next;
        }
        let versions = versions.load(Relaxed);
        let more = if cursor.is_some() { "more than " } else { "" };
        Ok(match versions == objects {
            true => format!("{more}{}", counted(objects, "object")),
            false => format!("{more}{} in {}", counted(objects, "object"), counted(versions, "version")),
        })
    }

    /// Deletes every version of every object. The listing runs one page ahead of the deletions, and is repeated until
    /// it finds no versions, since objects may arrive in the meantime.
    pub(super) async fn empty(&self, step: &StepContext<'_>) -> Result<(), ResourceError> {
        let (found, done) = (AtomicU64::new(0), AtomicU64::new(0));
        for _ in 0..PASSES {
            let before = found.load(Relaxed);
            let pages = stream::try_unfold(Some(Cursor::default()), |cursor| self.page(step.aws, cursor, &found));
            pages
                .try_for_each_concurrent(CONCURRENT_DELETES, |versions| async {
                    let count = versions.len();
                    self.delete_versions(step.aws, versions).await?;
                    let earlier = done.fetch_add(u64::try_from(count).unwrap_or_default(), Relaxed);
                    (step.on_progress)(earlier + u64::try_from(count).unwrap_or_default(), found.load(Relaxed));
                    Ok(())
                })
                .await?;
            if found.load(Relaxed) == before {
                break;
            }
        }
        // If versions remain, S3 refuses the deletion of the bucket with an error that names the cause.
        Ok(())
    }

    /// Returns the versions on a page, and the position of the next page.
    async fn page(
        &self,
        aws: &Aws,
        cursor: Option<Cursor>,
        found: &AtomicU64,
    ) -> Result<Option<(Vec<ObjectIdentifier>, Option<Cursor>)>, ResourceError> {
        let Some(cursor) = cursor else { return Ok(None) };
        let request = aws.s3.list_object_versions().bucket(&self.name).expected_bucket_owner(&self.account);
        let request =
            request.encoding_type(EncodingType::Url).set_key_marker(cursor.key).set_version_id_marker(cursor.version);
        let Some(page) = absent_on(request.send().await.call("s3:ListBucketVersions"), &["NoSuchBucket"])? else {
            return Ok(None);
        };
        let plain = |key: &str| listing::decoded(page.encoding_type(), key);
        let versions = page.versions().iter().map(|v| (v.key(), v.version_id()));
        let markers = page.delete_markers().iter().map(|m| (m.key(), m.version_id()));
        let identifiers: Result<Vec<ObjectIdentifier>, _> = versions
            .chain(markers)
            .filter_map(|(key, version)| key.map(|key| (key, version)))
            .map(|(key, version)| {
                ObjectIdentifier::builder().key(plain(key)).set_version_id(version.map(str::to_owned)).build()
            })
            .collect();
        let identifiers = identifiers?;
        found.fetch_add(u64::try_from(identifiers.len()).unwrap_or_default(), Relaxed);
        let more = page.is_truncated == Some(true);
        let key = page.next_key_marker().map(plain);
        let next = more.then_some(Cursor { key, version: page.next_version_id_marker });
        Ok(Some((identifiers, next)))
    }

    async fn delete_versions(&self, aws: &Aws, versions: Vec<ObjectIdentifier>) -> Result<(), ResourceError> {
        // A list of keys is XML, which cannot carry control characters; S3 refuses all of such a list.
        let (single, versions): (Vec<_>, Vec<_>) =
            versions.into_iter().partition(|version| version.key().chars().any(|c| c.is_control() || c >= '\u{fffe}'));
        for ObjectIdentifier { key, version_id, .. } in single {
            let request = aws.s3.delete_object().bucket(&self.name).key(key).set_version_id(version_id);
            let request = request.expected_bucket_owner(&self.account);
            request.send().await.call("s3:DeleteObjectVersion")?;
        }
        if versions.is_empty() {
            return Ok(());
        }
        let delete = Delete::builder().set_objects(Some(versions)).quiet(true).build()?;
        let request = aws.s3.delete_objects().bucket(&self.name).expected_bucket_owner(&self.account);
        let deleted = request.delete(delete).send().await.call("s3:DeleteObjectVersion")?;
        // The call succeeds even if S3 refuses to delete an object, and a retry would be refused again.
        let Some(refused) = deleted.errors().first() else { return Ok(()) };
        Err(Error::conflict(
            format!(
                "failed to delete object {} of bucket {}: {} {}",
                refused.key().unwrap_or_default().escape_debug(),
                self.name,
                refused.code().unwrap_or_default(),
                refused.message().unwrap_or_default(),
            ),
            // A lock or a policy of the bucket refuses with the same code, and then names no action or an explicit deny.
            match refused.message() {
                Some(message) if message.contains("no identity-based policy allows") => {
                    format!("allow the caller {}", denied_action(message, "s3:DeleteObjectVersion"))
                }
                _ => "remove the protection of the object, then run destroy again".to_owned(),
            },
        )
        .into())
    }
}
